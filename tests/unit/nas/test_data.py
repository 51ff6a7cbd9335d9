"""Reading a series: what is used, what is refused, and what the refusal says."""

import gzip
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentlab.config.workspace import Workspace
from agentlab.errors import AgentlabError, DataError, MissingFileError
from agentlab.nas.config import DataConfig, SplitConfig
from agentlab.nas.data import load_series, split_rows
from agentlab.nas.series import window_starts

ETT_SPLIT = SplitConfig(train=8640, val=2880, test=2880)


@pytest.fixture
def workspace(tmp_path):
    return Workspace(root=tmp_path, cache=tmp_path / "cache")


def rows(count: int = 60) -> list[str]:
    """Hourly lines `date,a,b`."""
    times = np.datetime64("2024-01-01T00:00") + np.arange(count) * np.timedelta64(1, "h")
    return [f"{time},{index % 7},{(index * index) % 11}" for index, time in enumerate(times)]


def small(**changes) -> DataConfig:
    return DataConfig(**{"path": "s.csv", "input_length": 4, "horizon": 2, **changes})


def write(workspace: Workspace, lines: list[str], header: str = "date,a,b") -> None:
    (workspace.root / "s.csv").write_text("\n".join([header, *lines]) + "\n")


def refused(workspace: Workspace, config: DataConfig | None = None, kind: type[AgentlabError] = DataError) -> str:
    with pytest.raises(kind) as caught:
        load_series(config or small(), workspace)
    assert caught.value.hint
    return f"{caught.value.message} {caught.value.hint}"


def test_a_series_is_scaled_by_its_training_rows_only(workspace):
    write(workspace, rows())
    series = load_series(small(), workspace)
    train = series.values[: series.split.train[1]]
    assert series.names == ("a", "b")
    assert str(series.frequency) == "h"
    assert np.allclose(train.mean(axis=0), 0, atol=1e-6)
    assert np.allclose(train.std(axis=0), 1, atol=1e-6)
    raw = series.scaler.undo(series.values, (0, 1))
    assert raw[:, 0].round(4).tolist() == [index % 7 for index in range(60)]


def test_every_step_of_validation_and_test_is_forecast_whatever_the_input_length(workspace):
    write(workspace, rows())
    split = load_series(small(), workspace).split
    assert (split.train, split.val, split.test) == ((0, 36), (36, 48), (48, 60))
    for length in (2, 4, 10):
        starts = window_starts(split, "val", length, 2)
        assert starts[0] + length == 36  # the first forecast is the part's first row
        assert starts[-1] + length + 2 == 48  # the last forecast ends with the part
        assert len(starts) == 11
    assert len(window_starts(split, "train", 4, 2)) == 31


def test_ett_window_counts_are_the_published_ones():
    split = split_rows(ETT_SPLIT, 17_420, "ETTh1.csv")
    assert [len(window_starts(split, part, 48, 24)) for part in ("train", "val", "test")] == [8569, 2857, 2857]


def test_s_keeps_the_target_and_ms_puts_it_last(workspace):
    write(workspace, rows())
    alone = load_series(small(features="S", target="a"), workspace)
    many = load_series(small(features="MS", target="a"), workspace)
    assert (alone.names, alone.targets) == (("a",), (0,))
    assert (many.names, many.targets, many.target_names) == (("b", "a"), (1,), ("a",))


def test_the_fingerprint_follows_values_and_split(workspace):
    write(workspace, rows())
    first = load_series(small(), workspace).fingerprint
    assert load_series(small(input_length=5), workspace).fingerprint == first
    assert load_series(small(split={"train": 0.5, "val": 0.2, "test": 0.3}), workspace).fingerprint != first
    lines = rows()
    lines[9] = lines[9][:-1] + "5"
    write(workspace, lines)
    assert load_series(small(), workspace).fingerprint != first


def test_gaps_are_refused_unless_a_policy_is_chosen(workspace):
    lines = rows()
    lines[5] = lines[5].rsplit(",", 2)[0] + ",,3"  # a = 5 is missing
    del lines[20:22]  # two rows are missing
    write(workspace, lines)
    assert "lacks 2 rows and 1 cell, the first at 2024-01-01T05:00:00 in column 'a'" in refused(workspace)
    forward = load_series(small(gaps="ffill"), workspace)
    straight = load_series(small(gaps="interpolate"), workspace)
    assert len(forward.values) == len(straight.values) == 60
    assert forward.scaler.undo(forward.values, (0, 1))[[5, 20, 21], 0].round(4).tolist() == [4, 5, 5]
    assert straight.scaler.undo(straight.values, (0, 1))[5, 0].round(4) == 5
    assert "2 missing rows" in forward.notes[0]


def test_month_ends_are_a_monthly_series(workspace):
    months = np.arange("2010-02", "2015-02", dtype="datetime64[M]").astype("datetime64[D]") - 1
    write(workspace, [f"{day},{index % 7},{index % 5}" for index, day in enumerate(months)])
    series = load_series(small(), workspace)
    assert str(series.frequency) == "MS"
    assert str(series.dates[1])[:10] == "2010-02-01"


def test_dates_with_offsets_become_utc_and_other_forms_need_a_format(workspace):
    write(workspace, [f"{line[:16]}:00+02:00{line[16:]}" for line in rows()])
    assert str(load_series(small(), workspace).dates[0]) == "2023-12-31T22:00:00"
    write(
        workspace, [f"{index % 24:02d}h {1 + index // 24:02d}.01.2024,{index % 7},{index % 5}" for index in range(60)]
    )
    assert "line 2 is not a date: '00h 01.01.2024'" in refused(workspace)
    assert str(load_series(small(date_format="%Hh %d.%m.%Y"), workspace).dates[30]) == "2024-01-02T06:00:00"
    for unusable in ("%Q", "%Y%Y"):
        assert f"invalid data.date_format {unusable!r}" in refused(workspace, small(date_format=unusable))


def replaced(number: int, line: str) -> list[str]:
    lines = rows()
    lines[number] = line
    return lines


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ([], "s.csv has a header but no rows"),
        (rows(8), "train split has 4 rows"),
        (replaced(3, "2024-01-01T03:00,x,1"), "column 'a', line 5: 'x' is not a finite number"),
        (replaced(3, "2024-01-01T03:00,inf,1"), "column 'a', line 5: 'inf' is not a finite number"),
        (replaced(3, "yesterday,1,1"), "column 'date', line 5 is not a date: 'yesterday'"),
        (replaced(3, ",1,1"), "column 'date', line 5 is not a date: empty"),
        (replaced(3, "2024-01-01T02:00,1,1"), "line 5 repeats the date of the previous line"),
        (replaced(3, "2024-01-01T01:00,1,1"), "line 5 goes back in time"),
        (replaced(3, "2024-01-01T03:20,1,1"), "line 5 (2024-01-01T03:20:00) is off the h"),
        ([*rows(), "2034-01-01T00:00,1,1"], "most time steps from 2024-01-01T00:00:00"),
        ([line[:-1].rstrip("0123456789") + "4" for line in rows()], "column 'b' is constant in the 36 training rows"),
        ([line.rsplit(",", 1)[0] + "," for line in rows()], "column 'b' has no value in 100% of the rows"),
        (replaced(3, "2024-01-01T03:00,1,1,9,9"), "line 5 has 5 fields, but the header has 3"),
    ],
)
def test_each_fault_is_named_with_its_place(workspace, lines, says):
    write(workspace, lines)
    assert says in refused(workspace)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"date_column": "time"},
            "has no column 'time' (data.date_column). Columns in the file: date, a, b. To read the file: --set "
            "data.date_column=date",
        ),
        ({"target": "z", "features": "S"}, "has no column 'z' (data.target)"),
        ({"columns": ("a", "z")}, "has no column 'z' (data.columns)"),
        ({"columns": ("a", "a")}, "contains a duplicate"),
        ({"columns": ("a",), "target": "b"}, "target 'b' is not in data.columns"),
        ({"frequency": "fortnight"}, "data.frequency: 'fortnight' is not a valid time step"),
        ({"frequency": "D"}, "is off the D"),
        ({"split": {"train": 50, "val": 10, "test": 10}}, "requires 70 rows, but there are only 60"),
        ({"horizon": 13}, "the val split has 12 rows"),
        ({"path": "."}, "is a folder"),
    ],
)
def test_a_config_that_does_not_fit_the_file_is_refused(workspace, changes, says):
    write(workspace, rows())
    assert says in refused(workspace, small(**changes))


def test_files_that_are_no_text_are_refused(workspace):
    path = workspace.root / "s.csv"
    path.write_bytes(b"")
    assert "s.csv or its first line is empty" in refused(workspace)
    path.write_bytes("date,a\n2024-01-01,\xe4\n".encode("latin-1"))
    assert "not UTF-8 text" in refused(workspace)
    packed = gzip.compress("\n".join(["date,a,b", *rows()]).encode())
    for broken in (packed[:-20], b"no gzip", packed[:20] + b"xx" + packed[22:]):
        (workspace.root / "s.csv.gz").write_bytes(broken)
        assert "Cannot read s.csv.gz" in refused(workspace, small(path="s.csv.gz"))
    (workspace.root / "s.csv.gz").write_bytes(packed)
    assert len(load_series(small(path="s.csv.gz"), workspace).values) == 60


def test_a_huge_file_is_refused_before_it_is_read(workspace):
    with (workspace.root / "s.csv").open("wb") as file:
        file.truncate(2 << 30)  # sparse: takes no disk
    assert "the limit is 1073741824" in refused(workspace)


def test_a_missing_file_says_where_to_get_the_benchmark(workspace):
    text = refused(workspace, small(path="data/ETTh1.csv"), MissingFileError)
    assert "github.com/zhouhaoyi/ETDataset" in text
    assert "--data FILE" in text
    assert "ETDataset" not in refused(workspace, small(), MissingFileError)


def test_the_embedded_weather_needs_nothing(workspace):
    series = load_series(DataConfig(gaps="ffill"), workspace)
    assert series.values.shape == (8730, 7)
    assert series.names[-1] == "temp"
    assert "24 missing rows and 834 missing cells" in series.notes[0]
    assert np.isfinite(series.values).all()
    assert "lacks 24 rows and 834 cells" in refused(workspace, DataConfig())


def ett_folder() -> Path:
    return Path(os.environ.get("AGENTLAB_ETT_DIR") or Path(__file__).parents[4] / "shared" / "data" / "ETT-small")


@pytest.mark.skipif(not (ett_folder() / "ETTh1.csv").is_file(), reason="ETTh1.csv is absent; set AGENTLAB_ETT_DIR")
def test_etth1_is_read_without_gaps(workspace):
    series = load_series(DataConfig(path=str(ett_folder() / "ETTh1.csv"), split=ETT_SPLIT), workspace)
    assert series.values.shape == (17_420, 7)
    assert (series.notes, str(series.frequency), series.names[-1]) == ((), "h", "OT")


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("123456789.123", "is constant"),  # the deviation of its 36 equal values is not exactly zero
        ("1e300", "too large"),
        ("1e40", "too large"),
        ("9" * 400, "too large"),
    ],
)
def test_a_column_that_cannot_be_scaled_is_named(workspace, value, problem):
    lines = rows()
    constant = problem == "is constant"
    write(
        workspace,
        [
            ",".join([*line.split(",")[:2], value if constant or n % 50 == 49 else str(n % 5)])
            for n, line in enumerate(lines)
        ],
    )
    message = refused(workspace)
    assert "'b'" in message
    assert problem in message


def test_lines_longer_than_the_header_are_not_shifted_into_other_columns(workspace):
    write(workspace, [f"{line}," for line in rows()])
    assert "more fields than the header" in refused(workspace)


@pytest.mark.parametrize(
    ("column", "says"),
    [
        ([1e-300 * (index % 5) for index in range(60)], "too small to standardise"),
        ([1e307 * (index % 5 - 2) for index in range(60)], "too large"),
        ([2**63 + index for index in range(60)], "is constant in the 36 training rows (up to 64-bit rounding)"),
        ([0.1 + 0.2 if index % 2 else 0.3 for index in range(60)], "(up to 64-bit rounding"),
        ([5 if index < 36 else index for index in range(60)], "is constant in the 36 training rows."),
        ([0 for index in range(60)], "is constant in the 36 training rows."),
    ],
)
def test_a_column_without_a_scale_is_refused(workspace, column, says):
    write(workspace, [f"{line.rsplit(',', 1)[0]},{value}" for line, value in zip(rows(), column, strict=True)])
    assert says in refused(workspace)


def test_large_and_offset_numbers_are_scaled(workspace):
    write(workspace, [f"{line.rsplit(',', 1)[0]},{10**19 + n % 5 * 10**15}" for n, line in enumerate(rows())])
    assert load_series(small(), workspace).values[:36, 1].std() == pytest.approx(1)


@pytest.mark.parametrize("gaps", ["ffill", "interpolate"])
def test_a_column_that_begins_after_the_training_part_has_no_scale(workspace, gaps):
    write(workspace, [line if n >= 25 else line.rsplit(",", 1)[0] + "," for n, line in enumerate(rows())])
    assert len(load_series(small(gaps=gaps), workspace).values) == 60
    early = small(gaps=gaps, split={"train": 24, "val": 18, "test": 18})
    assert "column 'b' has no value in the 24 training rows" in refused(workspace, early)


@given(
    st.integers(10, 100_000),
    st.tuples(st.integers(1, 97), st.integers(1, 97)).filter(lambda parts: sum(parts) < 99),
)
def test_shares_cut_all_rows_into_consecutive_parts(count, parts):
    train, val = parts[0] / 100, parts[1] / 100
    split = split_rows(SplitConfig(train=train, val=val, test=1 - train - val), count, "s.csv")
    assert (split.train[0], split.train[1], split.val[1]) == (0, split.val[0], split.test[0])
    assert split.test[1] == count
    assert abs(split.train[1] - count * train) <= 1


@pytest.mark.parametrize("horizon", [1, 720])
def test_horizons_from_one_step_to_a_month_of_hours(workspace, horizon):
    write(workspace, rows(4000))
    series = load_series(small(horizon=horizon), workspace)
    for part in ("train", "val", "test"):
        assert window_starts(series.split, part, 4, horizon)[-1] + 4 + horizon == series.split.rows(part)[1]
