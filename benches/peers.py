"""One table: barograph beside its peers, workload by workload. `make bench` runs it; `python peers.py [WORD ...]` runs some.

Each case runs in a process of its own, in the environment its peer is pinned in, on the same numbers, and reports the least CPU time
of several rounds. Peers whose environment is missing are named as such.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "barograph" / "peers"
ENVIRONMENTS = {"own": Path(sys.executable), "nannyml": CACHE / "nannyml/bin/python", "evidently": CACHE / "evidently/bin/python"}
CASES: list[tuple[str, str, str, Callable[[], dict[str, Any]]]] = []
DRIFT_ROWS = 500_000


def case(workload: str, who: str, environment: str = "own"):
    def register(function):
        CASES.append((workload, who, environment, function))
        return function

    return register


def least(run: Callable[[], object], seconds: float = 3.0) -> float:
    """The least CPU time of a call, over calls of about so many seconds."""
    run()
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        began = time.process_time()
        run()
        best = min(best, time.process_time() - began)
    return best


def rate(run, work, unit, note="", scale=1.0):
    return {"value": work / least(run) / scale, "unit": unit, "more": True, "note": note}


def cost(run, work, unit, note="", scale=1.0):
    return {"value": least(run) / work * scale, "unit": unit, "more": False, "note": note}


def lognormal(n, seed=0):
    import numpy as np

    return np.random.default_rng(seed).lognormal(3, 1, n)


# W1: a mixed frame of ten columns

MIXED = "profile of a mixed frame"
CELLS = "M cells per CPU-s"


@case(MIXED, "barograph")
def _():
    import barograph as bg
    from frames import mixed

    frame = mixed(1_000_000, 1)
    return rate(lambda: bg.profile(frame), frame.height * frame.width, CELLS, scale=1e6)


@case(MIXED, "DataSketches KLL, HLL")
def _():
    import datasketches as ds
    import polars as pl
    from frames import mixed

    frame = mixed(200_000, 1)
    columns = [(frame[name].drop_nulls(), frame.schema[name].is_float()) for name in frame.columns]
    columns = [(column.cast(pl.Float64) if is_float else column, is_float) for column, is_float in columns]

    def run():
        for column, is_float in columns:
            if is_float:
                ds.kll_doubles_sketch(200).update(column.to_numpy().copy())
            else:
                sketch = ds.hll_sketch(12)
                for value in column.to_list():
                    sketch.update(value)

    return rate(run, frame.height * frame.width, CELLS, scale=1e6)


NUMERIC = "numeric columns on reference bins"


@case(NUMERIC, "barograph")
def _():
    import barograph as bg
    import polars as pl

    frame = pl.DataFrame({f"x{i}": lognormal(1_000_000, i) for i in range(4)})
    reference = bg.Reference(frame)
    return rate(lambda: bg.profile(frame, reference=reference), frame.height * frame.width, CELLS, scale=1e6)


@case(NUMERIC, "DataSketches KLL")
def _():
    import datasketches as ds

    x = lognormal(1_000_000)
    return rate(lambda: ds.kll_doubles_sketch(200).update(x), len(x), CELLS, scale=1e6)


@case(NUMERIC, "numpy min, max, sum")
def _():
    x = lognormal(1_000_000)
    return rate(lambda: (x.min(), x.max(), x.sum()), len(x), CELLS, "no sketch at all", scale=1e6)


# W2: drift of ten numeric columns, three of them codes

DRIFT = "drift of ten columns"
PER_COLUMN = "ms per column and M rows"


def _sides(rows=DRIFT_ROWS):
    import numpy as np

    def side(seed, shift):
        rng = np.random.default_rng(seed)
        zipf = np.minimum(rng.zipf(1.3, rows), 1000)
        return {
            "normal": rng.normal(shift, 1, rows),
            "lognormal": rng.lognormal(shift, 1, rows),
            "uniform": rng.random(rows) + shift,
            "pareto": rng.pareto(1.5, rows) + 1 + shift,
            "nearly_constant": np.where(rng.random(rows) < 0.99, 1.0, rng.random(rows)),
            "bimodal": np.where(rng.random(rows) < 0.5, rng.normal(-3, 1, rows), rng.normal(3 + shift, 1, rows)),
            "number": rng.integers(0, 1 << 62, rows),
            "small": rng.integers(0, 100, rows),
            "code": zipf,
            "five": rng.integers(0, 5, rows),
        }

    return side(1, 0.0), side(2, 0.1)


@case(DRIFT, "barograph compare")
def _():
    import barograph as bg
    import polars as pl

    reference, current = (pl.DataFrame(side) for side in _sides())
    schema = bg.Schema.infer(reference).with_kinds(code="number", five="number", small="number").with_roles(number="feature")
    made = bg.Reference(reference, schema=schema)
    return cost(lambda: bg.compare(made, current), 10 * DRIFT_ROWS / 1e6, PER_COLUMN, "all scores, reference made before", 1e3)


@case(DRIFT, "barograph Reference and compare")
def _():
    import barograph as bg
    import polars as pl

    reference, current = (pl.DataFrame(side) for side in _sides())
    schema = bg.Schema.infer(reference).with_kinds(code="number", five="number", small="number").with_roles(number="feature")
    run = lambda: bg.compare(bg.Reference(reference, schema=schema), current)  # noqa: E731
    return cost(run, 10 * DRIFT_ROWS / 1e6, PER_COLUMN, "", 1e3)


def _nannyml(both):
    import nannyml
    import pandas as pd

    reference, current = (pd.DataFrame(side) for side in _sides())
    codes = ["small", "code", "five"]
    for side in (reference, current):
        side[codes] = side[codes].astype("category")

    def fitted():
        calculator = nannyml.UnivariateDriftCalculator(
            column_names=list(reference.columns),
            treat_as_categorical=codes,
            continuous_methods=["jensen_shannon"],
            categorical_methods=["jensen_shannon"],
            chunk_number=10,
        )
        return calculator.fit(reference)

    ready = None if both else fitted()
    run = (lambda: fitted().calculate(current)) if both else (lambda: ready.calculate(current))
    return cost(run, 10 * DRIFT_ROWS / 1e6, PER_COLUMN, "one score", 1e3)


@case(DRIFT, "NannyML JS calculate", "nannyml")
def _():
    return _nannyml(False)


@case(DRIFT, "NannyML JS fit and calculate", "nannyml")
def _():
    return _nannyml(True)


@case(DRIFT, "numpy searchsorted, PSI")
def _():
    import numpy as np

    reference, current = (list(side.values()) for side in _sides())
    edges = [np.unique(np.quantile(x, np.linspace(0, 1, 11)))[1:-1].astype(float) for x in reference]

    def run():
        for x, e in zip(current, edges, strict=True):
            np.bincount(np.searchsorted(e, x), minlength=len(e) + 1)

    return cost(run, 10 * DRIFT_ROWS / 1e6, PER_COLUMN, "ten fixed edges", 1e3)


@case(DRIFT, "Evidently default preset", "evidently")
def _():
    import pandas as pd
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    rows = 100_000
    reference, current = (pd.DataFrame(side) for side in _sides(rows))
    codes = ["small", "code", "five"]
    definition = DataDefinition(numerical_columns=[c for c in reference if c not in codes], categorical_columns=codes)

    def run():
        sides = [Dataset.from_pandas(side, data_definition=definition) for side in (current, reference)]
        Report([DataDriftPreset()]).run(*sides).dict()

    return cost(run, 10 * rows / 1e6, PER_COLUMN, "100,000 rows", 1e3)


# W3 to W8

INSERT = "latency histogram insert"
VALUES = "M values per CPU-s"


@case(INSERT, "barograph")
def _():
    import barograph as bg

    x, h = lognormal(2_000_000), bg.sketches.ExponentialHistogram()
    return rate(lambda: h.update_many(x), len(x), VALUES, "every quantile within 0.54 %", scale=1e6)


@case(INSERT, "DataSketches KLL")
def _():
    import datasketches as ds

    x = lognormal(2_000_000)
    return rate(lambda: ds.kll_doubles_sketch(200).update(x), len(x), VALUES, scale=1e6)


@case(INSERT, "numpy sum")
def _():
    x = lognormal(2_000_000)
    return rate(x.sum, len(x), VALUES, "no sketch at all", scale=1e6)


SCALAR = "one value from Python"


def _calls(call):
    def run(call=call):
        for _ in range(200_000):
            call(0.017)

    return cost(run, 200_000, "ns per call", "the loop included", 1e9)


@case(SCALAR, "barograph")
def _():
    import barograph as bg

    return _calls(bg.sketches.ExponentialHistogram().update)


@case(SCALAR, "DataSketches KLL")
def _():
    import datasketches as ds

    return _calls(ds.kll_doubles_sketch(200).update)


@case(SCALAR, "an empty Python function")
def _():
    def nothing(x):
        pass

    return _calls(nothing)


ADWIN = "ADWIN"


def _errors():
    import numpy as np

    rng = np.random.default_rng(0)
    return (rng.random(1_000_000) < np.repeat(rng.uniform(0.1, 0.5, 20), 50_000)).astype(float)


@case(ADWIN, "barograph")
def _():
    import barograph as bg

    x = _errors()
    return rate(lambda: bg.detectors.Adwin().update_many(x), len(x), VALUES, scale=1e6)


@case(ADWIN, "river")
def _():
    from river import drift

    x = _errors()[:100_000].tolist()

    def run():
        detector = drift.ADWIN()
        for value in x:
            detector.update(value)

    return rate(run, len(x), VALUES, scale=1e6)


@case("e-detector on ranks", "barograph")
def _():
    import barograph as bg
    import numpy as np

    rng = np.random.default_rng(0)
    detector, x = bg.detectors.Rank(rng.normal(size=50_000)), rng.normal(size=1_000_000)
    return rate(lambda: detector.update_many(x), len(x), VALUES, scale=1e6)


KSWIN = "KSWIN"


@case(KSWIN, "barograph")
def _():
    import barograph as bg
    import numpy as np

    x = np.random.default_rng(0).normal(size=100_000)
    return rate(lambda: bg.detectors.Kswin().update_many(x), len(x), VALUES, scale=1e6)


@case(KSWIN, "river")
def _():
    import numpy as np
    from river import drift

    x = np.random.default_rng(0).normal(size=3000).tolist()

    def run():
        detector = drift.KSWIN(seed=0)
        for value in x:
            detector.update(value)

    return rate(run, len(x), VALUES, scale=1e6)


METRICS = "binary metrics"


def _scored(n=2_000_000):
    import numpy as np

    rng = np.random.default_rng(0)
    score = rng.random(n)
    return (rng.random(n) < score).astype(float), score


@case(METRICS, "barograph, all of them")
def _():
    import barograph as bg

    y, s = _scored()

    def run():
        m = bg.metrics.BinaryMetrics()
        m.update_many(y, s)
        m.to_dict()

    return rate(run, len(y), "M rows per CPU-s", scale=1e6)


@case(METRICS, "scikit-learn, AUC alone")
def _():
    from sklearn.metrics import roc_auc_score

    y, s = _scored(500_000)
    return rate(lambda: roc_auc_score(y, s), len(y), "M rows per CPU-s", scale=1e6)


@case(METRICS, "numpy, binned AUC")
def _():
    import numpy as np

    y, s = _scored()

    def run():
        cell = (s * 1024).astype(np.int32)
        both = np.bincount(cell, minlength=1025)
        positive = np.bincount(cell, weights=y, minlength=1025)
        return (positive * (np.cumsum(both - positive) - (both - positive) / 2)).sum()

    return rate(run, len(y), "M rows per CPU-s", "AUC within 1e-3 alone", scale=1e6)


LABELS = "metrics without labels (CBPE)"


@case(LABELS, "barograph, all of them")
def _():
    import barograph as bg

    y, s = _scored()
    cbpe = bg.estimates.Cbpe.fit(s, y)
    p = (s >= 0.4).astype(float)
    return rate(lambda: cbpe.estimate(s, p).to_dict(), len(y), "M rows per CPU-s", scale=1e6)


@case(LABELS, "barograph, calibration too")
def _():
    import barograph as bg

    y, s = _scored()
    return rate(lambda: bg.estimates.Cbpe.fit(s, y).estimate(s).to_dict(), len(y), "M rows per CPU-s", scale=1e6)


def _cbpe(both):
    import nannyml
    import pandas as pd

    y, s = _scored(200_000)
    frame = pd.DataFrame({"y": y, "s": s, "p": (s >= 0.4).astype(int)})
    chosen = {"y_true": "y", "y_pred": "p", "y_pred_proba": "s", "problem_type": "classification_binary", "chunk_number": 10}
    fit = lambda: nannyml.CBPE(metrics=["f1"], **chosen).fit(frame)  # noqa: E731
    ready = None if both else fit()
    run = (lambda: fit().estimate(frame)) if both else (lambda: ready.estimate(frame))
    return rate(run, len(y), "M rows per CPU-s", "F1 alone", scale=1e6)


@case(LABELS, "NannyML estimate", "nannyml")
def _():
    return _cbpe(False)


@case(LABELS, "NannyML fit and estimate", "nannyml")
def _():
    return _cbpe(True)


MERGE = "read and merge a profile"


@case(MERGE, "barograph, ten columns")
def _():
    import barograph as bg
    import polars as pl

    frame = pl.DataFrame(_sides(100_000)[0])
    total = bg.profile(frame)
    data = total.to_bytes()

    def run():
        for _ in range(100):
            total.merge(bg.Profile.from_bytes(data))

    return cost(run, 100, "us", f"{len(data) / 10:,.0f} bytes per column", 1e6)


@case(MERGE, "DataSketches KLL, ten sketches")
def _():
    import datasketches as ds

    total, part = ds.kll_doubles_sketch(200), ds.kll_doubles_sketch(200)
    part.update(lognormal(100_000))
    data = part.serialize()

    def run():
        for _ in range(1000):
            total.merge(ds.kll_doubles_sketch.deserialize(data))

    return cost(run, 100, "us", "quantiles alone", 1e6)


DISTINCT = "distinct integers"


@case(DISTINCT, "barograph")
def _():
    import barograph as bg
    import numpy as np

    x, sketch = np.arange(2_000_000), bg.sketches.Hll()
    return cost(lambda: sketch.update_many(x), len(x), "ns per value", "", 1e9)


@case(DISTINCT, "DataSketches HLL")
def _():
    import datasketches as ds

    x, sketch = list(range(200_000)), ds.hll_sketch(12)

    def run():
        for value in x:
            sketch.update(value)

    return cost(run, len(x), "ns per value", "one call per value", 1e9)


def main(words: list[str]) -> int:
    if words[:1] == ["--case"]:
        sys.path.insert(0, str(HERE / "python"))
        print(json.dumps(CASES[int(words[1])][3]()))
        return 0
    first: dict[str, float] = {}
    print(f"{'workload':<35}{'who':<34}{'':>10}  {'unit':<26}{'barograph is':<16}note")
    for number, (workload, who, environment, _) in enumerate(CASES):
        if words and not any(word in f"{workload} {who}" for word in words):
            continue
        python = ENVIRONMENTS[environment]
        if not python.exists():
            print(f"{workload:<35}{who:<34}{'not installed':>10}: `make bench-peers`")
            continue
        quiet = {"DO_NOT_TRACK": "1", "NML_DISABLE_USAGE_LOGGING": "1", "PYTHONWARNINGS": "ignore"}
        done = subprocess.run(
            [python, __file__, "--case", str(number)], capture_output=True, text=True, env=os.environ | quiet, check=False
        )
        if done.returncode:
            print(f"{workload:<35}{who:<34}failed: {(done.stderr.strip().splitlines() or ['?'])[-1]}")
            continue
        found = json.loads(done.stdout.strip().splitlines()[-1])
        ours = first.setdefault(workload, found["value"])
        times = ours / found["value"] if found["more"] else found["value"] / ours
        beside = "" if who.startswith("barograph") else f"{times:,.1f} times" if times >= 1 else f"1/{1 / times:,.1f}"
        print(f"{workload:<35}{who:<34}{found['value']:>10,.4g}  {found['unit']:<26}{beside:<16}{found['note']}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
