"""Is a trial better than what we have? Rules decide beyond the measured noise; within it, measuring again does.

A language model that can do more than pick letters says of a near tie whether the gain will last. All that its word
can do is to add one measurement to the one that follows anyway: it can neither accept nor reject. What follows is held
against what it said. Neither it nor a rule sees a test figure.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
from pydantic import Field

from agentlab.config.base import StrictModel
from agentlab.llm.types import Message
from agentlab.search.llm_proposer import LLM_FAILURES, one_line
from agentlab.stats.fronts import dominates, front
from agentlab.stats.intervals import paired_interval
from agentlab.study.events import Decision, Opinion, Repeat
from agentlab.study.noise import Noise, estimate_noise
from agentlab.study.state import StudyState, TrialState
from agentlab.study.terms import StudyTerms

if TYPE_CHECKING:
    from agentlab.llm.router import Router

_ITEMS = 4  # stream of the generator, apart from those of proposals and controls
_ENOUGH = 2  # degrees of freedom of a noise estimate that stands for itself

Question = Callable[[TrialState, TrialState], list[Message]]  # (trial, best)


class Evaluator(Protocol):
    """How trials are compared: one with the best, and all with each other."""

    def judge(self, trial: TrialState, state: StudyState) -> Decision | Repeat:
        """Accept or reject a trial that has ended, or have it measured again."""

    def rank_trials(self, state: StudyState) -> list[TrialState]:
        """The judged trials that finished, best first. It sees all of them at once: a population and its archive."""


class Judgement(StrictModel):
    """The model's answer: `repeat` expects the gain to last, `reject` that it was luck."""

    reason: str = Field(max_length=200, description="One short sentence.")
    decision: Literal["repeat", "reject"]


@dataclass(frozen=True, slots=True)
class SeedEvaluator:
    """Compares means over seeds. What the seed alone does is given, or measured on repetitions of a few trials."""

    terms: StudyTerms
    noise: float | None = None  # given instead of measured
    repeats: int = 0  # of the first accepted trial of a family, to measure the noise
    family: tuple[str, ...] = ()  # keys on which the noise depends
    router: "Router | None" = None
    question: Question | None = None
    scope: str = ""  # tells the calls of parallel studies apart

    def judge(self, trial: TrialState, state: StudyState) -> Decision | Repeat:
        """By the rule beyond the noise. The first trial that would be accepted of a family is repeated all the same."""
        best = state.best
        noise = self.noise_of(trial, state)
        ruled = by_rule(trial, best, noise, self.noise_of(best, state) if best else None, terms=self.terms)
        if ruled is None:
            assert best is not None  # by_rule decides while there are not two finished trials
            return self._near_tie(trial, best)
        is_noise_known = self.noise is not None or self._family_noise(trial, state).freedom >= _ENOUGH
        if not ruled.accepted or is_noise_known or trial.wanted or not self.repeats:
            return ruled
        return Repeat("to measure the noise", count=self.repeats)

    def rank_trials(self, state: StudyState) -> list[TrialState]:
        return state.ranking

    def noise_of(self, trial: TrialState, state: StudyState) -> Noise:
        """What the seed alone does to the value of a trial, as given, or as measured so far.

        Trials that agree in the `family` keys are measured apart from the others as soon as they have repetitions
        enough: an architecture that starts from a linear forecast scatters ten times less than one that does not.
        """
        if self.noise is not None:
            return Noise(self.noise)
        alike = self._family_noise(trial, state)
        return alike if alike.freedom >= _ENOUGH else estimate_noise(peer.values for peer in state.trials)

    def describe_noises(self, state: StudyState) -> str:
        """The noise that each family of trials was judged by, in a sentence each; see `noise_of`."""
        noises: dict[str, Noise] = {}
        for trial in state.trials:
            family = zip(self.family, self._family(trial), strict=True)
            is_by_family = self.noise is None and self._family_noise(trial, state).freedom >= _ENOUGH
            name = f"trials with {', '.join(f'{key} {value}' for key, value in family)}" if is_by_family else ""
            noises[name] = self.noise_of(trial, state)
        if len(noises) > 1 and "" in noises:
            noises["all trials (used for the other trials)"] = noises.pop("")
        return " ".join(noise.sentence(self.terms, name) for name, noise in noises.items())

    def _family_noise(self, trial: TrialState, state: StudyState) -> Noise:
        return estimate_noise(peer.values for peer in state.trials if self._family(peer) == self._family(trial))

    def _family(self, trial: TrialState) -> list[object]:
        return [trial.proposal.params.get(key) for key in self.family]

    def _near_tie(self, trial: TrialState, best: TrialState) -> Repeat:
        """Measure again, whatever a model says of it; one that can only pick letters says one thing only."""
        reason, task = "lower, but within the noise", self.terms.evaluate
        if self.router is None or self.question is None or self.router.tier(task) in (None, "pick"):
            return Repeat(reason)
        call_id = f"{self.scope}{trial.id}/evaluate"
        try:
            answer = self.router.complete_sync(self.question(trial, best), task=task, schema=Judgement, call_id=call_id)
        except LLM_FAILURES as error:
            return Repeat(f"{reason}; no opinion from the model: {error.message[:120]}")
        lasts, explanation = answer.value.decision == "repeat", one_line(answer.value.reason)
        expects = f"{answer.model} expects the gain to {'last' if lasts else 'vanish'}: {explanation}"
        return Repeat(f"{reason}; {expects}", 1 + lasts, Opinion(answer.model, lasts, best.value or 0.0))


def by_rule(
    trial: TrialState, best: TrialState | None, noise: Noise, noise_of_best: Noise | None = None, *, terms: StudyTerms
) -> Decision | None:
    """Accept what is lower beyond the noise, reject what is not lower; None for what is lower within it.

    `best` is the trial that was accepted last. As only gains beyond the noise are accepted, a chain of lucky seeds
    cannot drift. `noise_of_best` None is that of the trial.
    """
    if trial.value is None or best is None or best.value is None:
        return _decide_without_best(trial)
    change = math.log(max(trial.value, 1e-12) / max(best.value, 1e-12))
    limit = noise.limit(len(trial.values), len(best.values), noise_of_best)
    finding = f"{terms.error} {abs(math.expm1(change)):.1%} {'lower' if change < 0 else 'higher'} than {best.id}"
    if change < -limit:
        return Decision(True, finding)
    if change >= 0:
        return Decision(False, finding if change else f"same {terms.error} as {best.id}")
    if trial.wanted:
        count = len(trial.values)
        mean = f" (mean of {count} {terms.measurement}s)" if count > 1 else ""
        best_noise = noise_of_best or noise
        deviations = " and ".join(dict.fromkeys(f"{n.deviation:.2%}" for n in (noise, best_noise)))
        explained = f"within the seed noise of {limit:.1%} (95%; standard deviation per seed {deviations})"
        return Decision(False, f"{finding}{mean}, {explained}")
    return None


def _decide_without_best(trial: TrialState) -> Decision:
    return Decision(False, "failed") if trial.value is None else Decision(True, "first trial that finished")


@dataclass(frozen=True, slots=True)
class PairedItemEvaluator:
    """Compares item by item: what makes an item hard is hard for both trials, so few items tell small differences.

    A trial that stopped early is compared on the items it has, which are the first. Trials with several objectives are
    ranked by fronts. Nothing is measured again.
    """

    terms: StudyTerms
    seed: int

    def judge(self, trial: TrialState, state: StudyState) -> Decision:
        """Accept if the 95 % interval of the mean difference lies below zero: BCa bootstrap over pairs."""
        best = state.best
        if trial.value is None or trial.result is None or best is None or best.result is None:
            return _decide_without_best(trial)
        rng = np.random.default_rng([self.seed, _ITEMS, trial.number])
        common = min(len(trial.result.items), len(best.result.items))
        interval = paired_interval(trial.result.items[:common], best.result.items[:common], rng)
        ends = f"[{interval.low:+.4g}, {interval.high:+.4g}] over {common} pairs"
        return Decision(interval.high < 0, f"{self.terms.error} {interval.estimate:+.4g} against {best.id}, {ends}")

    def rank_trials(self, state: StudyState) -> list[TrialState]:
        return by_fronts(state)


@dataclass(frozen=True, slots=True)
class ParetoEvaluator:
    """Compares trials by several objectives at once: none of them may be worse for a trial to be better."""

    terms: StudyTerms

    def judge(self, trial: TrialState, state: StudyState) -> Decision:
        """Accept what no trial before dominates or equals: it is on the front of its time."""
        if trial.value is None:
            return Decision(False, "failed")
        for rival in state.ranking:
            if rival.objectives == trial.objectives or dominates(rival.objectives, trial.objectives):
                return Decision(False, f"not better than {rival.id} in any objective")
        return Decision(True, "on the Pareto front")

    def rank_trials(self, state: StudyState) -> list[TrialState]:
        return by_fronts(state)


def by_fronts(state: StudyState) -> list[TrialState]:
    """Front by front (Goldberg 1989): first the trials that no other one dominates, each front by its value."""
    remaining, ordered = state.ranking, list[TrialState]()
    while remaining:
        best = front([trial.objectives for trial in remaining])
        ordered += [remaining[index] for index in best]
        remaining = [trial for index, trial in enumerate(remaining) if index not in best]
    return ordered
