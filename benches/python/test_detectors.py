"""Each detector on a million errors beside river's: adwin, page_hinkley, ddm, eddm, hddm_a, hddm_w, kswin, cusum, ewma, rank."""

import barograph as bg
import numpy as np
import pytest

N = 1_000_000
ERRORS = (np.random.default_rng(0).random(N) < np.repeat(np.random.default_rng(1).uniform(0.1, 0.5, 20), N // 20)).astype(float)
MAKE = {
    "adwin": bg.detectors.Adwin,
    "page_hinkley": bg.detectors.PageHinkley,
    "ddm": bg.detectors.Ddm,
    "eddm": bg.detectors.Eddm,
    "hddm_a": bg.detectors.HddmA,
    "hddm_w": bg.detectors.HddmW,
    "kswin": bg.detectors.Kswin,
    "cusum": bg.detectors.Cusum,
    "ewma": bg.detectors.Ewma,
    "rank": lambda: bg.detectors.Rank(np.random.default_rng(2).normal(size=50_000)),
}


@pytest.mark.parametrize("name", MAKE)
def test_detector(benchmark, name):
    values = np.random.default_rng(3).normal(size=N) if name == "rank" else ERRORS
    benchmark.pedantic(lambda: MAKE[name]().update_many(values), rounds=3, warmup_rounds=1)
    benchmark.extra_info["M values per second"] = N / benchmark.stats.stats.min / 1e6 if benchmark.stats else None


def test_river_adwin(benchmark):
    drift = pytest.importorskip("river.drift", reason="river is not installed")

    def run():
        detector = drift.ADWIN()
        for value in ERRORS[:100_000]:
            detector.update(value)

    benchmark.pedantic(run, rounds=2)
