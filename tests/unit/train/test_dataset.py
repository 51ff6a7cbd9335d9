"""What is held out, and whether the training has seen it."""

from hypothesis import given
from hypothesis import strategies as st

from agentlab.train.data_report import Leak, leakage
from agentlab.train.dataset import hold_out, normalise_text
from tests.unit.train.chats import chat

MANY = [chat(f"question {n}", "answer", line=n) for n in range(200)]


def test_a_fraction_is_held_out_and_the_order_stays():
    train, held_out = hold_out(MANY, 0.1, seed=0)
    assert len(held_out) == 20
    assert sorted([*train, *held_out], key=lambda conversation: conversation.line) == MANY
    assert [conversation.line for conversation in train] == sorted(conversation.line for conversation in train)
    assert hold_out(MANY, 0.1, seed=0) == (train, held_out)
    assert hold_out(MANY, 0.1, seed=1) != (train, held_out)


def test_who_is_held_out_depends_on_the_questions_and_not_on_their_places():
    lines = {conversation.line for conversation in hold_out(MANY, 0.1, seed=0)[1]}
    assert {conversation.line for conversation in hold_out(MANY[::-1], 0.1, seed=0)[1]} == lines
    extended = [*MANY, *(chat(f"more {n}", "answer", line=1000 + n) for n in range(10))]
    assert len({conversation.line for conversation in hold_out(extended, 0.1, seed=0)[1]} & lines) >= 17


@given(
    st.lists(st.sampled_from(["a", "A!", "b", " b", "c", "d", "ä", "!"]), max_size=30),
    st.floats(0, 0.9),
    st.integers(0, 9),
)
def test_conversations_with_one_first_question_stay_together(questions, fraction, seed):
    conversations = [chat(question, "answer", line=n) for n, question in enumerate(questions)]
    train, held_out = hold_out(conversations, fraction, seed)
    assert len(train) + len(held_out) == len(conversations)
    first = [{normalise_text(conversation.turns[0].content) for conversation in side} for side in (train, held_out)]
    assert not first[0] & first[1]
    if fraction > 0 and len(first[0] | first[1]) > 1:
        assert train
        assert held_out
    assert fraction > 0 or not held_out


def test_without_a_second_question_nothing_can_be_held_out():
    assert hold_out([chat("Hello", str(n)) for n in range(9)], 0.5, seed=0)[1] == ()


def test_questions_are_compared_by_their_words():
    assert normalise_text("  What is THIS, please?\n") == normalise_text("what is this please")
    assert normalise_text("2 + 2") != normalise_text("2 + 3")
    assert normalise_text("🦜") == "🦜"


def test_leaks_are_exact_or_of_questions_in_their_context():
    train = [chat("a", "b", line=1), chat("x", "y", "Who are you?", "I", line=2), chat("a", "b", line=3)]
    held_out = [
        chat("X!", "Y", "who are YOU", "Me", line=10),
        chat("a", "b", line=11),
        chat("a", "b", system="Be kind", line=12),
        chat("x", "y", line=13),
        chat("x", "another", "Who are you?", "I", line=14),
        chat("Who are you?", "I", line=15),
    ]
    assert leakage(train, held_out) == [
        Leak(held_out=11, train=1, turns=2, exact=True),
        Leak(held_out=10, train=2, turns=3, exact=False),
        Leak(held_out=12, train=1, turns=2, exact=False),
        Leak(held_out=13, train=2, turns=2, exact=False),
        Leak(held_out=14, train=2, turns=1, exact=False),
    ]


def test_a_question_that_goes_on_is_no_leak_of_another_talk():
    train = [chat("Tell me of the sea", "It is wide", "And then?", "It goes on", line=1)]
    assert leakage(train, [chat("Tell me of a hill", "It is high", "And then?", "It goes on", line=2)]) == []


def test_of_several_talks_the_one_that_shares_most_is_named():
    train = [chat("a", "b", line=1), chat("a", "b", "c", "d", line=2), chat("a", "b", "c", "d", "e", "f", line=3)]
    assert leakage(train, [chat("a", "b", "c", "d", "e", "g", line=9)]) == [
        Leak(held_out=9, train=3, turns=5, exact=False)
    ]
