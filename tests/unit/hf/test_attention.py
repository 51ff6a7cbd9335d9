"""Texts side by side: what is computed together, and that a model keeps its own attention."""

from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from agentlab.hf.attention import attending, may_attend, of_rows, of_texts, together

SIZES: dict[str, Any] = {
    "vocab_size": 32, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4,
    "num_key_value_heads": 2,
}  # fmt: skip


def test_rows_of_like_length_are_computed_together() -> None:
    assert together([400, 396, 30, 20]) == [slice(0, 2), slice(2, 4)]
    assert together([20, 30, 25]) == [slice(0, 3)]
    assert together([900, 20, 900, 900]) == [slice(0, 1), slice(1, 2), slice(2, 4)]


def test_each_row_sees_its_own_columns() -> None:
    query, key, value = torch.randn(3, 4, 1, 8), torch.randn(3, 2, 9, 8), torch.randn(3, 2, 9, 8)
    lengths, model = [9, 8, 3], LlamaForCausalLM(LlamaConfig(**SIZES)).model.layers[0].self_attn
    for shares in ([slice(0, 3)], [slice(0, 2), slice(2, 3)]):
        output = of_rows(lengths, shares, torch.float32)(model, query, key, value, None)
        for row, length in enumerate(lengths):
            columns = [side[row : row + 1, :, -length:].repeat_interleave(2, dim=1) for side in (key, value)]
            alone = torch.nn.functional.scaled_dot_product_attention(query[row : row + 1], *columns)
            assert torch.allclose(output[row, 0], alone[0, :, 0], atol=1e-6)


def test_a_model_has_its_own_attention_again_even_after_an_error() -> None:
    model = LlamaForCausalLM(LlamaConfig(**SIZES)).eval()
    tokens = torch.tensor([[5, 6, 7]])
    with torch.inference_mode():
        before = model(tokens).logits
        with pytest.raises(RuntimeError), attending(model, of_texts([1, 1])):  # there are three
            model(tokens.T)
        assert torch.equal(model(tokens).logits, before)
        assert may_attend(model)
    model.set_attn_implementation("eager")
    assert not may_attend(model)
