"""Events one by one, snapshots, watched functions, ticks by themselves."""

import asyncio
import os
import signal
import threading
import time
from datetime import UTC, datetime, timedelta

import barograph as bg
import numpy as np
import polars as pl
import pytest

DAY = datetime(2026, 1, 5, tzinfo=UTC)


def frame(n=2000, seed=0, shift=0.0):
    rng = np.random.default_rng(seed)
    return pl.DataFrame(
        {
            "x": rng.normal(shift, 1, n),
            "whole": rng.integers(0, 50, n),
            "name": [("a", "b", "c")[i % 3] for i in range(n)],
            "flag": rng.random(n) < 0.3,
            "hole": pl.Series([float(i % 7) if i % 5 else None for i in range(n)]),
            "score": rng.random(n),
        }
    )


SCHEMA = bg.Schema.infer(frame()).with_roles(score="score")
REFERENCE = bg.Reference(frame(), schema=SCHEMA)


def made(**arguments):
    return bg.Monitor("m", reference=REFERENCE, window="1h", ticks="manual", **arguments)


def stamped(rows, seconds=7):
    return rows.with_columns(at=pl.Series([DAY + timedelta(seconds=seconds * i) for i in range(rows.height)]), id=pl.int_range(rows.height))


def test_events_one_by_one_in_frames_and_through_a_restore_are_the_same_to_the_byte():
    rows = stamped(frame(3000, 1, 0.7))
    labels = rows.select("id", "at", y=(pl.col("score") > 0.4).cast(pl.Int8))
    one, many, half = made(), made(), made()
    for row in rows.iter_rows(named=True):
        one.observe(row, time=row.pop("at"), id=row.pop("id"), score=row["score"], latency_seconds=0.01)
    rows = rows.with_columns(latency=0.01)
    many.observe_frame(rows, time="at", id="id", score="score", latency_seconds="latency")
    half.observe_frame(rows[:1700], time="at", id="id", score="score", latency_seconds="latency")
    half.label(labels[:900], id="id", label="y", time="at")
    half = bg.Monitor.restore(half.snapshot())
    half.observe_frame(rows[1700:], time="at", id="id", score="score", latency_seconds="latency")
    for monitor, rest in ((one, labels), (many, labels[::-1]), (half, labels[900:])):
        monitor.label(rest, id="id", label="y", time="at")
        monitor.tick(DAY + timedelta(hours=4))
    assert one.history().height > 20
    assert one.alerts().height >= 1
    for other in (many, half):
        assert one.snapshot() == other.snapshot()
        assert one.history().equals(other.history())
        assert one.alerts().equals(other.alerts())
    again = bg.Monitor.restore(one.snapshot())
    for monitor in (one, again):
        monitor.observe_frame(rows.with_columns(pl.col("at") + timedelta(hours=6)), time="at", score="score")
        monitor.tick(DAY + timedelta(hours=11))
    assert one.snapshot() == again.snapshot()
    assert one.counts() == again.counts()


def test_an_event_fills_roles_and_odd_fields_are_counted():
    monitor = made()
    monitor.observe({"x": 1, "whole": np.int64(3), "name": "a", "flag": True, "hole": None, "nobody": 1}, score=0.25, time=DAY)
    monitor.observe({"x": "text", "name": 3, "flag": 1}, score=None, time=DAY)
    counts = monitor.counts()
    assert (counts["unknown_fields"], counts["mistyped_fields"]) == (1, 3)
    assert monitor.summary(DAY, DAY + timedelta(hours=1)).events == 2
    with pytest.raises(bg.errors.InvalidArgumentError, match="mapping"):
        monitor.observe([1.0])
    with pytest.raises(bg.errors.InvalidArgumentError, match="id"):
        monitor.observe({"x": 1.0}, id=1.5)
    assert monitor.summary(DAY, DAY + timedelta(hours=1)).events == 2
    monitor.observe_frame(frame(5).rename({"score": "s"}), prediction=None, score="s")
    with pytest.raises(bg.errors.InvalidArgumentError, match="prediction"):
        monitor.observe_frame(frame(5), prediction="nobody")


def events(monitor):
    now = datetime.now(UTC)
    found = monitor.summary(now - timedelta(hours=2), now + timedelta(hours=2))
    return (0, 0) if found is None else (found.events, found.latency_p99 is not None)


def test_watch_sees_every_kind_of_function_and_changes_none():
    monitor = made()

    @monitor.watch
    def plain(row):
        return 0.5

    @monitor.watch
    async def later(row):
        await asyncio.sleep(0)
        return 0.5

    @monitor.watch
    def stream(row):
        yield from "abc"

    class Model:
        @monitor.watch
        def predict(self, rows):
            return np.full(len(rows), 0.5)

    row = frame(1).drop("score").row(0, named=True)
    assert plain(row) == 0.5
    assert asyncio.run(later(row)) == 0.5
    assert list(stream(row)) == ["a", "b", "c"]
    assert Model().predict(frame(10).drop("score")).shape == (10,)
    assert Model().predict(frame(10).drop("score").to_pandas()).shape == (10,)
    assert Model().predict(frame(4).select(pl.col("x").alias(str(i)) for i in range(5)).to_numpy()).shape == (4,)
    assert events(monitor) == (27, True)
    assert plain.__name__ == "plain"
    with monitor.timed():
        pass
    assert monitor.counts()["failures"] == 0


def test_what_fails_in_monitoring_is_counted_and_logged_once(caplog):
    monitor = made()

    @monitor.watch
    def odd(value):
        return value + 1

    @monitor.watch
    def broken(row):
        raise ValueError("mine")

    assert [odd(1), odd(2)] == [2, 3]
    assert monitor.counts()["failures"] == 2
    assert sum("further failures" in record.message for record in caplog.records) == 1
    with pytest.raises(ValueError, match="mine"):
        broken({"x": 1.0})


def test_autosave_resumes_and_refuses_another_monitor(tmp_path):
    path = tmp_path / "monitor.baro"
    first = made(autosave=path)
    first.observe_frame(stamped(frame(500)), time="at")
    first.tick(DAY + timedelta(hours=2))
    second = made(autosave=path)
    assert second.history().equals(first.history())
    assert second.snapshot() == first.snapshot()
    with pytest.raises(bg.errors.IncompatibleError, match="autosave"):
        bg.Monitor("other", reference=REFERENCE, window="1h", ticks="manual", autosave=path)
    path.write_bytes(b"BARO nonsense")
    with pytest.raises(bg.errors.SnapshotError):
        made(autosave=path)


def test_it_ticks_by_itself_and_stops():
    monitor = bg.Monitor("m", reference=REFERENCE, window="1s")
    monitor.observe_frame(frame(500))
    end = time.monotonic() + 10
    while monitor.history().is_empty() and time.monotonic() < end:
        time.sleep(0.05)
    assert monitor.history().height
    monitor.close()
    with pytest.raises(bg.errors.InvalidArgumentError, match="ticks"):
        bg.Monitor("m", reference=REFERENCE, ticks="never")


def test_hostile_snapshots_are_errors_and_no_row_is_in_them():
    monitor = made()
    secret = frame(200).with_columns(name=pl.lit("a"))
    monitor.observe_frame(secret.with_columns(id=pl.lit("customer-4711-secret")), id="id", score="score")
    monitor.label(pl.DataFrame({"id": ["orphan-0815-secret"], "y": [1]}), id="id", label="y")
    data = monitor.snapshot()
    assert b"secret" not in data
    rng = np.random.default_rng(0)
    for cut in range(0, len(data), 1 + len(data) // 300):
        with pytest.raises(bg.errors.SnapshotError):
            bg.Monitor.restore(data[:cut])
    for _ in range(300):
        broken = bytearray(data)
        broken[rng.integers(len(data))] ^= 1 << rng.integers(8)
        with pytest.raises(bg.errors.SnapshotError):
            bg.Monitor.restore(bytes(broken))
    with pytest.raises(bg.errors.SnapshotError, match="expected a monitor"):
        bg.Monitor.restore(REFERENCE.to_bytes())


def test_threads_gather_apart_and_lose_nothing():
    monitor = bg.Monitor("m", reference=bg.Reference({"x": [float(at % 10) for at in range(1000)]}), ticks="manual")
    hour = datetime(2026, 1, 5, tzinfo=UTC)

    def work():
        for at in range(5000):
            monitor.observe({"x": float(at % 10)}, time=hour)
            monitor.request(0.01, time=hour, error=at % 10 == 0)

    threads = [threading.Thread(target=work) for _ in range(20)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        monitor.tick(hour)
        monitor.counts()
    summary = monitor.summary(hour, hour + timedelta(hours=1))
    assert (summary.events, summary.errors) == (100_000, 10_000)
    assert monitor.latencies().count == 100_000


def test_forks_while_other_threads_are_inside():
    monitor = bg.Monitor("m", reference=bg.Reference({"x": np.random.default_rng(0).normal(size=5000)}), ticks="manual")
    frame = pl.DataFrame({"x": np.random.default_rng(1).normal(size=200_000)})
    done = threading.Event()

    def work():
        while not done.is_set():
            monitor.observe_frame(frame)
            monitor.tick()
            monitor.snapshot()

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(20):
            child = os.fork()
            if child == 0:
                before = monitor.counts()["events"]
                for _ in range(2000):
                    monitor.observe({"x": 1.0})
                monitor.tick()
                os._exit(0 if monitor.counts()["events"] == before + 2000 else 1)
            until = time.monotonic() + 20
            while (found := os.waitpid(child, os.WNOHANG))[0] == 0 and time.monotonic() < until:
                time.sleep(0.01)
            if found[0] == 0:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
            assert found[0] == child, "the child hangs"
            assert os.waitstatus_to_exitcode(found[1]) == 0
    finally:
        done.set()
        for thread in threads:
            thread.join()
