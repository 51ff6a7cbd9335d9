"""Which stage comes next: the list of a config, or the next step of a sweep. Pure."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from agentlab.bench.load.config import LoadConfig
from agentlab.bench.load.result import Capacity, StageRow
from agentlab.bench.load.saturation import Step, bracket, next_value
from agentlab.bench.load.schedule import Stage, stage_of

_MOST_STEPS = 20  # of a sweep, per target
_BASE_REQUESTS = 8  # of the stage that a sweep over rates starts from
_START = 0.5  # of the rate of one request at a time
_SWEEP_SECONDS = 3.0  # a stage of a sweep lasts at least so long: a queue needs time to grow
_EXPECTED_STEPS = 8
_MS = 1000.0


@dataclass(frozen=True, slots=True)
class Upcoming:
    """A stage, and which share of the seconds that are left it may take."""

    stage: Stage
    share: float


def upcoming(load: LoadConfig, targets: Sequence[str], done: Mapping[str, StageRow], seed: int) -> Upcoming | None:
    """The next stage, given the rows of those that are finished by their ids; None: all is measured."""
    if load.mode != "sweep":
        left = [stage for stage in fixed(load, targets, seed) if stage.id not in done]
        return Upcoming(left[0], 1 / len(left)) if left else None
    for place, target in enumerate(targets):
        stage = _step(load, target, place, _rows(done, target), seed)
        if stage is not None and stage.id not in done:
            steps_left = max(2, _EXPECTED_STEPS - len(_rows(done, target)))
            return Upcoming(stage, 1 / (steps_left + _EXPECTED_STEPS * (len(targets) - place - 1)))
    return None


def fixed(load: LoadConfig, targets: Sequence[str], seed: int) -> Iterator[Stage]:
    """All stages of a load that is no sweep."""
    for place, target in enumerate(targets):
        if load.mode == "closed":
            for turn, value in enumerate(load.concurrency):
                yield stage_of(target, place, turn, "closed", value, load, seed)
        elif load.mode != "sweep":
            for turn, rate in enumerate(load.rates):
                yield stage_of(target, place, turn, load.mode, rate, load, seed)


def _step(load: LoadConfig, target: str, place: int, rows: Sequence[StageRow], seed: int) -> Stage | None:
    if len(rows) >= _MOST_STEPS:
        return None
    turn = len(rows)
    if load.sweep_over == "concurrency":
        value = next_value(_steps(load, rows), 1.0, whole=True)
        return None if value is None else stage_of(target, place, turn, "closed", value, load, seed)
    if not rows:  # one at a time: how fast the target is without a queue
        base = stage_of(target, place, turn, "closed", 1.0, load, seed)
        return replace(base, requests=min(load.requests, _BASE_REQUESTS))
    if rows[0].e2e is None:
        return None  # it does not answer at all
    value = next_value(_steps(load, rows), _START * _MS / rows[0].e2e.p50, whole=False)
    if value is None:
        return None
    stage = stage_of(target, place, turn, "poisson", value, load, seed)
    return replace(stage, requests=max(load.requests, math.ceil(_SWEEP_SECONDS * value)))


def _rows(done: Mapping[str, StageRow], target: str) -> list[StageRow]:
    return [row for row in done.values() if row.target == target]


def _steps(load: LoadConfig, rows: Sequence[StageRow]) -> list[Step]:
    swept = "closed" if load.sweep_over == "concurrency" else "poisson"
    return [Step(row.value, carried(row, load.slo.share)) for row in rows if row.arrivals == swept]


def carried(row: StageRow, share: float) -> bool:
    """Whether the target met the objective under this load, without a growing queue."""
    return row.good_share >= share and row.ended not in ("saturated", "full") and not row.cut


def capacities(load: LoadConfig, targets: Sequence[str], done: Mapping[str, StageRow], seed: int) -> list[Capacity]:
    """What a sweep has found."""
    found = []
    for place, target in enumerate(targets if load.mode == "sweep" else ()):
        rows = _rows(done, target)
        good, bad = bracket(_steps(load, rows))
        found.append(
            Capacity(
                target=target,
                over=load.sweep_over,
                highest_good=good,
                lowest_bad=bad,
                finished=bool(rows) and _step(load, target, place, rows, seed) is None,
            )
        )
    return found
