"""A key that an answer holds goes no further, whole or in pieces."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from agentlab.llm.connections import MaskedModel
from agentlab.llm.types import Delta, ModelRequest, ToolPiece
from agentlab.runs.redact import MASK, Redactor

KEY = "q7Rk2mZp9xVt4LwB"
TEXT = f"Bearer {KEY}, and sk-live-0123456789abcdef."
MASKED = f"Bearer {MASK}, and {MASK}."


class Speaker:
    """Says these pieces."""

    def __init__(self, *deltas: Delta) -> None:
        self._deltas = deltas

    async def stream(self, _: ModelRequest) -> AsyncIterator[Delta]:
        for delta in self._deltas:
            yield delta

    async def close(self) -> None:
        pass


def heard(*deltas: Delta) -> list[Delta]:
    async def listen() -> list[Delta]:
        model = MaskedModel(Speaker(*deltas), Redactor([KEY]))
        return [delta async for delta in model.stream(ModelRequest("m", ()))]

    return asyncio.run(listen())


@pytest.mark.parametrize("cut", range(len(TEXT) + 1))
def test_wherever_the_stream_is_cut(cut: int) -> None:
    pieces = heard(Delta(TEXT[:cut], reasoning=TEXT[:cut]), Delta(TEXT[cut:], "stop", reasoning=TEXT[cut:]))
    assert "".join(delta.text for delta in pieces) == MASKED
    assert "".join(delta.reasoning for delta in pieces) == MASKED
    assert [delta.finish for delta in pieces if delta.finish] == ["stop"]


def test_letter_by_letter_and_in_calls_of_tools_each_by_itself() -> None:
    letters = [
        Delta(tools=(ToolPiece(0, "a", "say" if i == 0 else "", letter), ToolPiece(1, arguments="x")))
        for i, letter in enumerate(TEXT)
    ]
    tools = [piece for delta in heard(*letters, Delta(finish="tool_calls")) for piece in delta.tools]
    assert "".join(piece.arguments for piece in tools if piece.index == 0) == MASKED
    assert "".join(piece.arguments for piece in tools if piece.index == 1) == "x" * len(TEXT)
    assert [piece.name for piece in tools if piece.name] == ["say"]


def test_what_is_no_secret_comes_as_it_came() -> None:
    deltas = (Delta("Hello "), Delta("there"), Delta(finish="stop"))
    assert heard(*deltas) == list(deltas)
