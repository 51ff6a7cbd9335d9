"""Whatever is wrong with the input: exit code 2 or 3, one clear message that names the file or key, nothing written."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from agentlab.runs.run import OpenRun, RunEnvironment
from tests.cli.conftest import TINY, Answer, echoing

pytestmark = pytest.mark.usefixtures("undrawn")

Call = Callable[..., Answer]

HEADER = "date,load,wind\n"


def rows(count: int, load: str = "{n}", wind: str = "{n}") -> str:
    """Hourly rows of a small series."""
    lines = []
    for n in range(count):
        day, hour = divmod(n, 24)
        when = f"2020-{1 + day // 28:02d}-{1 + day % 28:02d} {hour:02d}:00"
        lines.append(f"{when},{load.format(n=n * n % 17)},{wind.format(n=n * n % 23)}")
    return HEADER + "\n".join(lines) + "\n"


def refused(answer: Answer, code: int, *words: str) -> None:
    """One error on stderr with these words; stdout empty."""
    assert answer.code == code, answer.err
    assert answer.err.count("error: ") == 1
    for word in words:
        assert word in answer.err, answer.err
    assert answer.out == ""


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--set", "model.d_modle=3"], ["model.d_modle", "did you mean", "d_model"]),
        (["--set", "model.d_model=large"], ["model.d_model", "whole number", "large"]),
        (["--set", "max_iterations=-1"], ["max_iterations", "-1"]),
        (["--max-iterations", "-1"], ["--max-iterations"]),
        (["--horizon", "0"], ["--horizon"]),
        (["--max-cost", "inf"], ["--max-cost", "finite"]),
        (["--set", "nonsense"], ["nonsense", "="]),
        (["--set", "llm=nowhere"], ["nowhere"]),
        (["--set", "training.optimizer_class=os.system"], ["training.optimizer_class", "Adam"]),
        (["--set", "model.d_model=8", "--set", "model.n_heads=3"], ["n_heads"]),
        (["--control", "sideways"], ["control", "light", "full"]),
        (["--set", "control_seeds=4"], ["control_seeds", "4"]),
        (["--control-seeds", "7"], ["--control full"]),
        (["--set", "finals.seeds=0"], ["finals.seeds", "0"]),
        (["--set", "evaluator.noise=2"], ["evaluator.noise", "2"]),
        (["--set", "workers=0"], ["workers", "0"]),
        (["nowhere"], ["nowhere", "demo"]),
        (["../../etc/passwd"], ["passwd"]),
    ],
)
def test_wrong_keys_and_values(agentlab: Call, workspace: Path, flags: list[str], words: list[str]) -> None:
    answer = agentlab("nas", *flags)
    assert answer.code in (2, 3), answer.err
    refused(answer, answer.code, *words)
    assert not (workspace / "runs").exists()


def test_all_problems_of_a_file_at_once_with_their_lines(agentlab: Call, workspace: Path) -> None:
    (workspace / "my.yaml").write_text("extends: demo\nmodel:\n  d_modle: 3\nseed: soon\ndata: {horizon: -2}\n")
    answer = agentlab("nas", "./my.yaml")
    refused(answer, 2, "my.yaml:3", "d_modle", "my.yaml:4", "seed", "my.yaml:5", "data.horizon")


@pytest.mark.parametrize("text", ["a: [1\n", "a: 1\na: 2\n", "- 1\n", "\t- a\n", "a: !!python/object:os.system x\n"])
def test_broken_yaml(agentlab: Call, workspace: Path, text: str) -> None:
    (workspace / "broken.yaml").write_text(text)
    refused(agentlab("nas", "broken.yaml"), 2, "broken.yaml")


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "empty"),
        (HEADER, "row"),
        (rows(30), "18 rows"),
        (rows(600, load="high"), "load"),
        (rows(600, load="1"), "load"),
        (rows(600).replace("date", "time", 1), "date"),
        (rows(600).replace("2020-01-02 03:00", "yesterday"), "yesterday"),
        (rows(600) + "2020-01-01 00:00,1,2\n", "2020-01-01"),
        (rows(600).replace(",4,", ",,", 1), "gap"),
    ],
    ids=["empty", "header only", "too short", "non-numeric", "constant", "no date column", "bad date", "twice", "gap"],
)
def test_unusable_data(agentlab: Call, workspace: Path, text: str, word: str) -> None:
    (workspace / "mine.csv").write_text(text)
    shares = "--set=data.split={train: 0.6, val: 0.2, test: 0.2}"
    answer = agentlab("nas", "demo", "--data", "mine.csv", "--set", "data.gaps=error", *TINY, shares)
    refused(answer, 2, "mine.csv", word)
    assert not (workspace / "runs").exists()


def test_an_empty_space_has_nothing_to_search(agentlab: Call, workspace: Path) -> None:
    (workspace / "one.yaml").write_text("extends: demo\nspace: null\n")
    refused(agentlab("nas", "./one.yaml", *TINY), 2, "`space` is empty")
    assert not (workspace / "runs").exists()


def test_absent_data_names_the_file_and_exits_3(agentlab: Call) -> None:
    refused(agentlab("nas", "demo", "--data", "absent.csv", *TINY), 3, "absent.csv")


def test_absent_benchmark_data_says_where_to_get_it(agentlab: Call) -> None:
    refused(agentlab("nas", "etth1", *TINY), 3, "ETTh1.csv", "ETDataset", "--data")


def test_a_hosted_model_without_its_key_names_variable_file_and_page(agentlab: Call, workspace: Path) -> None:
    refused(agentlab("nas", "openrouter"), 3, "OPENROUTER_API_KEY", ".env", "llm=none")
    assert not (workspace / "runs").exists()


def test_an_absent_model_names_the_command_that_brings_it(
    agentlab: Call, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENTLAB_CACHE", str(workspace / "empty"))
    refused(agentlab("nas", "demo"), 3, "agentlab models pull smollm2-135m", "llm=none")


@pytest.mark.parametrize("words", [("runs", "show"), ("runs", "path"), ("runs", "resume"), ("nas", "--resume")])
def test_unknown_run(agentlab: Call, words: tuple[str, ...]) -> None:
    refused(agentlab(*words, "nowhere"), 2, "nowhere")


@pytest.mark.parametrize("file", ["manifest.json", "events.jsonl", "config.yaml"])
def test_unreadable_run_folder(agentlab: Call, workspace: Path, file: str) -> None:
    assert agentlab("nas", "demo", "--run-name", "mine", "--max-iterations", "1", *TINY).code == 0
    path = workspace / "runs" / "mine" / file
    path.write_text("garbage\n" + path.read_text())
    refused(agentlab("nas", "--resume", "mine", "--max-iterations", "2"), 2, file)


def test_second_process_on_a_locked_run(agentlab: Call, workspace: Path) -> None:
    done = agentlab("nas", "demo", "--run-name", "mine", "--max-iterations", "1", *TINY)
    assert done.code == 0, done.err
    with OpenRun.resume(workspace / "runs" / "mine", RunEnvironment()):
        refused(agentlab("nas", "--resume", "mine", "--max-iterations", "2"), 2, "mine", f"pid {os.getpid()}")


def test_resume_refuses_a_changed_experiment(agentlab: Call) -> None:
    assert agentlab("nas", "demo", "--run-name", "mine", "--max-iterations", "1", *TINY).code == 0
    refused(agentlab("nas", "--resume", "mine", "--set", "model.d_model=16"), 2, "model.d_model", "8", "16")
    refused(agentlab("nas", "demo", "--resume", "mine"), 2, "--resume", "demo")


def test_read_only_disk(agentlab: Call, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_only(self: Path, *_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system", str(self))

    monkeypatch.setattr(Path, "mkdir", read_only)
    refused(agentlab("nas", "demo", *TINY), 3, "read-only", "--runs-dir")


def test_full_disk_in_the_middle_loses_nothing(
    agentlab: Call, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from agentlab.runs import atomic

    original, budget = os.fsync, 60

    def nearly_full(descriptor: int) -> None:
        nonlocal budget
        budget -= 1
        if budget < 0:
            raise OSError(28, "No space left on device")
        original(descriptor)

    monkeypatch.setattr(atomic.os, "fsync", nearly_full)
    answer = agentlab("nas", "demo", "--run-name", "mine", "--max-iterations", "3", *TINY)
    refused(answer, 3, "disk is full")
    monkeypatch.undo()
    monkeypatch.chdir(workspace)
    monkeypatch.setenv("AGENTLAB_HOME", str(workspace))
    assert agentlab("runs", "show", "mine").code == 0
    resumed = agentlab("runs", "resume", "mine", "--json")
    assert resumed.code == 0, resumed.err
    assert len(resumed.json["result"]["trials"]) == 3


def test_json_errors_are_one_document(agentlab: Call) -> None:
    for words in (("nas", "--set", "x=1"), ("runs", "show", "nowhere"), ("nas", "--no-such-flag"), ("nowhere",)):
        answer = agentlab(*words, "--json")
        document = json.loads(answer.out)
        assert set(document) == {"schema", "command", "run", "error"}
        assert set(document["error"]) == {"kind", "message", "hint", "exit_code"}
        assert document["error"]["exit_code"] == answer.code == 2


def test_a_planted_key_reaches_neither_screen_nor_run_folder(
    agentlab: Call, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = "sk-or-v1-feedfacefeedfacefeedface"
    monkeypatch.setenv("OPENROUTER_API_KEY", key)
    (workspace / ".env").write_text("MY_SECRET=hunter2hunter2\n")
    script = "llm={{providers: {{p: {{kind: openai_compat, base_url: {}, api_key: '${{OPENROUTER_API_KEY}}'}}}}, "
    script += "models: {{m: {{provider: p, id: m, tier: full}}}}, roles: {{primary: [m]}}}}"
    with echoing(f"{key} hunter2hunter2") as url:
        ran = agentlab("nas", "demo", "--max-iterations", "6", *TINY, "--set", script.format(url), "-v", "--debug")
    answers = [
        ran,
        agentlab("runs", "show", "last", "--json"),
        agentlab(
            "nas", "demo", "--set", f"llm={{providers: {{p: {{kind: scripted, mode: replies, replies: ['{key}']}}}}}}"
        ),
        agentlab("nas", "demo", "--set", f"llm.providers.x.api_key={key}"),
        agentlab("nas", "demo", "--set", f"data.path={key}"),
        agentlab("nas", key),
    ]
    assert answers[0].code == 0, answers[0].err
    written = b"".join(path.read_bytes() for path in (workspace / "runs").rglob("*") if path.is_file())
    assert b"[redacted]" in written
    for secret in (key, "hunter2hunter2"):
        assert secret.encode() not in written
        for answer in answers:
            assert secret not in answer.out + answer.err
