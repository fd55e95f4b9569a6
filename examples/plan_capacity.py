"""How many replicas a model needs next week: six weeks of calls watched by a monitor, a forecast, and what more load would want.

Made-up calls with a day and a week in them. The monitor counts them and their latencies; the load is read from it, the busiest hour to come
from a forecast with limits, and the replicas from a simulation of the latencies that were measured.
"""

from datetime import UTC, datetime, timedelta

import barograph as bg
import numpy as np
import polars as pl
from barograph.scaling.capacity import Load, forecast, headroom, replicas_for, what_if

START, WEEKS = datetime(2026, 1, 5, tzinfo=UTC), 6
SLO = "p99 <= 60s"


def calls() -> pl.DataFrame:
    """One row per call: when it came, how long the model took, and one feature."""
    rng = np.random.default_rng(11)
    hour = np.arange(WEEKS * 168)
    mean = 150 * (1.1 + np.sin(2 * np.pi * (hour % 24 - 8) / 24)) * np.where(hour % 168 < 120, 1.0, 0.5)
    at = np.repeat(hour, rng.poisson(mean))
    at = np.sort(at + rng.random(len(at)))
    times = pl.lit(START) + pl.Series(at * 3.6e9).cast(pl.Int64).cast(pl.Duration("us"))
    return pl.DataFrame({"x": rng.normal(size=len(at)), "took": rng.gamma(2, 6.0, len(at))}).with_columns(at=times)


def main() -> None:
    rows = calls()
    monitor = bg.Monitor("m", reference=bg.Reference(rows.select("x").head(5000)), window="1h", ticks="manual")
    for day in range(WEEKS * 7):
        until = START + timedelta(days=day + 1)
        today = rows.filter(pl.col("at").is_between(until - timedelta(days=1), until, closed="left"))
        monitor.observe_frame(today, time="at", latency_seconds="took")
        monitor.tick(until + timedelta(hours=1))
    load = Load.from_monitor(monitor)
    ahead = forecast(load.arrivals.hours)
    print(f"{load.arrivals.count:,} calls in {WEEKS} weeks, {load.service.mean:.2f} s each")
    print(f"the busiest hour to come: at most {ahead.upper.max():.0f} calls, with 90 % of the hours within their limits")
    found = replicas_for(load, SLO, rate=ahead.peak_rate)
    print(f"{found.replicas} replicas keep {found.slo}: {found.within:.2%} of the calls, {found.queue_length:.2g} waiting on average")
    room = headroom(load, found.replicas, SLO, rate=ahead.peak_rate)
    print(f"they bear {room.factor:.2f} times that load, and stand still at {room.saturation_factor:.2f}")
    more = what_if(load, SLO, rate=ahead.peak_rate, factors=[1, 2, 4], calls=500_000)
    print(more.select("factor", "rate", "replicas", "utilisation", "within"))
    print(found.to_external_metrics("m_replicas", {"model": "m"}, now=ahead.start))


if __name__ == "__main__":
    main()
