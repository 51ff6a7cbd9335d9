"""One answer out of several."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentlab.tasks.votes import Vote, plurality

answers = st.lists(st.sampled_from(["a", "b", "c", None]), max_size=12)


def test_the_most_named_answer_wins_and_abstentions_count_for_the_whole():
    assert plurality(["a", "b", "b", None]) == Vote("b", 0.5, 0.25)


def test_of_equals_the_first_wins():
    assert plurality(["b", "a", "a", "b"]).winner == "b"


def test_weight_beats_number():
    assert plurality(["a", "a", "b"], [1, 1, 3]) == Vote("b", 0.6, pytest.approx(0.2))


@pytest.mark.parametrize("given", [[], [None, None]])
def test_nobody_wins_without_a_vote(given):
    assert plurality(given) == Vote(None, 0.0, 0.0)


@pytest.mark.parametrize("weights", [[1.0], [1.0, -1.0], [1.0, float("nan")]])
def test_weights_have_to_fit(weights):
    with pytest.raises(ValueError, match="one weight"):
        plurality(["a", "b"], weights)


@given(answers)
def test_the_winner_has_as_many_votes_as_anybody(given):
    vote = plurality(given)
    counts = {answer: given.count(answer) for answer in given if answer is not None}
    assert vote.share * len(given) == pytest.approx(max(counts.values(), default=0))
    assert 0 <= vote.margin <= vote.share <= 1
