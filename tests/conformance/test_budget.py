"""What a monitor promises about its alerts, on seeded and on real streams."""

from datetime import UTC, datetime, timedelta
from importlib.resources import files

import barograph as bg
import numpy as np
import polars as pl
import pytest

START = datetime(2026, 1, 5, tzinfo=UTC)
LAWS = {
    "normal": lambda rng, shape: rng.normal(size=shape),
    "lognormal": lambda rng, shape: rng.lognormal(sigma=2, size=shape),
    "cauchy": lambda rng, shape: rng.standard_cauchy(shape),
    "discrete": lambda rng, shape: rng.integers(0, 4, shape).astype(float),
}


def hour(rng, law, rows, columns, at, shift=0.0):
    x = LAWS[law](rng, (rows, columns))
    x[:, 0] += shift
    times = pl.Series(np.arange(rows) * (3600 * 10**6 // rows)).cast(pl.Duration("us")) + pl.lit(START + timedelta(hours=at))
    return pl.DataFrame({f"x{i}": x[:, i] for i in range(columns)}).with_columns(at=times)


def replayed(reference, hours, **arguments):
    monitor = bg.Monitor("m", reference=reference, window="1h", ticks="manual", **arguments)
    for at, rows in enumerate(hours):
        monitor.observe_frame(rows, time="at")
        monitor.tick(START + timedelta(hours=at + 1))
    return monitor


@pytest.mark.parametrize("rows", [1000, 20_000])
@pytest.mark.parametrize("law", LAWS)
def test_unchanged_streams_stay_silent(law, rows):
    # Ten days and five columns on a budget of one day: ten false tickets are allowed, and with the tolerance none is expected.
    rng = np.random.default_rng([rows, len(law)])
    reference = bg.Reference(hour(rng, law, rows, 5, 0).drop("at"))
    monitor = replayed(reference, (hour(rng, law, 120, 5, at) for at in range(240)), budget="1d")
    assert monitor.alerts().is_empty(), monitor.alerts()


@pytest.mark.parametrize(("shift", "hours"), [(1.0, 2), (0.5, 8), (0.25, 48)])
def test_a_shift_of_one_feature_is_found_in_time(shift, hours):
    for seed in range(3):
        rng = np.random.default_rng(seed)
        reference = bg.Reference(hour(rng, "normal", 50_000, 20, 0).drop("at"))
        monitor = replayed(reference, (hour(rng, "normal", 1000, 20, at, shift) for at in range(min(hours, 12))))
        opened = monitor.alerts().filter(pl.col("state") == "opened")
        assert opened["column"].to_list() == ["x0"], opened
        assert opened["severity"].to_list() == ["ticket"]
        if opened["method"][0] == "e_detector":
            assert "reference" in opened["reason"][0]


def test_rows_that_resemble_their_neighbours_stay_silent():
    rng = np.random.default_rng(5)
    n = 24 * 200 * 40
    noise = rng.normal(size=n)
    x = np.empty(n)
    x[0] = noise[0]
    for at in range(1, n):
        x[at] = 0.9 * x[at - 1] + np.sqrt(0.19) * noise[at]
    times = np.datetime64("2026-01-05", "us") + np.arange(n) * 18_000_000
    # Days differ too.
    frame = pl.DataFrame({"x": x + np.repeat(rng.normal(size=40) * 0.3, 24 * 200), "at": times})
    reference = bg.Reference(frame[: n // 2])
    monitor = bg.Monitor("m", reference=reference, window="1h", budget="1d", ticks="manual")
    monitor.observe_frame(frame[n // 2 :], time="at")
    monitor.tick(START + timedelta(days=41))
    assert monitor.history()["window_start"].n_unique() >= 24 * 20
    # Twenty days at one a day.
    assert monitor.alerts().filter(pl.col("state") == "opened").height <= 3


def test_alternate_weeks_of_real_flights_stay_within_the_budget():
    frame = pl.read_parquet(str(files("barograph") / "data" / "flights_nyc_2013.parquet")).drop("flight_id", "y_true")
    frame = frame.with_columns(hour=pl.col("prediction_timestamp").dt.hour()).sort("prediction_timestamp")
    week = frame["prediction_timestamp"].dt.epoch("s") // (7 * 86_400)
    reference = bg.Reference(frame.filter(week % 2 == 0))
    monitor = bg.Monitor("m", reference=reference, window="1d", ticks="manual")
    monitor.observe_frame(frame.filter(week % 2 == 1), time="prediction_timestamp")
    monitor.tick(datetime(2014, 3, 1, tzinfo=UTC))
    # A year on one ticket in seven days: 52.
    assert monitor.alerts().filter(pl.col("state") == "opened").height <= 52


def test_nulls_and_new_names_are_found_and_an_alert_ends():
    rng = np.random.default_rng(3)

    def rows(at, nulls=0.0, names="abc"):
        frame = hour(rng, "normal", 500, 2, at)
        hole = pl.Series(rng.random(500) < nulls)
        return frame.with_columns(x1=pl.when(~hole).then("x1"), name=pl.Series(rng.choice(list(names), 500)))

    reference = bg.Reference(pl.concat([rows(0) for _ in range(20)]).drop("at"))
    states = [{}] * 3 + [{"nulls": 0.5, "names": "abcd"}] * 3 + [{}] * 6
    monitor = replayed(reference, (rows(at, **state) for at, state in enumerate(states)))
    alerts = monitor.alerts()
    for column, severity in (("x1", "page"), ("name", "page")):
        changes = alerts.filter(pl.col("column") == column)
        assert changes["state"][0] == "opened"
        assert changes["state"][-1] == "resolved"
        assert severity in changes["severity"].to_list()
        assert changes["window_start"][0] == START + timedelta(hours=3)
    assert set(alerts["column"]) == {"x1", "name"}
    assert "went from" in alerts["cause"][0]


def test_the_policy_is_said_in_words_and_a_budget_has_a_range():
    reference = bg.Reference({"x": np.arange(1000.0)})
    assert "one false ticket in 30 days" in bg.Monitor("m", reference=reference, budget="30d", ticks="manual").policy
    with pytest.raises(bg.errors.InvalidArgumentError, match="budget"):
        bg.Monitor("m", reference=reference, budget="1s", ticks="manual")
