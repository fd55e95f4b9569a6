"""`barograph capacity` asks a real sidecar: what it counted, in calls and in seconds."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import barograph as bg
import numpy as np
import polars as pl
import pytest
from barograph.scaling.capacity import replicas_for
from barograph.scaling.capacity_command import load_of_sidecar
from sidecars import TOKEN, sidecar

HOURS = 3


def calls() -> pl.DataFrame:
    rng = np.random.default_rng(0)
    now = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    at = np.sort(rng.uniform(0, HOURS * 3600, 20_000))
    return pl.DataFrame(
        {
            "x": rng.normal(size=len(at)),
            "_time": [now - timedelta(hours=HOURS) + timedelta(seconds=float(one)) for one in at],
            "_latency_seconds": rng.gamma(2, 0.5, len(at)),
        }
    )


def test_a_sidecar_tells_its_load(tmp_path: Path) -> None:
    frame = calls()
    reference = bg.Reference({"x": np.random.default_rng(1).normal(size=2000)})
    with sidecar(tmp_path, config='[models.fraud]\nwindow = "1m"\n') as running:
        url = f"http://127.0.0.1:{running.port}"
        with bg.connect(url, model="fraud", token=TOKEN) as client:
            client.register(reference)
        assert running.events("fraud", frame).status == 200
        end = time.monotonic() + 60
        while (load := load_of_sidecar(url, "fraud", TOKEN)).arrivals.count != len(frame) and time.monotonic() < end:
            time.sleep(0.1)
        latencies = frame["_latency_seconds"].to_numpy()
        assert load.service.count == len(frame)
        assert load.service.mean == pytest.approx(latencies.mean(), rel=0.006)
        assert load.service.scv == pytest.approx(0.5, rel=0.05)
        assert load.arrivals.count == len(frame)
        assert load.arrivals.hours is not None
        assert load.arrivals.hours.counts.sum() == len(frame)
        assert len(load.arrivals.hours.counts) == HOURS
        assert load.arrivals.rate == pytest.approx(len(frame) / (HOURS * 3600), rel=1e-6)
        assert load.notes == ()
        command = [
            sys.executable,
            "-m",
            "barograph",
            "capacity",
            "--url",
            url,
            "--model",
            "fraud",
            "--slo",
            "p99 <= 5s",
            "--calls",
            "200000",
        ]
        (tmp_path / "token").write_text(TOKEN)
        done = subprocess.run([*command, "--json", "--token-file", str(tmp_path / "token")], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        said = json.loads(done.stdout)
        assert said["load"]["calls"] == len(frame)
        assert said["capacity"]["replicas"] == replicas_for(load, "p99 <= 5s", calls=200_000).replicas
        assert said["forecast"] == {"reason": f"{HOURS} whole hours were seen, a forecast needs 840"}
        with pytest.raises(bg.errors.NotFoundError, match="has no model 'other'"):
            load_of_sidecar(url, "other", TOKEN)
        with pytest.raises(bg.errors.BarographError, match="status 401"):
            load_of_sidecar(url, "fraud", "wrong")
