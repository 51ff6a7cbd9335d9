"""A recipe: which stages a model goes through, in which order, and what may follow what. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, get_args

from pydantic import AfterValidator, Field, WithJsonSchema

from agentlab.config.base import StrictModel
from agentlab.config.keys import Key
from agentlab.gguf.engine import KvType
from agentlab.plugins import Registry
from agentlab.search.constraints import Constraint, Forbids
from agentlab.search.space import SpaceConfig
from agentlab.search.types import Params, Value

if TYPE_CHECKING:
    from agentlab.compress.quantizers import GridQuantizer

Structure = Literal["none", "width", "layers"]
Recovery = Literal["none", "lora", "distil"]
Pruner = Literal["none", "magnitude", "wanda", "sparsegpt"]
Sparsity = Annotated[float, Field(gt=0, lt=1)] | Literal["2:4", "4:8"]
Format = Literal["gguf", "compressed-tensors", "bitsandbytes", "transformers"]
QUANTIZERS: Registry["GridQuantizer"] = Registry(  # on a grid of integers
    "quantizer",
    "agentlab.quantizers",
    {
        "rtn": "agentlab.compress.quantizers:RTN",
        "gptq": "agentlab.compress.quantizers:GPTQ",
        "awq": "agentlab.compress.quantizers:AWQ",
    },
)
_OFF_GRID = ("none", "bitsandbytes", "kquant")  # a format of their own each
_QUANTIZERS = (*QUANTIZERS.table, "bitsandbytes", "kquant")
Quantizer = Annotated[
    str,
    AfterValidator(lambda name: QUANTIZERS.require(name, *_OFF_GRID)),
    WithJsonSchema({"enum": ["none", *_QUANTIZERS], "type": "string"}),
]

_BLOCK = 32  # neighbouring weights of the smallest block of llama.cpp's types

# What llama.cpp calls a k-quant of so many bits.
KQUANTS: Mapping[int, str] = {2: "Q2_K", 3: "Q3_K_M", 4: "Q4_K_M", 5: "Q5_K_M", 6: "Q6_K", 8: "Q8_0"}


class Recipe(StrictModel):
    """What is done to the base, in this order: cut structure, prune, recover, cut the vocabulary, quantize, export."""

    structure: Structure = Field("none", description="Cut the width of the feed-forward networks, or whole layers.")
    kept: float = Field(1.0, gt=0.1, le=1, description="Share of the width, or of the layers, that stays.")
    vocabulary: Literal["all", "seen"] = Field(
        "all", description="seen: leave out tokens that the text does not use; others are then spelt in pieces."
    )
    pruner: Pruner = Field("none", description="Set weights to zero; that saves neither bytes nor time, see the docs.")
    pruning_sparsity: Sparsity | None = Field(None, description="Share of zeros, or 2:4, 4:8: so many of neighbours.")
    recovery: Recovery = Field("none", description="Train after a cut: LoRA on text, or the base's own logits.")
    quantizer: Quantizer = Field(
        "none", description="rtn, gptq, awq: on a grid; bitsandbytes: NF4 or int8; kquant: llama.cpp's own."
    )
    quantization_bits: int = Field(16, ge=2, le=16, description="Bits of a weight, without scales.")
    group: int = Field(64, ge=16, le=1024, description="Weights that share a scale, on a grid.")
    importance: bool = Field(False, description="Tell llama.cpp's quantizer which inputs matter.")
    cache: KvType = Field("f16", description="Type of keys and values in llama.cpp; measured, no part of the file.")

    def problems(self) -> Iterator[tuple[Key, str]]:
        if not self.cut and self.recovery != "none":
            yield ("recovery",), "there is nothing to recover from: no structure is cut and no weights are pruned"
        if self.structure != "none" and self.kept == 1.0:
            yield ("kept",), f"keeping 100% of the {self.structure} is not a cut"
        if (self.pruner == "none") != (self.pruning_sparsity is None):
            yield ("pruning_sparsity",), "requires a pruner: magnitude, wanda or sparsegpt"
        if self.quantizer == "none" and self.quantization_bits != 16:
            yield ("quantizer",), f"required for {self.quantization_bits} bits: choose {', '.join(_QUANTIZERS)}"
        if (self.on_grid or self.quantizer == "bitsandbytes") and self.quantization_bits not in (4, 8):
            yield ("quantization_bits",), f"{self.quantizer} supports 4 or 8 bits"
        if self.quantizer == "kquant" and self.quantization_bits not in KQUANTS:
            yield ("quantization_bits",), f"llama.cpp supports {', '.join(map(str, KQUANTS))} bits"
        if self.quantizer == "none" and not self.has_own_checkpoint:
            yield ("quantizer",), "this recipe does not change the base"
        if self.cache != "f16" and self.quantizer != "kquant":
            yield ("cache",), "requires the quantizer kquant (llama.cpp)"

    @property
    def on_grid(self) -> bool:
        """Whether it makes integers on a grid, which all are packed alike."""
        return self.quantizer not in _OFF_GRID

    @property
    def cut(self) -> bool:
        """Whether something is taken out, which training can make good in part."""
        return self.structure != "none" or self.pruner != "none"

    @property
    def has_own_checkpoint(self) -> bool:
        return self.cut or self.vocabulary == "seen"

    @property
    def family(self) -> str:
        if self.research:
            return "sparse"
        if self.recovery == "distil":
            return "distilled"
        if self.structure != "none" or self.vocabulary == "seen":
            return "structured"
        return {"kquant": "k-quant", "bitsandbytes": "bitsandbytes"}.get(self.quantizer, "integer")

    @property
    def research(self) -> str:
        """Why its export is of no use yet, and stays off the front; empty where it is."""
        return "" if self.pruner == "none" else "research only: zeros save no space or time in any supported format"

    @property
    def format(self) -> Format:
        if self.on_grid:
            return "compressed-tensors"
        formats: dict[str, Format] = {"kquant": "gguf", "bitsandbytes": "bitsandbytes"}
        return formats.get(self.quantizer, "transformers")

    def __str__(self) -> str:
        bits = {
            "none": "",
            "kquant": KQUANTS.get(self.quantization_bits, ""),
            "bitsandbytes": "NF4" if self.quantization_bits == 4 else "LLM.int8",
        }.get(self.quantizer, f"{self.quantizer.upper()} {self.quantization_bits} bits")
        zeros = self.pruning_sparsity
        parts = [
            f"{self.kept:.0%} of the {self.structure}" if self.structure != "none" else "",
            "" if zeros is None else f"{self.pruner} {zeros if isinstance(zeros, str) else f'{zeros:.0%}'}",
            {"lora": "LoRA", "distil": "distilled"}.get(self.recovery, ""),
            "vocabulary of the text" if self.vocabulary == "seen" else "",
            bits,
            f"groups of {self.group}" if self.on_grid else "",
            "importance" if self.importance and self.quantizer == "kquant" else "",
            f"cache {self.cache}" if self.cache != "f16" else "",
        ]
        return ", ".join(part for part in parts if part)


_INT8: dict[str, Value] = {"quantizer": "kquant", "quantization_bits": 8, "importance": False}
# Recipes that are known to be good, in the order in which they are tried: one of each family first.
PORTFOLIO: tuple[Mapping[str, Value], ...] = (
    {"structure": "none", **_INT8},
    {"structure": "none", "quantizer": "gptq", "quantization_bits": 4, "group": 64},
    {"structure": "width", "kept": 0.8, "recovery": "distil", **_INT8},
    {"structure": "none", "quantizer": "kquant", "quantization_bits": 4, "importance": True},
    {"structure": "none", "quantizer": "awq", "quantization_bits": 4, "group": 64},
    {"structure": "none", "quantizer": "kquant", "quantization_bits": 6, "importance": False},
    {"structure": "layers", "kept": 0.9, "recovery": "lora", **_INT8},
    {"structure": "none", "quantizer": "gptq", "quantization_bits": 8, "group": 64},
)

_CUT = {"structure": ["width", "layers"]}
_SPACE: dict[str, dict[str, Any]] = {
    "structure": {"type": "categorical", "choices": ["none", "width", "layers"]},
    "kept": {"type": "categorical", "choices": [0.6, 0.7, 0.8, 0.9, 0.95], "when": _CUT},
    "recovery": {"type": "categorical", "choices": ["none", "lora", "distil"], "when": _CUT},
    "quantizer": {"type": "categorical", "choices": ["none", "rtn", "awq", "gptq", "kquant"]},
    "quantization_bits": {
        "type": "categorical", "choices": [2, 3, 4, 5, 6, 8], "when": {"quantizer": ["rtn", "awq", "gptq", "kquant"]}
    },
    "group": {"type": "categorical", "choices": [32, 64, 128], "when": {"quantizer": []}},
    "importance": {"type": "categorical", "choices": [False, True], "when": {"quantizer": ["kquant"]}},
}  # fmt: skip


# What is searched only where a recipe of the portfolio asks for it: masks gain nothing in today's formats, and without
# words that its text does not use a model is of use for such text alone.
_ASKED: dict[str, dict[str, Any]] = {
    "vocabulary": {"type": "categorical", "choices": ["all"]},
    "pruner": {"type": "categorical", "choices": ["none"]},
    "pruning_sparsity": {"type": "categorical", "choices": [], "when": {"pruner": []}},
    "cache": {"type": "categorical", "choices": ["f16"], "when": {"quantizer": ["kquant"]}},
}


def _list_values(recipes: Sequence[Recipe], name: str) -> list[Any]:
    """What recipes have for a setting, each value once, in the order in which it comes."""
    return list(dict.fromkeys(getattr(recipe, name) for recipe in recipes))


def default_space(recipes: Sequence[Recipe]) -> SpaceConfig:
    """What is searched unless a config says otherwise: what is shipped, and whatever the recipes name beyond it."""
    used = {name: _list_values(recipes, name) for name in Recipe.model_fields}
    defaults = {name: field.default for name, field in Recipe.model_fields.items()}
    space = {name: dict(spec) for name, spec in _SPACE.items()}
    space |= {name: dict(spec) for name, spec in _ASKED.items() if set(used[name]) - {defaults[name]}}
    for name, spec in space.items():
        inactive = defaults[name] if "when" in spec else None
        additions = [value for value in used[name] if value not in (*spec["choices"], inactive, None)]
        choices = [*spec["choices"], *additions]
        numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in choices)
        spec["choices"] = sorted(choices) if numbers else choices
    for name, parent in (("quantization_bits", "quantizer"), ("pruning_sparsity", "pruner")):
        if name in space:
            space[name]["when"] = {parent: [value for value in space[parent]["choices"] if value != "none"]}
    space["group"]["when"] = {"quantizer": [name for name in space["quantizer"]["choices"] if name not in _OFF_GRID]}
    if "pruner" in space:
        del space["recovery"]["when"]  # a rule says instead what there is to recover from
    return SpaceConfig.model_validate(space)


def rules(space: SpaceConfig) -> list[Constraint]:
    """Combinations that mean nothing, or that no format holds, of what is searched."""
    uncut: dict[str, tuple[Value, ...]] = {"structure": ("none",)}
    if "pruner" in space.root:
        uncut["pruner"] = ("none",)
    unchanged = {**uncut, "vocabulary": ("all",)} if "vocabulary" in space.root else uncut
    searched = [value for value in getattr(space.root.get("quantizer"), "choices", ()) if value not in _OFF_GRID]
    on_grid = tuple(dict.fromkeys((*QUANTIZERS.table, *searched)))  # those of a package, too
    all_of_them = [
        Forbids(forbids={**unchanged, "quantizer": ("none",)}),
        Forbids(forbids={**uncut, "recovery": ("lora", "distil")}),
        Forbids(forbids={"quantizer": (*on_grid, "bitsandbytes"), "quantization_bits": (2, 3, 5, 6)}),
    ]
    return [rule for rule in all_of_them if set(rule.names) <= set(space.root)]


class Limit(NamedTuple):
    """What of a space a base cannot go through, as a rule, and why in words."""

    rule: Forbids
    why: str


def width_left(inner: int, share: float) -> int:
    """Channels of a feed-forward network that a cut of the width keeps: a multiple of a block."""
    return max(_BLOCK, round(inner * share / _BLOCK) * _BLOCK)


def layers_left(count: int, share: float) -> int:
    """Layers that a cut of layers keeps."""
    return max(1, round(count * share))


def shape_limits(shape: Mapping[str, Any], why_not_gguf: str, space: SpaceConfig) -> list[Limit]:
    """What recipes cannot be carried out on a base.

    `why_not_gguf`: what of it a GGUF file cannot hold; empty where it can.
    """
    keys = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    hidden, inner, layers, heads = (_smallest(shape.get(key)) for key in keys)
    head = int(shape.get("head_dim") or hidden // max(heads, 1))
    uneven = f"{_BLOCK} does not divide the"
    kquant: dict[str, tuple[Value, ...]] = {"quantizer": ("kquant",)}
    eight = {**kquant, "quantization_bits": (8,)}  # the others keep such a matrix in float16
    shares = [value for value in getattr(space.root.get("kept"), "choices", ()) if isinstance(value, float)]
    wide = tuple(share for share in shares if width_left(inner, share) >= inner)
    deep = tuple(share for share in shares if layers_left(layers, share) >= layers)
    if not why_not_gguf and hidden % _BLOCK:
        why_not_gguf = f"{uneven} width of {hidden}"
    small_cache: dict[str, tuple[Value, ...]] = {"cache": get_args(KvType)[1:]}
    uncut_reason = f"{KQUANTS[8]} without a width cut ({uneven} inner width of {inner})"
    all_heads, in_gguf = heads * head, not why_not_gguf
    cases: list[tuple[object, dict[str, tuple[Value, ...]], str]] = [
        (why_not_gguf, kquant, f"k-quants ({why_not_gguf.rstrip('.')})"),
        (in_gguf and all_heads % _BLOCK, eight, f"{KQUANTS[8]} ({uneven} total width of all heads, {all_heads})"),
        (in_gguf and inner % _BLOCK, {"structure": ("none", "layers"), **eight}, uncut_reason),
        (in_gguf and head % _BLOCK, small_cache, f"a quantized KV cache ({uneven} head width of {head})"),
        (
            wide,
            {"structure": ("width",), "kept": wide},
            f"{_cuts('width', wide)} (would remove none of {inner} channels)",
        ),
        (deep, {"structure": ("layers",), "kept": deep}, f"{_cuts('layers', deep)} (would remove none of {layers})"),
    ]
    rules = [(_forbidden(space, values), reason) for holds, values, reason in cases if holds]
    return [Limit(rule, reason) for rule, reason in rules if rule is not None]


def _smallest(size: Any) -> int:
    """A size of a config.json, which may be one for each layer; the gate has seen that they are whole numbers."""
    return min(size, default=0) if isinstance(size, list) else size or 0


def _cuts(kind: str, shares: Sequence[float]) -> str:
    return f"cuts that keep {', '.join(f'{share:.0%}' for share in shares)} of the {kind}"


def _forbidden(space: SpaceConfig, values: Mapping[str, tuple[Value, ...]]) -> Forbids | None:
    """A rule of what is searched; what is not searched has its default. None where no recipe of the space breaks it."""
    fixed = [name for name in values if name not in space.root]
    if any(Recipe.model_fields[name].default not in values[name] for name in fixed):
        return None
    return Forbids(forbids={name: listed for name, listed in values.items() if name not in fixed})


def left_out(limits: Sequence[Limit]) -> str:
    """The remark on all that a base cannot go through; empty where there is nothing."""
    reasons = "; ".join(reason for _, reason in limits)
    return f"Excluded because this base does not support them: {reasons}." if limits else ""


def recipe_of(params: Params) -> Recipe:
    """The recipe at a point of the space."""
    return Recipe.model_validate(dict(params))


def has_settings(recipe: Recipe, settings: Mapping[str, Value]) -> bool:
    """Whether a recipe has all of these settings, whose values are compared as text."""
    return all(str(getattr(recipe, name)) == str(value) for name, value in settings.items())
