"""Trains one trial and scores it. Only the validation part is looked at while training; the test is a separate call."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch  # noqa: TID253 - this module is only imported by code that trains
from torch import Tensor, nn  # noqa: TID253 - as above

from agentlab.errors import DivergedError
from agentlab.nas.config import WITH_MOMENTUM, TrainingConfig, TrialConfig
from agentlab.nas.informer.model import Informer, Shape
from agentlab.nas.series import Part, Series
from agentlab.nas.windows import Batch, Windows

_DIVERGED = 1e6  # standardised data has variance 1; a squared error beyond this is a runaway
_FUSED = ("Adam", "AdamW", "SGD")  # one kernel for all weights, also on the CPU


@dataclass(frozen=True, slots=True)
class Metrics:
    """Errors on scaled data over all windows; `mse` and `mae` also over all steps and channels."""

    mse: float
    mae: float
    mse_by_step: tuple[float, ...]
    mse_by_channel: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Epoch:
    """One point of a learning curve."""

    epoch: int
    lr: float
    train_loss: float
    val_mse: float
    val_mae: float


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
    return Informer(trial, Shape(series.channels, series.time_channels, series.targets))


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
    made: torch.optim.Optimizer = getattr(torch.optim, config.optimizer_class)(
        model.parameters(), lr=params.lr, weight_decay=params.weight_decay, **extra
    )
    return made


def learning_rate(config: TrainingConfig, epoch: int) -> float:
    """Rate of an epoch, counted from 0: the original halves it after each."""
    return config.optimizer_params.lr * (0.5**epoch if config.schedule == "halving" else 1.0)


def train(
    trial: TrialConfig,
    series: Series,
    seed: int,
    *,
    device: str = "cpu",
    on_epoch: Callable[[Epoch], None] = lambda _: None,
    before_step: Callable[[], None] = lambda: None,
) -> TrainResult:
    """Train until the last epoch or the end of patience, and keep the weights of the best validation epoch.

    The same trial, series and seed give bit-equal results on a CPU with the same number of threads. Torch's global
    generator is left as it was found.

    Raises:
        DivergedError: the loss is not finite.
        DataError: the series is too short for the trial's windows.
        Whatever `before_step` raises, to stop; the trial is lost and can be trained again.
    """
    began = time.perf_counter()
    with torch.random.fork_rng(devices=[device] if device.startswith("cuda") else []):
        torch.manual_seed(seed)
        model = build(trial, series).to(device)
        windows = Windows(series, trial, device)
        optimizer = make_optimizer(trial.training, model)
        history: list[Epoch] = []
        best, weights = 0, _copy(model)
        for number in range(trial.training.epochs):
            rate = learning_rate(trial.training, number)
            for group in optimizer.param_groups:
                group["lr"] = rate
            loss = _run_epoch(model, windows, optimizer, trial, before_step)
            score = evaluate(model, windows, "val")
            _require_finite(number, loss, score.mse)
            history.append(Epoch(number, rate, loss, score.mse, score.mae))
            on_epoch(history[-1])
            if number == 0 or score.mse < history[best].val_mse:
                best, weights = number, _copy(model)
            elif number - best >= trial.training.patience:
                break
    return TrainResult(
        history=tuple(history),
        best_epoch=best,
        val_mse=history[best].val_mse,
        val_mae=history[best].val_mae,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        seconds=time.perf_counter() - began,
        state_dict=weights,
    )


def _run_epoch(
    model: Informer,
    windows: Windows,
    optimizer: torch.optim.Optimizer,
    trial: TrialConfig,
    before_step: Callable[[], None],
) -> float:
    """One pass over the training windows in random order; the mean loss per window."""
    criterion: nn.Module = getattr(nn, trial.training.criterion_class)()
    clip = trial.training.clip_norm
    starts = windows.starts("train", trial.training.train_fraction)
    order = starts[torch.randperm(len(starts)).to(starts.device)]
    total = torch.zeros((), device=starts.device)
    model.train()
    for picked in torch.split(order, trial.data.batch_size):
        before_step()
        batch = windows.gather(picked)
        optimizer.zero_grad()
        loss = criterion(model(batch.past, batch.time), batch.future)
        loss.backward()
        if clip is not None:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
        total += loss.detach() * len(picked)
    return float(total) / len(starts)


@torch.no_grad()
def evaluate(model: Informer, windows: Windows, part: Part) -> Metrics:
    """Score every window of a part. Leaves the model in evaluation mode."""
    model.eval()
    squared = absolute = torch.zeros(())
    count = 0
    for batch in windows.blocks(part):
        error = _error(model, batch)
        squared = squared + error.square().sum(dim=0)
        absolute = absolute + error.abs().sum(dim=0)
        count += len(error)
    squared, absolute = squared.cpu() / count, absolute.cpu() / count
    return Metrics(
        mse=float(squared.mean()),
        mae=float(absolute.mean()),
        mse_by_step=tuple(squared.mean(dim=1).tolist()),
        mse_by_channel=tuple(squared.mean(dim=0).tolist()),
    )


def _error(model: Informer, batch: Batch) -> Tensor:
    error: Tensor = model(batch.past, batch.time) - batch.future
    return error if error.device.type == "mps" else error.double()  # that device has no float64


def _copy(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}


def _require_finite(epoch: int, loss: float, val_mse: float) -> None:
    if not (math.isfinite(loss) and val_mse < _DIVERGED):
        raise DivergedError(
            f"Training diverged in epoch {epoch + 1}: loss {loss:.4g}, validation MSE {val_mse:.4g}.",
            hint="Lower training.optimizer_params.lr or set training.clip_norm.",
        )
