"""The graph makes the same trials as the command: it is built of the same steps."""

import json
from pathlib import Path
from typing import Any

import pytest

from agentlab.errors import AgentlabError
from cli.main import main

pytestmark = pytest.mark.usefixtures("undrawn")

langgraph = pytest.importorskip("agentlab.integrations.langgraph", reason="needs the extra langgraph")
pytest.importorskip("langgraph", reason="needs the extra langgraph")

OVERRIDES = {
    "llm": "scripted",
    "max_iterations": 5,
    "data.split": {"train": 1200, "val": 200, "test": 200},
    "training.train_fraction": 0.1,
    "finals.train_fraction": 0.1,
    "finals.count": 2,
    "seed": 3,
}


def told(run: Path) -> list[Any]:
    """Every event that carries a result, less measured times."""
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    for event in events:
        event["data"].get("metrics", {}).pop("seconds", None)
    return [
        (event["type"], event["id"], event["data"])
        for event in events
        if event["type"].split(".")[0] in ("trial", "decision", "repeat", "winner", "reference")
    ]


def test_the_graph_tells_the_same_story_as_the_command(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [f"--set={key}={value}" for key, value in OVERRIDES.items()]
    assert main(["nas", "demo", "--json", "-q", "--run-name=command", *words]) == 0
    expected = json.loads(capsys.readouterr().out)["result"]

    graph = langgraph.nas_graph("demo", overrides=OVERRIDES)
    edges = {(edge.source, edge.target) for edge in graph.get_graph().edges}
    assert {("planner", "executor"), ("executor", "evaluator"), ("evaluator", "update")} <= edges
    state = graph.invoke({})

    run = Path(state["run"])
    assert told(run) == told(workspace / "runs" / "command")
    assert state["result"]["winner"] == expected["winner"]
    assert state["trials"] == OVERRIDES["max_iterations"]
    assert json.loads((run / "manifest.json").read_text())["status"] == "completed"
    assert (run / "report.html").is_file()


def test_a_graph_that_fails_leaves_a_run_that_says_so(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def train(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr("agentlab.nas.objective.train", train)
    with pytest.raises(KeyboardInterrupt):
        langgraph.nas_graph("demo", overrides=OVERRIDES).invoke({})
    (run,) = (workspace / "runs").iterdir()
    assert json.loads((run / "manifest.json").read_text())["status"] == "interrupted"
    monkeypatch.undo()


def test_bad_input_is_refused_before_a_run_folder_is_made(workspace: Path) -> None:
    with pytest.raises(AgentlabError, match="no-such-preset"):
        langgraph.nas_graph("no-such-preset").invoke({})
    assert not (workspace / "runs").exists()


LOTTERY = {
    "providers": {"script": {"kind": "scripted", "mode": "random"}},
    "models": {name: {"provider": "script", "id": name, "price": {"input": 0, "output": 0}} for name in ("a", "b")},
    "roles": {"primary": ["a", "b"]},
}
DEBATE = {
    "llm": LOTTERY,
    "agents": [{"name": name, "model": name} for name in ("a", "b")],
    "questions.count": 8,
    "protocol": {"rounds": 2, "judge": "b"},
    "rows": 4,
}


def test_a_debate_as_a_graph_has_the_transcript_of_the_command(workspace: Path) -> None:
    words = [f"--set={key}={json.dumps(value)}" for key, value in DEBATE.items()]
    assert main(["debate", "demo", "-q", "--run-name=command", *words]) == 0
    graph = langgraph.debate_graph("demo", overrides=DEBATE)
    edges = {(edge.source, edge.target) for edge in graph.get_graph().edges}
    assert {("agent", "metrics"), ("metrics", "agent"), ("metrics", "judge"), ("judge", "agent")} <= edges
    state = graph.invoke({})

    run, command = Path(state["run"]), workspace / "runs" / "command"
    assert (run / "transcript.jsonl").read_bytes() == (command / "transcript.jsonl").read_bytes()
    verdicts = [json.loads((folder / "result.json").read_text())["control"] for folder in (run, command)]
    assert verdicts[0] == verdicts[1] == state["result"]["control"]
    assert json.loads((run / "manifest.json").read_text())["status"] == "completed"
