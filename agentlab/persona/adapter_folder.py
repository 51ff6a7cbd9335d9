"""The adapter's folder in the workspace: adapter, card and a page for readers, whole or not at all.

Whether it can be put where it is to go is asked before it is trained, and again at the end.
"""

import contextlib
import errno
import json
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

from agentlab.config.workspace import Workspace
from agentlab.errors import RunLockedError, StorageError, UsageError
from agentlab.lora.settings import CONFIG_FILE
from agentlab.models.base_model import BaseFile
from agentlab.models.staging import stage
from agentlab.persona.config import PersonaConfig
from agentlab.persona.data import PersonaSource
from agentlab.persona.result import PersonaResult
from agentlab.runs.atomic import make_folder, storage_errors, sync_folder, write_bytes, write_json, write_text
from agentlab.runs.lock import Lock, is_held
from agentlab.runs.manifest import versions
from agentlab.runs.run import OpenRun

if TYPE_CHECKING:
    from agentlab.train.base import TrainingBase

SCHEMA = 1
CARD, PAGE = "card.json", "README.md"
WEIGHTS = (CONFIG_FILE, "adapter_model.safetensors")
PRODUCT = (*WEIGHTS, CARD, PAGE)
_ELSEWHERE = "Choose another folder with --out, or another name."
_LATER = "Move it, or choose another folder with --out; --resume then continues from the trained adapter."
_FLOAT = 4  # bytes of a stored weight
_MIB = 1 << 20
_SLACK = 32 * _MIB  # what staging keeps free


def check_place(folder: Path, run: str | None, needed: int) -> None:
    """See that an adapter can be written to a folder: nothing is there, or only what this run has put there.

    `run`: that writes; None for one that has not begun. `needed`: bytes of the adapter.

    Raises:
        UsageError: something else is there, or no folder can be made there.
        StorageError: the disk is full or not ours.
    """
    try:
        _lock_of(folder).lstat()  # asked of its lock, whose name is longer
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR):
            raise UsageError(f"{folder} cannot be created: {error.strerror}.", hint=_ELSEWHERE) from error
    is_made_by(folder, run)
    ancestor = next(parent for parent in folder.absolute().parents if os.path.lexists(parent))
    if not ancestor.is_dir():
        raise UsageError(f"{folder} cannot be created: {ancestor} is not a folder.", hint=_ELSEWHERE)
    if not os.access(ancestor, os.W_OK | os.X_OK):
        refused = PermissionError(errno.EACCES, "not writable", str(ancestor))
        raise StorageError(f"{folder} cannot be created: {ancestor} is not writable.", hint=_ELSEWHERE) from refused
    free = shutil.disk_usage(ancestor).free
    if free < needed + _SLACK:
        raise StorageError(
            f"{ancestor} has {free / _MIB:.0f} MiB free; the adapter needs {(needed + _SLACK) / _MIB:.0f} MiB.",
            hint="Free some space, or choose a folder on another disk with --out.",
        )


@contextlib.contextmanager
def hold_folders(folders: Iterable[Path]) -> Iterator[None]:
    """Keep other runs from making these folders inside the `with` block. A kill gives the places back.

    Raises:
        UsageError: another run makes one of them now.
        StorageError: nothing can be written there.
    """
    with contextlib.ExitStack() as stack:
        for folder in folders:
            path = _lock_of(folder)
            try:
                make_folder(path.parent)
                lock = Lock(path, run_id=folder.name, now=time.time())
            except RunLockedError:
                raise _in_the_making(folder) from None
            except StorageError as error:
                raise StorageError(f"{folder} cannot be created: {error.message}", hint=_ELSEWHERE) from error
            stack.callback(lock.release)
            stack.callback(path.unlink, missing_ok=True)  # first: nobody may take a file that goes
        yield


def check_free(folder: Path) -> None:
    """See that no other run is making an adapter's folder now.

    Raises:
        UsageError: one is.
    """
    if is_held(_lock_of(folder)):
        raise _in_the_making(folder)


def _lock_of(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.lock")


def _in_the_making(folder: Path) -> UsageError:
    return UsageError(f"Another run is training the adapter {folder}.", hint=f"Wait for it to finish. {_ELSEWHERE}")


def room_for(config: PersonaConfig, base: BaseFile) -> int:
    """Bytes of an adapter, at most; 0 while the base is not there to tell its shape.

    Raises:
        ModelFileError: see `read_shape`.
    """
    if not base.path.is_dir():
        return 0
    from agentlab.train.estimate import read_shape

    return _FLOAT * read_shape(base.path).adapter_weights(config.lora.r)


def is_made_by(folder: Path, run: str | None) -> bool:
    """Whether a run has made a folder and everything in it; False where nothing is there.

    Raises:
        UsageError: something else is there.
    """
    if not os.path.lexists(folder):
        return False
    otherwise = _ELSEWHERE if run is None else _LATER
    if folder.is_symlink():
        raise UsageError(f"{folder} is a symbolic link.", hint=otherwise)
    if run is None or _run_of(folder) != run:
        remove = f" Or remove it: rm -r {quote(str(folder))}" if (folder / CONFIG_FILE).is_file() else ""
        raise UsageError(f"{folder} already exists.", hint=f"{otherwise}{remove}")
    if added := sorted({path.name for path in folder.iterdir()} - set(PRODUCT)):
        raise UsageError(
            f"{folder} contains {added[0]!r}, which agentlab did not create; replacing the folder would delete it.",
            hint="Move it elsewhere, then continue with --resume.",
        )
    return True


def _run_of(folder: Path) -> Any:
    """The run that a folder's card names."""
    try:
        return json.loads((folder / CARD).read_text(encoding="utf-8"))["run"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_product(trained: Path, folder: Path, card: Mapping[str, Any], page: str) -> None:
    """Put a trained adapter where it belongs; what the same run has put there before is replaced.

    Args:
        trained: a folder in PEFT format.
        card: what is known about it, plain data; `run` is the name of the run.

    Raises:
        UsageError: something is there that this run has not made.
        StorageError: disk full, read-only or not ours; nothing half-written is left.
    """
    needed = sum((trained / name).stat().st_size for name in WEIGHTS)
    check_place(folder, card["run"], needed)
    with stage(folder.parent, needed, f"writing {folder.name}") as scratch:
        ready = scratch / folder.name
        with _under_its_name(ready, folder):
            ready.mkdir()
            for name in WEIGHTS:
                write_bytes(ready / name, (trained / name).read_bytes())
            write_json(ready / CARD, card)
            write_text(ready / PAGE, page)
            if is_made_by(folder, card["run"]):  # asked again: another run may have been faster
                folder.rename(scratch / "before")
            ready.rename(folder)
            sync_folder(folder.parent)


@contextlib.contextmanager
def _under_its_name(ready: Path, folder: Path) -> Iterator[None]:
    """What the disk complains of is told of the folder that was to be, not of the hidden one that it is made in."""
    try:
        with storage_errors(folder):
            yield
    except StorageError as error:
        raise StorageError(error.message.replace(str(ready), str(folder)), hint=error.hint) from error


def page_of(folder: Path, workspace: Workspace, card: Mapping[str, Any]) -> str:
    """A README: what it is, and how it is used where it lies."""
    metrics, base, name = card["metrics"], card["base"]["path"], card["name"]
    called = quote(folder.name if folder.parent == workspace.adapters else str(folder))
    return (
        f"# {name}\n\n"
        f"A LoRA adapter for {Path(base).name}, trained with `agentlab train-persona`; `{CARD}` has the details.\n\n"
        f"Loss on held-out conversations: {_loss(metrics['loss_before'])} before training, "
        f"{_loss(metrics['eval_loss'])} after.\n\n"
        f"{_system_text(card['data']['system'])}"
        f"- `agentlab llm chat --adapter {called}` to talk to it\n"
        f"- `agentlab adapters show {called}`\n"
        f"- `agentlab adapters merge {called} --out merged` for a standalone checkpoint\n"
        f"- `agentlab adapters export {called} --format gguf --out {name}.gguf` for llama.cpp\n"
    )


def _system_text(system: str | None) -> str:
    if system is None:
        return ""
    indented = "".join(f"    {line}\n" for line in system.splitlines())
    return f"It was trained with this system message; use the same one at inference:\n\n{indented}\n"


def _loss(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.3f}"


def card_of(
    config: PersonaConfig, source: PersonaSource, row: PersonaResult, base: "TrainingBase", run: OpenRun
) -> dict[str, Any]:
    """Plain data for `card.json`: enough to make the adapter again, and to know whether it fits a base."""
    return {
        "schema": SCHEMA,
        "name": row.name,
        "base": {"path": str(base.path), "fingerprint": base.fingerprint, "precision": base.precision},
        "data": {
            "path": str(source.data.learnt.path),
            "eval_path": None if source.data.held_out is None else str(source.data.held_out.path),
            **source.hashes,
            "conversations": row.conversations,
            "held_out": row.held_out,
            "supervised_tokens": row.supervised_tokens,
            "system": source.system,
        },
        "lora": config.lora.model_dump(mode="json"),
        "training": config.training.model_dump(mode="json"),
        "together": config.together,
        "metrics": {
            "loss_before": row.before,
            "eval_loss": row.eval_loss,
            "gain": None if row.gain is None else row.gain.model_dump(mode="json"),
            "best_step": row.best_step,
            "steps": row.steps,
        },
        "versions": versions(),
        "seed": config.seed,
        "run": run.id,
    }
