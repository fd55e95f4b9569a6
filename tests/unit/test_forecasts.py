"""Forecasts of arrivals by the hour: what they say, how often they are right on real hours, and what they refuse."""

from datetime import UTC, datetime
from pathlib import Path

import barograph as bg
import numpy as np
import polars as pl
import pytest
from barograph.scaling.forecasts import LEAST_WEEKS, Hours, forecast

FLIGHTS = Path(bg.__file__).parent / "data" / "flights_nyc_2013.parquet"
MONDAY = datetime(2026, 1, 5, tzinfo=UTC)


def flights():
    """Departures from New York in each hour of 2013."""
    hours = pl.read_parquet(FLIGHTS, columns=["prediction_timestamp"]).select(at=pl.col("prediction_timestamp").dt.truncate("1h"))
    counted = hours.group_by("at").len().sort("at").upsample("at", every="1h").fill_null(0)
    return counted["at"][0].replace(tzinfo=UTC), counted["len"].to_numpy().astype(np.float64)


def test_limits_cover_the_share_they_promise_on_real_hours_they_have_not_seen():
    start, counts = flights()
    inside, widths, peaks = [], [], []
    for week in range(LEAST_WEEKS, len(counts) // 168):
        found = forecast(counts[: week * 168], start=start)
        came = counts[week * 168 : (week + 1) * 168]
        inside.append(((came >= found.lower) & (came <= found.upper)).mean())
        widths.append((found.upper - found.lower).mean() / found.expected.mean())
        peaks.append(came.max() <= found.upper.max())
    assert len(inside) == 47
    assert 0.87 <= np.mean(inside) <= 0.93  # 0.889 of 7,896 hours; holidays miss together
    assert min(inside) > 0.5
    assert np.mean(widths) < 0.25  # of the mean hour: 0.19
    assert np.mean(peaks) > 0.85


def test_limits_cover_what_they_promise_of_made_up_counts():
    # Poisson counts of a known course: 60 weeks, one forecast each, 10,080 hours.
    rng = np.random.default_rng(0)
    mean = 200 * (1.2 + np.sin(2 * np.pi * np.arange(168) / 24))
    for level in (0.5, 0.9, 0.99):
        inside = []
        for _ in range(60):
            counts = rng.poisson(np.tile(mean, 9)).astype(float)
            found = forecast(counts[: 8 * 168], level=level)
            inside.append(((counts[8 * 168 :] >= found.lower) & (counts[8 * 168 :] <= found.upper)).mean())
        assert np.mean(inside) == pytest.approx(level, abs=0.03)


def test_the_profile_is_that_of_the_hour_of_the_week_wherever_the_counts_begin():
    week = np.arange(1.0, 169.0)
    for shift in (0, 5, 100):
        counts = np.tile(week, 7)[shift : shift + 6 * 168]
        found = forecast(counts, start=MONDAY, ahead=24)
        assert found.expected == pytest.approx(np.roll(week, -shift)[:24])
        assert found.start == datetime(2026, 2, 16, tzinfo=UTC)
        assert len(found.to_frame()) == 24


def test_the_level_is_that_of_the_last_week():
    counts = np.concatenate([np.full(5 * 168, 100.0), np.full(168, 300.0)])
    assert forecast(counts).expected == pytest.approx(np.full(168, 300.0))


def test_too_few_weeks_are_no_forecast_but_a_reason():
    found = forecast(np.ones(LEAST_WEEKS * 168 - 1))
    assert found.start is None
    assert found.peak_rate is None
    assert found.first_above(0.0) is None
    assert len(found.expected) == found.to_frame().height == 0
    assert found.reason == "839 whole hours were seen, a forecast needs 840"


def test_hours_without_calls_are_foretold_as_such():
    found = forecast(np.zeros(6 * 168))
    assert found.expected.max() == found.upper.max() == 0
    some = np.tile(np.r_[np.zeros(24), np.ones(144)], 6)
    assert np.isfinite(forecast(some).upper).all()


def test_the_first_hour_above_a_rate_is_named():
    counts = np.tile(np.r_[np.full(100, 3600.0), 7200.0, np.full(67, 3600.0)], 6)
    found = forecast(counts, start=MONDAY)
    assert found.peak_rate == pytest.approx(2.0)
    assert found.first_above(1.5) == datetime(2026, 2, 20, 4, tzinfo=UTC)
    assert found.first_above(2.5) is None


def test_windows_of_minutes_and_gaps_become_hours():
    start = np.array([0.0, 1800.0, 3600.0, 9000.0]) + 1800
    hours, missing = Hours.of_windows(start, start + 1800, np.array([1.0, 2.0, 3.0, 4.0]))
    assert missing == 2
    assert hours.counts.tolist() == [1, 5, 0, 4]
    assert hours.start == 0
    # The last hour was seen by half.
    assert hours.whole().tolist() == [5, 0]
    assert hours.whole_start == 3600
    assert Hours.of_windows(np.array([0.0]), np.array([86400.0]), np.array([5.0])) == (None, 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ahead": 0}, "`ahead` must be an integer in"),
        ({"ahead": 169}, "`ahead` must be an integer in"),
        ({"level": 1.0}, "`level` must be in"),
        ({"level": float("nan")}, "`level` must be in"),
        ({"hours": [float("nan")] * 1000}, "must be finite counts"),
        ({"hours": [-1.0] * 1000}, "must be finite counts"),
    ],
)
def test_what_cannot_be_foretold_is_refused(arguments, message):
    with pytest.raises(bg.errors.InvalidArgumentError, match=message):
        forecast(**{"hours": np.ones(1000)} | arguments)
