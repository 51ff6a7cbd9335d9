"""Recipes: what goes together, what they are called, and the space that holds them."""

from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from agentlab.compress.config import CompressConfig, point
from agentlab.compress.recipe import PORTFOLIO, Recipe, default_space, left_out, recipe_of, rules, shape_limits
from agentlab.search.space import SearchSpace

_HF = "transformers"


@pytest.mark.parametrize(
    ("recipe", "named", "family", "kind"),
    [
        ({"quantizer": "kquant", "quantization_bits": 4, "importance": True}, "Q4_K_M, importance", "k-quant", "gguf"),
        ({"quantizer": "gptq", "quantization_bits": 4}, "GPTQ 4 bits, groups of 64", "integer", "compressed-tensors"),
        ({"quantizer": "bitsandbytes", "quantization_bits": 4}, "NF4", "bitsandbytes", "bitsandbytes"),
        ({"structure": "layers", "kept": 0.9}, "90% of the layers", "structured", _HF),
        ({"structure": "width", "kept": 0.8, "recovery": "distil"}, "80% of the width, distilled", "distilled", _HF),
        ({"pruner": "wanda", "pruning_sparsity": 0.5}, "wanda 50%", "sparse", _HF),
        ({"pruner": "sparsegpt", "pruning_sparsity": "2:4", "recovery": "lora"}, "sparsegpt 2:4, LoRA", "sparse", _HF),
        ({"quantizer": "kquant", "quantization_bits": 8, "cache": "q8_0"}, "Q8_0, cache q8_0", "k-quant", "gguf"),
    ],
)  # fmt: skip
def test_a_recipe_says_what_it_is(recipe: dict[str, Any], named: str, family: str, kind: str) -> None:
    parsed = Recipe.model_validate(recipe)
    assert (str(parsed), parsed.family, parsed.format) == (named, family, kind)
    assert list(parsed.problems()) == []
    assert bool(parsed.research) is (family == "sparse")


@pytest.mark.parametrize(
    ("recipe", "key", "message"),
    [
        ({}, "quantizer", "does not change the base"),
        ({"recovery": "lora", "quantizer": "kquant", "quantization_bits": 8}, "recovery", "nothing to recover from"),
        ({"structure": "width"}, "kept", "is not a cut"),
        ({"pruner": "wanda"}, "pruning_sparsity", "requires a pruner"),
        ({"pruning_sparsity": 0.5, "quantizer": "gptq", "quantization_bits": 4}, "pruning_sparsity", "a pruner"),
        ({"quantizer": "gptq", "quantization_bits": 3}, "quantization_bits", "4 or 8"),
        ({"quantizer": "bitsandbytes", "quantization_bits": 6}, "quantization_bits", "4 or 8"),
        ({"quantizer": "kquant", "quantization_bits": 7}, "quantization_bits", "llama.cpp supports"),
        ({"quantizer": "gptq", "quantization_bits": 4, "cache": "q8_0"}, "cache", "llama.cpp"),
    ],
)
def test_what_does_not_go_together_is_named(recipe: dict[str, Any], key: str, message: str) -> None:
    problems = dict(Recipe.model_validate(recipe).problems())
    assert message in problems[(key,)]


@pytest.mark.parametrize("sparsity", [0.0, 1.0, "3:4", -0.5])
def test_a_sparsity_is_a_share_or_a_pattern(sparsity: Any) -> None:
    with pytest.raises(ValidationError):
        Recipe(pruner="wanda", pruning_sparsity=sparsity)


def test_all_that_is_drawn_is_a_recipe_that_goes_together() -> None:
    masked_recipes = [Recipe(pruner="wanda", pruning_sparsity=0.5), Recipe(pruner="sparsegpt", pruning_sparsity="2:4")]
    for recipes in ([Recipe.model_validate(dict(entry)) for entry in PORTFOLIO], masked_recipes):
        space = SearchSpace.of(default_space(recipes), rules(default_space(recipes)))
        rng = np.random.default_rng(0)
        for _ in range(300):
            assert list(recipe_of(space.sample(rng)).problems()) == []


def test_masks_are_searched_where_the_portfolio_names_one_and_nowhere_else() -> None:
    assert "pruner" not in default_space([Recipe(quantizer="kquant", quantization_bits=8)]).root
    masked_recipe = Recipe(pruner="wanda", pruning_sparsity="4:8", quantizer="bitsandbytes", quantization_bits=4)
    space = SearchSpace.of(default_space([masked_recipe]), rules(default_space([masked_recipe])))
    assert space.problems(point(masked_recipe, space)) == []
    assert recipe_of(point(masked_recipe, space)) == masked_recipe


@pytest.mark.parametrize(
    ("config", "key", "message"),
    [
        ({"text": {"calibration": 2}}, ("text", "calibration"), "uses 2 windows for scoring"),
        ({"recovery": {"steps": 100_000}}, ("recovery", "steps"), "each of the 14 training windows"),
        ({"space": {"fire": {"type": "categorical", "choices": ["hot"]}}}, ("space", "fire"), "not permitted"),
        ({"space": {"group": {"type": "int", "low": 8, "high": 64}}}, ("space", "group"), "8: "),
    ],
)
def test_what_no_recipe_could_be_carried_out_with_is_named(config: Any, key: tuple[str, ...], message: str) -> None:
    assert message in dict(CompressConfig.model_validate(config).problems())[key]


def test_a_portfolio_outside_of_the_space_is_an_error() -> None:
    config = CompressConfig.model_validate(
        {
            "portfolio": [{"quantizer": "kquant", "quantization_bits": 8}, {"structure": "width", "kept": 0.9}],
            "first": 1,
            "space": {
                "quantizer": {"type": "categorical", "choices": ["kquant"]},
                "quantization_bits": {"type": "categorical", "choices": [4, 6]},
            },
        }
    )
    problems = dict(config.problems())
    assert "quantization_bits = 8" in problems[("portfolio", "0")]
    assert "quantizer" in problems[("portfolio", "1")]


SHAPE = {"hidden_size": 96, "intermediate_size": 512, "num_hidden_layers": 30, "num_attention_heads": 6, "head_dim": 32}


@pytest.mark.parametrize(
    ("changes", "reason", "barred", "offered_still"),
    [
        ({}, "no name", {"quantizer": "kquant", "quantization_bits": 4}, {"quantizer": "gptq", "quantization_bits": 4}),
        ({"hidden_size": 100}, "", {"quantizer": "kquant", "quantization_bits": 4}, {"quantizer": "rtn"}),
        (
            {"intermediate_size": 500},
            "",
            {"structure": "none", "quantizer": "kquant", "quantization_bits": 8},
            {"structure": "width", "quantizer": "kquant", "quantization_bits": 8},
        ),
        ({"head_dim": 24, "num_attention_heads": 5}, "", {"quantizer": "kquant", "quantization_bits": 8}, {}),
        ({"num_hidden_layers": 3}, "", {"structure": "layers", "kept": 0.9}, {"structure": "layers", "kept": 0.6}),
        ({"intermediate_size": 32}, "", {"structure": "width", "kept": 0.6}, {"structure": "layers", "kept": 0.6}),
    ],
)
def test_what_a_base_cannot_go_through_is_known_from_its_shape(
    changes: dict[str, int], reason: str, barred: dict[str, Any], offered_still: dict[str, Any]
) -> None:
    space = default_space([])
    limits = shape_limits({**SHAPE, **changes}, reason, space)
    assert any(limit.rule.violation(barred) for limit in limits)
    assert not any(limit.rule.violation(offered_still) for limit in limits)
    assert left_out(limits).startswith("Excluded because this base does not support them: ")


def test_an_even_base_can_go_through_all() -> None:
    assert shape_limits(SHAPE, "", default_space([])) == []
    assert left_out([]) == ""
