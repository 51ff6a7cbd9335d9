"""The manifest: who ran what, when, with which outcome. Small, versioned, replaced atomically."""

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from agentlab.errors import RunUnreadableError
from agentlab.runs.atomic import read_text
from agentlab.stats.control import Control

SCHEMA_VERSION = 1
_MAX_BYTES = 4 << 20

Status = Literal["created", "running", "completed", "failed", "interrupted"]


class Metric(BaseModel):
    """A headline figure; `spread` is the standard deviation of what it is the mean of, None if not known."""

    model_config = ConfigDict(frozen=True)

    value: float
    spread: float | None = None
    unit: str = ""
    direction: Literal["lower", "higher"]


class Tokens(BaseModel):
    """Language-model tokens of the whole run. None is unknown."""

    model_config = ConfigDict(frozen=True)

    input: int | None = None
    output: int | None = None


class Failure(BaseModel):
    """Why a run failed."""

    model_config = ConfigDict(frozen=True)

    kind: str
    message: str


class Manifest(BaseModel):
    """`manifest.json`. Times are ISO 8601 in UTC and never enter a result."""

    model_config = ConfigDict(frozen=True)

    schema_version: int = SCHEMA_VERSION
    id: str
    command: str
    status: Status = "created"
    argv: list[str] = Field(default_factory=list, description="As typed, secrets masked.")
    config_hash: str
    seed: int
    versions: dict[str, str] = Field(default_factory=dict)
    git: dict[str, Any] | None = Field(None, description="Commit and whether the checkout had changes.")
    device: dict[str, Any] = Field(default_factory=dict)
    created: str
    started: str | None = None
    ended: str | None = None
    resumed: list[str] = Field(default_factory=list, description="When it was resumed.")
    parent: str | None = Field(None, description="The run this one was derived from.")
    seconds: float = Field(0.0, description="Wall time over all its sessions.")
    tokens: Tokens = Tokens()
    cost_usd: float | None = None
    energy_joules: float | None = None
    metrics: dict[str, Metric] = Field(default_factory=dict)
    control: Control | None = None
    error: Failure | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain data for `manifest.json`."""
        return self.model_dump(mode="json")


def read_manifest(folder: Path) -> Manifest:
    """Read `manifest.json` of a run folder, this schema version or an older one.

    Raises:
        RunUnreadableError: absent, damaged, or written by a newer agentlab.
    """
    path = folder / "manifest.json"
    try:
        raw = json.loads(read_text(path, _MAX_BYTES))
        version = raw["schema_version"]
        if version > SCHEMA_VERSION:
            raise RunUnreadableError(
                f"{path} was written by a newer agentlab (schema {version}).", hint="Upgrade agentlab to read it."
            )
        return Manifest.model_validate(raw)
    except OSError as error:
        raise RunUnreadableError(f"{path} cannot be read: {error.strerror}.", hint="Is this a run folder?") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise RunUnreadableError(
            f"{path} is damaged.", hint="The events of the run are in events.jsonl beside it."
        ) from error
