"""A real Prometheus scrapes a sidecar: its counts are ours, and so are its quantiles, within a bucket."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from barograph.dashboards import grafana
from sidecars import free_port, sidecar

PROMETHEUS = shutil.which("prometheus")
pytestmark = pytest.mark.skipif(PROMETHEUS is None, reason="needs Debian's package prometheus")


@contextlib.contextmanager
def prometheus(folder: Path, target: str) -> Iterator[Callable[[str], list[dict[str, Any]]]]:
    """One that scrapes a target every second and keeps native histograms; gives what answers a query."""
    port = free_port()
    jobs = f"scrape_configs: [{{job_name: sidecar, scrape_interval: 1s, static_configs: [{{targets: ['{target}']}}]}}]\n"
    (folder / "prometheus.yml").write_text(jobs)
    command = [str(PROMETHEUS), f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'tsdb'}"]
    command += [f"--web.listen-address=127.0.0.1:{port}", "--enable-feature=native-histograms", "--log.level=warn"]
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(command, stderr=log, stdout=log)

    def ask(query: str) -> list[dict[str, Any]]:
        address = f"http://127.0.0.1:{port}/api/v1/query?" + urllib.parse.urlencode({"query": query})
        with urllib.request.urlopen(address, timeout=10) as answer:
            found: list[dict[str, Any]] = json.loads(answer.read())["data"]["result"]
            return found

    try:
        yield ask
    finally:
        process.terminate()
        process.wait(30)


def until(ask: Callable[[str], list[dict[str, Any]]], query: str, value: float, seconds: float = 60) -> dict[str, Any]:
    """The result of a query once it is so much."""
    end, found = time.monotonic() + seconds, []
    while time.monotonic() < end:
        with contextlib.suppress(OSError):
            found = ask(query)
            if len(found) == 1 and float(found[0]["value"][1]) == value:
                return found[0]
        time.sleep(0.2)
    raise AssertionError(f"{query} did not become {value}: {found}")


def test_a_real_prometheus_has_our_counts_and_quantiles(tmp_path: Path) -> None:
    health = free_port()
    draw = np.random.default_rng(1)
    latencies = np.concatenate([draw.lognormal(-4, 0.7, 7990), np.zeros(6), [1e-7, 30.0, 30.0, 400.0]])
    frame = pl.DataFrame({"x": draw.normal(size=8000), "_latency_seconds": latencies})
    with sidecar(tmp_path, "--health-listen", f"127.0.0.1:{health}") as running:
        assert running.request("PUT", "/v1/models/m", {"learn": {"events": 1000}}).status == 201
        # Calls are timed once there is a reference.
        assert running.events("m", frame.head(1000)).status == 200
        timed = latencies[1000:]
        with prometheus(tmp_path, f"127.0.0.1:{health}") as ask:
            assert running.events("m", frame.tail(7000)).status == 200
            until(ask, 'barograph_events_total{model="m"}', 8000)
            counted = float(ask('histogram_count(barograph_call_seconds{model="m"})')[0]["value"][1])
            assert counted == len(timed)
            (native,) = ask('barograph_call_seconds{model="m"}')
            histogram = native["histogram"][1]
            assert float(histogram["count"]) == len(timed)
            assert float(histogram["sum"]) == pytest.approx(timed.sum(), rel=0.006)
            buckets = [(int(kind), float(low), float(high), float(count)) for kind, low, high, count in histogram["buckets"]]
            assert len(buckets) > 100
            for kind, low, high, count in buckets:
                # 0: the lower end is open; 3: both are closed, around zero.
                within = (timed >= low) & (timed <= high) if kind == 3 else (timed > low) & (timed <= high)
                assert count == within.sum(), (low, high)
            for quantile in (0.5, 0.9, 0.99, 0.999):
                found = float(ask(f'histogram_quantile({quantile}, barograph_call_seconds{{model="m"}})')[0]["value"][1])
                exact = float(np.quantile(timed, quantile, method="inverted_cdf"))
                low, high = next((low, high) for _, low, high, _ in buckets if low < exact <= high)
                assert low <= found <= high, quantile
            # The panel of latency finds both kinds of histogram.
            panels = grafana("m", {"window": "1h", "task": "binary"})["panels"]
            (panel,) = (panel for panel in panels if panel["title"] == "Latency, 5 minutes")
            running.events("m", frame.tail(7000))
            until(ask, 'barograph_events_total{model="m"}', 15_000)
            exact = float(np.quantile(timed, 0.5))
            assert float(ask(panel["targets"][0]["expr"])[0]["value"][1]) == pytest.approx(exact, rel=0.02)
            up = until(ask, "up", 1)
            assert up["metric"]["instance"] == f"127.0.0.1:{health}"
    assert "err=" not in (tmp_path / "prometheus.log").read_text()
