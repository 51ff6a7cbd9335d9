"""The whole network: shapes, and the switches beyond the paper."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agentlab.nas.config import DataConfig, ModelConfig, TrialConfig
from agentlab.nas.informer.layers import sine_positions
from agentlab.nas.informer.model import Informer, InformerShape, Shortcut, WindowNorm


def trial(**model) -> TrialConfig:
    return TrialConfig(
        data=DataConfig(input_length=24, horizon=6, label_share=0.5),
        model=ModelConfig(**{"d_model": 8, "n_heads": 2, "ff_multiplier": 1, "dropout": 0.0, **model}),
    )


def forecast(model: Informer, window: torch.Tensor) -> torch.Tensor:
    steps = model.horizon + window.shape[1]
    return model.eval()(window, torch.zeros(len(window), steps, 4))


@pytest.mark.parametrize("targets", [(0, 1, 2), (2,)])
@pytest.mark.parametrize("switches", [{}, {"normalize": True, "shortcut": True}])
def test_the_forecast_has_a_step_per_horizon_and_a_column_per_target(targets, switches):
    model = Informer(trial(**switches), InformerShape(channels=3, time_channels=4, targets=targets))
    assert forecast(model, torch.randn(5, 24, 3)).shape == (5, 6, len(targets))


@pytest.mark.parametrize("attention", ["prob", "full"])
@pytest.mark.parametrize("label_share", [0.0, 0.5, 1.0])
def test_a_horizon_of_one_step_works(attention, label_share):
    config = TrialConfig(
        data=DataConfig(input_length=8, horizon=1, label_share=label_share),
        model=ModelConfig(d_model=8, n_heads=2, attention=attention),
    )
    model = Informer(config, InformerShape(2, 4, (0, 1))).train()
    result = model(torch.randn(3, 8, 2), torch.zeros(3, 9, 4))
    result.sum().backward()
    assert result.shape == (3, 1, 2)


def test_with_the_shortcut_an_untrained_network_repeats_the_last_value():
    window = torch.randn(5, 24, 2)
    for switches in ({"shortcut": True}, {"shortcut": True, "normalize": True}):
        model = Informer(trial(**switches), InformerShape(2, 4, (0, 1)))
        assert torch.allclose(forecast(model, window), window[:, -1:].expand(-1, 6, -1), atol=1e-5)


def test_the_shortcut_is_linear_in_the_window_centred_on_its_last_value():
    shortcut = Shortcut(input_length=3, horizon=1)
    with torch.no_grad():
        shortcut.weight.copy_(torch.tensor([[1.0, 10.0, 100.0]]))
    window = torch.tensor([[[1.0], [2.0], [4.0]]])
    assert shortcut(window).item() == pytest.approx(4 + 1 * (1 - 4) + 10 * (2 - 4) + 100 * 0)


@given(st.integers(0, 2**31 - 1), st.floats(-100, 100), st.floats(0.1, 100))
@settings(max_examples=25, deadline=None)
def test_normalising_a_window_and_undoing_it_gives_the_window_back(seed, shift, scale):
    values = torch.randn(2, 12, 3, generator=torch.Generator().manual_seed(seed)) * scale + shift
    norm = WindowNorm(values)
    applied = norm.apply(values)
    assert applied.mean(dim=1).abs().max() < 1e-2
    assert torch.allclose(norm.undo(applied[..., [2, 0]], [2, 0]), values[..., [2, 0]], rtol=1e-3, atol=1e-3 * scale)


def test_with_normalisation_a_shifted_and_stretched_window_gives_the_shifted_and_stretched_forecast():
    torch.manual_seed(0)
    model = Informer(trial(normalize=True, attention="full"), InformerShape(2, 4, (0, 1)))
    window = torch.randn(3, 24, 2)
    assert torch.allclose(forecast(model, window * 7 + 50), forecast(model, window) * 7 + 50, atol=1e-2)


def test_a_constant_window_is_no_division_by_zero():
    model = Informer(trial(normalize=True, shortcut=True), InformerShape(2, 4, (0, 1)))
    assert torch.equal(forecast(model, torch.full((1, 24, 2), 3.0)), torch.full((1, 6, 2), 3.0))


def test_the_decoder_starts_from_known_steps_and_never_sees_the_future():
    model = Informer(trial(), InformerShape(2, 4, (0, 1)))
    seen: list[torch.Tensor] = []
    model.decoder_embedding.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    window = torch.randn(1, 24, 2)
    forecast(model, window)
    assert torch.equal(seen[0][:, :12], window[:, 12:])
    assert not seen[0][:, 12:].any()


def test_sine_positions_follow_the_formula():
    table = sine_positions(5, 4)
    assert table[0].tolist() == [0, 1, 0, 1]
    assert table[3, 0].item() == pytest.approx(torch.sin(torch.tensor(3.0)).item())
    assert table[3, 3].item() == pytest.approx(torch.cos(torch.tensor(0.03)).item(), abs=1e-6)
