"""The whole command on a small model: real quantizers, real llama.cpp and transformers, real files."""

import json
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from agentlab import machine
from agentlab.compress.config import CompressConfig
from agentlab.compress.costs import stages_of
from agentlab.compress.recipe import Recipe
from cli.main import main
from tests.unit.compress.scripted import llm
from tests.unit.gguf.test_files import checkpoint
from tests.zygote import FROM_NOTHING, ForkedWithAll

pytestmark = pytest.mark.usefixtures("forked_workers")
TEXT = "".join(f"Line {n} of a text about the weather: it rains {n % 7} days a week.\n\n" for n in range(400))
PORTFOLIO = [
    {"quantizer": "kquant", "quantization_bits": 8},
    {"quantizer": "gptq", "quantization_bits": 4, "group": 32},
    {"structure": "width", "kept": 0.9, "recovery": "distil", "quantizer": "kquant", "quantization_bits": 8},
]
SMALL = {
    "base": "tiny",
    "text": {"file": "text.txt", "length": 32, "calibration": 8, "held_out": 16},
    "goal": "smallest with kl < 0.5",
    "portfolio": PORTFOLIO,
    "first": 3,
    "recovery": {"steps": 3, "batch": 2, "rank": 4},
    "budget": {"trials": 4},
    "threads": 1,
    "remember": False,
}


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AGENTLAB_HOME", str(tmp_path))
    sizes = {"hidden_size": 256, "intermediate_size": 512, "num_attention_heads": 8, "head_dim": 32}
    checkpoint(tmp_path / "models" / "tiny", "llama", **sizes)
    (tmp_path / "text.txt").write_text(TEXT)
    (tmp_path / "small.yaml").write_text(json.dumps(SMALL))
    return tmp_path


def answer(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, dict[str, Any]]:
    code = main(["compress", "./small.yaml", "--json", "-q", *args])
    captured = capsys.readouterr()
    return code, json.loads(captured.out)


def killed(workspace: Path, seen: str, *args: str) -> None:
    """A run called `cut`, killed when its events show something."""
    command = [sys.executable, "-m", "agentlab", "compress", "./small.yaml", "-q", "--run-name", "cut", *args]
    process = ForkedWithAll(command, cwd=workspace, stderr=subprocess.PIPE, text=True)
    events = workspace / "runs" / "cut" / "events.jsonl"
    while not (events.is_file() and seen in events.read_text()):
        assert process.poll() is None
        time.sleep(0.05)
    process.kill()
    process.communicate()


def events_of(workspace: Path, run: str, kind: str) -> list[dict[str, Any]]:
    lines = (workspace / "runs" / run / "events.jsonl").read_text().splitlines()
    return [event for event in map(json.loads, lines) if event["type"] == kind]


def kept(document: dict[str, Any]) -> list[list[dict[str, Any]]]:
    """The rows of each base, but for what a clock says."""
    passing = ("seconds", "joules", "grams", "speed", "decode", "prefill", "load", "peak", "within")
    return [
        [
            {key: value for key, value in row.items() if key not in passing}
            | {"within": {key: ends for key, ends in row["within"].items() if key != "speed"}}
            for row in model["rows"]
        ]
        for model in document["result"]["models"]
    ]


def scripted(*calls: tuple[str, dict[str, Any]]) -> dict[str, Any]:
    """`llm:` with a scripted model that calls tools."""
    replies = [json.dumps({"tool": tool, "arguments": arguments}) for tool, arguments in calls]
    return {
        "providers": {"script": {"kind": "scripted", "mode": "replies", "replies": replies}},
        "models": {"planner": {"provider": "script", "id": "x", "tier": "full"}},
        "roles": {"primary": ["planner"]},
    }


def test_an_agent_plans_and_reflects_around_real_recipes(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sixth = {"structure": "none", "quantizer": "kquant", "quantization_bits": 6, "importance": False}
    advice = {"output": "Six bits next.", "todos": ["weigh six bits"], "recipes": [sixth]}
    few = {"portfolio": [PORTFOLIO[0]], "first": 1, "budget": {"trials": 3}, "beside": []}
    config = SMALL | few | {"llm": scripted(("show_front", {}), ("finish", advice)), "seed": 1}
    (workspace / "small.yaml").write_text(json.dumps(config))
    code, document = answer(capsys, "--run-name", "r")
    assert code == 0, document
    (result,) = document["result"]["models"]
    assert result["plan"]["output"] == "Six bits next."
    assert [row["params"] for row in result["rows"] if row["source"] == "llm"] == [sixth]
    assert result["reflection"]["output"].startswith("Six bits next.")
    assert "Whether the agent helped was not measured" in (workspace / "runs" / "r" / "report.md").read_text()

    assert main(["compress", "watch", "r"]) == 0
    page = capsys.readouterr().out
    assert "r: completed" in page
    assert "- [x] weigh six bits (suggested by planner)" in page
    assert main(["compress", "reflect", "r", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["result"]["output"].startswith("Six bits next.")
    assert main(["compress", "plan", "./small.yaml", "--set", "llm=none", "--json"]) == 0
    rules = json.loads(capsys.readouterr().out)["result"]
    assert rules["by"] == ""
    assert rules["recipes"]


def test_every_family_is_written_read_back_and_answers(
    workspace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subprocess, "Popen", FROM_NOTHING)  # here alone: the others start seconds sooner
    code, document = answer(capsys, "--run-name", "r", "--set", "text.held_out=64")  # a process for each look
    assert code == 0, document
    (result,) = document["result"]["models"]
    rows = {row["id"]: row for row in result["rows"] if row["arm"] == "search"}
    assert [rows[f"run_000{n}"]["family"] for n in range(3)] == ["k-quant", "integer", "distilled"]
    assert {row["failed"] for row in rows.values()} == {""}
    assert rows["run_0000"]["kl"] < rows["run_0001"]["kl"]
    assert rows["run_0001"]["size"] < rows["run_0002"]["size"]
    for row in rows.values():
        assert row["speed"] > 0
        assert row["bits"] > 0
        assert row["peak"] > 0
    exports = workspace / "runs" / "r" / "exports"
    front_files = {row["file"] for row in result["rows"] if row["front"]}
    assert {path.name for path in exports.iterdir()} == front_files
    assert sum((exports / name).stat().st_size for name in front_files if name.endswith(".gguf")) > 0
    assert result["winner"] in {row["id"] for row in result["rows"] if row["front"]}
    winner = next(row for row in result["rows"] if row["id"] == result["winner"])
    assert (winner["verdict"], winner["confirmed"]["verdict"]) == ("meets", "meets")
    assert set(winner["confirmed"]["figures"]) == {"loss", "kl"}  # a bound on KL is confirmed by KL
    assert f"on {winner['confirmed']['windows']} held-out windows not used for any choice" in result["sentence"]
    report = (workspace / "runs" / "r" / "report.md").read_text()
    assert result["volumes"] == []  # what the search had by then is the portfolio, which is no rival
    assert "At equal cost, the search and portfolio tried the same recipes, so there is nothing to compare" in report
    assert f"\n{result['loads'][0]}\n" in report


def test_masks_are_measured_but_stay_off_the_front(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    portfolio = [
        {"quantizer": "bitsandbytes", "quantization_bits": 4},
        {"pruner": "wanda", "pruning_sparsity": "2:4", "quantizer": "gptq", "quantization_bits": 4, "group": 128},
    ]
    (workspace / "small.yaml").write_text(
        json.dumps(SMALL | {"portfolio": portfolio, "first": 2, "goal": "smallest at any loss"})
    )
    code, document = answer(capsys, "--run-name", "r", "--trials", "2")
    assert code == 0, document
    plain, masked = document["result"]["models"][0]["rows"]
    assert (plain["failed"], masked["failed"]) == ("", "")
    assert masked["size"] < plain["size"]
    assert (plain["front"], masked["front"]) == (True, False)
    assert "research only" in masked["research"]
    assert masked["held"].keys() == {"int4 in groups of 128"}
    assert document["result"]["models"][0]["winner"] == "run_0000"
    assert "research only" in (workspace / "runs" / "r" / "report.md").read_text()


def test_the_stages_of_a_forecast_are_those_that_are_carried_out(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    portfolio = [
        {"quantizer": "kquant", "quantization_bits": 4, "importance": True},
        {"quantizer": "gptq", "quantization_bits": 4, "group": 32},
        {"structure": "width", "kept": 0.9, "pruner": "wanda", "pruning_sparsity": 0.5, "recovery": "distil"},
    ]
    config = SMALL | {"portfolio": portfolio, "first": 3, "goal": "smallest at any loss", "beside": []}
    (workspace / "small.yaml").write_text(json.dumps(config))
    assert answer(capsys, "--run-name", "r", "--trials", "3")[0] == 0
    charged: list[list[tuple[str, float]]] = []
    finished_count = 0  # what comes after the last recipe confirms the winner
    recipes = [Recipe.model_validate(event["data"]["params"]) for event in events_of(workspace, "r", "trial.proposed")]
    for line in (workspace / "runs" / "r" / "events.jsonl").read_text().splitlines():
        event = json.loads(line)
        if event["type"] == "trial.started":
            charged.append([])
        elif event["type"] == "trial.finished":
            finished_count += 1
        elif event["type"] == "energy.spent" and len(charged) > finished_count and event["id"] not in ("propose", ""):
            charged[-1].append((event["id"], event["data"]["work"]))
    artifacts = set[str]()
    for recipe, stages in zip(recipes, charged, strict=True):
        expected = stages_of(recipe, CompressConfig.model_validate(config), 2_000_000, artifacts)
        names = [name for name, _ in stages]
        assert list(dict.fromkeys(names)) == list(dict.fromkeys(stage.name for stage in expected))
        for stage in expected:
            if stage.work:
                assert max(work for name, work in stages if name == stage.name) > 0
        artifacts |= {stage.makes for stage in expected}
    code, refused = answer(capsys, "--run-name", "poor", "--set", "budget.joules=60")
    assert code == 5
    assert "forecast to take" in refused["error"]["message"]
    assert not (workspace / "runs" / "poor" / "exports").exists()


def test_killed_and_resumed_it_makes_the_same_files(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = ["--set", "portfolio.2.recovery=none", "--set", "portfolio.1.quantizer=kquant", "--trials", "3"]
    code, uninterrupted = answer(capsys, "--run-name", "whole", *few)
    assert code == 0
    killed(workspace, '"trial.started","id":"run_0001"', *few)
    assert main(["compress", "--resume", "cut", "--json", "-q"]) == 0
    resumed = json.loads(capsys.readouterr().out)
    assert kept(uninterrupted) == kept(resumed)


def test_what_runs_share_is_made_again_where_it_is_damaged(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = {"portfolio": PORTFOLIO[:2], "first": 2, "budget": {"trials": 2}}
    (workspace / "small.yaml").write_text(json.dumps(SMALL | few))
    _, first_run = answer(capsys)
    for file in (workspace / ".agentlab" / "compress").glob("*/*.*"):
        file.write_bytes(file.read_bytes()[:-50])
    _, second_run = answer(capsys)
    assert kept(second_run) == kept(first_run)


def test_several_bases_share_a_budget_and_a_report(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint(workspace / "models" / "other", "qwen2", hidden_size=256, num_attention_heads=8)
    few = {"portfolio": [{"quantizer": "rtn", "quantization_bits": 8}], "first": 1, "budget": {"trials": 1}}
    (workspace / "small.yaml").write_text(json.dumps(SMALL | few | {"models": ["tiny", "other"]}))
    code, document = answer(capsys, "--run-name", "r")
    assert code == 0, document
    one, second = document["result"]["models"]
    assert [one["base"], second["base"]] == ["tiny", "other"]
    assert one["rows"][0]["size"] != second["rows"][0]["size"]
    exports = workspace / "runs" / "r" / "exports"
    assert {entry.name for entry in exports.iterdir()} == {"tiny", "other"}
    assert [entry.name for entry in (exports / "other").iterdir()] == [second["rows"][0]["file"]]
    assert "exports/other/run_0000" in second["loads"][0]
    report = (workspace / "runs" / "r" / "report.md").read_text()
    assert report.index("## tiny") < report.index("## other")
    assert (workspace / "runs" / "r" / "plots" / "front-1.svg").is_file()
    charges = [event["data"] for event in events_of(workspace, "r", "energy.spent")]
    assert {entry.get("base", "") for entry in charges} == {"", "tiny", "other"}
    assert sum(entry["joules"] for entry in charges) == pytest.approx(document["result"]["joules"])
    killed(workspace, '"decision.made","id":"tiny/')
    assert main(["compress", "--resume", "cut", "--json", "-q"]) == 0
    assert kept(json.loads(capsys.readouterr().out)) == kept(document)


def test_a_budget_is_for_all_bases_together(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint(workspace / "models" / "other", "qwen2", hidden_size=256, num_attention_heads=8)
    (workspace / "small.yaml").write_text(json.dumps(SMALL | {"models": ["tiny", "other"]}))
    code, _ = answer(capsys, "--run-name", "r", "--set", "budget.joules=200")
    assert code in (0, 5)
    joules = sum(event["data"]["joules"] for event in events_of(workspace, "r", "energy.spent"))
    assert 100 < joules < 200 + 2 * 2 * 2 * 20  # two processes, of two threads, an interval of two seconds, 20 W
    assert "The run ended early because of the budget" in (workspace / "runs" / "r" / "report.md").read_text()


def test_what_was_measured_is_remembered_and_can_be_asked_for(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = [
        "--workspace-dir",
        "kept",
        "--set",
        "remember=true",
        "--trials",
        "2",
        "--set",
        "portfolio.2.recovery=none",
        "--set",
        "first=2",
    ]
    assert answer(capsys, "--run-name", "one", *few)[0] == 0
    code, document = answer(capsys, "--run-name", "two", *few)
    assert code == 0
    (model,) = document["result"]["models"]
    assert {row["remembered"] for row in model["rows"]} == {"", "one"}
    assert any("are reused from earlier runs" in remark for remark in model["remarks"])

    def memory(*args: str) -> list[dict[str, Any]]:
        assert main(["compress", "memory", *args, "--workspace-dir", "kept", "--json"]) == 0
        experiments: list[dict[str, Any]] = json.loads(capsys.readouterr().out)["result"]["experiments"]
        return experiments

    every = memory("list")
    assert len(every) == len(model["rows"])
    assert memory("list", "--base", "absent") == []
    assert {experiment["recipe"]["quantizer"] for experiment in memory("query", "quantizer=gptq")} == {"gptq"}
    (best,) = memory("best", "--objective", "minimise kl")
    assert best["metrics"]["kl"] == min(experiment["metrics"]["kl"] for experiment in every)
    assert main(["compress", "memory", "query", "bits=4", "--workspace-dir", "kept"]) == 2
    assert "no setting named 'bits'" in capsys.readouterr().err
    assert "n = " in (workspace / "kept" / "knowledge" / "tiny.md").read_text()


def test_a_tiny_budget_ends_with_a_missed_gate(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, document = answer(capsys, "--carbon-budget", "0.0001g", "--run-name", "poor")
    assert code == 5
    assert document["error"]["kind"] == "GateError"
    assert (workspace / "runs" / "poor" / "report.md").is_file()


@pytest.mark.parametrize(
    ("change", "code", "message"),
    [
        (["--set", "base=absent"], 2, "absent"),
        (["--objective", "be nice"], 2, "The goal 'be nice' contains unknown words: 'nice'"),
        (["--fit", "2G"], 2, "contains unknown words"),
        (["--carbon-budget", "lots"], 2, "not a valid CO2 mass"),
        (["--text", "absent.txt"], 3, "absent.txt"),
        (["--set", "text.length=4000"], 2, "is too short"),
        (["--set", "portfolio.0.quantization_bits=7"], 2, "llama.cpp supports"),
    ],
)
def test_what_is_wrong_is_named_before_work_starts(
    workspace: Path, capsys: pytest.CaptureFixture[str], change: list[str], code: int, message: str
) -> None:
    assert main(["compress", "./small.yaml", *change]) == code
    assert message in capsys.readouterr().err
    assert not (workspace / "runs").is_dir()


def test_a_size_to_fit_is_the_goal_whatever_the_config_says(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, document = answer(capsys, "--fit", "2GB", "--dry-run")
    assert code == 0
    assert document["result"]["goal"] == "least kl, size at most 2000 MB"


def test_want_of_room_and_of_packages_is_named_before_work_starts(
    workspace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(name: str, value: Any) -> tuple[int, str]:
        with monkeypatch.context() as patch:
            patch.setattr(name, value)
            return main(["compress", "./small.yaml"]), capsys.readouterr().err

    code, stderr = refused("agentlab.machine.memory", lambda: machine.Memory(2**40, 2**20))
    assert code == 1
    assert "of memory, but only" in stderr
    code, stderr = refused("shutil.disk_usage", lambda _: SimpleNamespace(free=2**20))
    assert code == 3
    assert "of disk, but" in stderr
    code, stderr = refused("importlib.util.find_spec", lambda name: None if name == "compressed_tensors" else name)
    assert code == 3
    assert "compressed_tensors" in stderr
    assert not (workspace / "runs").is_dir()


def test_a_goal_that_a_model_reads_needs_a_yes_and_is_kept_by_rule(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clauses = [("objective", "so klein wie möglich", "least size"), ("bounds", "kl unter 0.5", "kl at most 0.5")]
    parts = [dict(zip(("slot", "quote", "rule"), part, strict=True)) for part in clauses]
    script = {"planner": "tpe", "llm": llm(mode="replies", replies=[json.dumps({"parts": parts})])}
    goal = {"goal": "so klein wie möglich, kl unter 0.5", "budget": {"trials": 1}, "first": 1, "beside": []}
    (workspace / "small.yaml").write_text(json.dumps(SMALL | script | goal | {"portfolio": PORTFOLIO[:1]}))
    code, planned = answer(capsys, "--dry-run")
    assert (code, planned["result"]["goal"]) == (0, "least size, kl at most 0.5")
    code, refused = answer(capsys)
    assert (code, "--yes" in refused["error"]["hint"]) == (2, True)
    assert not (workspace / "runs").is_dir()
    code, done = answer(capsys, "--yes", "--run-name", "agreed")
    assert (code, done["result"]["goal"]) == (0, "least size, kl at most 0.5")
    assert "goal: least size, kl at most 0.5\n" in (workspace / "runs" / "agreed" / "config.yaml").read_text()
