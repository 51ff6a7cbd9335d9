"""A local model behind the chat seam: chunks cross from the engine's thread, and leaving stops the engine."""

import asyncio
import threading
import time

import pytest

from agentlab.errors import ConfigError, LLMCancelledError, WorkerDiedError
from agentlab.gguf.engine import Chunk
from agentlab.gguf.fake import ScriptedEngine
from agentlab.llm.config import GgufProvider
from agentlab.llm.providers import Surroundings, build
from agentlab.llm.providers.gguf import GgufModel
from agentlab.llm.types import Message, Request, Usage

ASK = Request("m", (Message("system", "Be brief."), Message("user", "Hi")), {"type": "object"}, 0.5, 64, 3)


async def read(model):
    return [delta async for delta in model.stream(ASK)]


def test_an_answer_arrives_in_pieces_with_its_usage():
    engine = ScriptedEngine(["Paris is it"])
    deltas = asyncio.run(read(GgufModel(engine, seconds=9)))
    assert [delta.text for delta in deltas] == ["Paris ", "is ", "it", ""]
    assert (deltas[-1].finish, deltas[-1].usage) == ("stop", Usage(3, 3, None))
    (asked,) = engine.requests
    assert asked.messages == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    assert (asked.schema, asked.max_tokens, asked.temperature, asked.seed, asked.seconds) == (
        {"type": "object"},
        64,
        0.5,
        3,
        9,
    )


def test_an_error_of_the_engine_is_raised_where_the_answer_is_awaited():
    with pytest.raises(WorkerDiedError, match="gone"):
        asyncio.run(read(GgufModel(ScriptedEngine([WorkerDiedError("gone")]), seconds=9)))


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
                await read(GgufModel(engine, seconds=9))

    asyncio.run(give_up())
    assert engine.stopped.wait(1)


def test_leaving_early_stops_the_engine():
    engine = _Endless()

    async def leave():
        stream = GgufModel(engine, seconds=9).stream(ASK)
        assert (await anext(stream)).text == "x"
        await stream.aclose()

    asyncio.run(leave())
    assert engine.stopped.wait(1)


def test_the_loop_stays_responsive_while_the_engine_works():
    async def count():
        task = asyncio.ensure_future(read(GgufModel(_Endless(), seconds=9)))
        ticks = 0
        for _ in range(10):
            await asyncio.sleep(0.01)
            ticks += 1
        task.cancel()
        return ticks

    start = time.monotonic()
    assert asyncio.run(count()) == 10
    assert time.monotonic() - start < 1


def test_a_folder_is_no_gguf_file(home):
    (home.models / "checkpoint").mkdir(parents=True)
    (home.models / "checkpoint" / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match="not a GGUF file"):
        build("here", GgufProvider(kind="gguf", model_path="checkpoint"), Surroundings({}, home))
