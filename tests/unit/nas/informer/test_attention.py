"""ProbSparse attention against numbers that can be followed by hand."""

import math

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody uses
from hypothesis import given, settings
from hypothesis import strategies as st

from agentlab.nas.informer.attention import Attention, Sparsity, attend_sparsely, sample_size, sparsity_scores


def column(*numbers: float) -> torch.Tensor:
    """One batch, one head, depth 1."""
    return torch.tensor(numbers, dtype=torch.float32).view(1, 1, -1, 1)


@pytest.mark.parametrize(
    ("factor", "length", "expected"),
    [(3, 48, 12), (5, 96, 25), (5, 20, 15), (5, 10, 10), (1, 2, 1), (5, 1, 1)],
)
def test_sample_size_is_factor_times_ceil_of_log_between_one_and_the_length(factor, length, expected):
    assert sample_size(factor, length) == expected


def test_sparsity_is_the_largest_sampled_score_less_their_sum_over_all_keys():
    # Query 2 looks at keys 1 and 3 of (1, 2, 3, 4): scores 4 and 8, so 8 - 12 / 4 = 5.
    # Query 1 looks at keys 0 and 1: scores 1 and 2, so 2 - 3 / 4 = 1.25.
    scores = sparsity_scores(column(2, 1), column(1, 2, 3, 4), torch.tensor([[1, 3], [0, 1]]))
    assert scores.flatten().tolist() == [5.0, 1.25]


def test_unselected_queries_of_the_encoder_take_the_mean_of_the_values():
    values = column(3, 6, 9)
    top = torch.tensor([[[1]]])
    result = attend_sparsely(column(0, math.log(2), 0), column(0, 0, 1), values, top, causal=False).flatten()
    # Query 1 scores (0, 0, ln 2): weights 1/4, 1/4, 1/2.
    assert torch.allclose(result, torch.tensor([6.0, 3 / 4 + 6 / 4 + 9 / 2, 6.0]))


def test_unselected_queries_of_the_decoder_take_the_running_sum_and_selected_ones_see_no_future():
    values = column(3, 6, 9)
    top = torch.tensor([[[1]]])
    result = attend_sparsely(column(0, 1, 0), column(0, 0, 5), values, top, causal=True).flatten()
    # Query 1 may see keys 0 and 1 only, which score alike: the mean of 3 and 6.
    assert torch.allclose(result, torch.tensor([3.0, 4.5, 18.0]))


@given(st.integers(2, 9), st.integers(2, 9), st.integers(0, 2**31 - 1), st.booleans())
@settings(max_examples=30, deadline=None)
def test_selecting_every_query_is_full_attention(length, depth, seed, causal):
    generator = torch.Generator().manual_seed(seed)
    q, k, v = (torch.randn(2, 3, length, depth, generator=generator) for _ in range(3))
    top = torch.arange(length).expand(2, 3, -1)
    full = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
    assert torch.allclose(attend_sparsely(q, k, v, top, causal=causal), full, atol=1e-5)


def test_a_factor_that_selects_everything_equals_full_attention():
    torch.manual_seed(0)
    x = torch.randn(2, 10, 8)
    sparse = Attention(8, 2, Sparsity(factor=5, dropout=0.0), causal=True)
    full = Attention(8, 2, Sparsity(factor=None, dropout=0.0), causal=True)
    full.load_state_dict(sparse.state_dict())
    assert torch.equal(sparse(x, x), full(x, x))


def test_scoring_twice_agrees_and_training_samples_anew():
    torch.manual_seed(0)
    attention = Attention(8, 2, Sparsity(factor=1, dropout=0.0))
    x = torch.randn(4, 64, 8)
    with torch.no_grad():
        attention.eval()
        first = attention(x, x)
        torch.manual_seed(99)
        assert torch.equal(attention(x, x), first)
        assert torch.allclose(attention(x[:1], x[:1]), attention(x, x)[:1], atol=1e-6)
        attention.train()
        assert not torch.equal(attention(x, x), attention(x, x))


def test_mix_lays_out_heads_before_steps():
    # Identity projections and one key: every query's context is that key's value (1, 2, 3, 4), heads (1, 2) and (3, 4).
    memory = torch.tensor([[[1.0, 2.0, 3.0, 4.0]]])
    plain, mixed = (Attention(4, 2, Sparsity(None, 0.0), mix=mix) for mix in (False, True))
    for attention in (plain, mixed):
        for projection in (attention.query, attention.key, attention.value, attention.out):
            projection.load_state_dict({"weight": torch.eye(4), "bias": torch.zeros(4)})
    x = torch.zeros(1, 2, 4)
    assert plain(x, memory).tolist() == [[[1, 2, 3, 4], [1, 2, 3, 4]]]
    assert mixed(x, memory).tolist() == [[[1, 2, 1, 2], [3, 4, 3, 4]]]


def test_gradients_reach_queries_keys_and_values_of_selected_steps():
    torch.manual_seed(0)
    attention = Attention(8, 2, Sparsity(factor=1, dropout=0.0), causal=True)
    x = torch.randn(2, 32, 8)
    attention(x, x).square().sum().backward()
    for projection in (attention.query, attention.key, attention.value, attention.out):
        assert projection.weight.grad is not None
        assert projection.weight.grad.abs().sum() > 0
