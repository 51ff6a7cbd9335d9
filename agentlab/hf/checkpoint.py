"""The gate for checkpoint folders: what their JSON files may say, seen before transformers reads them.

Fields that are known have a type and a range here, and sizes must go together with the weights that are there: no more
layers than the files hold, no matrix of more numbers than they hold bits. Other fields pass if they are small, finite
and no deeper than any config is. What transformers makes of it all may still raise anything; see `loading`.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentlab.errors import AgentlabError, ModelFileError
from agentlab.runs.atomic import read_text
from agentlab.workers import memory

CONFIG = "config.json"
NEEDED = "A checkpoint needs config.json, safetensors files, a tokenizer and an architecture built into transformers."
_AGAIN = "Copy or download the checkpoint again, from a source you trust."
_MOST_BYTES = {"tokenizer_config.json": 16 << 20, "added_tokens.json": 16 << 20}  # vocabularies name their extra tokens
_MOST_OTHERS = 4 << 20
_BESIDE = ("generation_config.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
_MOST_TEMPLATE = 1 << 20  # characters
_DEEPEST, _MOST_VALUES = 10, 1_000_000
_INFINITE = ("time_step_limit",)  # Mamba 2 says "no limit" so

_LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
_LAYER = re.compile(r"\.(\d{1,6})\.")  # in the name of a tensor
_WIDTHS = ("hidden_size", "n_embd", "d_model")
_HEADS = ("num_attention_heads", "n_head", "n_heads")
_MOST_LAYERS, _MOST_WIDTH, _MOST_HEADS, _MOST_WORDS, _MOST_POSITIONS = 4096, 1 << 17, 4096, 1 << 23, 1 << 28
_SIZES = {
    **dict.fromkeys(_LAYERS, _MOST_LAYERS),
    **dict.fromkeys(_WIDTHS, _MOST_WIDTH),
    **dict.fromkeys(_HEADS, _MOST_HEADS),
    "vocab_size": _MOST_WORDS,
    **dict.fromkeys(("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len"), _MOST_POSITIONS),
}
_OPTIONAL_SIZES = {  # null, and in some models a list with one for each layer
    "num_key_value_heads": _MOST_HEADS,
    "head_dim": 1 << 14,
    **dict.fromkeys(("intermediate_size", "n_inner", "ffn_dim", "d_ff", "moe_intermediate_size"), 1 << 21),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "num_experts_per_tok"), 1 << 14),
    "sliding_window": _MOST_POSITIONS,
}
_NUMBERS = {  # (least, most)
    **dict.fromkeys(("rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon", "norm_eps"), (0, 1)),
    **dict.fromkeys(("attention_dropout", "hidden_dropout", "attn_pdrop", "embd_pdrop", "resid_pdrop"), (0, 1)),
    **dict.fromkeys(("rope_theta", "rotary_emb_base"), (1e-3, 1e15)),
    "initializer_range": (0, 1e3),
    "partial_rotary_factor": (0, 1),
    **dict.fromkeys(("factor", "attention_factor", "mscale", "mscale_all_dim"), (0, 1e6)),  # of rotary positions
    **dict.fromkeys(("low_freq_factor", "high_freq_factor", "beta_fast", "beta_slow"), (0, 1e6)),
    "original_max_position_embeddings": (1, _MOST_POSITIONS),
    "model_max_length": (1, 1e300),  # tokenizers write 10**30 for "no limit"
}
_FLAGS = ("tie_word_embeddings", "use_cache", "attention_bias", "mlp_bias", "is_decoder", "is_encoder_decoder")
_TEXTS = ("model_type", "hidden_act", "activation_function", "dtype", "torch_dtype", "tokenizer_class")
_TABLES = ("rope_parameters", "rope_scaling", "quantization_config", "text_config", "added_tokens_decoder")
_TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")
_MOST_WHOLE = 1 << 31  # of a field that is not known
_FREE = ("model_max_length",)
_SWITCHES = (  # of tokenizers
    "add_bos_token", "add_eos_token", "add_prefix_space", "clean_up_tokenization_spaces", "legacy",
    "spaces_between_special_tokens", "split_special_tokens",
)  # fmt: skip
_PLAIN_NUMBERS = ("F64", "F32", "F16", "BF16")
_SIDES = ("padding_side", "truncation_side")


@dataclass(frozen=True, slots=True)
class _Weights:
    """What the files hold: layers, bits, and sides of tensors (none where there are no files)."""

    layers: int
    bits: int
    sides: frozenset[int]
    packed: bool = True  # some are no plain floating-point numbers


def read_config(folder: Path) -> dict[str, Any]:
    """The config.json of a checkpoint folder, once it and the JSON files beside it have passed.

    Raises:
        ModelFileError: a file is missing or damaged, or a field is none that a model can have; names file and field.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise ModelFileError(f"transformers cannot load {folder}: it has no {CONFIG}.", hint=NEEDED)
    if (folder / "adapter_config.json").exists():
        raise ModelFileError(
            f"{folder} contains adapter_config.json: transformers would load the model that it names.",
            hint="Keep adapters and checkpoints in separate folders.",
        )
    config = _read(path)
    weights = _weights(folder)
    _check_shape(str(path), config, weights)
    if isinstance(config.get("text_config"), dict):
        _check_shape(f"{path}: text_config", config["text_config"], weights)
    for name in _BESIDE:
        if (folder / name).is_file():
            _check_template(folder / name, _read(folder / name).get("chat_template"))
    template = folder / "chat_template.jinja"
    if template.is_file() and template.stat().st_size > _MOST_TEMPLATE:
        raise _wrong(template, "it", f"{template.stat().st_size:,} bytes long", f"at most {_MOST_TEMPLATE:,}")
    return config


@contextmanager
def loading(
    failure: str, hint: str = NEEDED, memory_hint: str = "Use a smaller model, or close other programs."
) -> Iterator[None]:
    """What transformers raises over a stranger's files inside the block, as one error.

    Raises:
        ModelFileError: `failure`, and why.
    """
    try:
        yield
    except AgentlabError:
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":  # of Rust: tokenizers
            raise
        short = memory.ran_out(error) or type(error).__name__ == "OutOfMemoryError"
        reason = " ".join(str(error).split())[:300]
        raise ModelFileError(
            f"{failure}: {type(error).__name__}: {reason}", hint=memory_hint if short else hint
        ) from error


def _read(path: Path) -> dict[str, Any]:
    """A JSON object of finite numbers, no deeper and with no more values than such files have."""
    try:
        document = json.loads(read_text(path, _MOST_BYTES.get(path.name, _MOST_OTHERS)))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelFileError(f"{path} is damaged: {' '.join(str(error).split())[:300]}", hint=_AGAIN) from error
    if not isinstance(document, dict):
        raise _wrong(path, "it", document, "a JSON object")
    open_: list[tuple[str, Any, int]] = [("", document, 0)]
    count = 0
    while open_:
        name, value, depth = open_.pop()
        count += 1
        if depth > _DEEPEST or count > _MOST_VALUES:
            raise _wrong(path, name, "too deep or too long", f"at most {_DEEPEST} levels and {_MOST_VALUES:,} values")
        _check_value(path, name, value)
        if isinstance(value, Mapping):
            open_ += ((f"{name}.{key}".lstrip("."), inner, depth + 1) for key, inner in value.items())
        elif isinstance(value, list):
            open_ += ((name, inner, depth + 1) for inner in value)
    return document


def _check_value(path: Path, name: str, value: Any) -> None:
    """A field at any depth, by its own name."""
    field = name.rpartition(".")[2]
    if isinstance(value, float) and not math.isfinite(value) and field not in _INFINITE:
        raise _wrong(path, name, value, "a finite number")
    if type(value) is int and field not in _FREE:
        limit = _MOST_LAYERS if re.search(r"layers?$", field) else _MOST_WHOLE
        if not -limit <= value <= limit:
            raise _wrong(path, name, value, f"a whole number of at most {limit:,}")
    if field in _SWITCHES and value is not None and not isinstance(value, bool):
        raise _wrong(path, name, value, "true or false")
    if field in _SIDES and value not in ("left", "right", None):
        raise _wrong(path, name, value, "left or right")
    if field in _NUMBERS and value is not None:
        lowest, highest = _NUMBERS[field]
        if isinstance(value, bool) or not isinstance(value, int | float) or not lowest <= value <= highest:
            raise _wrong(path, name, value, f"a number from {lowest:g} to {highest:g}")


def _check_shape(path: str, config: Mapping[str, Any], weights: _Weights) -> None:
    """Types and ranges of a model's fields, and whether its weights can be of that shape."""
    for name, limit in _SIZES.items():
        if name in config:
            _check_size(path, name, config[name], limit)
    for name, limit in _OPTIONAL_SIZES.items():
        setting = config.get(name)
        for value in setting if isinstance(setting, list) else [setting]:
            if value is not None:
                _check_size(path, name, value, limit)
    kinds = ((_FLAGS, bool, "true or false"), (_TEXTS, str, "a string"), (_TABLES, dict, "a mapping"))
    for names, kind, expected in kinds:
        for name in names:
            if config.get(name) is not None and not isinstance(config[name], kind):
                raise _wrong(path, name, config[name], expected)
    for name in _TOKENS:
        setting = config.get(name)
        for value in setting if isinstance(setting, list) else [setting]:
            if value is not None and (type(value) is not int or not -1 <= value < _MOST_WORDS):
                raise _wrong(path, name, value, f"a token id below {_MOST_WORDS:,}")
    _check_together(path, config, weights)


def _check_together(path: str, config: Mapping[str, Any], weights: _Weights) -> None:
    if config.get("quantization_config") and not weights.packed:
        raise _wrong(
            path,
            "quantization_config",
            "present in the file",
            "none, because the weights in the files are not quantized",
        )
    layers, width, heads = (_first(config, names) for names in (_LAYERS, _WIDTHS, _HEADS))
    if layers > weights.layers:
        raise _wrong(path, _LAYERS[0], layers, f"at most {weights.layers:,}, the number of layers in the files")
    if weights.sides and width and width not in weights.sides:
        raise _wrong(path, _WIDTHS[0], width, "the dimension of a tensor in the files")
    inner = config.get("intermediate_size")
    for name, size in (("vocab_size", config.get("vocab_size")), ("intermediate_size", inner), ("hidden_size", width)):
        if type(size) is int and size * width > weights.bits:
            raise _wrong(path, name, size, f"a smaller size: the files cannot hold {width:,} numbers per entry")
    derives_head_dim = config.get("head_dim") is None
    if heads and derives_head_dim and width % heads:
        raise _wrong(path, _HEADS[0], heads, f"a divisor of the width, {width:,}")
    if heads and derives_head_dim and (width // heads) % 2 and any(name.startswith("rope") for name in config):
        raise _wrong(
            path, _HEADS[0], heads, "a number that gives each head an even width, as rotary embeddings require"
        )
    key_value_heads = config.get("num_key_value_heads")
    if heads and type(key_value_heads) is int and heads % key_value_heads:
        raise _wrong(path, _HEADS[0], heads, f"a multiple of num_key_value_heads, {key_value_heads}")


def _first(config: Mapping[str, Any], names: tuple[str, ...]) -> int:
    return next((int(config[name]) for name in names if name in config), 0)


def _check_size(path: str, name: str, value: Any, limit: int) -> None:
    if type(value) is not int or not 1 <= value <= limit:
        raise _wrong(path, name, value, f"a whole number from 1 to {limit:,}")


def _check_template(path: Path, template: Any) -> None:
    """A text, or several with names."""
    several = template if isinstance(template, list) else [{"name": "", "template": template or ""}]
    for entry in several:
        text = entry.get("template") if isinstance(entry, dict) and isinstance(entry.get("name"), str) else None
        if not isinstance(text, str) or len(text) > _MOST_TEMPLATE:
            raise _wrong(path, "chat_template", entry, f"a string of at most {_MOST_TEMPLATE:,} characters")


def _weights(folder: Path) -> _Weights:
    from safetensors import SafetensorError, safe_open

    names, sides, bits = set[str](), set[int](), 0
    packed = False
    for path in folder.glob("*.safetensors"):
        if not path.is_file():  # a pipe would be waited for
            raise ModelFileError(f"transformers cannot load {folder}: {path.name} is not a file.", hint=_AGAIN)
        try:
            with safe_open(path, framework="np") as file:
                names.update(file.keys())
                for name in file.keys():  # noqa: SIM118 - no mapping
                    tensor = file.get_slice(name)
                    sides.update(tensor.get_shape())
                    packed = packed or tensor.get_dtype() not in _PLAIN_NUMBERS
        except (SafetensorError, OSError) as error:
            message = f"transformers cannot load {folder}: {path.name} is damaged: {str(error)[:200]}"
            raise ModelFileError(message, hint=_AGAIN) from error
        bits += 8 * path.stat().st_size
    if not names:  # a config alone has a shape, too; whoever loads it finds that they are missing
        return _Weights(_MOST_LAYERS, 1 << 50, frozenset())
    numbers = [int(number[1]) for name in names if (number := _LAYER.search(name))]
    return _Weights(max(numbers, default=len(names) - 1) + 1, bits, frozenset(sides), packed)


def _wrong(path: Path | str, name: str, value: object, expected: str) -> ModelFileError:
    value_text = value if isinstance(value, str) and " " in value else json.dumps(value, default=str)[:80]
    return ModelFileError(f"{path}: {name[:120]} is {value_text}; expected {expected}.", hint=_AGAIN)
