"""`agentlab debate eval` as typed: what contradicts itself, and what is not installed."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Answer

Call = Callable[..., Answer]
SERVER = ("--base-url", "http://127.0.0.1:9/v1")


def test_without_the_extra_it_says_how_to_install_it(agentlab: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith(("lm_eval", "agentlab.integrations.lm_eval"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    answer = agentlab("debate", "eval", "--base", "x", "--tasks", "t", "--json")
    assert (answer.code, answer.json["error"]["kind"]) == (3, "MissingExtraError")
    assert ".[eval]" in answer.err


def test_without_the_program_lighteval_it_says_where_it_belongs(
    agentlab: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    answer = agentlab("debate", "eval", *SERVER, "--model", "m", "--tasks", "t", "--backend", "lighteval")
    assert (answer.code, "lighteval[litellm]" in answer.err) == (3, True)


@pytest.mark.parametrize(
    "words",
    [
        ("--tasks", "t"),
        ("--tasks", ",", "--base", "x"),
        ("--tasks", "t", *SERVER),
        ("--tasks", "t", "--model", "m", "--base", "x"),
        ("--tasks", "t", *SERVER, "--model", "m", "--base", "x"),
        ("--tasks", "t", "--base", "x", "--backend", "lighteval"),
        ("--tasks", "t", *SERVER, "--model", "m", "--adapter", "base"),
        ("--tasks", "t", "--base-url", "ftp://x", "--model", "m", "--backend", "lighteval"),
    ],
)
def test_what_contradicts_itself_is_refused(agentlab: Call, words: tuple[str, ...]) -> None:
    answer = agentlab("debate", "eval", *words)
    assert answer.code == 2, answer.err
    assert "hint" in answer.err or "--base-url" in answer.err


def test_what_lighteval_found_is_read_and_what_it_says_at_the_end_is_told(
    agentlab: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = tmp_path / "lighteval"
    program.write_text(
        "#!/bin/sh\n"
        'grep -q "openai/bad" model.yaml && { echo "Connection refused" >&2; exit 1; }\n'
        'grep -q "openai/mute" model.yaml && echo "API call failed after 5 attempts, returning empty response." >&2\n'
        'mkdir -p results/m\necho \'{"results": {"t|0": {"em": 0.5, "em_stderr": 0.1}, "all": {"em": 0.5}}}\' '
        "> results/m/results_1.json\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    words = ("debate", "eval", *SERVER, "--backend", "lighteval", "--tasks", "t|0", "--out", tmp_path / "out")
    answer = agentlab(*words, "--model", "m", "--adapter", "a", "--json")
    (line,) = answer.json["result"]["lines"]
    assert (line["task"], line["metric"], line["base"], line["adapters"]["a"]["difference"]) == ("t|0", "em", 0.5, 0.0)
    assert (tmp_path / "out" / "a_eval.json").is_file()
    failed = agentlab(*words, "--model", "bad")
    assert (failed.code, "Connection refused" in failed.err) == (1, True)
    mute = agentlab(*words, "--model", "mute")
    assert (mute.code, "scores as empty answers" in mute.err) == (1, True)
