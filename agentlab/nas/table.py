"""Reads a CSV of dated numbers, says exactly what is wrong with one that cannot be used, and closes its gaps."""

from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agentlab.config.workspace import Workspace
from agentlab.errors import DataError
from agentlab.nas.config import DataConfig
from agentlab.nas.csv_file import EXPECTED, CsvFile, locate, read_csv
from agentlab.nas.dates import MAX_MISSING, find_frequency, read_dates
from agentlab.nas.remedy import GROUPED, has_decimal_commas, holds_no_number, looks_like_dates, refusal, without
from agentlab.nas.time_features import Frequency, Times

Column = NDArray[np.float64]
EMBEDDED = "new_york_weather.csv.gz"
MAX_NAME = 200  # characters of a column's name
_SHOWN = 8  # columns that a note speaks of
_LEAVE_OUT = "Leave it out:"


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """Numbers by date in original units: `values` is [rows, columns] with NaN where the file has nothing.

    The target is the last column when only one column is forecast.
    """

    source: str
    names: tuple[str, ...]
    dates: Times
    values: NDArray[np.float64]
    frequency: Frequency
    notes: tuple[str, ...] = ()


def read_table(config: DataConfig, workspace: Workspace) -> Table:
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
    dates = read_dates(file, date, config)
    values = np.stack([_numbers(file, name, names, config) for name in names], axis=1)
    frequency = find_frequency(file, dates, config)
    return Table(source, names, frequency.align(dates), values, frequency)


def _position(file: CsvFile, name: str, key: str) -> int:
    """Where a column stands, which has to be unambiguous."""
    found = [position for position, known in enumerate(file.names) if known == name]
    if len(found) > 1:
        places = " and ".join(str(position + 1) for position in found)
        raise DataError(
            f"{file.source}: line 1 names columns {places} {name[:MAX_NAME]!r}.", hint="Give each column its own name."
        )
    if found:
        return found[0]
    known = ", ".join(known[:40] or "(no name)" for known in file.names[:12])
    hint = f"Its columns are {known}."
    message = f"{file.source} has no column {name!r} ({key})."
    if key != "data.date_column":
        raise DataError(message, hint=hint)
    dated = [known for place, known in enumerate(file.names) if known and looks_like_dates(file.frame[place])]
    settings = {key: dated[0]} if dated and file.names.count(dated[0]) == 1 else {}
    raise refusal(message, f"{hint} Line 1 has to name the one with the time:", settings)


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
                "Name it or remove it (pandas writes its row numbers so: index=False), or leave it out:",
                without(config, ""),
            )
        _position(file, name, "data.columns")
        if len(name) > MAX_NAME or not name.replace("\u00a0", " ").isprintable():
            raise DataError(
                f"{source}: the name of column {file.names.index(name) + 1} in line 1, {name[:40]!r}, is longer than "
                f"{MAX_NAME} characters or holds control characters.",
                hint="Give it a short name on one line.",
            )
    if len(set(names)) < len(names) or config.date_column in names:
        raise DataError(f"{source}: data.columns names a column twice, or the date.", hint="Name each column once.")
    target = config.target or names[-1]
    _position(file, target, "data.target")
    if target not in names:
        raise DataError(f"{source}: the target {target!r} is not among data.columns.", hint=f"Add {target} to them.")
    if config.features == "S":
        return (target,)
    return names if config.features == "M" else (*(name for name in names if name != target), target)


def _numbers(file: CsvFile, name: str, names: tuple[str, ...], config: DataConfig) -> Column:
    """The values of a column, one of `names`."""
    import pandas as pd

    column: pd.Series[Any] = file.frame[_position(file, name, "data.columns")]
    if config.decimal == "," and pd.api.types.is_string_dtype(column):
        text = column.astype("string").str.strip()
        text = text.mask(text.str.fullmatch(GROUPED).fillna(value=False), text.str.replace(".", "", regex=False))
        column = text.mask(~text.str.contains(".", regex=False), text.str.replace(",", ".", regex=False))
    try:
        numbers = pd.to_numeric(column, errors="coerce")
        values: Column = numbers.to_numpy(dtype=np.float64)
    except OverflowError as error:  # a whole number beyond all floats
        large = f"{file.source}: column {name!r} holds a number that is too large."
        raise refusal(large, _LEAVE_OUT, without(config, name)) from error
    wrong = np.flatnonzero((numbers.isna() & column.notna()).to_numpy() | np.isinf(values))
    if wrong.size:
        raise _no_number(file, name, names, wrong, config)
    if (share := np.isnan(values).mean()) > MAX_MISSING:
        missing = f"{file.source}: column {name!r} is missing in {share:.0%} of the rows."
        raise refusal(missing, _LEAVE_OUT, without(config, name))
    return values


def _no_number(
    file: CsvFile, name: str, names: tuple[str, ...], wrong: NDArray[np.intp], config: DataConfig
) -> DataError:
    column, row = file.frame[file.names.index(name)], int(wrong[0])
    value = str(column.iloc[row])[:40]
    message = f"{file.source}: column {name!r}, line {file.line(row)} is not a finite number: {value!r}."
    if config.decimal == "." and has_decimal_commas(column):
        return refusal(message, "Its numbers have decimal commas:", {"data.decimal": ","})
    written = "1.234,5" if config.decimal == "," else "1234.5"
    plain = f"With data.decimal {config.decimal!r}, numbers are written {written}, and nothing beside them."
    if "," in value and any(letter.isdigit() for letter in value):
        advice = f"{plain} Or leave the column out:"
    elif wrong.size < len(column) / 2:
        more = f" and {_count(wrong.size - 1, 'other')} like it" if wrong.size > 1 else ""
        advice = f"Correct it{more}; a missing number is an empty field. Or leave the column out:"
    else:
        advice = _LEAVE_OUT
    # all such columns at once: there may be hundreds; none where nothing would be left
    words = [other for other in names if other == name or holds_no_number(file.frame[file.names.index(other)])]
    return refusal(message, advice, without(config, *words) if len(words) < len(names) else {}, plain)


def close_gaps(table: Table, config: DataConfig) -> Table:
    """The table on its full grid with every missing cell filled as `data.gaps` says, and notes of what was filled.

    Raises:
        DataError: something is missing and the policy is `error`.
    """
    grid = table.frequency.grid(table.dates[0], table.dates[-1])
    values = np.full((len(grid), len(table.names)), np.nan)
    values[np.searchsorted(grid, table.dates)] = table.values
    holes = np.isnan(values)
    if not holes.any():
        return table
    absent, cells = len(grid) - len(table.dates), int(np.isnan(table.values).sum())
    longest = _longest(table.names, grid, holes)
    if config.gaps == "error":
        row, column = (int(index[0]) for index in np.nonzero(holes))
        raise refusal(
            f"{table.source} misses {_counts(absent, cells)}, the first at {grid[row]} in column "
            f"{table.names[column]!r}; the {longest}.",
            "Choose how to fill them (ffill or interpolate):",
            {"data.gaps": "ffill"},
        )
    fill = fill_forward if config.gaps == "ffill" else fill_straight
    filled = np.stack([fill(values[:, index]) for index in range(values.shape[1])], axis=1)
    how = "the last value before" if config.gaps == "ffill" else "a straight line"
    notes = [f"Filled with {how}: {_counts(absent, cells, 'missing ')}; {_worst(table.names, holes)}; the {longest}"]
    if config.gaps == "interpolate":
        notes.append("A straight line looks ahead: it is drawn towards the value after the gap")
    elif (early := int(np.logical_and.accumulate(holes).sum())) > 0:
        notes.append(f"{_count(early, 'cell')} before the first value of a column took that value, which looks ahead")
    return replace(table, dates=grid, values=filled, notes=(*table.notes, *notes))


def fill_forward(column: Column) -> Column:
    """Each hole takes the value before it; a hole at the start takes the first value there is."""
    known = np.flatnonzero(~np.isnan(column))
    position = np.searchsorted(known, np.arange(len(column)), side="right") - 1
    return column[known[np.maximum(position, 0)]]


def fill_straight(column: Column) -> Column:
    """Linear between neighbours, constant at both ends."""
    known = np.flatnonzero(~np.isnan(column))
    return np.interp(np.arange(len(column)), known, column[known])


def _count(number: int, thing: str) -> str:
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def _counts(rows: int, cells: int, kind: str = "") -> str:
    """Whole rows, and single cells of the rows that are there."""
    return " and ".join(_count(number, kind + thing) for number, thing in ((rows, "row"), (cells, "cell")) if number)


def _worst(names: tuple[str, ...], holes: NDArray[np.bool_]) -> str:
    """Columns by the number of cells that were filled, most first."""
    filled = holes.sum(axis=0)
    order = [int(index) for index in np.argsort(-filled, kind="stable") if filled[index]]
    shown = [f"{names[index][:40]} {filled[index]:,} ({filled[index] / len(holes):.1%})" for index in order[:_SHOWN]]
    more = f" and {_count(len(order) - _SHOWN, 'more column')}" if len(order) > _SHOWN else ""
    return f"in all {', '.join(shown)}{more}"


def _longest(names: tuple[str, ...], grid: Times, holes: NDArray[np.bool_]) -> str:
    """The longest run of holes in any column; the earliest of the first column where several are as long."""
    best = (0, 0, 0)
    for column in range(holes.shape[1]):
        edges = np.flatnonzero(np.diff(holes[:, column], prepend=False, append=False))
        if edges.size:
            lengths = edges[1::2] - edges[::2]
            run = int(lengths.argmax())
            if lengths[run] > best[0]:
                best = (int(lengths[run]), int(edges[2 * run]), column)
    steps, first, column = best
    until = f" from {grid[first]} to {grid[first + steps - 1]}" if steps > 1 else f" at {grid[first]}"
    return f"longest gap is {_count(steps, 'step')},{until} in {names[column][:40]!r}"
