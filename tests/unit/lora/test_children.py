"""Children of every operator go to llama.cpp and vLLM, whatever their parents' ranks, scales and targets were."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agentlab.errors import DataError, UsageError
from agentlab.lora.delta import LoraDelta
from agentlab.lora.exporting import plan_serving
from agentlab.lora.gguf_export import export_gguf
from agentlab.lora.reading import Adapter
from agentlab.lora.recipe import blend, plan
from agentlab.lora.writing import derive
from tests.unit.lora.deltas import random_delta
from tests.unit.lora.folders import write_folder
from tests.unit.lora.references import BLENDS, MUTATIONS, rotated
from tests.unit.lora.test_gguf_export import LINEAR, TINY, llama_logits, torch_logits, write_base
from tests.unit.lora.tiny import loaded, tiny_model, trained

METHODS = ("sum", "concat", "slerp", "ties", "dare", "svd-cross")
OPERATORS = {
    **{name: case.made for name, case in {**BLENDS, **MUTATIONS}.items()},
    "rotations": rotated,
}
# Different ranks and scales in one adapter, and fewer targets in the other.
PARENTS: dict[str, dict[str, Any]] = {
    "patterns": {
        "r": 4,
        "lora_alpha": 8,
        "target_modules": LINEAR,
        "rank_pattern": {"k_proj": 6},
        "alpha_pattern": {"v_proj": 1},
    },
    "narrow": {"r": 3, "lora_alpha": 6, "target_modules": ["q_proj", "down_proj"], "use_rslora": True},
}


def nothing(*_: object) -> None:
    pass


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the two parents, and their base as GGUF."""
    folder = tmp_path_factory.mktemp("family")
    for name, keys in PARENTS.items():
        trained(folder / name, keys)
    write_base(folder / "base.gguf", tiny_model())
    return folder


def same_everywhere(child: Path, family: Path) -> None:
    """llama.cpp computes what PEFT computes, and vLLM has nothing against it."""
    with Adapter(child) as adapter:
        served = plan_serving({"child": adapter})
        export_gguf(adapter, child.with_suffix(".gguf"), TINY)
    assert served.problems == ()
    bare, expected = torch_logits(tiny_model()), torch_logits(loaded(child))
    actual = llama_logits(family / "base.gguf", child.with_suffix(".gguf"))
    assert np.abs(actual - expected).max() < 0.02 * np.abs(expected - bare).max()


@pytest.mark.parametrize("name", OPERATORS)
def test_llama_cpp_and_vllm_take_what_every_operator_makes(tmp_path: Path, family: Path, name: str) -> None:
    operator: Callable[[Sequence[LoraDelta]], LoraDelta] = OPERATORS[name]
    with ExitStack() as opened:
        parents = [opened.enter_context(Adapter(family / source)) for source in PARENTS]
        assert plan_serving({"patterns": parents[0]}).problems  # the children have none
        derive(parents, tmp_path / "child", 32, lambda _, source: operator(source))
    same_everywhere(tmp_path / "child", family)


@pytest.mark.parametrize("method", METHODS)
def test_and_what_every_method_blends(tmp_path: Path, family: Path, method: str) -> None:
    with ExitStack() as opened:
        parents = [opened.enter_context(Adapter(family / name)) for name in PARENTS]
        blend(parents, plan(parents, method), tmp_path / "child", nothing)
    same_everywhere(tmp_path / "child", family)


@pytest.mark.parametrize("method", METHODS)
def test_what_stands_in_the_way_of_parents_stands_in_that_of_children(tmp_path: Path, method: str) -> None:
    """A head outside the layers: vLLM's lint says so, and no GGUF is written."""
    heads = [
        Adapter(write_folder(tmp_path / name, {"lm_head": random_delta((64, 32), 4, seed)}, target_modules=["lm_head"]))
        for seed, name in enumerate("ab")
    ]
    blend(heads, plan(heads, method), tmp_path / "child", nothing)
    with Adapter(tmp_path / "child") as child:
        (problem,) = plan_serving({"child": child}).problems
        assert "outside the model's layers" in problem
        with pytest.raises(DataError, match="lm_head cannot be part"):
            export_gguf(child, tmp_path / "child.gguf", TINY)
    assert not (tmp_path / "child.gguf").exists()


def test_ranks_that_add_up_to_more_than_vllm_takes_are_said(tmp_path: Path) -> None:
    query = "model.layers.0.self_attn.q_proj"
    wide = [
        Adapter(write_folder(tmp_path / name, {query: random_delta((32, 32), 300, seed)}, target_modules=["q_proj"]))
        for seed, name in enumerate("ab")
    ]
    blend(wide, plan(wide, "concat"), tmp_path / "exact", nothing)
    blend(wide, plan(wide, "slerp", rank=32), tmp_path / "cut", nothing)
    with Adapter(tmp_path / "exact") as exact, Adapter(tmp_path / "cut") as cut:
        (problem,) = plan_serving({"exact": exact}).problems
        assert "rank 600, but vLLM supports at most 512" in problem
        served = plan_serving({"cut": cut})
        assert served.problems == ()
        assert served.flags[served.flags.index("--max-lora-rank") + 1] == "32"
    with pytest.raises(UsageError, match="exceeds the limit of 8192"):
        plan([*wide] * 14, "concat")
