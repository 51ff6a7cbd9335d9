"""What was there before a search is said first, budgets hold to the unit, lost children leave nothing to compare."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from agentlab.answers.choices import Scored
from agentlab.config.workspace import Workspace
from agentlab.errors import GateError
from agentlab.evolve.config import EvolveConfig
from agentlab.evolve.result import EvolveResult, standing_table
from agentlab.evolve.run import export_child
from agentlab.runs.branch import RunBranch
from agentlab.runs.context import Context
from agentlab.runs.events import Event
from agentlab.runs.run import OpenRun, RunEnvironment
from agentlab.study.state import rebuild
from tests.unit.evolve.small import SMALL, Planted, Scripted, new_run, prepared, workspace

pytestmark = pytest.mark.usefixtures("undrawn")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return workspace(tmp_path_factory.mktemp("starts"))


class Favoured(Planted):
    """One child is right on everything, all others are guessing; a batch of nobody is refused, as a model does."""

    def __init__(self, weights: Sequence[float], breaks: float = 2.0) -> None:
        super().__init__()
        self.weights, self.breaks = weights, breaks

    def __call__(self, children: Sequence[Any], questions: Sequence[Any]) -> list[list[Scored]]:
        assert children
        if any(child.search and 0.5 <= self.breaks < max(child.params.values()) < 1 for child in children):
            raise MemoryError
        return super().__call__(children, questions)

    def _chances(self, child: Any, question: Any) -> list[float]:
        weights = list(child.params.values())
        near = np.allclose([weights[0], weights[-1]], self.weights)
        noise = np.random.default_rng([sum(map(ord, question.id)), int(1e4 * sum(weights))]).random() / 20
        right = 0.9 if near else 0.2 + noise
        return [(1 - right) / 2, right, (1 - right) / 2]


class By(Scripted):
    """The experiment with answers of our own."""

    answers: Planted = Planted()

    @contextmanager
    def _answers(self, run: OpenRun) -> Iterator[Planted]:  # type: ignore[override]
        yield self.answers


def held(root: Path, name: str, answers: Planted, **changes: Any) -> tuple[EvolveResult, list[Event]]:
    real = prepared(root, **changes)
    experiment = By(real.config, real.context, real.base, real.parents, real.genome, real.questions)
    object.__setattr__(experiment, "answers", answers)
    with new_run(root, name) as run:
        return experiment.run(run)[0], run.events


STARTS = {"the parent one": (1.0, 0.0), "the uniform blend of all parents": (0.5, 0.5), "the base alone": (0.0, 0.0)}


@pytest.mark.parametrize("start", STARTS)
def test_a_winner_that_was_there_before_is_said_first_and_is_not_exported_unasked(
    root: Path, tmp_path: Path, start: str
) -> None:
    name = f"before-{start.rpartition(' ')[2]}"
    result, events = held(root, name, Favoured(STARTS[start]))
    assert result.sentence.startswith(
        f"The search found nothing better than {start} ({result.winner}), one of its starting points"
    )
    assert "Random search found nothing better either." in result.sentence
    assert f"{start[0].upper()}{start[1:]} is right on" in result.sentence
    assert [row.start for row in result.standings[:2]] == [start, start]
    assert "no new child" in str(standing_table(result).rows[0])
    config, context = EvolveConfig.model_validate(SMALL), Context(Workspace(root, root), {})
    with pytest.raises(GateError, match="there is no evolved adapter") as refused:
        export_child(config, context, name, events, None, tmp_path / "none", lambda *_: None)
    assert refused.value.exit_code == 5
    assert f"--id {result.winner} exports it anyway" in str(refused.value.hint)
    assert start != "the parent one" or str(root / "adapters" / "one") in str(refused.value.hint)
    written = export_child(config, context, name, events, result.winner, tmp_path / "out", lambda *_: None)
    assert f"It is {start}, a starting point of the search" in str(written.blocks())


def test_a_first_generation_that_another_search_has_measured_asks_nobody(root: Path) -> None:
    result, events = held(root, "known", Favoured((0.5, 0.5)), population=4, max_items=128)
    assert not [event for event in events if event.type == "trial.failed"]
    assert result.control.verdict != "not_measured"


def test_an_arm_that_lost_children_to_a_crash_is_not_compared(root: Path) -> None:
    result, _ = held(root, "lost", Favoured((0.5, 0.5), breaks=0.55))
    assert (result.control.verdict, result.control.estimate) == ("not_measured", None)
    assert "random search" in result.control.note
    assert "MemoryError" in result.sentence
    assert "not measured" in result.sentence


def test_both_arms_are_said_to_have_what_they_had(root: Path) -> None:
    result, events = held(root, "spent", Planted())
    counts = [row.spent for row in result.standings]
    assert counts[2:] == [None, None, None]
    assert counts[0] == result.items == sum(row.items for row in result.trials)
    assert result.control.budget == f"at most 200 answers each; evolution used {counts[0]}, random search {counts[1]}"
    assert {event.type for event in events} >= {"batch.closed"}


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    some.integers(4, 7),
    some.integers(0, 200),
    some.sampled_from(["random", "ga", "one-plus-lambda", "cma-es", "map-elites"]),
    some.sampled_from([8, 99]),
    some.sampled_from([8, 9, 12]),
    some.integers(0, 2**16),
    some.floats(0, 1),
)
def test_budgets_hold_to_the_unit_in_both_arms(
    root: Path, population: int, surplus: int, algorithm: str, first: int, train: int, seed: int, killed: float
) -> None:
    few = {
        "population": population,
        "algorithm": algorithm,
        "race": {"first": first},
        "tasks": {"file": "quiz.jsonl", "train": train, "test": 8},
        "max_items": population * train + surplus,
        "seed": seed,
    }
    limit, name = population * train + surplus, f"unit-{np.random.default_rng().integers(2**62)}"
    result, events = held(root, name, Planted(), **few)
    with OpenRun.resume(root / "runs" / name, RunEnvironment()) as run:
        arms = [rebuild(arm.events).amount_spent("items") for arm in (run, RunBranch(run, "random-0"))]
    assert all(limit - train < items <= limit for items in arms)
    lines = (root / "runs" / name / "events.jsonl").read_bytes().splitlines(keepends=True)
    new_run(root, f"{name}-cut").close()
    (root / "runs" / f"{name}-cut" / "events.jsonl").write_bytes(b"".join(lines[: int(killed * len(events))]))
    real = prepared(root, **few)
    resumed = Scripted(real.config, real.context, real.base, real.parents, real.genome, real.questions)
    with OpenRun.resume(root / "runs" / f"{name}-cut", RunEnvironment()) as cut:
        assert resumed.run(cut)[0] == result


def test_fresh_children_lie_around_the_blend_in_every_search(root: Path) -> None:
    space = prepared(root, genome={"low": -0.5, "high": 1.0}).genome.space
    rng = np.random.default_rng(0)
    samples = np.array([list(space.sample(rng).values()) for _ in range(4000)])
    assert np.abs(samples.mean(axis=0) - 0.5).max() < 0.02
    assert samples.min() < -0.3
    assert samples.max() > 0.9
    evolved, _ = held(root, "fresh", Planted(), algorithm="cma-es", population=6, max_items=112)
    chance, _ = held(root, "chance", Planted(), algorithm="random", population=6, max_items=112)
    assert [row.params for row in evolved.trials[4:6]] == [row.params for row in chance.trials[4:6]]
