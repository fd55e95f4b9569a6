"""What each iteration of a model gained: means of windows, their difference, alerts within the budget, costs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import NormalDist
from typing import Any, NamedTuple

__all__ = ["LOWER_IS_BETTER", "Iteration", "iterations_of", "student_quantile"]

_LATE = ("latency_p50", "latency_p99", "error_rate", "missing_labels")
LOWER_IS_BETTER = ("log_loss", "brier", "ece", "ece_debiased", "mae", "rmse", "mse", "mape", "smape", *_LATE)
_NEITHER = ("bias", "prevalence", "predicted_positive", "events")
_LEAST_WINDOWS = 3
_DAY, _HOUR = 86_400e9, 3_600e9


class Iteration(NamedTuple):
    """One row of `Timeline.iterations`."""

    iteration: int
    version: str | None
    reference: str | None
    began: int
    ended: int
    days: float
    windows: int
    metric: str | None
    value: float | None
    lower: float | None
    upper: float | None
    change: float | None
    change_lower: float | None
    change_upper: float | None
    verdict: str
    pages: int
    tickets: int
    pages_allowed: float | None
    tickets_allowed: float | None
    open_hours: float
    cost: float | None


class _Mean(NamedTuple):
    value: float
    variance: float
    freedom: float


def iterations_of(rows: list[dict[str, Any]], metric: str | None, confidence: float, budget: Mapping[str, float]) -> list[Iteration]:
    """One row per iteration. rows: of a timeline, in order; budget: seconds per false alarm, by severity."""
    out: list[Iteration] = []
    before: _Mean | None = None
    pages = _open_pages(rows)
    # An iteration ends where the next one begins: the last with the last thing that is known.
    starts: dict[int, int] = {}
    for row in rows:
        starts.setdefault(row["iteration"], row["time"])
    last = max((row["until"] or row["time"] for row in rows), default=0)
    ends = {number: starts.get(number + 1, last) for number in starts}
    version = reference = None
    for number, began in starts.items():
        own = [row for row in rows if row["iteration"] == number]
        for row in own:
            version = row["name"] if row["event"] == "deploy" else version
            reference = row["name"] if row["event"] == "reference" else reference
        values = [row for row in own if row["event"] == "metric" and row["name"] == metric]
        mean = _mean([(row["value"], float(row["rows"] or 1)) for row in values])
        limits = _limits(mean, confidence)
        change = _difference(before, mean, confidence)
        days = max(ends[number] - began, 0) / _DAY
        opened = [row["severity"] for row in own if row["event"] == "alert" and row["state"] in ("opened", "escalated")]
        costs = [row["value"] for row in own if row["event"] == "cost"]
        allowed = {severity: days * 86_400 / seconds for severity, seconds in budget.items() if seconds > 0}
        hours = sum(max(0, min(end, ends[number]) - max(start, began)) for start, end in pages) / _HOUR
        out.append(
            Iteration(
                iteration=number,
                version=version,
                reference=reference,
                began=began,
                ended=ends[number],
                days=days,
                windows=len(values),
                metric=metric,
                value=None if mean is None else mean.value,
                lower=limits[0],
                upper=limits[1],
                change=None if before is None or mean is None else mean.value - before.value,
                change_lower=change[0],
                change_upper=change[1],
                verdict=_verdict(metric, change),
                pages=opened.count("page"),
                tickets=opened.count("ticket"),
                pages_allowed=allowed.get("page"),
                tickets_allowed=allowed.get("ticket"),
                open_hours=hours,
                cost=sum(costs) if costs else None,
            )
        )
        before = mean if mean is not None else before
    return out


def _open_pages(rows: list[dict[str, Any]]) -> list[tuple[int, int]]:
    """When at least one page was open, without overlaps."""
    out: list[tuple[int, int]] = []
    open_ones: set[str] = set()
    since = 0
    for row in rows:
        if row["event"] != "alert":
            continue
        was = bool(open_ones)
        if row["severity"] == "page" and row["state"] != "resolved":
            open_ones.add(row["name"])
        else:
            open_ones.discard(row["name"])
        if open_ones and not was:
            since = row["time"]
        elif was and not open_ones:
            out.append((since, row["time"]))
    if open_ones:
        out.append((since, max(row["until"] or row["time"] for row in rows)))
    return out


def _mean(values: list[tuple[float, float]]) -> _Mean | None:
    """The weighted mean, its variance as the windows differ among each other, and degrees of freedom; infinite variance below two."""
    total = sum(weight for _, weight in values)
    if total <= 0:
        return None
    mean = math.fsum(value * weight for value, weight in values) / total
    count = len(values)
    if count < 2:
        return _Mean(mean, math.inf, 0.0)
    spread = math.fsum((weight * (value - mean)) ** 2 for value, weight in values) / total**2
    return _Mean(mean, spread * count / (count - 1), count - 1.0)


def _limits(mean: _Mean | None, confidence: float) -> tuple[float | None, float | None]:
    if mean is None or mean.freedom < _LEAST_WINDOWS - 1:
        return None, None
    half = student_quantile((1 + confidence) / 2, mean.freedom) * math.sqrt(mean.variance)
    return mean.value - half, mean.value + half


def _difference(before: _Mean | None, after: _Mean | None, confidence: float) -> tuple[float | None, float | None]:
    """Limits of the change of the mean: Welch's t, with the degrees of freedom of Satterthwaite."""
    if before is None or after is None or min(before.freedom, after.freedom) < _LEAST_WINDOWS - 1:
        return None, None
    variance = before.variance + after.variance
    shares = before.variance**2 / before.freedom + after.variance**2 / after.freedom
    freedom = variance**2 / shares if shares > 0 else before.freedom + after.freedom
    half = student_quantile((1 + confidence) / 2, freedom) * math.sqrt(variance)
    change = after.value - before.value
    return change - half, change + half


def _verdict(metric: str | None, change: tuple[float | None, float | None]) -> str:
    lower, upper = change
    if lower is None or upper is None or metric is None or metric in _NEITHER:
        return "unknown"
    if lower <= 0 <= upper:
        return "no clear difference"
    return "better" if (upper < 0) == (metric in LOWER_IS_BETTER) else "worse"


def student_quantile(q: float, freedom: float) -> float:
    """A quantile of Student's t for at least two degrees of freedom, q in (0, 1); within 1e-3 of its value for q up to 0.9995.

    Exact for two. Above that Hill's expansion about the normal quantile: G. W. Hill, Algorithm 396, Communications of the ACM 13 (1970).
    """
    if freedom <= 2:
        return (2 * q - 1) * math.sqrt(2 / (4 * q * (1 - q)))
    if q < 0.5:
        return -student_quantile(1 - q, freedom)
    p = 2 * (1 - q)
    a = 1 / (freedom - 0.5)
    b = 48 / a**2
    c = ((20_700 * a / b - 98) * a - 16) * a + 96.36
    d = ((94.5 / (b + c) - 3) / b + 1) * math.sqrt(a * math.pi / 2) * freedom
    y = (d * p) ** (2 / freedom)
    if y > 0.05 + a:
        # The tail is near: from the normal quantile.
        x = NormalDist().inv_cdf(p / 2)
        y = x * x
        if freedom < 5:
            c += 0.3 * (freedom - 4.5) * (x + 0.6)
        c = (((0.05 * d * x - 5) * x - 7) * x - 2) * x + b + c
        y = (((((0.4 * y + 6.3) * y + 36) * y + 94.5) / c - y - 3) / b + 1) * x
        y = a * y * y
        y = math.expm1(y) if y > 0.002 else 0.5 * y * y + y
    else:
        y = ((1 / (((freedom + 6) / (freedom * y) - 0.089 * d - 0.822) * (freedom + 2) * 3) + 0.5 / (freedom + 4)) * y - 1) * (
            freedom + 1
        ) / (freedom + 2) + 1 / y
    return math.sqrt(freedom * y)
