"""The embedded model in its worker process: answers, repeats, streams, stops, dies and comes back."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from agentlab.config.workspace import Workspace
from agentlab.errors import (
    AgentlabError,
    BadRequestError,
    ContextOverflowError,
    LLMCancelledError,
    LLMTimeoutError,
    ModelFileError,
    WorkerDiedError,
)
from agentlab.gguf.engine import EngineConfig, KvType
from agentlab.gguf.process import WorkerEngine
from agentlab.gguf.worker_errors import out_of_memory
from agentlab.models.store import find
from agentlab.workers.chat import Chunk, EngineRequest

pytestmark = pytest.mark.model

REPOSITORY = Path(__file__).resolve().parents[2]
SCHEMA = {
    "type": "object",
    "properties": {
        "capital": {"type": "string", "maxLength": 20},
        "score": {"type": "integer", "minimum": 1, "maximum": 5},
        "size": {"enum": ["small", "large"]},
    },
    "required": ["capital", "score", "size"],
    "additionalProperties": False,
}
FRANCE = EngineRequest([{"role": "user", "content": "What is the capital of France?"}], schema=SCHEMA, max_tokens=80)
LONG = EngineRequest([{"role": "user", "content": "Tell me a long story about a lighthouse."}], max_tokens=400)
SAMPLED = replace(LONG, max_tokens=24, temperature=0.9, seed=7)


@pytest.fixture(scope="module")
def model() -> Path:
    try:
        return find("smollm2-135m", Workspace.locate(os.environ, REPOSITORY))
    except AgentlabError as error:
        pytest.fail(f"{error.message} Run `make setup`.")


@pytest.fixture(scope="module")
def engine(model: Path) -> Iterator[WorkerEngine]:
    engine = WorkerEngine(EngineConfig(model))
    yield engine
    engine.close()


def text(chunks: Iterator[Chunk] | list[Chunk]) -> str:
    return "".join(chunk.text for chunk in chunks)


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_an_answer_fits_its_schema_to_the_last_bound(engine: WorkerEngine) -> None:
    chunks = list(engine.chat(FRANCE))
    answer = json.loads(text(chunks))
    assert set(answer) == {"capital", "score", "size"}
    assert "Paris" in answer["capital"]
    assert len(answer["capital"]) <= 20
    assert 1 <= answer["score"] <= 5  # the binding's own converter has no rule for this
    assert answer["size"] in ("small", "large")
    assert chunks[-1].finish == "stop"


def test_an_answer_streams_and_its_last_chunk_counts(engine: WorkerEngine) -> None:
    chunks = list(engine.chat(SAMPLED))
    assert len([chunk for chunk in chunks if chunk.text]) > 5
    assert all(chunk.finish is None for chunk in chunks[:-1])
    assert (chunks[-1].finish, chunks[-1].completion_tokens) == ("length", 24)
    assert (chunks[-1].prompt_tokens or 0) > 20


def test_the_same_request_gives_the_same_text_again_and_in_another_process(model: Path, engine: WorkerEngine) -> None:
    first = text(engine.chat(SAMPLED))
    list(engine.chat(FRANCE))  # whatever came before must not matter
    assert text(engine.chat(SAMPLED)) == first
    second_engine = WorkerEngine(EngineConfig(model))
    try:
        assert text(second_engine.chat(SAMPLED)) == first
    finally:
        second_engine.close()
    assert text(engine.chat(replace(SAMPLED, seed=8))) != first


def test_a_stop_text_ends_the_answer_and_is_no_part_of_it(engine: WorkerEngine) -> None:
    full_text = text(engine.chat(SAMPLED))
    stop = full_text[len(full_text) // 2 :][:4]
    chunks = list(engine.chat(replace(SAMPLED, stop=(stop,))))
    assert text(chunks) == full_text[: full_text.index(stop)]
    assert chunks[-1].finish == "stop"
    assert (chunks[-1].completion_tokens or 0) < 24


def test_top_p_narrows_what_is_drawn(engine: WorkerEngine) -> None:
    hot = replace(SAMPLED, temperature=1.9)
    likeliest = text(engine.chat(replace(SAMPLED, temperature=0.0)))
    assert text(engine.chat(replace(hot, top_p=0.01))) == likeliest
    assert text(engine.chat(hot)) != likeliest


def test_the_likeliest_answer_under_a_schema_is_the_one_that_all_allowed_tokens_are_asked_for(
    engine: WorkerEngine,
) -> None:
    sampled = replace(FRANCE, temperature=1e-3, top_p=0.01)  # as narrow, but from the whole vocabulary
    assert text(engine.chat(FRANCE)) == text(engine.chat(sampled))


def test_any_json_object_is_a_schema(engine: WorkerEngine) -> None:
    answer = text(engine.chat(replace(FRANCE, schema={"type": "object"}, max_tokens=120)))
    assert isinstance(json.loads(answer), dict)


def test_a_cancelled_answer_stops_early_and_keeps_the_worker(engine: WorkerEngine) -> None:
    list(engine.chat(replace(FRANCE, max_tokens=1)))
    pid, seen, began = engine.worker_pid, list[Chunk](), time.monotonic()
    with pytest.raises(LLMCancelledError):
        seen.extend(engine.chat(LONG, cancelled=lambda: time.monotonic() - began > 1))
    assert time.monotonic() - began < 5
    assert 0 < len(seen) < 400
    assert json.loads(text(engine.chat(FRANCE)))
    assert engine.worker_pid == pid


def test_a_reader_that_walks_away_stops_the_answer(engine: WorkerEngine) -> None:
    answer = engine.chat(LONG)
    next(answer)
    answer.close()  # type: ignore[attr-defined] # it is a generator
    assert json.loads(text(engine.chat(FRANCE)))


@pytest.mark.parametrize(
    ("batch", "is_same_worker"), [(16, True), (2048, False)], ids=["after a batch", "in a long batch"]
)
def test_cancelling_while_the_prompt_is_read_ends_it_or_else_the_worker(
    model: Path, batch: int, is_same_worker: bool
) -> None:
    engine = WorkerEngine(EngineConfig(model, context=8192, batch=batch))
    prompt = EngineRequest([{"role": "user", "content": "The hill. " * 2000}], max_tokens=1)
    try:
        engine.load()
        pid, began = engine.worker_pid, time.monotonic()
        with pytest.raises(LLMCancelledError):
            list(engine.chat(prompt, cancelled=lambda: time.monotonic() - began > 0.3))
        assert time.monotonic() - began < 4
        assert (engine.worker_pid == pid) is is_same_worker
        assert json.loads(text(engine.chat(FRANCE)))
    finally:
        engine.close()


def test_the_time_limit_holds_inside_the_prompt(model: Path) -> None:
    engine = WorkerEngine(EngineConfig(model, context=8192, batch=2048))
    try:
        engine.load()
        began = time.monotonic()
        with pytest.raises(LLMTimeoutError):
            list(engine.chat(EngineRequest([{"role": "user", "content": "The hill. " * 2000}], seconds=0.3)))
        assert time.monotonic() - began < 2
        last = list(engine.chat(FRANCE))[-1]
        assert (last.finish, last.reused_tokens) == ("stop", 0)  # by a new worker
    finally:
        engine.close()


def test_the_time_limit_ends_an_answer_and_the_next_call_works(engine: WorkerEngine) -> None:
    began = time.monotonic()
    with pytest.raises(LLMTimeoutError, match=r"0\.5 seconds"):
        list(engine.chat(replace(LONG, seconds=0.5)))
    assert time.monotonic() - began < 3
    assert json.loads(text(engine.chat(FRANCE)))


def test_a_worker_killed_in_mid_answer_is_reported_and_replaced(engine: WorkerEngine) -> None:
    answer = engine.chat(LONG)
    next(answer)
    pid = engine.worker_pid
    assert pid is not None
    began = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(WorkerDiedError, match="SIGKILL"):
        list(answer)
    assert time.monotonic() - began < 2
    assert json.loads(text(engine.chat(FRANCE)))
    assert engine.worker_pid not in (None, pid)


def test_a_file_that_was_cut_off_is_reported_and_the_whole_one_answers(model: Path, tmp_path: Path) -> None:
    file, began = tmp_path / "cut.gguf", time.monotonic()
    with model.open("rb") as source:
        file.write_bytes(source.read(20 << 20))
    engine = WorkerEngine(EngineConfig(file))
    try:
        with pytest.raises(ModelFileError, match="file bounds") as caught:
            engine.load()
        assert not out_of_memory(caught.value)
        assert time.monotonic() - began < 2
        file.unlink()
        file.symlink_to(model)
        assert json.loads(text(engine.chat(FRANCE)))
    finally:
        engine.close()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux bounds it")
@pytest.mark.parametrize(
    ("mebibytes", "kind"),
    [(8, ModelFileError), (40, ModelFileError), (90, WorkerDiedError)],
    ids=["vocabulary", "cache", "a check"],
)
def test_too_little_memory_is_known_as_such(model: Path, mebibytes: int, kind: type[AgentlabError]) -> None:
    engine, began = WorkerEngine(EngineConfig(model, memory_bytes=mebibytes << 20)), time.monotonic()
    with pytest.raises(kind) as caught:
        engine.load()
    assert time.monotonic() - began < 2
    assert out_of_memory(caught.value)
    assert engine.worker_pid is None


def test_a_bound_that_suffices_changes_nothing(model: Path, engine: WorkerEngine) -> None:
    bounded = WorkerEngine(EngineConfig(model, memory_bytes=160 << 20))
    try:
        assert text(bounded.chat(SAMPLED)) == text(engine.chat(SAMPLED))
    finally:
        bounded.close()


def test_loading_needs_no_call_and_happens_once(model: Path) -> None:
    engine = WorkerEngine(EngineConfig(model))
    try:
        engine.start()
        pid, states = engine.worker_pid, [engine.loaded]
        assert pid is not None
        loaded = engine.load()
        states.append(engine.loaded)
        assert 0 < loaded.seconds < 10
        assert engine.load() is loaded
        list(engine.chat(replace(FRANCE, max_tokens=1)))
        assert engine.worker_pid == pid
        if sys.platform == "linux":
            seen = engine.measured()
            assert seen is not None
            assert 45 << 20 < loaded.private_bytes < loaded.resident_bytes  # the attention cache alone takes 45 MiB
            assert loaded.resident_bytes <= seen.peak
    finally:
        engine.close()
    assert [*states, engine.loaded] == [False, True, False]
    assert engine.measured() is None


@pytest.mark.parametrize("kv_type", ["q8_0", "q4_0"])
def test_a_quantised_cache_takes_less_memory_and_still_knows_paris(
    model: Path, engine: WorkerEngine, kv_type: KvType
) -> None:
    small = WorkerEngine(EngineConfig(model, flash=True, kv_type=kv_type))
    try:
        assert small.load().private_bytes < engine.load().private_bytes - (15 << 20)
        assert "Paris" in text(small.chat(FRANCE))
    finally:
        small.close()


def test_the_last_chunk_says_where_the_time_went_and_how_likely_the_answer_was(engine: WorkerEngine) -> None:
    began = time.monotonic()
    last = list(engine.chat(replace(SAMPLED, logprob=True)))[-1]
    elapsed = time.monotonic() - began
    assert last.prefill_seconds is not None
    assert last.decode_seconds is not None
    assert 0 < last.prefill_seconds + last.decode_seconds < elapsed
    assert last.logprob is not None
    assert -8 < last.logprob < 0
    likeliest = list(engine.chat(replace(SAMPLED, logprob=True, temperature=0.0)))[-1]
    assert (likeliest.logprob or -9) > last.logprob
    assert list(engine.chat(SAMPLED))[-1].logprob is None


def test_a_stopped_worker_runs_into_the_time_limit(engine: WorkerEngine) -> None:
    list(engine.chat(replace(FRANCE, max_tokens=1)))
    pid = engine.worker_pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    huge = [{"role": "user", "content": "x" * 300_000}]  # more than a pipe holds
    with pytest.raises(LLMTimeoutError):
        list(engine.chat(EngineRequest(huge, seconds=0.5)))
    assert gone(pid)
    assert json.loads(text(engine.chat(FRANCE)))


@pytest.mark.parametrize(
    ("request_", "kind"),
    [
        (EngineRequest([{"role": "user", "content": "word " * 3000}]), ContextOverflowError),
        (replace(FRANCE, max_tokens=2040), ContextOverflowError),
        (replace(FRANCE, schema={"$ref": "#/$defs/Nothing", "$defs": {}}), BadRequestError),
        (replace(FRANCE, schema={"type": "string", "pattern": "^[a-z]{100000}$"}), BadRequestError),
        (replace(FRANCE, schema={"type": "no such type"}), BadRequestError),
        (EngineRequest([]), BadRequestError),
    ],
    ids=["long prompt", "long answer", "undefined rule", "monstrous grammar", "unknown type", "no messages"],
)
def test_a_request_that_cannot_be_met_keeps_the_worker(
    engine: WorkerEngine, request_: EngineRequest, kind: type[AgentlabError]
) -> None:
    list(engine.chat(replace(FRANCE, max_tokens=1)))
    pid, began = engine.worker_pid, time.monotonic()
    with pytest.raises(kind):
        list(engine.chat(request_))
    assert time.monotonic() - began < 2
    assert engine.worker_pid == pid


def test_callers_take_turns(engine: WorkerEngine) -> None:
    alone, answers = text(engine.chat(SAMPLED)), []
    threads = [threading.Thread(target=lambda: answers.append(text(engine.chat(SAMPLED)))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [alone] * 3


def test_a_worker_outlives_the_thread_that_started_it(model: Path) -> None:
    engine = WorkerEngine(EngineConfig(model))
    try:
        starter = threading.Thread(target=lambda: list(engine.chat(replace(FRANCE, max_tokens=1))))
        starter.start()
        starter.join()
        pid = engine.worker_pid
        time.sleep(0.3)
        assert json.loads(text(engine.chat(FRANCE)))
        assert engine.worker_pid == pid
    finally:
        engine.close()


def test_closing_during_an_answer_ends_it_and_frees_the_process(model: Path) -> None:
    engine = WorkerEngine(EngineConfig(model))
    answer, caught = engine.chat(LONG), []
    next(answer)
    pid = engine.worker_pid
    assert pid is not None

    def read_on() -> None:
        try:
            list(answer)
        except LLMCancelledError as error:
            caught.append(error)

    reader = threading.Thread(target=read_on)
    reader.start()
    began = time.monotonic()
    engine.close()
    assert time.monotonic() - began < 2
    reader.join(timeout=5)
    assert len(caught) == 1
    assert gone(pid)


@pytest.mark.parametrize("hold_pipe_open", [False, True], ids=["input ends", "input held open by a fork"])
def test_no_worker_survives_its_parent(model: Path, hold_pipe_open: bool) -> None:
    code = (
        "import os, sys, time; from pathlib import Path\n"
        "from agentlab.gguf.engine import EngineConfig\n"
        "from agentlab.gguf.process import WorkerEngine\n"
        "from agentlab.workers.chat import EngineRequest\n"
        "engine = WorkerEngine(EngineConfig(Path(sys.argv[1])))\n"
        "answer = engine.chat(EngineRequest([{'role': 'user', 'content': 'Tell me a story.'}], max_tokens=400))\n"
        "next(answer)\n"
        "fork = os.fork() if sys.argv[2] == 'True' else 0\n"
        "if fork == 0 and sys.argv[2] == 'True': time.sleep(20); os._exit(0)\n"
        "print(engine.worker_pid, fork, flush=True)\n"
        "time.sleep(60)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code, str(model), str(hold_pipe_open)], stdout=subprocess.PIPE, cwd=REPOSITORY
    )
    assert parent.stdout
    worker, fork = (int(word) for word in parent.stdout.readline().split())
    try:
        assert not gone(worker)
        parent.kill()
        parent.wait()
        deadline = time.monotonic() + 5
        while not gone(worker) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert gone(worker)
    finally:
        if fork:
            os.kill(fork, signal.SIGKILL)
        parent.stdout.close()
