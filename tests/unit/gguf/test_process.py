"""A real worker process without a usable model: what goes wrong is a typed error, and nothing stays behind.

Slower than most unit tests (a second or two): each test that loads starts an interpreter with llama.cpp.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from agentlab.errors import (
    BadRequestError,
    LLMCancelledError,
    LLMTimeoutError,
    MissingFileError,
    ModelFileError,
    WorkerDiedError,
)
from agentlab.gguf.engine import EngineConfig
from agentlab.gguf.process import WorkerEngine
from agentlab.gguf.worker_errors import out_of_memory
from agentlab.workers.chat import EngineRequest

ASK = EngineRequest([{"role": "user", "content": "hello"}])


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[WorkerEngine]:
    (tmp_path / "garbage.gguf").write_bytes(b"GGUF" + bytes(4096))
    before = set(psutil.Process().children())  # other tests' helpers, such as multiprocessing's tracker
    engine = WorkerEngine(EngineConfig(tmp_path / "garbage.gguf"))
    yield engine
    engine.close()
    ours = set(psutil.Process().children()) - before
    assert not [child for child in ours if child.status() != psutil.STATUS_ZOMBIE]


def test_a_missing_file_names_the_command_that_brings_it(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError) as caught:
        list(WorkerEngine(EngineConfig(tmp_path / "none.gguf")).chat(ASK))
    assert "agentlab models pull smollm2-135m" in (caught.value.hint or "")


def test_a_damaged_file_is_reported_with_what_llama_cpp_says(engine: WorkerEngine) -> None:
    for _ in range(2):  # the second call starts a worker of its own
        with pytest.raises(ModelFileError, match=r"garbage\.gguf: .+") as caught:
            list(engine.chat(ASK))
        assert "Failed to load model from file" not in caught.value.message  # the cause, not that there is one
    assert engine.worker_pid is None


def test_loading_has_a_time_limit(tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(b"GGUF" + bytes(4096))
    engine = WorkerEngine(EngineConfig(tmp_path / "x.gguf", load_seconds=0.01))
    began = time.monotonic()
    with pytest.raises(LLMTimeoutError, match="Loading"):
        list(engine.chat(ASK))
    assert time.monotonic() - began < 3
    assert engine.worker_pid is None


def test_loading_can_be_cancelled(engine: WorkerEngine) -> None:
    with pytest.raises(LLMCancelledError):
        list(engine.chat(ASK, cancelled=lambda: True))
    assert engine.worker_pid is None


def test_a_process_started_ahead_is_the_one_that_loads(engine: WorkerEngine) -> None:
    engine.start()
    pid = engine.worker_pid
    engine.start()
    assert pid is not None
    assert engine.worker_pid == pid
    assert engine.measured() is not None or sys.platform != "linux"
    with pytest.raises(ModelFileError):
        engine.load()
    assert engine.worker_pid is None
    assert not engine.loaded


def test_a_worker_killed_while_it_loads_is_taken_for_one_that_had_too_little_memory(engine: WorkerEngine) -> None:
    engine.start()
    pid = engine.worker_pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    threading.Timer(0.2, os.kill, (pid, signal.SIGKILL)).start()
    began = time.monotonic()
    with pytest.raises(WorkerDiedError, match=r"while it loaded the model.*SIGKILL") as caught:
        engine.load()
    assert time.monotonic() - began < 2
    assert out_of_memory(caught.value)


def test_an_answer_of_no_tokens_is_refused(engine: WorkerEngine) -> None:
    with pytest.raises(BadRequestError, match="max_tokens"):
        list(engine.chat(EngineRequest(ASK.messages, max_tokens=0)))


def test_closing_twice_or_before_the_first_call_is_safe(engine: WorkerEngine) -> None:
    engine.close()
    engine.close()


def test_a_worker_that_cannot_be_started_is_an_error_a_caller_can_fall_back_from(
    engine: WorkerEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exhausted(*_: object, **__: object) -> None:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr("agentlab.workers.channel.subprocess.Popen", exhausted)
    with pytest.raises(WorkerDiedError, match="Cannot allocate memory"):
        list(engine.chat(ASK))
