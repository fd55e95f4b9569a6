"""What a policy would have done: a log replayed through a monitor, and shifts of stated sizes put into it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from barograph.errors import InvalidArgumentError
from barograph.frames import Frame, parts
from barograph.monitors import Monitor, _nanoseconds, _rule, read_policy
from barograph.references import Reference

if TYPE_CHECKING:
    import polars as pl

__all__ = ["Backtest", "backtest"]

BUDGETS = ("1d", "3d", "7d", "14d", "30d", "90d")
"""What is tried for a wanted rate of alerts."""
_WEEK = 7 * 86_400
_CHUNK = 200
"""Windows handed to a monitor at once: it keeps no more than some hundreds of tiles."""


@dataclass(frozen=True)
class Trial:
    """One policy on the log; `detected` and `delays` by the size of the shift, delays in windows."""

    policy: str
    opened: int
    pages: int
    weeks: float
    detected: Mapping[float, float]
    delays: Mapping[float, float | None]

    @property
    def per_week(self) -> float:
        """Alerts opened per week."""
        return self.opened / self.weeks


@dataclass(frozen=True)
class Backtest:
    """What a policy did on a log, beside one that always fires and one that never does.

    `trials`: the policy, other budgets where a rate was wanted, and the two baselines. `alerts`: as `Monitor.alerts()`, of the policy.
    `weekly`: alerts opened in each week of the log. `proposed`: the budget that finds most within the wanted rate, if one was given.
    """

    trials: tuple[Trial, ...]
    alerts: pl.DataFrame
    weekly: tuple[int, ...]
    window: str
    runs: int
    wanted: float | None = None
    proposed: str | None = None
    notes: tuple[str, ...] = field(default=())

    def to_frame(self) -> pl.DataFrame:
        """One row per policy and size of shift: alerts per week, share detected, median delay in windows."""
        import polars as pl

        rows = [
            {
                "policy": trial.policy,
                "alerts_per_week": trial.per_week,
                "pages": trial.pages,
                "shift": shift,
                "detected": trial.detected[shift],
                "median_delay": trial.delays[shift],
            }
            for trial in self.trials
            for shift in trial.detected
        ]
        number = pl.Float64()
        return pl.DataFrame(
            rows,
            schema={
                "policy": pl.String(),
                "alerts_per_week": number,
                "pages": pl.Int64(),
                "shift": number,
                "detected": number,
                "median_delay": number,
            },
        )

    def to_terminal(self) -> str:
        """A table, and a bar for every week."""
        shifts = list(self.trials[0].detected)
        head = ["policy", "alerts/week", *(f"{shift:g} sd found" for shift in shifts), *(f"delay at {shift:g} sd" for shift in shifts)]
        lines = [head]
        for trial in self.trials:
            delays = ["-" if trial.delays[shift] is None else f"{trial.delays[shift]:g} windows" for shift in shifts]
            lines.append([trial.policy, f"{trial.per_week:.2f}", *(f"{100 * trial.detected[shift]:.0f} %" for shift in shifts), *delays])
        widths = [max(len(line[at]) for line in lines) for at in range(len(head))]
        out = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
        out.append(f"windows of {self.window}, {self.runs} shifts of each size" if shifts else f"windows of {self.window}")
        out.append("alerts opened per week: " + _bars(self.weekly))
        if self.wanted is not None:
            found = f"budget {self.proposed!r}" if self.proposed else "no budget of " + ", ".join(BUDGETS)
            out.append(f"for at most {self.wanted:g} alerts per week: {found}")
        return "\n".join([*out, *self.notes])

    def __repr__(self) -> str:
        return f"Backtest({self.trials[0].opened} alerts in {self.trials[0].weeks:.1f} weeks)"


def backtest(
    reference: Reference,
    log: Frame,
    *,
    time: str,
    policy: str | Path | Mapping[str, Any] | None = None,
    model: str = "backtest",
    window: str = "1h",
    rules: Sequence[Mapping[str, Any]] = (),
    budget: str = "7d",
    score: str | None = None,
    latency_seconds: str | None = None,
    error: str | None = None,
    shifts: Sequence[float] = (0.25, 0.5, 1.0),
    runs: int = 20,
    horizon: int = 48,
    wanted: float | None = None,
    seed: int = 0,
) -> Backtest:
    """Replays a log through a monitor and says how often it would have alarmed, and how fast it would have found a shift.

    log: any frame; `time` names its column of event times, which must not be null. window, rules, budget: the policy; or
    policy: a TOML file (and which `model` of it) or a mapping, as in `Monitor`. score,
    latency_seconds, error: columns, as in `Monitor.observe_frame`. shifts: sizes in the reference's standard deviations; each is
    added `runs` times to one feature of numbers (they take turns) from a random window on, and counts as found if an alert on that
    feature opens within `horizon` windows. wanted: alerts per week; other budgets are tried, and the shortest that keeps to it is
    proposed. Alerts about real changes in the log count as alerts too: on a log that drifted they are no false alarms.

    The log is sorted in memory. Raises InvalidArgumentError for a column that it has not, or a log without rows.

    >>> import numpy as np
    >>> from datetime import datetime, timedelta
    >>> rng, start = np.random.default_rng(0), datetime(2026, 1, 5)
    >>> log = {"x": rng.normal(size=7200), "at": [start + timedelta(seconds=30 * i) for i in range(7200)]}
    >>> found = backtest(Reference({"x": rng.normal(size=5000)}), log, time="at", shifts=[2.0], runs=3, horizon=12)
    >>> found.trials[0].opened, found.trials[0].detected[2.0]
    (0, 1.0)
    """
    if not isinstance(runs, int) or not 1 <= runs <= 10_000:
        raise InvalidArgumentError(f"`runs` must be an integer in [1, 10000], got {runs!r}")
    if not isinstance(horizon, int) or not 1 <= horizon <= _CHUNK:
        raise InvalidArgumentError(f"`horizon` must be an integer in [1, {_CHUNK}], got {horizon!r}")
    stated: dict[str, Any] = {"window": window, "rules": [_rule(rule) for rule in rules], "budget": {"ticket": budget}}
    if policy is not None:
        stated = json.loads(read_policy(policy, model))
        window, budget = stated["window"], stated["budget"]["ticket"]
    replay = _Replay(reference, log, time, stated, {"score": score, "latency_seconds": latency_seconds, "error": error})
    deviations = _deviations(reference, replay.columns)
    notes = []
    if shifts and not deviations:
        notes.append("no feature of numbers that varies: no shifts were put in")
    elif shifts and replay.windows < 2:
        notes.append("the log is shorter than two windows: no shifts were put in")
    sizes = [float(shift) for shift in shifts] if not notes else []

    def trial(name: str) -> tuple[Trial, Monitor]:
        monitor = replay.whole(name)
        opened = monitor.alerts().filter(state="opened")
        found = {size: replay.shifted(name, size, deviations, runs, horizon, seed) for size in sizes}
        detected = {size: sum(delay is not None for delay in delays) / runs for size, delays in found.items()}
        medians = {size: _median(delays, runs) for size, delays in found.items()}
        pages = opened.filter(severity="page").height
        return Trial(f"budget {name}", opened.height, pages, replay.weeks, detected, medians), monitor

    own, monitor = trial(budget)
    others = [trial(name)[0] for name in BUDGETS if name != budget] if wanted is not None else []
    fitting = [one for one in sorted([own, *others], key=_length) if wanted is not None and one.per_week <= wanted]
    always = Trial("always fires", replay.windows, 0, replay.weeks, dict.fromkeys(sizes, 1.0), dict.fromkeys(sizes, 1.0))
    never = Trial("never fires", 0, 0, replay.weeks, dict.fromkeys(sizes, 0.0), dict.fromkeys(sizes))
    return Backtest(
        (own, *sorted(others, key=_length), always, never),
        monitor.alerts(),
        replay.weekly(monitor),
        window,
        runs,
        wanted,
        fitting[0].policy.removeprefix("budget ") if fitting else None,
        tuple(notes),
    )


class _Replay:
    """A log in order of time, cut into windows."""

    def __init__(self, reference: Reference, log: Frame, time: str, policy: dict[str, Any], roles: dict[str, str | None]) -> None:
        import polars as pl

        self.reference = reference
        self.time = time
        self.policy = policy
        self.roles = roles
        self.seconds = _nanoseconds("window", policy["window"]) / 10**9
        pieces = [pl.DataFrame(part) for part in parts(log)]
        frame = pl.concat(pieces)
        for argument, name in {"time": time, **roles}.items():
            if name is not None and name not in frame.columns:
                raise InvalidArgumentError(
                    f"`{argument}` names column {name!r}, which the log has not", f"it has {', '.join(frame.columns[:20])}"
                )
        if not frame.schema[time].is_temporal():
            raise InvalidArgumentError(f"`time` must name a column of timestamps, {time!r} is {frame.schema[time]}")
        if frame.height == 0 or frame[time].null_count():
            raise InvalidArgumentError(f"`log` needs rows, all with a time, got {frame.height} rows, {frame[time].null_count()} without")
        self.frame = frame.with_columns(pl.col(time).cast(pl.Datetime("us"))).sort(time)
        self.columns = frame.columns
        # Windows align to the epoch, weeks to Monday, which was its fourth day.
        offset = 4 * 86_400 if self.seconds % _WEEK == 0 else 0
        start = self.frame[time].dt.epoch("us") / 1e6 - offset
        self.index = (start / self.seconds).floor().cast(pl.Int64)
        self.first, last = int(self.index[0]), int(self.index[-1])
        self.offset = offset
        self.windows = last - self.first + 1
        self.weeks = max(self.windows * self.seconds / _WEEK, 1e-9)

    def at(self, window: int) -> datetime:
        """The start of a window."""
        return datetime(1970, 1, 1) + timedelta(seconds=window * self.seconds + self.offset)

    def between(self, start: int, end: int) -> pl.DataFrame:
        """The rows of windows `[start, end)`."""
        low, high = self.index.search_sorted(start), self.index.search_sorted(end)
        return self.frame[int(low) : int(high)]

    def monitor(self, budget: str) -> Monitor:
        policy = {**self.policy, "budget": {**self.policy.get("budget", {}), "ticket": budget}}
        return Monitor("backtest", reference=self.reference, policy=policy, ticks="manual")

    def feed(self, monitor: Monitor, rows: pl.DataFrame, end: int) -> None:
        if rows.height:
            monitor.observe_frame(rows, time=self.time, **self.roles)
        monitor.tick(self.at(end))

    def chunks(self) -> Iterator[tuple[int, int]]:
        for start in range(self.first, self.first + self.windows, _CHUNK):
            yield start, min(start + _CHUNK, self.first + self.windows)

    def whole(self, budget: str) -> Monitor:
        """The policy on the log as it is."""
        monitor = self.monitor(budget)
        for start, end in self.chunks():
            self.feed(monitor, self.between(start, end), end)
        return monitor

    def shifted(self, budget: str, size: float, deviations: Mapping[str, float], runs: int, horizon: int, seed: int) -> list[float | None]:
        """Delays in windows, None where nothing was found."""
        import numpy as np
        import polars as pl

        random = np.random.default_rng([seed, round(abs(size) * 1e6)])
        names = sorted(deviations)
        out: list[float | None] = []
        for run in range(runs):
            name = names[run % len(names)]
            start = self.first + int(random.integers(0, max(1, self.windows - horizon)))
            end = min(start + horizon, self.first + self.windows)
            rows = self.between(start, end).with_columns(pl.col(name).cast(pl.Float64) + size * deviations[name])
            monitor = self.monitor(budget)
            self.feed(monitor, rows, end)
            opened = monitor.alerts().filter(column=name, state="opened")
            out.append(
                None if opened.height == 0 else (opened["time"][0].replace(tzinfo=None) - self.at(start)).total_seconds() / self.seconds
            )
        return out

    def weekly(self, monitor: Monitor) -> tuple[int, ...]:
        """Alerts opened in each week of the log."""
        opened = monitor.alerts().filter(state="opened")["time"].to_list()
        weeks = [0] * max(1, -(-int(self.windows * self.seconds) // _WEEK))
        for moment in opened:
            week = int((moment.replace(tzinfo=None) - self.at(self.first)).total_seconds() // _WEEK)
            weeks[min(max(week, 0), len(weeks) - 1)] += 1
        return tuple(weeks)


def _deviations(reference: Reference, columns: Sequence[str]) -> dict[str, float]:
    """Standard deviations of the features of numbers that vary."""
    profile = reference.profile
    schema = reference.schema
    found = {name: profile[name].std for name in columns if schema.kinds.get(name) == "number" and schema.roles[name] == "feature"}
    return {name: deviation for name, deviation in found.items() if deviation}


def _median(delays: Sequence[float | None], runs: int) -> float | None:
    """The median delay; None where fewer than half were found."""
    everything = sorted(float("inf") if delay is None else delay for delay in delays)
    middle = everything[(runs - 1) // 2]
    return None if middle == float("inf") else middle


def _length(trial: Trial) -> int:
    return _nanoseconds("budget", trial.policy.removeprefix("budget "))


def _bars(counts: Sequence[int]) -> str:
    """One character per week, at most 60: the most of neighbouring weeks."""
    step = -(-len(counts) // 60)
    joined = [max(counts[at : at + step]) for at in range(0, len(counts), step)]
    most = max(joined)
    return "".join("▁▂▃▄▅▆▇█"[min(7, round(7 * count / max(most, 1)))] for count in joined) + f"  (most: {most})"
