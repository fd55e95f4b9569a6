"""A sidecar of its own process, and requests to it."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import polars as pl

TOKEN = "a-token-for-tests"
ARROW = "application/vnd.apache.arrow.stream"
LINES = "application/x-ndjson"
JSON = "application/json"


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    """A port that nobody has, nor will have for an outgoing connection: tests run side by side, and start again where they were."""
    draw = random.SystemRandom()
    while True:
        port = draw.randrange(15_000, 32_000)
        with socket.socket(type=kind) as free, contextlib.suppress(OSError):
            free.bind(("127.0.0.1", port))
            return port


class Answer:
    """What came back."""

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def __repr__(self) -> str:
        return f"{self.status} {self.body[:500]!r}"


class Sidecar:
    """Starts, stops and kills `barograph serve` in a folder."""

    def __init__(self, folder: Path, *options: str, config: str | None = None) -> None:
        self.folder = folder
        self.options = [*options]
        if config is not None:
            (folder / "barograph.toml").write_text(config)
            self.options += ["--config", str(folder / "barograph.toml")]
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, wait: bool = True) -> Sidecar:
        command = [sys.executable, "-m", "barograph", "serve", "--data", str(self.folder / "data"), "--listen", f"127.0.0.1:{self.port}"]
        log = (self.folder / "log").open("ab")
        self.process = subprocess.Popen([*command, *self.options], env={**os.environ, "BAROGRAPH_TOKEN": TOKEN}, stderr=log)
        log.close()
        if wait:
            self.until_ready()
        return self

    def until_ready(self, seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            with contextlib.suppress(OSError):
                if self.get("/readyz").status == 200:
                    return
            assert self.process is not None
            assert self.process.poll() is None, self.log()
            time.sleep(0.01)
        raise AssertionError(f"not ready: {self.get('/readyz')} {self.log()}")

    def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        assert self.process is not None
        self.process.terminate()
        assert self.process.wait(30) == 0, self.log()

    def log(self) -> str:
        return (self.folder / "log").read_text()

    def connection(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)

    def request(self, method: str, path: str, body: Any = None, kind: str | None = None, /, **headers: str | None) -> Answer:
        connection = self.connection()
        try:
            return exchange(connection, method, path, body, kind, **headers)
        finally:
            connection.close()

    def get(self, path: str, **headers: str | None) -> Answer:
        return self.request("GET", path, None, None, **headers)

    def events(self, model: str, frame: pl.DataFrame, **headers: str | None) -> Answer:
        return self.request("POST", f"/v1/models/{model}/events", arrow(frame), ARROW, **headers)

    def model(self, name: str) -> dict[str, Any]:
        return next(model for model in self.get("/v1/models").json["models"] if model["name"] == name)

    def __enter__(self) -> Sidecar:
        return self.start()

    def __exit__(self, *_: object) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                raise


def exchange(
    connection: http.client.HTTPConnection, method: str, path: str, body: Any = None, kind: str | None = None, /, **headers: str | None
) -> Answer:
    """One request; a header of None is not sent."""
    if isinstance(body, dict | list):
        body, kind = json.dumps(body).encode(), kind or JSON
    all_headers = {"Authorization": f"Bearer {TOKEN}", **({"Content-Type": kind} if kind else {})}
    all_headers |= {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, body, {name: value for name, value in all_headers.items() if value is not None})
    answer = connection.getresponse()
    return Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())


def arrow(frame: pl.DataFrame) -> bytes:
    """A frame as an Arrow stream."""
    out = io.BytesIO()
    frame.write_ipc_stream(out, compat_level=pl.CompatLevel.oldest())
    return out.getvalue()


@contextlib.contextmanager
def sidecar(folder: Path, *options: str, config: str | None = None) -> Iterator[Sidecar]:
    """A sidecar that runs."""
    with Sidecar(folder, *options, config=config) as running:
        yield running
