"""What an operator does: what of it is written down, what a reload takes, and that no answer is without its headers."""

from __future__ import annotations

import json
import signal
import socket
import time
from pathlib import Path

import barograph as bg
import pytest
from sidecars import JSON, LINES, TOKEN, Answer, Sidecar, exchange, sidecar

HEADERS = {
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
}
EVENTS = b"\n".join(json.dumps({"_id": at, "x": float(at % 17)}).encode() for at in range(200))


def test_every_change_of_an_administrator_is_written_down(tmp_path: Path) -> None:
    config = '[[tokens]]\nname = "app"\ntoken = "app-token"\nscopes = ["ingest"]\n'
    config += '[[tokens]]\nname = "ann"\ntoken = "ann-token"\nscopes = ["admin"]\n'
    with sidecar(tmp_path, config=config) as running:
        app, ann = "Bearer app-token", "Bearer ann-token"
        assert running.request("POST", "/v1/models/made/events", EVENTS, LINES, Authorization=app).status == 200
        assert running.request("PUT", "/v1/models/m", {}, Authorization=ann).status == 201
        assert running.request("PUT", "/v1/models/m", {"learn": {"events": 500}}, Authorization=ann).status == 204
        assert running.request("PUT", "/v1/models/m/policy", {"window": "1d"}, Authorization=ann).status == 204
        reference = bg.Reference({"x": [at / 7 for at in range(500)]}).to_bytes()
        kind = "application/vnd.barograph.snapshot"
        assert running.request("PUT", "/v1/models/m/reference", reference, kind, Authorization=ann).status == 204
        assert running.request("POST", "/v1/models/m/erase", {"id": "somebody"}, Authorization=ann).status == 204
        # What is refused is not written down as done.
        assert running.request("DELETE", "/v1/models/m", Authorization=app).status == 403
        assert running.request("DELETE", "/v1/models/m", None, None, Authorization=ann, If_Match='"other"').status == 412
        assert running.request("DELETE", "/v1/models/m", Authorization=ann).status == 204
        assert running.process is not None
        running.process.send_signal(signal.SIGHUP)
        end = time.monotonic() + 20
        while time.monotonic() < end and "read anew" not in running.log():
            time.sleep(0.02)
        assert running.get("/v1/audit", Authorization=ann).status == 200
        assert running.get("/v1/audit", Authorization=app).status == 403
        rows = running.get("/v1/audit").json["rows"]
        found = [(row["actor"], row["action"], row["object"]) for row in rows]
        changes = [("ann", action, "m") for action in ("create", "change", "change", "reference", "erase", "delete")]
        assert found == [("app", "create", "made"), *changes, ("signal", "reload", "configuration")]
        assert "somebody" not in json.dumps(rows)
        # In pages it is the same, and each row holds the one before it.
        paged, after = [], 0
        while True:
            page = running.get(f"/v1/audit?limit=3&after={after}").json
            paged += page["rows"]
            if page["next"] is None:
                break
            after = page["next"]
        assert paged == rows
        assert [row["previous_hash"] for row in rows[1:]] == [row["hash"] for row in rows[:-1]]
        running.kill()
        running.start()
        assert running.get("/v1/audit").json["rows"] == rows


def test_tokens_hosts_and_models_are_read_anew_on_hangup(tmp_path: Path) -> None:
    token = '[[tokens]]\nname = "app"\ntoken = "{}"\nscopes = ["read"]\n'
    path = tmp_path / "barograph.toml"
    with sidecar(tmp_path, config=token.format("first")) as running:
        assert running.get("/v1/models", Authorization="Bearer first").status == 200
        assert running.get("/v1/models", Host="new.example").status == 421
        path.write_text('hosts = ["new.example"]\nmax_body = "1MB"\n' + token.format("second") + '[models.stated]\nwindow = "1d"\n')
        assert running.process is not None
        running.process.send_signal(signal.SIGHUP)
        end = time.monotonic() + 20
        while time.monotonic() < end and running.get("/v1/models", Authorization="Bearer second").status != 200:
            time.sleep(0.02)
        assert running.get("/v1/models", Authorization="Bearer second").status == 200
        assert running.get("/v1/models", Authorization="Bearer first").status == 401
        assert running.get("/v1/models", Host="new.example").status == 200
        assert running.request("POST", "/v1/models/m/events", bytes(2 << 20), LINES).status == 413
        while time.monotonic() < end and running.get("/v1/models/stated").status != 200:
            time.sleep(0.02)
        assert running.get("/v1/models/stated/policy").json["window"] == "1d"


def test_no_answer_is_without_its_headers(tmp_path: Path) -> None:
    with sidecar(tmp_path, config='max_body = "1MB"\n') as running:

        def asked(method: str, path: str, body: bytes | None = None, kind: str | None = None, **headers: str | None) -> Answer:
            return running.request(method, path, body, kind, **headers)

        answers = [
            asked("GET", "/healthz"),
            asked("GET", "/readyz"),
            asked("GET", "/metrics"),
            asked("GET", "/openapi.json"),
            asked("GET", "/version"),
            asked("POST", "/v1/models/m/events", EVENTS, LINES),
            asked("POST", "/v1/models/m/events", b"nothing", LINES),
            asked("POST", "/v1/models/m/events", b"", LINES),
            asked("POST", "/v1/models/m/events", bytes(2 << 20), LINES),
            asked("POST", "/v1/models/m/events", b"x", "text/plain"),
            asked("PATCH", "/v1/models/m"),
            asked("GET", "/v1/models/nobody"),
            asked("GET", "/nowhere"),
            asked("GET", "/v1/models/m/drift?window=never"),
            asked("HEAD", "/v1/models"),
            asked("PUT", "/v1/models/put", b"{}", JSON),
            asked("DELETE", "/v1/models/put"),
            asked("GET", "/v1/models", Authorization=None),
            asked("GET", "/v1/models", Host="evil.example"),
            asked("GET", "/v1/models", Origin="http://evil.example"),
            asked("GET", "/v1/models/m", If_None_Match=asked("GET", "/v1/models/m").headers["etag"]),
        ]
        statuses = {answer.status for answer in answers}
        assert statuses >= {200, 201, 204, 304, 400, 401, 403, 404, 405, 413, 415, 421, 422}, statuses
        for answer in answers:
            assert {name: answer.headers.get(name) for name in HEADERS} == HEADERS, answer
            assert "default-src 'none'" in answer.headers["content-security-policy"]
            assert "server" not in answer.headers
            assert "access-control-allow-origin" not in answer.headers
            # An answer of 422 tells of each row.
            if answer.status >= 400 and answer.body and answer.status != 422:
                assert answer.headers["content-type"] == "application/problem+json", answer
                assert answer.json["status"] == answer.status


@pytest.mark.parametrize("how", ["length", "chunked"])
def test_bodies_that_stop_in_the_middle_leave_nothing_behind(tmp_path: Path, how: str) -> None:
    with sidecar(tmp_path) as running:
        head = f"POST /v1/models/m/events HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\nContent-Type: {LINES}\r\n"
        for turn in range(300):
            body = EVENTS[: 37 * turn % len(EVENTS)]
            if how == "length":
                sent = f"{head}Content-Length: {len(EVENTS)}\r\n\r\n".encode() + body
            else:
                sent = f"{head}Transfer-Encoding: chunked\r\n\r\n{len(EVENTS):x}\r\n".encode() + body
            with socket.create_connection(("127.0.0.1", running.port)) as client:
                client.sendall(sent)
                if turn % 2:
                    # A reset in place of an end.
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        end = time.monotonic() + 30
        server: dict[str, int] = {"queue_bytes": 1}
        while time.monotonic() < end and server["queue_bytes"] > 0:
            server = running.get("/v1/models").json["server"]
        assert server["queue_bytes"] == 0
        assert running.request("POST", "/v1/models/m/events", EVENTS, LINES).json["accepted"] == 200
        assert running.model("m")["events"] == 200
        found = ""
        while time.monotonic() < end and "barograph_connections 1\n" not in found:
            found = running.get("/metrics").body.decode()
        assert "barograph_connections 1\n" in found


def test_a_connection_goes_on_after_a_refusal(tmp_path: Path) -> None:
    with sidecar(tmp_path) as running:
        connection = running.connection()
        for status, body, kind in (
            (422, b"nothing", LINES),
            (415, EVENTS, "text/plain"),
            (200, EVENTS, LINES),
            (400, b"[", JSON),
            (200, EVENTS, LINES),
        ):
            assert exchange(connection, "POST", "/v1/models/m/events", body, kind).status == status
        connection.close()
        assert running.model("m")["events"] == 400


def test_names_of_models_in_a_folder_of_their_own(tmp_path: Path) -> None:
    """Whatever is asked for, nothing is written beside the folder, and nothing in it that is not a model."""
    names = ["..", "%2e%2e", "a%2fb", "..%2f..%2fetc", "%00", ".hidden", ".m.deleted", "x" * 101, "a%5cb", "%c3%28", "CON", "m.deleted"]
    with sidecar(tmp_path) as running:
        for name in names:
            for method, path, body in (
                ("POST", "events", EVENTS),
                ("PUT", "policy", b"{}"),
                ("DELETE", "", None),
                ("POST", "labels", b'{"_id": 1, "_label": 1}'),
            ):
                answer = running.request(method, f"/v1/models/{name}/{path}".rstrip("/"), body, LINES if method == "POST" else JSON)
                assert answer.status < 500, (name, answer)
        models = tmp_path / "data" / "models"
        assert {path.name for path in models.iterdir()} <= {"CON", "m.deleted"}
        assert {path.name for path in tmp_path.iterdir()} == {"data", "log"}
        assert isinstance(running, Sidecar)


def test_what_is_asked_again_is_told_apart_by_its_tag(tmp_path: Path) -> None:
    with sidecar(tmp_path, config="[learn.m]\nevents = 100\n") as running:
        assert running.request("POST", "/v1/models/m/events", EVENTS, LINES).status == 200
        for what in ("", "/policy", "/reference", "/drift", "/history", "/alerts", "/profile", "/decisions"):
            first = running.get(f"/v1/models/m{what}")
            tag = first.headers["etag"]
            known = running.get(f"/v1/models/m{what}", If_None_Match=tag)
            assert (first.status, known.status, known.body) == (200, 304, b""), what
            assert known.headers["etag"] == tag
            assert running.get(f"/v1/models/m{what}", If_None_Match='"another"').status == 200, what
        tag = running.get("/v1/models/m/profile").headers["etag"]
        assert running.request("POST", "/v1/models/m/events", EVENTS, LINES).status == 200
        assert running.get("/v1/models/m/profile", If_None_Match=tag).status == 200
