"""Segments: the values of a column watched apart."""

from datetime import UTC, datetime, timedelta

import barograph as bg
import numpy as np
import polars as pl
import pytest

DAY = datetime(2026, 1, 5, tzinfo=UTC)
HOUR = timedelta(hours=1)


def rows(n, seed, *, start=DAY, hours=1, shift=None, nulls=None, kind=pl.String):
    """Three countries whose amounts differ by nature; `shift` and `nulls` change one of them."""
    rng = np.random.default_rng(seed)
    country = rng.choice(["de", "fr", "us", "xx"], n, p=[0.5, 0.3, 0.19, 0.01])
    amount = rng.normal(np.select([country == "de", country == "fr"], [0.0, 3.0], 6.0))
    amount = amount + np.where(country == shift, 1.0, 0.0)
    amount = [None if c == nulls and rng.random() < 0.5 else a for c, a in zip(country, amount.tolist(), strict=True)]
    at = [start + timedelta(hours=hours * i / n) for i in range(n)]
    return pl.DataFrame({"country": pl.Series(country, dtype=pl.String).cast(kind), "amount": amount, "age": rng.normal(size=n), "at": at})


REFERENCE = bg.Reference(rows(40_000, 0).drop("at"), segments=["country"])


def watched(parts, hours, **options):
    monitor = bg.Monitor("m", reference=REFERENCE, window="1h", ticks="manual", **options)
    for part in parts:
        monitor.observe_frame(part, time="at")
    monitor.tick(DAY + hours * HOUR)
    return monitor


def test_a_reference_counts_the_values_of_its_segments():
    assert REFERENCE.segments == {"country": ["de", "fr", "us", "xx"]}
    assert bg.Reference.from_bytes(REFERENCE.to_bytes()).id == REFERENCE.id
    assert bg.Reference(rows(40_000, 0).drop("at")).id != REFERENCE.id
    by_role = bg.Schema.infer(rows(40_000, 0).drop("at")).with_roles(country="segment")
    assert bg.Reference(rows(40_000, 0).drop("at"), schema=by_role).id == REFERENCE.id


def test_a_change_in_one_segment_names_it_and_no_other():
    parts = [rows(4000, 10 + i, start=DAY + i * HOUR, shift="us" if i >= 3 else None) for i in range(6)]
    monitor = watched(parts, 6, segments=["country"])
    opened = monitor.alerts().filter(state="opened")
    found = {name for name in opened["column"] if "[" in name}
    assert found == {"amount [country=us]"}
    history = monitor.history()
    events = history.filter(method="events", segment="country=us")
    assert events.height == 6
    want = sum(part.filter(pl.col("country") == "us").height for part in parts)
    assert events["value"].sum() == want
    moved = history.filter(pl.col("segment").is_not_null(), pl.col("verdict") == "critical")
    assert set(moved["segment"]) == {"country=us"}
    assert moved["lower"].min() > 0.25


def test_nulls_in_one_segment_are_found_and_an_alert_ends():
    parts = [rows(4000, 30 + i, start=DAY + i * HOUR, nulls="fr" if i == 2 else None) for i in range(5)]
    changes = watched(parts, 5).alerts().filter(column="amount [country=fr]")
    assert changes["state"].to_list() == ["opened", "resolved"]
    assert changes["method"][0] == "null_share"


def test_segments_that_did_not_change_stay_silent():
    parts = [rows(2000, 100 + i, start=DAY + i * HOUR) for i in range(150)]
    assert watched(parts, 150).alerts().height == 0


@pytest.mark.parametrize("kind", [pl.Categorical, pl.Enum(["de", "fr", "us", "xx"])])
def test_batches_types_and_restores_leave_no_trace(kind):
    frame = rows(9000, 5, hours=3, shift="de")
    whole = watched([frame], 3)
    typed = watched([frame.with_columns(pl.col("country").cast(kind))], 3)
    half = bg.Monitor("m", reference=REFERENCE, window="1h", ticks="manual")
    for at in range(0, 4500, 450):
        half.observe_frame(frame[at : at + 450], time="at")
    half = bg.Monitor.restore(half.snapshot())
    one = frame[4500:].iter_rows(named=True)
    for row in one:
        half.observe(row, time=row.pop("at"))
    half.tick(DAY + 3 * HOUR)
    assert whole.snapshot() == half.snapshot() == typed.snapshot()
    assert whole.alerts().equals(half.alerts())


def test_new_values_and_nulls_are_the_others():
    frame = rows(4000, 7).with_columns(country=pl.Series(["new", None] * 2000))
    history = watched([frame], 1).history()
    assert history.filter(method="events", segment="country=(other)")["value"].to_list() == [4000]


def test_many_values_are_held_to_a_limit():
    n = 20_000
    many = pl.DataFrame({"user": [f"u{i % 5000}" for i in range(n)], "x": np.arange(n, dtype=float)})
    schema = bg.Schema([{"name": "user", "kind": "category", "role": "segment"}, {"name": "x", "kind": "number", "role": "feature"}])
    reference = bg.Reference(many, schema=schema)
    assert len(reference.segments["user"]) == 100
    monitor = bg.Monitor("m", reference=reference, ticks="manual")
    monitor.observe_frame(many.with_columns(at=DAY), time="at")
    monitor.tick(DAY + HOUR)
    assert monitor.history().filter(pl.col("segment").is_not_null())["segment"].n_unique() == 101


def test_what_has_no_segments_says_so():
    with pytest.raises(bg.errors.InvalidArgumentError, match="which the frame has not"):
        bg.Reference(rows(100, 0), segments=["nothing"])
    with pytest.raises(bg.errors.InvalidArgumentError, match="of kind number"):
        bg.Reference(rows(100, 0), segments=["amount"])
    with pytest.raises(bg.errors.InvalidArgumentError, match="need rows"):
        bg.Reference(bg.profile(rows(100, 0)), segments=["country"])
    with pytest.raises(bg.errors.InvalidArgumentError, match="no segments of"):
        bg.Monitor("m", reference=REFERENCE, segments=["age"])
