"""A monitor as OpenTelemetry metrics; needs the extra `barograph[opentelemetry]`."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from barograph.monitors import Monitor

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import MetricExporter, MetricExportResult, MetricsData

__all__ = ["metrics_data", "push"]

_VERDICTS = {"ok": 0, "info": 1, "warning": 2, "critical": 3}


def metrics_data(monitor: Monitor) -> MetricsData | None:
    """The window that closed last in the SDK's own data classes; None before the first.

    barograph.latency (s): the exponential histogram itself, no counter lost, delta over the window; its sum is that of the cells' middles,
    within half a cell (0.6 %). barograph.drift by column and method, barograph.verdict by column (0 ok to 3 critical), barograph.metric
    by metric: gauges at the window's end.
    """
    from opentelemetry.sdk.metrics.export import (
        AggregationTemporality,
        ExponentialHistogram,
        Gauge,
        Metric,
        MetricsData,
        NumberDataPoint,
        ResourceMetrics,
        ScopeMetrics,
    )
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope

    window = monitor._native.last_window()
    if window is None:
        return None
    start, end = window
    model = {"barograph.model": monitor.name}
    points: dict[str, list[Any]] = {"drift": [], "verdict": [], "metric": []}
    worst: dict[str, int] = {}
    for row in json.loads(monitor._native.history(start)):
        if row["value"] is None or row["segment"] is not None:
            continue
        if row["column"] == "(model)":
            points["metric"].append(NumberDataPoint({**model, "metric": row["method"]}, start, end, row["value"]))
            continue
        points["drift"].append(NumberDataPoint({**model, "column": row["column"], "method": row["method"]}, start, end, row["value"]))
        worst[row["column"]] = max(worst.get(row["column"], 0), _VERDICTS.get(row["verdict"], 0))
    points["verdict"] = [NumberDataPoint({**model, "column": column}, start, end, verdict) for column, verdict in worst.items()]
    metrics = [Metric(f"barograph.{name}", _WORDS[name], "1", Gauge(found)) for name, found in points.items() if found]
    epoch = datetime(1970, 1, 1)
    latency = monitor.latencies(epoch + timedelta(microseconds=start // 1000), epoch + timedelta(microseconds=end // 1000))
    if latency is not None:
        data = ExponentialHistogram([_point(latency, model, start, end)], AggregationTemporality.DELTA)
        metrics.append(Metric("barograph.latency", "Latency of the model's calls.", "s", data))
    scope = ScopeMetrics(InstrumentationScope("barograph"), metrics, "")
    return MetricsData([ResourceMetrics(Resource.create({"service.name": monitor.name}), [scope], "")])


_WORDS = {"drift": "Tested scores of a column.", "verdict": "0 ok, 1 info, 2 warning, 3 critical.", "metric": "Metrics of a window."}


def _point(latency: Any, model: dict[str, str], start: int, end: int) -> Any:
    from opentelemetry.sdk.metrics.export import Buckets, ExponentialHistogramDataPoint

    found = latency.to_otlp()
    up, down = (Buckets(found[side]["offset"], found[side]["bucketCounts"]) for side in ("positive", "negative"))
    cells = latency.cells()
    total = sum((lower + upper) / 2 * count for lower, upper, count in cells)
    return ExponentialHistogramDataPoint(
        attributes=model,
        start_time_unix_nano=start,
        time_unix_nano=end,
        count=found["count"],
        sum=total,
        scale=found["scale"],
        zero_count=found["zeroCount"],
        positive=up,
        negative=down,
        flags=0,
        min=cells[0][0],
        max=cells[-1][1],
    )


def push(monitor: Monitor, exporter: MetricExporter) -> MetricExportResult | None:
    """Hands the window that closed last to an exporter, such as `OTLPMetricExporter()`; None before the first window."""
    data = metrics_data(monitor)
    return None if data is None else exporter.export(data)
