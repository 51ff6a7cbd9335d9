"""Exports read back in a fresh process: are their numbers those that were computed, and what are they in their runtime?

This module is both ends: `python -m agentlab.compress.reloading PARENT_PID` is the process.
"""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from agentlab import machine
from agentlab.stats.divergence import Divergence, log_softmax, window
from agentlab.workers.job import run_job, serve_job

PROMPT = "The capital of France is"
_ROUNDS, _READ, _WRITTEN, _ANSWER = 5, 128, 8, 16


@dataclass(frozen=True, slots=True)
class Reloaded:
    """Of a checkpoint folder in transformers; see `Measures`. `weights` is in float32, `runtime` as stored."""

    weights: Divergence
    runtime: Divergence
    load: float
    prefill: float
    decode: float
    source_decode: float
    peak: int
    gpu: dict[str, float]
    says: str


def reload_gguf(path: Path, checkpoint: Path, reference: Path, threads: int, check: Callable[[], None]) -> Divergence:
    """How far the numbers in a GGUF file are from the base, in float32: its tensors in place of the checkpoint's.

    Args:
        path: the file.
        checkpoint: of which the file was made.
        reference: see `divergence_gguf`.
        threads: for torch.
        check: see `run_job`.

    Raises:
        ModelFileError, WorkerDiedError: it cannot be read.
    """
    request = {"op": "gguf", "path": str(path), "checkpoint": str(checkpoint), "reference": str(reference)}
    found = _ask(request, path, threads, check)
    return Divergence.of(found["windows"])


def reload_transformers(path: Path, base: Path, reference: Path, threads: int, check: Callable[[], None]) -> Reloaded:
    """A checkpoint folder as transformers loads it, beside its base in bfloat16; arguments and errors as above."""
    request = {"op": "transformers", "path": str(path), "base": str(base), "reference": str(reference)}
    found = _ask(request, path, threads, check)
    return Reloaded(Divergence.of(found.pop("weights")), Divergence.of(found.pop("runtime")), **found)


def _ask(request: Mapping[str, Any], path: Path, threads: int, check: Callable[[], None]) -> dict[str, Any]:
    asked = {**request, "threads": threads}
    return run_job("agentlab.compress.reloading", asked, f"read {path.name} back", check=check, threads=threads)


# -- in the process -------------------------------------------------------------------------------------------------


def divergences(model: Any, reference: Path) -> list[dict[str, float]]:
    """What `divergence.window` says of each window of a reference, of a model of transformers."""
    import torch
    from safetensors import safe_open

    found = []
    with safe_open(reference, framework="np") as file, torch.inference_mode():
        tokens, base, at = file.get_tensor("tokens"), file.get_slice("logprobs"), file.get_tensor("at")
        for place, ids in enumerate(tokens):
            logits = model(torch.from_numpy(ids)[None].to(model.device)).logits[0, :-1].float().cpu().numpy()
            found.append(window(base[place], log_softmax(logits), ids, at[place]))
    return found


def _work(request: dict[str, Any]) -> Mapping[str, Any]:
    import torch

    from agentlab.train.base import quietly

    torch.set_num_threads(request["threads"])
    with quietly():
        return _gguf(request) if request["op"] == "gguf" else _transformers(request)


def _gguf(request: Mapping[str, Any]) -> dict[str, Any]:
    import torch
    from gguf import GGUFReader
    from gguf.quants import dequantize

    from agentlab.gguf.writing import halved_rows, tensor_names
    from agentlab.train.base import load_base

    model = load_base(Path(request["checkpoint"]), "fp32", "sdpa").model
    config = model.config.to_dict()
    name_of = tensor_names(config)
    ours = {name_of(name): (name, each) for name, each in model.named_parameters()}
    heads = {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]}
    with torch.no_grad():
        for tensor in GGUFReader(request["path"]).tensors:
            if tensor.name in ours:
                name, parameter = ours[tensor.name]
                read = torch.from_numpy(dequantize(tensor.data, tensor.tensor_type)).reshape(parameter.shape)
                count = heads.get(name.split(".")[-2]) if config["model_type"] == "llama" else None
                parameter.copy_(read if count is None else halved_rows(read, count))
    return {"windows": divergences(model, Path(request["reference"]))}


def _transformers(request: Mapping[str, Any]) -> dict[str, Any]:
    import os

    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from agentlab.compress.packed import plain_weights
    from agentlab.workers import memory

    device = machine.device()
    where: dict[str, Any] = {} if device == "cpu" else {"device_map": {"": device}}
    make: Any = partial(AutoModelForCausalLM.from_pretrained, local_files_only=True, trust_remote_code=False, **where)
    reference, path = Path(request["reference"]), request["path"]
    before, began = memory.of(os.getpid()), time.perf_counter()
    model = make(path, dtype=torch.bfloat16).eval()
    with torch.inference_mode():
        model(torch.tensor([[1]], device=model.device))  # some formats are unpacked at first use
    load, after = time.perf_counter() - began, memory.of(os.getpid())
    peak = after.peak - before.resident if before and after else 0  # nothing else was loaded yet
    if device == "cuda":
        peak = torch.cuda.max_memory_allocated()
    base = make(request["base"], dtype=torch.bfloat16).eval()
    prefill, decode, source = _speeds(model, base)
    gpu = _gpu() if device == "cuda" else {}
    tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
    prompt = tokenizer(PROMPT, return_tensors="pt").to(model.device)
    said = model.generate(**prompt, max_new_tokens=_ANSWER, do_sample=False)[0, prompt["input_ids"].shape[1] :]
    runtime = divergences(model, reference)
    del model, base
    return {
        "weights": divergences(plain_weights(make(path, dtype=torch.float32)).eval(), reference),
        "runtime": runtime,
        "load": load,
        "prefill": prefill,
        "decode": decode,
        "source_decode": source,
        "peak": peak,
        "gpu": gpu,
        "says": str(tokenizer.decode(said, skip_special_tokens=True)).strip(),
    }


def _gpu() -> dict[str, float]:
    """Share of its time that it was busy lately, and watts; empty without the counter."""
    import torch

    try:
        return {"busy": torch.cuda.utilization() / 100, "watts": torch.cuda.power_draw() / 1e3}
    except (ImportError, RuntimeError):
        return {}


def _speeds(model: Any, base: Any) -> tuple[float, float, float]:
    """Tokens a second of the model reading and writing, and of the base writing, in turn; medians."""
    import torch

    size = min(model.config.vocab_size, base.config.vocab_size)
    prompt = torch.tensor([[7 * n % size for n in range(_READ)]], device=base.device)
    read: list[float] = []
    written: dict[Any, list[float]] = {model: [], base: []}
    with torch.inference_mode():
        for _ in range(_ROUNDS):
            for each, rates in written.items():
                began = time.perf_counter()
                state = each(prompt, use_cache=True)
                token = state.logits[:, -1:].argmax(-1)
                int(token)  # a GPU is waited for
                middle = time.perf_counter()
                for _ in range(_WRITTEN):
                    state = each(token, past_key_values=state.past_key_values, use_cache=True)
                    token = state.logits[:, -1:].argmax(-1)
                int(token)
                rates.append(_WRITTEN / (time.perf_counter() - middle))
                if each is model:
                    read.append(_READ / (middle - began))
    return statistics.median(read), statistics.median(written[model]), statistics.median(written[base])


if __name__ == "__main__":
    serve_job(_work)
