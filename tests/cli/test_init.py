"""`agentlab init` from the outside."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Agentlab = Callable[..., Any]


def test_a_new_workspace_has_an_example_beside_the_shipped_presets(agentlab: Agentlab, workspace: Path) -> None:
    answer = agentlab("init", "--json")
    assert answer.code == 0
    result = answer.json["result"]
    assert result["root"] == str(workspace)
    assert "configs/nas/example.yaml" in result["created"]
    assert (workspace / "models" / ".gitkeep").is_file()
    listed = agentlab("configs", "list", "nas", "--json").json["result"]["presets"]
    assert [preset["name"] for preset in listed if not preset["shipped"]] == ["example"]
    assert agentlab("nas", "example", "--dry-run", "--set", "llm=none").code == 0


def test_the_hint_leads_to_the_new_workspace_and_not_to_another(
    agentlab: Agentlab, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert agentlab("init").err == "hint: agentlab nas demo\n"
    assert agentlab("init", "a lab").err == f"hint: AGENTLAB_HOME='{workspace / 'a lab'}' agentlab nas demo\n"
    monkeypatch.delenv("AGENTLAB_HOME")
    assert agentlab("init", "a lab").err == "hint: cd 'a lab' && agentlab nas demo\n"


def test_init_twice_keeps_what_is_there(agentlab: Agentlab, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AGENTLAB_HOME")
    agentlab("init", "lab")
    (workspace / "lab" / ".gitignore").write_text("mine\n")
    answer = agentlab("init", "lab")
    assert answer.code == 0
    assert "0 files created" in answer.out
    assert (workspace / "lab" / ".gitignore").read_text() == "mine\n"
    assert "cd lab && agentlab nas demo" in answer.err


def test_a_file_in_the_way_exits_3(agentlab: Agentlab, workspace: Path) -> None:
    (workspace / "lab").write_text("a file")
    answer = agentlab("init", "lab", "--json")
    assert (answer.code, answer.json["error"]["kind"]) == (3, "StorageError")
