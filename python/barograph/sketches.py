"""Mergeable summaries of one stream, used alone.

| sketch | answers | error | merge |
|---|---|---|---|
| `ExponentialHistogram` | quantiles, counts per cell | 0.54 % of the value at scale 6 | exact, any order |
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from barograph import _barograph
from barograph.errors import InvalidArgumentError
from barograph.profiles import _bytes

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

__all__ = ["ExponentialHistogram"]


class ExponentialHistogram:
    """Counts in base-2 cells, both signs and zero: the bucket index of OpenTelemetry and Prometheus native histograms.

    scale: 2**scale cells per octave, 0 to 8. `quantile(q)` is the nearest-rank quantile within `relative_error`. NaN and infinities
    are left out. Memory: 8 bytes per cell of each octave in use; about 2 ns per value.

    >>> h = ExponentialHistogram(scale=6)
    >>> h.update_many([1.0, 2.0, 4.0])
    >>> h.count, round(h.quantile(0.5), 2)
    (3, 1.99)
    """

    def __init__(self, scale: int = 6) -> None:
        if not isinstance(scale, int) or not 0 <= scale <= 8:
            raise InvalidArgumentError(f"`scale` must be an integer in [0, 8], got {scale!r}", "6 keeps quantiles within 0.54 %")
        self._native = _barograph.ExponentialHistogram(scale)

    def update_many(self, values: ArrayLike) -> None:
        """Counts the values of an array."""
        import numpy as np

        self._native.update_many(np.ascontiguousarray(values, dtype=np.float64).reshape(-1))

    @property
    def count(self) -> int:
        """Values counted."""
        return self._native.count

    @property
    def scale(self) -> int:
        """The scale given at the start."""
        return self._native.scale

    @property
    def relative_error(self) -> float:
        """Largest relative distance of `quantile` from the nearest-rank quantile."""
        return self._native.relative_error

    def quantile(self, q: float) -> float | None:
        """The value with rank at least q * count; None when empty."""
        return self._native.quantile(q)

    def cells(self) -> list[tuple[float, float, int]]:
        """`(lower, upper, count)` of the cells that hold values, ascending."""
        return self._native.cells()

    def merge(self, other: ExponentialHistogram) -> None:
        """Adds another histogram's counts; both must have the same scale."""
        self._native.merge(other._native)

    def subtract(self, other: ExponentialHistogram) -> None:
        """Takes another histogram's counts away again; IncompatibleError where it holds more than this one."""
        self._native.subtract(other._native)

    def to_bytes(self) -> bytes:
        """A snapshot; equal histograms give equal bytes."""
        return self._native.to_bytes()

    @classmethod
    def from_bytes(cls, data: bytes) -> ExponentialHistogram:
        """Reads a snapshot. Raises SnapshotError for anything else."""
        out = cls.__new__(cls)
        out._native = _barograph.ExponentialHistogram.from_bytes(_bytes(data))
        return out
