"""Flights of New York in 2013, moved so that they end now, as the events of models of three airports; the last days go wrong at one."""

from __future__ import annotations

import math
import time
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from typing import Any

import barograph as bg
import numpy as np
import polars as pl
from sidecars import TOKEN, Sidecar

DAY = 86_400_000_000_000
DAYS = 60
LEARNED = 20  # days that the reference is made of
BAD = 4  # days that go wrong, the last ones


def flights(seed: int = 1) -> pl.DataFrame:
    """Events of sixty days up to yesterday's end: features, `_id`, `_time`, `_score`, `_latency_seconds`, and `label`."""
    path = files("barograph") / "data" / "flights_nyc_2013.parquet"
    whole = pl.read_parquet(str(path)).sort("prediction_timestamp")
    first = whole["prediction_timestamp"].min()
    assert first is not None
    frame = whole.filter(pl.col("prediction_timestamp") < pl.lit(first).dt.truncate("1d") + pl.duration(days=DAYS))
    begin = time.time_ns() // DAY * DAY - DAYS * DAY
    moved = (pl.col("prediction_timestamp") - pl.lit(first).dt.truncate("1d")).dt.total_nanoseconds() + begin
    draw = np.random.default_rng(seed)
    day = ((frame.select(moved).to_series() - begin) // DAY).to_numpy()
    delay = frame["dep_delay_min"].fill_null(0).to_numpy().astype(float)
    # Labels follow the delay that was; in the bad days the model sees another.
    chance = 1 / (1 + np.exp(-(delay - 12) / 9))
    label = (draw.uniform(size=frame.height) < 1 / (1 + np.exp(-(delay - 12) / 4))).astype(int)
    out = frame.select("carrier", "origin", "dest", "distance_mi", "dep_delay_min", "air_time_min").with_columns(
        _id=frame["flight_id"].cast(pl.Int64),
        _time=frame.select(moved.cast(pl.Datetime("ns", "UTC"))).to_series(),
        _score=pl.Series(np.clip(chance + draw.normal(0, 0.05, frame.height), 0, 1)),
        _latency_seconds=pl.Series(draw.lognormal(math.log(0.006), 0.5, frame.height) * np.where(day >= DAYS - BAD, 3.0, 1.0)),
        label=pl.Series(label),
        day=pl.Series(day),
    )
    return out.with_row_index("row").drop("row")


def gone_wrong(frame: pl.DataFrame) -> pl.DataFrame:
    """The same with what a broken upstream does: delays come in another unit for some, carriers are renamed, air times are missing."""
    odd = pl.int_range(pl.len()) % 3 == 0
    return frame.with_columns(
        dep_delay_min=pl.when(odd).then(pl.col("dep_delay_min") * 3 + 25).otherwise(pl.col("dep_delay_min")),
        carrier=pl.when(pl.int_range(pl.len()) % 4 == 0).then(pl.lit("WN-2")).otherwise(pl.col("carrier")),
        air_time_min=pl.when(pl.int_range(pl.len()) % 5 == 0).then(None).otherwise(pl.col("air_time_min")),
        _score=pl.Series(np.random.default_rng(5).uniform(size=frame.height)),
    )


def policy() -> dict[str, Any]:
    """Days as windows, and a rule on latency."""
    return {"window": "1d", "task": "binary", "rules": [{"metric": "latency_p99", "above": 0.04, "severity": "page"}]}


def start(running: Sidecar, model: str, frame: pl.DataFrame) -> None:
    """States the model, and lets it learn from its first days."""
    learned = frame.filter(pl.col("day") < LEARNED)
    stated = {"task": "binary", "segments": ["carrier"], "learn": {"events": learned.height}, "examples": 5}
    assert running.request("PUT", f"/v1/models/{model}", stated).status in (201, 204)
    assert running.request("PUT", f"/v1/models/{model}/policy", policy()).status == 204
    send(running, model, learned)
    end = time.monotonic() + 60
    while running.model(model)["state"] != "watching":
        assert time.monotonic() < end, running.log()
        time.sleep(0.1)


def send(running: Sidecar, model: str, frame: pl.DataFrame, labelled: float = 1.0) -> None:
    """Events, and the labels of so many of them."""
    if frame.is_empty():
        return
    answer = running.events(model, frame.drop("label", "day"))
    assert answer.status == 200, answer
    labels = frame.head(int(frame.height * labelled)).select("_id", _label="label")
    if not labels.is_empty():
        answer = running.request("POST", f"/v1/models/{model}/labels", labels.to_dict(as_series=False))
        assert answer.status == 200, answer


def tell(running: Sidecar, model: str, frame: pl.DataFrame) -> None:
    """Tells what a team around the model does: two challengers on the days that were good, a trigger, the request that came of it."""
    with bg.connect(f"http://127.0.0.1:{running.port}", model=model, token=TOKEN) as client:
        good = frame.filter((pl.col("day") >= LEARNED) & (pl.col("day") < DAYS - BAD))
        begin = datetime.fromtimestamp(time.time() // 86400 * 86400, UTC) - timedelta(days=DAYS)
        draw = np.random.default_rng(3)
        for challenger, noise in (("2.0", 0.0), ("2.1", 0.35)):
            rollout = bg.rollout.Rollout("1.4", challenger, guards=[{"metric": "brier", "margin": 0.01}, "error_rate"])
            for day in range(LEARNED, DAYS - BAD):
                part = good.filter(pl.col("day") == day)
                if part.is_empty():
                    continue
                half = part.height // 2
                for version, rows in (("1.4", part.head(half)), (challenger, part.tail(half))):
                    spoiled = np.clip(rows["_score"].to_numpy() + draw.normal(0, noise, rows.height) * (version == challenger), 0, 1)
                    seen = {"label": rows["label"], "score": spoiled, "failed": draw.random(rows.height) < 0.004}
                    rollout.observe_frame(seen, version=version, label="label", score="score", failed="failed")
                client.tell(rollout.decide(begin + timedelta(days=day + 1)))
        when = bg.Condition.alert("page") | bg.Condition.schedule("30d")
        trigger = bg.Trigger(model, when, fit_on="30d", cooldown="1d", version="1.4")
        now = begin + timedelta(days=DAYS)
        trigger.check(now - timedelta(days=31), alerts=client.alerts().clear())
        request = trigger.check(now, alerts=client.alerts())
        client.tell(trigger)
        if request is not None:
            assert all(outcome.done for outcome in request.deliver(client.tell))


def until_closed(running: Sidecar, model: str, seconds: float = 60) -> None:
    """Waits until yesterday's window, the last one, has closed."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        row = next(one for one in running.get("/v1/overview").json["models"] if one["name"] == model)
        if row["window_end"] is not None and row["window_end"] >= time.time_ns() // DAY * DAY - (BAD + 1) * DAY:
            return
        time.sleep(0.2)
    raise AssertionError(f"the windows of {model} did not close: {running.log()}")
