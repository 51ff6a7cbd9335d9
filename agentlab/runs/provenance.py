"""Where a result came from: versions, git commit, machine."""

import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import agentlab

_PACKAGES = ("torch", "numpy", "optuna", "transformers", "llama-cpp-python", "pydantic")
_GIT_SECONDS = 5


def versions() -> dict[str, str]:
    """Of agentlab, Python and the libraries that can change a number. Imports none of them."""
    found = {"agentlab": agentlab.__version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "absent"
    return found


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
