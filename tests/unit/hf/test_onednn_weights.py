"""Packed weights: the same answers up to rounding, and afterwards the same model to the bit."""

import pytest
import torch
from torch.nn.utils import parametrize

from agentlab.errors import UsageError
from agentlab.hf.onednn_weights import pack_weights

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch without oneDNN packs nothing")


class Tied(torch.nn.Module):
    """An embedding, a layer of its own, and a head that shares the embedding's weights."""

    def __init__(self, dtype=torch.float32):
        super().__init__()
        self.embedding = torch.nn.Embedding(48, 24)
        self.layer = torch.nn.Linear(24, 24)
        self.head = torch.nn.Linear(24, 48, bias=False)
        self.head.weight = self.embedding.weight
        self.to(dtype)

    def forward(self, ids):
        return self.head(torch.tanh(self.layer(self.embedding(ids))))


@pytest.fixture
def ids():
    return torch.randint(0, 48, (5, 7), generator=torch.Generator().manual_seed(0))


@pytest.fixture
def model():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Tied()


@pytest.mark.parametrize("inference", [True, False])
def test_answers_are_the_same_and_the_weights_come_back(model, ids, inference):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.inference_mode(inference), torch.no_grad():
        expected = model(ids)
        with pack_weights(model):
            assert model.layer.weight.numel() == 0  # no second copy
            assert model.head.weight.shape == (48, 24)  # shared with the embedding, which still needs it
            output = model(ids)
    torch.testing.assert_close(output, expected, rtol=1e-5, atol=1e-6)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    model(ids).sum().backward()  # it can be trained again
    assert model.layer.weight.grad.abs().sum() > 0
    assert model.head.weight is model.embedding.weight


def test_the_products_are_packed_ones(model, ids):
    """Otherwise the other tests would compare a model with itself."""
    with torch.no_grad(), pack_weights(model), torch.profiler.profile() as profile:
        model(ids)
    names = [event.name for event in profile.events()]
    assert names.count("mkldnn::_linear_pointwise") == 2
    assert "aten::linear" not in names


@pytest.mark.parametrize("shape", [(24,), (3, 24), (2, 3, 24), (0, 24)])
def test_inputs_of_any_shape_and_stride(model, shape):
    x = torch.randn(*shape[:-1], shape[-1] * 2, generator=torch.Generator().manual_seed(1))[..., ::2]
    with torch.no_grad():
        expected = model.layer(x)
        with pack_weights(model):
            torch.testing.assert_close(model.layer(x), expected, rtol=1e-5, atol=1e-6)


def test_bfloat16(ids):
    model = Tied(torch.bfloat16)
    with torch.no_grad():
        expected = model(ids)
        with pack_weights(model):
            output = model(ids)
    assert output.dtype is torch.bfloat16
    torch.testing.assert_close(output, expected, rtol=2e-2, atol=2e-2)


def test_hooks_see_the_packed_output(model, ids):
    model.layer.register_forward_hook(lambda module, inputs, output: output * 0)
    with torch.no_grad(), pack_weights(model):
        assert not model(ids).any()


def test_an_error_in_the_block_gives_the_weights_back_too(model, ids):
    before = model.layer.weight.detach().clone()
    with pytest.raises(KeyError), pack_weights(model):
        raise KeyError
    assert torch.equal(model.layer.weight, before)


def test_a_gradient_is_refused_instead_of_lost(model, ids):
    x = torch.randn(2, 24, requires_grad=True)
    with pack_weights(model), pytest.raises(UsageError, match="gradient"):
        model.layer(x)


def test_what_cannot_be_packed_is_left_alone(ids):
    half = Tied(torch.float16)
    parametric = torch.nn.Sequential(torch.nn.Linear(8, 8))
    parametrize.register_parametrization(parametric[0], "weight", torch.nn.Identity())  # a class of its own
    with pack_weights(half), pack_weights(parametric):
        assert half.layer.weight.numel() == 24 * 24
        assert "forward" not in vars(half.layer) | vars(parametric[0])
