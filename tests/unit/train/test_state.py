"""What is known between two steps: what comes next, what is told and kept, and how a resume finds all of it again.

The driver is a stand-in: it moves the weights by one and says what the losses are.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from agentlab.errors import DivergedError, RunMismatchError
from agentlab.train.config import LoraConfig, TrainingConfig, TrainingJob
from agentlab.train.dataset import TrainingSplit
from agentlab.train.state import TrainingState

from .tiny_base import tiny_split

TRAINING = TrainingConfig(batch_size=2, epochs=4, evals=4, lr=0.1)  # 10 conversations: 5 steps an epoch, 20 in all
NAME = "m.lora_B.weight"
Told = list[tuple[str, dict[str, Any]]]


def state(
    folder: Path,
    events: Told | None = None,
    *,
    split: TrainingSplit | None = None,
    origin: str = "here",
    **changes: Any,
) -> TrainingState:
    def tell(event: str, data: Mapping[str, Any]) -> None:
        if events is not None:
            events.append((event, dict(data)))

    process_options = {key: changes.pop(key) for key in ("devices", "leads") if key in changes}
    weights = {NAME: torch.nn.Parameter(torch.zeros(2, 3))}
    training = TRAINING.model_copy(update=changes)
    job = TrainingJob(LoraConfig(), training, folder, 7, tell)
    training_state = TrainingState(split or tiny_split(), weights, job, "sorted", origin, **process_options)
    training_state.restore()
    return training_state


def drive(state: TrainingState, until: int, held_out: Callable[[int], float] = lambda step: 1 / step) -> None:
    """Steps whose loss is their number."""
    while not state.is_over and state.progress.step < until:
        state.weights[NAME].grad = torch.ones(2, 3)
        state.optimizer.step()
        state.advance(float(state.progress.step), 0.5, lambda: held_out(state.progress.step))


def files(folder: Path) -> list[int]:
    return sorted(int(path.stem.removeprefix("step-")) for path in (folder / "checkpoints").glob("*.safetensors"))


def test_steps_and_scorings_are_told_as_they_come(tmp_path: Path) -> None:
    events: Told = []
    split = tiny_split()
    drive(state(tmp_path, events, split=split), 20)
    steps = [data for event, data in events if event == "train.step"]
    assert [list(data) for data in steps] == [
        ["step", "steps", "epoch", "loss", "lr", "tokens", "tokens_per_second"]
    ] * 20
    assert [(data["step"], data["loss"]) for data in steps] == [(n + 1, float(n)) for n in range(20)]
    assert steps[4]["epoch"] == 1
    assert sum(data["tokens"] for data in steps) == 4 * sum(len(example.input_ids) for example in split.train)
    assert all(data["tokens_per_second"] == 2 * data["tokens"] for data in steps)
    scored = [data for event, data in events if event == "train.eval"]
    assert scored == [{"step": n, "steps": 20, "loss": 1 / n, "best": True} for n in (5, 10, 15, 20)]
    assert events.index(("train.eval", scored[0])) == 5  # right after its step
    json.dumps(events)


def test_checkpoints_come_at_tenths_of_the_training_and_at_scorings(tmp_path: Path) -> None:
    training, seen = state(tmp_path), set[int]()
    for step in range(1, 21):
        drive(training, step)
        seen.update(files(tmp_path))
    assert sorted(seen) == [2, 4, 5, 6, 8, 10, 12, 14, 15, 16, 18, 20]
    assert files(tmp_path) == [18, 20]


def test_a_resume_finds_all_of_it(tmp_path: Path) -> None:
    first = state(tmp_path)
    drive(first, 12)
    drive(first, 13)
    first.save()  # on request, between two marks
    resumed = state(tmp_path)
    assert resumed.progress == first.progress
    assert torch.equal(resumed.weights[NAME], first.weights[NAME])
    assert torch.equal(resumed.best()[NAME], first.best()[NAME])
    for kind, value in first.optimizer.state_dict()["state"][0].items():
        assert torch.equal(resumed.optimizer.state_dict()["state"][0][kind], value)
    for one in (first, resumed):
        drive(one, 20)
    assert resumed.progress.losses == first.progress.losses
    assert torch.equal(resumed.weights[NAME], first.weights[NAME])
    assert resumed.progress.seconds > 0


def test_nothing_is_written_twice_nor_before_the_first_step(tmp_path: Path) -> None:
    training = state(tmp_path)
    training.save()
    assert files(tmp_path) == []
    drive(training, 4)
    path = tmp_path / "checkpoints" / "step-00000004.safetensors"
    path.write_bytes(b"")
    training.save()
    assert path.read_bytes() == b""


def test_the_best_weights_are_kept_and_patience_ends(tmp_path: Path) -> None:
    losses = {5: 2.0, 10: 1.0, 15: 1.5, 20: 1.2}
    training = state(tmp_path, patience=2)
    drive(training, 20, losses.__getitem__)
    assert training.progress.best_step == 10
    at_ten = training.best()[NAME]
    assert not torch.equal(at_ten, training.weights[NAME])
    assert training.is_over
    assert torch.equal(state(tmp_path, patience=2).best()[NAME], at_ten)
    # with the same losses and less patience
    short = state(tmp_path / "short", patience=1)
    drive(short, 20, losses.__getitem__)
    assert (short.progress.step, short.is_over) == (15, True)
    assert files(tmp_path / "short")[-1] == 15


def test_without_held_out_conversations_the_last_weights_are_the_best(tmp_path: Path) -> None:
    training = state(tmp_path, split=tiny_split(10, 0))
    drive(training, 20, lambda step: pytest.fail("scored nothing"))
    assert training.progress.eval_losses == ()
    assert torch.equal(training.best()[NAME], training.weights[NAME])


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_is_not_noted(tmp_path: Path, loss: float) -> None:
    events: Told = []
    training = state(tmp_path, events)
    with pytest.raises(DivergedError, match="step 1"):
        training.advance(loss, 1.0, lambda: 0.0)
    assert training.progress.step == 0
    assert events == []


def test_held_out_conversations_whose_loss_is_no_number_end_the_training(tmp_path: Path) -> None:
    events: Told = []
    with pytest.raises(DivergedError, match=r"held-out loss after step .* is nan"):
        drive(state(tmp_path, events), 20, held_out=lambda _: float("nan"))
    assert "train.eval" not in [event for event, _ in events]


def test_of_several_processes_one_tells_and_saves_and_all_count_the_same(tmp_path: Path) -> None:
    events: Told = []
    leader = state(tmp_path / "first", events, devices=2)
    follower = state(tmp_path / "second", events, devices=2, leads=False)
    drive(leader, 20)
    event_count = len(events)
    drive(follower, 20)
    assert len(events) == event_count
    assert files(tmp_path / "second") == []
    excluded_fields = {"seconds"}
    assert follower.progress.model_dump(exclude=excluded_fields) == leader.progress.model_dump(exclude=excluded_fields)
    assert leader.batches(0, 0) != leader.batches(0, 1)


def test_dropout_is_seeded_by_step_and_device(tmp_path: Path) -> None:
    training = state(tmp_path)

    def drawn(device: int = 0) -> float:
        training.seed_dropout(device)
        return torch.rand(()).item()

    with torch.random.fork_rng():
        first = drawn()
        assert drawn() == first
        assert drawn(1) != first
        drive(training, 1)
        assert drawn() != first


def test_another_training_in_the_folder_is_refused(tmp_path: Path) -> None:
    drive(state(tmp_path), 4)
    with pytest.raises(RunMismatchError):
        state(tmp_path, origin="elsewhere")
