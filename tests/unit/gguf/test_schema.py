"""Narrowing a schema to what the grammar converter enforces."""

from typing import Literal

from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from agentlab.gguf.schema import MAX_REPEATS, enforceable


class Vote(BaseModel):
    choice: Literal["A", "B"]
    score: int = Field(ge=1, le=5)


class Ballot(BaseModel):
    votes: list[Vote] = Field(max_length=100_000)
    note: str = Field(max_length=10**9)
    maximum: str = "a property may bear the name of a keyword"


def test_bounds_of_a_pydantic_schema_become_enforceable_at_every_depth() -> None:
    narrowed = enforceable(Ballot.model_json_schema())
    assert narrowed["$defs"]["Vote"]["properties"]["score"] == {"enum": [1, 2, 3, 4, 5]}
    assert narrowed["properties"]["votes"]["maxItems"] == MAX_REPEATS
    assert narrowed["properties"]["note"]["maxLength"] == MAX_REPEATS
    assert narrowed["properties"]["maximum"]["type"] == "string"


@given(st.integers(-1000, 1000), st.integers(-10, 300), st.booleans(), st.booleans())
def test_an_integer_range_is_listed_exactly_or_left_alone(
    low: int, width: int, open_low: bool, open_high: bool
) -> None:
    schema = {
        "type": "integer",
        "exclusiveMinimum" if open_low else "minimum": low - open_low,
        "exclusiveMaximum" if open_high else "maximum": low + width + open_high,
    }
    expected = {"enum": list(range(low, low + width + 1))} if 0 <= width < 256 else schema
    assert enforceable(schema) == expected


def test_the_given_schema_is_not_changed() -> None:
    schema = {"type": "array", "maxItems": 9999, "items": {"type": "string", "maxLength": 9999}}
    enforceable(schema)
    assert schema == {"type": "array", "maxItems": 9999, "items": {"type": "string", "maxLength": 9999}}
