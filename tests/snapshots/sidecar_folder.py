"""The data folder of a sidecar: a model with a state and a log behind it, one that still learns, labels that wait, an alert."""

from __future__ import annotations

import shutil
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
from sidecars import Sidecar
from states import BEGAN, HOUR, flags, table


def send(running: Sidecar, model: str, hours: range, shift: float = 0.0) -> None:
    # Hours that have just been: a sidecar closes windows by the clock.
    moved = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - 20 * HOUR - BEGAN
    for hour in hours:
        frame = table(100, shift, hour).rename({"id": "_id", "at": "_time", "score": "_score"})
        answer = running.events(model, frame.with_columns(pl.col("_time") + moved, _latency_seconds=pl.col("_score") / 10))
        assert answer.json["accepted"] == 100, answer
        # Every second label comes; the others are waited for.
        labels = {"_id": frame["_id"][::2].to_list(), "_label": flags(100, 31, 0.5)[::2].tolist()}
        answer = running.request("POST", f"/v1/models/{model}/labels", labels)
        assert answer.status in (200, 202), answer


def until_closed(running: Sidecar) -> None:
    """Until windows of the past hours are judged."""
    ended = time.monotonic() + 90
    while not running.get("/v1/models/kept/history").json["rows"]:
        assert time.monotonic() < ended, running.log()
        time.sleep(0.1)


def make_folder(target: Path) -> None:
    with tempfile.TemporaryDirectory() as name:
        running = Sidecar(Path(name)).start()
        try:
            policy = {"window": "1h", "rules": [{"metric": "latency_p99", "above": 0.05}], "budget": {"ticket": "7d"}}
            for model in ("kept", "learns"):
                events = {"kept": 1000, "learns": 100_000}[model]
                answer = running.request("PUT", f"/v1/models/{model}", {"learn": {"events": events}, "task": "binary"})
                assert answer.status in (200, 201, 204), answer
                answer = running.request("PUT", f"/v1/models/{model}/policy", policy)
                assert answer.status in (200, 201, 204), answer
            send(running, "kept", range(12))
            send(running, "learns", range(1))
            until_closed(running)
            running.stop()
            running.start()
            send(running, "kept", range(12, 16), shift=0.5)
        finally:
            # What was acknowledged is in the log alone.
            running.kill()
        # The token of tests is in no file; locks of a dead process are no state.
        shutil.copytree(Path(name) / "data", target, ignore=shutil.ignore_patterns("token", "*.lock", "lock"))


def numbers_of_folder(folder: Path) -> dict[str, Any]:
    """Of a sidecar that starts on `folder/data`: what it counted before, and after four more hours."""
    with Sidecar(folder) as running:
        before = {model["name"]: (model["state"], model["events"], model["labels"]) for model in running.get("/v1/models").json["models"]}
        history = running.get("/v1/models/kept/history").json["rows"]
        # Events of now, whenever that is: what they are compared with is the reference that was learnt then.
        frame = table(300, 0.5).drop("id", "at").rename({"score": "_score"})
        assert running.events("kept", frame).json["accepted"] == 300
        rows = running.get("/v1/models/kept/drift?window=open").json["rows"]
        kept = ("column", "method", "value", "lower", "upper", "verdict", "n_reference", "n_current", "reason")
        return {
            "before": before,
            "history": [{name: row[name] for name in (*kept, "window_start")} for row in history],
            "open window": [{name: row[name] for name in kept} for row in rows],
            "after": running.model("kept")["events"],
        }
