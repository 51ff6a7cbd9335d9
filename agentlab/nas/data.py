"""From a config to a `Series`: read the file, close its gaps, split it, scale it."""

from dataclasses import replace
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from agentlab.config.workspace import Workspace
from agentlab.errors import DataError
from agentlab.nas.config import DataConfig, SplitConfig
from agentlab.nas.csv_repair import add_remedy, refusal, without
from agentlab.nas.series import Rows, Scaler, Series, Split, window_starts
from agentlab.nas.table import SeriesTable, format_count, read_table
from agentlab.nas.time_features import Times, time_features

_SHOWN = 8  # columns that a note speaks of
_QUICK = 64 << 20  # bytes of a file that is read again to find out how it can be read
_ROUNDING = 1e-12  # changes below this share of a column's largest value are what arithmetic leaves behind


def load_series(config: DataConfig, workspace: Workspace) -> Series:
    """The series of a config.

    Raises:
        MissingFileError: there is no such file.
        DataError: the file cannot be used; the message names it, and where it applies the column and line.
    """
    try:
        return _load_series(config, workspace)
    except DataError as error:
        if not error.settings or (workspace.resolve(config.path or ".")).stat().st_size > _QUICK:
            raise
        raise add_remedy(error, config, lambda changed_config: _load_series(changed_config, workspace)) from error


def _load_series(config: DataConfig, workspace: Workspace) -> Series:
    raw_table = read_table(config, workspace)
    table = close_gaps(raw_table, config)
    split = split_rows(config.split, len(table.values), table.source)
    require_windows(split, config, table.source)
    _require_training_values(raw_table, table.dates[split.train[1] - 1], split, config)
    scaler, values = scale(table, split, config)
    channels = len(table.names)
    return Series(
        source=table.source,
        names=table.names,
        targets=tuple(range(channels)) if config.features == "M" else (channels - 1,),
        values=values,
        time=time_features(table.dates, table.frequency),
        dates=table.dates,
        split=split,
        scaler=scaler,
        frequency=table.frequency,
        notes=table.notes,
    )


def close_gaps(table: SeriesTable, config: DataConfig) -> SeriesTable:
    """The table on its full grid with every missing cell filled as `data.gaps` says, and notes of what was filled.

    Raises:
        DataError: something is missing and the policy is `error`.
    """
    import pandas as pd

    grid = table.frequency.grid(table.dates[0], table.dates[-1])
    values = np.full((len(grid), len(table.names)), np.nan)
    values[np.searchsorted(grid, table.dates)] = table.values
    holes = np.isnan(values)
    if not holes.any():
        return table
    absent, cells = len(grid) - len(table.dates), int(np.isnan(table.values).sum())
    longest = _longest(table.names, grid, holes)
    if config.gaps == "error":
        row, column = np.argwhere(holes)[0]
        raise refusal(
            f"{table.source} lacks {_counts(absent, cells)}, the first at {grid[row]} in column "
            f"{table.names[column]!r}; the {longest}.",
            "Choose how to fill the gaps (ffill or interpolate):",
            {"data.gaps": "ffill"},
        )
    straight = config.gaps == "interpolate"
    frame = pd.DataFrame(values, copy=False)
    filled = frame.interpolate(limit_direction="both") if straight else frame.ffill().bfill()
    method = "linear interpolation" if straight else "the previous value"
    notes = [f"Filled with {method}: {_counts(absent, cells, 'missing ')}; {_worst(table.names, holes)}; the {longest}"]
    if straight:
        notes.append("Linear interpolation looks ahead, as it uses the value after the gap")
    elif (early := int(np.logical_and.accumulate(holes).sum())) > 0:
        notes.append(f"Back-filled {format_count(early, 'cell')} before a column's first value, which looks ahead")
    return replace(table, dates=grid, values=filled.to_numpy(), notes=(*table.notes, *notes))


def _counts(rows: int, cells: int, kind: str = "") -> str:
    """Whole rows, and single cells of the rows that are there."""
    counts = ((rows, f"{kind}row"), (cells, f"{kind}cell"))
    return " and ".join(format_count(number, noun) for number, noun in counts if number)


def _worst(names: tuple[str, ...], holes: NDArray[np.bool_]) -> str:
    """Columns by the number of cells that were filled, most first."""
    filled = holes.sum(axis=0)
    order = [int(index) for index in np.argsort(-filled, kind="stable") if filled[index]]
    columns = [f"{names[index][:40]} {filled[index]:,} ({filled[index] / len(holes):.1%})" for index in order[:_SHOWN]]
    rest_note = f" and {format_count(len(order) - _SHOWN, 'more column')}" if len(order) > _SHOWN else ""
    return f"by column: {', '.join(columns)}{rest_note}"


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
    return f"longest gap is {format_count(steps, 'step')},{until} in {names[column][:40]!r}"


def _require_training_values(raw_table: SeriesTable, last: np.datetime64, split: Split, config: DataConfig) -> None:
    """Refuse a column that has nothing up to the last training date: its scale would come from later values."""
    empty = np.flatnonzero(np.isnan(raw_table.values[raw_table.dates <= last]).all(axis=0))
    if empty.size:
        name = raw_table.names[empty[0]]
        raise refusal(
            f"{raw_table.source}: column {name!r} has no value in the {split.train[1]} training rows.",
            "Start the series later, or ignore the column:",
            without(config, name),
        )


def scale(table: SeriesTable, split: Split, config: DataConfig) -> tuple[Scaler, Rows]:
    """The scaler of the training rows, and all rows scaled by it.

    Raises:
        DataError: a column is constant in the training rows, or its numbers are too large for float32.
    """
    train = table.values[slice(*split.train)]
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):  # what comes of it is refused below
        scaler = Scaler.fit(train)
        values = scaler.apply(table.values)
        spread, size = np.ptp(train, axis=0), np.abs(train).max(axis=0)
    usable = np.isfinite(values).all(axis=0) & np.isfinite(scaler.std)
    for column, name in enumerate(table.names):
        fault = None
        if spread[column] <= _ROUNDING * size[column]:
            fault = f"is constant in the {split.train[1]} training rows"
            if size[column] > 2**53 or spread[column]:
                fault += " (up to 64-bit rounding)"
        elif not usable[column]:
            fault = "contains numbers that are too large or too small to standardise"
        if fault:
            raise refusal(f"{table.source}: column {name!r} {fault}.", "Ignore it:", without(config, name))
    return scaler, values


def split_rows(split: SplitConfig, rows: int, source: str) -> Split:
    """Row ranges of the three parts, one after the other; rows beyond them are not used.

    Raises:
        DataError: more rows are asked for than there are.
    """
    ends = accumulate((split.train, split.val, split.test))
    train, val, test = (int(end if isinstance(split.train, int) else rows * end + 1e-6) for end in ends)
    if test > rows:
        raise refusal(
            f"{source}: data.split requires {test} rows, but there are only {rows}.",
            "Use fractions:",
            {"data.split.train": 0.6, "data.split.val": 0.2, "data.split.test": 0.2},
        )
    return Split(train=(0, train), val=(train, val), test=(val, test))


def require_windows(split: Split, config: DataConfig, source: str) -> None:
    """Refuse a split in which a part has no window of this input length and horizon.

    Raises:
        DataError: a part is too short.
    """
    for part in ("train", "val", "test"):
        first, end = split.rows(part)
        if not window_starts(split, part, config.input_length, config.horizon):
            needs = config.horizon + (config.input_length if part == "train" else 0)
            raise DataError(
                f"{source}: the {part} split has {end - first} rows, but input_length {config.input_length} "
                f"and horizon {config.horizon} need at least {needs}.",
                hint="Reduce data.input_length or data.horizon, or give this split more rows in data.split.",
            )
