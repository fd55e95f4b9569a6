"""Columns of two frames as codes of common bins: ranges of numbers, names, nulls and values never seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import polars as pl
    from numpy.typing import NDArray

    from barograph.references import Reference

    Array: TypeAlias = NDArray[Any]

_NAMES = 30
_QUANTILE_ROWS = 100_000


@dataclass
class _Bins:
    """Bins that `before` fixed: `labels` as conditions; the first `ordinary` hold its values, the others what it has not, and nulls."""

    column: str
    ordinary: int
    labels: list[str]
    codes: tuple[Array, Array]
    edges: Array | None
    limits: tuple[float, float]
    new: list[tuple[Any, int]]

    @property
    def size(self) -> int:
        return len(self.labels)

    def merged(self, groups: int, keep: Sequence[int]) -> tuple[Array, list[str]]:
        """A new bin for each bin, and labels: neighbours united into `groups` where bins have an order, else all but `keep` as others."""
        import numpy as np

        special = self.labels[self.ordinary :]
        if self.edges is not None:
            groups = min(groups, self.ordinary)
            first = [-(-at * self.ordinary // groups) for at in range(groups + 1)]
            united = np.searchsorted(first, np.arange(self.ordinary), "right") - 1
            labels = [_between(self.column, self.edges, self.limits, start, end) for start, end in pairwise(first)]
        else:
            kept = {bin: at for at, bin in enumerate(keep)}
            # The first of the special ones of names is "other values".
            united = np.array([kept.get(bin, len(kept)) for bin in range(self.ordinary)], int)
            labels, groups = [self.labels[bin] for bin in keep], len(kept)
        lut = np.concatenate([united, groups + np.arange(len(special))]).astype(np.uint8)
        return lut, [*labels, *special]


def _between(column: str, edges: Array, limits: tuple[float, float], start: int, end: int) -> str:
    """The condition of bins `[start, end)`, of which bin i ends with edge i; the first begins and the last ends with a limit."""
    import numpy as np

    low = limits[0] if start == 0 else float(edges[start - 1])
    high = limits[1] if end > len(edges) else float(edges[end - 1])
    if np.nextafter(high, -np.inf) == low or (start == 0 and low == high):
        return f"{column} = {high:.6g}"
    # An edge next below another one was put there to let that value stand alone.
    just_below = end < len(edges) and np.nextafter(edges[end], -np.inf) == high
    last = float(edges[end]) if just_below else high
    return f"{low:.6g} {'<=' if start == 0 else '<'} {column} {'<' if just_below else '<='} {last:.6g}"


def _bins(column: str, old: pl.DataFrame, new: pl.DataFrame, most: int, reference: Reference | None, seed: int) -> _Bins | str:
    """The bins of a column and the codes of both frames' rows, or why there are none."""
    import polars as pl

    for side, frame in (("before", old), ("after", new)):
        if column not in frame.columns:
            return f"it is not there {side}"
    sides = [old[column], new[column]]
    numeric = [one.dtype.is_numeric() or one.dtype == pl.Null for one in sides]
    named = [one.dtype in (pl.String, pl.Categorical, pl.Boolean, pl.Null) or one.dtype == pl.Enum for one in sides]
    if all(numeric):
        values = [one.cast(pl.Float64).fill_nan(None) for one in sides]
        found = None if reference is None or column not in reference.schema.kinds else reference.bins(column)
        if found is not None or _many(values[0], most):
            return _number_bins(column, values, most, found, seed)
        return _name_bins(column, values)
    if all(named):
        return _name_bins(column, [one.cast(pl.String) for one in sides])
    kinds = f"{sides[0].dtype} before and {sides[1].dtype} after"
    return f"it is {kinds}" if sides[0].dtype != sides[1].dtype else f"{sides[0].dtype} is not cut into bins"


def _many(values: pl.Series, most: int) -> bool:
    """Whether there are more different values than that; mostly the first rows tell."""
    known = values.drop_nulls()
    return bool(known.head(1000).n_unique() > most or known.n_unique() > most)


def _number_bins(column: str, values: list[pl.Series], most: int, found: tuple[list[float], list[int]] | None, seed: int) -> _Bins | str:
    import numpy as np

    if found is not None:
        known, counts = np.asarray(found[0]), np.asarray(found[1], float)
        reached = np.cumsum(counts)[:-1] / max(counts.sum(), 1)
        at = np.minimum(np.searchsorted(reached, np.arange(1, most) / most), len(known) - 1)
        cuts, times = np.unique(at, return_counts=True)
        # A value that is heavier than a bin stands alone: the edge below it is one too.
        cuts = np.unique(np.concatenate([cuts, cuts[times > 1] - 1]))
        low, high = known[0], known[-1]
        edges = known[cuts[(cuts > 0) & (cuts < len(known) - 1)]]
    else:
        finite = values[0].drop_nulls().to_numpy()
        finite = finite[np.isfinite(finite)]
        if not len(finite):
            return _name_bins(column, values)
        low, high = np.nextafter(finite.min(), -np.inf), finite.max()
        if len(finite) > _QUANTILE_ROWS:
            finite = np.random.default_rng(seed).choice(finite, _QUANTILE_ROWS)
        cuts, times = np.unique(np.quantile(finite, np.arange(1, most) / most, method="inverted_cdf"), return_counts=True)
        edges = np.unique(np.concatenate([cuts, np.nextafter(cuts[times > 1], -np.inf)]))
        edges = edges[(edges > low) & (edges < high)]
    count = len(edges) + 1
    codes = []
    for one in values:
        numbers = one.fill_null(np.nan).to_numpy()
        code = np.zeros(len(numbers), np.uint8)
        for edge in edges:
            code += numbers > edge
        code[numbers <= low] = count
        code[numbers > high] = count + 1
        code[np.isnan(numbers)] = count + 2
        codes.append(code)
    limits = (float(np.nextafter(low, np.inf)), float(high))
    labels = [_between(column, edges, limits, at, at + 1) for at in range(count)]
    labels += [f"{column} < {limits[0]:.6g}, out of range", f"{column} > {high:.6g}, out of range", f"{column} is null"]
    return _Bins(column, count, labels, (codes[0], codes[1]), edges, limits, [])


def _name_bins(column: str, values: list[pl.Series]) -> _Bins | str:
    import numpy as np
    import polars as pl

    counts = [one.drop_nulls().value_counts(name="rows").rename({one.name: "value"}) for one in values]
    rows = len(values[0]) - values[0].null_count()
    if counts[0].height > max(_NAMES, rows / 2):
        return f"{counts[0].height:,} values in {rows:,} rows before: nearly each row has one of its own"
    known = counts[0].sort(["rows", "value"], descending=[True, False])["value"]
    first = known.head(_NAMES)
    other = len(first)
    codes = []
    for one in values:
        coded = one.replace_strict(first, np.arange(other, dtype=np.uint8), default=other + 1, return_dtype=pl.UInt8)
        code = coded.fill_null(other + 2).to_numpy().copy()
        code[one.is_null().to_numpy()] = other + 2
        if len(known) > other:
            code[(code == other + 1) & one.is_in(known.implode()).fill_null(False).to_numpy()] = other
        codes.append(code)
    unseen = counts[1].join(counts[0], on="value", how="anti").sort(["rows", "value"], descending=[True, False])
    labels = [f"{column} = {_short(value)}" for value in first]
    labels += [f"{column} of other values", f"{column} of values not there before", f"{column} is null"]
    return _Bins(column, other, labels, (codes[0], codes[1]), None, (0.0, 0.0), unseen.rows())


def _short(value: object) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 40 else text[:39] + "…"
