"""The dependence factor: 1 for independent rows, and a repair of the false alarms where days differ."""

import barograph as bg
import numpy as np
import polars as pl
import pytest


def days(seed, count, rows=1000, effect=0.2, first=0):
    """Rows of some days; each day's mean is drawn from a normal law of its own."""
    rng = np.random.default_rng(seed)
    day = np.repeat(np.arange(first, first + count), rows)
    x = rng.normal(size=count)[day - first] * effect + rng.normal(size=len(day))
    at = np.datetime64("2024-01-01", "s") + day * 86_400 + np.tile(np.arange(rows) * 80, count)
    return pl.DataFrame({"at": at.astype("datetime64[us]"), "x": x})


def formula(frame, hours):
    """The factor as its formula says, on deciles."""
    cuts = np.quantile(frame["x"].to_numpy(), np.arange(0.1, 1, 0.1))
    window = (frame["at"].dt.epoch("s") // (hours * 3600)).to_numpy()
    bins = np.searchsorted(cuts, frame["x"].to_numpy())
    c = np.array([np.bincount(bins[window == w], minlength=10) for w in np.unique(window)])
    p, size = c.sum(0) / c.sum(), c.sum(1, keepdims=True)
    return max(1.0, float(((c - size * p) ** 2 / (size * p)).sum() / ((len(c) - 1) * 9)))


def test_the_factor_is_its_formula_and_order_does_not_matter():
    frame = days(1, 40)
    factors = {f["hours"]: f["values"] for f in bg.Reference(frame).dependence("x")}
    assert list(factors) == [1, 6, 24, 168]
    for hours in (1, 6, 24):
        assert factors[hours] == pytest.approx(formula(frame, hours), rel=0.02), hours
    assert 4 < factors[24] < 6
    shuffled = bg.Reference(frame.sample(fraction=1.0, shuffle=True, seed=1))
    assert shuffled.dependence("x") == bg.Reference(frame).dependence("x")
    assert all(f["values"] < 1.4 for f in bg.Reference(days(2, 40, effect=0.0)).dependence("x"))


def test_it_survives_a_snapshot_and_is_absent_without_times():
    reference = bg.Reference(days(1, 10))
    assert bg.Reference.from_bytes(reference.to_bytes()).dependence("x") == reference.dependence("x")
    assert bg.Reference(days(1, 10).drop("at")).dependence("x") == []
    assert bg.Reference(days(1, 3)).dependence("x")[-1]["hours"] == 6


def test_names_and_nulls_have_factors_too():
    frame = days(3, 30).with_columns(name=pl.when(pl.col("x") > 0).then(pl.lit("up")).otherwise(pl.lit("down")))
    frame = frame.with_columns(holes=pl.when(pl.col("at").dt.day() % 7 != 0).then("x"))
    reference = bg.Reference(frame)
    names, holes = ({f["hours"]: f for f in reference.dependence(c)} for c in ("name", "holes"))
    assert names[24]["values"] > 5
    assert names[24]["nulls"] == 1
    # Whole days of nulls: the share of a day is 0 or 1.
    assert holes[24]["nulls"] > 500


def test_days_that_differ_raise_no_more_alarms_than_they_should():
    infos = {True: 0, False: 0}
    runs = 300
    for seed in range(runs):
        frame = days(seed, 29)
        reference, current = bg.Reference(frame[:28000]), frame[28000:]
        for dependence in infos:
            verdict = bg.compare(reference, current, dependence=dependence).to_dict()["verdict"]
            infos[dependence] += verdict in ("info", "warning", "critical")
    # 79 and 12 of them here; 0.36 and 0.05 in the derivation.
    assert infos[False] > 0.19 * runs, infos
    assert infos[True] < 0.08 * runs, infos


def test_a_report_says_what_it_did():
    frame = days(5, 29)
    reference = bg.Reference(frame[:28000])
    notes = bg.compare(reference, frame[28000:]).to_dict()["notes"]
    assert any("windows of 1 d" in note and " of x" in note for note in notes), notes
    assert "rows are taken as independent" in bg.compare(reference, frame[28000:], dependence=False).to_dict()["notes"]
    frame = days(5, 29, effect=1.0)
    reference = bg.Reference(frame[:28000])
    row = bg.compare(reference, frame[28000:]).to_frame().filter(pl.col("method") == "psi").row(0, named=True)
    assert row["verdict"] == "insufficient"
    assert "count as" in row["reason"]
    assert row["n_current"] == 1000
