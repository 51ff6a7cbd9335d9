"""Reads a CSV of dated numbers, and says exactly what is wrong with one that cannot be used.

Dates are put in UTC or on the calendar, checked for order, and laid on the grid of a time step.
"""

import re
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from agentlab.config.overrides import format_set_options
from agentlab.config.workspace import Workspace
from agentlab.errors import DataError
from agentlab.nas.config import DataConfig
from agentlab.nas.csv_file import EXPECTED, CsvFile, locate, read_csv
from agentlab.nas.csv_repair import (
    GROUPED,
    date_format,
    has_decimal_commas,
    holds_no_number,
    looks_like_dates,
    refusal,
    without,
)
from agentlab.nas.time_features import Frequency, Times

if TYPE_CHECKING:
    import pandas as pd

EMBEDDED = "new_york_weather.csv.gz"
MAX_NAME = 200  # characters of a column's name
_MAX_MISSING = 0.5  # a column or a grid with more holes than this would be mostly invented
_MIDNIGHT = r"(\d{4}-\d\d-\d\d)[T ]00:00(?::00(?:\.0+)?)?\s*(?:Z|[+-]\d\d(?::?\d\d)?)"
_LEAVE_OUT = "Ignore it:"


@dataclass(frozen=True, slots=True, eq=False)
class SeriesTable:
    """Numbers by date in original units: `values` is [rows, columns] with NaN where the file has nothing.

    The target is the last column when only one column is forecast.
    """

    source: str
    names: tuple[str, ...]
    dates: Times
    values: NDArray[np.float64]
    frequency: Frequency
    notes: tuple[str, ...] = ()


def read_table(config: DataConfig, workspace: Workspace) -> SeriesTable:
    """Read the columns a config asks for, with dates that rise and a known frequency.

    Raises:
        MissingFileError: there is no such file.
        DataError: the file cannot be used.
    """
    if config.path is None:
        path, source = Path(str(files("agentlab.nas") / "embedded" / EMBEDDED)), "New York weather 2013 (embedded)"
    else:
        path = workspace.resolve(config.path)
        source = locate(path)
    file = read_csv(path, source, config)
    date = _position(file, config.date_column, "data.date_column")
    names = _columns(file, config)
    dates = _dates(file, date, config)
    values = np.stack([_numbers(file, name, names, config) for name in names], axis=1)
    frequency = _frequency(file, dates, config)
    return SeriesTable(source, names, frequency.align(dates), values, frequency)


def _position(file: CsvFile, name: str, key: str) -> int:
    """Where a column stands, which has to be unambiguous."""
    positions = [position for position, column in enumerate(file.names) if column == name]
    if len(positions) > 1:
        column_numbers = " and ".join(str(position + 1) for position in positions)
        raise DataError(
            f"{file.source}: columns {column_numbers} in line 1 are both named {name[:MAX_NAME]!r}.",
            hint="Give each column its own name.",
        )
    if positions:
        return positions[0]
    hint = f"Columns in the file: {', '.join(column[:40] or '(no name)' for column in file.names[:12])}."
    message = f"{file.source} has no column {name!r} ({key})."
    if key != "data.date_column":
        raise DataError(message, hint=hint)
    dated = [column for index, column in enumerate(file.names) if column and looks_like_dates(file.frame[index])]
    settings = {key: dated[0]} if dated and file.names.count(dated[0]) == 1 else {}
    raise refusal(message, f"{hint} Line 1 must be the header; set the date column:", settings)


def _columns(file: CsvFile, config: DataConfig) -> tuple[str, ...]:
    source = file.source
    names = config.columns or tuple(name for name in file.names if name != config.date_column)
    names = tuple(name for name in names if name not in config.ignore)
    if not names:
        raise DataError(f"{source} has no column besides the date.", hint=EXPECTED)
    for name in names:
        if not name:
            raise refusal(
                f"{source}: column {file.names.index('') + 1} has no name in line 1.",
                "Name or remove it (pandas: to_csv(..., index=False)), or ignore it:",
                without(config, ""),
            )
        _position(file, name, "data.columns")
        if len(name) > MAX_NAME or not name.replace("\u00a0", " ").isprintable():
            raise DataError(
                f"{source}: the name of column {file.names.index(name) + 1} in line 1, {name[:40]!r}, is "
                f"longer than {MAX_NAME} characters or contains control characters.",
                hint="Use a short name on one line.",
            )
    if len(set(names)) < len(names) or config.date_column in names:
        raise DataError(
            f"{source}: data.columns contains a duplicate, or the date column.", hint="List each column once."
        )
    target = config.target or names[-1]
    _position(file, target, "data.target")
    if target not in names:
        raise DataError(
            f"{source}: the target {target!r} is not in data.columns.", hint=f"Add {target} to data.columns."
        )
    if config.features == "S":
        return (target,)
    return names if config.features == "M" else (*(name for name in names if name != target), target)


def _numbers(file: CsvFile, name: str, names: tuple[str, ...], config: DataConfig) -> NDArray[np.float64]:
    import pandas as pd

    column: pd.Series[Any] = file.frame[_position(file, name, "data.columns")]
    if config.decimal == "," and pd.api.types.is_string_dtype(column):
        text = column.astype("string").str.strip()
        text = text.mask(text.str.fullmatch(GROUPED).fillna(value=False), text.str.replace(".", "", regex=False))
        column = text.mask(~text.str.contains(".", regex=False), text.str.replace(",", ".", regex=False))
    try:
        numbers = pd.to_numeric(column, errors="coerce")
        values: NDArray[np.float64] = numbers.to_numpy(dtype=np.float64)
    except OverflowError as error:  # a whole number beyond all floats
        large = f"{file.source}: column {name!r} contains a number that is too large."
        raise refusal(large, _LEAVE_OUT, without(config, name)) from error
    wrong = np.flatnonzero((numbers.isna() & column.notna()).to_numpy() | np.isinf(values))
    if wrong.size:
        raise _no_number(file, name, names, wrong, config)
    if (share := np.isnan(values).mean()) > _MAX_MISSING:
        missing = f"{file.source}: column {name!r} has no value in {share:.0%} of the rows."
        raise refusal(missing, _LEAVE_OUT, without(config, name))
    return values


def _no_number(
    file: CsvFile, name: str, names: tuple[str, ...], wrong: NDArray[np.intp], config: DataConfig
) -> DataError:
    column, row = file.frame[file.names.index(name)], int(wrong[0])
    value = str(column.iloc[row])[:40]
    message = f"{file.source}: column {name!r}, line {file.line(row)}: {value!r} is not a finite number."
    if config.decimal == "." and has_decimal_commas(column):
        return refusal(message, "The column uses decimal commas; set the decimal mark:", {"data.decimal": ","})
    written = "1.234,5" if config.decimal == "," else "1234.5"
    plain = f"With data.decimal {config.decimal!r}, numbers must be written like {written}, without other characters."
    if "," in value and any(letter.isdigit() for letter in value):
        advice = f"{plain} Or ignore the column:"
    elif wrong.size < len(column) / 2:
        rest_note = f" and {format_count(wrong.size - 1, 'other')} like it" if wrong.size > 1 else ""
        advice = f"Correct it{rest_note}; leave missing numbers empty. Or ignore the column:"
    else:
        advice = _LEAVE_OUT
    # all such columns at once: there may be hundreds; none where nothing would be left
    words = [label for label in names if label == name or holds_no_number(file.frame[file.names.index(label)])]
    return refusal(message, advice, without(config, *words) if len(words) < len(names) else {}, plain)


def format_count(number: int, noun: str) -> str:
    """`1 row`, `1,234 rows`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _dates(file: CsvFile, position: int, config: DataConfig) -> Times:
    """The rising dates of a column: instants in UTC, or calendar days where every one is a local midnight.

    A date without time zone is taken as it stands. Days, weeks and months keep their local date, for in UTC they would
    begin on the day before, and at another hour in summer.
    """
    import pandas as pd

    column = config.date_column
    text = file.frame[position].str.strip()
    if config.date_format is None and re.fullmatch(_MIDNIGHT, str(text.iloc[0])):
        midnights = text.str.fullmatch(_MIDNIGHT).fillna(value=False).all()
        text = text.str.slice(0, len("2013-01-31")) if midnights else text
    try:
        parsed = pd.to_datetime(text, format=config.date_format or "ISO8601", errors="coerce", utc=True)
    except (ValueError, re.error) as error:  # pandas makes a pattern of it
        raise DataError(
            f"{file.source}: invalid data.date_format {config.date_format!r}: {error}.",
            hint=f"Use strptime directives: {format_set_options({'data.date_format': '%d.%m.%Y %H:%M'})}",
        ) from error
    bad = np.flatnonzero(parsed.isna().to_numpy())
    if bad.size:
        raise _no_date(file, column, text, int(bad[0]), config.date_format)
    dates: Times = parsed.dt.tz_localize(None).to_numpy().astype("datetime64[s]")
    _require_rising(file, column, dates)
    return dates


def _no_date(file: CsvFile, column: str, text: "pd.Series[str]", row: int, pattern: str | None) -> DataError:
    import pandas as pd

    line, value = file.line(row), text.iloc[row]
    if file.frame.iloc[row].isna().all():
        return DataError(f"{file.source}: line {line} is empty.", hint="Remove it.")
    value_text = "empty" if pd.isna(value) else repr(str(value)[:40])
    hint = f"Dates must match data.date_format {pattern!r}."
    if not pattern:
        option = format_set_options({"data.date_format": "%d.%m.%Y %H:%M"})
        hint = f"Use ISO 8601 (2013-01-31 06:00), or set the format: {option}"
    if row == len(text) - 1:
        hint = "All lines before it have a date. Remove this line if it holds totals or a comment."
    elif row:
        hint = f"The lines before it have a date, and all dates must have the same format. {hint}"
    message = f"{file.source}: column {column!r}, line {line} is not a date: {value_text}."
    matching_pattern = date_format(text)
    settings = {"data.date_format": matching_pattern} if matching_pattern else {}
    return refusal(message, "Set the date format:", settings, hint)


def _require_rising(file: CsvFile, column: str, dates: Times) -> None:
    steps = np.diff(dates).astype(np.int64)
    if steps.min(initial=1) > 0:
        return
    row = int((steps <= 0).argmax()) + 1
    if (steps < 0).all():
        fault, hint = (
            f"goes back in time ({dates[row]}), as do all other lines",
            "Reverse the rows, so that the oldest comes first.",
        )
    elif steps[row - 1] < 0:
        fault = f"goes back in time ({dates[row]})"
        hint = "Sort the rows by date, and check that day and month are not swapped."
    else:
        fault = f"repeats the date of the previous line ({dates[row]})"
        hint = (
            "Keep one row per time step, with one column per series. Local time repeats an hour in "
            "autumn: add a time zone offset, or use UTC."
        )
    raise DataError(f"{file.source}: column {column!r}, line {file.line(row)} {fault}.", hint=hint)


def _frequency(file: CsvFile, dates: Times, config: DataConfig) -> Frequency:
    """The time step that the config names or the dates show, on whose grid every date has to lie."""
    try:
        frequency = Frequency.parse(config.frequency) if config.frequency else Frequency.infer(dates)
    except ValueError as error:
        problem = "data.frequency" if config.frequency else "cannot infer the time step"
        raise DataError(
            f"{file.source}: {problem}: {error}.",
            hint=f"Set the time step: {format_set_options({'data.frequency': 'h'})} (15min, h, 2h, D, W, MS); "
            "resample unevenly spaced rows first.",
        ) from error
    if frequency.steps_between(dates[0], dates[-1]) > len(dates) / (1 - _MAX_MISSING):
        raise DataError(
            f"{file.source}: at frequency {frequency}, most time steps from {dates[0]} to {dates[-1]} have no row.",
            hint="Use a coarser data.frequency, or limit the series to a part without gaps.",
        )
    aligned = frequency.align(dates)
    twice = np.concatenate([[False], aligned[1:] == aligned[:-1]])
    off = np.flatnonzero(twice | ~np.isin(aligned, frequency.grid(dates[0], dates[-1])))
    if off.size:
        rest_note = f", as are {off.size - 1} more" if off.size > 1 else ""
        raise DataError(
            f"{file.source}: line {file.line(int(off[0]))} ({dates[off[0]]}) is off the {frequency} grid "
            f"that starts at {dates[0]}{rest_note}.",
            hint="Set the correct data.frequency, remove the rows that are off the grid, or resample the series.",
        )
    return frequency
