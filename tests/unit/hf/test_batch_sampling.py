"""What the next token is: the likeliest, or drawn from the likely ones."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from agentlab.hf.batch import pick

LOGITS = torch.tensor([0.5, 3.0, 2.0, -1.0]).log_softmax(-1)


def draws(temperature, top_p, seed=0, n=400):
    generator = torch.Generator().manual_seed(seed)
    return [pick(LOGITS, temperature, top_p, generator) for _ in range(n)]


def test_temperature_zero_is_the_likeliest_and_draws_nothing():
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    assert pick(LOGITS, 0, 0.5, generator) == 1
    assert torch.equal(generator.get_state(), before)


def test_a_seed_repeats_its_draws():
    assert draws(1.0, None) == draws(1.0, None)
    assert draws(1.0, None) != draws(1.0, None, seed=1)


def test_tokens_are_drawn_by_their_probability():
    tokens = draws(1.0, None, n=4000)
    shares = [tokens.count(token) / 4000 for token in range(4)]
    assert shares == pytest.approx(LOGITS.exp().tolist(), abs=0.03)


@pytest.mark.parametrize(("top_p", "nucleus"), [(0.5, {1}), (0.65, {1}), (0.71, {1, 2}), (1.0, {0, 1, 2, 3})])
def test_top_p_keeps_the_smallest_set_that_is_likely_enough(top_p, nucleus):
    assert LOGITS.exp().tolist() == pytest.approx([0.056, 0.688, 0.253, 0.013], abs=0.01)
    assert set(draws(1.5 if top_p == 1 else 1.0, top_p, n=1000)) == nucleus


@given(st.lists(st.floats(-30, 30), min_size=1, max_size=8), st.floats(0.05, 5), st.floats(0.01, 1), st.integers(0, 99))
def test_a_token_outside_the_set_is_never_drawn(logits, temperature, top_p, seed):
    tensor = torch.tensor(logits)
    token = pick(tensor, temperature, top_p, torch.Generator().manual_seed(seed))
    chances = torch.softmax(tensor.double() / temperature, -1)
    assert float(chances[chances > chances[token]].sum()) < top_p + 1e-9


@pytest.mark.parametrize("temperature", [5e-324, 1e-310, 1e-300])
def test_the_smallest_temperature_draws_the_likeliest(temperature):
    assert set(draws(temperature, None, n=5)) == set(draws(temperature, 0.9, n=5)) == {1}


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_a_model_that_overflows_says_something(value):
    assert pick(torch.full((4,), float(value)), 1.0, 0.9, torch.Generator()) in range(4)


@pytest.mark.parametrize("top_p", [None, 0.01, 0.5, 0.9, 0.999, 1.0])
@pytest.mark.parametrize("scale", [0.0, 0.5, 3.0, 10.0, 300.0])
def test_what_is_drawn_is_what_multinomial_draws_of_all_tokens_in_their_order(scale, top_p):
    noise, one, reference = (torch.Generator().manual_seed(seed) for seed in (0, 1, 1))
    for size in (1, 7, 6000, 6000, 6000):
        logits = torch.randn(size, generator=noise).mul(scale).bfloat16().float()  # many are equal
        chances, tokens = torch.softmax((logits.double() - logits.max()) / 0.8, -1).sort(descending=True, stable=True)
        if top_p is not None:
            chances = chances.where(chances.cumsum(-1) - chances < top_p, 0.0)
        for _ in range(5):
            expected = int(tokens[torch.multinomial(chances, 1, generator=reference)])
            assert pick(logits, 0.8, top_p, one) == expected
    assert torch.equal(one.get_state(), reference.get_state())
