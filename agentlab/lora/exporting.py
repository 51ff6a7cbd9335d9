"""Handing an adapter to other programs: a plain PEFT copy, and what a GGUF adapter has to know of its base model."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from agentlab.errors import DataError, MissingFileError, UnknownNameError
from agentlab.gguf import metadata
from agentlab.lora.adapter_profile import Tell
from agentlab.lora.card import CARD_FILE
from agentlab.lora.delta import LoraDelta
from agentlab.lora.gguf_export import GgufBase
from agentlab.lora.reading import Adapter
from agentlab.lora.writing import derive
from agentlab.runs.atomic import read_text

_CONFIG = "config.json"
_MOST_BYTES = 4 << 20
_ANOTHER = "Download the base model again, or pass another copy of it with --base."
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
    """Copy an adapter with its card, whole or not at all, so that every module has one rank and scale; see `derive`."""
    done, card = list[str](), adapter.path / CARD_FILE

    def copy(module: str, deltas: list[LoraDelta]) -> LoraDelta:
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
    model = metadata.read(path)
    if len(set(model.heads_kv)) != 1:
        raise DataError(
            f"{path} has a different number of heads in some layers, which adapter export does not support."
        )
    key, value = model.key_length, model.value_length
    return GgufBase(model.architecture, model.layers, model.embedding, model.heads, model.heads_kv[0], key, value)


def _of_checkpoint(path: Path) -> GgufBase:
    if not path.is_file():
        raise MissingFileError(
            f"{path.parent} has no {path.name}.", hint="Pass a checkpoint folder or a GGUF file with --base."
        )
    try:
        config = json.loads(read_text(path, _MOST_BYTES))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"Cannot read {path}: {str(error)[:200]}.", hint=_ANOTHER) from error
    if not isinstance(config, dict):
        raise DataError(f"{path} is not a JSON object.", hint=_ANOTHER)
    kind = str(config.get("model_type"))[:64]
    if kind not in _ARCHITECTURES:
        raise UnknownNameError("exportable model type", kind, sorted(_ARCHITECTURES))
    architecture, hidden = _ARCHITECTURES[kind], _number(path, config, "hidden_size")
    heads = _number(path, config, "num_attention_heads")
    kv_heads = heads if config.get("num_key_value_heads") is None else _number(path, config, "num_key_value_heads")
    has_head_dim = config.get("head_dim") is not None
    width = _number(path, config, "head_dim") if has_head_dim else _WIDTHS.get(architecture, hidden // heads)
    return GgufBase(architecture, _number(path, config, "num_hidden_layers"), hidden, heads, kv_heads, width, width)


def _number(path: Path, config: Mapping[str, Any], key: str) -> int:
    value = config.get(key)
    if type(value) is not int or not 1 <= value <= _MOST:
        raise DataError(f"{path}: {key} is {str(value)[:64]}; expected a number from 1 to {_MOST}.", hint=_ANOTHER)
    return value


RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # what --max-lora-rank takes
_REWRITE = "export it with `agentlab adapters export`, which gives every module the same rank and scale"


@dataclass(frozen=True, slots=True)
class ServePlan:
    """Flags for `vllm serve BASE`, and one sentence per reason why they would not do."""

    flags: tuple[str, ...]
    problems: tuple[str, ...]


def plan_serving(adapters: Mapping[str, Adapter]) -> ServePlan:
    """The exact flags to serve adapters by these names, and what stands against it.

    The names should change with the content: vLLM keeps cached prefixes of an adapter that was loaded under the same
    name before.
    """
    problems = list(chain.from_iterable(_problems(name, adapter) for name, adapter in adapters.items()))
    bases = {adapter.settings.base for adapter in adapters.values()}
    if len(bases) > 1:
        problems.append(f"A server can serve only one base model, but these adapters have {len(bases)}.")
    largest = max((_rank(adapter) for adapter in adapters.values()), default=1)
    room = next((rank for rank in RANKS if rank >= largest), RANKS[-1])
    modules = tuple(f"{name}={adapter.path.resolve()}" for name, adapter in adapters.items())
    flags = ("--enable-lora", "--max-loras", str(len(adapters)), "--max-lora-rank", str(room))
    return ServePlan((*flags, "--lora-modules", *modules), tuple(problems))


def _rank(adapter: Adapter) -> int:
    return max(adapter.settings.r, *(module.rank for module in adapter.modules.values()))


def _problems(name: str, adapter: Adapter) -> list[str]:
    problems = []
    if "=" in name or any(character.isspace() for character in name):
        problems.append(f"{name!r} cannot be used in --lora-modules: it must not contain spaces or =.")
    if _rank(adapter) > RANKS[-1]:
        problems.append(f"{name} has rank {_rank(adapter)}, but vLLM supports at most {RANKS[-1]}: truncate it.")
    scales = {module.scale for module in adapter.modules.values()}
    if scales != {adapter.settings.scale(adapter.settings.r, adapter.settings.lora_alpha)}:
        problems.append(
            f"{name} has modules that differ in rank or alpha, but vLLM applies one scale to all: {_REWRITE}."
        )
    if adapter.settings.fan_in_fan_out:
        problems.append(f"{name} is for transposed layers, but vLLM ignores fan_in_fan_out.")
    outside = [module_name for module_name in adapter.modules if not any(map(str.isdecimal, module_name.split(".")))]
    if outside:
        problems.append(f"{name} changes {outside[0]}, outside the model's layers; vLLM may not load it.")
    return problems
