"""What people look at: a report of 200 columns, its cell and chart, and how long a program waits for `import barograph`."""

import subprocess
import sys

import barograph as bg
import numpy as np
import polars as pl
import pytest

ROWS = 5000


def wide(shift: float, seed: int) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    names = [f"n{at:02d}" for at in range(30)]
    numbers = {f"number_{at}": rng.normal(shift * (at % 7 == 0), 1 + at, ROWS) for at in range(140)}
    return pl.DataFrame({**numbers, **{f"name_{at}": rng.choice(names, ROWS) for at in range(60)}})


@pytest.fixture(scope="module")
def report():
    return bg.compare(bg.Reference(wide(0.0, 1)), wide(0.5, 2))


def test_report_as_html(benchmark, report):
    page = benchmark(report.to_html)
    benchmark.extra_info["MB"] = len(page.encode()) / 1e6
    # The bound that is promised; this frame takes 1.8.
    assert len(page.encode()) <= 2_000_000


def test_compare_and_report(benchmark):
    reference, current = bg.Reference(wide(0.0, 1)), wide(0.5, 2)
    benchmark.pedantic(lambda: bg.compare(reference, current).to_html(), rounds=5, warmup_rounds=1)


def test_report_as_cell(benchmark, report):
    benchmark(report._repr_html_)


def test_report_as_chart(benchmark, report):
    benchmark.pedantic(lambda: report.plot(columns=200).to_json(), rounds=5, warmup_rounds=1)


@pytest.mark.parametrize("code", ["import barograph", "import barograph; barograph.profile", "import numpy", "pass"])
def test_import(benchmark, code):
    benchmark.pedantic(subprocess.run, ([sys.executable, "-c", code],), {"check": True}, rounds=5)
