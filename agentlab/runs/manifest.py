"""The manifest: who ran what, when, with which outcome. Small, versioned, replaced atomically."""

import json
import platform
import subprocess
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

import agentlab
from agentlab.errors import RunUnreadableError
from agentlab.runs.atomic import read_text
from agentlab.runs.document import with_spread
from agentlab.runs.events import Event
from agentlab.stats.control import Control

SCHEMA_VERSION = 1
_MAX_BYTES = 4 << 20

Status = Literal["created", "running", "completed", "failed", "interrupted"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class Metric(_Frozen):
    """A headline figure; `spread` is the standard deviation of what it is the mean of, None if not known."""

    value: float
    spread: float | None = None
    unit: str = ""
    direction: Literal["lower", "higher"]

    def __str__(self) -> str:
        """`0.3251 ± 0.0012 scaled`, `144,800,000 bytes`."""
        whole = self.spread is None and self.value.is_integer()
        figure = f"{self.value:,.0f}" if whole else with_spread(self.value, self.spread)
        return f"{figure} {self.unit}".rstrip()


class RunTokens(_Frozen):
    """Language-model tokens of the whole run. None is unknown."""

    input: int | None = None
    output: int | None = None


class RunFailure(_Frozen):
    """Why a run failed."""

    kind: str
    message: str


class Manifest(_Frozen):
    """`manifest.json`. Times are ISO 8601 in UTC and never enter a result."""

    schema_version: int = SCHEMA_VERSION
    id: str
    command: str
    status: Status = "created"
    argv: list[str] = Field(default_factory=list, description="The command as typed, with secrets masked.")
    config_hash: str
    seed: int
    versions: dict[str, str] = Field(default_factory=dict)
    git: dict[str, Any] | None = Field(None, description="Commit hash, and whether there were uncommitted changes.")
    device: dict[str, Any] = Field(default_factory=dict)
    created: str
    started: str | None = None
    ended: str | None = None
    resumed: list[str] = Field(default_factory=list, description="Times at which the run was resumed.")
    parent: str | None = Field(None, description="The run that this one was derived from.")
    seconds: float = Field(0.0, description="Wall time of all sessions.")
    tokens: RunTokens = RunTokens()
    cost_usd: float | None = None
    energy_joules: float | None = None
    metrics: dict[str, Metric] = Field(default_factory=dict)
    control: Control | None = None
    error: RunFailure | None = None

    def to_json(self) -> dict[str, Any]:
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


_PACKAGES = ("torch", "numpy", "optuna", "transformers", "llama-cpp-python", "pydantic")
_GIT_SECONDS = 5


def versions() -> dict[str, str]:
    """Of agentlab, Python and the libraries that can change a number. Imports none of them."""
    installed = {"agentlab": agentlab.__version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            installed[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            installed[name] = "absent"
    return installed


def git_state(folder: Path) -> dict[str, Any] | None:
    """Commit and dirty flag of the checkout that begins at `folder`; None when there is none, or no git.

    A repository further up is somebody else's: that of a project which has agentlab in its environment.
    """
    try:
        if Path(_git(folder, "rev-parse", "--show-toplevel")).resolve() != folder.resolve():
            return None
        commit = _git(folder, "rev-parse", "HEAD")
        return {"commit": commit, "dirty": bool(_git(folder, "status", "--porcelain", "--untracked-files=no"))}
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *words: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *words],  # noqa: S607 - the user's own git
        capture_output=True,
        text=True,
        check=True,
        timeout=_GIT_SECONDS,
    )
    return done.stdout.strip()


_BEGINNINGS = ("run.started", "run.resumed")


def elapsed_seconds(manifest: Manifest, events: Sequence[Event]) -> float:
    """Wall seconds of all sessions; of one that nobody has ended, those from its first event to the last.

    A session writes its seconds into the manifest when it ends. One that is under way, or was killed, has only events.
    """
    beginnings = [event.t for event in events if event.type in _BEGINNINGS]
    sessions = (manifest.started is not None) + len(manifest.resumed)
    # with fewer beginnings than sessions, one has begun and not said so yet
    if manifest.status != "running" or not beginnings or len(beginnings) < sessions:
        return manifest.seconds
    return round(manifest.seconds + max(0.0, events[-1].t - beginnings[-1]), 3)
