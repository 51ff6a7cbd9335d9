"""The process that holds one chat model. `chat_process` is the other end. Both speak JSON lines:

    {"op": "load", "id": 1, ...}                                          first, once; the fields are the model's own
    {"op": "chat", "id": 2, "messages", "schema", "max_tokens", "temperature", "seed", "stop", "top_p"}
    {"op": "cancel", "id": 2}                         ends call 2 at its next token; without effect when it is over

    {"event": "ready", "id": 1}
    {"event": "text", "id": 2, "text": "..."}                                                       any number
    {"event": "done", "id": 2, "text": "...", "finish": "stop", "prompt_tokens": 9, "completion_tokens": 3}
    {"event": "error", "id": 2, "kind": "ContextOverflowError", "message": "...", "hint": null}

One chat at a time. Every load and chat ends with exactly one of ready, done or error. End of input ends the process,
in the middle of a token if need be. stderr is a log for humans: whatever a library prints.
"""

import contextlib
import queue
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, Protocol

from agentlab.errors import AgentlabError, LLMCancelledError
from agentlab.workers import child, faults
from agentlab.workers.chat import Chunk


class Decoder(Protocol):
    """A loaded model."""

    def chat(
        self,
        messages: Sequence[Mapping[str, str]],
        schema: Mapping[str, Any] | None,
        max_tokens: int,
        temperature: float,
        seed: int,
        stop: Sequence[str],
        top_p: float | None,
    ) -> Generator[Chunk, None, None]:
        """Decode an answer, see `ChatRequest`; closing the iterator stops it."""
        ...


class ChatServer:
    """Reads requests on the main thread, so that a cancel or the end of input is seen while the model works."""

    def __init__(self, pipes: child.Pipes, load: Callable[..., Decoder]) -> None:
        """`load` makes the decoder of the fields of a load; it runs on the thread that decodes."""
        self._pipes = pipes
        self._load = load
        self._jobs: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._cancelled = -1

    def run(self) -> None:
        """Serve until the input ends."""
        self._pipes.serve(self._take, self._work)

    def _take(self, message: dict[str, Any]) -> None:
        if message["op"] == "cancel":
            self._cancelled = message["id"]
        else:
            self._jobs.put(message)

    def _work(self) -> None:
        """The model thread: the only one that touches the library."""
        decoder: Decoder | None = None
        while True:
            job = self._jobs.get()
            op, call = job.pop("op"), job.pop("id")
            try:
                if decoder is None:
                    decoder = self._load(**job)
                    self._reply("ready", call)
                else:
                    self._chat(decoder, call, job)
            except AgentlabError as error:
                self._reply("error", call, **faults.as_message(error))
                if op == "load":
                    return

    def _chat(self, decoder: Decoder, call: int, job: dict[str, Any]) -> None:
        with contextlib.closing(decoder.chat(**job)) as chunks:
            for chunk in chunks:
                if self._cancelled == call:
                    raise LLMCancelledError("The call was cancelled.")
                if chunk.finish is None:
                    self._reply("text", call, text=chunk.text)
                else:
                    counts = {"prompt_tokens": chunk.prompt_tokens, "completion_tokens": chunk.completion_tokens}
                    self._reply("done", call, text=chunk.text, finish=chunk.finish, **counts)

    def _reply(self, event: str, call: int, **content: Any) -> None:
        self._pipes.reply({"event": event, "id": call, **content})
