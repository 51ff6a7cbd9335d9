"""Exports read back in a fresh process: are their numbers those that were computed, and what are they in their runtime?

This module is both ends: `python -m agentlab.compress.export_check PARENT_PID` is the process.
"""

import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from agentlab import machine
from agentlab.stats.divergence import Divergence, log_softmax, window
from agentlab.stats.ratios import measure_ratios
from agentlab.workers.job import run_job, serve_job

PROMPT = "The capital of France is"
_PROMPTS, _READ, _WRITTEN, _ANSWER = 3, 128, 4, 16


def reload_gguf(path: Path, checkpoint: Path, reference: Path, threads: int, check: Callable[[], None]) -> Divergence:
    """How far the numbers in a GGUF file are from the base, in float32: its tensors in place of the checkpoint's.

    `checkpoint`: of which the file was made; `reference`: see `divergence_gguf`.

    Raises:
        ModelFileError, WorkerDiedError: it cannot be read.
    """
    return Divergence.of(_ask("gguf", path, reference, threads, check, checkpoint=str(checkpoint))["windows"])


def reload_transformers(
    path: Path, base: Path, reference: Path, threads: int, check: Callable[[], None]
) -> tuple[Divergence, Divergence, dict[str, Any]]:
    """A folder in float32 and bfloat16, as transformers loads it, and other figures of the latter; see `Measures`."""
    answer = _ask("transformers", path, reference, threads, check, base=str(base))
    return Divergence.of(answer.pop("weights")), Divergence.of(answer.pop("runtime")), answer


def read_transformers(path: Path, reference: Path, threads: int, check: Callable[[], None]) -> Divergence:
    """The runtime alone, as of `reload_transformers`."""
    return Divergence.of(_ask("read", path, reference, threads, check)["windows"])


def _ask(op: str, path: Path, reference: Path, threads: int, check: Callable[[], None], **extra: str) -> dict[str, Any]:
    job = {"op": op, "path": str(path), "reference": str(reference), "threads": threads, **extra}
    return run_job("agentlab.compress.export_check", job, f"read {path.name} back", check=check, threads=threads)


# -- in the process -------------------------------------------------------------------------------------------------


def divergences(model: Any, reference: Path) -> list[dict[str, float]]:
    """What `divergence.window` says of each window of a reference, of a model of transformers."""
    import torch
    from safetensors import safe_open

    per_window = []
    with safe_open(reference, framework="np") as file, torch.inference_mode():
        tokens, base, at = file.get_tensor("tokens"), file.get_slice("logprobs"), file.get_tensor("at")
        for index, ids in enumerate(tokens):
            logits = model(torch.from_numpy(ids)[None].to(model.device)).logits[0, :-1].float().cpu().numpy()
            per_window.append(window(base[index], log_softmax(logits), ids, at[index]))
    return per_window


def _work(request: dict[str, Any]) -> Mapping[str, Any]:
    import torch

    from agentlab.train.base import quietly

    torch.set_num_threads(request["threads"])
    with quietly():
        return {"gguf": _gguf, "read": _read, "transformers": _transformers}[request["op"]](request)


def _gguf(request: Mapping[str, Any]) -> dict[str, Any]:
    import torch
    from gguf import GGUFReader
    from gguf.quants import dequantize

    from agentlab.gguf.writing import halved_rows, tensor_names
    from agentlab.train.base import load_base

    model = load_base(Path(request["checkpoint"]), "fp32", "sdpa").model
    config = model.config.to_dict()
    name_of = tensor_names(config)
    ours = {name_of(name): (name, weight) for name, weight in model.named_parameters()}
    heads = {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]}
    with torch.no_grad():
        for tensor in GGUFReader(request["path"]).tensors:
            if tensor.name in ours:
                name, parameter = ours[tensor.name]
                read = torch.from_numpy(dequantize(tensor.data, tensor.tensor_type)).reshape(parameter.shape)
                count = heads.get(name.split(".")[-2]) if config["model_type"] == "llama" else None
                parameter.copy_(read if count is None else halved_rows(read, count))
    return {"windows": divergences(model, Path(request["reference"]))}


def _make(path: str, kind: str) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    device = machine.device()
    where: dict[str, Any] = {} if device == "cpu" else {"device_map": {"": device}}
    make: Any = AutoModelForCausalLM.from_pretrained
    return make(path, dtype=getattr(torch, kind), local_files_only=True, trust_remote_code=False, **where).eval()


def _read(request: Mapping[str, Any]) -> dict[str, Any]:
    return {"windows": divergences(_make(request["path"], "bfloat16"), Path(request["reference"]))}


def _transformers(request: Mapping[str, Any]) -> dict[str, Any]:
    import os

    import torch
    from transformers import AutoTokenizer

    from agentlab.compress.checkpoint_formats import plain_weights
    from agentlab.workers import memory

    device, reference, path = machine.device(), Path(request["reference"]), request["path"]
    before, began = memory.of(os.getpid()), time.perf_counter()
    model = _make(path, "bfloat16")
    with torch.inference_mode():
        model(torch.tensor([[1]], device=model.device))  # some formats are unpacked at first use
    load, after = time.perf_counter() - began, memory.of(os.getpid())
    peak = after.peak - before.resident if before and after else 0  # nothing else was loaded yet
    if device == "cuda":
        peak = torch.cuda.max_memory_allocated()
    base = _make(request["base"], "bfloat16")
    speeds = _speeds(model, base)
    gpu = _gpu() if device == "cuda" else {}
    tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
    prompt = tokenizer(PROMPT, return_tensors="pt").to(model.device)
    generated = model.generate(**prompt, max_new_tokens=_ANSWER, do_sample=False)[0, prompt["input_ids"].shape[1] :]
    runtime = divergences(model, reference)
    del model, base
    weights = divergences(plain_weights(_make(path, "float32")), reference)
    says = str(tokenizer.decode(generated, skip_special_tokens=True)).strip()
    return {"weights": weights, "runtime": runtime, "load": load, "peak": peak, "gpu": gpu, "says": says, **speeds}


def _gpu() -> dict[str, float]:
    """Share of its time that it was busy lately, and watts; empty without the counter."""
    import torch

    try:
        return {"busy": torch.cuda.utilization() / 100, "watts": torch.cuda.power_draw() / 1e3}
    except (ImportError, RuntimeError):
        return {}


def _speeds(model: Any, base: Any) -> dict[str, Any]:
    """Tokens a second of the model reading and writing, and of the base writing: medians; and ratios of each round."""
    import torch

    size = min(model.config.vocab_size, base.config.vocab_size)
    prompt = torch.tensor([[7 * n % size for n in range(_READ)]], device=base.device)
    states: dict[Any, Any] = {}
    read: list[float] = []
    written: dict[Any, list[float]] = {model: [], base: []}

    def step(network: Any, tokens: Any, cache: Any = None) -> None:
        states[network] = network(tokens, past_key_values=cache, use_cache=True)
        int(states[network].logits[0, -1].argmax())  # a GPU is waited for

    def measure() -> float:
        for network, rates in written.items():
            began = time.perf_counter()
            for _ in range(_WRITTEN):
                step(network, states[network].logits[:, -1:].argmax(-1), states[network].past_key_values)
            rates.append(_WRITTEN / (time.perf_counter() - began))
        return written[model][-1] / written[base][-1]

    with torch.inference_mode():
        for network in [base, *[model] * _PROMPTS]:
            began = time.perf_counter()
            step(network, prompt)
            read.append(_READ / (time.perf_counter() - began))
        measure()  # to warm up
        ratios = measure_ratios(measure)
    speeds = {"decode": statistics.median(written[model]), "source_decode": statistics.median(written[base])}
    return {"prefill": statistics.median(read[1:]), **speeds, "ratios": ratios}


if __name__ == "__main__":
    serve_job(_work)
