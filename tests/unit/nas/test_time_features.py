"""Time steps and date features."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentlab.nas.time_features import Frequency, time_features


def dates(*texts: str) -> np.ndarray:
    return np.array(texts, dtype="datetime64[s]")


def test_hourly_features_are_those_of_the_published_encoding():
    # A Sunday, the last hour of the last day of a leap year's December: hour 23, weekday 6, day 31, day of year 366.
    features = time_features(dates("2000-12-31T23:00", "2001-01-01T00:00"), Frequency(60))
    assert features.tolist() == [[0.5, 0.5, 0.5, 0.5], [-0.5, -0.5, -0.5, -0.5]]


def test_weekly_features_count_iso_weeks():
    # 2021-01-03 belongs to week 53 of 2020, the day after to week 1.
    features = time_features(dates("2021-01-03", "2021-01-04"), Frequency(7 * 1440))
    assert features[:, 1].tolist() == [0.5, -0.5]


@pytest.mark.parametrize(("minutes", "count"), [(15, 5), (60, 4), (180, 4), (1440, 3), (10080, 2), (None, 1)])
def test_coarser_steps_have_fewer_features(minutes, count):
    assert time_features(dates("2024-05-17T13:45"), Frequency(minutes)).shape == (1, count)


@given(
    st.lists(st.integers(0, 2**32), min_size=1, max_size=20),
    st.sampled_from([1, 15, 60, 1440, 10080, None]),
)
def test_features_stay_within_half_of_zero(seconds, minutes):
    features = time_features(np.array(seconds).astype("datetime64[s]"), Frequency(minutes))
    assert np.abs(features).max() <= 0.5


@pytest.mark.parametrize("text", ["min", "15min", "h", "2h", "D", "W", "MS"])
def test_a_frequency_prints_as_it_is_read(text):
    assert str(Frequency.parse(text)) == text


@pytest.mark.parametrize("text", ["", "0h", "x", "-1h", "1.5h", "s", "h2"])
def test_other_words_are_no_frequency(text):
    with pytest.raises(ValueError, match="not a valid time step"):
        Frequency.parse(text)


@pytest.mark.parametrize(
    ("text", "season"),
    [
        *[("15min", 96), ("h", 24), ("6h", 4), ("D", 7), ("W", 52), ("MS", 12)],
        *[("min", 1440), ("30min", 48), ("2h", 12), ("2W", 26), ("60W", 1)],
        *[("2D", 7), ("7h", 24), ("36h", 14)],  # two weeks, one, and three: the fewest that the step divides
    ],
)
def test_the_season_is_a_day_a_week_or_a_year(text, season):
    assert Frequency.parse(text).season == season


@given(st.integers(1, 10_000), st.integers(3, 50))
def test_an_even_spacing_is_inferred_even_with_one_hole(minutes, count):
    times = np.datetime64("2020-01-01", "s") + np.arange(count) * np.timedelta64(minutes * 60, "s")
    assert Frequency.infer(np.delete(times, count // 2) if count > 5 else times) == Frequency(minutes)


def test_months_are_inferred_from_either_end_of_the_month():
    assert Frequency.infer(dates("2021-01-01", "2021-02-01", "2021-03-01")) == Frequency(None)
    assert Frequency.infer(dates("2021-01-31", "2021-02-28", "2021-03-31")) == Frequency(None)


@pytest.mark.parametrize(
    ("times", "reason"),
    [
        (dates("2021-01-01", "2021-01-02"), "fewer than three"),
        (dates("2021-01-01", "2021-01-02", "2021-01-05", "2021-01-06T02:00"), "do not share one time step"),
        (dates("2021-01-01T00:00:00", "2021-01-01T00:00:30", "2021-01-01T00:01:00"), "30 seconds"),
    ],
)
def test_what_cannot_be_inferred_says_why(times, reason):
    with pytest.raises(ValueError, match=reason):
        Frequency.infer(times)


@pytest.mark.parametrize(("minutes", "end"), [(60, "2023-11-01T05"), (1440, "2023-11-06"), (None, "2024-04-01")])
def test_the_grid_holds_every_step_and_both_ends(minutes, end):
    frequency = Frequency(minutes)
    start, last = np.datetime64("2023-11-01", "s"), np.datetime64(end, "s")
    dates = frequency.grid(start, last)
    assert (dates[0], dates[-1], len(dates)) == (start, last, 6)
    assert frequency.steps_between(start, last) == 5


# From 1850 to 2200: before and after the epoch, with the leap years 2000 and 2024 and the common years 1900 and 2100.
instants = st.integers(-3_786_912_000, 7_258_118_400)


@given(st.lists(instants, min_size=1, max_size=30))
def test_every_feature_is_the_one_of_the_calendar(seconds):
    times = np.array(seconds).astype("datetime64[s]")
    index = pd.DatetimeIndex(times)
    minute, hour, weekday, day, yearday = time_features(times, Frequency(15)).T
    assert np.allclose((minute + 0.5) * 59, index.minute, atol=1e-4)
    assert np.allclose((hour + 0.5) * 23, index.hour, atol=1e-4)
    assert np.allclose((weekday + 0.5) * 6, index.day_of_week, atol=1e-4)
    assert np.allclose((day + 0.5) * 30, index.day - 1, atol=1e-4)
    assert np.allclose((yearday + 0.5) * 365, index.day_of_year - 1, atol=1e-3)
    week = time_features(times, Frequency(10080))[:, 1]
    assert np.allclose((week + 0.5) * 52, index.isocalendar().week.to_numpy(dtype=float) - 1, atol=1e-3)
    month = time_features(times, Frequency(None))[:, 0]
    assert np.allclose((month + 0.5) * 11, index.month - 1, atol=1e-4)


@pytest.mark.parametrize("year", [1900, 1999, 2000, 2020, 2023, 2024, 2026, 2100])
def test_the_turn_of_a_year_and_of_february(year):
    days = np.arange(f"{year}-12-20", f"{year + 1}-01-12", dtype="datetime64[D]")
    days = np.concatenate([np.arange(f"{year}-02-26", f"{year}-03-03", dtype="datetime64[D]"), days])
    times = days.astype("datetime64[s]")
    index = pd.DatetimeIndex(times)
    expected = index.isocalendar().week.to_numpy(dtype=float) - 1
    assert np.allclose((time_features(times, Frequency(10080))[:, 1] + 0.5) * 52, expected, atol=1e-3)
    assert np.allclose((time_features(times, Frequency(1440))[:, 2] + 0.5) * 365, index.day_of_year - 1, atol=1e-3)


STEPS = ["min", "5min", "15min", "30min", "45min", "h", "2h", "7h", "12h", "D", "2D", "W", "2W", "4W", "29D", "30D"]


@given(st.sampled_from([*STEPS, "31D", "MS"]), instants, st.integers(5, 60))
def test_the_step_of_a_grid_is_inferred_and_its_dates_lie_on_it(text, second, count):
    frequency = Frequency.parse(text)
    start = np.datetime64(second, "s")
    months = 1 if frequency.minutes is None else 0
    if months:
        end = (start.astype("datetime64[M]") + count - 1).astype("datetime64[s]")
    else:
        end = start + np.timedelta64(frequency.minutes * 60 * (count - 1), "s")
    grid = frequency.grid(start, end)
    assert len(grid) == count
    assert Frequency.infer(grid) == frequency
    assert np.array_equal(frequency.align(grid), grid)
    assert np.array_equal(frequency.grid(grid[0], grid[-1]), grid)
    assert frequency.steps_between(grid[0], grid[-1]) == count - 1
    assert np.abs(time_features(grid, frequency)).max() <= 0.5


@given(st.integers(1, 28), st.integers(-600, 600), st.integers(6, 60), st.booleans())
def test_months_are_inferred_from_any_day_of_them_with_a_hole(day, month, count, end):
    months = np.delete(np.datetime64(month, "M") + np.arange(count), count // 2)
    days = (months + 1).astype("datetime64[D]") - 1 if end else months.astype("datetime64[D]") + (day - 1)
    times = days.astype("datetime64[s]")
    assert Frequency.infer(times) == Frequency(None)
    assert np.array_equal(Frequency(None).align(times), months.astype("datetime64[s]"))


def test_the_last_working_days_are_months():
    ends = pd.date_range("2015-01-01", periods=40, freq="BME").to_numpy().astype("datetime64[s]")
    assert Frequency.infer(ends) == Frequency(None)


@pytest.mark.parametrize(("every", "says"), [(3, "3 months apart"), (12, "12 months apart")])
def test_quarters_and_years_are_named_as_what_they_are(every, says):
    times = (np.datetime64("2010-01") + every * np.arange(20)).astype("datetime64[s]")
    with pytest.raises(ValueError, match=says):
        Frequency.infer(times)
