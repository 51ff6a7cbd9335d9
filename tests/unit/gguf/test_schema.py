"""Schemas that have no grammar, and grammars of a bounded size. What grammars match is in `test_gguf_grammar`."""

import json
from typing import Any

import pytest

from agentlab.errors import BadRequestError
from agentlab.gguf.schema import grammar_of, literal
from agentlab.gguf.schema_merge import merge_schemas


@pytest.mark.parametrize(
    "schema",
    [
        {"enum": []},
        {"type": "integer", "enum": ["a"]},
        {"type": "integer", "minimum": 2, "maximum": 1},
        {"type": "number", "exclusiveMinimum": 1, "exclusiveMaximum": 1},
        {"type": "string", "minLength": 3, "maxLength": 2},
        {"type": "array", "prefixItems": [{}], "items": False, "minItems": 2},
        {"anyOf": [False, {"enum": []}]},
        {"allOf": [{"type": "string"}, {"type": "integer"}]},
        {"type": "object", "properties": {"a": False}, "required": ["a"]},
        {"type": "no such type"},
        {"$ref": "#/$defs/Nothing", "$defs": {}},
        {"$ref": "https://example.com/schema.json"},
        {"allOf": [{"$ref": "#"}]},
        {"type": "string", "pattern": "^[a-z]{100000}$"},
        {"properties": 5},
        {"enum": [float("nan")]},
        {"type": "array", "maxItems": "many"},
        {"anyOf": 7},
    ],
)
def test_a_schema_that_nothing_fits_or_that_is_none_is_refused(schema: Any) -> None:
    with pytest.raises(BadRequestError, match="cannot be turned into a grammar"):
        grammar_of(schema)


def test_a_schema_that_is_too_deep_is_refused() -> None:
    deep: Any = {"type": "null"}
    for _ in range(2000):
        deep = {"type": "array", "items": deep}
    with pytest.raises(BadRequestError):
        grammar_of(deep)


@pytest.mark.parametrize(
    "schema",
    [
        {  # each definition is written out twice
            "$defs": {
                f"d{n}": {"properties": {k: {"$ref": f"#/$defs/d{n + 1}", "minProperties": 1} for k in "ab"}}
                for n in range(18)
            }
            | {"d18": {"type": "null"}},
            "$ref": "#/$defs/d0",
        },
        {"allOf": [{"anyOf": [{"minLength": n}, {"maxLength": n}]} for n in range(40)]},
    ],
)
def test_a_schema_of_exponential_size_is_refused_at_once(schema: Any) -> None:
    with pytest.raises(BadRequestError, match="combinations"):
        grammar_of(schema)


def test_the_given_schema_is_not_changed() -> None:
    schema = {"allOf": [{"properties": {"a": {"minLength": 1}}}, {"properties": {"a": {"maxLength": 9999}}}]}
    before = json.dumps(schema)
    grammar_of(schema)
    assert json.dumps(schema) == before


def test_equal_parts_are_one_rule() -> None:
    item = {"type": "object", "properties": {"a": {"type": "string", "maxLength": 9}}, "required": ["a"]}
    many = {"type": "object", "properties": {f"p{n}": item for n in range(200)}}
    assert len(grammar_of(many)) < 20_000


def test_what_fits_both_schemas() -> None:
    assert merge_schemas({"minimum": 1, "type": ["integer", "null"]}, {"minimum": 2, "type": "number"}) == {
        "minimum": 2,
        "type": ["integer"],
    }
    assert merge_schemas(True, {"minLength": 1}) == {"minLength": 1}
    assert merge_schemas({"minLength": 1}, False) is False
    assert merge_schemas({"const": 1}, {"const": 2})["enum"] == []
    assert merge_schemas({"$ref": "#/a"}, {"$ref": "#/b"}) == {"allOf": [{"$ref": "#/a"}, {"$ref": "#/b"}]}


def test_a_literal_holds_no_character_that_ends_it() -> None:
    assert literal('a"b\\c\nd\x7f') == '"a\\"b\\\\c\\nd\\x7F"'
