"""Time steps and date features."""

import numpy as np
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
    with pytest.raises(ValueError, match="not a time step"):
        Frequency.parse(text)


@pytest.mark.parametrize(("text", "season"), [("15min", 96), ("h", 24), ("6h", 4), ("D", 7), ("W", 52), ("MS", 12)])
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
        (dates("2021-01-01", "2021-01-02", "2021-01-05", "2021-01-06T02:00"), "no time step"),
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
