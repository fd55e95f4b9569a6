"""Labels with predictions: real ones, ties, one class only, constants, weights with zeros."""

from pathlib import Path

import numpy as np
import polars as pl

HERE = Path(__file__).parent


def _loans(weighted=False):
    frame = pl.read_parquet(HERE / "data" / "nannyml_car_loan.parquet").drop_nulls(["y_true", "y_score"])
    y, s = (frame[name].to_numpy().astype(float) for name in ("y_true", "y_score"))
    weight = np.random.default_rng(0).integers(0, 4, len(y)) * 0.7 if weighted else None
    return y, s, (s >= 0.5).astype(float), weight


def _seeded(n, rate, power, seed, ties=None):
    rng = np.random.default_rng(seed)
    s = rng.beta(1, 1 / rate - 1, n)
    s = np.round(s, ties) if ties else s
    y = (rng.random(n) < s**power).astype(float)
    return y, s, (s >= 0.3).astype(float), None


def _one_class(label):
    _, s, p, _ = _seeded(500, 0.5, 1, 3)
    return np.full(500, float(label)), s, p, None


BINARY = {
    "car loans": _loans,
    "car loans, weights with zeros": lambda: _loans(weighted=True),
    "rare positives": lambda: _seeded(60_000, 0.01, 1, 1),
    "overconfident": lambda: _seeded(20_000, 0.5, 3, 2),
    "only positives": lambda: _one_class(1),
    "only negatives": lambda: _one_class(0),
}


def _segments():
    frame = pl.read_parquet(HERE / "data" / "river_image_segments.parquet")
    classes = sorted(frame["category"].unique())
    y = np.array([classes.index(name) for name in frame["category"]])
    # A nearest-mean classifier on two columns, with softmax scores.
    x = frame.select("hue_mean", "rawred_mean").to_numpy()
    x = (x - x.mean(0)) / x.std(0)
    means = np.array([x[y == at].mean(0) for at in range(len(classes))])
    score = np.exp(-((x[:, None, :] - means[None]) ** 2).sum(2))
    score /= score.sum(1, keepdims=True)
    return y, score.argmax(1), score


def _three():
    rng = np.random.default_rng(5)
    score = rng.dirichlet([1, 2, 3], 4000)
    y = np.array([rng.choice(3, p=row) for row in score])
    return y, np.where(rng.random(4000) < 0.9, score.argmax(1), 0), score


MULTICLASS = {"image segments": _segments, "dirichlet": _three}


def _numbers(make):
    def pair():
        rng = np.random.default_rng(6)
        y = make(rng)
        return y, y + rng.normal(0.1, 1, len(y))

    return pair


REGRESSION = {
    "normal": _numbers(lambda rng: rng.normal(5, 2, 5000)),
    "far from zero": _numbers(lambda rng: rng.normal(1e7, 1, 5000)),
    "with zeros": _numbers(lambda rng: rng.integers(0, 3, 5000).astype(float)),
    "constant": _numbers(lambda rng: np.full(1000, 3.0)),
}


def _lists(ties):
    def pair():
        rng = np.random.default_rng(8)
        y = rng.integers(0, 4, (400, 12)) * (rng.random((400, 12)) < 0.3)
        s = y + rng.normal(0, 2, y.shape)
        return y.astype(float), np.round(s) if ties else s

    return pair


RANKING = {"no ties": _lists(False), "ties": _lists(True)}
