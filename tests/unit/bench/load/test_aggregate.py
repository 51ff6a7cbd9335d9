"""From requests to figures."""

from array import array
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentlab.bench.load.aggregate import StageFacts, ceiling_at, counts_of, is_good, row_of, spread
from agentlab.bench.load.config import SloConfig
from agentlab.bench.load.records import Record
from agentlab.bench.load.result import CeilingRow, StageRow
from agentlab.bench.load.schedule import LoadStage
from agentlab.llm.provider_config import Price
from agentlab.llm.types import Usage

Make = Callable[..., Record]
STAGE = LoadStage("s", "model", "closed", 2, 10, 0)


def row(
    records: list[Record], slo: SloConfig | None = None, ceiling: CeilingRow | None = None, **facts: Any
) -> StageRow:
    fields: dict[str, Any] = {
        "stage": STAGE,
        "ended": "whole",
        "client_cpu": 0.1,
        "file": "f",
        "exact": False,
        "price": None,
        **facts,
    }
    return row_of(StageFacts(**fields), records, slo or SloConfig(), ceiling, np.random.default_rng(0))


def test_the_definitions(record: Make) -> None:
    stage_row = row([record(sent=1.0, ttft=0.2, itl=0.05, pieces=5, late=0.01)])
    assert stage_row.ttft is not None
    assert stage_row.ttft.p50 == pytest.approx(210)  # from the schedule
    assert stage_row.ttft_sent is not None
    assert stage_row.ttft_sent.p50 == pytest.approx(200)
    assert stage_row.e2e is not None
    assert stage_row.e2e.p50 == pytest.approx(410)
    assert stage_row.tpot is not None
    assert stage_row.tpot.p50 == pytest.approx(50)  # (last - first) / (tokens - 1)
    assert stage_row.itl is not None
    assert (stage_row.itl.n, stage_row.itl.p99) == (4, pytest.approx(50))
    assert stage_row.slip.p50 == pytest.approx(10)
    assert stage_row.output is None  # nothing was reasoned


def test_several_tokens_in_a_piece_are_disclosed(record: Make) -> None:
    stage_row = row([record(pieces=5, tokens=20, itl=0.1)])
    assert stage_row.tpot is not None
    assert stage_row.tpot.p50 == pytest.approx(400 / 19)
    assert stage_row.tokens_per_piece == pytest.approx(4)
    assert "a chunk holds 4.00 tokens: gaps are between chunks, not tokens" in stage_row.marks


def test_failed_requests_are_in_no_percentile_but_in_the_shares(record: Make) -> None:
    good, slow = [record(ttft=0.1)] * 6, [record(ttft=9.0)]
    failed = [record(ttft=0.001, error="ServerFaultError")] * 2 + [record(error="RateLimitedError")]
    stage_row = row([*good, *slow, *failed], SloConfig(ttft_ms=500))
    assert stage_row.ttft is not None
    assert stage_row.ttft.n == 7
    assert (stage_row.requests, stage_row.answered, stage_row.failed, stage_row.good) == (10, 7, 3, 6)
    assert stage_row.good_share == pytest.approx(0.6)
    assert stage_row.goodput == pytest.approx(6 / stage_row.seconds)
    assert stage_row.errors == {"ServerFaultError": 2, "RateLimitedError": 1}


def test_a_request_that_was_cut_off_is_neither(record: Make) -> None:
    stage_row = row([record(), record(cut=True)])
    assert (stage_row.answered, stage_row.failed, stage_row.cut) == (1, 0, 1)
    assert any("slowest answers are missing" in mark for mark in stage_row.marks)


@pytest.mark.parametrize(
    ("slo", "good"),
    [
        (SloConfig(), True),
        (SloConfig(ttft_ms=100, itl_ms=10, e2e_ms=140), True),
        (SloConfig(ttft_ms=99), False),
        (SloConfig(itl_ms=9), False),
        (SloConfig(e2e_ms=139), False),
    ],
)
def test_every_bound_of_the_objective_counts(record: Make, slo: SloConfig, good: bool) -> None:
    assert is_good(record(ttft=0.0999, itl=0.01, pieces=5), tokens=5, slo=slo) is good


def test_waiting_for_the_client_counts_against_the_objective(record: Make) -> None:
    assert not is_good(record(ttft=0.1, late=0.5), tokens=5, slo=SloConfig(ttft_ms=200))


def test_tokens_are_exact_reported_or_estimated_but_never_mixed(record: Make) -> None:
    reported, unknown = record(tokens=9), record(usage=Usage(), characters=40)
    assert counts_of([reported, reported], exact=False) == ([9, 9], "reported")
    assert counts_of([reported], exact=True) == ([9], "exact")
    assert counts_of([reported, unknown], exact=False) == ([25 / 4, 10], "estimated")
    assert counts_of([record(exact=3)], exact=False) == ([3], "exact")


def test_a_server_that_counts_differently_is_flagged(record: Make) -> None:
    marks = row([record(tokens=12, exact=10)]).marks
    assert "the server reports 1.20 times as many tokens as the tokenizer counts" in marks
    assert not any("reports" in mark for mark in row([record(tokens=10, pieces=10, exact=10)]).marks)


def test_a_client_that_is_late_or_busy_says_so(record: Make) -> None:
    assert any("client-bound" in mark for mark in row([record(ttft=0.1, late=0.02)]).marks)
    assert any("client-bound" in mark for mark in row([record()], client_cpu=0.95).marks)
    assert any("client-bound" in mark for mark in row([record(ttft=0.1)], client_lag=0.02).marks)
    prompt = [record(sent=0.2 * number, ttft=0.1, late=0.005) for number in range(10)]
    assert row(prompt, client_lag=0.002).marks == []


def test_a_stage_that_is_mostly_beginning_and_end_is_marked(record: Make) -> None:
    long = [record(sent=number, ttft=1.0) for number in range(9)]
    assert not any("short" in mark for mark in row(long).marks)
    assert any(mark.startswith("too short: 3 requests in 3") for mark in row(long[:3]).marks)
    quick = [record(sent=0.01 * number, ttft=0.01, itl=0.001) for number in range(50)]
    assert any("short" in mark for mark in row(quick).marks)


def test_pieces_that_arrive_together_are_marked_and_the_time_per_token_is_told(record: Make) -> None:
    def read(*stamps: float) -> Record:
        return replace(record(pieces=len(stamps), tokens=len(stamps), ttft=stamps[0]), stamps=array("d", stamps))

    stage_row = row([read(0.1, 0.1, 0.1, 0.106, 0.106, 0.106, 0.112)])
    assert stage_row.together == pytest.approx(4 / 6)
    (remark,) = [mark for mark in stage_row.marks if "together" in mark]
    assert remark.startswith("67% of the chunks arrived together")
    assert "2 ms" in remark
    assert row([record(pieces=8, itl=0.002)]).together == 0


def test_a_rate_above_half_of_the_clients_own_is_marked(record: Make) -> None:
    answers = [record(sent=0.1 * number, pieces=1) for number in range(10)]  # ten per second
    assert row(answers, ceiling=CeilingRow(short=15, long=15, tokens=1, concurrency=1)).marks
    assert not row(answers, ceiling=CeilingRow(short=50, long=50, tokens=1, concurrency=1)).marks


def test_the_ceiling_falls_with_the_length_of_the_answers() -> None:
    ceiling = CeilingRow(short=1000, long=1000 / 3, tokens=101, concurrency=16)  # 1 ms, and 20 us per further token
    assert ceiling_at(ceiling, 1) == pytest.approx(1000)
    assert ceiling_at(ceiling, 51) == pytest.approx(500)
    assert ceiling_at(ceiling, 101) == pytest.approx(1000 / 3)


def test_cost_is_counted_by_price_and_unknown_is_not_zero(record: Make) -> None:
    price = Price(input=100, output=1000)
    assert row([record(tokens=5)], price=price).cost_usd == pytest.approx((7 * 100 + 5 * 1000) / 1e6)
    assert row([record()]).cost_usd is None


@given(st.lists(st.floats(0.001, 1e4), min_size=1, max_size=30))
def test_percentiles_interpolate_linearly(values: list[float]) -> None:
    percentiles = spread(values, None)
    ranked = sorted(values)
    position = 0.9 * (len(ranked) - 1)
    low, share = int(position), position - int(position)
    high = min(low + 1, len(ranked) - 1)
    assert percentiles.p90 == pytest.approx(ranked[low] + share * (ranked[high] - ranked[low]))
    assert percentiles.p50 <= percentiles.p90 <= percentiles.p99


def test_intervals_need_enough_requests_and_hold_the_estimate() -> None:
    values = np.random.default_rng(1).exponential(100, 200)
    percentiles = spread(values, np.random.default_rng(0))
    assert percentiles.p50_low is not None
    assert percentiles.p50_high is not None
    assert percentiles.p50_low <= percentiles.p50 <= percentiles.p50_high
    assert percentiles.p99_low is not None
    few = spread(values[:99], np.random.default_rng(0))
    assert (few.p50_low is None, few.p99_low is None) == (False, True)
