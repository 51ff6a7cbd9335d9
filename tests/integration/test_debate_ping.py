"""Personas of the embedded model are asked in process and at a server: the same answers, or the same complaint."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

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
    code, here, err = ping(home, *names, "--base", "smollm2")
    assert code == 0, err
    assert here["result"]["identical"] == []
    assert all(each["repeats"] and each["output_tokens"] > 0 for each in here["result"]["personas"])
    code, there, err = ping(home, *names, "--base-url", url)
    assert code == 0, err
    said = [[(each["persona"], each["text"]) for each in found["result"]["personas"]] for found in (here, there)]
    assert said[0] == said[1]


def test_personas_that_all_answer_alike_fail_the_check(home: Path, url: str) -> None:
    code, found, _ = ping(home, "--persona", "one", "--persona", "twin", "--base-url", url)
    assert (code, found["result"]["identical"]) == (5, [["one", "twin"]])
    plain = agentlab(home, "debate", "ping", *PROMPT[:-1], "--persona", "one", "--persona", "twin", "--base-url", url)
    assert (plain.returncode, "All personas give the same answer" in plain.stderr) == (5, True)
    assert "these answer alike: one, twin" in plain.stdout


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--persona", "nobody", "--base", "smollm2"), 2, "nobody"),
        (("--persona", "stranger", "--base", "smollm2"), 4, "stranger"),
        (("--persona", "one"), 3, "is not on this machine"),
        (("--persona", "one", "--base-url", "http://127.0.0.1:9/v1"), 4, "Cannot connect"),
        (("--persona", "one", "--base-url", "nonsense"), 2, "is not a URL"),
        (("--persona", "one", "--base-url", "http://127.0.0.1:9/v1", "--base", "x"), 2, "of this process"),
    ],
)
def test_what_cannot_be_asked_is_said_with_its_code(home: Path, words: tuple[str, ...], code: int, said: str) -> None:
    found, document, err = ping(home, *words)
    assert (found, said in document["error"]["message"]) == (code, True), err


def test_a_model_that_the_server_does_not_know_is_named(home: Path, url: str) -> None:
    code, found, _ = ping(home, "--persona", "one", "--persona", "three", "--base-url", url)
    assert (code, "three" in found["error"]["message"]) == (4, True), found
