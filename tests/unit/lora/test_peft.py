"""PEFT and we mean the same change by the same folder, read and written."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import torch

from agentlab.lora.blend import concatenate
from agentlab.lora.delta import LoraDelta
from agentlab.lora.reading import Adapter, each_module, total_rank
from agentlab.lora.writing import derive
from tests.unit.lora.deltas import TOLERANCE, dense, relative_error
from tests.unit.lora.references import BLENDS, MUTATIONS, STEP, rotated
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


FAMILIES = {
    "mixed targets": ("rank-stabilised", "fewer targets"),
    "rank patterns": ("patterns", "plain"),
}


def put_through_peft(
    folder: Path, kinds: Sequence[str], operator: Callable[[Sequence[LoraDelta]], LoraDelta], dtype: str = "float32"
) -> Iterator[tuple[list[LoraDelta], np.ndarray]]:
    """Each module's deltas in the parents, and the change that PEFT applies for the child that was written."""
    for kind in kinds:
        trained(folder / kind, PARENTS[kind])
    with ExitStack() as opened:
        parents = [opened.enter_context(Adapter(folder / kind)) for kind in kinds]
        derive(parents, folder / "child", 32, lambda _, parent_deltas: operator(parent_deltas), dtype=dtype)
        changes = applied(loaded(folder / "child"))
        modules = list(each_module(parents))
        assert set(changes) == {name for name, _ in modules}
        for name, deltas in modules:
            yield deltas, changes[name].double().numpy()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", BLENDS)
def test_peft_applies_what_a_blend_is_on_dense_matrices(tmp_path: Path, name: str, family: str) -> None:
    case = BLENDS[name]
    for deltas, change in put_through_peft(tmp_path, FAMILIES[family], case.made):
        assert relative_error(change, case.expected(deltas)) < TOLERANCE


@pytest.mark.parametrize("parent", ["rank-stabilised", "patterns"])
@pytest.mark.parametrize("name", MUTATIONS)
def test_peft_applies_what_a_mutation_is_on_dense_matrices(tmp_path: Path, name: str, parent: str) -> None:
    case = MUTATIONS[name]
    for deltas, change in put_through_peft(tmp_path, [parent], case.made):
        assert relative_error(change, case.expected(deltas)) < TOLERANCE
        assert relative_error(change, dense(deltas[0])) > STEP / 10


@pytest.mark.parametrize("parent", ["plain", "patterns"])
def test_peft_applies_rotated_directions_of_unchanged_strength(tmp_path: Path, parent: str) -> None:
    """All turn by one angle on both sides: inside the parent's span, the squared cosine of it is left of the parent."""
    for (delta,), change in put_through_peft(tmp_path, [parent], rotated):
        assert relative_error(change, rotated([delta]).dense().numpy()) < TOLERANCE
        before = dense(delta)
        u, s, vt = np.linalg.svd(before, full_matrices=False)
        left, right = u[:, : delta.rank] @ u[:, : delta.rank].T, vt[: delta.rank].T @ vt[: delta.rank]
        assert relative_error(left @ change @ right, (1 - STEP**2 / 2) * before) < TOLERANCE
        assert relative_error(change, before) == pytest.approx(STEP, rel=1e-4)
        assert relative_error(np.linalg.svd(change, compute_uv=False), s) < TOLERANCE


@pytest.mark.parametrize("name", [*BLENDS, *MUTATIONS])
def test_in_bfloat16_peft_applies_it_as_far_as_eight_bits_go(tmp_path: Path, name: str) -> None:
    case = {**BLENDS, **MUTATIONS}[name]
    for deltas, change in put_through_peft(tmp_path, FAMILIES["rank patterns"], case.made, "bfloat16"):
        assert TOLERANCE < relative_error(change, case.expected(deltas)) < 2**-7  # two factors, each rounded by 2**-9


def test_a_blend_in_the_model_is_the_sum_of_the_changes_to_the_weights(tmp_path: Path) -> None:
    first, second = (trained(tmp_path / kind, PARENTS[kind]) for kind in ("plain", "patterns"))
    parents = [Adapter(tmp_path / kind) for kind in ("plain", "patterns")]
    derive(parents, tmp_path / "child", total_rank(parents), lambda _, deltas: concatenate(deltas, (0.5, 0.25)))
    model = tiny_model()
    for name, change in first.items():
        model.get_submodule(name).weight.data += 0.5 * change + 0.25 * second[name]
    tokens = torch.arange(20)[None]
    with torch.no_grad():
        expected, actual = model(tokens).logits, loaded(tmp_path / "child")(tokens).logits
    assert torch.allclose(actual, expected, atol=1e-5)
    assert not torch.allclose(tiny_model()(tokens).logits, expected, atol=1e-2)
