"""An OpenAI-compatible endpoint, against a real server that misbehaves: every fault has its own error."""

import asyncio
import json
import logging
import time

import pytest

from agentlab import errors
from agentlab.llm.provider_config import OpenAICompatProvider
from agentlab.llm.providers import ProviderContext, build
from agentlab.llm.types import Message, ModelRequest
from tests.unit.llm.providers.clocks import IMPATIENT, PATIENT

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"


def event(text):
    return b"data: " + json.dumps({"choices": [{"delta": {"content": text}}]}).encode() + b"\n\n"


@pytest.fixture
def ask(home, key):
    """Read one answer: its text, last finish and last usage."""

    def run(url, *, schema=None, request=None):
        provider = OpenAICompatProvider.model_validate(
            {"kind": "openai_compat", "base_url": url, "api_key": "${TEST_API_KEY}"}
        )
        model = build("there", provider, ProviderContext({"TEST_API_KEY": key}, home, PATIENT))

        async def read():
            text, finish, usage = "", None, None
            try:
                async for delta in model.stream(
                    request or ModelRequest("some/model", (Message("user", "Hi"),), schema)
                ):
                    text, finish, usage = text + delta.text, delta.finish or finish, delta.usage or usage
            finally:
                await model.close()
            return text, finish, usage

        return asyncio.run(read())

    return run


def test_an_answer_with_its_usage(serve, ask, key):
    server = serve()
    server(server.says("Paris is it", cost=0.002))
    text, finish, usage = ask(server.url)
    assert (text, finish) == ("Paris is it", "stop")
    assert (usage.input_tokens, usage.output_tokens, usage.cost_usd) == (10, 3, 0.002)
    assert f"authorization: bearer {key}".lower() in server.heads[0].lower()
    body = server.bodies[0]
    assert body["stream"] is True
    assert body["stream_options"] == {"include_usage": True}
    assert "usage" not in body  # a word that only OpenRouter knows


def test_a_schema_is_sent_as_response_format(serve, ask):
    server = serve()
    server(server.says("{}"))
    ask(server.url, schema={"type": "object", "properties": {}})
    assert server.bodies[0]["response_format"]["json_schema"]["schema"] == {"type": "object", "properties": {}}


def test_a_model_that_wants_other_words_is_asked_in_them(serve, ask):
    server = serve()
    refusal = (
        "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
    )
    server(server.status(400, {"error": {"message": refusal, "code": "unsupported_parameter"}}), server.says("yes"))
    assert ask(server.url)[0] == "yes"
    assert [sorted(body.keys() & {"max_tokens", "max_completion_tokens"}) for body in server.bodies] == [
        ["max_tokens"],
        ["max_completion_tokens"],
    ]


def test_a_refusal_that_does_not_end_is_an_error(serve, ask):
    server = serve()
    server(server.status(400, {"error": {"message": "temperature and top_p and seed are not supported"}}))
    with pytest.raises(errors.BadRequestError):
        ask(server.url)
    assert len(server.bodies) == 3  # without temperature, without seed, and then there is nothing to leave out


def test_a_whole_document_is_accepted_where_a_stream_was_asked_for(serve, ask):
    server = serve()
    server(server.status(200, {"choices": [{"message": {"content": "Paris"}, "finish_reason": "stop"}]}))
    assert ask(server.url)[:2] == ("Paris", "stop")


def test_a_stream_cut_into_single_bytes_with_crlf_and_umlauts(serve, ask):
    server = serve()
    wire = event("Grüße").replace(b"\n", b"\r\n").decode().encode() + b"data: [DONE]\r\n\r\n"
    wire = wire.replace(b"Gr\\u00fc\\u00dfe", "Grüße".encode())
    server(server.raw(HEAD, *(bytes([b]) for b in wire)))
    assert ask(server.url)[:2] == ("Grüße", "stop")


def test_done_does_not_hide_that_the_answer_was_cut(serve, ask):
    server = serve()
    server(server.says("Paris is", finish="length"))
    assert ask(server.url)[1] == "length"


def test_the_connection_is_used_again(serve, home):
    server = serve()
    reply = event("x") + b"data: [DONE]\n\n"
    wire = (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        + f"{len(reply):x}\r\n".encode()
        + reply
        + b"\r\n0\r\n\r\n"
    )
    connections = []

    def twice(_, peer):
        connections.append(peer)
        peer.sendall(wire)
        if peer.recv(65536):
            peer.sendall(wire)

    server(twice)
    provider = OpenAICompatProvider.model_validate({"kind": "openai_compat", "base_url": server.url})
    model = build("there", provider, ProviderContext({}, home, PATIENT))

    async def read_two():
        for _ in range(2):
            deltas = [delta async for delta in model.stream(ModelRequest("m", (Message("user", "Hi"),)))]
            assert deltas[0].text == "x"
        await model.close()

    asyncio.run(read_two())
    assert len(connections) == 1


STATUSES = [
    (400, {"error": {"message": "temperature is out of range"}}, errors.BadRequestError),
    (401, {"error": {"message": "No auth credentials found"}}, errors.AuthError),
    (402, {"error": {"message": "Insufficient credits"}}, errors.QuotaError),
    (403, {"error": {"message": "Forbidden"}}, errors.AuthError),
    (403, {"error": {"message": "Input flagged", "metadata": {"reasons": ["x"]}}}, errors.ContentFilterError),
    (404, {"error": {"message": "No such model"}}, errors.UnknownModelError),
    (400, {"error": {"code": "context_length_exceeded", "message": "too long"}}, errors.ContextOverflowError),
    (400, {"error": {"message": "This model's maximum context length is 10 tokens"}}, errors.ContextOverflowError),
    (429, {"error": {"message": "Slow down"}}, errors.RateLimitedError),
    (429, {"error": {"code": "insufficient_quota", "message": "x"}}, errors.QuotaError),
    (500, "<html>oops</html>", errors.ServerFaultError),
    (503, "", errors.ServerFaultError),
    (529, {"error": {"message": "Overloaded"}}, errors.ServerFaultError),
    (422, {"detail": "no"}, errors.BadRequestError),
    (409, {"error": {"message": "conflict"}}, errors.BadRequestError),
    (410, {"error": {"message": "gone"}}, errors.UnknownModelError),
    (400, {"error": {"message": "The model `x-1` does not exist"}}, errors.UnknownModelError),
    (400, {"error": {"code": "model_decommissioned", "message": "has been decommissioned"}}, errors.UnknownModelError),
    (400, {"error": {"message": "x/y is not a valid model ID"}}, errors.UnknownModelError),
    (400, {"error": {"message": "Model Not Exist"}}, errors.UnknownModelError),
    (400, {"error": "model 'moderation' not found, try pulling it first"}, errors.UnknownModelError),
    (400, {"error": {"message": "Invalid model parameters: top_p"}}, errors.BadRequestError),
    (400, [{"error": {"code": 400, "message": "API key not valid. Please pass a valid one."}}], errors.AuthError),
    (404, {"error": {"message": "No endpoints found that support tool use."}}, errors.BadRequestError),
    (404, "<html>404 page not found</html>", errors.BadRequestError),
    (403, "<html>Request blocked.</html>", errors.BadRequestError),
]


@pytest.mark.parametrize(("code", "body", "kind"), STATUSES)
def test_a_status_and_a_code_become_an_error(serve, ask, code, body, kind):
    server = serve()
    server(server.status(code, body))
    with pytest.raises(errors.RemoteError) as caught:
        ask(server.url)
    assert type(caught.value) is kind
    assert str(code) in caught.value.message


def test_a_rate_limit_says_how_long_to_wait(serve, ask):
    server = serve()
    server(server.status(429, "{}", headers="Retry-After: 7\r\n"))
    with pytest.raises(errors.RateLimitedError) as caught:
        ask(server.url)
    assert caught.value.retry_after == 7


def test_refused(ask, refusing_url):
    with pytest.raises(errors.LLMConnectionError, match="Cannot connect to 127"):
        ask(refusing_url)


ROLE = b'data: {"choices": [{"delta": {"role": "assistant", "content": ""}}]}\n\n'
FAULTS = {
    "accepts and says nothing": (lambda s: s.silent(), errors.LLMTimeoutError, "did not begin"),
    "headers, then nothing": (lambda s: s.silent(HEAD), errors.LLMTimeoutError, "did not begin"),
    "comments for ever": (lambda s: s.drips(HEAD), errors.LLMTimeoutError, "did not begin"),
    "a role, then comments": (lambda s: s.drips(HEAD, ROLE), errors.LLMTimeoutError, "did not begin"),
    "one byte at a time, never a line": (lambda s: s.drips(HEAD, piece=b"d"), errors.LLMTimeoutError, "did not begin"),
    "stalls in the middle": (lambda s: s.silent(HEAD, event("Par")), errors.LLMTimeoutError, "The answer paused"),
    "resets before the answer": (lambda s: s.resets(HEAD), errors.LLMConnectionError, "broke"),
    "hangs up without a word": (lambda s: s.raw(), errors.LLMConnectionError, "broke"),
    "resets in the middle": (lambda s: s.resets(HEAD, event("Par")), errors.LLMTruncatedError, "broke"),
    "ends in the middle": (lambda s: s.raw(HEAD, event("Par")), errors.LLMTruncatedError, "broke off"),
    "shorter than promised": (
        lambda s: s.raw(HEAD.replace(b"Connection: close", b"Content-Length: 9999"), event("Par")),
        errors.LLMTruncatedError,
        "broke",
    ),
    "not HTTP": (lambda s: s.raw(b"220 smtp.example.org ESMTP\r\n\r\n"), errors.MalformedReplyError, "HTTP"),
    "a page": (lambda s: s.status(200, "<html>Welcome</html>", kind="text/html"), errors.MalformedReplyError, "JSON"),
    "an event that is no JSON": (lambda s: s.events("{oops"), errors.MalformedReplyError, "not JSON"),
    "content that is no text": (
        lambda s: s.events({"choices": [{"delta": {"content": 7}}]}),
        errors.MalformedReplyError,
        "not text",
    ),
    "no choices": (lambda s: s.status(200, {"choices": []}), errors.MalformedReplyError, "no choices"),
    "an error within the stream": (
        lambda s: s.events({"error": {"code": 502, "message": "upstream is down"}}),
        errors.ServerFaultError,
        "upstream",
    ),
    "a filter within the stream": (
        lambda s: s.events({"choices": [{"delta": {}, "finish_reason": "content_filter"}]}),
        errors.ContentFilterError,
        "filter",
    ),
    "compressed": (
        lambda s: s.raw(HEAD.replace(b"\r\n\r\n", b"\r\nContent-Encoding: gzip\r\n\r\n"), b"\x1f\x8b..."),
        errors.MalformedReplyError,
        "compressed",
    ),
    "an endless event": (
        lambda s: s.drips(HEAD, piece=b"data: " + b"x" * 300_000, every=0),
        errors.MalformedReplyError,
        "larger than 262144",
    ),
    "an endless body": (
        lambda s: s.drips(HEAD, piece=b":" + b" " * 200_000 + b"\n", every=0),
        errors.MalformedReplyError,
        "larger than 33554432",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_ends_soon_and_with_its_own_error(serve, home, name, key):
    behave, kind, words = FAULTS[name]
    server = serve()
    server(behave(server))
    provider = OpenAICompatProvider.model_validate({"kind": "openai_compat", "base_url": server.url})
    model = build("there", provider, ProviderContext({}, home, IMPATIENT.get(words, PATIENT)))

    async def read():
        try:
            async for _ in model.stream(ModelRequest("m", (Message("user", "Hi"),))):
                pass
        finally:
            await model.close()

    start = time.monotonic()
    with pytest.raises(errors.RemoteError, match=words) as caught:
        asyncio.run(read())
    assert type(caught.value) is kind
    assert time.monotonic() - start < 15  # of a clock of 20


def test_an_endless_error_body_is_read_to_a_limit(serve, ask):
    server = serve()
    head = b"HTTP/1.1 500 X\r\nContent-Type: text/html\r\nConnection: close\r\n\r\n"
    server(server.drips(head, piece=b"sorry " * 10_000, every=0))
    with pytest.raises(errors.ServerFaultError) as caught:
        ask(server.url)
    assert len(caught.value.message) < 400


def test_a_redirect_is_not_followed(serve, ask, key):
    thief = serve()
    thief(thief.says("thanks"))
    server = serve()
    server(server.status(307, "", headers=f"Location: {thief.url}/chat/completions\r\n"))
    with pytest.raises(errors.MalformedReplyError, match="redirects to 127"):
        ask(server.url)
    assert thief.heads == []


def test_the_key_is_in_no_error_and_no_log(serve, ask, key, caplog):
    caplog.set_level(logging.DEBUG)
    server = serve()
    quoted = {"error": {"message": f"Incorrect API key provided: {key}. Also sk-or-v1-00112233445566778899."}}
    server(server.status(401, quoted))
    with pytest.raises(errors.AuthError) as caught:
        ask(server.url)
    assert "Incorrect API key" in caught.value.message
    assert caught.value.hint == "Check TEST_API_KEY."
    visible_text = repr(caught.value) + str(caught.value) + caplog.text
    assert key not in visible_text
    assert "00112233445566778899" not in visible_text


def test_a_missing_key_names_its_variable_its_file_and_the_page(home):
    provider = OpenAICompatProvider.model_validate(
        {"kind": "openai_compat", "base_url": "https://openrouter.ai/api/v1", "api_key": "${OPENROUTER_API_KEY}"}
    )
    with pytest.raises(errors.MissingKeyError, match="OPENROUTER_API_KEY is not set") as caught:
        build("openrouter", provider, ProviderContext({}, home))
    assert str(home.root / ".env") in caught.value.hint
    assert "https://openrouter.ai/keys" in caught.value.hint
    assert "--set llm=embedded" in caught.value.hint


def test_a_key_with_a_line_break_is_refused_without_showing_it(home):
    provider = OpenAICompatProvider.model_validate(
        {"kind": "openai_compat", "base_url": "https://openrouter.ai/api/v1", "api_key": "${OPENROUTER_API_KEY}"}
    )
    with pytest.raises(errors.MissingKeyError, match="line break") as caught:
        build("openrouter", provider, ProviderContext({"OPENROUTER_API_KEY": "sk-first\nsecond"}, home))
    assert "sk-first" not in str(caught.value)


LAST = b'data: {"choices": [{"delta": {"content": "Paris"}, "finish_reason": "stop"}]}\n\n'
COUNTED = b'data: {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 1}}\n\n'
ENDINGS = {
    "silence": lambda s: s.silent(HEAD, LAST),
    "usage, then silence": lambda s: s.silent(HEAD, LAST, COUNTED),
    "a reset": lambda s: s.resets(HEAD, LAST),
    "comments for ever": lambda s: s.drips(HEAD, LAST),
    "a broken promise of length": lambda s: s.raw(
        HEAD.replace(b"Connection: close", b"Content-Length: 9999"), LAST, COUNTED
    ),
}


@pytest.mark.parametrize("name", ENDINGS)
def test_a_whole_answer_is_not_lost_by_what_follows(serve, home, name):
    server = serve()
    server(ENDINGS[name](server))
    provider = OpenAICompatProvider.model_validate({"kind": "openai_compat", "base_url": server.url})
    model = build("there", provider, ProviderContext({}, home, PATIENT))

    async def read():
        try:
            return [delta async for delta in model.stream(ModelRequest("m", (Message("user", "Hi"),)))]
        finally:
            await model.close()

    start = time.monotonic()
    deltas = asyncio.run(read())
    assert ("".join(delta.text for delta in deltas), deltas[0].finish) == ("Paris", "stop")
    counted = [delta.usage.input_tokens for delta in deltas if delta.usage]
    assert counted == ([3] if name in ("usage, then silence", "a broken promise of length") else [])
    assert time.monotonic() - start < 15  # of a clock of 20
