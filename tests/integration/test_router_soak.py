"""10,000 calls, 64 at a time, a fifth of all requests go wrong in some way: nothing hangs, leaks or gets mixed up."""

import asyncio
import gc
import time
from collections import Counter
from pathlib import Path

import httpx
import psutil
import pytest

from agentlab.bench.mock.server import in_process
from agentlab.config.workspace import Workspace
from agentlab.errors import RemoteError
from agentlab.llm.config import LLMConfig
from agentlab.llm.router import Router
from agentlab.llm.types import Message

CALLS, WARM_UP, IN_FLIGHT = 10_000, 1_000, 64
TOTAL, LATE = 3.0, 1.0  # seconds: the deadline of a call, and what a busy machine may add
MOST_GROWTH = 20 << 20  # bytes
TOKENS = 8


def config(url: str) -> LLMConfig:
    """Two models, both of which fail every fifth time, with short clocks."""
    tree = {
        "providers": {name: {"kind": "openai_compat", "base_url": url} for name in ("one", "other")},
        "models": {name: {"provider": name, "id": f"{name}/faults20-n{TOKENS}"} for name in ("one", "other")},
        "roles": {"primary": ["one"], "fallback": ["other"]},
        "defaults": {"timeout": {"connect": 1.0, "first_token": 0.4, "idle": 0.4, "total": TOTAL}},
    }
    return LLMConfig.model_validate(tree, context={"env": {}})


async def ask(router: Router, calls: int) -> Counter[str]:
    """How the calls ended. Each has to end in time, with the whole answer of one model or with an error of ours."""
    ends: Counter[str] = Counter()
    call_numbers = iter(range(calls))
    expected = " ".join(map(str, range(TOKENS)))

    async def caller() -> None:
        for number in call_numbers:
            began = time.monotonic()
            try:
                completion = await router.complete([Message("user", f"question {number}")], "soak")
            except RemoteError as error:
                ends[error.kind] += 1
            else:
                ends["answered"] += 1
                assert completion.text == expected
            assert time.monotonic() - began < TOTAL + LATE

    async with asyncio.TaskGroup() as group:
        for _ in range(IN_FLIGHT):
            group.create_task(caller())
    return ends


def sockets() -> int:
    """Internet sockets of this process."""
    return len(psutil.Process().net_connections(kind="inet"))


def resident() -> int:
    """Bytes of this process in memory."""
    gc.collect()
    return psutil.Process().memory_info().rss


async def soak(url: str, home: Path) -> None:
    tasks, opened = asyncio.all_tasks(), sockets()
    router = Router(config(url), env={}, workspace=Workspace(home, home / "cache"), in_callers_loop=True)
    await ask(router, WARM_UP)
    before = resident()
    ends = await ask(router, CALLS)
    growth = resident() - before
    print(f"{growth / 2**20:.1f} MiB more after {CALLS} calls; {dict(ends)}")
    assert asyncio.all_tasks() == tasks, "a call left a task behind"
    assert sockets() - opened <= 2 * IN_FLIGHT, "more connections than calls in flight"
    await router.aclose()
    await asyncio.sleep(0)
    assert ends.total() == CALLS
    assert ends["answered"] > 0.9 * CALLS, ends  # two models, tried twice each: hardly any call should fail
    assert growth < MOST_GROWTH, f"{growth >> 20} MiB more after {CALLS} calls"
    assert asyncio.all_tasks() == tasks
    assert sockets() == opened


@pytest.mark.timeout(180)
def test_soak(tmp_path: Path) -> None:
    with in_process(seed=7) as url:
        asyncio.run(soak(url, tmp_path))
        seen = httpx.get(url.removesuffix("/v1") + "/__seen", trust_env=False).json()
    arrived = {name.partition("/")[0]: model for name, model in seen["models"].items()}
    assert arrived["one"]["count"] + arrived["other"]["count"] >= WARM_UP + CALLS
    assert seen["connections"]["open"] == 1, "only the one that asks for this"
