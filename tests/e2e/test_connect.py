"""The client and a real sidecar: the same numbers as a monitor, each event once."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import barograph as bg
import numpy as np
import polars as pl
import pytest
from sidecars import TOKEN, Sidecar, sidecar


def connected(running: Sidecar, model: str = "m") -> bg.Client:
    return bg.connect(f"http://127.0.0.1:{running.port}", model=model, token=TOKEN)


def normal(shift: float, rows: int, seed: int) -> pl.DataFrame:
    draw = np.random.default_rng(seed)
    return pl.DataFrame({"x": draw.normal(shift, size=rows), "c": draw.choice(["a", "b"], rows)})


def test_the_numbers_are_those_of_a_monitor(tmp_path: Path) -> None:
    reference = bg.Reference(normal(0.0, 5000, 1))
    frame = normal(0.7, 4000, 2)
    with sidecar(tmp_path) as running, connected(running) as client:
        client.register(reference)
        client.observe_frame(frame[:2000])
        for row in frame[2000:].iter_rows(named=True):
            client.observe(row)
        assert client.flush(30)
        assert client.counts()["accepted"] == 4000
        found = client.drift()
        want = bg.compare(reference, frame).to_frame()
        both = found.join(want, on=["column", "method"], suffix="_want").filter(pl.col("value").is_not_null())
        assert both.height > 4
        assert (both["value"] - both["value_want"]).abs().max() < 1e-12
        assert client.history().height == client.alerts().height == 0
        client.deploy("v2", mute="1h")
        with connected(running, "unknown") as other, pytest.raises(bg.errors.NotFoundError):
            other.drift()


def test_each_event_counts_once_through_a_crash(tmp_path: Path) -> None:
    running = Sidecar(tmp_path).start()
    client = connected(running)
    client.register(bg.Reference(normal(0.0, 2000, 1)))
    for part in range(40):
        client.observe_frame(normal(0.0, 1000, part))
        for row in normal(0.0, 50, part).iter_rows(named=True):
            client.observe(row)
        if part == 20:
            running.kill()
            again = threading.Timer(0.5, lambda: running.start(wait=False))
            again.start()
        time.sleep(0.01)
    assert client.flush(60), client.last_error
    assert client.counts()["accepted"] == 42_000, (client.counts(), client.last_error)
    running.until_ready()
    assert running.model("m")["events"] == 42_000
    client.close()
    running.stop()


def test_labels_and_requests_arrive(tmp_path: Path) -> None:
    with sidecar(tmp_path, config='[models.m]\nwindow = "1h"\n') as running, connected(running) as client:
        client.register(bg.Reference(normal(0.0, 2000, 1)))
        frame = normal(0.0, 1000, 3).with_columns(key=pl.int_range(1000), score=pl.lit(0.5))
        client.observe_frame(frame, id="key", score="score")
        client.label({"key": list(range(1000)), "y": [0, 1] * 500}, id="key", label="y")
        for _ in range(20):
            client.request(0.1)
        assert client.flush(30)
        model = running.model("m")
        assert (model["events"], model["labels"], model["requests"]) == (1000, 1000, 20)
        assert model["latency_p50"] == pytest.approx(0.1, rel=0.006)
