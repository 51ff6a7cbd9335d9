"""Trials in this process: a candidate's failure is a result, a signal or a full disk is not."""

import math

import pytest
import torch

from agentlab.errors import Interrupted, StorageError
from agentlab.search.executor import LocalExecutor
from agentlab.search.types import Proposal, TrialContext, TrialResult


def run(outcome) -> TrialResult:
    """One trial whose objective returns or raises `outcome`."""

    def objective(proposal, context):
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    executor = LocalExecutor(objective)
    executor.submit(Proposal({}, "x"), TrialContext("run_0000", 0))
    context, result = executor.completed()
    assert context == TrialContext("run_0000", 0)
    return result


def test_results_come_in_order_of_submission():
    executor = LocalExecutor(lambda proposal, context: TrialResult("finished", float(context.seed)))
    assert executor.capacity == 1
    contexts = [TrialContext(f"run_{seed:04d}", seed) for seed in range(3)]
    for context in contexts:
        executor.submit(Proposal({}, "x"), context)
    ended = [executor.completed() for _ in range(3)]
    assert [(context, result.value) for context, result in ended] == list(zip(contexts, [0, 1, 2], strict=True))


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate"),
        FloatingPointError("overflow"),
        RuntimeError("shape mismatch"),
        KeyError("d_model"),
    ],
)
def test_a_crash_is_a_failed_trial_with_its_traceback(error):
    result = run(error)
    assert result.status == "failed"
    assert result.value is None
    assert result.error.startswith(type(error).__name__)
    assert "\n" not in result.error
    assert "in objective" in result.metrics["traceback"]
    assert result.metrics["seconds"] >= 0


def test_a_real_fault_of_torch_is_a_failed_trial():
    def objective(proposal, context):
        return TrialResult("finished", float((torch.ones(2, 3) @ torch.ones(2, 3)).sum()))

    executor = LocalExecutor(objective)
    executor.submit(Proposal({}, "x"), TrialContext("run_0000", 0))
    _, result = executor.completed()
    assert "mat1 and mat2" in result.error


@pytest.mark.parametrize("value", [math.nan, math.inf, None])
def test_no_finite_value_is_a_failed_trial_that_keeps_its_metrics(value):
    result = run(TrialResult("finished", value, {"epochs": 3}))
    assert (result.status, result.value, result.metrics) == ("failed", None, {"epochs": 3})


def test_an_objective_may_report_its_own_failure():
    own = TrialResult("failed", error="diverged at epoch 2")
    assert run(own) == own


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), Interrupted("stop"), StorageError("The disk is full."), SystemExit(1)]
)
def test_what_is_not_the_candidate_s_fault_ends_the_search(error):
    with pytest.raises(type(error)):
        run(error)


def test_closing_forgets_what_was_not_run():
    executor = LocalExecutor(lambda proposal, context: pytest.fail("ran after close"))
    executor.submit(Proposal({}, "x"), TrialContext("run_0000", 0))
    executor.close()
    executor.close()
    with pytest.raises(IndexError):
        executor.completed()


def test_a_long_story_is_cut():
    result = run(RuntimeError("x" * 10_000))
    assert len(result.error) <= 300
    assert len(result.metrics["traceback"]) <= 2_000
