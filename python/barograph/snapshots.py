"""Snapshots: versioned bytes of any state."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Self

from barograph import _barograph
from barograph.errors import UnsupportedError

__all__ = ["Pickled", "Snapshots", "as_bytes", "write_whole"]


def as_bytes(data: object) -> bytes:
    """What `from_bytes` was given, if it is bytes at all."""
    if not isinstance(data, bytes | bytearray | memoryview):
        raise UnsupportedError(f"`data` must be bytes, got {type(data).__name__}")
    return bytes(data)


class Pickled:
    """Pickles, and is copied, as its snapshot: workers of Ray, Spark and Dask get it by value."""

    def __reduce__(self) -> tuple[Any, ...]:
        whole: Any = self
        return type(self).from_bytes, (whole.to_bytes(),)  # type: ignore[attr-defined]


class Snapshots(Pickled):
    """The bytes of a face whose native class has its name."""

    _native: Any

    def to_bytes(self) -> bytes:
        """A snapshot: what is read from it goes on as if nothing had happened; equal states give equal bytes."""
        data: bytes = self._native.to_bytes()
        return data

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Reads a snapshot. Raises SnapshotError for anything else."""
        out = cls.__new__(cls)
        out._native = getattr(_barograph, cls.__name__).from_bytes(as_bytes(data))
        return out


def write_whole(path: Path, data: bytes) -> None:
    """Writes a file so that whoever reads it finds the old bytes or the new ones, never a part."""
    beside = path.with_name(f"{path.name}.{os.getpid()}.new")
    with beside.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
