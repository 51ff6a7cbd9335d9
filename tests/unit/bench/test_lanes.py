"""How many clients a provider gets, and who uses them."""

import asyncio
from collections.abc import AsyncIterator

from agentlab.bench.lanes import Lanes, lanes_of
from agentlab.llm.provider_config import GgufProvider, OpenAICompatProvider
from agentlab.llm.types import Delta, Message, Request

REQUEST = Request("m", (Message("user", "hello"),))


class Speaker:
    """Says four words, and remembers how many requests it had at a time."""

    def __init__(self) -> None:
        self.open = self.most = 0
        self.closed = False

    async def stream(self, request: Request) -> AsyncIterator[Delta]:
        self.open += 1
        self.most = max(self.most, self.open)
        try:
            for word in ("one", "two", "three", "four"):
                await asyncio.sleep(0)
                yield Delta(text=word)
            yield Delta(finish="stop")
        finally:
            self.open -= 1

    async def close(self) -> None:
        self.closed = True


def test_each_request_has_a_client_of_its_own_and_hands_it_on() -> None:
    made: list[Speaker] = []

    def build() -> Speaker:
        made.append(Speaker())
        return made[-1]

    async def ask(lanes: Lanes, count: int) -> None:
        async def one() -> None:
            assert [delta.finish async for delta in lanes.stream(REQUEST)][-1] == "stop"

        await asyncio.gather(*(one() for _ in range(count)))

    async def work() -> None:
        lanes = Lanes(build, 4)
        await ask(lanes, 3)
        await ask(lanes, 3)
        assert (len(made), [speaker.most for speaker in made]) == (3, [1, 1, 1])
        await ask(lanes, 8)  # more than there may be: some are shared
        assert len(made) == 4
        await ask(lanes, 4)
        await lanes.close()

    asyncio.run(work())
    assert sum(speaker.most for speaker in made) >= 8
    assert all(speaker.closed and speaker.open == 0 for speaker in made)


def test_a_local_model_is_there_once() -> None:
    assert lanes_of(GgufProvider(kind="gguf", model_path="m")) == 1
    assert lanes_of(OpenAICompatProvider(kind="openai_compat", base_url="https://example.com/v1")) == 1
    assert lanes_of(OpenAICompatProvider(kind="openai_compat", base_url="http://127.0.0.1:8080/v1")) > 64
