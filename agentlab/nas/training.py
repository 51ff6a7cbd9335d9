"""Trains one trial and scores it. Only the validation part is looked at while training; the test is a separate call."""

import contextlib
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch  # noqa: TID253 - this module is only imported by code that trains
from torch import Tensor, nn  # noqa: TID253 - as above

from agentlab.errors import DivergedError, RunMismatchError, RunUnreadableError
from agentlab.nas.checkpoint import Epoch as Epoch
from agentlab.nas.checkpoint import TrialCheckpoint, origin
from agentlab.nas.config import WITH_MOMENTUM, TrainingConfig, TrialConfig
from agentlab.nas.informer.model import Informer, InformerShape
from agentlab.nas.series import Part, Series
from agentlab.nas.windows import Windows

_TIMED_STEPS = 8  # of a forecast
_DIVERGED = 1e6  # standardised data has variance 1; a squared error beyond this is a runaway
_FUSED = ("Adam", "AdamW", "SGD")  # one kernel for all weights, also on the CPU


@dataclass(frozen=True, slots=True)
class ForecastMetrics:
    """Errors on scaled data over all windows; `mse` and `mae` also over all steps and channels."""

    mse: float
    mae: float
    mse_by_step: tuple[float, ...]
    mse_by_channel: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class TrainResult:
    """A trained trial. `state_dict` has the best epoch's weights, on the CPU; `seconds` is never part of a result."""

    history: tuple[Epoch, ...]
    best_epoch: int
    val_mse: float
    val_mae: float
    parameters: int
    seconds: float = field(compare=False)
    state_dict: dict[str, Tensor] = field(repr=False, compare=False)


def build(trial: TrialConfig, series: Series) -> Informer:
    """The untrained network of a trial; its weights come from torch's global generator."""
    return Informer(trial, InformerShape(series.channels, series.time_channels, series.targets))


def restore(trial: TrialConfig, series: Series, weights: Mapping[str, Tensor], device: str = "cpu") -> Informer:
    """The trained network of a trial, ready to score."""
    model = build(trial, series)
    model.load_state_dict(dict(weights))
    return model.to(device).eval()


def make_optimizer(config: TrainingConfig, model: nn.Module) -> torch.optim.Optimizer:
    """The optimiser that the config names."""
    params = config.optimizer_params
    extra: dict[str, float | bool] = {}
    if config.optimizer_class in WITH_MOMENTUM:
        extra["momentum"] = params.momentum
    if config.optimizer_class in _FUSED:
        extra["fused"] = True
    make: Callable[..., torch.optim.Optimizer] = getattr(torch.optim, config.optimizer_class)
    return make(model.parameters(), lr=params.lr, weight_decay=params.weight_decay, **extra)


def learning_rate(config: TrainingConfig, epoch: int) -> float:
    """Rate of an epoch, counted from 0.

    `halving` is what the published code of arXiv 2012.07436 does (`type1`): it sets the rate after an epoch, and the
    first time to the full one again. So epochs 0 and 1 run at the full rate, epoch 2 at a half, epoch 3 at a quarter.
    """
    return config.optimizer_params.lr * (0.5 ** max(0, epoch - 1) if config.schedule == "halving" else 1.0)


def train(
    trial: TrialConfig,
    series: Series,
    seed: int,
    *,
    device: str = "cpu",
    on_epoch: Callable[[Epoch], None] = lambda _: None,
    before_step: Callable[[], None] = lambda: None,
    save: Callable[[TrialCheckpoint], object] = lambda _: None,
    resume: TrialCheckpoint | None = None,
) -> TrainResult:
    """Train until the last epoch or the end of patience, and keep the weights of the best validation epoch.

    The same trial, series and seed give bit-equal results on a CPU with the same number of threads, in one go or with
    any number of resumes. Torch's global generator is left as it was found.

    After each epoch `on_epoch` is called, then `save`. A kill between the two costs that epoch: it is trained again and
    `on_epoch` is called a second time with an equal `Epoch`. No epoch is ever left out. With `resume`, `on_epoch` hears
    of newly trained epochs only, while the result's history is complete. A checkpoint of a training that was over gives
    its result at once.

    Raises:
        DivergedError: the loss is not finite.
        DataError: the series is too short for the trial's windows.
        RunMismatchError: `resume` is of another trial, series or seed.
        RunUnreadableError: `resume` does not fit the network, though its `origin` does.
        Whatever `before_step`, `on_epoch` or `save` raises, to stop; what was saved can be resumed.
    """
    began = time.perf_counter()
    started_from = origin(trial, series, seed)
    if resume is not None and resume.origin != started_from:
        raise RunMismatchError(
            "The checkpoint belongs to another trial, series or seed.", hint="Delete it; the trial will start over."
        )
    with torch.random.fork_rng(devices=[device] if device.startswith("cuda") else []):
        torch.manual_seed(seed)
        session = _Session.begin(trial, series, device)
        at = session.initial_checkpoint(started_from) if resume is None else session.load(resume)
        before = at.seconds
        while not (at.epochs >= trial.training.epochs or at.epochs - 1 - at.best_epoch >= trial.training.patience):
            epoch = session.next_epoch(at, before_step)
            on_epoch(epoch)
            at = session.after(at, epoch, seconds=before + time.perf_counter() - began)
            save(at)
    return TrainResult(
        history=at.history,
        best_epoch=at.best_epoch,
        val_mse=at.history[at.best_epoch].val_mse,
        val_mae=at.history[at.best_epoch].val_mae,
        parameters=sum(parameter.numel() for parameter in session.model.parameters()),
        seconds=before + time.perf_counter() - began,
        state_dict=at.best,
    )


class _TimedEnoughError(Exception):
    """Ends a training of which only the first steps are timed."""


def forecast_seconds(trial: TrialConfig, series: Series, device: str) -> float:
    """Seconds of all epochs of a training here, from its first few steps and one validation."""
    stamps: list[float] = []

    def stamp() -> None:
        stamps.append(time.perf_counter())
        if len(stamps) > _TIMED_STEPS:
            raise _TimedEnoughError

    with contextlib.suppress(_TimedEnoughError):
        train(trial, series, 0, device=device, before_step=stamp)
    warm = stamps[1:] if len(stamps) > 2 else stamps
    seconds_per_step = (stamps[-1] - warm[0]) / max(1, len(warm) - 1)
    windows = Windows(series, trial, device)
    steps = math.ceil(len(windows.starts("train", trial.training.train_fraction)) / trial.data.batch_size)
    began = time.perf_counter()
    evaluate(build(trial, series).to(device), windows, "val")
    return trial.training.epochs * (steps * seconds_per_step + time.perf_counter() - began)


@dataclass(frozen=True, slots=True)
class _Session:
    """What a training works with; a checkpoint is the state of all this between two epochs."""

    trial: TrialConfig
    device: str
    model: Informer
    windows: Windows
    optimizer: torch.optim.Optimizer

    @classmethod
    def begin(cls, trial: TrialConfig, series: Series, device: str) -> "_Session":
        """The weights come from torch's global generator."""
        model = build(trial, series).to(device)
        return cls(trial, device, model, Windows(series, trial, device), make_optimizer(trial.training, model))

    def initial_checkpoint(self, started_from: str) -> TrialCheckpoint:
        weights = _copies(self.model.state_dict())
        return TrialCheckpoint(started_from, (), 0, weights, weights, {}, *_generators(self.device), seconds=0.0)

    def load(self, at: TrialCheckpoint) -> TrialCheckpoint:
        """Go back to a checkpoint; it is returned."""
        groups = self.optimizer.state_dict()["param_groups"]
        state = {index: _copies(values) for index, values in at.optimizer.items()}  # they are written to from now on
        try:
            self.model.load_state_dict(at.model)
            self.optimizer.load_state_dict({"state": state, "param_groups": groups})
            _set_generators(at, self.device)
        except (RuntimeError, TypeError) as error:
            raise RunUnreadableError(
                f"A checkpoint does not match its trial: {str(error)[:200]}",
                hint="Delete it; the trial will start over.",
            ) from error
        return at

    def next_epoch(self, at: TrialCheckpoint, before_step: Callable[[], None]) -> Epoch:
        """Train and validate once. Whatever the callbacks drew since the checkpoint has no influence."""
        _set_generators(at, self.device)
        rate = learning_rate(self.trial.training, at.epochs)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        loss = self._run_epoch(before_step)
        score = evaluate(self.model, self.windows, "val")
        if not (math.isfinite(loss) and score.mse < _DIVERGED):
            raise DivergedError(
                f"Training diverged in epoch {at.epochs + 1}: loss {loss:.4g}, validation MSE {score.mse:.4g}.",
                hint="Lower training.optimizer_params.lr or set training.clip_norm.",
            )
        return Epoch(at.epochs, rate, loss, score.mse, score.mae)

    def _run_epoch(self, before_step: Callable[[], None]) -> float:
        """One pass over the training windows in random order; the mean loss per window."""
        training = self.trial.training
        criterion: nn.Module = getattr(nn, training.criterion_class)()
        starts = self.windows.starts("train", training.train_fraction)
        order = starts[torch.randperm(len(starts)).to(starts.device)]
        total = torch.zeros((), device=starts.device)
        self.model.train()
        for picked in torch.split(order, self.trial.data.batch_size):
            before_step()
            batch = self.windows.gather(picked)
            self.optimizer.zero_grad()
            loss = criterion(self.model(batch.past, batch.time), batch.future)
            loss.backward()
            if training.clip_norm is not None:
                nn.utils.clip_grad_norm_(self.model.parameters(), training.clip_norm)
            self.optimizer.step()
            total += loss.detach() * len(picked)
        return float(total) / len(starts)

    def after(self, at: TrialCheckpoint, epoch: Epoch, *, seconds: float) -> TrialCheckpoint:
        """The state after one more epoch. A tie is an improvement, as in the published code."""
        weights = _copies(self.model.state_dict())
        better = not at.history or epoch.val_mse <= at.history[at.best_epoch].val_mse
        return TrialCheckpoint(
            at.origin,
            (*at.history, epoch),
            epoch.epoch if better else at.best_epoch,
            weights if better else at.best,
            weights,
            {index: _copies(values) for index, values in self.optimizer.state_dict()["state"].items()},
            *_generators(self.device),
            seconds=seconds,
        )


def _generators(device: str) -> tuple[Tensor, Tensor | None]:
    return torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.startswith("cuda") else None


def _set_generators(at: TrialCheckpoint, device: str) -> None:
    torch.set_rng_state(at.generator)
    if at.device_generator is not None and device.startswith("cuda"):
        torch.cuda.set_rng_state(at.device_generator, device)


def _copies(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().cpu().clone() for name, value in tensors.items()}


@torch.no_grad()
def evaluate(model: Informer, windows: Windows, part: Part) -> ForecastMetrics:
    """Score every window of a part. Leaves the model in evaluation mode."""
    model.eval()
    squared = absolute = torch.zeros(())
    count = 0
    for batch in windows.blocks(part):
        error = model(batch.past, batch.time) - batch.future
        error = error if error.device.type == "mps" else error.double()  # that device has no float64
        squared = squared + error.square().sum(dim=0)
        absolute = absolute + error.abs().sum(dim=0)
        count += len(error)
    squared, absolute = squared.cpu() / count, absolute.cpu() / count
    return ForecastMetrics(
        mse=float(squared.mean()),
        mae=float(absolute.mean()),
        mse_by_step=tuple(squared.mean(dim=1).tolist()),
        mse_by_channel=tuple(squared.mean(dim=0).tolist()),
    )
