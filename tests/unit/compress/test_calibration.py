"""One pass over the text: its figures are right, it goes on after a kill, and says what is wrong before work starts."""

from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from agentlab.compress.architecture import INPUTS, check_architecture
from agentlab.compress.calibration import calibrate
from agentlab.errors import DataError, ModelFileError, StorageError, UsageError

from .decoders import KINDS, decoder, nothing, statistics, windows


@pytest.mark.parametrize("kind", KINDS)
def test_the_figures_are_those_of_a_plain_forward_pass(kind: str, tmp_path: Path) -> None:
    model, seen = decoder(kind), {}
    layer = model.model.layers[2]
    for layer_input in INPUTS:
        layer.get_submodule(layer_input.readers[0]).register_forward_pre_hook(
            lambda _, inputs, key=layer_input.key: seen.update({key: inputs[0].reshape(-1, inputs[0].shape[-1])})
        )
    with torch.inference_mode():
        states = model(windows(), output_hidden_states=True, use_cache=False).hidden_states
    figures = statistics(model, tmp_path).layer(2)
    for key, rows in seen.items():
        torch.testing.assert_close(figures.squares[key], rows.T @ rows / len(rows), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(figures.channels, seen["channels"].abs().mean(0), rtol=1e-4, atol=1e-5)
    alike = torch.cosine_similarity(states[1], states[2], dim=-1).mean()
    assert statistics(model, tmp_path).influences()[1] == pytest.approx(1 - float(alike), abs=1e-5)


def test_a_pass_that_was_stopped_goes_on(tmp_path: Path) -> None:
    uninterrupted = statistics(decoder(), tmp_path / "whole")
    layers: list[str] = []

    def stop() -> None:
        if len(layers) == 2:
            raise KeyboardInterrupt
        layers.append("first")

    def go(check=lambda: layers.append("second")) -> None:
        calibrate(decoder(), windows(), tmp_path / "cut", "x", memory=None, check=check)

    with pytest.raises(KeyboardInterrupt):
        go(stop)
    first = (tmp_path / "cut/layer-0000.safetensors").stat().st_mtime_ns
    go()
    go()  # all is there
    assert layers == ["first", "first", "second"]
    assert (tmp_path / "cut/layer-0000.safetensors").stat().st_mtime_ns == first
    for index in range(uninterrupted.layers):
        name = f"layer-{index:04d}.safetensors"
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_another_text_is_computed_again(tmp_path: Path) -> None:
    layers: list[str] = []
    for origin in ("one", "two"):
        check = partial(layers.append, origin)
        calibrate(decoder(), windows(), tmp_path, origin, memory=None, check=check)
    assert layers == ["one"] * 3 + ["two"] * 3


def test_numbers_that_are_none_are_traced_to_their_module(tmp_path: Path) -> None:
    model = decoder()
    model.model.layers[1].mlp.up_proj.weight[3, 4] = torch.inf
    with pytest.raises(DataError, match=r"model\.layers\.1\.mlp\.down_proj is not finite"):
        statistics(model, tmp_path)


def test_too_little_memory_is_said_before_work(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Calibration needs") as caught:
        calibrate(decoder(), windows(), tmp_path / "none", "x", memory=1 << 10, check=nothing)
    assert "fewer" in (caught.value.hint or "")
    assert not (tmp_path / "none").exists()


def test_damaged_statistics_are_named(tmp_path: Path) -> None:
    calibration = statistics(decoder(), tmp_path)
    (tmp_path / "layer-0001.safetensors").write_bytes(b"half")
    with pytest.raises(ModelFileError, match="layer-0001"):
        calibration.layer(1)


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError):
        statistics(decoder(), tmp_path / "file")


@pytest.mark.parametrize("kind", ["mixtral", "gpt2", None])
def test_other_architectures_are_refused_by_name(kind: str | None) -> None:
    with pytest.raises(ModelFileError, match=str(kind)):
        check_architecture(SimpleNamespace(model_type=kind))


def test_sliding_windows_are_refused() -> None:
    check_architecture(decoder("qwen2").config)
    with pytest.raises(ModelFileError, match="sliding"):
        check_architecture(SimpleNamespace(model_type="qwen2", layer_types=["full_attention", "sliding_attention"]))
