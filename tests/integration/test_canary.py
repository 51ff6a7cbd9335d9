"""One key, planted wherever a stranger or a user could put it, is in no output and in no file afterwards."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

KEY, OTHER_KEY = "sk-canary-4f1d9a7be2605c83", "sk-canary-0b6e2d95f8a1c374"
CONFIG = """
providers:
  one: {kind: openai_compat, base_url: "http://127.0.0.1:PORT/v1", api_key: "${CANARY_API_KEY}"}
  two: {kind: openai_compat, base_url: "http://127.0.0.1:PORT/v1", api_key: "${DOTENV_API_KEY}"}
models:
  model: {provider: PROVIDER, id: BEHAVIOUR, price: {input: 0, output: 0}}
roles: {primary: [model]}
"""


class Echo(BaseHTTPRequestHandler):
    """Sends back the key that it was sent, as the model's name asks: in an answer, headers or an error."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        key = self.headers["Authorization"].removeprefix("Bearer ")
        if body["model"] == "page":
            self._send(500, "text/html", f"<html>Traceback: key {key} is not known</html>", {"X-Echo": key})
        elif body["model"] == "header":
            self._send(400, "application/json", json.dumps({"error": {"message": f"no: {key}"}}), {"X-Echo": key})
        elif body.get("stream"):
            pieces = ["the key is "]
            for cut in range(1, len(key)):  # once for every place where it can be cut
                pieces += [key[:cut], f"{key[cut:]} "]
            deltas = [{"choices": [{"index": 0, "delta": {"content": piece}}]} for piece in pieces]
            deltas.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
            events = "".join(f"data: {json.dumps(delta)}\n\n" for delta in deltas)
            self._send(200, "text/event-stream", f"{events}data: [DONE]\n\n", {"X-Echo": key})
        else:
            message = {"role": "assistant", "content": f"the key is {key}, they say"}
            answer = {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
            self._send(200, "application/json", json.dumps(answer), {"X-Echo": key})

    def _send(self, status: int, kind: str, text: str, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(text.encode())), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        """Nothing: the tests' output is no server's log."""


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


def call(home: Path, *words: str) -> tuple[int, str]:
    """Exit status of a command in a workspace whose environment and `.env` hold a key each, and all that it printed."""
    environment = {**os.environ, "AGENTLAB_HOME": str(home), "HOME": str(home), "CANARY_API_KEY": KEY}
    for name, folder in (("AGENTLAB_CACHE", "cache"), ("TMPDIR", "temporary")):
        environment[name] = str(home / folder)
        (home / folder).mkdir(exist_ok=True)
    command = [sys.executable, "-m", "agentlab", *words]
    process = subprocess.run(command, cwd=home, env=environment, capture_output=True, text=True, timeout=120)
    return process.returncode, process.stdout + process.stderr


def write_config(home: Path, port: int, provider: str, behaviour: str) -> str:
    text = CONFIG.replace("PORT", str(port)).replace("PROVIDER", provider).replace("BEHAVIOUR", behaviour)
    (home / f"{provider}-{behaviour}.yaml").write_text(text)
    return f"--set=llm={provider}-{behaviour}.yaml"


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A workspace; after the test no file below it but the `.env` holds a key."""
    (tmp_path / ".env").write_text(f"DOTENV_API_KEY={OTHER_KEY}\n")
    yield tmp_path
    paths = [path for path in tmp_path.rglob("*") if path.is_file() and path.name != ".env"]
    assert not [path for path in paths if b"sk-canary" in path.read_bytes()]


@pytest.mark.parametrize("provider", ["one", "two"])
@pytest.mark.parametrize("behaviour", ["answer", "header", "page"])
def test_a_key_that_comes_back_is_masked(home: Path, port: int, provider: str, behaviour: str) -> None:
    llm = write_config(home, port, provider, behaviour)
    for flags in (["--json"], ["--debug", "--verbose"]):
        code, output = call(home, "llm", "ask", "Count.", llm, *flags)
        assert (code == 0) == (behaviour == "answer")
        assert "sk-canary" not in output
        assert "[redacted]" in output


def test_a_stream_that_is_cut_anywhere_in_the_key_is_masked(home: Path, port: int) -> None:
    code, output = call(home, "llm", "ask", "Count.", write_config(home, port, "one", "answer"))
    assert (code, "sk-canary" in output, output.count("[redacted]")) == (0, False, len(KEY) - 1)


def test_a_run_and_its_debug_log_hold_no_key(home: Path, port: int) -> None:
    """The question goes to a model that echoes the key: events, texts, the answers kept for later runs, the ledger."""
    llm = write_config(home, port, "one", "answer")
    stage = "base_pipeline={stages: [{id: ask, type: single, model: far, prompt: '{{ input }}'}]}"
    words = (
        "pipeline",
        "demo",
        llm,
        f"--set={stage}",
        "--set=models={far: {provider: router, model: model}}",
        "--input=Count.",
        "--run-name",
        "mine",
        "--debug",
    )
    code, output = call(home, *words)
    assert (code, "sk-canary" in output) == (0, False), output
    for name in ("log.txt", "texts.jsonl"):
        assert "[redacted]" in (home / "runs" / "mine" / name).read_text()
    code, output = call(home, "runs", "show", "mine", "--json")
    assert (code, "sk-canary" in output, "[redacted]" in output) == (0, False, True), output


def test_a_key_in_a_question_is_refused_by_its_variable(home: Path, port: int) -> None:
    llm = write_config(home, port, "one", "answer")
    code, output = call(home, "llm", "ask", f"Is {KEY} a good key?", llm)
    assert (code, "sk-canary" in output, "CANARY_API_KEY" in output) == (2, False, True)
