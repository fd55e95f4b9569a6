"""Estimates beside NannyML's: cbpe, pape, dle, prediction_powered_mean; and the sequences, per value and per look: mean_sequence,
quantile_sequence, asymptotic_sequence, auc_sequence, risk_alarm, calibration_alarm.
"""

import time

import numpy as np
import polars as pl
import pytest
from barograph import estimates

N = 1_000_000
RNG = np.random.default_rng(0)
SCORES = RNG.beta(1, 2, N)
LABELS = (RNG.random(N) < SCORES**1.2).astype(float)
PREDICTED = (SCORES >= 0.4).astype(float)


def per_second(benchmark, what, call, size=N, rounds=5):
    began = time.process_time()
    benchmark.pedantic(call, rounds=rounds)
    benchmark.extra_info[f"M {what} per CPU-s"] = rounds * size / (time.process_time() - began) / 1e6


def test_cbpe_fit(benchmark):
    per_second(benchmark, "rows", lambda: estimates.Cbpe.fit(SCORES, LABELS))


def test_cbpe_estimate(benchmark):
    estimate = estimates.Cbpe.fit(SCORES, LABELS).estimate([])
    per_second(benchmark, "rows", lambda: estimate.update_many(SCORES, y_pred=PREDICTED), rounds=20)


def test_cbpe_metrics_with_limits(benchmark):
    estimate = estimates.Cbpe.fit(SCORES, LABELS).estimate(SCORES, PREDICTED)
    benchmark(estimate.to_dict)


def test_nannyml_cbpe(benchmark):
    nannyml = pytest.importorskip("nannyml", reason="NannyML is not installed")
    frame = pl.DataFrame({"s": SCORES, "y": LABELS, "p": PREDICTED}).to_pandas()
    chosen = {"y_true": "y", "y_pred": "p", "y_pred_proba": "s", "problem_type": "classification_binary", "chunk_number": 10}
    fitted = nannyml.CBPE(metrics=["f1"], **chosen).fit(frame)
    per_second(benchmark, "rows", lambda: fitted.estimate(frame), rounds=1)


def test_pape(benchmark):
    x = RNG.normal(size=(50_000, 10))
    features = pl.DataFrame(x, schema=[f"x{i}" for i in range(10)])
    pape = estimates.Pape(features[:25_000], SCORES[:25_000], LABELS[:25_000])
    per_second(benchmark, "rows", lambda: pape.estimate(features[25_000:], SCORES[25_000:50_000]), 50_000, rounds=1)


def test_dle(benchmark):
    x = RNG.normal(size=(50_000, 10))
    features = pl.DataFrame(x, schema=[f"x{i}" for i in range(10)])
    dle = estimates.Dle(features, x[:, 0], x[:, 0] + RNG.normal(size=50_000))
    per_second(benchmark, "rows", lambda: dle.estimate(features, x[:, 0]), 50_000)


def test_prediction_powered_mean(benchmark):
    benchmark(estimates.prediction_powered_mean, LABELS[:2000], SCORES[:2000], SCORES[2000:])


MAKE = {
    "mean_sequence": (estimates.MeanSequence, (SCORES,)),
    "quantile_sequence": (lambda: estimates.QuantileSequence(0.99), (SCORES,)),
    "asymptotic_sequence": (estimates.AsymptoticSequence, (SCORES,)),
    "auc_sequence": (estimates.AucSequence, (LABELS, SCORES)),
    "risk_alarm": (lambda: estimates.RiskAlarm(SCORES[:10_000]), (SCORES,)),
    "calibration_alarm": (estimates.CalibrationAlarm, (LABELS, SCORES)),
}


@pytest.mark.parametrize("name", MAKE)
def test_sequence(benchmark, name):
    make, columns = MAKE[name]
    sequence = make()
    per_second(benchmark, "values", lambda: sequence.update_many(*columns), rounds=2)
    if hasattr(sequence, "interval"):
        began = time.process_time()
        for _ in range(100):
            assert sequence.interval is not None
        benchmark.extra_info["us CPU per look"] = (time.process_time() - began) * 1e4
