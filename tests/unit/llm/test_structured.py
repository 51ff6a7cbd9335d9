"""From a model to a schema, and from a model's text to a value: strict, bounded, whatever the text is."""

from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, Field

from agentlab.llm.structured import Rejected, ask_again, fits, parse, schema_of


class Change(BaseModel):
    """One edit."""

    key: Literal["lr", "dropout"]
    value: Annotated[float, Field(ge=0, le=1)] = 0.5


class Plan(BaseModel):
    """A plan with a nested model and a property that bears a keyword's name."""

    title: str
    change: Change
    others: list[Change] = []


class Tree(BaseModel):
    """Contains itself."""

    children: list["Tree"]


def test_a_schema_is_flat_closed_and_complete():
    change = {
        "type": "object",
        "description": "One edit.",
        "properties": {
            "key": {"enum": ["lr", "dropout"], "type": "string"},
            "value": {"maximum": 1, "minimum": 0, "type": "number"},
        },
        "required": ["key", "value"],
        "additionalProperties": False,
    }
    schema = schema_of(Plan)
    assert schema["properties"] == {
        "title": {"type": "string"},
        "change": change,
        "others": {"items": change, "type": "array"},
    }
    assert schema["required"] == ["title", "change", "others"]
    assert "$defs" not in schema


def test_a_model_that_contains_itself_is_refused():
    with pytest.raises(ValueError, match="Tree contains itself"):
        schema_of(Tree)


@pytest.mark.parametrize(
    "text",
    [
        '{"key": "lr", "value": 0.1}',
        'Sure!\n```json\n{"key": "lr", "value": 0.1}\n```\nAnything else?',
        'I would use {lr} here: {"key": "lr", "value": 0.1}.',
        'An example is {"key": "x"} but:\n```\n{"key": "lr", "value": 0.1}\n```',
        '```json\n{"key": "lr", "value": 0.1}',
    ],
)
def test_the_object_is_found(text):
    assert parse(text, Change) == Change(key="lr", value=0.1)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("A", "no JSON object"),
        ("", "no JSON object"),
        ('["lr"]', "no JSON object"),
        ('{"key": "lr", "value": NaN}', "value: Input should be"),
        ('{"key": "lr", "value": 0.', "no JSON object"),
        ("[" * 60_000, "no JSON object"),
        ("{" * 60_000, "no JSON object"),
        ('{"key":' * 9_000, "no JSON object"),
        ('{"key": "lr", "value": ' + "9" * 60_000 + "}", "no JSON object"),
        ('{"key": "lr", "value": 1e999}', "value: Input should be less than or equal to 1"),
        ('{"key": "rate", "value": 2}', "key: Input should be 'lr' or 'dropout'"),
        ("{}", "key: Field required"),
    ],
)
def test_what_does_not_fit_is_rejected_with_the_reason(text, words):
    rejected = parse(text, Change)
    assert isinstance(rejected, Rejected)
    assert words in rejected.problems[0]


def test_a_bare_letter_is_no_answer_to_a_question_with_a_schema():
    assert isinstance(parse("lr", Change), Rejected)


def test_a_cut_answer_says_so():
    assert "token limit" in parse('{"key": "lr", "val', Change, cut=True).problems[-1]


SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"n": 1}', {"n": 1}),
        ('```json\n{"n": 2}\n```', {"n": 2}),
        ('<think>{"n": 0}?</think> {"n": 3}', {"n": 3}),
        ('{"n": 4, "s": "<think>"}', {"n": 4, "s": "<think>"}),
    ],
)
def test_what_fits_a_schema(text, value):
    assert fits(text, SCHEMA) == value


@pytest.mark.parametrize(
    "text",
    ["", "no", '{"n": 1', '{"n": "1"}', "[]", "NaN", '{"n": NaN}', "[" * 60_000, "9" * 9_000, '{"n": 1} and more'],
)
def test_what_does_not(text):
    assert isinstance(fits(text, SCHEMA), Rejected)


def test_asking_again_quotes_little_and_says_what_is_wrong():
    bad, complaint = ask_again("x" * 100_000, Rejected(("key: Field required",)))
    assert (bad.role, complaint.role) == ("assistant", "user")
    assert len(bad.content) == 1500
    assert "- key: Field required" in complaint.content
