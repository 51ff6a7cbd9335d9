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
import ctypes
import os
import queue
import signal
import sys
import threading
import traceback
from pathlib import Path
from typing import IO, Any

from agentlab.errors import AgentlabError, LLMCancelledError
from agentlab.gguf.wire import decode, encode

_PR_SET_PDEATHSIG = 1
_OOM_SCORE = 500  # of 1000: when memory runs out, the kernel takes the worker, not the run


class _Worker:
    """Reads requests on the main thread, so that a cancel or the end of input is seen while the model works."""

    def __init__(self, requests: IO[bytes], replies: IO[bytes]) -> None:
        self._requests, self._replies = requests, replies
        self._jobs: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._cancelled = -1

    def run(self) -> None:
        """Serve until the input ends."""
        threading.excepthook = _die
        threading.Thread(target=self._serve, name="model", daemon=True).start()
        for line in self._requests:
            message = decode(line)
            if message["op"] == "cancel":
                self._cancelled = message["id"]
            else:
                self._jobs.put(message)

    def _serve(self) -> None:
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
                self._reply("error", call, kind=error.kind, message=error.message, hint=error.hint)
                if op == "load":
                    os._exit(0)

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
        try:
            self._replies.write(encode({"event": event, "id": call, **content}))
        except BrokenPipeError:
            os._exit(0)


def _die(fault: threading.ExceptHookArgs) -> None:
    """A bug on the model thread: say so and end, so that the parent sees a death and not a silence."""
    traceback.print_exception(fault.exc_type, fault.exc_value, fault.exc_traceback)
    sys.stderr.flush()
    os._exit(70)


def _keep_pipes() -> tuple[IO[bytes], IO[bytes]]:
    """Move the protocol off descriptors 0 and 1: a stray print lands on stderr, a stray read sees an empty input."""
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb", buffering=0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return requests, replies


def _die_with(parent: int) -> None:
    """End when the parent does, even if a process that it forked keeps our input open (Linux only).

    The kernel signals the end of the parent's *thread* that started us, so the handler looks before it leaves.
    """

    def leave_if_orphan(*_: object) -> None:
        if os.getppid() != parent:
            os._exit(0)

    signal.signal(signal.SIGHUP, leave_if_orphan)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGHUP)
        with contextlib.suppress(OSError):  # a sandbox may forbid it; then the kernel chooses by size alone
            Path("/proc/self/oom_score_adj").write_text(str(_OOM_SCORE))
    leave_if_orphan()


def main() -> None:
    """Serve the process that started this one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which decides what becomes of a call
    requests, replies = _keep_pipes()
    _die_with(int(sys.argv[1]))
    _Worker(requests, replies).run()
    os._exit(0)  # not sys.exit: the model thread may be deep in a prompt


if __name__ == "__main__":
    main()
