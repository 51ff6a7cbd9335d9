"""One answer out of several, by every rule: who wins, by how much, and what never changes it."""

from fractions import Fraction
from itertools import chain

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from agentlab.answers.votes import borda, softmax, trajectory, vote

ANSWERS = st.lists(st.sampled_from(["a", "b", "c", None]), max_size=12)
WEIGHTS = st.floats(0, 1)
WEIGHTED = st.lists(st.tuples(st.sampled_from(["a", "b", "c", None]), WEIGHTS), max_size=12)
BALLOTS = st.lists(st.lists(st.sampled_from("abcd"), unique=True), max_size=8)
ROUNDS = st.integers(1, 5).flatmap(
    lambda voters: st.lists(
        st.lists(st.sampled_from(["a", "b", "c", None]), min_size=voters, max_size=voters), min_size=1, max_size=4
    )
)


def scores(tally):
    return {group.answer: group.weight for group in tally.groups}


def test_the_most_named_answer_wins_and_what_could_not_be_read_counts_for_the_whole():
    tally = vote(["a", "b", "b", None])
    assert (tally.winner, tally.share, tally.margin) == ("b", 0.5, 0.25)
    assert tally.groups[0].voters == (1, 2)


def test_of_equals_the_first_wins():
    tally = vote(["b", "a", "a", "b"])
    assert (tally.winner, tally.margin) == ("b", 0)
    assert [group.answer for group in tally.leaders] == ["b", "a"]


def test_weight_beats_number_and_weights_are_added_as_they_are_written():
    assert vote(["a", "a", "b"], [1, 1, 3]).winner == "b"
    assert len(vote(["a", "a", "b"], [0.1, 0.2, 0.3]).leaders) == 2


@pytest.mark.parametrize("answers", [[], [None, None]])
def test_nobody_wins_without_an_answer(answers):
    tally = vote(answers)
    assert (tally.winner, tally.share, tally.margin, tally.leaders) == (None, 0.0, 0.0, ())
    assert vote(["a"], [0]).winner is None


@pytest.mark.parametrize("weights", [[1.0], [1.0, -1.0], [1.0, float("nan")], [1.0, float("inf")]])
def test_weights_have_to_fit(weights):
    with pytest.raises(ValueError, match="one weight"):
        vote(["a", "b"], weights)


@given(ANSWERS)
def test_the_winner_has_as_many_votes_as_anybody(answers):
    tally = vote(answers)
    counts = {answer: answers.count(answer) for answer in answers if answer is not None}
    assert tally.share * len(answers) == pytest.approx(max(counts.values(), default=0))
    assert 0 <= tally.margin <= tally.share <= 1


@given(WEIGHTED, st.randoms())
def test_the_order_of_voters_decides_nothing_but_ties(weighted, rng):
    tally = vote([a for a, _ in weighted], [w for _, w in weighted])
    shuffled = rng.sample(weighted, len(weighted))
    shuffled_tally = vote([a for a, _ in shuffled], [w for _, w in shuffled])
    assert scores(shuffled_tally) == scores(tally)
    assert (shuffled_tally.share, shuffled_tally.margin, len(shuffled_tally.leaders)) == (
        tally.share,
        tally.margin,
        len(tally.leaders),
    )
    assert len(tally.leaders) != 1 or shuffled_tally.winner == tally.winner


@given(st.lists(st.floats(-50, 50), min_size=1, max_size=9), st.floats(0.01, 100), st.randoms())
def test_a_softmax_is_a_distribution_that_keeps_the_order(confidences, temperature, rng):
    weights = softmax(confidences, temperature)
    assert sum(weights) == pytest.approx(1)
    assert all(0 <= weight <= 1 for weight in weights)
    pairs = sorted(zip(confidences, weights, strict=True))
    assert [weight for _, weight in pairs] == sorted(weights)
    order = rng.sample(range(len(weights)), len(weights))
    assert softmax([confidences[index] for index in order], temperature) == [weights[index] for index in order]


def test_a_softmax_goes_from_the_surest_to_the_majority():
    answers, confidences = ["a", "b", "b"], [0.9, 0.6, 0.6]
    assert vote(answers, softmax(confidences, 0.1)).winner == "a"
    assert vote(answers, softmax(confidences, 10)).winner == "b"
    assert softmax([]) == []
    with pytest.raises(ValueError, match="above 0"):
        softmax(confidences, 0)


def test_borda_takes_whom_most_can_agree_on():
    ballots = [*["acb"] * 3, *["bca"] * 2, *["cab"] * 2]
    assert scores(borda(ballots)) == {"a": 15, "b": 11, "c": 16}
    assert vote([ballot[0] for ballot in ballots]).winner == "a"
    assert borda(ballots).winner == "c"


def test_what_a_ballot_leaves_out_shares_the_rest():
    assert scores(borda(["a", "bc", ""])) == {"a": 6, "b": Fraction(13, 2), "c": Fraction(11, 2)}
    assert borda(["a"]).winner == "a"
    assert borda([[], []]).winner is None


@given(BALLOTS, st.randoms())
def test_all_ballots_of_a_borda_count_weigh_the_same_and_their_order_decides_nothing_but_ties(ballots, rng):
    tally, shuffled_tally = borda(ballots), borda(rng.sample(ballots, len(ballots)))
    answer_count = len(set(chain.from_iterable(ballots)))
    assert sum(scores(tally).values()) == tally.whole == Fraction(len(ballots) * answer_count * (answer_count + 1), 2)
    assert scores(shuffled_tally) == scores(tally)
    assert 0 <= tally.margin <= tally.share <= 1
    assert scores(borda([*ballots, []])) == {a: w + Fraction(answer_count + 1, 2) for a, w in scores(tally).items()}


@given(BALLOTS, st.data())
def test_to_be_raised_on_a_ballot_never_harms(ballots, data):
    assume(any(ballots))
    index = data.draw(st.sampled_from([index for index, ballot in enumerate(ballots) if ballot]))
    answer = data.draw(st.sampled_from(ballots[index]))
    raised = [answer, *(candidate for candidate in ballots[index] if candidate != answer)]
    changed = [raised if number == index else ballot for number, ballot in enumerate(ballots)]
    assert scores(borda(changed))[answer] >= scores(borda(ballots))[answer]


def test_a_trajectory_pays_for_what_was_given_up():
    tally = trajectory([["x", "y"], ["z", "y"]])  # 20 - 25/2, 20 + 20/2, 30/2
    assert scores(tally) == {"x": Fraction(15, 2), "y": 30, "z": 15}
    assert (tally.winner, tally.groups[0].voters) == ("y", (1,))
    assert tally.share == pytest.approx(30 / 52.5)


def test_one_round_of_a_trajectory_is_the_majority():
    assert trajectory([["a", "b", "b", None]]).winner == "b"
    assert trajectory([[]]).winner is None


def test_an_answer_that_cannot_be_read_backs_nobody_and_counts_for_the_whole():
    assert trajectory([["x", None], ["x", "x"]]).share == pytest.approx(40 / 60)
    assert scores(trajectory([["x"], [None], ["x"]])) == {"x": 20 + Fraction(20, 3)}
    assert scores(trajectory([[None], ["x"]])) == {"x": 10}
    with pytest.raises(ValueError, match="shorter than"):
        trajectory([["a", "b"], ["a"]])


@given(ROUNDS, st.randoms())
def test_the_order_of_voters_decides_nothing_of_a_trajectory_but_ties(rounds, rng):
    tally = trajectory(rounds)
    order = rng.sample(range(len(rounds[0])), len(rounds[0]))
    shuffled_tally = trajectory([[answers[index] for index in order] for answers in rounds])
    assert scores(shuffled_tally) == scores(tally)
    assert 0 <= tally.margin <= tally.share <= 1
    assert len(tally.leaders) != 1 or shuffled_tally.winner == tally.winner
