"""Who measures candidates, and where. In this process, and what turns failures into results anywhere."""

import math
import time
import traceback
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from types import MappingProxyType
from typing import Any, Protocol

from agentlab.errors import BudgetExceededError, Interrupted, MissingError
from agentlab.plugins import Registry
from agentlab.search.types import TrialResult
from agentlab.study.state import StudyCandidate

_TAIL = 2_000  # characters of a traceback that are worth an event

Report = Callable[[str, str, dict[str, Any]], object]  # (event type, id, data)


class Objective(Protocol):
    """Measures candidates. Expected failures come back as failed results; a bug may raise.

    What a candidate gives depends on its params, rung and seed alone, and at most in last bits on the others of its
    batch. A batch that a kill has cut short is measured again as a whole.
    """

    def __call__(self, batch: Sequence[StudyCandidate]) -> Sequence[TrialResult]:
        """One result for each candidate, in their order."""


OBJECTIVES: Registry[Callable[[Mapping[str, Any], Report], Objective]] = Registry(
    "objective", "agentlab.objectives", {"informer": "agentlab.nas.objective:objective"}
)


class TrialExecutor(Protocol):
    """Runs objectives here, in processes or elsewhere.

    `capacity`: how many candidates it takes at a time. `in_batches`: it takes them together. Then so many are planned
    from the same results: a generation.
    """

    capacity: int
    in_batches: bool

    def submit(self, candidate: StudyCandidate) -> None: ...

    def next_completed(self) -> tuple[StudyCandidate, TrialResult]:
        """Wait for the next measurement to end, whichever it is."""

    def close(self) -> None: ...


class LocalExecutor:
    """An executor in this process: what was submitted is measured, as one batch, when a result is asked for.

    Whatever a candidate provokes (out of memory, an arithmetic fault, a NaN, a bug in an odd shape) is a failed
    trial with its time and the end of its traceback in `metrics`, and the search goes on. What would hit every
    trial alike (a missing file or package, a full disk, a budget that is spent) and a signal end the search.
    `charge` is what a crash costs in the counted units of a budget: nobody knows how far it came.
    """

    in_batches = True

    def __init__(
        self, objective: Objective, capacity: int = 1, charge: Mapping[str, float] = MappingProxyType({})
    ) -> None:
        self.capacity = capacity
        self._charge = charge
        self._objective = objective
        self._queue: list[StudyCandidate] = []
        self._ended: deque[tuple[StudyCandidate, TrialResult]] = deque()

    def submit(self, candidate: StudyCandidate) -> None:
        self._queue.append(candidate)

    def next_completed(self) -> tuple[StudyCandidate, TrialResult]:
        """The next result, in the order of submission.

        Raises:
            Interrupted: a signal asked to stop.
            MissingError: something every trial needs is absent, or the disk is full.
            BudgetExceededError: what the run may cost is spent.
        """
        if self._queue and not self._ended:
            batch, self._queue = self._queue, []
            self._ended.extend(zip(batch, self._measure(batch), strict=True))
        return self._ended.popleft()

    def _measure(self, batch: Sequence[StudyCandidate]) -> list[TrialResult]:
        """One result for each; if the batch breaks, each is measured alone, to fail alone."""
        began = time.perf_counter()
        try:
            return [finite(result) for result in self._objective(batch)]
        except (Interrupted, MissingError, BudgetExceededError):
            raise
        except Exception as error:  # noqa: BLE001 - the contract: a crash is a failed trial, with its traceback kept
            if len(batch) > 1:
                return list(chain.from_iterable(self._measure([candidate]) for candidate in batch))
            failed = failure(error, time.perf_counter() - began)
            return [replace(failed, metrics={**failed.metrics, **self._charge})]

    def close(self) -> None:
        self._queue.clear()
        self._ended.clear()


def failure(error: Exception, seconds: float) -> TrialResult:
    """A failed result that says in one line what happened, keeps the end of the traceback, and counts its time."""
    first = next(iter(str(error).strip().splitlines()), "")
    trace = "".join(traceback.format_exception(error))[-_TAIL:]
    summary = f"{type(error).__name__}: {first}" if first else type(error).__name__
    return TrialResult("failed", metrics={"traceback": trace, "seconds": round(seconds, 3)}, error=summary[:300])


def finite(result: TrialResult) -> TrialResult:
    """A finished trial without a finite value has failed."""
    if result.status == "failed" or (result.value is not None and math.isfinite(result.value)):
        return result
    value_text = "no value" if result.value is None else str(result.value)
    return TrialResult("failed", metrics=result.metrics, error=f"the objective returned {value_text}")
