"""Importances on objectives whose answer is known: the parameter that dominates comes first, noise gives nothing."""

from collections.abc import Callable

import numpy as np
import pytest

from agentlab.search.importance import MIN_TRIALS, importances
from agentlab.search.space import SearchSpace, SpaceConfig
from agentlab.search.types import Params, Proposal, Trial, TrialResult

SPACE = SearchSpace.of(
    SpaceConfig.model_validate(
        {
            "width": {"type": "categorical", "choices": [8, 16, 32, 64]},
            "lr": {"type": "float", "low": 1e-4, "high": 1e-1, "log": True},
            "depth": {"type": "int", "low": 1, "high": 3},
            "dropout": {"type": "float", "low": 0, "high": 0.5},
            "kind": {"type": "categorical", "choices": ["full", "prob", "none"]},
            "mix": {"type": "categorical", "choices": [False, True]},
            "shortcut": {"type": "categorical", "choices": [False, True]},
            "factor": {"type": "int", "low": 1, "high": 5, "when": {"kind": ["prob", "none"]}},
        }
    )
)
DOMINATED: dict[str, Callable[[Params], float]] = {
    "width": lambda p: np.log2(p["width"]) + p["dropout"],
    "lr": lambda p: (np.log10(p["lr"]) + 2.5) ** 2 + 0.5 * p["dropout"],
    "kind": lambda p: {"full": 0.5, "prob": 0.3, "none": 0.6}[str(p["kind"])] + 0.1 * p["dropout"],
    "shortcut": lambda p: 0.5 - 0.2 * p["shortcut"] + 0.02 * p["depth"],
    "factor": lambda p: p.get("factor", 3) + p["dropout"],
}


def history(value: Callable[[Params], float], trials: int, seed: int, noise: float = 0.02) -> list[Trial]:
    """Trials at random points."""
    rng = np.random.default_rng(seed)
    points = [SPACE.decode(unit) for unit in rng.random((trials, len(SPACE.parameters))).tolist()]
    return [
        Trial(n, Proposal(point, "random"), TrialResult("finished", float(value(point) + noise * rng.normal())))
        for n, point in enumerate(points)
    ]


@pytest.mark.parametrize("name", DOMINATED)
def test_twenty_trials_show_the_parameter_that_dominates(name):
    shares_by_seed = [importances(SPACE, history(DOMINATED[name], 20, seed)) for seed in range(20)]
    assert sum(next(iter(shares), None) == name for shares in shares_by_seed) >= 18


def test_noise_moves_nothing():
    shares_by_seed = [importances(SPACE, history(lambda _: 0.0, 20, seed)) for seed in range(40)]
    assert sum(shares == {} for shares in shares_by_seed) >= 36


def test_shares_fall_add_up_to_one_and_name_only_what_stands_out():
    def value(p: Params) -> float:
        return 2 * (np.log10(p["lr"]) + 2.5) ** 2 + 0.6 * np.log2(p["width"])

    shares = importances(SPACE, history(value, 40, 0))
    assert list(shares)[:2] == ["lr", "width"]
    assert set(shares) < set(SPACE.parameters)
    assert list(shares.values()) == sorted(shares.values(), reverse=True)
    assert sum(shares.values()) == pytest.approx(1)
    assert min(shares.values()) > 0


def test_without_noise_the_parameter_has_it_all():
    shares = importances(SPACE, history(lambda p: float(p["depth"]), 20, 0, noise=0))
    assert shares == {"depth": pytest.approx(1)}


def test_the_same_history_gives_the_same_shares_in_the_same_order():
    trials = history(DOMINATED["lr"], 20, 1)
    assert list(importances(SPACE, trials).items()) == list(importances(SPACE, trials).items())


@pytest.mark.parametrize("name", DOMINATED)
def test_one_diverged_trial_does_not_drown_the_others(name):
    trials = history(DOMINATED[name], 20, 2)
    diverged = [Trial(t.number, t.proposal, TrialResult("finished", 1e5)) if t.number == 7 else t for t in trials]
    assert next(iter(importances(SPACE, diverged)), None) == name


@pytest.mark.parametrize(("scale", "shift"), [(1e-3, 0.0), (100.0, -7.0)])
def test_the_unit_of_the_value_does_not_matter(scale, shift):
    trials = history(DOMINATED["width"], 20, 2)
    moved = [Trial(t.number, t.proposal, TrialResult("finished", scale * t.result.value + shift)) for t in trials]
    assert importances(SPACE, moved) == pytest.approx(importances(SPACE, trials))


def test_parameters_that_always_moved_together_share_the_credit():
    trials = history(DOMINATED["shortcut"], 20, 0)
    tied = [
        Trial(t.number, Proposal({**t.proposal.params, "mix": not t.proposal.params["shortcut"]}, "x"), t.result)
        for t in trials
    ]
    shares = importances(SPACE, tied)
    assert set(list(shares)[:2]) == {"mix", "shortcut"}
    assert shares["mix"] == shares["shortcut"] > 0.4


def test_failed_and_diverged_trials_do_not_count():
    trials = history(DOMINATED["lr"], 20, 3)
    broken = [
        Trial(20, trials[0].proposal, TrialResult("failed", error="out of memory")),
        Trial(21, trials[1].proposal, TrialResult("finished", float("inf"))),
    ]
    assert importances(SPACE, [*trials, *broken]) == importances(SPACE, trials)
    assert importances(SPACE, [*trials[: MIN_TRIALS - 1], *broken]) == {}


def test_equal_values_and_equal_points_say_nothing():
    assert importances(SPACE, history(lambda _: 0.5, 20, 0, noise=0)) == {}
    trials = history(DOMINATED["lr"], 20, 0)
    stuck = [Trial(t.number, trials[0].proposal, t.result) for t in trials]
    assert importances(SPACE, stuck) == {}
    assert importances(SPACE, []) == {}


def test_a_history_of_an_older_space_is_snapped_into_this_one():
    trials = history(DOMINATED["lr"], 20, 4)
    older = [Trial(t.number, Proposal({**t.proposal.params, "gone": 1}, "llm"), t.result) for t in trials]
    assert importances(SPACE, older) == importances(SPACE, trials)
