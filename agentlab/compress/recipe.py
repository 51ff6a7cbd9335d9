"""A recipe: which stages a model goes through, in which order, and what may follow what. Pure."""

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from pydantic import Field

from agentlab.config.base import StrictModel
from agentlab.config.keys import Key
from agentlab.search.constraints import Constraint, Forbids
from agentlab.search.space import SpaceConfig
from agentlab.search.types import Params, Value

Structure = Literal["none", "width", "layers"]
Recovery = Literal["none", "lora", "distil"]
Quantizer = Literal["none", "rtn", "gptq", "awq", "kquant"]
_ON_A_GRID = ("rtn", "gptq", "awq")

# What llama.cpp calls a k-quant of so many bits.
KQUANTS: Mapping[int, str] = {2: "Q2_K", 3: "Q3_K_M", 4: "Q4_K_M", 5: "Q5_K_M", 6: "Q6_K", 8: "Q8_0"}


class Recipe(StrictModel):
    """What is done to the base, in this order: cut its structure, recover, quantize, export."""

    structure: Structure = Field("none", description="Cut the width of the feed-forward networks, or whole layers.")
    kept: float = Field(1.0, gt=0.1, le=1, description="Share of the width, or of the layers, that stays.")
    recovery: Recovery = Field("none", description="Train after the cut: LoRA on text, or the base's own logits.")
    quantizer: Quantizer = Field("none", description="rtn, gptq, awq: on a grid; kquant: llama.cpp's own.")
    quantization_bits: int = Field(16, ge=2, le=16, description="Bits of a weight, without scales.")
    group: int = Field(64, ge=8, le=1024, description="Weights that share a scale, on a grid.")
    importance: bool = Field(False, description="Tell llama.cpp's quantizer which inputs matter.")

    def problems(self) -> Iterator[tuple[Key, str]]:
        """What does not go together."""
        if self.structure == "none" and self.recovery != "none":
            yield ("recovery",), "there is nothing to recover from without a cut in structure"
        if self.structure != "none" and self.kept == 1.0:
            yield ("kept",), f"a cut of {self.structure} that keeps all is none"
        if self.quantizer == "none" and self.quantization_bits != 16:
            yield ("quantizer",), f"say how to come to {self.quantization_bits} bits: rtn, gptq, awq or kquant"
        if self.quantizer in _ON_A_GRID and self.quantization_bits not in (4, 8):
            yield ("quantization_bits",), f"what {self.quantizer} makes is exported with 4 or 8 bits"
        if self.quantizer == "kquant" and self.quantization_bits not in KQUANTS:
            yield ("quantization_bits",), f"llama.cpp has {', '.join(map(str, KQUANTS))}"
        if self.quantizer == "none" and self.structure == "none":
            yield ("quantizer",), "this is the base as it is"

    @property
    def family(self) -> str:
        """What kind of recipe it is, for a reader."""
        if self.recovery == "distil":
            return "distilled"
        if self.structure != "none":
            return "structured"
        return "k-quant" if self.quantizer == "kquant" else "integer"

    @property
    def format(self) -> Literal["gguf", "compressed-tensors", "transformers"]:
        """What is exported."""
        if self.quantizer in _ON_A_GRID:
            return "compressed-tensors"
        return "gguf" if self.quantizer == "kquant" else "transformers"

    @property
    def stages(self) -> list[str]:
        """The names of its stages, in their order."""
        named = {
            "cut": self.structure != "none",
            "recover": self.recovery != "none",
            "quantize": self.quantizer != "none",
        }
        return [*(name for name, there in named.items() if there), "export"]

    def __str__(self) -> str:
        cut = f"{self.kept:.0%} of the {self.structure}"
        bits = (
            KQUANTS[self.quantization_bits]
            if self.quantizer == "kquant"
            else f"{self.quantizer.upper()} {self.quantization_bits} bits"
        )
        parts = [
            cut if self.structure != "none" else "",
            {"lora": "LoRA", "distil": "distilled"}.get(self.recovery, ""),
            "" if self.quantizer == "none" else bits,
            f"groups of {self.group}" if self.quantizer in _ON_A_GRID else "",
            "importance" if self.importance and self.quantizer == "kquant" else "",
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
    "group": {"type": "categorical", "choices": [32, 64, 128], "when": {"quantizer": ["rtn", "awq", "gptq"]}},
    "importance": {"type": "categorical", "choices": [False, True], "when": {"quantizer": ["kquant"]}},
}  # fmt: skip


def default_space() -> SpaceConfig:
    """What is searched unless a config says otherwise."""
    return SpaceConfig.model_validate(_SPACE)


def rules() -> list[Constraint]:
    """Combinations that mean nothing, or that no format holds."""
    return [
        Forbids(forbids={"structure": ("none",), "quantizer": ("none",)}),
        Forbids(forbids={"quantizer": _ON_A_GRID, "quantization_bits": (2, 3, 5, 6)}),
    ]


def recipe_of(params: Params) -> Recipe:
    """The recipe at a point of the space."""
    return Recipe.model_validate(dict(params))
