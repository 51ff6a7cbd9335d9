"""Rules for all tests: no network past loopback, a workspace of one's own, no foreign keys, no file left behind."""

import gc
import ipaddress
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from tests.zygote import ForkedWithAll

REPOSITORY = Path(__file__).resolve().parent.parent
NOT_LOOKED_AT = {".git", ".venv", ".venv-peers", ".hypothesis", "__pycache__"}  # and the caches of tools
os.environ["HF_HUB_OFFLINE"] = "1"
# Under nohup, or in the background of a shell, these are ignored, and would be by every process that a test starts.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
# A change is judged on the same examples every time; exploring is for the desk.
hypothesis.settings.register_profile("ci", derandomize=True, deadline=None)
hypothesis.settings.register_profile("desk", deadline=None)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "desk")
os.environ.setdefault("OMP_NUM_THREADS", "1")
# It helps against a power cut alone, which no test has, and is milliseconds of waiting each time. Processes that are
# started from nothing keep it.
os.fsync = lambda _: None


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


def _files() -> set[str]:
    paths: set[str] = set()
    for folder, folders, names in os.walk(REPOSITORY):
        folders[:] = [name for name in folders if name not in NOT_LOOKED_AT and not name.endswith("_cache")]
        paths.update(os.path.join(folder, name) for name in names)  # noqa: PTH118 - a thousand files, after each module
    return paths


@pytest.fixture(scope="session")
def _files_of_the_checkout() -> set[str]:
    """Those before the first module; each module adds what it left, which is its own failure alone."""
    return _files()


@pytest.fixture(autouse=True, scope="module")
def _checkout_stays_as_it_is(_files_of_the_checkout: set[str]) -> Iterator[None]:
    yield
    new_files = _files() - _files_of_the_checkout
    _files_of_the_checkout |= new_files
    assert not new_files, f"a test left files in the checkout: {sorted(new_files)}"


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What is loaded stays to the end: a collection of garbage that looks at all of it takes a second."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.collect()
        gc.freeze()
        gc.enable()


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable() -> Generator[None, Any, Any]:
    """A report as two workers can exchange it: half a character cannot be sent between processes."""
    return _sendable((yield))


def _sendable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode(errors="backslashreplace").decode()
    if isinstance(value, dict):
        return {_sendable(key): _sendable(element) for key, element in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_sendable(element) for element in value)
    return value


@pytest.fixture(autouse=True, scope="session")
def user_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The checkout's models, and what is found out about them, once for all tests and the processes they start."""
    folder = tmp_path_factory.mktemp("cache")
    (folder / "models").symlink_to(REPOSITORY / "models")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AGENTLAB_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="module")
def forked_workers() -> Iterator[None]:
    """What this process starts of agentlab is forked: for a module that asks for no measure of memory."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subprocess, "Popen", ForkedWithAll)
        subprocess.run([sys.executable, "-c", ""], check=True)  # the first one waits for what forks: not within a test
        yield


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty workspace, current folder included. The embedded model is found through the cache folder."""
    root = tmp_path / "workspace"
    root.mkdir()
    monkeypatch.setenv("AGENTLAB_HOME", str(root))
    monkeypatch.chdir(root)
    return root


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pictures of a report are put together but not painted, which is half of a small study's time."""
    for module in ("agentlab.nas.plots", "agentlab.bench.load.plots", "agentlab.evolve.report"):
        monkeypatch.setattr(f"{module}.svg", lambda _: "<svg/>")


@pytest.fixture
def plug_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str, str], None]]:
    """Installs a package of one module for the test: `plug_in(group, "name = module:attribute", source)`."""
    modules: list[str] = []

    def install(group: str, entry: str, source: str) -> None:
        module = entry.partition("=")[2].partition(":")[0].strip()
        modules.append(module)
        (tmp_path / "packages" / f"{module}-1.0.dist-info").mkdir(parents=True)
        (tmp_path / "packages" / f"{module}.py").write_text(source)
        about = {"METADATA": f"Name: {module}\nVersion: 1.0\n", "entry_points.txt": f"[{group}]\n{entry}\n"}
        for name, text in about.items():
            (tmp_path / "packages" / f"{module}-1.0.dist-info" / name).write_text(text)
        monkeypatch.syspath_prepend(str(tmp_path / "packages"))

    yield install
    for module in modules:
        sys.modules.pop(module, None)
