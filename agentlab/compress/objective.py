"""A recipe as a trial: carried out, measured on what was written, and charged."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from agentlab.compress.goal import Goal, Measure
from agentlab.compress.meter import Meter, Spent
from agentlab.compress.recipe import Recipe, recipe_of
from agentlab.search.types import Params, TrialResult
from agentlab.study.state import Candidate, TrialState

REFERENCE = (1.0, 1.0)  # of hypervolumes: as many bytes as the bfloat16 base, and a KL of one nat a token
_KL_RUNTIME, _KL_MORE = 1.25, 0.01  # the runtime may be so much worse than the weights that it is given
_KL_RELOADED, _KL_ROUNDING = 0.02, 1e-4  # and what is read back so much other than what was computed


@dataclass(frozen=True, slots=True)
class Measures:
    """What an export is. Everything is measured on the file.

    Attributes:
        file: its name, of a file or a folder.
        size: bytes on disk.
        bits: all of them, for each weight of the base.
        held: bytes of its linear layers, or of a GGUF file's tensors, by the type that they are held in.
        kl_computed: KL from the base of the weights before they were written; None where only the file has them.
        kl_weights: of the weights read back in a fresh process, computed in float32; nats a token.
        kl: in the runtime that the export is for.
        loss: rise of perplexity there.
        top1: share of tokens of which the likeliest is that of the base, there.
        load, prefill, decode: seconds, tokens a second, tokens a second, there.
        source_decode: tokens a second of what the user has, in the same runtime, measured in turn.
        peak: bytes of memory, there.
        windows: KL of each held-out window, there.
        says: what it answers to a prompt.
        gpu: on one, the share of time that it is `busy` meanwhile, and its `watts`.
    """

    file: str
    size: int
    bits: float
    held: Mapping[str, int]
    kl_computed: float | None
    kl_weights: float
    kl: float
    loss: float
    top1: float
    load: float
    prefill: float
    decode: float
    source_decode: float
    peak: int
    windows: tuple[float, ...]
    says: str
    gpu: Mapping[str, float] = field(default_factory=dict)

    def shares(self, dense: int) -> dict[Measure, float]:
        """What goals speak of; `dense` is the size of the bfloat16 base."""
        speed = self.decode / self.source_decode
        return {"size": self.size / dense, "speed": speed, "loss": self.loss, "kl": self.kl}

    def faults(self) -> list[str]:
        """What says that the file is not what was computed, or that its runtime makes something else of it."""
        found = []
        if self.kl_computed is not None:
            allowed = _KL_RELOADED * self.kl_computed + _KL_ROUNDING
            if abs(self.kl_weights - self.kl_computed) > allowed:
                found.append(f"read back, its KL is {self.kl_weights:.4g} instead of {self.kl_computed:.4g}")
        if self.kl > max(_KL_RUNTIME * self.kl_weights, self.kl_weights + _KL_MORE):
            found.append(f"its runtime has a KL of {self.kl:.4g}, the weights {self.kl_weights:.4g}")
        return found


class Workshop(Protocol):
    """Who carries recipes out."""

    @property
    def dense(self) -> int:
        """Bytes of the base in bfloat16."""
        ...

    def make(self, recipe: Recipe, out: Path) -> Measures:
        """Write the export at `out`, a folder or with the suffix of a file, and measure it.

        Raises:
            OverBudgetError: see `Meter`.
        """
        ...


@dataclass
class Recipes:
    """The objective: recipes by their number, each made once. What was spent since the one before belongs to it."""

    workshop: Workshop
    goal: Goal
    meter: Meter
    place: Callable[[Candidate], Path]
    known: Callable[[Params], TrialResult | None]  # what the search has measured already
    tidy: Callable[[], None]
    before: Spent = field(init=False)

    def __post_init__(self) -> None:
        self.before = self.meter.total

    def __call__(self, batch: Sequence[Candidate]) -> list[TrialResult]:
        """One after the other."""
        return [self.known(each.params) or self._tried(each) for each in batch]

    def _tried(self, candidate: Candidate) -> TrialResult:
        self.tidy()
        recipe, out = recipe_of(candidate.params), self.place(candidate)
        if wrong := [said for _, said in recipe.problems()]:
            return TrialResult("failed", error="; ".join(wrong))
        before = self.before
        try:
            measures = self.workshop.make(recipe, out)
        finally:
            self.meter.flush()
            self.before = self.meter.total
        shares, cost = measures.shares(self.workshop.dense), asdict(_less(self.before, before))
        if not math.isfinite(measures.kl + measures.loss + measures.kl_weights + (measures.kl_computed or 0)):
            return TrialResult("failed", metrics=cost, error="it answers with numbers that are not finite")
        metrics = {
            **{key: value for key, value in asdict(measures).items() if key != "windows"},
            "shares": shares,
            **cost,
        }
        if faults := measures.faults():
            return TrialResult("failed", metrics=metrics, error="; ".join(faults))
        worth = self.goal.worth(shares, measures.size)
        size = max(1.0, shares["size"]) if recipe.research else shares["size"]  # it saves nothing that can be used
        return TrialResult("finished", worth, metrics, objectives=(size, measures.kl), items=measures.windows)


def counts(trial: TrialState) -> bool:
    """Whether it can be on a front: it was measured, and its export is of use."""
    return trial.value is not None and not recipe_of(trial.proposal.params).research


def alone(metrics: Mapping[str, Any]) -> Mapping[str, Any]:
    """The metrics of a trial with what it cost whoever measured it: what is remembered is free, but it was not."""
    return {**metrics, **metrics.get("then", {})}


def _less(now: Spent, before: Spent) -> Spent:
    return Spent(now.seconds - before.seconds, now.joules - before.joules, now.grams - before.grams)
