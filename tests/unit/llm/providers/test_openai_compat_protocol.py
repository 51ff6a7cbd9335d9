"""OpenAI's protocol as data: what is said for a request, and what comes out of the events, however they are split."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentlab import errors
from agentlab.llm.providers.openai_compat import ChatReader, request_body
from agentlab.llm.types import Delta, Message, ModelRequest, Tool, ToolCall, ToolPiece, Usage

LOOK = Tool("look", "Looks up a word.", {"type": "object", "properties": {"word": {"type": "string"}}})
HI = (Message("user", "Hi"),)


def event(**delta):
    return json.dumps({"choices": [{"delta": delta, "finish_reason": None}]})


def call(arguments="", name=None, **fields):
    function = {"arguments": arguments} | ({"name": name} if name else {})
    return {"function": function, **fields}


def read(*events):
    reader = ChatReader()
    return [reader.event(data) for data in events]


def joined(deltas):
    """(id, name, arguments) of each tool call."""
    calls = {}
    for piece in (piece for delta in deltas for piece in delta.tools):
        seen = calls.setdefault(piece.index, ["", "", ""])
        seen[0], seen[1], seen[2] = seen[0] or piece.id, seen[1] or piece.name, seen[2] + piece.arguments
    return [tuple(calls[index]) for index in sorted(calls)]


# -- requests -----------------------------------------------------------------------------------------------------


def test_a_plain_question_says_nothing_that_was_not_asked_for():
    body = request_body(ModelRequest("m", HI, temperature=0.5, max_tokens=9, seed=3), {"usage": {"include": True}})
    assert body == {
        "model": "m",
        "messages": [{"role": "user", "content": "Hi"}],
        "temperature": 0.5,
        "max_tokens": 9,
        "seed": 3,
        "stream": True,
        "stream_options": {"include_usage": True},
        "usage": {"include": True},
    }


def test_sampling_and_stop_texts():
    body = request_body(ModelRequest("m", HI, top_p=0.9, stop=("\n", "END")), {})
    assert (body["top_p"], body["stop"]) == (0.9, ["\n", "END"])


@pytest.mark.parametrize(
    ("schema", "kind"), [(None, {"type": "json_object"}), ({"type": "object"}, "json_schema")], ids=["json", "schema"]
)
def test_any_json_is_asked_for_only_without_a_schema(schema, kind):
    response_format = request_body(ModelRequest("m", HI, schema, json_only=True), {})["response_format"]
    assert response_format == kind or response_format["type"] == kind


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("auto", "auto"),
        ("none", "none"),
        ("required", "required"),
        ("look", {"type": "function", "function": {"name": "look"}}),
    ],
)
def test_tools_and_which_has_to_be_called(choice, expected):
    body = request_body(ModelRequest("m", HI, tools=(LOOK,), tool_choice=choice), {})
    function = {"name": "look", "description": "Looks up a word.", "parameters": dict(LOOK.parameters)}
    assert body["tools"] == [{"type": "function", "function": function}]
    assert body["tool_choice"] == expected


def test_a_conversation_with_tool_calls_and_their_results():
    assistant_message = Message("assistant", "", (ToolCall("c1", "look", '{"word": "x"}'),))
    body = request_body(ModelRequest("m", (*HI, assistant_message, Message("tool", "seen", tool_call_id="c1"))), {})
    function = {"name": "look", "arguments": '{"word": "x"}'}
    assert body["messages"][1:] == [
        {"role": "assistant", "content": "", "tool_calls": [{"id": "c1", "type": "function", "function": function}]},
        {"role": "tool", "content": "seen", "tool_call_id": "c1"},
    ]


# -- replies ------------------------------------------------------------------------------------------------------


def test_arguments_split_over_events_and_calls_side_by_side():
    deltas = read(
        event(role="assistant", content=None),
        event(tool_calls=[call(name="look", index=0, id="a", type="function")]),
        event(tool_calls=[call('{"word"', index=0)]),
        event(tool_calls=[call(name="look", index=1, id="b"), call(': "x"}', index=0)]),
        event(tool_calls=[call("{}", index=1)]),
        '{"choices": [{"delta": {}, "finish_reason": "tool_calls"}]}',
        "[DONE]",
    )
    assert joined(deltas) == [("a", "look", '{"word": "x"}'), ("b", "look", "{}")]
    assert [delta.finish for delta in deltas if delta.finish] == ["tool_calls"]


@given(st.lists(st.text(min_size=1, max_size=30), min_size=1, max_size=4), st.data())
def test_arguments_come_out_whole_wherever_they_are_cut(arguments, data):
    events = []
    for index, text in enumerate(arguments):
        events.append(event(tool_calls=[call(name="look", index=index, id=f"c{index}")]))
        cut = data.draw(st.integers(0, len(text)))
        events += [event(tool_calls=[call(part, index=index)]) for part in (text[:cut], text[cut:])]
    assert [tool_call[2] for tool_call in joined(read(*events))] == arguments


@pytest.mark.parametrize("index", [{}, {"index": 0}, {"index": None}], ids=["no index", "always 0", "null"])
def test_calls_that_are_not_numbered_are_told_by_their_ids(index):
    deltas = read(
        event(tool_calls=[call('{"a":', name="look", id="a", **index)]),
        event(tool_calls=[call(" 1}", **index)]),
        event(tool_calls=[call('{"b": 2}', name="look", id="b", **index)]),
    )
    assert joined(deltas) == [("a", "look", '{"a": 1}'), ("b", "look", '{"b": 2}')]


def test_a_call_without_an_id_gets_one_with_its_first_piece():
    deltas = read(event(tool_calls=[call('{"a":', name="look", index=0)]), event(tool_calls=[call(" 1}", index=0)]))
    assert [piece.id for delta in deltas for piece in delta.tools] == ["call_0", ""]


def test_calls_within_a_whole_document():
    calls = [call('{"a": 1}', name="look", id="a"), call({"b": 2}, name="look", id="b")]
    document = {"choices": [{"message": {"content": None, "tool_calls": calls}, "finish_reason": "tool_calls"}]}
    delta = ChatReader().document(json.dumps(document).encode())
    assert joined([delta]) == [("a", "look", '{"a": 1}'), ("b", "look", '{"b": 2}')]
    assert (delta.text, delta.finish) == ("", "tool_calls")


@pytest.mark.parametrize("name", ["reasoning", "reasoning_content"])
def test_reasoning_is_kept_apart_from_the_answer(name):
    assert read(event(**{name: "hm"}), event(content="yes")) == [Delta(reasoning="hm"), Delta("yes")]


def test_usage_where_it_is_known():
    usage = {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": True, "cost": 0}}
    assert read(json.dumps(usage)) == [Delta(usage=Usage(3, None, None))]


def test_the_end_is_said_once():
    assert [delta.finish for delta in read("[DONE]")] == ["stop"]
    assert [delta.finish for delta in read('{"choices": [{"finish_reason": "length"}]}', "[DONE]")] == ["length", None]


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        ("[1]", errors.MalformedReplyError),
        ('{"choices": 1}', errors.MalformedReplyError),
        (event(tool_calls={"index": 0}), errors.MalformedReplyError),
        (event(tool_calls=[call(7, index=0)]), errors.MalformedReplyError),
        (event(content={"text": "x"}), errors.MalformedReplyError),
        (event(refusal="I will not."), errors.ContentFilterError),
        ('{"error": {"code": 429, "message": "slow down"}}', errors.RateLimitedError),
        ('{"error": {"code": "rate_limit_exceeded", "message": "slow down"}}', errors.RateLimitedError),
        ('{"error": {"code": "insufficient_quota", "message": "pay"}}', errors.QuotaError),
        ('{"error": {"type": "invalid_request_error", "message": "no"}}', errors.BadRequestError),
        (
            '{"error": {"code": "context_length_exceeded", "type": "invalid_request_error"}}',
            errors.ContextOverflowError,
        ),
        ('{"error": {"code": 1, "message": "?"}}', errors.ServerFaultError),
        ('{"error": "out of order"}', errors.ServerFaultError),
    ],
)
def test_what_is_no_piece_of_an_answer_has_its_own_error(data, kind):
    with pytest.raises(errors.RemoteError) as caught:
        read(data)
    assert type(caught.value) is kind


HOLDERS = ["choices", "delta", "message", "tool_calls", "function", "usage", "error"]
VALUES = [
    "content",
    "text",
    "name",
    "arguments",
    "id",
    "index",
    "finish_reason",
    "code",
    "type",
    "reasoning",
    "refusal",
]
words = st.sampled_from([*HOLDERS, *VALUES])
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=4),
    max_leaves=20,
)


@given(anything)
def test_whatever_comes_is_a_piece_or_a_typed_error(document):
    for read_it in (lambda text: ChatReader().event(text), lambda text: ChatReader().document(text.encode())):
        try:
            delta = read_it(json.dumps(document))
        except errors.RemoteError:
            continue
        assert isinstance(delta.text, str)
        assert all(isinstance(piece, ToolPiece) for piece in delta.tools)


@pytest.mark.parametrize("reason", ["\ud800", "stop\udfff", "x" * 500])
def test_any_reason_to_stop_can_be_written_down(reason):
    (delta,) = read(json.dumps({"choices": [{"delta": {"content": "hi"}, "finish_reason": reason}]}))
    assert len(delta.finish.encode()) <= 40


def test_a_number_of_tokens_that_cannot_be_is_unknown():
    (delta,) = read(json.dumps({"choices": [], "usage": {"prompt_tokens": 10**400, "completion_tokens": 3}}))
    assert delta.usage == Usage(None, 3, None)
