"""The check of all models: availability, times, what went wrong and what to do."""

import asyncio
import time
from pathlib import Path

import pytest

from agentlab.bench.check.asking import run_check
from agentlab.bench.config import CheckConfig
from agentlab.config.workspace import Workspace
from agentlab.errors import (
    AuthError,
    BudgetExceededError,
    ConfigError,
    LLMTimeoutError,
    RateLimitedError,
    ServerFaultError,
)
from agentlab.llm.router import Router
from tests.unit.bench.conftest import Model, llm_of


def check(llm, router, **config):
    async def go():
        async with router:
            return await run_check(CheckConfig(**config), llm, router)

    return asyncio.run(go())


def test_one_models_failure_does_not_hide_anothers_result(router_of):
    flaky = iter(["warm", "OK", ServerFaultError("Internal error."), "OK"])
    models = {
        "good": Model(lambda _: "OK"),
        "flaky": Model(lambda _: next(flaky)),
        "late": Model(lambda _: LLMTimeoutError("No first token.")),
        "full": Model(lambda _: RateLimitedError("Slow down.", retry_after=900)),
        "locked": Model(lambda _: AuthError("Bad key.", hint="Check the key.")),
        "mute": Model(lambda _: ""),
    }
    llm = llm_of(models)
    result = check(llm, router_of(llm, models))
    rows = {row.model: row for row in result.models}
    assert list(rows) == list(models)
    assert {name: (row.available, row.successes, row.failures, row.error_group) for name, row in rows.items()} == {
        "good": (True, 3, 0, None),
        "flaky": (True, 2, 1, "API Error"),
        "late": (False, 0, 1, "Timeout"),
        "full": (False, 0, 1, "Rate Limit"),
        "locked": (False, 0, 1, "API Error"),
        "mute": (False, 0, 1, "API Error"),
    }
    assert (rows["locked"].error, rows["locked"].remedy) == ("Bad key.", "Check the key.")
    assert rows["good"].first_seconds <= rows["good"].total_seconds <= rows["good"].slowest_seconds


def test_what_a_model_needs_to_start_is_not_charged_to_it(router_of):
    class Starting(Model):
        async def stream(self, request):
            await asyncio.sleep(0.0 if self.requests else 0.5)
            async for delta in super().stream(request):
                yield delta

    models = {"m": Starting(lambda _: "OK")}
    (row,) = check(llm_of(models), router_of(llm_of(models), models), requests=1).models
    assert (row.asked, row.successes, len(models["m"].requests)) == (1, 1, 2)
    assert row.total_seconds < 0.3


def test_models_are_asked_at_the_same_time_but_not_all_at_once(router_of):
    peak = running = 0

    class Slow(Model):
        async def stream(self, request):
            nonlocal peak, running
            running += 1
            peak = max(peak, running)
            await asyncio.sleep(0.1)
            running -= 1
            async for delta in super().stream(request):
                yield delta

    models = {f"m{i}": Slow(lambda _: "OK") for i in range(6)}
    llm = llm_of(models)
    began = time.perf_counter()
    result = check(llm, router_of(llm, models), requests=1, models_at_once=3)
    assert peak == 3
    assert time.perf_counter() - began < 0.55
    assert all(row.total_seconds >= 0.1 for row in result.models)


def test_a_model_that_hangs_costs_its_clock_once():
    llm = llm_of(
        ["dead", "good"],
        providers={"at-dead": {"kind": "scripted", "mode": "stuck"}, "at-good": {"kind": "scripted"}},
        defaults={"retries": 0, "timeout": {"first_token": 0.3}},
    )
    began = time.perf_counter()
    result = check(llm, Router(llm, env={}, workspace=Workspace(root=Path(), cache=Path())), requests=5)
    assert time.perf_counter() - began < 1.0
    assert [(row.model, row.asked, row.available) for row in result.models] == [
        ("dead", 1, False),
        ("good", 5, True),
    ]


def test_without_models_there_is_nothing_to_check(router_of):
    llm = llm_of([], roles={})
    with pytest.raises(ConfigError, match="No language model"):
        check(llm, router_of(llm, {}))


def test_a_check_without_money_ends_and_does_not_call_the_model_unavailable(router_of):
    models = {"dear": Model(lambda _: "OK")}
    llm = llm_of(models, budget={"per_run_usd": 0})
    with pytest.raises(BudgetExceededError):
        check(llm, router_of(llm, models))
    assert models["dear"].requests == []
