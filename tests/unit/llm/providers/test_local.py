"""A local model behind the chat seam: chunks cross from the engine's thread, and leaving stops the engine."""

import asyncio
import threading
import time
from dataclasses import replace

import pytest

from agentlab.errors import BadRequestError, LLMCancelledError, WorkerDiedError
from agentlab.llm.providers.local import LocalChatModel
from agentlab.llm.types import Message, ModelRequest, Tool, ToolCall, Usage
from agentlab.workers.chat import Chunk
from tests.unit.gguf.scripted import ScriptedEngine

ASK = ModelRequest("m", (Message("system", "Be brief."), Message("user", "Hi")), {"type": "object"}, 0.5, 64, 3)


async def read(model):
    return [delta async for delta in model.stream(ASK)]


def test_an_answer_arrives_in_pieces_with_its_usage():
    engine = ScriptedEngine(["Paris is it"])
    deltas = asyncio.run(read(LocalChatModel(engine, seconds=9, grammar=True)))
    assert [delta.text for delta in deltas] == ["Paris ", "is ", "it", ""]
    assert (deltas[-1].finish, deltas[-1].usage) == ("stop", Usage(3, 3, None))
    (request,) = engine.requests
    assert request.messages == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    assert (request.schema, request.max_tokens, request.temperature, request.seed, request.seconds) == (
        {"type": "object"},
        64,
        0.5,
        3,
        9,
    )


def test_an_error_of_the_engine_is_raised_where_the_answer_is_awaited():
    with pytest.raises(WorkerDiedError, match="gone"):
        asyncio.run(read(LocalChatModel(ScriptedEngine([WorkerDiedError("gone")]), seconds=9, grammar=True)))


class _Endless:
    """Talks until it is told to stop."""

    def __init__(self):
        self.stopped = threading.Event()
        self.threads = set()

    def chat(self, request, *, cancelled=lambda: False):
        self.threads.add(threading.current_thread())
        while not cancelled():
            time.sleep(0.005)
            yield Chunk("x")
        self.stopped.set()
        raise LLMCancelledError("The call was cancelled.")

    def close(self):
        pass


def test_cancelling_stops_the_engine():
    engine = _Endless()

    async def give_up():
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await read(LocalChatModel(engine, seconds=9, grammar=True))

    asyncio.run(give_up())
    assert engine.stopped.wait(1)


def test_leaving_early_stops_the_engine():
    engine = _Endless()

    async def leave():
        stream = LocalChatModel(engine, seconds=9, grammar=True).stream(ASK)
        assert (await anext(stream)).text == "x"
        await stream.aclose()

    asyncio.run(leave())
    assert engine.stopped.wait(1)


def test_so_many_questions_are_asked_at_a_time_as_the_engine_takes():
    async def three(engine, **calls):
        model = LocalChatModel(engine, seconds=9, grammar=True, **calls)
        tasks = [asyncio.ensure_future(read(model)) for _ in range(3)]
        await asyncio.sleep(0.1)
        for task in tasks:
            task.cancel()
        return len(engine.threads)

    assert asyncio.run(three(_Endless())) == 1
    assert asyncio.run(three(_Endless(), calls=2)) == 2


def test_a_note_of_the_engine_is_a_warning(caplog):
    engine = ScriptedEngine(["x"])
    engine.chat = lambda request, **_: iter([Chunk("x"), Chunk(finish="stop", note="It goes the slow way.")])
    asyncio.run(read(LocalChatModel(engine, seconds=9, grammar=True)))
    assert [(record.levelname, record.message) for record in caplog.records] == [("WARNING", "It goes the slow way.")]


def test_the_loop_stays_responsive_while_the_engine_works():
    async def count():
        task = asyncio.ensure_future(read(LocalChatModel(_Endless(), seconds=9, grammar=True)))
        ticks = 0
        for _ in range(10):
            await asyncio.sleep(0.01)
            ticks += 1
        task.cancel()
        return ticks

    start = time.monotonic()
    assert asyncio.run(count()) == 10
    assert time.monotonic() - start < 1


def asked(request, *, grammar):
    engine = ScriptedEngine(["{}"])

    async def run():
        async for _ in LocalChatModel(engine, seconds=9, grammar=grammar).stream(request):
            pass

    asyncio.run(run())
    return engine.requests[0]


def test_how_an_answer_is_sampled_and_where_it_stops_is_handed_on():
    request = asked(replace(ASK, top_p=0.8, stop=("\n\n", "END")), grammar=True)
    assert (request.top_p, request.stop) == (0.8, ("\n\n", "END"))


@pytest.mark.parametrize(("grammar", "schema"), [(True, {"type": "object"}), (False, None)])
def test_any_json_object_is_a_schema_where_there_is_a_grammar(grammar, schema):
    assert asked(replace(ASK, schema=None, json_only=True), grammar=grammar).schema == schema


def test_a_schema_is_left_out_where_nothing_would_enforce_it():
    assert asked(ASK, grammar=False).schema is None


@pytest.mark.parametrize(
    "request_",
    [
        replace(ASK, tools=(Tool("look", "Looks.", {"type": "object"}),)),
        replace(ASK, messages=(Message("assistant", "", (ToolCall("1", "look", "{}"),)),)),
        replace(ASK, messages=(Message("tool", "seen", tool_call_id="1"),)),
    ],
    ids=["tools", "a call", "a result"],
)
def test_tools_are_refused_and_not_ignored(request_):
    with pytest.raises(BadRequestError, match="cannot call tools"):
        asked(request_, grammar=True)
