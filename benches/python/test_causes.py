"""Why a metric changed, for a million rows a side and twenty columns."""

import barograph as bg
import numpy as np
import polars as pl
import pytest


def rows(n, seed, shift):
    rng = np.random.default_rng(seed)
    columns = {f"x{i}": rng.normal(shift if i == 0 else 0, 1, n) for i in range(16)}
    columns |= {f"c{i}": rng.choice(["a", "b", "c", "d"], n) for i in range(4)}
    wrong = rng.random(n) < 0.1 + 0.05 * (columns["x0"] > 1)
    truth = rng.integers(0, 2, n)
    return pl.DataFrame({**columns, "label": truth, "prediction": np.where(wrong, 1 - truth, truth)})


@pytest.mark.parametrize("size", [100_000, 1_000_000])
def test_explain(benchmark, size):
    before, after = rows(size, 0, 0.0), rows(size, 1, 0.5)
    features = [name for name in before.columns if name[0] in "xc"]
    benchmark.pedantic(lambda: bg.explain(before, after, features=features, segments=["c0"]), rounds=1)
