"""Pictures and the timeline of what a sidecar has seen, from Python."""

import json
import shutil
from pathlib import Path

import barograph as bg
import polars as pl
import pytest
from sidecars import TOKEN, Sidecar

KEPT = Path(__file__).parents[1] / "snapshots" / "0.1.0" / "sidecar"


@pytest.fixture
def running(tmp_path):
    # A folder with closed windows: hours need not pass for it.
    shutil.copytree(KEPT, tmp_path / "data")
    with Sidecar(tmp_path) as sidecar:
        yield sidecar


def test_a_client_is_drawn_and_told_as_a_monitor_is(running, tmp_path):
    with bg.connect(f"http://127.0.0.1:{running.port}", model="kept", token=TOKEN) as client:
        timeline = bg.history(client)
        frame = timeline.to_frame()
        assert set(frame["model"]) == {"kept"}
        closed = client.history().filter(pl.col("segment").is_null())
        latency = closed.filter((pl.col("column") == "(model)") & (pl.col("method") == "latency_p99"))
        assert latency.height > 0
        told = frame.filter((pl.col("event") == "metric") & (pl.col("name") == "latency_p99"))
        assert told["value"].to_list()[: latency.height] == latency.sort("window_start")["value"].to_list()
        assert timeline.to_html(tmp_path / "page.html").stat().st_size > 2000
        chart = json.loads(client.plot(method="latency_p99").to_json())
        assert chart["title"]["text"] == "latency p99 (s) of the model"
        json.loads(client.plot().to_json())
        view = bg.widgets.live(client)
        assert (view.content["name"], view.content["kind"]) == ("kept", "monitor")
        assert view.content["windows"] > 0
        running.kill()
        view.refresh()
        assert view.content["trouble"]
        assert view.content["windows"] > 0
