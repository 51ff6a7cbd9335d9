"""A row under weights is the row under the adapter that `concat` writes with these weights."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from agentlab.errors import UsageError
from agentlab.lora.mixture import Mixture
from agentlab.lora.reading import Adapter
from agentlab.lora.recipe import blend, plan
from agentlab.lora.rowwise import AdapterStack
from agentlab.lora.stacked import BASE
from tests.unit.lora.test_stacked import SHAPES, ids
from tests.unit.lora.tiny import tiny_model, trained


@pytest.fixture(scope="module")
def parents(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Adapter]]:
    folder = tmp_path_factory.mktemp("parents")
    with ExitStack() as stack:
        for name, keys in SHAPES.items():
            trained(folder / name, keys)
        yield [stack.enter_context(Adapter(folder / name)) for name in SHAPES]


def everywhere(mixture: Mixture, weights: Sequence[float]) -> dict[str, Sequence[float]]:
    return dict.fromkeys(mixture._factors, weights)


CHILDREN = [(1.0, 0.0, 0.0), (1 / 3, 1 / 3, 1 / 3), (0.7, -0.4, 1.3), (0.0, 0.0, 0.0)]


@torch.no_grad()
def test_the_rows_come_out_as_from_the_children_that_concat_writes(parents: list[Adapter], tmp_path: Path) -> None:
    mixture, written, rows = Mixture(parents), AdapterStack(), [2, 0, BASE, 1, 1, 3]
    mixture.mix([everywhere(mixture, weights) for weights in CHILDREN])
    for number, weights in enumerate(CHILDREN):
        blend(parents, plan(parents, "concat", weights=weights), tmp_path / str(number), lambda *_: None)
        written.put(tmp_path / str(number))
    model, tokens = tiny_model(), ids(len(rows))
    with written.apply_to(model, rows):
        expected = model(tokens).logits
    with mixture.apply_to(model, rows):
        logits = model(tokens).logits
    assert (logits - expected).abs().max() <= 1e-5
    assert (logits[2] - model(tokens).logits[2]).abs().max() <= 1e-6  # the base's
    assert (logits - model(tokens).logits).abs().max() > 1e-3


@given(st.lists(st.lists(st.floats(-2, 2, width=32), min_size=3, max_size=3), min_size=1, max_size=4))
@torch.no_grad()
def test_each_module_has_weights_of_its_own(parents: list[Adapter], weights: list[list[float]]) -> None:
    mixture, model = Mixture(parents), tiny_model()
    names = list(mixture._factors)
    child = {name: weights[index % len(weights)] for index, name in enumerate(names)}
    mixture.mix([child])
    with mixture.apply_to(model, [0, 0]):
        logits = model(ids(2)).logits
    for parent, parent_index in zip(parents, range(len(parents)), strict=True):
        for name in parent.modules:
            model.get_submodule(name).weight += child[name][parent_index] * parent.delta(name).dense().float()
    assert (logits - model(ids(2)).logits).abs().max() <= 1e-3 * max(1, logits.abs().max())


@torch.no_grad()
def test_children_give_way_to_others(parents: list[Adapter]) -> None:
    mixture, model = Mixture(parents), tiny_model()
    with mixture.install_hooks(model):
        seen = []
        for weights in ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0)):
            mixture.mix([everywhere(mixture, weights)])
            mixture.rows([0])
            seen.append(model(ids(1)).logits)
        assert not torch.equal(*seen)
        with pytest.raises(UsageError, match="adapter 1, but there are 1"):
            mixture.rows([1])
    with pytest.raises(UsageError, match="No parent changes lm_head"):
        mixture.mix([{"lm_head": (1.0, 0.0, 0.0)}])
