"""`agentlab llm` at the command line."""

import json
from pathlib import Path
from typing import Any

import pytest

from agentlab.llm.ledger.arm import AttemptSample
from agentlab.llm.ledger.sqlite import SqliteLedger
from agentlab.llm.types import Usage
from cli.main import main

SECRET = "canary-0123456789abcdefghij"


def answer(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    assert main(["llm", *words, "--json"]) == 0
    result: dict[str, Any] = json.loads(capsys.readouterr().out)["result"]
    return result


@pytest.fixture
def ledger(workspace: Path) -> Path:
    """A ledger that knows three models, one of which never answered."""
    path = workspace / ".agentlab" / "llm.sqlite"
    path.parent.mkdir()
    ledger = SqliteLedger(path, 30, pytest.fail)
    at = 1_700_000_000.0
    ledger.record(AttemptSample(at, "chat", "paid", "p", None, Usage(100, 20, 0.25), 0.5, 2.0, ""))
    ledger.record(AttemptSample(at + 1, "chat", "paid", "p", "RateLimitedError", Usage(), None, 0.1, ""))
    ledger.record(AttemptSample(at + 2, "chat", "free", "p", None, Usage(10, 2, None), None, 1.0, ""))
    ledger.record(AttemptSample(at + 3, "chat", "gone", "p", "LLMConnectionError", Usage(), None, 0.1, ""))
    ledger.close()
    return path


def test_show_names_the_key_and_never_shows_it(
    workspace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = answer(capsys, "show", "prod")
    assert {line["name"]: line["key_set"] for line in before["providers"]} == {"openrouter": False, "anthropic": False}
    monkeypatch.setenv("OPENROUTER_API_KEY", SECRET)
    after = answer(capsys, "show", "prod")
    assert {line["key"]: line["key_set"] for line in after["providers"]} == {
        "OPENROUTER_API_KEY": True,
        "ANTHROPIC_API_KEY": False,
    }
    assert main(["llm", "show", "prod"]) == 0
    printed = capsys.readouterr().out
    assert "OPENROUTER_API_KEY (set)" in printed
    assert "ANTHROPIC_API_KEY (not set)" in printed
    assert SECRET not in printed + json.dumps(after)


def test_show_says_who_is_asked_for_which_task(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = answer(capsys, "show", "critical", "--set", "defaults.max_tokens=77")
    tasks = {line["name"]: line for line in document["tasks"]}
    assert tasks["judge"]["models"] == ["judge"]
    assert (tasks["(any other)"]["strategy"], tasks["(any other)"]["max_tokens"]) == ("best_of_two", 77)
    models = {line["name"]: line for line in document["models"]}
    assert models["judge"]["roles"] == ["duplicate"]
    assert models["judge"]["price_input"] is None  # unknown is not free


def test_show_of_the_default_needs_nothing(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (model,) = answer(capsys, "show")["models"]
    assert (model["name"], model["context"], model["price_output"], model["caps"]) == (
        "embedded",
        2048,
        0,
        ["schema", "json"],
    )


def test_show_of_no_models_says_so(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["llm", "show", "none"]) == 0
    assert "has no model" in capsys.readouterr().out


def test_show_reads_the_layout_with_model_roles(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (workspace / "settings.yaml").write_text(
        "llm:\n  default_provider: ollama\n  default_model: a\n  model_roles: {fallback: [b]}\n"
    )
    document = answer(capsys, "show", "settings.yaml")
    assert [(line["name"], line["roles"]) for line in document["models"]] == [("a", ["primary"]), ("b", ["fallback"])]
    assert document["tasks"][0]["models"] == ["a", "b"]


@pytest.mark.parametrize("words", [["show", "no-such"], ["show", "no-such.yaml"], ["show", "--set", "defaults.x=1"]])
def test_bad_input_exits_2(workspace: Path, capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    assert main(["llm", *words]) == 2
    captured = capsys.readouterr()
    assert (captured.out, "Traceback" in captured.err) == ("", False)


def test_stats_of_a_new_workspace(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert answer(capsys, "stats")["models"] == []
    assert not (workspace / ".agentlab").exists()  # looking writes nothing
    assert main(["llm", "stats"]) == 0
    assert "No language model has been called" in capsys.readouterr().out


def test_stats_of_each_model(ledger: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = {line["model"]: line for line in answer(capsys, "stats")["models"]}
    paid, free = lines["paid"], lines["free"]
    assert (paid["answered"], paid["failed"], paid["errors"]) == (1, 1, {"RateLimitedError": 1})
    assert (paid["input_tokens"], paid["output_tokens"], paid["cost_usd"]) == (100, 20, 0.25)
    assert (paid["last_at"], paid["last_seconds"]) == ("2023-11-14 22:13:20", 2.0)
    assert (free["cost_usd"], free["unpriced"]) == (None, 1)
    assert main(["llm", "stats"]) == 0
    printed = capsys.readouterr().out
    assert "RateLimitedError 1" in printed
    assert "unknown" in next(line for line in printed.splitlines() if line.startswith("free"))


def test_stats_name_their_units_and_a_model_that_only_failed(ledger: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["llm", "stats"]) == 0
    head, *rows = (line.split("\t") for line in capsys.readouterr().out.splitlines())
    assert head[-3:] == ["USD spent", "first token (s), p50 / p90", "whole answer (s), p50 / p90"]
    (gone_row,) = (row for row in rows if row[0] == "gone")
    assert gone_row == ["gone", "never", "unknown", "0", "LLMConnectionError 1", *["unknown"] * 5]


def test_a_damaged_ledger_exits_3_with_what_to_do(ledger: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ledger.write_bytes(b"no database" * 1000)
    assert main(["llm", "stats"]) == 3
    assert "Move it away" in capsys.readouterr().err


def test_a_key_of_blanks_is_not_set(
    workspace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENROUTER_API_KEY", " ")
    document = answer(capsys, "show", "prod")
    assert {line["name"]: line["key_set"] for line in document["providers"]}["openrouter"] is False
