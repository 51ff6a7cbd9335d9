"""What a child is worth: the task, its part in the vote of its generation, and how new its answers are. Pure.

Everything follows from kept answers, so no child is asked twice. A term counts in standard deviations of generation 0,
which never change: a child's fitness stays what it was, and children of different generations can be compared.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from math import comb, factorial, sqrt
from statistics import median

import numpy as np

from agentlab.evolve.config import FitnessConfig
from agentlab.search.history import batches
from agentlab.search.types import Trial


@dataclass(frozen=True, slots=True)
class Terms:
    """What a child of a finished generation is worth; of one that stopped early only the task is known.

    Attributes:
        task: mean probability of the right answer.
        solo: share of right answers.
        cooperation: Shapley value in the vote of its generation, share of questions.
        novelty: mean distance to the nearest behaviours before it and beside it.
        useful: it is not worse than its parents; otherwise the last two win it nothing.
        fitness: all of them, in units of the task.
    """

    task: float
    solo: float
    cooperation: float | None = None
    novelty: float | None = None
    useful: bool = True
    fitness: float = 0.0


@dataclass(frozen=True, slots=True)
class Judge:
    """How terms are found.

    Attributes:
        right: of each question, the place of the right choice.
        choices: of each question, how many there are.
        parents: numbers of the trials that are parents.
        population: children of a generation.
    """

    config: FitnessConfig
    right: tuple[int, ...]
    choices: tuple[int, ...]
    parents: tuple[int, ...]
    population: int

    def seen(self, history: Sequence[Trial]) -> list[Trial]:
        """The history as proposers learn from it: the value of a child is what it lacks in fitness."""
        found = self.terms(history)
        return [
            replace(trial, result=replace(trial.result, value=1 - found[trial.number].fitness))
            if trial.number in found
            else trial
            for trial in history
        ]

    def terms(self, history: Sequence[Trial]) -> dict[int, Terms]:
        """By number, of the children in finished generations that did not fail."""
        found: dict[int, Terms] = {}
        archive: list[Trial] = []
        scale: _Scale | None = None
        for members in batches(history, self.population):
            if any(trial.result.status == "running" for trial in members):
                break
            raw = self._raw(members, archive)
            scale = scale or self._scale(raw, members)
            found |= {number: scale.weighed(each) for number, each in raw.items()}
            archive += self._whole(members)
        return found

    def _whole(self, members: Sequence[Trial]) -> list[Trial]:
        """Those that answered every question."""
        return [trial for trial in members if len(trial.result.items) == len(self.right)]

    def _raw(self, members: Sequence[Trial], archive: Sequence[Trial]) -> dict[int, Terms]:
        found = {
            trial.number: Terms(1 - trial.result.value, trial.result.metrics["accuracy"])
            for trial in members
            if trial.result.value is not None
        }
        whole = self._whole(members)
        shares = shapley([tuple(trial.result.metrics["answers"]) for trial in whole], self.right, self.choices)
        distances = novelty([t.result.items for t in whole], [t.result.items for t in archive], self.config.neighbours)
        for trial, share, distance in zip(whole, shares, distances, strict=True):
            found[trial.number] = replace(found[trial.number], cooperation=share, novelty=distance)
        return found

    def _scale(self, raw: dict[int, Terms], members: Sequence[Trial]) -> "_Scale":
        parents = [trial for trial in self._whole(members) if trial.number in self.parents]
        least = -1.0
        if parents:
            errors = [float(np.std(trial.result.items, ddof=1)) / sqrt(len(self.right)) for trial in parents]
            least = median(raw[trial.number].task for trial in parents) - median(errors)
        return _Scale(
            least,
            _spread([each.task for each in raw.values()]),
            _spread([each.cooperation for each in raw.values() if each.cooperation is not None]),
            _spread([each.novelty for each in raw.values() if each.novelty is not None]),
            self.config,
        )


def _spread(values: Sequence[float]) -> tuple[float, float]:
    """Mean and standard deviation."""
    return (float(np.mean(values)), float(np.std(values))) if values else (0.0, 0.0)


@dataclass(frozen=True, slots=True)
class _Scale:
    """Means and deviations of the terms in generation 0, and the task below which a child is of no use."""

    least: float
    task: tuple[float, float]
    cooperation: tuple[float, float]
    novelty: tuple[float, float]
    config: FitnessConfig

    def weighed(self, raw: Terms) -> Terms:
        bonus = 0.0
        for weight, value, (mean, deviation) in (
            (self.config.cooperation, raw.cooperation, self.cooperation),
            (self.config.novelty, raw.novelty, self.novelty),
        ):
            if value is not None and deviation > 0:
                bonus += weight * (value - mean) / deviation * self.task[1]
        useful = raw.task >= self.least
        return replace(raw, useful=useful, fitness=raw.task + (bonus if useful else min(bonus, 0.0)))


def novelty(items: Sequence[Sequence[float]], archive: Sequence[Sequence[float]], nearest: int) -> list[float]:
    """How far each of a generation is from what is known: mean distance to the nearest in archive and generation.

    A behaviour is the error on each question less the child's mean, so that being better everywhere is nothing new.
    `items`: (children, questions) errors; `archive`: the same of all that were before. `nearest`: how many neighbours
    count.
    """
    if not items:
        return []
    known = np.array([*archive, *items], dtype=np.float64)
    known -= known.mean(axis=1, keepdims=True)
    mine = known[len(archive) :]
    distances = np.sqrt(((mine[:, None] - known[None]) ** 2).mean(axis=2))
    distances[np.arange(len(mine)), len(archive) + np.arange(len(mine))] = np.inf
    count = min(nearest, len(known) - 1)
    return [float(row[:count].mean()) if count else 0.0 for row in np.sort(distances, axis=1)]


def shapley(answers: Sequence[tuple[int, ...]], right: Sequence[int], choices: Sequence[int]) -> list[float]:
    """Each voter's exact Shapley value: how many more questions a plurality vote is right on for its voice.

    A team's worth is the share of questions on which its vote is right; where several answers lead, a lot is drawn, and
    with nobody in it a lot is drawn among all choices. Values add up to the worth of all over that of nobody.

    Args:
        answers: (voters, questions) places of the chosen answers.
        right: of each question, the place of the right answer.
        choices: of each question, how many there are.
    """
    values = [0.0] * len(answers)
    for question, (place, count) in enumerate(zip(right, choices, strict=True)):
        said = [row[question] for row in answers]
        votes = {answer: said.count(answer) for answer in set(said)}
        others = tuple(sorted(number for answer, number in votes.items() if answer != place))
        gained = _gained(votes.get(place, 0), others, count)
        for voter, answer in enumerate(said):
            values[voter] += gained[0 if answer == place else votes[answer]]
    return [value / len(right) for value in values] if right else values


@cache
def _gained(right: int, others: tuple[int, ...], choices: int) -> dict[int, float]:
    """On one question: the value of a voter for the right answer (key 0), and of one for a wrong answer with so many.

    Voters who answer alike are alike, so teams are told apart by how many of each answer they hold: with 16 voters and
    four answers at most 625, instead of 65,536.
    """
    groups, found = (right, *others), dict[int, float]()
    whole = sum(groups)
    for place, size in enumerate(groups):
        key = size if place else 0
        if not size or key in found:
            continue
        own = [number - (index == place) for index, number in enumerate(groups)]
        value = 0.0
        for team in product(*(range(number + 1) for number in own)):
            joined = tuple(number + (index == place) for index, number in enumerate(team))
            ways = 1
            for number, held in zip(own, team, strict=True):
                ways *= comb(number, held)
            chance = ways * factorial(sum(team)) * factorial(whole - sum(team) - 1) / factorial(whole)
            value += chance * (_worth(joined, choices) - _worth(team, choices))
        found[key] = value
    return found


def _worth(team: tuple[int, ...], choices: int) -> float:
    """The chance that a team's vote is right; the first number is that of voices for the right answer."""
    most = max(team)
    if most == 0:
        return 1 / choices
    return 1 / team.count(most) if team[0] == most else 0.0
