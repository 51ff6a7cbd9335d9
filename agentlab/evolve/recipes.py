"""Children as recipes: an operator, whom it is applied to, and how. Pure; `children` makes adapters of them."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from agentlab.evolve.config import GenomeConfig
from agentlab.evolve.genome import BASE, BLEND, PARENT
from agentlab.lora.operators import is_mutation
from agentlab.search.parameters import Categorical, Integer, Real
from agentlab.search.space import SearchSpace
from agentlab.search.types import Params, Proposal, Trial

_MOST = 9_999  # numbers of trials; a larger one than there are begins again at 0
_SMALLEST = 0.01  # step of a mutation


@dataclass(frozen=True)
class RecipeGenome:
    """The genome; implements `search.genome.Genome`. Whom a recipe names are earlier children by their numbers."""

    parents: tuple[str, ...]
    population: int
    config: GenomeConfig

    @property
    def dimension(self) -> int:
        return 1

    @cached_property
    def space(self) -> SearchSpace:
        pairs = {"operator": self.pairs}
        number = {"type": "int", "low": 0, "high": _MOST}
        parameters: dict[str, Categorical | Integer | Real] = {
            "operator": Categorical(type="categorical", choices=self.config.operators),
            "first": Integer.model_validate(number),
        }
        if self.pairs:
            parameters["second"] = Integer.model_validate({**number, "when": pairs})
            parameters["share"] = Real.model_validate({"type": "float", "low": 0.0, "high": 1.0, "when": pairs})
        if self.alone:
            step = {"type": "float", "low": _SMALLEST, "high": 1.0, "log": True, "when": {"operator": self.alone}}
            parameters["step"] = Real.model_validate(step)
        return SearchSpace(parameters)

    @property
    def pairs(self) -> tuple[str, ...]:
        return tuple(name for name in self.config.operators if not is_mutation(name))

    @property
    def alone(self) -> tuple[str, ...]:
        return tuple(name for name in self.config.operators if is_mutation(name))

    @property
    def starts(self) -> Iterator[Proposal]:
        for index, parent in enumerate(self.parents):
            yield Proposal({"operator": PARENT, "first": index}, PARENT, parent)
        yield Proposal({"operator": BLEND, "first": 0}, BLEND, f"{1 / len(self.parents):.3g} of each parent")
        yield Proposal({"operator": BASE, "first": 0}, BASE)

    def bred_from(self, params: Params, number: int, closing: Collection[int] = ()) -> list[int]:
        """The trials that a child with this number is made of; all are of earlier generations, and none is the base.

        `closing` are the last children of generations that the budget cut short.
        """
        if params["operator"] not in self.config.operators:
            return []
        base = len(self.parents) + 1
        generation_start = max((last + 1 for last in closing if last < number), default=0)
        earlier_count = number - (number - generation_start) % self.population or base  # children before its generation
        sources = [int(params[key]) % earlier_count for key in ("first", "second") if key in params]
        return [base - 1 if source == base else source for source in sources]

    def random(self, rng: np.random.Generator) -> Params:
        return self.space.sample(rng)

    def cross(self, first: Trial, second: Trial, rng: np.random.Generator) -> Params:
        """A child of two, nearer to either; of one where no operator takes two."""
        if not self.pairs:
            return self.mutate(first, rng, 0.1)
        operator = self.pairs[int(rng.integers(len(self.pairs)))]
        share = round(float(rng.uniform(0.1, 0.9)), 4)
        return {"operator": operator, "first": first.number, "second": second.number, "share": share}

    def mutate(self, parent: Trial, rng: np.random.Generator, step: float) -> Params:
        """A child of one; a blend with a random earlier one where no operator takes one."""
        if not self.alone:
            return self.space.reduce({**self.space.sample(rng), "first": parent.number})
        operator = self.alone[int(rng.integers(len(self.alone)))]
        return {"operator": operator, "first": parent.number, "step": round(min(max(step, _SMALLEST), 1.0), 4)}
