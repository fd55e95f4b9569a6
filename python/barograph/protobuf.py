"""The few protobuf messages that are written without a library."""

from __future__ import annotations

import struct
from collections.abc import Iterable

__all__ = ["ddsketch_message"]


def ddsketch_message(gamma: float, positive: Iterable[tuple[int, int]], negative: Iterable[tuple[int, int]], zeros: int) -> bytes:
    """`DDSketch` of sketches-go's ddsketch.proto: IndexMapping 1, positive Store 2, negative Store 3, zero count 4.

    Index i counts `(gamma**i, gamma**(i + 1)]` here and in OpenTelemetry, `(gamma**(i - 1), gamma**i]` there.
    """
    mapping = _double(1, gamma)
    return _part(1, mapping) + _part(2, _store(positive)) + _part(3, _store(negative)) + _double(4, float(zeros))


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
