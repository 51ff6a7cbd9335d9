"""A generation's measurements: all its children answer the same questions, and clear losers stop early."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from agentlab.answers.choices import Scored
from agentlab.evolve.config import RaceConfig
from agentlab.evolve.data import set_of
from agentlab.evolve.genome import Child
from agentlab.evolve.scoring import Answer
from agentlab.search.types import Params, TrialResult
from agentlab.stats.intervals import paired_interval
from agentlab.study.state import Candidate, number_of
from agentlab.tasks.labelled import marked, right_place
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

    answer: Answer
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
        scored: dict[str, list[Scored]] = {each.name: [] for each in batch}
        running, seen, seconds = list(batch), 0, dict[str, float]()
        for stop in self._stops(rival):
            questions = self.questions[seen:stop]
            children = [Child(self.search, number_of(each.name), each.params) for each in running]
            for each, told in zip(running, self.answer(children, questions), strict=True):
                scored[each.name] += told
            seen, spent = stop, (time.perf_counter() - began) / max(1, len(running))
            began = time.perf_counter()
            for each in running:
                seconds[each.name] = seconds.get(each.name, 0.0) + spent
            if rival is not None and seen < len(self.questions):
                running = [each for each in running if not self._lost(self._errors(scored[each.name]), rival.items)]
            if not running:
                break
        return {name: self._result(told, rival, seconds[name]) for name, told in scored.items()}

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

    def _errors(self, scored: Sequence[Scored]) -> list[float]:
        return [
            1 - each.shares()[right_place(question)] for each, question in zip(scored, self.questions, strict=False)
        ]

    def _result(self, scored: Sequence[Scored], rival: TrialResult | None, seconds: float) -> TrialResult:
        """Of a child that stopped early the value is what it would be if it stayed as far behind the rival."""
        errors = self._errors(scored)
        value = fmean(errors)
        if len(errors) < len(self.questions) and rival is not None and rival.value is not None:
            behind = value - fmean(rival.items[: len(errors)])
            value = min(1.0, rival.value + behind)
        marks = marked(scored, self.questions)
        metrics = {
            "items": len(errors),
            "accuracy": fmean(marks),
            "sets": by_set(marks, self.questions),
            "answers": [each.chosen() for each in scored],
            "choices": [list(map(list, each.finite)) for each in scored],
            "seconds": round(seconds, 3),
        }
        return TrialResult("finished", value, metrics, items=tuple(errors))


def by_set(marks: Sequence[bool], questions: Sequence[Question]) -> dict[str, float]:
    """Share of right answers in each set of questions."""
    found: dict[str, list[bool]] = {}
    for mark, question in zip(marks, questions, strict=False):
        found.setdefault(set_of(question), []).append(mark)
    return {name: fmean(each) for name, each in found.items()}
