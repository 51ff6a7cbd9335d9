"""What a run knows already: its own answers of earlier sessions, and those it takes over from its parent."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from agentlab.pipeline.answer import Answer
from agentlab.pipeline.store import Store
from agentlab.runs.events import Event

ANSWERED = "call.answered"


@dataclass(frozen=True, slots=True)
class Known:
    """An answer, the hash of its text, and where it came from: model, cache or parent."""

    answer: Answer
    sha: str
    source: str


class Memo:
    """Answers by the id of their call. The key has to agree: another question gets no old answer."""

    def __init__(self, store: Store, events: Iterable[Event], inherited: Iterable[Event] = ()) -> None:
        """`inherited` are events of the parent that hold here as well."""
        self._store = store
        self._inherited = _answered(inherited)
        self._own = _answered(events)

    def known(self, call: str, keys: Collection[str]) -> Known | None:
        """What was answered in this run before, under one of these keys; None if nothing, or if its text is lost."""
        return self._found(self._own, call, keys, None)

    def inherited(self, call: str, key: str) -> Known | None:
        """What the parent was answered."""
        return self._found(self._inherited, call, (key,), "parent")

    def _found(
        self, kept: Mapping[str, Mapping[str, Any]], call: str, keys: Collection[str], source: str | None
    ) -> Known | None:
        data = kept.get(call)
        if data is None or data["key"] not in keys:
            return None
        text = self._store.text(data["sha"])
        if text is None:
            return None
        return Known(Answer.of(data["answer"], text), data["sha"], source or data["from"])


def _answered(events: Iterable[Event]) -> dict[str, Mapping[str, Any]]:
    return {event.id: event.data for event in events if event.type == ANSWERED}
