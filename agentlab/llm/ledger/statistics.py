"""What a ledger's file knows of each model: how often it answered, how fast, what it used."""

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from agentlab.errors import StorageError
from agentlab.llm.ledger.histogram import quantile
from agentlab.llm.ledger.schema import check, connect_to_read, explained
from agentlab.llm.types import Usage


@dataclass(frozen=True, slots=True)
class ModelStatistics:
    """All attempts at one model since the file was made.

    Attributes:
        model, provider: names in the config.
        answered: attempts that answered.
        errors: the other attempts, by kind of the error.
        usage: sums of what is known; None where nothing is.
        unpriced: attempts whose cost is unknown, so that `usage.cost_usd` lacks them.
        last_at: UNIX seconds of the newest answer; None without one.
        last_seconds: how long it took.
        first: median and 90th percentile of the seconds to the first content; None without a streamed answer.
        total: the same of the seconds in all, of answers alone.
    """

    model: str
    provider: str
    answered: int
    errors: Mapping[str, int]
    usage: Usage
    unpriced: int
    last_at: float | None
    last_seconds: float | None
    first: tuple[float, float] | None
    total: tuple[float, float] | None


def read_statistics(path: Path) -> tuple[ModelStatistics, ...]:
    """One row per model, by name; none if there is no file yet. What was recorded a moment ago may be missing.

    Raises:
        StorageError: the file cannot be read, is not ours, or a newer agentlab's.
    """
    try:
        if not path.exists():
            return ()
        with closing(connect_to_read(path)) as db:
            db.execute("BEGIN")  # all tables as of one moment
            return _read(db) if check(db, path) else ()
    except (sqlite3.Error, OSError, ValueError, TypeError) as error:
        raise StorageError(explained(error, path)) from error


def _read(db: sqlite3.Connection) -> tuple[ModelStatistics, ...]:
    outcomes: dict[str, dict[str, int]] = {}
    for model, error, calls in db.execute("SELECT model, error, calls FROM outcomes ORDER BY error"):
        outcomes.setdefault(model, {})[error] = int(calls)
    durations: dict[tuple[str, str], dict[int, int]] = {}
    for model, phase, bucket, calls in db.execute("SELECT model, phase, bucket, calls FROM durations"):
        durations.setdefault((model, phase), {})[int(bucket)] = int(calls)
    rows = db.execute(
        """SELECT model, provider, input_tokens, output_tokens, cost_usd, unpriced, last_at, last_seconds
        FROM models ORDER BY model"""
    )
    return tuple(
        ModelStatistics(
            model=model,
            provider=provider,
            answered=outcomes.get(model, {}).get("", 0),
            errors={error: calls for error, calls in outcomes.get(model, {}).items() if error},
            usage=Usage(*usage),
            unpriced=unpriced,
            last_at=last_at,
            last_seconds=last_seconds,
            first=_percentiles(durations.get((model, "first"), {})),
            total=_percentiles(durations.get((model, "total"), {})),
        )
        for model, provider, *usage, unpriced, last_at, last_seconds in rows
    )


def _percentiles(counts: Mapping[int, int]) -> tuple[float, float] | None:
    middle, most = quantile(counts, 0.5), quantile(counts, 0.9)
    return None if middle is None or most is None else (middle, most)
