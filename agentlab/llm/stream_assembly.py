"""One answer, put together from its pieces as they come."""

from collections.abc import AsyncGenerator, Callable

from agentlab.errors import LLMTruncatedError, MalformedReplyError
from agentlab.llm.types import ChatModel, Delta, ModelRequest, ToolCall, ToolPiece, Usage

LONGEST_ANSWER = 262_144  # characters; whatever is used is recorded whole, so it has to be bounded
_MOST_TOOL_CALLS, _LONGEST_NAME = 128, 200


class ModelReply:
    """What came in so far: it is counted even if the stream breaks."""

    __slots__ = ("_calls", "_length", "_parts", "assumed_usd", "begun", "finish", "usage")

    def __init__(self) -> None:
        self.begun: float | None = None  # when the first piece came, in the loop's seconds
        self.finish: str | None = None
        self.usage = Usage()
        self.assumed_usd: float | None = None  # what it is taken to have cost, if it does not say
        self._parts: list[str] = []
        self._calls: dict[int, list[ToolPiece]] = {}
        self._length = 0

    @property
    def text(self) -> str:
        return _clean("".join(self._parts))

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        return tuple(_join_pieces(index, self._calls[index]) for index in sorted(self._calls))

    async def request_reply(
        self, model: ChatModel, request: ModelRequest, now: Callable[[], float], on_delta: Callable[[Delta], None]
    ) -> None:
        """Read an answer to its end. `now` is in seconds; `on_delta` is told each piece.

        Calls of tools that were not offered are no part of it.

        Raises:
            RemoteError: the stream broke, is too long, has no end, or holds nothing that can be used.
        """
        stream = model.stream(request)
        try:
            async for delta in stream:
                if delta.text or delta.tools or delta.reasoning:
                    if self.begun is None:
                        self.begun = now()
                    self._take(delta)
                on_delta(delta)
                if delta.finish:
                    self.finish = delta.finish
                if delta.usage:
                    self.usage = delta.usage
        finally:
            if isinstance(stream, AsyncGenerator):
                await stream.aclose()
        if self.finish is None:
            raise LLMTruncatedError("The answer broke off before it was complete.")
        uncalled = bool(self._calls) and not request.offers_tools
        if uncalled:
            self._calls.clear()
        if not self._calls and not any(part.strip() for part in self._parts):
            problem = "calls a tool, but none was offered" if uncalled else "is empty"
            raise MalformedReplyError(f"The answer {problem}.")

    def _take(self, delta: Delta) -> None:
        self._parts.append(delta.text)
        self._length += len(delta.text) + len(delta.reasoning)
        for piece in delta.tools:
            self._calls.setdefault(piece.index, []).append(piece)
            self._length += len(piece.arguments) + len(piece.name)
        if self._length > LONGEST_ANSWER or len(self._calls) > _MOST_TOOL_CALLS:
            raise MalformedReplyError(f"The answer is longer than {LONGEST_ANSWER} characters.")


def _join_pieces(index: int, pieces: list[ToolPiece]) -> ToolCall:
    identity = next((piece.id for piece in pieces if piece.id), f"call_{index}")
    name = next((piece.name for piece in pieces if piece.name), "")
    arguments = _clean("".join(piece.arguments for piece in pieces))
    return ToolCall(_clean(identity[:_LONGEST_NAME]), _clean(name[:_LONGEST_NAME]), arguments or "{}")


def _clean(text: str) -> str:
    """Half a surrogate pair is legal in JSON, but can be neither written nor sent on."""
    return text.encode(errors="replace").decode()
