"""The client against a server that answers as told."""

from __future__ import annotations

import http.server
import io
import json
import os
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import barograph as bg
import numpy as np
import polars as pl
import pytest
from barograph.client import _frames


class Told(http.server.BaseHTTPRequestHandler):
    """Keeps what comes and answers what the test put there, or that all was taken."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        server: Any = self.server
        server.seen.append((self.path, dict(self.headers), body))
        rows = 0
        if self.headers["Content-Type"].endswith("stream"):
            rows = pl.read_ipc_stream(io.BytesIO(body)).height
        status, headers, answer = server.answers.pop(0) if server.answers else (200, {}, None)
        said = json.dumps({"accepted": rows, "rejected_count": 0, "rejected": []} if answer is None else answer).encode()
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(said))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(said)


@pytest.fixture
def server() -> Iterator[Any]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Told) as running:
        running.seen, running.answers = [], []  # type: ignore[attr-defined]
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()


def client(server: Any, **options: Any) -> bg.Client:
    return bg.connect(f"http://127.0.0.1:{server.server_port}", model="m", token="t", **{"delay": 0.01, **options})


def frames(server: Any) -> list[pl.DataFrame]:
    return [pl.read_ipc_stream(io.BytesIO(body)) for path, _, body in server.seen if path.endswith(("events", "labels"))]


def test_single_events_go_together_with_their_roles(server: Any) -> None:
    at = datetime(2026, 1, 2, tzinfo=UTC)
    with client(server) as one:
        for row in range(100):
            one.observe({"x": row, "c": "a"}, score=0.5, id=row, latency_seconds=0.01, time=at, version="v1", error=row == 3, weight=2.0)
        assert one.flush(5)
        assert one.counts() == {"accepted": 100, "refused": 0, "dropped": 0, "retried": 0, "failures": 0, "queued": 0}
    whole = pl.concat(frames(server), how="diagonal_relaxed")
    assert len(server.seen) < 20
    assert whole["x"].to_list() == list(range(100))
    assert whole["_time"].unique().to_list() == [at]
    assert whole["_error"].sum() == 1
    assert {"_score", "_id", "_latency_seconds", "_version", "_weight"} <= set(whole.columns)
    _, headers, _ = server.seen[0]
    assert (headers["Authorization"], len(headers["Idempotency-Key"])) == ("Bearer t", 32)


def test_a_frame_keeps_its_columns_and_gets_roles(server: Any) -> None:
    with client(server) as one:
        one.observe_frame({"x": [1.0, 2.0], "p0": [0.1, 0.2], "p1": [0.9, 0.8], "key": [1, 2]}, id="key", score=["p0", "p1"])
        one.label({"key": [1, 2], "y": [0, 1]}, id="key", label="y")
        assert one.flush(5)
    events, labels = frames(server)
    assert {"x", "_id", "_score.0", "_score.1", "_time"} <= set(events.columns)
    assert labels.columns == ["_id", "_label", "_time"]


def test_what_cannot_be_sent_is_sent_again_under_its_key(server: Any) -> None:
    server.answers = [(503, {}, {"detail": "not now"}), (429, {"Retry-After": "0.3"}, {"detail": "too much"})]
    with client(server) as one:
        began = time.monotonic()
        one.observe({"x": 1.0})
        assert one.flush(20)
        assert time.monotonic() - began >= 0.3
        assert (one.counts()["accepted"], one.counts()["retried"]) == (1, 2)
    assert len({headers["Idempotency-Key"] for _, headers, _ in server.seen}) == 1
    assert len({body for _, _, body in server.seen}) == 1


def test_what_is_refused_is_counted_and_not_sent_again(server: Any) -> None:
    refused = {"accepted": 1, "rejected_count": 1, "rejected": [{"row": 1, "reason": "no number"}]}
    server.answers = [(200, {}, refused), (403, {}, {"detail": "not for this model"})]
    with client(server) as one:
        one.observe_frame({"x": [1.0, 2.0]})
        one.observe_frame({"x": [1.0, 2.0, 3.0]})
        assert one.flush(5)
        assert (one.counts()["accepted"], one.counts()["refused"]) == (1, 4)
        assert one.last_error is not None
        assert "not for this model" in one.last_error


def test_a_full_queue_drops_and_nothing_waits() -> None:
    # Nobody listens at port 9 of this machine.
    one = bg.connect("http://127.0.0.1:9", model="m", queue_events=1000, queue_bytes=4 << 20)
    began = time.monotonic()
    for _ in range(5000):
        one.observe({"x": 1.0})
    frame = pl.DataFrame({"x": np.zeros(400_000)})
    for _ in range(4):
        one.observe_frame(frame)
    assert time.monotonic() - began < 2
    assert one.counts()["dropped"] >= 4000 + 400_000
    assert not one.flush(0.1)
    assert not one.close(0.1)
    one.observe({"x": 1.0})


def test_wrong_arguments_are_counted_and_raise_nothing(server: Any) -> None:
    with client(server) as one:
        one.observe(7)  # type: ignore[arg-type]
        one.observe({"x": 1.0}, time="yesterday")  # type: ignore[arg-type]
        one.observe_frame({"x": [1.0]}, id="nowhere")
        one.label({"key": [1]}, id="key", label="nowhere")
        one.request("fast")  # type: ignore[arg-type]
        assert one.counts()["failures"] == 5
        assert one.flush(5)
    assert [path for path, _, _ in server.seen if path.endswith("events")] == []


def test_fields_of_several_types_lose_no_event() -> None:
    rows = [{"x": 1.0, "_time": 1}, {"x": "one", "_time": 2}, {"x": np.float32(2.5), "_time": 3}, {"x": {"a": {1, 2}}, "_time": 4}]
    assert sum(frame.height for frame in _frames(rows)) == 4


def test_latencies_and_requests_go_as_metrics(server: Any) -> None:
    with client(server) as one:
        for _ in range(10):
            one.request(0.25, error=True)
        with one.timed():
            pass
        assert one.flush(5)
    found: dict[str, int] = {}
    for body in (body for path, _, body in server.seen if path == "/v1/metrics"):
        for metric in json.loads(body)["resourceMetrics"][0]["scopeMetrics"][0]["metrics"]:
            (kind,) = metric.keys() & {"sum", "exponentialHistogram"}
            (point,) = metric[kind]["dataPoints"]
            found[metric["name"]] = found.get(metric["name"], 0) + int(point["count" if kind != "sum" else "asInt"])
    assert found == {"barograph.requests": 10, "barograph.failures": 10, "barograph.latency": 11}


def test_a_watched_function_keeps_its_results_and_errors(server: Any) -> None:
    with client(server) as one:

        @one.watch
        def score(row: dict[str, float]) -> float:
            if row["x"] < 0:
                raise ValueError("negative")
            return row["x"] / 10

        assert score({"x": 5.0}) == 0.5
        with pytest.raises(ValueError, match="negative"):
            score({"x": -1.0})
        assert one.flush(5)
    (frame,) = frames(server)
    assert frame.select("x", "_score").rows() == [(5.0, 0.5)]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_child_sends_its_own_and_nothing_of_its_parent(server: Any) -> None:
    one = client(server, delay=0.5)
    one.observe({"x": 1.0})
    child = os.fork()
    if child == 0:
        one.observe({"x": 2.0})
        os._exit(0 if one.flush(10) else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert one.flush(10)
    one.close()
    assert sorted(value for frame in frames(server) for value in frame["x"].to_list()) == [1.0, 2.0]


def test_arguments_are_checked() -> None:
    for url in ("ftp://x", "http://user:word@x", "http://", "unix://x", "http://a b", 7):
        with pytest.raises(bg.errors.InvalidArgumentError, match="`url`"):
            bg.connect(url, model="m")  # type: ignore[arg-type]
    for options in ({"model": ""}, {"model": "m", "delay": -1}, {"model": "m", "queue_bytes": 5}, {"model": "m", "token": "a b"}):
        with pytest.raises(bg.errors.InvalidArgumentError):
            bg.connect("http://x", **options)  # type: ignore[arg-type]


def test_asking_nobody_is_an_error_with_words() -> None:
    one = bg.connect("http://127.0.0.1:9", model="m")
    with pytest.raises(ConnectionError, match="gave no answer"):
        one.drift()
