"""One trial: train a candidate, write its folder, report its validation error. Never the test error."""

import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import yaml
from safetensors.torch import load as load_weights
from safetensors.torch import save as save_weights

from agentlab.nas.config import TrialConfig, with_params
from agentlab.nas.plots import Curve, learning_curve
from agentlab.nas.series import Series
from agentlab.nas.state import run_id
from agentlab.nas.training import Epoch, TrainResult, train
from agentlab.runs.run import Run
from agentlab.search.types import Proposal, TrialContext, TrialResult


class InformerObjective:
    """Implements `search.types.Objective`. Everything it writes lies in `trials/run_0007/`."""

    def __init__(
        self, base: TrialConfig, series: Series, run: Run, device: str, before_step: Callable[[], None]
    ) -> None:
        self._base = base
        self._series = series
        self._run = run
        self._device = device
        self._before_step = before_step

    def __call__(self, proposal: Proposal, context: TrialContext) -> TrialResult:
        """Train to the end. The folder is complete before the result is returned."""
        trial = with_params(self._base, proposal.params)
        name = run_id(context.number)
        self._write(name, "config_used.yaml", yaml.safe_dump(trial.model_dump(mode="json"), sort_keys=False))
        trained = train(
            trial,
            self._series,
            context.seed,
            device=self._device,
            on_epoch=lambda epoch: self._epoch(name, epoch),
            before_step=self._before_step,
        )
        metrics = figures(trained)
        history = [asdict(epoch) for epoch in trained.history]
        self._run.write_bytes(f"trials/{name}/best_model.safetensors", save_weights(trained.state_dict))
        self._write(name, "history.json", json.dumps(history, indent=2) + "\n")
        self._write(name, "metrics.json", json.dumps({"val_mse": trained.val_mse, **metrics}, indent=2) + "\n")
        self._run.write_bytes(f"trials/{name}/learning_curve.png", learning_curve(curve(name, history)))
        return TrialResult("finished", value=trained.val_mse, metrics=metrics)

    def _epoch(self, name: str, epoch: Epoch) -> None:
        self._run.emit("trial.epoch", name, epoch=epoch.epoch + 1, train_loss=epoch.train_loss, val_mse=epoch.val_mse)

    def _write(self, name: str, file: str, text: str) -> None:
        self._run.write_text(f"trials/{name}/{file}", text)


def figures(trained: TrainResult) -> dict[str, Any]:
    """What is remembered of a trial. `seconds` is a measurement and enters no decision."""
    return {
        "val_mae": trained.val_mae,
        "parameters": trained.parameters,
        "epochs": len(trained.history),
        "best_epoch": trained.best_epoch + 1,
        "seconds": round(trained.seconds, 3),
    }


def curve(name: str, history: list[dict[str, Any]]) -> Curve:
    """A stored history as a picture wants it."""
    return Curve(name, [epoch["train_loss"] for epoch in history], [epoch["val_mse"] for epoch in history])


def stored_weights(run: Run, name: str) -> dict[str, Any]:
    """The weights of a finished trial."""
    return load_weights(run.file(f"trials/{name}/best_model.safetensors").read_bytes())


def stored_curve(run: Run, name: str) -> Curve:
    """The learning curve of a finished trial."""
    return curve(name, json.loads(run.file(f"trials/{name}/history.json").read_text(encoding="utf-8")))
