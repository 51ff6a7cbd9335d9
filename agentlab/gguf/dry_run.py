"""What llama.cpp itself says a model would take, asked in a process of its own. It takes a third of a second."""

import time
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from agentlab import machine
from agentlab.gguf.memory import COPIES, Buffers, MemoryShape
from agentlab.gguf.records import Records
from agentlab.workers.channel import Channel

_SECONDS = 20.0
_MODULE = "agentlab.gguf.dry_run_worker"
_MAX_BYTES = 1 << 50


def dry_run(path: Path, shape: MemoryShape, key: str, cache_file: Path) -> Buffers | None:
    """The buffers that llama.cpp plans for a model, exact to 0.01 MiB; None when it cannot be asked.

    It cannot without the engine, with one that is broken, or with a file that it cannot load: then the formulas of
    `memory` are what is left, and loading will say what is wrong. `path`: of several parts the first. Answers are kept
    in `cache_file` under the `key` of the file and the engine's build; see `fingerprint`.
    """
    records, name = Records(cache_file), f"{key} {shape}"
    if known_buffers := _buffers(records.get(name)):
        return known_buffers
    answer = _ask(path, shape)
    buffers = _buffers(answer)
    if buffers is not None:
        records.put(name, answer)
    return buffers


def _ask(path: Path, shape: MemoryShape) -> dict[str, Any] | None:
    request = {"path": str(path.absolute()), **asdict(shape), "batch": min(shape.batch, shape.context)}
    deadline = time.monotonic() + _SECONDS
    try:
        channel = Channel(_MODULE, {**machine.worker_environment(1), "GGML_NO_BACKTRACE": "1"})
    except OSError:  # no memory or no process number left
        return None
    try:
        answer = None
        if channel.send(request, _SECONDS):
            while answer is None and time.monotonic() < deadline:
                answer = channel.receive(deadline - time.monotonic())
    except (EOFError, ValueError):  # it died, or does not speak the protocol
        return None
    finally:
        channel.dispose()
    return answer


def _buffers(value: object) -> Buffers | None:
    """The answer, or what a file says it was, if it is one."""
    if not isinstance(value, dict) or value.keys() != {field.name for field in fields(Buffers)}:
        return None
    buffers = Buffers(**value)
    counts = (buffers.cache, buffers.compute, buffers.compute_gpu, 0 if buffers.process is None else buffers.process)
    sound = all(type(count) is int and 0 <= count < _MAX_BYTES for count in counts)
    return buffers if sound and buffers.copies in COPIES and buffers.compute + buffers.compute_gpu > 0 else None
