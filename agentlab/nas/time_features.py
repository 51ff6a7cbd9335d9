"""Time steps, and the features of a date that the Informer embeds. Pure: numpy dates in, numbers out."""

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Times = NDArray[np.datetime64]
Floats = NDArray[np.float64]

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
        """Read 15min, h, 2h, D, W or MS.

        Raises:
            ValueError: another word.
        """
        if text in _MONTHS:
            return cls(None)
        match = _PATTERN.fullmatch(text)
        unit = _NAMES.get(match["unit"].lower()) if match else None
        if match is None or unit is None:
            raise ValueError(f"{text!r} is not a time step such as 15min, h, 2h, D, W or MS")
        return cls(int(match["count"] or 1) * _MINUTES[unit])

    @classmethod
    def infer(cls, times: Times) -> "Frequency":
        """The step that most neighbouring dates are apart. Whole minutes, or calendar months.

        Raises:
            ValueError: fewer than three dates, steps below a minute, or no step that most pairs share.
        """
        if len(times) < 3:
            raise ValueError("fewer than three dates")
        steps = np.diff(times.astype("datetime64[s]")).astype(np.int64)
        if 28 * 86400 <= steps.min() and steps.max() <= 31 * 86400:
            return cls(None)
        values, counts = np.unique(steps, return_counts=True)
        step = int(values[counts.argmax()])
        if counts.max() * 2 <= len(steps):
            raise ValueError("no time step is shared by most neighbouring rows")
        if step % 60:
            raise ValueError(f"rows are {step} seconds apart; a step has to be whole minutes")
        return cls(step // 60)

    @property
    def name(self) -> str:
        """The word that `parse` reads."""
        if self.minutes is None:
            return "MS"
        unit = next(unit for unit in ("W", "D", "h", "min") if self.minutes % _MINUTES[unit] == 0)
        count = self.minutes // _MINUTES[unit]
        return unit if count == 1 else f"{count}{unit}"

    @property
    def season(self) -> int:
        """Steps in the natural cycle: a day below daily data, a week for days, a year for weeks and months."""
        if self.minutes is None:
            return 12
        if self.minutes < 1440:
            return max(1, 1440 // self.minutes)
        return 7 if self.minutes < 10080 else max(1, round(52 * 10080 / self.minutes))

    def steps_between(self, start: np.datetime64, end: np.datetime64) -> int:
        """Steps from one date to a later one, rounded down, without building the grid."""
        if self.minutes is None:
            return int((end.astype("datetime64[M]") - start.astype("datetime64[M]")).astype(np.int64))
        return int((end - start).astype("timedelta64[m]").astype(np.int64)) // self.minutes

    def grid(self, start: np.datetime64, end: np.datetime64) -> Times:
        """Every step from start to end, both included when they lie on the grid."""
        if self.minutes is None:
            offset = start - start.astype("datetime64[M]").astype(start.dtype)
            months = np.arange(start.astype("datetime64[M]"), end.astype("datetime64[M]") + np.timedelta64(1, "M"))
            return months.astype("datetime64[s]") + offset
        step = np.timedelta64(self.minutes * 60, "s")
        return np.arange(start, end + np.timedelta64(1, "s"), step)


def _minute(times: Times) -> Floats:
    return (times.astype("datetime64[m]").astype(np.int64) % 60) / 59


def _hour(times: Times) -> Floats:
    return (times.astype("datetime64[h]").astype(np.int64) % 24) / 23


def _weekday(times: Times) -> Floats:
    return ((times.astype("datetime64[D]").astype(np.int64) + 3) % 7) / 6  # day 0 of the epoch was a Thursday


def _day_of_month(times: Times) -> Floats:
    days = times.astype("datetime64[D]")
    return (days - days.astype("datetime64[M]")).astype(np.int64) / 30


def _day_of_year(times: Times) -> Floats:
    days = times.astype("datetime64[D]")
    return (days - days.astype("datetime64[Y]")).astype(np.int64) / 365


def _week_of_year(times: Times) -> Floats:
    days = times.astype("datetime64[D]")
    weekday = (days.astype(np.int64) + 3) % 7
    thursday = days + (3 - weekday).astype("timedelta64[D]")  # an ISO week belongs to the year of its Thursday
    return ((thursday - thursday.astype("datetime64[Y]")).astype(np.int64) // 7) / 52


def _month(times: Times) -> Floats:
    return (times.astype("datetime64[M]").astype(np.int64) % 12) / 11


def _features_of(frequency: Frequency) -> tuple[Callable[[Times], Floats], ...]:
    minutes = frequency.minutes
    if minutes is None:
        return (_month,)
    if minutes >= 10080:
        return (_day_of_month, _week_of_year)
    days = (_weekday, _day_of_month, _day_of_year)
    if minutes >= 1440:
        return days
    return (_hour, *days) if minutes % 60 == 0 else (_minute, _hour, *days)


def time_features(times: Times, frequency: Frequency) -> NDArray[np.float32]:
    """Features of each date in [-0.5, 0.5], shape [rows, k]; k depends on the frequency (hourly: 4).

    The set and the scaling per frequency are those of the Informer's `timeF` encoding: hour/23, weekday/6,
    (day - 1)/30, (day of year - 1)/365, each minus 0.5.
    """
    return np.stack([feature(times) for feature in _features_of(frequency)], axis=1).astype(np.float32) - np.float32(0.5)
