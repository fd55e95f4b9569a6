"""Detectors against river's positions, and ours against its promise."""

import json
from pathlib import Path

import barograph as bg
import numpy as np
import pytest
import streams

GOLDEN = json.loads((Path(__file__).parent / "detectors.json").read_text())
FACES = {"adwin": "Adwin", "page_hinkley": "PageHinkley", "ddm": "Ddm", "eddm": "Eddm", "hddm_a": "HddmA", "hddm_w": "HddmW"}
LENGTH = 20_000


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda case: f"{case['detector']} {case['arguments'] or ''} {case['stream']}")
def test_positions_are_those_of_river(case):
    make = getattr(bg.detectors, FACES[case["detector"]])
    values = streams.STREAMS[case["stream"]]()
    assert make(**case["arguments"]).update_many(values).tolist() == case["positions"]
    one_by_one, restored = make(**case["arguments"]), make(**case["arguments"])
    found = [at for at, value in enumerate(values[:5000]) if one_by_one.update(value)]
    assert found == [at for at in case["positions"] if at < 5000]
    half = restored.update_many(values[:1234]).tolist()
    restored = make.from_bytes(restored.to_bytes())
    assert half + (restored.update_many(values[1234:]) + 1234).tolist() == case["positions"]


def test_kswin_has_the_law_of_river():
    alarms, delays = [], []
    for seed in range(streams.KSWIN_RUNS):
        alarms.append(len(bg.detectors.Kswin(seed=seed + 100).update_many(streams.unchanged(seed))))
        found = bg.detectors.Kswin(alpha=1e-4, seed=seed + 100).update_many(streams.shifted(seed))
        delays += (found[found >= 500] - 500).tolist()[:1]
    for got, want in ((alarms, GOLDEN["kswin"]["alarms"]), (delays, GOLDEN["kswin"]["delays"])):
        error = np.hypot(np.std(got) / np.sqrt(len(got)), np.std(want) / np.sqrt(len(want)))
        assert abs(np.mean(got) - np.mean(want)) < 3.5 * error, (np.mean(got), np.mean(want), error)
    whole, half = bg.detectors.Kswin(), bg.detectors.Kswin()
    values = streams.unchanged(0)
    want = whole.update_many(values).tolist()
    first = half.update_many(values[:777]).tolist()
    assert first + (bg.detectors.Kswin.from_bytes(half.to_bytes()).update_many(values[777:]) + 777).tolist() == want
    with pytest.raises(bg.errors.InvalidArgumentError, match="twice"):
        bg.detectors.Kswin(window_size=50)


LAWS = {
    "normal": lambda rng, n: rng.normal(size=n),
    "lognormal": lambda rng, n: rng.lognormal(sigma=2, size=n),
    "cauchy": lambda rng, n: rng.standard_cauchy(n),
    "discrete": lambda rng, n: rng.integers(0, 4, n).astype(float),
}


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("rows", [1000, 50_000])
def test_false_alarms_of_rank_stay_within_their_bound(law, rows):
    # One alarm expected at most per run of LENGTH = threshold values; more than 84 in 60 runs would happen once in 1,000
    # if alarms were Poisson at the bound.
    rng = np.random.default_rng([rows, len(law)])
    alarms = 0
    for _ in range(60):
        detector = bg.detectors.Rank(LAWS[law](rng, rows), threshold=LENGTH)
        alarms += len(detector.update_many(LAWS[law](rng, LENGTH)))
    assert alarms <= 84


def test_without_the_finite_reference_paid_for_the_bound_breaks():
    rng = np.random.default_rng(1)
    alarms = 0
    for _ in range(60):
        # A reference of 1,000 rows passed off as one of 10^9.
        values, counts = np.unique(rng.normal(size=1000), return_counts=True)
        plain = bg._barograph.Rank(values.tolist(), (counts * 10**6).tolist(), 0.0001, float(LENGTH))
        alarms += len(plain.update_many(rng.normal(size=LENGTH)))
    assert alarms > 84


@pytest.mark.parametrize(("shift", "longest"), [(1.0, 80), (0.5, 250), (0.25, 1500)])
def test_median_delay_of_rank(shift, longest):
    rng = np.random.default_rng(2)
    delays = []
    for _ in range(41):
        detector = bg.detectors.Rank(rng.normal(size=1_000_000))
        found = detector.update_many(rng.normal(shift, 1, 20_000))
        delays.append(found[0] if len(found) else 20_000)
    print(shift, np.median(delays))
    assert np.median(delays) <= longest


def test_rank_on_a_reference_agrees_with_rank_on_its_rows():
    rng = np.random.default_rng(3)
    rows = rng.normal(size=20_000)
    stream = rng.normal(0.5, 1, 3000)
    a = bg.detectors.Rank(bg.Reference({"x": rows}), "x").update_many(stream)
    b = bg.detectors.Rank(rows).update_many(stream)
    assert abs(int(a[0]) - int(b[0])) < 60


def test_values_outside_the_domain_change_nothing():
    for detector, bad in (
        (bg.detectors.Adwin(), np.nan),
        (bg.detectors.Ddm(), 1.5),
        (bg.detectors.Eddm(), 0.5),
        (bg.detectors.HddmA(), -1),
    ):
        before = detector.to_bytes()
        with pytest.raises(bg.errors.InvalidArgumentError, match="position 1"):
            detector.update_many([0.0, bad])
        assert detector.to_bytes() == before
    for make, arguments in (
        ("Adwin", {"delta": 2}),
        ("PageHinkley", {"mode": "x"}),
        ("Eddm", {"alpha": 0.5}),
        ("Cusum", {"warm_up": 0}),
        ("Ewma", {"weight": 0}),
    ):
        with pytest.raises(bg.errors.InvalidArgumentError, match=next(iter(arguments))):
            getattr(bg.detectors, make)(**arguments)
    with pytest.raises(bg.errors.SnapshotError, match="adwin"):
        bg.detectors.Ddm.from_bytes(bg.detectors.Adwin().to_bytes())


def test_charts_run_long_on_steady_streams_and_find_a_shift():
    rng = np.random.default_rng(4)
    for make, positions in ((bg.detectors.Cusum, (1000, 1100)), (bg.detectors.Ewma, (1000, 1100))):
        runs = [make().update_many(rng.normal(size=20_000)) for _ in range(20)]
        assert sum(len(run) for run in runs) < 60, make
        found = make().update_many(np.r_[rng.normal(size=1000), rng.normal(1, 1, 1000)])
        assert any(positions[0] <= at < positions[1] for at in found), make
