"""A monitor as Prometheus sees it; needs the extra `barograph[prometheus]`."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from barograph.errors import InvalidArgumentError
from barograph.monitors import Monitor
from barograph.protobuf import metric_family
from barograph.sketches import ExponentialHistogram

if TYPE_CHECKING:
    from prometheus_client.core import Metric

__all__ = ["PROTOBUF", "Collector", "exposition"]

PROTOBUF = "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"
"""The content type of `exposition(format="protobuf")`."""
CALLS = "Seconds that calls took, since the monitor began."
POWERS = (-12, 6)
"""Bounds of the histogram in text: 2**-12 s (0.24 ms) to 2**6 s."""

_VERDICTS = {"ok": 0, "info": 1, "warning": 2, "critical": 3}
MOST_COLUMNS = 200
"""Columns with series of their own; those with the worst verdicts come first."""


class Collector:
    """Collects a monitor for `prometheus_client`: `REGISTRY.register(Collector(monitor))`.

    Every scrape shows the window that closed last: the tested scores of each column, its verdict (0 ok, 1 info, 2 warning, 3 critical;
    absent where it cannot be judged), latency, metrics, open alerts; and the counters since the monitor began, among them all latencies
    as a histogram whose bounds are powers of two, so that its counts are exact. At most 200 columns have series.
    """

    def __init__(self, monitor: Monitor) -> None:
        self.monitor = monitor

    def collect(self) -> Iterator[Metric]:
        """The metric families, for the registry."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

        monitor = self.monitor
        model = monitor.name
        events = CounterMetricFamily("barograph_events", "Events observed.", labels=["model"])
        odd = CounterMetricFamily("barograph_odd_events", "What did not go the usual way, by what it was.", labels=["model", "what"])
        for what, count in monitor.counts().items():
            if what == "events":
                events.add_metric([model], count)
            else:
                odd.add_metric([model, what], count)
        calls = HistogramMetricFamily("barograph_call_seconds", CALLS, labels=["model"])
        calls.add_metric([model], *_buckets(monitor))
        yield from (events, odd, calls)

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
        latency = GaugeMetricFamily("barograph_latency_seconds", "Latency of the last window.", labels=["model", "percentile"])
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
        percentiles = {"latency_p50": "50", "latency_p99": "99"}
        for row in rows:
            if row["value"] is None:
                continue
            if row["method"] in percentiles:
                latency.add_metric([model, percentiles[row["method"]]], row["value"])
            elif row["column"] == "(model)":
                metric.add_metric([model, row["method"]], row["value"])
            elif row["column"] in worst and row["column"] in shown:
                drift.add_metric([model, row["column"], row["method"]], row["value"])
        yield from (drift, verdict, latency, metric, end)


def exposition(monitor: Monitor, *, format: str = "text") -> bytes:
    """The monitor for a `/metrics` of your own: in Prometheus' text format, as "openmetrics", or as "protobuf".

    Only protobuf carries the latencies as a native histogram, without losing a counter. Its content type is `PROTOBUF`.
    """
    from prometheus_client import CollectorRegistry, generate_latest, openmetrics

    if format == "protobuf":
        return _protobuf(monitor)
    if format not in ("text", "openmetrics"):
        raise InvalidArgumentError(f'`format` must be "text", "openmetrics" or "protobuf", got {format!r}')
    registry = CollectorRegistry()
    registry.register(Collector(monitor))
    generate: Callable[[CollectorRegistry], bytes] = openmetrics.exposition.generate_latest if format == "openmetrics" else generate_latest
    return generate(registry)


def _buckets(monitor: Monitor) -> tuple[list[tuple[str, float]], float]:
    """Cumulative counts up to powers of two, and the sum."""
    latencies = monitor.latencies()
    assert latencies is not None
    coarse = latencies.downscale(0)
    found, below = [], float(coarse.zero_count)
    cells = {round(math.log2(upper)): count for _, upper, count in coarse.cells() if upper > 0}
    below += sum(count for power, count in cells.items() if power < POWERS[0])
    for power in range(POWERS[0], POWERS[1] + 1):
        below += cells.get(power, 0)
        found.append((str(2.0**power), below))
    return [*found, ("+Inf", float(coarse.count))], _sum(latencies)


def _sum(latencies: ExponentialHistogram) -> float:
    """The sum of the values, each counted as the middle of its cell: within the histogram's relative error."""
    return float(sum((lower + upper) / 2 * count for lower, upper, count in latencies.cells()))


def _protobuf(monitor: Monitor) -> bytes:
    out = []
    for family in Collector(monitor).collect():
        if family.type == "histogram":
            latencies = monitor.latencies()
            assert latencies is not None
            fields = {**latencies.to_prometheus(), "sample_sum": _sum(latencies)}
            out.append(metric_family(family.name, family.documentation, "histogram", [({"model": monitor.name}, fields)]))
            continue
        # In this format as in the text a counter's name ends in `_total`.
        name = family.name + ("_total" if family.type == "counter" else "")
        samples = [(sample.labels, sample.value) for sample in family.samples]
        out.append(metric_family(name, family.documentation, family.type, samples))
    return b"".join(out)
