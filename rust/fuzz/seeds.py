"""What the fuzzer begins with: bytes that barograph wrote. `python seeds.py FOLDER`."""

import base64
import hashlib
import io
import json
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import barograph as bg
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from google.protobuf.json_format import MessageToJson
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation, View


def inner(data: bytes) -> bytes:
    """A snapshot without header and checksum: the target puts them around whatever comes."""
    return data[7:-4]


def seeds() -> Iterator[tuple[int, bytes]]:
    """The decoder's number in the target, and its bytes."""
    rng = np.random.default_rng(0)
    times = pl.datetime_range(pl.datetime(2024, 1, 1), pl.datetime(2024, 1, 9, 7), "1h", eager=True)
    frame = pl.DataFrame({"x": rng.normal(size=200), "c": [f"n{i % 5}" for i in range(200)], "t": times})
    profile, reference = bg.profile(frame).to_bytes(), bg.Reference(frame).to_bytes()
    yield from ((0, profile), (1, reference), (2, inner(profile)), (3, inner(reference)))
    kll = bg.sketches.Kll(8)
    kll.update_many(rng.normal(size=300))
    yield 6, kll.to_bytes()
    for choice, sketch in ((7, bg.sketches.Hll(5)), (8, bg.sketches.Theta(5)), (9, bg.sketches.FrequentItems(4))):
        sketch.update_many(np.arange(300))
        yield choice, sketch.to_bytes()
    sample = bg.sketches.Sample(5)
    sample.update_many(np.arange(20))
    yield 10, inner(sample.to_bytes())
    d = bg.detectors
    made = (d.Adwin(), d.PageHinkley(), d.Ddm(), d.HddmA(), d.Kswin(), d.Cusum(), d.Rank(rng.normal(size=300)))
    for choice, detector in enumerate(made, 15):
        detector.update_many((rng.random(300) < 0.3).astype(float))
        yield choice, inner(detector.to_bytes())
    e = bg.estimates
    scores = rng.random(200)
    cbpe = e.Cbpe.fit(scores, rng.random(200) < scores)
    sequences = (e.MeanSequence(), e.QuantileSequence(0.5), e.AsymptoticSequence(), e.RiskAlarm(scores))
    for sequence in sequences:
        sequence.update_many(scores)
    pairs = (e.AucSequence(), e.CalibrationAlarm())
    for pair in pairs:
        pair.update_many(rng.random(200) < scores, scores)
    # Behind the name of what it is.
    named = [cbpe, cbpe.estimate(scores), *sequences, *pairs]
    yield from ((choice, inner(one.to_bytes())[1 + inner(one.to_bytes())[0] :]) for choice, one in enumerate(named, 26))


Rows = list[dict[str, object]]
NOW = 1_795_478_400
CALL = "0757e893-64c9-411f-8937-f0f4774852ef"


def rows(count: int) -> Rows:
    """Events of the models in the target: features, roles by the owner's names and by their own."""
    return [
        {"x": i / 4, "n": i, "c": "abc"[i % 3], "b": i % 2 == 0, "t": f"words {i}", "country": ["DE", "FR", None][i % 3], "tx": f"e{i}"}
        | {"at": f"2026-11-23T0{i % 10}:00:00Z", "chance": i / count, "truth": i % 2, "_prediction": str(i % 3), "_version": "v2"}
        | {"_latency_seconds": 0.01, "_error": i == 3, "_weight": 1.5}
        for i in range(count)
    ]


def arrow(frame: pl.DataFrame | pa.Table) -> bytes:
    """An IPC stream, as Polars and as Arrow itself write it."""
    out = io.BytesIO()
    if isinstance(frame, pl.DataFrame):
        frame.write_ipc_stream(out, compat_level=pl.CompatLevel.oldest())
    else:
        with pa.ipc.new_stream(out, frame.schema) as stream:
            stream.write_table(frame, max_chunksize=3)
    return out.getvalue()


def tables() -> Iterator[bytes]:
    """The same events as columns of many types."""
    frame = pl.DataFrame(rows(5)).with_columns(pl.col("at").str.to_datetime("%Y-%m-%dT%H:%M:%SZ", time_zone="UTC"))
    yield arrow(frame)
    yield arrow(frame.with_columns(pl.col("c").cast(pl.Categorical), pl.col("n").cast(pl.Int8), pl.col("x").cast(pl.Float32)))
    yield arrow(pl.DataFrame({"x": [1, None], "v": [[0.5, 1.0], []], "o": [{"a": 1}, None], "z": [None, None]}))
    chances = pa.FixedSizeListArray.from_arrays(pa.array([0.2, 0.3, 0.5] * 4), 3)
    yield arrow(pa.table({"_score": chances, "_label": ["0", "1", "2", None], "_id": pa.array([1, 2, 3, 4], pa.uint64())}))
    odd = {"_time": pa.array([1, 2], pa.date32()), "c": pa.array(["a", "b"]).dictionary_encode(), "d": pa.array([b"a", None], pa.binary(1))}
    yield arrow(pa.table(odd | {"u": pa.array(["a", "b"], pa.string_view()), "m": pa.array([1, 2], pa.decimal128(5, 2)), "e": pa.nulls(2)}))


def tensors() -> Iterator[tuple[bytes, bytes]]:
    """Bodies of the Open Inference Protocol, JSON and the bytes behind it; then V1."""
    texts = b"\x01\0\0\0a\x02\0\0\0bc"
    plain = {"name": "x", "shape": [2, 1], "datatype": "FP32", "data": [1.5, 2]}
    named = {"name": "all", "shape": [2, 2], "datatype": "INT64", "parameters": {"names": ["n", "x"]}, "data": [[1, 2], [3, None]]}
    words = {"name": "c", "shape": [2], "datatype": "BYTES", "data": ["a", "b"]}
    output = {"name": "predict_proba", "shape": [2, 3], "datatype": "FP64", "data": [0.1, 0.2, 0.7, 1, 0, 0]}
    label = {"name": "label", "shape": [2], "datatype": "BYTES", "data": ["0", "2"]}
    both = {"id": CALL, "model_version": "1", "inputs": [plain, named, words], "outputs": [output, label]}
    yield json.dumps(both).encode(), b""
    yield json.dumps({"request": {"inputs": [plain]}, "response": {"id": "a", "outputs": [label]}}).encode(), b""
    types = {"FP16": 2, "BF16": 2, "FP32": 4, "FP64": 8, "INT8": 1, "UINT64": 8, "BOOL": 1}
    heads = [
        {"name": name, "shape": [2, 1], "datatype": name, "parameters": {"binary_data_size": 2 * size}} for name, size in types.items()
    ]
    heads.append({"name": "c", "shape": [2], "datatype": "BYTES", "parameters": {"binary_data_size": len(texts)}})
    yield json.dumps({"inputs": heads, "id": "a"}).encode(), bytes(range(2 * sum(types.values()))) + texts
    shared = {"name": "i", "shape": [2], "datatype": "FP32", "parameters": {"shared_memory_region": "r", "shared_memory_byte_size": 8}}
    yield json.dumps({"inputs": [shared, plain]}).encode(), b""
    yield b'{"instances": [[6.8, "a", [1, 2]], [6.0, null, [3, 4]]], "predictions": [[0.1, 0.9], [0.5, 0.5]]}', b""
    yield b'{"instances": [{"x": 1, "c": "a"}, {"c": "b", "x": 2.5}], "predictions": [{"label": "1", "score": 0.5, "why": {}}, 1]}', b""


def cloudevents() -> Iterator[tuple[dict[str, object], bytes]]:
    """Attributes and data: request and response of one call as the loggers of KServe and Seldon send them."""
    kserve = {"specversion": "1.0", "source": "http://localhost:9081/", "id": CALL, "time": "2026-11-23T00:23:26.0789529Z"}
    kinds = "org.kubeflow.serving.inference.{}", "io.seldon.serving.inference.{}"
    asked, answered = b'{"instances": [[6.8, 2.8], [6.0, 3.4]]}', b'{"predictions": [1, 1]}'
    for kind in kinds:
        yield kserve | {"type": kind.format("request"), "requestid": "r"}, asked
        yield kserve | {"type": kind.format("response"), "requestid": "r"}, answered
    yield kserve | {"type": kinds[0].format("response"), "statuscode": 422}, b'{"error": "no"}'
    for body, rest in tensors():
        yield kserve | {"type": kinds[0].format("request")}, body + rest


def captures() -> Iterator[str]:
    """What SageMaker captures, and its ground truth."""
    meta = {"eventId": "e", "inferenceTime": "2026-11-23T17:25:49Z"}

    def payload(data: str, encoding: str = "CSV", kind: str = "text/csv") -> dict[str, str]:
        return {"observedContentType": kind, "mode": "M", "data": data, "encoding": encoding}

    coded = base64.b64encode(b'1,2\n3,"a, ""b"""\r\n').decode()
    answer = '{"predictions": [{"score": 0.75, "predicted_label": 1}]}'
    pairs = [(payload("69,0,153.7,a\n"), payload("0.025")), (payload('{"x": 1.5, "c": "a"}', "JSON"), payload(answer, "JSON"))]
    pairs += [(payload(coded, "BASE64"), payload("[[1], [2]]", "JSON")), (payload("1,2\n3,4"), payload("0.5,9\n0.25,9"))]
    for asked, answered in pairs:
        yield json.dumps({"captureData": {"endpointInput": asked, "endpointOutput": answered}, "eventMetadata": meta, "eventVersion": "0"})
    yield json.dumps({"groundTruthData": payload("1"), "eventMetadata": meta | {"inferenceId": "i"}, "eventVersion": "0"})


def measurements() -> tuple[bytes, bytes]:
    """Metrics of OpenTelemetry, as protobuf and as JSON."""
    reader = InMemoryMetricReader()
    meter = MeterProvider(
        [reader], views=[View(instrument_name="*exponential", aggregation=ExponentialBucketHistogramAggregation())]
    ).get_meter("m")
    for kind in ("explicit", "exponential"):
        histogram = meter.create_histogram(f"http.server.duration.{kind}", "s")
        for value in (0.001, 0.02, 0.02, 3.0):
            histogram.record(value, {"model": "m", "status": 200})
    meter.create_counter("requests").add(3, {"model": "m", "failed": True})
    data = reader.get_metrics_data()
    assert data is not None
    message = encode_metrics(data)
    return message.SerializeToString(), MessageToJson(message).encode()


def bodies() -> Iterator[tuple[int, bytes]]:
    """The protocol's number, and a body."""
    events = rows(6)
    lines = "\n".join(json.dumps(row) for row in events).encode()
    yield from ((0, table) for table in tables())
    yield 1, lines
    yield 1, b'{"x": 1, "_id": 7}\nnot json\n{"x": "text", "_id": 1.5}\n\n{"x": 3, "x": 4}\n{"deep": {"a": [1, {"b": []}]}, "v": [0.1]}'
    yield 2, json.dumps(events).encode()
    yield 3, json.dumps({name: [row[name] for row in events] for name in events[0]}).encode()
    yield 3, b'{"v":[[1,2],[3]],"_score":[[0.5,0.25,0.25],null],"_time":[1795000000,1795000000.5],"_id":[1,"two"],"_label":[true,0]}'
    yield from ((4, line.encode()) for line in captures())
    yield 4, "\n".join(captures()).encode()
    for head, rest in tensors():
        yield 5, head + rest
        yield 6, len(head).to_bytes(2, "little") + head + rest
    structured = []
    for attributes, data in cloudevents():
        headers = "\n".join(f"ce-{name}: {value}" for name, value in attributes.items())
        yield 9, f"{headers}\ncontent-type: application/json\n\n".encode() + data
        try:
            body: dict[str, object] = {"data": json.loads(data)}
        except ValueError:
            body = {"data_base64": base64.b64encode(data).decode()}
        structured.append(attributes | body)
        yield 7, json.dumps(structured[-1]).encode()
    yield 8, json.dumps(structured[:5]).encode()
    # A delta as it is, one with a byte changed, one that ends too early.
    yield from ((13, changes) for changes in (b"", b"\x28\x00\x07", b"\x50\x00\xa5"))
    yield (
        10,
        b"latency:12.5|ms|@0.5|#model:m,env:prod\nrequests:1|c|#model:m\nsize:1:2:3|d|#model:m|T1795000000|c:ab\n_e{5,4}:title|text|#a\n_sc|n|0",
    )
    protobuf, text = measurements()
    yield 11, text
    yield 12, protobuf


class Bytes:
    """Primitives as snapshots and records have them."""

    def __init__(self) -> None:
        self.out = b""

    def whole(self, *values: int) -> "Bytes":
        """Unsigned integers, seven bits a byte."""
        for value in values:
            rest = value
            while rest >= 0x80:
                self.out += bytes([rest & 0x7F | 0x80])
                rest >>= 7
            self.out += bytes([rest])
        return self

    def signed(self, value: int) -> "Bytes":
        """A signed integer, zigzag."""
        return self.whole(value << 1 if value >= 0 else ~value << 1 | 1)

    def text(self, value: bytes) -> "Bytes":
        """Bytes behind their length."""
        self.whole(len(value)).out += value
        return self

    def plain(self, value: bytes) -> "Bytes":
        """Bytes as they are."""
        self.out += value
        return self


def happenings(profile: bytes, reference: bytes) -> Iterator[bytes]:
    """Records of a log."""
    table = next(tables())
    now = NOW * 10**9
    kinds = [(kind, table) for kind in (1, 2, 3, 4)]
    kinds += [(6, Bytes().text(profile).signed(now).out), (7, Bytes().text(reference).out), (8, Bytes().text(b'{"segments":["c"]}').out)]
    kinds += [(9, Bytes().text(b"v2").signed(now).signed(now).out), (10, b""), (11, Bytes().whole(1, 2**63).out)]
    for kind, rest in kinds:
        yield Bytes().signed(now).whole(1, 5, 2**60, 77, 3, 1).whole(1, 2, 3).plain(bytes([kind]) + rest).out


def waiting(halves: bytes = b"") -> bytes:
    """Halves of events that wait: two requests, one response, one pair that is done."""
    now = NOW * 10**9
    out = Bytes().signed(now).whole(4, 1, 0, 0, 0, 0).whole(1).signed(10**9).whole(7, 9).whole(3)
    for count in (2, 1):
        keys = pa.array([bytes([count, row]) * 8 for row in range(count)], pa.binary(16))
        out.whole(1).text(arrow(pa.table({"_id": keys, "x": pa.array([1.5] * count)})))
        for row in range(count):
            out.signed(10**9).whole(row if count == 2 else 2, 124)
    return out.out


def model(state: bytes) -> bytes:
    """A model as in a state file."""
    settings = json.dumps({"roles": {"id": "tx"}, "learn": {"events": 100, "days": 0.0}, "segments": ["c"], "policy": {}}).encode()
    head = Bytes().text(b"m").text(settings).signed(NOW * 10**9).whole(3).whole(200, 1, 0, 2, 3, 4, 5, 0)
    return head.whole(1).signed(NOW * 10**9).whole(5, 2**60, 77, 3, 1).plain(waiting() + state).out


def segment() -> bytes:
    """A segment of a log with three records."""
    out = b"BAROLOG\x01" + (1).to_bytes(8, "little")
    for number in (1, 2, 4):
        rest = number.to_bytes(8, "little") + b"payload" * number
        out += (len(rest) - 8).to_bytes(4, "little") + zlib.crc32(rest).to_bytes(4, "little") + rest
    return out


SETTINGS = {
    "roles": {"id": "tx", "time": "at"},
    "learn": {"events": 100, "days": 0.5},
    "segments": ["c"],
    "privacy": {"columns": {"email": "hash", "x": [18, 65.5], "note": "drop", "c": {"names": ["0", "1"]}}},
    "policy": {
        "window": "1h",
        "task": "multiclass",
        "classes": ["a", "b", "c"],
        "budget": {"ticket": "7d", "page": "30d"},
        "importance": {"x": 2.0},
    }
    | {"lateness": "30d", "memory": 33554432, "labels": "last", "rules": []},
}
CONFIG = """
listen = ["127.0.0.1:7464", "unix:/run/barograph.sock"]
health_listen = "udp:localhost:7465"
data = "d"
memory = "256MB"
max_body = 1048576
acknowledge = "disk"
statsd = "127.0.0.1:8125"
hosts = ["h"]
privacy_key = "0123456789abcdef0123456789abcdef"
[tls]
certificate = "c"
key = "k"
[[tokens]]
name = "a"
token = "secret"
scopes = ["ingest", "read"]
models = ["fraud*"]
[[sinks]]
name = "hook"
type = "webhook"
url = "https://example.org/hook"
[models.fraud]
window = "1h"
task = "binary"
[roles.fraud]
id = "tx"
[learn.fraud]
events = 200
[segments]
fraud = ["country"]
[privacy.fraud.columns]
x = [18, 65]
c = "hash"
"""


def parcel(kind: str, content: bytes) -> bytes:
    """An object of a bucket: one row of Parquet."""
    hashed = hashlib.sha256((1).to_bytes(4, "little"))
    for part in (b"m", b"edge-1.7/m", kind.encode(), content):
        hashed.update(len(part).to_bytes(8, "little") + part)
    hashed.update((3).to_bytes(8, "little") + (5).to_bytes(8, "little"))
    kinds = {"barograph_parcel": pa.int32(), "model": pa.string(), "stream": pa.string(), "number": pa.int64(), "kind": pa.string()}
    kinds |= {"rows": pa.int64(), "sha256": pa.binary(), "parcel": pa.binary()}
    values = [1, "m", "edge-1.7/m", 3, kind, 5, hashed.digest(), pa.compress(content, "zstd", asbytes=True)]
    schema = pa.schema([pa.field(name, one, nullable=False) for name, one in kinds.items()])
    out = io.BytesIO()
    table = pa.table([[value] for value in values], schema=schema)
    pq.write_table(table, out, use_dictionary=False, compression="none", write_statistics=False, store_schema=False)
    return out.getvalue()


def files() -> Iterator[tuple[int, bytes]]:
    """The file's number in the target, and what it holds."""
    frame = pl.DataFrame({"x": np.arange(200.0), "c": [f"n{i % 5}" for i in range(200)]})
    reference = bg.Reference(frame)
    learning = Bytes().whole(6, 1).plain(b"\1").signed(NOW * 10**9).plain(b"\1").text(next(tables())).out
    models = [model(b"\0" + learning), model(b"\1" + Bytes().text(bg.Monitor("m", reference=reference, ticks="manual").snapshot()).out)]
    yield from ((0, record) for record in happenings(bg.profile(frame, reference=reference).to_bytes(), reference.to_bytes()))
    for one in models:
        yield 1, one
        yield 4, b"BAROSTA\x01" + one + zlib.crc32(b"BAROSTA\x01" + one).to_bytes(4, "little")
        yield 5, one
    yield 2, segment()
    # Records, rubbish between them, a new segment, records that come again and one far ahead.
    yield 3, b"\0\4aaaa\0\2bb\2\5junk!\0\3ccc\3\0\0\1d\4\1e\x80\0\x08\x08" + (2**33).to_bytes(8, "little") + b"\0\0"
    yield 6, waiting()
    yield 8, CONFIG.encode()
    yield 8, b""
    yield 9, json.dumps(SETTINGS["privacy"]).encode()
    yield 10, json.dumps(SETTINGS).encode()
    yield 10, b'{"learn":{"events":200}}'
    yield from ((11, parcel(kind, content)) for kind, content in (("delta", b"BARO" * 9), ("events", next(tables())), ("labels", b"")))


if __name__ == "__main__":
    # Bodies are decoded for each of the three models of the target.
    everything = {"from_bytes": list(seeds()), "files": list(files())}
    everything["bodies"] = [(world * 14 + protocol, body) for world in range(3) for protocol, body in bodies()]
    for target, found in everything.items():
        folder = Path(sys.argv[1]) / target
        folder.mkdir(parents=True, exist_ok=True)
        for number, (choice, data) in enumerate(found):
            (folder / f"seed-{number}").write_bytes(bytes([choice]) + data)
