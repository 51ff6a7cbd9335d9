"""The last round of a study: the best few trials once more, on the highest rung and with several fresh seeds.

The search compares trials by one rough measurement each, and the lowest of many is low by luck, too. So whoever leads
is measured with seeds that the search has not used. Where its mean then lies above what another trial has shown, that
one enters, too, until the lead holds or no more trials may enter. The winner is the lowest mean of fresh measurements.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import chain
from math import inf
from statistics import fmean

from agentlab.search.types import TrialResult
from agentlab.study.state import StudyCandidate, StudyState, TrialState
from agentlab.study.steps import Study, run_candidates

_FIRST_TURN = 1_000  # beyond every repetition in the search


@dataclass(frozen=True, slots=True)
class LastRound:
    """How many trials enter at first (0 holds none), with how many seeds each, in the order of `ranked`."""

    count: int
    seeds: int
    ranked: Callable[[StudyState], list[TrialState]] = lambda state: state.ranking


@dataclass(frozen=True, slots=True)
class Finalist:
    """A trial in the last round, with the candidates that stand for it and how they ended."""

    trial: TrialState
    candidates: tuple[StudyCandidate, ...]
    results: Mapping[str, TrialResult]

    @property
    def values(self) -> dict[str, float]:
        return {name: result.value for name, result in self.results.items() if result.value is not None}

    @property
    def failure_count(self) -> int:
        return len(self.results) - len(self.values)

    @property
    def missing(self) -> list[StudyCandidate]:
        return [candidate for candidate in self.candidates if candidate.name not in self.results]

    def with_results(self, results: Mapping[str, TrialResult]) -> "Finalist":
        """The same with those of these results that are its own."""
        names = [candidate.name for candidate in self.candidates if candidate.name in results]
        return replace(self, results={**self.results, **{name: results[name] for name in names}})

    @property
    def mean(self) -> float | None:
        return fmean(self.values.values()) if self.values else None

    @property
    def standing(self) -> tuple[int, float]:
        """Lower is better: failures first, since a lucky seed is no evidence; then the value, as far as it is known.

        That is the mean of the fresh measurements, or until all of them have ended what the search has measured.
        """
        known_value = self.trial.value if self.missing else self.mean
        return self.failure_count, inf if known_value is None else known_value


def last_round_size(count: int, trials: int) -> int:
    """How many trials may enter a last round of `count`: the more were tried, the more were low by luck. Pure."""
    return min(trials, count + trials // 2) if count else 0


def finalists(state: StudyState, plan: LastRound) -> list[Finalist]:
    """All that could win, the best evidence first; of equal ones the better one of the search."""
    return _last_round(state, plan)[0]


def missing(state: StudyState, plan: LastRound) -> list[StudyCandidate]:
    """What to measure next; nothing when the lead holds or no more trials may enter."""
    return _last_round(state, plan)[1]


def _last_round(state: StudyState, plan: LastRound) -> tuple[list[Finalist], list[StudyCandidate]]:
    """The last round from its beginning as far as its measurements have ended, and those that it waits for.

    It is played with what is known, so what a kill left half done, or the last round of a shorter search left over,
    changes nothing.
    """
    field = [_finalist(trial, plan.seeds) for trial in plan.ranked(state)]
    rounds = field[: last_round_size(plan.count, len(field))]
    while step := _next(rounds, plan.count):
        if lacking := [candidate for candidate in step if candidate.name not in state.finals]:
            return rounds, lacking
        results = {candidate.name: state.finals[candidate.name] for candidate in step}
        rounds = sorted((finalist.with_results(results) for finalist in rounds), key=lambda finalist: finalist.standing)
    return rounds, []


def _next(rounds: list[Finalist], count: int) -> list[StudyCandidate]:
    """First whoever leads is measured, until the leader and `count` finalists in all have all their measurements."""
    waiting = [finalist for finalist in rounds if finalist.missing]
    lacking = count - (len(rounds) - len(waiting))
    if not waiting or (rounds[0] is not waiting[0] and lacking <= 0):
        return []
    return list(chain.from_iterable(finalist.missing for finalist in waiting[: max(1, lacking)]))


def _finalist(trial: TrialState, seeds: int) -> Finalist:
    params = trial.proposal.params
    fresh = tuple(StudyCandidate(f"{trial.id}-f{n}", _FIRST_TURN + n, params, rung=1) for n in range(seeds))
    return Finalist(trial, fresh, {})


def best_as_finalist(state: StudyState) -> Finalist | None:
    """The accepted trial as the search has measured it: the winner where there is no last round, or nothing of it."""
    best = state.best
    if best is None or best.result is None:
        return None
    return Finalist(best, (StudyCandidate(best.id, 0, best.proposal.params),), {best.id: best.result})


def last_round(study: Study, plan: LastRound, check: Callable[[], None]) -> Finalist | None:
    """Measure what the last round lacks, and name the winner; None if no trial finished."""
    state = study.state
    while candidates := missing(state, plan):
        check()
        state = run_candidates(study, candidates)
    return winner(state, plan)


def winner(state: StudyState, plan: LastRound) -> Finalist | None:
    """The best evidence of the last round.

    If all of it failed, or there is no last round, it is the accepted trial as it stands; None if no trial finished.
    """
    finished = [finalist for finalist in finalists(state, plan) if finalist.values]
    return finished[0] if finished else best_as_finalist(state)


def exported_candidate(finalist: Finalist) -> StudyCandidate:
    """The one measurement of a finalist whose product is handed out: that with the lowest value."""
    values = finalist.values
    return min((c for c in finalist.candidates if c.name in values), key=lambda c: values[c.name])
