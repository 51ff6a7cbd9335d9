"""Sends the requests of a stage: so many at a time, or at the times of one absolute schedule.

A request is scheduled apart from being sent: what the client is late counts in the latency from the schedule, so that
a slow answer cannot hide behind the requests that wait for it.
"""

import asyncio
from array import array
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass

from agentlab.bench.load.config import MAX_IN_FLIGHT
from agentlab.bench.load.records import Clock, Record, take
from agentlab.bench.load.result import CeilingRow, Ended
from agentlab.bench.load.schedule import LoadStage, offsets
from agentlab.config.workspace import Workspace
from agentlab.errors import GateError, LLMTimeoutError
from agentlab.llm import providers
from agentlab.llm.provider_config import OpenAICompatProvider
from agentlab.llm.types import WIRE, ChatModel, Delta, Message, ModelRequest, WireTimes

_POLL_SECONDS = 0.2
_BEAT_SECONDS = 0.01
_ISSUING = 0.85  # share of a stage's time in which requests are sent; the rest is for those that are still open

Ask = Callable[[int], AsyncIterator[Delta]]  # the answer to the request of this number, piece by piece
# Looks at the readings so far, several times a second: why the stage has to end now, or None. May raise to give it up.
Watch = Callable[[Sequence[Record], float], Ended | None]
# How fast this client is:
_CONCURRENCY = 16
_WITHOUT_END = 1_000_000  # requests
_WARM_UP = 0.25  # of the seconds, for connections
_QUESTION = (Message("user", "How fast can you be asked?"),)


@dataclass(frozen=True, slots=True)
class Bounds:
    """Seconds: of the whole stage, and of one request."""

    stage: float
    request: float


@dataclass(frozen=True, slots=True)
class StageOutcome:
    """What a stage did. Times of readings and `began` are of one clock; `lags` are in seconds, see `_lags`."""

    readings: list[Record]
    began: float
    seconds: float
    lags: "array[float]"
    ended: Ended
    error: GateError | None  # for which nothing more may be sent


class _Sender:
    def __init__(self, ask: Ask, seconds: float, clock: Clock, keep_text: bool) -> None:
        self.readings: list[Record] = []
        self.open = 0
        self._ask, self._seconds, self._clock, self._keep_text = ask, seconds, clock, keep_text

    async def send(self, index: int, scheduled: float | None = None) -> None:
        """Without a schedule a request counts from the moment of sending."""
        now = self._clock()
        reading = Record(index, now if scheduled is None else scheduled, now, text=[] if self._keep_text else None)
        self.readings.append(reading)
        self.open += 1
        WIRE.set(wire := WireTimes())
        try:
            async with asyncio.timeout(self._seconds):
                await take(reading, self._ask(index), self._clock, wire)
        except GateError:  # it was not sent
            self.readings.remove(reading)
            raise
        except TimeoutError:
            reading.fail(LLMTimeoutError("The total time limit of the call was exceeded."), self._clock())
        finally:
            self.open -= 1
            reading.sent = reading.sent if wire.sent is None else wire.sent
            reading.scheduled = reading.sent if scheduled is None else scheduled


async def run_stage(
    stage: LoadStage, ask: Ask, bounds: Bounds, watch: Watch, clock: Clock, *, keep_text: bool = False
) -> StageOutcome:
    """Send the requests of a stage and read the answers, within its time.

    Raises:
        Interrupted: what `watch` raised.
        Exception: what `ask` raised, other than the errors of models, which are part of the readings.
    """
    sender = _Sender(ask, bounds.request, clock, keep_text)
    began = clock()
    until = began + _ISSUING * bounds.stage
    driver = _send_closed_loop if stage.arrivals == "closed" else _send_open_loop
    work = asyncio.ensure_future(driver(stage, sender, clock, began, until))
    lags = array("d")
    beating = asyncio.ensure_future(_lags(lags, clock))
    early: Ended | None = None
    try:
        while not work.done() and early is None:
            await asyncio.wait({work}, timeout=_POLL_SECONDS)
            now = clock()
            early = watch(sender.readings, now)
            if early is None and now >= began + bounds.stage:
                early = "time"
            if early is None and sender.open >= MAX_IN_FLIGHT and stage.arrivals != "closed":
                early = "full"
    finally:
        work.cancel()
        beating.cancel()
        work_result = (await asyncio.gather(work, beating, return_exceptions=True))[0]
    error = work_result.exceptions[0] if isinstance(work_result, BaseExceptionGroup) else work_result
    if isinstance(error, Exception) and not isinstance(error, GateError):
        raise error
    gate = error if isinstance(error, GateError) else None
    ending: Ended = "whole" if len(sender.readings) == stage.requests else "time"
    return StageOutcome(sender.readings, began, clock() - began, lags, "budget" if gate else early or ending, gate)


async def _lags(lags: "array[float]", clock: Clock) -> None:
    """How late this client comes to its work: each wake-up's seconds after its time, a hundred times a second."""
    due = clock() + _BEAT_SECONDS
    while True:
        await asyncio.sleep(max(0.0, due - clock()))
        now = clock()
        lags.append(max(0.0, now - due))
        due = max(due, now) + _BEAT_SECONDS


async def _send_closed_loop(stage: LoadStage, sender: _Sender, clock: Clock, began: float, until: float) -> None:
    del began
    numbers = iter(range(stage.requests))

    async def worker() -> None:
        for index in numbers:
            if clock() >= until:
                return
            await sender.send(index)

    async with asyncio.TaskGroup() as group:
        for _ in range(min(int(stage.value), stage.requests)):
            group.create_task(worker())


async def _send_open_loop(stage: LoadStage, sender: _Sender, clock: Clock, began: float, until: float) -> None:
    async with asyncio.TaskGroup() as group:
        for index, offset in enumerate(offsets(stage)):
            due = began + offset
            if due >= until:
                return
            if (delay := due - clock()) > 0:
                await asyncio.sleep(delay)
            group.create_task(sender.send(index, due))


async def measure_ceiling(url: str, tokens: int, seconds: float, clock: Clock, workspace: Workspace) -> CeilingRow:
    """How fast this client is: the same code that measures, against the mock server at `url`, which answers at once.

    Answers of one token, and of `tokens`, each for half of the seconds.
    """
    model = client(url, workspace)
    try:
        await request_rate(model, "ok-n1", _CONCURRENCY, seconds * _WARM_UP, clock)
        short = await request_rate(model, "ok-n1", _CONCURRENCY, seconds / 2, clock)
        long = await request_rate(model, f"ok-n{tokens}", _CONCURRENCY, seconds / 2, clock)
        return CeilingRow(short=short, long=long, tokens=tokens, concurrency=_CONCURRENCY)
    finally:
        await model.close()


def client(url: str, workspace: Workspace) -> ChatModel:
    """What asks the mock server at `url`."""
    provider = OpenAICompatProvider(kind="openai_compat", base_url=url)
    return providers.build("mock", provider, providers.ProviderContext({}, workspace))


async def request_rate(model: ChatModel, script: str, concurrency: int, seconds: float, clock: Clock) -> float:
    """Whole answers per second, so many requests at a time for so long."""
    request = ModelRequest(script, _QUESTION, max_tokens=4096)

    def ask(_: int) -> AsyncIterator[Delta]:
        return model.stream(request)

    stage = LoadStage("ceiling", "mock", "closed", concurrency, _WITHOUT_END, 0)
    outcome = await run_stage(stage, ask, Bounds(seconds, request=10.0), lambda _readings, _now: None, clock)
    ends = [reading.ended for reading in outcome.readings if reading.ended is not None and reading.error is None]
    return len(ends) / (max(ends) - outcome.began) if ends else 0.0
