"""Which conversations share a batch or a row: every one once an epoch, in an order that seed and epoch decide."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentlab.train.config import TrainingConfig
from agentlab.train.schedule import batches_of, optimizer_steps, packed_batches, sorted_batches

LENGTHS = st.lists(st.integers(1, 64), min_size=1, max_size=60)
EPOCHS = st.integers(0, 5)
rng = random.Random(0)
SKEWED = [min(512, int(rng.lognormvariate(4.5, 0.7)) + 1) for _ in range(300)]


def flat(batches):
    return sorted(index for batch in batches for row in batch for index in row)


def padding(batches, lengths):
    """Share of the tokens that are padding."""
    sizes = [[sum(lengths[index] for index in row) for row in batch] for batch in batches]
    total = sum(max(batch) * len(batch) for batch in sizes)
    return 1 - sum(map(sum, sizes)) / total


@given(LENGTHS, st.integers(1, 9), EPOCHS)
def test_sorted_batches_hold_every_conversation_once(lengths, size, epoch):
    batches = sorted_batches(lengths, size, 0, epoch)
    assert flat(batches) == list(range(len(lengths)))
    assert len(batches) == -(-len(lengths) // size)
    assert sorted(map(len, batches))[1:] == [size] * (len(batches) - 1)


@given(LENGTHS, st.integers(1, 4), EPOCHS)
def test_packed_rows_hold_every_conversation_once_and_are_not_longer_than_allowed(lengths, size, epoch):
    batches = packed_batches(lengths, size, 64, 0, epoch)
    assert flat(batches) == list(range(len(lengths)))
    used = [sum(lengths[index] for index in row) for batch in batches for row in batch]
    assert max(used) <= 64
    assert len(used) < 2 or sum(sorted(used)[:2]) > 64  # no two rows could be one
    assert len(batches) == len(packed_batches(lengths, size, 64, 0, epoch + 1))


@pytest.mark.parametrize("batching", ["sorted", "packed"])
def test_an_epoch_is_always_the_same_and_differs_from_the_others(batching):
    def batches(seed, epoch):
        return batches_of(SKEWED, TrainingConfig(batch_size=4, max_length=512), batching, seed, epoch)

    assert batches(0, 3) == batches(0, 3)
    assert batches(0, 3) != batches(0, 4)
    assert batches(0, 3) != batches(1, 3)
    lengths = [sum(SKEWED[index] for row in batch for index in row) for batch in batches(0, 0)]
    assert lengths not in (sorted(lengths), sorted(lengths, reverse=True))


def test_conversations_meet_others_in_every_epoch():
    def company(epoch):
        return {frozenset(index for row in batch for index in row) for batch in sorted_batches(SKEWED, 4, 0, epoch)}

    assert len(company(0) & company(1)) < len(company(0)) / 4


def test_little_is_padding():
    shuffled = sorted(range(len(SKEWED)), key=lambda index: random.Random(index).random())
    as_they_come = [tuple((index,) for index in shuffled[at : at + 8]) for at in range(0, len(shuffled), 8)]
    assert padding(as_they_come, SKEWED) > 0.4
    assert padding(sorted_batches(SKEWED, 8, 0, 0), SKEWED) < 0.2
    assert padding(packed_batches(SKEWED, 1, 512, 0, 0), [*SKEWED]) == 0
    rows = sum(len(batch) for batch in packed_batches(SKEWED, 8, 512, 0, 0))
    assert rows * 512 < 1.03 * sum(SKEWED)


def test_what_is_longer_than_a_row_is_refused():
    with pytest.raises(ValueError, match="has 65 tokens, but a row holds only 64"):
        packed_batches([3, 65], 2, 64, 0, 0)


@pytest.mark.parametrize(
    ("batches", "grad_accum", "epochs", "steps"), [(10, 1, 3.0, 30), (10, 4, 3.0, 9), (10, 4, 0.5, 2), (1, 8, 0.1, 1)]
)
def test_the_number_of_steps_is_known_beforehand(batches, grad_accum, epochs, steps):
    assert optimizer_steps(batches, grad_accum, epochs) == steps


@pytest.mark.parametrize(("batches", "epochs", "steps"), [(100, 0.07, 7), (50, 1.1, 55), (50, 1.11, 56), (3, 1e-5, 1)])
def test_a_fraction_of_an_epoch_counts_as_it_is_written(batches, epochs, steps):
    assert optimizer_steps(batches, 1, epochs) == steps


@given(st.integers(1, 10_000), st.integers(1, 64), st.integers(1, 4000).map(lambda quarters: quarters / 4))
def test_halves_and_quarters_are_exact_in_any_arithmetic(batches, grad_accum, epochs):
    assert optimizer_steps(batches, grad_accum, epochs) == math.ceil(epochs * math.ceil(batches / grad_accum))
