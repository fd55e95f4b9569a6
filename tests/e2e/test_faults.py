"""What goes wrong under a running sidecar: disks, files, the end of the process. What is safe is served, what is not is told."""

from __future__ import annotations

import contextlib
import json
import resource
import shutil
import signal
import socket
import struct
import subprocess
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sidecars import JSON, LINES, Answer, Sidecar, sidecar


def lines(rows: int, first: int = 0) -> bytes:
    return b"\n".join(json.dumps({"x": float(at % 17), "c": "ab"[at % 2], "_id": first + at}).encode() for at in range(rows))


def send(running: Sidecar, rows: int, model: str = "m", first: int = 0) -> Answer:
    return running.request("POST", f"/v1/models/{model}/events", lines(rows, first), LINES)


def until(what: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(OSError):
            if what():
                return
        time.sleep(0.02)
    raise AssertionError("it did not happen in time")


def settled(running: Sidecar, before: int) -> dict[str, Any]:
    """What `/readyz` says once a sidecar that was started has opened its models; it must not have ended."""
    found: dict[str, Any] = {}

    def open_by_now() -> bool:
        assert running.process is not None
        assert running.process.poll() is None, running.log()[before:]
        found.update(running.get("/readyz").json)
        return found["status"] != "replaying"

    until(open_by_now)
    return found


@contextlib.contextmanager
def disk(folder: Path, size: str) -> Iterator[Path]:
    """A small disk in memory, where that is allowed."""
    mount = shutil.which("mount")
    data = folder / "data"
    data.mkdir()
    if (
        mount is None
        or subprocess.run([mount, "-t", "tmpfs", "-o", f"size={size}", "tmpfs", data], capture_output=True, check=False).returncode
    ):
        pytest.skip("needs the right to mount a disk")
    try:
        yield data
    finally:
        subprocess.run(["umount", "-l", data], check=True)


def remount(data: Path, how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", data], check=True)


def test_a_full_disk_is_told_and_forgotten_when_there_is_room(tmp_path: Path) -> None:
    with disk(tmp_path, "6m") as data, sidecar(tmp_path) as running:
        taken = send(running, 11_000).json["accepted"]
        answer = send(running, 2000)
        while answer.status == 200:
            taken += answer.json["accepted"]
            answer = send(running, 2000, first=taken)
        assert (answer.status, answer.headers["retry-after"]) == (503, "5"), answer
        assert "No space left" in answer.json["detail"]
        assert "No space left" in running.get("/readyz").body.decode()
        for path in ("/healthz", "/v1/models/m/drift", "/v1/models/m/history", "/v1/models/m/decisions", "/metrics", "/v1/audit"):
            assert running.get(path).status == 200, path
        assert running.model("m")["events"] == taken
        # The rest of it too: it starts again all the same.
        with contextlib.suppress(OSError), (data / "rest").open("wb", buffering=0) as rest:
            while True:
                rest.write(bytes(4096))
        running.kill()
        running.start(wait=False)
        settled(running, 0)
        assert running.model("m")["events"] == taken
        assert send(running, 2000).status == 503
        assert send(running, 10, "new").status == 503
        (data / "rest").unlink()
        remount(data, "size=64m")
        # A model that could not even be begun is tried again.
        until(lambda: send(running, 10, "new").status == 200, 20)
        until(lambda: running.get("/readyz").status == 200)
        assert send(running, 2000).json["accepted"] == 2000
        running.kill()
        running.start()
        assert running.model("m")["events"] == taken + 2000


@pytest.mark.parametrize("end", ["kill", "stop"])
def test_a_disk_that_cannot_be_written_to_is_read(tmp_path: Path, end: str) -> None:
    with disk(tmp_path, "200m") as data, sidecar(tmp_path) as running:
        # Enough of them wait for labels to have files of their own.
        assert send(running, 70_000).status == 200
        assert running.request("POST", "/v1/models/m/save", {}, JSON).status == 204
        assert send(running, 100, first=70_000).status == 200
        getattr(running, end)()
        remount(data, "ro")
        running.start(wait=False)
        found = settled(running, 0)
        assert found["status"] == "unready"
        assert any("control.sqlite can only be read" in problem for problem in found["problems"]), found
        assert running.model("m")["events"] == 70_100
        for path in ("/healthz", "/v1/models/m", "/v1/models/m/drift", "/v1/models/m/profile", "/metrics", "/v1/audit"):
            assert running.get(path).status == 200, path
        assert send(running, 10).status == 503
        assert send(running, 10, "new").status == 503
        assert running.request("PUT", "/v1/models/m/policy", {"window": "1d"}).status == 503
        assert running.request("DELETE", "/v1/models/m").status == 503
        assert running.model("m")["events"] == 70_100
        remount(data, "rw")
        until(lambda: send(running, 10, first=80_000).status == 200, 30)
        running.stop()
        running.start()
        assert running.model("m")["events"] == 70_110
        labels = b"\n".join(json.dumps({"_id": at, "_label": 1}).encode() for at in (11_003, 69_999, 80_009))
        assert running.request("POST", "/v1/models/m/labels", labels, LINES).json["accepted"] == 3
        assert 'barograph_odd_events_total{model="m",what="orphan_labels"} 0' in running.get("/metrics").body.decode()


def test_a_limit_on_files_does_not_end_it(tmp_path: Path) -> None:
    with sidecar(tmp_path) as running:
        taken = send(running, 1000).json["accepted"]
        assert running.process is not None
        resource.prlimit(running.process.pid, resource.RLIMIT_FSIZE, (200_000, 200_000))
        answer = send(running, 2000)
        while answer.status == 200:
            taken += 2000
            answer = send(running, 2000, first=taken)
        assert answer.status == 503
        assert "File too large" in answer.json["detail"]
        assert running.model("m")["events"] == taken
        running.kill()
        running.start()
        assert running.model("m")["events"] == taken


def left(folder: Path, rows: int) -> Path:
    """A folder after kill -9: a state, a log of 300 events behind it, a control plane, another model."""
    with sidecar(folder) as running:
        assert running.request("PUT", "/v1/models/m", {"segments": ["c"], "learn": {"events": 1000}}).status == 201
        assert send(running, rows).status == 200
        assert running.request("POST", "/v1/models/m/save", {}, JSON).status == 204
        for at in range(3):
            assert send(running, 100, first=rows + 100 * at).status == 200
        assert send(running, 100, "other").status == 200
        running.kill()
    return folder / "data"


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return left(tmp_path_factory.mktemp("sound"), 2000)


@pytest.fixture(scope="module")
def waiting(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One in which so many events wait for labels that they have files of their own."""
    return left(tmp_path_factory.mktemp("waiting"), 60_000)


def flipped(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 0x40]) + content[at + 1 :]


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "begin": lambda content: flipped(content, 0),
    "middle": lambda content: flipped(content, len(content) // 2),
    "end": lambda content: flipped(content, len(content) - 1),
    "cut": lambda content: content[: len(content) // 2],
    "zero": lambda content: bytes(len(content)),
    "empty": lambda _: b"",
}


KINDS = ["models/m/log-*.wal", "models/m/state-*.bin", "control.sqlite", "control.sqlite-wal"]
PENDING_KINDS = ["models/m/pending/keyspaces/*/tables/*", "models/m/pending/*.jnl", "models/m/pending/version"]
CASES = [("sound", 2000, kind, how) for kind in KINDS for how in DAMAGE]
CASES += [("waiting", 60_000, kind, how) for kind in PENDING_KINDS for how in ("middle", "zero")]


@pytest.mark.parametrize(("folder", "rows", "kind", "how"), CASES, ids=lambda value: str(value).rsplit("/", 1)[-1].replace("*", ""))
def test_damage_in_any_file_is_lived_with(
    request: pytest.FixtureRequest, tmp_path: Path, folder: str, rows: int, kind: str, how: str
) -> None:
    shutil.copytree(request.getfixturevalue(folder), tmp_path / "data")
    damaged = sorted(path for path in (tmp_path / "data").glob(kind) if path.stat().st_size)[-1]
    damaged.write_bytes(DAMAGE[how](damaged.read_bytes()))
    running = Sidecar(tmp_path).start(wait=False)
    try:
        found = settled(running, 0)
        # Nothing that was acknowledged goes but what was in the damaged place, and that is told.
        events = running.model("m")["events"]
        assert rows <= events <= rows + 300
        assert events == rows + 300 or "log" in kind
        if events < rows + 300 and how not in ("cut", "empty"):
            assert any("could not be read" in problem for problem in found["problems"]), found
        assert running.model("other")["events"] == 100
        assert running.get("/v1/models/m").json["segments"] == ["c"]
        assert running.get("/v1/models/m/drift").status == 200
        assert send(running, 100).status == 200
        assert running.get("/readyz").status == 200, found
        # It does not get worse by itself.
        running.kill()
        running.start(wait=False)
        settled(running, 0)
        assert running.model("m")["events"] == events + 100
    finally:
        running.__exit__()


def test_models_that_the_control_plane_has_lost_come_back_and_deleted_ones_do_not(sound: Path, tmp_path: Path) -> None:
    shutil.copytree(sound, tmp_path / "data")
    for path in (tmp_path / "data").glob("control.sqlite*"):
        path.unlink()
    with sidecar(tmp_path) as running:
        assert running.model("m")["events"] == 2300
        assert running.get("/v1/models/m").json["segments"] == ["c"]
        problems = running.get("/readyz").json["problems"]
        assert any("model m" in problem and "taken in" in problem for problem in problems), problems
        assert running.request("DELETE", "/v1/models/other").status == 204
        assert not (tmp_path / "data" / "models" / "other").exists()
        # The same name again is another model.
        assert send(running, 7, "other").status == 200
        assert running.model("other")["events"] == 7
        assert running.request("DELETE", "/v1/models/other").status == 204
        running.kill()
        for path in (tmp_path / "data").glob("control.sqlite*"):
            path.unlink()
        running.start()
        assert [model["name"] for model in running.get("/v1/models").json["models"]] == ["m"]


@pytest.mark.parametrize("kind", ["state", "log", "record", "control"])
def test_what_a_newer_version_wrote_is_refused_and_left_alone(sound: Path, tmp_path: Path, kind: str) -> None:
    shutil.copytree(sound, tmp_path / "data")
    folder = tmp_path / "data" / "models" / "m"
    if kind == "control":
        import sqlite3

        path = tmp_path / "data" / "control.sqlite"
        with contextlib.closing(sqlite3.connect(path)) as database:
            database.execute("PRAGMA user_version = 99")
    elif kind == "state":
        path = sorted(folder.glob("state-*.bin"))[-1]
        content = bytearray(path.read_bytes())
        content[7] = 99
        path.write_bytes(content[:-4] + struct.pack("<I", zlib.crc32(content[:-4])))
    else:
        path = sorted(folder.glob("log-*.wal"))[-1]
        content = bytearray(path.read_bytes())
        if kind == "log":
            content[7] = 99
        else:
            # A record of a kind that is not known, after the last: time, no keys, three counts of nothing, the kind.
            payload = bytes([2, 0, 0, 0, 0, 99])
            number = 1 << 20
            checked = struct.pack("<Q", number) + payload
            content += struct.pack("<II", len(payload), zlib.crc32(checked)) + checked
        path.write_bytes(content)
    before = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file() and "pending" not in str(file)}
    running = Sidecar(tmp_path).start(wait=False)
    assert running.process is not None
    try:
        if kind == "control":
            assert running.process.wait(30) == 2
            assert "newer barograph" in running.log()
        else:
            found = settled(running, 0)
            assert found["status"] == "unready"
            assert any("newer barograph" in problem for problem in found["problems"]), found
            assert send(running, 10).status == 503
            assert send(running, 10, "other").status == 200
            running.stop()
        assert {file: file.read_bytes() for file in before} == before
    finally:
        running.__exit__()


def test_it_ends_soon_whatever_is_open(tmp_path: Path) -> None:
    with sidecar(tmp_path) as running:
        streaming = running.connection()
        streaming.request("GET", "/v1/stream", headers={"Authorization": "Bearer a-token-for-tests"})
        answer = streaming.getresponse()
        assert answer.readline() == b"retry: 1000\n"
        idle = socket.create_connection(("127.0.0.1", running.port))
        idle.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert idle.recv(1000).startswith(b"HTTP/1.1 200")
        silent = socket.create_connection(("127.0.0.1", running.port))
        began = time.monotonic()
        running.stop()
        assert time.monotonic() - began < 8
        answer.read()
        for connection in (streaming, idle, silent):
            connection.close()


def test_an_answer_comes_although_its_body_was_not_wanted(tmp_path: Path) -> None:
    with sidecar(tmp_path, config='max_body = "4MB"\n') as running:
        body = b"x" * 3_900_000
        path = "/v1/models/m/events"
        assert running.request("POST", path, body, LINES, Authorization=None).status == 401
        assert running.request("POST", path, body, LINES, Authorization="Bearer wrong").status == 401
        assert running.request("POST", path, body, LINES, Host="evil.example").status == 421
        assert running.request("POST", path, body, LINES, Origin="http://evil.example").status == 403
        assert running.request("POST", "/nothing", body, LINES).status == 404
        assert running.request("PATCH", path, body, LINES).status == 405
        assert running.request("POST", path, body, "text/plain").status == 415
        assert running.request("POST", "/v1/models/m/deploys", body, JSON).status in (404, 413)
        assert running.request("GET", "/healthz", body, LINES).status == 200
        assert send(running, 10).status == 200


def test_a_half_written_token_is_made_anew(tmp_path: Path) -> None:
    import os
    import sys

    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "token").write_text("")
    running = Sidecar(tmp_path)
    command = [sys.executable, "-m", "barograph", "serve", "--data", str(tmp_path / "data"), "--listen", f"127.0.0.1:{running.port}"]
    environment = {name: value for name, value in os.environ.items() if name != "BAROGRAPH_TOKEN"}
    with (tmp_path / "log").open("wb") as log:
        running.process = subprocess.Popen(command, env=environment, stderr=log)
    try:
        running.until_ready()
        token = (tmp_path / "data" / "token").read_text().strip()
        assert running.get("/v1/models", Authorization=f"Bearer {token}").status == 200
        assert (tmp_path / "data" / "token").stat().st_mode & 0o777 == 0o600
    finally:
        running.__exit__()


def test_only_a_socket_makes_way_for_a_socket(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("a file")
    running = Sidecar(tmp_path, "--listen", f"unix:{precious}").start(wait=False)
    assert running.process is not None
    assert running.process.wait(30) == 2
    assert precious.read_text() == "a file"
    # One that a killed process left does.
    path = tmp_path / "b.sock"
    with sidecar(tmp_path, "--listen", f"unix:{path}") as other:
        other.kill()
        assert path.exists()
        other.start()


def test_a_key_of_events_is_not_one_of_labels(tmp_path: Path) -> None:
    with sidecar(tmp_path) as running:
        body = b'{"_id": 1, "_label": 1, "x": 2.0}'
        assert running.request("POST", "/v1/models/m/events", body, LINES, Idempotency_Key="k").json["repeated"] is False
        assert running.request("POST", "/v1/models/m/labels", body, LINES, Idempotency_Key="k").status == 422
        assert running.request("POST", "/v1/models/m/labels", body, LINES, Idempotency_Key="l").json["repeated"] is False


def test_a_stopped_process_goes_on_and_one_that_is_told_twice_ends(tmp_path: Path) -> None:
    with sidecar(tmp_path) as running:
        assert send(running, 10).status == 200
        assert running.process is not None
        running.process.send_signal(signal.SIGSTOP)
        time.sleep(0.2)
        running.process.send_signal(signal.SIGCONT)
        until(lambda: running.get("/readyz").status == 200)
        assert send(running, 10).status == 200
        running.process.terminate()
        running.process.terminate()
        assert running.process.wait(20) == 0


def test_what_is_learned_from_is_bounded(tmp_path: Path) -> None:
    """Few events of very long texts: what is kept of them stays within the memory of the model."""
    with sidecar(tmp_path, config="[models.m]\nmemory = 8_000_000\n") as running:
        text = "y" * 100_000
        sent = 0
        for turn in range(4):
            body = b"\n".join(json.dumps({"x": float(at), "t": f"{turn}-{at}-{text}"}).encode() for at in range(100))
            answer = running.request("POST", "/v1/models/m/events", body, LINES)
            assert answer.status == 200, answer
            sent += 100
        assert running.model("m")["learning"]["events"] == sent
        assert running.request("POST", "/v1/models/m/save", {}, JSON).status == 204
        (state,) = sorted((tmp_path / "data" / "models" / "m").glob("state-*.bin"))[-1:]
        assert state.stat().st_size < 9_000_000
        running.kill()
        running.start()
        assert running.model("m")["learning"]["events"] == sent


def test_names_of_columns_that_come_one_after_another_have_an_end(tmp_path: Path) -> None:
    with sidecar(tmp_path) as running:
        for turn in range(30):
            body = json.dumps([{f"f{turn}-{at}": 1.0 for at in range(100)}]).encode()
            assert running.request("POST", "/v1/models/m/events", body, JSON).status == 200
        model = running.model("m")
        assert model["learning"]["events"] == 30
        assert model["unknown_fields"] == 1000
        assert running.request("POST", "/v1/models/m/save", {}, JSON).status == 204
        running.kill()
        running.start()
        assert running.model("m") == model


FAKETIME = next(iter(sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))), None)


@pytest.mark.skipif(FAKETIME is None, reason="needs Debian's package faketime")
def test_a_clock_that_jumps_loses_and_doubles_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = tmp_path / "clock"
    clock.write_text("+0")
    faked = {"LD_PRELOAD": str(FAKETIME), "FAKETIME_TIMESTAMP_FILE": str(clock), "FAKETIME_NO_CACHE": "1", "DONT_FAKE_MONOTONIC": "1"}
    running = Sidecar(tmp_path, config='[models.m]\nwindow = "1m"\n[learn.m]\nevents = 1000\n')

    def start() -> None:
        with monkeypatch.context() as patched:
            for name, value in faked.items():
                patched.setenv(name, value)
            running.start()

    def problems() -> str:
        return running.get("/readyz").body.decode()

    start()
    try:
        taken = send(running, 3000).json["accepted"]
        for jump in ("+400d", "+0", "-400d", "+400d", "+3650d", "+0"):
            clock.write_text(jump)
            answer = send(running, 1000, first=taken)
            assert answer.status == 200, (jump, answer)
            taken += 1000
            assert running.model("m")["events"] == taken
            ahead = jump in ("+0", "-400d")
            # It ticks every few seconds, and takes the time of what arrives.
            until(lambda ahead=ahead: ("the clock went back" in problems()) == ahead, 20)  # type: ignore[misc]
            assert running.get("/readyz").status == 200
            assert running.get("/v1/models/m/drift").status == 200
        running.kill()
        start()
        assert running.model("m")["events"] == taken
        assert send(running, 1000, first=taken).status == 200
    finally:
        running.__exit__()
