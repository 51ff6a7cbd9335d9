"""When a target has more than it can do, and which load a sweep tries next. Pure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agentlab.bench.load.config import MAX_IN_FLIGHT
from agentlab.bench.load.measure import Reading

_LEAST, _MOST = 20, 2000  # requests: before anything is said, and looked at
_GROWTH, _FEW = 1.5, 2.0  # by how much open requests have to grow: by half, and by two
_CLOSE = 1.1  # a sweep ends when the lowest bad load is within this factor of the highest good one
_LOWEST_RATE, _HIGHEST_RATE = 1e-3, 1e4


def is_rising(readings: Sequence[Reading], now: float) -> bool:
    """Whether both the open requests and the time to the first token have grown by half between two halves.

    A queue that only fluctuates does not do that; one that is fed faster than it is served does. Open requests are
    counted whenever one is sent, and compared by the halves of those; times to the first token by the halves of the
    requests that have one, in the order in which it came.
    """
    recent = readings[-_MOST:]
    if len(recent) < _LEAST:
        return False
    sent = np.array([reading.sent for reading in recent])
    ended = np.sort([reading.ended for reading in recent if reading.ended is not None and reading.ended <= now])
    before, after = _halves(np.arange(sent.size) - np.searchsorted(ended, sent))
    if after.mean() <= _GROWTH * before.mean() + _FEW:
        return False
    firsts = sorted((reading.stamps[0], reading.scheduled) for reading in recent if reading.stamps)
    if len(firsts) < _LEAST // 2:
        return True  # almost nothing has begun, and more and more is open
    early, late = _halves(np.array([first - scheduled for first, scheduled in firsts]))
    return bool(np.median(late) > _GROWTH * np.median(early))


def _halves(values: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    return values[: values.size // 2], values[values.size // 2 :]


@dataclass(frozen=True, slots=True)
class Step:
    """A load that was tried, and whether the target carried it."""

    value: float
    good: bool


def bracket(steps: Sequence[Step]) -> tuple[float | None, float | None]:
    """The highest good load below all bad ones, and the lowest bad one."""
    bad = min((step.value for step in steps if not step.good), default=None)
    good = max((step.value for step in steps if step.good and (bad is None or step.value < bad)), default=None)
    return good, bad


def next_value(steps: Sequence[Step], start: float, *, whole: bool) -> float | None:
    """The next load of a sweep: doubled while it is carried, halved while it is not, then the geometric middle.

    None: the bounds are close enough, or there is nothing left to try. `whole` loads are numbers of requests at a time.
    """
    if not steps:
        return max(1.0, round(start)) if whole else start
    good, bad = bracket(steps)
    if bad is None:
        assert good is not None
        return good * 2 if good * 2 <= (MAX_IN_FLIGHT if whole else _HIGHEST_RATE) else None
    if good is None:
        lower = max(1.0, bad // 2) if whole else bad / 2
        return lower if _LOWEST_RATE <= lower < bad else None
    if bad <= _CLOSE * good:
        return None
    middle = float(round(math.sqrt(good * bad))) if whole else math.sqrt(good * bad)
    return middle if good < middle < bad else None
