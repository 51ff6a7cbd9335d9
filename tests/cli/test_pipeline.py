"""`agentlab pipeline` from the outside: the seed's call, its subcommands, and what is said of wrong input."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Answer

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


def stages(*given: dict[str, Any]) -> dict[str, Any]:
    return {"base_pipeline": {"stages": list(given)}}


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
    again = agentlab("pipeline", path, "--input", "x", "--json")
    assert again.json["result"]["reused"] == 2
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


def test_gc_keeps_what_runs_name(agentlab: Call) -> None:
    agentlab("pipeline", scripted(), "--input", "x", "--run-name", "one")
    assert agentlab("pipeline", "gc", "--days", "0", "--json").json["result"]["objects"] == 0
    agentlab("runs", "rm", "one", "--yes")
    assert agentlab("pipeline", "gc", "--days", "0", "--json").json["result"]["objects"] == 2


def test_a_batch_writes_one_line_per_input(agentlab: Call) -> None:
    Path("in.jsonl").write_text('"x"\n{"input": "y", "id": 7}\n')
    answer = agentlab("pipeline", scripted(), "--inputs", "in.jsonl", "--json")
    assert answer.code == 0, answer.err
    lines = (Path(answer.json["run"]["path"]) / "outputs.jsonl").read_text().splitlines()
    assert [json.loads(line).get("id") for line in lines] == [None, 7]


def test_standard_input_is_an_input(agentlab: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    import io

    monkeypatch.setattr("sys.stdin", io.StringIO("from a pipe"))
    answer = agentlab("pipeline", scripted(), "--input-file", "-", "--json")
    assert answer.code == 0, answer.err


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
    ("given", "flags", "code", "words"),
    [
        (stages({"id": "a", "model": "far"}), [], 2, ["There is no input", "--input"]),
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
            ["a circle: a reads b reads a"],
        ),
        (stages({"id": "a", "model": "far", "prompt": "{{ input.__class__ }}"}), ["--input", "x"], 2, ["prompt"]),
        (stages({"id": "a", "model": "far", "samples": 2}), ["--input", "x"], 2, ["aggregation"]),
        (stages({"id": "a", "model": "far"}), ["--mode", "manual", "--input", "x"], 2, ["manual_pipeline"]),
        (stages({"id": "a", "model": "far"}), ["--models", "absent.yaml", "--input", "x"], 2, ["absent.yaml"]),
        (stages({"id": "a", "model": "far"}), ["--pipeline", "other.yaml"], 2, ["--pipeline"]),
    ],
)
def test_wrong_input(agentlab: Call, given: dict[str, Any], flags: list[str], code: int, words: list[str]) -> None:
    refused(agentlab("pipeline", write("bad.yaml", REMOTE, given), *flags), code, *words)


def test_a_model_file_that_is_not_there(agentlab: Call) -> None:
    models = {"models": {"m": {"file": "SmolLM2-135M-Instruct.Q4.gguf"}}}
    path = write("local.yaml", models, stages({"id": "a", "model": "m"}))
    refused(agentlab("pipeline", path, "--input", "x"), 3, "models.m", "There is no model file")


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


def test_a_failing_remote_model_exits_4_and_can_be_gone_on_with(agentlab: Call) -> None:
    path = scripted()
    content = json.loads(Path(path).read_text())
    content["llm"]["providers"]["script"] = {"kind": "scripted", "mode": "refuse"}
    Path(path).write_text(json.dumps(content))
    answer = agentlab("pipeline", path, "--input", "x", "--run-name", "broken")
    assert answer.code == 4
    assert "runs resume broken" in answer.err or "--resume broken" in answer.err
