"""Questions: what a text answers, what is right, and what a file may hold."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentlab.errors import DataError, MissingFileError, UnknownNameError, UsageError
from agentlab.tasks.questions import SETS, QuizQuestion, digest, generate_questions, read_questions
from agentlab.tasks.word_lists import BLAME, PRAISE

CAPITAL = QuizQuestion("q", "What is the capital of Peru?", "Lima", ("Quito", "Lima", "La Paz"), "choice")
SUM = QuizQuestion("q", "What is 3 + 4?", "7", kind="number")
WORD = QuizQuestion("q", "What is the opposite of cold?", "hot")

numbers = st.integers(-(10**12), 10**12) | st.decimals(-(10**9), 10**9, places=3)
PIECES = (
    "Answer:",
    "Lima",
    "Quito",
    "7",
    "\uff17",
    "1e5",
    "-",
    ".",
    " ",
    "\n",
    "\\boxed{",
    "}",
    "</think>",
    "not ",
    "**",
)
words = st.text("abcdefghij", min_size=1, max_size=8)


def test_a_prompt_shows_the_choices_from_any_place_on_and_no_letters():
    assert CAPITAL.prompt() == "What is the capital of Peru?\n- Quito\n- Lima\n- La Paz"
    assert CAPITAL.prompt(2) == "What is the capital of Peru?\n- La Paz\n- Quito\n- Lima"
    assert CAPITAL.prompt(3) == CAPITAL.prompt()
    assert SUM.prompt(1) == SUM.text


@pytest.mark.parametrize(
    ("question", "text", "expected"),
    [
        (CAPITAL, "The capital is lima.", "lima"),
        (CAPITAL, "It is not Quito, it is Lima", "lima"),
        (CAPITAL, "Quito or Lima? Answer: Lima", "lima"),
        (CAPITAL, "Answer:  LA  PAZ", "la paz"),
        (CAPITAL, "\uff2c\uff49\uff4d\uff41", "lima"),
        (CAPITAL, "Quito or Lima", None),
        (CAPITAL, "Limassol", None),
        (CAPITAL, "", None),
        (SUM, "3 + 4 = 7", "7"),
        (SUM, "7.0", "7"),
        (SUM, "Answer: \uff17", "7"),
        (SUM, "Answer: 1,007 apples", "1007"),
        (SUM, "seven", None),
        (WORD, "Answer: Hot.", "hot"),
        (WORD, "", None),
        (replace(CAPITAL, choices=("Guinea", "Guinea-Bissau")), "Answer: Guinea-Bissau", "guinea-bissau"),
        (replace(CAPITAL, choices=("7", "-7", "17")), "7 - 14 = -7", "-7"),
        (replace(CAPITAL, choices=("7", "17")), "Answer: 17.0", "17"),
        (replace(CAPITAL, choices=("7", "17")), "Answer: 1.7", None),
        (replace(CAPITAL, choices=("1/2", "11/2")), "Answer: 11/2", "11/2"),
    ],
)
def test_an_answer_is_read_as_equal_answers_share_it(question: QuizQuestion, text: str, expected: str | None):
    assert question.read(text) == expected


def test_only_what_was_read_is_right_and_nothing_of_a_topic():
    assert CAPITAL.right("lima")
    assert not CAPITAL.right("quito")
    assert not CAPITAL.right(None)
    assert SUM.right(SUM.read("7.0"))
    assert replace(SUM, answer="7.0").right("7")
    topic = QuizQuestion("t", "Is tea better than coffee?")
    assert topic.read("Answer: Tea") == "tea"
    assert not topic.right("tea")


@given(numbers, st.sampled_from(["{}", "Answer: {}", "so it is {}", "\\boxed{{{}}}"]))
def test_numbers_are_compared_by_value(number, form):
    wide = str(number).translate({ord("0") + n: ord("\uff10") + n for n in range(10)})
    question = QuizQuestion("q", "?", str(number), kind="number")
    assert question.right(question.read(form.format(number)))
    assert question.right(question.read(form.format(wide)))
    assert not question.right(question.read(form.format(number + 1)))


@given(st.lists(words, min_size=2, max_size=6, unique=True), st.data())
def test_a_choice_that_is_stated_is_read_whatever_its_case(choices, data):
    chosen = data.draw(st.sampled_from(choices))
    question = QuizQuestion("q", "?", chosen, tuple(choices), "choice")
    assert question.right(question.read(f"{' or '.join(choices)}?\nAnswer: **{chosen.upper()}**."))


@given(st.lists(st.text(max_size=9) | st.sampled_from(PIECES), max_size=12), st.sampled_from([CAPITAL, SUM, WORD]))
def test_any_text_is_read_or_not_and_what_is_read_reads_as_itself(pieces, question):
    reading = question.read("".join(pieces))
    assert reading is None or question.kind == "text" or question.read(f"Answer: {reading}") == reading


# -- sets that ship -------------------------------------------------------------------------------------------------

SIZES = {"capitals": 318, "sentiment": 1520, "times_table": 319}


def test_a_set_never_changes_unnoticed():
    """Runs of two versions compare only where their questions are the same: a new digest is a change to announce."""
    assert {name: digest(generate_questions(name, 60, 0))[7:23] for name in SETS} == {
        "capitals": "6a24f4baf8cbc56d",
        "sentiment": "718c84c1baa4444b",
        "times_table": "8bd54304a422479f",
    }


@pytest.mark.parametrize("name", SETS)
@settings(max_examples=20)
@given(st.integers(0, 2**32 - 1), st.integers(1, 60))
def test_fewer_are_the_first_of_more_and_each_can_be_answered(name, seed, count):
    questions = generate_questions(name, 60, seed)
    assert generate_questions(name, count, seed) == questions[:count]
    assert len({(q.text, frozenset(q.choices)) for q in questions}) == len({q.id for q in questions}) == 60
    for question in questions:
        assert len({*question.choices}) == (2 if name == "sentiment" else 4)
        read = [question.read(f"I say: {choice}.") for choice in question.choices]
        assert [choice for choice, reading in zip(question.choices, read, strict=True) if question.right(reading)] == [
            question.answer
        ]


@pytest.mark.parametrize("name", SETS)
def test_the_whole_of_a_set_is_distinct_and_its_right_answers_stand_in_any_place(name):
    questions = generate_questions(name, SIZES[name], 1)
    assert len({question.text for question in questions}) == len(questions)
    position_counts = Counter(
        q.choices.index(str(q.answer)) for s in range(4) for q in generate_questions(name, SIZES[name], s)
    )
    even = sum(position_counts.values()) / len(position_counts)
    assert all(abs(count - even) < 5 * even**0.5 for count in position_counts.values()), position_counts
    with pytest.raises(UsageError, match=f"{name} has {SIZES[name]} distinct questions"):
        generate_questions(name, SIZES[name] + 1, 1)


def test_another_seed_makes_another_order_and_no_name_is_taken_for_another():
    assert generate_questions("capitals", 9, 1) != generate_questions("capitals", 9, 2)
    with pytest.raises(UnknownNameError):
        generate_questions("capital", 1, 0)


def test_no_fact_and_no_phrase_is_asked_twice_before_all_were_asked():
    questions = generate_questions("capitals", 318, 5)
    facts = [q.answer if q.text.startswith("What") else q.text.partition(" is the capital")[0] for q in questions]
    assert len(set(facts[:159])) == len(set(facts[159:])) == len(set(facts)) == 159
    moods = generate_questions("sentiment", 48, 5)
    for part in (moods[:24], moods[24:]):
        assert {phrase for phrase in PRAISE + BLAME for q in part if q.text.endswith(f" {phrase}.")} == {
            *PRAISE,
            *BLAME,
        }


# -- files ----------------------------------------------------------------------------------------------------------


def written(path: Path, *lines: object) -> Path:
    texts = (line if isinstance(line, str) else json.dumps(line) for line in lines)
    path.write_text("".join(f"{text}\n" for text in texts))
    return path


def test_a_file_is_read_with_its_kinds(tmp_path):
    lines = [
        {"question": " What is 6 x 7? ", "answer": 42, "source": "mine"},
        {"prompt": "Which?", "choices": ["a", 2], "answer": "2", "id": "two"},
        {"question": "Opposite of cold?", "answer": "hot", "checker": None},
        {"question": "In words?", "answer": "7", "checker": "text", "id": 7},
    ]
    assert read_questions(written(tmp_path / "q.jsonl", *lines)) == (
        QuizQuestion("line-1", "What is 6 x 7?", "42", kind="number"),
        QuizQuestion("two", "Which?", "2", ("a", "2"), "choice"),
        QuizQuestion("line-3", "Opposite of cold?", "hot"),
        QuizQuestion("7", "In words?", "7"),
    )


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("[1]", "it is not an object"),
        ('{"question": NaN}', "NaN"),
        ('{"question": "?", "answer": 1e999}', "the answer is empty or of the wrong type"),
        ('{"question": "?", "answer": "\\ud800"}', "lone surrogate"),
        ('{"question": "?", "answer": ' + "[" * 100_000, "nested too deep"),
        ('{"question": "?", "answer": ' + "9" * 100 + "}", "could not be recognized"),
        ('{"question": "?", "answer": 1e-300}', "could not be recognized"),
        ({"question": "?", "answer": "a" * 1_001}, "the answer is longer than 1000"),
        ("\ufeff{}", "byte order mark"),
        ('"' + "a" * (1 << 20) + '"', "longer than 1 MiB"),
        ({"answer": 1}, "it has no `question`"),
        ({"question": "?", "prompt": "?", "answer": 1}, "both `question` and `prompt`"),
        ({"question": "  ", "answer": 1}, "the question is empty"),
        ({"question": 7, "answer": 1}, "the question is empty or of the wrong type"),
        ({"question": "?"}, "the answer is missing"),
        ({"question": "?", "answer": True}, "the answer is empty or of the wrong type"),
        ({"question": "?", "answer": "***"}, "could not be recognized"),
        ({"question": "?", "answer": "a", "id": []}, "the id is empty or of the wrong type"),
        ({"question": "?", "answer": "a", "choices": "ab"}, "must be a list of 2 to 100"),
        ({"question": "?", "answer": "a", "choices": ["a"]}, "must be a list of 2 to 100"),
        ({"question": "?", "answer": "a", "choices": ["a", "A "]}, "two choices are equal"),
        ({"question": "?", "answer": "a", "choices": ["a", None]}, "choice 2 is missing"),
        ({"question": "?", "answer": "c", "choices": ["a", "b"]}, "the answer 'c' is neither a choice"),
        (
            {"question": "?", "answer": 2, "choices": ["a", "b"]},
            "answer '2' is neither a choice nor",
        ),
        ({"question": "?", "answer": -1, "choices": ["a", "b"]}, "nor the letter or index of one"),
        ({"question": "?", "answer": "C", "choices": ["a", "b"]}, "nor the letter or index of one"),
        (
            {"question": "?", "answerKey": "A", "choices": {"text": ["a", "b"]}},
            "equally long lists of texts and labels",
        ),
        ({"question": "?", "answerKey": "A", "choices": {"text": ["a", "b"], "label": ["A", "A"]}}, "texts and labels"),
        ({"question": "?", "answer": "a", "choices": ["a", "b"], "checker": "text"}, "there are choices"),
        ({"question": "?", "answer": "a", "checker": "choice"}, "there are no choices"),
        ({"question": "?", "answer": "a", "checker": "number"}, "is not a number"),
        ({"question": "?", "answer": "a", "checker": ["text"]}, "the checker must be one of"),
        ({"question": "same", "answer": "b"}, "the same question as line 1"),
        ({"question": "Same ", "answer": 2, "id": "x"}, "the same question as line 1"),
        ({"question": "?", "answer": "a", "id": "line-1"}, "the id 'line-1' is already used in line 1"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(tmp_path, line, problem):
    path = written(tmp_path / "q.jsonl", {"question": "Same", "answer": 1}, "", line)
    with pytest.raises(DataError) as caught:
        read_questions(path)
    assert f"{path}:3: " in caught.value.message
    assert problem in caught.value.message
    assert "cannot be used" in caught.value.message
    assert len(caught.value.message) < 1_000
    assert all(form in str(caught.value.hint) for form in ("MMLU", "ARC", "HellaSwag"))


LETTERS = "ABCDE"


def forms(id_: str, text: str, choices: list[str], right: int) -> dict[str, dict[str, Any]]:
    """One question as it stands in the files of well-known sets."""
    common_fields = {"id": id_, "question": text}
    arc = {"text": choices, "label": list(LETTERS[: len(choices)])}
    digits = {"text": choices, "label": [str(number) for number in range(1, len(choices) + 1)]}
    return {
        "text": {**common_fields, "choices": choices, "answer": choices[right]},
        "letter": {**common_fields, "choices": choices, "answer": LETTERS[right]},
        "mmlu": {**common_fields, "choices": choices, "answer": right, "subject": "anatomy"},
        "arc": {**common_fields, "choices": arc, "answerKey": LETTERS[right]},
        "arc, digits": {**common_fields, "choices": digits, "answerKey": str(right + 1)},
        "hellaswag": {"id": id_, "ctx": text, "endings": choices, "label": str(right), "ind": 4},
    }


numbered = st.integers(0, 99).map(str)


@given(st.lists(st.tuples(st.lists(words, min_size=2, max_size=5, unique=True), st.integers(0, 4)), min_size=1))
def test_the_same_questions_are_read_from_every_form(tmp_path_factory, drafts):
    folder = tmp_path_factory.getbasetemp()
    drafts = [(choices, right) for choices, right in drafts if not {*choices} & {*LETTERS.lower()}]
    question_forms = [
        forms(f"q{n}", f"Which {n}?", choices, right % len(choices)) for n, (choices, right) in enumerate(drafts)
    ]
    for kind in question_forms[0] if question_forms else ():
        read = read_questions(written(folder / "any.jsonl", *(lines[kind] for lines in question_forms)))
        assert digest(read) == digest(
            read_questions(written(folder / "plain.jsonl", *(q["text"] for q in question_forms)))
        )


@given(st.lists(st.tuples(st.lists(numbered, min_size=2, max_size=5, unique=True), st.integers(0, 4)), min_size=1))
def test_numbers_in_a_file_of_indices_are_indices_also_beside_choices_that_are_numbers(tmp_path_factory, drafts):
    path = tmp_path_factory.getbasetemp() / "any.jsonl"
    entries = [(f"q{n}", f"Which {n}?", choices, right % len(choices)) for n, (choices, right) in enumerate(drafts)]
    entries.append(("last", "Last?", ["yes", "no"], 1))
    for kind in ("mmlu", "arc", "arc, digits"):
        read = read_questions(written(path, *(forms(*entry)[kind] for entry in entries)))
        assert [question.answer for question in read] == [choices[right] for _, _, choices, right in entries]


def test_where_an_answer_is_both_the_text_is_meant_unless_the_line_gives_labels(tmp_path):
    lines = [
        {"question": "1?", "choices": ["1", "2", "3"], "answer": "2"},
        {"question": "2?", "choices": ["1", "2", "3"], "answer": 3},
        {"question": "3?", "choices": ["B", "A"], "answer": "A"},
        {"question": "4?", "choices": {"text": ["3", "1"], "label": ["1", "2"]}, "answerKey": "1"},
        {"ctx": "1 + 1 is", "endings": ["3", "2", "1"], "label": "1"},
    ]
    questions = read_questions(written(tmp_path / "q.jsonl", *lines))
    assert [question.answer for question in questions] == ["2", "3", "A", "3", "2"]


EITHER = {"question": "1?", "choices": ["1", "2", "3"], "answer": 1}
INDEX, TEXT = ({"question": "2?", "choices": choices, "answer": 1} for choices in (["x", "y"], ["1", "7"][::-1]))


@pytest.mark.parametrize(("second_line", "answer"), [(INDEX, "2"), ({**TEXT, "answer": 7}, "1")])
def test_a_number_that_is_a_choice_and_an_index_is_what_the_others_of_its_file_are(tmp_path, second_line, answer):
    assert read_questions(written(tmp_path / "q.jsonl", EITHER, second_line))[0].answer == answer


@pytest.mark.parametrize("lines", [(EITHER,), (EITHER, INDEX, {**TEXT, "answer": 7, "question": "3?"})])
def test_a_number_that_is_a_choice_and_an_index_is_refused_where_the_others_do_not_tell(tmp_path, lines):
    with pytest.raises(DataError, match=r"q.jsonl:1: the answer 1 is both a choice and the index of another"):
        read_questions(written(tmp_path / "q.jsonl", *lines))


def test_two_answers_that_differ_are_refused(tmp_path):
    line = {"question": "?", "choices": ["x", "y"], "answer": "y", "answerKey": "A"}
    with pytest.raises(DataError, match="`answer` and `answerKey` differ"):
        read_questions(written(tmp_path / "q.jsonl", line))


def test_every_problem_is_said_at_once(tmp_path):
    path = written(tmp_path / "q.jsonl", {"question": ""}, *[{"prompt": n, "answer": None} for n in range(40)])
    with pytest.raises(DataError) as caught:
        read_questions(path)
    assert caught.value.message.count(f"{path}:1: ") == 2
    assert "... and 52 more" in caught.value.message


def test_a_file_that_is_absent_or_empty_is_said_to_be(tmp_path):
    with pytest.raises(MissingFileError):
        read_questions(tmp_path / "none.jsonl")
    with pytest.raises(DataError, match="contains no questions"):
        read_questions(written(tmp_path / "q.jsonl", " "))


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.integers() | st.text(), st.lists, max_leaves=5))
def test_no_value_of_any_key_is_a_bug(tmp_path_factory, value):
    folder = tmp_path_factory.getbasetemp()
    valid_line = {"question": "?", "answer": "a", "choices": ["a", "b"], "id": "x", "checker": "choice"}
    lines = [{**valid_line, key: value} for key in valid_line]
    for line in lines:
        try:
            (read,) = read_questions(written(folder / "any.jsonl", line))
        except DataError:
            continue
        assert read.right(read.read(f"Answer: {read.answer}"))
        assert read.id
        assert read.text


def test_a_digest_tells_sets_apart_and_their_order():
    assert digest([CAPITAL, SUM]) == digest((CAPITAL, SUM)) != digest((SUM, CAPITAL))
    assert digest([CAPITAL]) != digest([replace(CAPITAL, answer="Quito")])
