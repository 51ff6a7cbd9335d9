"""A whole capability on one page, and a way into `agentlab.study`: it searches a polynomial that fits a curve.

It has what an objective can have: candidates come in batches, there are two rungs (every fourth point in the search,
all of them in the last round), two objectives (error and number of coefficients), and an error for each point, so
that two trials are compared point by point.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from agentlab.runs.run import OpenRun, RunEnvironment, RunSpec
from agentlab.search.screen import ScreenRules
from agentlab.search.space import SearchSpace, SpaceConfig
from agentlab.search.types import Proposal, TrialResult
from agentlab.study.evaluator import PairedItemEvaluator
from agentlab.study.executor import LocalExecutor
from agentlab.study.finals import Finalist, LastRound, last_round
from agentlab.study.setup import Setup
from agentlab.study.state import StudyCandidate, StudyState
from agentlab.study.steps import search
from agentlab.study.terms import StudyTerms

RIDGE = {"type": "float", "low": 1e-6, "high": 1.0, "log": True}
SPACE = {"degree": {"type": "int", "low": 1, "high": 9}, "ridge": RIDGE}
TERMS = StudyTerms(
    command="toy",
    value="mse",
    score="mse",
    metric="squared error",
    error="squared error",
    unit="squared units",
    measurement="fit",
    again="fitted again",
    goal="Find a polynomial that fits the curve.",
)
POINTS = np.linspace(-1.0, 1.0, 81)


class Fits:
    """The objective. It remembers its batches."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []

    def __call__(self, batch: Sequence[StudyCandidate]) -> list[TrialResult]:
        self.batches.append([candidate.name for candidate in batch])
        return [self._fit(candidate) for candidate in batch]

    def _fit(self, candidate: StudyCandidate) -> TrialResult:
        degree, ridge = int(candidate.params["degree"]), float(candidate.params["ridge"])
        x = POINTS if candidate.rung else POINTS[::4]
        noise = np.random.default_rng(candidate.seed).normal(scale=0.1, size=x.size)
        basis = np.vander(x, degree + 1)
        weights = np.linalg.solve(basis.T @ basis + ridge * np.eye(degree + 1), basis.T @ (np.sin(3 * x) + noise))
        squared = (basis @ weights - np.sin(3 * x)) ** 2
        error = float(squared.mean())
        return TrialResult("finished", error, {"points": x.size}, "", (error, degree + 1.0), tuple(squared.tolist()))


def fit(run: OpenRun, fits: Fits, base: str = "random", **budget: float) -> tuple[StudyState, Finalist]:
    """The study in a run, from wherever it stands to its winner."""
    setup = Setup(
        terms=TERMS,
        rules=ScreenRules(SearchSpace.of(SpaceConfig.model_validate(SPACE))),
        starts=(Proposal({"degree": 1, "ridge": 1.0}, "default"),),
        base=base,
        budget=budget,
        evaluator=lambda router, scope: PairedItemEvaluator(TERMS, seed=0),
        executor=lambda run: LocalExecutor(fits, capacity=4),
        check=lambda: None,
    )
    study = setup.study(run, seed=0)
    search(study, setup.check)
    winner = last_round(study, LastRound(2, 2, study.evaluator.rank_trials), setup.check)
    assert winner is not None
    return study.state, winner


@pytest.fixture
def run(tmp_path: Path) -> Iterator[OpenRun]:
    with OpenRun.create(tmp_path, RunSpec("toy", "", "", "h", 0), RunEnvironment()) as run:
        yield run


def test_candidates_are_measured_in_batches_on_two_rungs_in_two_objectives(run: OpenRun) -> None:
    fits = Fits()
    state, winner = fit(run, fits, trials=9, points=10_000)
    assert fits.batches[0] == [f"run_{number:04d}" for number in range(4)]
    assert max(map(len, fits.batches)) == 4
    assert {len(trial.result.items) for trial in state.trials if trial.result} == {21}
    assert {len(result.items) for result in winner.results.values()} == {81}
    assert {len(trial.objectives) for trial in state.trials} == {2}
    front = {trial.objectives for trial in PairedItemEvaluator(TERMS, 0).rank_trials(state)[:2]}
    assert not [t for t in state.trials if any(all(a < b for a, b in zip(t.objectives, f, strict=True)) for f in front)]
    assert state.best is not None
    assert "over 21 pairs" in state.best.decision.reason  # type: ignore[union-attr] # it was accepted


def test_a_budget_is_counted_in_whatever_the_objective_uses(run: OpenRun) -> None:
    state, _ = fit(run, Fits(), trials=50, points=100)
    assert state.amount_spent("points") >= 100 > state.amount_spent("points") - 4 * 21


@pytest.mark.parametrize(
    ("base", "trials"), [("random", 6), ("ga", 15), ("one-plus-lambda", 15), ("cma-es", 15), ("map-elites", 15)]
)
def test_a_kill_between_any_two_events_changes_nothing(run: OpenRun, tmp_path: Path, base: str, trials: int) -> None:
    uninterrupted = fit(run, Fits(), base, trials=trials)
    lines = (run.path / "events.jsonl").read_bytes().splitlines(keepends=True)
    for line_count in range(1, len(lines)):
        OpenRun.create(
            tmp_path, replace(RunSpec("toy", "", "", "h", 0), name=f"after-{line_count}"), RunEnvironment()
        ).close()
        (tmp_path / f"after-{line_count}" / "events.jsonl").write_bytes(b"".join(lines[:line_count]))
        with OpenRun.resume(tmp_path / f"after-{line_count}", RunEnvironment()) as cut:
            assert fit(cut, Fits(), base, trials=trials) == uninterrupted
