"""Children as weights of their parents: one number for each parent, group of layers and type of module. Pure."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

from agentlab.errors import UsageError
from agentlab.evolve.config import GenomeConfig
from agentlab.search.parameters import Real
from agentlab.search.space import SearchSpace
from agentlab.search.types import Params, Proposal

PARENT, BLEND, BASE = "parent", "blend", "base"  # sources of the first trials
_LAYER = re.compile(r"\.(\d+)\.(\w+)")  # number and part of a layer: `layers.3.self_attn.q_proj`
_MOST = 64  # numbers of a child


def describe_start(start: Proposal) -> str:
    """A start, as a sentence names it."""
    names = {PARENT: f"the parent {start.note}", BLEND: "the uniform blend of all parents"}
    return names.get(start.source, "the base alone")


class Child(NamedTuple):
    """One child of a search, which is the main one of the run if its name is empty."""

    search: str
    number: int
    params: Params


@dataclass(frozen=True, slots=True)
class Coefficients:
    """The genome of children that are weighted sums."""

    parents: tuple[str, ...]
    slots: dict[str, str]  # of each module that a parent changes, the part of the child: `layers 0-14 mlp`
    config: GenomeConfig

    @classmethod
    def of(cls, parents: Sequence[str], modules: Sequence[str], config: GenomeConfig) -> "Coefficients":
        """The genome of children of these parents, which change these modules.

        Raises:
            UsageError: a child would have more numbers than can be searched.
        """
        matches = {name: _LAYER.search(name) for name in modules}
        depth = 1 + max((int(layer_match[1]) for layer_match in matches.values() if layer_match), default=0)
        slots = {name: _slot(layer_match, depth, config.groups) for name, layer_match in matches.items()}
        count = len(set(slots.values())) * len(parents)
        if count > _MOST:
            raise UsageError(
                f"A child would have {count} weights; at most {_MOST} can be searched.",
                hint="Lower genome.groups, or name fewer parents.",
            )
        return cls(tuple(parents), slots, config)

    @property
    def space(self) -> SearchSpace:
        """What can be proposed. Fresh children lie around the uniform blend: their weights add up to 1 in the mean."""
        low, high = self.config.low, self.config.high
        blend = self._even(dict.fromkeys(self.parents, 1 / len(self.parents)))
        return SearchSpace({name: Real(type="float", low=low, high=high) for name in blend}, centre=blend)

    @property
    def starts(self) -> Iterator[Proposal]:
        """The first trials of every search: each parent, the uniform blend of all, and the base alone."""
        for parent in self.parents:
            yield Proposal(self._even({parent: 1.0}), PARENT, parent)
        share = 1 / len(self.parents)
        yield Proposal(self._even(dict.fromkeys(self.parents, share)), BLEND, f"{share:.3g} of each parent")
        yield Proposal(self._even({}), BASE)

    def _even(self, weights: dict[str, float]) -> dict[str, float]:
        pairs = product(self.parents, dict.fromkeys(self.slots.values()))
        return {f"{parent}.{slot}": weights.get(parent, 0.0) for parent, slot in pairs}

    def weights(self, params: Params) -> dict[str, tuple[float, ...]]:
        """Of each module, a weight for every parent."""
        weights: dict[str, tuple[float, ...]] = {}
        for module, slot in self.slots.items():
            weights[module] = tuple(float(params[f"{parent}.{slot}"]) for parent in self.parents)
        return weights


def _slot(layer_match: re.Match[str] | None, depth: int, groups: int) -> str:
    """Layers 0 to 14 of 30 are the first of two groups; what lies outside of layers is a part of its own."""
    if layer_match is None:
        return "outside"
    group = int(layer_match[1]) * groups // depth
    first, last = -(-group * depth // groups), -(-(group + 1) * depth // groups) - 1
    return f"layers {first}-{last} {layer_match[2]}"
