"""What a capability gets from the edge besides its config."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from agentlab.config.workspace import Workspace
from agentlab.runs.stop import StopFlag


@dataclass(frozen=True, slots=True)
class Context:
    """The workspace, the environment (with the workspace's `.env` below it), and the request to stop."""

    workspace: Workspace
    env: Mapping[str, str]
    stop: StopFlag = field(default_factory=StopFlag)
