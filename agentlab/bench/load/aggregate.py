"""From the records of a stage to its row. Pure; the generator for the bootstrap is passed in."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agentlab.bench.load.config import SloConfig
from agentlab.bench.load.records import Record
from agentlab.bench.load.result import CeilingRow, Counted, Ended, Spread, StageRow
from agentlab.bench.load.schedule import LoadStage
from agentlab.llm.budget import priced_usage
from agentlab.llm.provider_config import Price
from agentlab.stats.intervals import bootstrap_interval

_FOR_P50, _FOR_P99 = 5, 100  # fewest values for an interval
_RESAMPLES = 999
_MS = 1000.0
_CHARACTERS_PER_TOKEN = 4.0
_SLIP = 0.1  # of the p50 of the time to the first token
_BUSY = 0.9  # share of a core from which on the client may have been the bottleneck
_DISAGREE = 0.05
_HALF = 0.5  # of the client's ceiling
_TOGETHER = 0.1  # of the mean gap: a shorter one is none; and the share of such gaps that is told
_LEAST_SECONDS, _LEAST_ROUNDS = 1.0, 4.0  # of a stage, and in times of an answer

_ENDINGS = {
    "saturated": "saturated: open requests and time to the first token kept rising",
    "full": "saturated: the client's limit on open requests was reached",
    "time": "ended by the time limit",
    "budget": "ended by the budget",
}

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class StageFacts:
    """What the records of a stage do not say."""

    stage: LoadStage
    ended: Ended
    client_cpu: float
    file: str
    exact: bool  # the usage comes from the model's own tokenizer
    price: Price | None
    client_lag: float | None = None  # seconds, see `StageRow`


def row_of(
    facts: StageFacts, records: Sequence[Record], slo: SloConfig, ceiling: CeilingRow | None, rng: np.random.Generator
) -> StageRow:
    """The figures of a stage that sent at least one request."""
    answered = [record for record in records if record.is_answered]
    failed = [record for record in records if record.error is not None]
    end = max(_end(record) for record in records)
    seconds = max(end - min(record.sent for record in records), 1e-9)
    counts, counted = counts_of(answered, exact=facts.exact)
    good = sum(is_good(record, tokens, slo) for record, tokens in zip(answered, counts, strict=True))
    gaps = _gaps(answered)
    pieces = sum(len(record.stamps) for record in answered)
    usages = [priced_usage(record.usage, facts.price) for record in records]
    row = StageRow(
        id=facts.stage.id,
        target=facts.stage.target,
        arrivals=facts.stage.arrivals,
        value=facts.stage.value,
        requests=len(records),
        answered=len(answered),
        failed=len(failed),
        cut=len(records) - len(answered) - len(failed),
        seconds=seconds,
        request_rate=len(answered) / seconds,
        token_rate=sum(counts) / seconds,
        good=good,
        good_share=good / len(records),
        goodput=good / seconds,
        ttft=_requests(((r.stamps[0] - r.scheduled) for r in answered), rng),
        output=_requests(_outputs(answered), rng),
        ttft_sent=_requests(((r.stamps[0] - r.sent) for r in answered), rng),
        tpot=_requests(_tpots(answered, counts), rng),
        itl=spread(gaps * _MS, rng=None) if gaps.size else None,
        together=float(np.mean(gaps <= _TOGETHER * gaps.mean())) if gaps.size else None,
        e2e=_requests(((r.stamps[-1] - r.scheduled) for r in answered), rng),
        e2e_sent=_requests(((r.stamps[-1] - r.sent) for r in answered), rng),
        slip=spread([(record.sent - record.scheduled) * _MS for record in records], rng=None),
        in_flight=sum((end if r.ended is None else r.ended) - r.sent for r in records) / seconds,
        input_tokens=_mean([r.usage.input_tokens for r in answered]),
        output_tokens=_mean(counts),
        counted=counted,
        tokens_per_piece=sum(counts) / pieces if pieces else None,
        cost_usd=_sum([usage.cost_usd for usage in usages]),
        errors=dict(Counter(record.error for record in failed if record.error).most_common()),
        client_cpu=facts.client_cpu,
        client_lag=None if facts.client_lag is None else facts.client_lag * _MS,
        ended=facts.ended,
        file=facts.file,
        marks=[],
    )
    return row.model_copy(update={"marks": list(_marks(row, answered, ceiling))})


def counts_of(records: Sequence[Record], *, exact: bool) -> tuple[list[float], Counted]:
    """Answer tokens of each record, and how they were counted: exactly, by the server, or from the characters.

    One unknown count makes all of them estimates: figures of two kinds do not add up.
    """
    tokenized = [record.exact for record in records if record.exact is not None]
    if records and len(tokenized) == len(records):
        return [float(count) for count in tokenized], "exact"
    reported = [record.usage.output_tokens for record in records if record.usage.output_tokens is not None]
    if records and len(reported) == len(records):
        return [float(count) for count in reported], "exact" if exact else "reported"
    return [max(1.0, record.characters / _CHARACTERS_PER_TOKEN) for record in records], "estimated"


def is_good(record: Record, tokens: float, slo: SloConfig) -> bool:
    """Whether a whole answer met every bound of the objective; latencies from the scheduled send."""
    first, last = record.stamps[0], record.stamps[-1]
    per_token = (last - first) / (tokens - 1) if tokens > 1 else 0.0
    pairs = ((first - record.scheduled, slo.ttft_ms), (per_token, slo.itl_ms), (last - record.scheduled, slo.e2e_ms))
    return all(bound is None or value * _MS <= bound for value, bound in pairs)


def spread(values: Sequence[float] | Floats, rng: np.random.Generator | None) -> Spread:
    """Percentiles of at least one value, with their intervals if a generator is given."""
    x = np.asarray(values, dtype=np.float64)
    p50, p90, p99 = np.quantile(x, [0.5, 0.9, 0.99]).tolist()
    low50, high50 = _bounds(x, 0.5, _FOR_P50, rng)
    low99, high99 = _bounds(x, 0.99, _FOR_P99, rng)
    return Spread(
        n=x.size,
        mean=float(x.mean()),
        p50=p50,
        p90=p90,
        p99=p99,
        p50_low=low50,
        p50_high=high50,
        p99_low=low99,
        p99_high=high99,
    )


def _bounds(
    x: Floats, share: float, min_count: int, rng: np.random.Generator | None
) -> tuple[float | None, float | None]:
    if rng is None or x.size < min_count:
        return None, None
    interval = bootstrap_interval(
        x, rng, statistic=lambda draws: np.quantile(draws, share, axis=-1), method="percentile", resamples=_RESAMPLES
    )
    return interval.low, interval.high


def _requests(seconds: Iterable[float], rng: np.random.Generator) -> Spread | None:
    values = [value * _MS for value in seconds]
    return spread(values, rng) if values else None


def _gaps(records: Sequence[Record]) -> Floats:
    gaps = [np.diff(np.frombuffer(record.stamps)) for record in records if len(record.stamps) > 1]
    return np.concatenate(gaps) if gaps else np.empty(0)


def _outputs(records: Sequence[Record]) -> Iterable[float]:
    """Times to the first piece that is no reasoning, if some answer began with reasoning."""
    if all(record.output == record.first for record in records):
        return []
    return [record.output - record.scheduled for record in records if record.output is not None]


def _tpots(records: Sequence[Record], counts: Sequence[float]) -> Iterable[float]:
    pairs = zip(records, counts, strict=True)
    return [(r.stamps[-1] - r.stamps[0]) / (n - 1) for r, n in pairs if n > 1 and len(r.stamps) > 1]


def _end(record: Record) -> float:
    """When a request was over; one that was cut off, as far as it is known."""
    return next(moment for moment in (record.ended, record.last, record.sent) if moment is not None)


def _mean(values: Sequence[float | None]) -> float | None:
    known_values = [value for value in values if value is not None]
    return sum(known_values) / len(known_values) if known_values else None


def _sum(values: Sequence[float | None]) -> float | None:
    known_values = [value for value in values if value is not None]
    return sum(known_values) if known_values else None


def _marks(row: StageRow, answered: Sequence[Record], ceiling: CeilingRow | None) -> Iterable[str]:
    if row.ended in _ENDINGS:
        yield _ENDINGS[row.ended]
    if row.cut:
        yield f"{row.cut} requests were cut off: the slowest answers are missing"
    if row.ttft is not None and row.slip.p99 > _SLIP * row.ttft.p50:
        yield f"client-bound: sent up to {row.slip.p99:.1f} ms late (p99), over 10% of the time to the first token"
    if row.client_cpu > _BUSY:
        yield f"client-bound: the client kept {row.client_cpu:.0%} of a core busy"
    if row.ttft is not None and row.client_lag is not None and row.client_lag > _SLIP * row.ttft.p50:
        yield f"client-bound: client scheduling lagged by up to {row.client_lag:.1f} ms (p99); the machine may be busy"
    if ceiling is not None and row.request_rate > _HALF * ceiling_at(ceiling, row.output_tokens or 1.0):
        yield "the request rate is more than half of this client's own limit"
    if row.e2e is not None and row.seconds < max(_LEAST_SECONDS, _LEAST_ROUNDS * row.e2e.p50 / _MS):
        yield f"too short: {row.requests} requests in {row.seconds:.2g} s; start-up and wind-down dominate"
    yield from _disagreement(row, answered)


def ceiling_at(ceiling: CeilingRow, tokens: float) -> float:
    """Requests per second that this client can do with answers of this length.

    A request costs a fixed time and the same again per token: the two measured rates give both.
    """
    if ceiling.tokens <= 1:
        return ceiling.short
    per_token = max(0.0, (1 / ceiling.long - 1 / ceiling.short) / (ceiling.tokens - 1))
    return 1 / (1 / ceiling.short + per_token * max(0.0, tokens - 1))


def _disagreement(row: StageRow, answered: Sequence[Record]) -> Iterable[str]:
    """Two counts of the same answers that differ: the server's and the tokenizer's, or tokens, pieces and reads."""
    if row.together is not None and row.together > _TOGETHER and row.tpot is not None:
        yield (
            f"{row.together:.0%} of the chunks arrived together with the previous one, so gaps are not times per "
            f"token; the time per output token is {row.tpot.p50:.3g} ms (p50)"
        )
    exact = _sum([record.exact for record in answered])
    reported = _sum([record.usage.output_tokens for record in answered])
    if exact and reported and abs(reported / exact - 1) > _DISAGREE:
        yield f"the server reports {reported / exact:.2f} times as many tokens as the tokenizer counts"
    if row.counted == "estimated":
        yield "the server does not report tokens: they are estimated from the number of characters"
    elif row.tokens_per_piece and abs(row.tokens_per_piece - 1) > _DISAGREE:
        yield f"a chunk holds {row.tokens_per_piece:.2f} tokens: gaps are between chunks, not tokens"
