"""The same trial on a CUDA device: it runs there, and its error is the CPU's up to rounding that training amplifies."""

from pathlib import Path

import pytest

from agentlab.config.load import load
from agentlab.config.workspace import Workspace
from agentlab.nas.checkpoint import TrialCheckpoint
from agentlab.nas.config import NasConfig, with_params
from agentlab.nas.data import load_series
from agentlab.nas.training import evaluate, restore, train
from agentlab.nas.windows import Windows

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def _needs_cuda() -> None:
    import torch

    if not torch.cuda.is_available():
        pytest.skip("no CUDA device on this machine")


def test_a_trial_gives_nearly_the_error_of_the_cpu(tmp_path: Path) -> None:
    workspace = Workspace(root=tmp_path, cache=tmp_path)
    config = load(NasConfig, "nas", "demo", (), workspace=workspace, env={}, cwd=tmp_path).config
    series = load_series(config.data, workspace)
    on_cpu = train(config.trial(), series, seed=0)
    on_gpu = train(config.trial(), series, seed=0, device="cuda")
    assert on_gpu.val_mse == pytest.approx(on_cpu.val_mse, rel=0.05)
    model = restore(config.trial(), series, on_gpu.state_dict, "cuda")
    assert evaluate(model, Windows(series, config.trial(), "cuda"), "val").mse == pytest.approx(
        on_gpu.val_mse, rel=1e-4
    )


def test_a_training_goes_on_from_its_checkpoint_on_the_device(tmp_path: Path) -> None:
    workspace = Workspace(root=tmp_path, cache=tmp_path)
    config = load(NasConfig, "nas", "demo", (), workspace=workspace, env={}, cwd=tmp_path).config
    trial = with_params(config.trial(), {"training.epochs": 3, "training.patience": 3})
    series = load_series(config.data, workspace)
    saved: list[TrialCheckpoint] = []
    uninterrupted = train(trial, series, seed=0, device="cuda", save=saved.append)
    resumed = train(trial, series, seed=0, device="cuda", resume=saved[0])
    assert len(resumed.history) == len(uninterrupted.history)
    assert resumed.val_mse == pytest.approx(uninterrupted.val_mse, rel=1e-3)  # CUDA adds up in an order of its own
