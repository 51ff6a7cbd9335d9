"""Calling the command line as `main` does, in this process."""

import json
from collections.abc import Callable
from dataclasses import dataclass
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
