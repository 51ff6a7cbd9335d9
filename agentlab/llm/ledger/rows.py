"""What becomes rows of the ledger's file, and comes back. Each batch is one transaction.

Counters are added to in SQL. Arms are read, extended and written back inside the transaction, in which no other process
can write: so the evidence of all processes ends up in one arm, as if one process had heard it in that order.
"""

import math
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from itertools import chain
from typing import Any

from agentlab.llm.ledger.arm import Arm, AttemptSample, Quality
from agentlab.llm.ledger.memory import MOST_ARMS, Key, LedgerSpending, fold_evidence
from agentlab.runs.sqlite import transaction

_MOST_ANSWERS = 10_000
_MOST_ANSWER_BYTES = 64 << 20
_ROOM = 0.9  # what remains when answers have to make room

_ARM = ", ".join(field.name for field in fields(Arm))
_ALL_ARMS = f"SELECT task, model, {_ARM} FROM arms ORDER BY at DESC LIMIT {MOST_ARMS}"  # noqa: S608 - our own names
_GET_ARM = f"SELECT {_ARM} FROM arms WHERE task = ? AND model = ?"  # noqa: S608 - our own names
_PUT_ARM = f"REPLACE INTO arms (task, model, {_ARM}) VALUES (?, ?{', ?' * len(fields(Arm))})"  # noqa: S608 - our own names
_CALL = """INSERT INTO calls
    (at, task, model, provider, error, input_tokens, output_tokens, cost_usd, first, total, run)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"""
# `coalesce(a + b, a, b)`: unknown and known make known, unknown and unknown stay unknown
_MODEL = """INSERT INTO models VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (model) DO UPDATE SET
    provider = excluded.provider,
    input_tokens = coalesce(input_tokens + excluded.input_tokens, input_tokens, excluded.input_tokens),
    output_tokens = coalesce(output_tokens + excluded.output_tokens, output_tokens, excluded.output_tokens),
    cost_usd = coalesce(cost_usd + excluded.cost_usd, cost_usd, excluded.cost_usd),
    unpriced = unpriced + excluded.unpriced,
    last_seconds = CASE WHEN excluded.last_at >= coalesce(last_at, excluded.last_at)
        THEN excluded.last_seconds ELSE last_seconds END,
    last_at = coalesce(max(last_at, excluded.last_at), last_at, excluded.last_at)"""
_OUTCOME = "INSERT INTO outcomes VALUES (?, ?, 1) ON CONFLICT (model, error) DO UPDATE SET calls = calls + 1"
_DURATION = (
    "INSERT INTO durations VALUES (?, ?, ?, 1) ON CONFLICT (model, phase, bucket) DO UPDATE SET calls = calls + 1"
)
# Durations are counted in buckets of equal ratio: histograms of several processes and days add up, bucket by bucket.
# After DDSketch (Masson, Rim and Lee, 2019, section 2.1): with eight buckets per doubling, a quantile is within 4.5 %
# of an observed duration, however many are counted.
_PER_DOUBLING = 8
_LOWEST, _HIGHEST = -20 * _PER_DOUBLING, 20 * _PER_DOUBLING  # about a microsecond to twelve days


@dataclass(frozen=True, slots=True)
class PendingAnswer:
    """An encoded answer on its way to the file. `at` is in UNIX seconds."""

    key: str
    at: float
    body: bytes


Event = AttemptSample | Quality | PendingAnswer


def write(db: sqlite3.Connection, events: Sequence[Event]) -> None:
    """Store all of them or none. Raises sqlite3.Error if the file is locked, broken or cannot grow."""
    samples = [event for event in events if isinstance(event, AttemptSample)]
    answers = [event for event in events if isinstance(event, PendingAnswer)]
    with transaction(db):
        db.executemany(_CALL, map(_call, samples))
        db.executemany(_MODEL, map(_model, samples))
        db.executemany(_OUTCOME, ((sample.model, sample.error or "") for sample in samples))
        db.executemany(_DURATION, chain.from_iterable(map(_durations, samples)))
        _extend_arms(db, (event for event in events if not isinstance(event, PendingAnswer)))
        _keep_answers(db, answers)


def read_arms(db: sqlite3.Connection) -> dict[Key, Arm]:
    """All arms, those with the newest evidence if there are more than `MemoryLedger` holds."""
    return {(task, model): Arm(*map(float, values)) for task, model, *values in db.execute(_ALL_ARMS)}


def read_spent(db: sqlite3.Connection, when: float) -> LedgerSpending:
    """What all processes' calls since `when` cost."""
    usd, calls = db.execute("SELECT sum(cost_usd), count(*) FROM calls WHERE at >= ?", (when,)).fetchone()
    return LedgerSpending(when, usd, calls)


def read_answer(db: sqlite3.Connection, key: str) -> bytes | None:
    """The encoded answer under a key."""
    row = db.execute("SELECT body FROM answers WHERE key = ?", (key,)).fetchone()
    return row[0] if row and isinstance(row[0], bytes) else None


def _call(sample: AttemptSample) -> tuple[Any, ...]:
    usage = sample.usage
    return (
        *(sample.at, sample.task, sample.model, sample.provider, sample.error),
        *(usage.input_tokens, usage.output_tokens, usage.cost_usd, sample.first, sample.total, sample.run),
    )


def _model(sample: AttemptSample) -> tuple[Any, ...]:
    usage, answered = sample.usage, sample.error is None
    return (
        *(sample.model, sample.provider, usage.input_tokens, usage.output_tokens, usage.cost_usd),
        *(usage.cost_usd is None, sample.at if answered else None, sample.total if answered else None),
    )


def _durations(sample: AttemptSample) -> Iterator[tuple[str, str, int]]:
    """Of answers alone: how long a refusal takes says nothing about the next answer."""
    if sample.error is None:
        yield sample.model, "total", bucket_of(sample.total)
        if sample.first is not None:
            yield sample.model, "first", bucket_of(sample.first)


def _extend_arms(db: sqlite3.Connection, evidence: Iterable[AttemptSample | Quality]) -> None:
    news: dict[Key, list[AttemptSample | Quality]] = {}
    for event in evidence:
        news.setdefault((event.task, event.model), []).append(event)
    for key, events in news.items():
        row = db.execute(_GET_ARM, key).fetchone()
        arm = fold_evidence(Arm(*map(float, row)) if row else Arm(), events)
        db.execute(_PUT_ARM, (*key, *astuple(arm)))


def _keep_answers(db: sqlite3.Connection, answers: Sequence[PendingAnswer]) -> None:
    if not answers:
        return
    db.executemany("REPLACE INTO answers VALUES (?, ?, ?, ?)", ((a.key, a.at, len(a.body), a.body) for a in answers))
    rows, size = db.execute("SELECT count(*), sum(bytes) FROM answers").fetchone()
    if rows > _MOST_ANSWERS or size > _MOST_ANSWER_BYTES:
        db.execute(
            """DELETE FROM answers WHERE key IN (SELECT key FROM (
                SELECT key, row_number() OVER newest AS place, sum(bytes) OVER newest AS size FROM answers
                WINDOW newest AS (ORDER BY at DESC, key ROWS UNBOUNDED PRECEDING)) WHERE place > ? OR size > ?)""",
            (int(_MOST_ANSWERS * _ROOM), int(_MOST_ANSWER_BYTES * _ROOM)),
        )


def bucket_of(seconds: float) -> int:
    """Number of the bucket; zero and less fall into the lowest."""
    if seconds <= 0:
        return _LOWEST
    return min(_HIGHEST, max(_LOWEST, math.floor(math.log2(seconds) * _PER_DOUBLING)))


def quantile(counts: Mapping[int, int], share: float) -> float | None:
    """Seconds within which `share` (above 0, at most 1) of what was counted lasted; None when nothing was.

    `counts` maps buckets to numbers. The answer is the geometric middle of a bucket.
    """
    rank = share * sum(counts.values())
    if not rank:
        return None
    seen = 0
    for bucket in sorted(counts):
        seen += counts[bucket]
        if seen >= rank:
            break
    return float(2 ** ((bucket + 0.5) / _PER_DOUBLING))
