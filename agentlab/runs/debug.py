"""`--debug`: everything that was asked, answered and proposed, in full, in the run's log.txt and for whoever watches.

Prompts are no events: whoever asks language models logs them at level DEBUG under the name `agentlab.llm`, and they
are heard here.
"""

import json
import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import TYPE_CHECKING, Any

from agentlab.errors import StorageError
from agentlab.runs.document import figure_or_dash
from agentlab.runs.events import Event
from agentlab.runs.run import OpenRun
from agentlab.runs.sanitize import visible

if TYPE_CHECKING:
    from agentlab.config.base import KeyDifference

LLM_LOG = "agentlab.llm"


def printable(text: str) -> str:
    """Foreign text as any file and terminal can take it."""
    return visible(text.encode(errors="backslashreplace").decode())


class DebugLog:
    """Implements `EventSink`. Deaf outside of `listening`."""

    def __init__(self, line: Callable[[str], None], details: Callable[[Event], str | None] = lambda _: None) -> None:
        """`line` shows a text to whoever watches; it masks secrets itself, as log.txt does.

        `details` says what a command's own events change; it hears those of earlier sessions, too.
        """
        self._line, self._details = line, details
        self._run: OpenRun | None = None
        self._lock = threading.Lock()  # models answer in another thread

    @contextmanager
    def listening(self, run: OpenRun) -> Iterator[None]:
        """Write down what happens to this run meanwhile."""
        for event in run.events:
            self._details(event)
        self._run = run
        logger, ear = logging.getLogger(LLM_LOG), _Ear(self._say)
        before = logger.level
        logger.addHandler(ear)
        logger.setLevel(logging.DEBUG)
        try:
            yield
        finally:
            logger.setLevel(before)
            logger.removeHandler(ear)
            self._run = None

    def emit(self, event: Event) -> None:
        text = _call(event) if event.type == "llm.called" else self._details(event)
        if text is not None:
            self._say(text)

    def write_resumed(self, changed: "Sequence[KeyDifference]") -> None:
        lines = [f"{d.key}: {as_json(d.old)} -> {as_json(d.new)}" for d in changed]
        self._say(indent_lines("resumed with another budget", lines) if lines else "resumed with the same config")

    def _say(self, text: str) -> None:
        if self._run is None:
            return
        with self._lock:
            try:
                self._run.log(printable(text))
            except StorageError as error:  # the work goes on as long as its own files can be written
                text = f"{text}\n{error.message}"
            self._line(text)


class _Ear(logging.Handler):
    def __init__(self, say: Callable[[str], None]) -> None:
        super().__init__()
        self._say = say

    def emit(self, record: logging.LogRecord) -> None:
        self._say(record.getMessage())


def _call(event: Event) -> str:
    """What came of a question to language models, attempt by attempt."""
    data = event.data
    lines = [f"attempt {n}, {_attempt(attempt)}" for n, attempt in enumerate(data["attempts"], start=1)]
    if data["error"]:
        failure = f"{data['error']['kind']}: {data['error']['message']}"
        return indent_lines(f"{event.id}: no answer to {data['task']}", [*lines, failure])
    return indent_lines(f"{event.id}: {data['model']} answered {data['task']}", [*lines, f"answer: {data['text']}"])


def _attempt(attempt: Mapping[str, Any]) -> str:
    usage = attempt["usage"]
    cost = "" if usage["cost_usd"] is None else f", {usage['cost_usd']:.6f} USD"
    counts = " + ".join(figure_or_dash(usage[key], "", "?") for key in ("input_tokens", "output_tokens"))
    tokens = f"{counts} tokens{cost}"
    failure = f"; {attempt['error']}: {attempt['message']}" if attempt["error"] else ""
    return f"{attempt['model']}: {tokens}{failure}"


def as_json(value: Any) -> str:
    """A value as the log shows it."""
    return json.dumps(value, ensure_ascii=False)


def indent_lines(head: str, lines: Sequence[str]) -> str:
    """A text of the log: a head, and lines of any number below it."""
    parts = chain.from_iterable(line.split("\n") for line in lines)
    return "\n".join([head, *(f"  {part}" for part in parts)])
