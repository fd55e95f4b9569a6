"""Ids of events that an alert is about: only where they are asked for, as the privacy rules let them through, and in no file."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from sidecars import LINES, Sidecar, sidecar

MINUTE = 60_000_000_000
SHIFTED = 99.0


def lines(rows: int, start: int, prefix: str, odd: bool) -> bytes:
    """Events of a minute; with `odd` a third of them have a value that never was."""
    draw = np.random.default_rng(start // MINUTE % 1000)
    out = []
    for at, x in enumerate(draw.normal(size=rows)):
        moved = odd and at % 3 == 0
        event = {"x": SHIFTED if moved else x, "_id": f"{prefix}-{'odd' if moved else 'usual'}-{at}", "_time": (start + MINUTE // 2) / 1e9}
        out.append(json.dumps(event))
    return "\n".join(out).encode()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sidecar]:
    config = """
privacy_key = "0123456789abcdef0123456789abcdef"
[models.plain]
window = "1m"
[models.none]
window = "1m"
[models.hashed]
window = "1m"
[models.whole]
window = "1m"
[examples]
plain = 5
hashed = 3
whole = 20
[privacy.hashed.columns]
_id = "hash"
[learn]
plain = { events = 2000 }
none = { events = 2000 }
hashed = { events = 2000 }
whole = { events = 2000 }
"""
    folder = tmp_path_factory.mktemp("examples")
    with sidecar(folder, config=config) as one:
        start = time.time_ns() // MINUTE * MINUTE - 12 * MINUTE
        for model in ("plain", "none", "hashed"):
            for at in range(10):
                body = lines(1000, start + at * MINUTE, f"secret{at}", odd=at >= 8)
                assert one.request("POST", f"/v1/models/{model}/events", body, LINES).status == 200
        for at in range(10):
            frame = pl.read_ndjson(lines(1000, start + at * MINUTE, "n", odd=at >= 8))
            frame = frame.with_columns(pl.int_range(pl.len()).alias("_id") + at * 10_000, pl.from_epoch(pl.col("_time").cast(pl.Int64)))
            assert one.events("whole", frame).status == 200
        end = time.monotonic() + 90
        for model in ("plain", "none", "hashed", "whole"):
            while not one.get(f"/v1/models/{model}/alerts").json["rows"]:
                assert time.monotonic() < end, one.log()
                time.sleep(0.2)
        yield one


def alert(running: Sidecar, model: str) -> int:
    number: int = next(row["id"] for row in running.get(f"/v1/models/{model}/alerts").json["rows"] if row["column"] == "x")
    return number


def test_events_in_the_bins_that_grew_are_named(running: Sidecar) -> None:
    found = running.get(f"/v1/models/plain/alerts/{alert(running, 'plain')}/examples").json
    assert (found["column"], found["reason"]) == ("x", None)
    assert len(found["events"]) == 5
    assert all("-odd-" in event["id"] for event in found["events"]), found
    assert {event["bin"] for event in found["events"]} == {"above the reference"}
    # Whole numbers are their own keys.
    whole = running.get(f"/v1/models/whole/alerts/{alert(running, 'whole')}/examples").json
    assert len(whole["events"]) == 20
    assert all(int(event["id"]) % 10_000 % 3 == 0 and int(event["id"]) >= 80_000 for event in whole["events"])


def test_ids_that_are_hashed_are_named_by_their_hash(running: Sidecar) -> None:
    found = running.get(f"/v1/models/hashed/alerts/{alert(running, 'hashed')}/examples").json
    assert len(found["events"]) == 3
    assert all(len(event["id"]) == 16 and int(event["id"], 16) >= 0 for event in found["events"]), found


def test_nobody_asked_for_them(running: Sidecar) -> None:
    found = running.get(f"/v1/models/none/alerts/{alert(running, 'none')}/examples").json
    assert found["events"] == []
    assert "`examples` of the model is 0" in found["reason"]
    assert running.get("/v1/models/none/alerts/999/examples").status == 404
    assert running.get("/v1/models/none").json["examples"] == 0
    assert running.request("PUT", "/v1/models/none", {"examples": 21}).status == 400


def test_they_are_in_no_file_and_a_restart_and_an_erasure_forget_them(running: Sidecar) -> None:
    files = [path for path in Path(running.folder, "data").rglob("*") if path.is_file()]
    assert files
    assert not [path for path in files if b"-odd-" in path.read_bytes()]
    place = f"/v1/models/plain/alerts/{alert(running, 'plain')}/examples"
    first = running.get(place).json["events"][0]["id"]
    assert running.request("POST", "/v1/models/plain/erase", {"id": first}).status == 204
    assert first not in [event["id"] for event in running.get(place).json["events"]]
    # Who does not want them any more has them gone at once.
    assert running.request("PUT", "/v1/models/whole", {"examples": 0}).status == 204
    assert running.request("PUT", "/v1/models/whole", {"examples": 5}).status == 204
    assert running.get(f"/v1/models/whole/alerts/{alert(running, 'whole')}/examples").json["events"] == []
    running.stop()
    running.start()
    assert running.get(place).json["events"] == []
    assert "since the start" in running.get(place).json["reason"]
