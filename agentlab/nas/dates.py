"""The dates of a file: read, put in UTC or on the calendar, checked for order, and laid on the grid of a time step."""

from typing import TYPE_CHECKING

import numpy as np

from agentlab.config.overrides import typed
from agentlab.errors import DataError
from agentlab.nas.config import DataConfig
from agentlab.nas.csv_file import CsvFile
from agentlab.nas.remedy import date_format, refusal
from agentlab.nas.time_features import Frequency, Times

if TYPE_CHECKING:
    import pandas as pd

MAX_MISSING = 0.5  # a column or a grid with more holes than this would be mostly invented
_MIDNIGHT = r"(\d{4}-\d\d-\d\d)[T ]00:00(?::00(?:\.0+)?)?\s*(?:Z|[+-]\d\d(?::?\d\d)?)"


def read_dates(file: CsvFile, position: int, config: DataConfig) -> Times:
    """The rising dates of a column: instants in UTC, or calendar days where every one is a local midnight.

    A date without time zone is taken as it stands. Days, weeks and months keep their local date, for in UTC they would
    begin on the day before, and at another hour in summer.

    Raises:
        DataError: a field is no date, or the dates do not rise.
    """
    import pandas as pd

    column = config.date_column
    text = file.frame[position].str.strip()
    if config.date_format is None and len(text) and not pd.isna(text.iloc[0]):
        text = _local_days(text)
    try:
        parsed = pd.to_datetime(text, format=config.date_format or "ISO8601", errors="coerce", utc=True)
    except ValueError as error:
        raise DataError(
            f"{file.source}: data.date_format {config.date_format!r} cannot be used: {error}.",
            hint=f"It takes the directives of strptime: {typed({'data.date_format': '%d.%m.%Y %H:%M'})}",
        ) from error
    bad = np.flatnonzero(parsed.isna().to_numpy())
    if bad.size:
        raise _no_date(file, column, text, int(bad[0]), config.date_format)
    dates: Times = parsed.dt.tz_localize(None).to_numpy().astype("datetime64[s]")
    _require_rising(file, column, dates)
    return dates


def _local_days(text: "pd.Series[str]") -> "pd.Series[str]":
    import pandas as pd

    first = pd.Series(text.iloc[:1])
    if not (first.str.fullmatch(_MIDNIGHT).all() and text.str.fullmatch(_MIDNIGHT).fillna(value=False).all()):
        return text
    return text.str.slice(0, len("2013-01-31"))


def _no_date(file: CsvFile, column: str, text: "pd.Series[str]", row: int, pattern: str | None) -> DataError:
    import pandas as pd

    line, value, last = file.line(row), text.iloc[row], row == len(text) - 1
    if file.frame.iloc[row].isna().all():
        return DataError(f"{file.source}: line {line} is empty.", hint="Remove it.")
    shown = "empty" if pd.isna(value) else repr(str(value)[:40])
    message = f"{file.source}: column {column!r}, line {line} is not a date: {shown}."
    if (found := date_format(text)) is not None:
        return refusal(message, "Its dates are read with", {"data.date_format": found})
    expected = (
        f"It has to follow data.date_format {pattern!r}."
        if pattern
        else f"ISO 8601 is expected (2013-01-31 06:00); or say: {typed({'data.date_format': '%d.%m.%Y %H:%M'})}"
    )
    if last:
        hint = "All lines before it have one. Remove it if it holds totals or a remark."
    elif row:
        hint = f"The lines before it have one, and all have to be of one form. {expected}"
    else:
        hint = expected
    return DataError(message, hint=hint)


def _require_rising(file: CsvFile, column: str, dates: Times) -> None:
    steps = np.diff(dates)
    zero = np.timedelta64(0, "s")
    back = np.flatnonzero(steps <= zero)
    if not back.size:
        return
    row = int(back[0]) + 1
    where = f"{file.source}: column {column!r}, line {file.line(row)}"
    if (steps < zero).all():
        raise DataError(f"{where} goes back in time ({dates[row]}), as do all.", hint="Reverse the rows: oldest first.")
    if steps[row - 1] < zero:
        raise DataError(
            f"{where} goes back in time ({dates[row]}).",
            hint="Sort the rows by date, and check that day and month are not confused.",
        )
    raise DataError(
        f"{where} repeats the date of the line before ({dates[row]}).",
        hint="Keep one row per time step, with one column per series; local clock times repeat an hour in autumn, "
        "which a time zone offset or UTC resolves.",
    )


def find_frequency(file: CsvFile, dates: Times, config: DataConfig) -> Frequency:
    """The time step that the config names or the dates show, on whose grid every date has to lie.

    Raises:
        DataError: there is none, a date is off its grid, or most of the grid is without a row.
    """
    try:
        frequency = Frequency.parse(config.frequency) if config.frequency else Frequency.infer(dates)
    except ValueError as error:
        what = "data.frequency" if config.frequency else "the time step cannot be inferred"
        raise DataError(
            f"{file.source}: {what}: {error}.",
            hint=f"Say it: {typed({'data.frequency': 'h'})} (15min, h, 2h, D, W, MS); uneven rows have to be resampled "
            "first.",
        ) from error
    if frequency.steps_between(dates[0], dates[-1]) > len(dates) / (1 - MAX_MISSING):
        raise DataError(
            f"{file.source}: at frequency {frequency} most time steps from {dates[0]} to {dates[-1]} have no row.",
            hint="Give a longer data.frequency, or cut the series to a part without holes.",
        )
    aligned = frequency.align(dates)
    twice = np.concatenate([[False], aligned[1:] == aligned[:-1]])
    off = np.flatnonzero(twice | ~np.isin(aligned, frequency.grid(dates[0], dates[-1])))
    if off.size:
        more = f", and {off.size - 1} more are" if off.size > 1 else ""
        raise DataError(
            f"{file.source}: line {file.line(int(off[0]))} ({dates[off[0]]}) is off the grid of frequency {frequency} "
            f"that starts at {dates[0]}{more}.",
            hint="Give the true step in data.frequency, remove rows that do not belong to it, or resample the series.",
        )
    return frequency
