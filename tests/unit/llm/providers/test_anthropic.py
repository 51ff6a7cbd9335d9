"""Anthropic's Messages API, as data and against a real server: what is sent, what comes out, and every fault."""

import asyncio
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentlab import errors
from agentlab.llm.provider_config import AnthropicProvider
from agentlab.llm.providers import ProviderContext, build
from agentlab.llm.providers.anthropic import compilable, request_body
from agentlab.llm.providers.anthropic_protocol import MessageReader
from agentlab.llm.types import Delta, Message, ModelRequest, Tool, ToolCall, ToolPiece, Usage
from tests.unit.llm.providers.clocks import IMPATIENT, PATIENT

LOOK = Tool("look", "Looks up a word.", {"type": "object", "properties": {"word": {"type": "string"}}})
HI = (Message("user", "Hi"),)

START = {"type": "message_start", "message": {"usage": {"input_tokens": 9, "cache_read_input_tokens": 30}}}
STOP = {"type": "message_stop"}


def block(index, **content):
    return {"type": "content_block_start", "index": index, "content_block": content}


def piece(index, kind, **content):
    return {"type": "content_block_delta", "index": index, "delta": {"type": kind, **content}}


def text(words, index=0):
    return piece(index, "text_delta", text=words)


def end(reason, **usage):
    return {"type": "message_delta", "delta": {"stop_reason": reason}, "usage": {"output_tokens": 4, **usage}}


def read(*events):
    reader = MessageReader()
    return [reader.event(json.dumps(event)) for event in events]


# -- requests -----------------------------------------------------------------------------------------------------


def test_the_systems_words_stand_apart_and_sides_take_turns():
    messages = (
        Message("system", "Be brief."),
        Message("user", "One."),
        Message("user", "Two."),
        Message("system", "Be kind."),
        Message("assistant", "Three."),
        Message("assistant", ""),
        Message("user", "Four."),
    )
    body = request_body(ModelRequest("m", messages, temperature=0.5, max_tokens=9, seed=7))
    assert body == {
        "model": "m",
        "system": "Be brief.\n\nBe kind.",
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "One."}, {"type": "text", "text": "Two."}]},
            {"role": "assistant", "content": [{"type": "text", "text": "Three."}]},
            {"role": "user", "content": [{"type": "text", "text": "Four."}]},
        ],
        "max_tokens": 9,
        "temperature": 0.5,
        "stream": True,
    }


def test_sampling_and_stop_texts():
    body = request_body(ModelRequest("m", HI, temperature=1.7, top_p=0.9, stop=("END",)))
    assert (body["temperature"], body["top_p"], body["stop_sequences"]) == (1.0, 0.9, ["END"])


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("auto", {"type": "auto"}),
        ("none", {"type": "none"}),
        ("required", {"type": "any"}),
        ("look", {"type": "tool", "name": "look"}),
    ],
)
def test_tools_and_which_has_to_be_called(choice, expected):
    body = request_body(ModelRequest("m", HI, tools=(LOOK,), tool_choice=choice))
    assert body["tools"] == [{"name": "look", "description": "Looks up a word.", "input_schema": dict(LOOK.parameters)}]
    assert body["tool_choice"] == expected


def test_calls_and_their_results_are_blocks_of_a_turn():
    calls = (ToolCall("a", "look", '{"word": "x"}'), ToolCall("b", "look", ""))
    results = (Message("tool", "seen", tool_call_id="a"), Message("tool", "", tool_call_id="b"))
    body = request_body(
        ModelRequest("m", (*HI, Message("assistant", "Let me see.", calls), *results, Message("user", "So?")))
    )
    assert body["messages"][1:] == [
        {
            "role": "assistant",
            "content": [
                {"type": "text", "text": "Let me see."},
                {"type": "tool_use", "id": "a", "name": "look", "input": {"word": "x"}},
                {"type": "tool_use", "id": "b", "name": "look", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "a", "content": "seen"},
                {"type": "tool_result", "tool_use_id": "b", "content": ""},
                {"type": "text", "text": "So?"},
            ],
        },
    ]


@pytest.mark.parametrize("arguments", ["{oops", "[1]", "[" * 100_000])
def test_a_call_that_cannot_be_sent_back_is_refused(arguments):
    with pytest.raises(errors.BadRequestError, match="tool call a are not a JSON object"):
        request_body(ModelRequest("m", (Message("assistant", "", (ToolCall("a", "look", arguments),)),)))


def test_json_without_a_schema_is_refused_and_not_ignored():
    with pytest.raises(errors.BadRequestError, match="no JSON mode"):
        request_body(ModelRequest("m", HI, json_only=True))


def test_a_schema_is_sent_in_the_apis_own_format_without_bounds_it_does_not_know():
    schema = {
        "type": "object",
        "properties": {
            "score": {"type": "integer", "minimum": 1, "maximum": 5, "description": "How good."},
            "maximum": {"type": "string", "maxLength": 9},
            "tags": {"type": "array", "items": {"type": "number", "multipleOf": 2}, "minItems": 3, "maxItems": 4},
            "one": {"oneOf": [{"const": 1}, {"type": "null"}]},
        },
        "required": ["score"],
    }
    body = request_body(ModelRequest("m", HI, schema))
    assert body["output_config"]["format"] == {
        "type": "json_schema",
        "schema": {
            "type": "object",
            "properties": {
                "score": {"type": "integer", "description": 'How good. {"minimum": 1, "maximum": 5}'},
                "maximum": {"type": "string", "description": '{"maxLength": 9}'},
                "tags": {
                    "type": "array",
                    "items": {"type": "number", "description": '{"multipleOf": 2}'},
                    "minItems": 1,
                    "description": '{"maxItems": 4, "minItems": 3}',
                },
                "one": {"anyOf": [{"const": 1}, {"type": "null"}]},
            },
            "required": ["score"],
            "additionalProperties": False,
        },
    }


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object"},
        {"type": "object", "properties": {}, "additionalProperties": {"type": "string"}},
        {"type": "array", "items": {"type": "object", "additionalProperties": True}},
    ],
)
def test_an_open_object_is_refused_because_it_would_come_back_empty(schema):
    with pytest.raises(errors.BadRequestError, match="unlisted properties"):
        compilable(schema)


# -- replies ------------------------------------------------------------------------------------------------------


def test_an_answer_with_thoughts_and_usage():
    deltas = read(
        START,
        block(0, type="thinking", thinking=""),
        piece(0, "thinking_delta", thinking="hm"),
        piece(0, "signature_delta", signature="x"),
        {"type": "ping"},
        block(1, type="text", text=""),
        text("Par", 1),
        text("is", 1),
        {"type": "content_block_stop", "index": 1},
        {"type": "something new"},
        end("end_turn"),
        STOP,
    )
    assert "".join(delta.text for delta in deltas) == "Paris"
    assert "".join(delta.reasoning for delta in deltas) == "hm"
    assert [delta.usage for delta in deltas if delta.usage] == [Usage(39, None), Usage(39, 4)]
    assert [delta.finish for delta in deltas if delta.finish] == ["stop"]


@given(st.lists(st.text(min_size=1, max_size=20), min_size=1, max_size=3), st.data())
def test_arguments_of_calls_come_out_whole_wherever_they_are_cut(arguments, data):
    events = [text("Let me see.")]
    for index, argument in enumerate(arguments, start=1):
        cut = data.draw(st.integers(0, len(argument)))
        events.append(block(index, type="tool_use", id=f"c{index}", name="look", input={}))
        events += [piece(index, "input_json_delta", partial_json=part) for part in (argument[:cut], argument[cut:])]
    pieces = [piece for delta in read(*events) for piece in delta.tools]
    for position, argument in enumerate(arguments):
        mine = [piece for piece in pieces if piece.index == position]
        assert mine[0] == ToolPiece(position, f"c{position + 1}", "look")
        assert "".join(piece.arguments for piece in mine) == argument


@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("tool_use", "tool_calls"),
        ("a new one", "a new one"),
    ],
)
def test_reasons_to_stop_are_told_in_one_language(reason, finish):
    assert [delta.finish for delta in read(end(reason), STOP)] == [finish, None]


def test_a_server_that_counts_the_prompt_at_the_end():
    start = {"type": "message_start", "message": {"usage": {"input_tokens": 0, "output_tokens": 1}}}
    deltas = read(start, text("x"), end("end_turn", input_tokens=12))
    assert [delta.usage for delta in deltas if delta.usage] == [Usage(None, None), Usage(12, 4)]


def test_a_whole_document():
    message = {
        "type": "message",
        "content": [
            {"type": "thinking", "thinking": "hm"},
            {"type": "text", "text": "Let me see."},
            {"type": "tool_use", "id": "a", "name": "look", "input": {"word": "x"}},
        ],
        "stop_reason": "tool_use",
        "usage": {"input_tokens": 3, "output_tokens": 5},
    }
    assert MessageReader().document(json.dumps(message).encode()) == Delta(
        "Let me see.", "tool_calls", Usage(3, 5), "hm", (ToolPiece(0, "a", "look", '{"word": "x"}'),)
    )


ERRORS = [
    ("overloaded_error", errors.ServerFaultError),
    ("api_error", errors.ServerFaultError),
    ("rate_limit_error", errors.RateLimitedError),
    ("invalid_request_error", errors.BadRequestError),
    ("authentication_error", errors.AuthError),
    ("permission_error", errors.AuthError),
    ("billing_error", errors.QuotaError),
    ("not_found_error", errors.UnknownModelError),
    ("request_too_large", errors.ContextOverflowError),
]


@pytest.mark.parametrize(("kind", "expected_error"), ERRORS)
def test_an_error_within_the_stream_has_its_own_kind(kind, expected_error):
    with pytest.raises(errors.RemoteError) as caught:
        read({"type": "error", "error": {"type": kind, "message": "Sorry"}})
    assert type(caught.value) is expected_error
    assert "Sorry" in caught.value.message


@pytest.mark.parametrize(
    ("event", "kind"),
    [
        (end("refusal"), errors.ContentFilterError),
        (text(7), errors.MalformedReplyError),
        (piece(3, "input_json_delta", partial_json="{}"), errors.MalformedReplyError),
        (block(None, type="tool_use", id="a", name="look"), errors.MalformedReplyError),
        ([], errors.MalformedReplyError),
    ],
)
def test_what_is_no_piece_of_an_answer(event, kind):
    with pytest.raises(kind):
        read(event)


KINDS = ["content_block_delta", "content_block_start", "message_start", "message_delta", "message_stop", "error"]
PARTS = ["text", "thinking", "tool_use", "text_delta", "thinking_delta", "input_json_delta"]
HOLDERS = ["message", "content_block", "delta", "usage", "error", "content", "input"]
VALUES = ["type", "index", "id", "name", "text", "thinking", "partial_json", "stop_reason", "input_tokens", "message"]
words = st.sampled_from([*HOLDERS, *VALUES])
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from([*KINDS, *PARTS]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=4),
    max_leaves=20,
)


@given(anything, st.sampled_from(KINDS))
def test_whatever_comes_is_a_piece_or_a_typed_error(document, kind):
    payload = json.dumps({**document, "type": kind} if isinstance(document, dict) else document)
    for read_it in (lambda text: MessageReader().event(text), lambda text: MessageReader().document(text.encode())):
        try:
            delta = read_it(payload)
        except errors.RemoteError:
            continue
        assert isinstance(delta.text, str)
        assert all(isinstance(piece.arguments, str) for piece in delta.tools)


# -- over the wire ------------------------------------------------------------------------------------------------


@pytest.fixture
def ask(home, key):
    """Read one answer: its text and its deltas."""

    def run(server, request=None, *, times=1, clocks=PATIENT):
        url = server.url.removesuffix("/v1")
        provider = AnthropicProvider.model_validate(
            {"kind": "anthropic", "base_url": url, "api_key": "${TEST_API_KEY}"}
        )
        model = build("there", provider, ProviderContext({"TEST_API_KEY": key}, home, clocks))

        async def read_all():
            try:
                for _ in range(times):
                    deltas = [delta async for delta in model.stream(request or ModelRequest("m", HI))]
            finally:
                await model.close()
            return "".join(delta.text for delta in deltas), deltas

        return asyncio.run(read_all())

    return run


def test_a_question_and_its_answer_over_the_wire(serve, ask, key):
    server = serve()
    server(server.events(START, block(0, type="text", text=""), text("Paris"), end("end_turn"), STOP, done=False))
    assert ask(server)[0] == "Paris"
    head = server.heads[0].lower()
    assert head.startswith("post /v1/messages ")
    assert f"x-api-key: {key}" in head
    assert "anthropic-version: 2023-06-01" in head
    assert "authorization" not in head
    assert server.bodies[0]["stream"] is True


def test_a_sampling_word_that_a_model_refuses_is_left_out_from_then_on(serve, ask):
    server = serve()
    refusal = {"type": "error", "error": {"type": "invalid_request_error"}}
    refusal["error"]["message"] = "`temperature` is deprecated for this model."
    server(
        server.status(400, refusal),
        server.events(START, text("yes"), end("end_turn"), STOP, done=False),
    )
    assert ask(server, times=2)[0] == "yes"
    assert ["temperature" in body for body in server.bodies] == [True, False, False]


@pytest.mark.parametrize(
    ("code", "kind", "message", "expected_error"),
    [
        (529, "overloaded_error", "Overloaded", errors.ServerFaultError),
        (429, "rate_limit_error", "Too many requests", errors.RateLimitedError),
        (413, "request_too_large", "Request exceeds the maximum size", errors.ContextOverflowError),
        (
            400,
            "invalid_request_error",
            "prompt is too long: 210000 tokens > 200000 maximum",
            errors.ContextOverflowError,
        ),
        (400, "invalid_request_error", "Your credit balance is too low", errors.QuotaError),
        (400, "invalid_request_error", "max_tokens: Field required", errors.BadRequestError),
        (401, "authentication_error", "invalid x-api-key", errors.AuthError),
        (404, "not_found_error", "model: nothing", errors.UnknownModelError),
        (500, "api_error", "Internal server error", errors.ServerFaultError),
    ],
)
def test_a_status_becomes_an_error(serve, ask, code, kind, message, expected_error):
    server = serve()
    body = {"type": "error", "error": {"type": kind, "message": message}}
    server(server.status(code, body, headers="retry-after: 7\r\n"))
    with pytest.raises(errors.RemoteError) as caught:
        ask(server)
    assert type(caught.value) is expected_error
    assert getattr(caught.value, "retry_after", 7) == 7
    if expected_error is errors.AuthError:
        assert caught.value.hint == "Check TEST_API_KEY."


def test_the_key_is_in_no_error(serve, ask, key):
    server = serve()
    server(server.events({"type": "error", "error": {"type": "api_error", "message": f"your key {key}"}}, done=False))
    with pytest.raises(errors.ServerFaultError) as caught:
        ask(server)
    assert key not in repr(caught.value) + str(caught.value)


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"


def wire(*events):
    return b"".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in events)


@pytest.mark.parametrize(
    ("behave", "kind", "words"),
    [
        (lambda s: s.raw(HEAD, wire(START, text("Par"))), errors.LLMTruncatedError, "broke off"),
        (lambda s: s.resets(HEAD, wire(START, text("Par"))), errors.LLMTruncatedError, "broke"),
        (lambda s: s.silent(HEAD, wire(START, text("Par"))), errors.LLMTimeoutError, "The answer paused"),
        (lambda s: s.drips(HEAD, wire(START), piece=wire({"type": "ping"})), errors.LLMTimeoutError, "did not begin"),
    ],
    ids=["ends", "resets", "stalls", "pings for ever"],
)
def test_a_broken_stream(serve, ask, behave, kind, words):
    server = serve()
    server(behave(server))
    with pytest.raises(kind, match=words):
        ask(server, clocks=IMPATIENT.get(words, PATIENT))


def test_a_missing_key_names_the_page_where_there_is_one(home):
    with pytest.raises(errors.MissingKeyError, match="ANTHROPIC_API_KEY is not set") as caught:
        build("a", AnthropicProvider(kind="anthropic"), ProviderContext({}, home))
    assert "console.anthropic.com" in caught.value.hint


def test_any_reason_to_stop_can_be_written_down():
    assert read(end("\ud800"))[0].finish == "?"
    assert len(read(end("x" * 500))[0].finish) == 40
