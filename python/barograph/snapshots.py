"""Snapshots: versioned bytes of any state."""

from __future__ import annotations

import os
from pathlib import Path

from barograph.errors import UnsupportedError

__all__ = ["as_bytes", "write_whole"]


def as_bytes(data: object) -> bytes:
    """What `from_bytes` was given, if it is bytes at all."""
    if not isinstance(data, bytes | bytearray | memoryview):
        raise UnsupportedError(f"`data` must be bytes, got {type(data).__name__}")
    return bytes(data)


def write_whole(path: Path, data: bytes) -> None:
    """Writes a file so that whoever reads it finds the old bytes or the new ones, never a part."""
    beside = path.with_name(f"{path.name}.{os.getpid()}.new")
    with beside.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
