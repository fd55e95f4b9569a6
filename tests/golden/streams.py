"""Streams with changes, seeded, and one that is real."""

from importlib.resources import files

import numpy as np
import polars as pl


def _steps(levels, seed, length=3000):
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.random(length) < level for level in levels]).astype(float)


def _normals(levels, seed, length=3000):
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.normal(level, 1, length) for level in levels])


def _late():
    flights = pl.read_parquet(str(files("barograph") / "data" / "flights_nyc_2013.parquet"))
    return flights["y_true"].drop_nulls().to_numpy()[:60_000].astype(float)


STREAMS = {
    "error rate 0.1 0.3 0.1 0.5": lambda: _steps([0.1, 0.3, 0.1, 0.5], 1),
    "error rate rising slowly": lambda: _steps(np.linspace(0.05, 0.5, 12), 2, 1000),
    "error rate steady": lambda: _steps([0.2] * 4, 3),
    "late flights": _late,
    "normal 0 1 0 3": lambda: _normals([0, 1, 0, 3], 4),
    "normal in millions": lambda: 1e6 + 10 * _normals([0, 2, 0], 5),
}
NUMBERS = {"normal 0 1 0 3", "normal in millions"}


KSWIN_RUNS = 40


def unchanged(seed):
    return np.random.default_rng([1, seed]).normal(size=2000)


def shifted(seed):
    """One standard deviation after 500 values."""
    return np.random.default_rng([2, seed]).normal(size=1000) + np.repeat([0.0, 1.0], 500)
