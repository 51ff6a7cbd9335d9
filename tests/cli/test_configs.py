"""`agentlab configs` from the outside."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agentlab.commands import COMMANDS
from agentlab.config.yaml_tree import read_yaml

Agentlab = Callable[..., Any]


def test_list(agentlab: Agentlab) -> None:
    answer = agentlab("configs", "list", "--json")
    assert answer.code == 0
    listed = answer.json["result"]["presets"]
    assert {(p["kind"], p["name"]) for p in listed} >= {(name, "default") for name in COMMANDS}
    plain = agentlab("configs", "list", "nas").out.splitlines()
    assert plain[0].split("\t")[:2] == ["for", "preset"]
    assert plain[1].split("\t")[:3] == ["nas", "default", "shipped"]


def test_show_prints_yaml_with_origins(agentlab: Agentlab) -> None:
    answer = agentlab("configs", "show", "nas", "demo", "--set", "seed=7")
    assert answer.code == 0
    tree = read_yaml(answer.out, "stdout").data
    assert tree["seed"] == 7
    assert any(line.startswith("seed: 7 ") and line.endswith("# --set") for line in answer.out.splitlines())


def test_show_and_its_json_agree(agentlab: Agentlab) -> None:
    result = agentlab("configs", "show", "nas", "--json").json["result"]
    assert result["config"] == read_yaml(agentlab("configs", "show", "nas").out, "stdout").data
    assert result["source"] == "configs/nas/default.yaml"


def test_validate_lists_every_problem_and_exits_2(agentlab: Agentlab, workspace: Path) -> None:
    folder = workspace / "configs" / "nas"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text("extends: default\nseed: x\nmodle: {}\n")
    answer = agentlab("configs", "validate", "configs/nas/mine.yaml", "--json")
    assert answer.code == 2
    assert answer.json["error"]["kind"] == "ConfigError"
    assert answer.json["error"]["message"].splitlines() == [
        "configs/nas/mine.yaml:2:1: seed: must be a whole number, not 'x'",
        "configs/nas/mine.yaml:3:1: modle: unknown key; did you mean model?",
    ]
    (folder / "mine.yaml").write_text("extends: default\nseed: 2\n")
    assert agentlab("configs", "validate", "configs/nas/mine.yaml").out == "1 config is valid.\n"
    assert agentlab("configs", "validate").code == 0


def test_schema_is_a_json_schema_and_nothing_else(agentlab: Agentlab) -> None:
    assert json.loads(agentlab("configs", "schema", "nas").out)["type"] == "object"
    assert agentlab("configs", "schema", "nsa").code == 2


def test_a_broken_env_file_is_named_by_line(agentlab: Agentlab, workspace: Path) -> None:
    (workspace / ".env").write_text("OK=1\nsk-planted-secret\n")
    answer = agentlab("configs", "list")
    assert answer.code == 2
    assert ".env:2: expected NAME=VALUE" in answer.err
    assert "sk-planted-secret" not in answer.err


def test_the_schema_of_a_result_explains_its_columns(agentlab: Agentlab) -> None:
    schema = json.loads(agentlab("configs", "schema", "train-persona", "--result").out)
    loss = schema["$defs"]["PersonaResult"]["properties"]["before"]
    assert loss["title"] == "loss before"
    assert "held-out conversations" in loss["description"]
