"""Rows under adapters of their own: stacked on linear layers, through PEFT on others, the same outputs on both."""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from agentlab.errors import UsageError
from agentlab.lora.rowwise import rowwise
from agentlab.lora.stacked import BASE, Stack
from tests.unit.lora.tiny import tiny_model, trained

ROWS = [1, BASE, 0, 1]
IDS = torch.randint(0, 64, (len(ROWS), 7), generator=torch.Generator().manual_seed(1))


def convolutional(width: int = 32) -> Any:
    """A random GPT-2, whose layers are no linear ones."""
    from transformers import GPT2Config, GPT2LMHeadModel

    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = GPT2Config(vocab_size=64, n_positions=32, n_embd=width, n_layer=2, n_head=4, bos_token_id=0)
        return GPT2LMHeadModel(config).eval()


@pytest.fixture(autouse=True)
def _no_opinions() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT has opinions on every folder
        yield


@pytest.fixture(scope="module")
def linear(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("linear")
    for name, rank in {"one": 4, "two": 2}.items():
        trained(folder / name, {"r": rank})
    return [folder / "one", folder / "two"]


@pytest.fixture(scope="module")
def conv_folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Adapters of the convolutional model."""
    from peft import LoraConfig, get_peft_model

    place = tmp_path_factory.mktemp("others")
    for name, rank in {"one": 4, "two": 2}.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            config = LoraConfig(r=rank, target_modules=["c_attn", "c_proj"], fan_in_fan_out=True)
            model = get_peft_model(convolutional(), config)
        for key, parameter in model.named_parameters():
            if "lora_" in key:
                torch.nn.init.normal_(parameter, std=0.1)
        model.save_pretrained(place / name)
    return [place / "one", place / "two"]


def each_alone(make: Any, folders: list[Path]) -> torch.Tensor:
    """Logits of every row by itself, by PEFT."""
    from peft import PeftModel

    logits = []
    for row, ids in zip(ROWS, IDS, strict=True):
        model = make() if row == BASE else PeftModel.from_pretrained(make(), str(folders[row])).eval()
        logits.append(model(ids[None]).logits)
    return torch.cat(logits)


@torch.no_grad()
def test_linear_layers_are_stacked(linear: list[Path]) -> None:
    model = tiny_model()
    with rowwise(model, linear) as adapters:
        assert isinstance(adapters, Stack)
        adapters.rows(ROWS)
        logits = model(IDS).logits
    torch.testing.assert_close(logits, each_alone(tiny_model, linear), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_other_layers_go_through_peft(conv_folders: list[Path]) -> None:
    model = convolutional()
    before, layers = model(IDS).logits, [type(module) for module in model.modules()]
    with rowwise(model, conv_folders) as adapters:
        assert not isinstance(adapters, Stack)
        assert torch.equal(model(IDS).logits, before)
        adapters.rows(ROWS)
        logits = model(IDS).logits
        adapters.rows([BASE] * len(ROWS))
        assert torch.equal(model(IDS).logits, before)
    torch.testing.assert_close(logits, each_alone(convolutional, conv_folders), rtol=1e-5, atol=1e-5)
    assert (logits - before).abs().max() > 1e-3  # the adapters do something
    assert [type(module) for module in model.modules()] == layers
    assert torch.equal(model(IDS).logits, before)


@pytest.mark.parametrize("kind", ["linear", "conv_folders"])
def test_a_row_of_no_adapter_is_refused(kind: str, request: pytest.FixtureRequest) -> None:
    model = {"linear": tiny_model, "conv_folders": convolutional}[kind]()
    with (
        rowwise(model, request.getfixturevalue(kind)) as adapters,
        pytest.raises(UsageError, match="adapter 2, but there are 2"),
    ):
        adapters.rows([0, 2])


def test_adapters_of_another_model_are_refused(linear: list[Path]) -> None:
    with (
        pytest.raises(UsageError, match=r"changes model\.layers.*, a layer the model does not have"),
        rowwise(convolutional(), linear),
    ):
        pass


def test_adapters_of_a_wider_model_leave_a_model_as_it_was(conv_folders: list[Path]) -> None:
    narrow, ids = convolutional(width=16), IDS[:1]
    before, layers = narrow(ids).logits, [type(module) for module in narrow.modules()]
    with pytest.raises(UsageError, match="does not fit the model"), rowwise(narrow, conv_folders):
        pass
    assert [type(module) for module in narrow.modules()] == layers
    assert torch.equal(narrow(ids).logits, before)


def test_errors_in_the_block_are_the_caller_s(conv_folders: list[Path]) -> None:
    with pytest.raises(RuntimeError, match="mine"), rowwise(convolutional(), conv_folders):
        raise RuntimeError("mine")


@torch.no_grad()
def test_without_adapters_every_row_is_the_base() -> None:
    model = tiny_model()
    with rowwise(model, []) as adapters:
        adapters.rows([BASE] * len(ROWS))
        assert torch.equal(model(IDS).logits, tiny_model()(IDS).logits)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["linear", "conv_folders"])
def test_adapters_come_and_go(kind: str, request: pytest.FixtureRequest) -> None:
    make = {"linear": tiny_model, "conv_folders": convolutional}[kind]
    one, two = request.getfixturevalue(kind)

    def said(folders: list[Path], rows: list[int]) -> torch.Tensor:
        model = make()
        with rowwise(model, folders) as adapters:
            adapters.rows(rows)
            logits: torch.Tensor = model(IDS).logits
        return logits

    model = make()
    before = model(IDS).logits
    with rowwise(model, [two]) as adapters:
        assert adapters.put(one) == 1
        adapters.rows([0, BASE, 1, 0])
        torch.testing.assert_close(model(IDS).logits, said([one, two], ROWS), rtol=1e-5, atol=1e-5)
        adapters.drop(0)
        assert torch.equal(model(IDS).logits, before)  # rows are the base's until it is said anew
        with pytest.raises(UsageError, match="adapter 0, but there are"):
            adapters.rows([0, BASE, 1, 0])
        assert adapters.put(one) == 0
        adapters.rows([0, BASE, 1, 1])
        torch.testing.assert_close(model(IDS).logits, said([one], [0, BASE, 0, 0]), rtol=1e-5, atol=1e-5)
    assert torch.equal(model(IDS).logits, before)


@torch.no_grad()
def test_an_adapter_that_does_not_fit_changes_nothing(linear: list[Path], conv_folders: list[Path]) -> None:
    model = tiny_model()
    with rowwise(model, linear[:1]) as adapters:
        adapters.rows([0] * len(ROWS))
        before = model(IDS).logits
        with pytest.raises(UsageError, match=r"changes transformer|layout|belong"):
            adapters.put(conv_folders[0])
        assert torch.equal(model(IDS).logits, before)


@torch.no_grad()
def test_factors_are_of_the_model_s_type_unless_it_is_said_otherwise(linear: list[Path]) -> None:
    exact = each_alone(tiny_model, linear)
    model = tiny_model().bfloat16()
    with rowwise(model, linear) as adapters:
        assert {factor.dtype for pair in adapters._factors.values() for factor in pair} == {torch.bfloat16}
        adapters.rows(ROWS)
        torch.testing.assert_close(model(IDS).logits.float(), exact, rtol=0.1, atol=0.1)
    with rowwise(model, linear, torch.float32) as adapters:
        assert {factor.dtype for pair in adapters._factors.values() for factor in pair} == {torch.float32}
