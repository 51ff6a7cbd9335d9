"""Several adapters in one forward pass give what PEFT gives for each, and leave the model as it was."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from agentlab.errors import UsageError
from agentlab.lora.rowwise import AdapterStack
from agentlab.lora.stacked import BASE, Stack, segments
from tests.unit.lora.tiny import loaded, tiny_model, trained

SHAPES: dict[str, dict[str, Any]] = {
    "one": {"r": 4, "lora_alpha": 8},
    "two": {"r": 2, "lora_alpha": 8, "use_rslora": True, "target_modules": ["q_proj", "o_proj"]},
    "three": {"r": 6, "lora_alpha": 3, "rank_pattern": {"k_proj": 3}},
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("adapters")
    for name, keys in SHAPES.items():
        trained(folder / name, keys)
    return [folder / name for name in SHAPES]


@pytest.fixture(scope="module")
def stack(folders: list[Path]) -> Stack:
    adapter_stack = AdapterStack()
    for folder in folders:
        adapter_stack.put(folder)
    return adapter_stack


@pytest.fixture(scope="module")
def peft(folders: list[Path]) -> Any:
    model = loaded(folders[0])
    for folder in folders:
        model.load_adapter(str(folder), adapter_name=folder.name)
    return model


def names_of(rows: Sequence[int]) -> list[str]:
    return ["__base__" if row == BASE else list(SHAPES)[row] for row in rows]


def ids(rows: int) -> torch.Tensor:
    return torch.randint(0, 64, (rows, 7), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param([0, 0, 1, 1, 2, 2], id="equal groups: one product"),
        pytest.param([0, 0, 0, 1, 2, 2], id="unequal groups"),
        pytest.param([BASE, 0, 2, 2], id="rows of the base, and an adapter without any"),
        pytest.param([2, 0, BASE, 1, 0], id="any order"),
        pytest.param([1], id="one row"),
    ],
)
@torch.no_grad()
def test_the_rows_come_out_as_from_peft(stack: Stack, peft: Any, rows: list[int]) -> None:
    model = tiny_model()
    for tokens in (ids(len(rows))[:, :1], ids(len(rows))):  # a step, and a text
        with stack.apply_to(model, rows):
            ours = model(tokens).logits
        theirs = peft(tokens, adapter_names=names_of(rows)).logits
        assert (ours - theirs).abs().max() <= 1e-5
    assert (ours - model(tokens).logits).abs().max() > 1e-3  # the adapters do something


@torch.no_grad()
def test_a_layer_is_given_a_token_of_each_row_in_any_shape(stack: Stack) -> None:
    model, rows = tiny_model(), [2, BASE, 0, 1]
    layer, x = model.model.layers[0].self_attn.q_proj, torch.randn(4, model.config.hidden_size)
    alone = []
    for row, token in zip(rows, x, strict=True):
        with stack.apply_to(model, [row]):
            alone.append(layer(token[None, None])[0, 0])
    with stack.apply_to(model, rows):
        for batch in (x, x[:, None], x[:, None, None]):  # the last is how multi-head latent attention asks
            assert torch.allclose(layer(batch).flatten(1), torch.stack(alone), atol=1e-6)


@torch.no_grad()
def test_answers_are_generated_side_by_side(stack: Stack, peft: Any) -> None:
    rows, model = [0, 1, 2], tiny_model()
    keys: dict[str, Any] = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    tokens = ids(1).expand(3, -1)
    mask = torch.ones_like(tokens)
    with stack.apply_to(model, rows):
        ours = model.generate(input_ids=tokens, attention_mask=mask, **keys)
    theirs = peft.generate(input_ids=tokens, attention_mask=mask, adapter_names=names_of(rows), **keys)
    assert ours.tolist() == theirs.tolist()
    assert len({tuple(row) for row in ours.tolist()}) > 1  # one question, several minds


@torch.no_grad()
def test_the_model_is_left_as_it_was_even_after_an_error(stack: Stack) -> None:
    model, tokens = tiny_model(), ids(2)
    before = model(tokens).logits
    with pytest.raises(UsageError, match="batch has 2 rows"), stack.apply_to(model, [0, 1, 2]):
        model(tokens)
    assert torch.equal(model(tokens).logits, before)
    assert not any(module._forward_hooks for module in model.modules())


def test_a_change_in_bfloat16_is_rounded_once_as_in_peft(stack: Stack, peft: Any) -> None:
    model, twin = tiny_model().bfloat16(), tiny_model()
    layer, twin_layer = model.model.layers[0].self_attn.q_proj, twin.model.layers[0].self_attn.q_proj
    x = torch.randn(3, 5, 32, generator=torch.Generator().manual_seed(2)).bfloat16()
    with torch.no_grad(), stack.apply_to(model, [0, 1, 2]), stack.apply_to(twin, [0, 1, 2]):
        output, change = layer(x), twin_layer(x.float()) - torch.nn.functional.linear(x.float(), twin_layer.weight)
        assert output.dtype == torch.bfloat16
        assert torch.equal(output, (torch.nn.functional.linear(x, layer.weight).float() + change).bfloat16())


def test_gradients_reach_the_factors_and_pass_through() -> None:
    layer = torch.nn.Linear(3, 2)
    layer.requires_grad_(False)
    model = torch.nn.ModuleDict({"layer": layer})
    generator = torch.Generator().manual_seed(0)
    a, b, x = (torch.randn(*shape, generator=generator).requires_grad_() for shape in ((2, 3, 4), (2, 4, 2), (3, 5, 3)))
    stack = Stack({"layer": lambda first, count: (a[first : first + count], b[first : first + count])}, 2, scale=0.5)
    with stack.apply_to(model, [0, 0, 1]):
        output = layer(x)
    per_row = torch.tensor([0, 0, 1])
    expected = layer(x) + 0.5 * (x @ a[per_row]) @ b[per_row]
    weights = torch.randn(output.shape, generator=generator)
    for ours, theirs in zip(
        torch.autograd.grad((output * weights).sum(), (a, b, x)),
        torch.autograd.grad((expected * weights).sum(), (a, b, x)),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs)


def test_inputs_are_dropped_in_training_only() -> None:
    layer = torch.nn.Linear(64, 64, bias=False)
    torch.nn.init.zeros_(layer.weight)
    eye = torch.eye(64)[None]
    stack = Stack({"0": lambda first, count: (eye, eye)}, 1, dropout=0.25)
    model = torch.nn.Sequential(layer)
    with torch.no_grad(), stack.apply_to(model, [0]):
        torch.manual_seed(0)
        dropped = model.train()(torch.ones(1, 64))
        eval_output = model.eval()(torch.ones(1, 64))
    assert eval_output.tolist() == [[1.0] * 64]
    assert torch.equal(dropped.unique(), torch.tensor([0, 4 / 3]))


def applied(stack: Stack, model: Any, rows: Sequence[int]) -> None:
    with stack.apply_to(model, rows):
        pass


def test_what_does_not_fit_is_refused(stack: Stack) -> None:
    model = tiny_model()
    with pytest.raises(UsageError, match="adapter 3, but there are 3"):
        applied(stack, model, [0, 3])
    with pytest.raises(UsageError, match="needs at least one row"):
        applied(stack, model, [])
    with pytest.raises(UsageError, match=r"changes model\.layers\.0.*, a layer the model does not have"):
        applied(stack, torch.nn.Sequential(torch.nn.Linear(2, 2)), [0])
    model.model.layers[1].self_attn.q_proj = torch.nn.Linear(32, 16)
    with pytest.raises(UsageError, match="maps 32 to 16 features"):
        applied(stack, model, [0])
    assert not any(module._forward_hooks for module in model.modules())


def test_other_kinds_of_layers_are_left_to_peft() -> None:
    stack = Stack({"0": lambda first, count: (torch.zeros(1, 4, 2), torch.zeros(1, 2, 4))}, 1)
    with pytest.raises(UsageError, match="is a Embedding, not a linear layer") as caught:
        applied(stack, torch.nn.Sequential(torch.nn.Embedding(4, 4)), [0])
    assert "rowwise" in str(caught.value.hint)


@given(st.lists(st.integers(BASE, 4), min_size=1, max_size=24))
def test_segments_cover_the_rows_in_equal_shares(rows: list[int]) -> None:
    def spread() -> Iterator[int]:
        for segment in segments(rows):
            share, remainder = divmod(segment.stop - segment.start, segment.count)
            assert remainder == 0
            for adapter in range(segment.first, segment.first + segment.count):
                yield from [adapter] * share

    assert list(spread()) == rows


def test_equal_groups_of_neighbours_are_one_segment() -> None:
    assert len(segments([0, 0, 1, 1, 2, 2])) == 1
    assert len(segments([BASE, 0, 1])) == 2
    assert len(segments([0, 0, 1, 2])) == 2
