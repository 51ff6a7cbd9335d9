"""The scripted fake: valid nonsense on request, and every way of failing."""

import asyncio
import json
import time
from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, Field

from agentlab.errors import LLMConnectionError, LLMTimeoutError
from agentlab.llm.provider_config import ScriptedProvider
from agentlab.llm.providers.scripted import ScriptedModel, instance
from agentlab.llm.structured import schema_of
from agentlab.llm.types import Message, ModelRequest, Tool


class Answer(BaseModel):
    """One of everything."""

    letter: Literal["A", "B", "C"]
    fixed: Literal["only"]
    rate: Annotated[float, Field(gt=0, le=0.5)]
    count: Annotated[int, Field(ge=1, lt=9)]
    sure: bool
    reason: Annotated[str, Field(min_length=3)]
    tags: Annotated[list[Literal["x", "y"]], Field(min_length=1)]
    maybe: int | None


def ask(mode, question="Hi", schema=Answer, *, model=None, **options):
    model = model or ScriptedModel(ScriptedProvider(kind="scripted", mode=mode, **options), patience=0.05)
    request = ModelRequest("m", (Message("user", question),), schema and schema_of(schema))

    async def read():
        return [delta async for delta in model.stream(request)]

    deltas = asyncio.run(read())
    assert deltas[-1].finish == "stop"
    return "".join(delta.text for delta in deltas)


@pytest.mark.parametrize("mode", ["first", "adversarial", "random"])
def test_an_answer_fits_its_schema(mode):
    Answer.model_validate_json(ask(mode))


def test_first_and_last():
    first, last = (json.loads(ask(mode)) for mode in ("first", "adversarial"))
    assert (first["letter"], last["letter"]) == ("A", "C")
    assert (last["rate"], last["count"], last["maybe"]) == (0.5, 8, None)


def test_random_depends_on_question_and_seed_alone():
    answers = [ask("random", f"question {i}") for i in range(20)]
    assert answers == [ask("random", f"question {i}") for i in range(20)]
    assert len({json.loads(answer)["letter"] for answer in answers}) == 3
    assert answers != [ask("random", f"question {i}", seed=1) for i in range(20)]


def test_replies_in_turn():
    model = ScriptedModel(ScriptedProvider(kind="scripted", mode="replies", replies=("one", "two words")))
    assert [ask("", schema=None, model=model) for _ in range(3)] == ["one", "two words", "one"]


def test_garbage_is_no_json():
    with pytest.raises(ValueError, match="Expecting value"):
        json.loads(ask("garbage"))


def test_ways_to_fail():
    with pytest.raises(LLMConnectionError):
        ask("refuse")
    start = time.monotonic()
    with pytest.raises(LLMTimeoutError):
        ask("stuck")
    assert time.monotonic() - start >= 0.05


LOOK = Tool("look", "Looks.", schema_of(Answer))


def pieces(mode="first", **fields):
    model = ScriptedModel(ScriptedProvider(kind="scripted", mode=mode))

    async def read():
        return [delta async for delta in model.stream(ModelRequest("m", (Message("user", "Hi"),), **fields))]

    return asyncio.run(read())


@pytest.mark.parametrize("choice", ["required", "look"])
@pytest.mark.parametrize("mode", ["first", "adversarial", "random"])
def test_a_tool_that_has_to_be_called_is_called_with_what_its_schema_allows(mode, choice):
    call, end = pieces(mode, tools=(LOOK,), tool_choice=choice)
    (piece,) = call.tools
    assert (piece.name, end.finish) == ("look", "tool_calls")
    Answer.model_validate_json(piece.arguments)


@pytest.mark.parametrize("choice", ["auto", "none"])
def test_a_tool_that_may_be_called_is_not(choice):
    assert not any(delta.tools for delta in pieces(tools=(LOOK,), tool_choice=choice))


def test_garbage_goes_to_a_tool_as_well():
    call, _ = pieces("garbage", tools=(LOOK,), tool_choice="required")
    with pytest.raises(ValueError, match="Expecting value"):
        json.loads(call.tools[0].arguments)


def test_any_json_is_an_object():
    assert json.loads("".join(delta.text for delta in pieces(json_only=True))) == {
        "answer": "This is a scripted answer."
    }


def test_what_has_to_be_endless_is_cut():
    text = {"type": "string", "minLength": 10**9}
    endless = {"type": "array", "minItems": 10**9, "items": text}
    for schema in (text, endless, {**endless, "items": endless}):
        assert len(str(instance(schema, min))) < 100_000
    assert instance({"type": "array", "minItems": 2.0, "items": {**text, "minLength": 3.0}}, min) == ["xxx", "xxx"]
