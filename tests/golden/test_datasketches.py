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


def test_hostile_bytes_are_errors():
    kll, hll = bg.sketches.Kll(), bg.sketches.Hll()
    kll.update_many(np.arange(5000.0))
    hll.update_many(np.arange(5000))
    rng = np.random.default_rng(0)
    for make, data in ((bg.sketches.Kll, kll.to_bytes()), (bg.sketches.Hll, hll.to_bytes())):
        for cut in range(0, len(data), 13):
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
