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
    """What a child of a finished generation is worth; of one that stopped early only the task is known."""

    task: float  # mean probability of the right answer
    solo: float  # share of right answers
    cooperation: float | None = None  # Shapley value in the vote of its generation, share of questions
    novelty: float | None = None  # mean distance to the nearest behaviours before it and beside it
    useful: bool = True  # not worse than its parents; otherwise cooperation and novelty win it nothing
    fitness: float = 0.0  # all of them, in units of the task


@dataclass(frozen=True, slots=True)
class FitnessJudge:
    """How terms are found."""

    config: FitnessConfig
    right: tuple[int, ...]  # of each question, the place of the right choice
    choices: tuple[int, ...]  # of each question, how many there are
    parents: tuple[int, ...]  # numbers of the trials that are parents
    population: int  # children of a generation

    def seen(self, history: Sequence[Trial]) -> list[Trial]:
        """The history as proposers learn from it: the value of a child is what it lacks in fitness."""
        terms = self.terms(history)
        return [
            replace(trial, result=replace(trial.result, value=1 - terms[trial.number].fitness))
            if trial.number in terms
            else trial
            for trial in history
        ]

    def terms(self, history: Sequence[Trial]) -> dict[int, Terms]:
        """By number, of the children in finished generations that did not fail."""
        terms: dict[int, Terms] = {}
        archive: list[Trial] = []
        scale: _Scale | None = None
        for members in batches(history, self.population):
            if any(trial.result.status == "running" for trial in members):
                break
            raw = self._raw(members, archive)
            scale = scale or self._scale(raw, members)
            terms |= {number: scale.weigh_terms(raw_terms) for number, raw_terms in raw.items()}
            archive += self._fully_answered(members)
        return terms

    def _fully_answered(self, members: Sequence[Trial]) -> list[Trial]:
        return [trial for trial in members if len(trial.result.items) == len(self.right)]

    def _raw(self, members: Sequence[Trial], archive: Sequence[Trial]) -> dict[int, Terms]:
        terms = {
            trial.number: Terms(1 - trial.result.value, trial.result.metrics["accuracy"])
            for trial in members
            if trial.result.value is not None
        }
        complete, earlier = self._fully_answered(members), [trial.result.items for trial in archive]
        shares = shapley([tuple(trial.result.metrics["answers"]) for trial in complete], self.right, self.choices)
        distances = novelty([trial.result.items for trial in complete], earlier, self.config.neighbours)
        for trial, share, distance in zip(complete, shares, distances, strict=True):
            terms[trial.number] = replace(terms[trial.number], cooperation=share, novelty=distance)
        return terms

    def _scale(self, raw: dict[int, Terms], members: Sequence[Trial]) -> "_Scale":
        parents = [trial for trial in self._fully_answered(members) if trial.number in self.parents]
        minimum_task = -1.0
        if parents:
            errors = [float(np.std(trial.result.items, ddof=1)) / sqrt(len(self.right)) for trial in parents]
            minimum_task = median(raw[trial.number].task for trial in parents) - median(errors)
        return _Scale(
            minimum_task,
            _spread([terms.task for terms in raw.values()]),
            _spread([terms.cooperation for terms in raw.values() if terms.cooperation is not None]),
            _spread([terms.novelty for terms in raw.values() if terms.novelty is not None]),
            self.config,
        )


def _spread(values: Sequence[float]) -> tuple[float, float]:
    return (float(np.mean(values)), float(np.std(values))) if values else (0.0, 0.0)


@dataclass(frozen=True, slots=True)
class _Scale:
    """Means and deviations of the terms in generation 0, and the task below which a child is of no use."""

    least: float
    task: tuple[float, float]
    cooperation: tuple[float, float]
    novelty: tuple[float, float]
    config: FitnessConfig

    def weigh_terms(self, raw: Terms) -> Terms:
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
    `items`: (children, questions) errors; `archive`: the same of all before; `nearest`: how many neighbours count.
    """
    if not items:
        return []
    behaviours = np.array([*archive, *items], dtype=np.float64)
    behaviours -= behaviours.mean(axis=1, keepdims=True)
    mine = behaviours[len(archive) :]
    distances = np.sqrt(((mine[:, None] - behaviours[None]) ** 2).mean(axis=2))
    distances[np.arange(len(mine)), len(archive) + np.arange(len(mine))] = np.inf
    count = min(nearest, len(behaviours) - 1)
    return [float(row[:count].mean()) if count else 0.0 for row in np.sort(distances, axis=1)]


def shapley(answers: Sequence[tuple[int, ...]], right: Sequence[int], choices: Sequence[int]) -> list[float]:
    """Each voter's exact Shapley value: how many more questions a plurality vote is right on for its voice.

    A team's worth is the share of questions on which its vote is right; where several answers lead, a lot is drawn, and
    with nobody in it a lot is drawn among all choices. Values add up to the worth of all over that of nobody.
    `answers`: (voters, questions) places of the chosen answers; `right`: of each question, that of the right one;
    `choices`: how many there are.
    """
    values = [0.0] * len(answers)
    for question, (right_choice, count) in enumerate(zip(right, choices, strict=True)):
        question_answers = [row[question] for row in answers]
        votes = {answer: question_answers.count(answer) for answer in set(question_answers)}
        wrong_counts = tuple(sorted(number for answer, number in votes.items() if answer != right_choice))
        voter_values = _voter_values(votes.get(right_choice, 0), wrong_counts, count)
        for voter, answer in enumerate(question_answers):
            values[voter] += voter_values[0 if answer == right_choice else votes[answer]]
    return [value / len(right) for value in values] if right else values


@cache
def _voter_values(right: int, wrong_counts: tuple[int, ...], choices: int) -> dict[int, float]:
    """On one question: the value of a voter for the right answer (key 0), and of one for a wrong answer with so many.

    Voters who answer alike are alike, so teams are told apart by how many of each answer they hold: with 16 voters and
    four answers at most 625, instead of 65,536.
    """
    groups, values = (right, *wrong_counts), dict[int, float]()
    voter_count = sum(groups)
    for group_index, size in enumerate(groups):
        key = size if group_index else 0
        if not size or key in values:
            continue
        remaining = [number - (index == group_index) for index, number in enumerate(groups)]
        value = 0.0
        for team in product(*(range(number + 1) for number in remaining)):
            joined = tuple(number + (index == group_index) for index, number in enumerate(team))
            ways = 1
            for number, member_count in zip(remaining, team, strict=True):
                ways *= comb(number, member_count)
            chance = ways * factorial(sum(team)) * factorial(voter_count - sum(team) - 1) / factorial(voter_count)
            value += chance * (_worth(joined, choices) - _worth(team, choices))
        values[key] = value
    return values


def _worth(team: tuple[int, ...], choices: int) -> float:
    """The chance that a team's vote is right; the first number is that of voices for the right answer."""
    most_votes = max(team)
    if most_votes == 0:
        return 1 / choices
    return 1 / team.count(most_votes) if team[0] == most_votes else 0.0
