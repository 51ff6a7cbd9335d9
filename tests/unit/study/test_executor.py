"""Trials in this process: a candidate's failure is a result, a signal or a full disk is not."""

import math

import pytest
import torch

from agentlab.errors import Interrupted, StorageError
from agentlab.search.types import TrialResult
from agentlab.study.executor import LocalExecutor
from agentlab.study.state import StudyCandidate


def run(outcome) -> TrialResult:
    """One trial whose objective returns or raises `outcome`."""

    def objective(batch):
        if isinstance(outcome, BaseException):
            raise outcome
        return [outcome]

    executor = LocalExecutor(objective)
    executor.submit(StudyCandidate("run_0000", 0, {}))
    candidate, result = executor.next_completed()
    assert candidate == StudyCandidate("run_0000", 0, {})
    return result


def test_results_come_in_order_of_submission():
    executor = LocalExecutor(lambda batch: [TrialResult("finished", float(candidate.seed)) for candidate in batch])
    assert executor.capacity == 1
    candidates = [StudyCandidate(f"run_{seed:04d}", 0, {}, seed=seed) for seed in range(3)]
    for candidate in candidates:
        executor.submit(candidate)
    assert [executor.next_completed()[1].value for _ in range(3)] == [0, 1, 2]


def test_what_was_submitted_together_is_one_batch():
    batches = []

    def objective(batch):
        batches.append([candidate.name for candidate in batch])
        return [TrialResult("finished", 1.0) for _ in batch]

    executor = LocalExecutor(objective, capacity=2)
    for name in "ab":
        executor.submit(StudyCandidate(name, 0, {}))
    executor.next_completed()
    executor.submit(StudyCandidate("c", 0, {}))  # while the second result waits
    assert [executor.next_completed()[0].name for _ in range(2)] == ["b", "c"]
    assert batches == [["a", "b"], ["c"]]


def test_a_candidate_that_breaks_its_batch_fails_alone():
    def objective(batch):
        if any(candidate.name == "b" for candidate in batch):
            raise MemoryError
        return [TrialResult("finished", 1.0) for _ in batch]

    executor = LocalExecutor(objective, capacity=3)
    for name in "abc":
        executor.submit(StudyCandidate(name, 0, {}))
    assert [executor.next_completed()[1].status for _ in range(3)] == ["finished", "failed", "finished"]


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
    def objective(batch):
        return [TrialResult("finished", float((torch.ones(2, 3) @ torch.ones(2, 3)).sum()))]

    executor = LocalExecutor(objective)
    executor.submit(StudyCandidate("run_0000", 0, {}))
    _, result = executor.next_completed()
    assert "mat1 and mat2" in result.error


@pytest.mark.parametrize("value", [math.nan, math.inf, None])
def test_no_finite_value_is_a_failed_trial_that_keeps_its_metrics(value):
    result = run(TrialResult("finished", value, {"epochs": 3}))
    assert (result.status, result.value, result.metrics) == ("failed", None, {"epochs": 3})


def test_an_objective_may_report_its_own_failure():
    failure = TrialResult("failed", error="diverged at epoch 2")
    assert run(failure) == failure


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), Interrupted("stop"), StorageError("The disk is full."), SystemExit(1)]
)
def test_what_is_not_the_candidate_s_fault_ends_the_search(error):
    with pytest.raises(type(error)):
        run(error)


def test_closing_forgets_what_was_not_run():
    executor = LocalExecutor(lambda batch: pytest.fail("ran after close"))
    executor.submit(StudyCandidate("run_0000", 0, {}))
    executor.close()
    executor.close()
    with pytest.raises(IndexError):
        executor.next_completed()


def test_a_long_story_is_cut():
    result = run(RuntimeError("x" * 10_000))
    assert len(result.error) <= 300
    assert len(result.metrics["traceback"]) <= 2_000
