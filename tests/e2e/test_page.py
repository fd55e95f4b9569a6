"""The page and what it asks, without a browser: files that hold no data, and reads that are thinned, paged and tagged."""

from __future__ import annotations

import gzip
import re
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import numpy as np
import polars as pl
import pytest
from sidecars import Sidecar, sidecar

MINUTE = 60_000_000_000
WINDOWS = 60
ODD = "a/b?c=<b>#é‮"


def events(at: int, shift: float, start: int, rows: int = 400) -> pl.DataFrame:
    draw = np.random.default_rng(at)
    score = draw.uniform(size=rows)
    return pl.DataFrame(
        {
            "x": draw.normal(shift, size=rows),
            ODD: draw.choice(["a", "b", "c"], rows),
            "_id": np.arange(rows) + at * 100_000,
            "_score": score,
            "_latency_seconds": draw.lognormal(-5, 0.5, rows),
            "_time": pl.Series([start + at * MINUTE + 1] * rows).cast(pl.Datetime("ns", "UTC")),
        }
    )


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Sidecar, int]]:
    """A model of minutes, of which those from 20 to 30 hold nothing, and the last ten have moved; and one that learns."""
    config = f'[models.m]\nwindow = "1m"\n[learn.m]\nevents = 2000\n[segments]\nm = ["{ODD}"]\n'
    with sidecar(tmp_path_factory.mktemp("page"), config=config) as running:
        start = time.time_ns() // MINUTE * MINUTE - (WINDOWS + 20) * MINUTE
        for at in range(5):
            running.events("m", events(at, 0.0, start))
        for at in [*range(5, 20), *range(30, WINDOWS)]:
            frame = events(at, 2.0 if at >= WINDOWS - 10 else 0.0, start)
            assert running.events("m", frame).status == 200
            labels = {"_id": frame["_id"].to_list(), "_label": [int(score > 0.5) for score in frame["_score"]]}
            assert running.request("POST", "/v1/models/m/labels", labels).status == 200
        running.request("POST", "/v1/models/learns/events", b'{"x": 1}', "application/x-ndjson")
        assert running.request("POST", "/v1/models/m/deploys", {"version": "2.1", "time": iso(start + 40 * MINUTE)}).status == 204
        end = time.monotonic() + 60
        while running.get("/v1/models/m/decisions").json["decision"] != "fail":
            assert time.monotonic() < end, running.log()
            time.sleep(0.2)
        yield running, start


def iso(ns: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(ns // 1_000_000_000))


def test_the_page_needs_no_token_and_lets_nothing_else_in(watched: tuple[Sidecar, int]) -> None:
    running, _ = watched
    page = running.get("/", Authorization=None)
    assert page.status == 200
    assert page.headers["content-type"].startswith("text/html")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert page.headers["x-frame-options"] == "DENY"
    assert b"late" not in page.body
    # A link elsewhere may lead to it; a script elsewhere may not read it.
    visit = {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "document"}
    assert running.get("/", Authorization=None, **visit).status == 200
    assert running.get("/", Authorization=None, Sec_Fetch_Site="cross-site").status == 403
    assert running.get("/v1/overview", **visit).status == 403
    assert running.get("/", Host="evil.example").status == 421
    assert running.get("/v1/overview", Authorization=None).status == 401
    assert running.get("/assets/nothing.js").status == 404
    assert running.get("/assets/..%2F..%2FCargo.toml").status == 404


def test_files_of_the_page_are_packed_tagged_and_kept(watched: tuple[Sidecar, int]) -> None:
    running, _ = watched
    page = running.get("/", Authorization=None)
    if b"make page" in page.body:
        pytest.skip("this sidecar was built without its page: `make page develop` builds both")
    packed = running.get("/", Authorization=None, Accept_Encoding="gzip")
    assert packed.headers["content-encoding"] == "gzip"
    assert gzip.decompress(packed.body) == page.body
    assert packed.headers["etag"] != page.headers["etag"]
    assert running.get("/", If_None_Match=page.headers["etag"]).status == 304
    files = re.findall(rb'(?:src|href)="([^"]+)"', page.body)
    assert len(files) == 3
    for file in files:
        answer = running.get(f"/{file.decode()}", Authorization=None, Accept_Encoding="gzip")
        assert answer.status == 200
        assert "immutable" in answer.headers["cache-control"]
        assert answer.headers["vary"] == "accept-encoding"
        assert gzip.decompress(answer.body) == running.get(f"/{file.decode()}", Accept_Encoding=None).body


def test_since_is_when_it_became_so_bad_and_an_alert_that_is_over_is_not_open(tmp_path: Path) -> None:
    with sidecar(tmp_path, config='[models.m]\nwindow = "1m"\n[learn.m]\nevents = 8000\n') as running:
        start = time.time_ns() // MINUTE * MINUTE - 60 * MINUTE
        # It moves and comes back, then moves a little, then more.
        shifts = [0.0] * 12 + [2.0] * 3 + [0.0] * 8 + [0.5] * 5 + [2.0] * 5
        for at, shift in enumerate(shifts):
            frame = events(at, shift, start, rows=2000).select("x", "_time")
            assert running.events("m", frame).json["accepted"] == 2000
        end = time.monotonic() + 60
        overview = {}
        while overview.get("window_end") != start + len(shifts) * MINUTE:
            assert time.monotonic() < end, overview
            time.sleep(0.1)
            overview = running.get("/v1/overview").json["models"][0]
        changes = [row for row in running.get("/v1/models/m/alerts?limit=1000").json["rows"] if row["column"] == "x"]
        begun = start + shifts.index(0.5) * MINUTE
        assert [row["state"] for row in changes if row["window_start"] >= begun] == ["opened", "escalated"], changes
        assert changes[-1]["window_start"] > changes[-2]["window_start"] >= begun
        assert (overview["verdict"], overview["since"]) == ("critical", changes[-1]["window_start"])
        # The column has an open alert, its older one is over all the same.
        assert {row["id"] for row in changes if row["open"]} == {changes[-1]["id"]}
        assert len({row["id"] for row in changes}) == 2


def test_the_overview_says_who_is_wrong_since_when_and_why(watched: tuple[Sidecar, int]) -> None:
    running, start = watched
    answer = running.get("/v1/overview")
    lines = {line["name"]: line for line in answer.json["models"]}
    assert lines["learns"]["state"] == "learning"
    assert lines["learns"]["verdict"] is None
    model = lines["m"]
    assert model["verdict"] in ("warning", "critical")
    assert model["open_pages"] + model["open_tickets"] >= 1
    assert model["worst"]["reason"]
    # It went wrong when the shift began, give or take the window that noticed.
    assert 0 <= model["since"] - (start + (WINDOWS - 10) * MINUTE) <= 3 * MINUTE
    assert model["events_per_second"] == pytest.approx(400 / 60)
    assert model["latency_p99"] == pytest.approx(0.021, rel=0.3)
    assert model["quality"]["metric"] == "roc_auc"
    assert model["quality"]["value"] == pytest.approx(1.0)
    assert model["estimate"]["metric"] == "roc_auc"
    assert model["estimate"]["value"] > 0.99
    assert running.get("/v1/overview", If_None_Match=answer.headers["etag"]).status == 304
    first = running.get("/v1/overview?limit=1").json
    assert [line["name"] for line in first["models"]] == ["learns"]
    assert [line["name"] for line in running.get(f"/v1/overview?after={first['next']}").json["models"]] == ["m"]


def test_series_are_thinned_and_their_gaps_told(watched: tuple[Sidecar, int]) -> None:
    running, start = watched
    series = running.get("/v1/models/m/series").json
    assert series["gaps"] == [[start + 20 * MINUTE, start + 30 * MINUTE]]
    lines = {(line["column"], line["method"]): line for line in series["lines"]}
    psi = lines["x", "psi"]
    assert len(psi["times"]) == len(psi["values"]) == len(psi["verdicts"]) == WINDOWS - 15
    assert psi["values"][-1] > 1 > max(psi["values"][:30])
    assert {"deploy", "opened"} <= {mark["kind"] for mark in series["marks"]}
    history = running.get("/v1/models/m/history?limit=100000").json["rows"]
    full = {
        row["window_start"]: row["value"] for row in history if (row["column"], row["method"]) == ("x", "psi") and row["segment"] is None
    }
    assert dict(zip(psi["times"], psi["values"], strict=True)) == full
    thin = running.get("/v1/models/m/series?points=10").json["lines"]
    assert all(len(line["times"]) <= 10 for line in thin)
    kept = next(line for line in thin if (line["column"], line["method"]) == ("x", "psi"))
    assert set(zip(kept["times"], kept["values"], strict=True)) <= set(full.items())
    assert max(kept["values"]) == max(full.values())
    assert kept["times"][-1] == max(full)
    one = running.get(f"/v1/models/m/series?column={quote(ODD, safe='')}").json["lines"]
    assert {line["column"] for line in one} == {ODD}
    part = running.get(f"/v1/models/m/series?since={iso(start + 31 * MINUTE)}&until={iso(start + 35 * MINUTE)}").json
    assert all(len(line["times"]) <= 4 for line in part["lines"])
    assert running.get("/v1/models/m/series?points=5000").status == 400
    assert running.get("/v1/models/learns/series").json["lines"] == []


def test_columns_come_worst_first_and_one_in_full(watched: tuple[Sidecar, int]) -> None:
    running, start = watched
    columns = running.get("/v1/models/m/columns").json
    assert columns["columns"][0]["column"] == "x"
    assert columns["columns"][0]["verdict"] == "critical"
    assert columns["columns"][0]["recent"][-1] > 1
    names = [line["column"] for line in columns["columns"]]
    assert ODD in names
    first = running.get("/v1/models/m/columns?limit=1").json
    rest = running.get(f"/v1/models/m/columns?after={first['next']}").json
    assert [line["column"] for line in first["columns"] + rest["columns"]] == names

    x = running.get("/v1/models/m/columns/x").json
    drift = running.get("/v1/models/m/drift?window=closed").json["rows"]
    rows = [{key: value for key, value in row.items() if key != "provisional"} for row in x["rows"]]
    assert rows == [{key: value for key, value in row.items() if key != "provisional"} for row in drift if row["column"] == "x"]
    assert sum(x["bars"]["current"]) == pytest.approx(1)
    assert sum(x["bars"]["reference"]) == pytest.approx(1)
    total = next(row["value"] for row in rows if row["method"] == "psi_total")
    assert sum(bin["contribution"] for bin in x["bins"]) == pytest.approx(total, rel=0.02)
    half = next(one for one in x["quantiles"] if one["q"] == 0.5)
    assert half["current"] - half["reference"] == pytest.approx(2, abs=0.3)
    early = running.get(f"/v1/models/m/columns/x?start={iso(start + 12 * MINUTE)}&end={iso(start + 13 * MINUTE)}").json
    assert early["verdict"] != "critical"
    assert early["n_current"] == 400
    silent = running.get(f"/v1/models/m/columns/x?start={iso(start + 22 * MINUTE)}&end={iso(start + 23 * MINUTE)}").json
    assert silent["n_current"] == 0
    assert "no events" in silent["reason"]

    odd = running.get(f"/v1/models/m/columns/{quote(ODD, safe='')}").json
    assert odd["column"] == ODD
    assert {one["name"] for one in odd["names"]} == {"a", "b", "c"}
    assert running.get("/v1/models/m/columns/nobody").status == 404
    assert running.get("/v1/models/learns/columns/x").status == 404
    assert running.get("/v1/models/learns/columns").json["columns"] == []
    assert running.get("/v1/models/m/columns?window=yesterday").status == 400
    assert running.get("/v1/models/m/columns/x?start=2026-01-01T00:00:00Z").status == 400


def test_segments_and_quality_are_told(watched: tuple[Sidecar, int]) -> None:
    running, start = watched
    segments = running.get("/v1/models/m/segments").json
    assert segments["by"] == [ODD]
    assert {line["segment"] for line in segments["segments"]} >= {f"{ODD}={name}" for name in "abc"}
    worst = segments["segments"][0]
    assert worst["verdict"] in ("info", "warning", "critical")
    assert worst["moved"][0]["column"] == "x"
    assert sum(line["events"] for line in segments["segments"] if line["segment"][-1] in "abc") == 400

    quality = running.get("/v1/models/m/quality").json
    assert quality["labels"] == 400 * (WINDOWS - 15)
    labelled = [tile for tile in quality["tiles"] if tile["labelled"]]
    assert len(labelled) == WINDOWS - 15
    assert all(tile["labelled"] == tile["events"] == 400 for tile in labelled)
    assert {metric["metric"] for metric in labelled[0]["metrics"]} >= {"roc_auc", "brier"}
    assert len(running.get("/v1/models/m/quality?points=3").json["tiles"]) == 3
    # Labels are the scores above one half: scores calibrated on the first of them foretell the others.
    assert start < quality["calibrated_until"] <= start + 25 * MINUTE
    later = [tile for tile in quality["tiles"] if tile["start"] >= quality["calibrated_until"] and tile["events"]]
    foretold = {metric["metric"]: metric for metric in later[0]["estimated"]}
    assert foretold["roc_auc"]["value"] > 0.99
    assert foretold["roc_auc"]["lower"] <= foretold["roc_auc"]["value"] <= foretold["roc_auc"]["upper"]
    assert all(not tile["estimated"] for tile in quality["tiles"] if tile["start"] < quality["calibrated_until"])
    # A label that comes when its window has long closed is in it all the same.
    late = {"_id": [5 * 100_000], "_label": [0]}
    running.request("POST", "/v1/models/m/labels", late)
    again = running.get(f"/v1/models/m/quality?since={iso(start + 5 * MINUTE)}&until={iso(start + 6 * MINUTE)}").json
    assert len(again["tiles"]) == 1


def test_what_may_be_read_is_what_the_token_is_for(tmp_path_factory: pytest.TempPathFactory) -> None:
    config = '[[tokens]]\nname = "some"\ntoken = "for-some"\nscopes = ["read"]\nmodels = ["a*"]\n'
    with sidecar(tmp_path_factory.mktemp("scopes"), config=config) as running:
        for name in ("apple", "pear"):
            running.request("POST", f"/v1/models/{name}/events", b'{"x": 1}', "application/x-ndjson")
        some = {"Authorization": "Bearer for-some"}
        assert [line["name"] for line in running.get("/v1/overview", **some).json["models"]] == ["apple"]
        for what in ("series", "columns", "columns/x", "segments", "quality"):
            assert running.get(f"/v1/models/pear/{what}", **some).status == 403, what
            assert running.get(f"/v1/models/apple/{what}", **some).status in (200, 404), what
            assert running.get(f"/v1/models/nobody/{what}").status == 404, what
