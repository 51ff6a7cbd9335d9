"""What `compress deploy` writes: read by parsers, and what its last line starts is started here and answers."""

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import kubernetes_validate
import pytest
import yaml
from dockerfile_parse import DockerfileParser

from cli.main import main
from tests.integration.test_compress import SMALL, workspace

__all__ = ["workspace"]

TOKEN = "a-token-of-the-test"
TEMPLATE = "{% for m in messages %}{{ m['content'] }} {% endfor %}"


@pytest.fixture
def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture
def run(workspace: Path) -> Path:
    """A compression of one recipe, of a base that can be talked to."""
    settings = workspace / "models" / "tiny" / "tokenizer_config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"chat_template": TEMPLATE}))
    one = {"portfolio": [{"quantizer": "kquant", "quantization_bits": 8}], "first": 1, "budget": {"trials": 1}}
    (workspace / "small.yaml").write_text(json.dumps(SMALL | one | {"beside": [], "goal": "smallest at any loss"}))
    assert main(["compress", "./small.yaml", "-q", "--run-name", "r"]) == 0
    (workspace / "agentlab.whl").write_bytes(b"a wheel, as `make wheel-check` builds and installs one")
    return workspace


@contextmanager
def started(command: list[str], workspace: Path) -> Iterator[None]:
    """A process of the command, with the token in its environment as in a container."""
    environment = {"AGENTLAB_SERVE_TOKEN": TOKEN, "AGENTLAB_HOME": str(workspace), "PATH": "/usr/bin:/bin"}
    environment["PYTHONPATH"] = ":".join(sys.path)
    process = subprocess.Popen(command, env=environment, cwd=workspace, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait(30)


def asked(url: str, body: dict[str, Any] | None = None, token: str = TOKEN) -> Any:
    head = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    data = None if body is None else json.dumps(body).encode()
    with urlopen(Request(url, data, head), timeout=60) as answer:
        return answer.status, json.loads(answer.read() or b"null")


def healthy(url: str) -> bool:
    for _ in range(300):
        try:
            return bool(asked(url)[0] == 200)
        except URLError:
            time.sleep(0.1)
    return False


def test_what_the_image_starts_is_healthy_and_answers(run: Path, free_port: int) -> None:
    assert main(["compress", "deploy", "r", "--format", "k8s", "--wheel", "agentlab.whl", "--out", "made"]) == 0
    out = run / "made"
    assert {entry.name for entry in out.iterdir()} == {
        "Dockerfile", "agentlab.whl", "constraints.txt", "k8s.yaml", "model", "serve.yaml"
    }  # fmt: skip
    parsed = DockerfileParser(str(out))
    steps = [(entry["instruction"], entry["value"]) for entry in parsed.structure]
    copied = [word for name, value in steps if name == "COPY" for word in value.split()[:-1]]
    assert all((out / name).exists() for name in copied)
    assert ("USER", "1000") in steps
    assert TOKEN not in parsed.content

    command = json.loads(steps[-1][1])
    assert (steps[-1][0], command[0]) == ("CMD", "agentlab")
    serve_config = (out / "serve.yaml").read_text().replace("/srv/", f"{out}/")
    (out / "serve.yaml").write_text(serve_config)
    moved = {"/srv/serve.yaml": str(out / "serve.yaml"), "8484": str(free_port)}
    words = [sys.executable, "-m", *(moved.get(word, word) for word in command)]
    url = f"http://127.0.0.1:{free_port}"
    check = dict(steps)["HEALTHCHECK"].partition("CMD ")[2].replace("8484", str(free_port))
    with started(words, run):
        assert healthy(f"{url}/health")
        assert subprocess.run([sys.executable, *json.loads(check)[1:]], check=False).returncode == 0
        say = {"model": "compressed", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4}
        assert asked(f"{url}/v1/chat/completions", say)[1]["choices"][0]["message"]["content"]
        with pytest.raises(HTTPError, match="401"):
            asked(f"{url}/v1/chat/completions", say, token="a-wrong-one")
        deployment, service = yaml.safe_load_all((out / "k8s.yaml").read_text())
        (container,) = deployment["spec"]["template"]["spec"]["containers"]
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            assert asked(f"{url}{container[probe]['httpGet']['path']}")[0] == 200
    for manifest in (deployment, service):
        kubernetes_validate.validate(manifest, "1.33", strict=True)
    assert container["ports"][0]["containerPort"] == service["spec"]["ports"][0]["targetPort"]
    assert container["env"][0]["valueFrom"]["secretKeyRef"] == {"name": "compressed", "key": "token"}


def test_what_cannot_be_served_is_named_before_anything_is_written(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def said(*words: str) -> str:
        assert main(["compress", "deploy", *words]) in (2, 3)  # of usage, or something is missing
        return capsys.readouterr().err

    assert "No such wheel:" in said("r", "--wheel", "absent.whl")
    (run / "full").mkdir()
    (run / "full" / "mine").touch()
    assert "already exists" in said("r", "--wheel", "agentlab.whl", "--out", "full")
    assert "is not a valid image name" in said("r", "--image", "a b; rm -rf x")
    (run / "agent lab.whl").touch()
    assert "is not a valid wheel name" in said("r", "--wheel", "agent lab.whl", "--out", "new")
    assert not (run / "new").exists()
    assert "several base models" in said("r", "--base", "other")
    assert "rocket" in said("r", "--format", "rocket")
    (export,) = (run / "runs" / "r" / "exports").iterdir()
    export.unlink()
    assert "The export " in said("r", "--wheel", "agentlab.whl", "--out", "new")
    assert not (run / "new").exists()
