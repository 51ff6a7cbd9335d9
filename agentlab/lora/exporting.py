"""Handing an adapter to other programs: a plain PEFT copy, and what a GGUF adapter has to know of its base model."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agentlab.errors import DataError, MissingFileError, UnknownNameError
from agentlab.gguf import metadata
from agentlab.lora.anatomy import Tell
from agentlab.lora.card import CARD_FILE
from agentlab.lora.delta import Delta
from agentlab.lora.gguf_export import GgufBase
from agentlab.lora.reading import Adapter
from agentlab.lora.writing import derive
from agentlab.runs.atomic import read_text

_CONFIG = "config.json"
_MOST_BYTES = 4 << 20
_MOST = 1 << 20  # blocks, heads or numbers of a token
# model_type of transformers -> general.architecture of llama.cpp, where the adapter can be converted
_ARCHITECTURES = {
    "gemma2": "gemma2",
    "gemma3_text": "gemma3",
    "llama": "llama",
    "mistral": "llama",
    "phi3": "phi3",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
}
# Width of a head by architecture where a config leaves it open and transformers does not divide the hidden size.
_WIDTHS = {"gemma2": 256, "gemma3": 256, "qwen3": 128}


def export_peft(adapter: Adapter, out: Path, dtype: str, tell: Tell) -> None:
    """Copy an adapter so that every module has one rank and scale, with its card, whole or not at all.

    Args:
        adapter: open.
        out: the folder to make.
        dtype: float32, bfloat16 or float16.
        tell: called before each module.

    Raises:
        UsageError: `out` exists, or the type is unknown.
        DataError: a number does not fit the type.
        StorageError: the disk is full or not ours.
    """
    done, card = list[str](), adapter.path / CARD_FILE

    def copy(module: str, deltas: list[Delta]) -> Delta:
        tell(len(done), len(adapter.modules), module)
        done.append(module)
        return deltas[0]

    def finish(folder: Path) -> None:
        if card.is_file():
            shutil.copyfile(card, folder / CARD_FILE)

    rank = max(module.rank for module in adapter.modules.values())
    derive([adapter], out, rank, copy, dtype=dtype, finish=finish)


def gguf_base(path: Path) -> GgufBase:
    """What a GGUF adapter has to know, from its base model's GGUF file or checkpoint folder.

    Raises:
        MissingFileError: there is no such file, or the folder has no config.json.
        UnknownNameError: llama.cpp has no counterpart that is known for the model's type.
        DataError: the config is damaged, or the model's layers differ in their heads.
        ModelFileError: the GGUF file is damaged.
    """
    return _of_checkpoint(path / _CONFIG) if path.is_dir() else _of_gguf(path)


def _of_gguf(path: Path) -> GgufBase:
    found = metadata.read(path)
    if len(set(found.heads_kv)) != 1:
        raise DataError(f"{path} has layers with different numbers of heads, for which adapters are not exported.")
    return GgufBase(
        architecture=found.architecture,
        blocks=found.layers,
        hidden=found.embedding,
        heads=found.heads,
        kv_heads=found.heads_kv[0],
        key=found.key_length,
        value=found.value_length,
    )


def _of_checkpoint(path: Path) -> GgufBase:
    if not path.is_file():
        raise MissingFileError(
            f"{path.parent} has no {path.name}.", hint="Name a checkpoint folder or a GGUF file with --base."
        )
    try:
        found = json.loads(read_text(path, _MOST_BYTES))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read: {str(error)[:200]}.") from error
    if not isinstance(found, dict):
        raise DataError(f"{path} is not a JSON object.")
    kind = str(found.get("model_type"))[:64]
    if kind not in _ARCHITECTURES:
        raise UnknownNameError("model type with GGUF adapters", kind, sorted(_ARCHITECTURES))
    architecture, hidden = _ARCHITECTURES[kind], _number(path, found, "hidden_size")
    heads = _number(path, found, "num_attention_heads")
    kv_heads = heads if found.get("num_key_value_heads") is None else _number(path, found, "num_key_value_heads")
    given = found.get("head_dim") is not None
    width = _number(path, found, "head_dim") if given else _WIDTHS.get(architecture, hidden // heads)
    return GgufBase(architecture, _number(path, found, "num_hidden_layers"), hidden, heads, kv_heads, width, width)


def _number(path: Path, found: Mapping[str, Any], key: str) -> int:
    value = found.get(key)
    if type(value) is not int or not 1 <= value <= _MOST:
        raise DataError(f"{path}: {key} is {str(value)[:64]}, not a number of 1 to {_MOST}.")
    return value
