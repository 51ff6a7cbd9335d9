import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentlab.errors import UsageError
from agentlab.llm.serve.faults import RefusedError
from agentlab.llm.serve.requests import chat_request, embedding_request
from agentlab.llm.types import Message, Tool, ToolCall

USER = {"role": "user", "content": "Hello"}
KEYS = st.sampled_from(["model", "messages", "role", "content", "tools", "type", "stop", "tool_choice", "input"])
NONSENSE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
)
TOOL = {"type": "function", "function": {"name": "look", "description": "Looks.", "parameters": {"type": "object"}}}


def chat(**changes):
    body = {"model": "m", "messages": [USER], **changes}
    return chat_request(json.dumps({key: value for key, value in body.items() if value is not ...}).encode())


def refusal(**changes) -> RefusedError:
    with pytest.raises(RefusedError) as caught:
        chat(**changes)
    return caught.value


def options(**changes):
    return chat(**changes).options(None, None)


class TestConversation:
    def test_all_roles(self):
        call = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
        messages = [
            {"role": "developer", "content": "Be brief."},
            USER,
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c1", "content": "red"},
        ]
        assert chat(messages=messages).conversation() == (
            Message("system", "Be brief."),
            Message("user", "Hello"),
            Message("assistant", "", (ToolCall("c1", "look", "{}"),)),
            Message("tool", "red", (), "c1"),
        )

    def test_text_parts_are_joined(self):
        parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
        assert chat(messages=[{"role": "user", "content": parts}]).conversation() == (Message("user", "one\ntwo"),)

    def test_an_answer_can_be_sent_back_as_it_came(self):
        answer = {
            "role": "assistant",
            "content": "Hi",
            "refusal": None,
            "annotations": [],
            "audio": None,
            "function_call": None,
            "tool_calls": None,
        }
        assert chat(messages=[USER, answer, USER]).conversation()[1] == Message("assistant", "Hi")

    @pytest.mark.parametrize(
        ("message", "param"),
        [
            ({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}, "content[0].type"),
            ({"role": "user", "content": [{"type": "text"}]}, "content[0].text"),
            ({"role": "user", "content": 7}, "content"),
            ({"role": "robot", "content": "x"}, "role"),
            ({"role": "user", "content": "x", "name": "Ann"}, "name"),
            ({"role": "user"}, ""),
            ({"role": "tool", "content": "x"}, ""),
            ({"role": "user", "content": "x", "tool_call_id": "c"}, ""),
        ],
    )
    def test_what_cannot_be_understood_is_named(self, message, param):
        assert refusal(messages=[message]).param == f"messages[0].{param}".rstrip(".")

    def test_no_message_at_all(self):
        assert refusal(messages=[]).param == "messages"


class TestOptions:
    def test_nothing_is_left_to_the_config(self):
        found = options()
        assert (found.temperature, found.max_tokens, found.top_p, found.tools, found.json_schema) == (
            None,
            None,
            None,
            (),
            None,
        )

    def test_sampling(self):
        found = options(temperature=0, top_p=0.5, seed=-3, max_tokens=7, stop="END")
        assert (found.temperature, found.top_p, found.seed, found.max_tokens) == (0.0, 0.5, -3, 7)
        assert found.stop == ("END",)
        assert options(max_completion_tokens=9, stop=["a", "b"]).max_tokens == 9

    def test_null_is_not_given(self):
        found = options(temperature=None, stop=None, tools=None, response_format=None, n=None, stream=None)
        assert found == options()

    def test_tools(self):
        found = options(tools=[TOOL], tool_choice={"type": "function", "function": {"name": "look"}})
        assert found.tools == (Tool("look", "Looks.", {"type": "object"}),)
        assert found.tool_choice == "look"
        assert options(tools=[TOOL], tool_choice="required").tool_choice == "required"

    def test_formats(self):
        schema = {"type": "object", "properties": {"model": {"type": "string"}}}
        given_schema = {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": schema}}
        assert options(response_format=given_schema).json_schema == schema
        assert options(response_format={"type": "json_object"}).json_only
        assert options(response_format={"type": "text"}) == options()

    @pytest.mark.parametrize(
        ("changes", "param"),
        [
            ({"model": ...}, "model"),
            ({"messages": ...}, "messages"),
            ({"colour": 1}, "colour"),
            ({"logit_bias": {"1": 2}}, "logit_bias"),
            ({"functions": []}, "functions"),
            ({"temperature": 3}, "temperature"),
            ({"temperature": "0.5"}, "temperature"),
            ({"top_p": 0}, "top_p"),
            ({"max_tokens": 0}, "max_tokens"),
            ({"max_tokens": 1, "max_completion_tokens": 2}, "max_tokens"),
            ({"seed": 2**63}, "seed"),
            ({"stop": ["a"] * 5}, "stop"),
            ({"stop": ""}, "stop[0]"),
            ({"n": 2}, "n"),
            ({"logprobs": True}, "logprobs"),
            ({"frequency_penalty": 0.5}, "frequency_penalty"),
            ({"parallel_tool_calls": False}, "parallel_tool_calls"),
            ({"store": True}, "store"),
            ({"stream_options": {"include_usage": True}}, "stream_options"),
            ({"stream": "yes"}, "stream"),
            ({"response_format": {"type": "xml"}}, "response_format.type"),
            ({"response_format": {"type": "json_schema"}}, "response_format"),
            ({"tools": [TOOL, TOOL]}, "tools[1].function.name"),
            ({"tools": [{**TOOL, "type": "custom"}]}, "tools[0].type"),
            ({"tools": [{"type": "function", "function": {"name": "none"}}]}, "tools[0].function.name"),
            ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name"),
            ({"tools": [TOOL], "tool_choice": "look"}, "tool_choice"),
            ({"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "other"}}}, "tool_choice"),
            ({"tools": [TOOL], "tool_choice": 7}, "tool_choice"),
            ({"tool_choice": "required"}, "tool_choice"),
        ],
    )
    def test_a_parameter_that_would_be_ignored_is_refused_by_name(self, changes, param):
        error = refusal(**changes)
        assert error.param == param
        assert param in error.message

    def test_what_means_nothing_special_is_taken(self):
        neutral = {"n": 1, "logprobs": False, "frequency_penalty": 0, "presence_penalty": 0.0, "store": False}
        assert options(**neutral, parallel_tool_calls=True, user="me") == options()

    def test_the_message_does_not_repeat_what_was_sent(self):
        assert "canary" not in refusal(temperature="canary").message


class TestBodies:
    @pytest.mark.parametrize(
        "body", [b"", b"{", b"\xff", b'{"a": NaN}', b"[" * 100_000, b"[]", b"null", b'{"model": "\\ud800"}']
    )
    def test_no_document(self, body):
        with pytest.raises(RefusedError):
            chat_request(body)

    @given(NONSENSE)
    def test_nothing_but_a_refusal_comes_of_nonsense(self, tree):
        body = json.dumps(tree).encode()
        for read in (chat_request, embedding_request):
            try:
                read(body)
            except UsageError as error:
                assert isinstance(error, RefusedError)  # noqa: PT017 - most examples are refused, not all


class TestEmbeddings:
    def test_one_text_or_many(self):
        assert embedding_request(b'{"model": "m", "input": "a"}').input == ["a"]
        assert embedding_request(b'{"model": "m", "input": ["a", "b"], "encoding_format": "base64"}').input == [
            "a",
            "b",
        ]

    @pytest.mark.parametrize(
        ("rest", "param"),
        [
            ('"input": [1, 2]', "input[0]"),
            ('"input": []', "input"),
            ('"input": ""', "input[0]"),
            ('"input": "a", "dimensions": 8', "dimensions"),
        ],
    )
    def test_what_is_not_supported(self, rest, param):
        with pytest.raises(RefusedError) as caught:
            embedding_request(f'{{"model": "m", {rest}}}'.encode())
        assert caught.value.param == param
