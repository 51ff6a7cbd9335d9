"""`agentlab evolve` from the outside, on a tiny random base."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.unit.evolve.small import workspace as made

Agentlab = Callable[..., Any]
WORDS = ("--parent", "one", "--parent", "two", "--base", "Llama", "--questions", "quiz.jsonl", "--seed", 3)
SMALL = ("--set=population=5", "--set=tasks.train=8", "--set=tasks.test=8", "--set=race.first=8", "--max-items", 48)


def test_missing_parents_exit_3_with_what_makes_them(agentlab: Agentlab) -> None:
    answer = agentlab("evolve", "demo", "--json")
    assert answer.code == 3
    assert "make personas" in answer.json["error"]["hint"]


def test_a_run_from_plan_to_export(agentlab: Agentlab, workspace: Path) -> None:
    made(workspace)
    plan = agentlab("evolve", *WORDS, *SMALL, "--dry-run", "--json").json
    assert (plan["run"], plan["result"]["train"], plan["result"]["searches"]) == (None, 8, 2)
    assert not (workspace / "runs").exists()
    done = agentlab("evolve", *WORDS, *SMALL, "--algorithm", "one-plus-lambda", "--run-name", "e", "--json")
    assert done.code == 0, done.err
    result = done.json["result"]
    assert [standing["name"] for standing in result["standings"]] == [
        "evolved",
        "random search",
        "parent",
        "blend",
        "base",
    ]
    assert "generation 1" in done.err
    resumed = agentlab("evolve", "--resume", "e", "--json")
    assert resumed.json["result"] == result
    refused = agentlab("evolve", "--resume", "e", "--max-items", 400)
    assert refused.code == 2
    assert "sealed split has been opened" in refused.err
    out = agentlab("evolve", "export", "e", "--id", "run_0002", "--out", "adapters/child", "--json")
    assert out.code == 0, out.err
    assert out.json["result"]["kept"] == 1.0
    card = json.loads((workspace / "adapters" / "child" / "card.json").read_text())
    assert card["run"] == "e"
    assert agentlab("adapters", "show", "child").code == 0


def test_one_crossover_at_once(agentlab: Agentlab, workspace: Path) -> None:
    made(workspace)
    words = ("evolve", "--parents", "one", "two", "--child", "both", "--alpha", 0.6, "--mut", 0.5, "--mut-std", 0.01)
    answer = agentlab(*words, "--json")
    assert answer.code == 0, answer.err
    assert answer.json["result"]["weights"] == [0.6, 0.4]
    assert (workspace / "adapters" / "both" / "adapter_model.safetensors").is_file()
    assert agentlab(*words).code == 2  # it is there
    assert "--parents A B and --child NAME must be used together" in agentlab("evolve", "--parents", "one", "two").err
    assert "work only with --parents A B --child NAME" in agentlab("evolve", "--alpha", 0.3).err
    assert "--child creates one adapter without a search" in agentlab(*words, "--dry-run").err
    assert agentlab("evolve", "--parents", "one", "two", "--child", "odd", "--alpha", 7).code == 2


def test_contradictions_are_told_before_work_begins(agentlab: Agentlab, workspace: Path) -> None:
    made(workspace)
    for key, message in {
        "population=3": "must be at least 4",
        "parents=[one]": "at least two parents",
        "parents=[]": "at least two parents",
        "parents=[one, one]": "named twice",
        "tasks.train=400": "which generation 0 uses",
        "genome.kind=deltas": "only searches over numbers",
        "genome.operators=[concat]": "unknown or rank-changing operators: concat",
        "algorithm=gradient": "algorithm",
    }.items():
        answer = agentlab("evolve", *WORDS, *SMALL, f"--set={key}")
        assert answer.code == 2, key
        assert message in answer.err
    assert not (workspace / "runs").exists()
