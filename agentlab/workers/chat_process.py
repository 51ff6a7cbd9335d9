"""The engine that runs a chat model in a worker process, and starts a new one when it dies. The parent's end."""

import contextlib
import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, NoReturn

from agentlab import errors
from agentlab.errors import AgentlabError, LLMCancelledError, LLMTimeoutError, MalformedReplyError, WorkerDiedError
from agentlab.workers import faults, memory
from agentlab.workers.channel import Channel
from agentlab.workers.chat import Chunk, EngineRequest, LoadReport
from agentlab.workers.exit_status import last_words
from agentlab.workers.memory import ProcessMemory

_POLL_SECONDS = 0.05
_GRACE_SECONDS = 1.0  # a cancelled call ends at its next token; one that still reads its prompt is killed
_PATIENCE_SECONDS = 300.0  # but not while others would die with it: some architectures read a prompt at once
_CHUNK = tuple(field.name for field in fields(Chunk))


@dataclass(frozen=True, slots=True)
class ChatWorker:
    """What one kind of model differs in.

    `load` is handed `cancelled`, and makes the fields of the first message, which loads the model, or raises what is
    wrong before a process is started.
    """

    name: str  # of the model, for messages
    module: str  # the worker, run as `python -m MODULE PARENT_PID`; see `chat_server`
    variables: Mapping[str, str]  # added to its environment
    load: Callable[[Callable[[], bool]], Mapping[str, Any]]
    load_seconds: float  # how long loading may take
    death: Callable[[int, str], tuple[str, str | None]]  # (cause, hint) for status and log of one that ended by itself
    calls: int = 1  # how many answers it gives at a time; whoever comes then waits


def _never() -> bool:
    return False


class _Line:
    """A running worker and the calls that are under way in it. Whoever waits for a reply reads for all."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.loaded: LoadReport | None = None
        self.reason: AgentlabError | None = None  # why this end ended it; None when it died by itself
        self._replies: dict[int, deque[dict[str, Any]]] = {}
        self._sending = threading.Lock()
        self._news = threading.Condition()  # somebody has read
        self._reading = False
        self._ended: tuple[int, str] | None = None

    @contextlib.contextmanager
    def call(self, number: int) -> Iterator[None]:
        """Inside the block, what this call is told is kept for it."""
        self._replies[number] = deque()
        try:
            yield
        finally:
            del self._replies[number]

    def busy(self) -> bool:
        return len(self._replies) > 1

    def send(self, message: Mapping[str, Any], seconds: float) -> bool:
        if not self._sending.acquire(timeout=seconds):
            return False
        try:
            if not self.channel.alive():
                raise EOFError("the worker has exited")
            return self.channel.send(message, seconds)
        finally:
            self._sending.release()

    def receive(self, call: int, seconds: float) -> dict[str, Any] | None:
        """The next reply to a call, None if there is none yet. Errors: see `Channel.receive`."""
        replies, reads = self._replies[call], False
        try:
            with self._news:
                if self._reading and not replies:
                    self._news.wait(seconds)
                if replies or self._reading:
                    return replies.popleft() if replies else None
                reads = self._reading = True
            reply = self.channel.receive(seconds)
            if reply is not None and (waiting := self._replies.get(reply.get("id", 0))) is not None:
                waiting.append(reply)
            return replies.popleft() if replies else None
        finally:
            if reads:
                with self._news:
                    self._reading = False
                    self._news.notify_all()

    def end(self, reason: AgentlabError | None = None) -> tuple[int, str]:
        """Kill the worker, if it still runs; its exit status and the tail of its log."""
        with self._news:
            if self._ended is None:
                self.reason = self.reason or reason
                if self.channel.alive():
                    self.channel.kill()
                self._news.wait_for(lambda: not self._reading)
                with self._sending:
                    self._ended = self._ended or self.channel.dispose()
            return self._ended


class ChatProcess:
    """A `ChatEngine`. `load` or the first call starts the worker; after `close` or a death, the next one does."""

    def __init__(self, worker: ChatWorker) -> None:
        self._worker = worker
        self._turns = threading.Semaphore(worker.calls)
        self._starting = threading.Semaphore()
        self._line: _Line | None = None
        self._calls = itertools.count(1)

    @property
    def worker_pid(self) -> int | None:
        line = self._line
        return line.channel.pid if line is not None and line.channel.alive() else None

    @property
    def loaded(self) -> bool:
        return self._line is not None and self._line.loaded is not None and self.worker_pid is not None

    def measured(self) -> ProcessMemory | None:
        """What the worker takes; None when there is none, and where the system does not say (not Linux)."""
        pid = self.worker_pid
        return None if pid is None else memory.of(pid)

    def start(self) -> None:
        """Start the worker ahead of `load`, without waiting for it; a WorkerDiedError if no process can be started."""
        with _hold_lock(self._starting, _never):
            self._spawn()

    def load(self, *, cancelled: Callable[[], bool] = _never) -> LoadReport:
        """Load the model unless it is loaded; what that took. Raises as `ChatEngine.chat`; then the worker is gone."""
        loaded = self._loaded_line(cancelled).loaded
        assert loaded is not None
        return loaded

    def chat(self, request: EngineRequest, *, cancelled: Callable[[], bool] = _never) -> Iterator[Chunk]:
        """Stream an answer; see `ChatEngine.chat`. Loading has its own clock, `ChatWorker.load_seconds`."""
        if request.max_tokens < 1:
            raise errors.BadRequestError(f"max_tokens is {request.max_tokens}; it must be at least 1.")
        if not request.messages:
            raise errors.BadRequestError("There are no messages to answer.")
        job = {field.name: getattr(request, field.name) for field in fields(request)}
        job |= {"op": "chat", "messages": [dict(message) for message in request.messages]}
        with _hold_lock(self._turns, cancelled):
            line = self._loaded_line(cancelled)
            for reply in self._exchange(line, job, request.seconds, f"{self._worker.name}'s answer", cancelled):
                yield Chunk(**{name: reply[name] for name in _CHUNK if name in reply})

    def close(self) -> None:
        """Stop the worker and free its memory, within 2 seconds. Calls under way end with LLMCancelledError."""
        if self._line is not None:
            self._line.end(LLMCancelledError("The engine was closed during the call."))

    def _spawn(self) -> _Line:
        """The worker, started unless it runs."""
        if self._line is not None:
            if self._line.channel.alive():
                return self._line
            self._line.end()
        try:
            self._line = _Line(Channel(self._worker.module, self._worker.variables))
        except OSError as error:  # no memory or no process number left; a caller falls back as after a death
            raise WorkerDiedError(
                f"The process for {self._worker.name} cannot be started: {error.strerror or error}.",
                hint="Close other programs, or use a smaller model.",
            ) from error
        return self._line

    def _loaded_line(self, cancelled: Callable[[], bool]) -> _Line:
        with _hold_lock(self._starting, cancelled):
            if self._line is not None and self.loaded:
                return self._line
            worker = self._worker
            job = {**worker.load(cancelled), "op": "load"}
            began = time.monotonic()
            line = self._spawn()
            try:
                list(self._exchange(line, job, worker.load_seconds, f"Loading {worker.name}", cancelled))
            except BaseException:
                line.end()  # a worker without a model is of no use
                raise
            seen = self.measured() or ProcessMemory(0, 0, 0)
            line.loaded = LoadReport(time.monotonic() - began, seen.resident, seen.private)
            return line

    def _exchange(
        self, line: _Line, job: dict[str, Any], seconds: float, action: str, cancelled: Callable[[], bool]
    ) -> Iterator[dict[str, Any]]:
        """Send a request and yield its replies up to the last one. Left early, it ends the call or the worker."""
        call, deadline, is_over = next(self._calls), time.monotonic() + seconds, False
        with line.call(call):
            try:
                if not line.send({**job, "id": call}, seconds):
                    raise LLMTimeoutError(f"{action} took longer than {seconds:g} seconds.")
                while not is_over:
                    if cancelled():
                        raise LLMCancelledError("The call was cancelled.")
                    if time.monotonic() > deadline:
                        raise LLMTimeoutError(f"{action} took longer than {seconds:g} seconds.")
                    reply = line.receive(call, min(_POLL_SECONDS, seconds))
                    if reply is None:
                        continue
                    is_over = _is_last(reply)
                    if reply["event"] == "error":
                        error = faults.from_message(reply)
                        if isinstance(error, WorkerDiedError):  # its last word
                            line.end(error)
                        raise error
                    yield reply
            except EOFError:
                is_over = True
                self._report_death(line)
            except (ValueError, KeyError, TypeError) as error:
                raise MalformedReplyError(
                    f"The worker for {self._worker.name} broke the protocol: {error!r}."
                ) from error
            finally:
                if not is_over:
                    self._stop(line, call)

    def _stop(self, line: _Line, call: int) -> None:
        """End a call that its owner left: by a word, or else by killing the worker, and with it all calls."""
        began = time.monotonic()
        with contextlib.suppress(EOFError, ValueError, KeyError):
            line.send({"op": "cancel", "id": call}, _GRACE_SECONDS)
            while time.monotonic() - began < (_PATIENCE_SECONDS if line.busy() else _GRACE_SECONDS):
                reply = line.receive(call, _POLL_SECONDS)
                if reply is not None and _is_last(reply):
                    return
        message = f"The process running {self._worker.name} was stopped: it did not cancel another answer in time."
        line.end(WorkerDiedError(message, hint="Try again."))

    def _report_death(self, line: _Line) -> NoReturn:
        status, log = line.end()
        if line.reason is not None:
            raise type(line.reason)(line.reason.message, hint=line.reason.hint)
        moment = "" if line.loaded else " while it loaded the model"
        cause, hint = self._worker.death(status, log)
        tail = last_words(log)
        message = f"The process running {self._worker.name} died{moment}: {cause}."
        raise WorkerDiedError(f"{message}\n{tail}" if tail else message, hint=hint)


@contextlib.contextmanager
def _hold_lock(lock: threading.Semaphore, cancelled: Callable[[], bool]) -> Iterator[None]:
    """Not reentrant: a generator may be finished by another thread than began it."""
    while not lock.acquire(timeout=_POLL_SECONDS):
        if cancelled():
            raise LLMCancelledError("The call was cancelled while waiting for the model.")
    try:
        yield
    finally:
        lock.release()


def _is_last(reply: dict[str, Any]) -> bool:
    return bool(reply["event"] != "text")
