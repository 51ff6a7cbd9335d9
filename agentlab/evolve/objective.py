"""A generation's measurements: all its children answer the same questions, and clear losers stop early."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from agentlab.evolve.config import RaceConfig
from agentlab.evolve.data import places, set_of
from agentlab.evolve.genome import Child
from agentlab.evolve.scoring import Answers
from agentlab.search.types import Params, TrialResult
from agentlab.stats.intervals import paired_interval
from agentlab.study.state import Candidate, number_of
from agentlab.tasks.questions import Question

_RACE = 5  # stream of the generator, apart from those of a study
_RESAMPLES = 2_000


@dataclass(frozen=True, slots=True)
class TrainSplit:
    """Implements `study.executor.Objective`.

    Attributes:
        rival: the best of the trials that were there before, which a child is held against; None in generation 0.
        search: its name; empty for the main one.
        known: what another search of the run has measured of these children; they are not asked again.
    """

    answers: Answers
    questions: Sequence[Question]
    race: RaceConfig
    rival: Callable[[], TrialResult | None]
    search: str = ""
    known: Callable[[Params], TrialResult | None] = lambda _: None

    def __call__(self, batch: Sequence[Candidate]) -> list[TrialResult]:
        """All of them, in the same batches."""
        found = {each.name: known for each in batch if (known := self.known(each.params)) is not None}
        found |= self._raced([each for each in batch if each.name not in found])
        return [found[each.name] for each in batch]

    def _raced(self, batch: Sequence[Candidate]) -> Mapping[str, TrialResult]:
        if not batch:  # another search has measured all of them
            return {}
        rival, began = self.rival(), time.perf_counter()
        chances: dict[str, list[list[float]]] = {each.name: [] for each in batch}
        running, seen, seconds = list(batch), 0, dict[str, float]()
        for stop in self._stops(rival):
            questions = self.questions[seen:stop]
            children = [Child(self.search, number_of(each.name), each.params) for each in running]
            for each, told in zip(running, self.answers.answer(children, questions), strict=True):
                chances[each.name] += told
            seen, spent = stop, (time.perf_counter() - began) / max(1, len(running))
            began = time.perf_counter()
            for each in running:
                seconds[each.name] = seconds.get(each.name, 0.0) + spent
            if rival is not None and seen < len(self.questions):
                running = [each for each in running if not self._lost(self._errors(chances[each.name]), rival.items)]
            if not running:
                break
        return {name: self._result(told, rival, seconds[name]) for name, told in chances.items()}

    def _stops(self, rival: TrialResult | None) -> list[int]:
        """After how many questions somebody may stop: twice as many each time."""
        found, stop = list[int](), self.race.first
        while rival is not None and stop < len(self.questions):
            found.append(stop)
            stop *= 2
        return [*found, len(self.questions)]

    def _lost(self, errors: Sequence[float], rival: Sequence[float]) -> bool:
        """Whether the child is clearly worse than the rival on what it was asked."""
        rng = np.random.default_rng([_RACE, len(errors)])
        level, held = self.race.level, rival[: len(errors)]
        return paired_interval(errors, held, rng, level=level, resamples=_RESAMPLES).low > 0

    def _errors(self, chances: Sequence[Sequence[float]]) -> list[float]:
        right = places(self.questions[: len(chances)])
        return [1 - each[place] for each, place in zip(chances, right, strict=True)]

    def _result(self, chances: Sequence[Sequence[float]], rival: TrialResult | None, seconds: float) -> TrialResult:
        """Of a child that stopped early the value is what it would be if it stayed as far behind the rival."""
        errors = self._errors(chances)
        value = fmean(errors)
        if len(errors) < len(self.questions) and rival is not None and rival.value is not None:
            behind = value - fmean(rival.items[: len(errors)])
            value = min(1.0, rival.value + behind)
        marks = marked(chances, self.questions)
        metrics = {
            "items": len(errors),
            "accuracy": fmean(marks),
            "sets": by_set(marks, self.questions),
            "answers": [chosen(each) for each in chances],
            "seconds": round(seconds, 3),
        }
        return TrialResult("finished", value, metrics, items=tuple(errors))


def chosen(chances: Sequence[float]) -> int:
    """The place of the likeliest choice; the first of equal ones."""
    return max(range(len(chances)), key=lambda place: chances[place])


def marked(chances: Sequence[Sequence[float]], questions: Sequence[Question]) -> list[bool]:
    """Which of the first questions were answered right."""
    right = places(questions[: len(chances)])
    return [chosen(each) == place for each, place in zip(chances, right, strict=True)]


def by_set(marks: Sequence[bool], questions: Sequence[Question]) -> dict[str, float]:
    """Share of right answers in each set of questions."""
    found: dict[str, list[bool]] = {}
    for mark, question in zip(marks, questions, strict=False):
        found.setdefault(set_of(question), []).append(mark)
    return {name: fmean(each) for name, each in found.items()}
