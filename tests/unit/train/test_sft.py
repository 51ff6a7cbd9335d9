"""One adapter is trained on a tiny model: it learns, stops, goes on, and leaves the base as it was."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from agentlab import machine
from agentlab.errors import AgentlabError, DataError, DivergedError, Interrupted, RunMismatchError, UsageError
from agentlab.lora.reading import Adapter
from agentlab.train.base import TrainingBase, load_base, quietly
from agentlab.train.config import LoraConfig, TrainingConfig, TrainingJob
from agentlab.train.dataset import TrainingSplit
from agentlab.train.loss import learnt_losses, mean_loss
from agentlab.train.sft import Trained, remedies, train_adapter

from .tiny_base import tiny_checkpoint, tiny_split

LORA = LoraConfig(r=4, dropout=0.1)
TRAINING = TrainingConfig(batch_size=2, grad_accum=2, epochs=2, lr=1e-2, evals=2)


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "threads", lambda *_: 1)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> TrainingBase:
    return load_base(tiny_checkpoint(tmp_path_factory.mktemp("base") / "tiny"), "fp32", "sdpa")


class Events(list[tuple[str, dict[str, Any]]]):
    def __call__(self, name: str, data: Mapping[str, Any]) -> None:
        self.append((name, dict(data)))

    def of(self, name: str) -> list[dict[str, Any]]:
        return [data for event, data in self if event == name]


def run(
    base: TrainingBase,
    folder: Path,
    events: Events | None = None,
    *,
    split: TrainingSplit | None = None,
    lora: LoraConfig = LORA,
    training: TrainingConfig = TRAINING,
    seed: int = 1,
    stopped: Callable[[], bool] = lambda: False,
) -> Trained:
    tell = Events() if events is None else events
    chosen = tiny_split() if split is None else split
    return train_adapter(base, chosen, TrainingJob(lora, training, folder, seed, tell, stopped))


def weights(trained: Trained) -> dict[str, torch.Tensor]:
    return load_file(trained.adapter / "adapter_model.safetensors")


def near(losses: Sequence[tuple[int, float]]) -> Any:
    return [pytest.approx(pair, abs=1e-5) for pair in losses]


def same(first: Trained, second: Trained) -> bool:
    one, second_weights = weights(first), weights(second)
    equal = one.keys() == second_weights.keys() and all(
        torch.equal(value, second_weights[name]) for name, value in one.items()
    )
    return equal and first.losses == second.losses and first.eval_losses == second.eval_losses


def test_an_adapter_learns_and_is_told_about(
    base: TrainingBase, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    split, events = tiny_split(), Events()
    ids = torch.arange(10, 20).unsqueeze(0)
    before = base.model(input_ids=ids).logits
    rng_state = torch.random.get_rng_state()
    trained = run(base, tmp_path, events, split=split)
    assert torch.equal(torch.random.get_rng_state(), rng_state)
    assert capfd.readouterr() == ("", "")  # no bars, no advice

    assert [step for step, _ in trained.losses] == [1, 2, 3, 4, 5, 6]  # 10 conversations: 5 batches, 3 steps an epoch
    assert trained.losses[-1][1] < trained.losses[0][1]
    assert [step for step, _ in trained.eval_losses] == [3, 6]
    assert trained.eval_losses[1][1] < trained.eval_losses[0][1]
    assert trained.best_step == 6
    assert trained.tokens == 2 * sum(len(record.input_ids) for record in split.train)
    assert trained.seconds > 0
    steps = events.of("train.step")
    assert [(record["step"], record["loss"]) for record in steps] == list(trained.losses)
    assert steps[-1]["epoch"] == 2
    assert all(
        record["steps"] == 6 and record["tokens_per_second"] > 0 and 0 < record["lr"] <= 1e-2 for record in steps
    )
    assert [(record["step"], record["loss"], record["best"]) for record in events.of("train.eval")] == [
        (*record, True) for record in trained.eval_losses
    ]

    assert torch.equal(base.model(input_ids=ids).logits, before)
    assert not any("lora" in name for name, _ in base.model.named_modules())
    assert base.model.config.use_cache
    assert "forward" not in vars(base.model)


def test_the_folder_loads_in_peft_and_gives_the_loss_that_was_found(base: TrainingBase, tmp_path: Path) -> None:
    with quietly():
        from peft import PeftModel

    split = tiny_split()
    trained = run(base, tmp_path, split=split, lora=LoraConfig(r=4, alpha=6, rslora=True))
    with quietly():
        model = PeftModel.from_pretrained(base.model, str(trained.adapter))
    loss = mean_loss(model, split.held_out, 2, 0)
    model.unload().eval()
    assert loss == pytest.approx(trained.eval_losses[-1][1], abs=1e-6)
    config = json.loads((trained.adapter / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "tiny"
    assert "lm_head" not in config["target_modules"]
    with Adapter(trained.adapter) as adapter:
        assert len(adapter.modules) == 14
    with safe_open(trained.adapter / "adapter_model.safetensors", framework="pt") as file:
        assert "agentlab.training" in file.metadata()


def test_a_seed_gives_the_same_adapter_and_another_seed_another(base: TrainingBase, tmp_path: Path) -> None:
    first = run(base, tmp_path / "1")
    assert same(first, run(base, tmp_path / "2"))
    assert not same(first, run(base, tmp_path / "3", seed=2))


def test_stopped_after_any_steps_it_goes_on_to_the_same_bits(base: TrainingBase, tmp_path: Path) -> None:
    uninterrupted = run(base, tmp_path / "whole")
    for stops in ((1, 2, 4), (3, 5)):
        folder, last = tmp_path / str(stops), 0
        for stop in stops:
            events = Events()
            with pytest.raises(Interrupted):
                run(
                    base,
                    folder,
                    events,
                    stopped=lambda events=events, at=stop - last: len(events.of("train.step")) >= at,
                )
            assert [event_data["step"] for event_data in events.of("train.step")] == list(range(last + 1, stop + 1))
            assert not (folder / "adapter").exists()
            last = stop
        assert same(uninterrupted, run(base, folder))


def test_a_finished_training_is_not_done_again(base: TrainingBase, tmp_path: Path) -> None:
    first = run(base, tmp_path)
    first_weights = {name: value.clone() for name, value in weights(first).items()}  # they are mapped from the file
    (first.adapter / "adapter_model.safetensors").write_bytes(b"half")
    events = Events()
    second = run(base, tmp_path, events)
    assert events == []
    assert second.losses == first.losses
    assert all(torch.equal(value, first_weights[name]) for name, value in weights(second).items())


def test_more_epochs_go_on_with_it_and_other_settings_do_not(base: TrainingBase, tmp_path: Path) -> None:
    first = run(base, tmp_path)
    longer = run(base, tmp_path, training=TRAINING.model_copy(update={"epochs": 3.0}))
    assert longer.losses[: len(first.losses)] == first.losses
    assert len(longer.losses) == 9
    for change in ({"seed": 2}, {"lora": LoraConfig(r=2)}, {"split": tiny_split(8)}):
        with pytest.raises(RunMismatchError):
            run(base, tmp_path, **change)


def test_without_held_out_conversations_the_last_weights_are_kept(base: TrainingBase, tmp_path: Path) -> None:
    uninterrupted = run(base, tmp_path / "whole", split=tiny_split(10, 0))
    assert uninterrupted.eval_losses == ()
    assert uninterrupted.best_step == 6
    events = Events()
    with pytest.raises(Interrupted):
        run(base, tmp_path / "cut", events, split=tiny_split(10, 0), stopped=lambda: len(events) >= 2)
    assert same(uninterrupted, run(base, tmp_path / "cut", split=tiny_split(10, 0)))


def test_the_best_adapter_is_kept_and_patience_ends(base: TrainingBase, tmp_path: Path) -> None:
    """What is held out contradicts what is learnt, so that the first scoring is the best."""
    split = tiny_split()
    backwards = tuple(
        type(example)(example.line, example.input_ids[::-1], (-100, *example.input_ids[::-1][1:]), 0)
        for example in split.held_out
    )
    training = TRAINING.model_copy(update={"epochs": 12.0, "evals": 12, "patience": 2, "lr": 5e-2})
    trained = run(base, tmp_path, split=TrainingSplit(split.train, backwards), training=training)
    losses = [loss for _, loss in trained.eval_losses]
    assert trained.losses[-1][0] < 36
    assert losses[-3] == min(losses)
    assert trained.best_step == trained.eval_losses[-3][0]
    assert run(base, tmp_path, split=TrainingSplit(split.train, backwards), training=training).losses == trained.losses


def test_adapters_of_one_seed_with_frozen_a_share_it(base: TrainingBase, tmp_path: Path) -> None:
    lora = LoraConfig(r=4, frozen_a=True)
    first = weights(run(base, tmp_path / "1", lora=lora))
    second = weights(run(base, tmp_path / "2", lora=lora, split=tiny_split(6)))
    for name in first:
        assert torch.equal(first[name], second[name]) == ("lora_A" in name)


def test_settings_that_save_work_change_no_loss(base: TrainingBase, tmp_path: Path) -> None:
    lora = LoraConfig(r=4)
    plain = run(base, tmp_path / "plain", lora=lora)
    checkpointed = run(
        base, tmp_path / "on", lora=lora, training=TRAINING.model_copy(update={"gradient_checkpointing": "on"})
    )
    assert list(checkpointed.losses) == near(plain.losses)
    assert not base.model.is_activation_checkpointing
    # all conversations in one step: packed and padded batches hold the same tokens, in rows of their own or not
    one_step = {"batch_size": 10, "grad_accum": 1, "max_length": 64}
    padded = run(base, tmp_path / "s", lora=lora, training=TRAINING.model_copy(update=one_step))
    packed = run(
        base, tmp_path / "p", lora=lora, training=TRAINING.model_copy(update={**one_step, "batching": "packed"})
    )
    assert list(packed.losses) == near(padded.losses)


@pytest.mark.parametrize("precision", ["bf16", "4bit"])
def test_other_precisions_learn_with_adapters_in_float32(base: TrainingBase, tmp_path: Path, precision: Any) -> None:
    coarse_base = load_base(base.path, precision, "sdpa")
    trained = run(coarse_base, tmp_path)
    assert trained.eval_losses[-1][1] < trained.eval_losses[0][1]
    tensors = weights(trained)
    assert {value.dtype for value in tensors.values()} == {torch.float32}
    assert any((value != value.bfloat16().float()).any() for value in tensors.values())
    assert same(trained, run(coarse_base, tmp_path / "again"))


def test_the_loss_is_that_of_the_learnt_tokens(base: TrainingBase) -> None:
    batch = {
        "input_ids": torch.tensor([[11, 12, 13, 14], [20, 21, 22, 0]]),
        "labels": torch.tensor([[-100, -100, 13, 14], [-100, 21, -100, -100]]),
        "attention_mask": torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]]),
    }
    with torch.no_grad():
        losses = learnt_losses(base.model, base.model.get_output_embeddings(), batch)
        logits = base.model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits.log_softmax(-1)
    expected = -torch.stack([logits[0, 1, 13], logits[0, 2, 14], logits[1, 0, 21]])
    assert torch.allclose(losses, expected, atol=1e-6)


def test_what_cannot_be_trained_is_said_before_anything_is_written(base: TrainingBase, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no conversations"):
        run(base, tmp_path, split=tiny_split(0))
    with pytest.raises(UsageError) as targets:
        run(base, tmp_path, lora=LoraConfig(targets=("query",)))
    assert "q_proj" in (targets.value.hint or "")
    assert list(tmp_path.iterdir()) == []


def test_a_diverging_training_says_so(base: TrainingBase, tmp_path: Path) -> None:
    training = TRAINING.model_copy(update={"lr": 1.0, "max_grad_norm": 1000.0, "epochs": 50.0})
    lora = LoraConfig(r=4, alpha=4096)
    broken = load_base(base.path, "fp32", "sdpa")
    broken.model.lm_head.weight.data[:] = float("inf")
    with pytest.raises(DivergedError, match="step 1"):
        run(broken, tmp_path, training=training, lora=lora)
    assert not (tmp_path / "adapter").exists()


def test_want_of_memory_is_an_error_with_ways_out(
    base: TrainingBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with quietly():
        from agentlab.train.trainer import TrainingLoop

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.")

    monkeypatch.setattr(TrainingLoop, "on_step_begin", fail)
    with pytest.raises(AgentlabError, match="out of memory") as caught:
        run(base, tmp_path)
    assert "gradient_checkpointing=on" in (caught.value.hint or "")


def test_ways_out_are_those_that_are_left() -> None:
    large = remedies(LoraConfig(r=64), TrainingConfig(batch_size=32), checkpointing=False)
    assert large.index("--r 16") < large.index("--grad-accum 32") < large.index("gradient_checkpointing")
    small = remedies(LoraConfig(r=8), TrainingConfig(batch_size=1), checkpointing=True)
    assert "--r" not in small
    assert "--grad-accum" not in small
    assert "max_length=512" in small
