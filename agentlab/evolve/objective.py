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
from agentlab.study.state import StudyCandidate, number_of
from agentlab.tasks.labelled import mark_answers, right_place
from agentlab.tasks.questions import QuizQuestion

_RACE = 5  # stream of the generator, apart from those of a study
_RESAMPLES = 2_000


@dataclass(frozen=True, slots=True)
class TrainSplit:
    """Implements `study.executor.Objective`."""

    answer: Answer
    questions: Sequence[QuizQuestion]
    race: RaceConfig
    rival: Callable[[], TrialResult | None]  # the best start, which a child is held against; None in generation 0
    search: str = ""  # its name; empty for the main one
    known: Callable[[Params], TrialResult | None] = lambda _: None  # what another search measured is not asked again

    def __call__(self, batch: Sequence[StudyCandidate]) -> list[TrialResult]:
        results = {
            candidate.name: earlier for candidate in batch if (earlier := self.known(candidate.params)) is not None
        }
        results |= self._run_race([candidate for candidate in batch if candidate.name not in results])
        return [results[candidate.name] for candidate in batch]

    def _run_race(self, batch: Sequence[StudyCandidate]) -> Mapping[str, TrialResult]:
        if not batch:  # another search has measured all of them
            return {}
        rival, began = self.rival(), time.perf_counter()
        scored: dict[str, list[Scored]] = {candidate.name: [] for candidate in batch}
        running, seen, seconds = list(batch), 0, dict[str, float]()
        for stop in self._stops(rival):
            questions = self.questions[seen:stop]
            children = [Child(self.search, number_of(candidate.name), candidate.params) for candidate in running]
            for candidate, child_scores in zip(running, self.answer(children, questions), strict=True):
                scored[candidate.name] += child_scores
            seen, elapsed = stop, (time.perf_counter() - began) / max(1, len(running))
            began = time.perf_counter()
            for candidate in running:
                seconds[candidate.name] = seconds.get(candidate.name, 0.0) + elapsed
            if rival is not None and seen < len(self.questions):
                running = [candidate for candidate in running if not self._is_beaten(scored[candidate.name], rival)]
            if not running:
                break
        return {name: self._result(child_scores, rival, seconds[name]) for name, child_scores in scored.items()}

    def _stops(self, rival: TrialResult | None) -> list[int]:
        """After how many questions somebody may stop: twice as many each time."""
        stops, stop = list[int](), self.race.first
        while rival is not None and stop < len(self.questions):
            stops.append(stop)
            stop *= 2
        return [*stops, len(self.questions)]

    def _is_beaten(self, scored: Sequence[Scored], rival: TrialResult) -> bool:
        errors, rng = self._errors(scored), np.random.default_rng([_RACE, len(scored)])
        level, rival_errors = self.race.level, rival.items[: len(errors)]
        return paired_interval(errors, rival_errors, rng, level=level, resamples=_RESAMPLES).low > 0

    def _errors(self, scored: Sequence[Scored]) -> list[float]:
        pairs = zip(scored, self.questions, strict=False)
        return [1 - question_score.shares()[right_place(question)] for question_score, question in pairs]

    def _result(self, scored: Sequence[Scored], rival: TrialResult | None, seconds: float) -> TrialResult:
        """Of a child that stopped early the value is what it would be if it stayed as far behind the rival."""
        errors = self._errors(scored)
        value = fmean(errors)
        if len(errors) < len(self.questions) and rival is not None and rival.value is not None:
            deficit = value - fmean(rival.items[: len(errors)])
            value = min(1.0, rival.value + deficit)
        marks = mark_answers(scored, self.questions)
        metrics = {
            "items": len(errors),
            "accuracy": fmean(marks),
            "sets": by_set(marks, self.questions),
            "answers": [question_score.likeliest_index() for question_score in scored],
            "choices": [list(map(list, question_score.finite)) for question_score in scored],
            "seconds": round(seconds, 3),
        }
        return TrialResult("finished", value, metrics, items=tuple(errors))


def by_set(marks: Sequence[bool], questions: Sequence[QuizQuestion]) -> dict[str, float]:
    """Share of right answers in each set of questions."""
    marks_by_set: dict[str, list[bool]] = {}
    for mark, question in zip(marks, questions, strict=False):
        marks_by_set.setdefault(set_of(question), []).append(mark)
    return {name: fmean(set_marks) for name, set_marks in marks_by_set.items()}
