"""What a text commits to: as models say it, and as nobody should."""

import json
import time
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentlab.answers import extract

LETTERS = ("A", "B", "C", "D", "E")
LABELS = ("positive", "negative")
MOODS = ("like", "dislike")


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("42", "42"),
        ("The result is **1,234**.", "1234"),
        ("First 3 + 4 = 7, then 7 * 6 = 42", "42"),
        ("Answer: 12 + 5 = 17", "17"),
        ("The answer is 17, which is 12 more than 5.", "17"),
        ("So we get \\boxed{-3.5}. Done after 4 steps.", "-3.5"),
        ("It costs $1,234,567.80", "1234567.80"),
        ("\u22127", "-7"),
        ("between 5-7", "7"),
        ("about 2e3", "2000"),
        ("<think>1 or 2? 99!</think>The answer: 3", "3"),
        ("in gpt4 there is none", None),
        ("<think>it must be 5", None),
        ("no number", None),
        ("", None),
        ("9" * 100, None),
    ],
)
def test_a_text_ends_on_one_number(text, number):
    assert extract.last_number(text) == (None if number is None else Decimal(number))


@given(
    st.integers(-(10**12), 10**12), st.sampled_from(["{}", "It is {}.", "1 + 1 = 2, so the answer is **{}**.", "{:,}"])
)
def test_any_number_is_found_however_it_is_wrapped(number, frame):
    assert extract.last_number(frame.format(number)) == number


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("Saturday", "Saturday"),
        ('"olleh"', "olleh"),
        ("The reversed word is **olleh**.", "olleh"),
        ("Let me see.\nAnswer: `2023-12-01`", "2023-12-01"),
        ("Here it is:\nolleh.", "olleh"),
        ("Output:\n```\nragN\n```", "ragN"),
        ("```text\nragN\n```", "ragN"),
        ("Backwards: olleh", "olleh"),
        ("The day after Friday is Saturday.", "Saturday"),
        ("\\boxed{dnw}", "dnw"),
        ("", ""),
    ],
)
def test_a_short_answer_comes_without_its_wrapping(text, word):
    assert extract.short_answer(text) == word


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("B", "B"),
        ("(B)", "B"),
        ("**B**", "B"),
        ("B: travel", "B"),
        ("The answer is C.", "C"),
        ("A bicycle is meant, so D", "D"),
        ("I would say C) because A is wrong", "C"),
        ("\\boxed{E}", "E"),
        ("A or B", None),
        ("F", None),
        ("apple", None),
        ("", None),
    ],
)
def test_one_letter_is_chosen_or_none(text, letter):
    assert extract.letter(text, LETTERS) == letter


@pytest.mark.parametrize(
    ("text", "labels", "label"),
    [
        ("Positive.", LABELS, "positive"),
        ("The mood is NEGATIVE", LABELS, "negative"),
        ("It is not positive at all.\nnegative", LABELS, "negative"),
        ("Answer: positive (not negative, as it may seem)", LABELS, "positive"),
        ("Answer: positive or negative", LABELS, None),
        ("positive, negative", LABELS, None),
        ("dislike", MOODS, "dislike"),
        ("unlike most", MOODS, None),
        ("The writer does not like it.", MOODS, None),
        ("They don't like it: dislike", MOODS, "dislike"),
        ("", LABELS, None),
        ("", (), None),
        ("Answer: New York City", ("York", "new york city", "New York"), "new york city"),
        ("York, not New York", ("York", "New York"), "York"),
        ("New York or York", ("York", "New York"), None),
    ],
)
def test_one_label_is_chosen_or_none(text, labels, label):
    assert extract.label(text, labels) == label


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("n * n", "n * n"),
        ("```python\nn * n\n```", "n * n"),
        ("Use this:\n```\nn\n```\nor better\n```py\nn * n\n```\nDone.", "n * n"),
        ("```python\nn * n", "n * n"),
        ("```n * n```", "n * n"),
        ("The expression is `n * n`.", "n * n"),
        ("`a` or `b`", "`a` or `b`"),
    ],
)
def test_code_is_taken_out_of_its_fence(text, source):
    assert extract.code(text) == source


def test_a_box_with_braces_inside_is_read_to_its_own_end():
    assert extract.find_boxed("\\boxed{1}, no: \\boxed{\\frac{1}{2}} it is") == "\\frac{1}{2}"
    assert extract.find_boxed("\\boxed{1") is None


@given(st.text(max_size=300) | st.text(alphabet="0123456789,.-+eE \n`*\\boxed{}answer:is<think>/ABC", max_size=300))
def test_no_text_breaks_an_extractor(text):
    number = extract.last_number(text)
    assert number is None or number.is_finite()
    assert extract.letter(text, LETTERS) in (*LETTERS, None)
    assert extract.label(text, LABELS) in (*LABELS, None)
    assert len(extract.short_answer(text)) <= len(text)
    assert len(extract.code(text)) <= len(text)


@pytest.mark.parametrize(
    "text",
    [
        "1," * 100_000,
        "1,234," * 40_000,
        "answer is " * 30_000,
        "answer" + " " * 200_000,
        "`" * 200_000,
        "\\boxed{" * 30_000,
        "(A" * 100_000,
        "1e" * 100_000,
        "<think>" * 40_000,
        "1." * 100_000,
    ],
    ids=lambda text: text[:12],
)
def test_a_hostile_text_costs_no_time(text):
    began = time.process_time()
    extract.last_number(text)
    extract.short_answer(text)
    extract.letter(text, LETTERS)
    extract.label(text, LABELS)
    extract.code(text)
    assert time.process_time() - began < 2


@given(st.text(max_size=300))
def test_any_text_is_a_dict_or_nothing(text):
    assert extract.first_object(text) is None or isinstance(extract.first_object(text), dict)


@given(
    st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5), max_size=4),
    st.text("ab \n.", max_size=20),
)
def test_an_object_in_prose_is_read_as_it_is(value, prose):
    assert extract.first_object(f"{prose}{json.dumps(value)}{prose}") == value
