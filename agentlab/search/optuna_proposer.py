"""Optuna's samplers as a pure function of history and generator.

A killed Optuna study does not continue as the uninterrupted one, so nothing is kept between calls: each ask builds
a study in memory from the history and a sampler from the generator. What others proposed is an ordinary observation.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal

from agentlab.search.history import finished_trials, first_trial_by_key, targets
from agentlab.search.parameters import Parameter
from agentlab.search.space import SearchSpace
from agentlab.search.types import Params, Proposal, Trial, Value

if TYPE_CHECKING:
    import numpy as np

SamplerName = Literal["auto", "gp", "tpe"]

GP_TRIALS = 100  # a Gaussian process costs the cube of the history; beyond this TPE is as good and stays fast
_DESIGNS = 64  # Latin hypercubes to choose from
_START = "lhs"  # the source of a start point


def arm(name: SamplerName, space: SearchSpace, seed: int) -> "OptunaProposer":
    """The search arm of that name."""
    return OptunaProposer(space, sampler=name, seed=seed)


@dataclass(frozen=True)
class OptunaProposer:
    """Latin-hypercube points until `startup` trials have succeeded, then a Gaussian process or TPE.

    `seed` fixes these points, so every arm of a comparison starts from the same points. `auto` takes the
    Gaussian process while the history is short and no condition hangs on another, TPE otherwise.
    """

    space: SearchSpace
    sampler: SamplerName = "auto"
    startup: int = 6
    seed: int = 0

    @property
    def name(self) -> str:
        """`gp` or `tpe`: which one proposes after the first points."""
        return self._kind(0)

    def ask(self, history: Sequence[Trial], n: int, rng: "np.random.Generator") -> list[Proposal]:
        """`n` suggestions, best first. They may break rules between parameters or repeat a trial: screen them."""
        spread = self._spread(history)
        if len(finished_trials(spread)) < max(self.startup, 1):
            return self._start(history, n, len(spread))
        kind = self._kind(len(history))
        return [Proposal(point, kind) for point in self._suggest(history, kind, n, rng)]

    def _kind(self, trials: int) -> Literal["gp", "tpe"]:
        if self.sampler != "auto":
            return self.sampler
        return "gp" if trials < GP_TRIALS and self.space.depth <= 1 else "tpe"

    def _spread(self, history: Sequence[Trial]) -> list[Trial]:
        """The trials that stand for the start points: the first one, those proposed here, and equal ones of others.

        What else others proposed does not count: bad advice must not take the place of the points that show which
        parameter matters.
        """
        design = {self.space.key(point) for point in self._design}
        return [
            trial
            for trial in history
            if trial.number == 0
            or trial.proposal.source.endswith(_START)
            or self.space.key(trial.proposal.params) in design
        ]

    @cached_property
    def _design(self) -> list[dict[str, Value]]:
        return start_points(self.space, self.seed, max(self.startup, 2))

    def _start(self, history: Sequence[Trial], n: int, first: int) -> list[Proposal]:
        """The untried points from the `first` on: one that was screened out is not offered again next time."""
        tried_keys = first_trial_by_key(history, self.space)
        free = [point for point in self._design[first:] if self.space.key(point) not in tried_keys]
        return [Proposal(point, _START) for point in free[:n]]

    def _suggest(
        self, history: Sequence[Trial], kind: Literal["gp", "tpe"], n: int, rng: "np.random.Generator"
    ) -> list[dict[str, Value]]:
        """`n` raw suggestions; each is left running in the study, so that the next one keeps its distance."""
        import optuna

        seed = int(rng.integers(2**31))
        with _quiet():
            samplers = {"gp": optuna.samplers.GPSampler, "tpe": optuna.samplers.TPESampler}
            sampler = samplers[kind](seed=seed, n_startup_trials=0)
            encode = _Encoding(self.space, fill=kind == "gp")
            trials = encode.frozen(history)
            lower = optuna.study.StudyDirection.MINIMIZE
            study = optuna.create_study(sampler=sampler, directions=[lower] * (len(trials[0].values) if trials else 1))
            study.add_trials(trials)
            return [encode.suggest(study.ask()) for _ in range(n)]


def start_points(space: SearchSpace, seed: int, first: int = 6) -> list[dict[str, Value]]:
    """Distinct points that keep the rules: Latin hypercubes (McKay et al. 1979) of `first` points, one after another.

    The hypercubes come in the order of how little they confound the parameters: with few points and many switches, two
    switches easily move together, and the search would learn from them what only one of them did. (The first points of
    a Sobol sequence are pairs of opposites, in which most switches do.)
    """
    designs = [_hypercube(space, first, [seed, number]) for number in range(_DESIGNS)]
    designs.sort(key=lambda points: (len(points) < first, confounding(space, points)))
    return list({space.key(point): point for point in chain.from_iterable(designs)}.values())


def _hypercube(space: SearchSpace, count: int, seed: Sequence[int]) -> list[dict[str, Value]]:
    import numpy as np
    from scipy.stats import qmc

    sample = qmc.LatinHypercube(len(space.parameters), rng=np.random.default_rng(seed)).random(count)
    moved = [space.around_centre(row, (index + 0.5) / count) for index, row in enumerate(sample.tolist())]
    return [point for point in map(space.decode, moved) if not space.broken_rules(point)]


def confounding(space: SearchSpace, points: Sequence[Params]) -> float:
    """Mean fourth power of the correlations between parameters over the points; a constant parameter counts as 1.

    0 is a design in which every parameter can be told from every other, 1 one in which none can. The fourth power
    weighs a pair that moves together more than many that do a little.
    """
    import numpy as np

    if len(points) < 2 or len(space.parameters) < 2:
        return 0.0
    rows = np.array([_coordinates(space, point) for point in points])
    centred = rows - rows.mean(axis=0)
    lengths = np.linalg.norm(centred, axis=0)
    unit = centred / np.where(lengths > 0, lengths, 1.0)
    correlation = np.where(np.outer(lengths, lengths) > 0, unit.T @ unit, 1.0)
    return float(np.mean(correlation[np.triu_indices(len(lengths), 1)] ** 4))


def _coordinates(space: SearchSpace, point: Params) -> list[float]:
    """In the unit cube; unlike `SearchSpace.encode`, an inactive parameter sits at its own middle value."""
    return [spec.encode(point.get(name, spec.decode(0.5))) for name, spec in space.parameters.items()]


class _Encoding:
    """Parameters as Optuna sees them: ordered scales as an index, so the surrogate can learn a trend.

    With `fill`, an inactive parameter is held at its middle value, as a Gaussian process needs every coordinate;
    without, it is absent, which TPE understands.
    """

    def __init__(self, space: SearchSpace, *, fill: bool) -> None:
        self._space = space
        self._fill = fill
        self._distributions = {name: _distribution(spec) for name, spec in space.parameters.items()}

    def frozen(self, history: Sequence[Trial]) -> list[Any]:
        """The history as finished Optuna trials. Points outside the space (an older range) are snapped into it."""
        import optuna

        trials = []
        for trial, values in zip(history, targets(history) or (), strict=True):
            point, _ = self._space.snap(trial.proposal.params, {})
            names = list(self._space.parameters) if self._fill else list(point)
            params = {name: self._inner(name, point) for name in names}
            distributions = {name: self._distributions[name] for name in names}
            trials.append(optuna.trial.create_trial(params=params, distributions=distributions, values=values))
        return trials

    def suggest(self, trial: Any) -> dict[str, Value]:
        """Draw a point from an open Optuna trial."""
        point: dict[str, Value] = {}
        for name, spec in self._space.parameters.items():
            active = self._space.is_active(name, point)
            if active or self._fill:
                inner = trial._suggest(name, self._distributions[name])
                if active:
                    point[name] = _outer(spec, inner)
        return point

    def _inner(self, name: str, point: Params) -> Any:
        spec = self._space.parameters[name]
        value = point[name] if name in point else spec.decode(0.5)
        return value if spec.type == "float" or (spec.type == "int" and spec.log) else spec.index(value)


def _distribution(spec: Parameter) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if spec.type == "float":
        return FloatDistribution(spec.low, spec.high, log=spec.log)
    if spec.type == "int" and spec.log:
        return IntDistribution(spec.low, spec.high, log=True)
    if not spec.is_ordered:
        return CategoricalDistribution(tuple(range(spec.count)))
    return IntDistribution(0, spec.count - 1)


def _outer(spec: Parameter, inner: Any) -> Value:
    if spec.type == "float":
        return min(max(float(f"{inner:.4g}"), spec.low), spec.high)
    if spec.type == "int":
        return int(inner) if spec.log else spec.low + int(inner) * spec.step
    return spec.choices[int(inner)]


@contextmanager
def _quiet() -> Iterator[None]:
    """Optuna reports each new study on its logger; restore whatever level the host program had set."""
    import optuna

    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(level)
