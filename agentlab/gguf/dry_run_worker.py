"""Asks llama.cpp what a model would take: `python -m agentlab.gguf.dry_run_worker PARENT_PID`.

    {"path", "context", "batch", "flash", "kv_type", "gpu_layers", "repack"}                in, once
    {"cache", "compute", "compute_gpu", "process", "copies"}                                out; see `memory.Buffers`

The model is loaded with `no_alloc`: header and vocabulary are read, buffers are planned and not made. Sizes come from
llama.cpp's log, which it has instead of a function for them. It changes the library's global state, so it has a process
of its own, which ends with the answer, and which dies without one when the model cannot be loaded.
"""

import ctypes
import os
import queue
import re
import sys
from pathlib import Path
from typing import Any

from agentlab.gguf.engine import EngineConfig
from agentlab.gguf.memory import COPIES
from agentlab.workers import child, memory

_HEADROOM = 2 << 30  # a vocabulary is far smaller
_MAX_LOG = 1 << 20  # characters
_CACHE = re.compile(r"^llama_(?:kv_cache|memory_recurrent)\S* size = +([\d.]+) MiB", re.MULTILINE)
_COMPUTE = re.compile(r"^\w+: +(\S+) compute buffer size = +([\d.]+) MiB", re.MULTILINE)


def sizes(log: str) -> dict[str, int | str]:
    """Bytes by what llama.cpp logs while it loads: "cache", "compute", "compute_gpu"; and "copies"."""
    compute = {True: 0, False: 0}
    for device, mib in _COMPUTE.findall(log):
        compute[device == "CPU" or device.endswith("_Host")] += _bytes(mib)
    return {
        "cache": sum(_bytes(mib) for mib in _CACHE.findall(log)),
        "compute": compute[True],
        "compute_gpu": compute[False],
        "copies": next((name for name in COPIES if f" {name} model buffer" in log), ""),
    }


def _bytes(mib: str) -> int:
    return round(float(mib) * (1 << 20))


def _load(config: EngineConfig) -> str:
    """Plan the buffers of a model; what llama.cpp logs meanwhile."""
    import llama_cpp

    from agentlab.gguf import decoder, native  # noqa: F401 - the decoder for its size: the worker holds it, too

    api: Any = llama_cpp
    log: list[str] = []

    @api.llama_log_callback  # type: ignore[untyped-decorator] # ctypes
    def collect_sizes(_: int, text: bytes, __: object) -> None:
        if "size" in (line := text.decode(errors="replace")) and len(log) < _MAX_LOG // 200:
            log.append(line[:200])

    api.llama_log_set(collect_sizes, ctypes.c_void_p(0))
    model_params = native.model_params(config)
    model_params.no_alloc, model_params.use_mmap = True, False
    model = api.llama_model_load_from_file(os.fsencode(config.path), model_params)
    if not model or not api.llama_init_from_model(model, native.context_params(config, config.batch)):
        sys.exit(f"llama.cpp cannot load {config.path}")
    return "".join(log)


def _serve(pipes: child.Pipes, requests: "queue.SimpleQueue[dict[str, Any]]") -> None:
    fields = requests.get()
    memory.bound_memory(_HEADROOM)
    config = EngineConfig(Path(fields.pop("path")), **fields)
    buffer_sizes = sizes(_load(config))
    used_memory = memory.of(os.getpid())
    pipes.reply({**buffer_sizes, "process": used_memory.resident if used_memory else None})


if __name__ == "__main__":
    _requests: "queue.SimpleQueue[dict[str, Any]]" = queue.SimpleQueue()
    _pipes = child.attach(int(sys.argv[1]))
    _pipes.serve(_requests.put, lambda: _serve(_pipes, _requests))
