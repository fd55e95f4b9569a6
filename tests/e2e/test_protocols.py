"""The same events give the same profile, to the byte, by whatever protocol, socket and version of HTTP they come."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from sidecars import ARROW, JSON, LINES, TOKEN, Sidecar, arrow, exchange, sidecar

ROWS = 400
CE = "org.kubeflow.serving.inference."
Body = tuple[bytes, dict[str, str], str]
"""A body, headers, and the query of its address."""


def events(rows: int, seed: int) -> pl.DataFrame:
    draw = np.random.default_rng(seed)
    frame = pl.DataFrame({"x": draw.normal(size=rows), "c": draw.choice(["a", "b", "ü"], rows), "_prediction": draw.uniform(size=rows)})
    return frame.with_columns(pl.when(pl.int_range(pl.len()) % 7 != 0).then("x").alias("x"))


FRAME = events(ROWS, 2)
FEATURES = FRAME.select("x", "c").to_dicts()
PREDICTIONS = FRAME["_prediction"].to_list()


def tensors(binary: bool) -> tuple[bytes, bytes, dict[str, object], dict[str, object], bytes]:
    """The parts of an inference request and response: values as JSON, or as bytes behind it."""
    whole = FRAME.filter(pl.col("x").is_not_null())
    names = [text.encode() for text in whole["c"]]
    parts = [struct.pack(f"<{len(whole)}d", *whole["x"]), b"".join(struct.pack("<I", len(name)) + name for name in names)]
    out = struct.pack(f"<{len(whole)}d", *whole["_prediction"])

    def tensor(name: str, datatype: str, data: list[object], raw: bytes) -> dict[str, object]:
        tensor: dict[str, object] = {"name": name, "shape": [len(whole)], "datatype": datatype}
        return tensor | ({"parameters": {"binary_data_size": len(raw)}} if binary else {"data": data})

    inputs = [tensor("x", "FP64", whole["x"].to_list(), parts[0]), tensor("c", "BYTES", whole["c"].to_list(), parts[1])]
    outputs = [tensor("predict", "FP64", whole["_prediction"].to_list(), out)]
    request, response = {"id": "r", "inputs": inputs}, {"id": "r", "outputs": outputs}
    return b"".join(parts), out, request, response, b"".join(parts) + out


def halves(request: object, response: object, more: tuple[bytes, bytes] = (b"", b"")) -> list[Body]:
    """A call as KServe's logger sends it: two CloudEvents in binary mode."""
    out = []
    for side, document, raw in (("request", request, more[0]), ("response", response, more[1])):
        text = json.dumps(document).encode()
        headers = {"Content-Type": JSON, "ce-specversion": "1.0", "ce-source": "s", "ce-id": "call", "ce-type": CE + side}
        if raw:
            headers |= {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(len(text))}
        out.append((text + raw, headers, ""))
    return out


def structured(batch: bool) -> list[Body]:
    found = [
        {"specversion": "1.0", "id": "call", "source": "s", "type": CE + side, "datacontenttype": JSON, "data": data}
        for side, data in (("request", {"instances": FEATURES}), ("response", {"predictions": PREDICTIONS}))
    ]
    if batch:
        return [(json.dumps(found).encode(), {"Content-Type": "application/cloudevents-batch+json"}, "")]
    return [(json.dumps(event).encode(), {"Content-Type": "application/cloudevents+json"}, "") for event in found]


def captured() -> list[Body]:
    payload = {"observedContentType": JSON, "encoding": "JSON"}
    capture = {
        "endpointInput": payload | {"mode": "INPUT", "data": json.dumps({"instances": FEATURES})},
        "endpointOutput": payload | {"mode": "OUTPUT", "data": json.dumps({"predictions": PREDICTIONS})},
    }
    line = {"captureData": capture, "eventMetadata": {"eventId": "e"}, "eventVersion": "0"}
    return [(json.dumps(line).encode() + b"\n", {"Content-Type": "application/jsonl"}, "?protocol=sagemaker")]


def rows(frame: pl.DataFrame) -> list[Body]:
    return [(frame.write_ndjson().encode(), {"Content-Type": LINES}, "")]


def inference(binary: bool, cloud: bool) -> list[Body]:
    first, second, request, response, raw = tensors(binary)
    if cloud:
        return halves(request, response, (first, second) if binary else (b"", b""))
    text = json.dumps({"request": request, "response": response}).encode()
    headers = {"Content-Type": JSON} | ({"Inference-Header-Content-Length": str(len(text))} if binary else {})
    return [(text + (raw if binary else b""), headers, "?protocol=open_inference")]


WHOLE: dict[str, Callable[[], list[Body]]] = {
    "ndjson": lambda: rows(FRAME),
    "array": lambda: [(json.dumps(FRAME.to_dicts()).encode(), {"Content-Type": JSON}, "")],
    "columns": lambda: [(json.dumps(FRAME.to_dict(as_series=False)).encode(), {"Content-Type": JSON}, "")],
    "arrow": lambda: [(arrow(FRAME), {"Content-Type": ARROW}, "")],
    "cloudevents-binary": lambda: halves({"instances": FEATURES}, {"predictions": PREDICTIONS}),
    "cloudevents-structured": lambda: structured(False),
    "cloudevents-batch": lambda: structured(True),
    "sagemaker": captured,
}
TENSORS: dict[str, Callable[[], list[Body]]] = {
    # Tensors know no null: the same without the rows that have one.
    "ndjson": lambda: rows(FRAME.filter(pl.col("x").is_not_null())),
    "json": lambda: inference(False, False),
    "binary": lambda: inference(True, False),
    "cloudevents-json": lambda: inference(False, True),
    "cloudevents-binary": lambda: inference(True, True),
}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sidecar]:
    folder = tmp_path_factory.mktemp("protocols")
    with socket_and_port(folder) as one:
        yield one


def socket_and_port(folder: Path) -> Sidecar:
    return Sidecar(folder, "--listen", f"unix:{folder / 'b.sock'}")


def learned(running: Sidecar, model: str) -> None:
    assert running.request("PUT", f"/v1/models/{model}", {"learn": {"events": 1000}}).status == 201
    assert running.request("POST", f"/v1/models/{model}/events", events(1000, 1).write_ndjson().encode(), LINES).json["accepted"] == 1000


def profile(running: Sidecar, model: str) -> bytes:
    answer = running.get(f"/v1/models/{model}/profile")
    assert answer.status == 200, answer
    return answer.body


@pytest.mark.parametrize("protocols", [WHOLE, TENSORS], ids=["values", "tensors"])
def test_the_same_events_by_every_protocol(running: Sidecar, protocols: dict[str, Callable[[], list[Body]]]) -> None:
    found = {}
    for name, bodies in protocols.items():
        model = f"{len(protocols)}-{name}"
        learned(running, model)
        for body, headers, query in bodies():
            named = {header.replace("-", "_"): value for header, value in headers.items()}
            answer = running.request("POST", f"/v1/models/{model}/events{query}", body, None, **named)
            assert answer.status == 200, (name, answer)
            assert answer.json["rejected_count"] == answer.json["unknown_fields"] == answer.json["mistyped_fields"] == 0, (name, answer)
        found[name] = profile(running, model)
        assert running.model(model)["events"] == 1000 + (len(FRAME) if protocols is WHOLE else FRAME["x"].count())
    assert len(set(found.values())) == 1, {name: hash(value) for name, value in found.items()}


def test_the_same_events_by_every_socket_and_version_of_http(running: Sidecar, tmp_path: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("needs curl")
    socket = str(running.folder / "b.sock")
    body = tmp_path / "body"
    body.write_bytes(FRAME.write_ndjson().encode())
    found = {}
    for door in ("tcp", "unix"):
        for version in ("--http1.1", "--http2-prior-knowledge"):
            for encoding in (None, "gzip"):
                model = f"{door}{version}-{encoding}".replace("--", "-")
                learned(running, model)
                command = [
                    "curl",
                    "-sS",
                    "--fail-with-body",
                    version,
                    "-H",
                    f"Authorization: Bearer {TOKEN}",
                    "-H",
                    f"Content-Type: {LINES}",
                ]
                command += ["-w", "\n%{http_version}"]
                if door == "unix":
                    command += ["--unix-socket", socket]
                content = body
                if encoding is not None:
                    import gzip

                    content = tmp_path / "packed"
                    content.write_bytes(gzip.compress(body.read_bytes()))
                    command += ["-H", f"Content-Encoding: {encoding}"]
                address = f"http://localhost/v1/models/{model}/events" if door == "unix" else None
                address = address or f"http://127.0.0.1:{running.port}/v1/models/{model}/events"
                done = subprocess.run([*command, "--data-binary", f"@{content}", address], capture_output=True, text=True, check=False)
                assert done.returncode == 0, done
                answer, spoken = done.stdout.splitlines()
                assert json.loads(answer)["accepted"] == ROWS
                assert spoken == ("2" if "2" in version else "1.1")
                found[model] = profile(running, model)
    assert len(set(found.values())) == 1


def test_a_head_comes_in_any_pieces_and_within_its_limit(running: Sidecar) -> None:
    import socket

    def heard(*pieces: bytes) -> bytes:
        with socket.create_connection(("127.0.0.1", running.port), timeout=30) as connection:
            for piece in pieces:
                connection.sendall(piece)
                time.sleep(0.05)
            return connection.recv(65536)

    # As far as these go HTTP/2 begins like this, too.
    for start in (b"P", b"PRI", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r"):
        assert heard(start, b"X / HTTP/1.1\r\nHost: localhost\r\n\r\n").startswith(b"HTTP/1.1 4")
    assert heard(b"G", b"E", b"T /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").startswith(b"HTTP/1.1 200 ")
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    # Its first frame tells the settings: type 4 after a length of three bytes.
    assert heard(*(preface[at : at + 1] for at in range(len(preface))), bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))[3] == 4
    # A connection that has carried a large body takes no larger head than before.
    connection = running.connection()
    try:
        body = FRAME.write_ndjson().encode() * 50
        assert len(body) > 1 << 20
        learned(running, "head")
        for size, status in ((50_000, 200), (70_000, 431)):
            assert exchange(connection, "POST", "/v1/models/head/events", body, LINES).status == 200
            assert exchange(connection, "GET", "/healthz", None, None, x_long="x" * size).status == status
    finally:
        connection.close()


def test_the_same_latencies_by_every_protocol(tmp_path: Path) -> None:
    """Events, DogStatsD and OTLP: what was timed has the same buckets."""
    import socket

    path = tmp_path / "statsd.sock"
    seconds = [1 / 64, 3 / 128, 1 / 8, 1 / 4, 5.0]
    with sidecar(tmp_path, "--statsd", f"unix:{path}") as running:
        for model in ("events", "statsd", "otlp"):
            learned(running, model)
        lines = "\n".join(json.dumps({"x": 0.5, "c": "a", "_prediction": 0.5, "_latency_seconds": value}) for value in seconds)
        assert running.request("POST", "/v1/models/events/events", lines.encode(), LINES).json["accepted"] == len(seconds)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.connect(str(path))
            sender.send("\n".join(f"model.latency:{value * 1000}|ms|#model:statsd" for value in seconds).encode())
        import time

        now = time.time_ns()
        # Scale 6: an index i holds what lies in (2^(i/64), 2^((i+1)/64)].
        indices = [int(np.ceil(np.log2(value) * 64)) - 1 for value in seconds]
        first = min(indices)
        counts = [str(sum(index == at for index in indices)) for at in range(first, max(indices) + 1)]
        point = {
            "timeUnixNano": str(now),
            "startTimeUnixNano": str(now - 10**9),
            "count": str(len(seconds)),
            "sum": sum(seconds),
            "scale": 6,
            "zeroCount": "0",
            "positive": {"offset": first, "bucketCounts": counts},
            "attributes": [{"key": "model", "value": {"stringValue": "otlp"}}],
        }
        histogram = {"aggregationTemporality": 1, "dataPoints": [point]}
        body = {
            "resourceMetrics": [
                {"scopeMetrics": [{"metrics": [{"name": "model.latency", "unit": "s", "exponentialHistogram": histogram}]}]}
            ]
        }
        answer = running.request("POST", "/v1/metrics", body)
        assert answer.status == 200, answer
        assert "rejectedDataPoints" not in answer.json.get("partialSuccess", {}), answer

        def buckets(model: str) -> list[tuple[str, str]]:
            found = [
                line for line in running.get("/metrics").body.decode().splitlines() if line.startswith("barograph_call_seconds_bucket{")
            ]
            mine = [line.replace(f'model="{model}"', "") for line in found if f'model="{model}"' in line]
            return [(line.split()[0], line.split()[1]) for line in mine]

        end = time.monotonic() + 20
        while time.monotonic() < end and buckets("statsd") != buckets("events"):
            time.sleep(0.05)
        assert buckets("events")
        assert buckets("events")[-1][1] == str(len(seconds))
        assert buckets("statsd") == buckets("events") == buckets("otlp")
