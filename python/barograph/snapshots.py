"""Snapshots: versioned bytes of any state."""

from __future__ import annotations

from barograph.errors import UnsupportedError

__all__ = ["as_bytes"]


def as_bytes(data: object) -> bytes:
    """What `from_bytes` was given, if it is bytes at all."""
    if not isinstance(data, bytes | bytearray | memoryview):
        raise UnsupportedError(f"`data` must be bytes, got {type(data).__name__}")
    return bytes(data)
