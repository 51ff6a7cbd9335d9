"""A small model that is promised, and a place to put it."""

import hashlib
from pathlib import Path

import pytest

from agentlab.config.workspace import Workspace
from agentlab.models.catalogue import CatalogueRow, HubSource, WheelSource

CONTENT = bytes(range(256)) * 64


@pytest.fixture
def row() -> CatalogueRow:
    """16 kB, in a wheel and in a repository."""
    return CatalogueRow(
        name="tiny",
        title="Tiny",
        file="tiny.gguf",
        bytes=len(CONTENT),
        sha256=hashlib.sha256(CONTENT).hexdigest(),
        licence="CC0-1.0",
        sources=(
            WheelSource(distribution="tiny-model", version="1.0", member="tiny_model/tiny.gguf", download_bytes=20_000),
            HubSource(repo="somebody/tiny", file="tiny.gguf"),
        ),
    )


@pytest.fixture
def own_workspace(tmp_path: Path) -> Workspace:
    return Workspace(root=tmp_path / "work", cache=tmp_path / "cache")
