"""Time steps, and the features of a date that the Informer embeds. Pure: numpy dates in, numbers out."""

import math
import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Times = NDArray[np.datetime64]

_MINUTES = {"min": 1, "h": 60, "D": 1440, "W": 10080}
_NAMES = {"t": "min", "min": "min", "h": "h", "d": "D", "w": "W"}
_PATTERN = re.compile(r"(?P<count>[1-9][0-9]{0,4})?(?P<unit>min|[a-zA-Z]{1,2})")
_MONTHS = ("MS", "M", "ME")


@dataclass(frozen=True, slots=True)
class Frequency:
    """A time step of `minutes`, or one calendar month when `minutes` is None."""

    minutes: int | None

    @classmethod
    def parse(cls, text: str) -> "Frequency":
        """Read 15min, h, 2h, D, W or MS; raises ValueError for another word."""
        if text in _MONTHS:
            return cls(None)
        match = _PATTERN.fullmatch(text)
        unit = _NAMES.get(match["unit"].lower()) if match else None
        if match is None or unit is None:
            raise ValueError(f"{text!r} is not a valid time step; examples: 15min, h, 2h, D, W, MS")
        return cls(int(match["count"] or 1) * _MINUTES[unit])

    @classmethod
    def infer(cls, times: Times) -> "Frequency":
        """The step that most neighbouring dates are apart. Whole minutes, or calendar months.

        Raises:
            ValueError: fewer than three dates, steps below a minute, several months or years, or no step that most
                pairs share.
        """
        if len(times) < 3:
            raise ValueError("fewer than three dates")
        times = times.astype("datetime64[s]")
        months = _months_apart(times)
        if months == 1:
            return cls(None)
        if months > 1:
            raise ValueError(f"rows are {months} months apart; the longest supported time step is one month")
        steps = np.diff(times).astype(np.int64)
        values, counts = np.unique(steps, return_counts=True)
        step = int(values[counts.argmax()])
        if counts.max() * 2 <= len(steps):
            raise ValueError("most neighbouring rows do not share one time step")
        if step % 60:
            raise ValueError(f"rows are {step} seconds apart, but a step must be a whole number of minutes")
        return cls(step // 60)

    def __str__(self) -> str:
        """The word that `parse` reads."""
        if self.minutes is None:
            return "MS"
        unit = next(unit for unit in ("W", "D", "h", "min") if self.minutes % _MINUTES[unit] == 0)
        count = self.minutes // _MINUTES[unit]
        return unit if count == 1 else f"{count}{unit}"

    @property
    def season(self) -> int:
        """Steps in the natural cycle: a day below daily data, a week for days, a year for weeks and months.

        Where the step does not divide a day or a week, the fewest whole ones that it does divide.
        """
        if self.minutes is None:
            return 12
        if self.minutes >= 10080:
            return max(1, round(52 * 10080 / self.minutes))
        return math.lcm(self.minutes, 1440 if self.minutes < 1440 else 10080) // self.minutes

    def steps_between(self, start: np.datetime64, end: np.datetime64) -> int:
        """Steps from one date to a later one, rounded down, without building the grid."""
        if self.minutes is None:
            return int((end.astype("datetime64[M]") - start.astype("datetime64[M]")).astype(np.int64))
        return int((end - start).astype("timedelta64[m]").astype(np.int64)) // self.minutes

    def align(self, times: Times) -> Times:
        """The dates as they stand; monthly ones are moved to the first of the month, wherever in it they lie."""
        return times if self.minutes is not None else times.astype("datetime64[M]").astype("datetime64[s]")

    def grid(self, start: np.datetime64, end: np.datetime64) -> Times:
        """Every step from start to end, both included when they lie on the grid."""
        if self.minutes is None:
            months = np.arange(start.astype("datetime64[M]"), end.astype("datetime64[M]") + np.timedelta64(1, "M"))
            return months.astype("datetime64[s]")
        return np.arange(start, end + np.timedelta64(1, "s"), np.timedelta64(self.minutes * 60, "s"))


def _months_apart(times: Times) -> int:
    """Calendar months between most neighbouring dates, or 0 where a number of days says it better.

    Months show in dates on one day of the month, on its last day, or about a month apart and one in every month.
    """
    import pandas as pd

    at = pd.DatetimeIndex(times)
    months = np.diff(times.astype("datetime64[M]").astype(np.int64))
    steps = np.diff(times).astype(np.int64)
    if months.min() < 1:
        return 0
    if (at.day == at.day[0]).all() or at.is_month_end.all():
        values, counts = np.unique(months, return_counts=True)
        return int(values[counts.argmax()]) if counts.max() * 2 > len(months) else 0
    uneven = steps.min() < steps.max()
    near = steps.min() >= 26 * 86400 and steps.max() <= 35 * 86400
    return int(uneven and near and months.max() == 1)


def time_features(times: Times, frequency: Frequency) -> NDArray[np.float32]:
    """Features of each date in [-0.5, 0.5], shape [rows, k]; k depends on the frequency (hourly: 4).

    The set and the scaling per frequency are those of the Informer's `timeF` encoding: hour/23, weekday/6,
    (day - 1)/30, (day of year - 1)/365, each minus 0.5.
    """
    import pandas as pd

    at, minutes = pd.DatetimeIndex(times), frequency.minutes
    week = pd.Index(at.isocalendar().week.to_numpy(np.int64) - 1)
    day = (at.day - 1, 30)
    days = [(at.day_of_week, 6), day, (at.day_of_year - 1, 365)]
    if minutes is None:
        cycles = [(at.month - 1, 11)]
    elif minutes >= 10080:
        cycles = [day, (week, 52)]
    elif minutes >= 1440:
        cycles = days
    else:
        cycles = [*([] if minutes % 60 == 0 else [(at.minute, 59)]), (at.hour, 23), *days]
    return np.stack([np.asarray(position) / last - 0.5 for position, last in cycles], axis=1).astype(np.float32)
