"""The adapter's folder in the workspace: adapter, card and a page for readers, whole or not at all."""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

from agentlab.config.workspace import Workspace
from agentlab.errors import StorageError
from agentlab.models.staging import stage
from agentlab.persona.config import PersonaConfig
from agentlab.persona.data import Source
from agentlab.persona.place import CARD, PAGE, WEIGHTS, check_place, is_made_by
from agentlab.persona.result import PersonaResult
from agentlab.runs import provenance
from agentlab.runs.atomic import storage_errors, sync_folder, write_bytes, write_json, write_text
from agentlab.runs.run import Run

if TYPE_CHECKING:
    from agentlab.train.base import Base

SCHEMA = 1


def write_product(trained: Path, folder: Path, card: Mapping[str, Any], page: str) -> None:
    """Put a trained adapter where it belongs.

    Args:
        trained: a folder in PEFT format.
        folder: where to; what the same run has put there before is replaced.
        card: what is known about it, plain data; `run` is the name of the run.
        page: its README.

    Raises:
        UsageError: something is there that this run has not made.
        StorageError: disk full, read-only or not ours; nothing half-written is left.
    """
    needed = sum((trained / name).stat().st_size for name in WEIGHTS)
    check_place(folder, card["run"], needed)
    with stage(folder.parent, needed, f"writing {folder.name}") as place:
        ready = place / folder.name
        with _under_its_name(ready, folder):
            ready.mkdir()
            for name in WEIGHTS:
                write_bytes(ready / name, (trained / name).read_bytes())
            write_json(ready / CARD, card)
            write_text(ready / PAGE, page)
            if is_made_by(folder, card["run"]):  # asked again: another run may have been faster
                folder.rename(place / "before")
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
        f"A LoRA adapter for {Path(base).name}, made by `agentlab train-persona`; `{CARD}` says of what.\n\n"
        f"Loss on held-out conversations: {_loss(metrics['loss_before'])} before training, "
        f"{_loss(metrics['eval_loss'])} after.\n\n"
        f"{_told(card['data']['system'])}"
        f"- `agentlab llm chat --adapter {called}` to talk to it\n"
        f"- `agentlab adapters show {called}`\n"
        f"- `agentlab adapters merge {called} --out merged` for a checkpoint of its own\n"
        f"- `agentlab adapters export {called} --format gguf --out {name}.gguf` for llama.cpp\n"
    )


def _told(system: str | None) -> str:
    if system is None:
        return ""
    indented = "".join(f"    {line}\n" for line in system.splitlines())
    return f"It was trained with this system message, and is itself when it is given:\n\n{indented}\n"


def _loss(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.3f}"


def card_of(config: PersonaConfig, source: Source, row: PersonaResult, base: "Base", run: Run) -> dict[str, Any]:
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
        "versions": provenance.versions(),
        "seed": config.seed,
        "run": run.id,
    }
