"""Shapley values against all orders of joining; novelty and usefulness as they are defined."""

from fractions import Fraction
from itertools import permutations
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentlab.evolve.config import FitnessConfig
from agentlab.evolve.fitness import FitnessJudge, novelty, shapley
from agentlab.search.types import Proposal, Trial, TrialResult

ANSWERS = st.integers(1, 5).flatmap(
    lambda voters: st.lists(st.tuples(*[st.integers(0, 2)] * 3), min_size=voters, max_size=voters)
)


def worth(team: list[tuple[int, ...]], question: int) -> Fraction:
    """The right answer is 0, of three."""
    votes = [sum(row[question] == choice for row in team) for choice in range(3)]
    return Fraction(votes[0] == max(votes), votes.count(max(votes)))


def by_all_orders(answers: list[tuple[int, ...]]) -> list[float]:
    values = [Fraction()] * len(answers)
    orders = list(permutations(range(len(answers))))
    for order in orders:
        for root, voter in enumerate(order):
            team = [answers[member] for member in order[:root]]
            values[voter] += sum((worth([*team, answers[voter]], q) - worth(team, q) for q in range(3)), Fraction())
    return [float(value / len(orders) / 3) for value in values]


@given(ANSWERS)
def test_shapley_values_are_those_of_all_orders_of_joining(answers: list[tuple[int, ...]]) -> None:
    assert shapley(answers, (0, 0, 0), (3, 3, 3)) == pytest.approx(by_all_orders(answers), abs=1e-12)


@given(st.lists(st.tuples(*[st.integers(0, 3)] * 6), min_size=2, max_size=16), st.randoms())
def test_values_add_up_and_do_not_depend_on_who_comes_first(answers: list[tuple[int, ...]], rng: Any) -> None:
    values = shapley(answers, (0,) * 6, (4,) * 6)
    votes = [[sum(row[q] == choice for row in answers) for choice in range(4)] for q in range(6)]
    team_accuracy = sum((tally[0] == max(tally)) / tally.count(max(tally)) for tally in votes) / 6
    assert sum(values) == pytest.approx(team_accuracy - 1 / 4, abs=1e-9)
    order = list(range(len(answers)))
    rng.shuffle(order)
    shuffled = shapley([answers[root] for root in order], (0,) * 6, (4,) * 6)
    assert shuffled == pytest.approx([values[root] for root in order], abs=1e-12)


@given(st.lists(st.lists(st.floats(0, 1), min_size=4, max_size=4), min_size=1, max_size=6), st.integers(1, 5))
def test_novelty_is_the_mean_distance_to_the_nearest(rows: list[list[float]], nearest: int) -> None:
    old, new = rows[: len(rows) // 2], rows[len(rows) // 2 :]
    for root, distance in enumerate(novelty(new, old, nearest)):
        mine = np.array(new[root]) - np.mean(new[root])
        neighbours = [*old, *new[:root], *new[root + 1 :]]
        far = sorted(float(np.sqrt(np.mean((mine - np.array(row) + np.mean(row)) ** 2))) for row in neighbours)
        assert distance == pytest.approx(np.mean(far[:nearest]) if far else 0.0, abs=1e-9)


def child(number: int, items: list[float], *, count: int = 4) -> Trial:
    answers = [int(error > 0.5) for error in items][:count]
    value = float(np.mean(items))
    metrics = {"accuracy": 1 - float(np.mean(answers)), "answers": answers}
    return Trial(number, Proposal({}, "random"), TrialResult("finished", value, metrics, items=tuple(items[:count])))


JUDGE = FitnessJudge(FitnessConfig(cooperation=0.5, novelty=0.5, neighbours=1), (0,) * 4, (2,) * 4, (0, 1), 4)
FIRST = [
    child(0, [0.1, 0.1, 0.9, 0.9]),
    child(1, [0.9, 0.9, 0.1, 0.1]),
    child(2, [0.3, 0.3, 0.3, 0.3]),
    child(3, [0.9, 0.8, 0.9, 0.6]),
]


def test_without_other_terms_fitness_is_the_task() -> None:
    plain = FitnessJudge(FitnessConfig(cooperation=0, novelty=0), (0,) * 4, (2,) * 4, (0, 1), 4)
    assert [trial.result.value for trial in plain.seen(FIRST)] == pytest.approx([trial.result.value for trial in FIRST])


def test_novelty_does_not_save_a_useless_child() -> None:
    by_child = JUDGE.terms(FIRST)
    assert [terms.useful for terms in by_child.values()] == [True, True, True, False]
    assert by_child[3].fitness <= by_child[3].task
    strange = FitnessJudge(FitnessConfig(cooperation=0, novelty=10), (0,) * 4, (2,) * 4, (0, 1), 4)
    far = [*FIRST[:3], child(3, [1.0, 0.0, 1.0, 1.0])]
    assert strange.terms(far)[3].fitness <= strange.terms(far)[3].task


def test_what_a_child_is_worth_never_changes() -> None:
    later = [child(number, [0.2, 0.7, 0.1, number / 10]) for number in range(4, 8)]
    first, both = JUDGE.terms(FIRST), JUDGE.terms([*FIRST, *later])
    assert {number: both[number] for number in range(4)} == first
    assert set(both) == set(range(8))
    unfinished = [*FIRST, *later[:3], Trial(7, Proposal({}, "random"), TrialResult("running"))]
    assert JUDGE.terms(unfinished) == first


def test_one_that_stopped_early_has_a_task_and_no_voice() -> None:
    by_child = JUDGE.terms([*FIRST[:3], child(3, [0.9, 0.9, 0.9, 0.9], count=2)])
    assert (by_child[3].cooperation, by_child[3].novelty) == (None, None)
    assert by_child[3].fitness == pytest.approx(0.1)


def test_failed_children_are_passed_over() -> None:
    failed = Trial(3, Proposal({}, "random"), TrialResult("failed", error="nan"))
    assert set(JUDGE.terms([*FIRST[:3], failed])) == {0, 1, 2}
