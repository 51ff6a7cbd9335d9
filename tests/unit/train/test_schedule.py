"""When batches, learning rates, scorings and checkpoints come."""

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentlab.train.config import TrainingConfig
from agentlab.train.schedule import Steps, is_over, learning_rate, marks


@given(
    count=st.integers(1, 40),
    batch=st.integers(1, 9),
    accum=st.integers(1, 5),
    devices=st.integers(1, 3),
)
def test_an_epoch_shows_every_conversation_to_some_device_and_ends_with_a_step(
    count: int, batch: int, accum: int, devices: int
) -> None:
    training = TrainingConfig(batch_size=batch, grad_accum=accum, epochs=2)
    steps = Steps([7 + index % 5 for index in range(count)], training, "sorted", seed=1, devices=devices)
    assert steps.total == 2 * steps.per_epoch
    for epoch in range(2):
        seen: Counter[int] = Counter()
        for step in range(epoch * steps.per_epoch, (epoch + 1) * steps.per_epoch):
            shares = [steps.of(step, device) for device in range(devices)]
            assert {len(share) for share in shares} == {len(shares[0])}  # nobody waits for a batch that never comes
            assert 1 <= len(shares[0]) <= accum
            seen.update(index for share in shares for one in share for row in one for index in row)
        assert set(seen) == set(range(count))
        assert devices > 1 or set(seen.values()) == {1}


def test_the_batches_of_a_step_do_not_depend_on_what_was_asked_before() -> None:
    training = TrainingConfig(batch_size=2, grad_accum=2, epochs=3)
    first, second = (Steps(list(range(5, 25)), training, "sorted", seed=4) for _ in range(2))
    forwards = [first.of(step) for step in range(first.total)]
    assert [second.of(step) for step in reversed(range(second.total))] == forwards[::-1]
    assert forwards[: first.per_epoch] != forwards[first.per_epoch : 2 * first.per_epoch]


@given(schedule=st.sampled_from(["cosine", "linear", "constant"]), warmup=st.floats(0, 0.9), steps=st.integers(1, 300))
def test_a_rate_rises_to_the_highest_and_falls_and_is_never_zero(schedule: Any, warmup: float, steps: int) -> None:
    training = TrainingConfig(lr=0.1, schedule=schedule, warmup=warmup)
    rates = [learning_rate(training, step, steps) for step in range(steps)]
    assert all(0 < rate <= 0.1 for rate in rates)
    top = rates.index(max(rates))
    assert rates[:top] == sorted(rates[:top])
    assert rates[top:] == sorted(rates[top:], reverse=True)


def test_known_rates() -> None:
    cosine = TrainingConfig(lr=1.0, warmup=0)
    assert [learning_rate(cosine, step, 4) for step in (0, 2)] == pytest.approx([1.0, 0.5])
    linear = TrainingConfig(lr=1.0, warmup=0.5, schedule="linear")
    assert [learning_rate(linear, step, 4) for step in range(4)] == pytest.approx([1 / 3, 2 / 3, 1.0, 0.5])


def test_marks_divide_a_training_evenly_and_end_with_it() -> None:
    assert sorted(marks(12, 4)) == [3, 6, 9, 12]
    assert sorted(marks(3, 10)) == [1, 2, 3]


def test_a_training_is_over_at_its_end_or_when_patience_runs_out() -> None:
    training = TrainingConfig(patience=2)
    assert is_over(training, 5, 5, [])
    assert not is_over(training, 3, 5, [(1, 2.0), (2, 2.5)])
    assert is_over(training, 3, 5, [(1, 2.0), (2, 2.5), (3, 2.0)])
    assert not is_over(TrainingConfig(), 3, 5, [(1, 2.0), (2, 2.5), (3, 2.6)])
