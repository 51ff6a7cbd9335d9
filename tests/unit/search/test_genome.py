"""Children of a search space: always points of it, always within its rules, always between or near their parents."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from agentlab.errors import ConfigError
from agentlab.search.constraints import Constraint
from agentlab.search.genome import SpaceGenome
from agentlab.search.space import SearchSpace, SpaceConfig
from agentlab.search.types import Params, Proposal, Trial, TrialResult

RULES = TypeAdapter(list[Constraint]).validate_python([{"at_most": ["depth", "batch"]}, {"forbids": {"factor": [2]}}])
SPACE = SearchSpace.of(
    SpaceConfig.model_validate(
        {
            "width": {"type": "categorical", "choices": [8, 16, 32, 64]},
            "lr": {"type": "float", "low": 1e-5, "high": 1e-1, "log": True},
            "depth": {"type": "int", "low": 1, "high": 9, "step": 2},
            "batch": {"type": "int", "low": 1, "high": 64, "log": True},
            "kind": {"type": "categorical", "choices": ["full", "prob", "none"]},
            "factor": {"type": "int", "low": 1, "high": 5, "when": {"kind": ["prob"]}},
        }
    ),
    RULES,
)
GENOME = SpaceGenome(SPACE)
LINE = SpaceGenome(SearchSpace.of(SpaceConfig.model_validate({"x": {"type": "float", "low": 0.0, "high": 1.0}})))


def trial(params: Params) -> Trial:
    return Trial(0, Proposal(params, "x"), TrialResult("finished", 0.0))


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(1e-4, 1.0))
def test_children_are_new_points_that_keep_the_rules(seed: int, step: float) -> None:
    rng = np.random.default_rng(seed)
    first, second = trial(GENOME.random(rng)), trial(GENOME.random(rng))
    for child in (GENOME.cross(first, second, rng), GENOME.mutate(first, rng, step)):
        assert SPACE.problems(child) == []
        assert child != first.proposal.params


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_a_crossover_takes_choices_from_its_parents_and_numbers_from_around_them(seed: int) -> None:
    rng = np.random.default_rng(seed)
    first, second = GENOME.random(rng), GENOME.random(rng)
    child = GENOME.cross(trial(first), trial(second), rng)
    assert child["kind"] in (first["kind"], second["kind"])
    low, high = sorted(np.log([first["lr"], second["lr"]]))
    assert low - (high - low) / 2 - 0.01 <= np.log(child["lr"]) <= high + (high - low) / 2 + 0.01 or (
        min(low - np.log(1e-5), np.log(1e-1) - high) < (high - low) / 2  # mirrored at an edge of the space
    )


def test_what_one_parent_lacks_comes_from_the_other() -> None:
    rng = np.random.default_rng(0)
    some = {"width": 8, "lr": 1e-3, "depth": 1, "batch": 64}
    full, prob = trial({**some, "kind": "full"}), trial({**some, "kind": "prob", "factor": 5, "lr": 1e-2})
    children = [GENOME.cross(full, prob, rng) for _ in range(50)]
    assert {child["factor"] for child in children if child["kind"] == "prob"} == {5}
    redrawn = [GENOME.mutate(full, rng, 0.5) for _ in range(200)]
    assert {child["factor"] for child in redrawn if child["kind"] == "prob"} == {1, 3, 4, 5}  # 2 is forbidden


def test_a_step_is_a_standard_deviation_and_comes_back_from_the_edge() -> None:
    rng = np.random.default_rng(0)
    steps = [float(LINE.mutate(trial({"x": 0.5}), rng, 0.02)["x"]) - 0.5 for _ in range(2_000)]
    assert np.std(steps) == pytest.approx(0.02, rel=0.1)
    edge = [float(LINE.mutate(trial({"x": 0.0}), rng, 0.1)["x"]) for _ in range(2_000)]
    assert min(edge) > 0.0
    assert np.mean(edge) == pytest.approx(0.1 * np.sqrt(2 / np.pi), rel=0.1)


def test_the_smallest_step_still_moves_integers_and_choices() -> None:
    rng = np.random.default_rng(0)
    parent = {"width": 16, "lr": 1e-3, "depth": 5, "batch": 64, "kind": "full"}
    children = [GENOME.mutate(trial(parent), rng, 1e-6) for _ in range(300)]
    for name in ("width", "depth", "kind"):
        assert 0.02 < np.mean([child[name] != parent[name] for child in children]) < 0.7


def test_a_parent_from_outside_the_space_has_children_in_it() -> None:
    rng = np.random.default_rng(0)
    assert 0.9 < float(LINE.mutate(trial({"x": 7.0, "old": 3}), rng, 0.01)["x"]) <= 1.0


def test_where_no_other_point_is_left_the_child_is_what_there_is() -> None:
    single = SpaceGenome(SearchSpace.of(SpaceConfig.model_validate({"x": {"type": "int", "low": 3, "high": 3}})))
    rng = np.random.default_rng(0)
    assert single.mutate(trial({"x": 3}), rng, 0.3) == single.cross(trial({"x": 3}), trial({"x": 3}), rng) == {"x": 3}


def test_rules_that_leave_nothing_are_a_clear_error() -> None:
    never = TypeAdapter(list[Constraint]).validate_python([{"forbids": {"x": [1, 2]}}])
    space = SearchSpace.of(SpaceConfig.model_validate({"x": {"type": "int", "low": 1, "high": 2}}), never)
    with pytest.raises(ConfigError, match="satisfies all constraints"):
        SpaceGenome(space).mutate(trial({"x": 1}), np.random.default_rng(0), 0.3)
