"""What a ledger's file knows of each model: how often it answered, how fast, what it used."""

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from agentlab.errors import StorageError
from agentlab.llm.ledger.rows import quantile
from agentlab.llm.ledger.schema import SCHEMA, connect_to_read, explain_error
from agentlab.runs.document import AnswerDocument, Block, Text, figure_or_dash, table

UNKNOWN = "unknown"


class StatisticsLine(AnswerDocument):
    """All attempts at one model since the file was made. Names are those of the config; None is unknown."""

    model: str
    provider: str
    last_at: str | None  # when the newest answer was there, in UTC
    last_seconds: float | None  # how long it took
    answered: int
    failed: int
    errors: dict[str, int]  # `failed` by kind of the error
    input_tokens: int | None  # this and the next two: sums of what is known
    output_tokens: int | None
    cost_usd: float | None
    unpriced: int  # attempts whose cost is unknown, so that `cost_usd` lacks them
    first_p50: float | None  # median and 90th percentile of the seconds to the first content of streamed answers
    first_p90: float | None
    total_p50: float | None  # the same of the seconds in all, of answers alone
    total_p90: float | None


class LedgerStatistics(AnswerDocument):
    """What the workspace's ledger remembers of its models, since it was made: the answer of `agentlab llm stats`."""

    ledger: str
    models: list[StatisticsLine]

    def blocks(self) -> list[Block]:
        if not self.models:
            return [Text("No language model has been called in this workspace yet.")]
        return [
            table(
                self.models,
                {
                    "model": lambda line: line.model,
                    "last answer": lambda line: line.last_at or "never",
                    "took": lambda line: UNKNOWN if line.last_seconds is None else f"{line.last_seconds:.2f} s",
                    "answers": lambda line: line.answered,
                    "errors": lambda line: ", ".join(f"{kind} {count}" for kind, count in line.errors.items()) or 0,
                    "tokens in": lambda line: figure_or_dash(line.input_tokens, "", UNKNOWN),
                    "tokens out": lambda line: figure_or_dash(line.output_tokens, "", UNKNOWN),
                    "USD spent": _cost_text,
                    "first token (s), p50 / p90": lambda line: _pair(line.first_p50, line.first_p90),
                    "whole answer (s), p50 / p90": lambda line: _pair(line.total_p50, line.total_p90),
                },
                "Took: time of the last answer. p50 / p90: median and 90th percentile over all answers. Times are UTC.",
            )
        ]


def _cost_text(line: StatisticsLine) -> str:
    unpriced_note = f" and {line.unpriced} calls of unknown cost" if line.unpriced else ""
    return UNKNOWN if line.cost_usd is None else f"{line.cost_usd:.4f}{unpriced_note}"


def _pair(p50: float | None, p90: float | None) -> str:
    return UNKNOWN if p50 is None or p90 is None else f"{p50:.2f} / {p90:.2f}"


def read_statistics(path: Path) -> LedgerStatistics:
    """One line per model, by name; none if there is no file yet. What was recorded a moment ago may be missing.

    Raises:
        StorageError: the file cannot be read, is not ours, or a newer agentlab's.
    """
    try:
        if not path.exists():
            return LedgerStatistics(ledger=str(path), models=[])
        with closing(connect_to_read(path)) as db:
            db.execute("BEGIN")  # all tables as of one moment
            return LedgerStatistics(ledger=str(path), models=[] if SCHEMA.is_empty(db, path) else _read(db))
    except (sqlite3.Error, OSError, ValueError, TypeError) as error:
        raise StorageError(explain_error(error, path)) from error


def _read(db: sqlite3.Connection) -> list[StatisticsLine]:
    outcomes: dict[str, dict[str, int]] = {}
    for model, error, calls in db.execute("SELECT model, error, calls FROM outcomes ORDER BY error"):
        outcomes.setdefault(model, {})[error] = int(calls)
    durations: dict[tuple[str, str], dict[int, int]] = {}
    for model, phase, bucket, calls in db.execute("SELECT model, phase, bucket, calls FROM durations"):
        durations.setdefault((model, phase), {})[int(bucket)] = int(calls)
    rows = db.execute(
        """SELECT model, provider, last_at, last_seconds, input_tokens, output_tokens, cost_usd, unpriced
        FROM models ORDER BY model"""
    )
    return [_line(row, outcomes.get(row[0], {}), durations) for row in rows]


def _line(
    row: tuple[Any, ...], outcomes: Mapping[str, int], durations: Mapping[tuple[str, str], Mapping[int, int]]
) -> StatisticsLine:
    model, provider, last_at, last_seconds, input_tokens, output_tokens, cost_usd, unpriced = row
    errors = {error: calls for error, calls in outcomes.items() if error}
    first, total = durations.get((model, "first"), {}), durations.get((model, "total"), {})
    return StatisticsLine(
        model=model,
        provider=provider,
        last_at=None if last_at is None else f"{datetime.fromtimestamp(last_at, tz=UTC):%Y-%m-%d %H:%M:%S}",
        last_seconds=last_seconds,
        answered=outcomes.get("", 0),
        failed=sum(errors.values()),
        errors=errors,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        cost_usd=cost_usd,
        unpriced=unpriced,
        first_p50=quantile(first, 0.5),
        first_p90=quantile(first, 0.9),
        total_p50=quantile(total, 0.5),
        total_p90=quantile(total, 0.9),
    )
