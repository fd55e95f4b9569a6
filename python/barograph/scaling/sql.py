"""Spark SQL's own sketches: profiles as rows that its DataSketches functions read, and references from the sketches it makes.

KLL, HLL and Theta are written in the bytes of Apache DataSketches, which `kll_merge_agg_double`, `hll_union_agg` and `theta_union_agg`
take; docs/guides/spark.md shows the SQL. Other engines with these sketches read them too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from barograph.errors import InvalidArgumentError

if TYPE_CHECKING:
    import polars as pl

    from barograph.profiles import Profile
    from barograph.references import Reference

__all__ = ["reference_of_sketches", "sketches"]

_HLL_LG_K = 12
_THETA_LG_K = 12
_MOST_VALUES = 100_000


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


def reference_of_sketches(columns: Mapping[str, bytes], *, bins: int = 100) -> Reference:
    """A reference of columns of numbers, from KLL sketches of doubles, such as Spark's `kll_sketch_agg_double` gives.

    columns: bytes by column name. bins: about so many, at most the sketches can tell apart: with Spark's k of 200 a rank is within 1.65 %,
    so 100 bins are the most that means anything. As many values as were seen, 100,000 at most, are put at even ranks: a reference of more
    rows is taken for one of 100,000, which makes tests no bolder. Nulls, names and distinct counts are not in a KLL; a comparison does not
    judge them. Raises SnapshotError for other bytes, InvalidArgumentError for an empty sketch.
    """
    import polars as pl

    from barograph.profiles import profile
    from barograph.references import Reference
    from barograph.schemas import Schema
    from barograph.sketches import Kll

    if not columns:
        raise InvalidArgumentError("`columns` must hold at least one sketch, got none")
    read = {name: Kll.from_bytes(data) for name, data in columns.items()}
    empty = next((name for name, kll in read.items() if kll.count == 0), None)
    if empty is not None:
        raise InvalidArgumentError(f"the sketch of column {empty!r} is empty")
    # A table has columns of one length: that of the shortest that counts in full.
    rows = min(_MOST_VALUES, *(kll.count for kll in read.values()))
    steps = min(rows, 1 << 12)
    values = {name: [kll.quantile((at + 0.5) / steps) for at in range(steps)] for name, kll in read.items()}
    table = pl.DataFrame(values, schema=dict.fromkeys(values, pl.Float64))
    repeated = table.with_columns(pl.lit(math.ceil(rows / steps)).alias("\0times"))
    whole = repeated.select(pl.exclude("\0times").repeat_by("\0times").explode()).head(rows)
    kinds = [{"name": name, "kind": "number", "role": "feature"} for name in values]
    return Reference(profile(whole, schema=Schema(kinds)), bins=bins)
