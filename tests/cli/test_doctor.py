"""`agentlab doctor` at the command line. The heavy probes are answered here; tests/unit/doctor runs real ones."""

import json
from pathlib import Path

import pytest

from agentlab.doctor.probes import Found
from cli.main import main

FOUND = {
    "hardware": Found({"device": "cpu", "cores": 2, "processor": "a CPU", "bf16": False}),
    "llama_cpp": Found({"version": "0.3.34", "gpu_offload": False, "features": "AVX2 = 1"}),
    "bitsandbytes": Found(error="the process crashed while loading it (signal 11)"),
}


@pytest.fixture(autouse=True)
def _answered(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTLAB_CACHE", str(workspace / "cache"))
    monkeypatch.setattr("agentlab.doctor.examine.ask", lambda name: FOUND[name])


def test_every_row_has_a_name_a_status_and_a_remedy_when_it_is_not_ok(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)["result"]["rows"]}
    assert {"python", "libraries", "torch", "gpu", "memory", "llama.cpp", "gpu-offload"} < set(rows)
    assert all(row["remedy"] for row in rows.values() if row["status"] != "ok")
    assert rows["bitsandbytes"]["status"] == "missing"  # it crashed; doctor did not
    assert rows["model"]["remedy"] == "agentlab models pull smollm2-135m"
    assert rows["folders"]["status"] == "ok"


def test_it_leaves_no_trace(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    assert "llama.cpp" in capsys.readouterr().out
    assert list(workspace.iterdir()) == []


@pytest.mark.parametrize(("names", "code"), [("python", 0), ("python,llama.cpp", 0), ("python,model", 3), ("gpuu", 2)])
def test_required_rows_decide_the_exit_code(names: str, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--require", names]) == code
    assert ("agentlab models pull" in capsys.readouterr().err) == (code == 3)


def test_a_key_is_told_by_name_only(
    workspace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "a-planted-secret-1")
    (workspace / ".env").write_text("OPENROUTER_API_KEY=a-planted-secret-2\n")
    assert main(["doctor", "--json"]) == 0
    captured = capsys.readouterr()
    rows = {row["name"]: row for row in json.loads(captured.out)["result"]["rows"]}
    assert rows["keys"]["detail"] == "OPENROUTER_API_KEY, OPENAI_API_KEY"
    assert "planted" not in captured.out + captured.err
