"""Requests as lines of a file: what a stage measured, whole and to be counted again. Pure."""

import json
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from agentlab.bench.load.measure import Reading
from agentlab.llm.types import Usage

_DIGITS = 6  # microseconds


@dataclass(frozen=True, slots=True)
class Record:
    """One request; times in seconds from the start of its stage. See `Reading`.

    `exact` is the number of answer tokens by the model's own tokenizer; None where there is none.
    """

    index: int
    scheduled: float
    sent: float
    stamps: "array[float]"
    output: float | None
    ended: float | None
    characters: int
    usage: Usage
    exact: int | None
    error: str | None
    message: str

    @property
    def answered(self) -> bool:
        """Whether an answer is there, and whole."""
        return self.ended is not None and self.error is None

    @property
    def first(self) -> float | None:
        """When the answer began."""
        return self.stamps[0] if self.stamps else None

    @property
    def last(self) -> float | None:
        """When its last piece of content arrived."""
        return self.stamps[-1] if self.stamps else None


def record_of(reading: Reading, began: float, exact: int | None) -> Record:
    """The reading with times from `began` on, rounded to microseconds."""

    def since(moment: float | None) -> float | None:
        return None if moment is None else round(moment - began, _DIGITS)

    return Record(
        index=reading.index,
        scheduled=round(reading.scheduled - began, _DIGITS),
        sent=round(reading.sent - began, _DIGITS),
        stamps=array("d", (round(stamp - began, _DIGITS) for stamp in reading.stamps)),
        output=since(reading.output),
        ended=since(reading.ended),
        characters=reading.characters,
        usage=reading.usage,
        exact=exact,
        error=reading.error,
        message=reading.message,
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
    known = {name: tree[name] for name in fields}
    usage = Usage(tree["input_tokens"], tree["output_tokens"], tree["cost_usd"])
    return Record(stamps=array("d", tree["stamps"]), usage=usage, exact=tree["exact_tokens"], **known)
