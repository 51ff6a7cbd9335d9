"""What llama.cpp itself says a model would take, asked in a process of its own. It takes a third of a second."""

import time
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from agentlab import machine
from agentlab.gguf.memory import COPIES, Buffers, Shape
from agentlab.gguf.records import Records
from agentlab.workers.channel import Channel

_SECONDS = 20.0
_MODULE = "agentlab.gguf.dry_run_worker"
_MAX_BYTES = 1 << 50


def dry_run(path: Path, shape: Shape, key: str, cache_file: Path) -> Buffers | None:
    """The buffers that llama.cpp plans for a model, exact to 0.01 MiB; None when it cannot be asked.

    It cannot without the engine, with one that is broken, or with a file that it cannot load: then the formulas of
    `memory` are what is left, and loading will say what is wrong.

    Args:
        path: the file; of several parts the first.
        key: of the file and the engine's build; see `fingerprint`. Answers are kept under it.
        cache_file: where they are kept.
    """
    records, name = Records(cache_file), f"{key} {shape}"
    known = _buffers(records.get(name))
    if known is not None:
        return known
    said = _ask(path, shape)
    found = _buffers(said)
    if found is not None:
        records.put(name, said)
    return found


def _ask(path: Path, shape: Shape) -> dict[str, Any] | None:
    request = {"path": str(path.absolute()), **asdict(shape), "batch": min(shape.batch, shape.context)}
    deadline = time.monotonic() + _SECONDS
    try:
        channel = Channel(_MODULE, {**machine.worker_environment(1), "GGML_NO_BACKTRACE": "1"})
    except OSError:  # no memory or no process number left
        return None
    try:
        said = None
        if channel.send(request, _SECONDS):
            while said is None and time.monotonic() < deadline:
                said = channel.receive(deadline - time.monotonic())
    except (EOFError, ValueError):  # it died, or does not speak the protocol
        return None
    finally:
        channel.dispose()
    return said


def _buffers(value: object) -> Buffers | None:
    """The answer, or what a file says it was, if it is one."""
    if not isinstance(value, dict) or value.keys() != {field.name for field in fields(Buffers)}:
        return None
    found = Buffers(**value)
    counts = (found.cache, found.compute, found.compute_gpu, 0 if found.process is None else found.process)
    sound = all(type(count) is int and 0 <= count < _MAX_BYTES for count in counts)
    return found if sound and found.copies in COPIES and found.compute + found.compute_gpu > 0 else None
