"""An adapter goes on the layers that are named, or is refused; what was trained is in its folder."""

from pathlib import Path

import pytest
import torch

from agentlab.errors import UsageError
from agentlab.lora.reading import Adapter
from agentlab.train.adapter import attach_adapter, trained_weights, write_trained
from agentlab.train.base import TrainingBase, load_base
from agentlab.train.config import LoraConfig

from .tiny_base import tiny_checkpoint

LINEAR = "down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> TrainingBase:
    return load_base(tiny_checkpoint(tmp_path_factory.mktemp("base") / "tiny"), "fp32", "sdpa")


@pytest.mark.parametrize("wrong", ["query", "proj", "embed_tokens", "lm_head", "mlp", "input_layernorm", ""])
@pytest.mark.parametrize("valid_targets", [(), ("q_proj",)])
def test_every_target_is_the_name_of_linear_layers(
    base: TrainingBase, wrong: str, valid_targets: tuple[str, ...]
) -> None:
    """PEFT ignores a name that it does not find beside one that it finds, and trains embeddings, too."""
    lora = LoraConfig(targets=(*valid_targets, wrong))
    with pytest.raises(UsageError, match=f"no linear layers named '{wrong}'") as caught, attach_adapter(base, lora, 0):
        pass
    assert f"{LINEAR}." in (caught.value.hint or "")
    assert not any("lora" in name for name, _ in base.model.named_modules())


def test_an_adapter_of_nothing_is_refused(base: TrainingBase) -> None:
    with pytest.raises(UsageError) as caught, attach_adapter(base, LoraConfig(targets=()), 0):
        pass
    assert LINEAR in (caught.value.hint or "")


def test_names_may_be_ends_of_paths_and_the_folder_holds_what_learns(base: TrainingBase, tmp_path: Path) -> None:
    lora = LoraConfig(r=2, targets=("0.self_attn.q_proj", "v_proj"))
    with attach_adapter(base, lora, 0) as model:
        weights = {name: torch.full_like(weight, 0.5) for name, weight in trained_weights(model).items()}
        write_trained(model, weights, base, tmp_path / "adapter", "")
    with Adapter(tmp_path / "adapter") as adapter:
        assert [name.partition("layers.")[2] for name in adapter.modules] == [
            "0.self_attn.q_proj",
            "0.self_attn.v_proj",
            "1.self_attn.v_proj",
        ]
        assert all(adapter.delta(name).dense().all() for name in adapter.modules)


def test_no_weight_that_was_trained_is_left_out_of_the_folder(base: TrainingBase, tmp_path: Path) -> None:
    with attach_adapter(base, LoraConfig(r=2), 0) as model:
        weights = {**trained_weights(model), "base_model.model.model.embed_tokens.lora_embedding_A": torch.zeros(2, 9)}
        with pytest.raises(ValueError, match=r"has no tensor for .*lora_embedding_A"):
            write_trained(model, weights, base, tmp_path / "adapter", "")
    assert list(tmp_path.iterdir()) == []
