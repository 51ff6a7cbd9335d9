"""A worker process that says what its script says: how the two ends of a chat agree, without a model."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from agentlab.errors import (
    AgentlabError,
    BadRequestError,
    LLMCancelledError,
    LLMTimeoutError,
    MissingFileError,
    WorkerDiedError,
)
from agentlab.workers import chat_process, exit_status
from agentlab.workers.chat import Chunk, EngineRequest
from agentlab.workers.chat_process import ChatProcess, ChatWorker

WORKER = """
import itertools, sys, time
from agentlab.errors import BadRequestError, WorkerDiedError
from agentlab.workers import child
from agentlab.workers.chat import Chunk
from agentlab.workers.chat_server import ChatServer

class Decoder:
    def __init__(self, name): self.name, self.pieces = name, itertools.count()
    def chat(self, request):
        ask = request.messages[0]["content"]
        if ask == "bad": raise BadRequestError("no", hint="ask better")
        if ask == "die": raise WorkerDiedError("could not go on: out of memory")
        if ask == "hang": time.sleep(60)
        while ask == "count":
            time.sleep(0.005)
            piece = next(self.pieces)
            yield Chunk(f"{piece} ", "stop" if piece > 60 else None)
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


def ask(content: str) -> EngineRequest:
    return EngineRequest([{"role": "user", "content": content}], seconds=20, logprob=content == "sure")


@pytest.fixture(params=[1])
def process(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[ChatProcess]:
    """As many calls at a time as the parameter says."""
    (tmp_path / "scripted_worker.py").write_text(WORKER)
    (tmp_path / "model").touch()

    def load(_: Callable[[], bool]) -> dict[str, str]:
        if not (tmp_path / "model").exists():
            raise MissingFileError("There is no model.")
        return {"name": "hello"}

    variables = {"PYTHONPATH": str(tmp_path)}
    death = lambda status, _: exit_status.describe(status)  # noqa: E731
    process = ChatProcess(ChatWorker("model", "scripted_worker", variables, load, 20.0, death, request.param))
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
    assert loaded.seconds < 0.3, "too slow"
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


# -- several calls at a time ------------------------------------------------------------------------------------


several = pytest.mark.parametrize("process", [3], indirect=True)


class Caller:
    """Asks on a thread of its own. `said` is what it heard, `error` why there was no more."""

    def __init__(self, process: ChatProcess, request: EngineRequest) -> None:
        self.said, self.error = list[str](), None
        self._left = threading.Event()
        self._thread = threading.Thread(target=self._ask, args=(process, request))
        self._thread.start()

    def _ask(self, process: ChatProcess, request: EngineRequest) -> None:
        try:
            self.said.extend(chunk.text for chunk in process.chat(request, cancelled=self._left.is_set))
        except AgentlabError as error:
            self.error = error

    def heard(self) -> "Caller":
        """Once it has heard something."""
        deadline = time.monotonic() + 10
        while not self.said and time.monotonic() < deadline:
            time.sleep(0.005)
        return self

    def leave(self) -> None:
        self._left.set()

    def over(self) -> "Caller":
        self._thread.join(10)
        assert not self._thread.is_alive()
        return self


@several
def test_pieces_of_several_answers_come_in_turn(process: ChatProcess) -> None:
    """Also for one who began later, and while somebody who began first does not listen."""
    deaf = process.chat(ask("count"))
    texts = [next(deaf).text]
    callers = [Caller(process, ask("count")) for _ in range(2)]
    first, second = ([int(piece) for piece in caller.over().said] for caller in callers)
    texts += [chunk.text for chunk in deaf]
    assert sorted([*first, *second, *map(int, texts)]) == list(range(64))
    assert min(len(first), len(second)) > 15
    assert max(first[0], second[0]) < 30


@several
def test_more_calls_than_there_is_room_for_wait_and_can_be_given_up(process: ChatProcess) -> None:
    callers = [Caller(process, ask("think")).heard() for _ in range(3)]
    waiting = Caller(process, ask("hi"))
    time.sleep(0.2)
    waiting.leave()
    assert "waiting" in str(waiting.over().error)
    patient = Caller(process, ask("hi"))
    callers[1].leave()
    assert "".join(patient.over().said) == "hello!"
    assert [caller.error for caller in callers[::2]] == [None, None]
    for caller in callers:
        caller.leave()
    assert {type(caller.over().error) for caller in callers} == {LLMCancelledError}


@several
@pytest.mark.parametrize("cause", ["cancelled", "out of time", "refused"])
def test_a_call_that_fails_ends_alone(process: ChatProcess, cause: str) -> None:
    process.load()
    pid, surviving_caller = process.worker_pid, Caller(process, ask("count")).heard()
    request = ask("bad") if cause == "refused" else replace(ask("think"), seconds=0.1 if cause == "out of time" else 20)
    failing = Caller(process, request)
    if cause == "cancelled":
        failing.heard().leave()
    expected = {"cancelled": LLMCancelledError, "out of time": LLMTimeoutError, "refused": BadRequestError}
    assert type(failing.over().error) is expected[cause]
    assert surviving_caller.over().error is None
    assert process.worker_pid == pid


@several
@pytest.mark.parametrize("cause", ["killed", "closed", "a last word", "stuck"])
def test_the_end_of_the_worker_is_told_to_everybody_and_the_next_call_works(
    process: ChatProcess, monkeypatch: pytest.MonkeyPatch, cause: str
) -> None:
    monkeypatch.setattr(chat_process, "_PATIENCE_SECONDS", 0.3)
    process.load()
    pid, callers = process.worker_pid, [Caller(process, ask("think")).heard() for _ in range(2)]
    assert pid is not None
    if cause == "killed":
        os.kill(pid, signal.SIGKILL)
    elif cause == "closed":
        process.close()
    elif cause == "a last word":
        assert "out of memory" in str(Caller(process, ask("die")).over().error)
    else:
        hanging = Caller(process, ask("hang"))
        time.sleep(0.2)
        hanging.leave()
        assert type(hanging.over().error) is LLMCancelledError
    expected_messages = {
        "killed": "SIGKILL",
        "closed": "closed",
        "a last word": "out of memory",
        "stuck": "another answer",
    }
    for caller in callers:
        assert type(caller.over().error) is (LLMCancelledError if cause == "closed" else WorkerDiedError)
        assert expected_messages[cause] in str(caller.error)
    assert process.worker_pid is None
    assert list(process.chat(ask("hi")))[-1].finish == "stop"
    assert process.worker_pid not in (None, pid)
