"""What a capability gets from the edge besides its config."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from agentlab.config.workspace import Workspace
from agentlab.runs.stop import StopFlag


@dataclass(frozen=True, slots=True)
class Context:
    """The workspace, the environment (with the workspace's `.env` below it), and the request to stop.

    `resumed_run` is the folder of the run that goes on; None for a new one. `ask_consent` tells a person what a model
    made of the config, and whether they agree; None where nobody can be asked.
    """

    workspace: Workspace
    env: Mapping[str, str]
    stop: StopFlag = field(default_factory=StopFlag)
    resumed_run: Path | None = None
    ask_consent: Callable[[str], bool] | None = None
