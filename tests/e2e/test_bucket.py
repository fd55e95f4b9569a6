"""Sidecars with nothing but a shared folder between them: what lies in it is counted once, and what cannot be is told."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest
from fleets import (
    counted,
    counts_once_through_kills,
    events,
    frame,
    gauge,
    has_reference,
    make,
    puts,
    reads,
    state,
    until,
    waiting,
)
from sidecars import ARROW, Sidecar, sidecar


class Folder:
    """A shared folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()
        self.address = f"file://{path}"

    def objects(self) -> list[str]:
        return sorted(str(found.relative_to(self.path)) for found in self.path.rglob("*") if found.is_file())

    def read(self, name: str) -> bytes:
        return (self.path / name).read_bytes()

    def parcels(self) -> list[Path]:
        """Those that hold events."""
        out = []
        for name in self.objects():
            # One may be half of one, or go meanwhile.
            with contextlib.suppress(pl.exceptions.PolarsError, OSError):
                if name.endswith(".parquet") and pl.read_parquet(self.path / name)["rows"].item() > 0:
                    out.append(self.path / name)
        return out

    @contextlib.contextmanager
    def gone(self) -> Iterator[None]:
        """As one that is not mounted: the folder is there, and empty."""
        away = self.path.with_name("away")
        self.path.rename(away)
        self.path.mkdir()
        try:
            yield
        finally:
            assert self.objects() == []
            self.path.rmdir()
            away.rename(self.path)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "bucket")


def post(edge: Sidecar, seed: int, rows: int = 500) -> None:
    answer = edge.request("POST", "/v1/models/m/events", events(frame(rows, seed, datetime.now(UTC))), ARROW)
    assert answer.json["accepted"] == rows, answer


def problems(running: Sidecar) -> str:
    return " ".join(running.get("/readyz").json["problems"])


def test_sent_is_counted_whatever_is_killed(folder: Folder, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = counts_once_through_kills(tmp_path, folder)
    with capsys.disabled():
        print(f"\n{text}")


def test_windows_wait_for_what_lies_in_the_bucket(folder: Folder, tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        aggregator = Sidecar(make(tmp_path, "aggregator"), config=reads(folder.address))
        stack.callback(aggregator.__exit__)
        aggregator.start()
        state(aggregator, folder, window="3s")
        aggregator.kill()
        edge = stack.enter_context(Sidecar(make(tmp_path, "edge"), config=puts(folder.address, "edge")))
        has_reference(edge)
        now = datetime.now(UTC)
        answer = edge.request("POST", "/v1/models/m/events", events(frame(300, 1, now).with_columns(_time=pl.lit(now))), ARROW)
        assert answer.json["accepted"] == 300
        until(lambda: bool(folder.parcels()), edge.log)
        while time.time() < now.timestamp() + 4:
            time.sleep(0.1)
        # An aggregator that ticked now would close the window without them.
        with folder.gone():
            aggregator.start()
            until(lambda: "is gone" in aggregator.get("/readyz").body.decode(), aggregator.log)
            time.sleep(3)
        until(lambda: counted(aggregator) == 300, lambda: aggregator.get("/readyz"))
        until(lambda: bool(aggregator.get("/v1/models/m/history").json["rows"]), aggregator.log)
        rows = aggregator.get("/v1/models/m/history").json["rows"]
        assert max(row["n_current"] or 0 for row in rows) == 300
        assert aggregator.get("/v1/models/m").json["fleet"]["outdated_events"] == 0
        assert (
            'what="late"' not in aggregator.get("/metrics").body.decode()
            or gauge(aggregator, 'barograph_odd_events_total{model="m",what="late"}') <= 0
        )


def test_a_reference_is_learned_through_the_bucket(folder: Folder, tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        aggregator = stack.enter_context(sidecar(make(tmp_path, "aggregator"), config=reads(folder.address)))
        aggregator.request("PUT", "/v1/models/m", {"learn": {"events": 1000}})
        more = f'ask = "http://127.0.0.1:{aggregator.port}"\ntoken = "a-token-for-tests"\n'
        edges = [
            stack.enter_context(Sidecar(make(tmp_path, f"e{at}"), config=puts(folder.address, f"e{at}", more if at else "")))
            for at in range(2)
        ]
        for at in range(8):
            post(edges[at % 2], at, 300)
        until(lambda: aggregator.model("m")["state"] == "watching", lambda: aggregator.get("/readyz"))
        for edge in edges:
            has_reference(edge)
        for at in range(8, 12):
            post(edges[at % 2], at, 300)
        until(lambda: counted(aggregator) == 12 * 300, lambda: (counted(aggregator), [edge.get("/readyz") for edge in edges]))
        # What is stated there holds here, and only there can it be stated.
        assert edges[0].request("PUT", "/v1/models/m/policy", {"window": "1d"}).status == 409
        assert aggregator.request("PUT", "/v1/models/m/policy", {"window": "1d"}).status == 204
        until(lambda: edges[0].get("/v1/models/m/policy?local=true").json["window"] == "1d", edges[0].log)
        # A bucket answers nothing; an edge that knows the aggregator's address asks there.
        refused = edges[0].get("/v1/models")
        assert refused.status == 502
        assert folder.address in refused.json["detail"]
        assert "fleet.ask" in refused.json["hint"]
        assert [model["events"] for model in edges[1].get("/v1/models").json["models"]] == [12 * 300]


def test_what_is_no_parcel_is_told_and_counted_nowhere(folder: Folder, tmp_path: Path) -> None:
    config = reads(folder.address, keep="1h") + "[budget]\n"
    with (
        sidecar(make(tmp_path, "aggregator"), config="max_body = '1MB'\n" + config) as aggregator,
        sidecar(make(tmp_path, "edge"), config=puts(folder.address, "edge")) as edge,
    ):
        state(aggregator, folder)
        has_reference(edge)
        post(edge, 1)
        until(lambda: counted(aggregator) == 500, lambda: aggregator.get("/readyz"))
        # Another implementation reads them.
        good = folder.parcels()[0]
        table = pl.read_parquet(good)
        assert table.schema["parcel"] == pl.Binary
        assert table.select("model", "kind", "rows").row(0) == ("m", "delta", 500)
        assert good.name == f"{table['number'].item():020}.parquet"
        whole, stream = good.read_bytes(), good.parent
        rotten = bytearray(whole)
        rotten[whole.index(b"delta")] ^= 0x10
        at = whole.index(table["rows"].item().to_bytes(8, "little"))
        changed = whole[:at] + bytes([whole[at] - 1]) + whole[at + 1 :]
        newer = bytearray(whole)
        newer[whole.index(b"\x01\0\0\0", 4)] = 9
        foreign = tmp_path / "foreign.parquet"
        pl.DataFrame({"x": [1]}).write_parquet(foreign)
        bad = [
            (whole[: len(whole) // 2], "ends too early"),
            (b"", "no Parquet file"),
            (bytes(rotten), "neither a delta nor"),
            (changed, "changed after it was written"),
            (bytes(newer), "another version"),
            (foreign.read_bytes(), "no parcel"),
            (whole, "it is parcel"),
            (bytes(2 << 20), "at most `max_body`"),
        ]
        paths = [stream / f"{9000 + at:020}.parquet" for at in range(len(bad))]
        for path, (data, _) in zip(paths, bad, strict=True):
            path.write_bytes(data)
        (stream / "notes.txt").write_text("hello")
        until(lambda: gauge(aggregator, "barograph_bucket_objects_refused") == len(bad) + 1, lambda: aggregator.get("/readyz"))
        for path, (_, says) in zip(paths, bad, strict=True):
            told = (path.name, says)
            until(lambda told=told: all(part in problems(aggregator) for part in told), lambda told=told: (told, problems(aggregator)))  # type: ignore[misc]
            assert aggregator.get("/readyz").status == 200
            path.unlink()
        until(lambda: "its name is not" in problems(aggregator), lambda: problems(aggregator))
        assert "its name is not" in aggregator.log()
        assert counted(aggregator) == 500
        post(edge, 2)
        until(lambda: counted(aggregator) == 1000, lambda: aggregator.get("/readyz"))
        (stream / "notes.txt").unlink()
        until(lambda: aggregator.get("/readyz").json["problems"] == [], lambda: aggregator.get("/readyz"))
        assert gauge(aggregator, 'barograph_bucket_objects_total{what="refused"}') == len(bad) + 1


def test_a_bucket_has_one_reader_and_a_number_one_parcel(folder: Folder, tmp_path: Path) -> None:
    place = make(tmp_path, "edge")
    with sidecar(make(tmp_path, "aggregator"), config=reads(folder.address)) as aggregator:
        state(aggregator, folder)
        with sidecar(make(tmp_path, "second"), config=reads(folder.address)) as second:
            until(lambda: "two would each count a part" in second.get("/readyz").body.decode(), second.log)
            assert second.get("/readyz").status == 200
            with sidecar(place, config=puts(folder.address, "edge")) as edge:
                has_reference(edge)
                post(edge, 1)
                copies: dict[Path, bytes] = {}

                def copied() -> bool:
                    copies.update((path, path.read_bytes()) for path in folder.parcels())
                    return bool(copies)

                until(copied, edge.log)
                until(lambda: counted(aggregator) == 500, lambda: aggregator.get("/readyz"))
                until(lambda: waiting(edge) == 0, edge.log)
                edge.kill()
                shutil.copytree(place / "data", tmp_path / "older")
                edge.start()
                # What comes late and again, after it went, goes again.
                until(lambda: folder.parcels() == [], folder.objects)
                for path, data in copies.items():
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(data)
                until(lambda: folder.parcels() == [], folder.objects)
                assert counted(aggregator) == 500
            assert second.get("/v1/models").json["models"] == []
        aggregator.kill()
        with sidecar(place, config=puts(folder.address, "edge")) as edge:
            post(edge, 2)
            until(lambda: len(folder.parcels()) == 1, edge.log)
        # Half of what it is about to put, as by a copy that was broken off.
        last = max(path for path in folder.path.rglob("*.parquet"))
        half = last.with_name(f"{int(last.stem) + 1:020}.parquet")
        half.write_bytes(last.read_bytes()[:100])
        with sidecar(place, config=puts(folder.address, "edge")) as edge:
            post(edge, 3, 100)
            until(lambda: len(folder.parcels()) == 2, edge.log)
            assert half.stat().st_size > 100
        shutil.rmtree(place / "data")
        shutil.copytree(tmp_path / "older", place / "data")
        with sidecar(place, config=puts(folder.address, "edge")) as edge:
            until(lambda: "older copy of its folder" in edge.get("/readyz").body.decode(), edge.log)
            assert edge.get("/readyz").status == 200
        aggregator.start()
        until(lambda: counted(aggregator) == 1100, lambda: aggregator.get("/readyz"))
        # Another folder's edge does not find its aggregator.
        with sidecar(make(tmp_path, "lost"), config=puts(f"file://{tmp_path}/nowhere", "lost")) as lost:
            until(lambda: "no aggregator reads there" in lost.log(), lost.log)
            assert not (tmp_path / "nowhere").exists()


def test_a_model_that_was_deleted_is_told_and_counts_nothing_again(folder: Folder, tmp_path: Path) -> None:
    with (
        sidecar(make(tmp_path, "aggregator"), config=reads(folder.address, keep="1h")) as aggregator,
        sidecar(make(tmp_path, "edge"), config=puts(folder.address, "edge")) as edge,
    ):
        state(aggregator, folder)
        has_reference(edge)
        post(edge, 1)
        until(lambda: counted(aggregator) == 500, lambda: problems(aggregator))
        assert len(folder.parcels()) == 1
        assert aggregator.request("DELETE", "/v1/models/m").status == 204
        until(lambda: "states no model" in problems(edge), lambda: problems(edge))
        assert folder.parcels() == []
        post(edge, 2, 300)
        state(aggregator, folder)
        until(lambda: counted(aggregator) == 300, lambda: (counted(aggregator), problems(aggregator), problems(edge)))
        until(lambda: waiting(edge) == 0, lambda: problems(edge))
        assert counted(aggregator) == 300
