"""A winner trained here forecasts from files as it would have forecast while it was trained."""

import csv
import gzip
import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from agentlab.config.workspace import Workspace
from agentlab.errors import DataError, MissingFileError, UsageError
from agentlab.nas.artefact import Artefact, read_artefact, write_artefact
from agentlab.nas.config import DataConfig, ModelConfig, TrainingConfig, TrialConfig
from agentlab.nas.data import close_gaps, load_series
from agentlab.nas.informer.model import Informer, InformerShape
from agentlab.nas.predict import ForecastAnswer, ForecastTable, forecast, predict, read_input
from agentlab.nas.series import Scaler, Series, Split
from agentlab.nas.table import SeriesTable, read_table
from agentlab.nas.time_features import Frequency, time_features
from agentlab.nas.training import build, train
from agentlab.runs.folder import Folder

INPUT, HORIZON = 24, 6
TRIAL = TrialConfig(
    data=DataConfig(gaps="ffill", input_length=INPUT, horizon=HORIZON),
    model=ModelConfig(d_model=8, n_heads=2, e_layers=1),
    training=TrainingConfig(epochs=1, train_fraction=0.05),
)
NOWHERE = Workspace(root=Path("/nowhere"), cache=Path("/nowhere"))
Write = Callable[..., Path]


@pytest.fixture(scope="module")
def series() -> Series:
    return load_series(TRIAL.data, NOWHERE)


@pytest.fixture(scope="module")
def weather() -> SeriesTable:
    """The embedded weather in original units, without gaps."""
    return close_gaps(read_table(TRIAL.data, NOWHERE), TRIAL.data)


@pytest.fixture(scope="module")
def winner(series: Series, tmp_path_factory: pytest.TempPathFactory) -> Artefact:
    """Trained on the embedded weather, written and read back."""
    path = tmp_path_factory.mktemp("exported")
    trained = train(TRIAL, series, seed=1)
    write_artefact(Folder(path), Artefact.of(TRIAL, series, trained.state_dict, {"val_mse": trained.val_mse}))
    return read_artefact(path)


@pytest.fixture
def write(weather: SeriesTable, tmp_path: Path) -> Write:
    """A CSV of rows of the weather."""

    def file(rows: slice, *, columns: tuple[str, ...] = weather.names, name: str = "data.csv") -> Path:
        index = [weather.names.index(column) for column in columns]
        lines = [
            ",".join([str(date), *map(repr, row)])
            for date, row in zip(weather.dates[rows], weather.values[rows][:, index].tolist(), strict=True)
        ]
        (tmp_path / name).write_text("\n".join([",".join(["date", *columns]), *lines]) + "\n")
        return tmp_path / name

    return file


def values(artefact: Artefact, path: Path) -> NDArray[np.float64]:
    return forecast(artefact, read_input(artefact, path)).values


def without_lines(path: Path, dropped: set[int]) -> Path:
    """The file less these lines, counted from 0 at the header."""
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for number, line in enumerate(lines) if number not in dropped))
    return path


def test_a_forecast_is_what_the_trained_network_says(
    winner: Artefact, series: Series, weather: SeriesTable, write: Write
) -> None:
    """Scaled by the training rows, with the dates of window and horizon, and scaled back."""
    end = 1000
    prediction = forecast(winner, read_input(winner, write(slice(end - 100, end))))
    assert prediction.dates.tolist() == weather.dates[end : end + HORIZON].tolist()
    assert prediction.names == series.names
    model = Informer(TRIAL, InformerShape(series.channels, series.time_channels, series.targets))
    model.load_state_dict(dict(winner.weights))
    with torch.no_grad():
        scaled = model.eval()(
            torch.from_numpy(series.values[end - INPUT : end])[None],
            torch.from_numpy(series.time[end - INPUT : end + HORIZON])[None],
        )
    expected = scaled[0].double().numpy() * series.scaler.std + series.scaler.mean
    assert prediction.values.tobytes() == expected.tobytes()


def test_neither_earlier_rows_nor_order_nor_strange_columns_change_a_bit(
    winner: Artefact, weather: SeriesTable, write: Write
) -> None:
    bare = values(winner, write(slice(500 - INPUT, 500)))
    assert values(winner, write(slice(0, 500))).tobytes() == bare.tobytes()
    assert values(winner, write(slice(100, 500), columns=weather.names[::-1])).tobytes() == bare.tobytes()
    path = write(slice(500 - INPUT, 500))
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0] + ",remark", *(line + ",fine" for line in lines[1:])]))
    assert values(winner, path).tobytes() == bare.tobytes()


def test_earlier_rows_may_lie_further_apart(winner: Artefact, write: Write) -> None:
    """The time step is that of the training: inferred from this file it would be two hours."""
    path = write(slice(300, 500))
    sparse = without_lines(path, set(range(2, 200 - INPUT, 2)))
    assert values(winner, sparse).tobytes() == values(winner, write(slice(500 - INPUT, 500))).tobytes()


def test_a_gap_is_filled_as_in_training(winner: Artefact, weather: SeriesTable, write: Write) -> None:
    path = without_lines(write(slice(400, 500)), {90})
    prediction = forecast(winner, read_input(winner, path))
    assert [("1 missing row" in note, "previous value" in note) for note in prediction.notes] == [(True, True)]
    filled = weather.values[400:500].copy()
    filled[89] = filled[88]
    table = replace(weather, dates=weather.dates[400:500], values=filled, notes=())
    assert prediction.values.tobytes() == forecast(winner, table).values.tobytes()


def test_where_gaps_are_refused_only_those_of_the_window_count(winner: Artefact, write: Write) -> None:
    data = winner.trial.data.model_copy(update={"gaps": "error"})
    strict = replace(winner, trial=winner.trial.model_copy(update={"data": data}))
    full_forecast = values(strict, write(slice(400, 500)))
    assert values(strict, without_lines(write(slice(400, 500)), {10})).tobytes() == full_forecast.tobytes()
    for line, pattern in ((90, "2013-01-21T15:00:00"), (101 - INPUT, "the row for .* is missing")):
        with pytest.raises(DataError, match=pattern) as caught:
            values(strict, without_lines(write(slice(400, 500)), {line}))
        assert "no missing values" in str(caught.value.hint)


def test_the_last_row_needs_no_neighbours(winner: Artefact, write: Write) -> None:
    with pytest.raises(DataError, match=f"has {INPUT - 1} time steps, but the model needs the last {INPUT}"):
        values(winner, write(slice(0, INPUT - 1)))
    with pytest.raises(DataError, match=f"has 1 time steps, but the model needs the last {INPUT}"):
        values(winner, write(slice(0, 1)))


def test_a_compressed_file_is_read_and_judged_alike(winner: Artefact, weather: SeriesTable, write: Write) -> None:
    for rows, columns in ((slice(0, 50), weather.names), (slice(0, 50), weather.names[1:])):
        plain = write(rows, columns=columns)
        packed = plain.with_name("data.csv.gz")
        packed.write_bytes(gzip.compress(plain.read_bytes()))
        if columns == weather.names:
            assert values(winner, packed).tobytes() == values(winner, plain).tobytes()
        else:
            with pytest.raises(DataError, match=f"data.csv.gz lacks 1 of the model's 7 columns: {weather.names[0]}"):
                values(winner, packed)


def test_missing_columns_are_named_all(winner: Artefact, weather: SeriesTable, write: Write) -> None:
    with pytest.raises(DataError) as caught:
        values(winner, write(slice(0, 50), columns=weather.names[1:-1]))
    assert weather.names[0] in caught.value.message
    assert weather.names[-1] in caught.value.message
    assert weather.names[1] not in caught.value.message
    path = write(slice(0, 50))
    path.write_text(path.read_text().replace("date", "day"))
    with pytest.raises(DataError, match="has no column 'date'"):
        values(winner, path)


@pytest.mark.parametrize(("step", "name"), [(2, "2h"), (24, "D"), (3, "3h")])
def test_a_longer_time_step_is_refused_and_both_are_named(winner: Artefact, write: Write, step: int, name: str) -> None:
    path = write(slice(0, 60 * step))
    with pytest.raises(DataError, match=f"one row per {name}, but the model was trained on one row per h"):
        values(winner, without_lines(path, {line for line in range(1, 60 * step + 1) if line % step}))


def test_a_shorter_time_step_is_refused_and_both_are_named(winner: Artefact, write: Write) -> None:
    path = write(slice(0, 60))
    header, *lines = path.read_text().splitlines()
    halves = [line.replace(":00:00,", f":{minute}:00,") for line in lines for minute in ("00", "30")]
    path.write_text("\n".join([header, *halves]))
    with pytest.raises(DataError, match="one row per 30min, but the model was trained on one row per h"):
        values(winner, path)


@pytest.mark.parametrize(
    ("damage", "pattern"),
    [
        (lambda text: text.replace(":00:00,", ":07:00,", 1), "off the h grid"),
        (lambda text: text.replace("2013-01-02", "yesterday"), "is not a date"),
        (lambda text: text.replace(":00:00,", ":00:00,cold", 1), "is not a finite number"),
        (lambda text: text + text.splitlines()[1] + "\n", "goes back in time"),
        (lambda text: "", "is empty"),
        (lambda text: text.splitlines()[0], "has a header but no rows"),
        (lambda text: "\0\1\2", "."),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_with_what_the_model_reads(
    winner: Artefact, write: Write, damage: Callable[[str], str], pattern: str
) -> None:
    path = write(slice(0, 60))
    path.write_text(damage(path.read_text()))
    with pytest.raises(DataError, match=pattern) as caught:
        values(winner, path)
    assert "The model expects dates in 'date' (ISO 8601), one row per h" in str(caught.value.hint)


def test_numbers_out_of_all_range_are_refused(winner: Artefact, weather: SeriesTable) -> None:
    table = replace(weather, dates=weather.dates[:50], values=weather.values[:50] * 1e300)
    with pytest.raises(DataError, match="the forecast is not finite"):
        forecast(winner, table)


def test_a_table_with_another_time_step_is_refused(winner: Artefact, weather: SeriesTable) -> None:
    with pytest.raises(DataError, match="one row per D, but the model was trained on one row per h"):
        forecast(winner, replace(weather, frequency=Frequency(1440)))


def untrained(frequency: Frequency, data: DataConfig) -> Artefact:
    """A model of one column, whose weights are drawn."""
    rows, dates = np.zeros((1, 1), dtype=np.float32), np.array(["2024-01-01"], dtype="datetime64[s]")
    scaler = Scaler(mean=np.zeros(1), std=np.ones(1))
    time = time_features(dates, frequency)
    series = Series("s", ("a",), (0,), rows, time, dates, Split((0, 1), (1, 1), (1, 1)), scaler, frequency)
    trial = TrialConfig(data=data, model=ModelConfig(d_model=2, n_heads=1, e_layers=1))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Artefact.of(trial, series, build(trial, series).state_dict(), {})


@pytest.mark.parametrize(
    ("frequency", "dates", "following"),
    [
        ("15min", ["2024-12-31T23:15", "2024-12-31T23:30"], ["2024-12-31 23:45:00", "2025-01-01 00:00:00"]),
        ("D", ["2024-02-26", "2024-02-27"], ["2024-02-28 00:00:00", "2024-02-29 00:00:00"]),
        ("W", ["2024-12-16", "2024-12-23"], ["2024-12-30 00:00:00", "2025-01-06 00:00:00"]),
        ("MS", ["2024-10-31", "2024-11-30"], ["2024-12-01 00:00:00", "2025-01-01 00:00:00"]),
    ],
)
def test_the_forecast_goes_on_with_the_grid(
    tmp_path: Path, frequency: str, dates: list[str], following: list[str]
) -> None:
    artefact = untrained(Frequency.parse(frequency), DataConfig(input_length=2, horizon=2))
    (tmp_path / "a.csv").write_text("\n".join(["date,a", *(f"{date},1" for date in dates)]))
    assert forecast(artefact, read_input(artefact, tmp_path / "a.csv")).date_texts == following


def test_a_forecast_is_written_in_the_format_of_the_data_and_can_be_read_as_data(tmp_path: Path) -> None:
    artefact = untrained(
        Frequency(60), DataConfig(date_column="Zeit", date_format="%d.%m.%y %Hh", input_length=2, horizon=3)
    )
    (tmp_path / "a.csv").write_text("Zeit,a\n31.12.24 21h,1\n31.12.24 22h,2\n")
    answer = predict_from(artefact, tmp_path / "a.csv", tmp_path / "out.csv")
    assert answer.dates == ["31.12.24 23h", "01.01.25 00h", "01.01.25 01h"]
    table = read_input(artefact, tmp_path / "out.csv")
    assert table.values[:, 0].tolist() == answer.values["a"]


def test_numbers_survive_the_file_to_the_last_bit() -> None:
    numbers = np.random.default_rng(0).standard_normal((50, 2)) * np.array([1e-9, 1e9])
    dates = np.datetime64("2024-01-01T00:00:00") + np.arange(50) * np.timedelta64(1, "h")
    text = ForecastTable("date", None, ("a", 'b,"c"'), dates, numbers).to_csv()
    header, *rows = csv.reader(io.StringIO(text))
    assert header == ["date", "a", 'b,"c"']
    assert np.array([[float(cell) for cell in row[1:]] for row in rows]).tobytes() == numbers.tobytes()


def test_dates_beyond_the_calendar_are_refused(tmp_path: Path) -> None:
    artefact = untrained(Frequency(None), DataConfig(input_length=2, horizon=2))
    (tmp_path / "a.csv").write_text("date,a\n9999-10-01,1\n9999-11-01,2\n")
    with pytest.raises(DataError, match="beyond 9999-12-31"):
        forecast(artefact, read_input(artefact, tmp_path / "a.csv"))


def test_paths_that_cannot_be_are_refused(winner: Artefact, write: Write, tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"No such data file: .*/none.csv"):
        read_input(winner, tmp_path / "none.csv")
    with pytest.raises(DataError, match="is a folder"):
        read_input(winner, tmp_path)
    path = write(slice(0, 50))
    before = path.read_bytes()
    with pytest.raises(UsageError, match="is the input"):
        predict_from(winner, path, path)
    assert path.read_bytes() == before


def predict_from(artefact: Artefact, data: Path, target: Path) -> ForecastAnswer:
    """Through an exported folder."""
    write_artefact(Folder(target.parent / "exported"), artefact)
    return predict(target.parent / "exported", data, target)


def test_torch_keeps_its_threads(winner: Artefact, weather: SeriesTable) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        forecast(winner, replace(weather, dates=weather.dates[:50], values=weather.values[:50]))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
