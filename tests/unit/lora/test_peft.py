"""PEFT and we mean the same change by the same folder, read and written."""

from pathlib import Path

import pytest
import torch

from agentlab.lora.blend import concatenate, weighted_sum
from agentlab.lora.crossover import cross_directions
from agentlab.lora.delta import Delta
from agentlab.lora.mutation import new_directions
from agentlab.lora.reading import Adapter, total_rank
from agentlab.lora.sparse import ties
from agentlab.lora.writing import Operator, derive
from tests.unit.lora.deltas import TOLERANCE, relative_error
from tests.unit.lora.tiny import applied, loaded, tiny_model, trained

PARENTS = {
    "plain": {"r": 4, "lora_alpha": 6},
    "rank-stabilised": {"r": 9, "lora_alpha": 6, "use_rslora": True},
    "patterns": {
        "r": 4,
        "lora_alpha": 8,
        "rank_pattern": {"down_proj": 6, r"layers\.1\..*k_proj": 3},
        "alpha_pattern": {"self_attn.q_proj": 20, "^model.layers.0.mlp.down_proj": 3},
    },
    "fewer targets": {"r": 2, "lora_alpha": 2, "target_modules": ["q_proj"], "layers_to_transform": [1]},
}


@pytest.mark.parametrize("kind", PARENTS)
def test_we_read_the_change_that_peft_applies(tmp_path: Path, kind: str) -> None:
    expected = trained(tmp_path / "parent", PARENTS[kind])
    with Adapter(tmp_path / "parent") as adapter:
        assert set(adapter.modules) == set(expected)
        for name, change in expected.items():
            assert relative_error(adapter.delta(name).dense(), change.numpy()) < TOLERANCE


def operators() -> dict[str, Operator]:
    generator = torch.Generator().manual_seed(0)
    pull = (0.6, -0.3)
    return {
        "concatenation": lambda _, each: concatenate(each, pull),
        "weighted sum": lambda _, each: weighted_sum(each, pull, 6).delta,
        "crossover": lambda _, each: cross_directions(*each, 0.5, generator),
        "ties": lambda _, each: ties(each, pull, 0.5, 6).delta,
        "mutation": lambda _, each: new_directions(each[0], 0.05, 1, 6, generator).delta,
    }


@pytest.mark.parametrize("name", operators())
def test_peft_applies_the_change_that_we_wrote(tmp_path: Path, name: str) -> None:
    for kind in ("rank-stabilised", "fewer targets"):
        trained(tmp_path / kind, PARENTS[kind])
    parents = [Adapter(tmp_path / kind) for kind in ("rank-stabilised", "fewer targets")]
    made: dict[str, Delta] = {}

    def noted(module: str, each: list[Delta]) -> Delta:
        made[module] = operators()[name](module, each)
        return made[module]

    derive(parents, tmp_path / "child", total_rank(parents), noted)
    found = applied(loaded(tmp_path / "child"))
    assert set(found) == set(made)
    for module, delta in made.items():
        assert relative_error(found[module], delta.dense().numpy()) < TOLERANCE


def test_a_blend_in_the_model_is_the_sum_of_the_changes_to_the_weights(tmp_path: Path) -> None:
    first, second = (trained(tmp_path / kind, PARENTS[kind]) for kind in ("plain", "patterns"))
    parents = [Adapter(tmp_path / kind) for kind in ("plain", "patterns")]
    derive(parents, tmp_path / "child", total_rank(parents), lambda _, each: concatenate(each, (0.5, 0.25)))
    model = tiny_model()
    for name, change in first.items():
        model.get_submodule(name).weight.data += 0.5 * change + 0.25 * second[name]
    tokens = torch.arange(20)[None]
    with torch.no_grad():
        expected, found = model(tokens).logits, loaded(tmp_path / "child")(tokens).logits
    assert torch.allclose(found, expected, atol=1e-5)
    assert not torch.allclose(tiny_model()(tokens).logits, expected, atol=1e-2)
