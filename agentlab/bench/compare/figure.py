"""What two benchmarks are compared by: a figure of both, and how its interval is found."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from agentlab.bench.result import BenchResult
from agentlab.runs.store import RunRecord
from agentlab.stats.control import Interval

# At a level, with a generator.
Estimate = Callable[[float, np.random.Generator], Interval]


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two runs."""

    record: RunRecord
    result: BenchResult


@dataclass(frozen=True, slots=True)
class Figure:
    """`interval` is None where there is too little to judge by; `note` then says why. `n` counts each side."""

    target: str
    stage: str
    metric: str
    unit: str
    kind: Literal["ratio", "difference"]
    direction: Literal["lower", "higher"]
    first: float | None
    second: float | None
    n: tuple[int, int]
    interval: Estimate | None
    note: str = ""
