"""What a sidecar has kept, in Debian's PostgreSQL."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from fleets import SNAPSHOT, events, frame, reference, until
from servers import free_ports
from sidecars import ARROW, sidecar

PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin"))


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A server of its own, on loopback."""
    if not PROGRAMS:
        (pytest.fail if os.environ.get("BAROGRAPH_BROKERS") == "all" else pytest.skip)("needs Debian's package postgresql")
    folder = Path(tempfile.mkdtemp(prefix="barograph-postgres-"))
    # It does not run as root.
    prefix = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    if prefix:
        shutil.chown(folder, "postgres")
    (port,) = free_ports(1)

    def run(program: str, *arguments: str) -> None:
        done = subprocess.run([*prefix, str(PROGRAMS[-1] / program), *arguments], capture_output=True, text=True, cwd=folder, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    data = str(folder / "data")
    run("initdb", "-D", data, "-U", "tests", "-A", "trust", "-E", "UTF8", "--no-sync")
    run(
        "pg_ctl",
        "-D",
        data,
        "-w",
        "-o",
        f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories=''",
        "-l",
        f"{folder}/log",
        "start",
    )
    try:
        yield f"postgresql://tests@127.0.0.1:{port}/postgres"
    finally:
        run("pg_ctl", "-D", data, "-m", "immediate", "stop")
        shutil.rmtree(folder)


def store(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "barograph", "store", "export", *arguments, "--data", str(folder / "data")]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def kept(folder: Path) -> Path:
    """A folder of a sidecar that has closed a window."""
    folder.mkdir()
    with sidecar(folder) as running:
        running.request("PUT", "/v1/models/m", {"learn": {"events": 1000}})
        running.request("PUT", "/v1/models/m/policy", {"window": "1m", "task": "binary"})
        running.request("PUT", "/v1/models/m/reference", reference().to_bytes(), SNAPSHOT)
        running.request("PUT", "/v1/models/other", {})
        rows = frame(2000, 1, datetime(2026, 1, 5, 10, tzinfo=UTC), shift=0.7)
        assert running.request("POST", "/v1/models/m/events", events(rows), ARROW).status == 200
        until(lambda: bool(running.get("/v1/models/m/history").json["rows"]), running.log)
    return folder


def table(address: str, name: str) -> list[tuple[Any, ...]]:
    import psycopg

    with psycopg.connect(address, options="-c timezone=UTC") as connection:
        return connection.execute(f"SELECT * FROM barograph.{name} WHERE model = 'm'").fetchall()


def plain(row: tuple[Any, ...]) -> str:
    """A row as text, whoever made its times."""
    return repr([value.isoformat() if isinstance(value, datetime) else value for value in row])


def test_tables_hold_what_is_exported_once(address: str, tmp_path: Path) -> None:
    folder = kept(tmp_path / "kept")
    assert store(folder, str(tmp_path / "out")).returncode == 0
    for turn in range(2):
        answer = store(folder, "--postgres", address)
        assert answer.returncode == 0, answer.stderr
        assert "m: " in answer.stdout
        assert "other: it learns" in answer.stdout
        for name in ("history", "alerts", "profiles", "columns"):
            parts = [pl.read_parquet(path) for path in sorted((tmp_path / "out" / "m").glob(f"{name}*.parquet"))]
            expected = [("m", *row) for part in parts for row in part.iter_rows()]
            found = table(address, name)
            assert len(found) == len(expected) > 0 or name == "alerts", (turn, name)
            assert sorted(map(plain, found)) == sorted(map(plain, expected)), (turn, name)
    # A snapshot is one there too.
    import barograph as bg

    (snapshot, *_) = [row[-1] for row in table(address, "profiles")]
    assert bg.Profile.from_bytes(bytes(snapshot))["x"].count > 0


def test_what_cannot_be_exported_is_told(address: str, tmp_path: Path) -> None:
    folder = kept(tmp_path / "kept")
    for arguments, says in [
        ((), "either DIR or --postgres"),
        ((str(tmp_path / "out"), "--postgres", address), "either DIR or --postgres"),
        (("--postgres", "postgresql://tests:hush@127.0.0.1/postgres"), "must hold no password"),
        (("--postgres", "what is this"), "no address of a database"),
        (("--postgres", "postgresql://tests@127.0.0.1:1/postgres"), "could not be reached"),
        (("--postgres", address, "--schema", "x" * 64), "1 to 63 bytes"),
        (("--postgres", address, "--model", "nobody"), "there is no model"),
    ]:
        answer = store(folder, *arguments)
        assert (answer.returncode, says in answer.stderr, "hush" in answer.stderr) == (2, True, False), answer
    # What the database refuses changes nothing.
    import psycopg

    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA narrow")
        connection.execute('CREATE TABLE narrow.history (model text, "column" text)')
        connection.execute("INSERT INTO narrow.history VALUES ('m', 'x')")
        answer = store(folder, "--postgres", address, "--schema", "narrow")
        assert answer.returncode == 2
        assert "the database refused m" in answer.stderr
        assert connection.execute("SELECT count(*) FROM narrow.history").fetchone() == (1,)
