import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentlab.errors import UsageError
from agentlab.llm.serve.call import text_of, usage
from agentlab.llm.serve.chat import ChatReply, CompletionReply, read_chat, read_completion
from agentlab.llm.serve.embeddings import read_embedding
from agentlab.llm.serve.faults import RefusedError
from agentlab.llm.serve.responses import read_response
from agentlab.llm.types import Completion, Delta, Message, Tool, ToolCall, ToolPiece, Usage

USER = {"role": "user", "content": "Hello"}
KEYS = st.sampled_from(["model", "messages", "role", "content", "tools", "type", "stop", "tool_choice", "input"])
NONSENSE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
)
TOOL = {"type": "function", "function": {"name": "look", "description": "Looks.", "parameters": {"type": "object"}}}


def chat(**changes):
    body = {"model": "m", "messages": [USER], **changes}
    return read_chat({key: value for key, value in body.items() if value is not ...})


def refusal(**changes) -> RefusedError:
    with pytest.raises(RefusedError) as caught:
        chat(**changes)
    return caught.value


def options(**changes):
    return chat(**changes).options


class TestConversation:
    def test_all_roles(self):
        call = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
        messages = [
            {"role": "developer", "content": "Be brief."},
            USER,
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c1", "content": "red"},
        ]
        assert chat(messages=messages).messages == (
            Message("system", "Be brief."),
            Message("user", "Hello"),
            Message("assistant", "", (ToolCall("c1", "look", "{}"),)),
            Message("tool", "red", (), "c1"),
        )

    def test_text_parts_are_joined(self):
        parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
        assert chat(messages=[{"role": "user", "content": parts}]).messages == (Message("user", "one\ntwo"),)

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
        assert chat(messages=[USER, answer, USER]).messages[1] == Message("assistant", "Hi")

    @pytest.mark.parametrize(
        ("message", "param"),
        [
            ({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}, "content[0].type"),
            ({"role": "user", "content": [{"type": "text"}]}, "content[0].text"),
            ({"role": "user", "content": 7}, "content"),
            ({"role": "robot", "content": "x"}, "role"),
            ({"role": "assistant", "content": "x", "prefix": True}, "prefix"),
            ({"role": "assistant", "content": "x", "audio": {"id": "a"}}, "audio"),
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
        result = options()
        assert (result.temperature, result.max_tokens, result.top_p, result.tools, result.json_schema) == (
            None,
            None,
            None,
            (),
            None,
        )

    def test_sampling(self):
        result = options(temperature=0, top_p=0.5, seed=-3, max_tokens=7, stop="END")
        assert (result.temperature, result.top_p, result.seed, result.max_tokens) == (0.0, 0.5, -3, 7)
        assert result.stop == ("END",)
        assert options(max_completion_tokens=9, stop=["a", "b"]).max_tokens == 9

    def test_null_is_not_given(self):
        result = options(temperature=None, stop=None, tools=None, response_format=None, n=None, stream=None)
        assert result == options()

    def test_tools(self):
        result = options(tools=[TOOL], tool_choice={"type": "function", "function": {"name": "look"}})
        assert result.tools == (Tool("look", "Looks.", {"type": "object"}),)
        assert result.tool_choice == "look"
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
            ({"modalities": ["text", "audio"]}, "modalities"),
            ({"web_search_options": {}}, "web_search_options"),
            ({"top_logprobs": 2}, "top_logprobs"),
            (
                {"response_format": {"type": "json_schema", "json_schema": {"schema": {"enum": [[]] * 1000}}}},
                "response_format",
            ),
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

    @pytest.mark.parametrize(
        "harmless",
        [
            {"n": 1, "logprobs": False, "top_logprobs": 0, "frequency_penalty": 0, "presence_penalty": 0.0},
            {"logit_bias": {}, "modalities": ["text"], "parallel_tool_calls": True},
            {"user": "me", "metadata": {"run": "7"}, "store": True, "service_tier": "auto", "safety_identifier": "x"},
            {"prompt_cache_key": "k", "prompt_cache_retention": "24h", "prompt_cache_options": {"mode": "implicit"}},
            {"reasoning_effort": "low", "verbosity": "high", "prediction": {"type": "content", "content": "x"}},
            {"stream": True, "stream_options": {"include_obfuscation": True}},
        ],
    )
    def test_labels_and_wishes_change_nothing(self, harmless):
        assert options(**harmless) == options()

    @pytest.mark.parametrize("label", ["name", "reasoning_content", "provider_specific_fields", "thinking_blocks"])
    def test_what_other_servers_add_to_an_answer_can_be_sent_back(self, label):
        call = {"id": "c", "type": "function", "function": {"name": "look", "arguments": "{}"}, "index": 0}
        answer = {"role": "assistant", "content": None, "tool_calls": [call], label: {"any": ["thing"]}}
        messages = chat(messages=[USER, answer, {"role": "tool", "content": "red", "tool_call_id": "c"}]).messages
        assert messages[1] == Message("assistant", "", (ToolCall("c", "look", "{}"),))

    def test_a_refusal_and_an_empty_answer_can_be_sent_back(self):
        messages = chat(
            messages=[{"role": "assistant", "refusal": "No."}, {"role": "assistant", "content": None}]
        ).messages
        assert [message.content for message in messages] == ["No.", ""]

    def test_one_tool_at_most(self):
        assert chat(parallel_tool_calls=False).one_tool
        assert not chat(parallel_tool_calls=True).one_tool

    def test_more_tokens_than_any_model_has_are_as_many_as_there_are(self):
        assert options(max_tokens=10**9).max_tokens == options(max_completion_tokens=10**30).max_tokens == 131_072

    def test_parameters_without_number_are_one_error(self):
        assert "too many" in refusal(**{f"k{i}": 1 for i in range(1000)}).message

    def test_the_message_does_not_repeat_what_was_sent(self):
        assert "canary" not in refusal(temperature="canary").message


class TestCompletions:
    def test_a_prompt_is_a_users_message(self):
        call = read_completion({"model": "m", "prompt": ["Once"], "max_tokens": 7, "stop": "\n", "echo": False, "n": 1})
        assert call.messages == (Message("user", "Once"),)
        assert (call.options.max_tokens, call.options.stop, call.stream) == (7, ("\n",), False)

    @pytest.mark.parametrize(
        ("changes", "param"),
        [
            ({"prompt": ["a", "b"]}, "prompt"),
            ({"prompt": [1]}, "prompt[0]"),
            ({"prompt": None}, "prompt"),
            ({"echo": True}, "echo"),
            ({"logprobs": 3}, "logprobs"),
            ({"n": 2}, "n"),
            ({"best_of": 2}, "best_of"),
            ({"suffix": "end"}, "suffix"),
            ({"tools": []}, "tools"),
        ],
    )
    def test_what_is_not_supported(self, changes, param):
        with pytest.raises(RefusedError) as caught:
            read_completion({"model": "m", "prompt": "a", **changes})
        assert caught.value.param == param


@given(NONSENSE)
def test_nothing_but_a_refusal_comes_of_nonsense(tree):
    for read in (read_chat, read_completion, read_response, read_embedding):
        try:
            read(tree)
        except UsageError as error:
            assert isinstance(error, RefusedError)  # noqa: PT017 - most examples are refused, not all


def answer(**changes) -> Completion:
    fields = {"value": "Hi", "text": "Hi", "model": "m", "usage": Usage(3, 2), "attempts": ()} | changes
    return Completion(**fields)


def reply(kind=ChatReply, include_usage=False):
    return kind("1", 7, model="agentlab", include_usage=include_usage)


def choice(document):
    return document["choices"][0]


def events(content: bytes) -> list:
    lines = [block.removeprefix("data: ") for block in content.decode().split("\n\n") if block]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]


class TestCompletion:
    def test_an_answer(self):
        document = reply().whole_document(answer())
        assert (document["id"], document["object"], document["created"]) == ("chatcmpl-1", "chat.completion", 7)
        assert document["model"] == "m"
        assert choice(document)["message"]["content"] == "Hi"
        assert choice(document)["finish_reason"] == "stop"
        assert document["usage"] == {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}

    def test_tool_calls(self):
        called = answer(value="", text="", tool_calls=(ToolCall("c", "look", "{}"),), finish="tool_calls")
        message = choice(reply().whole_document(called))["message"]
        assert message["content"] is None
        assert message["tool_calls"] == [
            {"id": "c", "type": "function", "function": {"name": "look", "arguments": "{}"}}
        ]

    def test_a_checked_answer_is_pure_json(self):
        text = text_of(answer(value={"a": "ü"}, text='Sure! {"a": "ü"}'))
        assert json.loads(text) == {"a": "ü"}

    def test_what_is_unknown_is_not_zero(self):
        assert usage(Usage(3, None)) is None
        assert usage(Usage()) is None
        assert usage(Usage(3, 2, 0.5))["cost"] == 0.5


class TestPieces:
    def test_text_reasoning_and_calls(self):
        deltas = [Delta(text="Hi"), Delta(reasoning="hm"), Delta(tools=(ToolPiece(1, "c", "look", "{"),))]
        pieces = reply()
        sent_deltas = [choice(event)["delta"] for delta in deltas for event in events(pieces.piece(delta))]
        assert sent_deltas == [
            {"role": "assistant", "content": ""},
            {"content": "Hi"},
            {"reasoning_content": "hm"},
            {
                "tool_calls": [
                    {"index": 1, "id": "c", "type": "function", "function": {"name": "look", "arguments": "{"}}
                ]
            },
        ]

    def test_later_pieces_of_a_call_do_not_repeat_its_name(self):
        _, last = events(reply().piece(Delta(tools=(ToolPiece(0, arguments="}"),))))
        piece = choice(last)["delta"]
        assert piece == {"tool_calls": [{"index": 0, "function": {"arguments": "}"}}]}

    def test_a_piece_that_says_nothing_is_no_event(self):
        pieces, final_delta = reply(), Delta(finish="stop", usage=Usage(1, 1))
        pieces.piece(Delta(text="Hi"))
        assert pieces.piece(final_delta) == b""

    def test_the_end_names_the_model_that_answered(self):
        _, last, done = events(reply().closing(answer(finish="length")))
        assert (last["model"], choice(last)["finish_reason"], done) == ("m", "length", "[DONE]")

    def test_usage_when_it_is_asked_for(self):
        pieces = reply(include_usage=True)
        assert all(event["usage"] is None for event in events(pieces.piece(Delta(text="Hi"))))
        _, used, done = events(pieces.closing(answer()))
        assert (used["choices"], used["usage"]["total_tokens"], done) == ([], 5, "[DONE]")

    @given(st.text(alphabet=st.characters(codec=None)))
    def test_no_text_breaks_an_event(self, text):
        content = reply().piece(Delta(text=f"x{text}"))
        assert content.count(b"\n") == 4
        assert choice(events(content)[1])["delta"]["content"] == f"x{text}".encode(errors="replace").decode()

    def test_legacy(self):
        pieces = reply(CompletionReply)
        one, last, done = events(pieces.piece(Delta(text="Hi")) + pieces.closing(answer()))
        assert (one["object"], choice(one)["text"], choice(last)["text"]) == ("text_completion", "Hi", "")
        assert (choice(last)["finish_reason"], done) == ("stop", "[DONE]")
        assert choice(reply(CompletionReply).whole_document(answer()))["text"] == "Hi"
        assert pieces.piece(Delta(reasoning="hm")) == b""
