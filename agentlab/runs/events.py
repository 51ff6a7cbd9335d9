"""The event: one line of `events.jsonl`, the truth a run resumes from and every view follows."""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

VERSION = 1
_KINDS = {"seq": (int,), "t": (int, float), "type": (str,), "id": (str,), "data": (dict,), "v": (int,)}


@dataclass(frozen=True, slots=True)
class Event:
    """`type` is `noun.verb`; `id` names the thing it happened to; `t` (UNIX seconds) never enters a result."""

    seq: int
    t: float
    type: str
    id: str = ""
    data: dict[str, Any] = field(default_factory=dict)
    v: int = VERSION

    def to_json(self) -> str:
        """One line without its newline. NaN is refused: it is not JSON."""
        fields = {"v": self.v, "seq": self.seq, "t": self.t, "type": self.type, "id": self.id, "data": self.data}
        return json.dumps(fields, allow_nan=False, ensure_ascii=False, separators=(",", ":"))

    @classmethod
    def from_json(cls, line: str) -> "Event":
        """Inverse of `to_json`. Raises ValueError if the line is not an event."""
        try:
            raw = json.loads(line)
            fields = {name: raw[name] for name in _KINDS}
            if any(type(value) not in _KINDS[name] for name, value in fields.items()) or not math.isfinite(raw["t"]):
                raise ValueError("not an event: a field has the wrong type")
            return cls(**fields)
        except (KeyError, TypeError, OverflowError, RecursionError) as error:
            raise ValueError(f"not an event: {error}") from error


def first_event_data(events: Iterable[Event], type: str, id: str = "") -> Mapping[str, Any]:  # noqa: A002 - the event's field
    """What the first event of this type and id says; empty where there is none yet."""
    return next((event.data for event in events if event.type == type and event.id == id), {})


def has_changed(noted: Mapping[str, Any], **now: object) -> bool:
    """Whether a run would go on with another input than that of its beginning.

    `noted` is what the event says of the input, `now` the same fields at present. What it leaves out is not compared.
    """
    return any(noted.get(key, value) != value for key, value in now.items())


class EventSink(Protocol):
    """Whoever wants to see events as they happen: the run folder, the screen, a tracker."""

    def emit(self, event: Event) -> None:
        """Take one event. Must not raise for an event type it does not know."""


@dataclass(frozen=True, slots=True)
class Narration:
    """What an event means to somebody who watches: a line worth keeping, and how far the work is."""

    line: str | None = None
    detail: str | None = None  # what happens right now; shown on a terminal only
    done: int | None = None
    total: int | None = None
    verbose: str | None = None  # a line for those who asked for more
    piece: str | None = None  # of a text that comes bit by bit; shown on a terminal only
