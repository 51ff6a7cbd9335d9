"""Looks at this machine and workspace, and hands what it sees to the checks."""

import shutil
import sys
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from agentlab import machine
from agentlab.config.workspace import Workspace
from agentlab.doctor import checks
from agentlab.doctor.checks import DoctorReport, DoctorRow
from agentlab.doctor.probes import ask
from agentlab.errors import AgentlabError, MissingFileError, ModelFileError
from agentlab.gguf.engine import EngineConfig
from agentlab.gguf.process import WorkerEngine
from agentlab.gguf.trusted_settings import Proofs, name_of
from agentlab.models import catalogue, store
from agentlab.models.catalogue import verify
from agentlab.workers.chat import EngineRequest


def examine(workspace: Workspace, env: Mapping[str, str]) -> DoctorReport:
    """All rows. It takes some seconds: heavy libraries are loaded and the model is asked. Only what is found out about
    the engine stays, where every command that uses it looks; see `gguf.trusted_settings`.
    """
    with ThreadPoolExecutor(max_workers=2) as pool:
        hardware, llama, quantised = pool.map(ask, ("hardware", "llama_cpp", "bitsandbytes"))
    memory, embedded = machine.memory(), _embedded_model(workspace)
    folders = {path.name: path for path in (workspace.models, workspace.runs, workspace.adapters, workspace.state)}
    return DoctorReport(
        rows=[
            checks.python(sys.version_info[:3]),
            checks.libraries({name: _version(name) for name in checks.LIBRARIES}),
            checks.torch(hardware),
            checks.gpu(hardware),
            checks.memory(memory.total, memory.available),
            checks.llama_cpp(llama),
            checks.gpu_offload(llama, hardware),
            checks.bitsandbytes(quantised),
            checks.model(*embedded),
            _engine(workspace, embedded),
            checks.keys(env),
            checks.folders({name: write_problem(path) for name, path in folders.items()}),
            checks.disk(shutil.disk_usage(_nearest(workspace.models)).free),
        ]
    )


def _engine(workspace: Workspace, embedded: tuple[str, str | None, str | None]) -> DoctorRow:
    """Ask the embedded model for a token, as `llm: embedded` and as a pipeline does."""
    name, path, problem = embedded
    if path is None or problem:
        return checks.engine(None, {}, {}, None)
    proofs, used, against = Proofs.of(workspace), dict[str, str](), dict[str, str]()
    plainest = EngineConfig(Path(path), context=512, repack=True)
    for user, config in (("nas and llm", plainest), ("pipeline", replace(plainest, flash=True))):
        engine, problem = WorkerEngine(config, proofs), None
        for _ in range(2):  # an engine that dies has plain settings the second time
            try:
                list(engine.chat(EngineRequest([{"role": "user", "content": "Say yes."}], max_tokens=1)))
                break
            except AgentlabError as error:
                problem = error.message
        else:
            return checks.engine(name, {}, {}, problem)
        engine.close()
        used[user] = name_of(engine.used)
        against |= {settings: reason for settings, reason in proofs.verdicts(config).items() if reason}
    return checks.engine(name, used, against, None)


def write_problem(folder: Path) -> str | None:
    """Why nothing can be written into a folder that exists or would have to be made; None when it can."""
    nearest = folder
    try:
        nearest = _nearest(folder)
        if not nearest.is_dir():
            return f"{nearest} is not a folder"
        with tempfile.TemporaryFile(dir=nearest):
            return None
    except OSError as error:
        return f"{nearest}: {error.strerror or error}"


def _nearest(path: Path) -> Path:
    return next(ancestor for ancestor in (path, *path.parents) if ancestor.exists())


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _embedded_model(workspace: Workspace) -> tuple[str, str | None, str | None]:
    row = catalogue.lookup(catalogue.EMBEDDED)
    try:
        path = store.find(row.name, workspace)
    except MissingFileError:
        return row.name, None, None
    try:
        verify(path, row)
    except ModelFileError as error:
        return row.name, str(path), error.message
    except OSError as error:
        return row.name, str(path), f"{path} cannot be read: {error.strerror or error}"
    return row.name, str(path), None
