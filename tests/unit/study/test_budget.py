"""Counted budgets are kept to the unit, whatever is stopped early, killed or gone on with."""

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as some

from agentlab.nas.study import TERMS
from agentlab.runs.run import OpenRun, RunEnvironment, RunSpec
from agentlab.search.history import batches
from agentlab.search.types import Proposal, Trial, TrialResult
from agentlab.study import steps
from agentlab.study.evaluator import SeedEvaluator
from agentlab.study.events import results
from agentlab.study.executor import LocalExecutor
from agentlab.study.state import StudyCandidate, StudyState, number_of
from tests.unit.study.test_steps import Together, told

SPEC = RunSpec("nas", "", "", "h", 0)
WORST = 10


class Fresh:
    """A new point for every proposal."""

    name = "fresh"

    def ask(self, history: Sequence[Trial], n: int, rng: Any) -> list[Proposal]:
        return [Proposal({"x": 1.0 + len(history) / 1000}, self.name)]


def raced(batch: Sequence[StudyCandidate]) -> list[TrialResult]:
    """Candidates that cost anything up to the worst case; every ninth crashes."""
    if any(number_of(candidate.name) % 9 == 5 for candidate in batch):
        raise ArithmeticError
    costs = [int(np.random.default_rng(number_of(c.name)).integers(1, WORST + 1)) for c in batch]
    return [TrialResult("finished", 1.0, {"items": cost}, items=(1.0,) * cost) for cost in costs]


def study_in(run: OpenRun, population: int, **budget: float) -> steps.Study:
    return steps.Study(
        run=run,
        terms=TERMS,
        seed=0,
        budget=budget,
        starts=(Proposal({"x": 1.0}, "default"),),
        baseline_proposer=Fresh(),
        agent=None,
        executor=LocalExecutor(raced, population, {"items": WORST}),
        evaluator=SeedEvaluator(TERMS, 0.2),
        worst={"items": WORST},
    )


def go(study: steps.Study) -> StudyState:
    return steps.search(study, lambda: None)


def cut(run: OpenRun, folder: Path, lines: int) -> OpenRun:
    """The run as a kill after so many of its events leaves it."""
    OpenRun.create(folder, replace(SPEC, name=f"after-{lines}"), RunEnvironment()).close()
    event_lines = (run.path / "events.jsonl").read_bytes().splitlines(keepends=True)[:lines]
    (folder / f"after-{lines}" / "events.jsonl").write_bytes(b"".join(event_lines))
    return OpenRun.resume(folder / f"after-{lines}", RunEnvironment())


def measured_together(run: OpenRun) -> list[list[str]]:
    """The trials of each event that ended some."""
    return [list(result_by_id) for event in run.events if (result_by_id := results(event))]


@settings(max_examples=20, deadline=None)
@given(some.integers(10, 220), some.integers(2, 8), some.integers(0, 400), some.floats(0, 1))
def test_what_is_counted_is_never_passed_and_closed_batches_stay_closed(
    items: int, population: int, extra_items: int, killed: float
) -> None:
    with tempfile.TemporaryDirectory() as name, OpenRun.create(Path(name), SPEC, RunEnvironment()) as run:
        folder = Path(name)
        uninterrupted = go(study_in(run, population, items=items))
        assert items - WORST < uninterrupted.amount_spent("items") <= items
        assert measured_together(run) == [[t.id for t in batch] for batch in batches(uninterrupted.trials, population)]
        lines = int(killed * len(run.events))
        with cut(run, folder / "same", lines) as same:
            assert go(study_in(same, population, items=items)) == uninterrupted
            assert told(same) == told(run)
        with cut(run, folder / "longer", lines) as longer:
            closed = {event.id for event in longer.events if event.type == "batch.closed"}
            before = [[t.id for t in batch] for batch in batches(study_in(longer, population).state.trials, population)]
            extended = go(study_in(longer, population, items=items + extra_items))
            assert items + extra_items - WORST < extended.amount_spent("items") <= items + extra_items
            after = [[trial.id for trial in batch] for batch in batches(extended.trials, population)]
            assert [batch for batch in before if batch[-1] in closed] == [b for b in after if b[-1] in closed]


@settings(max_examples=20, deadline=None)
@given(some.integers(1, 25), some.integers(1, 4), some.integers(0, 3), some.integers(0, 9), some.floats(0, 1))
def test_trainings_are_spent_to_the_last_with_all_repeats(
    limit: int, workers: int, repeats: int, order: int, killed: float
) -> None:
    def study(run: OpenRun) -> steps.Study:
        rng = np.random.default_rng(order)
        executor: Any = Together(lambda names: str(rng.choice(sorted(names))), workers)
        judge = SeedEvaluator(TERMS, repeats=repeats) if repeats else SeedEvaluator(TERMS, 0.2)
        return replace(study_in(run, 1, trainings=limit), executor=executor, evaluator=judge, worst=dict(steps.WORST))

    with tempfile.TemporaryDirectory() as name, OpenRun.create(Path(name), SPEC, RunEnvironment()) as run:
        state = go(study(run))
        assert state.amount_spent("trainings") == limit
        assert all(trial.decision for trial in state.trials)
        with cut(run, Path(name) / "cut", int(killed * len(run.events))) as resumed:
            assert go(study(resumed)).amount_spent("trainings") == limit


def test_a_crash_is_charged_in_full_so_that_a_search_in_which_all_crash_ends() -> None:
    def crash(batch: Sequence[StudyCandidate]) -> list[TrialResult]:
        raise MemoryError

    with tempfile.TemporaryDirectory() as name, OpenRun.create(Path(name), SPEC, RunEnvironment()) as run:
        study = replace(study_in(run, 4, items=75), executor=LocalExecutor(crash, 4, {"items": WORST}))
        state = go(study)
    assert (len(state.trials), state.amount_spent("items")) == (7, 70)
    assert all("MemoryError" in trial.loss_reason for trial in state.trials)


def test_a_repeat_that_does_not_fit_leaves_what_stands_without_it() -> None:
    with tempfile.TemporaryDirectory() as name, OpenRun.create(Path(name), SPEC, RunEnvironment()) as run:
        executor: Any = Together(min, 1)
        judge = SeedEvaluator(TERMS, repeats=2)
        study = replace(study_in(run, 1, trainings=1), executor=executor, evaluator=judge, worst=dict(steps.WORST))
        (trial,) = go(study).trials
    assert trial.decision is not None
    assert trial.decision.accepted  # it is the first, and only its noise is unknown
    assert "no budget left" in trial.decision.reason
