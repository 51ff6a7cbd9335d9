"""The check of all models from Python."""

import asyncio
import re
from pathlib import Path

import pytest

from agentlab.bench.check import LLMTestRunner
from agentlab.errors import UsageError
from agentlab.llm.manager import LLMManager


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
    assert [result.model for result in results] == ["one", "two"]
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
    with pytest.raises(UsageError, match="No model has been tested yet"):
        LLMTestRunner().get_working_models()
