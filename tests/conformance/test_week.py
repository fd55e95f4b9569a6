"""One seeded week of events gives the same alerts whichever way it comes in: byte for byte."""

from datetime import UTC, datetime, timedelta

import barograph as bg
import numpy as np
import polars as pl
import pytest

START = datetime(2026, 1, 5)
HOURS = 7 * 24
RULES = [
    {"metric": "error_rate", "above": 0.05, "severity": "page", "k": 2, "of": 3},
    {"metric": "roc_auc", "below": 0.6, "cooldown": "6h"},
    {"metric": "latency_p99", "detector": "cusum", "severity": "ticket"},
    {"slo": "latency", "threshold": 0.2, "objective": 0.99},
]


def week(per_hour=60):
    """Drift from Wednesday, nulls on Thursday, errors on Friday, a broken model on Saturday, a slow one on Sunday."""
    rng = np.random.default_rng(20)
    n = HOURS * per_hour
    hour = np.arange(n) // per_hour
    day = hour // 24
    x = rng.normal(np.where(day >= 2, 1.0, 0.0), 1, n)
    score = rng.random(n)
    truth = np.where(day == 5, 1 - score, score)
    frame = pl.DataFrame(
        {
            "x": x,
            "amount": pl.Series(rng.lognormal(size=n)),
            "country": rng.choice(["de", "fr", "it"], n),
            "score": score,
            "id": [f"e{i}" for i in range(n)],
            "at": START + pl.Series((np.arange(n) * 3600 / per_hour * 1e6).astype(np.int64)).cast(pl.Duration("us")),
            "seconds": rng.lognormal(np.where(day == 6, -1.0, -5.0), 0.5, n),
            "failed": rng.random(n) < np.where(day == 4, 0.3, 0.01),
            "y": (rng.random(n) < truth).astype(float),
        }
    )
    return frame.with_columns(amount=pl.when(pl.Series((day == 3) & (rng.random(n) < 0.4))).then(None).otherwise("amount"))


WEEK = week()
FEATURES = ["x", "amount", "country", "score"]
TRAIN = week().filter(pl.col("at") < START + timedelta(days=2))
REFERENCE = bg.Reference(
    TRAIN.select(FEATURES), schema=bg.Schema.infer(TRAIN.select(FEATURES)).with_roles(score="score"), segments=["country"]
)


def made():
    return bg.Monitor("m", reference=REFERENCE, ticks="manual", rules=RULES, budget={"ticket": "7d", "page": "30d"})


def by_frame(monitor, frame):
    monitor.observe_frame(frame.drop("y"), time="at", id="id", score="score", latency_seconds="seconds", error="failed")


def by_event(monitor, frame):
    for row in frame.iter_rows(named=True):
        fields = {name: row[name] for name in FEATURES}
        monitor.observe(fields, score=row["score"], latency_seconds=row["seconds"], id=row["id"], time=row["at"], error=row["failed"])


def hours():
    for hour in range(HOURS):
        yield START.replace(tzinfo=UTC) + timedelta(hours=hour + 1), WEEK[hour * 60 : (hour + 1) * 60]


def replayed(observe, restored=False):
    monitor = made()
    for at, (end, frame) in enumerate(hours()):
        observe(monitor, frame)
        monitor.label(frame, id="id", label="y", time="at")
        if restored and at in (50, 51, 120):
            monitor = bg.Monitor.restore(monitor.snapshot())
        monitor.tick(end)
    return monitor


def by_workers():
    """Two workers see alternate events, labels come to either; a third monitor gathers them hour by hour."""
    gathered = made()
    for end, frame in hours():
        workers = [made(), made()]
        for at, worker in enumerate(workers):
            by_frame(worker, frame.gather_every(2, at))
            worker.label(frame.gather_every(2, 1 - at), id="id", label="y", time="at")
        for worker in workers:
            gathered.merge(bg.Monitor.restore(worker.snapshot()))
        gathered.tick(end)
    return gathered


WHOLE = replayed(by_frame)


def test_the_week_holds_what_was_put_into_it():
    opened = WHOLE.alerts().filter(state="opened")
    assert opened.height >= 5
    assert {"x", "amount", "error_rate", "roc_auc", "slo:latency"} <= set(opened["column"])
    first = dict(reversed(opened["column", "time"].rows()))
    for column, day in (("x", 2), ("amount", 3), ("error_rate", 4), ("roc_auc", 5), ("slo:latency", 6)):
        start = START.replace(tzinfo=UTC) + timedelta(days=day)
        assert start < first[column] <= start + timedelta(hours=12), (column, first[column])


@pytest.mark.parametrize("way", ["events", "one frame an hour, restored", "two merged workers"])
def test_every_way_in_gives_the_same_alerts_and_history(way):
    ways = {
        "events": lambda: replayed(by_event),
        "one frame an hour, restored": lambda: replayed(by_frame, restored=True),
        "two merged workers": by_workers,
    }
    other = ways[way]()
    assert other.alerts().equals(WHOLE.alerts())
    assert other.history().equals(WHOLE.history())
    assert other._native.alerts(0) == WHOLE._native.alerts(0)
    if way != "two merged workers":
        assert other.snapshot() == WHOLE.snapshot()


def test_what_does_not_belong_together_is_not_merged():
    other = bg.Monitor("m", reference=bg.Reference({"x": [1.0, 2.0] * 100}), ticks="manual")
    with pytest.raises(bg.errors.IncompatibleError, match="`other` has reference"):
        made().merge(other)
    with pytest.raises(bg.errors.IncompatibleError, match="another policy"):
        made().merge(bg.Monitor("m", reference=REFERENCE, ticks="manual"))
    with pytest.raises(bg.errors.IncompatibleError, match="closed windows of its own"):
        made().merge(WHOLE)
