"""One state of every kind, what makes it, and the numbers that have to come out of its bytes.

What goes in is arithmetic, not random: it must be the same in ten years.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import barograph as bg
import numpy as np
import polars as pl

HOUR = timedelta(hours=1)
BEGAN = datetime(2026, 1, 5, tzinfo=UTC)


def spread(count: int, step: int = 7919) -> np.ndarray:
    """Numbers in [0, 1) without an order."""
    return (np.arange(count) * step % 10_007) / 10_007


def flags(count: int, step: int = 7919, share: float = 0.4) -> np.ndarray:
    return (spread(count, step) < share).astype(float)


def table(count: int, shift: float = 0.0, hour: int = 0) -> pl.DataFrame:
    """Events of an hour: numbers with nulls, infinities and an atom, names, booleans, text, times, roles."""
    x = spread(count) + shift
    return pl.DataFrame(
        {
            "x": [None if i % 50 == 0 else float("inf") if i % 333 == 0 else 0.25 if i % 9 == 0 else float(v) for i, v in enumerate(x)],
            "n": [i * 31 % 40 for i in range(count)],
            "name": [None if i % 41 == 0 else f"n{i * i % 17}" for i in range(count)],
            "flag": [i % 3 == 0 for i in range(count)],
            "country": ["de" if i % 4 else "fr" for i in range(count)],
            "words": [f"a text of {i % 5} words " * (i % 3) for i in range(count)],
            "score": spread(count, 6007),
            "id": [hour * count + i for i in range(count)],
            "at": [BEGAN + hour * HOUR + timedelta(milliseconds=i * 3_599_000 // count) for i in range(count)],
        }
    )


def reference() -> bg.Reference:
    # Four hours at least, so that dependence and seasons are in it.
    return bg.Reference(pl.concat([table(500, hour=hour) for hour in range(30)]), segments=["country"], season="hour_of_day", bins=50)


WATCHED = ["x", "name", "country", "score", "id", "at"]


def observe(monitor: bg.Monitor, hours: range, shift: float = 0.0) -> None:
    for hour in hours:
        frame = table(200, shift, hour).select(WATCHED)
        seconds = frame["score"] / 10
        monitor.observe_frame(frame.with_columns(latency=seconds), time="at", id="id", score="score", latency_seconds="latency")
        truth = pl.DataFrame({"id": frame["id"], "y": flags(200, 31, 0.5).astype(int)})
        monitor.label(truth.with_columns(at=pl.lit(BEGAN + (hour + 1) * HOUR)), id="id", label="y", time="at")
        monitor.tick(BEGAN + (hour + 1) * HOUR)


def monitor() -> bg.Monitor:
    rules = [{"metric": "roc_auc", "below": 0.2}, {"metric": "latency_p99", "above": 0.05}, {"metric": "brier", "detector": "ewma"}]
    rows = pl.concat([table(200, hour=hour).select(WATCHED) for hour in range(12)])
    was = bg.Reference(rows, segments=["country"], bins=20)
    made = bg.Monitor("old", reference=was, window="1h", rules=rules, task="binary", ticks="manual")
    made.deploy("v1", time=BEGAN)
    observe(made, range(12))
    observe(made, range(12, 15), shift=0.5)
    return made


def numbers_of_monitor(monitor: bg.Monitor) -> dict[str, Any]:
    # It goes on: the same hours come in, and what was open may end.
    observe(monitor, range(15, 18))
    # Times leave JSON as text.
    history, alerts = (
        frame.with_columns(pl.selectors.temporal().cast(pl.String)).to_dicts() for frame in (monitor.history(), monitor.alerts())
    )
    return {"history": len(history), "last rows": history[-40:], "alerts": alerts, "counts": monitor.counts(), "policy": monitor.policy}


class State(NamedTuple):
    """kind: the byte of its kind, None for bytes of another format. numbers: of what was read, then after more has come in."""

    kind: int | None
    make: Callable[[], Any]
    write: Callable[[Any], bytes]
    read: Callable[[bytes], Any]
    numbers: Callable[[Any], Any]


def of(kind: int | None, kinds: Any, make: Callable[[], Any], numbers: Callable[[Any], Any]) -> State:
    return State(kind, make, lambda made: made.to_bytes(), kinds.from_bytes, numbers)


def fed(made: Any, *values: Any) -> Any:
    made.update_many(*values)
    return made


def sketch(made: Any, *numbers: str) -> dict[str, Any]:
    made.update_many(np.arange(500, 700))
    out = {name: getattr(made, name) for name in numbers}
    return {name: value() if callable(value) else value for name, value in out.items()}


def rows_of(count: int, step: int) -> np.ndarray:
    return np.column_stack([spread(count, step), spread(count, step + 2), spread(count, step + 6)])


def metrics(made: Any, *more: Any) -> dict[str, Any]:
    before = made.to_dict()
    made.update_many(*more)
    return {"before": before, "after": made.to_dict(), "limits": made.to_frame().to_dicts()}


STREAM = np.concatenate([flags(2000, share=0.2), flags(2000, 6007, 0.7)])


def detector(made: Any) -> dict[str, Any]:
    return {"positions": made.update_many(STREAM[1000:]).tolist(), "again": made.update_many(STREAM).tolist()}


def sequence(made: Any, *more: Any) -> dict[str, Any]:
    made.update_many(*more)
    out = {name: getattr(made, name, None) for name in ("count", "mean", "interval", "value", "alarmed", "log_capital", "left_out")}
    return {name: value() if callable(value) else value for name, value in out.items()}


def rollout() -> bg.rollout.Rollout:
    made = bg.rollout.Rollout("v1", "v2", guards=[{"metric": "error_rate", "margin": 0.05}, {"metric": "latency", "margin": 0.1}])
    for version, step in (("v1", 7919), ("v2", 6007)):
        frame = {"failed": flags(800, step, 0.1) > 0, "seconds": spread(800, step)}
        made.observe_frame(frame, version=version, failed="failed", latency_seconds="seconds")
    return made


def decided(made: Any) -> Any:
    decision = made.decide(BEGAN)
    return {"decision": decision.decision, "evidence": decision.evidence}


def trigger() -> bg.Trigger:
    made = bg.Trigger("old", bg.Condition.metric("roc_auc", below=0.7), fit_on="30d", cooldown="7d", columns=["x"])
    made.check(BEGAN)
    return made


d, e, m, s = bg.detectors, bg.estimates, bg.metrics, bg.sketches
LABELS, SCORES = flags(600, 6007, 0.5), spread(600)
CLASSES = np.arange(600) % 3
DETECTORS = {
    "adwin": d.Adwin,
    "page_hinkley": d.PageHinkley,
    "ddm": d.Ddm,
    "eddm": d.Eddm,
    "hddm_a": d.HddmA,
    "hddm_w": d.HddmW,
    "kswin": d.Kswin,
    "cusum": d.Cusum,
    "ewma": d.Ewma,
}
STATES: dict[str, State] = {
    "profile": of(1, bg.Profile, lambda: bg.profile(table(2000)), lambda p: (p + bg.profile(table(100, 0.5))).to_frame().to_dicts()),
    "reference": of(
        2,
        bg.Reference,
        reference,
        lambda r: {
            "id": r.id,
            "bins": r.bins("x"),
            "segments": r.segments,
            "season": r.season,
            "dependence": r.dependence("x"),
            "report": bg.compare(r, table(1500, 0.1)).to_dict()["rows"],
        },
    ),
    "monitor": State(3, monitor, lambda made: made.snapshot(), lambda data: bg.Monitor.restore(data, ticks="manual"), numbers_of_monitor),
    "exponential_histogram": of(
        4,
        s.ExponentialHistogram,
        lambda: fed(s.ExponentialHistogram(), (spread(500) - 0.3) * 1e3),
        lambda h: {**sketch(h, "count", "zero_count", "cells"), "quantiles": [h.quantile(q) for q in (0, 0.1, 0.5, 0.99, 1)]},
    ),
    "sample": of(7, s.Sample, lambda: fed(s.Sample(20), np.arange(500)), lambda one: sketch(one, "ids", "inclusion")),
    "co_moments": of(
        8,
        s.CoMoments,
        lambda: fed(s.CoMoments(3), rows_of(400, 7919)),
        lambda one: {"means": fed(one, rows_of(99, 31)).means().tolist(), "covariance": one.covariance().tolist(), "count": one.count},
    ),
    "mean_embedding": of(
        9,
        s.MeanEmbedding,
        lambda: fed(s.MeanEmbedding.fit(rows_of(300, 7919), features=32), rows_of(300, 6007)),
        lambda one: {"mmd": one.mmd(fed(one.empty(), rows_of(200, 31))), "count": one.count},
    ),
    "sliced_projections": of(
        10,
        s.SlicedProjections,
        lambda: fed(s.SlicedProjections.fit(rows_of(300, 7919), directions=8), rows_of(300, 6007)),
        lambda one: {"distance": one.sliced_wasserstein(fed(one.empty(), rows_of(200, 31))).value, "count": one.count},
    ),
    "kll": of(
        None, s.Kll, lambda: fed(s.Kll(50), spread(500)), lambda k: {**sketch(k, "count"), "q": [k.quantile(q) for q in (0.0, 0.5, 1.0)]}
    ),
    "hll": of(None, s.Hll, lambda: fed(s.Hll(8), np.arange(500)), lambda one: sketch(one, "estimate")),
    "theta": of(None, s.Theta, lambda: fed(s.Theta(6), np.arange(500)), lambda one: sketch(one, "estimate", "retained")),
    "frequent_items": of(
        None, s.FrequentItems, lambda: fed(s.FrequentItems(6), np.arange(500) ** 2 % 97), lambda one: sketch(one, "count", "error")
    ),
    "binary_metrics": of(
        6, m.BinaryMetrics, lambda: fed(m.BinaryMetrics(), LABELS, SCORES), lambda one: metrics(one, LABELS[:99], SCORES[:99])
    ),
    "multiclass_metrics": of(
        6,
        m.MulticlassMetrics,
        lambda: fed(m.MulticlassMetrics([0, 1, 2]), CLASSES, CLASSES[::-1]),
        lambda one: metrics(one, CLASSES[:100], CLASSES[:100]),
    ),
    "regression_metrics": of(
        6, m.RegressionMetrics, lambda: fed(m.RegressionMetrics(), SCORES * 100, SCORES * 99 + 1), lambda one: metrics(one, SCORES, LABELS)
    ),
    "ranking_metrics": of(
        6,
        m.RankingMetrics,
        lambda: fed(m.RankingMetrics(5), LABELS.reshape(60, 10), SCORES.reshape(60, 10)),
        lambda one: metrics(one, LABELS.reshape(60, 10), SCORES.reshape(60, 10)[::-1]),
    ),
    "cbpe": of(
        11,
        e.Cbpe,
        lambda: e.Cbpe.fit(SCORES, LABELS),
        lambda one: {"estimate": one.estimate(SCORES).to_dict(), "calibrated": one.calibrated(SCORES[:9]).tolist()},
    ),
    "cbpe_estimate": of(11, e.CbpeEstimate, lambda: e.Cbpe.fit(SCORES, LABELS).estimate(SCORES), lambda one: one.to_dict()),
    "mean_sequence": of(11, e.MeanSequence, lambda: fed(e.MeanSequence(), SCORES), lambda one: sequence(one, SCORES)),
    "quantile_sequence": of(11, e.QuantileSequence, lambda: fed(e.QuantileSequence(0.9), SCORES), lambda one: sequence(one, SCORES)),
    "auc_sequence": of(11, e.AucSequence, lambda: fed(e.AucSequence(), LABELS, SCORES), lambda one: sequence(one, LABELS, SCORES)),
    "asymptotic_sequence": of(11, e.AsymptoticSequence, lambda: fed(e.AsymptoticSequence(), SCORES), lambda one: sequence(one, SCORES)),
    "risk_alarm": of(11, e.RiskAlarm, lambda: fed(e.RiskAlarm(SCORES / 2), SCORES / 2), lambda one: sequence(one, SCORES)),
    "calibration_alarm": of(
        11, e.CalibrationAlarm, lambda: fed(e.CalibrationAlarm(), LABELS, SCORES), lambda one: sequence(one, LABELS, SCORES)
    ),
    "rollout": State(None, rollout, lambda made: made.snapshot(), bg.rollout.Rollout.restore, decided),
    "trigger": State(
        None, trigger, lambda made: made.snapshot(), bg.Trigger.restore, lambda one: {"counts": one.counts(), "is": repr(one)}
    ),
}


def _detecting(make: Callable[[], Any]) -> Callable[[], Any]:
    return lambda: fed(make(), STREAM[:1000])


STATES |= {name: of(5, made, _detecting(made), detector) for name, made in DETECTORS.items()}
STATES["rank"] = of(5, d.Rank, _detecting(lambda: d.Rank(spread(500))), detector)
