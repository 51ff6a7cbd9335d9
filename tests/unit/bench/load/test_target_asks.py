"""Errors injected on request."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from agentlab.bench.load.config import FaultsConfig
from agentlab.bench.load.target_asks import FaultyModel
from agentlab.errors import LLMTruncatedError, RemoteError
from agentlab.llm.types import Delta, Message, ModelRequest

REQUEST = ModelRequest("m", (Message("user", "hello"),))


class Speaker:
    """Says four words."""

    async def stream(self, request: ModelRequest) -> AsyncIterator[Delta]:
        for word in ("one", "two", "three", "four"):
            yield Delta(text=word)
        yield Delta(finish="stop")

    async def close(self) -> None:
        pass


async def outcomes(model: FaultyModel, count: int) -> list[str]:
    kinds = []
    for _ in range(count):
        try:
            async for _ in model.stream(REQUEST):
                pass
            kinds.append("answered")
        except RemoteError as error:
            kinds.append(error.kind)
    return kinds


def test_the_drawn_share_fails_and_a_seed_repeats_it() -> None:
    faults = FaultsConfig(share=0.3)
    first = asyncio.run(outcomes(FaultyModel(Speaker(), faults, 7), 400))
    assert first == asyncio.run(outcomes(FaultyModel(Speaker(), faults, 7), 400))
    assert set(first) == {*faults.kinds, "answered"}
    assert 0.22 < 1 - first.count("answered") / 400 < 0.38


def test_a_broken_answer_breaks_after_it_has_begun() -> None:
    texts: list[str] = []

    async def listen() -> None:
        async for delta in FaultyModel(Speaker(), FaultsConfig(share=1, kinds=("LLMTruncatedError",)), 0).stream(
            REQUEST
        ):
            texts.append(delta.text)

    with pytest.raises(LLMTruncatedError):
        asyncio.run(listen())
    assert texts == ["one", "two"]
