"""An adapter as a GGUF file for llama.cpp: `--lora FILE` there, `lora_path` in llama-cpp-python.

The format has one alpha for the whole file and scales every module by alpha / its rank; the scales of this adapter's
modules are folded into their second factors so that the product is right.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch  # noqa: TID253 - reached lazily, when an adapter is exported

from agentlab.errors import DataError, UnknownNameError, UsageError
from agentlab.gguf.writing import Complete, gguf_writer, paired_rows, write_header
from agentlab.lora.reading import Adapter
from agentlab.lora.writing import room_for

# Architectures whose conversion only renames linear layers, except that llama's attention rows change their order.
_ARCHITECTURES = ("gemma2", "gemma3", "llama", "phi3", "qwen2", "qwen3")
_NO_SERVER = ("token_embd.weight", "output.weight")  # llama.cpp mixes up adapters of tied embeddings and heads


@dataclass(frozen=True, slots=True)
class GgufBase:
    """The base model's shape, each field with GGUF's word for it."""

    architecture: str  # general.architecture
    blocks: int  # block_count
    hidden: int  # embedding_length
    heads: int  # attention.head_count
    kv_heads: int  # attention.head_count_kv
    key: int  # width of a head: attention.key_length
    value: int  # width of a head: attention.value_length

    def shape_of(self, tensor: str) -> tuple[int | None, int | None]:
        """(outputs, inputs) of a layer's matrix by its GGUF name; None for the width of the feed-forward network."""
        queries, keys, values = self.heads * self.key, self.kv_heads * self.key, self.kv_heads * self.value
        shapes = {
            "attn_q": (queries, self.hidden),
            "attn_k": (keys, self.hidden),
            "attn_v": (values, self.hidden),
            "attn_qkv": (queries + keys + values, self.hidden),
            "attn_output": (self.hidden, self.heads * self.value),
            "ffn_gate": (None, self.hidden),
            "ffn_up": (None, self.hidden),
            "ffn_down": (self.hidden, None),
        }
        return shapes.get(tensor.removesuffix(".weight").rpartition(".")[2], (None, None))


def export_gguf(adapter: Adapter, out: Path, base: GgufBase) -> None:
    """Write an adapter in float32 as a GGUF file, one module at a time, whole or not at all.

    Raises:
        UnknownNameError: the base model's architecture is none that is known to keep its matrices as they are.
        DataError: a module has no counterpart in the GGUF or another shape there, is an embedding or a head, or holds
            a number that does not fit into float32.
        UsageError: `out` exists.
        StorageError: the disk is full or not ours.
    """
    from gguf import GGUFType, Keys, LlamaFileType

    if out.exists() or out.is_symlink():
        raise UsageError(f"{out} already exists.", hint="Choose another name, or delete the file.")
    names = _gguf_names(adapter, base)
    alpha = max(module.rank for module in adapter.modules.values())
    size = sum(4 * module.rank * (module.inputs + module.outputs) for module in adapter.modules.values())
    with room_for(out, size), gguf_writer(out, base.architecture) as writer:
        writer.add_type(GGUFType.ADAPTER)
        writer.add_string(Keys.Adapter.TYPE, "lora")
        writer.add_file_type(LlamaFileType.ALL_F32)
        writer.add_float32(Keys.Adapter.LORA_ALPHA, float(alpha))
        _write(writer, adapter, base, names, alpha)


def _gguf_names(adapter: Adapter, base: GgufBase) -> dict[str, str]:
    """Our name of each module -> the tensor's in the GGUF."""
    from gguf import MODEL_ARCH_NAMES, get_tensor_name_map

    architectures = {name: arch for arch, name in MODEL_ARCH_NAMES.items() if name in _ARCHITECTURES}
    if base.architecture not in architectures:
        raise UnknownNameError("exportable architecture", base.architecture, sorted(architectures))
    table = get_tensor_name_map(architectures[base.architecture], base.blocks)
    names: dict[str, str] = {}
    for module in adapter.modules:
        tensor_name = table.get_name(f"{module}.weight", try_suffixes=(".weight",))
        if tensor_name is None or tensor_name in _NO_SERVER:
            raise DataError(
                f"{adapter.path}: {module} cannot be part of a GGUF adapter for {base.architecture}.",
                hint="llama.cpp supports only linear layers inside the blocks; train without embeddings and head.",
            )
        shape, expected = adapter.modules[module].shape, base.shape_of(tensor_name)
        if any(due not in (None, side) for side, due in zip(shape, expected, strict=True)):
            raise DataError(
                f"{adapter.path}: {module} is {_by(shape)}, but {_by(expected)} in the base model.",
                hint="The adapter belongs to a different base model; pass the right one with --base.",
            )
        names[module] = tensor_name
    return names


def _by(shape: tuple[int | None, int | None]) -> str:
    return " x ".join("any" if side is None else str(side) for side in shape)


def _write(writer: Any, adapter: Adapter, base: GgufBase, names: Mapping[str, str], alpha: int) -> None:
    for module, name in names.items():
        layer = adapter.modules[module]
        for side, shape in (("a", (layer.rank, layer.inputs)), ("b", (layer.outputs, layer.rank))):
            writer.add_tensor_info(f"{name}.lora_{side}", shape, np.dtype(np.float32), 4 * shape[0] * shape[1])
    write_header(writer)
    for module in names:
        delta = adapter.delta(module)
        a, b = delta.fold_scale()
        b = _reorder_rows(b * (delta.rank / alpha), module, base)
        for tensor in (a, b):
            stored = tensor.float().contiguous()
            if not torch.isfinite(stored).all():
                raise DataError(f"{adapter.path}: {module} contains infinite or NaN values in float32.")
            writer.write_tensor_data(stored.numpy().view(Complete))


def _reorder_rows(b: torch.Tensor, module: str, base: GgufBase) -> torch.Tensor:
    """Rows of llama's queries and keys in GGUF order: pairs of a rotation side by side instead of half a head apart."""
    heads = {"q_proj": base.heads, "k_proj": base.kv_heads}.get(module.rpartition(".")[2])
    if base.architecture != "llama" or heads is None:
        return b
    if b.shape[0] % (2 * heads):
        raise DataError(f"{module} has {b.shape[0]} rows, which cannot be split into pairs by {heads} heads.")
    return paired_rows(b, heads)
