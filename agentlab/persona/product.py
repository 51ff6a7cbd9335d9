"""The adapter's folder in the workspace: adapter, card and a page for readers, whole or not at all."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agentlab.errors import UsageError
from agentlab.models.staging import stage
from agentlab.runs.atomic import storage_errors, sync_folder, write_bytes, write_json, write_text

CARD = "card.json"
_FILES = ("adapter_config.json", "adapter_model.safetensors")


def check_free(folder: Path, run: str | None) -> None:
    """See that a folder may be written: it is not there, or this run has made it.

    Raises:
        UsageError: it belongs to somebody else.
    """
    if folder.exists() and (run is None or _made_by(folder) != run):
        raise UsageError(
            f"{folder} is there already.", hint=f"Choose another name or --out, or remove it: rm -r {folder}"
        )


def write_product(trained: Path, folder: Path, card: Mapping[str, Any], page: str) -> None:
    """Put a trained adapter where it belongs.

    Args:
        trained: a folder in PEFT format.
        folder: where to; what this run has put there before is replaced.
        card: what is known about it, plain data.
        page: its README.

    Raises:
        StorageError: disk full, read-only or not ours; nothing half-written is left.
    """
    needed = sum((trained / name).stat().st_size for name in _FILES)
    with stage(folder.parent, needed, f"writing {folder.name}") as place:
        ready = place / folder.name
        with storage_errors(ready):
            ready.mkdir()
        for name in _FILES:
            write_bytes(ready / name, (trained / name).read_bytes())
        write_json(ready / CARD, card)
        write_text(ready / "README.md", page)
        with storage_errors(folder):
            if folder.exists():
                folder.rename(place / "before")
            ready.rename(folder)
            sync_folder(folder.parent)


def _made_by(folder: Path) -> str | None:
    """The run that a folder's card names."""
    try:
        found = json.loads((folder / CARD).read_text(encoding="utf-8"))["run"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if isinstance(found, str) else None


def page_of(name: str, card: Mapping[str, Any]) -> str:
    """A README: what it is, and how it is used."""
    metrics, base = card["metrics"], card["base"]["path"]
    return (
        f"# {name}\n\n"
        f"A LoRA adapter for {Path(base).name}, made by `agentlab train-persona`; `{CARD}` says of what.\n\n"
        f"Loss on held-out conversations: {_loss(metrics['loss_before'])} before training, "
        f"{_loss(metrics['eval_loss'])} after.\n\n"
        f"- `agentlab adapters show {name}`\n"
        f"- `agentlab adapters merge {name} --out merged` for a checkpoint of its own\n"
        f"- `agentlab adapters export {name} --format gguf --out {name}.gguf` for llama.cpp\n"
    )


def _loss(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.3f}"
