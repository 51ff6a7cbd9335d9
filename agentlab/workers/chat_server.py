"""The process that holds one chat model. `chat_process` is the other end. Both speak JSON lines:

    {"op": "load", "id": 1, ...}                                          first, once; the fields are the model's own
    {"op": "chat", "id": 2, "messages", "schema", "max_tokens", "temperature", "seed", "seconds", "stop", "top_p",
                            "logprob"}                                    a `ChatRequest`
    {"op": "cancel", "id": 2}                         ends call 2 at its next token; without effect when it is over

    {"event": "ready", "id": 1}
    {"event": "text", "id": 2, "text": "..."}                                                       any number
    {"event": "done", "id": 2, "text": "...", "finish": "stop", "prompt_tokens": 9, "completion_tokens": 3,
                               "reused_tokens": 0, "prefill_seconds": 0.1, "decode_seconds": 0.2, "logprob": null}
    {"event": "error", "id": 2, "kind": "ContextOverflowError", "message": "...", "hint": null}

One chat at a time. Every load and chat ends with exactly one of ready, done or error; the fields of done are those of
the last `Chunk`, and null is what the worker does not know. A load that failed and a WorkerDiedError end the process
after their word, and the end of input ends it in the middle of a token if need be. stderr is a log for humans: whatever
a library prints.
"""

import contextlib
import json
import queue
from collections.abc import Callable, Generator
from dataclasses import asdict
from typing import Any, Protocol

from agentlab.errors import AgentlabError, LLMCancelledError, WorkerDiedError
from agentlab.workers import child, faults
from agentlab.workers.chat import ChatRequest, Chunk


class Decoder(Protocol):
    """A loaded model."""

    def chat(self, request: ChatRequest) -> Generator[Chunk, None, None]:
        """Decode an answer; closing the iterator stops it. An empty piece is a place to stop, and is not sent."""
        ...


Load = Callable[..., Decoder]  # of the fields of a load


class ChatServer:
    """Reads requests on the main thread, so that a cancel or the end of input is seen while the model works."""

    def __init__(self, pipes: child.Pipes, prepare: Callable[[], Load]) -> None:
        """`prepare` imports what loading needs, before it is asked for. All of it runs on the thread that decodes."""
        self._pipes = pipes
        self._prepare = prepare
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
        load, decoder = self._prepare(), None
        while True:
            job = self._jobs.get()
            op, call = job.pop("op"), job.pop("id")
            try:
                if decoder is None:
                    decoder = load(**job)
                    self._reply("ready", call)
                else:
                    self._chat(decoder, call, ChatRequest(**job))
            except AgentlabError as error:
                self._reply("error", call, **faults.as_message(error))
                if op == "load" or isinstance(error, WorkerDiedError):
                    return

    def _chat(self, decoder: Decoder, call: int, request: ChatRequest) -> None:
        with contextlib.closing(decoder.chat(request)) as chunks:
            for chunk in chunks:
                if self._cancelled == call:
                    raise LLMCancelledError("The call was cancelled.")
                if chunk.finish is not None:
                    self._reply("done", call, **asdict(chunk))
                elif chunk.text:
                    self._pipes.send(_text(call, chunk.text))

    def _reply(self, event: str, call: int, **content: Any) -> None:
        self._pipes.reply({"event": event, "id": call, **content})


def _text(call: int, text: str) -> bytes:
    """The one line that is sent for every token, four times as fast as `encode`."""
    return f'{{"event":"text","id":{call},"text":{json.dumps(text)}}}\n'.encode("ascii")
