"""Mergeable summaries of one stream, used alone.

| sketch | answers | error | merge |
|---|---|---|---|
| `ExponentialHistogram` | quantiles, counts per cell | 0.54 % of the value at scale 6 | exact, any order |
| `Kll` | quantiles, for Apache DataSketches | 1.65 % of ranks at k = 200 | within its error |
| `Hll` | distinct values, for Apache DataSketches | 1.62 % at lg_k = 12 | exact, any order |
| `Theta` | distinct values of unions, intersections, differences | 1.6 % at lg_k = 12 | exact, any order |
| `FrequentItems` | names that come often, with bounds of their counts | 3.5 / 2**lg_size of all counts | within its error |
| `Sample` | a uniform sample of ids | none: the ids are real | exact, any order |
| `CoMoments` | means, covariances, correlations of up to 64 columns | rounding | within rounding |
| `MeanEmbedding` | the maximum mean discrepancy of two streams of rows | the kernel within 1 / √features | exact, any order |
| `SlicedProjections` | the sliced Wasserstein distance of two streams of rows | certified interval | exact, any order |
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from barograph import _barograph
from barograph.errors import IncompatibleError, InvalidArgumentError
from barograph.protobuf import ddsketch_message
from barograph.row_sketches import CoMoments, MeanEmbedding, SlicedProjections
from barograph.snapshots import Pickled, as_bytes

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike

__all__ = [
    "CoMoments",
    "ExponentialHistogram",
    "FrequentItems",
    "Hll",
    "Kll",
    "MeanEmbedding",
    "Sample",
    "SlicedProjections",
    "Theta",
]


class ExponentialHistogram(Pickled):
    """Counts in base-2 cells, both signs and zero: the bucket index of OpenTelemetry and Prometheus native histograms.

    scale: 2**scale cells per octave, 0 to 8. `quantile(q)` is the nearest-rank quantile within `relative_error`. NaN and infinities
    are left out. Memory: 8 bytes per cell of each octave in use; about 1 ns per value of an array.

    shift: what is taken from every value first, so that values that lie close together far from zero are told apart: the relative error is
    then one of the distance from it. `fitted(values)` chooses it. Exports know no shift.

    >>> h = ExponentialHistogram(scale=6)
    >>> h.update_many([1.0, 2.0, 4.0])
    >>> h.count, round(h.quantile(0.5), 2)
    (3, 1.99)
    """

    def __init__(self, scale: int = 6, shift: float = 0.0) -> None:
        if not isinstance(scale, int) or not 0 <= scale <= 8:
            raise InvalidArgumentError(f"`scale` must be an integer in [0, 8], got {scale!r}", "6 keeps quantiles within 0.54 %")
        self._adopt(_barograph.ExponentialHistogram(scale, float(shift)))

    @classmethod
    def fitted(cls, values: ArrayLike, scale: int = 6) -> ExponentialHistogram:
        """An empty histogram for values like these: shifted to their median where half of them lie within 1 % of it, else not.

        >>> ExponentialHistogram.fitted([1e9, 1e9 + 1, 1e9 + 2]).shift, ExponentialHistogram.fitted([1.0, 2.0, 4.0]).shift
        (1000000001.0, 0.0)
        """
        import numpy as np

        array = np.asarray(values, dtype=np.float64).reshape(-1)
        array = array[np.isfinite(array)]
        if not len(array):
            return cls(scale)
        low, middle, high = np.quantile(array, [0.25, 0.5, 0.75], method="inverted_cdf")
        return cls(scale, float(middle) if high - low <= 0.01 * abs(middle) else 0.0)

    def _adopt(self, native: _barograph.ExponentialHistogram) -> None:
        self._native = native
        # Bound once: a Python function around it would cost as much as the counting.
        self.update: Callable[[float], None] = native.update

    @classmethod
    def _of(cls, native: _barograph.ExponentialHistogram) -> ExponentialHistogram:
        out = cls.__new__(cls)
        out._adopt(native)
        return out

    def update_many(self, values: ArrayLike) -> None:
        """Counts the values of an array; `update(value)` counts one, in about 40 ns."""
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
    def shift(self) -> float:
        """What is taken from every value first."""
        return self._native.shift

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

    @property
    def zero_count(self) -> int:
        """Values of 0."""
        return self._native.zero_count

    def downscale(self, scale: int) -> ExponentialHistogram:
        """The same values in wider cells; exact, because cells nest. scale: at most that of this histogram."""
        if not isinstance(scale, int) or not 0 <= scale <= self.scale:
            raise InvalidArgumentError(f"`scale` must be an integer in [0, {self.scale}], got {scale!r}")
        return ExponentialHistogram._of(self._native.downscale(scale))

    def to_otlp(self) -> dict[str, Any]:
        """The counters of an OTLP ExponentialHistogramDataPoint, as its JSON names them; no counter is lost.

        `bucketCounts[j]` of `positive` counts values in `(base**(offset + j), base**(offset + j + 1)]`.
        """
        self._unshifted("OTLP")
        sides: dict[str, Any] = {}
        for name, negative in (("positive", False), ("negative", True)):
            cells = self._native.indexed(negative)
            offset = cells[0][0] if cells else 0
            counts = [0] * (cells[-1][0] - offset + 1) if cells else []
            for index, count in cells:
                counts[index - offset] = count
            sides[name] = {"offset": offset, "bucketCounts": counts}
        return {"count": self.count, "scale": self.scale, "zeroCount": self.zero_count, "zeroThreshold": 0.0, **sides}

    def to_prometheus(self) -> dict[str, Any]:
        """The counters of a Prometheus native histogram: schema, spans and deltas as in its protobuf message; no counter is lost.

        A span's offset is the first bucket's index, then the gap to the span before; bucket i ends at `base**i`.
        """
        self._unshifted("Prometheus")
        out: dict[str, Any] = {"schema": self.scale, "zero_threshold": 0.0, "zero_count": self.zero_count, "sample_count": self.count}
        for name, negative in (("positive", False), ("negative", True)):
            spans: list[dict[str, int]] = []
            deltas: list[int] = []
            end = before = 0
            for index, count in self._native.indexed(negative):
                # Prometheus numbers a bucket by its end, OpenTelemetry by its start.
                if not spans or index + 1 != end:
                    spans.append({"offset": index + 1 - end, "length": 0})
                spans[-1]["length"] += 1
                deltas.append(count - before)
                end, before = index + 2, count
            out |= {f"{name}_span": spans, f"{name}_delta": deltas}
        return out

    def to_ddsketch(self) -> bytes:
        """The protobuf message `DDSketch` with a logarithmic mapping of γ = 2**(2**-scale); no counter is lost.

        Readers take it as a sketch of relative accuracy `relative_error`.
        """
        self._unshifted("DDSketch")
        gamma = float(2.0**2.0**-self.scale)
        return ddsketch_message(gamma, self._native.indexed(False), self._native.indexed(True), self.zero_count)

    def _unshifted(self, format_name: str) -> None:
        if self.shift:
            raise IncompatibleError(
                f"{format_name} knows no shift, this histogram has one of {self.shift:g}", "count without a shift to export"
            )

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
        return cls._of(_barograph.ExponentialHistogram.from_bytes(as_bytes(data)))


class Kll(Pickled):
    """Quantiles in the bytes of Apache DataSketches' `kll_doubles_sketch`: what other systems read, and what they wrote.

    k: 8 to 65,535; 200 keeps two-sided ranks within 1.65 %. `from_histogram` makes one from cells already counted, so it costs
    nothing per event; the histogram's relative error comes on top. NaN and infinities are left out.
    """

    def __init__(self, k: int = 200) -> None:
        if not isinstance(k, int) or not 8 <= k <= 65_535:
            raise InvalidArgumentError(f"`k` must be an integer in [8, 65535], got {k!r}", "200 keeps ranks within 1.65 %")
        self._native = _barograph.Kll(k)

    @classmethod
    def _of(cls, native: _barograph.Kll) -> Kll:
        out = cls.__new__(cls)
        out._native = native
        return out

    @classmethod
    def from_histogram(cls, histogram: ExponentialHistogram, k: int = 200) -> Kll:
        """From the cells of a histogram."""
        return cls._of(_barograph.Kll.from_histogram(histogram._native, cls(k).k))

    def update_many(self, values: ArrayLike) -> None:
        """Adds the values of an array."""
        import numpy as np

        self._native.update_many(np.ascontiguousarray(values, dtype=np.float64).reshape(-1))

    @property
    def count(self) -> int:
        """Values seen."""
        return self._native.count

    @property
    def k(self) -> int:
        """The parameter."""
        return self._native.k

    def quantile(self, q: float) -> float | None:
        """The smallest kept value with rank at least q * count; None when empty."""
        return self._native.quantile(q)

    def merge(self, other: Kll) -> None:
        """Adds another sketch; the smaller k stays."""
        self._native.merge(other._native)

    def to_bytes(self) -> bytes:
        """Bytes for `kll_doubles_sketch.deserialize`."""
        return self._native.to_bytes()

    @classmethod
    def from_bytes(cls, data: bytes) -> Kll:
        """Reads what `kll_doubles_sketch.serialize` wrote. Raises SnapshotError for anything else."""
        return cls._of(_barograph.Kll.from_bytes(as_bytes(data)))


class Hll(Pickled):
    """Distinct values in the bytes of Apache DataSketches' `hll_sketch`; 2**lg_k registers, lg_k from 4 to 21.

    The state does not depend on order, so merged shards equal one stream. Integers, floats and text hash as in DataSketches.

    >>> h = Hll()
    >>> h.update_many(["a", "b", "a"])
    >>> round(h.estimate)
    2
    """

    def __init__(self, lg_k: int = 12) -> None:
        if not isinstance(lg_k, int) or not 4 <= lg_k <= 21:
            raise InvalidArgumentError(f"`lg_k` must be an integer in [4, 21], got {lg_k!r}", "12 gives 1.62 % in 4 KB")
        self._native = _barograph.Hll(lg_k)

    def update_many(self, values: ArrayLike) -> None:
        """Adds the values of an array or Series of integers, floats or text; dictionary columns are hashed once per name."""
        self._native.update_many(_keys(values))

    @property
    def estimate(self) -> float:
        """The estimated number of distinct values."""
        return self._native.estimate

    def merge(self, other: Hll) -> None:
        """Adds another sketch's values; both must have the same lg_k."""
        self._native.merge(other._native)

    def to_bytes(self) -> bytes:
        """Bytes for `hll_sketch.deserialize`."""
        return self._native.to_bytes()

    @classmethod
    def from_bytes(cls, data: bytes) -> Hll:
        """Reads what `hll_sketch` wrote, of any type. Raises SnapshotError for anything else."""
        out = cls.__new__(cls)
        out._native = _barograph.Hll.from_bytes(as_bytes(data))
        return out


class Theta(Pickled):
    """Distinct values with set operations, in the bytes of Apache DataSketches' compact Theta sketch.

    lg_k: 5 to 26. Exact up to 2**lg_k values, then a standard error of about 1 / √2**lg_k. The state does not depend on order.

    >>> a, b = Theta(), Theta()
    >>> a.update_many(range(1000))
    >>> b.update_many(range(800, 1200))
    >>> a.intersection(b).estimate, a.difference(b).estimate
    (200.0, 800.0)
    """

    def __init__(self, lg_k: int = 12) -> None:
        if not isinstance(lg_k, int) or not 5 <= lg_k <= 26:
            raise InvalidArgumentError(f"`lg_k` must be an integer in [5, 26], got {lg_k!r}", "12 gives 1.6 % in 32 KB")
        self._native = _barograph.Theta(lg_k)

    @classmethod
    def _of(cls, native: _barograph.Theta) -> Theta:
        out = cls.__new__(cls)
        out._native = native
        return out

    def update_many(self, values: ArrayLike) -> None:
        """Adds the values of an array or Series of integers, floats or text."""
        self._native.update_many(_keys(values))

    @property
    def estimate(self) -> float:
        """The estimated number of distinct values."""
        return self._native.estimate

    @property
    def retained(self) -> int:
        """Hashes kept."""
        return self._native.retained

    def merge(self, other: Theta) -> None:
        """Adds another sketch's values: the union. This one's lg_k stays."""
        self._native.merge(other._native)

    def intersection(self, other: Theta) -> Theta:
        """The values that are in both."""
        return Theta._of(self._native.intersection(other._native))

    def difference(self, other: Theta) -> Theta:
        """The values that are in this one and not in the other."""
        return Theta._of(self._native.difference(other._native))

    def to_bytes(self) -> bytes:
        """Bytes for `compact_theta_sketch.deserialize`."""
        return self._native.to_bytes()

    @classmethod
    def from_bytes(cls, data: bytes, lg_k: int = 12) -> Theta:
        """Reads what `compact().serialize()` wrote; the bytes do not hold lg_k. Raises SnapshotError for anything else."""
        return cls._of(_barograph.Theta.from_bytes(as_bytes(data), lg_k))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self).from_bytes, (self.to_bytes(), self._native.lg_k)


class FrequentItems(Pickled):
    """Names that come often, in the bytes of Apache DataSketches' `frequent_strings_sketch`.

    lg_size: 3 to 21; 0.75 * 2**lg_size names are kept. Every count is between its bounds, which are `error` apart: at most
    3.5 / 2**lg_size of all counts, and 0 while all names have room. Integers are counted by their decimal form.

    >>> f = FrequentItems()
    >>> f.update_many(["a", "b", "a"])
    >>> f.frequent()
    [('a', 2, 2), ('b', 1, 1)]
    """

    def __init__(self, lg_size: int = 10) -> None:
        if not isinstance(lg_size, int) or not 3 <= lg_size <= 21:
            raise InvalidArgumentError(f"`lg_size` must be an integer in [3, 21], got {lg_size!r}", "10 keeps 768 names")
        self._native = _barograph.FrequentItems(lg_size)

    def update_many(self, values: ArrayLike) -> None:
        """Counts the values of an array or Series of text or integers."""
        self._native.update_many(_keys(values))

    @property
    def count(self) -> int:
        """Values counted."""
        return self._native.total

    @property
    def error(self) -> int:
        """How far apart the bounds of a count are."""
        return self._native.error

    def bounds(self, name: str) -> tuple[int, int]:
        """`(at least, at most)` for a name."""
        return self._native.count(name)

    def frequent(self) -> list[tuple[str, int, int]]:
        """`(name, at least, at most)`, most frequent first; every name that came more than `error` times is among them."""
        return self._native.frequent()

    def merge(self, other: FrequentItems) -> None:
        """Adds another sketch's counts."""
        self._native.merge(other._native)

    def to_bytes(self) -> bytes:
        """Bytes for `frequent_strings_sketch.deserialize`."""
        return self._native.to_bytes()

    @classmethod
    def from_bytes(cls, data: bytes) -> FrequentItems:
        """Reads what `frequent_strings_sketch.serialize` wrote. Raises SnapshotError for anything else."""
        out = cls.__new__(cls)
        out._native = _barograph.FrequentItems.from_bytes(as_bytes(data))
        return out


class Sample(Pickled):
    """A uniform sample of ids: those with the k smallest seeded hashes.

    Order, batching and merging leave no trace, and an id that comes twice counts once. Integers are ids by their decimal form.

    >>> s = Sample(k=2, seed=1)
    >>> s.update_many(["tx-1", "tx-2", "tx-3"])
    >>> len(s.ids())
    2
    """

    def __init__(self, k: int = 1000, seed: int = 0) -> None:
        if not isinstance(k, int) or not 1 <= k <= 1 << 20:
            raise InvalidArgumentError(f"`k` must be an integer in [1, 1048576], got {k!r}")
        if not isinstance(seed, int) or not 0 <= seed < 1 << 64:
            raise InvalidArgumentError(f"`seed` must be an integer in [0, 2**64), got {seed!r}")
        self._native = _barograph.Sample(k, seed)

    def update_many(self, values: ArrayLike) -> None:
        """Offers the ids of an array or Series of text or integers."""
        self._native.update_many(_keys(values))

    @property
    def inclusion(self) -> float:
        """The probability with which each id of the stream is in the sample: 1 while all are. Weigh sums by its inverse."""
        return self._native.inclusion

    def ids(self) -> list[str]:
        """The ids, in the order of their hashes: any first part of them is a sample too."""
        return self._native.ids()

    def merge(self, other: Sample) -> None:
        """Adds another sample's stream; both must have the same k and seed."""
        self._native.merge(other._native)

    def to_bytes(self) -> bytes:
        """A snapshot; equal samples give equal bytes."""
        return self._native.to_bytes()

    @classmethod
    def from_bytes(cls, data: bytes) -> Sample:
        """Reads a snapshot. Raises SnapshotError for anything else."""
        out = cls.__new__(cls)
        out._native = _barograph.Sample.from_bytes(as_bytes(data))
        return out


def _is_numeric(dtype: Any, pyarrow: Any) -> bool:
    types = pyarrow.types
    return bool(types.is_integer(dtype) or types.is_floating(dtype) or types.is_boolean(dtype))


def _keys(values: Any) -> object:
    """An array of numbers, a list of names, or a frame of one column of names."""
    import numpy as np

    if hasattr(values, "to_frame") and hasattr(values, "__arrow_c_stream__"):
        kind = getattr(getattr(values, "dtype", None), "is_numeric", None)
        if kind is not None and not kind():
            return values.to_frame()
    pyarrow = sys.modules.get("pyarrow")
    if pyarrow is not None and isinstance(values, pyarrow.Array | pyarrow.ChunkedArray) and not _is_numeric(values.type, pyarrow):
        return pyarrow.table({"values": values})
    array = np.asarray(values).reshape(-1)
    if array.dtype.kind in "biu":
        # Unsigned integers beyond 2**63 keep their bits.
        wide = array.dtype.kind == "u" and array.dtype.itemsize == 8
        return np.ascontiguousarray(array).view(np.int64) if wide else np.ascontiguousarray(array, dtype=np.int64)
    if array.dtype.kind == "f":
        return np.ascontiguousarray(array, dtype=np.float64)
    return [str(value) for value in array]
