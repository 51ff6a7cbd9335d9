"""The embedded model and two adapters of it on tasks of lm-evaluation-harness. `make test-lm-eval` runs it."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI

from agentlab.tasks.questions import read_questions
from tests.integration.test_serve_personas import adapter, serving

pytestmark = [pytest.mark.model, pytest.mark.timeout(600)]
pytest.importorskip("lm_eval", reason="the extra eval is not installed; `make test-lm-eval` has it")

REPOSITORY = Path(__file__).resolve().parents[2]
ADAPTERS = ("one", "two")
CAPITALS = {
    "France": "Paris", "Italy": "Rome", "Spain": "Madrid", "Japan": "Tokyo", "Egypt": "Cairo", "Cuba": "Havana",
    "Peru": "Lima", "Norway": "Oslo",
}  # fmt: skip
COMMON = {
    "dataset_path": "json",
    "test_split": "test",
    "doc_to_text": "Question: What is the capital of {{q}}?\nAnswer:",
}
CHOOSE = {
    "task": "choose", "output_type": "multiple_choice", "doc_to_choice": "{{choices}}", "doc_to_target": "right",
    "num_fewshot": 2, "fewshot_split": "test", "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
}  # fmt: skip
SAY = {
    "task": "say", "output_type": "generate_until", "doc_to_target": "{{choices[right]}}",
    "generation_kwargs": {"until": ["\n", "."], "max_gen_toks": 12}, "metric_list": [{"metric": "exact_match"}],
}  # fmt: skip
READ = {
    "task": "read", "output_type": "loglikelihood_rolling", "doc_to_text": "",
    "doc_to_target": "The capital of {{q}} is {{choices[right]}}.", "metric_list": [{"metric": "word_perplexity"}],
}  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, float32_checkpoint: Path) -> Path:
    home = tmp_path_factory.mktemp("home")
    (home / "models").mkdir()
    (home / "models" / "smollm2").symlink_to(float32_checkpoint)
    for seed, name in enumerate((*ADAPTERS, "stranger"), 1):
        adapter(home / "adapters" / name, seed, 48 if name == "stranger" else 576)
    cities = list(CAPITALS.values())
    items = [
        {"q": land, "choices": [cities[(index + step) % 8] for step in (3, 0, 5)], "right": 1}
        for index, land in enumerate(CAPITALS)
    ]
    (home / "items.jsonl").write_text("".join(json.dumps(question) + "\n" for question in items))
    (home / "tasks").mkdir()
    data = {"dataset_kwargs": {"data_files": {"test": str(home / "items.jsonl")}}}
    for task in (CHOOSE, SAY, READ):
        (home / "tasks" / f"{task['task']}.yaml").write_text(json.dumps({**COMMON, **data, **task}))
    (home / "tasks" / "lost.yaml").write_text(json.dumps({**COMMON, **CHOOSE, "task": "lost", "dataset_path": "a/b"}))
    return home


def evaluated(home: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    return called(home, "debate", "eval", "--include-path", "tasks", *words)


def called(home: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    """As typed, in a process of its own, without a network."""
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(home / "hf")}
    command = [sys.executable, "-m", "agentlab", *words]
    env = {**os.environ, **offline, "PYTHONPATH": str(REPOSITORY), "AGENTLAB_HOME": str(home)}
    return subprocess.run(command, cwd=home, env=env, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def evaluation(home: Path) -> dict[str, Any]:
    names = [word for name in ADAPTERS for word in ("--adapter", name)]
    done = evaluated(home, "--base", "smollm2", *names, "--tasks", "choose,say,read", "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["result"]  # type: ignore[no-any-return] # a mapping


def test_every_answer_is_that_of_lm_eval_with_the_same_model_and_peft(home: Path) -> None:
    from lm_eval.evaluator import evaluate
    from lm_eval.models.huggingface import HFLM
    from peft import PeftModel

    from agentlab.integrations.lm_eval import Rows, Tasks
    from agentlab.train.base import load_base, quietly
    from agentlab.train.scoring import apply_adapters

    tasks = Tasks(["choose", "say", "read"], [home / "tasks"])

    def answers(model: Any) -> list[Any]:
        for task in tasks._loaded["tasks"].values():
            task.set_fewshot_seed(seed=7)
        with quietly():
            samples = evaluate(model, tasks._loaded, bootstrap_iters=0)["samples"]
        return [
            answer for task in ("choose", "say", "read") for sample in samples[task] for (answer,) in sample["resps"]
        ]

    base = load_base(home / "models" / "smollm2", "fp32", "sdpa")
    ours: dict[str | None, list[Any]] = {}
    with apply_adapters(base, [home / "adapters" / name for name in ADAPTERS], any_base=True) as adapters:
        with quietly():
            rows = Rows(base, adapters, len(ADAPTERS), lambda _: None)
        for rows.who, name in enumerate((None, *ADAPTERS), -1):
            ours[name] = answers(rows)
    for name in (None, *ADAPTERS):
        with quietly():
            peer_model = (
                base.model if name is None else PeftModel.from_pretrained(base.model, str(home / "adapters" / name))
            )
            theirs = answers(HFLM(pretrained=peer_model, tokenizer=base.tokenizer, batch_size=4))
        for mine, peer in zip(ours[name], theirs, strict=True):
            if isinstance(mine, tuple):
                assert mine[0] == pytest.approx(peer[0], abs=1e-4)
                assert mine[1] == peer[1]
            else:  # a text, or the likelihood of a whole one
                assert mine == (peer if isinstance(mine, str) else pytest.approx(peer, rel=1e-5))
        if name is not None:
            peer_model.unload()
    assert ours["one"] != ours["two"] != ours[None]


def test_one_table_and_one_file_for_each(home: Path, evaluation: dict[str, Any]) -> None:
    lines = {(line["task"], line["metric"]): line for line in evaluation["lines"]}
    assert set(lines) == {
        ("choose", "acc"),
        ("choose", "acc_norm"),
        ("say", "exact_match"),
        ("read", "word_perplexity"),
    }
    accuracy = lines["choose", "acc"]
    assert (accuracy["n"], set(accuracy["adapters"])) == (8, set(ADAPTERS))
    for name in ADAPTERS:
        score = accuracy["adapters"][name]
        tree = json.loads((home / "out" / f"{name}_eval.json").read_text())
        assert tree["results"]["choose"]["acc,none"] == score["value"]
        assert score["difference"] == pytest.approx(score["value"] - accuracy["base"])
        assert score["low"] <= score["difference"] <= score["high"]
    assert (home / "out" / "base_eval.json").is_file()


def test_the_same_adapter_alone_scores_the_same(home: Path, evaluation: dict[str, Any]) -> None:
    words = ("--base", "smollm2", "--adapter", "two", "--tasks", "choose,say,read", "--out", "alone")
    done = evaluated(home, *words, "--json")
    assert done.returncode == 0, done.stderr
    for alone, together in zip(json.loads(done.stdout)["result"]["lines"], evaluation["lines"], strict=True):
        assert alone["adapters"]["two"]["value"] == pytest.approx(together["adapters"]["two"]["value"], rel=1e-5)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("--adapter", "nobody", "--tasks", "choose"), 2, "There is no adapter named 'nobody'"),
        (("--base", "smollm2", "--tasks", "chose"), 2, "There is no task named 'chose'"),
        (("--base", "smollm2", "--tasks", "lost"), 3, "is not on this machine and cannot be fetched"),
        (("--base", "smollm2", "--adapter", "stranger", "--tasks", "choose"), 2, "maps"),
        (("--tasks", "choose"), 2, "There is nothing to evaluate"),
        (
            ("--model", "one", "--tasks", "say", "--base-url", "http://127.0.0.1:9/v1"),
            4,
            "The server did not answer for the model one",
        ),
        (
            ("--model", "one", "--tasks", "choose", "--base-url", "http://127.0.0.1:9/v1"),
            2,
            "does not return the text likelihoods that choose needs",
        ),
    ],
)
def test_what_cannot_be_done_is_said_with_its_code(home: Path, words: tuple[str, ...], code: int, message: str) -> None:
    done = evaluated(home, *words, "--out", "never")
    assert (done.returncode, message in done.stderr) == (code, True), done.stderr
    assert "Traceback" not in done.stderr
    assert not (home / "never").exists()


@pytest.fixture(scope="module")
def url(home: Path) -> Iterator[str]:
    providers = {name: {"kind": "hf", "model_path": "smollm2", "adapter": name} for name in ADAPTERS}
    providers["smollm2"] = {"kind": "hf", "model_path": "smollm2"}
    with serving(home, providers) as (url, _):
        yield url


def test_adapters_of_a_server_generate(home: Path, url: str) -> None:
    words = ("--base-url", url, "--model", "smollm2", "--adapter", "one", "--tasks", "say", "--limit", "3")
    done = evaluated(home, *words, "--out", "served", "--json")
    assert done.returncode == 0, done.stderr
    (line,) = json.loads(done.stdout)["result"]["lines"]
    assert (line["n"], list(line["adapters"])) == (3, ["one"])
    with OpenAI(base_url=url, api_key="none", max_retries=0) as client:
        assert client.models.list()
    unknown = evaluated(home, "--base-url", url, "--model", "nobody", "--tasks", "say", "--out", "never")
    assert (unknown.returncode, "nobody" in unknown.stderr) == (4, True), unknown.stderr


def test_tasks_become_questions_that_a_debate_asks(home: Path) -> None:
    quiz = home / "quiz.jsonl"
    command = ["debate", "questions", "choose,say", "--include-path", "tasks", "--out", str(quiz)]
    done = called(home, *command, "--limit", "3")
    assert (done.returncode, done.stdout.strip()) == (0, str(quiz)), done.stderr
    evaluation = read_questions(quiz)
    assert [(question.kind, len(question.choices)) for question in evaluation] == [("choice", 3)] * 3 + [
        ("text", 0)
    ] * 3
    assert evaluation[0].text == evaluation[3].text == "What is the capital of France?"
    assert evaluation[0].right(evaluation[0].read("Answer: Paris"))
    assert evaluation[3].right(evaluation[3].read("Answer: Paris"))
    agents = ["--set", "agents=[{name: a, system: Be brief.}, {name: b, system: Be sure.}]", "--base", "smollm2"]
    done = called(home, "debate", "--questions", str(quiz), *agents, "--set", "turn.max_tokens=8", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["result"]["questions"] == 6


def test_a_task_without_answers_is_no_set_of_questions(home: Path) -> None:
    done = called(home, "debate", "questions", "read", "--include-path", "tasks", "--out", str(home / "no.jsonl"))
    assert (done.returncode, "multiple-choice" in done.stderr, (home / "no.jsonl").exists()) == (2, True, False)
