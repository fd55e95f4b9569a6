"""`barograph bench budget`: a monitor and a sidecar under a limit of processor time, at a steady load, on this machine.

What monitoring took is measured from outside: processor time of the calls into a monitor, of the whole process of a sidecar. What its
rows say of each window is held against what is true of all events that were handed in.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from barograph.errors import BarographError, InvalidArgumentError
from barograph.sidecar_bench import _machine, _Sidecar

_PASS, _MISSED = 0, 1
_MODEL = "bench"
_BATCH = 5000
"""Events of a frame or body."""
_FRAMES = 20
"""Different frames that are sent in turn."""
_SETTLING = 20.0
"""Seconds before anything is measured: the governor finds its place."""
_WINDOW = 10
_NULLS, _ERRORS = 0.05, 0.02
_BAND = 0.2
_CONFIDENCE = 0.99


@dataclass
class _Run:
    """What one home took and told."""

    home: str
    rate: float
    cpu_without: float | None
    cpu: float
    limit: float
    inclusion: float
    events: int
    governor: float
    told: dict[str, Any]
    covered: int = 0
    judged: int = 0
    missed: list[str] = field(default_factory=list)

    @property
    def kept(self) -> bool:
        """Within a fifth of the limit, or below it with every event kept."""
        return self.cpu <= (1 + _BAND) * self.limit and (self.cpu >= (1 - _BAND) * self.limit or self.inclusion == 1.0)

    @property
    def covers(self) -> bool:
        """Limits that hold at 99 % miss more than one in twenty by chance alone once in thousands of runs."""
        return self.judged > 0 and self.judged - self.covered <= max(1, self.judged // 20)


def run(options: argparse.Namespace) -> int:
    """Measures and prints; gives the exit code."""
    from barograph.scaling.budget import plan

    if not 30.0 <= options.seconds <= 3600.0:
        raise InvalidArgumentError(f"`--seconds` must be in [30, 3600], got {options.seconds}")
    homes = options.home or ["frames", "events", "sidecar"]
    machine = _machine()
    load = _Load(options.rows, options.columns)
    runs: list[_Run] = []
    plans = []
    for home in homes:
        made = plan(load.rate, load.columns, cpu=options.cpu, window=f"{_WINDOW}s", rows_per_batch=_BATCH, home=home)
        plans.append((home, made))
        limit = made.limits["cpu"] or 0.0
        print(f"{home}: {options.seconds:.0f} s …", file=sys.stderr)
        measure = {"frames": load.frames, "events": load.events, "sidecar": load.sidecar}[home]
        runs.append(measure(options.cpu, limit, options.seconds))
    if options.json:
        rows = [{**asdict(one), "kept": one.kept, "covers": one.covers} for one in runs]
        out = {"machine": machine, "plans": {home: made.to_dict() for home, made in plans}, "runs": rows}
        print(json.dumps(out, ensure_ascii=False, allow_nan=False))
    else:
        print(_markdown(machine, load, plans, runs))
    return _PASS if all(one.kept and one.covers for one in runs) else _MISSED


class _Load:
    """Frames of events, and what is true of each."""

    def __init__(self, rows: str, columns: int) -> None:
        import numpy as np
        import polars as pl

        from barograph.references import Reference
        from barograph.scaling.budget import _columns, _rate

        self.rate, self.columns = _rate(rows), sum(_columns(columns).values())
        random = np.random.default_rng(0)

        def values(count: int) -> dict[str, Any]:
            drawn: dict[str, Any] = {f"x{at}": random.standard_normal(count) for at in range(self.columns)}
            drawn["x0"] = pl.Series(drawn["x0"]).scatter(np.flatnonzero(random.random(count) < _NULLS), None)
            return drawn

        self.reference = Reference(values(50_000))
        self._null_share = self.reference.profile["x0"].null_count / 50_000
        self._spent = 0
        self._frames = []
        self._truth = []
        for _ in range(_FRAMES):
            latency, failed = random.lognormal(-4.0, 0.7, _BATCH), random.random(_BATCH) < _ERRORS
            frame = pl.DataFrame(values(_BATCH) | {"latency": latency, "failed": failed})
            self._frames.append(frame)
            self._truth.append((frame["x0"].null_count(), int(failed.sum()), np.sort(latency)))

    def _monitor(self, cpu: str | None) -> Any:
        from barograph.monitors import Monitor

        budget = None if cpu is None else {"cpu": cpu}
        return Monitor(_MODEL, reference=self.reference, window=f"{_WINDOW}s", ticks="manual", budget=budget, confidence=_CONFIDENCE)

    def frames(self, cpu: str, limit: float, seconds: float) -> _Run:
        """Frames into a monitor of this process."""

        def observe(monitor: Any, at: int, now: datetime) -> None:
            import polars as pl

            timed = self._frames[at % _FRAMES].with_columns(at=pl.lit(now))
            began = time.thread_time_ns()
            monitor.observe_frame(timed, time="at", latency_seconds="latency", error="failed")
            self._spent += time.thread_time_ns() - began

        return self._in_process("frames", observe, cpu, limit, seconds)

    def events(self, cpu: str, limit: float, seconds: float) -> _Run:
        """The same events one by one."""
        rows = [frame.drop("latency", "failed").to_dicts() for frame in self._frames]
        marks = [list(zip(frame["latency"].to_list(), frame["failed"].to_list(), strict=True)) for frame in self._frames]

        # The loop is the load's, not monitoring's.
        began = time.thread_time_ns()
        for own, beside in zip(rows, marks, strict=True):
            for _row, (_latency, _failed) in zip(own, beside, strict=True):
                pass
        loop = (time.thread_time_ns() - began) // _FRAMES

        def observe(monitor: Any, at: int, now: datetime) -> None:
            own, beside = rows[at % _FRAMES], marks[at % _FRAMES]
            began = time.thread_time_ns()
            for row, (latency, failed) in zip(own, beside, strict=True):
                monitor.observe(row, time=now, latency_seconds=latency, error=failed)
            self._spent += time.thread_time_ns() - began - loop

        return self._in_process("events", observe, cpu, limit, seconds)

    def _in_process(self, home: str, observe: Any, cpu: str, limit: float, seconds: float) -> _Run:
        without = self._replay(observe, self._monitor(None), min(seconds, _WINDOW * 1.5), 0.0)[0]
        monitor = self._monitor(cpu)
        share, windows = self._replay(observe, monitor, seconds + _SETTLING, _SETTLING)
        told = monitor.cost()
        out = _Run(home, self.rate, without, share, limit, told["inclusion"], monitor.counts()["events"], self._own(told), told)
        history = [row for row in monitor.history().to_dicts() if row["window_start"] is not None]
        for row in history:
            self._hold(out, row, windows.get(int(row["window_start"].timestamp()), []))
        return out

    def _replay(self, observe: Any, monitor: Any, seconds: float, settling: float) -> tuple[float, dict[int, list[int]]]:
        """Hands frames in at their times; the share of a core that it took, and which frames each window had."""
        self._spent = 0
        pause = _BATCH / self.rate
        began = time.monotonic()
        first = datetime.now(UTC).timestamp()
        windows: dict[int, list[int]] = {}
        at, since, spent_before = 0, began, 0
        ticked = began
        while (due := began + at * pause) < began + seconds:
            time.sleep(max(0.0, due - time.monotonic()))
            if settling and since == began and due >= began + settling:
                since, spent_before = time.monotonic(), self._spent
            # Event time is that of the schedule: a machine that is late does not put events into the next window.
            now = datetime.fromtimestamp(first + at * pause, UTC)
            observe(monitor, at, now)
            windows.setdefault(int(now.timestamp()) // _WINDOW * _WINDOW, []).append(at)
            at += 1
            if time.monotonic() - ticked >= 1.0:
                ticked, start = time.monotonic(), time.thread_time_ns()
                monitor.tick(now)
                self._spent += time.thread_time_ns() - start
        return (self._spent - spent_before) / 1e9 / (time.monotonic() - since), windows

    def _own(self, told: dict[str, Any]) -> float:
        """The share of a core of measuring and deciding: a step a second, and two looks at the clock a frame."""
        from barograph.scaling.budget import Governor

        governor = Governor({"cpu": "1%"})
        began = time.thread_time_ns()
        for _ in range(20_000):
            governor.measure(1.0, cpu=0.01)
            time.thread_time_ns()
            time.thread_time_ns()
        each = (time.thread_time_ns() - began) / 20_000 / 1e9
        return float(each * (1.0 + self.rate / _BATCH))

    def sidecar(self, cpu: str, limit: float, seconds: float) -> _Run:
        """Arrow bodies into a sidecar, which is a process of its own."""
        import polars as pl

        bodies = []
        for frame in self._frames:
            body = io.BytesIO()
            named = frame.rename({"latency": "_latency_seconds", "failed": "_error"})
            named.write_ipc_stream(body, compat_level=pl.CompatLevel.oldest())
            bodies.append(body.getvalue())
        without = self._served(None, bodies, 15.0, 5.0)[0]
        share, told, events, history, sent = self._served(cpu, bodies, seconds + _SETTLING, _SETTLING)
        out = _Run("sidecar", self.rate, without, share, limit, told["inclusion"], events, 0.0, told)
        out.governor = self._idle_difference()
        for row in history:
            start = row["window_start"]
            if start is not None:
                self._hold(out, row, sent.get(int(start) // 10**9, []))
        return out

    def _served(self, cpu: str | None, bodies: list[bytes], seconds: float, settling: float) -> tuple[Any, ...]:
        with tempfile.TemporaryDirectory(prefix="barograph-") as folder, _Budgeted(Path(folder), cpu) as sidecar:
            address = f"/v1/models/{_MODEL}"
            sidecar.ask("PUT", f"{address}/reference", self.reference.to_bytes(), "application/vnd.barograph.snapshot")
            policy = {"window": f"{_WINDOW}s", "settings": {"confidence": _CONFIDENCE}}
            sidecar.ask("PUT", f"{address}/policy", json.dumps(policy).encode())
            sent: dict[int, list[int]] = {}
            pause, began, at = _BATCH / self.rate, time.monotonic(), 0
            since, before = began, sidecar.nanoseconds()
            while (due := began + at * pause) < began + seconds:
                time.sleep(max(0.0, due - time.monotonic()))
                if settling and since == began and due >= began + settling:
                    since, before = time.monotonic(), sidecar.nanoseconds()
                window = int(time.time()) // _WINDOW * _WINDOW
                sidecar.post(f"{address}/events", bodies[at % _FRAMES])
                # A body on the edge of two windows may count in either: neither is held against the truth.
                after = int(time.time()) // _WINDOW * _WINDOW
                sent.setdefault(window, []).append(at if after == window else -1)
                at += 1
            share = (sidecar.nanoseconds() - before) / 1e9 / (time.monotonic() - since)
            told = sidecar.ask("GET", "/v1/models")["server"]["budget"]
            # The last window closes by itself.
            time.sleep(_WINDOW + 2.0)
            history = [row for row in self._rows(sidecar, address) if row["window_end"]]
            events = sidecar.counts()["events"]
        return share, told, events, history, sent

    @staticmethod
    def _rows(sidecar: _Budgeted, address: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        after = ""
        while True:
            page = sidecar.ask("GET", f"{address}/history?limit=1000{after}")
            rows += page["rows"]
            if not page.get("next"):
                return rows
            after = f"&after={page['next']}"

    def _idle_difference(self) -> float:
        """The share of a core that an idle sidecar takes more for having a budget."""
        shares = []
        for cpu in (None, "1%"):
            with tempfile.TemporaryDirectory(prefix="barograph-") as folder, _Budgeted(Path(folder), cpu) as sidecar:
                time.sleep(2.0)
                before, began = sidecar.nanoseconds(), time.monotonic()
                time.sleep(8.0)
                shares.append((sidecar.nanoseconds() - before) / 1e9 / (time.monotonic() - began))
        return max(shares[1] - shares[0], 0.0)

    def _hold(self, out: _Run, row: dict[str, Any], frames: list[int]) -> None:
        """Holds a row of a window against what is true of all its events; windows that are not whole are left out."""
        import numpy as np

        if not frames or -1 in frames or len(frames) * _BATCH < 0.9 * self.rate * _WINDOW:
            return
        method, lower, upper = row["method"], row["lower"], row["upper"]
        parts = [self._truth[at % _FRAMES] for at in frames]
        rows = len(frames) * _BATCH
        if method == "events":
            truth = float(rows)
        elif method == "error_rate":
            truth = sum(part[1] for part in parts) / rows
        elif method == "null_share" and row["column"] == "x0":
            truth = sum(part[0] for part in parts) / rows - self._null_share
        elif method in ("latency_p50", "latency_p99"):
            sorted_latencies = np.sort(np.concatenate([part[2] for part in parts]))
            truth = float(sorted_latencies[int(np.ceil(float(f"0.{method[-2:]}") * rows)) - 1])
        else:
            return
        if lower is None and upper is None:
            return
        out.judged += 1
        if (lower is None or lower <= truth) and (upper is None or truth <= upper):
            out.covered += 1
        else:
            out.missed.append(f"{method} of {row['window_start']}: {truth:.6g} is not in {lower} to {upper}")


class _Budgeted(_Sidecar):
    """A sidecar with a budget."""

    def __init__(self, folder: Path, cpu: str | None) -> None:
        super().__init__(folder)
        self._config = folder / "barograph.toml"
        self._config.write_text("" if cpu is None else f'[budget]\ncpu = "{cpu}"\n', encoding="utf-8")
        self._connection: Any = None

    def __enter__(self) -> _Budgeted:
        super().__enter__()
        return self

    def command(self) -> list[str]:
        """How it is started."""
        return [*super().command(), "--config", str(self._config)]

    def post(self, path: str, body: bytes) -> None:
        """Sends a body on the connection that stays."""
        import http.client

        if self._connection is None:
            self._connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30.0)
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/vnd.apache.arrow.stream"}
        self._connection.request("POST", path, body, headers)
        answer = self._connection.getresponse()
        content = answer.read()
        if answer.status != 200:
            raise BarographError(f"POST {path} was answered {answer.status}: {content[:200]!r}")

    def nanoseconds(self) -> int:
        """Processor time of all its threads that run, in nanoseconds."""
        total = 0
        for task in Path(f"/proc/{self.pid}/task").iterdir():
            try:
                total += int((task / "schedstat").read_text(encoding="ascii").split()[0])
            except OSError:
                continue
        return total


def _markdown(machine: dict[str, Any], load: _Load, plans: list[tuple[str, Any]], runs: list[_Run]) -> str:
    lines = [
        "On {processor}, {cores} cores, {kernel}, Python {python}, barograph {barograph}, {date}; "
        "load average before: {load_average}.".format(**machine),
        "",
    ]
    for home, made in plans:
        lines += [f"Plan for {load.rate:,.0f} events/s of {load.columns} features as {home}:", "", "```", str(made), "```", ""]
    lines += [
        "| home | without a budget | limit | took | kept | inclusion | the governor's own | intervals that cover |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for one in runs:
        without = "-" if one.cpu_without is None else f"{100 * one.cpu_without:.2f} %"
        cells = (
            one.home,
            without,
            f"{100 * one.limit:.2f} %",
            f"{100 * one.cpu:.2f} %",
            "yes" if one.kept else "no",
            f"{one.inclusion:.3g}",
            f"{100 * one.governor:.4f} %",
            f"{one.covered} of {one.judged}",
        )
        lines.append("| " + " | ".join(cells) + " |")
    lines += [f"- {one.home}: {miss}" for one in runs for miss in one.missed]
    return "\n".join(lines)
