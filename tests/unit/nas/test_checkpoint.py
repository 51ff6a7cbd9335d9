"""A trial stopped after any epoch, or killed in the middle of one, ends bit-equal to the uninterrupted one. About 20 s.

Also the blob a checkpoint is kept in: it round-trips exactly and shows every kind of damage.
"""

import json
import math
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from safetensors.torch import load, save

from agentlab.config.workspace import Workspace
from agentlab.errors import RunMismatchError, RunUnreadableError
from agentlab.nas.checkpoint import Epoch, TrialCheckpoint, from_bytes, to_bytes
from agentlab.nas.config import (
    DataConfig,
    ModelConfig,
    OptimizerParams,
    SplitConfig,
    TrainingConfig,
    TrialConfig,
    with_params,
)
from agentlab.nas.data import load_series
from agentlab.nas.training import TrainResult, train

# ProbSparse attention draws keys, dropout draws masks, and distilling has running statistics: all must be carried on.
TRIAL = TrialConfig(
    data=DataConfig(
        columns=("temp", "humid"),
        gaps="ffill",
        split=SplitConfig(train=120, val=60, test=60),
        input_length=24,
        horizon=6,
        batch_size=16,
    ),
    model=ModelConfig(d_model=8, n_heads=2, e_layers=2, ff_multiplier=1, factor=1, dropout=0.1),
    training=TrainingConfig(optimizer_params=OptimizerParams(lr=0.01), epochs=4),
)
OPTIMIZERS = {"Adam": 0.0, "AdamW": 0.0, "NAdam": 0.0, "RAdam": 0.0, "RMSprop": 0.5, "SGD": 0.5}  # and its momentum


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def weather(tmp_path_factory):
    return load_series(TRIAL.data, Workspace.locate({}, tmp_path_factory.mktemp("home")))


@pytest.fixture(scope="module")
def saved(weather) -> tuple[list[TrialCheckpoint], TrainResult]:
    """The checkpoints of an uninterrupted training, and its result."""
    checkpoints: list[TrialCheckpoint] = []
    return checkpoints, train(TRIAL, weather, 0, save=checkpoints.append)


def equal(first: dict, second: dict) -> bool:
    """Whether nested dictionaries hold the same tensors, to the last bit."""
    if first.keys() != second.keys():
        return False
    pairs = [(value, second[name]) for name, value in first.items()]
    return all(
        equal(a, b)
        if isinstance(a, dict)
        else a.dtype == b.dtype and a.shape == b.shape and a.numpy().tobytes() == b.numpy().tobytes()
        for a, b in pairs
    )


def same(first: TrainResult, second: TrainResult) -> bool:
    return first == second and equal(first.state_dict, second.state_dict)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_trial_goes_on_from_any_epoch_as_if_never_stopped(weather, name):
    changes = {"training.optimizer_class": name, "training.optimizer_params.momentum": OPTIMIZERS[name]}
    trial = with_params(TRIAL, changes)
    blobs: list[bytes] = []
    full_run = train(trial, weather, 5, save=lambda checkpoint: blobs.append(to_bytes(checkpoint)))
    assert len(blobs) == len(full_run.history) == 4
    for blob in blobs:
        checkpoint = from_bytes(blob)
        torch.manual_seed(99)
        epochs: list[Epoch] = []
        resumed = train(trial, weather, 5, on_epoch=epochs.append, resume=checkpoint)
        assert same(resumed, full_run)
        assert tuple(epochs) == full_run.history[checkpoint.epochs :]


def test_a_checkpoint_can_be_resumed_twice_because_training_does_not_write_into_it(weather, saved):
    checkpoints, full_run = saved
    before = to_bytes(checkpoints[0])
    assert same(train(TRIAL, weather, 0, resume=checkpoints[0]), full_run)
    assert to_bytes(checkpoints[0]) == before
    assert same(train(TRIAL, weather, 0, resume=checkpoints[0]), full_run)


def test_saving_has_no_influence_even_if_it_draws_random_numbers(weather, saved):
    assert same(train(TRIAL, weather, 0, save=lambda _: torch.manual_seed(1)), saved[1])


def test_an_epoch_is_announced_before_it_is_saved(weather):
    order: list[tuple[str, int]] = []
    train(
        with_params(TRIAL, {"training.epochs": 2}),
        weather,
        0,
        on_epoch=lambda epoch: order.append(("announced", epoch.epoch + 1)),
        save=lambda checkpoint: order.append(("saved", checkpoint.epochs)),
    )
    assert order == [("announced", 1), ("saved", 1), ("announced", 2), ("saved", 2)]


@pytest.mark.parametrize("changes", [{"training.epochs": 2}, {"training.patience": 1, "training.epochs": 60}])
def test_a_training_that_was_over_takes_no_step(weather, changes):
    trial = with_params(TRIAL, {"training.optimizer_params.lr": 0.1, "training.schedule": "constant", **changes})
    checkpoints: list[TrialCheckpoint] = []
    full_run = train(trial, weather, 0, save=checkpoints.append)
    assert len(full_run.history) < 60
    resumed = train(trial, weather, 0, before_step=lambda: pytest.fail("a step was taken"), resume=checkpoints[-1])
    assert same(resumed, full_run)
    assert resumed.seconds > checkpoints[-1].seconds > 0


def test_another_seed_configuration_or_series_is_refused(weather, saved, make_series):
    checkpoint = saved[0][0]
    assert checkpoint.matches(TRIAL, weather, 0)
    different_trial = with_params(TRIAL, {"model.dropout": 0.2})
    for trial, series, seed in ((TRIAL, weather, 1), (different_trial, weather, 0), (TRIAL, make_series(), 0)):
        assert not checkpoint.matches(trial, series, seed)
        with pytest.raises(RunMismatchError, match="to another trial, series or seed"):
            train(trial, series, seed, resume=checkpoint)


def test_a_checkpoint_that_claims_to_fit_and_does_not_is_a_typed_error(weather, saved):
    checkpoint = saved[0][0]
    for broken in (replace(checkpoint, model={}), replace(checkpoint, generator=torch.zeros(3, dtype=torch.uint8))):
        with pytest.raises(RunUnreadableError, match="does not match"):
            train(TRIAL, weather, 0, resume=broken)


_CHILD = """
import json, os, pathlib, signal, sys
import torch
from safetensors.torch import save as save_weights
from agentlab.config.workspace import Workspace
from agentlab.nas.checkpoint import from_bytes, to_bytes
from agentlab.nas.config import TrialConfig
from agentlab.nas.data import load_series
from agentlab.nas.training import train
from agentlab.runs.atomic import write_bytes

folder, die_at, left = pathlib.Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[2])
torch.set_num_threads(1)

def before_step():
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)

trial = TrialConfig.model_validate_json((folder / "trial.json").read_text())
path = folder / "checkpoint.safetensors"
resume = from_bytes(path.read_bytes()) if path.exists() else None
print(json.dumps(resume.epochs if resume else 0))
result = train(
    trial, load_series(trial.data, Workspace.locate({}, folder)), 3, before_step=before_step, resume=resume,
    save=lambda checkpoint: write_bytes(path, to_bytes(checkpoint)),
)
(folder / "weights.safetensors").write_bytes(save_weights(result.state_dict))
print(json.dumps([[epoch.train_loss, epoch.val_mse, epoch.val_mae] for epoch in result.history]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="kill -9 is a matter of POSIX")
def test_a_trial_killed_in_mid_epoch_ends_in_a_new_process_as_if_never_killed(weather, tmp_path):
    (tmp_path / "trial.json").write_text(TRIAL.model_dump_json())

    def run(die_at: int) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", _CHILD, str(tmp_path), str(die_at)]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)

    steps_per_epoch = math.ceil((120 - 24 - 6 + 1) / 16)
    assert run(die_at=2 * steps_per_epoch + 3).returncode == -signal.SIGKILL
    finished = run(die_at=0)
    assert finished.returncode == 0, finished.stderr
    resumed_from, history = map(json.loads, finished.stdout.splitlines())
    full_run = train(TRIAL, weather, 3)
    assert resumed_from == 2
    assert history == [[epoch.train_loss, epoch.val_mse, epoch.val_mae] for epoch in full_run.history]
    assert equal(load((tmp_path / "weights.safetensors").read_bytes()), full_run.state_dict)


# -- the blob ---------------------------------------------------------------------------------------------------------

_names = st.from_regex(r"[a-z_]{1,8}(\.[a-z_0-9]{1,8}){0,2}", fullmatch=True)
_finite = st.floats(allow_nan=False, allow_infinity=False)
_shapes = st.lists(st.integers(0, 3), max_size=3).map(tuple)
_tensors = st.one_of(
    arrays(np.float32, _shapes, elements=st.floats(width=32)), arrays(np.int64, _shapes, elements=st.integers(0, 9))
).map(lambda array: torch.from_numpy(np.array(array)))
_weights = st.dictionaries(_names, _tensors, min_size=1, max_size=3)
_generators = arrays(np.uint8, st.integers(1, 20)).map(torch.from_numpy)
_optimizer_names = st.sampled_from(["step", "exp_avg", "momentum_buffer"])


@st.composite
def checkpoints(draw) -> TrialCheckpoint:
    count = draw(st.integers(0, 4))
    model = draw(_weights)
    return TrialCheckpoint(
        origin=draw(st.text(st.characters(exclude_categories=["Cs"]), max_size=64)),
        history=tuple(Epoch(number, *draw(st.tuples(_finite, _finite, _finite, _finite))) for number in range(count)),
        best_epoch=draw(st.integers(0, max(0, count - 1))),
        best=draw(st.just(model) | _weights),
        model=model,
        optimizer=draw(
            st.dictionaries(
                st.integers(0, 999), st.dictionaries(_optimizer_names, _tensors, min_size=1, max_size=2), max_size=3
            )
        ),
        generator=draw(_generators),
        device_generator=draw(st.none() | _generators),
        seconds=draw(_finite),
    )


@given(checkpoints())
def test_a_checkpoint_comes_back_from_bytes_exactly(checkpoint):
    blob = to_bytes(checkpoint)
    back = from_bytes(blob)
    for name in ("origin", "history", "best_epoch", "seconds", "epochs"):
        assert getattr(back, name) == getattr(checkpoint, name)
    for name in ("best", "model", "optimizer"):
        assert equal(getattr(back, name), getattr(checkpoint, name))
    assert equal({"cpu": back.generator}, {"cpu": checkpoint.generator})
    assert (back.device_generator is None) == (checkpoint.device_generator is None)
    if back.device_generator is not None:
        assert equal({"device": back.device_generator}, {"device": checkpoint.device_generator})
    assert to_bytes(back) == blob


@given(data=st.data())
def test_a_changed_byte_anywhere_is_noticed(saved, data):
    blob = bytearray(to_bytes(saved[0][1]))
    blob[data.draw(st.integers(0, len(blob) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(RunUnreadableError, match="Cannot read a trial checkpoint"):
        from_bytes(bytes(blob))


def test_a_changed_weight_and_a_changed_figure_are_noticed(saved):
    blob = to_bytes(saved[0][1])
    figure = str(saved[0][1].history[0].val_mse).encode()
    for damaged in (blob[:-1] + bytes([blob[-1] ^ 1]), blob.replace(figure, figure[:-1] + b"0")):
        assert len(damaged) == len(blob)
        with pytest.raises(RunUnreadableError, match="the SHA-256 does not match"):
            from_bytes(damaged)


@given(data=st.data())
def test_a_blob_that_was_cut_off_is_noticed(saved, data):
    blob = to_bytes(saved[0][1])
    with pytest.raises(RunUnreadableError, match="Cannot read a trial checkpoint"):
        from_bytes(blob[: data.draw(st.integers(0, len(blob) - 1))])


@given(st.binary(max_size=200))
def test_other_bytes_are_no_checkpoint(blob):
    with pytest.raises(RunUnreadableError):
        from_bytes(blob)


@pytest.mark.parametrize(
    "make",
    [
        lambda _: save({"weight": torch.ones(2)}),
        lambda _: (24).to_bytes(8, "little") + b'{"__metadata__": null}  ',
        lambda _: save({"weight": torch.ones(2)}, metadata={"agentlab.nas.checkpoint.1": "[" * 10_000}),
        lambda _: save({"weight": torch.ones(2)}, metadata={"agentlab.nas.checkpoint.1": "{}"}),
        lambda checkpoint: save(load(to_bytes(checkpoint)), metadata={"agentlab.nas.checkpoint.2": "{}"}),
    ],
)
def test_foreign_safetensors_are_no_checkpoint(saved, make):
    with pytest.raises(RunUnreadableError) as caught:
        from_bytes(make(saved[0][0]))
    assert caught.value.hint == "Delete it; the trial will start over."
