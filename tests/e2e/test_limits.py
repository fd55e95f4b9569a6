"""What is too much for a sidecar: told, bounded, and thinned out only where that is allowed."""

from __future__ import annotations

import contextlib
import hmac
import http.server
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from sidecars import LINES, TOKEN, Sidecar, sidecar


@contextlib.contextmanager
def bodies_on_their_way(running: Sidecar, *lengths: int) -> Iterator[None]:
    """Bodies that are announced and do not come: the memory for them is set aside."""
    begun = []
    for length in lengths:
        connection = socket.create_connection(("127.0.0.1", running.port))
        head = "POST /v1/models/other/events HTTP/1.1\r\nHost: localhost\r\n"
        head += f"Authorization: Bearer {TOKEN}\r\nContent-Type: {LINES}\r\nContent-Length: {length}\r\n\r\n"
        connection.sendall(head.encode() + b"{")
        begun.append(connection)
    try:
        yield
    finally:
        for connection in begun:
            connection.close()


def metric(running: Sidecar, line: str) -> float:
    (found,) = (text for text in running.get("/metrics").body.decode().splitlines() if text.startswith(line + " "))
    return float(found.split()[-1])


def frame(rows: int, seed: int, nulls: float = 0.0) -> pl.DataFrame:
    draw = np.random.default_rng(seed)
    values = pl.Series("x", draw.normal(size=rows)).to_frame()
    return values.with_columns(pl.when(pl.Series(draw.uniform(size=rows) >= nulls)).then("x").alias("x"))


def test_more_than_there_is_memory_for_is_refused_and_may_come_again(tmp_path: Path) -> None:
    with sidecar(tmp_path, config='memory = "64MB"\n') as running:
        assert running.events("m", frame(100, 0)).status == 200
        with bodies_on_their_way(running, 4_000_000, 3_900_000):
            while metric(running, "barograph_queue_bytes") < 15_000_000:
                pass
            answer = running.events("m", frame(100_000, 0))
            assert answer.status == 429
            assert int(answer.headers["retry-after"]) >= 1
            assert answer.json["hint"] == "try again, or send less"
            assert running.events("m", frame(100, 0)).status == 200
        while metric(running, "barograph_queue_bytes") > 1_000_000:
            pass
        assert running.events("m", frame(100_000, 0)).status == 200
        assert running.model("m")["events"] == 100_200


def test_sampling_keeps_counts_true_and_says_so(tmp_path: Path) -> None:
    config = 'memory = "64MB"\nsampling = true\n[learn.m]\nevents = 20000\n'
    with sidecar(tmp_path, config=config) as running:
        assert running.events("m", frame(20_000, 1)).json["sampled_out"] == 0
        assert running.events("m", frame(10_000, 2)).json["sampled_out"] == 0
        with bodies_on_their_way(running, 4_000_000, 1_250_000):
            while metric(running, "barograph_queue_bytes") < 10_400_000:
                pass
            answer = running.events("m", frame(40_000, 3, nulls=0.1)).json
        # Of 16 MB 10.5 are taken: three halvings.
        assert answer["accepted"] == 40_000
        assert 34_500 < answer["sampled_out"] < 35_500
        model = running.model("m")
        assert model["events"] - 70_000 == 8 * (40_000 - answer["sampled_out"]) - 40_000
        assert model["sampled_out"] == model["events"] - 30_000 - (40_000 - answer["sampled_out"])
        assert metric(running, 'barograph_odd_events_total{model="m",what="sampled_out"}') == model["sampled_out"]
        drift = running.get("/v1/models/m/drift").json["rows"]
        shares = next(row for row in drift if row["method"] == "null_share")
        assert shares["lower"] < 0.08 < shares["upper"]
        assert "rows were kept" in shares["reason"]
        # What was left out stays left out: the log holds what was kept and what it stands for.
        running.kill()
        running.start()
        assert running.model("m") == model
        after = running.get("/v1/models/m/drift").json["rows"]
        assert [row for row in after if row["method"] == "null_share"] == [shares]


class Receiver(http.server.BaseHTTPRequestHandler):
    """Takes webhooks as it is told: never answers, says 500, lies about lengths, or takes them."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        server: Any = self.server
        manner = server.manner
        if manner == "silent":
            server.released.wait(20)
            return
        if manner == "lies":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n" + b"x" * 100_000)
            return
        if manner == "fails":
            self.send_error(500)
            return
        server.seen.append((body, self.headers["Barograph-Signature"]))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@contextlib.contextmanager
def receiver(manner: str) -> Iterator[Any]:
    server: Any = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    server.manner, server.seen, server.released = manner, [], threading.Event()
    server.daemon_threads, server.block_on_close = True, False
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.released.set()
        server.shutdown()
        server.server_close()


def test_an_alert_arrives_once_whatever_its_receivers_do(tmp_path: Path) -> None:
    """One is dead, one silent, one lies, one fails until the sidecar has been killed: nobody waits for another, and nothing comes twice."""
    secret = "0123456789abcdef0123456789abcdef"
    with receiver("takes") as good, receiver("silent") as silent, receiver("lies") as lying, receiver("fails") as later:
        sinks = [("good", good.server_address[1]), ("silent", silent.server_address[1]), ("lying", lying.server_address[1])]
        sinks += [("later", later.server_address[1]), ("dead", 9)]
        stated = '[[sinks]]\nkind = "webhook"\nname = "{}"\nurl = "http://127.0.0.1:{}/hook"\nsecret = "{}"\n'
        config = "".join(stated.format(name, port, secret) for name, port in sinks)
        config += '[models.m]\nwindow = "1m"\n[learn.m]\nevents = 1000\n'
        with sidecar(tmp_path, config=config) as running:
            minute = 60_000_000_000
            start = time.time_ns() // minute * minute - 40 * minute
            running.events("m", frame(1000, 0))
            for at in range(30):
                times = pl.Series([start + at * minute + 1] * 600).cast(pl.Datetime("ns", "UTC"))
                moved = frame(600, at).with_columns(pl.col("x") + (0 if at < 10 else 2), _time=times)
                assert running.events("m", moved).json["accepted"] == 600
            end = time.monotonic() + 90
            while time.monotonic() < end and not good.seen:
                time.sleep(0.1)
            assert good.seen, running.log()
            while time.monotonic() < end and "later" not in running.log():
                time.sleep(0.1)
            began = time.monotonic()
            assert running.events("m", frame(100, 50)).status == 200
            assert time.monotonic() - began < 2
            changes = running.get("/v1/models/m/alerts").json["rows"]
            running.kill()
            later.manner = "takes"
            running.start()
            end = time.monotonic() + 90
            while time.monotonic() < end and len(later.seen) < len(changes):
                time.sleep(0.1)
            time.sleep(2)
            for server in (good, later):
                bodies = [body for body, _ in server.seen]
                assert len(bodies) == len(set(bodies)) == len(changes), running.log()
                assert [json.loads(body)["column"] for body in bodies] == [change["column"] for change in changes]
                for body, signature in server.seen:
                    assert signature == "sha256=" + hmac.new(secret.encode(), body, "sha256").hexdigest()
            assert secret not in running.log()


def test_answers_to_requests_that_came_together_do_not_wait_for_the_next_one(tmp_path: Path) -> None:
    with sidecar(tmp_path) as running, socket.create_connection(("127.0.0.1", running.port), timeout=3.0) as connection:
        request = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
        for beginning in (b"", b"GET /hea"):
            connection.sendall(request * 40 + beginning)
            answers = b""
            while answers.count(b"alive\n") < 40:
                part = connection.recv(1 << 16)
                assert part
                answers += part
        # What was begun is answered once it is whole.
        connection.sendall(b"lthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"alive\n" in connection.recv(1 << 16)
