"""The monitor against a plain recomputation."""

from datetime import UTC, datetime, timedelta

import barograph as bg
import numpy as np
import polars as pl
import pytest

DAY = datetime(2026, 1, 5, tzinfo=UTC)


def rows(n, seed, shift=0.0, days=1.0, start=DAY):
    rng = np.random.default_rng(seed)
    score = rng.random(n)
    seconds = np.sort(rng.random(n)) * 86_400 * days
    return pl.DataFrame(
        {
            "id": [f"e{seed}-{i}" for i in range(n)],
            "x": rng.normal(shift, 1, n),
            "score": score,
            "y": (rng.random(n) < score).astype(float),
            "seconds": rng.lognormal(-5, 1, n),
            "at": pl.Series((seconds * 1e6).astype(np.int64)).cast(pl.Duration("us")) + pl.Series([start.replace(tzinfo=None)] * n),
        }
    )


REFERENCE = bg.Reference(rows(5000, 0).select("x", "score"))


def watched(parts, labels=(), window="1d"):
    monitor = bg.Monitor("m", reference=REFERENCE, window=window, ticks="manual", rules=[{"metric": "roc_auc", "below": 0.5}])
    for part in parts:
        monitor.observe_frame(part, time="at", id="id", score="score", latency_seconds="seconds")
    for part in labels:
        monitor.label(part, id="id", label="y")
    return monitor


def test_summary_is_what_a_plain_computation_gives():
    from sklearn.metrics import roc_auc_score

    frame = rows(4000, 1)
    labelled = frame[::2]
    monitor = watched([frame], [labelled])
    summary = monitor.summary(DAY, DAY + timedelta(days=1))
    assert (summary.events, summary.labelled) == (4000, 2000)
    want = roc_auc_score(labelled["y"], labelled["score"])
    assert summary.auc == pytest.approx(want, abs=1e-3)
    assert summary.auc_lower < want < summary.auc_upper
    assert summary.latency_p99 == pytest.approx(frame["seconds"].quantile(0.99, "higher"), rel=0.006)
    assert not summary.report.drifted


def test_batches_and_label_order_leave_no_trace():
    frame = rows(3000, 2, days=3)
    one = watched([frame], [frame])
    many = watched([frame[i : i + 97] for i in range(0, 3000, 97)], [frame[::-1]])
    early = bg.Monitor("m", reference=REFERENCE, window="1d", ticks="manual", rules=[{"metric": "roc_auc", "below": 0.5}])
    early.label(frame, id="id", label="y")
    early.observe_frame(frame[::-1], time="at", id="id", score="score", latency_seconds="seconds")
    for monitor in (one, many, early):
        monitor.tick(DAY + timedelta(days=4))
    assert one.history().height > 10
    assert one.history().equals(many.history())
    assert one.history().equals(early.history())


def test_an_alert_opens_and_resolves_with_its_reason():
    parts = [rows(3000, seed, shift, start=DAY + timedelta(days=seed)) for seed, shift in enumerate((0.0, 1.0, 1.0, 0.0))]
    monitor = watched(parts)
    monitor.tick(DAY + timedelta(days=10))
    alerts = monitor.alerts()
    assert alerts.select("column", "state").rows() == [("x", "opened"), ("x", "resolved")]
    assert alerts["reason"][0] == "PSI is above 0.25 with confidence 0.99"
    assert alerts["time"][0] == DAY + timedelta(days=2)


def test_windows_close_in_tick_alone_and_once():
    monitor = watched([rows(2000, 1)])
    assert monitor.history().is_empty()
    monitor.tick(DAY + timedelta(hours=23))
    assert monitor.history().is_empty()
    monitor.tick(DAY + timedelta(days=1))
    height = monitor.history().height
    assert height > 0
    monitor.tick(DAY + timedelta(days=2))
    assert monitor.history().height == height
    monitor.observe_frame(rows(10, 5), time="at")
    assert monitor.counts()["late"] == 10


def test_a_rule_waits_until_the_whole_interval_is_beyond():
    frame = rows(4000, 3).with_columns(y=1 - pl.col("y"))
    monitor = watched([frame], [frame])
    monitor.tick(DAY + timedelta(days=1))
    assert monitor.alerts().filter(pl.col("column") == "roc_auc")["state"].to_list() == ["opened"]
    few = watched([frame[:20]], [frame[:20]])
    few.tick(DAY + timedelta(days=1))
    assert few.alerts().is_empty()


def test_orphans_are_counted_and_nulls_skipped():
    monitor = watched([rows(100, 1)])
    monitor.label(pl.DataFrame({"id": ["nobody", None, "e1-0"], "y": [1.0, 1.0, None]}), id="id", label="y")
    assert monitor.counts()["orphan_labels"] == 1
    assert monitor.summary(DAY, DAY + timedelta(days=1)).labelled == 0


def test_a_label_that_comes_twice_counts_once():
    frame = rows(500, 1)
    once, twice = watched([frame], [frame]), watched([frame], [frame, frame.with_columns(y=1 - pl.col("y"))])
    end = DAY + timedelta(days=1)
    assert once.summary(DAY, end).labelled == twice.summary(DAY, end).labelled == 500
    assert once.summary(DAY, end).auc == twice.summary(DAY, end).auc


def test_what_is_wrong_is_named():
    monitor = watched([])
    frame = rows(10, 1)
    for arguments, message in (
        ({"time": "no"}, "time"),
        ({"time": "x"}, "timestamps"),
        ({"id": "x"}, "integers or strings"),
        ({"score": "id"}, "numbers"),
    ):
        with pytest.raises(bg.errors.InvalidArgumentError, match=message):
            monitor.observe_frame(frame, **arguments)
    with pytest.raises(bg.errors.InvalidArgumentError, match="window"):
        bg.Monitor("m", reference=REFERENCE, window="soon")
    with pytest.raises(bg.errors.InvalidArgumentError, match="rules"):
        bg.Monitor("m", reference=REFERENCE, rules=[{"metric": "nonsense", "below": 1}])
    assert monitor.summary(DAY, DAY + timedelta(days=1)) is None
