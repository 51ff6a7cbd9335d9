"""Norms, spectra and likeness of adapters against the same from dense matrices."""

import math
from pathlib import Path

import numpy as np
import pytest

from agentlab.lora.adapter_profile import anatomy, likenesses
from agentlab.lora.reading import Adapter
from tests.unit.lora.deltas import dense, random_delta
from tests.unit.lora.folders import DOWN, QUERY, deltas, write_folder

OTHER_QUERY = "model.layers.1.self_attn.q_proj"


def nothing(*_: object) -> None:
    pass


def test_norms_and_energy_are_those_of_the_dense_matrices(tmp_path: Path) -> None:
    modules = {**deltas(1), OTHER_QUERY: random_delta((8, 6), 4, seed=9)}
    with Adapter(write_folder(tmp_path / "a", modules, r=4, lora_alpha=8)) as adapter:
        seen: list[tuple[int, int, str]] = []
        parts = {part.name: part for part in anatomy(adapter, lambda *step: seen.append(step))}
    assert [step[:2] for step in seen] == [(0, 3), (1, 3), (2, 3)]
    assert list(parts) == ["q_proj", "down_proj", "all"]
    queries = [2 * dense(modules[name]) for name in (QUERY, OTHER_QUERY)]
    norms = sorted(float(np.linalg.norm(matrix)) for matrix in queries)
    query_part = parts["q_proj"]
    assert query_part.count == 2
    assert [query_part.least, query_part.most] == pytest.approx(norms)
    assert query_part.mean == pytest.approx(sum(norms) / 2)
    values = [np.linalg.svd(matrix, compute_uv=False) for matrix in queries]
    first = sum(spectrum[0] ** 2 for spectrum in values) / sum((spectrum**2).sum() for spectrum in values)
    assert list(query_part.energy) == pytest.approx([first, 1, 1])
    assert (parts["all"].count, parts["all"].directions) == (3, 4)


def test_an_adapter_is_like_itself_unlike_its_opposite(tmp_path: Path) -> None:
    modules = deltas(1)
    plain = Adapter(write_folder(tmp_path / "a", modules))
    minus = Adapter(
        write_folder(tmp_path / "b", {name: part.scaled(1) for name, part in modules.items()}, lora_alpha=-8)
    )
    for partner, cosine, distance in ((plain, 1, 0), (minus, -1, 2)):
        types, by_module = likenesses(plain, partner, nothing)
        assert [part.name for part in types] == ["q_proj", "down_proj", "all"]
        assert len(by_module) == 2
        for part in (*types, *by_module):
            assert part.cosine == pytest.approx(cosine)
            assert part.distance == pytest.approx(distance, abs=1e-6)


def test_likeness_of_two_is_that_of_the_dense_matrices_also_where_one_does_nothing(tmp_path: Path) -> None:
    first, second = deltas(1), deltas(2)
    del second[DOWN]
    a = Adapter(write_folder(tmp_path / "a", first, lora_alpha=4))
    b = Adapter(write_folder(tmp_path / "b", second, lora_alpha=4))
    types, modules = likenesses(a, b, nothing)
    x = np.concatenate([dense(first[QUERY]).ravel(), dense(first[DOWN]).ravel()])
    y = np.concatenate([dense(second[QUERY]).ravel(), np.zeros(6 * 12)])
    lengths = float(np.linalg.norm(x)), float(np.linalg.norm(y))
    overall = types[-1]
    assert [overall.first, overall.second] == pytest.approx(list(lengths))
    assert overall.cosine == pytest.approx(float(x @ y) / (lengths[0] * lengths[1]))
    middle = math.sqrt((lengths[0] ** 2 + lengths[1] ** 2) / 2)
    assert overall.distance == pytest.approx(float(np.linalg.norm(x - y)) / middle)
    assert {module.name: module.cosine for module in modules}[DOWN] == 0
