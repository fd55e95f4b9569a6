"""Consumers of their own processes, and a gate before a sidecar that closes between its answer and the consumer that waits for it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from servers import Server
from sidecars import TOKEN


class Consumer:
    """`barograph ingest` that runs."""

    def __init__(
        self, folder: Path, broker: Server, topic: str, *options: str, to: list[str], model: str = "m", token: str = TOKEN
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        config = folder / "ingest.toml"
        extra = {"kafka": '"heartbeat.interval.ms" = 500\n"session.timeout.ms" = 6000\n'}.get(broker.name, "")
        extra = {"redis": "lease_seconds = 4\n", "nats": "lease_seconds = 4\n"}.get(broker.name, extra)
        # A password stands in the file, not in the arguments.
        config.write_text(f"[{broker.name}]\naddress = {json.dumps(broker.address)}\n{extra}")
        command = [
            sys.executable,
            "-m",
            "barograph",
            "ingest",
            broker.name,
            broker.option,
            topic,
            "--model",
            model,
            "--report",
            "0.5",
            "--json",
        ]
        command += [part for url in to for part in ("--to", url)] + ["--config", str(config), *options]
        self._log = (folder / "log").open("wb")
        self.out = (folder / "out").open("wb")
        self.process = subprocess.Popen(command, env={**os.environ, "BAROGRAPH_TOKEN": token}, stdout=self.out, stderr=self._log)

    def log(self) -> str:
        return (self.folder / "log").read_text()

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log().splitlines() if line.startswith("{")]

    def counts(self) -> dict[str, int]:
        """The last counts that it told."""
        lines = (self.folder / "out").read_text().splitlines()
        found: dict[str, int] = json.loads(lines[-1]) if lines else {}
        return found

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> dict[str, int]:
        """Ends it in order; its counts."""
        self.process.terminate()
        assert self.process.wait(40) == 0, self.log()
        return self.counts()

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._log.close()
        self.out.close()


class Gate:
    """Hands requests on to a sidecar. After so many answers it calls `caught` with an answer in its hands, and drops it."""

    def __init__(self, port: int, after: int, caught: Callable[[], None]) -> None:
        self._port, self._left, self._caught = port, after, caught
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.sprung = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, near: socket.socket) -> None:
        # A sidecar that is gone is a connection that ends.
        with contextlib.suppress(OSError), near, socket.create_connection(("127.0.0.1", self._port)) as far:
            while (request := _whole(near)) is not None:
                far.sendall(request)
                answer = _whole(far)
                if answer is None:
                    return
                self._left -= 1
                if self._left == 0:
                    self._caught()
                    self.sprung.set()
                    return
                near.sendall(answer)

    def close(self) -> None:
        self._listener.close()


def _whole(connection: socket.socket) -> bytes | None:
    """One request or answer with its body."""
    found = b""
    while b"\r\n\r\n" not in found:
        some = connection.recv(65536)
        if not some:
            return None
        found += some
    head, _, body = found.partition(b"\r\n\r\n")
    length = next((int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0)
    while len(body) < length:
        some = connection.recv(length - len(body))
        if not some:
            return None
        body += some
    return head + b"\r\n\r\n" + body
