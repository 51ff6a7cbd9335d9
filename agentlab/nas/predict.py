"""Forecasts with an exported model: the steps that follow the last rows of a table, in the units of the table."""

import csv
import gzip
import io
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC
from pathlib import Path

import numpy as np
import torch  # noqa: TID253 - this module is only imported by code that has a trained network
from numpy.typing import NDArray
from pydantic import Field

from agentlab import machine
from agentlab.config.workspace import Workspace
from agentlab.errors import DataError, MissingFileError, UsageError
from agentlab.files import open_file
from agentlab.nas.artefact import Artefact, read_artefact
from agentlab.nas.config import DataConfig
from agentlab.nas.data import close_gaps
from agentlab.nas.table import SeriesTable, read_table
from agentlab.nas.time_features import Frequency, Times, time_features
from agentlab.runs.atomic import write_text
from agentlab.runs.document import AnswerDocument, Block, Code

_LAST_DATE = np.datetime64("9999-12-31T23:59:59", "s")  # the last one that Python's calendar can write
_MAX_HEADER = 1 << 20  # bytes


@dataclass(frozen=True, slots=True, eq=False)
class ForecastTable:
    """Values [horizon, targets] in original units, and their dates. `notes` say which gaps of the input were filled."""

    date_column: str
    date_format: str | None
    names: tuple[str, ...]
    dates: Times
    values: NDArray[np.float64]
    notes: tuple[str, ...] = ()

    @property
    def date_texts(self) -> list[str]:
        """Dates in the format of the training data, so that a forecast can be read as the data was."""
        if self.date_format is None:
            return [text.replace("T", " ") for text in np.datetime_as_string(self.dates, unit="s").tolist()]
        return [date.replace(tzinfo=UTC).strftime(self.date_format) for date in self.dates.tolist()]

    def to_csv(self) -> str:
        """A header line, then a line per date. Numbers read back to the same bits."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow([self.date_column, *self.names])
        writer.writerows([date, *row] for date, row in zip(self.date_texts, self.values.tolist(), strict=True))
        return text.getvalue()


def read_input(artefact: Artefact, path: Path) -> SeriesTable:
    """The columns that a model reads, from a CSV or CSV.GZ file with the dates and the time step of its training.

    Other columns are ignored, and the order does not matter. Gaps are left as they are.

    Raises:
        MissingFileError: there is no such file.
        DataError: the file cannot be used; the hint says what the model reads.
    """
    if not path.exists():
        raise MissingFileError(f"No such data file: {path}.", hint="Pass a file: --input FILE")
    # `data.columns` are those of the network, in its order; features M leaves them so
    config = artefact.trial.data.model_copy(update={"path": str(path), "features": "M", "target": None})
    workspace = Workspace(root=path.parent, cache=path.parent)
    try:
        return read_table(config, workspace)
    except DataError as error:
        if header := _header(path, config):
            _require_columns(artefact, header, path.name)
        if step := _infer_frequency(config, workspace):
            _require_frequency(artefact, step, path.name)
        raise DataError(error.message, hint=_expectation(artefact)) from error


def forecast(artefact: Artefact, table: SeriesTable) -> ForecastTable:
    """The `horizon` steps after the last row of a table, from its last `input_length` steps and nothing else.

    Rows before those change nothing, but for a gap that begins before them and is filled from there. Runs on the CPU
    with one thread: the same model and rows give the same bits.

    Raises:
        DataError: the table is not what the model was trained on: a column is missing, the time step is another,
            there are too few rows, a value is missing where gaps are refused, or the numbers are out of all range.
    """
    _require_columns(artefact, table.names, table.source)
    _require_frequency(artefact, str(table.frequency), table.source)
    data, frequency = artefact.trial.data, artefact.frequency
    rows = frequency.steps_between(table.dates[0], table.dates[-1]) + 1
    if rows < data.input_length:
        raise DataError(
            f"{table.source} has {rows} time steps, but the model needs the last {data.input_length}.",
            hint="Use a longer file.",
        )
    dates = _steps(table.dates[-1], frequency, range(1 - data.input_length, data.horizon + 1))
    if dates[-1] > _LAST_DATE:
        raise DataError(f"{table.source}: the forecast would extend beyond {_LAST_DATE}.", hint="Check the dates.")
    window = _window(artefact, table, dates[0])
    with np.errstate(over="ignore", invalid="ignore"):  # what comes of it is refused below
        scaled = _run(artefact, artefact.scaler.apply(window.values), time_features(dates, frequency))
        values = artefact.scaler.undo(scaled, artefact.targets)
    if not np.isfinite(values).all():
        raise DataError(
            f"{table.source}: the forecast is not finite, because the last {data.input_length} rows are "
            "too far from the values the model was trained on.",
            hint="Check that they are in the same units.",
        )
    return ForecastTable(
        date_column=data.date_column,
        date_format=data.date_format,
        names=artefact.target_names,
        dates=dates[data.input_length :],
        values=values,
        notes=window.notes,
    )


def _window(artefact: Artefact, table: SeriesTable, start: np.datetime64) -> SeriesTable:
    """The model's columns in its order, the rows from `start` on, without gaps."""
    config = artefact.trial.data
    order = [table.names.index(name) for name in artefact.names]
    table = replace(table, names=artefact.names, values=table.values[:, order])
    recent = _since(table, start)
    _require_step(artefact, recent)
    if config.gaps != "error":
        return _since(close_gaps(table, config), start)
    if recent.dates[0] > start:
        raise DataError(f"{table.source}: the row for {start} is missing.", hint=_expectation(artefact))
    try:
        return close_gaps(recent, config)  # an old gap is no reason to refuse
    except DataError as error:
        raise DataError(error.message, hint=_expectation(artefact)) from error


def _since(table: SeriesTable, start: np.datetime64) -> SeriesTable:
    mask = table.dates >= start
    return replace(table, dates=table.dates[mask], values=table.values[mask])


def _run(artefact: Artefact, input_values: NDArray[np.float32], time: NDArray[np.float32]) -> NDArray[np.float64]:
    """Scaled forecast [horizon, targets] of one window."""
    network = artefact.network()
    with machine.torch_threads(1), torch.inference_mode():
        scaled = network(torch.from_numpy(input_values)[None], torch.from_numpy(time)[None])
    return np.asarray(scaled[0].double().numpy())


def _steps(date: np.datetime64, frequency: Frequency, steps: range) -> Times:
    offsets = np.arange(steps.start, steps.stop)
    if frequency.minutes is None:
        return np.asarray((date.astype("datetime64[M]") + offsets).astype("datetime64[s]"))
    return np.asarray(date + offsets * np.timedelta64(frequency.minutes * 60, "s"))


def _require_columns(artefact: Artefact, columns: Sequence[str], source: str) -> None:
    missing = [name for name in artefact.names if name not in columns]
    if missing:
        raise DataError(
            f"{source} lacks {len(missing)} of the model's {len(artefact.names)} columns: {', '.join(missing)}.",
            hint=_expectation(artefact),
        )


def _require_frequency(artefact: Artefact, frequency: str, source: str) -> None:
    trained = str(artefact.frequency)
    if frequency != trained:
        raise DataError(
            f"{source} has one row per {frequency}, but the model was trained on one row per {trained}.",
            hint=f"Resample the file to one row per {trained}.",
        )


def _require_step(artefact: Artefact, recent: SeriesTable) -> None:
    """Refuse rows that lie on the model's grid, but most of them several steps apart."""
    grid, minutes = artefact.frequency.grid(recent.dates[0], recent.dates[-1]), artefact.frequency.minutes
    distances, counts = np.unique(np.diff(np.searchsorted(grid, recent.dates)), return_counts=True)
    steps = int(distances[counts.argmax()]) if len(distances) else 1
    if steps > 1:
        time_step = f"{steps} months" if minutes is None else str(Frequency(steps * minutes))
        _require_frequency(artefact, time_step, recent.source)


def _expectation(artefact: Artefact) -> str:
    data = artefact.trial.data
    gaps = "no missing values" if data.gaps == "error" else f"gaps filled by {data.gaps}"
    return (
        f"The model expects dates in {data.date_column!r} ({data.date_format or 'ISO 8601'}), one row "
        f"per {artefact.frequency}, {gaps}, and the columns {', '.join(artefact.names)}."
    )


def _header(path: Path, config: DataConfig) -> list[str]:
    """The names in the first line of a file; none if it cannot be read."""
    try:
        with open_file(path) as plain, gzip.open(plain) if path.suffix.lower() == ".gz" else plain as file:
            line = file.readline(_MAX_HEADER).decode(config.encoding).removeprefix("\ufeff")
        return [name.strip() for name in next(csv.reader([line], delimiter=config.separator), [])]
    except (ValueError, EOFError, OSError, zlib.error, csv.Error):
        return []


def _infer_frequency(config: DataConfig, workspace: Workspace) -> str | None:
    """The time step that most rows are apart. It depends on every row, so it only serves to explain a refusal."""
    try:
        return str(read_table(config.model_copy(update={"frequency": None}), workspace).frequency)
    except DataError:
        return None


class ForecastAnswer(AnswerDocument):
    """A forecast in the units of the data: per column one value for each date. `path` is the file it was written to."""

    date_column: str
    dates: list[str]
    values: dict[str, list[float]]
    notes: list[str]
    path: str | None = None
    text: str = Field("", exclude=True)

    @classmethod
    def of(cls, table: ForecastTable, path: Path | None) -> "ForecastAnswer":
        """Written to `path` as CSV where one is given; raises StorageError where it cannot be."""
        text = table.to_csv()
        if path:
            write_text(path, text)
        return cls(
            date_column=table.date_column,
            dates=table.date_texts,
            values=dict(zip(table.names, table.values.T.tolist(), strict=True)),
            notes=list(table.notes),
            path=str(path) if path else None,
            text=text,
        )

    def blocks(self) -> list[Block]:
        return [Code(self.path or self.text.removesuffix("\n"))]


def predict(source: Path, data: Path, target: Path | None) -> ForecastAnswer:
    """Forecast with the exported folder `source` from the file `data`, into the file `target` or the answer.

    Raises:
        UsageError: the target is the input.
        MissingFileError, ModelFileError, DataError, StorageError: see `read_artefact`, `read_input` and `forecast`.
    """
    if target and target.exists() and data.exists() and target.samefile(data):
        raise UsageError(f"{target} is the input file.", hint="Use another --output.")
    artefact = read_artefact(source)
    return ForecastAnswer.of(forecast(artefact, read_input(artefact, data)), target)
