"""A schema may be a stranger's: it is checked, it reaches nothing, and it ends."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentlab.errors import BadRequestError
from agentlab.llm.schemas import validator_of


def test_problems_say_where_and_what():
    schema = {"type": "object", "properties": {"a": {"type": "array", "items": {"type": "integer"}}}}
    assert list(validator_of(schema)({"a": [1, "x"]})) == [("a.1", "'x' is not of type 'integer'")]
    assert list(validator_of(schema)({"a": [1]})) == []


def test_references_within_the_schema_are_followed():
    schema = {"properties": {"a": {"$ref": "#/$defs/n"}}, "$defs": {"n": {"type": "integer"}}}
    assert list(validator_of(schema)({"a": "x"})) == [("a", "'x' is not of type 'integer'")]


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "objct"}, "no JSON schema"),
        ({"properties": {"a": {"$ref": "http://127.0.0.1:9/schema"}}}, "reference to 'http"),
        ({"items": [{"$ref": "file:///etc/passwd"}]}, "reference to 'file"),
        ({"$ref": "#/$defs/missing"}, "not there"),
        ({"$ref": "#"}, "contains itself"),
        ({"patternProperties": {"^(a+)+$": {}}}, "patternProperties"),
    ],
)
def test_what_is_refused_before_a_model_is_asked(schema, words):
    with pytest.raises(BadRequestError, match=words):
        validator_of(schema)


def test_names_and_data_are_no_keywords():
    schema = {
        "properties": {"$ref": {"type": "integer"}, "patternProperties": {"type": "integer"}},
        "const": {"$ref": "http://x"},
    }
    assert len(list(validator_of(schema)({"$ref": "x"}))) == 2


@pytest.mark.parametrize("expression", ["^(a+)+$", "^(a|aa)+$", "(x+x+)+y"])
def test_a_pattern_that_would_take_for_ever_does_not(expression):
    start = time.monotonic()
    text = "a" * 5000 + "!" if "a" in expression else "x" * 5000
    assert len(list(validator_of({"pattern": expression})(text))) == 1
    assert time.monotonic() - start < 2


def test_patterns_are_searched_anywhere():
    assert list(validator_of({"pattern": "b+"})("abbc")) == []
    assert len(list(validator_of({"pattern": "^b"})("abbc"))) == 1


def test_a_deep_schema_is_refused():
    schema: dict = {}
    for _ in range(5000):
        schema = {"properties": {"a": schema}}
    with pytest.raises(BadRequestError, match="deeply"):
        validator_of(schema)


LEAVES = st.none() | st.booleans() | st.integers() | st.text()


@given(st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)))
def test_any_value_can_be_looked_at(value):
    assert (list(validator_of({"type": "object"})(value)) == []) == isinstance(value, dict)
