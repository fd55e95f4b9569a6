"""The few protobuf messages that are written without a library."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["ddsketch_message", "metric_family"]


def ddsketch_message(gamma: float, positive: Iterable[tuple[int, int]], negative: Iterable[tuple[int, int]], zeros: int) -> bytes:
    """`DDSketch` of sketches-go's ddsketch.proto: IndexMapping 1, positive Store 2, negative Store 3, zero count 4.

    Index i counts `(gamma**i, gamma**(i + 1)]` here and in OpenTelemetry, `(gamma**(i - 1), gamma**i]` there.
    """
    mapping = _double(1, gamma)
    return _part(1, mapping) + _part(2, _store(positive)) + _part(3, _store(negative)) + _double(4, float(zeros))


def metric_family(name: str, help: str, kind: str, metrics: Iterable[tuple[Mapping[str, str], float | Mapping[str, Any]]]) -> bytes:
    """A `MetricFamily` of Prometheus' metrics.proto behind its length, as scrapers read them one after the other.

    kind: "counter", "gauge" or "histogram". metrics: labels, and a number or the fields of a native histogram, as
    `ExponentialHistogram.to_prometheus` gives them, with its `sample_sum`.
    """
    whole = _part(1, name.encode()) + _part(2, help.encode()) + b"\x18" + _varint(_KINDS[kind])
    for labels, value in metrics:
        pairs = (_part(1, _part(1, key.encode()) + _part(2, text.encode())) for key, text in labels.items())
        if isinstance(value, Mapping):
            body = _part(7, _native_histogram(value))
        else:
            body = _part(3 if kind == "counter" else 2, _double(1, float(value)))
        whole += _part(4, b"".join(pairs) + body)
    return _varint(len(whole)) + whole


_KINDS = {"counter": 0, "gauge": 1, "histogram": 4}


def _native_histogram(fields: Mapping[str, Any]) -> bytes:
    out = _whole(1, fields["sample_count"]) + _double(2, fields["sample_sum"]) + _whole(5, _zigzag(fields["schema"]))
    out += _double(6, fields["zero_threshold"]) + _whole(7, fields["zero_count"])
    for field, name in ((9, "negative"), (12, "positive")):
        for span in fields[f"{name}_span"]:
            out += _part(field, _whole(1, _zigzag(span["offset"])) + _whole(2, span["length"]))
        for delta in fields[f"{name}_delta"]:
            out += _whole(field + 1, _zigzag(delta))
    if not fields["positive_span"] and not fields["negative_span"]:
        # A histogram without buckets is native by an empty span.
        out += _part(12, b"")
    return out


def _whole(field: int, value: int) -> bytes:
    return bytes([field << 3]) + _varint(value)


def _store(cells: Iterable[tuple[int, int]]) -> bytes:
    # `contiguousBinCounts` from `contiguousBinIndexOffset` on: readers in Python know no other form.
    counts = dict(cells)
    if not counts:
        return b""
    first, last = min(counts), max(counts)
    packed = struct.pack(f"<{last - first + 1}d", *(counts.get(index, 0) for index in range(first, last + 1)))
    return _part(2, packed) + b"\x18" + _varint(_zigzag(first + 1))


def _double(field: int, value: float) -> bytes:
    return bytes([field << 3 | 1]) + struct.pack("<d", value)


def _part(field: int, payload: bytes) -> bytes:
    return bytes([field << 3 | 2]) + _varint(len(payload)) + payload


def _zigzag(value: int) -> int:
    return (value << 1) ^ (value >> 63)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
