"""The estimate against what llama.cpp logs for SmolLM2-135M, and its shape."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentlab.gguf.memory import estimate
from agentlab.gguf.metadata import GgufMetadata

SMOLLM2 = GgufMetadata(
    architecture="llama",
    name="SmolLM2 135M",
    parameters=134_515_008,
    quantisation="Q4_1",
    weight_bytes=96_576_768,
    file_bytes=98_362_432,
    context_length=8192,
    layers=30,
    embedding=576,
    feed_forward=(1536,) * 30,
    heads=9,
    heads_kv=(3,) * 30,
    key_length=64,
    value_length=64,
    vocabulary=49_152,
    chat_template=True,
)


@pytest.mark.parametrize(
    ("context", "batch", "cache_mib", "compute_mib"), [(2048, 512, 45.0, 107.52), (8192, 512, 180.0, 167.51)]
)
def test_it_agrees_with_the_log_of_llama_cpp(context: int, batch: int, cache_mib: float, compute_mib: float) -> None:
    found = estimate(SMOLLM2, context, batch)
    assert found.weights / 2**20 == pytest.approx(92.10, abs=0.01)
    assert found.cache / 2**20 == pytest.approx(cache_mib)
    assert found.compute / 2**20 == pytest.approx(compute_mib, rel=0.01)
    assert found.total == found.weights + found.cache + found.compute + found.process


@given(st.integers(1, 10**5), st.integers(1, 4096))
def test_more_context_or_a_larger_batch_never_takes_less(context: int, batch: int) -> None:
    found = estimate(SMOLLM2, context, batch).total
    assert estimate(SMOLLM2, context + 1, batch).total >= found
    assert estimate(SMOLLM2, context, batch + 1).total >= found


def test_layers_with_fewer_heads_take_a_smaller_cache() -> None:
    mixed = replace(SMOLLM2, heads_kv=(3, 1) * 15)
    assert estimate(mixed, 2048).cache * 3 == estimate(SMOLLM2, 2048).cache * 2


@pytest.mark.parametrize(("context", "batch"), [(0, 1), (1, 0)])
def test_nothing_is_no_size(context: int, batch: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        estimate(SMOLLM2, context, batch)
