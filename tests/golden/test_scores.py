"""Scores against numpy and scipy on real columns; scores.json says which versions made the numbers."""

import json
import math
import sys
from pathlib import Path

import barograph as bg
import numpy as np
import polars as pl
import pytest
from scipy import stats

sys.path.insert(0, str(Path(__file__).parent))
import pairs  # beside this file

GOLDEN = json.loads((Path(__file__).parent / "scores.json").read_text())
close = pytest.approx


def compared(load):
    reference, current = load()
    kept = bg.Reference(pl.DataFrame({"x": reference}), schema=schema(reference))
    frame = pl.DataFrame({"x": current})
    report = bg.compare(kept, frame)
    return kept, bg.profile(frame, reference=kept), {row["method"]: row for row in report.to_dict()["rows"]}, report


def schema(series):
    return bg.Schema([{"name": "x", "kind": "number" if series.dtype.is_numeric() else "category", "role": "feature"}])


def check_counts(golden):
    a, b = golden["reference"], golden["current"]
    for name in ("jensen_shannon", "total_variation", "l_infinity", "kullback_leibler", "hellinger", "chi_square", "cramers_v"):
        assert getattr(bg.scores, name)(a, b).value == close(golden[name], rel=1e-9, abs=1e-12)
    assert bg.scores.chi_square(a, b).p_value == close(golden["chi_square_p"], rel=1e-8, abs=1e-300)
    want = golden["psi"]
    for tolerance, p in want["p"].items():
        got = bg.scores.psi(a, b, tolerance=float(tolerance))
        assert got.value == close(want["value"], rel=1e-9)
        assert got.p_value == close(p, rel=1e-6, abs=1e-13)
        assert got.lower == close(want["lower"], rel=1e-6, abs=1e-12)
        assert got.upper == close(want["upper"], rel=1e-6)
    assert sum(got.contributions) == close(want["value"], rel=1e-12)


@pytest.mark.parametrize("name", pairs.NUMBERS)
def test_numbers(name):
    golden = GOLDEN["numbers"][name]
    reference, current, rows, _ = compared(pairs.NUMBERS[name])
    for column, want in zip((reference.profile["x"], current["x"]), golden["summaries"], strict=True):
        for field in ("count", "null_count", "min", "max"):
            assert getattr(column, field) == want[field]
        assert column.mean == close(want["mean"], rel=1e-13)
        assert column.variance == close(want["variance"], rel=1e-12)
        for q, value in want["quantiles"].items():
            assert abs(column.quantile(float(q)) - value) <= 0.00542 * abs(value)
    for method in ("kolmogorov_smirnov", "wasserstein", "energy"):
        assert rows[method]["lower"] - 1e-12 <= golden[method] <= rows[method]["upper"] + 1e-12
    edges, counts = reference.bins("x")
    values = zip(counts[1:-1], edges, edges[1:], strict=False)
    heaviest = max((count for count, low, high in values if np.nextafter(low, np.inf) != high), default=0) / sum(counts)
    assert rows["kolmogorov_smirnov"]["upper"] - rows["kolmogorov_smirnov"]["lower"] <= heaviest + 1e-12
    check_counts(golden["deciles"])


@pytest.mark.parametrize("name", pairs.NUMBERS)
def test_what_the_report_computes_follows_from_counts_on_its_own_bins(name):
    reference, current, rows, report = compared(pairs.NUMBERS[name])
    edges, counts = reference.bins("x")
    for side, got in zip(pairs.NUMBERS[name](), (counts, current["x"].bin_counts), strict=True):
        values = side.drop_nulls().to_numpy().astype(float)
        assert got == np.bincount(np.searchsorted(edges, values, side="left"), minlength=len(edges) + 1).tolist()
    was, now = (column["x"] for column in (reference.profile, current))
    assert rows["null_share"]["value"] == close(now.null_count / now.count - was.null_count / was.count, abs=1e-15)
    outside = current["x"].bin_counts[0] + current["x"].bin_counts[-1]
    assert rows["out_of_range_share"]["value"] == close(outside / sum(current["x"].bin_counts))
    spread = (was.quantile(0.75) - was.quantile(0.25)) / 1.349
    if spread > 0:
        assert rows["wasserstein_normalised"]["value"] == close(rows["wasserstein"]["value"] / spread)
    a, b = (side.drop_nulls().to_numpy().astype(float) for side in pairs.NUMBERS[name]())
    clip = was.quantile(0.001), was.quantile(0.999)
    exact = stats.wasserstein_distance(np.clip(a, *clip), np.clip(b, *clip))
    assert rows["wasserstein_clipped"]["lower"] - 1e-12 <= exact <= rows["wasserstein_clipped"]["upper"] + 1e-12
    assert rows["kolmogorov_smirnov"]["p_value"] >= stats.kstwobign.sf(
        np.sqrt(len(a) * len(b) / (len(a) + len(b))) * rows["kolmogorov_smirnov"]["upper"]
    ) * (1 - 1e-9)
    assert not report.to_frame()["value"].is_nan().any()


@pytest.mark.parametrize("name", pairs.NAMES)
def test_names(name):
    golden = GOLDEN["names"][name]
    reference, current, rows, _ = compared(pairs.NAMES[name])
    counts = golden["counts"]
    for column, side in ((reference.profile["x"], "reference"), (current["x"], "current")):
        assert [column.name_count(key) for key in golden["names"]] == counts[side]
    total = sum(counts["current"]) + golden["unseen"]
    assert rows["unseen_share"]["value"] == close(golden["unseen"] / total, abs=1e-15)
    check_counts(counts)
    if len(golden["names"]) <= 50 and min(counts["reference"]) >= 10 and min(counts["current"]) >= 10:
        for method in ("jensen_shannon", "total_variation", "l_infinity"):
            assert rows[method]["value"] == close(counts[method], rel=1e-9)
        assert rows["psi"]["value"] == close(counts["psi"]["value"], rel=1e-9)


def test_limits_of_a_share():
    for count, total, alpha, lower, upper in GOLDEN["clopper_pearson"]:
        got = bg.scores.share_change((0, 1e12), (count, total), confidence=1 - alpha)
        # Against a reference share of 0 known exactly, the limits are those of the share alone.
        assert got.lower == close(lower, rel=1e-5, abs=1e-9)
        assert got.upper == close(upper, rel=1e-5, abs=1e-9)


def test_psi_total_does_not_depend_on_the_number_of_rows():
    shares = (np.array([0.25, 0.25, 0.5, 0.0]), np.array([0.2, 0.1, 0.4, 0.3]))
    values = [bg.scores.psi_total(n * shares[0], n * shares[1]).value for n in (100, 10_000, 10**9)]
    mixed = [0.999 * share + 0.001 / 4 for share in shares]
    want = float(np.sum((mixed[0] - mixed[1]) * np.log(mixed[0] / mixed[1])))
    assert values == [close(want, rel=1e-12)] * 3
    assert math.isfinite(want)


NANNYML = json.loads((Path(__file__).parent / "nannyml.json").read_text())["pairs"]


@pytest.mark.parametrize("name", NANNYML)
def test_distances_are_those_of_nannyml_on_its_counts(name):
    golden = NANNYML[name]
    a, b = golden["reference"], golden["current"]
    assert bg.scores.jensen_shannon(a, b).value == close(golden["jensen_shannon"], rel=1e-9)
    if "l_infinity" in golden:
        assert bg.scores.l_infinity(a, b).value == close(golden["l_infinity"], rel=1e-9)


@pytest.mark.parametrize("name", pairs.ROWS)
def test_rows(name):
    golden = GOLDEN["rows"][name]
    reference, current = pairs.ROWS[name]()
    got = {score: getattr(bg.scores, score)(reference, current) for score in golden if score != "pca_t"}
    # 256 waves and 64 directions are drawn, the goldens are exact or draw 2,000; folds differ.
    assert got["mmd"].value == close(golden["mmd"], rel=0.1, abs=1e-4)
    assert got["sliced_wasserstein"].value == close(golden["sliced_wasserstein"], rel=0.05)
    assert got["pca_reconstruction"].value == close(golden["pca_reconstruction"], rel=1e-9)
    reach = (got["pca_reconstruction"].upper - got["pca_reconstruction"].lower) / 2 / stats.norm.ppf(0.99)
    assert golden["pca_reconstruction"] / reach == close(golden["pca_t"], rel=1e-3)
    assert got["domain_classifier"].value == close(golden["domain_classifier"], abs=0.012)
    changed = name == "no correlation against 0.5"
    assert all((score.p_value <= 0.01) == changed for score in got.values()), {k: v.p_value for k, v in got.items()}


def test_a_name_that_comes_once_more_raises_the_distinct_share():
    reference = bg.Reference({"x": ["a", "b"] * 500})
    report = bg.compare(reference, {"x": ["a", "b", "c", "d"] * 250}).to_frame()
    assert report.filter(pl.col("method") == "distinct_share").row(0, named=True)["value"] == close(0.002)


def test_bad_rows_are_errors():
    good = np.zeros((30, 2))
    for bad, what in ((np.zeros((30, 3)), "same columns"), (np.zeros((5, 2)), "20 rows"), (np.zeros(30), "two dimensions")):
        with pytest.raises(bg.errors.InvalidArgumentError, match=what):
            bg.scores.mmd(good, bad)
    with pytest.raises(bg.errors.InvalidArgumentError, match="finite"):
        bg.scores.domain_classifier(good, np.full((30, 2), np.nan))
    with pytest.raises(bg.errors.InvalidArgumentError, match="share"):
        bg.scores.pca_reconstruction(good, good, share=2.0)
    # A constant side has nothing to tell apart.
    assert all(getattr(bg.scores, name)(good, good).p_value >= 0.3 for name in ("mmd", "sliced_wasserstein", "domain_classifier"))
    assert bg.scores.pca_reconstruction(good, good).value == 0
