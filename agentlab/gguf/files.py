"""GGUF files made smaller by llama.cpp, and measured in it, each in a process of its own."""

import os
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from agentlab.errors import ModelFileError, UnknownNameError, UsageError
from agentlab.gguf.engine import KvType
from agentlab.gguf.worker_errors import CAUSES
from agentlab.runs.atomic import storage_errors, sync_folder
from agentlab.stats.divergence import Divergence
from agentlab.workers.job import run_job

_WORKER = "agentlab.gguf.files_worker"
# By llama.cpp's own numbers (llama_ftype).
TYPES: Mapping[str, int] = {
    "F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q8_0": 7, "Q5_0": 8, "Q5_1": 9, "Q2_K": 10, "Q3_K_S": 11, "Q3_K_M": 12,
    "Q3_K_L": 13, "Q4_K_S": 14, "Q4_K_M": 15, "Q5_K_S": 16, "Q5_K_M": 17, "Q6_K": 18, "IQ4_NL": 25, "IQ4_XS": 30,
    "BF16": 32,
}  # fmt: skip
_PROBE = 1 << 20  # bytes that a disk with room takes
_BLOCK = 256  # inputs of a super-block of a k-quant

Check = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Speed:
    """Of a file in llama.cpp."""

    load: float  # seconds
    prefill: float  # tokens a second, the median
    decode: float  # the same of writing
    peak: int  # bytes behind a prompt
    ratios: tuple[float, ...]  # log of the first file's speed of writing by the other's, in each round


def quantize_gguf(
    source: Path,
    out: Path,
    kind: str,
    *,
    importance: Mapping[str, np.ndarray] | None = None,
    threads: int = 1,
    check: Check = lambda: None,
) -> None:
    """A GGUF file with smaller numbers, by llama.cpp's own quantizer; whole or not at all.

    `source`: in f32, f16 or bf16; what is quantised already loses twice and is refused. `kind`: of `TYPES`; rows that
    256 does not divide get another type, see `falls_back`. `importance`: of each tensor by its GGUF name, the mean
    square of each of its inputs.

    Raises:
        UnknownNameError: no such type.
        UsageError: `out` exists.
        ModelFileError: llama.cpp refuses the file.
        StorageError: the disk is full or not ours.
        WorkerDiedError: llama.cpp died.
    """
    if kind not in TYPES:
        raise UnknownNameError("llama.cpp type", kind, list(TYPES))
    if out.exists() or out.is_symlink():
        raise UsageError(f"{out} already exists.", hint="Choose another name, or remove the file.")
    temporary = out.with_name(f".{out.name[:64]}.{secrets.token_hex(4)}.tmp")
    matrix = temporary.with_suffix(".importance")
    request = {"op": "quantize", "source": str(source.absolute()), "out": str(temporary.absolute())}
    try:
        with storage_errors(out), _full_disk_told(temporary):
            if importance is not None:
                from safetensors.numpy import save_file

                mean_squares = {name: np.ascontiguousarray(row, np.float32) for name, row in importance.items()}
                save_file(mean_squares, matrix)
                request["importance"] = str(matrix.absolute())
            job = {**request, "type": TYPES[kind], "threads": threads}
            run_job(_WORKER, job, f"quantized {source.name}", check=check, threads=threads, causes=CAUSES)
            temporary.replace(out)
            sync_folder(out.parent)
    finally:
        temporary.unlink(missing_ok=True)
        matrix.unlink(missing_ok=True)


@contextmanager
def _full_disk_told(path: Path) -> Iterator[None]:
    """Raise OSError where llama.cpp could not write a file for want of room: it says "iostream error" at most."""
    try:
        yield
    except ModelFileError:
        with path.open("ab") as file:
            file.write(bytes(_PROBE))
            file.flush()
            os.fsync(file.fileno())
        raise


def falls_back(shapes: Mapping[str, Sequence[int]], kind: str) -> list[str]:
    """The matrices that a k-quant cannot hold, for 256 does not divide their inputs; shapes are (outputs, inputs)."""
    if "_K" not in kind and kind != "IQ4_XS":
        return []
    return [name for name, shape in shapes.items() if len(shape) == 2 and shape[1] % _BLOCK]


def divergence_gguf(
    path: Path, reference: Path, threads: int, check: Check = lambda: None, *, kv_type: KvType = "f16"
) -> Divergence:
    """How far a file is from its base, in llama.cpp, whose threads change last bits.

    `reference`: safetensors with `tokens` (windows, length), `logprobs`, float32 (windows, length - 1, vocabulary), of
    the base, or of true tokens alone (windows, length - 1), and `at`, bool of that shape, where they count.
    `kv_type` is how keys and values are kept meanwhile.

    Raises:
        ModelFileError: it cannot be loaded, or so, or has another vocabulary.
        WorkerDiedError: llama.cpp died.
    """
    files = {"path": str(path.absolute()), "reference": str(reference.absolute())}
    request = {"op": "divergence", "kv_type": kv_type, **files}
    return Divergence.of(_ask(request, path, threads, check)["windows"])


def speed_gguf(
    paths: Sequence[Path], threads: int, check: Check = lambda: None, *, kv_type: KvType = "f16"
) -> list[Speed]:
    """How fast a file is beside others, in turn in one process, so that what slows the machine down slows all of them.

    The first keeps its keys and values in `kv_type`, the others in f16. Rounds: see `measure_ratios`.

    Raises:
        ModelFileError, WorkerDiedError: as `divergence_gguf`.
    """
    request = {"op": "speed", "kv_type": kv_type, "paths": [str(path.absolute()) for path in paths]}
    answer = _ask(request, paths[0], threads, check)
    return [Speed(**speed, ratios=tuple(answer["ratios"])) for speed in answer["speeds"]]


def answer_gguf(path: Path, prompt: str, threads: int, check: Check = lambda: None) -> str:
    """The likeliest next words, as a sign of life."""
    request = {"op": "answer", "path": str(path.absolute()), "prompt": prompt}
    return str(_ask(request, path, threads, check)["text"])


def _ask(request: Mapping[str, Any], path: Path, threads: int, check: Check) -> dict[str, Any]:
    job_request = {**request, "threads": threads}
    return run_job(_WORKER, job_request, f"measured {path.name}", check=check, threads=threads, causes=CAUSES)
