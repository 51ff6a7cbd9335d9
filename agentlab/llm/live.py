"""An answer that is heard while it comes."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable

from agentlab.llm.question import Sink
from agentlab.llm.types import Completion, Delta


class Live:
    """`async for delta in live`, once; then `live.completion` tells the rest. Leaving early gives the call up.

    Until the first piece, a failing model is replaced unseen. After it the loop raises: `LLMTruncatedError` when the
    stream broke. It never ends as if an answer were complete that is not.
    """

    def __init__(self, ask: Callable[[Sink], Awaitable[Completion[str]]]) -> None:
        """`ask` puts the question; its sink may be called from another thread."""
        self._ask = ask
        self._completion: Completion[str] | None = None
        self.model = ""  # whose answer it is; known from the first piece on

    @property
    def completion(self) -> Completion[str]:
        """The whole answer, who gave it, and what it took.

        Raises:
            RuntimeError: it is not over.
        """
        if self._completion is None:
            raise RuntimeError("the answer is not complete: read it to its end first")
        return self._completion

    async def __aiter__(self) -> AsyncGenerator[Delta, None]:
        loop, pieces = asyncio.get_running_loop(), asyncio.Queue[Delta | None]()

        def sink(model: str, delta: Delta) -> None:
            self.model = model
            try:
                here = asyncio.get_running_loop() is loop
            except RuntimeError:
                here = False
            if here:
                pieces.put_nowait(delta)
            else:
                loop.call_soon_threadsafe(pieces.put_nowait, delta)

        task = asyncio.ensure_future(self._ask(sink))
        task.add_done_callback(lambda _: pieces.put_nowait(None))
        try:
            while (delta := await pieces.get()) is not None:
                yield delta
            self._completion = await task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
