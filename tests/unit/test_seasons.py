"""Windows compared with their like: the same hour of the day or week, day of the week, month of the year."""

from datetime import UTC, datetime, timedelta

import barograph as bg
import numpy as np
import polars as pl
import pytest

START = datetime(2026, 1, 5)


def hours(seed, days, n=200, shift=0.0, start=START):
    """A daily rhythm of three standard deviations, and a category that is another one at night."""
    rng = np.random.default_rng(seed)
    hour = np.repeat(np.arange(days * 24), n)
    at = start + pl.Series("at", (hour * 3600 + np.tile(np.linspace(0, 3599, n), days * 24)) * 1e6).cast(pl.Int64).cast(pl.Duration("us"))
    load = rng.normal(3 * np.sin(hour / 24 * 2 * np.pi) + shift, 1)
    kind = np.where((hour % 24 < 6) ^ (rng.random(len(hour)) < 0.1), "night", "day")
    return pl.DataFrame({"load": load, "kind": kind, "at": at})


def replayed(reference, frame, **arguments):
    monitor = bg.Monitor("m", reference=reference, ticks="manual", **arguments)
    monitor.observe_frame(frame, time="at")
    monitor.tick(frame["at"].max().replace(tzinfo=UTC) + timedelta(hours=1))
    return monitor


PLAIN = bg.Reference(hours(0, 28))
SEASONAL = bg.Reference(hours(0, 28), season="hour_of_day")


def test_a_rhythm_is_no_drift_and_a_shift_against_it_is_found_at_once():
    quiet, shifted = hours(1, 14, start=START + timedelta(days=28)), hours(2, 1, shift=1.0, start=START + timedelta(days=28))
    assert replayed(SEASONAL, quiet).alerts().is_empty()
    # Against the whole, one hour of a day is nothing special: it takes the e-detector, or never.
    late = replayed(PLAIN, shifted).alerts().filter(state="opened")
    soon = replayed(SEASONAL, shifted).alerts().filter(state="opened")
    hour = datetime(2026, 2, 2, 1, tzinfo=UTC)
    assert soon.filter(column="load")["time"][0] == hour
    assert late.is_empty() or late.filter(column="load")["time"][0] > hour
    assert "against hour_of_day 00:00 of the reference" in soon["reason"][0]


def test_a_category_at_the_wrong_hour_is_found():
    frame = hours(3, 1, start=START + timedelta(days=28))
    swapped = frame.with_columns(kind=pl.when(pl.col("kind") == "day").then(pl.lit("night")).otherwise(pl.lit("day")))
    assert "kind" in set(replayed(SEASONAL, swapped).alerts()["column"])
    rows = replayed(SEASONAL, frame).history().filter((pl.col("column") == "kind") & pl.col("segment").is_not_null())
    assert set(rows["verdict"]) <= {"ok", "info"}
    assert rows["segment"].to_list()[:2] == ["hour_of_day=00:00", "hour_of_day=01:00"]


@pytest.mark.parametrize("season", ["hour_of_week", "day_of_week", "month_of_year"])
def test_thin_buckets_raise_no_alarm(season):
    # Of each hour of the week the reference has one window, so that nothing tells how such windows scatter; of most months none.
    reference = bg.Reference(hours(4, 7, n=40), season=season)
    assert replayed(reference, hours(5, 14, n=40, start=START + timedelta(days=7))).alerts().is_empty()


def test_a_restored_monitor_goes_on_and_references_keep_their_seasons():
    frame = hours(6, 2, shift=1.0, start=START + timedelta(days=28))
    whole = replayed(SEASONAL, frame)
    reference = bg.Reference.from_bytes(SEASONAL.to_bytes())
    assert (reference.id, reference.season) == (SEASONAL.id, "hour_of_day")
    assert SEASONAL.id != PLAIN.id
    part = replayed(reference, frame[:5000])
    again = bg.Monitor.restore(part.snapshot())
    again.observe_frame(frame[5000:], time="at")
    again.tick(frame["at"].max().replace(tzinfo=UTC) + timedelta(hours=1))
    assert again.alerts().equals(whole.alerts())
    assert again.history().equals(whole.history())


def test_what_cannot_be_is_refused():
    frame = hours(7, 1)
    with pytest.raises(bg.errors.InvalidArgumentError, match="`season` must be one of hour_of_day"):
        bg.Reference(frame, season="fortnight")
    with pytest.raises(bg.errors.InvalidArgumentError, match="`season` needs a column of role time"):
        bg.Reference(frame.drop("at"), season="hour_of_day")
    with pytest.raises(bg.errors.InvalidArgumentError, match="`season` needs rows"):
        bg.Reference(bg.profile(frame), season="hour_of_day")
    with pytest.raises(bg.errors.InvalidArgumentError, match="`window` must be at most 1h"):
        bg.Monitor("m", reference=SEASONAL, window="1d")


def test_segments_of_more_rows_than_a_sample_holds_are_grouped_alike():
    # The counters of a large reference are counted in a pass of their own; segments have to follow them.
    rng = np.random.default_rng(8)
    n = 1_300_000
    frame = pl.DataFrame({"x": rng.lognormal(size=n), "country": rng.choice(["a", "b"], n), "at": [START] * n})
    reference = bg.Reference(frame, segments=["country"], season="day_of_week")
    monitor = bg.Monitor("m", reference=reference, window="1d", ticks="manual")
    monitor.observe_frame(frame[:20_000], time="at")
    monitor.tick(datetime(2026, 1, 6, tzinfo=UTC))
    assert monitor.alerts().is_empty()
    rows = bg.Monitor("m", reference=reference, window="1d", ticks="manual")
    rows.observe_frame(frame[:20_000].with_columns(pl.col("x") * 2), time="at")
    rows.tick(datetime(2026, 1, 6, tzinfo=UTC))
    assert {"x", "x [country=a]", "x [country=b]"} <= set(rows.alerts()["column"])
