"""Deciding between two models: events going in, and a hundred decisions with three guards each."""

from datetime import UTC, datetime

import numpy as np
import polars as pl
from barograph.rollout import Rollout

NOW = datetime(2026, 3, 1, tzinfo=UTC)
GUARDS = ["error", "roc_auc", "latency"]
NAMES = {"label": "y", "prediction": "p", "score": "s", "latency_seconds": "t"}


def events(n, seed):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, n)
    return pl.DataFrame({"y": y, "p": rng.integers(0, 2, n), "s": rng.random(n), "t": rng.lognormal(size=n)})


def test_events(benchmark):
    frame, rollout = events(200_000, 0), Rollout("v1", "v2", guards=GUARDS)
    benchmark.pedantic(lambda: rollout.observe_frame(frame, version="v1", **NAMES), rounds=5)
    benchmark.extra_info["M events per second"] = 0.2 / benchmark.stats.stats.median if benchmark.stats else None


def test_a_hundred_decisions(benchmark):
    rollouts = [Rollout("v1", "v2", guards=GUARDS) for _ in range(100)]
    for seed, rollout in enumerate(rollouts):
        for at, version in enumerate(("v1", "v2")):
            rollout.observe_frame(events(1000, 2 * seed + at), version=version, **NAMES)
    benchmark(lambda: [rollout.decide(NOW) for rollout in rollouts])
