"""The base model of a training: a checkpoint folder, loaded in the precision it is trained in.

Only safetensors are read, code that comes with a checkpoint is never run, and nothing is looked up on the network.
"""

import contextlib
import importlib
import io
import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch  # noqa: TID253 - reached lazily, when a base model is loaded

from agentlab import machine
from agentlab.errors import MissingError, MissingFileError, ModelFileError
from agentlab.hf.checkpoint import NEEDED, loading, read_config
from agentlab.hf.fingerprint import fingerprint_of as fingerprint_of
from agentlab.train.config import Attention, Precision

_BYTES_PER_WEIGHT = {"fp32": 4.0, "bf16": 2.0, "8bit": 1.0, "4bit": 0.5}
_STORED = {"float32": 4, "float16": 2, "bfloat16": 2}
_IMPORT = "To convert it to a checkpoint: agentlab models import {name}"
_LOCAL: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
_LESS = "Use --set training.precision=4bit, or a smaller base model."


@dataclass(frozen=True, slots=True, eq=False)
class TrainingBase:
    """A model of transformers in evaluation mode, without gradients, and its tokenizer."""

    model: Any
    tokenizer: Any
    path: Path
    precision: str  # fp32, bf16, 8bit or 4bit
    fingerprint: str  # see `fingerprint_of`


def load_base(path: Path, precision: Precision, attention: Attention) -> TrainingBase:
    """Load a checkpoint folder onto the machine's best device.

    `agentlab models import` makes such a folder of a GGUF file. `precision` is settled by `resolve_precision`; 8bit and
    4bit (NF4, twice quantised, arXiv 2305.14314) quantise on loading; flash_attention_2 needs its package and
    a GPU.

    Raises:
        MissingFileError: there is no such folder, or a part of it is missing.
        MissingError: flash attention, or a library for 8bit and 4bit, is not there.
        ModelFileError: it is a GGUF file, damaged, of an unknown architecture, or too large for the memory.
    """
    chosen = resolve_precision(precision)
    tokenizer = load_tokenizer(path)
    _check_memory(path, chosen)
    with loading(f"transformers cannot load {path}", memory_hint=_LESS), quietly():
        try:
            importlib.import_module("peft")  # bitsandbytes behind it says what it could do better elsewhere
            model = _read(path, chosen, attention)
        except ImportError as error:
            reason = " ".join(str(error).split())[:300]
            raise MissingError(f"Missing library: {reason}", hint=_library(attention)) from error
    model.requires_grad_(False)
    keep_weights_unpacked(model)
    return TrainingBase(model.eval(), tokenizer, path, chosen, fingerprint_of(path))


def outline(path: Path) -> Any:
    """The model of a checkpoint folder with layers and shapes alone: no weights are read.

    Raises:
        MissingFileError: there is no such folder, or a part of it is missing.
        ModelFileError: it is of an unknown architecture, or damaged.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    check_files(path)
    with loading(f"{path} has an unsupported architecture"), quietly(), torch.device("meta"):
        make: Any = AutoModelForCausalLM.from_config
        return make(AutoConfig.from_pretrained(path, **_LOCAL))


def load_tokenizer(path: Path) -> Any:
    """The tokenizer of a checkpoint folder, as transformers makes it.

    Raises:
        MissingFileError: there is no such folder, or it is no checkpoint.
        ModelFileError: the tokenizer is missing, damaged, or comes as code.
    """
    from transformers import AutoTokenizer

    check_files(path)
    with loading(f"Cannot read the tokenizer of {path}"), quietly():
        return AutoTokenizer.from_pretrained(path, **_LOCAL)


def resolve_precision(precision: Precision) -> str:
    """What `auto` means here: bf16 where the device multiplies it in hardware, else fp32.

    On CPUs with AVX512-BF16 or AMX that is half as fast again; elsewhere torch computes bfloat16 slower than float32.
    """
    if precision != "auto":
        return precision
    return "bf16" if machine.describe().bf16 else "fp32"


def keep_weights_unpacked(model: Any) -> None:
    """Keep bitsandbytes from repacking 4-bit weights in place when they first answer in evaluation mode.

    On CPUs with AVX512-BF16 it does (0.50.2); from then on training passes no gradient on, without an error, and
    dequantising gives other weights. Call it on every 4-bit model before anything is computed.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Drop what the libraries print: progress bars, one of which has no switch, and advice to programmers."""
    import transformers  # noqa: F401 - first: its logger keeps for good the stderr that it finds

    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with (
            contextlib.redirect_stderr(io.StringIO()),
            contextlib.redirect_stdout(io.StringIO()),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _read(path: Path, precision: str, attention: Attention) -> Any:
    from transformers import AutoModelForCausalLM

    fast = precision == "bf16" or (precision != "fp32" and machine.describe().bf16)
    compute, device = torch.bfloat16 if fast else torch.float32, _device()
    options: dict[str, Any] = {**_LOCAL, "dtype": compute, "attn_implementation": attention, "use_safetensors": True}
    small = precision in ("8bit", "4bit")
    if small:
        options |= {"quantization_config": _quantisation(precision, compute), "device_map": {"": device}}
    make: Any = AutoModelForCausalLM.from_pretrained
    model, loading_info = make(path, output_loading_info=True, **options)
    if loading_info["missing_keys"]:  # transformers makes them up
        raise ValueError(f"the checkpoint lacks {', '.join(sorted(loading_info['missing_keys'])[:3])}")
    return model if small else model.to(device)


def _quantisation(precision: str, compute: torch.dtype) -> Any:
    from transformers import BitsAndBytesConfig

    make: Any = BitsAndBytesConfig
    if precision == "8bit":
        return make(load_in_8bit=True)
    return make(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=compute
    )


def _device() -> str:
    """This process's device: under `accelerate launch` every one has a GPU of its own."""
    if machine.device() != "cuda":
        return machine.device()
    accelerate: Any = importlib.import_module("accelerate")  # it has no types
    return str(accelerate.PartialState().device)


def check_files(path: Path) -> dict[str, Any]:
    """See that a folder could be a checkpoint; its config.json.

    Raises:
        MissingFileError, ModelFileError: it is none; see `read_config`.
    """
    if path.is_file():
        raise ModelFileError(f"{path} is a file, not a checkpoint folder.", hint=_IMPORT.format(name=path.stem))
    if not path.is_dir():
        raise MissingFileError(
            f"No such checkpoint folder: {path}.", hint="For the available models, see `agentlab models list`."
        )
    for pattern in ("config.json", "*.safetensors"):
        if not any(path.glob(pattern)):
            gguf = next(path.glob("*.gguf"), None)
            raise MissingFileError(
                f"{path} is not a checkpoint folder: it has no {pattern}.",
                hint=_IMPORT.format(name=gguf.stem) if gguf else NEEDED,
            )
    return read_config(path)


def _check_memory(path: Path, precision: str) -> None:
    """Refuse what cannot fit, before minutes of loading."""
    stored = sum(file.stat().st_size for file in path.glob("*.safetensors"))
    config = read_config(path)
    width = _STORED.get(config.get("dtype") or config.get("torch_dtype") or "", 4)
    needed = int(stored / width * _BYTES_PER_WEIGHT[precision])
    available = machine.gpu_memory() or machine.memory().available
    if needed > available:
        raise ModelFileError(
            f"{path.name} needs {needed / 2**30:.1f} GiB in {precision}, but only {available / 2**30:.1f} "
            "GiB are available.",
            hint=_LESS,
        )


def _library(attention: Attention) -> str:
    if attention == "flash_attention_2":
        return "Install flash-attn on a machine with a GPU, or use --set training.attn_implementation=sdpa."
    return "Use --set training.precision=bf16, which does not need this library."
