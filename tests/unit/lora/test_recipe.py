"""Blends of folders: each method's child is what its operator makes, with a card, or nothing is left."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from agentlab.errors import ModelFileError, UnknownNameError, UsageError
from agentlab.lora.blend import Operator
from agentlab.lora.card import CARD_FILE, content_hash, read_card
from agentlab.lora.delta import LoraDelta
from agentlab.lora.operators import GROUP, OPERATORS
from agentlab.lora.reading import Adapter
from agentlab.lora.recipe import blend, plan
from tests.unit.lora.deltas import TOLERANCE, dense, random_delta, relative_error
from tests.unit.lora.folders import DOWN, QUERY, deltas, write_folder


def nothing(*_: object) -> None:
    pass


@pytest.fixture
def parents(tmp_path: Path) -> list[Adapter]:
    return [
        Adapter(write_folder(tmp_path / "a", deltas(1, rank=2), lora_alpha=2)),
        Adapter(write_folder(tmp_path / "b", deltas(2, rank=3), lora_alpha=3)),
    ]


def child_of(parents: list[Adapter], out: Path, method: str, **keys: Any) -> dict[str, np.ndarray]:
    blend(parents, plan(parents, method, **keys), out, nothing)
    with Adapter(out) as child:
        return {name: child.delta(name).dense().numpy() for name in child.modules}


def weighted(first: float, second: float) -> dict[str, np.ndarray]:
    one, two = deltas(1, rank=2), deltas(2, rank=3)
    return {name: first * dense(one[name]) + second * dense(two[name]) for name in one}


def best(matrix: np.ndarray, rank: int) -> np.ndarray:
    u, s, vt = np.linalg.svd(matrix, full_matrices=False)
    return np.asarray((u[:, :rank] * s[:rank]) @ vt[:rank])


def test_the_sum_is_the_best_of_its_rank_and_says_what_it_kept(tmp_path: Path, parents: list[Adapter]) -> None:
    recipe = plan(parents, "sum", weights=[0.6, 0.4])
    assert recipe.rank == 3
    outcome = blend(parents, recipe, tmp_path / "child", nothing)
    exact = weighted(0.6, 0.4)
    with Adapter(tmp_path / "child") as child:
        for name, matrix in exact.items():
            assert relative_error(child.delta(name).dense(), best(matrix, 3)) < TOLERANCE
    energy = {name: float(np.square(matrix).sum()) for name, matrix in exact.items()}
    kept_energy = {name: float(np.square(best(matrix, 3)).sum()) for name, matrix in exact.items()}
    assert outcome.kept == pytest.approx(sum(kept_energy.values()) / sum(energy.values()))
    assert outcome.modules == {name: pytest.approx(kept_energy[name] / energy[name]) for name in exact}


def test_a_concatenation_is_exact(tmp_path: Path, parents: list[Adapter]) -> None:
    child = child_of(parents, tmp_path / "child", "concat", weights=[0.6, -0.4])
    for name, matrix in weighted(0.6, -0.4).items():
        assert relative_error(child[name], matrix) < TOLERANCE


@pytest.mark.parametrize("method", ["sum", "slerp", "ties", "svd-cross", "concat"])
def test_equal_shares_of_equal_parents_give_the_parent(tmp_path: Path, method: str) -> None:
    modules = deltas(1)
    twins = [Adapter(write_folder(tmp_path / name, modules, lora_alpha=4)) for name in "ab"]
    keys = {"density": 1.0} if method == "ties" else {}
    child = child_of(twins, tmp_path / "child", method, **keys)
    for name, delta in modules.items():
        assert relative_error(child[name], dense(delta)) < TOLERANCE


@pytest.mark.parametrize("method", ["sum", "slerp", "svd-cross"])
def test_fifty_generations_of_one_adapter_with_itself_do_not_drift(tmp_path: Path, method: str) -> None:
    """Each is written in float32, read again, and crossed with a copy of itself in other factors."""
    modules, draw = deltas(1), torch.Generator().manual_seed(0)
    now = write_folder(tmp_path / "0", modules, lora_alpha=4)
    for generation in range(1, 51):
        with Adapter(now) as first:
            parts = {name: first.delta(name) for name in first.modules}
            mixed = torch.linalg.qr(torch.randn(4, 4, generator=draw)).Q
            copies = {name: LoraDelta(mixed @ part.a, part.b @ mixed.T) for name, part in parts.items()}
            copy = write_folder(tmp_path / f"copy-{generation}", copies, lora_alpha=4)
            with Adapter(copy) as second:
                now = tmp_path / str(generation)
                blend([first, second], plan([first, second], method, seed=generation), now, nothing)
    with Adapter(now) as last:
        drift = [relative_error(last.delta(name).dense(), dense(delta)) for name, delta in modules.items()]
    assert max(drift) < 1e-3


@pytest.mark.parametrize("method", ["sum", "concat", "slerp", "ties", "dare", "svd-cross"])
def test_a_module_that_one_parent_leaves_alone_is_part_of_the_child(tmp_path: Path, method: str) -> None:
    full, part = deltas(1), deltas(2)
    del part[DOWN]
    parents = [Adapter(write_folder(tmp_path / name, modules)) for name, modules in (("a", full), ("b", part))]
    child = child_of(parents, tmp_path / "child", method)
    assert set(child) == {QUERY, DOWN}
    assert np.isfinite(child[DOWN]).all()


@pytest.mark.parametrize("method", ["dare", "svd-cross"])
def test_a_seed_reproduces_and_another_one_differs(tmp_path: Path, parents: list[Adapter], method: str) -> None:
    first = child_of(parents, tmp_path / "1", method, seed=1)
    repeat = child_of(parents, tmp_path / "2", method, seed=1)
    variants = [child_of(parents, tmp_path / str(seed), method, seed=seed) for seed in (3, 4, 5)]
    assert all(np.array_equal(first[name], repeat[name]) for name in first)
    assert any(not np.array_equal(first[name], variant[name]) for variant in variants for name in first)
    assert content_hash(tmp_path / "1") == content_hash(tmp_path / "2")


def test_a_module_of_the_cross_is_a_parents_directions(tmp_path: Path, parents: list[Adapter]) -> None:
    """With all of the weight on one side, a child is that parent."""
    child = child_of(parents, tmp_path / "child", "svd-cross", weights=[0, 1])
    for name, matrix in weighted(0, 1).items():
        assert relative_error(child[name], matrix) < TOLERANCE


def test_the_card_names_the_parents(tmp_path: Path, parents: list[Adapter]) -> None:
    for parent in parents:
        (parent.path / CARD_FILE).write_text(json.dumps({"base": {"path": "b", "fingerprint": "sha256:1"}}))
    outcome = blend(parents, plan(parents, "ties", weights=[0.6, 0.4], rank=2), tmp_path / "child", nothing)
    card = read_card(tmp_path / "child")
    assert [(entry.name, entry.sha256, entry.weight) for entry in card.parents] == [
        ("a", content_hash(parents[0].path), 0.6),
        ("b", content_hash(parents[1].path), 0.4),
    ]
    assert card.base.fingerprint == "sha256:1"
    assert (card.blend.method, card.blend.rank, card.blend.density, card.blend.seed) == ("ties", 2, 0.5, 0)
    assert card.blend.kept == outcome.kept


def test_one_base_under_two_names_is_one_base(tmp_path: Path) -> None:
    moved = [Adapter(write_folder(tmp_path / name, deltas(1), base_model_name_or_path=f"{name}/base")) for name in "ab"]
    recipe = plan(moved, "sum")
    with pytest.raises(UsageError, match="belongs to a/base"):
        blend(moved, recipe, tmp_path / "child", nothing)
    for adapter in moved:
        (adapter.path / CARD_FILE).write_text(json.dumps({"base": {"fingerprint": "sha256:1"}}))
    blend(moved, recipe, tmp_path / "child", nothing)


def test_two_bases_under_one_name_are_two(tmp_path: Path, parents: list[Adapter]) -> None:
    for number, adapter in enumerate(parents):
        (adapter.path / CARD_FILE).write_text(json.dumps({"base": {"fingerprint": f"sha256:{number}"}}))
    with pytest.raises(UsageError, match="different base models"):
        blend(parents, plan(parents, "sum"), tmp_path / "child", nothing)
    assert not (tmp_path / "child").exists()
    blend(parents, plan(parents, "sum"), tmp_path / "child", nothing, any_base=True)
    assert read_card(tmp_path / "child").base.fingerprint is None


@pytest.mark.parametrize(
    ("method", "keys", "words"),
    [
        ("average", {}, "method named 'average'"),
        ("sum", {"weights": [1]}, "2 finite weights"),
        ("sum", {"weights": [1, float("nan")]}, "2 finite weights"),
        ("sum", {"density": 0.5}, "sum does not use a density"),
        ("ties", {"density": 0}, "outside the range 0 to 1"),
        ("concat", {"rank": 4}, "sum of its parents' ranks"),
        ("sum", {"rank": 0}, "rank 0"),
        ("sum", {"rank": 10_000}, "exceeds the limit of 8192"),
        ("slerp", {"weights": [0.6, 0.6]}, "add up to 1"),
        ("svd-cross", {"weights": [-0.5, 1.5]}, "add up to 1"),
    ],
)
def test_what_cannot_be_is_refused_at_once(
    parents: list[Adapter], method: str, keys: dict[str, Any], words: str
) -> None:
    with pytest.raises((UsageError, UnknownNameError), match=words):
        plan(parents, method, **keys)


def test_slerp_takes_two_and_a_blend_more_than_one(parents: list[Adapter]) -> None:
    with pytest.raises(UsageError, match="two adapters, not 3"):
        plan([*parents, parents[0]], "slerp")
    with pytest.raises(UsageError, match="needs at least two"):
        plan(parents[:1], "sum")


def test_nothing_is_left_of_a_blend_that_failed(tmp_path: Path) -> None:
    shape = {QUERY: (8, 6), DOWN: (6, 12)}
    huge = {name: LoraDelta(*(1e30 * side for side in _sides(dimensions))) for name, dimensions in shape.items()}
    parents = [Adapter(write_folder(tmp_path / name, huge)) for name in "ab"]
    with pytest.raises(ModelFileError, match="have values up to"):
        blend(parents, plan(parents, "sum"), tmp_path / "child", nothing)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def _sides(shape: tuple[int, int]) -> tuple[Any, Any]:
    delta = random_delta(shape, 2, seed=1)
    return 1e8 * delta.a, 1e8 * delta.b


PLUGGED = """
from agentlab.lora.blend import Operator, truncate

HALF = Operator(lambda deltas, recipe, generator: truncate(deltas[0].scaled(recipe.share), recipe.rank), thins=True)
"""


def test_a_package_brings_an_operator(tmp_path: Path, parents: list[Adapter], plug_in: Callable[..., None]) -> None:
    plug_in(GROUP, "half = plugged_operator:HALF", PLUGGED)
    child = child_of(parents, tmp_path / "child", "half", rank=2)
    for name, delta in deltas(1, rank=2).items():
        assert relative_error(child[name], 0.5 * dense(delta)) < TOLERANCE
    assert read_card(tmp_path / "child").blend.method == "half"
    with pytest.raises(UnknownNameError) as caught:
        plan(parents, "hald")
    assert "half" in str(caught.value.hint)


@pytest.mark.parametrize("method", OPERATORS.table)
def test_every_operator_of_the_table_is_one(method: str) -> None:
    assert isinstance(OPERATORS.load(method), Operator)
