"""What is said of the end of a worker that holds a checkpoint."""

from pathlib import Path

import pytest

from agentlab.hf.engine import HfConfig, HfEngine


@pytest.mark.parametrize(
    ("status", "log", "remedy"),
    [
        (-9, "", "Try again"),
        (70, "RuntimeError: DefaultCPUAllocator: can't allocate memory: you tried", "smaller model"),
        (70, "KeyError: 3", "agentlab doctor"),
    ],
)
def test_the_end_of_a_worker_names_a_remedy(status: int, log: str, remedy: str) -> None:
    _, hint = HfEngine(HfConfig(Path("model")))._worker.death(status, log)
    assert remedy in str(hint)
