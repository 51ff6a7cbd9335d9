"""Memory of a training by closed form: known shapes, what makes it grow, when activations are computed twice."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentlab.errors import ModelFileError
from agentlab.train.config import LoraConfig, TrainingConfig
from agentlab.train.estimate import ModelShape, TrainingMemory, decide, read_shape, training_memory

from .tiny_base import tiny_checkpoint

SMOLLM2 = ModelShape(30, 576, 9, 3, 64, 1536, 49152, tied=True)
GIB = 1 << 30


def taken(**changes: Any) -> TrainingMemory:
    given: dict[str, Any] = {
        "lora": LoraConfig(),
        "training": TrainingConfig(),
        "precision": "fp32",
        "longest": 256,
        "checkpointing": False,
        **changes,
    }
    return training_memory(SMOLLM2, given.pop("lora"), given.pop("training"), given.pop("precision"), **given)


def test_the_weights_of_smollm2_are_counted_to_the_last() -> None:
    norms = (2 * SMOLLM2.layers + 1) * SMOLLM2.hidden
    assert SMOLLM2.linear_weights + SMOLLM2.table_weights + norms == 134_515_008
    assert SMOLLM2.adapter_weights(16) == 4_884_480


def test_a_shape_is_read_from_a_checkpoint(tmp_path: Path) -> None:
    shape = read_shape(tiny_checkpoint(tmp_path / "tiny"))
    assert (shape.layers, shape.hidden, shape.heads, shape.kv_heads, shape.head_width) == (2, 64, 4, 2, 16)
    assert shape.feed_forward == 128
    with pytest.raises(ModelFileError, match="shape"):
        read_shape(tmp_path)


def test_a_precision_decides_the_base_alone_and_not_the_adapter() -> None:
    sizes = {name: taken(precision=name) for name in ("fp32", "bf16", "8bit", "4bit")}
    bases = [each.base for each in sizes.values()]
    assert bases == sorted(bases, reverse=True)
    assert len({each.adapter for each in sizes.values()}) == 1
    assert taken(lora=LoraConfig(frozen_a=True)).adapter < taken().adapter


@given(batch=st.integers(1, 64), longest=st.integers(32, 4096), rank=st.integers(1, 256))
def test_checkpointing_saves_where_there_is_much_and_the_rest_grows_with_the_batch(
    batch: int, longest: int, rank: int
) -> None:
    lora, training = LoraConfig(r=rank), TrainingConfig(batch_size=batch)
    plain = taken(lora=lora, training=training, longest=longest)
    twice = taken(lora=lora, training=training, longest=longest, checkpointing=True)
    assert twice.activations < plain.activations
    assert (twice.base, twice.adapter, twice.head) == (plain.base, plain.adapter, plain.head)
    more = taken(lora=lora, training=TrainingConfig(batch_size=batch + 1), longest=longest)
    assert more.total > plain.total
    eager = taken(lora=lora, training=TrainingConfig(batch_size=batch, attention="eager"), longest=longest)
    assert eager.activations > plain.activations


def test_auto_computes_twice_only_where_it_must() -> None:
    def chosen(setting: Any, memory: int) -> bool:
        training = TrainingConfig(gradient_checkpointing=setting)
        return decide(SMOLLM2, LoraConfig(), training, "bf16", longest=512, memory=memory).checkpointing

    assert not chosen("auto", 64 * GIB)
    assert chosen("auto", 4 * GIB)
    assert chosen("on", 64 * GIB)
    assert not chosen("off", 4 * GIB)
