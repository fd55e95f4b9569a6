"""`barograph bench sidecar`: what the sidecar takes on this machine, measured from outside, beside its targets.

A sidecar of its own is started, loaded, killed and started again. The load is made in this process, in Rust, on the same machine.
A rate is of events that the sidecar has counted, and its time includes what it takes to get through what was acknowledged.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from barograph import _barograph
from barograph.errors import BarographError

_PASS, _FAILED, _INCONCLUSIVE = 0, 1, 3
_MODEL = "bench"
_BESIDE = "replay beside the load, events/s"
_ALONE = "replay, events/s"
_REFERENCE_ROWS = 10_000
_IDLE_SECONDS = 10.0
_PATIENCE_SECONDS = 60.0
# The share of the rate reached at which acknowledgements are timed.
_SHARE = 0.7
# Before the end of its load the sidecar is killed: what is sent anew while it starts would be timed with it.
_LAST_MOMENT_SECONDS = 0.1
# So large a log grows before the kill, or for so long: most of what it holds between two states.
_LOG_BYTES = 160 << 20
_LOG_SECONDS = 1.2
_POLICY = {
    "window": "1h",
    "rules": [
        {"metric": "events", "below": 1},
        {"metric": "latency_p99", "above": 0.5, "severity": "ticket"},
        {"metric": "error_rate", "above": 0.05},
    ],
}
# Protocol, what the row says, what is counted, and how many of them are wanted per second.
_PROTOCOLS = (
    ("arrow", "Arrow", "events/s", 3e6),
    ("columns", "columnar JSON", "events/s", 1e6),
    ("ndjson", "NDJSON", "events/s", 5e5),
    ("cloudevents", "KServe CloudEvents, half an event each", "requests/s", 25_000.0),
)


@dataclass(frozen=True)
class _Row:
    """A measurement beside its target; without a value the note says why there is none."""

    workload: str
    value: float | None
    unit: str
    target: float | None = None
    more_is_better: bool = True
    note: str = ""

    @property
    def met(self) -> bool | None:
        if self.value is None or self.target is None:
            return None
        return self.value >= self.target if self.more_is_better else self.value <= self.target


@dataclass(frozen=True)
class _Comeback:
    """Seconds from the start of the process: first answer, first write accepted, ready for good; and what was replayed."""

    up: float
    written: float
    ready: float
    replayed: int
    # Whether it said that it was ready before it was.
    early: bool


def run(options: argparse.Namespace) -> int:
    """Measures and prints; gives the exit code."""
    if not 1.0 <= options.seconds <= 600.0:
        print(f"barograph: `--seconds` must be in [1, 600], got {options.seconds}", file=sys.stderr)
        return 2
    machine = _machine()
    # Sockets have short names.
    with tempfile.TemporaryDirectory(prefix="barograph-") as folder, _Sidecar(Path(folder)) as sidecar:
        bench = _Bench(sidecar, options.seconds)
        bench.measure()
    if options.json:
        rows = [{**asdict(row), "met": row.met} for row in bench.rows]
        print(json.dumps({"machine": machine, "rows": rows, "miscounts": bench.miscounts}, ensure_ascii=False, allow_nan=False))
    else:
        print(_markdown(machine, bench.rows))
    for miscount in bench.miscounts:
        print(f"barograph: {miscount}", file=sys.stderr)
    if bench.miscounts:
        return _FAILED
    return _INCONCLUSIVE if any(row.value is None for row in bench.rows) else _PASS


class _Sidecar:
    """A sidecar as a child, and what can be asked of it and seen of its process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.token = secrets.token_hex(16)
        self.statsd = f"unix:{folder / 'statsd'}"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.address = f"127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str]:
        """How it is started."""
        arguments = ["--data", str(self.folder / "data"), "--listen", self.address, "--statsd", self.statsd]
        return [sys.executable, "-m", "barograph", "serve", *arguments]

    def __enter__(self) -> _Sidecar:
        self.start()
        try:
            self.wait_until_ready()
        except BaseException:
            self._end(signal.SIGKILL)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._end(signal.SIGTERM)

    def start(self) -> None:
        environment = {**os.environ, "BAROGRAPH_TOKEN": self.token}
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(self.command(), env=environment, stdout=log, stderr=log)

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def _end(self, how: signal.Signals) -> None:
        if self._process is None:
            return
        self._process.send_signal(how)
        try:
            self._process.wait(_PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    @property
    def pid(self) -> int:
        if self._process is None or self._process.poll() is not None:
            raise BarographError(f"the sidecar has ended:\n{self.last_words()}")
        return self._process.pid

    def last_words(self) -> str:
        return "\n".join((self.folder / "log").read_text(encoding="utf-8", errors="replace").splitlines()[-10:])

    def wait_until_ready(self) -> dict[str, Any]:
        """The answer of /readyz once it is 200."""
        end = time.monotonic() + _PATIENCE_SECONDS
        while time.monotonic() < end:
            _ = self.pid
            status, answer = self.attempt("GET", "/readyz")
            if status == 200:
                ready: dict[str, Any] = answer
                return ready
            time.sleep(0.005)
        raise BarographError(f"the sidecar is not ready after {_PATIENCE_SECONDS:.0f} s:\n{self.last_words()}")

    def attempt(self, method: str, path: str, body: bytes | None = None, kind: str = "application/json", **headers: str) -> tuple[int, Any]:
        """Status and document of an answer; status 0 if there is none."""
        # Loads TLS, which the command line, and with it an idle sidecar, can do without.
        import http.client

        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=_PATIENCE_SECONDS)
        given = {"Authorization": f"Bearer {self.token}", "Content-Type": kind, **headers}
        try:
            connection.request(method, path, body, given)
            answer = connection.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException):
            return 0, None
        finally:
            connection.close()
        is_json = "json" in (answer.getheader("Content-Type") or "")
        return answer.status, json.loads(content) if content and is_json else content.decode(errors="replace")

    def ask(self, method: str, path: str, body: bytes | None = None, kind: str = "application/json") -> Any:
        status, answer = self.attempt(method, path, body, kind)
        if not 200 <= status < 300:
            raise BarographError(f"{method} {path} was answered {status or 'not at all'}: {answer}")
        return answer

    def counts(self) -> dict[str, Any]:
        """What the sidecar says of the model; answered after everything that it acknowledged before."""
        models = self.ask("GET", "/v1/models")["models"]
        found: dict[str, Any] = next(model for model in models if model["name"] == _MODEL)
        return found

    def states(self) -> set[str]:
        """Names of the states on its disk."""
        return {path.name for path in (self.folder / "data" / "models" / _MODEL).glob("state-*.bin")}

    def log_bytes(self) -> int:
        """Bytes of its log since the last state."""
        folder = self.folder / "data" / "models" / _MODEL
        # Names end in the number of the record that comes next.
        since = Path(max(self.states(), default="")).stem.partition("-")[2]
        size = 0
        for path in folder.glob("log-*.wal"):
            # It may be given up meanwhile.
            with contextlib.suppress(FileNotFoundError):
                size += path.stat().st_size if path.stem.partition("-")[2] >= since else 0
        return size

    def calls(self) -> int:
        """Calls whose latency it has counted."""
        name = f'barograph_call_seconds_count{{model="{_MODEL}"}} '
        lines = (line for line in self.ask("GET", "/metrics").splitlines() if line.startswith(name))
        return int(float(next(lines, "0").split()[-1]))

    def memory(self, field: str) -> float:
        """Megabytes: `VmRSS` now, `VmHWM` at most since the start."""
        status = Path(f"/proc/{self.pid}/status").read_text(encoding="ascii")
        line = next(line for line in status.splitlines() if line.startswith(f"{field}:"))
        return int(line.split()[1]) * 1024 / 1e6

    def processor_seconds(self) -> float:
        fields = Path(f"/proc/{self.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class _Bench:
    def __init__(self, sidecar: _Sidecar, seconds: float) -> None:
        self.sidecar = sidecar
        self.seconds = seconds
        self.rows: list[_Row] = []
        self.miscounts: list[str] = []
        self._runs = 0
        self._peak = 0.0

    def measure(self) -> None:
        self._prepare()
        self._idle()
        for protocol, name, unit, target in _PROTOCOLS:
            self._try(f"{name}, {unit}", unit, target, partial(self._protocol, protocol, name, unit, target))
        self._try("DogStatsD over a Unix socket, lines/s", "lines/s", 5e5, self._datagrams)
        self._peak = self.sidecar.memory("VmHWM")
        self._try("writes accepted after kill -9", "s", 1.0, self._crash)
        if not any(row.workload == _BESIDE for row in self.rows):
            self.rows.append(_Row(_BESIDE, None, "events/s", 3e6, note="not measured: see above"))
        self._try(_ALONE, "events/s", 3e6, lambda: self._replayed(_ALONE, self._killed(goes_on=False)[0]))
        self._try("memory at most (RSS)", "MB", 256.0, self._most_memory)

    def _most_memory(self) -> None:
        peak = max(self._peak, self.sidecar.memory("VmHWM"))
        self.rows.append(_Row("memory at most (RSS)", peak, "MB", 256.0, False, "of both processes, with every load and the replay"))

    def _try(self, workload: str, unit: str, target: float, measure: Callable[[], None]) -> None:
        """What cannot be measured becomes a row that says so; the others go on."""
        print(f"{workload} …", file=sys.stderr)
        try:
            measure()
        except (BarographError, RuntimeError, ValueError) as error:
            self.rows.append(
                _Row(workload, None, unit, target, unit not in ("s", "MB"), f"not measured: {' '.join(str(error).split())[:200]}")
            )

    def _prepare(self) -> None:
        import numpy as np

        from barograph import Reference

        # The law of the load's events: rust/server/src/load/bodies.rs.
        random = np.random.default_rng(0)
        frame: dict[str, Any] = {f"x{at}": random.standard_normal(_REFERENCE_ROWS) for at in range(8)}
        frame["x8"] = [f"kind_{kind:02}" for kind in random.integers(0, 20, _REFERENCE_ROWS)]
        frame["x9"] = random.random(_REFERENCE_ROWS) <= 0.3
        address = f"/v1/models/{_MODEL}"
        self.sidecar.ask("PUT", f"{address}/reference", Reference(frame).to_bytes(), "application/vnd.barograph.snapshot")
        self.sidecar.ask("PUT", f"{address}/policy", json.dumps(_POLICY).encode())

    def _idle(self) -> None:
        print(f"idle for {_IDLE_SECONDS:.0f} s …", file=sys.stderr)
        before, began = self.sidecar.processor_seconds(), time.monotonic()
        time.sleep(_IDLE_SECONDS)
        share = 100.0 * (self.sidecar.processor_seconds() - before) / (time.monotonic() - began)
        self.rows.append(
            _Row("idle, memory (RSS)", self.sidecar.memory("VmRSS"), "MB", 40.0, False, "one model with its reference, before any load")
        )
        self.rows.append(_Row("idle, processor", share, "% of a core", 0.5, False, f"over {_IDLE_SECONDS:.0f} s"))

    def _load(self, protocol: str, rate: float | None = None, once: bool = False) -> dict[str, Any]:
        self._runs += 1
        plan = {
            "address": self.sidecar.statsd if protocol == "statsd" else self.sidecar.address,
            "token": self.sidecar.token,
            "model": _MODEL,
            "protocol": protocol,
            "seconds": self.seconds,
            "rate": rate,
            "seed": self._runs,
            "once": once,
        }
        outcome: dict[str, Any] = json.loads(_barograph.sidecar_load(json.dumps(plan)))
        return outcome

    def _counted(self, workload: str, before: int, outcome: dict[str, Any], extra: int = 0) -> float:
        """Seconds until everything acknowledged is counted; a difference is a miscount."""
        began = time.monotonic()
        least = before + outcome["events_accepted"] + extra
        most = least + outcome["events_unanswered"]
        while True:
            counted = self.sidecar.counts()["events"]
            waited = time.monotonic() - began
            if least <= counted <= most:
                return waited
            if counted > most or waited > _PATIENCE_SECONDS:
                self.miscounts.append(f"{workload}: {counted - before} events were counted, {least - before} to {most - before} expected")
                return waited
            time.sleep(0.01)

    def _protocol(self, protocol: str, name: str, unit: str, target: float) -> None:
        before = self.sidecar.counts()["events"]
        outcome = self._load(protocol)
        if not outcome["events_accepted"]:
            raise BarographError(f"no event was accepted: {outcome['trouble']}")
        took = outcome["seconds"] + self._counted(name, before, outcome)
        done = outcome["bodies_acknowledged"] if unit == "requests/s" else outcome["events_accepted"]
        self.rows.append(_Row(f"{name}, {unit}", done / took, unit, target, True, _remarks(outcome)))
        before = self.sidecar.counts()["events"]
        slower = self._load(protocol, rate=_SHARE * outcome["events_accepted"] / took)
        self._counted(name, before, slower)
        p99 = None if slower["p99"] is None else slower["p99"] * 1e3
        note = f"p50 {slower['p50'] * 1e3:.2g} ms, max {slower['max'] * 1e3:.3g} ms" if p99 is not None else "nothing was acknowledged"
        if slower["bodies_unsent"]:
            note += f"; {slower['bodies_unsent']} bodies could not be sent in time"
        remarks = "; ".join(part for part in (note, _remarks(slower)) if part)
        self.rows.append(_Row(f"{name}, p99 of acknowledgements at {_SHARE:.0%} of that rate", p99, "ms", 50.0, False, remarks))

    def _datagrams(self) -> None:
        before = self.sidecar.calls()
        outcome = self._load("statsd")
        sent, end = outcome["events_sent"], time.monotonic() + 5.0
        # Datagrams are folded together, and counted once a second.
        while (counted := self.sidecar.calls() - before) < sent and time.monotonic() < end:
            time.sleep(0.05)
        if not counted:
            raise BarographError(f"none of {sent} lines was counted")
        # A Unix socket makes the sender wait: nothing is lost on the way.
        if counted != sent:
            self.miscounts.append(f"DogStatsD: {counted} lines were counted, {sent} were sent")
        self.rows.append(
            _Row("DogStatsD over a Unix socket, lines/s", counted / outcome["seconds"], "lines/s", 5e5, True, _remarks(outcome))
        )

    def _crash(self) -> None:
        """Times how a killed sidecar comes back beside a load that goes on."""
        back, outcome = self._killed(goes_on=True)
        note = f"from the start of the process; {outcome['bodies_repeated']} bodies sent again had been counted before"
        self.rows.append(_Row("writes accepted after kill -9", back.written, "s", 1.0, False, note))
        note = f"{back.replayed / 1e6:.2f} M events were replayed"
        note += "; before that /readyz had said 200 too early" if back.early else ""
        self.rows.append(_Row("ready after kill -9", back.ready, "s", None, False, note))
        self._replayed(_BESIDE, back)

    def _replayed(self, workload: str, back: _Comeback) -> None:
        # Judged with the start of the process in it, which few events to replay do not outweigh: the remark tells how much that was.
        rate = back.replayed / back.ready if back.replayed else None
        since = back.replayed / max(back.ready - back.up, 1e-3)
        note = f"from the start of the process until ready; {since:,.0f} from its first answer, after {back.up:.2f} s"
        note = note if back.replayed else "not measured: there was nothing to replay"
        self.rows.append(_Row(workload, rate, "events/s", 3e6, True, note))

    def _killed(self, goes_on: bool) -> tuple[_Comeback, dict[str, Any]]:
        """Kills the sidecar while it is loaded and starts it again, at once or once the load is over; every acknowledged event must be
        there, once. How it came back, and what came of the load.
        """
        before = self.sidecar.counts()["events"]
        outcomes: list[dict[str, Any]] = []
        failures: list[BaseException] = []

        def load() -> None:
            try:
                outcomes.append(self._load("arrow", once=True))
            except BaseException as error:
                failures.append(error)

        thread = threading.Thread(target=load)
        thread.start()
        try:
            time.sleep(max(self.seconds - _LAST_MOMENT_SECONDS - 2 * _LOG_SECONDS, 0.0))
            # A log that was just given up leaves nothing to replay: the kill comes a while after a state.
            patience = min(_LOG_SECONDS, (self.seconds - _LAST_MOMENT_SECONDS) / 2)
            known, end = self.sidecar.states(), time.monotonic() + patience
            while self.sidecar.states() == known and time.monotonic() < end:
                time.sleep(0.005)
            end = time.monotonic() + patience
            while self.sidecar.log_bytes() < _LOG_BYTES and time.monotonic() < end:
                time.sleep(0.005)
            self._peak = max(self._peak, self.sidecar.memory("VmHWM"))
            self.sidecar.kill()
            if not goes_on:
                thread.join()
            began = time.monotonic()
            self.sidecar.start()
            back = self._comeback(began)
        finally:
            thread.join()
        if failures:
            raise BarographError(f"the load failed: {failures[0]}")
        outcome = outcomes[0]
        if not outcome["errors"]:
            raise BarographError("the load was over before the sidecar was killed")
        self._counted("kill -9 under load", before, outcome, extra=1)
        return back, outcome

    def _comeback(self, began: float) -> _Comeback:
        """Asks a sidecar that is starting until it takes writes and has replayed its log."""
        written: list[float] = []
        # A write is answered only when it is written: asked in turn, it would keep the other question waiting.
        thread = threading.Thread(target=lambda: written.append(self._first_write(began)))
        thread.start()
        up = ready = None
        replayed, early = 0, False
        while True:
            done = not thread.is_alive()
            status, answer = self.sidecar.attempt("GET", "/readyz")
            now = time.monotonic() - began
            up = now if up is None and status else up
            if status == 200:
                count = int(answer["replayed_events"])
                if ready is None or count > replayed:
                    early, ready, replayed = early or ready is not None, now, count
            elif ready is not None:
                early, ready = True, None
            if done and up is not None and ready is not None:
                break
            if now > _PATIENCE_SECONDS:
                raise BarographError(f"the sidecar has not come back after {_PATIENCE_SECONDS:.0f} s:\n{self.sidecar.last_words()}")
            _ = self.sidecar.pid
            time.sleep(0.005)
        if not written or written[0] > _PATIENCE_SECONDS:
            raise BarographError("no write was accepted")
        return _Comeback(up, written[0], ready, replayed, early)

    def _first_write(self, began: float) -> float:
        """Seconds until a write is accepted."""
        event = {f"x{at}": 0.0 for at in range(8)} | {"x8": "kind_00", "x9": True}
        body = json.dumps(event).encode() + b"\n"
        # A key, so that an attempt whose answer was lost is not counted twice.
        key = {"Idempotency-Key": f"comeback-{self._runs}"}
        while (now := time.monotonic() - began) <= _PATIENCE_SECONDS:
            status, _ = self.sidecar.attempt("POST", f"/v1/models/{_MODEL}/events", body, "application/x-ndjson", **key)
            if status in (200, 202):
                return time.monotonic() - began
            time.sleep(0.005)
        return now


def _remarks(outcome: dict[str, Any]) -> str:
    parts = []
    if outcome["cpu_seconds"] is not None:
        parts.append(f"the load took {outcome['cpu_seconds'] / outcome['seconds']:.2f} of a core")
    if outcome["refused"]:
        parts.append(f"{outcome['refused']} bodies refused (429, 503)")
    if outcome["errors"]:
        parts.append(f"{outcome['errors']} errors, the first: {outcome['trouble']}")
    if outcome["events_rejected"]:
        parts.append(f"{outcome['events_rejected']} events rejected")
    return "; ".join(parts)


def _machine() -> dict[str, Any]:
    from barograph import __version__

    information = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    model = next((line.partition(":")[2].strip() for line in information if line.startswith("model name")), platform.machine())
    return {
        "processor": model,
        "cores": len(os.sched_getaffinity(0)),
        "kernel": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "barograph": str(__version__),
        "date": datetime.now(UTC).date().isoformat(),
        # Above about 0.1 somebody else was using the machine.
        "load_average": round(os.getloadavg()[0], 2),
    }


def _figure(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _markdown(machine: dict[str, Any], rows: list[_Row]) -> str:
    lines = [
        "On {processor}, {cores} cores shared with the load, {kernel}, Python {python}, barograph {barograph}, {date}; "
        "load average before: {load_average}.".format(**machine),
        "",
        "| workload | reached | target | met | remarks |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        reached = "-" if row.value is None else f"{_figure(row.value)} {row.unit}"
        target = "" if row.target is None else f"{'≥' if row.more_is_better else '≤'} {_figure(row.target)} {row.unit}"
        met = {True: "yes", False: "no", None: "" if row.target is None else "not measured"}[row.met]
        cells = (row.workload, reached, target, met, row.note.replace("|", "\\|"))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
