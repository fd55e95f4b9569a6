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


def signed(n=50_000):
    x = np.random.default_rng(3).lognormal(2, 2, n)
    return np.concatenate([x, -x[: n // 3], np.zeros(17)])


def otlp_cells(document):
    base = 2 ** (2 ** -document["scale"])
    cells = {0.0: document["zeroCount"]}
    for name, sign in (("positive", 1), ("negative", -1)):
        side = document[name]
        for at, count in enumerate(side["bucketCounts"]):
            if count:
                cells[sign * base ** (side["offset"] + at + 1)] = count
    return cells


def prometheus_cells(document):
    base = 2 ** (2 ** -document["schema"])
    cells = {0.0: document["zero_count"]}
    for name, sign in (("positive", 1), ("negative", -1)):
        index = count = 0
        deltas = iter(document[f"{name}_delta"])
        for span in document[f"{name}_span"]:
            index += span["offset"]
            for _ in range(span["length"]):
                count += next(deltas)
                cells[sign * base**index] = count
                index += 1
        assert next(deltas, None) is None
    return cells


@pytest.mark.parametrize("scale", [0, 3, 6, 8])
def test_exports_carry_every_counter(scale):
    h = bg.sketches.ExponentialHistogram(scale)
    h.update_many(signed())
    outer = {(low if low < 0 else high): count for low, high, count in h.cells()}
    for cells in (otlp_cells(h.to_otlp()), prometheus_cells(h.to_prometheus())):
        assert sum(cells.values()) == h.count
        assert sorted(cells) == pytest.approx(sorted(outer), rel=1e-12)
        assert [cells[key] for key in sorted(cells)] == [outer[key] for key in sorted(outer)]
    empty = bg.sketches.ExponentialHistogram(scale)
    assert empty.to_otlp()["positive"] == {"offset": 0, "bucketCounts": []}
    assert empty.to_prometheus()["positive_span"] == []


def test_downscale_is_what_the_coarser_histogram_counts():
    fine = bg.sketches.ExponentialHistogram(8)
    fine.update_many(signed())
    for scale in range(9):
        coarse = bg.sketches.ExponentialHistogram(scale)
        coarse.update_many(signed())
        assert fine.downscale(scale).to_bytes() == coarse.to_bytes()
    with pytest.raises(bg.errors.InvalidArgumentError, match="scale"):
        coarse.downscale(0).downscale(3)


def test_subtract_undoes_merge_and_refuses_more():
    whole, part = bg.sketches.ExponentialHistogram(6), bg.sketches.ExponentialHistogram(6)
    whole.update_many(signed())
    before = whole.to_bytes()
    part.update_many(signed(1000) * 3)
    whole.merge(part)
    whole.subtract(part)
    assert whole.to_bytes() == before
    with pytest.raises(bg.errors.IncompatibleError, match="not in this one"):
        part.subtract(whole)


def test_ddsketch_reads_what_we_write():
    from ddsketch.pb.ddsketch_pb2 import DDSketch
    from ddsketch.pb.proto import DDSketchProto

    x = np.concatenate([np.random.default_rng(2).lognormal(3, 2, 50_000), [0.0] * 10, -np.random.default_rng(3).lognormal(0, 1, 5000)])
    h = bg.sketches.ExponentialHistogram(6)
    h.update_many(x)
    message = DDSketch.FromString(h.to_ddsketch())
    theirs = DDSketchProto.from_proto(message)
    assert theirs.count == len(x)
    assert theirs._mapping.gamma == pytest.approx(2**2**-6)
    s = np.sort(x)
    for q in (0.01, 0.05, 0.3, 0.5, 0.9, 0.999):
        want = s[int(q * (len(s) - 1))]
        assert abs(theirs.get_quantile_value(q) - want) <= abs(want) * h.relative_error * (1 + 1e-9), q


def test_a_shift_tells_narrow_values_apart():
    x = 1e9 + np.random.default_rng(4).normal(size=100_000)
    h = bg.sketches.ExponentialHistogram.fitted(x)
    h.update_many(x)
    again = bg.sketches.ExponentialHistogram.from_bytes(h.to_bytes())
    s = np.sort(x)
    for q in (0.01, 0.5, 0.99):
        want = s[int(np.ceil(q * len(s))) - 1]
        assert abs(again.quantile(q) - want) <= abs(want - h.shift) * h.relative_error + 2e-7
    for export in (h.to_otlp, h.to_prometheus, h.to_ddsketch):
        with pytest.raises(bg.errors.IncompatibleError, match="no shift"):
            export()
    with pytest.raises(bg.errors.IncompatibleError, match="same shift"):
        h.merge(bg.sketches.ExponentialHistogram())
