"""Spark SQL's own sketches: profiles as rows that its DataSketches functions read, and references from the sketches it makes.

KLL, HLL and Theta are written in the bytes of Apache DataSketches, which `kll_merge_agg_double`, `hll_union_agg` and `theta_union_agg`
take; docs/guides/spark.md shows the SQL. Other engines with these sketches read them too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from barograph.errors import InvalidArgumentError

if TYPE_CHECKING:
    import polars as pl

    from barograph.profiles import Profile
    from barograph.references import Reference
    from barograph.sketches import Kll

__all__ = ["reference_of_sketches", "sketches"]

_HLL_LG_K = 12
_THETA_LG_K = 12
_MOST_VALUES = 100_000
# More ranks than any sketch of a sensible size tells apart.
_MOST_STEPS = 4096


def sketches(profile: Profile, *, k: int = 200) -> pl.DataFrame:
    """One row per column: counts, and its sketches as bytes of Apache DataSketches.

    Columns: `column`, `kind`, `role`, `count`, `null_count`, `mean`, `std`, `min`, `max`; `kll` of the finite values (`k` as in Spark's
    second argument; ranks within 1.65 % for 200, values within 0.54 % besides); `hll` and `theta` of the names of a category (lg_k of 12,
    as Spark's defaults; text hashes as in Spark), null for numbers, of which a profile keeps no set, and for columns with more than 8,192
    names, of which it keeps the frequent ones only.
    """
    import polars as pl

    from barograph.sketches import Hll, Theta

    rows = []
    for name in profile:
        column = profile[name]
        counted = column.top_k(1 << 20) or []
        names = [one for one, _ in counted]
        # Where names were given up, the counts of those that are left are not all there is.
        whole = column.kind == "category" and bool(names) and sum(count for _, count in counted) + column.null_count == column.count
        hll, theta = Hll(_HLL_LG_K), Theta(_THETA_LG_K)
        if whole:
            hll.update_many(names)
            theta.update_many(names)
        rows.append(
            {
                "column": name,
                "kind": column.kind,
                "role": column.role,
                "count": column.count,
                "null_count": column.null_count,
                "mean": column.mean,
                "std": column.std,
                "min": column.min,
                "max": column.max,
                "kll": column.kll(k),
                "hll": hll.to_bytes() if whole else None,
                "theta": theta.to_bytes() if whole else None,
            }
        )
    words, wholes, floats, states = (
        ("column", "kind", "role"),
        ("count", "null_count"),
        ("mean", "std", "min", "max"),
        ("kll", "hll", "theta"),
    )
    schema = dict.fromkeys(words, pl.String) | dict.fromkeys(wholes, pl.Int64)
    return pl.DataFrame(rows, schema={**schema, **dict.fromkeys(floats, pl.Float64), **dict.fromkeys(states, pl.Binary)})


def reference_of_sketches(columns: Mapping[str, bytes], *, nulls: Mapping[str, float] | None = None, bins: int = 100) -> Reference:
    """A reference of columns of numbers, from KLL sketches of doubles, such as Spark's `kll_sketch_agg_double` gives.

    columns: bytes by column name. nulls: the share of nulls in [0, 1) by column name, which no sketch knows; 0 for those it lacks, and then
    a comparison takes every null for a change. bins: about so many, at most the sketches can tell apart: with Spark's k of 200 a rank is
    within 1.65 %, so 100 bins are the most that means anything. As many values as were seen, 100,000 at most, are put at even ranks: a
    reference of more rows is taken for one of 100,000, which makes tests no bolder. What lies beyond the extremes that a sketch has kept
    counts as out of range. Raises SnapshotError for other bytes, InvalidArgumentError for an empty sketch or a share out of range.
    """
    import polars as pl

    from barograph.profiles import profile
    from barograph.references import Reference
    from barograph.schemas import Schema
    from barograph.sketches import Kll

    if not columns:
        raise InvalidArgumentError("`columns` must hold at least one sketch, got none")
    read = {name: Kll.from_bytes(data) for name, data in columns.items()}
    for name, kll in read.items():
        if kll.count == 0:
            raise InvalidArgumentError(f"the sketch of column {name!r} is empty")
        if not 0.0 <= (nulls or {}).get(name, 0.0) < 1.0:
            raise InvalidArgumentError(f"`nulls` must be shares in [0, 1), got {(nulls or {})[name]!r} for column {name!r}")
    # A table has columns of one length: that of the sketch that saw least.
    rows = min(_MOST_VALUES, *(kll.count for kll in read.values()))
    made = {name: _at_even_ranks(kll, rows, (nulls or {}).get(name, 0.0)) for name, kll in read.items()}
    kinds = [{"name": name, "kind": "number", "role": "feature"} for name in made]
    return Reference(profile(pl.DataFrame(made), schema=Schema(kinds)), bins=bins)


def _at_even_ranks(kll: Kll, rows: int, nulls: float) -> pl.Series:
    """So many rows with the quantiles of a sketch, its extremes among them, and that share of nulls."""
    import polars as pl

    values = max(1, round(rows * (1.0 - nulls)))
    steps = min(values, _MOST_STEPS)
    found = [kll.quantile((at + 0.5) / steps) for at in range(steps)]
    found[0], found[-1] = kll.quantile(0.0), kll.quantile(1.0)
    whole = [found[at * steps // values] for at in range(values)]
    return pl.Series(whole + [None] * (rows - values), dtype=pl.Float64)
