"""From what a caller says to a question: who can take it at all."""

import pytest

from agentlab.errors import AllModelsFailedError, BadRequestError, ContextOverflowError, SchemaError, UnknownNameError
from agentlab.llm.options import Options
from agentlab.llm.types import Message, Tool

ASK = (Message("user", "Which?"),)
TOOL = Tool("f", "Does it.", {"type": "object", "properties": {}})


def test_a_model_that_is_not_there(among, speaker):
    with pytest.raises(UnknownNameError, match="oen"):
        among({"one": speaker("x")}).complete_sync(ASK, "t", options=Options(model="oen"))


def test_tools_go_to_models_that_can_call_them(among, speaker):
    one, two = speaker("x"), speaker("y")
    router = among({"one": one, "two": two}, models={"one": {"caps": ["schema"]}})
    assert router.complete_sync(ASK, "t", options=Options(tools=(TOOL,))).model == "two"
    assert two.requests[0].tools == (TOOL,)
    with pytest.raises(BadRequestError, match="tools"):
        router.complete_sync(ASK, "t", options=Options(tools=(TOOL,), model="one"))


def test_a_prompt_goes_to_windows_that_may_hold_it(among, speaker):
    router = among({"one": speaker("x"), "two": speaker("y")}, models={"one": {"context": 128}})
    long = (Message("user", "word " * 1000),)
    assert router.complete_sync(long, "t").model == "two"
    with pytest.raises(ContextOverflowError, match="exceeds its models' context window"):
        router.complete_sync(long, "t", options=Options(model="one"))


def test_a_schema_without_a_model_is_checked(among, speaker):
    schema = {"type": "object", "properties": {"x": {"type": "integer", "minimum": 3}}, "required": ["x"]}
    one = speaker('{"x": 1}', '{"x": "3"}')
    with pytest.raises(AllModelsFailedError, match="x: 1 is less than the minimum of 3") as caught:
        among({"one": one}).complete_sync(ASK, "t", options=Options(json_schema=schema))
    assert "x: '3' is not of type 'integer'" in caught.value.failures[-1]
    assert "1 is less than the minimum of 3" in one.requests[1].messages[-1].content
    answer = among({"one": speaker('```json\n{"x": 7,}\n```')}).complete_sync(
        ASK, "t", options=Options(json_schema=schema)
    )
    assert answer.value == {"x": 7}


def test_a_schema_that_is_none(among, speaker):
    with pytest.raises(BadRequestError, match="not a valid JSON schema"):
        among({"one": speaker("x")}).complete_sync(ASK, "t", options=Options(json_schema={"type": "objct"}))


def test_some_json_object(among, speaker):
    answer = among({"one": speaker("no", 'Here: {"a": [1, 2]}')}).complete_sync(
        ASK, "t", options=Options(json_only=True)
    )
    assert answer.value == {"a": [1, 2]}
    with pytest.raises(AllModelsFailedError, match=SchemaError.__name__):
        among({"one": speaker("no")}).complete_sync(ASK, "t", options=Options(json_only=True))


def test_what_one_call_says_goes_to_the_model(among, speaker):
    one = speaker("x")
    options = Options(temperature=0.7, max_tokens=9, seed=4, top_p=0.5, stop=("END",))
    among({"one": one}).complete_sync(ASK, "t", options=options)
    request = one.requests[0]
    assert (request.temperature, request.max_tokens, request.seed) == (0.7, 9, 4)
    assert (request.top_p, request.stop) == (0.5, ("END",))
