"""Each sketch of the catalogue beside numpy: exponential_histogram, kll, hll, theta, frequent_items, sample,
co_moments, mean_embedding, sliced_projections."""

import barograph as bg
import numpy as np
import polars as pl

X = np.random.default_rng(0).lognormal(3, 1, 2_000_000)


def test_exponential_histogram(benchmark):
    h = bg.sketches.ExponentialHistogram(6)
    benchmark.pedantic(h.update_many, (X,), rounds=5, warmup_rounds=1)


def test_numpy_sort(benchmark):
    benchmark.pedantic(np.sort, (X,), rounds=2)


def test_numpy_histogram(benchmark):
    edges = np.geomspace(X.min(), X.max(), 1001)
    benchmark.pedantic(np.histogram, (X, edges), rounds=2)


def test_kll_from_a_histogram(benchmark):
    h = bg.sketches.ExponentialHistogram(6)
    h.update_many(X)
    benchmark(bg.sketches.Kll.from_histogram, h)


def test_kll(benchmark):
    benchmark.pedantic(lambda: bg.sketches.Kll().update_many(X), rounds=2)


def test_hll(benchmark):
    values = np.arange(len(X))
    benchmark.pedantic(lambda: bg.sketches.Hll().update_many(values), rounds=3)


def test_theta(benchmark):
    values = np.arange(len(X))
    benchmark.pedantic(lambda: bg.sketches.Theta().update_many(values), rounds=3)


def test_sample(benchmark):
    values = np.arange(len(X))
    benchmark.pedantic(lambda: bg.sketches.Sample().update_many(values), rounds=3)


def test_frequent_items_of_a_dictionary_column(benchmark):
    names = pl.Series([f"n{i % 1000}" for i in range(1_000_000)], dtype=pl.Categorical)
    benchmark.pedantic(lambda: bg.sketches.FrequentItems().update_many(names), rounds=3)


ROWS = np.random.default_rng(1).normal(size=(100_000, 8))


def test_co_moments(benchmark):
    benchmark.pedantic(lambda: bg.sketches.CoMoments(8).update_many(ROWS), rounds=3)


def test_numpy_cov(benchmark):
    benchmark.pedantic(lambda: np.cov(ROWS.T), rounds=3)


def test_mean_embedding(benchmark):
    fitted = bg.sketches.MeanEmbedding.fit(ROWS[:1000])
    benchmark.pedantic(lambda: fitted.empty().update_many(ROWS[:20_000]), rounds=3)


def test_sliced_projections(benchmark):
    fitted = bg.sketches.SlicedProjections.fit(ROWS[:1000])
    benchmark.pedantic(lambda: fitted.empty().update_many(ROWS), rounds=3)
