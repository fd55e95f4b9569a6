"""The few protobuf messages that are written and read without a library."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from barograph.errors import SnapshotError

__all__ = ["ddsketch_message", "metric_family", "native_cells"]


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


def native_cells(exposition: bytes, name: str, labels: Mapping[str, str]) -> list[tuple[float, float, int]] | None:
    """The cells `(lower, upper, count)`, ascending, of one native histogram of Prometheus' delimited `MetricFamily` messages.

    None where there is no such family, no metric with these labels among its own, or none that is native. Raises SnapshotError for bytes
    that are no such messages, or more than 100,000 cells.
    """
    for whole in _messages(exposition):
        family = _gathered(whole)
        if family.get(1, [b""])[0] != name.encode():
            continue
        for metric in map(_gathered, _bytes(family, 4)):
            pairs = [_gathered(pair) for pair in _bytes(metric, 1)]
            found = {_text(pair, 1): _text(pair, 2) for pair in pairs}
            if all(found.get(key) == value for key, value in labels.items()):
                for histogram in _bytes(metric, 7):
                    return _cells(_gathered(histogram))
    return None


def _cells(fields: Mapping[int, list[int | bytes]]) -> list[tuple[float, float, int]] | None:
    if not {9, 12} & set(fields):
        return None
    schema = _signed((_ints(fields, 5) or [0])[0])
    if not -4 <= schema <= 8:
        raise SnapshotError(f"the schema of a native histogram must be in [-4, 8], got {schema}")
    base = 2.0 ** (2.0**-schema)
    sides: list[list[tuple[float, float, int]]] = []
    for spans, deltas in ((9, 10), (12, 13)):
        index, count, side, at = 0, 0, list[tuple[float, float, int]](), iter(_ints(fields, deltas))
        for span in map(_gathered, _bytes(fields, spans)):
            index += _signed((_ints(span, 1) or [0])[0])
            for _ in range(min((_ints(span, 2) or [0])[0], _MOST_CELLS + 1)):
                count += _signed(next(at, 0))
                if count < 0 or len(side) >= _MOST_CELLS or abs(index) > 1024 << 8:
                    raise SnapshotError("the buckets of a native histogram are out of range")
                if count:
                    side.append((_power(base, index - 1), _power(base, index), count))
                index += 1
        sides.append(side)
    zeros = (_ints(fields, 7) or [0])[0]
    negative = [(-upper, -lower, count) for lower, upper, count in reversed(sides[0])]
    return negative + ([(0.0, 0.0, zeros)] if zeros else []) + sides[1]


def _power(base: float, index: int) -> float:
    try:
        return float(base**index)
    except OverflowError:
        raise SnapshotError("the buckets of a native histogram are out of range") from None


_MOST_CELLS = 100_000


def _messages(data: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(data):
        length, at = _read_varint(data, at)
        if at + length > len(data):
            raise SnapshotError("a protobuf message ends early")
        yield data[at : at + length]
        at += length


def _gathered(data: bytes) -> dict[int, list[int | bytes]]:
    """Fields of a message by their number: integers, or bytes where they have a length or a fixed size."""
    out: dict[int, list[int | bytes]] = {}
    at = 0
    while at < len(data):
        key, at = _read_varint(data, at)
        field, kind = key >> 3, key & 7
        value: int | bytes
        if kind == 0:
            value, at = _read_varint(data, at)
        else:
            length = {1: 8, 5: 4}.get(kind)
            if kind == 2:
                length, at = _read_varint(data, at)
            if length is None or at + length > len(data):
                raise SnapshotError("a protobuf field is cut short, or of a kind that is not known")
            value = data[at : at + length]
            at += length
        out.setdefault(field, []).append(value)
    return out


def _bytes(fields: Mapping[int, list[int | bytes]], field: int) -> list[bytes]:
    return [value for value in fields.get(field, []) if isinstance(value, bytes)]


def _text(fields: Mapping[int, list[int | bytes]], field: int) -> str:
    return (_bytes(fields, field) or [b""])[0].decode("utf-8", "replace")


def _ints(fields: Mapping[int, list[int | bytes]], field: int) -> list[int]:
    """Integers, one by one or packed."""
    out: list[int] = []
    for value in fields.get(field, []):
        if isinstance(value, int):
            out.append(value)
            continue
        at = 0
        while at < len(value):
            one, at = _read_varint(value, at)
            out.append(one)
    return out


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise SnapshotError("a protobuf number is cut short")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, at
    raise SnapshotError("a protobuf number does not end")


def _signed(value: int) -> int:
    return (value >> 1) ^ -(value & 1)


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
