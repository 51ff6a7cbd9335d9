"""A live answer for callers without a loop, or in somebody else's."""

from collections.abc import Iterator

from agentlab.llm.live import Live
from agentlab.llm.loop import LoopThread
from agentlab.llm.types import Delta


def pieces(live: Live) -> Iterator[Delta]:
    """Read it in a loop of its own; leaving early gives the call up. Raises as `Live` does."""
    loop = LoopThread()
    stream = aiter(live)

    async def following() -> Delta | None:
        return await anext(stream, None)

    try:
        while (delta := loop.submit(following()).result()) is not None:
            yield delta
    finally:
        loop.close(stream.aclose)
