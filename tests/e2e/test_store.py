"""`barograph store` on what a sidecar has left."""

from __future__ import annotations

import hashlib
import json
import struct
import subprocess
import sys
from pathlib import Path

import barograph as bg
import numpy as np
import polars as pl
from sidecars import JSON, Sidecar, sidecar

SCORE = 0.1234567890123
"""Of one event alone: its eight bytes tell whether it is still there."""


def store(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "barograph", "store", *arguments, "--data", str(folder / "data")]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def files(folder: Path) -> dict[str, str]:
    found = (path for path in sorted((folder / "data").rglob("*")) if path.is_file())
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


def holds(folder: Path, score: float) -> bool:
    return any(struct.pack("<d", score) in path.read_bytes() for path in (folder / "data").rglob("*") if path.is_file())


def events(rows: int, seed: int, **more: object) -> pl.DataFrame:
    draw = np.random.default_rng(seed)
    frame = pl.DataFrame({"x": draw.normal(size=rows), "c": draw.choice(["a", "b"], rows), "_score": draw.uniform(size=rows)})
    return frame.with_columns(**more)


def watched(running: Sidecar) -> None:
    running.request("PUT", "/v1/models/m", {"learn": {"events": 1000}})
    for seed in range(3):
        assert running.events("m", events(1000, seed)).json["accepted"] == 1000


def test_a_sound_folder_is_read_and_left_as_it_is(tmp_path: Path) -> None:
    with sidecar(tmp_path) as running:
        watched(running)
        answer = store(tmp_path, "check")
        assert answer.returncode == 2
        assert "a sidecar uses the data folder" in answer.stderr
        running.kill()
        before = files(tmp_path)
        answer = store(tmp_path, "check", "--json")
        assert answer.returncode == 0, answer
        found = json.loads(answer.stdout)
        assert (found["damage"], [(model["model"], model["events"]) for model in found["models"]]) == ([], [("m", 3000)])
        assert "no damage" in store(tmp_path, "check").stdout
        assert files(tmp_path) == before
        running.start()
        assert running.model("m")["events"] == 3000


def test_damage_is_told_and_left_as_it_is(tmp_path: Path) -> None:
    with sidecar(tmp_path) as running:
        watched(running)
        running.kill()
        (log,) = (tmp_path / "data" / "models" / "m").glob("*.wal")
        content = bytearray(log.read_bytes())
        content[len(content) // 2] ^= 0x40
        log.write_bytes(content)
        before = files(tmp_path)
        answer = store(tmp_path, "check")
        assert answer.returncode == 1
        assert "damage: model m" in answer.stdout
        assert "1 records of the log are lost" in answer.stdout
        assert str(tmp_path / "data") not in answer.stdout or "/barograph-check-" not in answer.stdout
        assert files(tmp_path) == before
        # The sidecar goes on with the rest.
        running.start()
        assert running.model("m")["events"] == 2000
    assert store(tmp_path / "elsewhere", "check").returncode == 2


def test_what_is_exported_is_what_the_sidecar_says(tmp_path: Path) -> None:
    with sidecar(tmp_path) as running:
        watched(running)
        moved = events(500, 9).with_columns(pl.lit("2026-01-05T10:00:00Z").str.to_datetime(time_zone="UTC").alias("_time"))
        assert running.events("m", moved.with_columns(pl.col("x") + 2)).status == 200
        history = running.get("/v1/models/m/history?limit=10000").json["rows"]
        profile = running.get("/v1/models/m/profile").body
        running.stop()
        answer = store(tmp_path, "export", str(tmp_path / "out"))
        assert answer.returncode == 0, answer
        folder = tmp_path / "out" / "m"
        assert len(pl.read_parquet(folder / "history.parquet")) >= len(history)
        profiles = pl.read_parquet(folder / "profiles-*.parquet")
        assert (
            sum((bg.Profile.from_bytes(tile) for tile in profiles["profile"]), start=0)["x"].bin_counts
            == bg.Profile.from_bytes(profile)["x"].bin_counts
        )
        assert profiles["rows"].sum() == 2500
        columns = pl.read_parquet(folder / "columns-*.parquet")
        x, c = (columns.filter(pl.col("column") == name).tail(1).row(0, named=True) for name in "xc")
        kll = bg.sketches.Kll.from_bytes(x["kll"])
        assert kll.count == 2000
        assert abs(kll.quantile(0.5) - x["median"]) < 0.1
        names = bg.sketches.FrequentItems.from_bytes(c["frequent_items"])
        assert sum(count for _, count, _ in names.frequent()) == 2000
        reference = bg.Reference.from_bytes((folder / "reference.bin").read_bytes())
        assert bg.compare(reference, bg.Profile.from_bytes(profiles["profile"].to_list()[0])).drifted
        again = store(tmp_path, "export", str(tmp_path / "out"))
        assert again.returncode == 2
        assert "holds files" in again.stderr


def test_an_erased_event_is_in_no_file(tmp_path: Path) -> None:
    with sidecar(tmp_path) as running:
        watched(running)
        # More than wait in memory: they are in the store of waiting events too.
        many = events(60_000, 5, _id=pl.int_range(60_000, eager=True))
        assert (
            running.events("m", many.with_columns(pl.when(pl.col("_id") == 77).then(SCORE).otherwise("_score").alias("_score"))).status
            == 200
        )
        assert running.request("POST", "/v1/models/m/save", {}, JSON).status in (200, 204)
        running.stop()
        assert holds(tmp_path, SCORE)
        waiting = json.loads(store(tmp_path, "check", "--json").stdout)["models"][0]["waiting"]
        assert store(tmp_path, "erase", "m", "--id", "77").returncode == 0
        assert not holds(tmp_path, SCORE)
        found = json.loads(store(tmp_path, "check", "--json").stdout)
        assert found["damage"] == []
        assert found["models"][0]["waiting"] <= waiting
        running.start()
        labels = pl.DataFrame({"_id": [76, 77], "_label": [1, 1]})
        assert running.request("POST", "/v1/models/m/labels", labels.write_ndjson().encode(), "application/x-ndjson").status == 200
        model = running.model("m")
        assert (model["labels"], model["events"]) == (2, 63_000)


def test_a_model_is_forgotten_and_space_comes_back(tmp_path: Path) -> None:
    with sidecar(tmp_path) as running:
        watched(running)
        assert running.events("n", events(100, 1)).status == 200
        running.kill()
        (log,) = (tmp_path / "data" / "models" / "m").glob("*.wal")
        assert log.stat().st_size > 50_000
        answer = store(tmp_path, "compact")
        assert answer.returncode == 0, answer
        assert sum(path.stat().st_size for path in (tmp_path / "data" / "models" / "m").glob("*.wal")) < 5000
        assert store(tmp_path, "erase", "m").returncode == 2
        assert (tmp_path / "data" / "models" / "m").exists()
        assert store(tmp_path, "erase", "m", "--yes").returncode == 0
        assert not (tmp_path / "data" / "models" / "m").exists()
        missing = store(tmp_path, "erase", "m", "--yes")
        assert missing.returncode == 2
        assert "there is no model" in missing.stderr
        running.start()
        assert [model["name"] for model in running.get("/v1/models").json["models"]] == ["n"]
        assert [row["action"] for row in running.get("/v1/audit").json["rows"]][-1] == "delete"
