"""The one way to judge: both orders, believed only when they agree, whoever asks and however many at a time."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentlab.answers.judge import (
    JudgeCase,
    both_orders,
    decide,
    decide_async,
    decide_many,
    mark_each,
    place_of,
    tournament,
)


def case(count):
    return JudgeCase("Q?", [f"answer {index}" for index in range(count)], "Which is best?")


def match(reply, count):
    """How a match of `count` answers ends after these two verdicts."""
    (verdict,) = decide(both_orders(case(count), [tuple(range(count))]), lambda _: reply)
    return verdict


@given(st.integers(2, 8), st.data())
def test_only_the_same_answer_in_both_orders_counts(count, data):
    winner = data.draw(st.integers(0, count - 1))
    assert match([winner, count - 1 - winner], count).winner == winner
    other_winner = data.draw(st.sampled_from([candidate for candidate in range(8) if candidate != count - 1 - winner]))
    assert match([winner, other_winner], count).winner is None


@pytest.mark.parametrize(
    ("reply", "unread"), [((None, 0), 1), ((0, None), 1), ((7, 0), 0), ((0, 7), 0), ([None] * 2, 2)]
)
def test_no_verdict_or_one_on_no_answer_is_no_difference(reply, unread):
    verdict = match(reply, 2)
    assert (verdict.winner, verdict.unread) == (None, unread)


def test_a_ballot_shows_letters_in_its_order_and_a_lone_answer_none():
    first, second = next(both_orders(case(2), [(0, 1)]))
    assert (first.number, first.places, second.number, second.places) == (1, (0, 1), 2, (1, 0))
    assert "<answer A>\nanswer 1\n" in second.prompt
    assert second.prompt.endswith("Which is best?")
    assert "<answer>\nanswer 1\n" in next(mark_each(case(2), [1, 0]))[0].prompt
    assert [place_of(letter) for letter in "AH"] == [0, 7]


@given(st.permutations(range(9)).flatmap(lambda order: st.sampled_from([order[:3], order[:6], order[:7], order])))
def test_the_same_from_a_loop_and_from_tasks_at_once(order):
    def verdict(ballot):
        return ballot.places.index(max(ballot.places))

    def one_by_one(ballots):
        return [verdict(ballot) for ballot in ballots]

    async def at_once(ballots):
        async def later(ballot):
            await asyncio.sleep(0)
            return verdict(ballot)

        return await asyncio.gather(*map(later, ballots))

    numbers = []

    def noted(ballots):
        numbers.extend(ballot.number for ballot in ballots)
        return one_by_one(ballots)

    decision = decide(tournament(case(9), order), noted)
    assert decision == asyncio.run(decide_async(tournament(case(9), order), at_once))
    assert decision.best == max(order)
    assert numbers == list(range(1, len(numbers) + 1))


def test_many_judgements_are_asked_together_and_end_as_each_would_alone():
    sizes = {"pair": 2, "knockout": 9, "robin": 5, "lone": 1}
    ballots_at_once = []

    def ask_all(ballots):
        ballots_at_once.append(len(ballots))
        return pick_largest([ballot for _, ballot in ballots])

    def pick_largest(ballots):
        return [ballot.places.index(max(ballot.places)) for ballot in ballots]

    standings = decide_many({name: tournament(case(size), range(size)) for name, size in sizes.items()}, ask_all)
    assert standings == {
        name: decide(tournament(case(size), range(size)), pick_largest) for name, size in sizes.items()
    }
    assert ballots_at_once == [2 + 8 + 20, 4, 2, 2]


@given(st.integers(7, 16))
def test_a_knockout_asks_a_round_at_a_time(count):
    assert len(next(tournament(case(count), range(count)))) == 2 * (count // 2)


def test_a_lone_answer_is_best_unasked():
    def never(_):
        raise AssertionError

    assert decide(tournament(case(1), [0]), never).best == 0
    assert decide(mark_each(case(1), [0]), never).best == 0


def test_a_judgement_without_matches_ends_like_any_other_alone_and_among_many():
    def nothing(ballots):
        assert ballots == []
        return []

    assert decide(both_orders(case(2), []), nothing) == []
    assert decide_many({"a": both_orders(case(2), []), "b": both_orders(case(2), [])}, nothing) == {"a": [], "b": []}


def test_of_equal_marks_the_earlier_answer_is_best_and_an_unread_one_gives_none():
    decision = decide(mark_each(case(3), [2, 1, 0]), lambda _: [9, 9, None])
    assert (decision.best, decision.marks, decision.unread) == (1, {2: 9, 1: 9, 0: 0}, 1)
