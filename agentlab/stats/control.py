"""The control record: what an agent added over its control, and the verdict that may be drawn from it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field

Verdict = Literal["helped", "no_measurable_help", "hurt", "not_measured"]
Study = Literal["light", "full"]

MIN_PER_ARM = 2
LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with its interval; an infinite end is one that the data cannot bound."""

    estimate: float
    low: float
    high: float
    level: float
    method: str

    def clip(self, limit: float) -> Self:
        """With no end farther than `limit` from 0: of scores in [0, 1] none differ by more than 1."""
        return replace(self, low=max(self.low, -limit), high=min(self.high, limit))


@dataclass(frozen=True, slots=True)
class Evidence(Interval):
    """How much better one rival did than another on the same `n` items or pairs; positive is better."""

    n: int
    p: float  # of no difference, two-sided
    smallest: float | None  # the least difference that as much data shows with power 0.8; None if not known, or none
    supposing: str  # what `smallest` supposes, in words; or why there is none


@dataclass(frozen=True, slots=True)
class ControlComparison:
    """Who is compared with whom, and in what. `direction` says which values of the metric are better."""

    agent: str
    control: str
    metric: str
    unit: str
    direction: Literal["lower", "higher"]
    budget: str


class Control(BaseModel):
    """`estimate` is how much better the agent did, in `unit`: positive is better, whatever the direction."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    agent: str
    control: str
    metric: str
    unit: str
    direction: Literal["lower", "higher"]
    budget: str
    n: int = Field(ge=0)  # observations of both arms, or pairs
    estimate: float | None  # None when nothing was measured, as are its ends
    low: float | None
    high: float | None
    level: float = Field(gt=0, lt=1)
    method: str
    verdict: Verdict
    note: str = ""
    p: float | None = None  # these three as of `Evidence`, where the referee compared
    smallest: float | None = None
    supposing: str = ""


def least_pairs(comparisons: int = 1, level: float = LEVEL) -> int:
    """How many pairs can reject at all: 6, or 7 as the first in a family of three. One of 2**n flips is the extreme."""
    return 1 + math.ceil(math.log2(comparisons / (1 - level)) - 1e-9)


def not_measured(comparison: ControlComparison, n: int, level: float, reason: str) -> Control:
    """The record of a comparison that could not be made."""
    unknown = Interval(math.nan, math.nan, math.nan, level, "none")
    return _record(comparison, n, unknown, "not_measured", reason)


def judge(comparison: ControlComparison, n: int, interval: Interval, study: Study) -> Control:
    """The verdict on a measured benefit (positive: the agent did better).

    Only a full study may say `helped` or `hurt`: the trials of a light control share one history, so what the agent
    finds also helps its control. An interval with an infinite end is too little data to say anything.
    """
    if not (-float("inf") < interval.low and interval.high < float("inf")):
        return not_measured(comparison, n, interval.level, f"{n} observations are too few to bound the effect")
    if interval.low <= 0 <= interval.high:
        return _record(comparison, n, interval, "no_measurable_help", "")
    if study == "light":
        looks = "helpful" if interval.low > 0 else "harmful"
        note = f"It looks {looks}, but only paired studies (with and without the agent) could confirm that."
        return _record(comparison, n, interval, "no_measurable_help", note)
    return _record(comparison, n, interval, "helped" if interval.low > 0 else "hurt", "")


def verdict_sentence(control: Control, agent: str, observations: str) -> str:
    """What a comparison came to, for a reader; shares are told in points of a hundred.

    `agent`: whose help it is about, such as "the agent"; `observations`: what `n` counts, such as "questions".
    """
    if control.estimate is None or control.low is None or control.high is None:
        return f"Whether {agent} helped was not measured: {control.note.rstrip('.')}."
    verdicts = {"helped": f"{agent} helped", "hurt": f"{agent} hurt"}
    verdict = verdicts.get(control.verdict, f"no measurable help from {agent}")
    points = control.unit.startswith("share")
    unit = " points" if points else ""
    figures = (control.estimate, control.low, control.high, control.smallest or 0.0)
    scale, digits = (100, 1) if points else (1, 4)
    estimate, low, high, smallest = _format_signed([scale * figure for figure in figures], digits)
    test = f"{100 * control.level:.4g}% interval, {control.method}"
    if control.p is not None:
        test += ", p < 0.0001" if control.p < 1e-4 else f", p = {control.p:.2g}"
    sentence = (
        f"{verdict[:1].upper()}{verdict[1:]}: a gain in {control.metric} of {estimate}{unit} [{low}, {high}] over "
        f"{control.control}, on {control.n} {observations} ({test})."
    )
    if control.verdict == "no_measurable_help" and control.smallest is not None:
        gain = smallest.lstrip("+")
        sentence += f" With 80% power, a gain of {gain}{unit} or more would have been detected ({control.supposing})."
    elif control.verdict == "no_measurable_help" and control.supposing:
        sentence += f" The smallest detectable gain is unknown: {control.supposing}."
    return f"{sentence} {control.note}".rstrip()


def _format_signed(values: Sequence[float], digits: int) -> list[str]:
    """Figures with their signs, all with as many digits as the largest needs to show two of its own."""
    largest = max(map(abs, values))
    if 0 < largest < 10 ** (1 - digits):
        digits = 1 - math.floor(math.log10(largest))
    return [f"{value if round(value, digits) else 0.0:+.{digits}f}" for value in values]


def _record(comparison: ControlComparison, n: int, interval: Interval, verdict: Verdict, note: str) -> Control:
    measured = verdict != "not_measured"
    return Control(
        agent=comparison.agent,
        control=comparison.control,
        metric=comparison.metric,
        unit=comparison.unit,
        direction=comparison.direction,
        budget=comparison.budget,
        n=n,
        estimate=interval.estimate if measured else None,
        low=interval.low if measured else None,
        high=interval.high if measured else None,
        level=interval.level,
        method=interval.method,
        verdict=verdict,
        note=note,
        p=getattr(interval, "p", None),
        smallest=getattr(interval, "smallest", None),
        supposing=getattr(interval, "supposing", ""),
    )
