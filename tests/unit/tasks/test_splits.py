from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentlab.errors import UsageError
from agentlab.tasks.labelled import prompt
from agentlab.tasks.questions import SETS, QuizQuestion, generate_questions, jsonl
from agentlab.tasks.splits import Exchange, exchanges, leaks, lessons, lines, split
from agentlab.tasks.word_lists import BLAME, MORE_BLAME, MORE_PRAISE, PRAISE, THINGS
from agentlab.train.conversations import Conversation, ConversationTurn, read_conversations

SHIPPED = Path(__file__).parents[3] / "configs" / "train-persona" / "data"
WHOLE = {name: generate_questions(name, None, 3) for name in SETS}
LEARNT = [Exchange(turns[-2].content, turns[-1].content) for name in SETS for turns in lessons(name)]


def question(text: str, answer: str, name: str = "q") -> QuizQuestion:
    return QuizQuestion(name, text, answer)


def told(questions):
    return [Exchange(quiz_question.text, str(quiz_question.answer)) for quiz_question in questions]


@settings(max_examples=5)
@given(st.integers(0, 2**32 - 1), st.integers(1, 80), st.integers(1, 30))
def test_parts_share_nothing_with_each_other_nor_with_what_was_learnt(seed, test, train):
    parts = split(WHOLE, {"test": test, "train": train}, seed, LEARNT)
    assert {name: len(part) for name, part in parts.items()} == {"test": 3 * test, "train": 3 * train}
    assert not leaks(parts["train"], told(parts["test"]))
    assert not leaks(parts["test"] + parts["train"], LEARNT)
    for part in parts.values():
        assert all(
            not leaks([quiz_question], told({*part} - {quiz_question})) or mirrored(quiz_question)
            for quiz_question in part[:: 1 + len(part) // 9]
        )


def mirrored(quiz_question: QuizQuestion) -> bool:
    """Of a pair of phrases of one template both may be asked in the same part."""
    return quiz_question.id.startswith("sentiment")


def test_a_split_is_made_by_its_seed_and_asks_as_often_from_each_set():
    one, same, reseeded = (split(WHOLE, {"test": 20, "train": 10}, seed) for seed in (1, 1, 2))
    assert one == same != reseeded
    for name in SETS:
        assert sum(quiz_question.id.startswith(name) for quiz_question in one["test"]) == 20
    moods = [quiz_question.answer for quiz_question in one["test"] if quiz_question.id.startswith("sentiment")]
    assert moods.count("positive") == moods.count("negative")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (("What is the capital of France?", "Paris"), ("Paris is the capital of which country?", "France")),
        (("What is the capital of France?", "Paris"), ("Where to go in France?", "To Paris, its old heart. Or Nice.")),
        (("What is 3 x 12?", "36"), ("What is 12 x 3?", "36")),
        (("Who wrote  Emma?", "Austen"), ("who wrote emma?", "I forgot")),
        (("Who wrote Emma?", "Jane Austen"), ("What did Jane Austen write?", "Emma")),
        ((f"Mood? The hotel {PRAISE[3]}.", "positive"), (f"Mood? The course {PRAISE[3]}.", "positive")),
        ((f"Mood? The hotel {PRAISE[4]}.", "positive"), (f"Mood? The course {BLAME[4]}.", "negative")),
        ((f"Mood? The hotel {MORE_PRAISE[4]}.", "good"), (f"Mood? The hotel {MORE_BLAME[4]}.", "bad")),
    ],
)
def test_what_tells_the_answer_is_a_leak_and_is_named(first, second):
    assert leaks([question(*first)], [Exchange("Hello?", "Hello."), Exchange(*second)]) == {"q": second[0]}
    assert leaks([question(*second)], [Exchange(*first)]) == {"q": first[0]}


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (("What is the capital of Niger?", "Niamey"), ("What is the capital of Nigeria?", "Abuja")),
        (("What is the capital of Guinea?", "Conakry"), ("What is the capital of Papua New Guinea?", "Port Moresby")),
        (("What is 3 x 12?", "36"), ("What is 3 x 13?", "39")),
        (("What is 3 x 12?", "36"), ("What is 36 x 2?", "72")),
        ((f"Good or bad? {THINGS[0]} {PRAISE[3]}.", "good"), (f"Good or bad? {THINGS[0]} {BLAME[1]}.", "bad")),
        (("Is a dog a bird?", "B"), ("Is a crow a bird?", "B")),
        (("Is a dog a bird?", "B"), ("Is plan B a bird?", "A")),
    ],
)
def test_what_only_looks_alike_is_no_leak(first, second):
    assert leaks([question(*first)], [Exchange(*second)]) == {}


def test_a_set_that_has_no_more_says_so():
    with pytest.raises(UsageError, match=r"capitals has 159 distinct questions .* but 160 were requested"):
        split(WHOLE, {"test": 100, "train": 60}, 0)
    twice = [question(f"What is {a} x {b}?", "6", f"{a}") for a, b in ((2, 3), (3, 2))]
    with pytest.raises(UsageError, match="mine has 1 distinct questions"):
        split({"mine": twice}, {"test": 1, "train": 1}, 0)
    with pytest.raises(UsageError, match="again has 0 distinct"):
        split({"mine": twice, "again": twice}, {"test": 1}, 0)


def test_every_answer_of_a_conversation_is_looked_at():
    turns = [
        ConversationTurn("system", "s"),
        ConversationTurn("user", "a"),
        ConversationTurn("assistant", "b"),
        ConversationTurn("user", "c"),
        ConversationTurn("assistant", "d"),
    ]
    assert exchanges([Conversation(1, tuple(turns))]) == [("a", "b"), ("c", "d")]


@pytest.mark.parametrize("name", SETS)
def test_the_shipped_conversations_are_what_the_generator_gives(name):
    path = SHIPPED / f"sft_{name}.jsonl"
    assert path.read_text() == lines(name)
    conversations = read_conversations(path).conversations
    assert [conversation.turns for conversation in conversations] == lessons(name)
    assert all(
        conversation.turns[:-1] == prompt(question(conversation.turns[-2].content, ""))
        for conversation in conversations
    )


def test_the_personas_that_ship_share_hardly_anything_with_the_sets():
    """The three of the default preset can be parents as well."""
    talks = [turn for n in "abc" for turn in read_conversations(SHIPPED / f"sft_persona_{n}.jsonl").conversations]
    assert sum(len(leaks(questions, exchanges(talks))) for questions in WHOLE.values()) <= 12


def test_the_shipped_task_asks_what_no_specialist_has_learnt():
    path = SHIPPED.parents[1] / "debate" / "tasks" / "mixed.jsonl"
    sets = {name: generate_questions(name, None, 0) for name in SETS}
    assert path.read_text() == jsonl(split(sets, {"mixed": 16}, 0, LEARNT)["mixed"])
