"""`agentlab runs mlflow` as typed, where MLflow is not installed, and what it refuses."""

import sys
from collections.abc import Callable

import pytest

from tests.cli.conftest import Answer

Call = Callable[..., Answer]


@pytest.fixture(autouse=True)
def _without_mlflow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "agentlab.integrations.mlflow", raising=False)
    for name in ("mlflow", "mlflow.entities"):
        monkeypatch.setitem(sys.modules, name, None)


@pytest.mark.parametrize("words", [("log", "last"), ("query",), ("best", "--metric", "kl")])
def test_without_the_extra_it_says_how_to_install_it(agentlab: Call, words: tuple[str, ...]) -> None:
    answer = agentlab("runs", "mlflow", *words, "--json")
    assert (answer.code, answer.json["error"]["kind"]) == (3, "MissingExtraError")
    assert ".[mlflow]" in answer.err
