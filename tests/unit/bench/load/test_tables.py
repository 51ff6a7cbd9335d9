"""What a reader sees: sentences, tables, pictures."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from agentlab.bench.load.aggregate import StageFacts, row_of
from agentlab.bench.load.config import LoadConfig, SloConfig
from agentlab.bench.load.plots import distribution, latency_by_load, rate_by_load, timeline
from agentlab.bench.load.records import Record
from agentlab.bench.load.result import CeilingRow, LoadResult
from agentlab.bench.load.stages import fixed_stages
from agentlab.bench.load.tables import blocks, headline, milliseconds, objective, plain
from agentlab.bench.result import BenchResult
from agentlab.runs.document import Table
from agentlab.runs.report import markdown

Make = Callable[..., Record]
HOSTILE = "a|b <script> $x_1$"


@pytest.fixture
def measured(record: Make) -> tuple[LoadResult, dict[str, list[Record]]]:
    load = LoadConfig(concurrency=(1, 4), slo=SloConfig(ttft_ms=300))
    records: dict[str, list[Record]] = {}
    rows = []
    for stage in fixed_stages(load, ["model", HOSTILE], seed=0):
        good_records = [record(sent=0.3 * number, ttft=0.1 * stage.value) for number in range(6)]
        records[stage.id] = [*good_records, record(sent=2, error="RateLimitedError")]
        facts = StageFacts(stage, "whole", client_cpu=0.1, file="f", exact=False, price=None)
        rows.append(row_of(facts, records[stage.id], load.slo, None, np.random.default_rng(0)))
    ceiling = CeilingRow(short=1000, long=500, tokens=64, concurrency=16)
    result = LoadResult(
        mode="closed", objective=objective(load.slo), stages=rows, capacities=[], ceiling=ceiling, notes=["A note."]
    )
    return result, records


def test_the_screen_says_who_is_quick_and_what_the_client_can_do(measured: Any) -> None:
    text = markdown("t", BenchResult(measure="load", load=measured[0]).blocks())
    assert headline(measured[0]).startswith(
        "Lowest median time to first token: model, 100 ms [100, 100] (1 at a time). H"
    )
    alone = measured[0].model_copy(update={"stages": measured[0].stages[:1]})
    assert headline(alone).startswith(
        "model: median time to first token 100 ms [100, 100] (1 at a time); highest goodput "
    )
    for phrase in (
        "6 of 7",
        "Rate Limit",
        "RateLimitedError 1",
        "first token within 300 ms",
        "1000 requests/s",
        "A note.",
    ):
        assert phrase in text


def test_the_report_holds_every_latency_and_no_markup_of_a_target(measured: Any) -> None:
    text = markdown("t", blocks(measured[0], has_plots=True))
    for phrase in (
        "time to first token, from the actual send",
        "slip (send delay)",
        "tokens per chunk",
        "plots/timeline.svg",
    ):
        assert phrase in text
    assert "a\\|b \\<script>" in text
    assert "\n| a|b" not in text


def test_nothing_answered_is_told_and_nothing_is_drawn(measured: Any, record: Make) -> None:
    result: LoadResult = measured[0].model_copy(update={"stages": []})
    assert headline(result) == "No request was answered."
    assert not any("plots/" in str(block) for block in blocks(result, has_plots=False))


def test_pictures_are_drawn_and_equal_for_equal_data(measured: Any) -> None:
    result, records = measured
    names = {row.id: f"{row.target}, {row.label}" for row in result.stages}
    for draw in (
        lambda: latency_by_load(result.stages),
        lambda: rate_by_load(result.stages),
        lambda: distribution(records, names),
        lambda: timeline(records, names),
    ):
        picture = draw()
        assert picture.startswith("<svg")
        assert picture == draw()


def test_a_stage_without_any_answer_can_be_drawn(measured: Any, record: Make) -> None:
    result, records = measured
    names = {row.id: row.label for row in result.stages}
    failed = {stage: [record(error="AuthError")] for stage in records}
    assert distribution(failed, names).startswith("<svg")
    assert timeline(failed, names).startswith("<svg")


@pytest.mark.parametrize(
    ("value", "text"), [(None, "–"), (0.1234, "0.123 ms"), (61.83, "61.8 ms"), (999.0, "999 ms"), (1852.0, "1.85 s")]
)
def test_milliseconds_have_three_digits(value: float | None, text: str) -> None:
    assert milliseconds(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0.0, "0.000"), (0.0312, "0.0312"), (12.345, "12.3"), (123456.7, "123457")]
)
def test_figures_of_a_table_are_never_powers_of_ten(value: float, text: str) -> None:
    assert plain(value) == text


def test_the_objective_in_words() -> None:
    assert objective(SloConfig()) == "every complete answer"
    assert objective(SloConfig(ttft_ms=300, e2e_ms=2000)) == "first token within 300 ms, last token within 2000 ms"


def test_tables_are_as_wide_as_their_heads(measured: Any) -> None:
    for block in blocks(measured[0], has_plots=True):
        if isinstance(block, Table):
            assert {len(row) for row in block.rows} == {len(block.columns)}


def test_a_target_without_any_answer_is_told_with_the_reason(measured: Any) -> None:
    result = measured[0]
    dead = [row.model_copy(update={"answered": 0, "errors": {"WorkerDiedError": 7}}) for row in result.stages]
    mixed = [row if row.target == "model" else dead_row for row, dead_row in zip(result.stages, dead, strict=True)]
    text = markdown("t", BenchResult(measure="load", load=result.model_copy(update={"stages": mixed})).blocks())
    assert "answered 0 of 14 calls: WorkerDiedError" in text
    assert "answered 0 of" not in markdown("t", BenchResult(measure="load", load=result).blocks())
