"""Turn a GGUF file into a checkpoint folder that transformers and PEFT can train: safetensors, tokenizer, template.

The GGUF tensors are dequantised once; the folder loads in well under a second afterwards.
"""

import contextlib
import functools
import io
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from agentlab.errors import ModelFileError, UnknownNameError, UsageError
from agentlab.gguf import metadata
from agentlab.hf.checkpoint import loading
from agentlab.models.staging import stage
from agentlab.runs.atomic import sync_folder
from agentlab.workers.templates import TemplateRefusesError, render_chat

if TYPE_CHECKING:
    import torch

Dtype = Literal["float32", "bfloat16"]

_PROMPT = [{"role": "user", "content": "What is the capital of France?"}]
_TOKENIZER_BYTES = 16 << 20
_ANSWERS = "The file can still answer in a pipeline or as a language model: put it into models/."


def as_dtype(name: str) -> Dtype:
    """The dtype of that name.

    Raises:
        UnknownNameError: it is not one a checkpoint can be written in.
    """
    dtypes: dict[str, Dtype] = {dtype: dtype for dtype in get_args(Dtype)}
    if name not in dtypes:
        raise UnknownNameError("dtype", name, list(dtypes))
    return dtypes[name]


def import_gguf(path: Path, target: Path, dtype: Dtype) -> Path:
    """Write the model of `path` as the new checkpoint folder `target` and return it.

    The folder is read back before it gets its name: its logits on a prompt have to equal those of the GGUF to the
    last bit (after the same rounding to `dtype`), and so does the rendered chat template.

    Raises:
        UsageError: `target` exists already.
        MissingFileError: there is no such GGUF file.
        ModelFileError: it is damaged, of an architecture that transformers cannot read, or did not survive the copy.
        StorageError: too little space, or the folder cannot be written.
    """
    if target.exists():
        raise UsageError(f"{target} already exists.", hint="Choose another folder with --out, or move this one away.")
    shape = metadata.read(path)
    needed = shape.parameters * (4 if dtype == "float32" else 2) + _TOKENIZER_BYTES
    with stage(target.parent, needed, f"importing {path.name}") as scratch, _without_bars():
        ready = scratch / "checkpoint"
        model, tokenizer = _read_gguf(path, dtype)
        model.save_pretrained(ready)
        tokenizer.save_pretrained(ready)
        _compare(ready, model, tokenizer)
        ready.replace(target)
        sync_folder(target.parent)
    return target


def _read_gguf(path: Path, dtype: Dtype) -> tuple[Any, Any]:
    """(model, tokenizer) of a GGUF file, the model rebuilt so that it no longer takes itself for a quantised one."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with loading(f"transformers cannot import {path}", hint=_ANSWERS), _read_once():
        read = AutoModelForCausalLM.from_pretrained(
            path.parent, gguf_file=path.name, dtype=torch.float32, local_files_only=True
        )
        tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name, local_files_only=True)
    # Left in, `quantization_config` makes save_pretrained refuse: GGUF is a format it reads and does not write.
    settings = {k: v for k, v in read.config.to_dict().items() if k not in ("quantization_config", "_name_or_path")}
    with torch.random.fork_rng(devices=[]):  # from_config draws weights that are overwritten at once
        build: Any = AutoModelForCausalLM.from_config
        # With the dtype from the start: `.to` would round the float32 tables of the rotary embedding as well.
        model = build(type(read.config).from_dict(settings), dtype=getattr(torch, dtype))
    model.load_state_dict(read.state_dict())
    model.generation_config = read.generation_config
    return model.eval(), tokenizer


def _compare(folder: Path, model: Any, tokenizer: Any) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    reread: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=model.dtype, local_files_only=True)
    retokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    prompt, reread_prompt = _render(tokenizer), _render(retokenizer)
    if prompt != reread_prompt or not torch.equal(
        _logits(model, tokenizer, prompt), _logits(reread.eval(), retokenizer, reread_prompt)
    ):
        raise ModelFileError(f"{folder.name} differs from the source model when read back.", hint="Check the disk.")


def _render(tokenizer: Any) -> str:
    if not tokenizer.chat_template:
        return _PROMPT[0]["content"]
    try:
        return render_chat(tokenizer, _PROMPT, prompt=True)
    except TemplateRefusesError as error:
        raise ModelFileError(
            f"The chat template rejects a question: {error}.", hint="Use a model with a different chat template."
        ) from error


def _logits(model: Any, tokenizer: Any, text: str) -> "torch.Tensor":
    import torch

    with torch.inference_mode():
        logits: torch.Tensor = model(**tokenizer(text, return_tensors="pt", add_special_tokens=False)).logits
    return logits


@contextlib.contextmanager
def _read_once() -> Iterator[None]:
    """Let transformers read the header once instead of three times, and make its table of names once, not per module.

    That is half of the time of an import. It takes both from the package `gguf` at every call.
    """
    import gguf

    ours = {name: getattr(gguf, name) for name in ("GGUFReader", "get_tensor_name_map")}
    try:
        for name, make in ours.items():
            setattr(gguf, name, functools.cache(make))
        yield
    finally:
        for name, make in ours.items():
            setattr(gguf, name, make)


@contextlib.contextmanager
def _without_bars() -> Iterator[None]:
    """Drop the library's progress bars, one of which has no switch; errors are exceptions and come through."""
    import transformers  # noqa: F401 - first: its logger keeps for good the stderr that it finds

    with contextlib.redirect_stderr(io.StringIO()):
        yield
