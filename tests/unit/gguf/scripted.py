"""A `ChatEngine` without a model, for tests and demonstrations: it says what its script says, word by word."""

import re
import threading
from collections.abc import Callable, Iterator, Sequence

from agentlab.errors import LLMCancelledError
from agentlab.workers.chat import Chunk, EngineRequest, LoadReport
from agentlab.workers.memory import ProcessMemory


class ScriptedEngine:
    """Answers call n with entry n of the script, starting over at its end; an entry that is an error is raised.

    Nothing is computed: schema, temperature and seed are recorded in `requests` and otherwise ignored, a token is a
    word, and its log-probability is -1.
    """

    def __init__(self, script: Sequence[str | Exception]) -> None:
        if not script:
            raise ValueError("a script has at least one answer")
        self._script = tuple(script)
        self._lock = threading.Lock()
        self.requests: list[EngineRequest] = []
        self.loaded = False
        self.closed = False

    def load(self, *, cancelled: Callable[[], bool] = lambda: False) -> LoadReport:
        """Take no time and no memory."""
        if cancelled():
            raise LLMCancelledError("The call was cancelled.")
        self.loaded = True
        return LoadReport(seconds=0.0, resident_bytes=0, private_bytes=0)

    def measured(self) -> ProcessMemory | None:
        """None: there is no process."""
        return None

    def chat(self, request: EngineRequest, *, cancelled: Callable[[], bool] = lambda: False) -> Iterator[Chunk]:
        """Stream the next entry of the script, cut after `max_tokens` words."""
        self.load(cancelled=cancelled)
        with self._lock:
            entry = self._script[len(self.requests) % len(self._script)]
            self.requests.append(request)
        if isinstance(entry, Exception):
            raise entry
        words = re.findall(r"\S+\s*|\s+", entry)
        reply_words = words[: request.max_tokens]
        for word in reply_words:
            if cancelled():
                raise LLMCancelledError("The call was cancelled.")
            yield Chunk(text=word)
        yield Chunk(
            finish="stop" if len(reply_words) == len(words) else "length",
            prompt_tokens=sum(len(message["content"].split()) for message in request.messages),
            completion_tokens=len(reply_words),
            reused_tokens=0,
            prefill_seconds=0.0,
            decode_seconds=0.0,
            logprob=-1.0 if request.logprob and reply_words else None,
        )

    def close(self) -> None:
        """Remember that it was closed."""
        self.loaded, self.closed = False, True
