"""Memory of a training by closed form: known shapes, what makes it grow, when activations are computed twice."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentlab.errors import ModelFileError
from agentlab.train.config import LoraConfig, TrainingConfig
from agentlab.train.data_report import TokenCounts
from agentlab.train.estimate import ModelShape, TrainingMemory, read_shape, run_memory, training_memory

from .tiny_base import tiny_checkpoint

SMOLLM2 = ModelShape(30, 576, 9, 3, 64, 1536, 49152, tied=True)
GIB = 1 << 30


def taken(**changes: Any) -> TrainingMemory:
    arguments: dict[str, Any] = {
        "lora": LoraConfig(),
        "training": TrainingConfig(),
        "precision": "fp32",
        "longest": 256,
        "memory": 1 << 60,
        **changes,
    }
    return training_memory(
        SMOLLM2, arguments.pop("lora"), arguments.pop("training"), arguments.pop("precision"), **arguments
    )


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
    bases = [memory.base for memory in sizes.values()]
    assert bases == sorted(bases, reverse=True)
    assert len({memory.adapter for memory in sizes.values()}) == 1
    assert taken(lora=LoraConfig(frozen_a=True)).adapter < taken().adapter


@given(batch=st.integers(1, 64), longest=st.integers(32, 4096), rank=st.integers(1, 256))
def test_checkpointing_saves_where_there_is_much_and_the_rest_grows_with_the_batch(
    batch: int, longest: int, rank: int
) -> None:
    lora, training = LoraConfig(r=rank), TrainingConfig(batch_size=batch)
    plain = taken(lora=lora, training=training, longest=longest)
    twice = taken(lora=lora, training=training, longest=longest, memory=0)
    assert twice.activations < plain.activations
    assert (twice.base, twice.adapter, twice.head) == (plain.base, plain.adapter, plain.head)
    larger_batch = taken(lora=lora, training=TrainingConfig(batch_size=batch + 1), longest=longest)
    assert larger_batch.total > plain.total
    eager = taken(lora=lora, training=TrainingConfig(batch_size=batch, attn_implementation="eager"), longest=longest)
    assert eager.activations > plain.activations


def test_auto_computes_twice_only_where_it_must() -> None:
    def chosen(setting: Any, memory: int) -> bool:
        training = TrainingConfig(gradient_checkpointing=setting)
        return training_memory(SMOLLM2, LoraConfig(), training, "bf16", longest=512, memory=memory).checkpointing

    assert not chosen("auto", 64 * GIB)
    assert chosen("auto", 4 * GIB)
    assert chosen("on", 64 * GIB)
    assert not chosen("off", 4 * GIB)


def tokens(longest: int, learnt: float = 0.5) -> TokenCounts:
    """Of ten conversations that are all as long."""
    total = 10 * longest
    return TokenCounts(
        total=total,
        shortest=longest,
        median=longest,
        longest=longest,
        learnt=round(learnt * total),
        truncated=0,
        dropped_turns=0,
    )


def needed(*longest: int, together: bool = False, device: str = "cpu", **changes: Any) -> TrainingMemory:
    training = TrainingConfig(gradient_checkpointing="off", **changes)
    data = [tokens(length) for length in longest]
    return run_memory(SMOLLM2, LoraConfig(), training, "bf16", data, together=together, device=device, memory=64 * GIB)


def of_rows(longest: int, **changes: Any) -> TrainingMemory:
    """What a training takes with batches of 8 rows of so many tokens."""
    return taken(**{"precision": "bf16", "longest": longest, "learnt": 0.5, **changes})


def test_sorted_rows_are_as_long_as_a_conversation_and_packed_ones_as_they_may_be() -> None:
    assert needed(100) == of_rows(100)
    assert needed(100, batching="packed") == of_rows(1024)
    assert needed(100, device="cuda") == of_rows(1024)  # where auto packs
    assert needed(100, device="cuda", batching="sorted", max_length=512) == of_rows(100)


def test_trainings_in_turn_take_what_the_largest_takes() -> None:
    assert needed(100, 300, 200) == needed(300)


def test_together_a_cpu_takes_one_batch_at_a_time_and_a_gpu_all_of_them() -> None:
    assert needed(100, 300, 200, together=True) == of_rows(300, adapters=3)
    wide = of_rows(300, adapters=3, training=TrainingConfig(batch_size=24))
    assert needed(100, 300, 200, together=True, device="cuda", batching="sorted") == wide
    one_row = {"device": "cuda", "attn_implementation": "flash_attention_2"}  # which has room for one adapter
    assert needed(100, 300, together=True, **one_row) == of_rows(1024, adapters=2)
    assert needed(100, together=True, device="cuda") == needed(100, device="cuda")


def test_adapters_that_are_trained_together_have_weights_gradients_and_moments_each() -> None:
    one, three = taken(), taken(adapters=3)
    assert three.adapter == 3 * one.adapter
    assert three.total - one.total == 2 * one.adapter
    shared = 4 * (SMOLLM2.adapter_weights(16) - SMOLLM2.b_weights(16))
    frozen = LoraConfig(frozen_a=True)
    assert taken(lora=frozen, adapters=3).adapter - shared == 3 * (taken(lora=frozen).adapter - shared)
