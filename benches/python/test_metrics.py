"""All metrics in one pass beside scikit-learn's AUC alone: binary_metrics, multiclass_metrics, regression_metrics, ranking_metrics."""

import barograph as bg
import numpy as np
import pytest

N = 2_000_000
RNG = np.random.default_rng(0)
SCORE = RNG.random(N)
LABEL = (RNG.random(N) < SCORE).astype(float)


def test_binary_metrics(benchmark):
    def run():
        m = bg.metrics.BinaryMetrics()
        m.update_many(LABEL, SCORE)
        return m.to_dict()

    benchmark.pedantic(run, rounds=3, warmup_rounds=1)


def test_sklearn_roc_auc(benchmark):
    metrics = pytest.importorskip("sklearn.metrics")
    benchmark.pedantic(metrics.roc_auc_score, (LABEL[:200_000], SCORE[:200_000]), rounds=2)


def test_regression_metrics(benchmark):
    benchmark.pedantic(lambda: bg.metrics.RegressionMetrics().update_many(LABEL, SCORE), rounds=3)


def test_multiclass_metrics(benchmark):
    classes = RNG.integers(0, 5, 100_000)
    benchmark.pedantic(lambda: bg.metrics.MulticlassMetrics(range(5)).update_many(classes, classes), rounds=3)


def test_ranking_metrics(benchmark):
    relevance, scores = RNG.integers(0, 4, (10_000, 20)).astype(float), RNG.random((10_000, 20))
    benchmark.pedantic(lambda: bg.metrics.RankingMetrics(k=10).update_many(relevance, scores), rounds=3)
