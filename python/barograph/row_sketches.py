"""Mergeable summaries of rows of several numbers; `barograph.sketches` shows them to the world."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from barograph import _barograph
from barograph.errors import InvalidArgumentError
from barograph.scores import Score
from barograph.snapshots import Pickled, as_bytes

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

__all__ = ["CoMoments", "MeanEmbedding", "SlicedProjections"]


class _RowSketch(Pickled):
    """What every sketch of rows does."""

    _native: _barograph.CoMoments | _barograph.MeanEmbedding | _barograph.SlicedProjections

    def update_many(self, rows: ArrayLike) -> None:
        """Counts rows: an array of two dimensions."""
        self._native.update_many(_rows(rows))

    @property
    def columns(self) -> int:
        """Columns of a row."""
        return self._native.columns

    @property
    def count(self) -> int:
        """Rows counted."""
        return self._native.count

    def to_bytes(self) -> bytes:
        """A snapshot; equal sketches give equal bytes."""
        return self._native.to_bytes()


class CoMoments(_RowSketch):
    """Means, covariances and correlations of up to 64 columns, of a stream that is never kept.

    columns: 1 to 64. Rows with a value that is not finite are left out. Equal to `numpy.cov` within rounding, whatever the order;
    merges are exact within rounding too, not to the bit. About d²/2 multiplications per row.

    >>> c = CoMoments(2)
    >>> c.update_many([[1.0, 2.0], [2.0, 4.0], [3.0, 6.0]])
    >>> c.count, c.covariance().tolist(), c.correlation().round(9).tolist()
    (3, [[1.0, 2.0], [2.0, 4.0]], [[1.0, 1.0], [1.0, 1.0]])
    """

    _native: _barograph.CoMoments

    def __init__(self, columns: int) -> None:
        self._native = _barograph.CoMoments(_integer("columns", columns, 64))

    def means(self) -> NDArray[np.float64] | None:
        """The mean of each column; None when empty."""
        return _array(self._native.means())

    def covariance(self) -> NDArray[np.float64] | None:
        """Sample covariances, columns by columns; None below two rows."""
        return _array(self._native.covariance(), self.columns)

    def correlation(self) -> NDArray[np.float64] | None:
        """Pearson's correlations, columns by columns; None where a column does not vary."""
        values = self._native.correlation()
        return None if None in values else _array(values, self.columns)

    def merge(self, other: CoMoments) -> None:
        """Adds another's rows; both must be of as many columns."""
        self._native.merge(other._native)

    def subtract(self, other: CoMoments) -> None:
        """Takes another's rows away again, within rounding; IncompatibleError where it holds more rows than this one."""
        self._native.subtract(other._native)

    @classmethod
    def from_bytes(cls, data: bytes) -> CoMoments:
        """Reads a snapshot. Raises SnapshotError for anything else."""
        out = cls.__new__(cls)
        out._native = _barograph.CoMoments.from_bytes(as_bytes(data))
        return out


class MeanEmbedding(_RowSketch):
    """The mean of random Fourier features of rows: two of them are as far apart as the laws of their streams.

    `fit(rows)` takes scale and bandwidth of a Gaussian kernel from the reference's rows and gives an empty sketch; `empty()` gives another
    with the same features. Merging and order leave no trace. Rows with a value that is not finite are left out. The kernel is known within
    1 / √features; a cosine and d multiplications per feature and row.

    >>> rng = __import__("numpy").random.default_rng(0)
    >>> reference = MeanEmbedding.fit(rng.normal(size=(500, 2)), features=64)
    >>> reference.update_many(rng.normal(size=(500, 2)))
    >>> current = reference.empty()
    >>> current.update_many(rng.normal(1, 1, size=(500, 2)))
    >>> reference.mmd(current) > 0.1
    True
    """

    _native: _barograph.MeanEmbedding

    def __init__(self) -> None:
        raise InvalidArgumentError("a MeanEmbedding needs rows to fit its kernel to", "call `MeanEmbedding.fit(rows)`")

    @classmethod
    def _of(cls, native: _barograph.MeanEmbedding) -> MeanEmbedding:
        out = cls.__new__(cls)
        out._native = native
        return out

    @classmethod
    def fit(cls, rows: ArrayLike, features: int = 256, seed: int = 0) -> MeanEmbedding:
        """An empty sketch with scale and bandwidth of these rows, at least 20; features in [1, 4096]."""
        return cls._of(_barograph.MeanEmbedding.fit(_rows(rows), _integer("features", features, 4096), _seed(seed)))

    def empty(self) -> MeanEmbedding:
        """Another sketch with the same features and no rows."""
        return self._of(self._native.empty())

    def mmd(self, other: MeanEmbedding) -> float:
        """The squared maximum mean discrepancy: at least 0, about 1/n + 1/m for equal laws. Both sides need a row."""
        return self._native.mmd(other._native)

    def merge(self, other: MeanEmbedding) -> None:
        """Adds another's rows; both must have the same features."""
        self._native.merge(other._native)

    def subtract(self, other: MeanEmbedding) -> None:
        """Takes another's rows away again; IncompatibleError where it holds more rows than this one."""
        self._native.subtract(other._native)

    @classmethod
    def from_bytes(cls, data: bytes) -> MeanEmbedding:
        """Reads a snapshot. Raises SnapshotError for anything else."""
        return cls._of(_barograph.MeanEmbedding.from_bytes(as_bytes(data)))


class SlicedProjections(_RowSketch):
    """Histograms of rows along random directions: the sliced Wasserstein distance of two streams, with the interval that holds it.

    `fit(rows)` scales columns by the reference's rows and gives an empty sketch; `empty()` gives another with the same directions. Merging
    and order leave no trace. Rows with a value that is not finite are left out. Distances are in standard deviations of the reference.

    >>> rng = __import__("numpy").random.default_rng(0)
    >>> reference = SlicedProjections.fit(rng.normal(size=(500, 3)))
    >>> reference.update_many(rng.normal(size=(500, 3)))
    >>> current = reference.empty()
    >>> current.update_many(rng.normal(1, 1, size=(500, 3)))
    >>> 0.5 < reference.sliced_wasserstein(current).value < 1.2
    True
    """

    _native: _barograph.SlicedProjections

    def __init__(self) -> None:
        raise InvalidArgumentError("SlicedProjections need rows to scale their columns by", "call `SlicedProjections.fit(rows)`")

    @classmethod
    def _of(cls, native: _barograph.SlicedProjections) -> SlicedProjections:
        out = cls.__new__(cls)
        out._native = native
        return out

    @classmethod
    def fit(cls, rows: ArrayLike, directions: int = 64, seed: int = 0) -> SlicedProjections:
        """An empty sketch scaled by these rows, at least 20; directions in [1, 256]."""
        return cls._of(_barograph.SlicedProjections.fit(_rows(rows), _integer("directions", directions, 256), _seed(seed)))

    def empty(self) -> SlicedProjections:
        """Another sketch with the same directions and no rows."""
        return self._of(self._native.empty())

    def sliced_wasserstein(self, other: SlicedProjections) -> Score:
        """The mean of the directions' Wasserstein-1 distances; `contributions`: each of them. Both sides need a row."""
        return Score._of(self._native.sliced_wasserstein(other._native))

    def merge(self, other: SlicedProjections) -> None:
        """Adds another's rows; both must have the same directions."""
        self._native.merge(other._native)

    def subtract(self, other: SlicedProjections) -> None:
        """Takes another's rows away again; IncompatibleError where it holds rows that are not in this one."""
        self._native.subtract(other._native)

    @classmethod
    def from_bytes(cls, data: bytes) -> SlicedProjections:
        """Reads a snapshot. Raises SnapshotError for anything else."""
        return cls._of(_barograph.SlicedProjections.from_bytes(as_bytes(data)))


def _integer(argument: str, value: Any, most: int) -> int:
    if not isinstance(value, int) or not 1 <= value <= most:
        raise InvalidArgumentError(f"`{argument}` must be an integer in [1, {most}], got {value!r}")
    return value


def _seed(value: Any) -> int:
    if not isinstance(value, int) or not 0 <= value < 1 << 64:
        raise InvalidArgumentError(f"`seed` must be an integer in [0, 2**64), got {value!r}")
    return value


def _rows(values: Any) -> NDArray[np.float64]:
    import numpy as np

    try:
        array = np.ascontiguousarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InvalidArgumentError(f"`rows` must hold rows of numbers, got {type(values).__name__}") from error
    if array.ndim != 2:
        raise InvalidArgumentError(f"`rows` must have two dimensions, rows and columns, got {array.ndim}")
    return array


def _array(values: Any, width: int | None = None) -> NDArray[np.float64] | None:
    import numpy as np

    if values is None:
        return None
    array = np.array(values, dtype=np.float64)
    return array if width is None else array.reshape(width, width)
