"""The sidecar from outside: what comes in, what goes out, what is refused."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import barograph as bg
import numpy as np
import polars as pl
import pytest
from sidecars import ARROW, JSON, LINES, TOKEN, Sidecar, arrow, exchange, free_port, sidecar


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sidecar]:
    """One for all tests that leave it as it was, each with models of its own."""
    with sidecar(tmp_path_factory.mktemp("sidecar")) as running:
        yield running


def normal(shift: float = 0.0, rows: int = 3000, seed: int = 1) -> pl.DataFrame:
    draw = np.random.default_rng(seed)
    score = draw.uniform(size=rows)
    return pl.DataFrame({"x": draw.normal(shift, size=rows), "c": draw.choice(["a", "b", "c"], rows), "_score": score})


def learn(running: Sidecar, model: str, frame: pl.DataFrame | None = None) -> None:
    answer = running.request("PUT", f"/v1/models/{model}", {"learn": {"events": 1000}})
    assert answer.status in (201, 204), answer
    assert running.events(model, normal(rows=1000) if frame is None else frame).json["accepted"] == 1000


def lines(frame: pl.DataFrame) -> bytes:
    return frame.write_ndjson().encode()


def test_three_requests_reach_a_verdict(shared: Sidecar) -> None:
    assert shared.request("POST", "/v1/models/first/events", lines(normal(rows=10_000)), LINES).json["accepted"] == 10_000
    assert shared.request("POST", "/v1/models/first/events", lines(normal(0.5, seed=2)), LINES).json["accepted"] == 3000
    drift = shared.get("/v1/models/first/drift").json
    assert drift["drifted"]
    assert drift["state"]["word"] == "watching"
    found = {row["column"]: row for row in drift["rows"] if row["method"] == "psi"}
    assert found["x"]["verdict"] in ("warning", "critical")
    assert found["x"]["provisional"]
    assert found["c"]["verdict"] == "ok"
    assert found["score"]["verdict"] == "ok"


def test_learning_is_visible_and_does_not_depend_on_batches(shared: Sidecar) -> None:
    shared.request("PUT", "/v1/models/slow", {"learn": {"events": 500}})
    shared.request("PUT", "/v1/models/whole", {"learn": {"events": 500}})
    frame = normal(rows=1200, seed=3)
    for at in range(0, 1200, 100):
        state = shared.get("/v1/models/slow").json["state"]
        assert state["word"] == ("learning" if at < 500 else "watching"), (at, state)
        if at < 500:
            assert (state["events"], state["of"]) == (at, 500)
            assert shared.get("/v1/models/slow/drift").json["rows"] == []
        shared.events("slow", frame[at : at + 100])
    shared.events("whole", frame)
    assert shared.get("/v1/models/slow/reference").headers["etag"] == shared.get("/v1/models/whole/reference").headers["etag"]
    assert shared.get("/v1/models/slow/profile").body == shared.get("/v1/models/whole/profile").body
    assert shared.model("slow")["events"] == shared.model("whole")["events"] == 1200


def test_every_protocol_gives_the_same_profile(shared: Sidecar) -> None:
    frame = normal(0.2, rows=2000, seed=4).with_columns(
        pl.when(pl.int_range(pl.len()) % 7 == 0).then(None).otherwise(pl.col("x")).alias("x"),
        _id=pl.int_range(pl.len()),
        _time=pl.datetime_range(pl.datetime(2026, 1, 1), pl.datetime(2026, 1, 1, 0, 33, 19), "1s", time_zone="UTC"),
    )
    text = frame.with_columns(pl.col("_time").dt.to_string("iso:strict"))
    rows = text.to_dicts()
    bodies = {
        "arrow": (arrow(frame), ARROW),
        "ndjson": (lines(text), LINES),
        "rows": (json.dumps(rows).encode(), JSON),
        "columns": (json.dumps(text.to_dict(as_series=False)).encode(), JSON),
    }
    profiles = {}
    for name, (body, kind) in bodies.items():
        learn(shared, f"same-{name}")
        answer = shared.request("POST", f"/v1/models/same-{name}/events", body, kind)
        assert answer.json["accepted"] == 2000, answer
        profiles[name] = shared.get(f"/v1/models/same-{name}/profile").body
    assert len(set(profiles.values())) == 1
    # And as the engine in this process has it.
    reference = bg.Reference.from_bytes(shared.get("/v1/models/same-arrow/reference").body)
    own = bg.profile(frame.rename({"_score": "score"}), schema=reference.schema, reference=reference)
    theirs = bg.Profile.from_bytes(profiles["arrow"])
    assert theirs["x"].null_count == own["x"].null_count == 286
    assert theirs.to_frame().equals(own.to_frame())


def test_a_key_counts_once_also_after_a_restart(tmp_path: Path) -> None:
    with sidecar(tmp_path) as running:
        learn(running, "m")
        body = lines(normal(rows=50))
        for repeated in (False, True):
            answer = running.request("POST", "/v1/models/m/events", body, LINES, Idempotency_Key="k")
            assert answer.json["accepted"] == 50
            assert answer.json["repeated"] == repeated
        assert running.request("POST", "/v1/models/m/events", body + b"\n{}", LINES, Idempotency_Key="k").status == 422
        running.kill()
        running.start()
        assert running.request("POST", "/v1/models/m/events", body, LINES, Idempotency_Key="k").json["repeated"]
        running.stop()
        running.start()
        assert running.request("POST", "/v1/models/m/events", body, LINES, Idempotency_Key="k").json["repeated"]
        assert running.model("m")["events"] == 1050


def test_a_number_of_a_stream_counts_once_for_good(tmp_path: Path) -> None:
    with sidecar(tmp_path) as running:
        learn(running, "m")
        frame = normal(rows=50)
        body = lines(frame)

        def send(place: str, path: str = "events", sent: bytes = body) -> bool:
            answer = running.request("POST", f"/v1/models/m/{path}", sent, LINES, Barograph_Sequence=place)
            assert answer.status == 200, answer
            repeated: bool = answer.json["repeated"]
            return repeated

        places = ["a/7", "a/3", "a/18446744073709551615", "b/c/7"]
        assert [send(place) for place in places + places] == [False] * 4 + [True] * 4
        # A number is the stream's, whatever comes with it.
        label = b'{"_id": 1, "_label": 1}'
        assert send("a/7", "labels", label)
        assert not send("a/8", "labels", label)
        assert send("a/8")
        running.kill()
        running.start(wait=False)
        # Before the log is replayed as well as after.
        while True:
            with contextlib.suppress(OSError):
                assert [send(place) for place in places] == [True] * 4
                break
        running.until_ready()
        running.stop()
        running.start()
        assert [send(place) for place in places] == [True] * 4
        assert running.model("m")["events"] == 1200
        both = running.request("POST", "/v1/models/m/events", body, LINES, Barograph_Sequence="a/9", Idempotency_Key="k")
        assert (both.status, "came together" in both.json["detail"]) == (400, True)
        for place in ("a", "a/", "/1", "a/x", "a/-1", "a/18446744073709551616", "a b/1", "s" * 201 + "/1"):
            refused = running.request("POST", "/v1/models/m/events", body, LINES, Barograph_Sequence=place)
            assert refused.status == 400, place
            assert "STREAM/NUMBER" in refused.json["detail"]
        assert "forgotten_streams" in running.get("/metrics").body.decode()


def test_rows_that_cannot_be_taken_are_told_one_by_one(shared: Sidecar) -> None:
    learn(shared, "partial")
    body = b'{"x": 1, "c": "a"}\nnothing\n{"x": 2, "_time": "soon"}\n{"x": "two"}\n{"x": 3, "nobody": "knows"}'
    answer = shared.request("POST", "/v1/models/partial/events", body, LINES)
    assert answer.status == 200
    told = answer.json
    assert (told["accepted"], told["rejected_count"], told["unknown_fields"], told["mistyped_fields"]) == (3, 2, 1, 1)
    assert [row["row"] for row in told["rejected"]] == [1, 2]
    assert "_time" in told["rejected"][1]["reason"]
    assert shared.model("partial")["rejected"] == 2
    assert shared.request("POST", "/v1/models/partial/events", b"nothing", LINES).status == 422
    future = shared.request("POST", "/v1/models/partial/events", b'{"x": 1, "_time": "2200-01-01T00:00:00Z"}', LINES)
    assert future.status == 400
    assert "day ahead" in future.json["detail"]


def test_labels_find_their_events(shared: Sidecar) -> None:
    learn(shared, "labelled")
    draw = np.random.default_rng(5)
    score = draw.uniform(size=4000)
    label = draw.uniform(size=4000) < score
    now = pl.Series([time.time_ns()] * 4000).cast(pl.Datetime("ns", "UTC"))
    ids = [f"e{at}" for at in range(4000)]
    events = pl.DataFrame({"x": draw.normal(size=4000), "c": ["a"] * 4000, "_score": score, "_id": ids, "_time": now})
    assert shared.events("labelled", events).json["accepted"] == 4000
    labels = pl.DataFrame({"_id": ids[::2], "_label": label[::2]})
    assert shared.request("POST", "/v1/models/labelled/labels", arrow(labels), ARROW).json["accepted"] == 2000
    assert shared.request("POST", "/v1/models/labelled/labels", b'{"_label": 1}', LINES).status == 400
    counts = shared.get("/metrics").body.decode()
    assert 'barograph_odd_events_total{model="labelled",what="orphan_labels"} 0' in counts
    assert shared.model("labelled")["labels"] == 2000


def test_settings_policy_and_reference_have_tags(shared: Sidecar) -> None:
    made = shared.request("PUT", "/v1/models/tagged", {"roles": {"id": "tx"}})
    assert made.status == 201
    shown = shared.get("/v1/models/tagged")
    assert shown.json["roles"] == {"id": "tx"}
    assert shown.headers["etag"] == made.headers["etag"]
    assert shared.get("/v1/models/tagged", If_None_Match=shown.headers["etag"]).status == 304
    assert shared.request("PUT", "/v1/models/tagged", {"roles": {}}, None, If_Match='"other"').status == 412
    policy = {"window": "1d", "rules": [{"metric": "roc_auc", "below": 0.6}]}
    changed = shared.request("PUT", "/v1/models/tagged/policy", policy, None, If_Match=shown.headers["etag"])
    assert changed.status == 204
    assert changed.headers["etag"] != shown.headers["etag"]
    assert shared.get("/v1/models/tagged/policy").json["window"] == "1d"
    wrong = shared.request("PUT", "/v1/models/tagged/policy", {"windo": "1d"})
    assert wrong.status == 400
    assert wrong.headers["content-type"] == "application/problem+json"
    assert "window" in wrong.json["hint"]
    reference = bg.Reference(normal(rows=5000))
    put = shared.request("PUT", "/v1/models/tagged/reference", reference.to_bytes(), "application/vnd.barograph.snapshot")
    assert put.status == 204
    assert put.headers["etag"] == f'"{reference.id}"'
    assert bg.Reference.from_bytes(shared.get("/v1/models/tagged/reference").body).id == reference.id
    assert shared.request("PUT", "/v1/models/tagged/reference", arrow(normal(rows=5000)), ARROW).status == 204
    assert shared.request("DELETE", "/v1/models/tagged", None, None, If_Match='"other"').status == 412
    assert shared.request("DELETE", "/v1/models/tagged").status == 204
    assert shared.get("/v1/models/tagged").status == 404


def test_profiles_made_elsewhere_are_merged(shared: Sidecar) -> None:
    reference = bg.Reference(normal(rows=5000).rename({"_score": "score"}))
    kind = "application/vnd.barograph.snapshot"
    shared.request("PUT", "/v1/models/merged/reference", reference.to_bytes(), kind)
    profile = bg.profile(normal(0.4, seed=6).rename({"_score": "score"}), reference=reference)
    assert shared.request("POST", "/v1/models/merged/profiles", profile.to_bytes(), kind, Idempotency_Key="p").json["accepted"] == 3000
    assert shared.request("POST", "/v1/models/merged/profiles", profile.to_bytes(), kind, Idempotency_Key="p").json["repeated"]
    drift = shared.get("/v1/models/merged/drift").json
    assert drift["drifted"]
    other = bg.profile(normal().rename({"_score": "score"}))
    assert shared.request("POST", "/v1/models/merged/profiles", other.to_bytes(), kind).status in (400, 409)
    assert shared.model("merged")["events"] == 3000


def test_history_and_alerts_page_by_page(tmp_path: Path) -> None:
    models = "".join(f'[models.{name}]\nwindow = "1m"\n[learn.{name}]\nevents = 1000\n' for name in ("m", "calm"))
    with sidecar(tmp_path, config=models) as running:
        minute = 60_000_000_000
        start = time.time_ns() // minute * minute - 40 * minute
        frame = normal(rows=1000)
        running.events("m", frame)
        running.events("calm", frame)
        assert running.request("POST", "/v1/models/calm/decisions", {"phase": "Progressing"}).status == 425
        for at in range(30):
            shift = 0.0 if at < 10 else 1.5
            times = pl.Series([start + at * minute + 1] * 600).cast(pl.Datetime("ns", "UTC"))
            assert running.events("m", normal(shift, 600, seed=at).with_columns(_time=times)).json["accepted"] == 600
            assert running.events("calm", normal(0.0, 600, seed=at).with_columns(_time=times)).json["accepted"] == 600
        end = time.monotonic() + 90
        while time.monotonic() < end and not running.get("/v1/models/m/alerts").json["rows"]:
            time.sleep(0.5)
        alerts = running.get("/v1/models/m/alerts").json["rows"]
        assert alerts
        assert alerts[0]["column"] == "x"
        assert alerts[0]["state"] == "opened"
        assert alerts[0]["open"]
        whole = running.get("/v1/models/m/history?limit=100000").json
        assert whole["next"] is None
        paged, after = [], None
        while True:
            page = running.get(f"/v1/models/m/history?limit=50{'' if after is None else '&after=' + after}").json
            paged += page["rows"]
            after = page["next"]
            if after is None:
                break
        assert paged == whole["rows"]
        assert len({row["window_start"] for row in paged}) >= 30
        tag = running.get("/v1/models/m/history").headers["etag"]
        assert running.get("/v1/models/m/history", If_None_Match=tag).status == 304
        assert running.get("/v1/models/m/decisions").json["decision"] == "fail"
        assert running.get("/v1/models/calm/decisions").json["decision"] == "pass"
        assert [running.request("POST", f"/v1/models/{name}/decisions").status for name in ("m", "calm")] == [409, 200]
        assert running.request("POST", f"/v1/models/m/alerts/{alerts[0]['id']}/acknowledge").status == 204
        assert running.request("POST", f"/v1/models/m/alerts/{alerts[0]['id']}/mute", {"until": "2h"}).status == 204
        assert running.request("POST", "/v1/models/m/alerts/999/acknowledge").status == 404
        assert running.get("/v1/models/m/alerts").json["rows"][0]["standing"]
        actions = [row["action"] for row in running.get("/v1/audit").json["rows"]]
        assert actions[-2:] == ["acknowledge", "mute"]
        metrics = running.get("/metrics").body.decode()
        assert 'barograph_alerts_open{model="m",alert="x",severity="ticket"} 1' in metrics


def test_nobody_comes_in_without_a_token_or_under_a_foreign_name(shared: Sidecar) -> None:
    assert shared.get("/v1/models", Authorization=None).status == 401
    assert shared.get("/v1/models", Authorization="Bearer wrong").status == 401
    assert shared.get("/v1/models", Authorization=f"bearer {TOKEN}").status == 200
    assert shared.get("/v1/models", Host="evil.example").status == 421
    assert shared.get("/v1/models", Origin="https://evil.example").status == 403
    assert shared.get("/v1/models", Sec_Fetch_Site="cross-site").status == 403
    assert shared.get("/healthz", Authorization=None).status == 200
    answer = shared.get("/v1/models", Authorization=None)
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.headers["x-content-type-options"] == "nosniff"
    token = shared.folder / "data" / "token"
    assert not token.exists()


def test_a_token_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    running = Sidecar(tmp_path)
    environment = {name: value for name, value in os.environ.items() if name != "BAROGRAPH_TOKEN"}
    command = [sys.executable, "-m", "barograph", "serve", "--data", str(tmp_path / "data"), "--listen", f"127.0.0.1:{running.port}"]
    running.process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE)
    try:
        running.until_ready()
        path = tmp_path / "data" / "token"
        token = path.read_text().strip()
        assert len(token) == 64
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert running.get("/v1/models", Authorization=f"Bearer {token}").status == 200
    finally:
        running.process.terminate()
        _, log = running.process.communicate(timeout=30)
    assert token.encode() not in log
    assert running.process.returncode == 0


def test_scopes_of_tokens(tmp_path: Path) -> None:
    config = '[[tokens]]\nname = "app"\ntoken = "app-token"\nscopes = ["ingest"]\nmodels = ["mine*"]\n'
    with sidecar(tmp_path, config=config) as running:
        body = b'{"x": 1}'
        app = "Bearer app-token"
        assert running.request("POST", "/v1/models/mine-1/events", body, LINES, Authorization=app).status == 200
        assert running.request("POST", "/v1/models/other/events", body, LINES, Authorization=app).status == 403
        assert running.get("/v1/models/mine-1/drift", Authorization=app).status == 403
        assert running.request("DELETE", "/v1/models/mine-1", Authorization=app).status == 403


@pytest.mark.parametrize("name", ["..", "%2e%2e", "a%2fb", "..%2f..%2fetc", "a b", "%00", ".hidden", "x" * 101])
def test_names_are_no_paths(shared: Sidecar, name: str) -> None:
    answer = shared.request("POST", f"/v1/models/{name.replace(' ', '%20')}/events", b'{"x": 1}', LINES)
    assert answer.status in (400, 404), answer
    found = {path.name for path in (shared.folder / "data").iterdir()}
    assert found <= {"identity", "lock", "models", "token", "control.sqlite", "control.sqlite-wal", "control.sqlite-shm"}


def test_bombs_are_refused(shared: Sidecar) -> None:
    zeros = b'{"x": "' + b"0" * (40 << 20) + b'"}'
    packed = gzip.compress(zeros)
    answer = shared.request("POST", "/v1/models/bomb/events", packed, LINES, Content_Encoding="gzip")
    assert len(packed) < 50_000
    assert answer.status == 413, answer
    assert shared.request("POST", "/v1/models/bomb/events", b"\x00" * 10, LINES, Content_Encoding="gzip").status == 400
    assert shared.request("POST", "/v1/models/bomb/events", b"x", LINES, Content_Encoding="br").status == 415
    fine = gzip.compress(b'{"x": 1}')
    assert shared.request("POST", "/v1/models/bomb/events", fine, LINES, Content_Encoding="gzip").json["accepted"] == 1
    deep = b'{"x": ' + b"[" * 200_000 + b"]" * 200_000 + b"}"
    assert shared.request("POST", "/v1/models/bomb/events", deep, LINES).json["accepted"] == 1
    wide = json.dumps({f"f{at}": at for at in range(5000)}).encode()
    assert shared.request("POST", "/v1/models/bomb/events", wide, LINES).status == 422
    for body in (b"", b"\xff\xff\xff\xff\xff\xff\xff\x7f", b"ARROW1\0\0", os.urandom(1000)):
        assert shared.request("POST", "/v1/models/bomb/events", body, ARROW).status in (200, 400)
    nulls = pl.DataFrame({"x": pl.Series([None] * 1000, dtype=pl.Null)})
    assert shared.request("POST", "/v1/models/bomb/events", arrow(nulls), ARROW).status == 200
    huge = {"Content_Length": str(1 << 40)}
    connection = shared.connection()
    connection.putrequest("POST", "/v1/models/bomb/events")
    for key, value in {"Authorization": f"Bearer {TOKEN}", "Content-Type": LINES, "Content-Length": huge["Content_Length"]}.items():
        connection.putheader(key, value)
    connection.endheaders()
    assert connection.getresponse().status == 413
    connection.close()
    assert shared.get("/healthz").status == 200


def test_what_comes_too_slowly_is_let_go(shared: Sidecar) -> None:
    """A head that dribbles, a connection that says nothing, a body that stops: each ends, and none keeps others waiting."""
    begun = []
    for text in (b"", b"PRI * HTTP", b"POST /v1/models/m/events HTTP/1.1\r\nHost: localhost\r\nX: "):
        connection = socket.create_connection(("127.0.0.1", shared.port))
        connection.sendall(text)
        connection.settimeout(30)
        begun.append((time.monotonic(), connection))
    stuck = socket.create_connection(("127.0.0.1", shared.port))
    head = "POST /v1/models/m/events HTTP/1.1\r\nHost: localhost\r\n"
    head += f"Authorization: Bearer {TOKEN}\r\nContent-Type: {LINES}\r\nContent-Length: 100\r\n\r\n"
    stuck.sendall(head.encode() + b'{"x"')
    stuck.settimeout(30)
    assert shared.get("/healthz").status == 200
    for start, connection in begun:
        connection.recv(1000)
        assert time.monotonic() - start < 12
        connection.close()
    answer = stuck.recv(1000)
    stuck.close()
    assert answer.startswith(b"HTTP/1.1 408"), answer


def test_many_idle_connections_keep_nobody_out(tmp_path: Path) -> None:
    import resource

    wanted = int(os.environ.get("BAROGRAPH_IDLE", "2000"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    with sidecar(tmp_path) as running:
        idle = []
        for _ in range(wanted):
            connection = socket.create_connection(("127.0.0.1", running.port))
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            idle.append(connection)
        began = time.monotonic()
        assert running.events("m", normal()).json["accepted"] == 3000
        assert time.monotonic() - began < 2
        memory = running.get("/v1/models").json["server"]["memory_bytes"]
        assert memory < 256 << 20, memory
        for connection in idle:
            connection.close()


def test_a_unix_socket_for_this_user_alone(tmp_path: Path) -> None:
    path = tmp_path / "b.sock"
    with sidecar(tmp_path, "--listen", f"unix:{path}") as running:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            client.sendall(
                f"GET /v1/models HTTP/1.1\r\nHost: anything\r\nAuthorization: Bearer {TOKEN}\r\nConnection: close\r\n\r\n".encode()
            )
            assert client.recv(100).startswith(b"HTTP/1.1 200")
        running.stop()
    assert not path.exists()


def test_health_has_an_address_of_its_own(tmp_path: Path) -> None:
    port = free_port()
    with sidecar(tmp_path, "--health-listen", f"127.0.0.1:{port}") as running:
        import http.client

        assert running.events("m", normal(rows=10)).status == 200

        def status(path: str, method: str = "GET") -> int:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            answer = exchange(connection, method, path, Authorization=None, Host="anything")
            connection.close()
            return answer.status

        assert [status(path) for path in ("/healthz", "/readyz", "/metrics", "/v1/models")] == [200, 200, 200, 404]
        assert status("/v1/models/m/decisions", "POST") == 425
        assert status("/v1/models/m/drift") == 404


def test_others_are_not_let_in_by_accident(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "barograph", "serve", "--data", str(tmp_path), "--listen", "0.0.0.0:0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "tokens" in done.stderr
    assert "hint:" in done.stderr


def test_rules_are_read_anew_on_hangup(tmp_path: Path) -> None:
    with sidecar(tmp_path, config='[models.m]\nwindow = "1h"\n') as running:
        assert running.get("/v1/models/m/policy").json["window"] == "1h"
        (tmp_path / "barograph.toml").write_text('[models.m]\nwindow = "1d"\n')
        assert running.process is not None
        running.process.send_signal(signal.SIGHUP)
        end = time.monotonic() + 10
        while time.monotonic() < end and running.get("/v1/models/m/policy").json["window"] != "1d":
            time.sleep(0.05)
        assert running.get("/v1/models/m/policy").json["window"] == "1d"
        (tmp_path / "barograph.toml").write_text("[models.m]\nwindo = 1\n")
        running.process.send_signal(signal.SIGHUP)
        end = time.monotonic() + 10
        while time.monotonic() < end and "stays as it was" not in running.log():
            time.sleep(0.05)
        assert "windo" in running.log()
        assert running.get("/v1/models/m/policy").json["window"] == "1d"


def test_the_disk_is_waited_for_where_that_is_asked(tmp_path: Path) -> None:
    with sidecar(tmp_path, config='acknowledge = "disk"\n') as running:
        answers = []

        def send() -> None:
            connection = running.connection()
            for _ in range(20):
                answers.append(exchange(connection, "POST", "/v1/models/m/events", b'{"x": 1}', LINES).status)
            connection.close()

        threads = [threading.Thread(target=send) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert answers == [200] * 80
        assert running.model("m")["events"] == 80


def test_two_sidecars_do_not_share_a_folder(tmp_path: Path) -> None:
    with sidecar(tmp_path) as running:
        command = [sys.executable, "-m", "barograph", "serve", "--data", str(tmp_path / "data"), "--listen", "127.0.0.1:0"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 2
        assert "another sidecar" in done.stderr
        assert running.get("/healthz").status == 200


def test_what_happens_is_streamed(tmp_path: Path) -> None:
    with sidecar(tmp_path, config='[models.m]\nwindow = "1m"\n[learn.m]\nevents = 1000\n') as running:
        connection = running.connection()
        connection.request("GET", "/v1/stream", headers={"Authorization": f"Bearer {TOKEN}"})
        answer = connection.getresponse()
        assert answer.status == 200
        assert answer.getheader("content-type") == "text/event-stream"
        assert answer.readline() == b"retry: 1000\n"
        running.events("m", normal(rows=1000))
        minute = 60_000_000_000
        times = pl.Series([time.time_ns() // minute * minute - 2 * minute] * 600).cast(pl.Datetime("ns", "UTC"))
        running.events("m", normal(1.5, 600).with_columns(_time=times))
        found = b""
        while b"event: window" not in found:
            found += answer.readline()
        assert b"event: alert" in found
        connection.close()
