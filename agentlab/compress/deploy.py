"""Files that serve the winner of a compression: for Docker, or for Kubernetes. Nothing is built or sent here.

The container runs `agentlab serve`, an OpenAI-compatible endpoint, as a user without rights. Its token comes from the
environment when it starts, so that no file holds a secret.
"""

import importlib.metadata
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

import yaml

from agentlab import machine
from agentlab.compress.result import CompressModelResult
from agentlab.errors import MissingFileError, StorageError, UsageError
from agentlab.llm.serve.gate import HEALTH
from agentlab.runs.atomic import make_folder, write_text
from agentlab.runs.document import AnswerDocument, Block, Code, Text

Format = Literal["docker", "k8s"]
PORT, TOKEN, NAME = 8484, "AGENTLAB_SERVE_TOKEN", "compressed"
_PACKAGE = "agentlab-toolkit"
_WHEEL = re.compile(r"[\w.+-]+\.whl", re.ASCII)  # it stands in the Dockerfile
_IMAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@-]{0,254}")  # it stands in lines for a shell
_SPARE = 768  # MiB of a server beside the model: Python, the gateway, keys and values
_CHECK = f"import urllib.request; urllib.request.urlopen('http://127.0.0.1:{PORT}{HEALTH}', timeout=3)"


class Deployed(AnswerDocument):
    """The answer of `compress deploy`."""

    folder: str
    files: list[str]
    recipe: str
    size: int
    next: list[str]

    def blocks(self) -> list[Block]:
        return [
            Text(f"{self.folder}: {', '.join(self.files)}; serves {self.recipe}, {self.size / 2**20:.1f} MiB."),
            Text("Next:"),
            Code("\n".join(self.next), command=True),
        ]


def server_config(file: str) -> str:
    """The config of `agentlab serve`, for an export at `file`."""
    provider = {"kind": "gguf" if file.endswith(".gguf") else "hf", "model_path": file}
    model = {"provider": "here", "id": NAME, "tier": "pick", "price": {"input": 0, "output": 0}}
    tree = {"providers": {"here": provider}, "models": {NAME: model}, "roles": {"primary": [NAME]}}
    return yaml.safe_dump(tree, sort_keys=False)


def dockerfile(wheel: str) -> str:
    """The image; its last line starts the server."""
    everywhere = "0.0.0.0"  # noqa: S104 - a container is reached from outside; the server wants a token then
    command = json.dumps(["agentlab", "serve", "/srv/serve.yaml", "--host", everywhere, "--port", str(PORT)])
    check = json.dumps(["python", "-c", _CHECK])
    return f"""\
FROM python:3.11-slim
# llama-cpp-python is built from source
RUN apt-get update && apt-get install -y --no-install-recommends build-essential cmake && rm -rf /var/lib/apt/lists/*
COPY {wheel} constraints.txt /package/
RUN pip install --no-cache-dir --constraint /package/constraints.txt /package/{wheel}
RUN useradd --uid 1000 --create-home serve
WORKDIR /srv
COPY serve.yaml ./
COPY model ./model
USER 1000
ENV AGENTLAB_HOME=/home/serve OMP_WAIT_POLICY=passive
EXPOSE {PORT}
HEALTHCHECK --start-period=60s --interval=15s --timeout=5s CMD {check}
CMD {command}
"""


def manifests(image: str, peak: int) -> list[dict[str, Any]]:
    """A deployment and a service. `peak` is the bytes that the export was measured to take."""
    requested_mib = peak // 2**20 + _SPARE
    labels = {"app.kubernetes.io/name": NAME}
    probe = {"httpGet": {"path": HEALTH, "port": PORT}, "periodSeconds": 10}
    container = {
        "name": "serve",
        "image": image,
        "ports": [{"containerPort": PORT}],
        "env": [{"name": TOKEN, "valueFrom": {"secretKeyRef": {"name": NAME, "key": "token"}}}],
        "resources": {
            "requests": {"memory": f"{requested_mib}Mi", "cpu": "1"},
            "limits": {"memory": f"{2 * requested_mib}Mi"},
        },
        "startupProbe": {**probe, "failureThreshold": 30},
        "readinessProbe": probe,
        "livenessProbe": {**probe, "failureThreshold": 6},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    pod = {
        "automountServiceAccountToken": False,
        "securityContext": {"runAsNonRoot": True, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
    }
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": NAME, "labels": labels},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": NAME, "labels": labels},
        "spec": {"selector": labels, "ports": [{"port": 80, "targetPort": PORT}]},
    }
    return [deployment, service]


def deploy(
    model: CompressModelResult, exports: Path, kind: Format, out: Path, image: str, wheel: Path | None
) -> Deployed:
    """Write the files.

    Args:
        kind: `k8s` writes what `docker` does, and the manifests.
        out: a folder that is not there yet, or empty.
        wheel: of agentlab; None makes it of the checkout that is installed.

    Raises:
        UsageError: there is no winner, `out` is there already, `image` is no name, or there is no checkout to make the
            wheel of.
        MissingFileError: the winner's export, or the wheel, is gone.
        StorageError: the wheel cannot be made.
    """
    if not _IMAGE.fullmatch(image):
        raise UsageError(f"{image!r} is not a valid image name.", hint="For example: --image registry/compressed:1")
    winner = next((row for row in model.rows if row.id == model.winner), None)
    if winner is None or winner.file is None:
        raise UsageError("The run has no winner to serve.", hint="Relax the goal and compress again.")
    export = exports / winner.file
    if not export.exists():
        raise MissingFileError(f"The export {export} of this run is missing.", hint="Restore it, or compress again.")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} already exists.", hint="Use a new folder: --out DIR")
    _require_chat_template(export)
    if wheel is not None and not wheel.is_file():
        raise MissingFileError(f"No such wheel: {wheel}.")
    if wheel is not None and not _WHEEL.fullmatch(wheel.name):
        raise UsageError(f"{wheel.name!r} is not a valid wheel name.", hint="Use a wheel built by `pip wheel`.")
    make_folder(out / "model")
    package = _wheel(wheel, out)
    copy: Callable[[Path, Path], object] = shutil.copytree if export.is_dir() else shutil.copy2
    copy(export, out / "model" / export.name)
    write_text(out / "serve.yaml", server_config(f"/srv/model/{export.name}"))
    write_text(out / "constraints.txt", pins())
    write_text(out / "Dockerfile", dockerfile(package))
    if kind == "k8s":
        write_text(out / "k8s.yaml", yaml.safe_dump_all(manifests(image, winner.peak or 0), sort_keys=False))
    return Deployed(
        folder=str(out),
        files=sorted(path.name for path in out.iterdir()),
        recipe=winner.recipe,
        size=winner.size or 0,
        next=_next(kind, out, image),
    )


def _next(kind: Format, out: Path, image: str) -> list[str]:
    build = f"docker build -t {image} {shlex.quote(str(out))}"
    if kind == "docker":
        return [build, f"docker run --rm -e {TOKEN} -p {PORT}:{PORT} {image}"]
    secret = f"kubectl create secret generic {NAME} --from-literal=token=${TOKEN}"
    return [build, f"docker push {image}", secret, f"kubectl apply -f {shlex.quote(str(out / 'k8s.yaml'))}"]


def _require_chat_template(path: Path) -> None:
    if path.is_dir():
        config = path / "tokenizer_config.json"
        has_template = (path / "chat_template.jinja").is_file() or "chat_template" in json.loads(config.read_bytes())
    else:
        from agentlab.gguf import metadata

        has_template = metadata.read(path).chat_template
    if not has_template:
        raise UsageError(f"{path.name} has no chat template, so it cannot serve chats.", hint="Use an instruct model.")


def pins() -> str:
    """What is installed here, so that the image computes with the same versions."""
    versions = {
        distribution.metadata["Name"]: distribution.version.partition("+")[0]
        for distribution in importlib.metadata.distributions()
    }
    return "".join(f"{name}=={version}\n" for name, version in sorted(versions.items()) if name and name != _PACKAGE)


def _wheel(wheel: Path | None, out: Path) -> str:
    """Put the wheel into the folder; its name."""
    if wheel is not None:
        shutil.copy2(wheel, out / wheel.name)
        return wheel.name
    direct_url = json.loads(importlib.metadata.distribution(_PACKAGE).read_text("direct_url.json") or "{}")
    source = urlsplit(direct_url.get("url", ""))
    if source.scheme != "file" or not direct_url.get("dir_info", {}).get("editable"):
        raise UsageError(
            "Cannot build a wheel: agentlab was not installed from a checkout.", hint="Pass its wheel: --wheel FILE"
        )
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(out)]
    env = machine.inherited_environment(pip=True)
    process = subprocess.run([*command, unquote(source.path)], capture_output=True, text=True, check=False, env=env)
    wheels = sorted(out.glob("*.whl"))
    if process.returncode or not wheels:
        raise StorageError(f"Building the wheel failed: {process.stderr[-300:].strip()}", hint="Pass one: --wheel FILE")
    return wheels[0].name
