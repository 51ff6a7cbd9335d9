"""The budget holds, whatever is done in which order; what was spent is recorded before a kill can lose it."""

import sys
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentlab.compress.meter import (
    INTERVAL,
    CompressCost,
    CompressStage,
    Meter,
    OverBudgetError,
    best_source,
    cpu_seconds,
    forecast,
    usual_rate,
)


class Clock:
    """Seconds and joules that a test lets pass: 10 W."""

    now = 0.0

    def joules(self) -> float:
        return 10 * self.now


def metered(
    limits: dict[str, float], *before: tuple[str, CompressCost]
) -> tuple[Clock, Meter, list[tuple[str, CompressCost]]]:
    clock, records = Clock(), list[tuple[str, CompressCost]]()
    meter = Meter(clock.joules, 360.0, limits, before, lambda *record: records.append(record), lambda: clock.now)
    return clock, meter, records


@given(
    st.lists(st.floats(0.01, INTERVAL), min_size=1, max_size=60),
    st.floats(1, 100),
    st.sampled_from(["seconds", "joules", "grams"]),
)
def test_a_budget_is_passed_by_one_interval_at_most(steps: list[float], limit: float, unit: str) -> None:
    clock, meter, records = metered({unit: limit})
    meter.stage("work")
    try:
        for step in steps:
            clock.now += step
            meter.check()
    except OverBudgetError:
        pass
    meter.flush()
    total = sum((s for _, s in records), CompressCost())
    a_second = {"seconds": 1.0, "joules": 10.0, "grams": 10 / 3.6e6 * 360}[unit]
    assert getattr(total, unit) <= limit + INTERVAL * a_second + 1e-6
    assert getattr(meter.total, unit) == pytest.approx(getattr(total, unit))


@given(st.lists(st.floats(0.01, INTERVAL), max_size=40))
def test_what_was_spent_is_recorded_within_an_interval(steps: list[float]) -> None:
    clock, meter, records = metered({})
    meter.stage("work")
    for step in steps:
        clock.now += step
        meter.check()
    assert clock.now - sum(s.seconds for _, s in records) <= INTERVAL + 1e-6


def test_what_would_pass_the_budget_if_it_cost_as_much_as_the_last_time_is_not_begun() -> None:
    clock, meter, records = metered({"seconds": 10})
    for name, seconds in {"small": 1.0, "large": 3.0, "other": 2.5}.items():
        meter.stage(name)
        clock.now += seconds
    meter.stage("small")
    clock.now += 1.5
    with pytest.raises(OverBudgetError, match="large is expected to exceed the budget of 10 seconds; 8 already spent"):
        meter.stage("large")
    _, resumed, _ = metered({"seconds": 10}, *records)  # after a kill it knows as much
    resumed.stage("small")
    with pytest.raises(OverBudgetError, match="large is expected to exceed"):
        resumed.stage("large")
    _, poor, _ = metered({"seconds": 8}, *records)
    poor.stage("new")
    with pytest.raises(OverBudgetError, match="new cannot start within the budget"):
        metered({"seconds": 7}, *records)[1].stage("new")


USUAL = usual_rate(20.0, 400.0)


def test_a_stage_is_forecast_by_its_size_and_then_by_what_it_cost() -> None:
    assert forecast([CompressStage("cut", 3.0)], {}, USUAL).joules == pytest.approx(60.0)
    costs = {"cut": CompressCost(seconds=8.0, joules=100.0, work=2.0), "propose": CompressCost(seconds=5.0)}
    assert forecast([CompressStage("cut", 3.0)], costs, USUAL).seconds == 12.0
    slower = forecast([CompressStage("measure", 3.0)], costs, USUAL).seconds  # this machine is slower than sizes say
    assert 3.0 < slower < 12.0
    assert forecast([CompressStage("cut", 3.0), CompressStage("measure", 3.0)], costs, USUAL).seconds == pytest.approx(
        12.0 + slower
    )


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.floats(0.1, 5), st.floats(0.1, 4)), min_size=1, max_size=20),
    st.integers(1, 4),
    st.floats(1, 60),
)
def test_a_budget_is_passed_by_the_error_of_one_forecast_at_most(
    stages: list[tuple[str, float, float]], length: int, limit: float
) -> None:
    clock, meter, _ = metered({"seconds": limit})
    error = 0.0
    try:
        for begin in range(0, len(stages), length):  # recipes, each of so many stages
            recipe = stages[begin : begin + length]
            meter.expect([CompressStage(name, work) for name, work, _ in recipe])
            for index, (name, work, factor) in enumerate(recipe):
                meter.stage(name)
                remaining = [CompressStage(*stage[:2]) for stage in recipe[index:]]
                assert meter.total.seconds + forecast(remaining, meter._known, meter._usual).seconds <= limit + 1e-9
                error = work * factor - forecast(remaining[:1], meter._known, meter._usual).seconds
                clock.now += work * factor  # nobody looks meanwhile
    except OverBudgetError:
        pass
    meter.flush()
    assert meter.total.seconds <= limit + max(0.0, error) + 1e-6


def test_a_stage_begins_only_if_measuring_fits_as_well() -> None:
    clock, meter, _ = metered({"seconds": 10})
    meter.expect([CompressStage("quantize", 1.0), CompressStage("measure", 8.0)])
    meter.stage("quantize")
    clock.now += 3.0
    with pytest.raises(
        OverBudgetError, match=r"measure is expected to exceed .* more forecast \(including measurement\)"
    ):
        meter.stage("measure")
    _, meter, _ = metered({"seconds": 10})
    meter.expect([CompressStage("quantize", 3.0), CompressStage("measure", 8.0)])
    with pytest.raises(OverBudgetError, match="quantize is expected to exceed"):
        meter.stage("quantize")


def test_each_stage_pays_for_itself_and_an_earlier_session_counts() -> None:
    clock, meter, records = metered({"joules": 1000}, ("", CompressCost(joules=100)))
    for name, seconds in {"calibrate": 3.0, "quantize": 5.0}.items():
        meter.stage(name)
        clock.now += seconds
    meter.flush()
    assert [(name, s.seconds) for name, s in records] == [("calibrate", 3.0), ("quantize", 5.0)]
    assert meter.total.joules == 180
    assert meter.total.grams == pytest.approx(80 / 3.6e6 * 360)


def test_what_other_processes_of_the_run_have_spent_counts_for_the_limit() -> None:
    clock, meter, _ = metered({"seconds": 10})
    meter.stage("work")
    clock.now += 3.0
    meter.check()
    meter.others = CompressCost(seconds=8.0)
    with pytest.raises(OverBudgetError, match="work exceeded the budget of 10 seconds; 11 already spent"):
        meter.check()
    assert meter.total.seconds == 3.0


def test_what_was_spent_since_the_last_record_is_told_as_spent_not_as_forecast() -> None:
    clock, meter, _ = metered({"seconds": 10})
    meter.stage("work")
    clock.now += 9.5
    meter.check()
    clock.now += 1.5
    with pytest.raises(OverBudgetError) as caught:
        meter.check()
    assert "work exceeded the budget of 10 seconds; 11 already spent." in caught.value.message


@pytest.mark.parametrize("is_readable", [True, False])
def test_the_counter_of_a_gpu_is_added_where_it_can_be_read(monkeypatch: pytest.MonkeyPatch, is_readable: bool) -> None:
    class RefusedError(Exception):
        pass

    def counter(_: object) -> int:  # a fake of NVML: millijoules
        if not is_readable:
            raise RefusedError
        return 5_000_000

    fake = SimpleNamespace(
        NVMLError=RefusedError,
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetTotalEnergyConsumption=counter,
    )
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    monkeypatch.setattr("agentlab.machine.device", lambda: "cuda")
    source = best_source(0.0)
    assert ("NVML" in source.label) == is_readable
    assert "excluding the GPU" not in source.label or not source.measured
    if is_readable and "RAPL" not in source.label:
        assert source.joules() == 5_000


def test_joules_are_labelled_and_grow_with_work() -> None:
    source = best_source(20.0)
    before, cpu = source.joules(), cpu_seconds()
    sum(i * i for i in range(1_500_000))
    assert source.measured or "20 W" in source.label
    assert cpu_seconds() > cpu
    assert source.joules() > before
