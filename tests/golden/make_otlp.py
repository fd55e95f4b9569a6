"""Makes the golden requests of the server's OTLP ingest with OpenTelemetry's own SDK and encoders.

Versions: opentelemetry-sdk, -proto and -exporter-otlp-proto-common 1.45.2, protobuf 7.36.2. Run it from the top folder. Of two rounds of
values each temporality has two requests; the times are set to fixed ones afterwards. `spec.json` there is examples/metrics.json of
https://github.com/open-telemetry/opentelemetry-proto at ac2c4b5.
"""

from pathlib import Path

from google.protobuf.json_format import MessageToJson
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.sdk.metrics import Counter, Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation, View
from opentelemetry.sdk.resources import Resource

FOLDER = Path("rust/server/src/ingest/golden")
# 2026-11-24T00:00:00Z, and half a minute for each round.
BEGAN = 1_795_478_400_000_000_000
ROUND = 30_000_000_000


def values(since, until):
    """Less than an octave, so that the SDK ends at scale 7."""
    return [0.1 * 1.0012**at for at in range(since, until)]


def requests(temporality):
    reader = InMemoryMetricReader(preferred_temporality=dict.fromkeys((Counter, Histogram), temporality))
    views = [View(instrument_name="barograph.latency", aggregation=ExponentialBucketHistogramAggregation())]
    provider = MeterProvider([reader], Resource({"service.name": "shop"}), views=views, shutdown_on_exit=False)
    meter = provider.get_meter("checks", "1.0", attributes={"model": "scoped"})
    fine = meter.create_histogram("barograph.latency", "s")
    explicit = provider.get_meter("http").create_histogram("http.server.request.duration", "ms")
    calls, gauge = meter.create_counter("barograph.requests"), meter.create_gauge("queue.length")
    for number, (since, until) in enumerate([(0, 300), (300, 500)]):
        for value in values(since, until):
            fine.record(value, {"model": "fraud"})
            explicit.record(1000 * value)
        calls.add(until - since, {"model": "fraud"})
        calls.add(1)
        gauge.set(3)
        request = encode_metrics(reader.get_metrics_data())
        metrics = [metric for scope in request.resource_metrics[0].scope_metrics for metric in scope.metrics]
        for metric in metrics:
            for point in getattr(metric, metric.WhichOneof("data")).data_points:
                delta = temporality == AggregationTemporality.DELTA
                point.start_time_unix_nano = BEGAN + (number * ROUND if delta else 0)
                point.time_unix_nano = BEGAN + (number + 1) * ROUND
                point.ClearField("exemplars")
        yield request


def main():
    for temporality in (AggregationTemporality.DELTA, AggregationTemporality.CUMULATIVE):
        for number, request in enumerate(requests(temporality), 1):
            stem = FOLDER / f"{temporality.name.lower()}-{number}"
            stem.with_suffix(".otlp").write_bytes(request.SerializeToString(deterministic=True))
            stem.with_suffix(".json").write_text(MessageToJson(request, use_integers_for_enums=True, indent=None))


if __name__ == "__main__":
    main()
