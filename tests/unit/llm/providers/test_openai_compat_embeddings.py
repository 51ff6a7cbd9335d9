"""Vectors: in the order of the texts, finite, of one length, and never fewer than asked for."""

import asyncio
import json

import pytest

from agentlab import errors
from agentlab.llm.provider_config import OpenAICompatProvider
from agentlab.llm.providers import ProviderContext, build, openai_compat
from agentlab.llm.types import Embeddings, Usage
from tests.unit.llm.providers.clocks import PATIENT


def row(index, *numbers):
    return {"object": "embedding", "index": index, "embedding": list(numbers)}


@pytest.fixture
def embed(home):
    def run(url, *texts):
        provider = OpenAICompatProvider.model_validate({"kind": "openai_compat", "base_url": url})
        model = build("there", provider, ProviderContext({}, home, PATIENT))

        async def ask():
            try:
                return await model.embed("e", texts)
            finally:
                await model.close()

        return asyncio.run(ask())

    return run


def test_vectors_come_in_the_order_of_the_texts(serve, embed):
    server = serve()
    usage = {"prompt_tokens": 7, "total_tokens": 7, "cost": 0.001}
    server(server.status(200, {"data": [row(1, 3, 4.5), row(0, 1.0, 2.0)], "usage": usage}))
    assert embed(server.url, "a", "b") == Embeddings(((1.0, 2.0), (3.0, 4.5)), Usage(7, None, 0.001))
    assert server.bodies == [{"model": "e", "input": ["a", "b"]}]
    assert server.heads[0].startswith("POST /v1/embeddings ")


def test_many_texts_are_asked_for_in_batches(serve, embed, monkeypatch):
    monkeypatch.setattr(openai_compat, "BATCH", 2)
    server = serve()
    parts = [[row(0, 1), row(1, 2)], [row(0, 3)]]
    server(*(server.status(200, {"data": part, "usage": {"prompt_tokens": 4}}) for part in parts))
    assert embed(server.url, "a", "b", "c") == Embeddings(((1.0,), (2.0,), (3.0,)), Usage(8, None, None))
    assert [body["input"] for body in server.bodies] == [["a", "b"], ["c"]]


def test_batches_of_different_lengths_are_refused(serve, embed, monkeypatch):
    monkeypatch.setattr(openai_compat, "BATCH", 1)
    server = serve()
    server(server.status(200, {"data": [row(0, 1)]}), server.status(200, {"data": [row(0, 1, 2)]}))
    with pytest.raises(errors.MalformedReplyError, match="differ in length"):
        embed(server.url, "a", "b")


def test_no_texts_need_no_request(serve, embed):
    server = serve()
    assert embed(server.url) == Embeddings((), Usage())
    assert server.bodies == []


def test_more_texts_than_one_call_takes(embed, refusing_url, monkeypatch):
    monkeypatch.setattr(openai_compat, "MOST_TEXTS", 2)
    with pytest.raises(errors.BadRequestError, match="3 texts"):
        embed(refusing_url, "a", "b", "c")


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"data": [row(0, 1)]}, "1 vectors for 2 texts"),
        ({"data": "x"}, "0 vectors for 2 texts"),
        ({"data": [row(0, 1), row(0, 2)]}, "uniquely"),
        ({"data": [row(0, 1), row(7, 2)]}, "uniquely"),
        ({"data": [row(0, 1), row(1, 1, 2)]}, "differ in length"),
        ({"data": [row(0), row(1)]}, "1 to 65536 numbers"),
        ({"data": [row(0, 1), row(1, "x")]}, "not a finite number"),
        ({"data": [row(0, 1), row(1, True)]}, "not a finite number"),
        ({"data": [row(0, 1), row(1, None)]}, "not a finite number"),
        ({"data": [row(0, 1), row(1, 10**400)]}, "not a finite number"),
        ({"data": [row(0, 1), 7]}, "1 to 65536 numbers"),
        ("no JSON", "not JSON"),
    ],
)
def test_what_are_no_vectors_is_refused(serve, embed, document, words):
    server = serve()
    server(server.status(200, document))
    with pytest.raises(errors.MalformedReplyError, match=words):
        embed(server.url, "a", "b")


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity"])
def test_numbers_that_are_none_are_refused(word):
    body = json.dumps({"data": [row(0, 1)]}).replace("[1]", f"[{word}]")
    with pytest.raises(errors.MalformedReplyError, match="finite"):
        openai_compat.parse_embeddings(body.encode(), 1)


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (404, "no such model"),
        (404, "page not found"),
        (405, ""),
        (500, "this model does not support embeddings"),
        (501, "This server does not support embeddings. Start it with `--embeddings`"),
        (200, None),
    ],
)
def test_a_model_without_vectors_refuses_and_may_chat_all_the_same(serve, embed, status, text):
    server = serve()
    server(server.status(status, {"object": "list", "data": []} if text is None else {"error": {"message": text}}))
    with pytest.raises(errors.BadRequestError):
        embed(server.url, "a")


def test_an_error_has_its_own_kind(serve, embed):
    server = serve()
    server(server.status(200, {"error": {"code": 429, "message": "slow down"}}))
    with pytest.raises(errors.RateLimitedError):
        embed(server.url, "a")
