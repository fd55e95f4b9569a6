"""What monitoring may cost: a plan before it runs, and the controller that keeps to it.

>>> made = plan("20000/s", {"number": 50}, cpu="1%", memory="64MB")
>>> made.possible, made.inclusion < 1
(True, True)
"""

from __future__ import annotations

import json
import math
import re
import time as clock
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, Literal

from barograph import _barograph
from barograph.errors import InvalidArgumentError

if TYPE_CHECKING:
    from barograph.monitors import Monitor

__all__ = ["SHIPPED", "Costs", "Governor", "Plan", "Step", "measure_costs", "plan", "psi_told", "widening"]

_KINDS = ("number", "category", "boolean")
_DEEPEST = 2.0**-10
"""The least inclusion probability: below it sampling saves nothing that counts."""
_GATHERED = 4096
"""Sampled events that a monitor adds together."""
_SINGLES = 1024
"""Single events that a monitor adds together."""
_STATE_SECONDS, _MOST_LOG = 60.0, 256 << 20
"""How often a sidecar writes a state, and how large its log gets before it does."""
_LENGTHS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}
_SCALES, _BINS, _SEGMENTS, _DAYS = (6, 5, 4, 3), (1000, 500, 200, 100), (100, 50, 10), (1.0, 0.5, 0.25, 0.1)
Home = Literal["frames", "events", "sidecar"]


@dataclass(frozen=True)
class Costs:
    """Measured constants, in seconds and bytes.

    frame: by kind, seconds per column of a frame, by its number of rows. export: seconds per frame and column whatever becomes of its
    rows; left_out: per event of a frame, for its coin. call: per `observe`, even if its event is left out; single: by kind, per value of
    an `observe` that is kept. double: per column of sampled events that are added together. segment: per value and column of segments.
    close: per column of a window that closes. body, byte: of a sidecar, per body and per byte of it; record: per body and column that is
    kept. counter, name: bytes of a counter and of a name at hand; packed: bytes of a counter of a past window that counts anything.
    """

    origin: str
    frame: Mapping[str, Mapping[int, float]]
    export: float
    left_out: float
    call: float
    single: Mapping[str, float]
    double: float
    segment: float
    close: float
    body: float
    byte: float
    record: float
    counter: float = 8.0
    name: float = 64.0
    packed: float = 1.6

    def of_frame(self, kind: str, rows: float) -> float:
        """Seconds per column of a frame of so many rows: between two sizes along a straight line, beyond them by the last slope."""
        points = sorted(self.frame[kind].items())
        at = next((at for at, (size, _) in enumerate(points[1:], 1) if rows <= size), len(points) - 1)
        (low, least), (high, most) = points[at - 1], points[at]
        return max(least + (most - least) * (rows - low) / (high - low), 0.2 * points[0][1])


SHIPPED = Costs(
    origin="measured 2026-11-29, 2 cores shared with other work, Python 3.11, barograph 0.1.0; `measure_costs()` measures here",
    frame={
        "number": {20: 5.7e-6, 200: 1.5e-5, 1000: 3.0e-5, 5000: 9.3e-5, 20_000: 2.9e-4},
        "category": {20: 5.0e-6, 200: 1.2e-5, 1000: 3.5e-5, 5000: 1.3e-4, 20_000: 4.6e-4},
        "boolean": {20: 4.0e-6, 200: 6.0e-6, 1000: 1.2e-5, 5000: 4.0e-5, 20_000: 1.4e-4},
    },
    export=2.0e-6,
    left_out=8e-9,
    call=2.5e-7,
    single={"number": 4.5e-8, "category": 7.0e-8, "boolean": 5.0e-8},
    double=2.0e-5,
    segment=3.0e-8,
    close=1.2e-4,
    body=1.2e-4,
    byte=4.5e-10,
    record=1.5e-6,
)


@dataclass(frozen=True)
class Step:
    """One thing that is given up: `what` goes from `before` to `after`; `saves` and `error` say in words what for and at which price."""

    what: str
    before: float
    after: float
    saves: str
    error: str


@dataclass(frozen=True)
class Plan:
    """What a budget buys. `possible` is False where even the least does not fit; `reasons` and `instead` say why and what would.

    cpu: share of a core; memory, disk: bytes; wire: bytes per second of windows that are handed on. full: the same four without any step.
    inclusion: the probability with which an event is kept. scale, bins, segments, days: what to make the reference and the monitor with.
    quantile_error: relative, of quantiles. ks_gap: width of the certain interval of Kolmogorov-Smirnov. psi_told: the smallest PSI that
    nine of ten windows call a warning, and psi_told_full without sampling. widening: how many times wider intervals are by sampling.
    """

    possible: bool
    inclusion: float
    scale: int
    bins: int
    segments: int
    days: float
    cpu: float
    memory: int
    disk: int
    wire: float
    full: Mapping[str, float]
    limits: Mapping[str, float | None]
    quantile_error: float
    ks_gap: float
    psi_told: float
    psi_told_full: float
    widening: float
    steps: list[Step]
    reasons: list[str] = field(default_factory=list)
    instead: list[str] = field(default_factory=list)
    origin: str = SHIPPED.origin

    def to_dict(self) -> dict[str, Any]:
        """All of it, for a program."""
        return asdict(self)

    def to_toml(self) -> str:
        """The `[budget]` table that asks for it."""
        limits = json.loads(_barograph.limits_from_json(json.dumps({k: v for k, v in self.limits.items() if v is not None})))
        lines = [f"{key} = {json.dumps(limits[key])}" for key in ("cpu", "memory", "disk", "wire") if limits[key] is not None]
        return "\n".join(["[budget]", *lines]) + "\n"

    def __str__(self) -> str:
        table = [["", "everything", "planned", "limit"]]
        for key, show in _SHOWN.items():
            limit = self.limits[key]
            table.append([key, show(self.full[key]), show(getattr(self, key)), "-" if limit is None else show(limit)])
        lines = [*_table(table), ""]
        if self.steps:
            lines += [*_table([["step down", "from", "to", "saves", "costs"], *map(_shown, self.steps)]), ""]
        else:
            lines += ["Nothing has to be given up.", ""]
        lines.append(f"kept: {_figure(self.inclusion)} of the events; reference with bins={self.bins}, scale={self.scale}")
        lines.append(
            f"quantiles within {_percent(self.quantile_error)}; KS within {self.ks_gap:.3g}; intervals {self.widening:.2f} times as wide; "
            f"a PSI of {self.psi_told:.3f} is a warning in nine of ten windows ({self.psi_told_full:.3f} without sampling)"
        )
        lines += [f"impossible: {reason}" for reason in self.reasons] + [f"possible: {way}" for way in self.instead]
        lines.append(f"constants: {self.origin}")
        return "\n".join(lines)


def plan(
    rows_per_second: float | str,
    columns: int | Mapping[str, int],
    *,
    cpu: float | str | None = None,
    memory: int | str | None = None,
    disk: int | str | None = None,
    wire: float | str | None = None,
    segments: int = 0,
    days: float = 30.0,
    window: str = "1h",
    rows_per_batch: int = 1000,
    home: Home = "frames",
    reference_rows: int = 50_000,
    sampling: bool = True,
    costs: Costs = SHIPPED,
) -> Plan:
    """What has to be given up to keep to a budget, and what each step costs in error.

    rows_per_second: events, also "20000/s". columns: a number of columns of numbers, or by kind: number, category, boolean. cpu, memory,
    disk, wire: limits as in `[budget]` (0.01 or "1%", bytes or "64MB", "10kB/s"); what is not given is not limited. segments: values of
    segment columns that are watched apart. days: how long past windows are kept. window: its length. rows_per_batch: events of a frame or
    body. home: "frames" (`observe_frame`), "events" (`observe`) or "sidecar" (Arrow bodies). reference_rows: for what a window can tell.
    sampling: whether events may be left out. costs: measured constants, `measure_costs()` for those of this machine.

    Sampling is chosen as deep as `cpu` asks for, one event of 1024 at most. For bytes, steps are taken in the order in which they cost
    least: histogram scale, bins, segments, then how long windows are kept. The plan is arithmetic on measured constants, right within
    about a third; what is kept to at run time is what the governor measures. Raises InvalidArgumentError for arguments that cannot be.

    >>> print(plan(100, 5, cpu="1%").steps)
    []
    """
    rate = _rate(rows_per_second)
    kinds = _columns(columns)
    stated = {"cpu": cpu, "memory": memory, "disk": disk, "wire": wire}
    for key, value in stated.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise InvalidArgumentError(f"`{key}` must be a finite number, got {value}")
    read: dict[str, Any] = json.loads(_barograph.limits_from_json(json.dumps({k: v for k, v in stated.items() if v is not None})))
    limits: dict[str, float | None] = {key: read[key] for key in stated}
    for name, value, least, most in (
        ("segments", segments, 0, 100),
        ("days", days, 0.0, 3660.0),
        ("rows_per_batch", rows_per_batch, 1, 10_000_000),
        ("reference_rows", reference_rows, 100, 10**12),
    ):
        if not least <= value <= most:
            raise InvalidArgumentError(f"`{name}` must be in [{least}, {most}], got {value}")
    if home not in ("frames", "events", "sidecar"):
        raise InvalidArgumentError(f'`home` must be "frames", "events" or "sidecar", got {home!r}')
    load = _Load(rate, kinds, _seconds(window), days, min(rows_per_batch, max(1.0, rate)), home, costs)
    return _Planner(load, limits, segments, reference_rows, sampling).plan()


@dataclass(frozen=True)
class _Load:
    """What is monitored."""

    rate: float
    kinds: Mapping[str, int]
    window: float
    days: float
    batch: float
    home: Home
    costs: Costs

    @property
    def columns(self) -> int:
        return sum(self.kinds.values())

    def _values(self, rows: float) -> float:
        """Seconds for all columns of so many rows together."""
        return sum(count * self.costs.of_frame(kind, rows) for kind, count in self.kinds.items())

    def cpu(self, inclusion: float, segments: int) -> float:
        """The share of a core."""
        costs, kept = self.costs, self.rate * inclusion
        depth = -math.log2(inclusion)
        batches = self.rate / self.batch
        share = self.columns * costs.close * (2 if segments else 1) / self.window
        share += kept * self.columns * costs.segment * (segments > 0)
        together = kept / _GATHERED * (self._values(_GATHERED) + (depth + 1.0) * costs.double * self.columns)
        if self.home == "events":
            share += self.rate * costs.call
            share += kept * sum(count * costs.single[kind] for kind, count in self.kinds.items())
            share += together if depth > 0 else kept / _SINGLES * self._values(_SINGLES)
        elif self.home == "frames":
            whole = batches * self._values(self.batch)
            share += whole if depth == 0 else batches * self.columns * costs.export + self.rate * costs.left_out + together
        else:
            share += batches * costs.body + 8.0 * self.rate * self.columns * costs.byte
            share += batches * self.columns * costs.record + 8.0 * kept * self.columns * costs.byte
            share += batches * self._values(self.batch) if depth == 0 else self.rate * costs.left_out + together
        return share

    def _counters(self, scale: int, bins: int) -> float:
        """Counters of a column of numbers: bins, and cells of some twenty octaves."""
        return 1.1 * bins + 20.0 * 2.0**scale

    def memory(self, scale: int, bins: int, segments: int, days: float) -> float:
        """Bytes of a monitor, the reference left out."""
        numbers, names = self.kinds.get("number", 0), self.columns - self.kinds.get("number", 0)
        open_tile = numbers * (self._counters(scale, bins) * self.costs.counter + 700.0) + names * (4500.0 + 20 * self.costs.name)
        moments = 60 * self.columns * 17 * 8.0
        coarse = (segments + 1) * self.columns * 16 * 8.0 if segments else 0.0
        return 2 * open_tile + moments + 2 * coarse + self.past(days) * self.tile(scale, bins) + 512.0 * self.past(days) * self.columns * 2

    def tile(self, scale: int, bins: int) -> float:
        """Bytes of a window that is handed on or kept."""
        numbers, names = self.kinds.get("number", 0), self.columns - self.kinds.get("number", 0)
        rows = self.rate * self.window
        used = min(1.1 * bins, rows) + min(8.0 * 2.0**scale, rows)
        return numbers * (used * self.costs.packed + 150.0) + names * 700.0

    def past(self, days: float) -> float:
        """Windows that are kept: all of three days, then one a day, after a hundred one a week."""
        per_day = 86_400.0 / min(self.window, 86_400.0)
        return min(days, 3.0) * per_day + min(max(days - 3.0, 0.0), 97.0) + max(days - 100.0, 0.0) / 7.0

    def disk(self, inclusion: float, scale: int, bins: int, days: float) -> float:
        """Bytes of what is saved: of a sidecar two states and the log between them, of a monitor its snapshot."""
        state = (self.past(days) + 2.0) * self.tile(scale, bins) + self.columns * 6.0 * bins
        if self.home != "sidecar":
            return state
        log = min(8.0 * self.rate * inclusion * self.columns * _STATE_SECONDS, float(_MOST_LOG))
        return 2.0 * (state + log)

    def wire(self, scale: int, bins: int) -> float:
        """Bytes per second of windows that are handed on."""
        return self.tile(scale, bins) / self.window


class _Planner:
    def __init__(self, load: _Load, limits: Mapping[str, float | None], segments: int, reference_rows: int, sampling: bool) -> None:
        self.load, self.limits, self.reference_rows, self.sampling = load, limits, reference_rows, sampling
        self.inclusion, self.scale, self.bins, self.segments, self.days = 1.0, 6, 1000, segments, load.days
        self.steps: list[Step] = []

    def _used(self) -> dict[str, float]:
        load = self.load
        return {
            "cpu": load.cpu(self.inclusion, self.segments),
            "memory": load.memory(self.scale, self.bins, self.segments, self.days),
            "disk": load.disk(self.inclusion, self.scale, self.bins, self.days),
            "wire": load.wire(self.scale, self.bins),
        }

    def _beyond(self) -> list[str]:
        used = self._used()
        return [key for key, limit in self.limits.items() if limit is not None and used[key] > limit * (1 + 1e-9)]

    def plan(self) -> Plan:
        full = self._used()
        self._give_up_bytes()
        self._sample()
        self._give_up_bytes()
        used, beyond = self._used(), self._beyond()
        rows = self.load.rate * self.load.window
        return Plan(
            possible=not beyond,
            inclusion=self.inclusion,
            scale=self.scale,
            bins=self.bins,
            segments=self.segments,
            days=self.days,
            cpu=used["cpu"],
            memory=math.ceil(used["memory"]),
            disk=math.ceil(used["disk"]),
            wire=used["wire"],
            full=full,
            limits=dict(self.limits),
            quantile_error=_quantile_error(self.scale),
            ks_gap=1.0 / self.bins,
            psi_told=psi_told(rows / widening(self.inclusion) ** 2, self.reference_rows),
            psi_told_full=psi_told(rows, self.reference_rows),
            widening=widening(self.inclusion),
            steps=self.steps,
            reasons=[self._reason(key, used[key]) for key in beyond],
            instead=self._instead(beyond),
            origin=self.load.costs.origin,
        )

    def _sample(self) -> None:
        limit = self.limits["cpu"]
        if limit is None or not self.sampling or "cpu" not in self._beyond():
            return
        low, high = math.log2(_DEEPEST), 0.0
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if self.load.cpu(2.0**middle, self.segments) <= limit else (low, middle)
        before = self.load.cpu(1.0, self.segments)
        self.inclusion = 2.0**low
        rows = self.load.rate * self.load.window
        told = psi_told(rows / widening(self.inclusion) ** 2, self.reference_rows)
        self.steps.append(
            Step(
                "sampling",
                1.0,
                self.inclusion,
                f"{_percent(before)} to {_percent(self.load.cpu(self.inclusion, self.segments))} of a core",
                f"intervals {widening(self.inclusion):.2f} times as wide; PSI told in 9 of 10 windows {told:.3f}",
            )
        )

    def _give_up_bytes(self) -> None:
        """Steps down until bytes fit, in the order in which they cost least; one that saves nothing of what is short is left out."""
        ladder: list[tuple[str, float]] = []
        for at in range(1, 4):
            ladder += [("scale", _SCALES[at]), ("bins", _BINS[at])]
            if at < len(_SEGMENTS):
                ladder.append(("segments", _SEGMENTS[at]))
            ladder.append(("days", max(1.0, self.load.days * _DAYS[at])))
        for what, after in ladder:
            short = [key for key in self._beyond() if key != "cpu"]
            before = getattr(self, what)
            if not short or after >= before:
                continue
            used = self._used()
            setattr(self, what, type(before)(after))
            now = self._used()
            if all(now[key] >= used[key] for key in short):
                setattr(self, what, before)
                continue
            saves = ", ".join(f"{key} {_SHOWN[key](used[key])} to {_SHOWN[key](now[key])}" for key in short)
            self.steps.append(Step(what, float(before), float(after), saves, self._price(what, float(before), float(after))))

    def _price(self, what: str, before: float, after: float) -> str:
        if what == "scale":
            return f"quantiles within {_percent(_quantile_error(int(after)))}, {_percent(_quantile_error(int(before)))} before"
        if what == "bins":
            return f"KS interval {1 / after:.3g} wide, {1 / before:.3g} before"
        if what == "segments":
            return f"segments beyond the {after:.0f} largest are told only together"
        return f"past windows are kept {after:g} days"

    def _reason(self, key: str, used: float) -> str:
        limit = self.limits[key] or 0.0
        show = _SHOWN[key]
        why = {
            "cpu": "with one event of 1024 kept" if self.sampling else "without sampling",
            "memory": "with every step taken",
            "disk": "with every step taken",
            "wire": "with every step taken",
        }[key]
        return f"{key} is {show(used)} {why}, the limit is {show(limit)}"

    def _instead(self, beyond: list[str]) -> list[str]:
        out = []
        used = self._used()
        if "cpu" in beyond:
            limit = self.limits["cpu"] or 0.0
            out.append(f"cpu = {_percent(1.02 * used['cpu'])} at {self.load.rate:,.0f} events/s")
            rate = self._largest_rate(limit)
            if rate >= 1:
                out.append(f"{rate:,.0f} events/s at cpu = {_percent(limit)}")
            if self.load.home == "frames" and self.load.batch < 10_000:
                out.append(f"frames of more than {self.load.batch:,.0f} events")
        for key in beyond:
            if key != "cpu":
                amount = _bytes(1.02 * used[key])
                out.append(f"{key} = {amount}{'/s' if key == 'wire' else ''} for {self.load.columns} columns")
        return out

    def _largest_rate(self, limit: float) -> float:
        low, high = 0.0, self.load.rate
        least = _DEEPEST if self.sampling else 1.0
        for _ in range(60):
            middle = (low + high) / 2
            fits = middle > 0 and replace(self.load, rate=middle).cpu(least, self.segments) <= limit
            low, high = (middle, high) if fits else (low, middle)
        return low


def widening(inclusion: float) -> float:
    """How many times wider intervals get where events are kept with this probability.

    The square root of Kish's factor for batches that are halved k or k + 1 times: `q 2^k + (1 - q) 2^(k+1)` with `q = p 2^(k+1) - 1`.

    >>> widening(1.0), widening(0.25)
    (1.0, 2.0)
    """
    if not 0.0 < inclusion <= 1.0:
        raise InvalidArgumentError(f"`inclusion` must be in (0, 1], got {inclusion}")
    halvings = math.floor(-math.log2(inclusion) + 1e-12)
    smaller = inclusion * 2.0 ** (halvings + 1) - 1.0
    return math.sqrt(smaller * 2.0**halvings + (1.0 - smaller) * 2.0 ** (halvings + 1))


def psi_told(rows: float, reference_rows: float, tolerance: float = 0.1, level: float = 0.01, power: float = 0.9) -> float:
    """The smallest PSI that a window of so many independent rows calls beyond `tolerance`, with this power.

    The square root of the PSI has a standard deviation of about `1/sqrt(N)`, `N = n m / (n + m)`: with ten bins right within a tenth
    from some 300 rows on.

    >>> round(psi_told(2000, 50_000), 3)
    0.166
    """
    if rows < 1 or reference_rows < 1:
        return math.inf
    normal = NormalDist()
    together = rows * reference_rows / (rows + reference_rows)
    return float((math.sqrt(tolerance) + (normal.inv_cdf(1 - level) + normal.inv_cdf(power)) / math.sqrt(together)) ** 2)


def measure_costs(seconds: float = 2.0) -> Costs:
    """Measures this machine: columns of frames by kind, single events, what sampling leaves; about `seconds`. The rest is scaled alike.

    Processor time of this thread, so that other work on the machine matters little.
    """
    import numpy as np
    import polars as pl

    from barograph.monitors import Monitor
    from barograph.references import Reference

    if not 0.1 <= seconds <= 600.0:
        raise InvalidArgumentError(f"`seconds` must be in [0.1, 600], got {seconds}")
    random = np.random.default_rng(0)
    count = 10

    names = np.array([f"name {at}" for at in range(20)])

    def draw(kind: str, rows: int) -> Any:
        if kind == "number":
            return random.standard_normal(rows)
        return random.choice(names, rows) if kind == "category" else random.random(rows) < 0.3

    def frame(kind: str, rows: int) -> pl.DataFrame:
        return pl.DataFrame({f"c{at}": draw(kind, rows) for at in range(count)})

    each = seconds / 20
    measured: dict[str, dict[int, float]] = {}
    single: dict[str, float] = {}
    for kind in _KINDS:
        monitor = Monitor("costs", reference=Reference(frame(kind, 20_000)), ticks="manual")
        measured[kind] = {size: _timed(partial(monitor.observe_frame, frame(kind, size)), each) / count for size in SHIPPED.frame[kind]}
        whole = _timed(partial(_observe_all, monitor, frame(kind, _SINGLES).to_dicts()), each) / _SINGLES
        gathered = count * measured[kind][1000] / 1000
        single[kind] = max(whole - SHIPPED.call - gathered, 0.2 * whole) / count
    # What a frame costs whatever becomes of its rows, and what a call costs whose event is left out: one event of 1024 is kept.
    deep = Monitor("costs", reference=Reference(frame("number", 20_000)), ticks="manual", budget={"cpu": 1.0})
    deep._native.pin(-math.log2(_DEEPEST), 0)
    small = _timed(partial(deep.observe_frame, frame("number", 1000)), each)
    left_out = max(_timed(partial(deep.observe_frame, frame("number", 20_000)), each) - small, 0.0) / 19_000
    call = _timed(partial(_observe_all, deep, frame("number", _SINGLES).to_dicts()), each) / _SINGLES
    ratio = math.exp(
        sum(math.log(measured[kind][size] / cost) for kind in _KINDS for size, cost in SHIPPED.frame[kind].items())
        / sum(len(SHIPPED.frame[kind]) for kind in _KINDS)
    )
    scaled: dict[str, Any] = {key: ratio * getattr(SHIPPED, key) for key in ("double", "segment", "close", "body", "byte", "record")}
    scaled |= {"export": small / count, "left_out": left_out, "call": call}
    origin = f"measured here just now ({ratio:.2f} times those shipped); what is not measured is scaled alike"
    return replace(SHIPPED, origin=origin, frame=measured, single=single, **scaled)


def _observe_all(monitor: Monitor, rows: list[dict[str, Any]]) -> None:
    for row in rows:
        monitor.observe(row)


def _timed(work: Callable[[], object], seconds: float) -> float:
    """Processor seconds of a call: the median of as many as fit."""
    work()
    took: list[float] = []
    began = clock.perf_counter()
    while len(took) < 3 or clock.perf_counter() - began < seconds:
        before = clock.thread_time_ns()
        work()
        took.append((clock.thread_time_ns() - before) / 1e9)
    return sorted(took)[len(took) // 2]


class Governor:
    """The controller of a budget alone: what a monitor and a sidecar keep to their limits with. Deterministic, without a clock.

    limits: cpu, memory, disk, wire, sampling, as in `[budget]`. It moves the probability with which events are kept by the logarithm of
    what was used over what is allowed, makes good what was overdrawn, and gives detail up level by level for bytes.

    >>> governor = Governor({"cpu": "1%"})
    >>> for _ in range(50):
    ...     _ = governor.measure(1.0, cpu=0.1 * governor.inclusion)
    >>> 0.09 < governor.inclusion < 0.11
    True
    """

    def __init__(self, limits: Mapping[str, Any]) -> None:
        for key, value in limits.items():
            if isinstance(value, float) and not math.isfinite(value):
                raise InvalidArgumentError(f"`{key}` of the budget must be a finite number, got {value}")
        self._native = _barograph.Governor(json.dumps(dict(limits)))

    def measure(self, seconds: float, *, cpu: float = 0.0, memory: int = 0, disk: int = 0, wire: float = 0.0) -> bool:
        """Adds what was used in the last `seconds`: processor seconds, bytes now, bytes sent. Whether a step was taken: once a second.

        A stretch of no, negative, unknown or more than an hour's length, as after a jump of the clock, is counted and changes nothing.
        """
        return self._native.measure(seconds, cpu, memory, disk, wire)

    @property
    def inclusion(self) -> float:
        """The probability with which an event is kept."""
        return self._native.inclusion

    @property
    def level(self) -> int:
        """0 while no detail is given up, up to 4."""
        return self._native.level

    @property
    def over(self) -> bool:
        """Whether a limit is passed by more than a fifth, and nothing more can be given up for it."""
        return self._native.over

    def counts(self) -> dict[str, int]:
        """Steps, and what was done in them."""
        return dict(json.loads(self._native.counts()))


def _quantile_error(scale: int) -> float:
    base = math.exp2(math.exp2(-scale))
    return (base - 1.0) / (base + 1.0)


def _rate(rate: float | str) -> float:
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?(?:e\d+)?)\s*(?:/\s*s)?\s*", str(rate))
    number = float(found[1]) if found else math.nan
    if not 1e-6 <= number <= 1e12:
        raise InvalidArgumentError(f'`rows_per_second` must be in [1e-6, 1e12], such as 20000 or "20000/s", got {rate!r}')
    return number


def _columns(columns: int | Mapping[str, int]) -> dict[str, int]:
    kinds = {"number": columns} if isinstance(columns, int) else dict(columns)
    for kind, count in kinds.items():
        if kind not in _KINDS:
            raise InvalidArgumentError(f"`columns` must be of kinds {', '.join(_KINDS)}, got {kind!r}")
        if not isinstance(count, int) or isinstance(count, bool) or count < 0:
            raise InvalidArgumentError(f"`columns` must count columns, got {count!r} of kind {kind}")
    if not 1 <= sum(kinds.values()) <= 100_000:
        raise InvalidArgumentError(f"`columns` must be 1 to 100,000 columns, got {sum(kinds.values())}")
    return kinds


def _seconds(window: str) -> float:
    found = re.fullmatch(r"(\d{1,6})([smhdw])", str(window))
    length = int(found[1]) * _LENGTHS[found[2]] if found else 0.0
    if not 1.0 <= length <= 366 * 86_400:
        raise InvalidArgumentError(f'`window` must be a length such as "30m", "1h", "1d", got {window!r}')
    return length


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def _bytes(size: float) -> str:
    for unit, factor in (("GB", 1 << 30), ("MB", 1 << 20), ("kB", 1 << 10)):
        if size >= factor:
            return f"{size / factor:.3g} {unit}"
    return f"{size:.0f} B"


def _rate_text(rate: float) -> str:
    return f"{_bytes(rate)}/s"


_SHOWN: dict[str, Callable[[float], str]] = {"cpu": _percent, "memory": _bytes, "disk": _bytes, "wire": _rate_text}


def _figure(number: float) -> str:
    return f"{number:.3g}"


def _shown(step: Step) -> list[str]:
    return [step.what, _figure(step.before), _figure(step.after), step.saves, step.error]


def _table(rows: list[list[str]]) -> list[str]:
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
