"""Debates of the embedded model: under adapters, behind a server, killed, and in a window that is too small."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from agentlab.answers.choices import NORMALISATIONS
from agentlab.evolve.genome import Child
from agentlab.evolve.scoring import open_written_children
from agentlab.persona.measure import forgetting
from agentlab.tasks.labelled import mark_answers, share_of
from agentlab.tasks.questions import read_questions
from agentlab.train.base import load_base
from agentlab.train.scoring import Scorer, apply_adapters
from cli.main import main
from tests.integration.test_serve_personas import adapter, serving
from tests.zygote import Forked

pytestmark = pytest.mark.model
REPOSITORY = Path(__file__).resolve().parents[2]
ADAPTERS = ("my poet", "sage", "fool")
LAYERS = 4
SMALL = ("--set=turn.max_tokens=6", "--set=vote.samples=1", "--set=questions.count=4", "--set=questions.dev=0.25")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, float32_checkpoint: Path) -> Path:
    """First layers of the embedded model, the same with a window of 256 tokens, and adapters with random factors.

    What is said shorter, and who answers, is the same at any depth, and thirty layers take six times as long.
    """
    home = tmp_path_factory.mktemp("home")
    shallow, narrow = home / "models" / "smollm2", home / "models" / "narrow"
    config = json.loads((float32_checkpoint / "config.json").read_text()) | {"num_hidden_layers": LAYERS}
    for folder, changes in ((shallow, {}), (narrow, {"max_position_embeddings": 256})):
        folder.mkdir(parents=True)
        for file in float32_checkpoint.iterdir():
            (folder / file.name).symlink_to(file)
        (folder / "config.json").unlink()
        (folder / "config.json").write_text(json.dumps({**config, **changes}))
        (folder / "model.safetensors").unlink()
    weights = load_file(float32_checkpoint / "model.safetensors")
    kept = {name: weight for name, weight in weights.items() if layer_of(name) < LAYERS}
    save_file(kept, shallow / "model.safetensors", {"format": "pt"})
    (narrow / "model.safetensors").symlink_to(shallow / "model.safetensors")
    for seed, name in enumerate(ADAPTERS):
        adapter(home / "adapters" / name, seed, layers=LAYERS)
    return home


def layer_of(weight: str) -> int:
    """Of `model.layers.7.mlp.up_proj.weight` it is 7; what is in no layer belongs to the first."""
    return int(weight.split(".")[2]) if weight.startswith("model.layers.") else 0


@pytest.fixture
def deep_home(tmp_path: Path, float32_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The whole embedded model and its adapters, in a workspace that is entered."""
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "smollm2").symlink_to(float32_checkpoint)
    for seed, name in enumerate(ADAPTERS):
        adapter(tmp_path / "adapters" / name, seed)
    enter(tmp_path, monkeypatch)
    return tmp_path


def enter(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTLAB_HOME", str(home))
    monkeypatch.chdir(home)


@pytest.fixture(autouse=True)
def _at_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    enter(home, monkeypatch)


@pytest.fixture(scope="module")
def url(home: Path) -> Iterator[str]:
    base = {"kind": "hf", "model_path": "smollm2"}
    with serving(home, {"base": base, "sage": {**base, "adapter": "sage"}}) as (url, _):
        yield url


def transcript(home: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (home / "runs" / name / "transcript.jsonl").read_text().splitlines()]


def killed(home: Path, name: str, words: list[str], event: str) -> None:
    """A debate that is killed as soon as it has told of such an event."""
    process = Forked(
        [sys.executable, "-m", "agentlab", *words, f"--run-name={name}"],
        cwd=home,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    events, limit = home / "runs" / name / "events.jsonl", time.monotonic() + 90
    while process.poll() is None and time.monotonic() < limit:
        if events.is_file() and f'"{event}"' in events.read_text():
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.01)
    assert process.wait(30) == -signal.SIGKILL


def test_adapters_say_the_same_twice_and_after_a_kill(deep_home: Path) -> None:
    home = deep_home  # thirty layers: what is computed together must not flip an answer
    words = ["debate", *(f"--adapter={name}" for name in ADAPTERS), f"--base={home}/models/smollm2", *SMALL]
    words += ["--set=rows=6", "-q"]
    assert main([*words, "--run-name=whole"]) == 0
    assert main([*words, "--run-name=twice"]) == 0
    killed(home, "cut", words, "wave.finished")
    assert main(["debate", "--resume=cut", "-q"]) == 0
    first, twice, cut = (
        (home / "runs" / run_name / "transcript.jsonl").read_bytes() for run_name in ("whole", "twice", "cut")
    )
    assert first == twice == cut
    turns = transcript(home, "whole")
    assert {turn["agent"] for turn in turns if turn["arm"] == "debate"} == set(ADAPTERS)
    assert len({turn["text"] for turn in turns if turn["round"] == 0}) > 4  # the adapters do something
    assert all(turn["answer"] for turn in turns)


def test_an_agent_that_is_asked_alone_is_as_right_as_in_evolution_and_as_a_persona(deep_home: Path) -> None:
    home = deep_home
    words = ["debate", *(f"--adapter={name}" for name in ADAPTERS), f"--base={home}/models/smollm2", *SMALL, "-q"]
    assert main([*words, "--set=questions.count=12", "--set=rows=9", "--run-name=alone"]) == 0
    events = [json.loads(line) for line in (home / "runs" / "alone" / "events.jsonl").read_text().splitlines()]
    scored = [event["data"]["alone"] for event in events if event["type"] == "wave.finished" and event["data"]["alone"]]
    scored_ids = {name for wave in scored for name in wave[ADAPTERS[0]]}
    questions = [
        question
        for question in read_questions(home / "runs" / "alone" / "questions.jsonl")
        if question.id in scored_ids
    ]
    assert len(questions) == 9
    folders = {name: home / "adapters" / name for name in ADAPTERS}
    with open_written_children(
        home / "models" / "smollm2", lambda child: folders[ADAPTERS[child.number]], "float32", print
    ) as answer:
        evolved = answer([Child("", number, {}) for number in range(3)], questions)
    base = load_base(home / "models" / "smollm2", "fp32", "sdpa")
    with apply_adapters(base, list(folders.values()), any_base=True) as rows:
        persona = forgetting(Scorer(base, rows, ADAPTERS, print), ADAPTERS, questions)
    result = json.loads((home / "runs" / "alone" / "result.json").read_text())
    for name, row in zip(ADAPTERS, evolved, strict=True):
        right = {by: share_of(mark_answers(row, questions, by)) for by in NORMALISATIONS}
        assert persona is not None
        assert persona.right[name] == right
        assert result["alone"]["right"][name] == {by: share.model_dump() for by, share in right.items()}


def test_three_kinds_of_agents_debate_and_go_on_after_a_kill(home: Path, url: str) -> None:
    agents = [
        {"name": "here", "adapter": "my poet"},
        {"name": "told", "model": "base", "system": "You doubt what is easy to say."},
        {"name": "there", "model": "sage"},
    ]
    models = {name: {"provider": "far", "id": name, "price": {"input": 0, "output": 0}} for name in ("base", "sage")}
    llm = {"providers": {"far": {"kind": "openai_compat", "base_url": url}}, "models": models}
    llm |= {"roles": {"primary": [*models]}, "defaults": {"timeout": {"first_token": 300, "total": 600}}}
    words = ["debate", f"--set=agents={json.dumps(agents)}", f"--set=llm={json.dumps(llm)}", "--set=turn.form=text"]
    words += [f"--base={home}/models/smollm2", *SMALL, "--set=rows=6", "-q"]
    assert main([*words, "--run-name=mixed"]) == 0
    killed(home, "mixed-cut", words, "llm.called")
    assert main(["debate", "--resume=mixed-cut", "-q"]) == 0
    parts = [(home / "runs" / run_name / "transcript.jsonl").read_bytes() for run_name in ("mixed", "mixed-cut")]
    assert parts[0] == parts[1]
    turns = transcript(home, "mixed")
    assert {turn["agent"] for turn in turns} == {entry["name"] for entry in agents}
    assert not [turn["error"] for turn in turns if turn["error"]]


def test_what_does_not_fit_a_small_window_is_said_shorter_or_named(home: Path) -> None:
    """Three rounds in 256 tokens: later ones hold the last answers alone; a question that is too long is an error."""
    long = {"id": "long", "question": "Is this long? " * 80, "choices": ["yes", "no"], "answer": "yes"}
    short = {**long, "id": "short", "question": "Is 4 an even number?"}
    (home / "quiz.jsonl").write_text(f"{json.dumps(short)}\n{json.dumps(long)}\n")
    agents = [{"name": "ann"}, {"name": "bob", "adapter": "sage"}]
    words = ["debate", "--questions=quiz.jsonl", f"--set=agents={json.dumps(agents)}", "--rounds=3"]
    words += [f"--base={home}/models/narrow", "--set=protocol.stop=false", "--set=questions.dev=0"]
    assert main([*words, "--set=turn.max_tokens=32", "--set=vote.samples=1", "-q", "--run-name=narrow"]) == 0
    turns = [turn for turn in transcript(home, "narrow") if turn["arm"] == "debate"]
    assert [bool(turn["error"]) for turn in turns] == [turn["question"] == "long" for turn in turns]
    assert len(turns) == 2 * 4 * 2
    assert all("the context holds 256" in turn["error"] for turn in turns if turn["question"] == "long")
    report = (home / "runs" / "narrow" / "report.md").read_text()
    assert "did not fit the context and were sent again with only the latest answers" in report
    assert "ann failed in" in report
