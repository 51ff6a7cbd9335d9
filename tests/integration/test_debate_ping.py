"""Personas of the embedded model are asked in process and at a server: the same answers, or the same complaint."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.integration.test_persona_talk import agentlab
from tests.integration.test_serve_personas import adapter, serving

pytestmark = [pytest.mark.model, pytest.mark.timeout(600)]
PROMPT = ("--prompt", "What is tea?", "--max-tokens", "8", "--json")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, float32_checkpoint: Path) -> Path:
    home = tmp_path_factory.mktemp("home")
    (home / "models").mkdir()
    (home / "models" / "smollm2").symlink_to(float32_checkpoint)
    for name, seed, wide in (("one", 1, 576), ("two", 2, 576), ("twin", 1, 576), ("stranger", 3, 48)):
        adapter(home / "adapters" / name, seed, wide)
    adapter(home / "adapters" / "diverged", 4)
    weights = home / "adapters" / "diverged" / "adapter_model.safetensors"
    save_file({name: factor.fill_(torch.nan) for name, factor in load_file(weights).items()}, weights)
    return home


@pytest.fixture(scope="module")
def url(home: Path) -> Iterator[str]:
    providers = {name: {"kind": "hf", "model_path": "smollm2", "adapter": name} for name in ("one", "two", "twin")}
    with serving(home, providers) as (url, _):
        yield url


def ping(home: Path, *words: str) -> tuple[int, dict[str, Any], str]:
    done = agentlab(home, "debate", "ping", *PROMPT, *words)
    return done.returncode, json.loads(done.stdout), done.stderr


def test_a_server_answers_as_the_process_does(home: Path, url: str) -> None:
    names = ("--persona", "one", "--persona", "two")
    code, in_process, err = ping(home, *names, "--base", "smollm2")
    assert code == 0, err
    assert in_process["result"]["identical"] == []
    assert all(row["repeats"] and row["output_tokens"] > 0 for row in in_process["result"]["personas"])
    code, served, err = ping(home, *names, "--base-url", url)
    assert code == 0, err
    answers = [
        [(row["persona"], row["text"]) for row in document["result"]["personas"]] for document in (in_process, served)
    ]
    assert answers[0] == answers[1]


def test_personas_that_all_answer_alike_fail_the_check(home: Path, url: str) -> None:
    code, document, _ = ping(home, "--persona", "one", "--persona", "twin", "--base-url", url)
    assert (code, document["result"]["identical"]) == (5, [["one", "twin"]])
    plain = agentlab(home, "debate", "ping", *PROMPT[:-1], "--persona", "one", "--persona", "twin", "--base-url", url)
    assert (plain.returncode, "All personas give the same answer" in plain.stderr) == (5, True)
    assert "these personas give the same answer: one, twin" in plain.stdout


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("--persona", "nobody", "--base", "smollm2"), 2, "nobody"),
        (("--persona", "one"), 3, "is not on this machine"),
        (("--persona", "one", "--base-url", "nonsense"), 2, "is not an HTTP URL"),
        (("--persona", "one", "--base-url", "http://127.0.0.1:9/v1", "--base", "x"), 2, "runs in this process"),
    ],
)
def test_what_cannot_be_asked_is_said_with_its_code(
    home: Path, words: tuple[str, ...], code: int, message: str
) -> None:
    exit_code, document, err = ping(home, *words)
    assert (exit_code, message in document["error"]["message"]) == (code, True), err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--persona", "stranger", "--persona", "diverged", "--persona", "one", "--base", "smollm2"), "stranger"),
        (("--persona", "diverged", "--persona", "nobody", "--persona", "one", "--base", "smollm2"), "infinite or NaN"),
    ],
)
def test_a_bad_persona_has_a_row_with_its_name_and_reason(home: Path, words: tuple[str, ...], message: str) -> None:
    code, document, err = ping(home, *words)
    rows = {row["persona"]: row["error"] for row in document["result"]["personas"]}
    assert (code, set(rows)) == (4, set(words[1:-2:2])), err
    assert (rows["one"], message in rows[words[1]]) == (None, True), rows


def test_a_model_that_the_server_does_not_know_is_named(home: Path, url: str) -> None:
    code, document, _ = ping(home, "--persona", "one", "--persona", "three", "--base-url", url)
    rows = {row["persona"]: row["error"] for row in document["result"]["personas"]}
    assert (code, rows["one"], "persona-" in rows["three"]) == (4, None, False), document


def test_a_server_that_is_not_there_is_said_in_each_row(home: Path) -> None:
    code, document, _ = ping(home, "--persona", "one", "--base-url", "http://127.0.0.1:9/v1")
    assert (code, "Cannot connect" in document["result"]["personas"][0]["error"]) == (4, True), document
