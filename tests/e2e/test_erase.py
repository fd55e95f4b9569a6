"""What is held for an id goes when it is asked to, from memory and from every file."""

from __future__ import annotations

import stat
from pathlib import Path

import polars as pl
from sidecars import Sidecar, sidecar

SECRET = b"Zzyzx-4711"


def holding(folder: Path, secret: bytes = SECRET) -> list[str]:
    """Files below the folder that have the secret in them."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and secret in path.read_bytes())


def events(count: int) -> pl.DataFrame:
    names = [SECRET.decode() if row == 7 else "usual" for row in range(count)]
    return pl.DataFrame({"_id": [f"id-{row}" for row in range(count)], "x": [float(row % 17) for row in range(count)], "name": names})


def erased(one: Sidecar, name: str) -> None:
    assert one.request("POST", "/v1/models/m/erase", {"id": name}).status == 204


def test_events_that_a_model_learns_from_are_forgotten(tmp_path: Path) -> None:
    with sidecar(tmp_path) as one:
        assert one.events("m", events(200)).status == 200
        assert holding(tmp_path / "data")
        erased(one, "id-8")
        assert holding(tmp_path / "data"), "another id is another matter"
        erased(one, "id-7")
        assert holding(tmp_path / "data") == []
        assert one.model("m")["learning"]["events"] == 200
        one.kill()
        one.start()
        assert holding(tmp_path / "data") == []
        assert one.events("m", events(9_800).filter(pl.col("name") == "usual")).status == 200
        assert one.events("m", events(2)).status == 200
        assert one.model("m")["state"] == "watching"
        assert SECRET not in one.get("/v1/models/m/reference").body


def test_an_event_that_waits_for_its_label_is_forgotten(tmp_path: Path) -> None:
    with sidecar(tmp_path) as one:
        frame = pl.DataFrame({"x": [float(row % 17) for row in range(10_000)], "_score": 0.5})
        assert one.events("m", frame).status == 200
        waiting = pl.DataFrame({"_id": ["a", "b"], "x": [1.0, 2.0], "_score": [0.25, 0.75]})
        assert one.events("m", waiting).status == 200
        erased(one, "a")
        one.kill()
        one.start()
        assert one.request("POST", "/v1/models/m/labels", {"_id": ["a", "b"], "_label": [1, 1]}).status == 200
        odd = [line for line in one.get("/metrics").body.decode().splitlines() if line.startswith("barograph_odd_events_total")]
        assert 'barograph_odd_events_total{model="m",what="orphan_labels"} 1' in odd, odd


def test_files_are_for_their_owner_alone(tmp_path: Path) -> None:
    with sidecar(tmp_path) as one:
        assert one.events("m", events(200)).status == 200
        data = tmp_path / "data"
        assert stat.S_IMODE(data.stat().st_mode) == 0o700
        for name in ("control.sqlite", "control.sqlite-wal", "lock"):
            assert stat.S_IMODE((data / name).stat().st_mode) == 0o600, name


def test_metrics_are_of_the_models_of_the_token(tmp_path: Path) -> None:
    config = '[[tokens]]\nname = "reader"\ntoken = "reader-token"\nscopes = ["read"]\nmodels = ["mine*"]\n'
    with sidecar(tmp_path, config=config) as one:
        for name in ("mine-1", "other"):
            assert one.events(name, events(200)).status == 200
        seen = one.get("/metrics", Authorization="Bearer reader-token").body
        assert b'model="mine-1"' in seen
        assert b'model="other"' not in seen
        assert b'model="other"' in one.get("/metrics").body
