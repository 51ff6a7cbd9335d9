"""Evolution as a pure function of the history: it finds optima that are known, and a kill changes nothing."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from scipy.stats import mannwhitneyu, ortho_group

from agentlab.errors import ConfigError
from agentlab.search.arms import ARMS
from agentlab.search.evolution import CmaEs, GeneticAlgorithm, MapElites, OnePlusLambda, generations
from agentlab.search.genome import SpaceGenome
from agentlab.search.space import SearchSpace, SpaceConfig
from agentlab.search.types import Params, Proposal, Proposer, Trial, TrialResult

POPULATION, TRIALS = 10, 220
EVOLVING = ("ga", "one-plus-lambda", "cma-es", "map-elites")
Landscape = Callable[[Params], float]


def cube(axes: int, **extra_parameters: dict[str, object]) -> SearchSpace:
    """-4 to 6 on every axis."""
    numbers = {f"x{axis}": {"type": "float", "low": -4.0, "high": 6.0} for axis in range(axes)}
    return SearchSpace.of(SpaceConfig.model_validate({**numbers, **extra_parameters}))


LOG = {"type": "float", "low": 1e-6, "high": 1.0, "log": True}
MIXED = cube(
    3,
    n={"type": "int", "low": 0, "high": 9},
    lr=LOG,
    kind={"type": "categorical", "choices": ["a", "b", "c"]},
    m={"type": "int", "low": 1, "high": 20, "when": {"kind": ["b", "c"]}},
)
TURN = ortho_group.rvs(5, random_state=1)


def away(params: Params) -> np.ndarray:
    """The way from the optimum, which is no centre of anything."""
    return np.array([value for name, value in params.items() if name.startswith("x")]) - 0.7


def sphere(params: Params) -> float:
    return float(np.square(away(params)).sum())


def ellipsoid(params: Params) -> float:
    """Rotated; the longest axis ten times the shortest."""
    return float(np.square((TURN @ away(params)) * np.logspace(0, 1, 5)).sum())


def rastrigin(params: Params) -> float:
    return float((np.square(away(params)) + 4 * (1 - np.cos(np.pi * away(params)))).sum())


def mixed(params: Params) -> float:
    kind = {"a": 4.0, "b": 0.0, "c": 2.0}[str(params["kind"])]
    scale = (np.log10(params["lr"]) + 3) ** 2 + abs(int(params["n"]) - 3)
    return float(sphere(params) + kind + scale + abs(int(params.get("m", 5)) - 5) / 2)


def trap(params: Params) -> float:
    """Deceptive: along x0 the way down leads to -4, and the optimum is a narrow valley at the other end."""
    first, *coordinates = (float(value) for value in params.values())
    return sum((x - 0.7) ** 2 for x in coordinates) + (0.0 if first > 5.9 else 10 + first)


LANDSCAPES: dict[str, tuple[SearchSpace, Landscape]] = {
    "sphere": (cube(6), sphere),
    "ellipsoid": (cube(5), ellipsoid),
    "rastrigin": (cube(4), rastrigin),
    "mixed": (MIXED, mixed),
    "trap": (cube(3), trap),
}


def arm_of(name: str, space: SearchSpace, population: int = POPULATION) -> Proposer:
    arm = ARMS.load(name)(name, space, 0)
    return arm if name == "random" else replace(arm, population=population)  # type: ignore[type-var] # a dataclass


def ended(number: int, params: Params, value: float | None, source: str = "x") -> Trial:
    result = TrialResult("failed", error="out of memory") if value is None else TrialResult("finished", value)
    return Trial(number, Proposal(params, source), result)


def evolve(
    arm: Proposer, landscape: Callable[[Params], float | None], trials: int, seed: int, history: Sequence[Trial] = ()
) -> list[Trial]:
    """The history after so many trials, a generation at a time."""
    history = list(history)
    while len(history) < trials:
        offers = arm.ask(history, POPULATION, np.random.default_rng([seed, len(history)]))
        history += [ended(len(history) + i, o.params, landscape(o.params), o.source) for i, o in enumerate(offers)]
    return history


def lowest(trials: Sequence[Trial]) -> float:
    return min(trial.result.value for trial in trials if trial.result.value is not None)


@cache
def by_chance(landscape: str) -> list[float]:
    space, f = LANDSCAPES[landscape]
    return [lowest(evolve(arm_of("random", space), f, TRIALS, seed)) for seed in range(20)]


def better(found: Sequence[float], baseline_losses: Sequence[float]) -> bool:
    return bool(mannwhitneyu(found, baseline_losses, alternative="less").pvalue < 0.01)


@pytest.mark.parametrize(
    ("landscape", "name"),
    [(landscape, name) for landscape in ("sphere", "ellipsoid", "rastrigin") for name in EVOLVING]
    + [("mixed", name) for name in EVOLVING if name != "cma-es"],
)
def test_every_algorithm_beats_random_search_at_equal_evaluations(landscape: str, name: str) -> None:
    space, f = LANDSCAPES[landscape]
    losses = [lowest(evolve(arm_of(name, space), f, TRIALS, seed)) for seed in range(10)]
    assert better(losses, by_chance(landscape))


def test_where_the_way_down_deceives_an_archive_finds_what_a_population_misses() -> None:
    space, f = LANDSCAPES["trap"]

    def tenth(trial: Trial) -> tuple[int, ...]:
        return (int(float(trial.proposal.params["x0"])),)

    archive = replace(arm_of("map-elites", space), descriptor=tenth)  # type: ignore[type-var] # a dataclass
    losses = [lowest(evolve(archive, f, TRIALS, seed)) for seed in range(16)]
    assert better(losses, by_chance("trap"))
    assert better(losses, [lowest(evolve(arm_of("ga", space), f, TRIALS, seed)) for seed in range(16)])


@pytest.mark.parametrize("name", EVOLVING)
def test_what_a_new_process_rebuilds_is_what_an_uninterrupted_one_does(name: str) -> None:
    space = cube(4)

    def some_fail(params: Params) -> float | None:
        return None if float(params["x0"]) > 4 else sphere(params)

    uninterrupted_trials = evolve(arm_of(name, space), some_fail, 120, 0)
    for cut in (10, 50, 110):
        assert evolve(arm_of(name, space), some_fail, 120, 0, uninterrupted_trials[:cut]) == uninterrupted_trials


@pytest.mark.parametrize("name", EVOLVING)
def test_all_of_a_generation_is_planned_from_the_same_results(name: str) -> None:
    """Whether its first trials are under way, or known already: they have no children before all have ended."""
    space, rng = cube(4), np.random.default_rng(0)
    earlier_trials = evolve(arm_of("random", space), sphere, 30, 0)
    points = [space.sample(rng) for _ in range(3)]
    under_way = [Trial(30 + i, Proposal(p, "x"), TrialResult("running")) for i, p in enumerate(points)]
    finished_trials = [ended(30 + i, point, -100.0) for i, point in enumerate(points)]
    turned_down = Trial(-1, Proposal(points[0], "x"), TrialResult("failed"))
    proposals = [
        arm_of(name, space).ask([*earlier_trials, *extra_trials], 4, np.random.default_rng(1))
        for extra_trials in ([], under_way, finished_trials, [*finished_trials, turned_down])
    ]
    assert proposals[0] == proposals[1] == proposals[2] == proposals[3]


@pytest.mark.parametrize("name", EVOLVING)
@pytest.mark.parametrize("population", [1, 2, 3])
def test_tiny_populations_learn_too(name: str, population: int) -> None:
    space = cube(3)
    arm = arm_of(name, space, population)
    history: list[Trial] = []
    for number in range(150):
        (offer,) = arm.ask(history, 1, np.random.default_rng(number))
        history.append(ended(number, offer.params, sphere(offer.params), offer.source))
    assert lowest(history) < lowest(evolve(arm_of("random", space), sphere, 150, 0))


@pytest.mark.parametrize("name", EVOLVING)
def test_failed_trials_have_no_children(name: str) -> None:
    space = cube(2)
    corner = {"x0": 6.0, "x1": 6.0}
    failed = [ended(i, corner, None) for i in range(POPULATION)]
    good = [ended(POPULATION + i, {"x0": -4.0 + 0.1 * i, "x1": -4.0}, 1.0 + i) for i in range(POPULATION)]
    proposals = arm_of(name, space).ask([*failed, *good], 30, np.random.default_rng(0))
    assert np.mean([space.distance(offer.params, corner) for offer in proposals]) > 1
    everywhere = arm_of(name, space).ask(failed, 30, np.random.default_rng(0))
    assert len({space.key(offer.params) for offer in everywhere}) == 30


@pytest.mark.parametrize("name", ["ga", "one-plus-lambda", "cma-es"])
def test_what_others_propose_is_learned_from(name: str) -> None:
    """A language model that has half of the proposals finds a corner; the algorithm goes there."""
    space, rng = cube(3), np.random.default_rng(0)
    history: list[Trial] = []
    for number in range(4 * POPULATION):
        near = {axis: 5.5 + 0.4 * rng.random() for axis in space.parameters}
        params = near if number % 2 else arm_of(name, space).ask(history, 1, rng)[0].params
        history.append(ended(number, params, space.distance(params, near), "llm" if number % 2 else name))
    proposals = arm_of(name, space).ask(history, 40, rng)
    assert np.median([float(value) for offer in proposals for value in offer.params.values()]) > 4


def test_the_best_trial_of_all_is_always_a_parent() -> None:
    """Elitism: a good trial is kept, whatever comes after it."""
    space = cube(2)
    ga = GeneticAlgorithm(SpaceGenome(space), 5)
    history = evolve(ga, sphere, 20, 0)
    best = ended(20, {"x0": 0.0, "x1": 0.0}, -1.0, "human")
    worse = [ended(21 + i, space.sample(np.random.default_rng(i)), 50.0) for i in range(29)]
    parents = ga.parents([*history, best, *worse])
    assert parents[0] == best
    assert len(parents) == 5
    assert max(t.result.value or 0.0 for t in parents) < 50.0


def test_the_step_size_follows_success() -> None:
    strategy = OnePlusLambda(SpaceGenome(cube(3)), 5)
    start = ended(0, dict.fromkeys(("x0", "x1", "x2"), 1.0), 0.0)

    def step(value: float, source: str) -> float:
        first = [start, *(ended(i, start.proposal.params, 1.0, "lhs") for i in range(1, 5))]
        return strategy.parent([*first, *(ended(5 + i, {}, value, source) for i in range(20))])[1]

    assert step(9.0, "one-plus-lambda") < step(9.0, "llm") == 0.3 < step(-1.0, "one-plus-lambda") <= 1.0
    assert step(9.0, "llm->one-plus-lambda") == step(9.0, "one-plus-lambda")


def test_an_archive_keeps_the_best_of_every_niche() -> None:
    def side(trial: Trial) -> tuple[int, ...]:
        return (int(float(trial.proposal.params["x0"]) > 0),)

    arm = MapElites(SpaceGenome(cube(1)), 2, side)
    values = [(-1.0, 5.0), (-2.0, 3.0), (2.0, 9.0), (1.0, 9.0), (3.0, None), (-3.0, 4.0)]
    trials = [ended(i, {"x0": x}, value) for i, (x, value) in enumerate(values)]
    assert arm.archive(trials) == {(0,): trials[1], (1,): trials[2]}  # the earlier of equals


def test_the_distribution_of_cma_es_learns_and_no_stranger_throws_it_far() -> None:
    space = cube(3)
    arm = CmaEs(space, POPULATION)
    history = evolve(arm, sphere, 150, 0)
    strategy = arm.strategy(history)
    assert np.abs(strategy.mean - 0.47).max() < 0.02
    stranger = [ended(150 + i, dict.fromkeys(space.parameters, 6.0), -1.0, "llm") for i in range(POPULATION)]
    moved = arm.strategy([*history, *stranger])
    assert 0 < np.abs(moved.mean - strategy.mean).max() < 0.1


def test_cma_es_refuses_choices_without_order_and_takes_ordered_ones() -> None:
    with pytest.raises(ConfigError, match="the choices of kind have no order"):
        ARMS.load("cma-es")("cma-es", MIXED, 0)
    widths: dict[str, object] = {"type": "categorical", "choices": [8, 16, 32, 64]}
    space = cube(1, width=widths, lr=LOG)

    def loss(params: Params) -> float:
        return abs(np.log2(params["width"]) - 5) + abs(np.log10(params["lr"]) + 4) + sphere(params)

    best = min(evolve(arm_of("cma-es", space), loss, 150, 0), key=lambda trial: trial.result.value or 0.0)
    assert best.proposal.params["width"] == 32
    assert 3e-5 < float(best.proposal.params["lr"]) < 3e-4


def test_generations_are_told_apart_by_number() -> None:
    trials = [ended(i, {}, 0.0) for i in range(7)]
    refused, running = (
        Trial(-1, Proposal({}, "x"), TrialResult("failed")),
        replace(trials[4], result=TrialResult("running")),
    )
    assert generations([*trials[:2], refused, *trials[2:]], 3) == [trials[:3], trials[3:6]]
    assert generations([*trials[:4], running, *trials[5:]], 3) == [trials[:3]]
