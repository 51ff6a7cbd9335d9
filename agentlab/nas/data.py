"""From a config to a `Series`: read the file, close its gaps, split it, scale it."""

import numpy as np

from agentlab.config.workspace import Workspace
from agentlab.errors import DataError
from agentlab.nas.config import DataConfig, SplitConfig
from agentlab.nas.remedy import refusal, remedied, without
from agentlab.nas.series import Rows, Scaler, Series, Split, window_starts
from agentlab.nas.table import Table, close_gaps, read_table
from agentlab.nas.time_features import time_features

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
        raise remedied(error, config, lambda other: _load_series(other, workspace)) from error


def _load_series(config: DataConfig, workspace: Workspace) -> Series:
    known = read_table(config, workspace)
    table = close_gaps(known, config)
    split = split_rows(config.split, len(table.values), table.source)
    require_windows(split, config, table.source)
    _require_training_values(known, table.dates[split.train[1] - 1], split, config)
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


def _require_training_values(known: Table, last: np.datetime64, split: Split, config: DataConfig) -> None:
    """Refuse a column that has nothing up to the last training date: its scale would come from later values."""
    empty = np.flatnonzero(np.isnan(known.values[known.dates <= last]).all(axis=0))
    if empty.size:
        name = known.names[empty[0]]
        raise refusal(
            f"{known.source}: column {name!r} has no value in the {split.train[1]} training rows.",
            "Begin the series later, or leave it out:",
            without(config, name),
        )


def scale(table: Table, split: Split, config: DataConfig) -> tuple[Scaler, Rows]:
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
        found = None
        if spread[column] <= _ROUNDING * size[column]:
            found = f"never changes in the {split.train[1]} training rows"
            if size[column] > 2**53 or spread[column]:
                found += " by more than the rounding of 64-bit numbers"
        elif not usable[column]:
            found = "holds numbers that are too large or too small to be scaled"
        if found:
            raise refusal(f"{table.source}: column {name!r} {found}.", "Leave it out:", without(config, name))
    return scaler, values


def split_rows(split: SplitConfig, rows: int, source: str) -> Split:
    """Row ranges of the three parts, one after the other; rows beyond them are not used.

    Raises:
        DataError: more rows are asked for than there are.
    """
    parts = (split.train, split.val, split.test)
    ends = [sum(parts[: count + 1]) for count in range(3)]
    train, val, test = (int(end if isinstance(split.train, int) else rows * end + 1e-6) for end in ends)
    if test > rows:
        raise refusal(
            f"{source}: data.split asks for {test} rows and there are {rows}.",
            "Use shares:",
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
                f"{source}: the {part} part has {end - first} rows; input length {config.input_length} and horizon "
                f"{config.horizon} need at least {needs}.",
                hint="Shorten data.input_length or data.horizon, or give the part more rows in data.split.",
            )
