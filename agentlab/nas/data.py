"""From a config to a `Series`: read the file, close its gaps, split it, scale it."""

import numpy as np

from agentlab.config.workspace import Workspace
from agentlab.errors import DataError
from agentlab.nas.config import DataConfig, SplitConfig
from agentlab.nas.series import Rows, Scaler, Series, Split, window_starts
from agentlab.nas.table import Table, close_gaps, read_table
from agentlab.nas.time_features import time_features


def load_series(config: DataConfig, workspace: Workspace) -> Series:
    """The series of a config.

    Raises:
        MissingFileError: there is no such file.
        DataError: the file cannot be used; the message names it, and where it applies the column and line.
    """
    table = close_gaps(read_table(config, workspace), config)
    split = split_rows(config.split, len(table.values), table.source)
    require_windows(split, config, table.source)
    scaler, values = scale(table, split)
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


def scale(table: Table, split: Split) -> tuple[Scaler, Rows]:
    """The scaler of the training rows, and all rows scaled by it.

    Raises:
        DataError: a column is constant in the training rows, or its numbers are too large for float32.
    """
    train = table.values[slice(*split.train)]
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):  # what comes of it is refused below
        scaler = Scaler.fit(train)
        values = scaler.apply(table.values)
    usable = np.isfinite(values).all(axis=0) & np.isfinite(scaler.std)
    for column, name in enumerate(table.names):
        found = None
        if (train[:, column] == train[0, column]).all():  # not by the deviation: rounding leaves it above zero
            found = f"never changes in the {split.train[1]} training rows"
        elif not usable[column]:
            found = "holds numbers that are too large to be scaled"
        if found:
            raise DataError(
                f"{table.source}: column {name!r} {found}.",
                hint="Leave it out: list the other columns in data.columns.",
            )
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
        raise DataError(
            f"{source}: data.split asks for {test} rows and there are {rows}.",
            hint="Use shares: --set data.split.train=0.6 --set data.split.val=0.2 --set data.split.test=0.2",
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
