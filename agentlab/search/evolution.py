"""Evolutionary algorithms as pure functions of the history: genetic algorithm, (1+lambda), CMA-ES and MAP-Elites.

Nothing is kept between two asks: population, step size, covariance and archive are worked out from the trials so far,
so a search that was killed goes on as if it had not been. A generation is `population` trials after each other, which
is what an executor measures as one batch. Parents come from generations that have ended, whoever proposed them; a
failed trial is never one. Lower values are better.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from agentlab.errors import ConfigError
from agentlab.search.genome import Genome, SpaceGenome
from agentlab.search.history import batches, finished_trials, incumbent, value_of
from agentlab.search.space import SearchSpace
from agentlab.search.types import Params, Proposal, Proposer, Trial

if TYPE_CHECKING:
    from cmaes import CMA

_CROSSED = 0.7  # probability that a child has two parents
_WIDEST, _FINEST = 0.3, 0.003  # steps of a mutation
_START = 0.3  # first standard deviation of a strategy, as a share of every range
_LEAST = 4  # trials that CMA-ES needs to learn from
_TRIES = 100  # points that break a rule, in a row

Descriptor = Callable[[Trial], tuple[int, ...]]


def arm(name: str, space: SearchSpace, seed: int) -> Proposer:  # noqa: ARG001 - as all arms are made
    """The search arm of that name, with the population that is usual for CMA-ES (see there, equation 48).

    Raises:
        ConfigError: the arm cannot search this space.
    """
    population = 4 + int(3 * math.log(max(len(space.parameters), 1)))
    if name == CmaEs.name:
        return CmaEs(space, population)
    if name == MapElites.name:
        return MapElites(SpaceGenome(space), population, niches(space, population))
    kind = GeneticAlgorithm if name == GeneticAlgorithm.name else OnePlusLambda
    return kind(SpaceGenome(space), population)


def generations(history: Sequence[Trial], population: int) -> list[list[Trial]]:
    """The trials by generation, up to the first that is not complete or has a trial under way.

    One that the budget cut short is complete with the trials it has.
    """
    trials = [trial for trial in history if trial.number >= 0]  # the others were turned down by a person
    ended_generations: list[list[Trial]] = []
    for generation in batches(trials, population):
        is_complete = len(generation) == population or generation[-1].closes
        if not is_complete or any(trial.result.status == "running" for trial in generation):
            break
        ended_generations.append(generation)
    return ended_generations


def _rank(trial: Trial) -> tuple[float, int]:
    """Best first, the earlier of equals first, failed ones last."""
    value = value_of(trial)
    return math.inf if value is None else value, trial.number


@dataclass(frozen=True)
class _Breeder:
    """Children by crossover and mutation, of parents that a subclass chooses. They may repeat a trial: screen them."""

    genome: Genome
    population: int
    name: ClassVar[str]

    def _past_trials(self, history: Sequence[Trial]) -> list[Trial]:
        """The trials that measured something, of all generations that have ended."""
        return finished_trials(list(chain.from_iterable(generations(history, self.population))))

    def _random(self, rng: np.random.Generator) -> Proposal:
        return Proposal(self.genome.random(rng), self.name, "drawn at random, as there are no parents yet")

    def _mutant(self, parent: Trial, step: float, rng: np.random.Generator) -> Proposal:
        note = f"mutation of trial {parent.number} with step size {step:.2g}"
        return Proposal(self.genome.mutate(parent, rng, step), self.name, note)

    def _child(self, first: Trial, second: Trial, rng: np.random.Generator) -> Proposal:
        """A child of both, or a mutant of the first.

        Steps are drawn on a logarithmic scale, as in the breeder genetic algorithm (Mühlenbein, Schlierkamp-Voosen,
        Evolutionary Computation 1(1), 1993): no single size serves the beginning and the end of a search.
        """
        if first.number == second.number or rng.random() >= _CROSSED:
            return self._mutant(first, _WIDEST * (_FINEST / _WIDEST) ** rng.random(), rng)
        note = f"crossover of trials {first.number} and {second.number}"
        return Proposal(self.genome.cross(first, second, rng), self.name, note)


@dataclass(frozen=True)
class GeneticAlgorithm(_Breeder):
    """The best `population` trials of all have children, so no good one is ever lost: elitism.

    That is the survival of NSGA-II for one objective (Deb et al., IEEE Transactions on Evolutionary Computation 6(2),
    2002, section III.C). Parents win tournaments of two.
    """

    name: ClassVar[str] = "ga"

    def parents(self, history: Sequence[Trial]) -> list[Trial]:
        return sorted(self._past_trials(history), key=_rank)[: self.population]

    def ask(self, history: Sequence[Trial], n: int, rng: np.random.Generator) -> list[Proposal]:
        parents = self.parents(history)
        if not parents:
            return [self._random(rng) for _ in range(n)]
        winners = rng.integers(len(parents), size=(n, 2, 2)).min(axis=2)
        return [self._child(parents[first], parents[second], rng) for first, second in winners]


@dataclass(frozen=True)
class OnePlusLambda(_Breeder):
    """The best trial of all has all children, with one step size that follows their success.

    The rule is `updateStepSize` of Igel, Hansen, Roth (Evolutionary Computation 15(1), 2007, section 2 and table 1):
    wider steps if more than about a fifth of the children are as good as their parent, smaller ones if fewer. Only
    children of its own count for that, as what others proposed was no such step. But they may become the parent.
    """

    name: ClassVar[str] = "one-plus-lambda"

    def parent(self, history: Sequence[Trial]) -> tuple[Trial | None, float]:
        """Who has children now, None before the first success, and the step size."""
        best: Trial | None = None
        step, success = _START, 2 / 11
        for generation in generations(history, self.population):
            own_trials = [trial for trial in generation if trial.proposal.source.rpartition(">")[2] == self.name]
            if best and own_trials:
                count, mark = len(own_trials), _rank(best)[0]
                target = 1 / (5 + math.sqrt(count) / 2)
                weight = target * count / (2 + target * count)
                success += weight * (sum(_rank(trial)[0] <= mark for trial in own_trials) / count - success)
                damping = 1 + self.genome.dimension / (2 * count)
                step = min(step * math.exp((success - target) / (damping * (1 - target))), 1.0)
            best = incumbent([*([best] if best else []), *generation])
        return best, step

    def ask(self, history: Sequence[Trial], n: int, rng: np.random.Generator) -> list[Proposal]:
        parent, step = self.parent(history)
        return [self._mutant(parent, step, rng) if parent else self._random(rng) for _ in range(n)]


@dataclass(frozen=True)
class MapElites(_Breeder):
    """The best trial of each niche has children, all niches alike: what is different survives beside what is good.

    Mouret, Clune: Illuminating search spaces by mapping elites, arXiv:1504.04909, figure 2. The descriptor says in
    which niche a trial belongs.
    """

    descriptor: Descriptor
    name: ClassVar[str] = "map-elites"

    def archive(self, history: Sequence[Trial]) -> dict[tuple[int, ...], Trial]:
        worst_first = sorted(self._past_trials(history), key=_rank, reverse=True)
        return {self.descriptor(trial): trial for trial in worst_first}

    def ask(self, history: Sequence[Trial], n: int, rng: np.random.Generator) -> list[Proposal]:
        archive = self.archive(history)
        elites = [archive[niche] for niche in sorted(archive)]
        if not elites:
            return [self._random(rng) for _ in range(n)]
        return [self._child(elites[i], elites[j], rng) for i, j in rng.integers(len(elites), size=(n, 2))]


def niches(space: SearchSpace, count: int) -> Descriptor:
    """A descriptor: which of `count` random points of the unit cube lies next to a trial.

    A grid would have more cells than a search has trials (Vassiliades, Chatzilygeroudis, Mouret: Using centroidal
    Voronoi tessellations to scale up the multidimensional archive of phenotypic elites algorithm, IEEE Transactions on
    Evolutionary Computation 22(4), 2018).
    """
    centres = np.random.default_rng(0).random((count, len(space.parameters)))

    def niche(trial: Trial) -> tuple[int, ...]:
        return (int(np.square(centres - _unit(space, trial)).sum(axis=1).argmin()),)

    return niche


def _unit(space: SearchSpace, trial: Trial) -> list[float]:
    return space.encode(space.snap(trial.proposal.params, {})[0])


@dataclass(frozen=True)
class CmaEs:
    """Points from a normal distribution that learns from their ranks (Hansen: The CMA evolution strategy: a tutorial,
    arXiv:1604.00772; package `cmaes`), in the unit cube: logarithmic ranges by their exponent, grids as if continuous.

    It learns from every trial, also of others: Hansen, Injecting external solutions into CMA-ES, arXiv:1110.4181, a
    point that the distribution would hardly have drawn is pulled in to where it might have. So nothing is lost where a
    coin gives half of the proposals to a language model. Failed trials rank last; a generation in which fewer succeeded
    than have a say in the new mean is learned from together with the next.
    """

    space: SearchSpace
    population: int
    name: ClassVar[str] = "cma-es"

    def __post_init__(self) -> None:
        """Raises ConfigError if a parameter is a choice without order: it has no distances."""
        if choices := [name for name, spec in self.space.parameters.items() if not spec.is_ordered]:
            raise ConfigError(
                f"{self.name} needs numeric parameters, but the choices of {', '.join(choices)} have no order.",
                hint="Use ga, one-plus-lambda or map-elites, or remove these parameters from the space.",
            )

    def strategy(self, history: Sequence[Trial]) -> "CMA":
        """The distribution after the generations so far."""
        from cmaes import CMA

        size, axes = self._size, len(self.space.parameters)
        cube, sigma = np.tile([0.0, 1.0], (axes, 1)), self.space.spread or _START
        strategy = CMA(mean=np.array(self.space.middle), sigma=sigma, bounds=cube, population_size=size)
        waiting: list[Trial] = []
        for generation in generations(history, size):
            waiting = sorted([*waiting, *generation], key=_rank)
            if len(waiting) >= size and value_of(waiting[size // 2 - 1]) is not None:
                strategy.tell(list(zip(self._likely(waiting[:size], strategy), range(size), strict=True)))
                waiting = []
        return strategy

    @property
    def _size(self) -> int:
        """Trials from which it learns at a time: a generation, or several small ones."""
        return self.population * math.ceil(_LEAST / self.population)

    def _likely(self, trials: Sequence[Trial], strategy: "CMA") -> np.ndarray:
        """Where the trials lie in the unit cube; on the way to there, if the distribution hardly reaches so far."""
        mean, axes = strategy.mean, strategy.dim
        offsets = np.array([_unit(self.space, trial) for trial in trials]) - mean
        solution = np.linalg.solve(strategy._C, offsets.T).T  # C has no public name
        squares = np.sum(offsets * solution, axis=1, keepdims=True)
        reach = (math.sqrt(axes) + 2 * axes / (axes + 2)) * strategy._sigma
        near: np.ndarray = mean + offsets * np.minimum(1.0, reach / np.sqrt(np.maximum(squares, 1e-24)))
        return near

    def ask(self, history: Sequence[Trial], n: int, rng: np.random.Generator) -> list[Proposal]:
        """`n` points of the distribution. They may repeat a trial, and break a rule that hardly any point keeps.

        A space with a centre has a distribution of its own for points that were not learnt: theirs come from there.
        """
        if self.space.centre is not None and not generations(history, self._size):
            return [Proposal(self.space.sample(rng), self.name) for _ in range(n)]
        strategy = self.strategy(history)
        strategy.reseed_rng(int(rng.integers(2**32)))
        return [Proposal(self._draw_point(strategy), self.name) for _ in range(n)]

    def _draw_point(self, strategy: "CMA") -> Params:
        for _ in range(_TRIES):
            point = self.space.decode(strategy.ask().tolist())
            if not self.space.broken_rules(point):
                break
        return point
