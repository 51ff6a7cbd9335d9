"""Adapters that are trained together come out as if each had been trained alone."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from agentlab import machine
from agentlab.errors import DataError, DivergedError, Interrupted, RunMismatchError, UsageError
from agentlab.train import joint
from agentlab.train.base import TrainingBase
from agentlab.train.config import LoraConfig, TrainingConfig, TrainingJob
from agentlab.train.dataset import TrainingSplit
from agentlab.train.joint import train_adapters
from agentlab.train.masks import IGNORED, Example
from agentlab.train.sft import Trained, train_adapter
from tests.unit.train.chats import CHATML, bytewise

LORA = LoraConfig(r=4)
TRAINING = TrainingConfig(epochs=2, batch_size=4, lr=5e-3, evals=3, batching="sorted", max_length=64)
SIZES = (14, 6, 11)  # conversations: the second adapter is the first to be done


def tiny_base() -> TrainingBase:
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = bytewise(CHATML)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=True,
    )
    model = LlamaForCausalLM(config).eval()
    model.requires_grad_(False)
    return TrainingBase(model, tokenizer, Path("tiny"), "fp32", "0" * 64)


@pytest.fixture
def base() -> TrainingBase:
    return tiny_base()


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "threads", lambda *_: 1)


def examples(persona: int, count: int) -> Iterator[Example]:
    """Each persona counts in steps of its own, and only the second half of a count is learnt."""
    for line in range(1, count + 1):
        length = 8 + (5 * line + persona) % 9
        ids = tuple(20 + (line + (persona + 1) * index) % 100 for index in range(length))
        yield Example(line, ids, (IGNORED,) * (length // 2) + ids[length // 2 :], 0)


def splits(sizes: Sequence[int] = SIZES) -> list[TrainingSplit]:
    example_lists = [tuple(examples(persona, size + 3)) for persona, size in enumerate(sizes)]
    return [TrainingSplit(persona_examples[:-3], persona_examples[-3:]) for persona_examples in example_lists]


class Ear:
    """What was told, and a request to stop after some steps."""

    def __init__(self, steps: int | None = None) -> None:
        self.told: list[tuple[str, dict[str, Any]]] = []
        self._steps = steps

    def tell(self, event: str, data: Mapping[str, Any]) -> None:
        self.told.append((event, dict(data)))

    def stopped(self) -> bool:
        return self._steps is not None and len(self.steps()) >= self._steps

    def steps(self) -> list[dict[str, Any]]:
        return [data for event, data in self.told if event == "train.step"]


def together(base: TrainingBase, folder: Path, ear: Ear | None = None, **changes: Any) -> tuple[Trained, ...]:
    ear, training_splits = ear or Ear(), changes.pop("splits", None) or splits()
    lora, training = changes.pop("lora", LORA), TRAINING.model_copy(update=changes)
    return train_adapters(base, training_splits, TrainingJob(lora, training, folder, 1, ear.tell, ear.stopped))


def alone(base: TrainingBase, folder: Path, **changes: Any) -> list[Trained]:
    lora, training, ear = changes.pop("lora", LORA), TRAINING.model_copy(update=changes), Ear()
    return [
        train_adapter(base, split, TrainingJob(lora, training, folder / str(n), 1, ear.tell, ear.stopped))
        for n, split in enumerate(splits())
    ]


def weights(trained: Trained) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = load_file(trained.adapter / "adapter_model.safetensors")
    return tensors


def same_bits(first: Sequence[Trained], second: Sequence[Trained]) -> bool:
    def numbers(result: Trained) -> Any:
        return result.losses, result.eval_losses, result.best_step, result.tokens

    pairs = list(zip(first, second, strict=True))
    return all(numbers(a) == numbers(b) for a, b in pairs) and all(
        torch.equal(value, weights(b)[name]) for a, b in pairs for name, value in weights(a).items()
    )


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"grad_accum": 2, "weight_decay": 0.1}, id="several batches a step, decaying weights"),
        pytest.param({"batching": "packed", "gradient_checkpointing": "on"}, id="packed rows, checkpointing"),
        pytest.param({"lora": LoraConfig(r=4, frozen_a=True, rslora=True)}, id="B alone, rank-stabilised"),
    ],
)
def test_losses_and_weights_are_those_of_separate_runs(
    base: TrainingBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    theirs = alone(base, tmp_path / "alone", **changes)
    for side_by_side in (False, True):
        monkeypatch.setattr(joint, "side_by_side", lambda training, device, chosen=side_by_side: chosen)
        ours = together(base, tmp_path / str(side_by_side), **changes)
        for a, b in zip(ours, theirs, strict=True):
            assert [step for step, _ in a.losses] == [step for step, _ in b.losses]
            for actual, expected in ((a.losses, b.losses), (a.eval_losses, b.eval_losses)):
                assert [loss for _, loss in actual] == pytest.approx([loss for _, loss in expected], rel=1e-5)
            assert (a.best_step, a.tokens) == (b.best_step, b.tokens)
            assert weights(a).keys() == weights(b).keys()
            for name, value in weights(b).items():
                torch.testing.assert_close(weights(a)[name], value, rtol=2e-3, atol=2e-4)


def test_the_base_is_left_as_it_was(base: TrainingBase, tmp_path: Path) -> None:
    before = {name: value.clone() for name, value in base.model.state_dict().items()}
    generator = torch.get_rng_state()
    together(base, tmp_path, gradient_checkpointing="on")
    assert torch.equal(torch.get_rng_state(), generator)
    assert not base.model.training
    assert not base.model.is_activation_checkpointing
    assert not any(parameter.requires_grad for parameter in base.model.parameters())
    after = base.model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_each_adapter_is_told_of_and_ends_when_its_data_do(base: TrainingBase, tmp_path: Path) -> None:
    ear = Ear()
    trained = together(base, tmp_path, ear)
    for index, (result, size) in enumerate(zip(trained, SIZES, strict=True)):
        mine = [data for data in ear.steps() if data["adapter"] == index]
        assert [data["step"] for data in mine] == list(range(1, 2 * -(-size // 4) + 1))
        assert {data["steps"] for data in mine} == {len(mine)}
        assert [data["loss"] for data in mine] == [loss for _, loss in result.losses]
        assert mine[-1]["epoch"] == 2
        assert mine[-1]["lr"] < 0.5 * TRAINING.lr  # a schedule of its own
        scored = [data for event, data in ear.told if event == "train.eval" and data["adapter"] == index]
        assert [(data["step"], data["loss"]) for data in scored] == list(result.eval_losses)
    assert trained[0].eval_losses[-1][1] < trained[0].losses[0][1]  # and something is learnt


@pytest.mark.parametrize("after", [1, 9])
def test_a_stopped_training_goes_on_to_the_same_bits(base: TrainingBase, tmp_path: Path, after: int) -> None:
    lora = LoraConfig(r=4, dropout=0.2)
    uninterrupted = together(base, tmp_path / "whole", lora=lora)
    with pytest.raises(Interrupted):
        together(base, tmp_path / "parts", Ear(after), lora=lora)
    resumed_ear = Ear()
    parts = together(tiny_base(), tmp_path / "parts", resumed_ear, lora=lora)
    assert same_bits(uninterrupted, parts)
    assert len(resumed_ear.steps()) == sum(len(result.losses) for result in uninterrupted) - after
    final_ear = Ear()
    assert same_bits(uninterrupted, together(base, tmp_path / "parts", final_ear, lora=lora))
    assert final_ear.told == []


def test_a_kill_between_checkpoints_costs_steps_and_no_bit(base: TrainingBase, tmp_path: Path) -> None:
    uninterrupted = together(base, tmp_path / "whole")
    ear = Ear()

    def kill(event: str, data: Mapping[str, Any]) -> None:
        ear.tell(event, data)
        if len(ear.steps()) == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_adapters(base, splits(), TrainingJob(LORA, TRAINING, tmp_path / "parts", 1, kill))
    assert same_bits(uninterrupted, together(base, tmp_path / "parts"))


def test_patience_is_each_adapters_own(base: TrainingBase, tmp_path: Path) -> None:
    learnable, hopeless = splits((12, 12))
    wrong = tuple(
        Example(example.line, example.input_ids[::-1], example.labels[::-1], 0) for example in hopeless.held_out
    )
    training_splits = [learnable, TrainingSplit(hopeless.train, wrong)]
    first, second = together(base, tmp_path, splits=training_splits, patience=1, evals=6, epochs=6, lr=2e-2)
    assert len(first.losses) == 18
    assert len(second.losses) < 18
    assert second.best_step < len(second.losses)


def test_a_training_on_nothing_is_refused(base: TrainingBase, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no conversations"):
        together(base, tmp_path, splits=[*splits((4,)), TrainingSplit((), ())])
    assert list(tmp_path.iterdir()) == []


def test_several_processes_are_refused(base: TrainingBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}.items():
        monkeypatch.setenv(name, value)  # as launchers do
    with pytest.raises(UsageError, match="a single process") as caught:
        together(base, tmp_path)
    assert "together=false" in str(caught.value.hint)


def test_another_training_in_the_folder_is_refused(base: TrainingBase, tmp_path: Path) -> None:
    together(base, tmp_path)
    with pytest.raises(RunMismatchError):
        together(base, tmp_path, lr=1e-3)


def test_a_loss_that_is_no_number_ends_the_training(base: TrainingBase, tmp_path: Path) -> None:
    base.model.model.norm.weight.fill_(float("nan"))
    with pytest.raises(DivergedError, match="step 1"):
        together(base, tmp_path)
    assert not any(tmp_path.glob("*/adapter"))
