"""One training: train a candidate, write its folder, report its validation error. Never the test error.

In a worker process, `objective` makes the same from what `setup` has written down.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml
from safetensors.torch import load as load_weights
from safetensors.torch import save as save_weights

from agentlab.config.workspace import Workspace
from agentlab.errors import AgentlabError, DataError, Interrupted, StorageError
from agentlab.nas.checkpoint import TrialCheckpoint, from_bytes, to_bytes
from agentlab.nas.config import TrialConfig, at_rung
from agentlab.nas.data import load_series
from agentlab.nas.plots import Curve, learning_curve
from agentlab.nas.series import Series
from agentlab.nas.training import Epoch, TrainResult, train
from agentlab.runs.folder import Folder
from agentlab.search.types import Params, TrialResult
from agentlab.study.executor import Report
from agentlab.study.state import StudyCandidate

WEIGHTS_FILE, CHECKPOINT_FILE, HISTORY_FILE = "best_model.safetensors", "last.safetensors", "history.json"


@dataclass(frozen=True, slots=True)
class InformerObjective:
    """Implements `study.executor.Objective`. Everything a training writes lies in `trials/run_0007/`.

    `full` is what a training of the last round has instead of what was proposed.
    """

    base: TrialConfig
    series: Series
    trials: Folder
    device: str
    report: Report
    before_step: Callable[[], None] = lambda: None
    full: Params = field(default_factory=dict)

    def __call__(self, batch: Sequence[StudyCandidate]) -> list[TrialResult]:
        return [self._train(candidate) for candidate in batch]

    def _train(self, candidate: StudyCandidate) -> TrialResult:
        """Train to the end, from the last epoch that a kill has left. The folder is complete before this returns."""
        trial = at_rung(self.base, candidate, self.full)
        name, folder = candidate.name, self.trials.folder(candidate.name)
        folder.write_text("config_used.yaml", yaml.safe_dump(trial.model_dump(mode="json"), sort_keys=False))
        try:
            trained = train(
                trial,
                self.series,
                candidate.seed,
                device=self.device,
                on_epoch=lambda epoch: self._epoch(name, epoch),
                before_step=self.before_step,
                save=lambda checkpoint: folder.write_bytes(CHECKPOINT_FILE, to_bytes(checkpoint)),
                resume=_load_checkpoint(folder, trial, self.series, candidate.seed),
            )
        except (Interrupted, StorageError):
            raise
        except Exception:
            folder.file(CHECKPOINT_FILE).unlink(missing_ok=True)  # a training that failed is not gone on with
            raise
        metrics = figures(trained)
        history = [asdict(epoch) for epoch in trained.history]
        folder.write_bytes(WEIGHTS_FILE, save_weights(trained.state_dict))
        folder.write_json(HISTORY_FILE, history)
        folder.write_json("metrics.json", {"val_mse": trained.val_mse, **metrics})
        folder.write_text("learning_curve.svg", learning_curve(curve(name, history)))
        folder.file(CHECKPOINT_FILE).unlink(missing_ok=True)  # nothing is left to go on with
        return TrialResult("finished", value=trained.val_mse, metrics=metrics)

    def _epoch(self, name: str, epoch: Epoch) -> None:
        data = {"epoch": epoch.epoch + 1, "train_loss": epoch.train_loss, "val_mse": epoch.val_mse}
        self.report("trial.epoch", name, data)


def setup(
    base: TrialConfig, full: Params, series: Series, trials: Folder, workspace: Workspace, device: str
) -> dict[str, Any]:
    """Plain data from which `objective` makes in another process what this one has."""
    return {
        "trial": base.model_dump(mode="json"),
        "full": dict(full),
        "fingerprint": series.fingerprint,
        "trials": str(trials.path),
        "workspace": str(workspace.root),
        "device": device,
    }


def objective(parameters: Mapping[str, Any], report: Report) -> InformerObjective:
    """The objective of a study, in a worker process.

    Raises:
        DataError: the series is not the one that the study has read.
    """
    import torch

    # The first optimiser imports some 70 MB, which would count against the memory of the first training.
    torch.optim.Adam([torch.zeros(1, requires_grad=True)])
    base = TrialConfig.model_validate(parameters["trial"])
    series = load_series(base.data, Workspace.locate({"AGENTLAB_HOME": parameters["workspace"]}, Path.cwd()))
    if series.fingerprint != parameters["fingerprint"]:
        raise DataError(f"{series.source} has changed since the study started.", hint="Restore the original file.")
    trials = Folder(Path(parameters["trials"]))
    return InformerObjective(base, series, trials, parameters["device"], report, full=parameters["full"])


def _load_checkpoint(folder: Folder, trial: TrialConfig, series: Series, seed: int) -> TrialCheckpoint | None:
    """The last epoch of this very training, if a kill has left one that can be read."""
    path = folder.file(CHECKPOINT_FILE)
    if not path.is_file():
        return None
    try:
        checkpoint = from_bytes(path.read_bytes())
    except AgentlabError:
        return None  # damaged: the training begins again, which costs time and nothing else
    return checkpoint if checkpoint.matches(trial, series, seed) else None


def figures(trained: TrainResult) -> dict[str, Any]:
    """What is remembered of a training. `seconds` is a measurement and enters no decision."""
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


def stored_weights(trials: Folder, name: str) -> Mapping[str, Any]:
    """The best weights of a finished training."""
    return dict(load_weights(trials.file(f"{name}/{WEIGHTS_FILE}").read_bytes()))


def stored_curve(trials: Folder, name: str) -> Curve | None:
    """The learning curve of a finished training; None if its folder was removed since."""
    path = trials.file(f"{name}/{HISTORY_FILE}")
    return curve(name, json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None
