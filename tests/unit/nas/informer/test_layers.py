"""Distilling, causality and the cost of being faithful."""

import pytest
import torch

from agentlab.nas.config import ModelConfig
from agentlab.nas.informer.layers import Distil, InformerDecoder, InformerEncoder

SMALL = ModelConfig(d_model=8, n_heads=2, e_layers=3, ff_multiplier=1, dropout=0.0)


@pytest.mark.parametrize(("length", "after"), [(96, 48), (25, 13), (13, 7), (2, 1)])
def test_distilling_halves_the_length_rounding_up(length, after):
    assert Distil(8)(torch.randn(2, length, 8)).shape == (2, after, 8)


def test_the_encoder_distils_between_layers_only():
    x = torch.randn(2, 96, 8)
    assert InformerEncoder(SMALL)(x).shape == (2, 24, 8)
    assert len(InformerEncoder(SMALL).distils) == 2
    assert InformerEncoder(SMALL.model_copy(update={"distil": False}))(x).shape == (2, 96, 8)
    assert InformerEncoder(SMALL.model_copy(update={"e_layers": 1}))(x).shape == (2, 96, 8)


def test_the_convolution_of_distilling_is_circular():
    torch.manual_seed(0)
    distil = Distil(4).eval()
    x = torch.randn(1, 8, 4)
    # Turning the input by two steps turns the convolved series by two; away from the padded pool so does the output.
    turned = distil(x.roll(2, dims=1))
    assert torch.allclose(turned[:, 2:], distil(x)[:, 1:-1], atol=1e-6)


def test_full_decoder_self_attention_sees_no_future_step():
    torch.manual_seed(0)
    config = SMALL.model_copy(update={"attention": "full", "mix": False})
    decoder = InformerDecoder(config).eval()
    memory, x = torch.randn(1, 6, 8), torch.randn(1, 10, 8)
    changed = x.clone()
    changed[:, 7:] += 1
    assert torch.allclose(decoder(x, memory, 10)[:, :7], decoder(changed, memory, 10)[:, :7], atol=1e-6)
    assert not torch.allclose(decoder(x, memory, 10)[:, 7:], decoder(changed, memory, 10)[:, 7:])


@pytest.mark.parametrize("mix", [False, True])
def test_steps_before_the_forecast_need_not_be_worked_out_in_the_last_layer(mix):
    torch.manual_seed(0)
    decoder = InformerDecoder(SMALL.model_copy(update={"d_layers": 2, "mix": mix, "factor": 1})).eval()
    memory, x = torch.randn(2, 6, 8), torch.randn(2, 20, 8)
    assert torch.allclose(decoder(x, memory, 4), decoder(x, memory, 20)[:, -4:], atol=1e-6)


def test_only_the_faithful_network_drops_attention_weights():
    default = ModelConfig(d_model=8, n_heads=2, dropout=0.3)
    faithful = ModelConfig(d_model=8, n_heads=2, dropout=0.3, faithful=True)
    assert [InformerDecoder(c).layers[0].cross.sparsity.dropout for c in (default, faithful)] == [0.0, 0.3]
