"""The process that holds one local model: `python -m agentlab.gguf.worker PARENT_PID`.

llama.cpp is not thread-safe, cannot be stopped while it reads a prompt, and some of its faults end the process.
Here they end this one. `process.py` is the other end. Both speak JSON lines, requests on stdin, replies on stdout:

    {"op": "load", "id": 1, "path", "context", "threads", "batch", "gpu_layers", "reuse_prefix"}    first, once
    {"op": "chat", "id": 2, "messages", "schema", "max_tokens", "temperature", "seed"}              one at a time
    {"op": "cancel", "id": 2}                         ends call 2 at its next token; without effect when it is over

    {"event": "ready", "id": 1}
    {"event": "text", "id": 2, "text": "..."}                                                       any number
    {"event": "done", "id": 2, "text": "...", "finish": "stop", "prompt_tokens": 9, "completion_tokens": 3}
    {"event": "error", "id": 2, "kind": "ContextOverflowError", "message": "...", "hint": null}

Every load and chat ends with exactly one of ready, done or error. End of input ends the process, in the middle of
a token if need be. stderr is a log for humans: llama.cpp's warnings, and whatever a library prints.
"""

import contextlib
import queue
import sys
from typing import Any

from agentlab.errors import AgentlabError, LLMCancelledError
from agentlab.workers import child, faults


class _Worker:
    """Reads requests on the main thread, so that a cancel or the end of input is seen while the model works."""

    def __init__(self, pipes: child.Pipes) -> None:
        self._pipes = pipes
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
        """The model thread: the only one that touches llama.cpp."""
        from agentlab.gguf.decoder import Decoder

        decoder: Decoder | None = None
        while True:
            job = self._jobs.get()
            op, call = job.pop("op"), job.pop("id")
            try:
                if decoder is None:
                    decoder = Decoder(**job)
                    self._reply("ready", call)
                else:
                    self._chat(decoder, call, job)
            except AgentlabError as error:
                self._reply("error", call, **faults.as_message(error))
                if op == "load":
                    return

    def _chat(self, decoder: Any, call: int, job: dict[str, Any]) -> None:
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


if __name__ == "__main__":
    _Worker(child.attach(int(sys.argv[1]))).run()
