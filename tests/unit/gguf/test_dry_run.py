"""What llama.cpp says it would take: asked for real, kept, and done without when it cannot be had."""

import json
import time
from pathlib import Path

import pytest

from agentlab.config.workspace import Workspace
from agentlab.gguf import dry_run as module
from agentlab.gguf.dry_run import dry_run
from agentlab.gguf.dry_run_worker import sizes
from agentlab.gguf.engine import EngineConfig
from agentlab.gguf.memory import MemoryShape, estimate
from agentlab.gguf.metadata import read
from agentlab.gguf.process import WorkerEngine
from agentlab.models.store import find

REPOSITORY = Path(__file__).resolve().parents[3]
MIB = 1 << 20
LOG = """\
load_tensors:          CPU model buffer size =     0.00 MiB
llama_kv_cache:        CPU KV buffer size =     0.00 MiB
llama_kv_cache: size =    4.00 MiB (  4096 cells,   1 layers,  1/1 seqs), K (f16):    2.00 MiB, V (f16):    2.00 MiB
llama_kv_cache: size =   20.00 MiB (  4096 cells,   5 layers,  1/1 seqs), K (f16):   10.00 MiB, V (f16):   10.00 MiB
llama_memory_recurrent: size =    0.50 MiB (     1 cells,   2 layers,  1 seqs), R (f32):    0.25 MiB
sched_reserve:      CUDA0 compute buffer size =    70.00 MiB
sched_reserve:  CUDA_Host compute buffer size =     6.00 MiB
sched_reserve:        CPU compute buffer size =     3.50 MiB
"""


@pytest.fixture
def model() -> Path:
    return find("smollm2-135m", Workspace(REPOSITORY, REPOSITORY))


def test_sizes_are_read_from_the_log() -> None:
    assert sizes(LOG) == {
        "cache": 24.5 * MIB,
        "compute": 9.5 * MIB,
        "compute_gpu": 70 * MIB,
        "copies": "",
    }
    assert sizes("load_tensors:   CPU_REPACK model buffer size =     0.00 MiB")["copies"] == "CPU_REPACK"
    both = "load_tensors: CPU_REPACK model buffer size = 0.00 MiB\nload_tensors: AMX model buffer size = 0.00 MiB"
    assert sizes(both)["copies"] == "AMX"


@pytest.mark.model
@pytest.mark.parametrize(
    "shape",
    [
        MemoryShape(300, 512, flash=False),
        MemoryShape(2048, 128, flash=False),
        MemoryShape(2048, 128, flash=True),
        MemoryShape(8192, 64, flash=True, kv_type="q8_0"),
        MemoryShape(8192, 512, flash=True, kv_type="q4_0"),
    ],
    ids=str,
)
def test_the_engine_and_the_formula_say_the_same(model: Path, tmp_path: Path, shape: MemoryShape) -> None:
    buffers = dry_run(model, shape, "key", tmp_path / "known.json")
    assert buffers is not None
    formula = estimate(read(model), shape)
    assert formula.cache == pytest.approx(buffers.cache, rel=0.01)
    assert formula.compute == pytest.approx(buffers.compute, rel=0.02, abs=0.01 * MIB)
    assert estimate(read(model), shape, buffers).resident == pytest.approx(formula.resident, abs=16 * MIB)


@pytest.mark.model
def test_an_answer_is_kept_under_its_key(model: Path, tmp_path: Path) -> None:
    shape, cache_path = MemoryShape(512, 64, flash=True), tmp_path / "state" / "known.json"
    buffers = dry_run(model, shape, "key", cache_path)
    began = time.monotonic()
    assert dry_run(tmp_path / "gone.gguf", shape, "key", cache_path) == buffers  # nobody is asked
    assert time.monotonic() - began < 0.1
    assert dry_run(tmp_path / "gone.gguf", shape, "another file", cache_path) is None
    assert dry_run(tmp_path / "gone.gguf", MemoryShape(768, 64, flash=True), "key", cache_path) is None


@pytest.mark.model
def test_what_it_says_to_reserve_is_enough_and_not_much_more(model: Path) -> None:
    metadata = read(model)
    memory = estimate(metadata, MemoryShape(2048, 128, flash=True))
    # The file's pages are not private. For the graph llama.cpp sets room aside that it never touches: 8 nodes with 30
    # inputs each for every tensor, twice.
    reserved = memory.resident - memory.weights + metadata.tensors * 8 * 30 * 2 * 368
    engine = WorkerEngine(EngineConfig(model, context=2048, flash=True, memory_bytes=reserved))
    try:
        report = engine.load()
    finally:
        engine.close()
    assert report.private_bytes < reserved < report.private_bytes + 120 * MIB


@pytest.mark.parametrize("content", [b"", b"GGUF", b"not a model at all" * 1000], ids=["empty", "cut", "other"])
def test_a_file_that_is_no_model_has_no_answer(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.gguf").write_bytes(content)
    assert dry_run(tmp_path / "bad.gguf", MemoryShape(512, 64, flash=True), "key", tmp_path / "known.json") is None
    assert not (tmp_path / "known.json").exists()


def test_an_engine_that_takes_too_long_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SECONDS", 0.02)  # starting the interpreter takes longer
    began = time.monotonic()
    assert dry_run(tmp_path / "gone.gguf", MemoryShape(512, 64, flash=True), "key", tmp_path / "known.json") is None
    assert time.monotonic() - began < 2


@pytest.mark.parametrize(
    "change",
    [{"cache": -1}, {"compute": 1.5}, {"compute": True}, {"copies": "all"}, {"process": "much"}, {"more": 1}],
    ids=str,
)
def test_a_kept_answer_that_is_none_is_not_believed(tmp_path: Path, change: dict[str, object]) -> None:
    answer = {"cache": 5, "compute": 5, "compute_gpu": 0, "process": None, "copies": ""}
    cache_path, shape = tmp_path / "known.json", MemoryShape(512, 64, flash=True)
    cache_path.write_text(json.dumps({"key 512 64 True f16 0 True": answer}))
    assert dry_run(tmp_path / "gone.gguf", shape, "key", cache_path) is not None
    cache_path.write_text(json.dumps({"key 512 64 True f16 0 True": answer | change}))
    assert dry_run(tmp_path / "gone.gguf", shape, "key", cache_path) is None
