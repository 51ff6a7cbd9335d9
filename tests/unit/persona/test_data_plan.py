"""What a plan says of memory is what the run goes by, wherever it runs."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from agentlab import machine
from agentlab.config.workspace import Workspace
from agentlab.models.base_model import BaseFile
from agentlab.persona.config import PersonaConfig
from agentlab.persona.data import PersonaPlan, PersonaSource, plan_of, read_sources
from agentlab.train.base import TrainingBase, load_base
from agentlab.train.dataset import TrainingSplit
from agentlab.train.estimate import TrainingMemory
from agentlab.train.sft import memory_needed
from tests.unit.train.tiny_base import tiny_checkpoint

GIB = 1 << 30


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> TrainingBase:
    return load_base(tiny_checkpoint(tmp_path_factory.mktemp("base") / "tiny"), "fp32", "sdpa")


@pytest.fixture(params=["cpu", "cuda"])
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The machine says that it has this device, and nothing is computed on it."""
    name = str(request.param)
    monkeypatch.setattr(machine, "device", lambda: name)
    monkeypatch.setattr(machine, "gpu_memory", lambda: 80 * GIB if name == "cuda" else None)
    return name


def personas(folder: Path, *, together: bool, **training: Any) -> tuple[PersonaConfig, tuple[PersonaSource, ...]]:
    """Three, whose answers are long in one and short in the others."""
    named = []
    for words, name in zip((3, 40, 9), ("a", "b", "c"), strict=True):
        talks = [("Why?", "so " * (words + line % 3)) for line in range(8)]
        turns = [[{"role": "user", "content": ask}, {"role": "assistant", "content": say}] for ask, say in talks]
        path = folder / f"{name}.jsonl"
        path.write_text("".join(json.dumps({"messages": messages}) + "\n" for messages in turns))
        named.append({"name": name, "data": str(path)})
    settings = {"precision": "fp32", "max_length": 512, **training}
    config = PersonaConfig.model_validate({"personas": named, "together": together, "training": settings})
    return config, read_sources(config, Workspace(folder, folder))


def planned(base: TrainingBase, config: PersonaConfig, sources: Sequence[PersonaSource]) -> PersonaPlan:
    return plan_of(config, BaseFile("tiny", base.path), sources)


def needed(base: TrainingBase, config: PersonaConfig, sources: Sequence[PersonaSource]) -> TrainingMemory:
    """As the run asks for it: for all at once, or in turn for each."""
    splits: list[TrainingSplit] = [source.prepare_examples(base.tokenizer, config).split for source in sources]
    if config.together:
        return memory_needed(base, splits, config.lora, config.training, together=True)
    memories = [memory_needed(base, [split], config.lora, config.training, together=False) for split in splits]
    return max(memories, key=lambda one: one.total)


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("batching", ["auto", "packed", "sorted"])
@pytest.mark.parametrize("checkpointing", ["auto", "on"])
def test_the_plan_is_what_the_run_goes_by(
    base: TrainingBase, tmp_path: Path, device: str, together: bool, batching: str, checkpointing: str
) -> None:
    assert device in {"cpu", "cuda"}
    config, sources = personas(
        tmp_path, together=together, batching=batching, gradient_checkpointing=checkpointing, batch_size=256
    )
    plan, run = planned(base, config, sources), needed(base, config, sources)
    assert (plan.memory_bytes, plan.checkpointing, plan.precision) == (run.total, run.checkpointing, "fp32")


def test_a_memory_that_is_too_small_decides_the_same_in_both(
    base: TrainingBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "device", lambda: "cuda")
    config, sources = personas(tmp_path, together=True, batch_size=64)
    decided = []
    for memory in (1, 80):
        monkeypatch.setattr(machine, "gpu_memory", lambda memory=memory: memory * GIB)
        plan, run = planned(base, config, sources), needed(base, config, sources)
        assert plan.checkpointing == run.checkpointing
        decided.append(plan.checkpointing)
    assert decided == [True, False]
    assert "activations computed twice" not in str(plan.blocks())
