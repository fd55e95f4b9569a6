"""A year of flights through a deployed model that is watched as it runs: `barograph demo`."""

from __future__ import annotations

import sys
import time as clock
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import polars as pl
from numpy.typing import NDArray

from barograph.errors import InvalidArgumentError
from barograph.frames import scan
from barograph.monitors import Monitor, Summary
from barograph.references import Reference
from barograph.reports import DriftReport
from barograph.schemas import Schema

__all__ = ["run"]

_FEATURES = ["carrier", "origin", "dest", "distance_mi", "sched_dep_hour", "recent_delay_min"]


class LateFlightModel:
    """Logistic regression on carrier, airports, hour, distance and recent delays: is a flight 15 minutes late or more?"""

    def __init__(self, frame: pl.DataFrame, rounds: int = 8, ridge: float = 3.0) -> None:
        self._levels = {name: frame[name].unique().sort().to_list() for name in ("carrier", "origin", "dest", "sched_dep_hour")}
        inputs, labels = self._inputs(frame), frame["y_true"].to_numpy().astype(float)
        self._weights = np.zeros(inputs.shape[1])
        for _ in range(rounds):
            # Newton's method: each round solves a weighted least-squares problem.
            score = self._call(inputs)
            slope = inputs.T @ (labels - score) - ridge * self._weights
            curve = (inputs * (score * (1 - score))[:, None]).T @ inputs + ridge * np.eye(inputs.shape[1])
            self._weights += np.linalg.solve(curve, slope)

    def _inputs(self, frame: pl.DataFrame) -> NDArray[np.float64]:
        delay = frame["recent_delay_min"]
        numbers = [np.ones(frame.height), frame["distance_mi"].to_numpy() / 1000, delay.is_null().to_numpy()]
        # The logarithm keeps a snowed-in evening from outweighing the year.
        numbers.append(np.log1p(delay.fill_null(0).clip(0).to_numpy()))
        columns = [np.column_stack(numbers).astype(float)]
        for name, levels in self._levels.items():
            values = frame[name].to_numpy()
            columns.append((values[:, None] == np.array(levels, dtype=values.dtype)[None, :]).astype(float))
        return np.hstack(columns)

    def _call(self, inputs: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(1 / (1 + np.exp(-(inputs @ self._weights))))

    def predict(self, frame: pl.DataFrame) -> NDArray[np.float64]:
        """The probability of each row."""
        return self._call(self._inputs(frame))


@dataclass
class Replay:
    """What is replayed: reference rows, then production rows day by day with the labels that arrive that day."""

    name: str
    reference: pl.DataFrame
    schema: Schema
    production: pl.DataFrame
    labels: pl.DataFrame
    model: LateFlightModel | None
    window: str


def run(
    data: str | None = None,
    label: str | None = None,
    score: str | None = None,
    time: str | None = None,
    html: str = "barograph-report.html",
    out: TextIO | None = None,
) -> int:
    """Runs the demo and gives its exit code. data: your own Parquet file, with the columns of labels, scores and times named."""
    out = out or sys.stdout
    began = clock.perf_counter()
    if data is None:
        if label or score or time:
            raise InvalidArgumentError("`--label`, `--score` and `--time` describe `--data`, which is missing")
        replay = _flights(out)
    else:
        replay = _own(data, label, score, time)
    reference = Reference(replay.reference, schema=replay.schema)
    print(f"reference  {reference.rows:,} rows, {len(reference.schema.kinds)} columns watched, id {reference.id[:8]}", file=out)
    baseline = _auc_of(replay, reference)
    rules = []
    auc = baseline.metrics["roc_auc"] if baseline else None
    if auc and auc.lower is not None:
        print(f"           AUC {auc.value:.3f} ({auc.lower:.3f} to {auc.upper:.3f}) on its labelled rows", file=out)
        rules = [{"metric": "roc_auc", "below": round(auc.lower, 3)}]
    monitor = Monitor(replay.name, reference=reference, window=replay.window, rules=rules, ticks="manual")
    print(f"replaying  {replay.production.height:,} events in event time, windows of {replay.window}\n", file=out)
    print(_HEAD, file=out)
    start, end = _play(replay, monitor, out)
    events = replay.production.height
    seconds = clock.perf_counter() - began
    last = monitor.summary(start, end)
    changes = monitor.alerts()
    opened, resolved = (changes.filter(pl.col("state") == state).height for state in ("opened", "resolved"))
    print(f"\nalerts     {opened} opened, {resolved} resolved, {opened - resolved} open", file=out)
    counts = monitor.counts()
    print(f"join       {counts['orphan_labels']:,} labels without event, {counts['late']:,} late events", file=out)
    if last:
        print(f"report     {last.report.to_html(html)}: {start:%B %Y}, {last.report.summary()}", file=out)
    print(f"took       {seconds:.1f} s, {events / seconds:,.0f} events per second with model, labels and report", file=out)
    return 0


_HEAD = f"{'period':<9}{'events':>9}{'p50':>9}{'p99':>9}{'no label':>10}   {'AUC':<24}drifted columns"


def _flights(out: TextIO) -> Replay:
    with as_file(files("barograph") / "data" / "flights_nyc_2013.parquet") as path:
        frame = pl.read_parquet(path)
    print("flights    336,776 departures from New York in 2013 (US Bureau of Transportation Statistics, CC0)", file=out)
    month = pl.col("prediction_timestamp").dt.month()
    minutes = pl.col("dep_delay_min").cast(pl.Int64) + pl.col("air_time_min").cast(pl.Int64) + 25
    frame = (
        _with_recent_delay(frame)
        .with_columns(
            sched_dep_hour=pl.col("prediction_timestamp").dt.hour(),
            label_timestamp=pl.col("prediction_timestamp") + pl.duration(minutes=minutes),
        )
        .drop("dep_delay_min", "air_time_min")
    )
    train = frame.filter(month <= 2, pl.col("y_true").is_not_null())
    began = clock.perf_counter()
    model = LateFlightModel(train)
    print(f"model      logistic regression fitted on {train.height:,} flights in {clock.perf_counter() - began:.1f} s", file=out)
    held = frame.filter(month.is_between(3, 4))
    reference = held.with_columns(score=pl.Series(model.predict(held)))
    production = frame.filter(month >= 5)
    labels = production.select("flight_id", "y_true", time="label_timestamp").drop_nulls().sort("time")
    watched = reference.select("flight_id", "prediction_timestamp", *_FEATURES, "score", "y_true")
    schema = Schema.infer(watched).with_roles(flight_id="id", sched_dep_hour="feature", score="score", y_true="label")
    return Replay("late-flights", watched, schema, production.drop("y_true", "label_timestamp"), labels, model, "1w")


def _with_recent_delay(frame: pl.DataFrame) -> pl.DataFrame:
    """Mean delay of what left the same airport in the three hours before, as it was known at the time; null if nothing left."""
    left = pl.col("prediction_timestamp") + pl.duration(minutes=pl.col("dep_delay_min").cast(pl.Int64))
    departures = frame.select("origin", "dep_delay_min", left=left).drop_nulls().sort("left")
    recent = departures.select("origin", "left", recent_delay_min=pl.col("dep_delay_min").rolling_mean_by("left", "3h").over("origin"))
    return frame.join_asof(
        recent.sort("left"), left_on="prediction_timestamp", right_on="left", by="origin", tolerance="3h", check_sortedness=False
    ).drop("left", strict=False)


def _own(data: str, label: str | None, score: str | None, time: str | None) -> Replay:
    missing = [name for name, value in (("--label", label), ("--score", score), ("--time", time)) if not value]
    if missing:
        raise InvalidArgumentError(
            f"`--data` needs {', '.join(missing)} too", "name the columns of labels (0 or 1), scores and event times"
        )
    assert label is not None
    assert score is not None
    assert time is not None
    frame = scan(data).collect()
    for argument, name in (("--label", label), ("--score", score), ("--time", time)):
        if name not in frame.columns:
            raise InvalidArgumentError(f"`{argument}` names column {name!r}, which {data} has not", f"it has {', '.join(frame.columns)}")
    if not frame[time].dtype.is_temporal():
        raise InvalidArgumentError(f"`--time` must name a column of timestamps, {time!r} is {frame[time].dtype}")
    frame = frame.drop_nulls(time).sort(time, maintain_order=True).rename({time: "prediction_timestamp", score: "score", label: "y_true"})
    frame = frame.with_columns(pl.col("y_true").cast(pl.Float64), pl.col("prediction_timestamp").cast(pl.Datetime("us")))
    frame = frame.drop("flight_id", strict=False).with_row_index("flight_id")
    if frame.height < 1000:
        raise InvalidArgumentError(f"{data} has {frame.height} rows with a time, the demo needs 1,000")
    cut = frame.height * 3 // 10
    reference, production = frame[:cut], frame[cut:]
    labels = production.select("flight_id", "y_true", time="prediction_timestamp").drop_nulls()
    span = production["prediction_timestamp"][-1] - production["prediction_timestamp"][0]
    window = "1w" if span > timedelta(days=60) else "1d" if span > timedelta(days=5) else "1h"
    schema = Schema.infer(reference).with_roles(flight_id="id", score="score", y_true="label")
    return Replay(Path(data).stem, reference, schema, production.drop("y_true"), labels, None, window)


def _auc_of(replay: Replay, reference: Reference) -> Summary | None:
    """The AUC of the reference's labelled rows, by the same monitor that watches production."""
    monitor = Monitor("baseline", reference=reference, window="1d", ticks="manual")
    day = datetime(2000, 1, 1, tzinfo=UTC)
    monitor.observe_frame(replay.reference.with_columns(at=pl.lit(day)), time="at", id="flight_id", score="score")
    monitor.label(replay.reference.select("flight_id", "y_true"), id="flight_id", label="y_true")
    return monitor.summary(day, day + timedelta(days=1))


def _days(production: pl.DataFrame) -> Iterator[tuple[datetime, pl.DataFrame]]:
    for (day,), rows in production.group_by(pl.col("prediction_timestamp").dt.truncate("1d"), maintain_order=True):
        assert isinstance(day, datetime)
        yield day.replace(tzinfo=UTC), rows


def _play(replay: Replay, monitor: Monitor, out: TextIO) -> tuple[datetime, datetime]:
    """Feeds day after day; prints a line when a month is over and a line per change of an alert. Gives the last month's bounds."""
    bar = _Bar(replay.production.height)
    fed = seen = 0
    arrivals = replay.labels["time"]
    start = end = datetime(1970, 1, 1, tzinfo=UTC)
    for day, rows in _days(replay.production):
        if start.year == 1970:
            start = day
        if day.month != start.month or day.year != start.year:
            seen = _month(monitor, start, day, seen, bar, out)
            start = day
        monitor.observe_frame(
            _called(replay.model, rows), time="prediction_timestamp", id="flight_id", score="score", latency_seconds="latency_seconds"
        )
        end = day + timedelta(days=1)
        until = int(arrivals.search_sorted(end.replace(tzinfo=None)))
        monitor.label(replay.labels[fed:until], id="flight_id", label="y_true")
        fed = until
        monitor.tick(end)
        bar.advance(rows.height)
    monitor.label(replay.labels[fed:], id="flight_id", label="y_true")
    monitor.tick(end + timedelta(days=7))
    _month(monitor, start, end, seen, bar, out)
    return start, end


def _called(model: LateFlightModel | None, rows: pl.DataFrame) -> pl.DataFrame:
    """The day's rows with score and latency: the model is called once per hour of departures."""
    if model is None:
        return rows.with_columns(latency_seconds=pl.lit(None, dtype=pl.Float64))
    called = []
    for _, batch in rows.group_by("sched_dep_hour", maintain_order=True):
        began = clock.perf_counter()
        scores = model.predict(batch)
        latency = clock.perf_counter() - began
        called.append(batch.with_columns(score=pl.Series(scores), latency_seconds=pl.lit(latency)))
    return pl.concat(called)


def _month(monitor: Monitor, start: datetime, end: datetime, seen: int, bar: _Bar, out: TextIO) -> int:
    summary = monitor.summary(start, end)
    bar.clear()
    if summary:
        print(_line(start, summary), file=out)
    changes = monitor.alerts()[seen:]
    for change in changes.iter_rows(named=True):
        what = f"{change['column']} {change['value'] or 0:.2f}"
        reason = change["reason"] or change["verdict"]
        print(f"{'':<9}alert {change['id']:<3}{change['state']:<10} {what:<22}from {change['window_start']:%d %b}  {reason}", file=out)
        if change["cause"]:
            print(f"{'':<52}{change['severity']}: {change['cause']}", file=out)
    return seen + changes.height


def _line(start: datetime, summary: Summary) -> str:
    def milliseconds(seconds: float | None) -> str:
        return "" if seconds is None else f"{1000 * seconds:.2f} ms"

    roc = summary.metrics["roc_auc"]
    auc = "" if roc.lower is None else f"{roc.value:.3f} ({roc.lower:.3f} to {roc.upper:.3f})"
    missing = 1 - summary.labelled / summary.events
    moved = ", ".join(_drifted(summary.report)) or "none"
    p50, p99 = milliseconds(summary.latency_p50), milliseconds(summary.latency_p99)
    return f"{start:%Y-%m}  {summary.events:>9,}{p50:>9}{p99:>9}{100 * missing:>8.1f} %   {auc:<24}{moved}"


def _drifted(report: DriftReport) -> list[str]:
    columns: list[dict[str, Any]] = report.to_dict()["columns"]
    moved = [column for column in columns if column["verdict"] in ("warning", "critical")]
    return [f"{column['column']} {column['score']:.2f}" for column in sorted(moved, key=lambda column: -(column["score"] or 0))]


class _Bar:
    """A progress bar on a terminal's stderr; nothing elsewhere."""

    def __init__(self, total: int) -> None:
        self._total, self._done, self._on = total, 0, sys.stderr.isatty()

    def advance(self, rows: int) -> None:
        self._done += rows
        if self._on:
            filled = 40 * self._done // self._total
            print(f"\r{'█' * filled}{'░' * (40 - filled)} {100 * self._done // self._total:>3} %", end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        if self._on:
            print("\r\x1b[2K", end="", file=sys.stderr, flush=True)
