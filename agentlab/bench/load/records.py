"""One request under the stop-watch, and requests as lines of a file: what a stage measured, to be counted again.

All times are seconds of one monotonic clock. The first piece is the first that holds text, reasoning or a part of a
tool call, never the empty piece that only names the role; the last piece is the last of that kind. A piece is stamped
with the moment when its bytes were read, where they came over a wire, or else as soon as it is handed over.
"""

import json
from array import array
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from agentlab.bench.failures import cause_of
from agentlab.errors import LLMTruncatedError, RemoteError
from agentlab.llm.types import Delta, Usage, WireTimes

_DIGITS = 6  # microseconds
Clock = Callable[[], float]

_LONGEST_MESSAGE = 200
_UNKNOWN = Usage()


@dataclass(slots=True)
class Record:
    """What one request did. Times are the clock's until it is over, then they count from the start of its stage."""

    index: int  # within the stage; prompt and seed follow from it
    scheduled: float  # when it was to be sent; without a schedule, when it was sent
    sent: float  # to its last byte if it went over a wire
    stamps: "array[float]" = field(default_factory=lambda: array("d"))  # when each piece of content arrived
    output: float | None = None  # when the first piece arrived that is no reasoning
    ended: float | None = None  # when the stream ended, or broke; None: still open when its stage ended
    characters: int = 0
    usage: Usage = _UNKNOWN
    exact: int | None = None  # answer tokens by the model's own tokenizer, where there is one
    error: str | None = None  # its kind, of a strategy that of the last attempt; None if it answered
    message: str = ""
    text: list[str] | None = None  # the answer, kept only until it is counted by a tokenizer

    @property
    def is_answered(self) -> bool:
        return self.ended is not None and self.error is None

    @property
    def first(self) -> float | None:
        return self.stamps[0] if self.stamps else None

    @property
    def last(self) -> float | None:
        return self.stamps[-1] if self.stamps else None

    def fail(self, error: RemoteError, now: float) -> None:
        self.error = cause_of(error).__name__
        self.message = " ".join(error.message.split())[:_LONGEST_MESSAGE]
        self.ended = now


async def take(reading: Record, deltas: AsyncIterator[Delta], clock: Clock, wire: WireTimes) -> None:
    """Fill in the reading from the stream of its request. An error of the router's kinds is part of the reading."""
    finished = False
    stamp = reading.stamps.append
    try:
        async for delta in deltas:
            now = clock() if wire.came is None else wire.came
            if delta.text or delta.tools:
                stamp(now)
                if reading.output is None:
                    reading.output = now
                reading.characters += len(delta.text)
                if reading.text is not None:
                    reading.text.append(delta.text)
            elif delta.reasoning:
                stamp(now)
                reading.characters += len(delta.reasoning)
            if delta.usage is not None:
                reading.usage = delta.usage
            finished = finished or delta.finish is not None
        if not finished:
            raise LLMTruncatedError("The answer ended without a finish reason.")
        if not reading.stamps:
            raise LLMTruncatedError("The answer is empty.")
    except RemoteError as error:
        reading.fail(error, clock())
    else:
        reading.ended = clock()


def record_of(reading: Record, began: float, exact: int | None) -> Record:
    """A request that is over: times from `began` on, rounded to microseconds, and no text, which was counted."""

    def since(moment: float | None) -> float | None:
        return None if moment is None else round(moment - began, _DIGITS)

    return replace(
        reading,
        scheduled=round(reading.scheduled - began, _DIGITS),
        sent=round(reading.sent - began, _DIGITS),
        stamps=array("d", (round(stamp - began, _DIGITS) for stamp in reading.stamps)),
        output=since(reading.output),
        ended=since(reading.ended),
        exact=exact,
        text=None,
    )


def slim(record: Record) -> Record:
    """The record with its first and last stamp only: what pictures and priors need, in little memory."""
    return replace(record, stamps=record.stamps[:1] + record.stamps[-1:])


def to_lines(records: Iterable[Record]) -> str:
    """One JSON object a line."""
    return "".join(f"{json.dumps(_tree(record), ensure_ascii=False, separators=(',', ':'))}\n" for record in records)


def _tree(record: Record) -> dict[str, object]:
    usage = record.usage
    return {
        "index": record.index,
        "scheduled": record.scheduled,
        "sent": record.sent,
        "first": record.first,
        "output": record.output,
        "last": record.last,
        "ended": record.ended,
        "error": record.error,
        "message": record.message,
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "exact_tokens": record.exact,
        "cost_usd": usage.cost_usd,
        "characters": record.characters,
        "stamps": record.stamps.tolist(),
    }


def from_lines(text: str) -> Sequence[Record]:
    """Inverse of `to_lines`.

    Raises:
        ValueError: a line is no record.
    """
    try:
        return [_record(json.loads(line)) for line in text.split("\n") if line]
    except (KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"not a record: {error}") from error


def _record(tree: dict[str, Any]) -> Record:
    fields = ("index", "scheduled", "sent", "output", "ended", "error", "message", "characters")
    plain_fields = {name: tree[name] for name in fields}
    usage = Usage(tree["input_tokens"], tree["output_tokens"], tree["cost_usd"])
    return Record(stamps=array("d", tree["stamps"]), usage=usage, exact=tree["exact_tokens"], **plain_fields)
