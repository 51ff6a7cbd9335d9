"""A worker process that says what its script says: how the two ends of a chat agree, without a model."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agentlab.errors import BadRequestError, LLMCancelledError, MissingFileError, WorkerDiedError
from agentlab.workers import deaths
from agentlab.workers.chat import ChatRequest, Chunk
from agentlab.workers.chat_process import ChatProcess, ChatWorker

WORKER = """
import sys, time
from agentlab.errors import BadRequestError, WorkerDiedError
from agentlab.workers import child
from agentlab.workers.chat import Chunk
from agentlab.workers.chat_server import ChatServer

class Decoder:
    def __init__(self, name): self.name = name
    def chat(self, request):
        ask = request.messages[0]["content"]
        if ask == "bad": raise BadRequestError("no", hint="ask better")
        if ask == "die": raise WorkerDiedError("could not go on: out of memory")
        yield Chunk(self.name)
        for _ in range(1000 if ask == "think" else 3):
            time.sleep(0.01)
            yield Chunk()
        yield Chunk("!", "stop", 1, 2, 3, 0.5, 0.25, -1.5 if request.logprob else None)

def prepare():
    time.sleep(0.3)
    return Decoder

ChatServer(child.attach(int(sys.argv[1])), prepare).run()
"""


def ask(content: str) -> ChatRequest:
    return ChatRequest([{"role": "user", "content": content}], seconds=20, logprob=content == "sure")


@pytest.fixture
def process(tmp_path: Path) -> Iterator[ChatProcess]:
    (tmp_path / "scripted_worker.py").write_text(WORKER)
    (tmp_path / "model").touch()

    def load(_: Callable[[], bool]) -> dict[str, str]:
        if not (tmp_path / "model").exists():
            raise MissingFileError("There is no model.")
        return {"name": "hello"}

    variables = {"PYTHONPATH": str(tmp_path)}
    process = ChatProcess(
        ChatWorker("scripted", "scripted_worker", variables, load, 20.0, lambda status, _: deaths.describe(status))
    )
    yield process
    process.close()


def test_pieces_arrive_and_the_last_one_knows_all_the_worker_does(process: ChatProcess) -> None:
    assert list(process.chat(ask("hi"))) == [Chunk("hello"), Chunk("!", "stop", 1, 2, 3, 0.5, 0.25, None)]
    assert list(process.chat(ask("sure")))[-1].logprob == -1.5


def test_what_is_prepared_ahead_is_not_waited_for_while_loading(process: ChatProcess) -> None:
    process.start()
    states = [process.loaded]
    time.sleep(1.5)
    loaded = process.load()
    assert loaded.seconds < 0.3
    assert process.load() is loaded
    assert [*states, process.loaded] == [False, True]


def test_between_two_pieces_of_nothing_a_call_can_be_stopped(process: ChatProcess) -> None:
    process.load()
    pid, thinking = process.worker_pid, process.chat(ask("think"))
    assert next(thinking).text == "hello"
    began = time.monotonic()
    thinking.close()  # type: ignore[attr-defined] # it is a generator
    assert time.monotonic() - began < 0.5
    assert list(process.chat(ask("hi")))[-1].finish == "stop"
    assert process.worker_pid == pid


def test_a_refusal_keeps_the_worker_and_a_last_word_ends_it(process: ChatProcess) -> None:
    process.load()
    pid = process.worker_pid
    with pytest.raises(BadRequestError) as caught:
        list(process.chat(ask("bad")))
    assert caught.value.hint == "ask better"
    assert process.worker_pid == pid
    with pytest.raises(WorkerDiedError, match="out of memory"):
        list(process.chat(ask("die")))
    assert process.worker_pid is None
    assert list(process.chat(ask("hi")))[-1].finish == "stop"
    assert process.worker_pid not in (None, pid)


def test_loading_that_is_cancelled_or_pointless_leaves_no_worker(process: ChatProcess, tmp_path: Path) -> None:
    with pytest.raises(LLMCancelledError):
        process.load(cancelled=lambda: True)
    assert process.worker_pid is None
    (tmp_path / "model").unlink()
    with pytest.raises(MissingFileError):
        process.load()
    assert process.worker_pid is None
