"""OpenAI's documents and ours say the same."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentlab.errors import BadRequestError
from agentlab.integrations.openai_messages import call_document, messages_of, tool_choice_of, tools_of
from agentlab.llm.types import Message, Tool, ToolCall


def test_a_conversation_with_a_tool():
    call = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
    assert messages_of(
        [
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "1 + 1"}, "please"], "name": "a framework's own key"},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "content": "2", "tool_call_id": "c1"},
        ]
    ) == (
        Message("system", "Be brief."),
        Message("user", "1 + 1\nplease"),
        Message("assistant", "", (ToolCall("c1", "add", '{"a": 1}'),)),
        Message("tool", "2", tool_call_id="c1"),
    )


def test_a_picture_is_refused_rather_than_lost():
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    with pytest.raises(BadRequestError, match="image_url"):
        messages_of([{"role": "user", "content": [{"type": "text", "text": "What is it?"}, picture]}])


def test_what_a_model_thought_aloud_is_no_part_of_its_answer():
    content = [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "yes"}]
    assert messages_of([{"role": "assistant", "content": content}]) == (Message("assistant", "yes"),)


def test_an_unknown_role_is_refused():
    with pytest.raises(BadRequestError, match="critic"):
        messages_of([{"role": "critic", "content": "no"}])


def test_tools_with_and_without_their_wrapper():
    function = {"name": "add", "description": "Add.", "parameters": {"type": "object", "properties": {}}}
    expected = (Tool("add", "Add.", function["parameters"]),)
    assert tools_of([{"type": "function", "function": function}]) == tools_of([function]) == expected
    assert tools_of([{"name": "now"}])[0].parameters == {"type": "object", "properties": {}}


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (None, "auto"),
        ("auto", "auto"),
        ("none", "none"),
        (False, "none"),
        ("any", "required"),
        (True, "required"),
        ("add", "add"),
        ({"type": "function", "function": {"name": "add"}}, "add"),
        ({"type": "tool", "name": "add"}, "add"),
    ],
)
def test_the_many_forms_of_a_choice(choice, expected):
    assert tool_choice_of(choice) == expected


@given(st.builds(ToolCall, st.text(), st.text(min_size=1), st.dictionaries(st.text(), st.integers()).map(json.dumps)))
def test_a_call_survives_the_way_there_and_back(call):
    document = {"role": "assistant", "content": "", "tool_calls": [call_document(call)]}
    assert messages_of([document])[0].tool_calls == (call,)
