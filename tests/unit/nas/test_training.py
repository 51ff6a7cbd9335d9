"""Training: bit-equal repeats, best weights, early stop, divergence, scoring of every window. About 5 s."""

import signal
from itertools import pairwise

import pytest
import torch

from agentlab.errors import DataError, DivergedError, Interrupted
from agentlab.nas.config import DataConfig, ModelConfig, OptimizerParams, TrainingConfig, TrialConfig, with_params
from agentlab.nas.training import Epoch, evaluate, learning_rate, restore, train
from agentlab.nas.windows import Windows, predict_windows
from agentlab.runs.stop import StopFlag

TRIAL = TrialConfig(
    data=DataConfig(input_length=24, horizon=6, batch_size=16),
    model=ModelConfig(d_model=8, n_heads=2, e_layers=2, ff_multiplier=1, factor=1, dropout=0.1),
    training=TrainingConfig(optimizer_params=OptimizerParams(lr=0.01), epochs=2),
)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_the_same_seed_gives_bit_equal_weights_and_another_seed_does_not(make_series):
    first, same_seed, new_seed = (train(TRIAL, make_series(), seed) for seed in (3, 3, 4))
    assert first == same_seed
    assert all(torch.equal(value, same_seed.state_dict[name]) for name, value in first.state_dict.items())
    assert first.val_mse != new_seed.val_mse


def test_training_leaves_the_global_generator_alone(make_series):
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    train(TRIAL, make_series(), 0)
    assert torch.equal(torch.rand(3), expected)


def test_it_learns_a_daily_cycle(make_series):
    trial = with_params(TRIAL, {"model.shortcut": True, "model.normalize": True, "training.epochs": 6})
    result = train(trial, make_series(noise=0.02), 0)
    assert result.val_mse < 0.1  # repeating the last value gives about 0.9


@pytest.mark.parametrize("name", ["Adam", "AdamW", "NAdam", "RAdam", "RMSprop", "SGD"])
@pytest.mark.parametrize("criterion", ["MSELoss", "HuberLoss"])
def test_every_optimizer_and_loss_of_the_allow_list_trains(make_series, name, criterion):
    changes = {"training.optimizer_class": name, "training.criterion_class": criterion, "training.epochs": 1}
    assert train(with_params(TRIAL, changes), make_series(), 0).val_mse < 10


def test_the_best_epoch_is_kept_and_patience_ends_training(make_series):
    # A rate this high makes some epoch worse than the one before, so patience 1 stops early.
    trial = with_params(
        TRIAL,
        {
            "training.epochs": 50,
            "training.patience": 1,
            "training.optimizer_params.lr": 0.1,
            "training.schedule": "constant",
        },
    )
    seen: list[Epoch] = []
    series = make_series()
    result = train(trial, series, 0, on_epoch=seen.append)
    assert tuple(seen) == result.history
    assert len(result.history) == result.best_epoch + 2 < 50
    assert result.val_mse == min(epoch.val_mse for epoch in result.history)
    scored = evaluate(restore(trial, series, result.state_dict), Windows(series, trial, "cpu"), "val")
    assert (scored.mse, scored.mae) == (result.val_mse, result.val_mae)


def test_the_rate_is_halved_as_the_published_code_does_it_from_the_third_epoch_on():
    halving = TrainingConfig(optimizer_params=OptimizerParams(lr=0.8))
    assert [learning_rate(halving, epoch) for epoch in range(5)] == [0.8, 0.8, 0.4, 0.2, 0.1]
    assert learning_rate(halving.model_copy(update={"schedule": "constant"}), 5) == 0.8


def test_an_epoch_as_good_as_the_best_one_is_the_new_best_one(make_series):
    # A rate this low changes no weight, and without distilling there is no running statistic: every epoch is a tie.
    frozen = {
        "training.epochs": 4,
        "training.patience": 1,
        "training.optimizer_params.lr": 1e-30,
        "model.distil": False,
    }
    result = train(with_params(TRIAL, frozen), make_series(), 0)
    assert len({epoch.val_mse for epoch in result.history}) == 1
    assert (len(result.history), result.best_epoch) == (4, 3)


def test_divergence_is_a_typed_failure(make_series):
    trial = with_params(
        TRIAL, {"training.optimizer_class": "SGD", "training.optimizer_params.lr": 1.0, "model.dropout": 0.0}
    )
    series = make_series()
    series.values[5:] *= 1e20
    with pytest.raises(DivergedError, match="diverged in epoch 1"):
        train(trial, series, 0)


def test_a_stop_is_obeyed_between_steps(make_series):
    stop, steps = StopFlag(), 0

    def before_step() -> None:
        nonlocal steps
        steps += 1
        if steps == 3:
            stop.request(signal.SIGTERM)
        stop.check()

    with pytest.raises(Interrupted) as caught:
        train(TRIAL, make_series(), 0, before_step=before_step)
    assert steps == 3
    assert caught.value.exit_code == 143


def test_every_window_is_scored_whatever_the_block(make_series, monkeypatch):
    series = make_series()
    model = restore(TRIAL, series, train(TRIAL, series, 0).state_dict)
    windows = Windows(series, TRIAL, "cpu")
    scores = evaluate(model, windows, "test")
    batch = windows.gather(windows.starts("test"))
    error = model(batch.past, batch.time) - batch.future
    assert len(error) == 80 - 6 + 1
    assert scores.mse == pytest.approx(error.square().mean().item(), rel=1e-5)
    assert scores.mae == pytest.approx(error.abs().mean().item(), rel=1e-5)
    assert len(scores.mse_by_step) == 6
    assert sum(scores.mse_by_channel) / 2 == pytest.approx(scores.mse)
    monkeypatch.setattr(DataConfig, "scored_at_once", 7)
    assert evaluate(model, Windows(series, TRIAL, "cpu"), "test").mse == pytest.approx(scores.mse, rel=1e-6)


def test_windows_hold_what_the_series_holds(make_series):
    series = make_series(channels=3, targets=(2,))
    windows = Windows(series, TRIAL, "cpu")
    batch = windows.gather(torch.tensor([10, 11]))
    assert torch.equal(batch.past[1], torch.from_numpy(series.values[11:35]))
    assert torch.equal(batch.future[1], torch.from_numpy(series.values[35:41, 2:]))
    assert torch.equal(batch.time[1], torch.from_numpy(series.time[11:41]))


def test_a_fraction_of_the_training_windows_is_spread_evenly(make_series):
    windows = Windows(make_series(), TRIAL, "cpu")
    every = windows.starts("train").tolist()
    quarter = windows.starts("train", 0.25).tolist()
    assert len(quarter) == round(len(every) / 4)
    assert set(quarter) < set(every)
    assert max(b - a for a, b in pairwise(quarter)) <= 5


def test_a_part_without_a_window_is_a_data_error(make_series):
    with pytest.raises(DataError, match="train split is too short for a window"):
        train(with_params(TRIAL, {"data.input_length": 300}), make_series(), 0)


def test_forecasts_come_in_original_units_with_their_dates(make_series):
    series = make_series(channels=3, targets=(2,))
    model = restore(TRIAL, series, train(TRIAL, series, 0).state_dict)
    last = predict_windows(model, Windows(series, TRIAL, "cpu"), "test", [0, -1])[1]
    original = series.scaler.undo(series.values, (0, 1, 2))
    assert last.future[:, 0] == pytest.approx(original[-6:, 2], abs=1e-5)
    assert last.dates[-1] == series.dates[-1]
