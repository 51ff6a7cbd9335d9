"""Rules for all tests: no network past loopback, a workspace of one's own, no keys from outside."""

import ipaddress
import os
import socket
from pathlib import Path

import hypothesis
import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
os.environ["HF_HUB_OFFLINE"] = "1"
# A change is judged on the same examples every time; exploring is for the desk.
hypothesis.settings.register_profile("ci", derandomize=True, deadline=None)
hypothesis.settings.register_profile("desk", deadline=None)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "desk")
os.environ.setdefault("OMP_NUM_THREADS", "1")


class NetworkRefusedError(AssertionError):
    """A test tried to leave the machine."""


def _is_loopback(address: object) -> bool:
    if not isinstance(address, tuple):
        return True  # a Unix socket
    host = address[0]
    if host in ("localhost", ""):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@pytest.fixture(autouse=True)
def _loopback_only(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("connect", "connect_ex"):
        original = getattr(socket.socket, name)

        def guarded(self: socket.socket, address: object, original: object = original) -> object:
            if not _is_loopback(address):
                raise NetworkRefusedError(f"a test tried to connect to {address}")
            return original(self, address)  # type: ignore[operator]

        monkeypatch.setattr(socket.socket, name, guarded)


@pytest.fixture(autouse=True)
def _no_foreign_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.endswith(("_API_KEY", "_TOKEN")) or name in ("PLANNER_MODEL", "EVALUATOR_MODEL"):
            monkeypatch.delenv(name)


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty workspace, current folder included. The embedded model is found through the cache folder."""
    root = tmp_path / "workspace"
    root.mkdir()
    monkeypatch.setenv("AGENTLAB_HOME", str(root))
    monkeypatch.setenv("AGENTLAB_CACHE", str(REPOSITORY))
    monkeypatch.chdir(root)
    return root
