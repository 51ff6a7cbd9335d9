"""Looks at this machine and workspace, and hands what it sees to the checks."""

import shutil
import sys
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from agentlab import machine
from agentlab.config.workspace import Workspace
from agentlab.doctor import checks
from agentlab.doctor.probes import ask
from agentlab.doctor.report import DoctorReport, Row
from agentlab.errors import MissingFileError, ModelFileError
from agentlab.models import catalogue, store
from agentlab.models.integrity import verify


def examine(workspace: Workspace, env: Mapping[str, str]) -> DoctorReport:
    """All rows. Writes nothing that stays; takes some seconds, because heavy libraries are loaded on trial."""
    with ThreadPoolExecutor(max_workers=2) as pool:
        hardware, llama, quantised = pool.map(ask, ("hardware", "llama_cpp", "bitsandbytes"))
    memory = machine.memory()
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
            checks.model(*_embedded_model(workspace)),
            checks.keys(env),
            checks.folders({name: write_problem(path) for name, path in folders.items()}),
            _disk(workspace),
        ]
    )


def write_problem(folder: Path) -> str | None:
    """Why nothing can be written into a folder that exists or would have to be made; None when it can."""
    place = folder
    try:
        place = _nearest(folder)
        if not place.is_dir():
            return f"{place} is not a folder"
        with tempfile.TemporaryFile(dir=place):
            return None
    except OSError as error:
        return f"{place}: {error.strerror or error}"


def _disk(workspace: Workspace) -> Row:
    return checks.disk(shutil.disk_usage(_nearest(workspace.models)).free)


def _nearest(path: Path) -> Path:
    """The path itself, or the closest parent that exists."""
    return next(place for place in (path, *path.parents) if place.exists())


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
