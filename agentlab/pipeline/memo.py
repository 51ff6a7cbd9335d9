"""What a run knows already: its own answers of earlier sessions, and those it takes over from its parent."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from agentlab.pipeline.answer import Answer
from agentlab.pipeline.texts import Texts
from agentlab.runs.events import Event

ANSWERED = "call.answered"


@dataclass(frozen=True, slots=True)
class Known:
    """An answer, and where it came from: model, cache or parent."""

    answer: Answer
    source: str


class Memo:
    """Answers by the id of their call. The key has to agree: another question gets no old answer."""

    def __init__(
        self, texts: Texts, events: Iterable[Event], parent: Texts | None = None, inherited: Iterable[Event] = ()
    ) -> None:
        """`inherited` are events of the parent that hold here as well; `parent` has their texts."""
        self._texts, self._parent = texts, parent or texts
        self._inherited = _answered(inherited)
        self._own = _answered(events)

    def known(self, call: str, keys: Collection[str]) -> Known | None:
        """What was answered in this run before, under one of these keys; None if nothing, or if its text is lost."""
        return _found(self._own, self._texts, call, keys, None)

    def inherited(self, call: str, key: str) -> Known | None:
        """What the parent was answered."""
        return _found(self._inherited, self._parent, call, (key,), "parent")


def _found(
    kept: Mapping[str, Mapping[str, Any]], texts: Texts, call: str, keys: Collection[str], source: str | None
) -> Known | None:
    data = kept.get(call)
    if data is None or data["key"] not in keys:
        return None
    text = texts.text(data["sha"])
    return None if text is None else Known(Answer.of(data["answer"], text), source or data["from"])


def _answered(events: Iterable[Event]) -> dict[str, Mapping[str, Any]]:
    return {event.id: event.data for event in events if event.type == ANSWERED}
