"""Forecasts from other bases: believed as far as they hold of what was measured here, and a search arm made of them."""

import math
from collections.abc import Sequence

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from agentlab.compress.config import CompressConfig
from agentlab.compress.recipe import recipe_of
from agentlab.compress.transfer import (
    HERE,
    MeasuredRecipe,
    Recalling,
    RecipeEstimate,
    RecipeForecast,
    best_first,
    distances,
)
from agentlab.search.arms import RandomProposer
from agentlab.search.space import SearchSpace
from agentlab.search.types import Params, Proposal, Trial, TrialResult

CONFIG = CompressConfig()
SPACE = SearchSpace.of(CONFIG.searched_space, CONFIG.rules)
POINTS = SPACE.points(4096) or []


def law(params: Params) -> tuple[float, float]:
    """Size and KL of a recipe, alike on all bases."""
    recipe = recipe_of(params)
    bits = recipe.quantization_bits
    kl = 0.4 * 2.0**-bits * (0.4 if recipe.importance or recipe.quantizer in ("gptq", "awq") else 1.0)
    kl += (1 - recipe.kept) * {"none": 0.6, "lora": 0.3, "distil": 0.2}[recipe.recovery]
    return recipe.kept * (bits + 0.3) / 16, kl


def measured(where: str, points: Sequence[Params], level: float = 1.0) -> list[MeasuredRecipe]:
    return [MeasuredRecipe(where, point, law(point)[0], level * law(point)[1] + 1e-5, 200.0) for point in points]


def shuffled(recipes: Sequence[MeasuredRecipe], seed: int) -> list[MeasuredRecipe]:
    order = np.random.default_rng(seed).permutation(len(recipes))
    return [
        MeasuredRecipe(one.where, one.params, recipes[index].size, recipes[index].kl, recipes[index].joules)
        for one, index in zip(recipes, order, strict=True)
    ]


def trials(points: Sequence[Params]) -> list[Trial]:
    return [
        Trial(n, Proposal(point, "x"), TrialResult("finished", 1.0, {"joules": 200.0}, objectives=law(point)))
        for n, point in enumerate(points)
    ]


def some(count: int, seed: int = 0) -> list[Params]:
    return [POINTS[index] for index in np.random.default_rng(seed).choice(len(POINTS), count, replace=False)]


@given(
    st.lists(st.sampled_from(POINTS), min_size=1, max_size=5), st.lists(st.sampled_from(POINTS), min_size=1, max_size=5)
)
def test_distances_are_those_of_the_space(one: list[Params], other: list[Params]) -> None:
    expected = [[SPACE.distance(a, b) for b in other] for a in one]
    assert np.allclose(distances(SPACE, one, other), expected)


def test_a_forecast_takes_the_shape_from_other_bases_and_the_level_from_this_one() -> None:
    recipes = [*measured("other", some(150)), *measured(HERE, some(5, seed=1), level=3.0)]
    unseen = some(60, seed=2)
    ratios = [
        e.kl / (3.0 * law(p)[1] + 1e-5) for e, p in zip(RecipeForecast(SPACE, recipes).of(unseen), unseen, strict=True)
    ]
    assert 0.5 < math.exp(float(np.median(np.log(ratios)))) < 2
    assert np.corrcoef(np.log(ratios), np.log([law(p)[1] for p in unseen]))[0, 1] < 0.6


def test_a_forecast_is_believed_where_it_holds_here_and_not_before() -> None:
    this_base = measured(HERE, some(12, seed=1), level=2.0)
    other_base = measured("other", some(150))
    assert RecipeForecast(SPACE, [*this_base, *other_base]).holds()
    assert not RecipeForecast(SPACE, this_base).holds()
    assert not RecipeForecast(SPACE, [*this_base[:2], *other_base]).holds()
    assert sum(RecipeForecast(SPACE, [*this_base, *shuffled(other_base, seed)]).holds() for seed in range(20)) <= 4


def test_the_arm_proposes_what_memory_promises_most_a_joule() -> None:
    arm = Recalling(RandomProposer(SPACE), SPACE, measured("other", POINTS))
    history = trials(some(5, seed=1))
    proposals = arm.ask(history, 3, np.random.default_rng(0))
    assert [proposal.source for proposal in proposals] == ["memory"] * 3
    assert len({SPACE.key(proposal.params) for proposal in proposals}) == 3
    tried = {SPACE.key(trial.proposal.params) for trial in history}
    assert not tried & {SPACE.key(proposal.params) for proposal in proposals}


def test_without_memory_or_with_a_false_one_the_optimiser_proposes() -> None:
    history = trials(some(6, seed=1))
    for elsewhere in ([], shuffled(measured("other", some(150)), 3)):
        proposals = Recalling(RandomProposer(SPACE), SPACE, elsewhere).ask(history, 2, np.random.default_rng(0))
        assert [proposal.source for proposal in proposals] == ["random"] * 2


def test_what_adds_nothing_to_the_front_is_left_out() -> None:
    points = some(3)
    estimates = [RecipeEstimate(0.5, 0.5, 100.0), RecipeEstimate(0.2, 0.1, 400.0), RecipeEstimate(0.2, 0.1, 100.0)]
    assert best_first(points, estimates, [(0.4, 0.2)], 3) == [points[2]]  # and what equals it adds nothing any more
