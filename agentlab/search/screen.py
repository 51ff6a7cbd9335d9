"""Screening: what can be known about a candidate before a trial is spent on it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agentlab.search.history import first_trial_by_key, incumbent
from agentlab.search.space import SearchSpace
from agentlab.search.types import Params, Proposal, Proposer, Trial, Value

if TYPE_CHECKING:
    import numpy as np

_VARIATIONS = 200  # of a point that does not pass
_RANDOM = 200  # random points looked at before a finite space is walked through
_WALK = 4096  # points of a finite space that are walked through


@dataclass(frozen=True, slots=True)
class ScreenEstimate:
    """What a candidate would cost, computed without building it."""

    parameters: int
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class ScreenLimits:
    """The configured bounds on an estimate; None is no bound. Never the memory that happens to be free."""

    parameters: int | None = None
    memory_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class ScreenRules:
    """What a candidate is held against. `estimate` may raise ValueError for a combination that cannot be built."""

    space: SearchSpace
    estimate: Callable[[Params], ScreenEstimate] | None = None
    limits: ScreenLimits = ScreenLimits()

    def against(self, history: Sequence[Trial]) -> Callable[[Mapping[str, object]], list[str]]:
        """A function that says in words why a candidate is not worth a trial; an empty list when it is."""
        numbers = first_trial_by_key(history, self.space)
        best = incumbent(history)
        best_key = self.space.key(best.proposal.params) if best else None

        def reasons(params: Mapping[str, object]) -> list[str]:
            if problems := self.space.problems(params):
                return problems
            point: Params = params  # type: ignore[assignment] # `problems` has checked every value
            key = self.space.key(point)
            if key == best_key:
                return [f"identical to the best configuration (trial {numbers[key]})"]
            if key in numbers:
                return [f"already tried in trial {numbers[key]}" if numbers[key] >= 0 else "already rejected"]
            return self._oversize(point)

        return reasons

    def _oversize(self, point: Params) -> list[str]:
        if self.estimate is None:
            return []
        try:
            cost = self.estimate(point)
        except ValueError as error:
            return [f"cannot be built: {error}"]
        problems = []
        if self.limits.parameters is not None and cost.parameters > self.limits.parameters:
            problems.append(f"{cost.parameters:,} parameters exceed the limit of {self.limits.parameters:,}")
        if self.limits.memory_bytes is not None and cost.memory_bytes > self.limits.memory_bytes:
            need, limit = cost.memory_bytes / 2**20, self.limits.memory_bytes / 2**20
            problems.append(f"needs about {need:,.0f} MiB, above the limit of {limit:,.0f} MiB")
        return problems


@dataclass(frozen=True)
class ScreenedProposer:
    """A proposer whose candidates all pass the rules.

    A candidate that does not pass gives way to its nearest neighbour that does, so most of the advice in it is
    kept. An empty answer means that no untried point passes: the search is over, no proposal is made twice.
    """

    base: Proposer
    rules: ScreenRules

    @property
    def name(self) -> str:
        return self.base.name

    def ask(self, history: Sequence[Trial], n: int, rng: "np.random.Generator") -> list[Proposal]:
        """Up to `n` distinct candidates that pass, best first; empty when the space is exhausted."""
        space = self.rules.space
        reasons = self.rules.against(history)
        chosen: dict[str, Proposal] = {}

        def refusal_reasons(point: Params) -> list[str]:
            return ["proposed twice"] if space.key(point) in chosen else reasons(point)

        for proposal in self.base.ask(history, n, rng):
            passed = self._passing(proposal, refusal_reasons, rng)
            if passed is not None:
                chosen[space.key(passed.params)] = passed
        for point in self._random_points(rng) if len(chosen) < n else ():
            if not refusal_reasons(point):
                chosen[space.key(point)] = Proposal(point, "random", f"{self.name} found no valid candidate")
            if len(chosen) >= n:
                break
        return list(chosen.values())[:n]

    def _passing(
        self, proposal: Proposal, refused: Callable[[Params], list[str]], rng: "np.random.Generator"
    ) -> Proposal | None:
        """The proposal itself, or its nearest neighbour that passes, with the reason in the note."""
        reasons = refused(proposal.params)
        if not reasons:
            return proposal
        space = self.rules.space
        point = nearest(space, space.snap(proposal.params, {})[0], lambda near: not refused(near), rng)
        if point is None:
            return None
        note = f"moved to the nearest valid point; the first choice was rejected: {reasons[0]}"
        return Proposal(point, proposal.source, f"{proposal.note}; {note}" if proposal.note else note)

    def _random_points(self, rng: "np.random.Generator") -> Iterator[Params]:
        """Random points; then, in a small finite space, every point in random order."""
        space = self.rules.space
        for _ in range(_RANDOM):
            yield space.sample(rng)
        points = space.points(_WALK) or []
        for index in rng.permutation(len(points)):
            yield points[index]


def nearest(
    space: SearchSpace, point: Params, accept: Callable[[Params], bool], rng: "np.random.Generator"
) -> dict[str, Value] | None:
    """The nearest of 200 random variations of `point` that is accepted; None if none is.

    A variation redraws one to three coordinates, every second one close to where it was.
    """
    centre = space.encode(point)
    best: tuple[float, dict[str, Value]] | None = None
    for attempt in range(_VARIATIONS):
        unit = list(centre)
        for axis in rng.choice(len(unit), size=min(int(rng.integers(1, 4)), len(unit)), replace=False):
            close = min(max(centre[axis] + 0.15 * rng.standard_normal(), 0.0), 1.0)
            unit[axis] = close if attempt % 2 else rng.random()
        candidate = space.decode(unit)
        distance = space.distance(point, candidate)
        if (best is None or distance < best[0]) and accept(candidate):
            best = (distance, candidate)
    return best[1] if best else None
