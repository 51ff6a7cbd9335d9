"""Which stage comes next: the list of a config, or the next step of a sweep; and when a target has too much. Pure."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agentlab.bench.load.config import MAX_IN_FLIGHT, LoadConfig
from agentlab.bench.load.records import Record
from agentlab.bench.load.result import Capacity, StageRow
from agentlab.bench.load.schedule import LoadStage, stage_of

_MOST_STEPS = 20  # of a sweep, per target
_BASE_REQUESTS = 8  # of the stage that a sweep over rates starts from
_START = 0.5  # of the rate of one request at a time
_SWEEP_SECONDS = 3.0  # a stage of a sweep lasts at least so long: a queue needs time to grow
_EXPECTED_STEPS = 8
_MS = 1000.0
_LEAST, _MOST = 20, 2000  # requests: before anything is said, and looked at
_GROWTH, _FEW = 1.5, 2.0  # by how much open requests have to grow: by half, and by two
_CLOSE = 1.1  # a sweep ends when the lowest bad load is within this factor of the highest good one
_LOWEST_RATE, _HIGHEST_RATE = 1e-3, 1e4


@dataclass(frozen=True, slots=True)
class SweepStep:
    """A load that was tried, and whether the target carried it."""

    value: float
    good: bool


def upcoming(
    load: LoadConfig, targets: Sequence[str], done: Mapping[str, StageRow], seed: int
) -> tuple[LoadStage, float] | None:
    """The next stage, given the rows of those that are finished by their ids; None: all is measured.

    Beside it, which share of the seconds that are left it may take.
    """
    if load.mode != "sweep":
        remaining_stages = [stage for stage in fixed_stages(load, targets, seed) if stage.id not in done]
        return (remaining_stages[0], 1 / len(remaining_stages)) if remaining_stages else None
    for target_index, target in enumerate(targets):
        stage = _step(load, target, target_index, _rows(done, target), seed)
        if stage is not None and stage.id not in done:
            steps_left = max(2, _EXPECTED_STEPS - len(_rows(done, target)))
            return stage, 1 / (steps_left + _EXPECTED_STEPS * (len(targets) - target_index - 1))
    return None


def fixed_stages(load: LoadConfig, targets: Sequence[str], seed: int) -> Iterator[LoadStage]:
    """All stages of a load that is no sweep."""
    for target_index, target in enumerate(targets):
        if load.mode == "closed":
            for turn, value in enumerate(load.concurrency):
                yield stage_of(target, target_index, turn, "closed", value, load, seed)
        elif load.mode != "sweep":
            for turn, rate in enumerate(load.rates):
                yield stage_of(target, target_index, turn, load.mode, rate, load, seed)


def _step(load: LoadConfig, target: str, target_index: int, rows: Sequence[StageRow], seed: int) -> LoadStage | None:
    if len(rows) >= _MOST_STEPS:
        return None
    turn = len(rows)
    if load.sweep_over == "concurrency":
        value = next_value(_steps(load, rows), 1.0, whole_numbers=True)
        return None if value is None else stage_of(target, target_index, turn, "closed", value, load, seed)
    if not rows:  # one at a time: how fast the target is without a queue
        base = stage_of(target, target_index, turn, "closed", 1.0, load, seed)
        return replace(base, requests=min(load.requests, _BASE_REQUESTS))
    if rows[0].e2e is None:
        return None  # it does not answer at all
    value = next_value(_steps(load, rows), _START * _MS / rows[0].e2e.p50, whole_numbers=False)
    if value is None:
        return None
    stage = stage_of(target, target_index, turn, "poisson", value, load, seed)
    return replace(stage, requests=max(load.requests, math.ceil(_SWEEP_SECONDS * value)))


def _rows(done: Mapping[str, StageRow], target: str) -> list[StageRow]:
    return [row for row in done.values() if row.target == target]


def _steps(load: LoadConfig, rows: Sequence[StageRow]) -> list[SweepStep]:
    swept = "closed" if load.sweep_over == "concurrency" else "poisson"
    return [SweepStep(row.value, is_carried(row, load.slo.share)) for row in rows if row.arrivals == swept]


def is_carried(row: StageRow, share: float) -> bool:
    """Whether the target met the objective under this load, without a growing queue."""
    return row.good_share >= share and row.ended not in ("saturated", "full") and not row.cut


def capacities(load: LoadConfig, targets: Sequence[str], done: Mapping[str, StageRow], seed: int) -> list[Capacity]:
    """What a sweep has found."""
    target_capacities = []
    for target_index, target in enumerate(targets if load.mode == "sweep" else ()):
        rows = _rows(done, target)
        good, bad = bracket(_steps(load, rows))
        is_finished = bool(rows) and _step(load, target, target_index, rows, seed) is None
        target_capacities.append(
            Capacity(target=target, over=load.sweep_over, highest_good=good, lowest_bad=bad, finished=is_finished)
        )
    return target_capacities


def is_rising(readings: Sequence[Record], now: float) -> bool:
    """Whether both the open requests and the time to the first token have grown by half between two halves.

    A queue that only fluctuates does not do that; one that is fed faster than it is served does. Open requests are
    counted whenever one is sent, and compared by the halves of those; times to the first token by the halves of the
    requests that have one, in the order in which it came.
    """
    recent = readings[-_MOST:]
    if len(recent) < _LEAST:
        return False
    sent = np.array([reading.sent for reading in recent])
    end_times = np.sort([reading.ended for reading in recent if reading.ended is not None and reading.ended <= now])
    before, after = _halves(np.arange(sent.size) - np.searchsorted(end_times, sent))
    if after.mean() <= _GROWTH * before.mean() + _FEW:
        return False
    firsts = sorted((reading.stamps[0], reading.scheduled) for reading in recent if reading.stamps)
    if len(firsts) < _LEAST // 2:
        return True  # almost nothing has begun, and more and more is open
    early, late = _halves(np.array([first - scheduled for first, scheduled in firsts]))
    return bool(np.median(late) > _GROWTH * np.median(early))


def _halves(values: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    return values[: values.size // 2], values[values.size // 2 :]


def bracket(steps: Sequence[SweepStep]) -> tuple[float | None, float | None]:
    """The highest good load below all bad ones, and the lowest bad one."""
    bad = min((step.value for step in steps if not step.good), default=None)
    good = max((step.value for step in steps if step.good and (bad is None or step.value < bad)), default=None)
    return good, bad


def next_value(steps: Sequence[SweepStep], start: float, *, whole_numbers: bool) -> float | None:
    """The next load of a sweep: doubled while it is carried, halved while it is not, then the geometric middle.

    None: the bounds are close enough, or nothing is left to try. `whole_numbers` loads are numbers of requests.
    """
    if not steps:
        return max(1.0, round(start)) if whole_numbers else start
    good, bad = bracket(steps)
    if bad is None:
        assert good is not None
        return good * 2 if good * 2 <= (MAX_IN_FLIGHT if whole_numbers else _HIGHEST_RATE) else None
    if good is None:
        lower = max(1.0, bad // 2) if whole_numbers else bad / 2
        return lower if _LOWEST_RATE <= lower < bad else None
    if bad <= _CLOSE * good:
        return None
    middle = float(round(math.sqrt(good * bad))) if whole_numbers else math.sqrt(good * bad)
    return middle if good < middle < bad else None
