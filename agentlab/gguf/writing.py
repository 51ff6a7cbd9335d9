"""GGUF files written whole or not at all; a checkpoint of Hugging Face as one."""

import contextlib
import json
import math
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

import numpy as np

from agentlab.errors import ModelFileError, UnknownNameError, UsageError
from agentlab.gguf.tokenizer import Vocabulary, read_vocabulary
from agentlab.runs.atomic import storage_errors, sync_folder

if TYPE_CHECKING:
    import torch

MatrixType = Literal["f32", "f16", "bf16"]
DENSE = ("llama", "qwen2", "qwen3")  # model_type of what can be written; llama.cpp calls them the same
_HIGHEST = {"f32": 0, "f16": 1, "bf16": 32}  # llama_ftype
_LEAST_SPREAD = 1e-5
_ROTATIONS = ("default", "linear", "yarn", "llama3")
_YARN = {"beta_fast": 32, "beta_slow": 1, "truncate": True}  # llama.cpp reads no others from a file
_COMPUTED = "rotary_emb.inv_freq"  # old checkpoints hold what llama.cpp computes


@contextlib.contextmanager
def gguf_writer(out: Path, architecture: str) -> Iterator[Any]:
    """A `gguf.GGUFWriter` of a hidden file that becomes `out` if all goes well, and vanishes if not.

    Raises:
        UsageError: `out` exists.
        StorageError: the disk is full or not ours.
    """
    from gguf import GGUFWriter

    if out.exists() or out.is_symlink():
        raise UsageError(f"{out} already exists.", hint="Choose another name, or remove the file.")
    temporary = out.with_name(f".{out.name[:64]}.{secrets.token_hex(4)}.tmp")
    with storage_errors(out):
        writer = GGUFWriter(temporary, architecture)
        try:
            yield writer
            writer.close()
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            temporary.replace(out)
            sync_folder(out.parent)
        except BaseException:
            with contextlib.suppress(OSError):  # closing writes what is buffered, on a disk that may still be full
                writer.close()
            temporary.unlink(missing_ok=True)
            raise


def write_header(writer: Any) -> None:
    """What comes before the numbers; all keys and tensors are told by now."""
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()


class Complete(np.ndarray):
    """An array that is written whole, or the disk's error is raised: NumPy's own `tofile` can miss a full disk."""

    def tofile(self, fid: IO[bytes]) -> None:  # type: ignore[override] # the writer gives it an open file alone
        fid.write(self.data)


def paired_rows(rows: "torch.Tensor", heads: int) -> "torch.Tensor":
    """Rows of llama's queries and keys in GGUF order: pairs of a rotation side by side instead of half a head apart."""
    return rows.reshape(heads, 2, -1, *rows.shape[1:]).transpose(1, 2).reshape(rows.shape)


def halved_rows(rows: "torch.Tensor", heads: int) -> "torch.Tensor":
    """The inverse of `paired_rows`."""
    return rows.reshape(heads, -1, 2, *rows.shape[1:]).transpose(1, 2).reshape(rows.shape)


def tensor_names(config: Mapping[str, Any]) -> Callable[[str], str | None]:
    """From a tensor's name in transformers to that in GGUF; None for one that GGUF has no place for.

    Raises:
        UnknownNameError: a GGUF file of this architecture cannot be written.
    """
    from gguf import MODEL_ARCH_NAMES, get_tensor_name_map

    kind = config.get("model_type")
    if kind not in DENSE:
        raise UnknownNameError("convertible architecture", str(kind), list(DENSE))
    architecture = next(arch for arch, name in MODEL_ARCH_NAMES.items() if name == kind)
    table = get_tensor_name_map(architecture, config["num_hidden_layers"])
    return lambda name: table.get_name(name, try_suffixes=(".weight", ".bias"))


def write_gguf(checkpoint: Path, out: Path, matrix_type: MatrixType, check: Callable[[], None] = lambda: None) -> None:
    """A checkpoint folder of a dense Llama, Qwen2 or Qwen3 as one GGUF file, a tensor at a time.

    Args:
        checkpoint: config.json, safetensors and tokenizer.json.
        matrix_type: type of the matrices; vectors are float32.
        check: called before each tensor; what it raises ends the work.

    Raises:
        UnknownNameError: another architecture.
        ModelFileError: a part is missing, damaged, or has no place in a GGUF file.
        UsageError: `out` exists.
        StorageError: the disk is full or not ours.
    """
    from gguf import GGMLQuantizationType, SpecialVocab
    from gguf.quants import quant_shape_to_byte_shape, quantize

    config = _config(checkpoint)
    tensors, name_of = _tensors(checkpoint), tensor_names(config)
    if config.get("tie_word_embeddings"):
        tensors.pop("lm_head.weight", None)
    elif "lm_head.weight" not in tensors:
        raise ModelFileError(f"{checkpoint} has no lm_head.weight, although its config requires one.")
    tensors = {ours: where for ours, where in tensors.items() if not ours.endswith(_COMPUTED)}
    names = {ours: name_of(ours) for ours in tensors}
    if strange := [ours for ours, theirs in names.items() if theirs is None]:
        raise ModelFileError(f"{checkpoint}: {strange[0]} cannot be stored in a GGUF file.")
    rows = tensors["model.embed_tokens.weight"][1][0]
    vocabulary = read_vocabulary(checkpoint, rows)
    matrix = GGMLQuantizationType[matrix_type.upper()]
    with gguf_writer(out, str(config["model_type"])) as writer:
        _describe(writer, config, checkpoint.name, _HIGHEST[matrix_type])
        _add_vocabulary(writer, vocabulary)
        SpecialVocab(checkpoint, n_vocab=rows).add_to_gguf(writer, quiet=True)
        factors = frequency_factors(config)
        if factors is not None:
            writer.add_tensor_info("rope_freqs.weight", factors.shape, np.dtype(np.float32), factors.nbytes)
        kinds = {ours: matrix if len(shape) > 1 else GGMLQuantizationType.F32 for ours, (_, shape) in tensors.items()}
        for ours, (_, shape) in tensors.items():
            stored = quant_shape_to_byte_shape(shape, kinds[ours])
            raw = shape if kinds[ours] != GGMLQuantizationType.BF16 else stored
            dtype = np.dtype({0: np.float32, 1: np.float16}.get(kinds[ours].value, np.uint8))
            writer.add_tensor_info(names[ours], raw, dtype, math.prod(stored), raw_dtype=kinds[ours])
        write_header(writer)
        if factors is not None:
            writer.write_tensor_data(factors.view(Complete))
        for ours, (file, _) in tensors.items():
            check()
            data = quantize(_arrange_rows(ours, _load(file, ours), config).numpy(), kinds[ours])
            writer.write_tensor_data(data.view(Complete))


def _config(checkpoint: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((checkpoint / "config.json").read_text("utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise ModelFileError(f"{checkpoint / 'config.json'} cannot be read: {str(error)[:200]}") from error


def _tensors(checkpoint: Path) -> dict[str, tuple[Path, tuple[int, ...]]]:
    """Where each tensor lies, and its shape."""
    from safetensors import SafetensorError, safe_open

    tensors: dict[str, tuple[Path, tuple[int, ...]]] = {}
    for file in sorted(checkpoint.glob("*.safetensors")):
        try:
            with safe_open(file, framework="pt") as opened:
                tensors |= {name: (file, tuple(opened.get_slice(name).get_shape())) for name in opened.keys()}  # noqa: SIM118 - no mapping
        except (SafetensorError, OSError) as error:
            raise ModelFileError(f"{file} is damaged: {str(error)[:200]}") from error
    if "model.embed_tokens.weight" not in tensors:
        raise ModelFileError(f"{checkpoint} has no model.embed_tokens.weight.")
    return tensors


def _load(file: Path, name: str) -> "torch.Tensor":
    from safetensors import safe_open

    with safe_open(file, framework="pt") as opened:
        return opened.get_tensor(name).float().contiguous()  # type: ignore[no-any-return] # safetensors has no types


def _arrange_rows(name: str, tensor: "torch.Tensor", config: Mapping[str, Any]) -> "torch.Tensor":
    heads = {"q_proj": "num_attention_heads", "k_proj": "num_key_value_heads"}.get(name.split(".")[-2])
    if config["model_type"] != "llama" or heads is None:
        return tensor
    return paired_rows(tensor, config[heads]).contiguous()


def _describe(writer: Any, config: Mapping[str, Any], name: str, file_type: int) -> None:
    heads, hidden = config["num_attention_heads"], config["hidden_size"]
    width = config.get("head_dim") or hidden // heads
    rope = rotation(config)
    writer.add_name(name)
    writer.add_file_type(file_type)
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(hidden)
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.get("num_key_value_heads", heads))
    writer.add_key_length(width)
    writer.add_value_length(width)
    writer.add_rope_dimension_count(width)
    writer.add_rope_freq_base(rope["rope_theta"])
    _describe_scaling(writer, rope, int(config["max_position_embeddings"]))
    writer.add_layer_norm_rms_eps(float(config["rms_norm_eps"]))
    writer.add_vocab_size(config["vocab_size"])


def _add_vocabulary(writer: Any, vocabulary: Vocabulary) -> None:
    writer.add_tokenizer_model(vocabulary.model)
    if vocabulary.pre is not None:
        writer.add_tokenizer_pre(vocabulary.pre)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.types)
    if vocabulary.scores is not None:
        writer.add_token_scores(vocabulary.scores)
    if vocabulary.merges is not None:
        writer.add_token_merges(vocabulary.merges)
    writer.add_add_space_prefix(vocabulary.space_prefix)


def _describe_scaling(writer: Any, rope: Mapping[str, Any], positions: int) -> None:
    """How rotations are scaled beyond the length of training, in llama.cpp's own names."""
    from gguf import RopeScalingType

    kind = rope["rope_type"]
    if kind not in ("linear", "yarn"):
        return
    old = int(rope.get("original_max_position_embeddings") or positions)
    factor = float(rope.get("factor") or positions / old)
    writer.add_rope_scaling_type(RopeScalingType(kind))
    writer.add_rope_scaling_factor(factor)
    if kind == "yarn":
        writer.add_rope_scaling_orig_ctx_len(old)
        usual = 1 + 0.1 * math.log(max(factor, 1))  # what llama.cpp multiplies cosines and sines by, unless told more
        if (attention := _attention_factor(rope, factor)) != usual:
            writer.add_rope_scaling_attn_factors(attention / usual)


def _attention_factor(rope: Mapping[str, Any], factor: float) -> float:
    """What YaRN multiplies cosines and sines by in transformers."""
    if rope.get("attention_factor") is not None:
        return float(rope["attention_factor"])
    above, below = rope.get("mscale"), rope.get("mscale_all_dim")
    growth = 0.1 * math.log(max(factor, 1))
    return (1 + above * growth) / (1 + below * growth) if above and below else 1 + growth


def frequency_factors(config: Mapping[str, Any]) -> "np.ndarray | None":
    """What llama3's scaling divides each frequency of the rotary embedding by; None where there is none.

    Raises:
        ModelFileError: see `rotation`.
    """
    rope = rotation(config)
    if rope["rope_type"] != "llama3":
        return None
    width = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    factor, low, high = (float(rope[key]) for key in ("factor", "low_freq_factor", "high_freq_factor"))
    old = float(rope["original_max_position_embeddings"])
    lengths = 2 * math.pi * rope["rope_theta"] ** (np.arange(0, width, 2, dtype=np.float64) / width)
    smooth = np.clip((old / lengths - low) / max(high - low, _LEAST_SPREAD), 0, 1)
    return np.asarray(1 / ((1 - smooth) / factor + smooth), dtype=np.float32)


def why_not_gguf(checkpoint: Path) -> str:
    """What of a checkpoint a GGUF file has no name for, by its config and tokenizer; empty where it can be written.

    Raises:
        ModelFileError: config.json cannot be read.
    """
    config = _config(checkpoint)
    try:
        rotation(config)
        read_vocabulary(checkpoint, int(config.get("vocab_size", 0)))
    except ModelFileError as error:
        return error.message
    return ""


def rotation(config: Mapping[str, Any]) -> dict[str, Any]:
    """What config.json says of rotary positions, old or new, with `rope_type` and `rope_theta`.

    Raises:
        ModelFileError: a GGUF file has no name for it.
    """
    rope = dict(config.get("rope_parameters") or config.get("rope_scaling") or {})
    rope["rope_type"] = kind = rope.get("rope_type") or rope.get("type") or "default"
    rope["rope_theta"] = float(rope.get("rope_theta") or config.get("rope_theta") or 10000.0)
    if config.get("use_sliding_window") or (rope.get("partial_rotary_factor") or 1.0) != 1.0:
        raise ModelFileError("Sliding windows and partial rotary embeddings cannot be written to a GGUF file.")
    if kind not in _ROTATIONS:
        raise ModelFileError(f"Rotary embeddings of type {kind} cannot be written to a GGUF file.")
    if kind == "yarn" and any(rope.get(key) not in (None, usual) for key, usual in _YARN.items()):
        raise ModelFileError(f"YaRN with unusual {', '.join(_YARN)} cannot be written to a GGUF file.")
    return rope
