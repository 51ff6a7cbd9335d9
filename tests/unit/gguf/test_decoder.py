"""What of a prompt is known from the one before."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentlab.gguf.decoder import reusable

TOKENS = st.lists(st.integers(0, 2), max_size=40)


@pytest.mark.parametrize(
    ("cached", "prompt", "expected"),
    [
        ([], [1, 2, 3], 0),
        ([1, 2, 3, 4, 5], [1, 2, 3, 4, 9], 4),
        ([1, 2, 3, 4, 5], [1, 2, 3, 9, 9], 2),  # cut down to a whole batch
        ([1, 2, 3, 4], [1, 2, 3, 4], 2),  # the logits of the last token are wanted
        ([1, 2, 3, 4], [1, 2, 3, 4, 5], 4),
        ([1, 2, 3, 4], [9, 2, 3, 4, 5], 0),
    ],
)
def test_whole_batches_of_the_shared_beginning_are_reused(cached: list[int], prompt: list[int], expected: int) -> None:
    assert reusable(cached, prompt, batch=2) == expected


@given(TOKENS, TOKENS, st.integers(1, 9))
def test_it_is_the_longest_whole_number_of_batches_that_is_shared(
    cached: list[int], prompt: list[int], batch: int
) -> None:
    shared_length = reusable(cached, prompt, batch)
    assert shared_length % batch == 0
    assert cached[:shared_length] == prompt[:shared_length]
    longer = shared_length + batch
    assert longer > len(prompt) - 1 or longer > len(cached) or cached[:longer] != prompt[:longer]
