"""Calling the command line as `main` does, in this process."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from cli.main import main


@dataclass(frozen=True)
class Answer:
    """What a call printed and returned."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The single document on stdout."""
        return json.loads(self.out)


@pytest.fixture
def agentlab(workspace: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Answer]:
    """Run a command in an empty workspace."""

    def call(*words: object) -> Answer:
        code = main([str(word) for word in words])
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err + captured.out
        return Answer(code, captured.out, captured.err)

    return call


TINY = (
    "--set=data.input_length=48",
    "--set=model.d_model=8",
    "--set=model.n_heads=1",
    "--set=model.e_layers=1",
    "--set=training.epochs=1",
    "--set=data.split={train: 1200, val: 200, test: 200}",
    "--set=training.train_fraction=0.2",
    "--set=llm=scripted",
)


@contextmanager
def echoing(text: str) -> Iterator[str]:
    """A provider that answers every question with this text."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            message = {"role": "assistant", "content": text}
            content = json.dumps({"choices": [{"message": message, "finish_reason": "stop"}]}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
        server.shutdown()
