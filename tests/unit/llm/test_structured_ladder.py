"""How a schema is asked for, from the strictest way to plain words."""

import json

import pytest

from agentlab.errors import BadRequestError
from agentlab.llm.options import Options
from agentlab.llm.structured import answer_of, rungs, shape_request
from agentlab.llm.types import Message, ModelRequest, Tool, ToolCall, ToolPiece

SCHEMA = {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}
ASK = ModelRequest("m", (Message("user", "Give x."),), schema=SCHEMA)
OWN_TOOL = Tool("look_up", "Looks up.", {"type": "object", "properties": {}})


def test_the_way_down():
    assert rungs(ASK, ("tools", "schema", "json")) == ("schema", "tool", "json", "prompt")
    assert rungs(ASK, ()) == ("prompt",)
    assert rungs(ModelRequest("m", (), schema=SCHEMA, tools=(OWN_TOOL,)), ("tools", "json")) == ("json", "prompt")


def test_each_rung_asks_in_its_way():
    assert shape_request(ASK, "schema") == ASK
    tool = shape_request(ASK, "tool")
    assert (tool.schema, tool.tool_choice, tool.tools[0].parameters) == (None, "answer", SCHEMA)
    as_json, plain = shape_request(ASK, "json"), shape_request(ASK, "prompt")
    assert (as_json.json_only, plain.json_only) == (True, False)
    for request in (as_json, plain):
        assert request.schema is None
        assert json.dumps(SCHEMA) in request.messages[0].content
        assert request.messages[1:] == ASK.messages


def test_the_schema_joins_a_system_prompt_that_is_there():
    request = ModelRequest("m", (Message("system", "Be brief."), Message("user", "Give x.")), schema=SCHEMA)
    system, user = shape_request(request, "prompt").messages
    assert system.content.startswith("Be brief.\n\n")
    assert user.content == "Give x."


def test_arguments_of_the_rungs_own_tool_are_the_answer():
    call = ToolCall("1", "answer", '{"x": 1}')
    assert answer_of("tool", "", (call,)) == ('{"x": 1}', ())
    assert answer_of("schema", "text", (call,)) == ("text", (call,))
    assert answer_of("tool", "just text", ()) == ("just text", ())


class Picky:
    """Knows only some ways of asking, as many servers do."""

    def __init__(self, speaker, knows):
        self.speaker = speaker
        self.knows = knows

    def stream(self, request):
        mode = "schema" if request.schema else "tool" if request.tools else "json" if request.json_only else "prompt"
        if mode not in self.knows:
            self.speaker.requests.append(request)
            return self.speaker.__class__(BadRequestError("unknown field")).stream(request)
        return self.speaker.stream(request)

    async def close(self):
        """Nothing is held."""


@pytest.mark.parametrize("knows", ["schema", "tool", "json", "prompt"])
def test_a_model_is_asked_in_the_strictest_way_that_it_knows_and_that_is_remembered(among, speaker, knows):
    by_tool = [ToolPiece(0, "c1", "answer", '{"x"'), ToolPiece(0, arguments=": 4}")]
    speaks = speaker("", tools=by_tool) if knows == "tool" else speaker('{"x": 4}')
    router = among({"one": Picky(speaks, {knows})})
    options = Options(json_schema=SCHEMA)
    assert router.complete_sync(ASK.messages, "t", options=options).value == {"x": 4}
    tries = len(speaks.requests)
    assert router.complete_sync(ASK.messages, "t", call_id="2", options=options).value == {"x": 4}
    assert len(speaks.requests) == tries + 1  # no way is tried in vain twice


def test_who_refuses_every_way_of_asking_is_replaced(among, speaker):
    one, options = speaker(BadRequestError("no")), Options(json_schema=SCHEMA)
    answer = among({"one": one, "two": speaker('{"x": 1}')}).complete_sync(ASK.messages, "t", options=options)
    assert (answer.model, answer.value, len(one.requests)) == ("two", {"x": 1}, 4)
