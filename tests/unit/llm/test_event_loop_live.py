"""An answer that is heard while it comes."""

import asyncio
import time

import pytest

from agentlab.errors import AllModelsFailedError, LLMCancelledError, LLMTruncatedError, ServerFaultError, UsageError
from agentlab.llm.options import Options
from agentlab.llm.router import Router
from agentlab.llm.types import Message, Tool, ToolPiece

ASK = (Message("user", "Say it."),)
DOWN = ServerFaultError("down")


def heard(router, **options):
    async def listen():
        live = router.stream(ASK, "t", options=Options(**options))
        pieces = [delta async for delta in live]
        return pieces, live.completion

    return asyncio.run(listen())


def test_pieces_and_then_the_whole(among, speaker):
    pieces, completion = heard(among({"one": speaker("one two three")}))
    assert [piece.text for piece in pieces] == ["one", " two", " three"]
    assert (completion.text, completion.model, completion.finish) == ("one two three", "one", "stop")
    assert 0 <= completion.timing.first <= completion.timing.total


def test_before_the_first_piece_a_failure_is_not_seen(among, speaker):
    pieces, completion = heard(among({"one": speaker(DOWN), "two": speaker("yes")}, defaults={"retries": 0}))
    assert [piece.text for piece in pieces] == ["yes"]
    assert [attempt.error for attempt in completion.attempts] == ["ServerFaultError", None]


def test_after_it_the_truth_is_told_and_nobody_elses_words_are_mixed_in(among, speaker):
    second = speaker("something else")
    router = among({"one": speaker("half an", after=DOWN), "two": second})

    async def listen():
        live, words = router.stream(ASK, "t"), []

        async def read():
            async for delta in live:
                words.append(delta.text)

        with pytest.raises(LLMTruncatedError, match="after 7 characters") as broken:
            await read()
        assert broken.value.hint
        with pytest.raises(RuntimeError):
            _ = live.completion
        return words

    assert asyncio.run(listen()) == ["half", " an"]
    assert second.requests == []


def test_half_an_answer_in_one_document_is_not_shown(serve, route):
    half, full = serve(), serve()
    half(half.status(200, {"choices": [{"message": {"content": "half "}}], "usage": {"prompt_tokens": 3}}))
    full(full.says("yes"))
    pieces, completion = heard(route([half, full]))
    assert ("".join(piece.text for piece in pieces), completion.text) == ("yes", "yes")
    assert completion.attempts[0].usage.input_tokens == 3  # it is paid for


def test_all_failed(among, speaker):
    with pytest.raises(AllModelsFailedError):
        heard(among({"one": speaker(DOWN)}, defaults={"retries": 0}))


def test_who_answers_is_known_from_the_first_piece_on(among, speaker):
    router = among({"one": speaker(DOWN), "two": speaker("a b")}, defaults={"retries": 0})

    async def listen():
        live = router.stream(ASK, "t")
        return live.model, [live.model async for _ in live]

    assert asyncio.run(listen()) == ("", ["two", "two"])


def test_leaving_early_gives_the_call_up(among, speaker):
    slow = speaker("never", pause=30)
    router = among({"one": slow})

    async def leave():
        live = router.stream(ASK, "t")

        async def read():
            return [delta async for delta in live]

        with pytest.raises(TimeoutError):
            await asyncio.wait_for(read(), 0.2)
        start = time.monotonic()
        while not slow.given_up and time.monotonic() - start < 1:
            await asyncio.sleep(0.01)

    asyncio.run(leave())
    assert slow.given_up == 1


def test_compared_answers_come_in_one_piece(among, speaker):
    roles = {"primary": ["one", "two"], "duplicate": ["judge"]}
    router = among(
        {"one": speaker("a b"), "two": speaker("c d"), "judge": speaker('{"best": "B"}', '{"best": "A"}')}, roles=roles
    )
    pieces, completion = heard(router, strategy="best_of_two")
    assert [piece.text for piece in pieces] == ["c d"]
    assert completion.model == "two"


def test_tool_calls_are_put_together_from_their_pieces(among, speaker):
    tools = [
        ToolPiece(1, "b", "second", "{}"),
        ToolPiece(0, "a", "first", '{"x"'),
        ToolPiece(0, arguments=": 1}"),
    ]
    offered = tuple(Tool(name, "", {"type": "object"}) for name in ("first", "second"))
    pieces, completion = heard(among({"one": speaker("", tools=tools)}), tools=offered)
    assert [(call.id, call.name, call.arguments) for call in completion.tool_calls] == [
        ("a", "first", '{"x": 1}'),
        ("b", "second", "{}"),
    ]
    assert completion.finish == "tool_calls"
    assert sum(len(piece.tools) for piece in pieces) == 3


def test_in_the_loop_of_the_caller(serve, llm_config, home, key):
    server = serve()
    server(server.says("one two"))

    async def ask():
        router = Router(llm_config([server.url]), env={"TEST_API_KEY": key}, workspace=home, in_callers_loop=True)
        async with router:
            live = router.stream(ASK, "t")
            assert [delta.text async for delta in live if delta.text] == ["one", " two"]
            assert (await router.complete(ASK, "t")).text == "one two"
            with pytest.raises(UsageError):
                router.complete_sync(ASK, "t")
        with pytest.raises(LLMCancelledError):
            await router.complete(ASK, "t")

    asyncio.run(ask())
