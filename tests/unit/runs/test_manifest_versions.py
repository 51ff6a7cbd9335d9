"""Where a result came from: our own commit, never that of a project which happens to surround us."""

import subprocess
from pathlib import Path

from agentlab.runs.manifest import git_state, versions


def commit(folder: Path) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    for words in (["init", "-q"], ["add", "-A"], [*identity, "commit", "-q", "--allow-empty", "-m", "first"]):
        subprocess.run(["git", "-C", str(folder), *words], check=True)
    done = subprocess.run(["git", "-C", str(folder), "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_commit_and_whether_the_checkout_was_changed(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("1")
    head = commit(tmp_path)
    assert git_state(tmp_path) == {"commit": head, "dirty": False}
    (tmp_path / "file").write_text("2")
    assert git_state(tmp_path) == {"commit": head, "dirty": True}


def test_a_repository_further_up_is_somebody_elses(tmp_path: Path) -> None:
    inner = tmp_path / "venv" / "site-packages"
    inner.mkdir(parents=True)
    commit(tmp_path)
    assert git_state(inner) is None


def test_outside_a_repository_there_is_no_commit(tmp_path: Path) -> None:
    assert git_state(tmp_path) is None


def test_versions_name_what_can_change_a_number() -> None:
    assert {"agentlab", "python", "torch", "numpy", "optuna"} <= set(versions())
