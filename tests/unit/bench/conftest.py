"""A router over scripted models, an open run; and an event loop that does not wait, with requests made to measure."""

import asyncio
import selectors
from array import array
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from agentlab.bench.load.records import Record
from agentlab.config.workspace import Workspace
from agentlab.llm.config import LLMConfig
from agentlab.llm.router import Router
from agentlab.llm.types import Delta, ModelRequest, Usage
from agentlab.runs.run import OpenRun, RunEnvironment, RunSpec


class Model:
    """Says what a function makes of the request, and counts how often it was asked. An exception is raised."""

    def __init__(self, say: Callable[[ModelRequest], str | Exception], usage: Usage | None = None) -> None:
        self.say, self._usage = say, usage
        self.requests: list[ModelRequest] = []

    async def stream(self, request: ModelRequest) -> AsyncIterator[Delta]:
        self.requests.append(request)
        reply = self.say(request)
        if isinstance(reply, Exception):
            raise reply
        yield Delta(text=reply)
        yield Delta(finish="stop", usage=self._usage or Usage(10, 5, None))

    async def close(self) -> None:
        pass


def llm_of(models: Mapping[str, Any], **settings: Any) -> LLMConfig:
    """A config of scripted models of these names; `settings` add to it."""
    return LLMConfig.model_validate(
        {
            "providers": {f"at-{name}": {"kind": "scripted"} for name in models},
            "models": {name: {"provider": f"at-{name}", "id": f"vendor/{name}"} for name in models},
            "roles": {"primary": list(models)},
            "defaults": {"retries": 0},
            "ledger": {"enabled": False},
            **settings,
        }
    )


@pytest.fixture
def router_of(tmp_path: Path) -> Callable[[LLMConfig, Mapping[str, Any]], Router]:
    def make(llm: LLMConfig, models: Mapping[str, Any]) -> Router:
        return Router(llm, env={}, workspace=Workspace(root=tmp_path, cache=tmp_path), models=models)

    return make


@pytest.fixture
def run(tmp_path: Path) -> Iterator[OpenRun]:
    with OpenRun.create(tmp_path / "runs", RunSpec("llm-bench", "", "", "h", 0), RunEnvironment()) as run:
        yield run


class _Jumping(selectors.SelectSelector):
    """When nothing is left to do, the clock jumps to the next timer."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        if not ready and timeout:
            self.now += timeout
        return ready


class JumpingLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._jumping = _Jumping()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now


@pytest.fixture
def virtually() -> Callable[[Coroutine[Any, Any, Any]], Any]:
    """Run a coroutine in virtual time."""

    def run(work: Coroutine[Any, Any, Any]) -> Any:
        with asyncio.Runner(loop_factory=JumpingLoop) as runner:
            return runner.run(work)

    return run


@pytest.fixture
def speak() -> Callable[..., AsyncIterator[Delta]]:
    """A model that says `pieces` after `ttft` seconds, `itl` apart, and reports its tokens."""

    async def stream(ttft: float, itl: float, pieces: int) -> AsyncIterator[Delta]:
        yield Delta()  # the role, which is no content
        await asyncio.sleep(ttft)
        for number in range(pieces):
            if number:
                await asyncio.sleep(itl)
            yield Delta(text="word ")
        yield Delta(finish="stop", usage=Usage(7, pieces))

    return stream


@pytest.fixture
def record() -> Callable[..., Record]:
    """One request: sent at `sent`, first piece `ttft` later, further ones `itl` apart."""

    def make(
        sent: float = 0.0,
        ttft: float = 0.1,
        itl: float = 0.01,
        pieces: int = 5,
        *,
        late: float = 0.0,
        tokens: int | None = None,
        error: str | None = None,
        cut: bool = False,
        **changes: Any,
    ) -> Record:
        stamps = array("d", [sent + ttft + number * itl for number in range(0 if error else pieces)])
        fields: dict[str, Any] = {
            "index": 0,
            "scheduled": sent - late,
            "sent": sent,
            "stamps": stamps,
            "output": stamps[0] if stamps else None,
            "ended": None if cut else (stamps[-1] if stamps else sent + ttft),
            "characters": 5 * pieces,
            "usage": Usage(7, pieces if tokens is None else tokens),
            "exact": None,
            "error": error,
            "message": "",
        }
        return Record(**{**fields, **changes})

    return make
