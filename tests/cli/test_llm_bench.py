"""`agentlab llm-bench` as typed, against the mock server."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agentlab.bench.check.result import CheckResult
from agentlab.bench.result import BenchResult

FAST = (
    "--set=load.ceiling_seconds=0",
    "--set=load.requests=6",
    "--set=load.output_tokens=4",
    "--set=mock=[ok-ttft5-n4]",
)
Call = Callable[..., Any]


def test_a_plan_touches_nothing(agentlab: Call, workspace: Path) -> None:
    answer = agentlab("llm-bench", "demo", "--dry-run")
    assert answer.code == 0
    assert "first token within 80 ms" in answer.out
    assert not (workspace / "runs").exists()


def test_a_run_is_one_document_and_its_requests_are_lines(agentlab: Call) -> None:
    answer = agentlab("llm-bench", "demo", *FAST, "--concurrency", "1,3", "--json")
    assert answer.code == 0
    result = BenchResult.model_validate(answer.json["result"])
    assert result.load is not None
    assert [(row.value, row.answered) for row in result.load.stages] == [(1, 6), (3, 6)]
    folder = Path(answer.json["run"]["path"])
    lines = (folder / result.load.stages[1].file).read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["error"] for line in lines] == [None] * 6
    assert {path.name for path in (folder / "plots").iterdir()} == {
        "latency_by_load.svg",
        "throughput.svg",
        "distribution.svg",
        "timeline.svg",
    }
    assert (folder / "report.html").stat().st_size > 10_000


def test_a_rate_is_an_open_loop_and_flags_are_bounds_of_the_objective(agentlab: Call) -> None:
    answer = agentlab("llm-bench", "demo", *FAST, "--rate", "50", "--slo-ttft-ms", "0.001", "--json")
    (stage,) = BenchResult.model_validate(answer.json["result"]).load.stages  # type: ignore[union-attr] # it is there
    assert (stage.arrivals, stage.value, stage.good, stage.answered) == ("poisson", 50, 0, 6)


def test_a_finished_run_is_shown_again_and_not_measured_again(agentlab: Call) -> None:
    first = agentlab("llm-bench", "demo", *FAST, "--concurrency", "2", "--run-name", "mine", "--json")
    resumed = agentlab("llm-bench", "--resume", "mine", "--json")
    assert resumed.json["result"] == first.json["result"]


def test_a_check_tells_what_is_there(agentlab: Call) -> None:
    answer = agentlab(
        "llm-bench", "check", "demo", "--set=mock=[ok-n4, ok-n2-then-ok, '500']", "--requests", "2", "--json"
    )
    assert answer.code == 0
    check = CheckResult.model_validate(answer.json["result"]["check"])
    assert [row.available for row in check.models] == [True, True, False]


def test_two_runs_are_compared(agentlab: Call) -> None:
    for name in ("a", "b"):
        agentlab("llm-bench", "demo", *FAST, "--concurrency", "2", "--run-name", name)
    answer = agentlab("llm-bench", "compare", "a", "b", "--json")
    assert answer.code == 0
    assert answer.json["result"]["first"] == "a"


def test_a_comparison_that_fails_its_gate_is_one_document_and_exit_code_5(agentlab: Call) -> None:
    for name, mock in (("a", "ok-ttft5-n4"), ("b", "ok-ttft200-n4")):
        words = ("--set=load.requests=30", f"--set=mock=[{mock}]", "--concurrency", "6", "--run-name", name)
        agentlab("llm-bench", "demo", *FAST[:1], FAST[2], *words)
    json_answer = agentlab("llm-bench", "compare", "a", "b", "--gate", "--json")
    assert (json_answer.code, json_answer.json["result"]["second"]) == (5, "b")
    text_answer = agentlab("llm-bench", "compare", "a", "b", "--gate")
    assert text_answer.code == 5
    assert "b is worse than a" in text_answer.err


def test_a_check_of_models_whose_key_is_missing_exits_3(agentlab: Call) -> None:
    answer = agentlab("llm-bench", "check", "--set", "llm=openrouter", "--json")
    assert answer.code == answer.json["error"]["exit_code"] == 3
    assert "OPENROUTER_API_KEY" in answer.json["error"]["hint"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--concurrency", "1,x"), "is not a list of numbers"),
        (("--model", "nobody"), "no target named 'nobody'"),
        (("--mode", "sideways"), "load.mode"),
        (("--set", "llm=none"), "No language model"),
        (("--set", "load.tokenizer=absent.json"), "absent.json does not exist"),
        (("compare", "a", "b"), "no run named"),
    ],
)
def test_what_cannot_work_is_said_before_anything_is_written(
    agentlab: Call, workspace: Path, words: tuple[str, ...], message: str
) -> None:
    answer = agentlab("llm-bench", *words)
    assert answer.code in (2, 3)
    assert message in answer.err
    assert not (workspace / "runs").exists()


NOBODY = """providers: {here: {kind: scripted, mode: refuse}}
models: {m: {provider: here, id: x, price: {input: 1000, output: 1000}}}
roles: {primary: [m]}
defaults: {retries: 0}
"""


@pytest.mark.parametrize("measure", ["run", "check", "quality"])
def test_when_nobody_answers_the_report_is_there_and_the_exit_code_is_4(
    agentlab: Call, workspace: Path, measure: str
) -> None:
    (workspace / "nobody.yaml").write_text(NOBODY)
    fast = FAST[:3] if measure == "run" else ()
    answer = agentlab("llm-bench", measure, "--set", "llm=nobody.yaml", *fast, "--json")
    assert answer.code == 4
    assert answer.json["run"]["status"] == "failed"
    assert "LLMConnectionError" in answer.json["error"]["message"]
    folder = Path(answer.json["run"]["path"])
    assert str(folder / "report.md") in answer.json["error"]["hint"]
    assert "agentlab llm-bench" not in answer.json["error"]["hint"]  # that is what was just run
    report = (folder / "report.md").read_text(encoding="utf-8")
    assert ("No item was answered" if measure == "quality" else "Model Unavailable") in report


@pytest.mark.parametrize("status", ["400", "401", "402", "404", "422", "500", "html"])
def test_no_remedy_names_the_command_that_was_just_run(agentlab: Call, status: str) -> None:
    flags = ("--set", f"mock=['{status}', ok-n1]", "--set", "llm.defaults.retries=0", "--requests", "1")
    answer = agentlab("llm-bench", "check", "demo", *flags, "--json")
    assert answer.code == 0
    row = answer.json["result"]["check"]["models"][0]
    assert (row["successes"], bool(row["remedy"])) == (0, True)
    assert "llm-bench" not in row["remedy"]


def test_what_speaks_against_a_figure_is_marked_on_the_screen(agentlab: Call) -> None:
    """All tokens come in one piece, and the stage is over in a moment."""
    answer = agentlab("llm-bench", "demo", *FAST, "--set", "mock=[ok-n20]", "--concurrency", "2")
    assert answer.code == 0
    assert "2 at a time *" in answer.out
    assert "of the chunks arrived together with the previous one" in " ".join(answer.out.split())
    assert "short: 6 requests in" in " ".join(answer.out.split())


def test_a_check_that_may_cost_nothing_exits_5(agentlab: Call, workspace: Path) -> None:
    (workspace / "nobody.yaml").write_text(NOBODY)
    answer = agentlab("llm-bench", "check", "--set", "llm=nobody.yaml", "--set", "llm.budget.per_run_usd=0", "--json")
    assert (answer.code, answer.json["error"]["kind"]) == (5, "BudgetExceededError")
