"""The estimate counts exactly the weights that the network has."""

from hypothesis import given, settings
from hypothesis import strategies as st

from agentlab.nas.config import DataConfig, ModelConfig, TrialConfig, with_params
from agentlab.nas.plan import encoder_lengths, estimate
from agentlab.nas.training import build

models = st.builds(
    ModelConfig,
    d_model=st.sampled_from([4, 8, 12]),
    n_heads=st.sampled_from([1, 2, 4]),
    e_layers=st.integers(1, 3),
    d_layers=st.integers(1, 2),
    ff_multiplier=st.integers(1, 4),
    distil=st.booleans(),
    normalize=st.booleans(),
    shortcut=st.booleans(),
)


@given(models, st.integers(1, 5), st.integers(8, 40), st.integers(1, 12), st.booleans())
@settings(max_examples=40, deadline=None)
def test_parameters_are_those_of_the_built_network(make_series, model, channels, length, horizon, only_last):
    series = make_series(rows=60, channels=channels, targets=(channels - 1,) if only_last else None)
    trial = TrialConfig(data=DataConfig(input_length=length, horizon=horizon), model=model)
    built = sum(parameter.numel() for parameter in build(trial, series).parameters())
    assert estimate(trial, series).parameters == built


def test_the_published_network_has_eleven_million_weights(make_series):
    assert estimate(TrialConfig(), make_series(channels=7)).parameters == 11_330_055


def test_memory_grows_with_width_length_and_batch(make_series):
    series = make_series()
    base = TrialConfig(data=DataConfig(batch_size=1024))
    sizes = [
        estimate(with_params(base, change), series).memory_bytes
        for change in ({}, {"model.d_model": 1024}, {"data.input_length": 192}, {"data.batch_size": 2048})
    ]
    assert min(sizes[1:]) > sizes[0] > 4 * 11_000_000


def test_distilling_halves_the_encoder_lengths():
    assert encoder_lengths(ModelConfig(e_layers=3), 97) == [97, 49, 25]
    assert encoder_lengths(ModelConfig(e_layers=3, distil=False), 97) == [97, 97, 97]
