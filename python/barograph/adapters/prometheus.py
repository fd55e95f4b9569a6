"""A monitor as Prometheus sees it; needs the extra `barograph[prometheus]`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

from barograph.monitors import Monitor

if TYPE_CHECKING:
    from prometheus_client.core import Metric

__all__ = ["Collector", "exposition"]

_VERDICTS = {"ok": 0, "info": 1, "warning": 2, "critical": 3}
MOST_COLUMNS = 200
"""Columns with series of their own; those with the worst verdicts come first."""


class Collector:
    """Collects a monitor for `prometheus_client`: `REGISTRY.register(Collector(monitor))`.

    Every scrape shows the window that closed last: the tested scores of each column, its verdict (0 ok, 1 info, 2 warning, 3 critical;
    absent where it cannot be judged), latency, metrics, open alerts; and the counters since the monitor began. At most 200 columns have
    series.
    """

    def __init__(self, monitor: Monitor) -> None:
        self.monitor = monitor

    def collect(self) -> Iterator[Metric]:
        """The metric families, for the registry."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        monitor = self.monitor
        model = monitor.name
        events = CounterMetricFamily("barograph_events", "Events observed.", labels=["model"])
        odd = CounterMetricFamily("barograph_odd_events", "What did not go the usual way, by what it was.", labels=["model", "what"])
        for what, count in monitor.counts().items():
            if what == "events":
                events.add_metric([model], count)
            else:
                odd.add_metric([model, what], count)
        yield from (events, odd)

        opened = CounterMetricFamily("barograph_alerts", "Alerts opened.", labels=["model", "severity"])
        open_now = GaugeMetricFamily("barograph_alerts_open", "Alerts that are open.", labels=["model", "alert", "severity"])
        for severity in ("page", "ticket"):
            opened.add_metric([model, severity], monitor.alerts().filter(state="opened", severity=severity).height)
        for name, severity in json.loads(monitor._native.open_alerts()):
            open_now.add_metric([model, name, severity], 1)
        yield from (opened, open_now)

        window = monitor._native.last_window()
        if window is None:
            return
        rows = json.loads(monitor._native.history(window[0]))
        drift = GaugeMetricFamily("barograph_drift", "Tested scores of the last window.", labels=["model", "column", "method"])
        verdict = GaugeMetricFamily("barograph_verdict", "0 ok, 1 info, 2 warning, 3 critical.", labels=["model", "column"])
        latency = GaugeMetricFamily("barograph_latency_seconds", "Latency of the last window.", labels=["model", "quantile"])
        metric = GaugeMetricFamily("barograph_metric", "Metrics of the last window.", labels=["model", "metric"])
        end = GaugeMetricFamily("barograph_window_end_timestamp_seconds", "End of the last window.", labels=["model"])
        end.add_metric([model], window[1] / 1e9)
        worst: dict[str, int] = {}
        for row in rows:
            if row["column"] != "(model)" and row["verdict"] in _VERDICTS:
                worst[row["column"]] = max(worst.get(row["column"], 0), _VERDICTS[row["verdict"]])
        shown = sorted(worst, key=lambda column: (-worst[column], column))[:MOST_COLUMNS]
        for column in shown:
            verdict.add_metric([model, column], worst[column])
        quantiles = {"latency_p50": "0.5", "latency_p99": "0.99"}
        for row in rows:
            if row["value"] is None:
                continue
            if row["method"] in quantiles:
                latency.add_metric([model, quantiles[row["method"]]], row["value"])
            elif row["column"] == "(model)":
                metric.add_metric([model, row["method"]], row["value"])
            elif row["column"] in worst and row["column"] in shown:
                drift.add_metric([model, row["column"], row["method"]], row["value"])
        yield from (drift, verdict, latency, metric, end)


def exposition(monitor: Monitor) -> bytes:
    """The monitor in Prometheus' text format, for a `/metrics` of your own."""
    from prometheus_client import CollectorRegistry, generate_latest

    registry = CollectorRegistry()
    registry.register(Collector(monitor))
    return generate_latest(registry)
