"""Comparison of a million rows with a reference."""

import time

import barograph as bg
import numpy as np
import pytest
from frames import mixed

ROWS = 1_000_000
COLUMNS = ["f_normal", "f_lognormal", "f_uniform", "f_pareto", "f_bimodal", "i_small"]


@pytest.fixture(scope="module")
def sides():
    return mixed(ROWS, 1).select(COLUMNS), mixed(ROWS, 2, 0.1).select(COLUMNS)


def test_compare(benchmark, sides):
    reference = bg.Reference(sides[0])
    benchmark.pedantic(bg.compare, (reference, sides[1]), rounds=5, warmup_rounds=1)
    began = time.process_time()
    bg.compare(reference, sides[1])
    benchmark.extra_info["CPU-s per column"] = (time.process_time() - began) / len(COLUMNS)


def test_numpy_psi_on_fixed_edges(benchmark, sides):
    a, b = (side["f_normal"].drop_nulls().to_numpy() for side in sides)
    edges = np.quantile(a, np.linspace(0, 1, 11))

    def psi():
        p, q = (np.histogram(side, edges)[0] / len(side) + 1e-6 for side in (a, b))
        return ((p - q) * np.log(p / q)).sum()

    benchmark.pedantic(psi, rounds=3)


@pytest.mark.parametrize("what", ["calculate", "fit and calculate"])
def test_nannyml_jensen_shannon(benchmark, sides, what):
    nannyml = pytest.importorskip("nannyml", reason="nannyml is not installed")
    reference, current = (side.to_pandas() for side in sides)

    def fitted():
        made = nannyml.UnivariateDriftCalculator(column_names=COLUMNS, continuous_methods=["jensen_shannon"], chunk_number=10)
        return made.fit(reference)

    ready = fitted()
    run = (lambda: ready.calculate(current)) if what == "calculate" else (lambda: fitted().calculate(current))
    benchmark.pedantic(run, rounds=3)
