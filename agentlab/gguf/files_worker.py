"""The other side of `files`: `python -m agentlab.gguf.files_worker PARENT_PID`, one request and one answer."""

import ctypes
import os
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import llama_cpp  # noqa: TID253 - in a worker process
from safetensors import safe_open

from agentlab.errors import ModelFileError
from agentlab.gguf.engine import EngineConfig, KvType
from agentlab.gguf.native import Native
from agentlab.stats.divergence import log_softmax, window
from agentlab.stats.ratios import measure_ratios
from agentlab.workers import memory
from agentlab.workers.job import serve_job

_api: Any = llama_cpp
_PROMPTS, _READ, _WRITTEN = 3, 128, 4  # of a speed: prompts, their tokens, tokens of a round of writing
_ANSWER = 16
_ERROR = 4  # ggml_log_level, which the package has no name for


def _work(request: dict[str, Any]) -> Mapping[str, Any]:
    work = {"quantize": _quantize, "divergence": _divergence, "speed": _speed, "answer": _answer}[request["op"]]
    return work(request)


def _quantize(request: Mapping[str, Any]) -> dict[str, Any]:
    params = _api.llama_model_quantize_default_params()
    params.ftype, params.nthread = request["type"], request["threads"]
    live_rows = []  # ctypes holds bare pointers
    if "importance" in request:
        with safe_open(request["importance"], framework="np") as file:
            rows = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        entries = (_api.llama_model_imatrix_data * (len(rows) + 1))()  # the last one has no name
        for entry, (name, row) in zip(entries, rows.items(), strict=False):
            entry.name, entry.size = name.encode(), row.size
            entry.data = row.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
            live_rows.append(row)
        params.imatrix = entries
    errors: list[str] = []

    @_api.llama_log_callback  # type: ignore[untyped-decorator] # ctypes
    def collect_errors(level: int, text: bytes, _: object) -> None:
        if level == _ERROR:
            errors.append(text.decode(errors="replace").strip())

    _api.llama_log_set(collect_errors, ctypes.c_void_p(0))
    source, out = (os.fsencode(request[key]) for key in ("source", "out"))
    if _api.llama_model_quantize(source, out, ctypes.byref(params)):
        reason = " ".join(errors[-3:]) or "it gave no reason."
        raise ModelFileError(f"llama.cpp cannot quantize {request['source']}: {reason[:400]}")
    with Path(request["out"]).open("rb+") as file:
        os.fsync(file.fileno())
    return {"size": Path(request["out"]).stat().st_size}


def _divergence(request: Mapping[str, Any]) -> dict[str, Any]:
    with safe_open(request["reference"], framework="np") as file:
        tokens, base, at = file.get_tensor("tokens"), file.get_slice("logprobs"), file.get_tensor("at")
        length, vocabulary = tokens.shape[1], base.get_shape()[2:]
        room = max(length, 64)
        native = Native(_config(request["path"], request, room, room, request["kv_type"]), outputs=length)
        if vocabulary and native.vocabulary != vocabulary[0]:
            raise ModelFileError(
                f"{request['path']} has a vocabulary of {native.vocabulary} tokens, but its base has {vocabulary[0]}."
            )
        windows = [
            window(base[index], log_softmax(native.window(ids.tolist())[:-1]), ids, at[index])
            for index, ids in enumerate(tokens)
        ]
    return {"windows": windows}


def _speed(request: Mapping[str, Any]) -> dict[str, Any]:
    ours, *other_paths = request["paths"]
    configs = [_config(ours, request, 512, _READ, request["kv_type"])]
    configs += [_config(path, request, 512, _READ) for path in other_paths]
    natives, loads, peaks = [], [], []
    for engine_config in configs:
        before, began = _resident(), time.perf_counter()
        natives.append(Native(engine_config))
        loads.append(time.perf_counter() - began)
        natives[-1].evaluate(_prompt(natives[-1]))
        peaks.append(max(0, _resident() - before))
    read = [_read_speeds(natives) for _ in range(_PROMPTS)]
    written: list[list[float]] = []

    def measure() -> float:
        written.append([_WRITTEN / _write(native) for native in natives])
        return written[-1][0] / written[-1][-1]

    measure()  # to warm up
    ratios = measure_ratios(measure)
    speeds = [
        {"load": load, "peak": peak, "prefill": statistics.median(r), "decode": statistics.median(w)}
        for load, peak, r, w in zip(loads, peaks, zip(*read, strict=True), zip(*written, strict=True), strict=True)
    ]
    return {"speeds": speeds, "ratios": ratios}


def _read_speeds(natives: Sequence[Native]) -> list[float]:
    """Tokens of the prompt per second, by engine."""
    return [_READ / _read(native) for native in natives]


def _read(native: Native) -> float:
    """Seconds that the prompt takes."""
    native.cut(0)
    began = time.perf_counter()
    native.evaluate(_prompt(native))
    native.wait()
    return time.perf_counter() - began


def _write(native: Native) -> float:
    """Seconds that the next words take."""
    began = time.perf_counter()
    for _ in range(_WRITTEN):
        native.evaluate([int(native.logits().argmax())])
        native.wait()
    return time.perf_counter() - began


def _config(path: str, request: Mapping[str, Any], room: int, batch: int, kv: KvType = "f16") -> EngineConfig:
    return EngineConfig(Path(path), room, request["threads"], batch=batch, flash=kv != "f16", kv_type=kv)


def _prompt(native: Native) -> list[int]:
    return [7 * n % native.vocabulary for n in range(_READ)]


def _resident() -> int:
    used_memory = memory.of(os.getpid())
    return used_memory.resident if used_memory else 0


def _answer(request: Mapping[str, Any]) -> dict[str, Any]:
    native = Native(EngineConfig(Path(request["path"]), 512, request["threads"]))
    native.evaluate(native.tokenize(request["prompt"])[-128:])
    data = b""
    for _ in range(_ANSWER):
        token = int(native.logits().argmax())
        piece = native.piece(token)
        if piece is None:
            break
        data += piece
        native.evaluate([token])
    return {"text": data.decode(errors="replace").strip()}


if __name__ == "__main__":
    serve_job(_work)
