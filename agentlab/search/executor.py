"""Runs trials in this process, one after the other, and turns their failures into results."""

import math
import time
import traceback
from collections import deque

from agentlab.errors import Interrupted, MissingError
from agentlab.search.types import Objective, Proposal, TrialContext, TrialResult

_TAIL = 2_000  # characters of a traceback that are worth an event


class LocalExecutor:
    """A trial executor in-process: a submitted trial runs when its result is asked for.

    Whatever a candidate provokes (out of memory, an arithmetic fault, a NaN, a bug in an odd shape) is a failed
    trial with its time and the end of its traceback in `metrics`, and the search goes on. What would hit every
    trial alike (a missing file or package, a full disk) and a signal end the search.
    """

    capacity = 1

    def __init__(self, objective: Objective) -> None:
        self._objective = objective
        self._queue: deque[tuple[Proposal, TrialContext]] = deque()

    def submit(self, proposal: Proposal, context: TrialContext) -> None:
        """Queue a trial."""
        self._queue.append((proposal, context))

    def completed(self) -> tuple[TrialContext, TrialResult]:
        """Run the oldest queued trial.

        Raises:
            Interrupted: a signal asked to stop.
            MissingError: something every trial needs is absent, or the disk is full.
        """
        proposal, context = self._queue.popleft()
        began = time.perf_counter()
        try:
            result = self._objective(proposal, context)
        except (Interrupted, MissingError):
            raise
        except Exception as error:  # noqa: BLE001 - the contract: a crash is a failed trial, with its traceback kept
            return context, failure(error, time.perf_counter() - began)
        return context, finite(result)

    def close(self) -> None:
        """Forget what was not run."""
        self._queue.clear()


def failure(error: Exception, seconds: float) -> TrialResult:
    """A failed result that says in one line what happened, keeps the end of the traceback, and counts its time."""
    first = next(iter(str(error).strip().splitlines()), "")
    trace = "".join(traceback.format_exception(error))[-_TAIL:]
    said = f"{type(error).__name__}: {first}" if first else type(error).__name__
    metrics = {"traceback": trace, "seconds": round(seconds, 3)}
    return TrialResult("failed", metrics=metrics, error=said[:300])


def finite(result: TrialResult) -> TrialResult:
    """A finished trial without a finite value has failed."""
    if result.status == "failed" or (result.value is not None and math.isfinite(result.value)):
        return result
    said = "no value" if result.value is None else str(result.value)
    return TrialResult("failed", metrics=result.metrics, error=f"the objective returned {said}")
