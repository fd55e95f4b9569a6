"""Profiles as sketches for SQL, and references from the sketches of SQL, without an engine."""

import barograph as bg
import numpy as np
import polars as pl
import pytest
from barograph.errors import InvalidArgumentError, SnapshotError
from barograph.scaling.sql import reference_of_sketches, sketches
from barograph.sketches import Hll, Kll, Theta


def test_sketches_are_those_of_the_column_and_none_where_names_were_given_up():
    names = [f"n{at % 300}" for at in range(5000)]
    profile = bg.profile({"c": names, "x": [float(at) for at in range(5000)], "many": [f"m{at}" for at in range(5000)]})
    rows = {row["column"]: row for row in sketches(profile).to_dicts()}
    hll, theta = Hll(12), Theta(12)
    hll.update_many(sorted(set(names)))
    theta.update_many(sorted(set(names)))
    assert rows["c"]["hll"] == hll.to_bytes()
    assert Theta.from_bytes(rows["c"]["theta"]).estimate == 300
    assert Kll.from_bytes(rows["x"]["kll"]).quantile(0.5) == pytest.approx(2500, rel=0.05)
    assert rows["x"]["hll"] is None
    flood = bg.profile(
        {"c": [f"n{at}" for at in range(20_000)] * 2}, schema=bg.Schema([{"name": "c", "kind": "category", "role": "feature"}])
    )
    assert sketches(flood)["hll"].to_list() == [None]


def test_a_reference_of_sketches_stands_for_the_rows_they_saw():
    values = np.random.default_rng(3).lognormal(size=50_000)
    kll = Kll(800)
    kll.update_many(values)
    reference = reference_of_sketches({"x": kll.to_bytes()}, nulls={"x": 0.1}, bins=50)
    current = pl.Series("x", np.random.default_rng(4).lognormal(size=20_000)).to_frame()
    thinned = current.with_columns(pl.when(pl.int_range(20_000) % 10 > 0).then("x").alias("x"))
    assert not bg.compare(reference, thinned).drifted
    assert bg.compare(reference, thinned.select(pl.col("x") * 2)).drifted
    assert bg.compare(reference, current.with_columns(pl.when(pl.int_range(20_000) % 2 > 0).then("x").alias("x"))).drifted


def test_what_is_no_sketch_is_an_error():
    with pytest.raises(SnapshotError):
        reference_of_sketches({"x": b"nothing"})
    with pytest.raises(InvalidArgumentError, match="the sketch of column 'x' is empty"):
        reference_of_sketches({"x": Kll().to_bytes()})
    with pytest.raises(InvalidArgumentError, match="at least one sketch"):
        reference_of_sketches({})
    kll = Kll()
    kll.update_many([1.0])
    with pytest.raises(InvalidArgumentError, match=r"`nulls` must be shares in \[0, 1\), got 1.5"):
        reference_of_sketches({"x": kll.to_bytes()}, nulls={"x": 1.5})
