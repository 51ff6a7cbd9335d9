"""A recipe as a trial: carried out, measured on what was written, and charged."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol

from agentlab.compress.goal import Goal, Measure
from agentlab.compress.meter import CompressCost, Meter, OverBudgetError
from agentlab.compress.recipe import Recipe, recipe_of
from agentlab.compress.texts import MOST
from agentlab.search.types import Params, TrialResult
from agentlab.stats.intervals import mean_interval
from agentlab.stats.ratios import ratio_interval
from agentlab.study.state import StudyCandidate, TrialState

Side = Literal["choose", "confirm"]
Floats = tuple[float, ...]
Figures = dict[Measure, float]
Ends = dict[Measure, list[float]]
REFERENCE = (1.0, 1.0)  # of hypervolumes: as many bytes as the bfloat16 base, and a KL of one nat a token
ERR, _UNBOUNDED = 0.05, 1e9  # of looks at a recipe that are wrong; the end of an interval that has none
_KL_RUNTIME, _KL_MORE = 1.25, 0.01  # the runtime may be so much worse than the weights that it is given
_KL_RELOADED, _KL_ROUNDING = 0.02, 1e-4  # and what is read back so much other than what was computed


@dataclass(frozen=True, slots=True)
class Measures:
    """What an export is, measured on the file; KL from the base, in nats a token. From `kl` on: in its runtime."""

    file: str  # the name of a file or a folder
    size: int  # bytes on disk
    bits: float  # all of them, for each weight of the base
    held: Mapping[str, int]  # bytes of its linear layers, or of a GGUF file's tensors, by the type they are held in
    kl_computed: float | None  # of the weights before they were written; None where only the file has them
    kl_weights: float  # of the weights read back in a fresh process, computed in float32
    kl: float
    loss: float  # rise of perplexity
    top1: float  # share of tokens of which the likeliest is that of the base
    load: float  # seconds
    prefill: float  # tokens a second
    decode: float  # tokens a second
    source_decode: float  # of what the user has, in the same runtime, measured in turn
    ratios: Floats  # of each round, the logarithm of `decode` by `source_decode`
    peak: int  # bytes of memory
    windows: Floats  # KL of each held-out window
    losses: Floats  # of each, the logarithm of its perplexity by that of the base
    says: str  # its answer to a prompt
    gpu: Mapping[str, float] = field(default_factory=dict)  # its `watts`, and the share of time that it is `busy`

    def faults(self) -> list[str]:
        """What says that the file is not what was computed, or that its runtime makes something else of it."""
        problems = []
        if self.kl_computed is not None:
            allowed = _KL_RELOADED * self.kl_computed + _KL_ROUNDING
            if abs(self.kl_weights - self.kl_computed) > allowed:
                problems.append(
                    f"the KL of the reloaded file is {self.kl_weights:.4g} instead of {self.kl_computed:.4g}"
                )
        if self.kl > max(_KL_RUNTIME * self.kl_weights, self.kl_weights + _KL_MORE):
            problems.append(f"the KL is {self.kl:.4g} in the runtime, but {self.kl_weights:.4g} for the weights")
        return problems


def look_level(first: int) -> float:
    """Of the interval of each look at a recipe, from `first` windows on to 64: all of them together err in 5 %."""
    return 1 - ERR / (1 + max(0, math.ceil(math.log2(MOST / first))))


def figures(losses: Sequence[float], kls: Sequence[float], level: float) -> tuple[Figures, Ends]:
    """Rise of perplexity and KL, and their intervals: Student's over windows, that of perplexity of its logarithms.

    `losses`: of each window, the logarithm of its perplexity by that of the base; `kls`: KL of each window.
    """
    rise = ratio_interval(losses, level)
    values: Figures = {"loss": rise.estimate - 1}
    within: Ends = {"loss": [rise.low - 1, min(rise.high - 1, _UNBOUNDED)]}
    if kls:
        kl = mean_interval(kls, level)
        values["kl"], within["kl"] = kl.estimate, [max(kl.low, 0.0), min(kl.high, _UNBOUNDED)]
    return values, within


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

    def read(self, recipe: Recipe, out: Path, side: Side, start: int, stop: int) -> tuple[Floats, Floats]:
        """Loss and KL of each of some windows of a side of the text, as far as there are; see `figures`.

        KL needs whole distributions of the base, 50 MB a window of SmolLM2: without a bound on it there is none.

        Raises:
            OverBudgetError: see `Meter`.
        """
        ...


Opener = Callable[[], Workshop]


@dataclass
class RecipeObjective:
    """The objective: recipes by their number, each made once. What was spent since the one before belongs to it."""

    workshop: Opener
    goal: Goal
    first: int  # windows of the first look
    meter: Meter
    place: Callable[[StudyCandidate], Path]
    known: Callable[[Params], TrialResult | None]  # what the search has measured already
    tidy: Callable[[], None]
    before: CompressCost = field(init=False)

    def __post_init__(self) -> None:
        self.before = self.meter.total

    def __call__(self, batch: Sequence[StudyCandidate]) -> list[TrialResult]:
        return [self._try_candidate(candidate) for candidate in batch]

    def _thought(self) -> CompressCost:
        """What was spent since the trial before: on proposing this one."""
        self.meter.flush()
        thought, self.before = self.meter.total + self.before * -1, self.meter.total
        return thought

    def _charge_known(self, known_result: TrialResult) -> TrialResult:
        """What is known already, for what that cost without the thinking of whoever asked first, and with ours."""
        metrics, thought = known_result.metrics, self._thought().units
        first = metrics.get("thought", {})
        cost = {unit: metrics.get(unit, 0.0) - first.get(unit, 0.0) + ours for unit, ours in thought.items()}
        return replace(known_result, metrics={**metrics, **cost, "thought": thought})

    def _read_figures(self, recipe: Recipe, out: Path, measures: Measures) -> dict[str, Any]:
        """Figures and intervals, of as many windows as it takes to know whether it reaches the goal."""
        losses, kls, speed = measures.losses, measures.windows, ratio_interval(measures.ratios)
        has_more = True
        while True:
            values, within = figures(losses, kls, look_level(self.first))
            values |= {"size": measures.size / self.workshop().dense, "speed": speed.estimate}
            within |= {"speed": [speed.low, speed.high]}
            if not (has_more and len(losses) < MOST and self.goal.is_near(values, measures.size, within)):
                return {"shares": values, "within": within, "loss": values["loss"], "losses": losses, "kls": kls}
            try:
                readings = self.workshop().read(recipe, out, "choose", len(losses), min(2 * len(losses), MOST))
            except OverBudgetError:  # it is undecided, and whatever comes next ends the work
                readings = ((), ())
            losses, kls, has_more = losses + readings[0], kls + readings[1], bool(readings[0])

    def _try_candidate(self, candidate: StudyCandidate) -> TrialResult:
        if known_result := self.known(candidate.params):
            return self._charge_known(known_result)
        self.tidy()
        recipe, out = recipe_of(candidate.params), self.place(candidate)
        if wrong := [problem for _, problem in recipe.problems()]:
            return TrialResult("failed", error="; ".join(wrong))
        thought = self._thought()
        try:
            measures = self.workshop().make(recipe, out)
            measured = {key: value for key, value in asdict(measures).items() if key != "windows"}
            finite = math.isfinite(measures.kl + measures.loss + measures.kl_weights + (measures.kl_computed or 0))
            faults = measures.faults() if finite else ["its outputs are not finite"]
            looked = self._read_figures(recipe, out.with_name(measures.file), measures) if finite else {}
        finally:
            making_cost = self._thought()
        cost = {**(making_cost + thought).units, "thought": thought.units}
        metrics = {**measured, **looked, **cost}
        if faults:
            return TrialResult("failed", metrics=metrics if finite else cost, error="; ".join(faults))
        worth = self.goal.worth(looked["shares"], measures.size, looked["within"])
        share = looked["shares"]["size"]
        size = max(1.0, share) if recipe.research else share  # it saves nothing that can be used
        return TrialResult("finished", worth, metrics, objectives=(size, measures.kl), items=measures.windows)


def counts(trial: TrialState) -> bool:
    """Whether it can be on a front: it was measured, and its export is of use."""
    return trial.value is not None and not recipe_of(trial.proposal.params).research


def alone(metrics: Mapping[str, Any]) -> Mapping[str, Any]:
    """The metrics of a trial with what it cost whoever measured it: what is remembered is free, but it was not."""
    return {**metrics, **metrics.get("then", {})}
