"""The engine that runs a chat model in a worker process, and starts a new one when it dies. The parent's end."""

import contextlib
import itertools
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, NoReturn

from agentlab import errors
from agentlab.errors import LLMCancelledError, LLMTimeoutError, MalformedReplyError, WorkerDiedError
from agentlab.workers import faults, memory
from agentlab.workers.channel import Channel
from agentlab.workers.chat import ChatRequest, Chunk, Loaded
from agentlab.workers.deaths import last_words
from agentlab.workers.memory import Memory

_POLL_SECONDS = 0.05
_GRACE_SECONDS = 1.0  # a cancelled call ends at its next token; one that still reads its prompt is killed
_CLOSE_SECONDS = 1.5
_CHUNK = tuple(field.name for field in fields(Chunk))


@dataclass(frozen=True, slots=True)
class ChatWorker:
    """What one kind of model differs in.

    Attributes:
        name: of the model, for messages.
        module: the worker, run as `python -m MODULE PARENT_PID`; see `chat_server`.
        variables: added to its environment.
        load: makes the fields of the first message, which loads the model, or raises what is wrong before a process is
            started. It is handed `cancelled`.
        load_seconds: how long loading may take.
        death: (cause, hint) for the exit status and the log of a worker that ended by itself.
    """

    name: str
    module: str
    variables: Mapping[str, str]
    load: Callable[[Callable[[], bool]], Mapping[str, Any]]
    load_seconds: float
    death: Callable[[int, str], tuple[str, str | None]]


def _never() -> bool:
    return False


class ChatProcess:
    """A `ChatEngine`. `load` or the first call starts the worker; after `close` or a death, the next one does."""

    def __init__(self, worker: ChatWorker) -> None:
        self._worker = worker
        self._lock = threading.Lock()  # not reentrant: a generator may be finished by another thread than began it
        self._channel: Channel | None = None
        self._loaded: Loaded | None = None
        self._calls = itertools.count(1)
        self._closed_pid: int | None = None

    @property
    def worker_pid(self) -> int | None:
        """Process id of the running worker, None when there is none."""
        channel = self._channel
        return channel.pid if channel is not None and channel.alive() else None

    @property
    def loaded(self) -> bool:
        """Whether the next call finds the model loaded."""
        return self._loaded is not None and self.worker_pid is not None

    def measured(self) -> Memory | None:
        """What the worker takes; None when there is none, and where the system does not say (not Linux)."""
        pid = self.worker_pid
        return None if pid is None else memory.of(pid)

    def start(self) -> None:
        """Start the worker ahead of `load`: it imports what it needs, and waits. Returns at once.

        Raises:
            WorkerDiedError: there is no memory or no process number left.
        """
        with self._turn(_never):
            self._spawn()

    def load(self, *, cancelled: Callable[[], bool] = _never) -> Loaded:
        """Load the model now; when it is loaded, say again what that took.

        Raises:
            AgentlabError: see `ChatEngine.chat`; the worker is gone then.
        """
        with self._turn(cancelled):
            return self._load(cancelled)

    def chat(self, request: ChatRequest, *, cancelled: Callable[[], bool] = _never) -> Iterator[Chunk]:
        """Stream an answer; see `ChatEngine.chat`. Loading has its own clock, `ChatWorker.load_seconds`."""
        if request.max_tokens < 1:
            raise errors.BadRequestError(f"max_tokens is {request.max_tokens}; it has to be at least 1.")
        if not request.messages:
            raise errors.BadRequestError("There are no messages to answer.")
        with self._turn(cancelled):
            self._load(cancelled)
            yield from self._answer(request, cancelled)

    def close(self) -> None:
        """Stop the worker and free its memory, within 2 seconds. A call in progress ends with LLMCancelledError."""
        channel = self._channel
        if channel is None:
            return
        self._closed_pid = channel.pid
        channel.kill()
        if self._lock.acquire(timeout=_CLOSE_SECONDS):  # else a suspended generator holds it and disposes later
            try:
                self._discard()
            finally:
                self._lock.release()

    @contextlib.contextmanager
    def _turn(self, cancelled: Callable[[], bool]) -> Iterator[None]:
        while not self._lock.acquire(timeout=_POLL_SECONDS):
            if cancelled():
                raise LLMCancelledError("The call was cancelled while it waited for the model.")
        try:
            yield
        finally:
            self._lock.release()

    def _spawn(self) -> None:
        """Start a worker, unless one runs."""
        if self._channel is not None and self._channel.alive():
            return
        self._discard()
        try:
            self._channel = Channel(self._worker.module, self._worker.variables)
        except OSError as error:  # no memory or no process number left; a caller falls back as after a death
            raise WorkerDiedError(
                f"The process for {self._worker.name} cannot be started: {error.strerror or error}.",
                hint="Close other programs, or use a smaller model.",
            ) from error

    def _load(self, cancelled: Callable[[], bool]) -> Loaded:
        if self._loaded is not None and self.loaded:
            return self._loaded
        worker = self._worker
        job = {**worker.load(cancelled), "op": "load"}
        began = time.monotonic()
        self._spawn()
        try:
            list(self._exchange(job, worker.load_seconds, f"Loading {worker.name}", cancelled))
        except BaseException:
            self._discard()  # a worker without a model is of no use
            raise
        seen = self.measured() or Memory(0, 0, 0)
        self._loaded = Loaded(time.monotonic() - began, seen.resident, seen.private)
        return self._loaded

    def _answer(self, request: ChatRequest, cancelled: Callable[[], bool]) -> Iterator[Chunk]:
        job = {field.name: getattr(request, field.name) for field in fields(request)}
        job |= {"op": "chat", "messages": [dict(message) for message in request.messages]}
        for reply in self._exchange(job, request.seconds, f"{self._worker.name}'s answer", cancelled):
            yield Chunk(**{name: reply[name] for name in _CHUNK if name in reply})

    def _exchange(
        self, job: dict[str, Any], seconds: float, what: str, cancelled: Callable[[], bool]
    ) -> Iterator[dict[str, Any]]:
        """Send a request and yield its replies up to the last one. Left early, it ends the call or the worker."""
        channel, call, deadline = self._channel, next(self._calls), time.monotonic() + seconds
        assert channel is not None
        over = False
        try:
            if not channel.send({**job, "id": call}, seconds):
                raise LLMTimeoutError(f"{what} took longer than {seconds:g} seconds.")
            while not over:
                if cancelled():
                    raise LLMCancelledError("The call was cancelled.")
                if time.monotonic() > deadline:
                    raise LLMTimeoutError(f"{what} took longer than {seconds:g} seconds.")
                reply = channel.receive(min(_POLL_SECONDS, seconds))
                if reply is None or reply.get("id") != call:
                    continue
                over = _is_last(reply)
                if reply["event"] == "error":
                    error = faults.from_message(reply)
                    if isinstance(error, WorkerDiedError):  # its last word
                        self._discard()
                    raise error
                yield reply
        except EOFError:
            over = True
            self._report_death()
        except (ValueError, KeyError, TypeError) as error:
            raise MalformedReplyError(f"The worker of {self._worker.name} broke the protocol: {error!r}.") from error
        finally:
            if not over:
                self._stop(channel, call)

    def _stop(self, channel: Channel, call: int) -> None:
        """End a call that its owner left: by a word, or else by killing the worker."""
        deadline = time.monotonic() + _GRACE_SECONDS
        try:
            channel.send({"op": "cancel", "id": call}, _GRACE_SECONDS)
            while (left := deadline - time.monotonic()) > 0:
                reply = channel.receive(left)
                if reply is not None and reply.get("id") == call and _is_last(reply):
                    return
        except (EOFError, ValueError, KeyError):
            self._discard()
        else:
            self._discard()

    def _report_death(self) -> NoReturn:
        closed = self._channel is not None and self._channel.pid == self._closed_pid
        moment = "" if self._loaded else " while it loaded the model"
        status, log = self._discard()
        if closed:
            raise LLMCancelledError("The engine was closed during the call.")
        cause, hint = self._worker.death(status, log)
        tail = last_words(log)
        message = f"The process that holds {self._worker.name} died{moment}: {cause}."
        raise WorkerDiedError(f"{message}\n{tail}" if tail else message, hint=hint)

    def _discard(self) -> tuple[int, str]:
        channel, self._channel, self._loaded = self._channel, None, None
        return channel.dispose() if channel is not None else (0, "")


def _is_last(reply: dict[str, Any]) -> bool:
    return bool(reply["event"] != "text")
