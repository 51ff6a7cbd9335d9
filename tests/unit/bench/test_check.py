"""The check of all models: availability, times, what went wrong and what to do, and which model for which role."""

import asyncio
import re
import time
from pathlib import Path

import pytest

from agentlab.bench.check import CheckConfig, LLMTestRunner, run_check
from agentlab.bench.check_result import ModelCheck
from agentlab.bench.recommend import recommend
from agentlab.config.workspace import Workspace
from agentlab.errors import AuthError, ConfigError, LLMTimeoutError, RateLimitedError, ServerFaultError, UsageError
from agentlab.llm.manager import LLMManager
from agentlab.llm.router import Router
from tests.unit.bench.conftest import Model, llm_of


def row(model: str, **changes) -> ModelCheck:
    base = {
        "model": model, "id": model, "provider": "p", "local": False, "free": False, "asked": 3, "successes": 3,
        "first_seconds": 0.1, "total_seconds": 1.0, "slowest_seconds": 1.0, "error_group": None, "error_kind": "",
        "error": "", "remedy": "",
    }  # fmt: skip
    return ModelCheck(**{**base, **changes})


def check(llm, router, **config):
    async def go():
        async with router:
            return await run_check(CheckConfig(**config), llm, router)

    return asyncio.run(go())


def test_one_models_failure_does_not_hide_anothers_result(router_of):
    flaky = iter(["OK", ServerFaultError("Internal error."), "OK"])
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
    rows = {each.model: each for each in result.models}
    assert list(rows) == list(models)
    assert {name: (each.available, each.successes, each.failures, each.error_group) for name, each in rows.items()} == {
        "good": (True, 3, 0, None),
        "flaky": (True, 2, 1, "API Error"),
        "late": (False, 0, 1, "Timeout"),
        "full": (False, 0, 1, "Rate Limit"),
        "locked": (False, 0, 1, "API Error"),
        "mute": (False, 0, 1, "API Error"),
    }
    assert (rows["locked"].error, rows["locked"].remedy) == ("Bad key.", "Check the key.")
    assert rows["good"].first_seconds <= rows["good"].total_seconds <= rows["good"].slowest_seconds


def test_models_are_asked_at_the_same_time_but_not_all_at_once(router_of):
    most = here = 0

    class Slow(Model):
        async def stream(self, request):
            nonlocal most, here
            here += 1
            most = max(most, here)
            await asyncio.sleep(0.1)
            here -= 1
            async for delta in super().stream(request):
                yield delta

    models = {f"m{i}": Slow(lambda _: "OK") for i in range(6)}
    llm = llm_of(models)
    began = time.perf_counter()
    result = check(llm, router_of(llm, models), requests=1, models_at_once=3)
    assert most == 3
    assert time.perf_counter() - began < 0.55
    assert all(each.total_seconds >= 0.1 for each in result.models)


def test_a_model_that_hangs_costs_its_clock_once():
    llm = llm_of(
        ["dead", "good"],
        providers={"at-dead": {"kind": "scripted", "mode": "stuck"}, "at-good": {"kind": "scripted"}},
        defaults={"retries": 0, "timeout": {"first_token": 0.3}},
    )
    began = time.perf_counter()
    result = check(llm, Router(llm, env={}, workspace=Workspace(root=Path(), cache=Path())), requests=5)
    assert time.perf_counter() - began < 1.0
    assert [(each.model, each.asked, each.available) for each in result.models] == [
        ("dead", 1, False),
        ("good", 5, True),
    ]


def test_without_models_there_is_nothing_to_check(router_of):
    llm = llm_of([], roles={})
    with pytest.raises(ConfigError, match="no language model"):
        check(llm, router_of(llm, {}))


def roles(*rows: ModelCheck) -> dict[str, str | None]:
    return {each.model: each.role for each in recommend(rows)}


def test_the_fastest_steady_model_is_primary_and_another_provider_stands_by():
    found = roles(
        row("slow", total_seconds=3.0),
        row("fast", total_seconds=0.5),
        row("near", total_seconds=0.6),
        row("away", total_seconds=0.9, provider="q"),
        row("home", total_seconds=5.0, provider="h", local=True),
        row("hasty", total_seconds=0.1, successes=2),
        row("gone", successes=0, total_seconds=None, error_group="Timeout"),
    )
    assert found == {
        "fast": "primary", "away": "duplicate", "hasty": "reserve", "near": "reserve", "slow": "reserve",
        "home": "fallback", "gone": None,
    }  # fmt: skip


def test_a_single_model_is_primary_and_an_unsteady_one_never():
    assert roles(row("only", local=True)) == {"only": "primary"}
    assert roles(row("shaky", successes=1)) == {"shaky": "reserve"}


@pytest.fixture
def settings(workspace) -> Path:
    path = workspace / "llm_settings.yaml"
    path.write_text(
        "providers:\n  here: {kind: scripted}\n  there: {kind: scripted, mode: refuse}\n"
        "models:\n  one: {provider: here, id: one}\n  two: {provider: there, id: two}\n"
        "roles: {primary: [one, two]}\ndefaults: {retries: 0}\n"
    )
    return path


def test_the_runner_tests_a_file_and_writes_a_report(settings, workspace):
    runner = LLMTestRunner(settings)
    results = asyncio.run(runner.test_all_models())
    assert [each.model for each in results] == ["one", "two"]
    assert runner.get_working_models() == ["one"]
    ((name, seconds),) = runner.get_fastest_models()
    assert name == "one"
    assert 0 <= seconds < 1
    path = runner.export_results_markdown()
    assert path == workspace / "llm_test_results.md"
    report = path.read_text()
    assert "1 of 2 models answered" in report
    assert re.search(r"\| two \| there \| two \| unavailable \|", report)
    assert "Model Unavailable" in report
    assert "| one | primary |" in report
    assert runner.export_results_markdown("reports/again.md") == workspace / "reports" / "again.md"


def test_the_runner_takes_a_manager_and_leaves_it_open(settings):
    async def go():
        async with LLMManager(settings) as manager:
            runner = LLMTestRunner(manager)
            await runner.test_all_models()
            return runner.get_working_models(), (await manager.generate_response("Hello")).success

    assert asyncio.run(go()) == (["one"], True)


def test_the_runner_says_what_to_do_first():
    with pytest.raises(UsageError, match="No model was tested yet"):
        LLMTestRunner().get_working_models()
