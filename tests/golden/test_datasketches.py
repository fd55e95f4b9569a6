"""Bytes that Apache DataSketches reads, and bytes that it wrote."""

import barograph as bg
import datasketches as ds
import numpy as np
import pytest


@pytest.mark.parametrize("n", [0, 1, 2, 100, 3000, 200_000, 2_000_000])
@pytest.mark.parametrize("k", [8, 200, 1000])
def test_kll_both_ways(n, k):
    x = np.random.default_rng(n).normal(size=n)
    h = bg.sketches.ExponentialHistogram(8)
    h.update_many(x)
    updated = bg.sketches.Kll(k)
    updated.update_many(x)
    for ours in (bg.sketches.Kll.from_histogram(h, k), updated):
        theirs = ds.kll_doubles_sketch.deserialize(ours.to_bytes())
        assert (theirs.n, theirs.k) == (n, k)
        if n >= 3000 and k >= 200:
            for q in (0.01, 0.25, 0.5, 0.9, 0.99):
                rank = np.mean(x <= theirs.get_quantile(q))
                assert abs(rank - q) < 4 / k, (q, rank)
    theirs = ds.kll_doubles_sketch(k)
    theirs.update(x)
    read = bg.sketches.Kll.from_bytes(theirs.serialize())
    assert read.count == n
    # Ours gives the exact extremes at 0 and 1, theirs what it kept.
    assert (read.quantile(0), read.quantile(1)) == ((x.min(), x.max()) if n else (None, None))
    for q in (0.1, 0.5, 0.77):
        assert read.quantile(q) == (theirs.get_quantile(q, True) if n else None)
    read.merge(updated)
    assert ds.kll_doubles_sketch.deserialize(read.to_bytes()).n == 2 * n


@pytest.mark.parametrize("n", [0, 1, 7, 40, 300, 5000, 300_000])
@pytest.mark.parametrize("lg_k", [4, 12, 16])
@pytest.mark.parametrize("kind", ["HLL_4", "HLL_6", "HLL_8"])
def test_hll_both_ways(n, lg_k, kind):
    ours = bg.sketches.Hll(lg_k)
    ours.update_many(np.arange(n))
    theirs = ds.hll_sketch(lg_k, getattr(ds.tgt_hll_type, kind))
    for value in range(n):
        theirs.update(value)
    for data in (theirs.serialize_compact(), theirs.serialize_updatable()):
        assert bg.sketches.Hll.from_bytes(data).to_bytes() == ours.to_bytes()
    back = ds.hll_sketch.deserialize(ours.to_bytes())
    spread = 5 * 1.04 / 2 ** (lg_k / 2)
    assert back.get_estimate() == pytest.approx(n, rel=spread, abs=0.5)
    assert ours.estimate == pytest.approx(n, rel=spread, abs=0.5)


def test_hll_hashes_text_and_floats_as_datasketches_does():
    for values in (["a", "", "Zürich", "a much longer name than sixteen bytes"], [0.0, -0.0, 1.5, float("nan"), float("inf"), 3.0]):
        ours, theirs = bg.sketches.Hll(), ds.hll_sketch(12)
        ours.update_many(values)
        for value in values:
            theirs.update(value)
        assert bg.sketches.Hll.from_bytes(theirs.serialize_compact()).to_bytes() == ours.to_bytes()


@pytest.mark.parametrize("n", [0, 1, 2, 4000, 5000, 200_000])
@pytest.mark.parametrize("lg_k", [5, 12])
def test_theta_both_ways(n, lg_k):
    ours, theirs = bg.sketches.Theta(lg_k), ds.update_theta_sketch(lg_k)
    ours.update_many(np.arange(n))
    for value in range(n):
        theirs.update(value)
    back = ds.compact_theta_sketch.deserialize(ours.to_bytes())
    assert back.get_estimate() == pytest.approx(ours.estimate)
    assert ours.estimate == pytest.approx(n, rel=5 / 2 ** (lg_k / 2), abs=0.5)
    for compact in (theirs.compact(True), theirs.compact(False)):
        read = bg.sketches.Theta.from_bytes(compact.serialize(), lg_k)
        assert read.estimate == pytest.approx(theirs.get_estimate())
        # Both keep the smallest hashes: held to k, they are the same ones.
        read.merge(ours)
        assert read.to_bytes() == ours.to_bytes()


def test_theta_set_operations_agree():
    sides = []
    for values in (range(60_000), range(40_000, 90_000)):
        ours, theirs = bg.sketches.Theta(), ds.update_theta_sketch()
        ours.update_many(np.array(values))
        for value in values:
            theirs.update(value)
        sides.append((ours, theirs.compact()))
    (a, theirs_a), (b, theirs_b) = sides
    operation = ds.theta_intersection()
    operation.update(theirs_a)
    operation.update(theirs_b)
    for got, want, truth in (
        (a.intersection(b), operation.get_result(), 20_000),
        (a.difference(b), ds.theta_a_not_b().compute(theirs_a, theirs_b), 40_000),
    ):
        assert got.estimate == pytest.approx(truth, rel=0.1)
        assert want.get_estimate() == pytest.approx(truth, rel=0.1)


@pytest.mark.parametrize("n", [0, 1, 500, 50_000])
def test_frequent_items_both_ways(n):
    rng = np.random.default_rng(n)
    names = [f"n{int(x)}" for x in rng.zipf(1.5, n) % 5000] + ["Zürich"] * (n // 50)
    ours, theirs = bg.sketches.FrequentItems(8), ds.frequent_strings_sketch(8)
    ours.update_many(names)
    for name in names:
        theirs.update(name)
    truth = {name: names.count(name) for name in {"n1", "n2", "Zürich", "n4999"}}
    back = ds.frequent_strings_sketch.deserialize(ours.to_bytes())
    read = bg.sketches.FrequentItems.from_bytes(theirs.serialize())
    assert back.total_weight == read.count == ours.count == len(names)
    for name, count in truth.items():
        assert back.get_lower_bound(name) <= count <= back.get_upper_bound(name)
        for sketch in (ours, read):
            least, most = sketch.bounds(name)
            assert least <= count <= most
            assert most - least == sketch.error <= 3.5 / 256 * max(1, len(names))
        assert read.bounds(name) == (theirs.get_lower_bound(name), theirs.get_upper_bound(name))
    ours.merge(read)
    assert ours.count == 2 * len(names)


def test_hostile_bytes_are_errors():
    kll, hll, theta, frequent = bg.sketches.Kll(), bg.sketches.Hll(), bg.sketches.Theta(), bg.sketches.FrequentItems()
    kll.update_many(np.arange(5000.0))
    for sketch in (hll, theta, frequent):
        sketch.update_many(np.arange(5000))
    rng = np.random.default_rng(0)
    for make, data in ((type(sketch), sketch.to_bytes()) for sketch in (kll, hll, theta, frequent)):
        for cut in range(0, len(data), 1 + len(data) // 500):
            with pytest.raises(bg.errors.SnapshotError):
                make.from_bytes(data[:cut])
        for _ in range(2000):
            broken = bytearray(data)
            broken[rng.integers(60)] = rng.integers(256)
            try:
                sketch = make.from_bytes(bytes(broken))
            except bg.errors.SnapshotError:
                continue
            sketch.merge(make.from_bytes(sketch.to_bytes()))
    with pytest.raises(bg.errors.InvalidArgumentError, match="k"):
        bg.sketches.Kll(3)
    with pytest.raises(bg.errors.InvalidArgumentError, match="lg_k"):
        bg.sketches.Hll(30)
    with pytest.raises(bg.errors.IncompatibleError, match="lg_k"):
        bg.sketches.Hll(10).merge(bg.sketches.Hll(11))


@pytest.mark.parametrize("name", ["Hll", "Theta", "FrequentItems", "Sample"])
def test_names_are_the_same_in_any_container(name):
    import polars as pl
    import pyarrow as pa

    names = [f"n{i % 700}" for i in range(5000)]
    made = []
    for container in (
        names,
        np.array(names),
        pl.Series(names),
        pl.Series(names).cast(pl.Categorical),
        pa.array(names),
        pa.chunked_array([names]),
        pa.array(names).dictionary_encode(),
    ):
        sketch = getattr(bg.sketches, name)()
        sketch.update_many(container)
        made.append(sketch.to_bytes())
    numbers = [getattr(bg.sketches, name)() for _ in range(2)]
    numbers[0].update_many(np.arange(100))
    numbers[1].update_many(pa.array(range(100)))
    assert numbers[0].to_bytes() == numbers[1].to_bytes()
    if name != "FrequentItems":
        assert len(set(made)) == 1
