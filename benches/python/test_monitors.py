"""A monitor in the serving process: one event, one latency, a frame, a request, and what it keeps."""

import asyncio
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta

import barograph as bg
import numpy as np
import polars as pl
import pytest
from barograph.adapters.asgi import WatchedAsgi

RULES = [{"metric": "error_rate", "above": 0.1}, {"slo": "latency", "threshold": 0.2, "objective": 0.99}]
EVENT = {f"x{i}": float(i) for i in range(8)} | {"a": "x", "b": "y"}


def watched(columns=8, rows=20_000, **arguments):
    rng = np.random.default_rng(0)
    frame = {f"x{i}": rng.normal(size=rows) for i in range(columns)} | {
        "a": rng.choice(["x", "y"], rows),
        "b": rng.choice(["x", "y"], rows),
    }
    return bg.Monitor("m", reference=bg.Reference(frame), ticks="manual", rules=RULES, **arguments)


def per_call(benchmark, call, n=20_000):
    """CPU per call: the benchmark's own loop costs as much as what it times."""

    def loop():
        for _ in range(n):
            call()

    benchmark.pedantic(loop, rounds=5, warmup_rounds=1)
    began = time.process_time()
    loop()
    benchmark.extra_info["us CPU per call"] = (time.process_time() - began) / n * 1e6


def test_observe_ten_fields(benchmark):
    monitor = watched()
    per_call(benchmark, lambda: monitor.observe(EVENT))


def test_observe_with_score_id_and_latency(benchmark):
    monitor, ids = watched(), iter(range(10**9))
    per_call(benchmark, lambda: monitor.observe(EVENT, score=0.5, latency_seconds=0.01, id=next(ids)))


def test_latency_alone(benchmark):
    histogram = bg.sketches.ExponentialHistogram()
    per_call(benchmark, lambda: histogram.update(0.01), 200_000)


@pytest.mark.parametrize("segments", [0, 100])
def test_observe_frame(benchmark, segments):
    rng = np.random.default_rng(1)
    n = 500_000
    frame = pl.DataFrame({f"x{i}": rng.normal(size=n) for i in range(10)} | {"seconds": rng.lognormal(-5, 1, n)})
    start = datetime(2026, 1, 5)
    frame = frame.with_columns(at=start + pl.Series(np.linspace(0, 3600e6 - 1, n).astype(np.int64)).cast(pl.Duration("us")))
    reference = frame[:50_000].drop("at", "seconds")
    if segments:
        frame = frame.with_columns(country=pl.Series(rng.integers(0, segments, n)).cast(pl.String))
        reference = bg.Reference(frame[:50_000].drop("at", "seconds"), segments=["country"])
    else:
        reference = bg.Reference(reference)
    monitors = iter([bg.Monitor("m", reference=reference, ticks="manual", rules=RULES) for _ in range(5)])

    def run():
        monitor = next(monitors)
        monitor.observe_frame(frame, time="at", latency_seconds="seconds")
        monitor.tick(start + timedelta(hours=1))

    benchmark.pedantic(run, rounds=3, warmup_rounds=1)
    began = time.process_time()
    run()
    benchmark.extra_info["M cells per CPU-s"] = frame.height * frame.width / (time.process_time() - began) / 1e6


def test_asgi(benchmark):
    """What the adapter adds to a request, at p50 and p99, beside the bare application."""

    async def app(scope, receive, send):
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        pass

    scope = {"type": "http", "path": "/", "method": "GET"}

    def took(application, n=20_000):
        async def run():
            out = np.empty(n)
            for at in range(n):
                began = time.perf_counter_ns()
                await application(scope, receive, send)
                out[at] = time.perf_counter_ns() - began
            return out

        return asyncio.run(run())

    adapter = WatchedAsgi(app, watched())
    benchmark.pedantic(lambda: took(adapter), rounds=3, warmup_rounds=1)
    bare, with_it = took(app), took(adapter)
    for q in (50, 99):
        benchmark.extra_info[f"us added at p{q}"] = (np.percentile(with_it, q) - np.percentile(bare, q)) / 1e3


def test_memory_of_a_month(benchmark):
    """50 columns, 100 segments, 30 days of hours; MB on top of what the imports and one frame take."""
    code = """
from datetime import datetime, timedelta
import barograph as bg, numpy as np, polars as pl


def now():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmRSS")) / 1024


rng = np.random.default_rng(0)


def rows(n, at=None):
    frame = pl.DataFrame({f"x{i}": rng.normal(size=n) for i in range(50)})
    frame = frame.with_columns(country=pl.Series(rng.integers(0, 100, n)).cast(pl.String))
    return frame if at is None else frame.with_columns(at=pl.lit(at))


reference = bg.Reference(rows(50_000), segments=["country"])
start = datetime(2026, 1, 5)
before = now()
monitor = bg.Monitor("m", reference=reference, ticks="manual")
for hour in range(30 * 24):
    monitor.observe_frame(rows(1000, start + timedelta(hours=hour)), time="at")
    monitor.tick(start + timedelta(hours=hour + 1))
print(now() - before)
"""

    def measure():
        return float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)

    benchmark.extra_info["extra MB"] = benchmark.pedantic(measure, rounds=1)


def test_window_close_with_a_season(benchmark):
    rng = np.random.default_rng(2)
    start = datetime(2026, 1, 5, tzinfo=UTC)
    at = start.replace(tzinfo=None) + pl.Series(np.arange(0, 28 * 86_400, 30) * 10**6).cast(pl.Duration("us"))
    frame = pl.DataFrame({f"x{i}": rng.normal(size=len(at)) for i in range(50)}).with_columns(at=at)
    monitor = bg.Monitor("m", reference=bg.Reference(frame, season="hour_of_week"), ticks="manual")
    hours = iter(range(10**6))

    def run():
        hour = next(hours)
        monitor.observe_frame(frame[hour * 120 : (hour + 1) * 120], time="at")
        monitor.tick(start + timedelta(hours=hour + 1))

    benchmark.pedantic(run, rounds=20, warmup_rounds=2)
