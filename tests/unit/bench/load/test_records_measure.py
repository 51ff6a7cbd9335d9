"""The stop-watch: what is stamped, and when."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from agentlab.bench.load.records import Record, take
from agentlab.errors import AllModelsFailedError, RateLimitedError
from agentlab.llm.types import Delta, ToolPiece, Usage, WireTimes


def read(virtually: Callable[..., Any], stream: AsyncIterator[Delta]) -> Record:
    async def measure() -> Record:
        clock = asyncio.get_running_loop().time
        reading = Record(0, clock(), clock())
        await take(reading, stream, clock, WireTimes())
        return reading

    record: Record = virtually(measure())
    return record


def test_the_first_token_is_the_first_piece_with_content_and_not_the_role(
    virtually: Callable[..., Any], speak: Callable[..., AsyncIterator[Delta]]
) -> None:
    reading = read(virtually, speak(0.2, 0.01, 3))
    assert reading.stamps.tolist() == pytest.approx([0.2, 0.21, 0.22])
    assert reading.output == pytest.approx(0.2)
    assert reading.usage == Usage(7, 3)
    assert reading.is_answered


def test_pieces_that_were_read_together_arrived_together(virtually: Callable[..., Any]) -> None:
    wire, reading = WireTimes(), Record(0, 0.0, 0.0)

    async def reads() -> AsyncIterator[Delta]:
        for came in (0.5, 0.5, 0.7):
            wire.came = came
            await asyncio.sleep(1)  # the client is slow: that is not the server's time
            yield Delta(text="x")
        yield Delta(finish="stop")

    virtually(take(reading, reads(), lambda: 9.0, wire))
    assert reading.stamps.tolist() == [0.5, 0.5, 0.7]


async def _thinking() -> AsyncIterator[Delta]:
    for delta in (Delta(reasoning="hm"), Delta(text="yes"), Delta(finish="stop")):
        await asyncio.sleep(1)
        yield delta


def test_reasoning_begins_the_answer_but_is_not_its_output(virtually: Callable[..., Any]) -> None:
    reading = read(virtually, _thinking())
    assert (reading.stamps.tolist(), reading.output) == ([1.0, 2.0], 2.0)


async def _calling() -> AsyncIterator[Delta]:
    yield Delta(tools=(ToolPiece(0, "a", "f", ""),))
    yield Delta(finish="tool_calls")


def test_a_part_of_a_tool_call_is_content(virtually: Callable[..., Any]) -> None:
    assert len(read(virtually, _calling()).stamps) == 1


async def _failing(error: Exception) -> AsyncIterator[Delta]:
    yield Delta(text="half")
    await asyncio.sleep(1)
    raise error


def test_an_error_is_part_of_the_reading(virtually: Callable[..., Any]) -> None:
    reading = read(virtually, _failing(RateLimitedError("HTTP 429:\n too  much")))
    assert (reading.error, reading.message, reading.ended) == ("RateLimitedError", "HTTP 429: too much", 1.0)
    assert not reading.is_answered


def test_of_a_strategy_that_failed_everywhere_the_last_cause_counts(virtually: Callable[..., Any]) -> None:
    error = AllModelsFailedError("None answered.", failures=["a: ServerFaultError: HTTP 500"])
    assert read(virtually, _failing(error)).error == "ServerFaultError"


def test_a_bug_is_no_reading(virtually: Callable[..., Any]) -> None:
    with pytest.raises(ZeroDivisionError):
        read(virtually, _failing(ZeroDivisionError()))


async def _saying(*deltas: Delta) -> AsyncIterator[Delta]:
    for delta in deltas:
        yield delta


@pytest.mark.parametrize("deltas", [(Delta(text="half"),), (Delta(finish="stop"),), ()])
def test_an_answer_without_end_or_without_content_is_none(
    virtually: Callable[..., Any], deltas: tuple[Delta, ...]
) -> None:
    assert read(virtually, _saying(*deltas)).error == "LLMTruncatedError"
