"""Reads a CSV of dated numbers, says exactly what is wrong with one that cannot be used, and closes its gaps."""

import zlib
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from agentlab.config.workspace import Workspace
from agentlab.errors import DataError, MissingFileError
from agentlab.nas.config import DataConfig
from agentlab.nas.time_features import Frequency, Times

if TYPE_CHECKING:
    import pandas as pd

EMBEDDED = "new_york_weather.csv.gz"
MAX_BYTES = 1 << 30
MAX_ROWS = 2_000_000
MAX_COLUMNS = 512
MAX_MISSING = 0.5  # a column or a grid with more holes than this would be mostly invented
_EXPECTED = "Expected: a header line, then one row per time step with a date and numbers, separated by commas."
_CUT = "Cut the series to a part."
_FIRST_LINE = 2  # line 1 of the file is the header


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
    path, source = _locate(config, workspace)
    frame = _parse(path, source)
    dates = _dates(frame, config, source)
    names = _columns(frame, config, source)
    values = np.stack([_numbers(frame[name], source) for name in names], axis=1)
    frequency = _frequency(dates, config, source)
    return Table(source, names, frequency.align(dates), values, frequency)


def _locate(config: DataConfig, workspace: Workspace) -> tuple[Path, str]:
    if config.path is None:
        return Path(str(files("agentlab.nas") / "embedded" / EMBEDDED)), "New York weather 2013 (embedded)"
    path = workspace.resolve(config.path)
    if path.is_dir():
        raise DataError(f"{path} is a folder, not a CSV file.", hint="Name the file: --data FILE")
    if path.is_file():
        return path, path.name
    ett = path.name in {"ETTh1.csv", "ETTh2.csv", "ETTm1.csv", "ETTm2.csv"}
    raise MissingFileError(
        f"There is no data file {path}.",
        hint=f"{path.name} is in ETT-small/ of github.com/zhouhaoyi/ETDataset (CC BY-ND 4.0); put it there, or name "
        "another place: --data FILE"
        if ett
        else "Name the file: --data FILE (data.path in a config starts at the workspace).",
    )


def _parse(path: Path, source: str) -> "pd.DataFrame":
    import pandas as pd

    if (size := path.stat().st_size) > MAX_BYTES:
        raise DataError(f"{source} has {size} bytes; at most {MAX_BYTES} are read.", hint=_CUT)
    compression: Literal["gzip"] | None = "gzip" if path.suffix == ".gz" else None
    try:
        head = pd.read_csv(path, compression=compression, nrows=0)
        if len(head.columns) > MAX_COLUMNS:
            raise DataError(f"{source} has {len(head.columns)} columns; at most {MAX_COLUMNS} are read.", hint=_CUT)
        frame = pd.read_csv(path, compression=compression, nrows=MAX_ROWS + 1, low_memory=False, skip_blank_lines=False)
    except pd.errors.EmptyDataError as error:
        raise DataError(f"{source} is empty.", hint=_EXPECTED) from error
    except UnicodeDecodeError as error:
        raise DataError(f"{source} is not UTF-8 text (byte {error.start}).", hint="Save it as UTF-8.") from error
    except pd.errors.ParserError as error:
        raise DataError(f"{source} is not a CSV file: {str(error).strip()}.", hint=_EXPECTED) from error
    except (EOFError, zlib.error, OSError) as error:
        raise DataError(f"{source} cannot be read: {error}.", hint="Copy the file again; it may be cut off.") from error
    if frame.empty:
        raise DataError(f"{source} has a header and no rows.", hint=_EXPECTED)
    if not isinstance(frame.index, pd.RangeIndex):  # pandas has taken the first fields for names of rows
        raise DataError(f"{source}: the lines have more fields than the header names.", hint=_EXPECTED)
    if len(frame) > MAX_ROWS:
        raise DataError(f"{source} has more than {MAX_ROWS} rows.", hint=_CUT)
    return frame


def _require(frame: "pd.DataFrame", name: str, key: str, source: str) -> None:
    if name not in frame.columns:
        known = ", ".join(str(column) for column in frame.columns[:12])
        raise DataError(f"{source} has no column {name!r} ({key}).", hint=f"Its columns are {known}.")


def _columns(frame: "pd.DataFrame", config: DataConfig, source: str) -> tuple[str, ...]:
    names = config.columns or tuple(str(name) for name in frame.columns if name != config.date_column)
    if not names:
        raise DataError(f"{source} has no column besides the date.", hint=_EXPECTED)
    for name in names:
        _require(frame, name, "data.columns", source)
    if len(set(names)) < len(names) or config.date_column in names:
        raise DataError(f"{source}: data.columns names a column twice, or the date.", hint="Name each column once.")
    target = config.target or names[-1]
    _require(frame, target, "data.target", source)
    if target not in names:
        raise DataError(f"{source}: the target {target!r} is not among data.columns.", hint=f"Add {target} to them.")
    if config.features == "S":
        return (target,)
    return names if config.features == "M" else (*(name for name in names if name != target), target)


def _dates(frame: "pd.DataFrame", config: DataConfig, source: str) -> Times:
    """The date column in UTC; a date without time zone is taken as it stands."""
    import pandas as pd

    column = config.date_column
    _require(frame, column, "data.date_column", source)
    text = frame[column].astype("string")
    try:
        parsed = pd.to_datetime(text, format=config.date_format or "ISO8601", errors="coerce", utc=True)
    except ValueError as error:
        raise DataError(f"{source}: data.date_format {config.date_format!r} cannot be used: {error}.") from error
    bad = np.flatnonzero(parsed.isna().to_numpy())
    if bad.size:
        value = text.iloc[bad[0]]
        shown = "empty" if pd.isna(value) else repr(str(value)[:40])
        raise DataError(
            f"{source}: column {column!r}, line {bad[0] + _FIRST_LINE} is not a date: {shown}.",
            hint="ISO 8601 is expected (2013-01-31 06:00); or say: --set data.date_format='%d.%m.%Y %H:%M'",
        )
    dates: Times = parsed.dt.tz_localize(None).to_numpy().astype("datetime64[s]")
    back = np.flatnonzero(np.diff(dates) <= np.timedelta64(0, "s"))
    if back.size:
        line = int(back[0]) + 1 + _FIRST_LINE
        same = dates[back[0]] == dates[back[0] + 1]
        what = "repeats the date of the line before" if same else "goes back in time"
        raise DataError(
            f"{source}: column {column!r}, line {line} {what} ({dates[back[0] + 1]}).",
            hint="Rows must rise in time; local clock times repeat an hour in autumn, UTC does not.",
        )
    return dates


def _numbers(column: "pd.Series[float]", source: str) -> NDArray[np.float64]:
    import pandas as pd

    try:
        numbers = pd.to_numeric(column, errors="coerce")
        values: NDArray[np.float64] = numbers.to_numpy(dtype=np.float64)
    except OverflowError as error:  # a whole number beyond all floats
        raise DataError(
            f"{source}: column {column.name!r} holds a number that is too large.",
            hint="Leave it out: list the other columns in data.columns.",
        ) from error
    wrong = np.flatnonzero((numbers.isna() & column.notna()).to_numpy() | np.isinf(values))
    if wrong.size:
        value = str(column.iloc[wrong[0]])[:40]
        raise DataError(
            f"{source}: column {column.name!r}, line {wrong[0] + _FIRST_LINE} is not a finite number: {value!r}.",
            hint="List the numeric columns in data.columns.",
        )
    if np.isnan(values).mean() > MAX_MISSING:
        raise DataError(
            f"{source}: column {column.name!r} is missing in {np.isnan(values).mean():.0%} of the rows.",
            hint="List the other columns in data.columns.",
        )
    return values


def _frequency(dates: Times, config: DataConfig, source: str) -> Frequency:
    try:
        frequency = Frequency.parse(config.frequency) if config.frequency else Frequency.infer(dates)
    except ValueError as error:
        what = "data.frequency" if config.frequency else "the time step cannot be inferred"
        raise DataError(f"{source}: {what}: {error}.", hint="Say it: --set data.frequency=h") from error
    if frequency.steps_between(dates[0], dates[-1]) > len(dates) / (1 - MAX_MISSING):
        raise DataError(
            f"{source}: at frequency {frequency} most time steps from {dates[0]} to {dates[-1]} have no row.",
            hint="Give a longer data.frequency, or cut the series to a part without holes.",
        )
    aligned = frequency.align(dates)
    twice = np.concatenate([[False], aligned[1:] == aligned[:-1]])
    off = np.flatnonzero(twice | ~np.isin(aligned, frequency.grid(dates[0], dates[-1])))
    if off.size:
        raise DataError(
            f"{source}: line {off[0] + _FIRST_LINE} ({dates[off[0]]}) is off the grid of frequency {frequency} "
            f"that starts at {dates[0]}.",
            hint="Give the true step in data.frequency, or resample the series.",
        )
    return frequency


def close_gaps(table: Table, config: DataConfig) -> Table:
    """The table on its full grid with every missing cell filled as `data.gaps` says, and a note of what was filled.

    Raises:
        DataError: something is missing and the policy is `error`.
    """
    grid = table.frequency.grid(table.dates[0], table.dates[-1])
    values = np.full((len(grid), len(table.names)), np.nan)
    values[np.searchsorted(grid, table.dates)] = table.values
    holes = np.isnan(values)
    if not holes.any():
        return table
    absent = len(grid) - len(table.dates)
    cells = int(np.isnan(table.values).sum())
    if config.gaps == "error":
        row, column = (int(index[0]) for index in np.nonzero(holes))
        raise DataError(
            f"{table.source}: {absent} rows and {cells} cells are missing, the first at {grid[row]} in column "
            f"{table.names[column]!r}.",
            hint="Choose how to fill them: --set data.gaps=ffill (or interpolate)",
        )
    fill = _forward if config.gaps == "ffill" else _straight
    filled = np.stack([fill(values[:, index]) for index in range(values.shape[1])], axis=1)
    how = "the last value before" if config.gaps == "ffill" else "a straight line"
    note = f"{absent} missing rows and {cells} missing cells were filled with {how}"
    return replace(table, dates=grid, values=filled, notes=(*table.notes, note))


def _forward(column: NDArray[np.float64]) -> NDArray[np.float64]:
    """Each hole takes the value before it; a hole at the start takes the first value there is."""
    known = np.flatnonzero(~np.isnan(column))
    position = np.searchsorted(known, np.arange(len(column)), side="right") - 1
    return column[known[np.maximum(position, 0)]]


def _straight(column: NDArray[np.float64]) -> NDArray[np.float64]:
    """Linear between neighbours, constant at both ends."""
    known = np.flatnonzero(~np.isnan(column))
    return np.interp(np.arange(len(column)), known, column[known])
