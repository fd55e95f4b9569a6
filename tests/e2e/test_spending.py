"""A sidecar with a budget: what it leaves out and gives up, and where that shows."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Any

import barograph as bg
import numpy as np
import polars as pl
from sidecars import Sidecar, sidecar


def metric(running: Sidecar, line: str) -> float:
    (found,) = (text for text in running.get("/metrics").body.decode().splitlines() if text.startswith(line + " "))
    return float(found.split()[-1])


def spending(running: Sidecar) -> dict[str, Any]:
    budget: dict[str, Any] = running.get("/v1/models").json["server"]["budget"]
    return budget


def until(running: Sidecar, what: Any, act: Any = lambda: time.sleep(0.05)) -> dict[str, Any]:
    end = time.monotonic() + 60
    while not what(told := spending(running)):
        assert time.monotonic() < end, told
        act()
    return told


def events(rows: int, seed: int) -> pl.DataFrame:
    draw = np.random.default_rng(seed)
    return pl.DataFrame({f"x{at}": draw.normal(size=rows) for at in range(20)})


def test_events_are_left_out_for_the_processor_and_every_row_says_so(tmp_path: Path) -> None:
    with sidecar(tmp_path, config='[budget]\ncpu = "0.5%"\n') as running:
        reference = bg.Reference(events(20_000, 0))
        path = "/v1/models/m"
        put = running.request("PUT", f"{path}/reference", reference.to_bytes(), "application/vnd.barograph.snapshot")
        assert put.status in (200, 201, 204)
        put = running.request("PUT", f"{path}/policy", json.dumps({"window": "2s"}), "application/json")
        assert put.status in (200, 204)
        frame = events(5000, 1)
        sent = 0

        def send() -> None:
            nonlocal sent
            assert running.events("m", frame).status == 200
            sent += frame.height

        told = until(running, lambda told: told["inclusion"] < 0.3, send)
        assert told["limits"] == {"cpu": 0.005, "memory": None, "disk": None, "wire": None}
        assert told["counts"]["sampled_less"] > 0
        # A window all of which is sampled.
        end = time.monotonic() + 4
        while time.monotonic() < end:
            send()
        answer = running.events("m", frame).json
        sent += frame.height
        assert answer["accepted"] == frame.height
        assert answer["sampled_out"] > 0
        model = running.model("m")
        # 30 standard errors of the most that weights of up to 1024 make of it: a wrong weight would be off by factors.
        assert abs(model["events"] - sent) < 30 * np.sqrt(sent * 1024)
        assert 0 < model["sampled_out"] < model["events"]
        about = running.get(path).json["sampling"]
        assert about["sampled_out"] > 0
        assert about["inclusion"] < 1
        assert about["given_up"] is None
        assert metric(running, 'barograph_budget_limit{what="cpu"}') == 0.005
        assert metric(running, "barograph_inclusion_probability") < 1
        assert metric(running, 'barograph_odd_events_total{model="m",what="sampled_out"}') > 0
        assert metric(running, 'barograph_budget_steps_total{what="sampled_less"}') > 0
        end = time.monotonic() + 20
        rows: list[dict[str, Any]] = []
        while time.monotonic() < end and not any("inclusion probability" in (row["reason"] or "") for row in rows):
            rows = [row for row in running.get(f"{path}/history?limit=100000").json["rows"] if row["method"] == "events"]
            time.sleep(0.1)
        thinned = [row for row in rows if "inclusion probability" in (row["reason"] or "")]
        assert thinned
        assert all(row["lower"] < row["value"] < row["upper"] for row in thinned)


def test_without_leave_to_sample_a_limit_that_cannot_be_kept_is_told(tmp_path: Path) -> None:
    with sidecar(tmp_path, config='[budget]\ncpu = "0.01%"\nsampling = false\n') as running:
        frame = events(2000, 0)
        told = until(running, lambda told: told["over"], lambda: running.events("m", frame))
        assert told["inclusion"] == 1.0
        assert running.model("m")["sampled_out"] == 0
        assert "a limit of [budget] cannot be kept" in running.log()


def restated(running: Sidecar, config: str) -> None:
    """States another configuration and lets the sidecar read it."""
    (running.folder / "barograph.toml").write_text(config)
    assert running.process is not None
    running.process.send_signal(signal.SIGHUP)


def test_a_full_disk_budget_costs_detail_and_new_models_and_survives_a_kill(tmp_path: Path) -> None:
    with sidecar(tmp_path, config="") as running:
        assert running.events("m", events(200, 0)).status == 200
        restated(running, '[budget]\ndisk = "1kB"\n')
        told = until(running, lambda told: told["level"] >= 1)
        assert told["used"]["disk"] > 1024
        assert "no new models" in told["given_up"]
        refused = running.request("PUT", "/v1/models/other", "{}", "application/json")
        assert (refused.status, refused.json["title"]) == (409, "over budget")
        assert running.events("another", events(10, 0)).status == 409
        # What is there goes on.
        assert running.events("m", events(200, 1)).status == 200
        assert metric(running, "barograph_detail_level") >= 1
        assert running.get("/v1/models/m").json["sampling"]["given_up"] is not None
        assert "to keep to [budget]: segments beyond" in running.log()
        running.kill()
        running.start()
        # It is in the log: nobody has measured anything yet.
        assert running.get("/v1/models/m").json["sampling"]["given_up"] is not None
        assert running.get("/readyz").json["problems"] == []
        assert running.model("m")["events"] == 400


def test_a_process_that_finds_room_takes_back_what_the_one_before_it_gave_up(tmp_path: Path) -> None:
    with sidecar(tmp_path, config="") as running:
        assert running.events("m", events(200, 0)).status == 200
        restated(running, '[budget]\ndisk = "1kB"\n')
        until(running, lambda told: told["level"] >= 1)
        until(running, lambda told: running.get("/v1/models/m").json["sampling"]["given_up"] is not None)
        running.stop()
        (tmp_path / "barograph.toml").write_text("")
        running.start()
        until(running, lambda told: running.get("/v1/models/m").json["sampling"]["given_up"] is None)
        assert running.request("PUT", "/v1/models/other", "{}", "application/json").status in (200, 201)


def test_limits_are_read_anew_on_a_signal(tmp_path: Path) -> None:
    with sidecar(tmp_path, config='[budget]\ncpu = "20%"\n') as running:
        assert spending(running)["limits"]["cpu"] == 0.2
        restated(running, '[budget]\ncpu = "50%"\n')
        told = until(running, lambda told: told["limits"]["cpu"] == 0.5)
        assert told["limits"]["disk"] is None
