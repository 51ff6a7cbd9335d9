"""The steps of an iteration continue where a kill has left them."""

from pathlib import Path
from typing import Any

import pytest

from agentlab.nas import steps
from agentlab.runs.run import Edge, Run, RunSpec
from agentlab.search.executor import LocalExecutor
from agentlab.search.types import Proposal, TrialResult


def measure(proposal: Proposal, _: object) -> TrialResult:
    value = float(proposal.params["x"])
    return TrialResult("finished", value, {"parameters": 100})


class Next:
    """Proposes a little less than last time."""

    name = "next"

    def ask(self, history: Any, n: int, rng: Any) -> list[Proposal]:
        return [Proposal({"x": 1.0 - 0.001 * len(history)}, "next")]

    def tell(self, trial: Any) -> None:
        """Nothing to learn."""


@pytest.fixture
def study(tmp_path: Path) -> Any:
    with Run.create(tmp_path, RunSpec("nas", "", "", "h", 0), Edge()) as run:
        yield steps.Study(run, 0, 0.01, {"x": 1.0}, Next(), None, LocalExecutor(measure), None)


def test_a_trial_that_was_killed_before_its_decision_is_not_compared_with_itself(study: steps.Study) -> None:
    first = steps.execute(study, steps.plan(study, study.state) or pytest.fail("nothing proposed"))
    steps.evaluate(study, study.state, first)
    before = study.state
    second = steps.execute(study, steps.plan(study, before) or pytest.fail("nothing proposed"))
    resumed = study.state  # what a restarted process reads: the trial and its result, no decision
    assert resumed.unfinished == second
    assert steps.evaluate(study, resumed, second).trials[1].decision == (
        steps.evaluate(study, before, second).trials[1].decision
    )
    assert study.state.best is not None
    assert study.state.best.number == 1
