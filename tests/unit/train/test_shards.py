"""Layers that store their weights transposed, and tensors that no adapter touches."""

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from agentlab.lora.reading import Adapter
from agentlab.train.shards import check_fit, open_checkpoint, write_merged
from tests.unit.lora.folders import DOWN, QUERY, deltas, write_folder


def test_transposed_layers_get_the_transposed_change(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    tensors = {
        f"{QUERY}.weight": torch.randn(6, 8, generator=generator),
        f"{QUERY}.bias": torch.randn(8, generator=generator),
        f"{DOWN}.weight": torch.randn(12, 6, generator=generator),
        "scalar": torch.tensor(2.0),
        "empty": torch.zeros(0, 4),
    }
    (tmp_path / "base").mkdir()
    save_file(tensors, tmp_path / "base" / "model.safetensors")
    with Adapter(write_folder(tmp_path / "a", deltas(1), fan_in_fan_out=True)) as adapter:
        checkpoint = open_checkpoint(tmp_path / "base")
        assert checkpoint.weights == 48 + 8 + 72 + 1
        check_fit(checkpoint, adapter, tied=False)
        (tmp_path / "out").mkdir()
        steps: list[tuple[int, int, str]] = []
        write_merged(checkpoint, adapter, tmp_path / "out", None, lambda *step: steps.append(step))
        merged_tensors = load_file(tmp_path / "out" / "model.safetensors")
        for module in (QUERY, DOWN):
            key = f"{module}.weight"
            assert torch.equal(merged_tensors[key], (tensors[key].double() + adapter.delta(module).dense().T).float())
    for key in (f"{QUERY}.bias", "scalar", "empty"):
        assert torch.equal(merged_tensors[key], tensors[key])
    assert [step[:2] for step in steps] == [(count, 5) for count in range(5)]
