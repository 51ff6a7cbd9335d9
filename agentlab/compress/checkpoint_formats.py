"""Checkpoints on disk: dense ones, codes in the format pack-quantized of compressed-tensors, and bitsandbytes.

transformers reads the codes with the library compressed-tensors, vLLM by itself. They are of symmetric grids.
"""

import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch  # noqa: TID253 - reached lazily, when a model is compressed
import transformers  # noqa: TID253 - as above
from torch import Tensor  # noqa: TID253 - as above

from agentlab.compress.architecture import Check
from agentlab.compress.grid import Codes, Grid
from agentlab.errors import DataError
from agentlab.lora.writing import stage_folder, tensors_header
from agentlab.models.importer import Dtype
from agentlab.runs.atomic import write_json
from agentlab.train.base import keep_weights_unpacked, load_base, quietly
from agentlab.train.merge import write_beside

_LABELS = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16", torch.int32: "I32", torch.int64: "I64"}
_BITSANDBYTES = ("Params4bit", "Int8Params")
_WORD = 32  # bits of what codes are packed into
_SLACK = 64 << 20  # tokenizer and config
_NOT_WRITTEN = ("quantization_config", "_name_or_path", "torch_dtype", "transformers_version")


def write_dense(model: Any, tokenizer: Path, out: Path, dtype: Dtype, check: Check) -> None:
    """Write a model as a plain checkpoint folder, whole or not at all.

    `tokenizer`: folder whose tokenizer, chat template and generation settings go along.

    Raises:
        UsageError: `out` exists.
        DataError: a weight is not finite.
        StorageError: the disk is full or not ours.
    """
    _write(model, None, tokenizer, out, dtype, check)


def write_packed(
    model: Any, codes: Mapping[str, Codes], tokenizer: Path, out: Path, dtype: Dtype, check: Check
) -> None:
    """Write a model whose linear layers are codes; the others are of `dtype`. See `write_dense`."""
    _write(model, codes, tokenizer, out, dtype, check)


def write_bitsandbytes(folder: Path, bits: int, out: Path) -> Any:
    """Write a checkpoint with its linear layers in NF4 (4 bits, arXiv 2305.14314) or int8 (arXiv 2208.07339).

    Returns:
        The model with what the file stands for as plain weights; see `plain_weights`.

    Raises:
        As `load_base`; UsageError: `out` exists; StorageError: the disk is full or not ours.
    """
    model = load_base(folder, "4bit" if bits == 4 else "8bit", "sdpa").model
    library: Any = transformers.utils.logging
    library.disable_progress_bar()  # `quietly` does not reach the one that writes
    with stage_folder(out, model.get_memory_footprint() + _SLACK) as staging, quietly():
        write_beside(folder, staging, {}, None)
        model.save_pretrained(staging)
    return plain_weights(model)


def plain_weights(model: Any) -> Any:
    """The model with plain float32 layers in place of those of bitsandbytes; another one as it is."""
    from peft.utils.integrations import dequantize_module_weight

    quantized = {
        name: layer
        for name, layer in model.named_modules()
        if type(getattr(layer, "weight", None)).__name__ in _BITSANDBYTES
    }
    if not quantized:
        return model
    keep_weights_unpacked(model)
    for name, module in quantized.items():
        plain = torch.nn.Linear(module.in_features, module.out_features, bias=module.bias is not None)
        plain.weight.data = dequantize_module_weight(module)
        if module.bias is not None:
            plain.bias.data = module.bias.data
        model.set_submodule(name, plain)
    for parameter in model.parameters():
        parameter.data = parameter.data.float()
    return model.eval()


@torch.inference_mode()
def unpack(folder: Path, out: Path, check: Check) -> None:
    """Write a quantized checkpoint as the plain one that it stands for, in float32; see `write_dense`."""
    make: Any = transformers.AutoModelForCausalLM
    with quietly():
        packed = plain_weights(make.from_pretrained(folder, dtype=torch.float32, local_files_only=True)).eval()
        packed(torch.tensor([[1]]))  # compressed-tensors has weights once they were used
        tensors = packed.state_dict()
        packed.config.__dict__.pop("quantization_config", None)
        plain = make.from_config(packed.config, dtype=torch.float32)
    plain.load_state_dict({name: tensors[name] for name in plain.state_dict()})
    write_dense(plain, folder, out, "float32", check)


def quantization_config(codes: Mapping[str, Codes]) -> dict[str, Any]:
    """What config.json says of codes: a group of modules for each grid, what is not named is dense."""
    grids: dict[Grid, list[str]] = {}
    for name, code in codes.items():
        grids.setdefault(code.grid, []).append(name)
    groups = {
        f"group_{index}": {
            "targets": ["Linear"] if len(grids) == 1 else names,
            "weights": {
                "num_bits": grid.bits,
                "type": "int",
                "symmetric": True,
                "strategy": "group" if grid.group else "channel",
                "group_size": grid.group,
                "dynamic": False,
            },
            "input_activations": None,
            "output_activations": None,
        }
        for index, (grid, names) in enumerate(grids.items())
    }
    return {
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "quantization_status": "compressed",
        "config_groups": groups,
        "ignore": ["lm_head"],
        "kv_cache_scheme": None,
    }


def pack(codes: Tensor, bits: int) -> Tensor:
    """Codes (outputs, inputs) as int32 words (outputs, words), the first in the lowest bits, none left out.

    Each is moved up to begin at zero; a code may lie across two words.
    """
    outputs, inputs = codes.shape
    filled = torch.nn.functional.pad(codes.cpu().to(torch.int64) + (1 << (bits - 1)), (0, -inputs % _WORD))
    first = torch.arange(_WORD) * bits
    words = torch.zeros(outputs, filled.shape[1] // _WORD, bits, dtype=torch.int64)
    for index, value in enumerate(filled.reshape(outputs, -1, _WORD).unbind(-1)):
        word, shift = divmod(int(first[index]), _WORD)
        words[..., word] |= value << shift & 0xFFFFFFFF
        if shift + bits > _WORD:
            words[..., word + 1] |= value >> (_WORD - shift)
    words = words.reshape(outputs, -1)[:, : -(-inputs * bits // _WORD)]
    return (words - (words >> 31 << 32)).to(torch.int32).contiguous()


Parts = dict[str, tuple[torch.dtype, tuple[int, ...], Callable[[], Tensor]]]


def _write(
    model: Any, codes: Mapping[str, Codes] | None, tokenizer: Path, out: Path, dtype: Dtype, check: Check
) -> None:
    parts = _parts(model, codes or {}, getattr(torch, dtype))
    sizes = {
        name: (_LABELS[type_], shape, torch.Size(shape).numel() * type_.itemsize)
        for name, (type_, shape, _) in parts.items()
    }
    config = {key: value for key, value in model.config.to_dict().items() if key not in _NOT_WRITTEN}
    if codes is not None:
        config["quantization_config"] = quantization_config(codes)
    with stage_folder(out, sum(size for *_, size in sizes.values()) + _SLACK) as staging:
        with (staging / "model.safetensors").open("xb") as file:
            file.write(tensors_header(sizes))
            for name, (type_, _, make) in parts.items():
                check()
                file.write(_raw(name, make().to(type_)))
            file.flush()
            os.fsync(file.fileno())
        write_beside(tokenizer, staging, config, dtype)
        if model.generation_config is not None:
            write_json(staging / "generation_config.json", model.generation_config.to_diff_dict())


def _parts(model: Any, codes: Mapping[str, Codes], kind: torch.dtype) -> Parts:
    parts: Parts = {}
    tied = set(getattr(model, "_tied_weights_keys", None) or ()) if model.config.tie_word_embeddings else set()
    for name, value in model.state_dict().items():
        module = name.removesuffix(".weight")
        if name in tied:
            continue
        if module not in codes or not name.endswith(".weight"):
            parts[name] = (kind, tuple(value.shape), value.detach().cpu)
            continue
        code = codes[module]
        words = (value.shape[0], -(-value.shape[1] * code.grid.bits // _WORD))
        parts[f"{module}.weight_packed"] = (torch.int32, words, partial(pack, code.codes, code.grid.bits))
        parts[f"{module}.weight_scale"] = (torch.float16, tuple(code.scales.shape), code.scales.cpu)
        parts[f"{module}.weight_shape"] = (torch.int64, (2,), partial(torch.tensor, tuple(value.shape)))
    return parts


def _raw(name: str, tensor: Tensor) -> Any:
    if tensor.is_floating_point() and not torch.isfinite(tensor).all():
        raise DataError(f"{name} would contain infinite or NaN values.", hint="Write float32 instead.")
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data
