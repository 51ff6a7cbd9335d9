"""Scores of answers: right ones as models write them, wrong ones that look right."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentlab.tasks.check import check
from agentlab.tasks.generate import generate
from agentlab.tasks.items import TaskItem

ITEMS = generate(per_type=20)
FIELDS = TaskItem(
    "json-01",
    "json",
    1,
    "?",
    {"name": "Anna Berg", "age": 31, "tags": ["a", "b"], "note": None},
    "fields",
    {
        "type": "object",
        "properties": {
            "name": {"type": "string"},
            "age": {"type": "integer"},
            "tags": {"type": "array", "items": {"type": "string"}},
            "note": {"type": ["string", "null"]},
        },
        "required": ["name", "age", "tags", "note"],
        "additionalProperties": False,
    },
)
RIGHT = {"name": "anna  berg", "age": 31, "tags": ["A", "b"], "note": None}


def perfect(item: TaskItem) -> str | None:
    """The answer of somebody who knows; None where only another program could write it."""
    match item.checker:
        case "number" | "text":
            return f"The answer is {item.expected}."
        case "letter" | "label":
            return str(item.expected["right"])
        case "fields":
            return f"Here you are:\n```json\n{json.dumps(item.expected)}\n```"
    return None


@pytest.mark.parametrize("item", [item for item in ITEMS if perfect(item)], ids=lambda item: item.id)
def test_the_right_answer_scores_one_and_another_items_answer_scores_none(item):
    assert check(item, perfect(item)).score == 1
    different_items = [o for o in ITEMS if o.checker == item.checker and o.expected != item.expected and perfect(o)]
    assert check(item, perfect(different_items[0])).score == 0


@pytest.mark.parametrize("item", [item for item in ITEMS if item.checker != "judged"], ids=lambda item: item.id)
@pytest.mark.parametrize("text", ["", "I do not know.", "<think>maybe", "{", "```"])
def test_no_answer_scores_nothing(item, text):
    if item.checker == "rules" and text == "I do not know.":
        return  # it may follow a rule by chance
    assert check(item, text).score == 0


def test_an_open_answer_waits_for_a_judge_and_an_empty_one_does_not():
    item = next(item for item in ITEMS if item.type == "open")
    assert check(item, "Because.").score is None
    assert check(item, "<think>hm</think> ").score == 0


@pytest.mark.parametrize(
    ("answer", "valid", "score"),
    [
        (RIGHT, True, 1),
        ({**RIGHT, "age": 32}, True, 0),
        ({**RIGHT, "tags": ["b", "a"]}, True, 0),
        ({**RIGHT, "age": "31"}, False, 0),
        ({**RIGHT, "age": True}, False, 0),
        ({**RIGHT, "extra": 1}, False, 0),
        ({"name": "Anna Berg"}, False, 0),
        ([RIGHT], True, 1),  # the object in it is taken
        ("none", False, 0),
    ],
)
def test_fields_are_right_together_and_follow_the_schema_to_the_type(answer, valid, score):
    verdict = check(FIELDS, json.dumps(answer))
    assert (verdict.valid, verdict.score) == (valid, score)
    assert verdict.reason or score


def expression(text: str) -> float | None:
    item = TaskItem("code-01", "code", 1, "?", {"names": ["n"], "cases": [[[2], 4], [[3], 9], [[0], 0]]}, "expression")
    return check(item, text).score


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("n * n", 1),
        ("```python\nn ** 2\n```", 1),
        ("The expression is `n*n`.", 1),
        ("lambda k: k * k", 1),
        ("n * 2", 0),  # right for 2 only
        ("n * n == 4", 0),
        ("str(n * n)", 0),
        ("import os", 0),
    ],
)
def test_an_expression_has_to_be_right_in_every_case(text, score):
    assert expression(text) == score


def test_a_truth_value_is_no_number():
    item = TaskItem("code-01", "code", 1, "?", {"names": ["n"], "cases": [[[1], True], [[0], False]]}, "expression")
    assert check(item, "n == 1").score == 1
    assert check(item, "n").score == 0


@given(st.sampled_from(ITEMS), st.text(max_size=200))
def test_any_text_gets_a_score(item, text):
    verdict = check(item, text)
    assert verdict == check(item, text)
    assert verdict.score in ((0.0, None) if item.checker == "judged" else (0.0, 1.0))
    assert (verdict.valid is None) == (item.schema is None)
