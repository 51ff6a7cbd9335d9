"""What the processes of several bases are told; that they work is an integration test."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from agentlab.compress import processes
from agentlab.compress.config import CompressConfig
from agentlab.models.base_model import BaseFile


class Listening:
    """A channel to nobody: keeps what it is sent, and is done at once."""

    def __init__(self) -> None:
        self.heard: list[dict[str, Any]] = []

    def send(self, message: dict[str, Any], _: float) -> bool:
        self.heard.append(message)
        return True

    def receive(self, _: float) -> dict[str, Any]:
        return {"event": "done"}

    def dispose(self) -> None:
        """Nothing is there."""

    kill = dispose


def test_what_models_may_cost_is_shared_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    channels = [Listening(), Listening()]
    started = iter(channels)
    monkeypatch.setattr(processes, "_start_worker", lambda _: next(started))
    monkeypatch.setattr(processes, "wait_for_any", lambda *_: None)
    config = CompressConfig.model_validate({"llm": {"budget": {"per_run_usd": 0.5}}})
    run, workspace = SimpleNamespace(path=tmp_path, events=[]), SimpleNamespace(root=tmp_path, cache=tmp_path)
    context = SimpleNamespace(workspace=workspace, env={}, stop=SimpleNamespace(check=lambda: None))
    parts: Any = [SimpleNamespace(run=run, name=name, base=BaseFile(name, tmp_path)) for name in "ab"]
    processes.search_side_by_side(parts, config, context, 400.0, together=2, threads=1)  # type: ignore[arg-type]
    worker_configs = [CompressConfig.model_validate(channel.heard[0]["config"]) for channel in channels]
    assert [worker_config.llm.budget.per_run_usd for worker_config in worker_configs] == [0.25, 0.25]
    assert config.llm.budget.per_run_usd == 0.5
