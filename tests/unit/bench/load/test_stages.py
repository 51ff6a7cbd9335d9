"""Which stage comes next."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from agentlab.bench.load.aggregate import StageFacts, row_of
from agentlab.bench.load.config import LoadConfig, SloConfig
from agentlab.bench.load.records import Record
from agentlab.bench.load.result import StageRow
from agentlab.bench.load.schedule import LoadStage
from agentlab.bench.load.stages import capacities, fixed_stages, is_carried, upcoming

Make = Callable[..., Record]


def row(stage: LoadStage, records: list[Record], slo: SloConfig, ending: Any = "whole") -> StageRow:
    facts = StageFacts(stage, ending, client_cpu=0.1, file="f", exact=False, price=None)
    return row_of(facts, records, slo, None, np.random.default_rng(0))


def test_the_stages_of_a_config_come_target_by_target_and_finished_ones_are_left_out(record: Make) -> None:
    load = LoadConfig(concurrency=(1, 4))
    names = [(stage.target, stage.value) for stage in fixed_stages(load, ["a", "b"], seed=0)]
    assert names == [("a", 1), ("a", 4), ("b", 1), ("b", 4)]
    done: dict[str, StageRow] = {}
    shares = []
    while (stage_and_share := upcoming(load, ["a", "b"], done, seed=0)) is not None:
        shares.append(stage_and_share[1])
        done[stage_and_share[0].id] = row(stage_and_share[0], [record()], load.slo)
    assert [(row.target, row.value) for row in done.values()] == names
    assert shares == [1 / 4, 1 / 3, 1 / 2, 1]  # of the seconds that are left: each gets as many


@pytest.mark.parametrize("limit", [3.0, 40.0])
def test_a_sweep_over_rates_starts_from_one_at_a_time_and_finds_the_limit(record: Make, limit: float) -> None:
    load = LoadConfig(mode="sweep", slo=SloConfig(ttft_ms=500))
    done: dict[str, StageRow] = {}
    while (stage_and_share := upcoming(load, ["a"], done, seed=0)) is not None:
        stage = stage_and_share[0]
        slow = stage.arrivals == "poisson" and stage.value > limit
        done[stage.id] = row(stage, [record(ttft=2.0 if slow else 0.1)] * 10, load.slo)
        assert len(done) <= 20
    first = next(iter(done.values()))
    assert (first.arrivals, first.value) == ("closed", 1)
    (capacity,) = capacities(load, ["a"], done, seed=0)
    assert capacity.finished
    assert capacity.highest_good is not None
    assert capacity.lowest_bad is not None
    assert capacity.highest_good <= limit < capacity.lowest_bad <= 1.1 * capacity.highest_good


def test_a_target_that_does_not_answer_is_not_swept(record: Make) -> None:
    load = LoadConfig(mode="sweep", slo=SloConfig(ttft_ms=500))
    first = upcoming(load, ["a", "b"], {}, seed=0)
    assert first is not None
    done = {first[0].id: row(first[0], [record(error="AuthError")], load.slo)}
    second = upcoming(load, ["a", "b"], done, seed=0)
    assert second is not None
    assert second[0].target == "b"


def test_a_stage_of_a_sweep_lasts_long_enough_for_a_queue_to_grow(record: Make) -> None:
    load = LoadConfig(mode="sweep", requests=10)
    first = upcoming(load, ["a"], {}, seed=0)
    assert first is not None
    done = {first[0].id: row(first[0], [record(ttft=0.001, itl=0.0)], load.slo)}
    second = upcoming(load, ["a"], done, seed=0)
    assert second is not None
    assert second[0].requests >= 3 * second[0].value > 10


def test_a_load_is_carried_if_enough_is_good_and_no_queue_grows(record: Make) -> None:
    stage, slo = LoadStage("s", "a", "poisson", 1, 10, 0), SloConfig(ttft_ms=500)
    nine = [record(ttft=0.1)] * 9
    assert is_carried(row(stage, [*nine, record(ttft=1)], slo), 0.9)
    assert not is_carried(row(stage, [*nine, record(error="ServerFaultError"), record(ttft=1)], slo), 0.9)
    assert not is_carried(row(stage, nine, slo, ending="saturated"), 0.9)
    assert not is_carried(row(stage, [*nine, record(cut=True)], slo), 0.9)
