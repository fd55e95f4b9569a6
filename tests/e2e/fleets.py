"""What sidecars of a fleet are sent, and what they have to make of it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol

import barograph as bg
import numpy as np
import polars as pl
from sidecars import ARROW, Sidecar, arrow

SNAPSHOT = "application/vnd.barograph.snapshot"


def until(what: Callable[[], bool], told: Callable[[], object], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(OSError):
            if what():
                return
        time.sleep(0.1)
    raise AssertionError(told())


def frame(rows: int, seed: int, start: datetime, shift: float = 0.0) -> pl.DataFrame:
    draw = np.random.default_rng(seed)
    score = draw.uniform(size=rows)
    return pl.DataFrame(
        {
            "_id": np.arange(rows) + seed * 1_000_000,
            "_time": [start + timedelta(microseconds=int(at)) for at in np.sort(draw.uniform(0, 50e6, rows))],
            "_score": score,
            "x": draw.normal(shift, size=rows),
            "c": draw.choice(["a", "b", "c"], rows),
            "_latency_seconds": draw.uniform(0.001, 0.1, rows),
            "label": (draw.uniform(size=rows) < score).astype(np.int8),
        }
    )


def events(rows: pl.DataFrame) -> bytes:
    return arrow(rows.drop("label"))


def labels(rows: pl.DataFrame) -> bytes:
    return arrow(rows.select("_id", pl.col("label").alias("_label")))


def waiting(edge: Sidecar) -> int:
    outbox = edge.get("/v1/models/m?local=true").json["fleet"]["outbox"]
    count: int = outbox["waiting"]
    return count


def counted(aggregator: Sidecar) -> int:
    count: int = aggregator.model("m")["events"]
    return count


def has_reference(edge: Sidecar) -> None:
    until(lambda: edge.get("/v1/models/m/reference?local=true").status == 200, edge.log)


def reference(shift: float = 0.0) -> bg.Reference:
    rows = frame(5000, 99, datetime(2026, 1, 1, tzinfo=UTC), shift)
    return bg.Reference(rows.select("x", "c", score="_score"))


def make(folder: Path, name: str) -> Path:
    (folder / name).mkdir()
    return folder / name


def as_one(aggregator: Sidecar, rows: pl.DataFrame, start: datetime) -> None:
    """The window of the minute that `start` begins is that of one monitor that has seen it all, in this process."""
    alone = bg.Monitor("m", reference=reference(), window="1m", task="binary", ticks="manual")
    named = {"time": "_time", "id": "_id", "score": "_score", "latency_seconds": "_latency_seconds"}
    alone.observe_frame(rows.drop("label").with_columns(score="_score"), **named)
    alone.label(rows, id="_id", label="label")
    alone.tick(start + timedelta(seconds=61))
    until(lambda: bool(aggregator.get("/v1/models/m/history").json["rows"]), lambda: aggregator.get("/v1/models/m/history"), 150)
    same = ["column", "method", "value", "lower", "upper", "verdict", "n_current", "segment", "reason"]
    theirs = [{key: row[key] for key in same} for row in aggregator.get("/v1/models/m/history").json["rows"]]
    mine = alone.history().select(same).to_dicts()
    assert theirs == mine
    window = f"start={start:%Y-%m-%dT%H:%M:%SZ}&end={start + timedelta(minutes=1):%Y-%m-%dT%H:%M:%SZ}"
    whole = bg.Profile.from_bytes(aggregator.get(f"/v1/models/m/profile?{window}").body)
    assert whole.to_frame().equals(bg.profile(rows.select("x", "c", score="_score"), reference=reference()).to_frame())


def reads(address: str, keep: str = "1s") -> str:
    """The configuration of an aggregator that reads a bucket."""
    return f'[fleet]\nfrom = "{address}"\ninterval = "1s"\nkeep = "{keep}"\n'


def puts(address: str, name: str, more: str = "") -> str:
    """The configuration of an edge that puts parcels there."""
    return f'[fleet]\nto = "{address}"\ninterval = "1s"\nname = "{name}"\n{more}'


class Bucket(Protocol):
    """Where sidecars leave what others read."""

    address: str

    def objects(self) -> list[str]: ...

    def read(self, name: str) -> bytes: ...

    def gone(self) -> contextlib.AbstractContextManager[object]: ...


def state(aggregator: Sidecar, bucket: Bucket, window: str = "1m") -> None:
    """States the model, and waits until the bucket says so."""
    assert aggregator.request("PUT", "/v1/models/m", {"learn": {"events": 1000}}).status == 201
    assert aggregator.request("PUT", "/v1/models/m/policy", {"window": window, "task": "binary"}).status == 204
    assert aggregator.request("PUT", "/v1/models/m/reference", reference().to_bytes(), SNAPSHOT).status == 204
    etag = aggregator.get("/v1/models/m/reference").headers["etag"].strip('"')
    # The reference comes first; from when the settings name it on, the aggregator is not needed.
    until(lambda: "models/m/settings.json" in bucket.objects() and etag.encode() in bucket.read("models/m/settings.json"), aggregator.log)


def counts_once_through_kills(folder: Path, bucket: Bucket) -> str:
    """Two edges, an aggregator, and nothing but a bucket between them; each is killed, and so for a while is the bucket."""
    with contextlib.ExitStack() as stack:
        aggregator = Sidecar(make(folder, "aggregator"), config=reads(bucket.address))
        stack.callback(aggregator.__exit__)
        aggregator.start()
        state(aggregator, bucket)
        # Edges have all they need from the bucket.
        aggregator.kill()
        edges = [Sidecar(make(folder, f"e{at}"), config=puts(bucket.address, f"e{at}")) for at in range(2)]
        for edge in edges:
            stack.enter_context(edge)
            has_reference(edge)
        while (now := time.time()) % 60 > 20:
            time.sleep(0.2)
        start = datetime.fromtimestamp(now // 60 * 60, UTC)
        rows = frame(2000, 1, start, shift=0.7)
        sent = 0
        for at in range(10):
            part, edge, other = rows[at::10], edges[at % 2], edges[(at + 1) % 2]
            if at == 3:
                edges[0].kill()
                edges[0].start()
            if at == 4:
                aggregator.start()
            if at == 6:
                until(lambda: counted(aggregator) > 0, aggregator.log)
                aggregator.kill()
            with bucket.gone() if at == 7 else contextlib.nullcontext():
                assert edge.request("POST", "/v1/models/m/events", events(part), ARROW).json["accepted"] == part.height
                # The label comes to another sidecar than its prediction.
                assert other.request("POST", "/v1/models/m/labels", labels(part), ARROW).json["accepted"] == part.height
                sent += part.height
                if at == 7:
                    until(lambda: any(bucket.address in edge.get("/readyz").body.decode() for edge in edges), edges[0].log)
                    assert edge.get("/readyz").status == 200
                    # The edge may have met the outage before it cut what it had seen.
                    until(lambda: sum(map(waiting, edges)) >= 1, lambda: [edge.get("/readyz") for edge in edges])
            time.sleep(0.5)
        until(lambda: sum(map(waiting, edges)) == 0, lambda: [edge.get("/readyz") for edge in edges])
        # The window has ended before it is read.
        while time.time() < start.timestamp() + 61:
            time.sleep(0.2)
        aggregator.start()
        until(lambda: counted(aggregator) >= sent, lambda: (counted(aggregator), aggregator.get("/readyz")))
        assert counted(aggregator) == sent
        assert aggregator.model("m")["labels"] == sent
        sources = aggregator.get("/v1/models/m").json["fleet"]["sources"]
        assert {source["source"].split(".")[0] for source in sources} == {"e0", "e1"}
        assert all(source["missing"] == 0 for source in sources)
        as_one(aggregator, rows, start)
        # What was counted goes, in its time.
        until(lambda: gauge(aggregator, 'barograph_bucket_objects_total{what="removed"}') > 0, aggregator.log)
        until(lambda: sum(name.startswith("parcels/") for name in bucket.objects()) < 20, bucket.objects)
        assert gauge(aggregator, "barograph_bucket_objects_refused") == 0
        assert counted(aggregator) == sent
        return f"counted = {counted(aggregator)}, sent = {sent}, labels = {aggregator.model('m')['labels']}, through {bucket.address}"


def gauge(sidecar: Sidecar, series: str) -> float:
    """A number that a sidecar exposes."""
    lines = sidecar.get("/metrics").body.decode().splitlines()
    return next((float(line.rsplit(" ", 1)[1]) for line in lines if line.rsplit(" ", 1)[0] == series), -1.0)
