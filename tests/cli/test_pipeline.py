"""`agentlab pipeline` from the outside: the seed's call, its subcommands, and what is said of wrong input."""

import json
import re
import shlex
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Answer
from tests.unit.bench.mock.running import in_thread

Call = Callable[..., Answer]

MODELS = {"models_directory": "models", "models": {"m": {"file": "SmolLM2-135M-Instruct.Q4_1.gguf"}}}
REMOTE = {
    "models": {"far": {"provider": "router", "model": "said"}},
    "llm": {
        "providers": {"script": {"kind": "scripted", "mode": "replies", "replies": ["one", "two", "three", "four"]}},
        "models": {"said": {"provider": "script", "id": "scripted", "price": {"input": 0, "output": 0}}},
        "roles": {"primary": ["said"]},
    },
}


def stages(*definitions: dict[str, Any]) -> dict[str, Any]:
    return {"base_pipeline": {"stages": list(definitions)}}


def write(name: str, *parts: dict[str, Any]) -> str:
    merged = {key: value for part in parts for key, value in part.items()}
    Path(name).write_text(json.dumps(merged))
    return f"./{name}"


def scripted() -> str:
    """A pipeline of two stages whose model is a script."""
    first = {"id": "a", "model": "far", "prompt": "{{ input }}"}
    return write("far.yaml", REMOTE, stages(first, {"id": "b", "model": "far", "prompt": "About {{ input }}"}))


def refused(answer: Answer, code: int, *words: str) -> None:
    assert answer.code == code, answer.err
    assert answer.err.count("error: ") == 1
    for word in words:
        assert word in answer.err, answer.err
    assert answer.out == ""
    assert not list(Path("runs").glob("2*"))


def test_a_pipeline_of_remote_models_runs_without_an_engine(agentlab: Call) -> None:
    answer = agentlab("pipeline", scripted(), "--input", "x", "--json")
    assert answer.code == 0, answer.err
    assert answer.json["result"]["items"] == [{"name": "", "answer": "two", "error": None}]
    run = Path(answer.json["run"]["path"])
    assert (run / "final.txt").read_text() == "two"


def test_the_answer_alone_stands_on_stdout(agentlab: Call) -> None:
    assert agentlab("pipeline", scripted(), "--input", "x").out == "two\n"


def test_two_halves_make_one_config(agentlab: Call) -> None:
    models = write("models.yaml", REMOTE)
    pipeline = write("pipeline.yaml", stages({"id": "a", "model": "far"}))
    answer = agentlab(
        "pipeline", "--models", models, "--pipeline", pipeline, "--mode", "base", "--input", "Hello", "--json"
    )
    assert answer.code == 0, answer.err
    assert answer.json["result"]["items"][0]["answer"] == "one"


def test_a_half_may_name_the_other(agentlab: Call) -> None:
    write("models.yaml", REMOTE)
    pipeline = write("pipeline.yaml", {"models_file": "./models.yaml"}, stages({"id": "a", "model": "far"}))
    assert agentlab("pipeline", "--pipeline", pipeline, "--input", "Hello").code == 0


def test_manual_mode_runs_the_other_list(agentlab: Call) -> None:
    path = write("both.yaml", REMOTE, stages({"id": "a", "model": "far", "prompt": "a"}))
    content = json.loads(Path(path).read_text())
    content["manual_pipeline"] = {"stages": [{"id": "b", "model": "far"}, {"id": "c", "model": "far"}]}
    Path(path).write_text(json.dumps(content))
    answer = agentlab("pipeline", path, "--mode", "manual", "--input", "x", "--json")
    assert [stage["stage"] for stage in answer.json["result"]["stages"]] == ["b", "c"]


def test_what_is_asked_again_is_not_asked(agentlab: Call) -> None:
    path = scripted()
    agentlab("pipeline", path, "--input", "x")
    second_run = agentlab("pipeline", path, "--input", "x", "--json")
    assert second_run.json["result"]["reused"] == 2
    fresh = agentlab("pipeline", path, "--input", "x", "--cache", "refresh", "--json")
    assert fresh.json["result"]["reused"] == 0


def test_rerun_tree_why_and_diff(agentlab: Call) -> None:
    agentlab("pipeline", scripted(), "--input", "x", "--run-name", "parent")
    change = "base_pipeline.stages.b.prompt=Now {{ input }}"
    child = agentlab("pipeline", "rerun", "parent", "--from", "b", "--set", change, "--run-name", "child", "--json")
    assert child.code == 0, child.err
    tree = agentlab("pipeline", "tree").out
    assert "└─ child" in tree
    assert "executed b" in tree
    assert "message 1 changed" in agentlab("pipeline", "why", "child", "b").out
    assert "base_pipeline.stages.b.prompt" in agentlab("pipeline", "diff", "parent", "child").out
    refused_again = agentlab("pipeline", "rerun", "parent", "--from", "nowhere")
    assert refused_again.code == 2
    assert "Known: a, b" in refused_again.err


def test_history_lists_searches_shows_and_exports(agentlab: Call) -> None:
    agentlab("pipeline", scripted(), "--input", "the blue lamp", "--run-name", "one")
    assert "the blue lamp" in agentlab("pipeline", "history", "list").out
    assert "»blue«" in agentlab("pipeline", "history", "search", "blue").out
    assert "the blue lamp" in agentlab("pipeline", "history", "show", "one").out
    for form, mark in (("md", "# one"), ("html", "<!doctype html>"), ("json", '"schema"')):
        assert mark in agentlab("pipeline", "history", "export", "one", "--format", form).out
    agentlab("pipeline", "history", "export", "one", "--format", "html", "--out", "one.html")
    assert Path("one.html").read_text().startswith("<!doctype html>")
    assert agentlab("pipeline", "history", "export", "one", "--out", "one.html").code == 2


def test_history_refuses_what_cannot_be_meant(agentlab: Call) -> None:
    wrong = agentlab("pipeline", "history", "list", "--status", "complete")
    assert wrong.code == 2
    assert "Did you mean completed" in wrong.err
    assert agentlab("pipeline", "history", "list", "--status", "").code == 2
    for query in ("", " ", '"*"'):
        assert agentlab("pipeline", "history", "search", query).code == 2
    empty = agentlab("pipeline", "history", "list", "--status", "failed")
    assert (empty.code, empty.out) == (0, "No pipeline run has the status 'failed'.\n")


def test_gc_takes_nothing_from_a_run(agentlab: Call) -> None:
    agentlab("pipeline", scripted(), "--input", "x", "--run-name", "one")
    before = agentlab("pipeline", "history", "show", "one", "--json").json["result"]
    assert agentlab("pipeline", "gc", "--days", "0", "--json").json["result"]["answers"] == 2
    assert agentlab("pipeline", "history", "show", "one", "--json").json["result"] == before
    assert [step["output"] for step in before["steps"]] == ["one", "two"]


def test_a_copied_run_folder_holds_all_its_texts(
    agentlab: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The parent's answers, the store's and a model's: each text is in the folder, wherever it came from."""
    path = scripted()
    agentlab("pipeline", path, "--input", "x", "--run-name", "one")
    agentlab("pipeline", path, "--input", "x", "--run-name", "same")
    agentlab("pipeline", "rerun", "one", "--from", "b", "--run-name", "child", "--cache", "refresh")
    originals = {
        name: agentlab("pipeline", "history", "show", name, "--json").json["result"] for name in ("same", "child")
    }
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree("runs", elsewhere / "mine")
    shutil.rmtree("runs")
    shutil.rmtree(".agentlab")
    monkeypatch.setenv("AGENTLAB_HOME", str(elsewhere))
    runs_flags = ("--runs-dir", elsewhere / "mine")
    for name, before in originals.items():
        copied = agentlab("pipeline", "history", "show", name, *runs_flags, "--json").json["result"]
        assert (copied["steps"], copied["inputs"]) == (before["steps"], before["inputs"])
        assert all(step["output"] and all(call["text"] for call in step["calls"]) for step in copied["steps"])
    assert "└─ child" in agentlab("pipeline", "tree", *runs_flags).out
    assert "+" in agentlab("pipeline", "diff", "one", "child", *runs_flags).out
    assert agentlab("pipeline", "why", "child", "b", *runs_flags).code == 0
    assert agentlab("pipeline", "history", "search", "one", *runs_flags).out.count("a\t") >= 1
    rerun = agentlab("pipeline", "rerun", "child", "--from", "b", "--run-name", "again", "--json", *runs_flags)
    assert rerun.json["result"]["reused"] == 1, rerun.err


def test_a_copied_run_that_failed_is_resumed_where_it_stood(
    agentlab: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("in.jsonl").write_text('"x"\n{"input": "y", "word": "z"}\n')
    last = {"id": "b", "model": "far", "prompt": "{{ item.word }} of {{ input }}"}
    path = write("far.yaml", REMOTE, stages({"id": "a", "model": "far", "prompt": "{{ input }}"}, last))
    assert agentlab("pipeline", path, "--inputs", "in.jsonl", "--run-name", "one").code == 1
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree("runs", elsewhere / "runs")
    shutil.rmtree(".agentlab")
    monkeypatch.setenv("AGENTLAB_HOME", str(elsewhere))
    assert agentlab("pipeline", "--resume", "one").code == 1  # its template still lacks a word
    stored_events = [
        json.loads(line) for line in (elsewhere / "runs" / "one" / "events.jsonl").read_text().splitlines()
    ]
    answered = [event["id"] for event in stored_events if event["type"] == "call.answered"]
    assert sorted(answered) == ["0001:a", "0002:a", "0002:b"]  # each once


def test_a_batch_writes_one_line_per_input(agentlab: Call) -> None:
    Path("in.jsonl").write_text('"x"\n{"input": "y", "id": 7}\n')
    answer = agentlab("pipeline", scripted(), "--inputs", "in.jsonl", "--json")
    assert answer.code == 0, answer.err
    lines = (Path(answer.json["run"]["path"]) / "outputs.jsonl").read_text().splitlines()
    assert [json.loads(line).get("id") for line in lines] == [None, 7]


def test_a_batch_without_a_terminal_tells_its_progress(agentlab: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cli.screen.silence", lambda elapsed: 0.2)
    with in_thread() as server:
        llm = {
            "providers": {"mock": {"kind": "openai_compat", "base_url": server.url}},
            "models": {"said": {"provider": "mock", "id": "ok-ttft300-itl2-n3"}},
            "roles": {"primary": ["said"]},
        }
        far = {"models": REMOTE["models"], "llm": llm}
        path = write("slow.yaml", far, stages({"id": "a", "model": "far"}, {"id": "b", "model": "far"}))
        Path("in.jsonl").write_text("".join(f'"question {n}"\n' for n in range(24)))
        loud = agentlab("pipeline", path, "--inputs", "in.jsonl", "--json")
        quiet = agentlab("pipeline", path, "--inputs", "in.jsonl", "--cache", "refresh", "-q")
    progress_lines = [line for line in loud.err.splitlines() if line.startswith("  ... ")]
    assert any(" of 48, " in line for line in progress_lines), loud.err
    assert (loud.code, quiet.code, quiet.err) == (0, 0, "")


def test_standard_input_is_an_input(agentlab: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    import io

    monkeypatch.setattr("sys.stdin", io.StringIO("from a pipe"))
    answer = agentlab("pipeline", scripted(), "--input-file", "-", "--json")
    assert answer.code == 0, answer.err


def test_standard_input_is_read_up_to_what_a_config_holds(agentlab: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    import io

    endless = io.StringIO("x" * 1_000_000)
    monkeypatch.setattr("sys.stdin", endless)
    refused(agentlab("pipeline", scripted(), "--input-file", "-"), 2, "more than 32768 characters", "--input-file FILE")
    assert endless.tell() < 40_000


def test_validate_and_models_take_what_a_run_takes(agentlab: Call) -> None:
    part = stages({"id": "a", "model": "far"})
    path = write("both.yaml", REMOTE, part, {"manual_pipeline": part["base_pipeline"]})
    changed = ["--set", "manual_pipeline.stages.a.when=params.go", "--mode", "manual"]
    assert "every stage may be skipped" in agentlab("pipeline", "validate", path, *changed).out
    refused(agentlab("pipeline", "validate", path, "--set", "seed=x"), 2, "--set: seed")
    refused(agentlab("pipeline", "validate", path, "--mode", "manual", "--set", "manual_pipeline=null"), 2, "manual")
    fallback = ["--set", "models.m={file: nowhere.gguf}"]
    assert "nowhere.gguf" in agentlab("pipeline", "models", path, *fallback).out
    models = agentlab("pipeline", "models", path, *fallback, "--mode", "manual", "--json").json["result"]["models"]
    assert {model["name"]: model["wanted"] for model in models} == {"far": True, "m": False}


def test_a_rerun_changes_nothing_before_its_first_stage(agentlab: Call) -> None:
    agentlab("pipeline", scripted(), "--input", "x", "--run-name", "parent")
    for change, message in (("seed=5", "seed changed"), ("input=y", "`input` changed")):
        answer = agentlab("pipeline", "rerun", "parent", "--from", "b", "--set", change)
        assert answer.code == 2
        assert message in answer.err
    assert [path.name for path in Path("runs").iterdir() if path.is_dir()] == ["parent"]


def test_a_line_that_cannot_be_written_down_is_refused_before_a_run_begins(agentlab: Call) -> None:
    Path("half.jsonl").write_text('"a\\ud800b"\n')
    refused(agentlab("pipeline", scripted(), "--inputs", "half.jsonl"), 2, "half.jsonl:1", "unpaired surrogate")


def test_the_plan_and_the_models_of_the_embedded_presets(agentlab: Call) -> None:
    plan = agentlab("pipeline", "plan", "vote", "--json")
    assert plan.code == 0, plan.err
    assert [step["action"] for step in plan.json["result"]["steps"]] == ["load", "ask"]
    assert plan.json["result"]["peak_bytes"] > 100 << 20
    assert "Q4_1" in agentlab("pipeline", "models", "vote").out
    assert "The pipeline is valid: 1 stage" in agentlab("pipeline", "validate", "vote").out
    assert not Path("runs").exists()


def test_init_writes_two_files_that_are_valid(agentlab: Call) -> None:
    assert agentlab("init").code == 0
    answer = agentlab("pipeline", "validate", "--models", "models.yaml", "--pipeline", "pipeline.yaml")
    assert answer.code == 0, answer.err


@pytest.mark.parametrize(
    ("definition", "flags", "code", "words"),
    [
        (stages({"id": "a", "model": "far"}), [], 2, ["has no input", "--input"]),
        (stages({"id": "a", "model": "far"}), ["--input", ""], 2, ["input is empty"]),
        (stages({"id": "a", "model": "far"}), ["--input", "x" * 40_000], 2, ["--input-file"]),
        (stages({"id": "a", "model": "far"}), ["--inputs", "absent.jsonl"], 3, ["absent.jsonl"]),
        (stages({"id": "a", "model": "fa"}), ["--input", "x"], 2, ["bad.yaml:1:", "Did you mean far"]),
        (stages({"id": "a", "modle": "far"}), ["--input", "x"], 2, ["bad.yaml:1:", "model"]),
        (stages({"id": "a", "model": "far", "input_from": "b"}), ["--input", "x"], 2, ["no stage named 'b'"]),
        (
            stages({"id": "a", "model": "far", "input_from": "b"}, {"id": "b", "model": "far"}),
            ["--input", "x"],
            2,
            ["a cycle: a reads b reads a"],
        ),
        (stages({"id": "a", "model": "far", "prompt": "{{ input.__class__ }}"}), ["--input", "x"], 2, ["prompt"]),
        (stages({"id": "a", "model": "far", "samples": 2}), ["--input", "x"], 2, ["aggregation"]),
        (stages({"id": "a", "model": "far"}), ["--mode", "manual", "--input", "x"], 2, ["manual_pipeline"]),
        (stages({"id": "a", "model": "far"}), ["--models", "absent.yaml", "--input", "x"], 2, ["absent.yaml"]),
        (stages({"id": "a", "model": "far"}), ["--pipeline", "other.yaml"], 2, ["--pipeline"]),
    ],
)
def test_wrong_input(agentlab: Call, definition: dict[str, Any], flags: list[str], code: int, words: list[str]) -> None:
    refused(agentlab("pipeline", write("bad.yaml", REMOTE, definition), *flags), code, *words)


def test_a_model_file_that_is_not_there(agentlab: Call) -> None:
    models = {"models": {"m": {"file": "SmolLM2-135M-Instruct.Q4.gguf"}}}
    path = write("local.yaml", models, stages({"id": "a", "model": "m"}))
    refused(agentlab("pipeline", path, "--input", "x"), 3, "models.m", "The model file", "does not exist")


def test_a_quantisation_that_is_not_what_was_said(agentlab: Call) -> None:
    models = {"models": {"m": {"file": "SmolLM2-135M-Instruct.Q4_1.gguf", "quantization": "Q8_0"}}}
    path = write("local.yaml", models, stages({"id": "a", "model": "m"}))
    refused(agentlab("pipeline", path, "--input", "x"), 1, "Q8_0", "Q4_1")


def test_half_a_config_says_what_is_missing(agentlab: Call) -> None:
    refused(agentlab("pipeline", "--models", write("models.yaml", MODELS)), 2, "--pipeline FILE")


def test_a_run_of_another_command_is_none_of_a_pipeline(agentlab: Call) -> None:
    agentlab("nas", "demo", "--max-iterations", "1", "--set", "llm=none", "--run-name", "study")
    answer = agentlab("pipeline", "why", "study", "a")
    assert answer.code == 2
    assert "belongs to `nas`" in answer.err
    for words in (("show", "study"), ("export", "study")):
        answer = agentlab("pipeline", "history", *words)
        assert (answer.code, answer.out) == (2, "")
        assert "belongs to `nas`" in answer.err


def test_a_pipeline_may_end_in_a_remote_judge(agentlab: Call) -> None:
    judged = {"id": "a", "model": "far", "samples": 2, "aggregation": {"method": "judge", "model": "far"}}
    path = write("judge.yaml", REMOTE, stages(judged))
    content = json.loads(Path(path).read_text())
    content["llm"]["providers"]["script"] = {"kind": "scripted", "mode": "first"}
    Path(path).write_text(json.dumps(content))
    answer = agentlab("pipeline", path, "--input", "x", "--json")
    assert answer.code == 0, answer.err


def test_an_outage_is_over_when_the_run_is_gone_on_with(agentlab: Call) -> None:
    with in_thread() as server:
        url = server.url
    llm = {
        "providers": {"mock": {"kind": "openai_compat", "base_url": url}},
        "models": {"said": {"provider": "mock", "id": "ok-n3"}},
        "roles": {"primary": ["said"]},
        "defaults": {"retries": 0},
    }
    path = write("down.yaml", {"models": REMOTE["models"], "llm": llm}, stages({"id": "a", "model": "far"}))
    assert agentlab("pipeline", path, "--input", "x", "--run-name", "down").code == 4
    port = int(url.rsplit(":", 1)[1].partition("/")[0])
    with in_thread(port=port):
        answer = agentlab("pipeline", "--resume", "down", "--json")
    assert answer.code == 0, answer.err
    assert answer.json["result"]["items"][0]["answer"] == "0 1 2"


def test_two_servers_under_one_name_are_two(agentlab: Call) -> None:
    path = scripted()
    assert agentlab("pipeline", path, "--input", "x").out == "two\n"
    content = json.loads(Path(path).read_text())
    content["llm"]["providers"]["script"]["replies"] = ["six", "seven"]
    Path(path).write_text(json.dumps(content))
    assert agentlab("pipeline", path, "--input", "x").out == "seven\n"


def test_a_remote_stage_has_its_own_clock(agentlab: Call) -> None:
    slow = {"id": "a", "model": "far", "timeout_s": 0.5, "on_error": "default", "default": "late"}
    path = write("slow.yaml", REMOTE, stages(slow))
    content = json.loads(Path(path).read_text())
    content["llm"]["providers"]["script"] = {"kind": "scripted", "mode": "stuck"}
    Path(path).write_text(json.dumps(content))
    began = time.monotonic()
    assert agentlab("pipeline", path, "--input", "x").out == "late\n"
    assert time.monotonic() - began < 8


def test_a_secret_is_in_no_text_that_is_kept(agentlab: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", "planted-secret-value")
    secret_stage = {"id": "a", "model": "far", "prompt": "{{ params.key }}", "output_mode": "input_plus_answer"}
    path = write("secret.yaml", {**REMOTE, "params": {"key": "planted-secret-value"}}, stages(secret_stage))
    plain = write("plain.yaml", {**REMOTE, "params": {"key": "x"}}, stages(secret_stage))
    for words in ((path, "--input", "say it"), (plain, "--input", "say planted-secret-value")):
        answer = agentlab("pipeline", *words, "--json")
        assert (answer.code, "contains the value of SOME_API_KEY" in answer.err) == (2, True), answer.err
        assert "planted-secret-value" not in answer.out + answer.err
    files = [p for p in Path().rglob("*") if p.is_file() and p.name != "secret.yaml"]
    assert [p for p in files if b"planted-secret-value" in p.read_bytes()] == []


def test_a_failed_run_has_no_answer_and_keeps_its_figures(agentlab: Call) -> None:
    second = {"id": "b", "model": "far", "prompt": "{{ stages.a.json.x }}"}
    answer = agentlab("pipeline", write("f.yaml", REMOTE, stages({"id": "a", "model": "far"}, second)), "--input", "x")
    assert answer.code == 2
    (run,) = Path("runs").glob("2*")
    assert (run / "final.txt").read_text() == ""
    assert json.loads((run / "manifest.json").read_text())["metrics"]["answered"]["value"] == 0


def test_a_failing_remote_model_exits_4_and_can_be_gone_on_with(agentlab: Call) -> None:
    path = scripted()
    content = json.loads(Path(path).read_text())
    content["llm"]["providers"]["script"] = {"kind": "scripted", "mode": "refuse"}
    Path(path).write_text(json.dumps(content))
    answer = agentlab("pipeline", path, "--input", "x", "--run-name", "broken", "--runs-dir", "else where")
    assert answer.code == 4
    (line,) = re.findall(r"agentlab (pipeline --resume .*); finished answers", answer.err)
    assert agentlab(*shlex.split(line)).code == 4
