"""Sketches of rows against numpy, scipy and scikit-learn on the same rows."""

import barograph as bg
import numpy as np
import pytest
from scipy import stats
from sklearn.gaussian_process.kernels import RBF


def rows(n, seed, width=3, shift=0.0):
    rng = np.random.default_rng(seed)
    mixed = rng.normal(shift, 1, (n, width)) @ rng.normal(size=(width, width))
    return mixed * np.logspace(0, 3, width) + 1e4


def test_co_moments_are_numpys():
    x = rows(10_007, 1, 64)
    sketch = bg.sketches.CoMoments(64)
    for part in np.array_split(x, 7):
        sketch.update_many(part)
    np.testing.assert_allclose(sketch.means(), x.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(sketch.covariance(), np.cov(x.T), rtol=1e-9, atol=1e-6)
    np.testing.assert_allclose(sketch.correlation(), np.corrcoef(x.T), rtol=1e-9, atol=1e-11)
    odd = np.vstack([x, [[np.nan] * 64, [np.inf] + [0.0] * 63]])
    again = bg.sketches.CoMoments(64)
    again.update_many(odd)
    assert again.count == len(x)


def test_a_mean_embedding_knows_the_kernels_mmd():
    x, y = rows(400, 1), rows(300, 2, shift=0.3)
    sketch = bg.sketches.MeanEmbedding.fit(x, features=4096, seed=5)
    other = sketch.empty()
    sketch.update_many(x)
    other.update_many(y)
    a, b = ((side - x.mean(axis=0)) / x.std(axis=0, ddof=1) for side in (x, y))
    rng = np.random.default_rng(0)
    pairs = np.linalg.norm(a[rng.integers(0, 400, 20_000)] - a[rng.integers(0, 400, 20_000)], axis=1)
    kernel = RBF(np.median(pairs))
    want = kernel(a, a).mean() + kernel(b, b).mean() - 2 * kernel(a, b).mean()
    # 4,096 features know the kernel within 1.6 %, 1,000 pairs the median within about 5 %.
    assert sketch.mmd(other) == pytest.approx(want, rel=0.15)


def test_sliced_projections_hold_scipys_distance_along_an_axis():
    rng = np.random.default_rng(3)
    x, y = rng.normal(10, 2, (4000, 1)), rng.normal(11, 3, (5000, 1))
    sketch = bg.sketches.SlicedProjections.fit(x, directions=1)
    other = sketch.empty()
    sketch.update_many(x)
    other.update_many(y)
    score = sketch.sliced_wasserstein(other)
    want = stats.wasserstein_distance(x[:, 0], y[:, 0]) / x.std(ddof=1)
    assert score.lower <= want <= score.upper
    assert score.value == pytest.approx(want, rel=0.02)


@pytest.mark.parametrize("name", ["MeanEmbedding", "SlicedProjections"])
def test_order_leaves_no_trace_and_other_features_are_refused(name):
    x, face = rows(3000, 4), getattr(bg.sketches, name)
    whole = face.fit(x)
    left, right = whole.empty(), whole.empty()
    whole.update_many(x)
    right.update_many(x[::-1][:1000])
    left.update_many(x[:2000])
    left.merge(right)
    assert left.to_bytes() == whole.to_bytes() == face.from_bytes(whole.to_bytes()).to_bytes()
    left.subtract(right)
    assert left.count == 2000
    with pytest.raises(bg.errors.IncompatibleError, match=r"empty\(\)"):
        whole.merge(face.fit(x, seed=1))
    with pytest.raises(bg.errors.InvalidArgumentError, match="3 columns, got 2"):
        whole.update_many(x[:, :2])
    with pytest.raises(bg.errors.InvalidArgumentError, match="at least 20 rows"):
        face.fit(x[:3])
    with pytest.raises(bg.errors.InvalidArgumentError, match="fit"):
        face()
    for bad in (b"", whole.to_bytes()[:-9], bg.sketches.Sample().to_bytes()):
        with pytest.raises(bg.errors.SnapshotError):
            face.from_bytes(bad)


def test_co_moments_refuse_what_does_not_fit():
    with pytest.raises(bg.errors.InvalidArgumentError, match=r"\[1, 64\], got 65"):
        bg.sketches.CoMoments(65)
    one, two = bg.sketches.CoMoments(1), bg.sketches.CoMoments(2)
    with pytest.raises(bg.errors.IncompatibleError, match="got 1 and 2"):
        one.merge(two)
    two.update_many([[1.0, 2.0], [1.0, 3.0]])
    assert one.means() is None
    assert one.covariance() is None
    assert two.correlation() is None
    with pytest.raises(bg.errors.IncompatibleError, match="more rows"):
        bg.sketches.CoMoments(2).subtract(two)
    assert bg.sketches.CoMoments.from_bytes(two.to_bytes()).to_bytes() == two.to_bytes()
