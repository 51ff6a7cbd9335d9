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
        ({"type": "objct"}, "not a valid JSON schema"),
        ({"properties": {"a": {"$ref": "http://127.0.0.1:9/schema"}}}, "reference to 'http"),
        ({"items": [{"$ref": "file:///etc/passwd"}]}, "reference to 'file"),
        ({"$ref": "#/$defs/missing"}, "unresolved reference"),
        ({"$ref": "#"}, "contains itself"),
        ({"patternProperties": {"^(a+)+$": {}}}, "patternProperties"),
        ({"pattern": "(?:" * 25 + "a" + "){1,50}" * 25}, "nested groups"),
        ({"pattern": r"(?:\)[)]" * 25 + "a" + "){2}" * 25}, "nested groups"),
        ({"pattern": "(?V1)" + "(?:[[a]b)]" * 25 + "a" + "){2}" * 25}, "nested groups"),
        ({"items": {"pattern": "a{99999}" * 300}}, "too long"),
        ({"pattern": "[" * 1_000_000}, "too long"),
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
    start = time.process_time()
    text = "a" * 5000 + "!" if "a" in expression else "x" * 5000
    assert len(list(validator_of({"pattern": expression})(text))) == 1
    assert time.process_time() - start < 2


def test_many_patterns_that_take_long_share_one_time():
    slow = {f"p{n}": {"pattern": "^(a|aa)+$"} for n in range(40)}
    start = time.process_time()
    list(validator_of({"properties": slow})(dict.fromkeys(slow, "a" * 60 + "!")))
    assert time.process_time() - start < 1


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        (r"^(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)(?:\.(?!$)|$)){4}$", "10.0.0.1"),
        (r"(?i)^[a-z0-9._%+-]+@(?:[a-z0-9-]+\.)+[a-z]{2,63}$", "A@b.org"),
        (r"^\(?(?P<area>\d{3})\)?[ )(]\d{4}$", "(030) 1234"),
    ],
)
def test_what_people_write_is_understood(pattern, text):
    assert list(validator_of({"pattern": pattern})(text)) == []


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


def bomb(levels, reference):
    defs = {"a0": {"type": "object", "$anchor": "a0"}}
    for level in range(1, levels + 1):
        defs[f"a{level}"] = {"$anchor": f"a{level}", "allOf": [{"$ref": reference(level - 1)}] * 2}
    return {"$ref": reference(levels), "$defs": defs}


@pytest.mark.parametrize("reference", ["#/$defs/a{}", "#a{}"])
def test_references_that_multiply_are_refused_in_a_moment(reference):
    start = time.process_time()
    with pytest.raises(BadRequestError):
        validator_of(bomb(60, reference.format))
    assert time.process_time() - start < 3


def test_definitions_may_be_used_often_and_contain_themselves():
    point = {"type": "object", "properties": {"x": {"type": "number"}}}
    schema = {"properties": {f"p{i}": {"$ref": "#/$defs/point"} for i in range(300)}, "$defs": {"point": point}}
    assert list(validator_of(schema)({"p7": {"x": 1}})) == []
    tree = {"properties": {"left": {"$ref": "#"}, "value": {"type": "integer"}}}
    assert list(validator_of(tree)({"left": {"left": {"value": "x"}}})) == [
        ("left.left.value", "'x' is not of type 'integer'")
    ]


def test_an_answer_cannot_make_a_schema_that_contains_itself_work_for_ever():
    value: dict = {}
    for _ in range(40):
        value = {"c": value}
    start = time.process_time()
    ((_, problem),) = validator_of({"properties": {"c": {"allOf": [{"$ref": "#"}, {"$ref": "#"}]}}})(value)
    assert "too long" in problem
    assert time.process_time() - start < 3


def test_many_items_are_told_apart_quickly_and_as_json_does():
    unique = validator_of({"uniqueItems": True})
    start = time.process_time()
    assert list(unique([{"a": [i]} for i in range(8000)])) == []
    assert time.process_time() - start < 1
    assert list(unique([1, True, 0, False, "1", None, [], {}])) == []
    for twins in ([1, 1.0], [{"a": 1, "b": 2}, {"b": 2, "a": 1}], [[True], [True]]):
        assert len(list(unique(twins))) == 1


def test_a_long_list_of_records_is_within_the_bounds():
    item = {
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"type": "string", "maxLength": 5}},
        "required": ["a", "b"],
        "additionalProperties": False,
    }
    assert list(validator_of({"items": item})([{"a": i, "b": "x"} for i in range(8000)])) == []
