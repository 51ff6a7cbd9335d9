"""Closing gaps: what is filled, with what, and what is said about it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentlab.errors import DataError
from agentlab.nas.config import DataConfig
from agentlab.nas.data import close_gaps
from agentlab.nas.table import SeriesTable
from agentlab.nas.time_features import Frequency


def holed(columns: list[list[float]]) -> SeriesTable:
    values = np.array(columns, dtype=float).T
    dates = np.datetime64("2024-01-01T00:00:00") + np.arange(len(values)) * np.timedelta64(3600, "s")
    return SeriesTable("s.csv", tuple(f"c{index}" for index in range(values.shape[1])), dates, values, Frequency(60))


NAN = float("nan")


def test_gaps_are_told_by_number_column_and_length():
    table = holed([[1, NAN, NAN, 4, NAN, 6], [NAN, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 6]])
    forward = close_gaps(table, DataConfig(gaps="ffill"))
    assert forward.notes == (
        "Filled with the previous value: 4 missing cells; by column: c0 3 (50.0%), c1 1 (16.7%); the longest gap is "
        "2 steps, from 2024-01-01T01:00:00 to 2024-01-01T02:00:00 in 'c0'",
        "Back-filled 1 cell before a column's first value, which looks ahead",
    )
    straight = close_gaps(table, DataConfig(gaps="interpolate"))
    assert straight.values[:, 0].tolist() == [1, 2, 3, 4, 5, 6]
    assert "looks ahead" in straight.notes[1]
    with pytest.raises(DataError, match="lacks 4 cells, the first at 2024-01-01T00:00:00 in column 'c1'"):
        close_gaps(table, DataConfig())


def test_only_the_worst_columns_are_listed():
    columns = [[NAN if row < index else 1.0 for row in range(13)] for index in range(12)]
    note = close_gaps(holed(columns), DataConfig(gaps="ffill")).notes[0]
    assert "by column: c11 11 (84.6%), c10 10" in note
    assert "c4 4 (30.8%) and 3 more columns;" in note


@pytest.mark.parametrize("gaps", ["error", "ffill", "interpolate"])
def test_a_series_without_gaps_is_left_alone(gaps):
    table = holed([[1, 2, 3], [3, 2, 2]])
    assert close_gaps(table, DataConfig(gaps=gaps)) is table


cells = st.one_of(st.none(), st.floats(-1e6, 1e6))
columns_with_holes = st.lists(cells, min_size=1, max_size=40).filter(lambda column: any(v is not None for v in column))


@given(columns_with_holes, st.sampled_from(["ffill", "interpolate"]))
def test_filling_touches_holes_only_and_leaves_none(column, gaps):
    values = np.array([NAN if value is None else value for value in column])
    mask = ~np.isnan(values)
    filled = close_gaps(holed([values]), DataConfig(gaps=gaps)).values[:, 0]
    assert np.array_equal(filled[mask], values[mask])
    assert np.isfinite(filled).all()
    assert values[mask].min() <= filled.min() <= filled.max() <= values[mask].max()


@given(st.integers(-1000, 1000), st.integers(-100, 100), st.sets(st.integers(1, 28), max_size=28))
def test_a_straight_line_is_restored_exactly(start, slope, holes):
    line = start + slope * np.arange(30.0)
    values = line.copy()
    values[list(holes)] = NAN
    filled = close_gaps(holed([values]), DataConfig(gaps="interpolate")).values[:, 0]
    assert np.allclose(filled, line, rtol=0, atol=1e-9)


@given(st.sets(st.integers(1, 28), max_size=14), st.sampled_from(["ffill", "interpolate"]))
def test_absent_rows_are_put_back_on_the_grid(absent, gaps):
    table = holed([[float(index) for index in range(30)], [float(index % 4) for index in range(30)]])
    present = [index for index in range(30) if index not in absent]
    cut = SeriesTable(table.source, table.names, table.dates[present], table.values[present], table.frequency)
    closed = close_gaps(cut, DataConfig(gaps=gaps))
    assert np.array_equal(closed.dates, table.dates)
    assert np.array_equal(closed.values[present], table.values[present])
    assert len(closed.notes) == (0 if not absent else 1 if gaps == "ffill" else 2)
