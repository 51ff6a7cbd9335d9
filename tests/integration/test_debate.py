"""Debates through the command line. A model that draws its answers by lot serves where words do not matter."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from cli.main import main
from tests.zygote import Forked

REPOSITORY = Path(__file__).resolve().parents[2]
LOTTERY = {
    "providers": {"script": {"kind": "scripted", "mode": "random"}},
    "models": {
        name: {"provider": "script", "id": name, "price": {"input": 0, "output": 0}} for name in ("a", "b", "c")
    },
    "roles": {"primary": ["a", "b", "c"]},
}
AGENTS = [{"name": name, "model": name} for name in ("a", "b", "c")]
DEBATE = ("debate", "--questions=quiz.jsonl", f"--set=llm={json.dumps(LOTTERY)}", f"--set=agents={json.dumps(AGENTS)}")


def quiz(folder: Path, count: int = 12) -> None:
    lines = [
        {"id": f"q{n}", "question": f"Is {n} even?", "choices": ["yes", "no"], "answer": "yes"} for n in range(count)
    ]
    (folder / "quiz.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))


def told(run: Path) -> list[Any]:
    """What a debate says, less measured times."""
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    return [
        (event["type"], event["id"], {**event["data"], "seconds": None})
        for event in events
        if event["type"] in ("questions.read", "dev.fitted", "wave.finished")
    ]


def test_a_debate_from_a_file_is_reported_voted_on_again_and_not_repeated(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    quiz(workspace)
    assert main([*DEBATE, "--json", "-q", "--run-name=d", "--set=rows=6", "--rounds=2"]) == 0
    answer = json.loads(capsys.readouterr().out)["result"]
    run = workspace / "runs" / "d"
    turns = [json.loads(line) for line in (run / "transcript.jsonl").read_text().splitlines()]
    assert {turn["arm"] for turn in turns} == {"debate", "length", "samples"}
    assert {turn["round"] for turn in turns} == {0, 1, 2}
    assert all(turn["answer"] in ("yes", "no") for turn in turns)
    assert answer["control"]["verdict"] == "not_measured"
    assert (run / "report.html").is_file()

    before = told(run)
    assert main(["debate", "--resume", "d", "--json", "-q"]) == 0
    assert json.loads(capsys.readouterr().out)["result"] == answer
    assert told(run) == before

    (workspace / "quiz.jsonl").unlink()
    assert main(["debate", "replay", "d", "--json"]) == 0
    replayed = json.loads(capsys.readouterr().out)["result"]
    assert replayed == answer
    assert main(["debate", "replay", "d", "--vote=borda", "--round=1", "--json"]) == 0
    borda_result = json.loads(capsys.readouterr().out)["result"]
    assert (borda_result["rule"], borda_result["round"]) == ("borda", 1)
    assert main(["debate", "replay", "d", "--vote=judge"]) == 2
    assert "needs protocol.judge" in capsys.readouterr().err


def test_what_was_not_judged_or_not_scored_is_not_voted_on(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    quiz(workspace)
    assert main([*DEBATE, "-q", "--run-name=d", "--set=rows=6", "--set=protocol.judge=a", "--vote=judge"]) == 0
    assert main(["debate", "replay", "d", "--json"]) == 0
    assert main(["debate", "replay", "d", "--round=0"]) == 2
    assert "judged only round 1" in capsys.readouterr().err
    events = workspace / "runs" / "d" / "events.jsonl"
    lines = events.read_text().splitlines(keepends=True)
    questions_path = workspace / "runs" / "d" / "questions.jsonl"
    original = questions_path.read_text()
    questions_path.write_text(original.replace('"answer": "yes"', '"answer": "no"'))
    assert main(["debate", "replay", "d"]) == 2
    assert "does not contain the questions" in capsys.readouterr().err
    questions_path.write_text(original)
    fitted = next(number for number, line in enumerate(lines) if '"dev.fitted"' in line)
    events.write_text("".join(lines[: fitted + 1]))
    assert main(["debate", "replay", "d"]) == 2
    assert "This run has not scored any questions yet" in capsys.readouterr().err


def test_nothing_is_written_or_asked_by_a_plan(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    quiz(workspace)
    assert main([*DEBATE, "--rounds=0", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)["result"]
    assert (plan["questions"], plan["rounds"]) == (12, 0)
    assert not (workspace / "runs").exists()
    assert main([*DEBATE, "--set=protocol.rounds=0"]) == 2
    assert "--dry-run" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--topic=Trees?", "--questions=quiz.jsonl"], "topic or questions.file, not both"),
        (["--questions=nowhere.jsonl"], "No such data file:"),
        (["--set=agents=[{name: a}]"], "at least two agents"),
        (["--set=agents=[{name: a}, {name: a}]"], "two agents are called a"),
        (["--set=agents=[{name: a, model: nobody}, {name: b}]"], "no model 'nobody'"),
        (["--set=agents=[{name: a, adapter: x, model: y}, {name: b}]"], "not both"),
        (["--adapter=nowhere", "--adapter=neither"], "nowhere"),
        (["--vote=judge"], "needs protocol.judge"),
        (["--set=vote.round=3"], "must not exceed protocol.rounds"),
        (["--topology=mesh"], "topology"),
        (["--base=./"], "not a checkpoint folder"),
        (["--topic= "], "after --topic is empty"),
        (["--topic=Trees?", "--set=positions=[yes, '']"], "two different positions"),
        (["--topic=Trees?", "--set=positions=['1', '1.0']"], "two different positions"),
        (
            [f"--set=llm={json.dumps(LOTTERY)}", f"--set=agents={json.dumps(AGENTS)}", "--vote=confidence"],
            "set turn.confidence to said",
        ),
        (["--set=questions.generate=riddles"], "riddles"),
    ],
)
def test_what_cannot_be_debated_is_told_before_anything_is_written(
    workspace: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    quiz(workspace)
    assert main(["debate", "demo", *words]) in (2, 3)
    assert message in capsys.readouterr().err
    assert not (workspace / "runs").exists()


CONTRADICTIONS = (
    ["--set=turn.form=json"],
    ["--topology=none", "--set=protocol.agreement=90"],
    ["--topology=none", "--set=vote.against=length"],
    ["--set=vote.round=0", "--set=vote.against=vote"],
    ["--set=positions=[red, blue]"],
    ["--questions=quiz.jsonl", "--set=questions.generate=sentiment"],
    ["--questions=quiz.jsonl", "--topic=Trees?"],
    ["--topology=random", "--set=protocol.peers=3"],
    ["--set=protocol.judge=nobody"],
    ["--set=protocol.judge=nobody", "--vote=judge"],
    ["--set=vote.round=2", "--rounds=1"],
    ["--set=questions.generate=times_table", "--set=questions.count=9999"],
    ["--set=questions.dev=1"],
    ["--set=questions.count=0"],
    ["--set=agents.analyst.model=gpt"],
    ["--set=agents.analyst.adapter=''"],
    ["--set=agents.analyst.name=a/b"],
    ["--set=agents.analyst.name=sceptic"],
    ["--set=vote.temperature=0"],
    ["--set=llm=none", "--set=agents=[{name: a, model: big}, {name: b, model: big}]"],
)


@pytest.mark.parametrize("words", CONTRADICTIONS, ids=" ".join)
def test_what_contradicts_itself_is_refused_with_a_hint(
    workspace: Path, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    quiz(workspace)
    assert main(["debate", "default", *words]) == 2
    error = capsys.readouterr().err
    assert "error: " in error
    assert "hint: " in error
    assert not (workspace / "runs").exists()


def test_an_adapter_may_be_called_anything_and_hears_what_it_learnt_with(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from tests.integration.test_serve_personas import adapter

    for seed, name in enumerate(("my poet", "詩人")):
        adapter(workspace / "adapters" / name, seed)
    (workspace / "adapters" / "my poet" / "card.json").write_text(json.dumps({"data": {"system": "You rhyme."}}))
    assert main(["debate", "--adapter=my poet", "--adapter=詩人", "--dry-run", "--json"]) == 0
    agents = json.loads(capsys.readouterr().out)["result"]["agents"]
    assert [(agent["name"], agent["persona"]) for agent in agents] == [("my poet", "You rhyme."), ("詩人", "")]
    agents_flag = "--set=agents=[{name: p, adapter: my poet, system: ''}, {name: b}]"
    assert main(["debate", agents_flag, "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["result"]["agents"][0]["persona"] == ""


def test_other_questions_are_another_run(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    quiz(workspace)
    words = [word for word in DEBATE if "agents" not in word]
    silent = [{"name": "a", "model": "a"}, {"name": "b", "model": "b"}]
    assert main([*words, f"--set=agents={json.dumps(silent)}", "--run-name=d", "-q"]) == 0
    events = workspace / "runs" / "d" / "events.jsonl"
    lines = events.read_text().splitlines()
    events.write_text("".join(f"{line}\n" for line in lines[:-1]))
    manifest = workspace / "runs" / "d" / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "status": "interrupted"}))
    quiz(workspace, 13)
    capsys.readouterr()
    assert main(["debate", "--resume", "d"]) == 2
    assert "have changed since" in capsys.readouterr().err


def test_agents_that_fail_or_say_nothing_are_named_and_lose_nothing(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    quiz(workspace, 3)
    setup = json.loads(json.dumps(LOTTERY))
    setup["providers"] |= {
        "dead": {"kind": "scripted", "mode": "refuse"},
        "mute": {"kind": "scripted", "mode": "stuck"},
    }
    setup["models"]["b"]["provider"], setup["models"]["c"]["provider"] = "dead", "mute"
    setup["defaults"] = {"timeout": {"first_token": 0.2, "total": 0.5}, "retries": 0}
    words = ["debate", "--questions=quiz.jsonl", f"--set=llm={json.dumps(setup)}", f"--set=agents={json.dumps(AGENTS)}"]
    assert main([*words, "--run-name=d", "-q", "--set=questions.dev=0"]) == 0
    turns = [json.loads(line) for line in (workspace / "runs/d/transcript.jsonl").read_text().splitlines()]
    failed = {turn["agent"]: turn["error"].partition(":")[0] for turn in turns if turn["error"]}
    assert set(failed) == {"b", "c"}
    assert all(turn["answer"] is None for turn in turns if turn["agent"] in failed)
    assert all(turn["answer"] for turn in turns if turn["agent"] == "a")


def test_a_debate_in_which_nobody_answers_has_failed_and_says_so(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    quiz(workspace, 2)
    setup = json.loads(json.dumps(LOTTERY))
    setup["providers"]["script"] = {"kind": "scripted", "mode": "refuse"}
    words = ["debate", "--questions=quiz.jsonl", f"--set=llm={json.dumps(setup)}", f"--set=agents={json.dumps(AGENTS)}"]
    assert main([*words, "--run-name=d", "-q"]) == 4
    assert "No turn was answered; a: " in capsys.readouterr().err
    assert "a failed in" in (workspace / "runs/d/report.md").read_text()


@pytest.mark.parametrize(("old", "new"), [('"arm":"debate"', '"arm":"zzz"'), ('"agent":"a"', '"agent":"zed"')])
def test_turns_that_were_damaged_are_told(
    workspace: Path, capsys: pytest.CaptureFixture[str], old: str, new: str
) -> None:
    quiz(workspace, 2)
    assert main([*DEBATE, "--run-name=d", "-q"]) == 0
    events = workspace / "runs" / "d" / "events.jsonl"
    assert old in events.read_text()
    events.write_text(events.read_text().replace(old, new))
    assert main(["debate", "replay", "d"]) == 2
    assert "test-001" in capsys.readouterr().err


@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGINT])
def test_a_debate_that_is_stopped_anywhere_goes_on_to_the_same_transcript(
    workspace: Path, stop: signal.Signals
) -> None:
    quiz(workspace)
    words = [*DEBATE, "--set=rows=3", "--rounds=2", "-q"]
    assert main([*words, "--run-name=whole"]) == 0
    expected = told(workspace / "runs" / "whole")
    rng = random.Random(stop.value)
    for number in range(3):
        name = f"cut{number}"
        process = Forked(
            [sys.executable, "-m", "agentlab", *words, f"--run-name={name}"],
            cwd=workspace,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        events = workspace / "runs" / name / "events.jsonl"
        event_count = rng.randrange(2, 60)
        limit = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < limit:
            if events.is_file() and events.read_bytes().count(b"\n") >= event_count:
                process.send_signal(stop)
                break
            time.sleep(0.002)
        process.communicate(timeout=60)
        assert main(["debate", "--resume", name, "-q"]) == 0
        assert told(workspace / "runs" / name) == expected
        parts = [(workspace / "runs" / run_name / "transcript.jsonl").read_bytes() for run_name in ("whole", name)]
        assert parts[0] == parts[1]
