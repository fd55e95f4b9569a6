"""kill -9 under load: what was acknowledged is counted, once, and nothing that was not sent."""

from __future__ import annotations

import contextlib
import http.client
import os
import random
import threading
import time
from pathlib import Path

import numpy as np
import polars as pl
from sidecars import ARROW, JSON, Sidecar, arrow, exchange

KILLS = int(os.environ.get("BAROGRAPH_KILLS", "20"))
ROWS = 4096


class Writer(threading.Thread):
    """Sends bodies, each with a key of its own, and sends again what was not acknowledged."""

    def __init__(self, sidecar: Sidecar, number: int, body: bytes) -> None:
        super().__init__(daemon=True)
        self.sidecar, self.number, self.body = sidecar, number, body
        self.stopped = threading.Event()
        self.sent = self.acknowledged = self.unknown = 0

    def run(self) -> None:
        connection: http.client.HTTPConnection | None = None
        serial = 0
        while not self.stopped.is_set():
            key = f"{self.number}-{serial}"
            # A third is not sent again: what became of it stays unknown.
            again = serial % 3 != 0
            self.sent += ROWS
            done = False
            while not done:
                try:
                    connection = connection or self.sidecar.connection()
                    answer = exchange(connection, "POST", "/v1/models/m/events", self.body, ARROW, Idempotency_Key=key)
                    if answer.status == 200:
                        self.acknowledged += ROWS
                        done = True
                    else:
                        assert answer.status in (429, 503), answer
                        time.sleep(0.005)
                except (OSError, http.client.HTTPException):
                    if connection is not None:
                        connection.close()
                    connection = None
                    if not again or self.stopped.is_set():
                        self.unknown += ROWS
                        done = True
                    time.sleep(0.005)
            serial += 1
        if connection is not None:
            connection.close()


class Saver(threading.Thread):
    """Has states written all the time, so that kills fall into that too."""

    def __init__(self, sidecar: Sidecar) -> None:
        super().__init__(daemon=True)
        self.sidecar = sidecar
        self.stopped = threading.Event()
        self.wanted = threading.Event()

    def run(self) -> None:
        while not self.stopped.is_set():
            self.wanted.wait(0.1)
            if not self.wanted.is_set():
                continue
            with contextlib.suppress(OSError, http.client.HTTPException):
                self.sidecar.request("POST", "/v1/models/m/save", {}, JSON)
            time.sleep(0.002)


def replaying(sidecar: Sidecar) -> bool:
    """Waits until it answers; whether it is replaying its log then."""
    while True:
        with contextlib.suppress(OSError):
            return sidecar.get("/readyz").json["status"] == "replaying"
        time.sleep(0.001)


def saving(folder: Path) -> bool:
    """Whether a state is being written, or was when it died."""
    return any((folder / "data" / "models" / "m").glob("*.part"))


def test_what_was_acknowledged_is_counted_once(tmp_path: Path) -> None:
    draw = random.Random(7)
    frame = pl.DataFrame({f"x{at}": np.random.default_rng(at).normal(size=ROWS) for at in range(10)})
    sidecar = Sidecar(tmp_path).start()
    assert sidecar.events("m", pl.concat([frame] * 3)).json["accepted"] == 3 * ROWS
    writers = [Writer(sidecar, number, arrow(frame)) for number in range(3)]
    saver = Saver(sidecar)
    for thread in (*writers, saver):
        thread.start()
    began, in_recovery, in_saving = time.monotonic(), 0, 0
    for kill in range(KILLS):
        # Turn by turn: while states are written, while a log grows, in the middle of the replay of that log.
        turn = kill % 3
        (saver.wanted.set if turn == 0 else saver.wanted.clear)()
        if turn < 2:
            sidecar.until_ready()
            time.sleep(draw.uniform(0.05, 0.4) if turn == 0 else draw.uniform(0.8, 1.2))
            end = time.monotonic() + 2
            while turn == 0 and time.monotonic() < end and not saving(tmp_path):
                pass
        else:
            in_recovery += replaying(sidecar)
        sidecar.kill()
        in_saving += saving(tmp_path)
        sidecar.start(wait=False)
    saver.wanted.clear()
    sidecar.until_ready()
    for thread in (*writers, saver):
        thread.stopped.set()
    for thread in (*writers, saver):
        thread.join(30)
    seconds = time.monotonic() - began
    sent = 3 * ROWS + sum(writer.sent for writer in writers)
    acknowledged = 3 * ROWS + sum(writer.acknowledged for writer in writers)
    unknown = sum(writer.unknown for writer in writers)
    counted = sidecar.model("m")["events"]
    summary = f"{KILLS} kills, {in_recovery} in recovery, {in_saving} in saving: acknowledged {acknowledged:,}, counted {counted:,}, "
    print(f"{summary}sent {sent:,}, unknown {unknown:,}, {sent / seconds:,.0f} events/s")
    assert acknowledged + unknown == sent
    assert acknowledged <= counted <= sent
    # What was counted beyond the acknowledged are whole bodies of those whose answer was lost.
    assert (counted - acknowledged) % ROWS == 0
    assert in_saving > KILLS // 20
    assert in_recovery > KILLS // 20
    sidecar.stop()
    sidecar.start()
    assert sidecar.model("m")["events"] == counted
    sidecar.stop()
