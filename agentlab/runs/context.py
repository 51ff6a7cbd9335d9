"""What a capability gets from the edge besides its config."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from agentlab.config.workspace import Workspace
from agentlab.runs.stop import StopFlag

Value = bool | int | float | str


class Reviewer(Protocol):
    """A person who looks at every proposal before it costs anything."""

    def review(
        self,
        name: str,
        params: Mapping[str, Value],
        *,
        compared_with: Mapping[str, Value],
        source: str,
        problems: Callable[[Mapping[str, Value]], list[str]],
    ) -> Mapping[str, Value] | None:
        """The configuration to try: as proposed or edited so that `problems` finds nothing; None to turn it down.

        Raises:
            Interrupted: nobody answers any more.
        """
        ...


@dataclass(frozen=True, slots=True)
class Context:
    """The workspace, the environment (with the workspace's `.env` below it), the request to stop, and a reviewer.

    `resumes` is the folder of the run that is gone on with; None for a new one.
    """

    workspace: Workspace
    env: Mapping[str, str]
    stop: StopFlag = field(default_factory=StopFlag)
    reviewer: Reviewer | None = None
    resumes: Path | None = None
