"""Latencies and counts that come as metrics: DogStatsD datagrams, and OTLP as JSON and protobuf."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.sdk.metrics import Counter, Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation, View
from sidecars import JSON, Answer, Sidecar, free_port, sidecar

PROTOBUF = "application/x-protobuf"
CONFIG = """
[[naming]]
metric = "checkout.*"
model = "pricing"
unit = "us"
"""
SECOND = 1_000_000_000


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Sidecar, int]]:
    port = free_port(socket.SOCK_DGRAM)
    with sidecar(tmp_path_factory.mktemp("measurements"), "--statsd", f"127.0.0.1:{port}", config=CONFIG) as running:
        yield running, port


def watched(running: Sidecar, model: str) -> None:
    """A model that watches: measurements belong to windows, and without a reference there are none."""
    assert running.request("PUT", f"/v1/models/{model}", {"learn": {"events": 100}}).status in (201, 204)
    assert running.events(model, pl.DataFrame({"x": [float(row) for row in range(100)]})).json["accepted"] == 100


def eventually(found: Callable[[], Any], expected: Any) -> None:
    """Datagrams are handed on once a second, and nobody answers them."""
    end = time.monotonic() + 20
    while found() != expected and time.monotonic() < end:
        time.sleep(0.05)
    assert found() == expected


def calls(running: Sidecar, model: str) -> float:
    """Of the histogram in /metrics."""
    for line in running.get("/metrics").body.decode().splitlines():
        if line.startswith(f'barograph_call_seconds_count{{model="{model}"}}'):
            return float(line.split()[-1])
    return 0.0


def latency(running: Sidecar, model: str) -> float | None:
    value = running.model(model)["latency_p50"]
    return None if value is None else float(value)


def text(value: str) -> dict[str, str]:
    return {"stringValue": value}


def body(model: str, *metrics: dict[str, Any]) -> dict[str, Any]:
    resource = {"attributes": [{"key": "model", "value": text(model)}]}
    return {"resourceMetrics": [{"resource": resource, "scopeMetrics": [{"metrics": list(metrics)}]}]}


def exponential(seconds: float, count: int, temporality: int, start: int, end: int) -> dict[str, Any]:
    """So many calls in the cell of scale 6 that holds this latency: (2^(i/64), 2^((i+1)/64)]."""
    index = next(i for i in range(-2000, 2000) if 2 ** ((i + 1) / 64) >= seconds)
    point = {
        "startTimeUnixNano": str(start),
        "timeUnixNano": str(end),
        "count": str(count),
        "scale": 6,
        "positive": {"offset": index, "bucketCounts": [str(count)]},
    }
    return {
        "name": "barograph.latency",
        "unit": "s",
        "exponentialHistogram": {"aggregationTemporality": temporality, "dataPoints": [point]},
    }


def counter(name: str, count: int, start: int, end: int, temporality: int = 1) -> dict[str, Any]:
    point = {"startTimeUnixNano": str(start), "timeUnixNano": str(end), "asInt": str(count)}
    return {"name": name, "unit": "{request}", "sum": {"aggregationTemporality": temporality, "isMonotonic": True, "dataPoints": [point]}}


def post(running: Sidecar, what: dict[str, Any] | bytes) -> Answer:
    kind = PROTOBUF if isinstance(what, bytes) else JSON
    return running.request("POST", "/v1/metrics", what if isinstance(what, bytes) else json.dumps(what).encode(), kind)


def test_datagrams_reach_latency_and_counts(shared: tuple[Sidecar, int]) -> None:
    running, port = shared
    watched(running, "udp")
    watched(running, "pricing")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.connect(("127.0.0.1", port))
        for _ in range(10):
            sender.send(b"app.latency:250|ms|#env:dev,model:udp\nbarograph.requests:3|c|#model:udp\nnobody.asks:1|c")
        sender.send(b"checkout.call:1500:1500|h")
    eventually(lambda: calls(running, "udp"), 10)
    eventually(lambda: running.model("udp")["requests"], 30)
    assert latency(running, "udp") == pytest.approx(0.25, rel=0.006)
    eventually(lambda: calls(running, "pricing"), 2)
    assert latency(running, "pricing") == pytest.approx(0.0015, rel=0.006)


def test_otlp_as_json_reaches_latency_and_counts(shared: tuple[Sidecar, int]) -> None:
    running, _ = shared
    watched(running, "http")
    now = time.time_ns()
    metrics = (exponential(0.02, 40, 1, now - SECOND, now), counter("barograph.requests", 44, now - SECOND, now))
    answer = post(running, body("http", *metrics))
    assert (answer.status, answer.json, answer.headers["content-type"]) == (200, {}, JSON)
    assert calls(running, "http") == 40
    assert running.model("http")["requests"] == 44
    assert latency(running, "http") == pytest.approx(0.02, rel=0.012)
    # Sent again, because its answer was lost, it is not counted again.
    assert post(running, body("http", *metrics)).status == 200
    assert (calls(running, "http"), running.model("http")["requests"]) == (40, 44)


def test_otlp_of_an_sdk_is_counted(shared: tuple[Sidecar, int]) -> None:
    running, _ = shared
    for temporality in (AggregationTemporality.DELTA, AggregationTemporality.CUMULATIVE):
        model = f"sdk-{temporality.name.lower()}"
        watched(running, model)
        reader = InMemoryMetricReader(preferred_temporality=dict.fromkeys((Counter, Histogram), temporality))
        view = View(instrument_name="barograph.latency", aggregation=ExponentialBucketHistogramAggregation())
        provider = MeterProvider([reader], views=[view], shutdown_on_exit=False)
        meter = provider.get_meter("m")
        fine, requests = meter.create_histogram("barograph.latency", "s"), meter.create_counter("barograph.requests")
        for rounds in range(1, 4):
            for at in range(100):
                fine.record(0.05 * 1.001**at, {"model": model})
            requests.add(100, {"model": model})
            read = reader.get_metrics_data()
            assert read is not None
            sent = encode_metrics(read).SerializeToString()
            assert (post(running, sent).status, post(running, sent).body) == (200, b"")
            # These series began after the sidecar did, so that their first point counts too.
            assert (calls(running, model), running.model(model)["requests"]) == (100 * rounds, 100 * rounds), model
        assert latency(running, model) == pytest.approx(0.05 * 1.001**49, rel=0.006)


def test_what_otlp_rejects_is_told(shared: tuple[Sidecar, int]) -> None:
    running, _ = shared
    watched(running, "strict")
    now = time.time_ns()
    gauge = {"name": "x.latency", "unit": "s", "gauge": {"dataPoints": [{"timeUnixNano": str(now), "asDouble": 1}]}}
    answer = post(running, body("strict", gauge, counter("barograph.requests", 5, now, now)))
    assert answer.status == 200
    told = answer.json["partialSuccess"]
    assert told["rejectedDataPoints"] == "1"
    assert "x.latency" in told["errorMessage"]
    assert "not a distribution" in told["errorMessage"]
    assert running.model("strict")["requests"] == 5
    assert post(running, b"\x0a\x7f").status == 400
    assert running.request("POST", "/v1/metrics", b"[", JSON).status == 400
    assert running.request("POST", "/v1/metrics", b"x", "text/plain").status == 415
    bomb = b"\x3a\x00" * 500_000
    for tag in (b"\x0a", b"\x3a", b"\x12", b"\x12", b"\x0a"):
        bomb = tag + varint(len(bomb)) + bomb
    assert post(running, bomb).status == 413
    assert 'barograph_ingest_bodies_total{protocol="otlp"' in running.get("/metrics").body.decode()


def varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def test_metrics_count_once_over_a_crash(tmp_path: Path) -> None:
    with sidecar(tmp_path) as running:
        watched(running, "m")
        now = time.time_ns()
        delta = body("m", counter("barograph.requests", 7, now - SECOND, now))
        total = [
            body("m", counter("barograph.requests", count, now - 3600 * SECOND, now + at, 2)) for at, count in enumerate((100, 130, 160))
        ]
        assert post(running, delta).status == 200
        # Older than the sidecar: it does not know how much of it was counted before.
        assert [post(running, one).json for one in total[:2]] == [{}, {}]
        assert running.model("m")["requests"] == 37
        running.kill()
        running.start()
        assert running.model("m")["requests"] == 37
        # The same body again; and a series whose last point nobody remembers.
        assert [post(running, one).json for one in (delta, total[1])] == [{}, {}]
        assert running.model("m")["requests"] == 37
        assert post(running, total[2]).json == {}
        assert running.model("m")["requests"] == 67


def test_a_model_is_made_of_what_is_measured_up_to_their_number(tmp_path: Path) -> None:
    with sidecar(tmp_path, config="max_models = 1\n") as running:
        now = time.time_ns()
        assert post(running, body("one", counter("barograph.requests", 1, now, now))).json == {}
        answer = post(running, body("two", counter("barograph.requests", 2, now, now)))
        assert answer.json["partialSuccess"]["rejectedDataPoints"] == "1"
        assert "max_models" in answer.json["partialSuccess"]["errorMessage"]
        assert [model["name"] for model in running.get("/v1/models").json["models"]] == ["one"]
        assert running.model("one")["requests"] == 1
