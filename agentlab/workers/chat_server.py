"""The process that holds one chat model. `chat_process` is the other end. Both speak JSON lines:

    {"op": "load", "id": 1, ...}                                          first, once; the fields are the model's own
    {"op": "chat", "id": 2, "messages", "schema", "max_tokens", "temperature", "seed", "seconds", "stop", "top_p",
                            "logprob", "clamp", "adapter"}                a `ChatRequest`
    {"op": "cancel", "id": 2}                         ends call 2 at its next token; without effect when it is over

    {"event": "ready", "id": 1}
    {"event": "text", "id": 2, "text": "..."}                                                       any number
    {"event": "done", "id": 2, "text": "...", "finish": "stop", "prompt_tokens": 9, "completion_tokens": 3,
                               "reused_tokens": 0, "prefill_seconds": 0.1, "decode_seconds": 0.2, "logprob": null}
    {"event": "error", "id": 2, "kind": "ContextOverflowError", "message": "...", "hint": null}

Several chats at a time, as far as the parent asks for them: each gets its next piece in turn. Every load and chat ends
with exactly one of ready, done or error; the fields of done are those of the last `Chunk`, and null is what the worker
does not know. A load that failed and a WorkerDiedError end the process after their word, and the end of input ends it
in the middle of a token if need be. stderr is a log for humans: whatever a library prints.
"""

import json
import queue
from collections.abc import Callable, Generator
from dataclasses import asdict
from typing import Any, Protocol

from agentlab.errors import AgentlabError, LLMCancelledError, WorkerDiedError
from agentlab.workers import child, faults
from agentlab.workers.chat import Chunk, EngineRequest


class ChatDecoder(Protocol):
    """A loaded model."""

    def chat(self, request: EngineRequest) -> Generator[Chunk, None, None]:
        """Decode an answer; closing the iterator stops it. An empty piece is a place to stop, and is not sent.

        If `ChatWorker.calls` is more than one, several are under way at a time, each asked for a piece in turn.
        """


Load = Callable[..., ChatDecoder]  # of the fields of a load


class ChatServer:
    """Reads requests on the main thread, so that the end of input is seen while the model works."""

    def __init__(self, pipes: child.Pipes, prepare: Callable[[], Load]) -> None:
        """`prepare` imports what loading needs, before it is asked for. All of it runs on the thread that decodes."""
        self._pipes = pipes
        self._prepare = prepare
        self._jobs: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._running: dict[int, Generator[Chunk, None, None]] = {}

    def run(self) -> None:
        self._pipes.serve(self._jobs.put, self._work)

    def _work(self) -> None:
        """The model thread: the only one that touches the library."""
        load, job = self._prepare(), self._jobs.get()
        try:
            decoder = load(**{name: value for name, value in job.items() if name not in ("op", "id")})
        except AgentlabError as error:
            self._reply("error", job["id"], **faults.as_message(error))
            return
        self._reply("ready", job["id"])
        try:
            while True:
                while not self._running or not self._jobs.empty():
                    self._begin_or_cancel(decoder, **self._jobs.get())
                for call in tuple(self._running):
                    self._advance(call)
        except WorkerDiedError as error:
            for call in self._running:
                self._reply("error", call, **faults.as_message(error))

    def _begin_or_cancel(self, decoder: ChatDecoder, op: str, id: int, **fields: Any) -> None:  # noqa: A002 - the wire's
        if op == "chat":
            self._running[id] = decoder.chat(EngineRequest(**fields))
        elif id in self._running:
            self._end(id, LLMCancelledError("The call was cancelled."))

    def _advance(self, call: int) -> None:
        """Send the next piece of an answer. A WorkerDiedError is the caller's: it ends them all."""
        try:
            chunk = next(self._running[call])
        except WorkerDiedError:
            raise
        except AgentlabError as error:
            self._end(call, error)
            return
        if chunk.finish is not None:
            self._running.pop(call).close()
            self._reply("done", call, **asdict(chunk))
        elif chunk.text:
            self._pipes.send(_text(call, chunk.text))

    def _end(self, call: int, error: AgentlabError) -> None:
        self._running.pop(call).close()
        self._reply("error", call, **faults.as_message(error))

    def _reply(self, event: str, call: int, **content: Any) -> None:
        self._pipes.reply({"event": event, "id": call, **content})


def _text(call: int, text: str) -> bytes:
    """The one line that is sent for every token, four times as fast as `encode`."""
    return f'{{"event":"text","id":{call},"text":{json.dumps(text)}}}\n'.encode("ascii")
