"""The control record: what an agent added over its control, and the verdict that may be drawn from it."""

from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Verdict = Literal["helped", "no_measurable_help", "hurt", "not_measured"]
Study = Literal["light", "full"]

MIN_PER_ARM = 2


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with its interval; an infinite end is one that the data cannot bound."""

    estimate: float
    low: float
    high: float
    level: float
    method: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """Who is compared with whom, and in what. `direction` says which values of the metric are better."""

    agent: str
    control: str
    metric: str
    unit: str
    direction: Literal["lower", "higher"]
    budget: str


class Control(BaseModel):
    """`estimate` is how much better the agent did, in `unit`: positive is better, whatever the direction.

    `low` and `high` are None when nothing was measured; `n` counts the observations of both arms (or the pairs).
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    agent: str
    control: str
    metric: str
    unit: str
    direction: Literal["lower", "higher"]
    budget: str
    n: int = Field(ge=0)
    estimate: float | None
    low: float | None
    high: float | None
    level: float = Field(gt=0, lt=1)
    method: str
    verdict: Verdict
    note: str = ""


def not_measured(what: Comparison, n: int, level: float, why: str) -> Control:
    """The record of a comparison that could not be made."""
    return _record(what, n, Interval(float("nan"), float("nan"), float("nan"), level, "none"), "not_measured", why)


def judge(what: Comparison, n: int, interval: Interval, study: Study) -> Control:
    """The verdict on a measured benefit (positive: the agent did better).

    Only a full study may say `helped`: the trials of a light control share one history, so what the agent finds
    also helps its control. An interval with an infinite end is too little data to say anything.
    """
    if not (-float("inf") < interval.low and interval.high < float("inf")):
        return not_measured(what, n, interval.level, f"{n} observations cannot bound the effect")
    if interval.high < 0:
        return _record(what, n, interval, "hurt", "")
    if interval.low <= 0:
        return _record(what, n, interval, "no_measurable_help", "")
    if study == "light":
        return _record(
            what,
            n,
            interval,
            "no_measurable_help",
            "It looks helpful; only paired studies with and without the agent could confirm it.",
        )
    return _record(what, n, interval, "helped", "")


def _record(what: Comparison, n: int, interval: Interval, verdict: Verdict, note: str) -> Control:
    measured = verdict != "not_measured"
    return Control(
        agent=what.agent,
        control=what.control,
        metric=what.metric,
        unit=what.unit,
        direction=what.direction,
        budget=what.budget,
        n=n,
        estimate=interval.estimate if measured else None,
        low=interval.low if measured else None,
        high=interval.high if measured else None,
        level=interval.level,
        method=interval.method,
        verdict=verdict,
        note=note,
    )
