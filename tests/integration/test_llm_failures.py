"""A study ends with all its trials, whatever the language model does: refuse, hang, babble, or advise the worst."""

import http.server
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cli.main import main

pytestmark = pytest.mark.usefixtures("undrawn")

TRIALS = 6
TINY = (
    "nas",
    "demo",
    "--json",
    "-q",
    f"--max-iterations={TRIALS}",
    "--set=data.split={train: 1200, val: 200, test: 200}",
    "--set=training.train_fraction=0.1",
    "--set=finals.train_fraction=0.1",
    "--set=finals.count=1",
    "--set=finals.seeds=1",
    "--set=evaluator.repeats=0",
)

Reply = Callable[[http.server.BaseHTTPRequestHandler], None]


@contextmanager
def endpoint(reply: Reply) -> Iterator[str]:
    """A real HTTP server on loopback that answers every POST with `reply`."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            reply(self)

        def log_message(self, *_: object) -> None:
            """Stay silent."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def hosted(base_url: str, tier: str) -> str:
    """`llm:` with one model behind an OpenAI-compatible endpoint and impatient clocks."""
    return "--set=llm=" + json.dumps(
        {
            "providers": {"here": {"kind": "openai_compat", "base_url": base_url}},
            "models": {"m": {"provider": "here", "id": "m", "tier": tier}},
            "roles": {"primary": ["m"]},
            "defaults": {"timeout": {"connect": 0.5, "first_token": 0.3, "idle": 0.3, "total": 1.0}},
        }
    )


def study(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    """The result of a whole study, which has to succeed."""
    code = main([*TINY, *words])
    captured = capsys.readouterr()
    assert code == 0, captured.err
    result: dict[str, Any] = json.loads(captured.out)["result"]
    assert len(result["trials"]) == TRIALS
    assert all(trial["val_mse"] is not None for trial in result["trials"])
    return result


def assert_fell_back(result: dict[str, Any]) -> None:
    """Trials of the agent's arm came from the optimiser and say why."""
    agent = [trial for trial in result["trials"] if trial["arm"] == "agent"]
    assert agent, "the coin gave the agent no trial: choose another seed"
    assert all(trial["source"].startswith("llm->") for trial in agent), agent
    assert all("AllModelsFailed" in trial["note"] for trial in agent), agent
    (proposer,) = [model for model in result["models"] if model["task"] == "nas.propose"]
    assert proposer["calls"] > 0
    assert (proposer["answered"], proposer["usable"], proposer["share"], proposer["accepted"]) == (0, 0, 0.0, 0)


def garbage(handler: http.server.BaseHTTPRequestHandler) -> None:
    body = b"<html>welcome to the proxy</html>"
    handler.send_response(200)
    handler.send_header("Content-Type", "text/html")
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


def hang(handler: http.server.BaseHTTPRequestHandler) -> None:
    time.sleep(1.5)
    handler.close_connection = True


def babble(handler: http.server.BaseHTTPRequestHandler) -> None:
    """A proper stream whose text is no answer to anything."""
    chunk = {"choices": [{"delta": {"content": "As a language model, I think A. Or B."}, "finish_reason": "stop"}]}
    handler.send_response(200)
    handler.send_header("Content-Type", "text/event-stream")
    handler.end_headers()
    handler.wfile.write(f"data: {json.dumps(chunk)}\n\ndata: [DONE]\n\n".encode())
    handler.close_connection = True


@pytest.mark.parametrize("tier", ["pick", "full"])
@pytest.mark.parametrize("reply", [garbage, hang, babble])
def test_endpoint_misbehaves(workspace: Path, capsys: pytest.CaptureFixture[str], reply: Reply, tier: str) -> None:
    with endpoint(reply) as url:
        assert_fell_back(study(capsys, hosted(url, tier)))


def test_endpoint_refuses(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as bound_socket:
        bound_socket.bind(("127.0.0.1", 0))  # bound and not listening: every connection is refused
        url = f"http://127.0.0.1:{bound_socket.getsockname()[1]}/v1"
        result = study(capsys, hosted(url, "edit"))
    assert_fell_back(result)
    assert result["planner"]["answered"] == 0


def test_a_near_tie_is_trained_again_although_no_model_judges_it(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with endpoint(garbage) as url:
        result = study(capsys, hosted(url, "full"), "--set=evaluator.noise=0.5")
    retrained = [trial for trial in result["trials"] if trial["trainings"] > 1]
    assert retrained, "no trial was lower within the noise: choose another seed"
    assert {trial["judge"] for trial in result["trials"]} == {"rule"}
    assert {model["task"] for model in result["models"]} == {"nas.propose", "nas.evaluate"}


@pytest.mark.parametrize("tier", ["pick", "edit", "full"])
def test_always_the_worst_corner(workspace: Path, capsys: pytest.CaptureFixture[str], tier: str) -> None:
    """Bad advice is tried, screened like any other, and costs trials; it never costs the study."""
    script = "{providers: {p: {kind: scripted, mode: adversarial}}, "
    script += f"models: {{m: {{provider: p, id: m, tier: {tier}}}}}, roles: {{primary: [m]}}}}"
    result = study(capsys, f"--set=llm={script}")
    keys = [json.dumps(trial["changes"], sort_keys=True) for trial in result["trials"]]
    assert len(set(keys)) == TRIALS, "the same point was tried twice"
    assert result["planner"]["answered"] > 0


def test_the_same_study_without_a_model_has_no_control(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = study(capsys, "--set=llm=none")
    assert result["control"] is None
    assert {trial["arm"] for trial in result["trials"]} == {"shared", "control"}
