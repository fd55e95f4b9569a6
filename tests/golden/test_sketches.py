"""Cells of the exponential histogram against exact arithmetic."""

import json
from pathlib import Path

import barograph as bg
import numpy as np
import pytest

GOLDEN = json.loads((Path(__file__).parent / "sketches.json").read_text())


@pytest.mark.parametrize(("scale", "x", "lower", "upper"), GOLDEN["cells"])
def test_cells(scale, x, lower, upper):
    h = bg.sketches.ExponentialHistogram(scale)
    h.update_many([x, -x])
    (low, high, one), (positive_low, positive_high, two) = h.cells()
    assert (one, two) == (1, 1)
    assert (positive_low, positive_high) == (pytest.approx(lower, rel=1e-15), pytest.approx(upper, rel=1e-15))
    assert (low, high) == (-positive_high, -positive_low)
    assert positive_low < x <= positive_high


def test_bytes_round_trip_merge_and_quantiles():
    x = np.random.default_rng(1).lognormal(3, 1, 300_000)
    whole, parts = bg.sketches.ExponentialHistogram(6), [bg.sketches.ExponentialHistogram(6) for _ in range(2)]
    whole.update_many(x)
    parts[0].update_many(x[:1000])
    parts[1].update_many(x[1000:])
    parts[0].merge(parts[1])
    assert parts[0].to_bytes() == whole.to_bytes()
    assert bg.sketches.ExponentialHistogram.from_bytes(whole.to_bytes()).to_bytes() == whole.to_bytes()
    s = np.sort(x)
    for q in (0.5, 0.9, 0.99, 0.9999, 1.0):
        want = s[int(np.ceil(q * len(s))) - 1]
        assert abs(whole.quantile(q) / want - 1) <= whole.relative_error
    with pytest.raises(bg.errors.IncompatibleError, match="scale"):
        whole.merge(bg.sketches.ExponentialHistogram(5))
    with pytest.raises(bg.errors.InvalidArgumentError, match="scale"):
        bg.sketches.ExponentialHistogram(9)
