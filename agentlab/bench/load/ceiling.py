"""How fast this client is: the same code that measures, against a mock server that answers at once."""

from collections.abc import AsyncIterator

from agentlab.bench.load.measure import Clock
from agentlab.bench.load.result import CeilingRow
from agentlab.bench.load.schedule import Stage
from agentlab.bench.load.sending import Bounds, run_stage
from agentlab.config.workspace import Workspace
from agentlab.llm import providers
from agentlab.llm.provider_config import OpenAICompatProvider
from agentlab.llm.types import ChatModel, Delta, Message, Request

CONCURRENCY = 16
_WITHOUT_END = 1_000_000  # requests
_WARM_UP = 0.25  # of the seconds, for connections
_QUESTION = (Message("user", "How fast can you be asked?"),)


async def measure_ceiling(url: str, tokens: int, seconds: float, clock: Clock, workspace: Workspace) -> CeilingRow:
    """Requests per second against the mock server at `url`, each of both lengths for half of the seconds."""
    model = client(url, workspace)
    try:
        await request_rate(model, "ok-n1", CONCURRENCY, seconds * _WARM_UP, clock)
        short = await request_rate(model, "ok-n1", CONCURRENCY, seconds / 2, clock)
        long = await request_rate(model, f"ok-n{tokens}", CONCURRENCY, seconds / 2, clock)
        return CeilingRow(short=short, long=long, tokens=tokens, concurrency=CONCURRENCY)
    finally:
        await model.close()


def client(url: str, workspace: Workspace) -> ChatModel:
    """What asks the mock server at `url`."""
    provider = OpenAICompatProvider(kind="openai_compat", base_url=url)
    return providers.build("mock", provider, providers.Surroundings({}, workspace))


async def request_rate(model: ChatModel, script: str, concurrency: int, seconds: float, clock: Clock) -> float:
    """Whole answers per second, so many requests at a time for so long."""
    request = Request(script, _QUESTION, max_tokens=4096)

    def ask(_: int) -> AsyncIterator[Delta]:
        return model.stream(request)

    stage = Stage("ceiling", "mock", "closed", concurrency, _WITHOUT_END, 0)
    taken = await run_stage(stage, ask, Bounds(seconds, request=10.0), lambda _readings, _now: None, clock)
    ends = [reading.ended for reading in taken.readings if reading.ended is not None and reading.error is None]
    return len(ends) / (max(ends) - taken.began) if ends else 0.0
