"""The monitor of a serving process: events and labels in, history and alerts out."""

from __future__ import annotations

import json
import re
import time as clock
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

from barograph import _barograph
from barograph.errors import InvalidArgumentError
from barograph.frames import Frame, parts
from barograph.references import Reference
from barograph.reports import DriftReport, rows_frame

if TYPE_CHECKING:
    import polars as pl

__all__ = ["Monitor", "Summary"]

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_SECOND = 10**9


@dataclass(frozen=True)
class Summary:
    """Numbers of a stretch of event time; what does not exist yet is None. `auc` has limits at the monitor's confidence."""

    events: int
    labelled: int
    latency_p50: float | None
    latency_p99: float | None
    auc: float | None
    auc_lower: float | None
    auc_upper: float | None
    report: DriftReport


class Monitor:
    """Watches one model: drift against its reference, latency, accuracy from labels that come late.

    reference: what inputs are compared with. window: how long a window is, such as "1h", "1d", "1w"; windows are half-open, align to
    the UTC epoch, weeks to Monday, and close in `tick` alone. rules: mappings such as `{"metric": "roc_auc", "below": 0.6}` or
    `{"metric": "latency_p99", "above": 0.2}` (seconds) besides drift. A monitor keeps no rows: per tile (a day for whole days, else
    the window) one profile.

    >>> monitor = Monitor("m", reference=Reference({"x": [1.0, 2.0, 3.0, 4.0] * 200}), window="1h")
    >>> hour = datetime(2026, 1, 1, tzinfo=UTC)
    >>> monitor.observe_frame({"x": [1.0, 2.0, 3.0, 4.0] * 200, "at": [hour] * 800}, time="at")
    >>> monitor.tick(hour + timedelta(hours=1))
    >>> monitor.history().filter(method="psi")["verdict"].to_list()
    ['ok']
    """

    def __init__(
        self,
        name: str,
        *,
        reference: Reference,
        window: str | timedelta = "1h",
        rules: Sequence[Mapping[str, Any]] = (),
        confidence: float = 0.99,
        ticks: Literal["manual"] = "manual",
    ) -> None:
        if ticks != "manual":
            raise InvalidArgumentError(f'`ticks` must be "manual", got {ticks!r}', "call `tick()` when time has passed")
        config = {
            "name": name,
            "window": _nanoseconds("window", window),
            "settings": {"confidence": confidence},
            "rules": [dict(rule) for rule in rules],
        }
        self.name = name
        self._native = _barograph.Monitor(json.dumps(config), reference._native)

    def observe_frame(
        self,
        frame: Frame,
        *,
        time: str | None = None,
        id: str | None = None,
        score: str | None = None,
        latency_seconds: str | None = None,
    ) -> None:
        """Adds a frame of events, columns of the reference by name; the arguments name columns.

        time: naive ones are UTC; without it, or where it is null, now. id: integers or strings, what labels are joined by. score: of
        the positive class, in [0, 1]. Raises InvalidArgumentError for a name that the frame has not.
        """
        roles = json.dumps({"time": time, "id": id, "score": score, "latency": latency_seconds})
        now = clock.time_ns()
        for part in parts(frame):
            self._native.observe(part, roles, now)

    def label(self, frame: Frame, *, id: str, label: str) -> None:
        """Adds labels, 0 or 1, by event id: late, early, in any order. The first label of an event counts."""
        for part in parts(frame):
            self._native.label(part, id, label)

    def tick(self, now: datetime | None = None) -> None:
        """Closes every window that ends at or before `now` and judges it."""
        self._native.tick(clock.time_ns() if now is None else _instant(now))

    def summary(self, start: datetime, end: datetime) -> Summary | None:
        """Numbers and drift of the tiles that begin in `[start, end)`; None without events."""
        text = self._native.summary(_instant(start), _instant(end))
        if text is None:
            return None
        fields = json.loads(text)
        return Summary(**{**fields, "report": DriftReport(fields["report"])})

    def history(self) -> pl.DataFrame:
        """One row per closed window, column and tested method, and per metric of the model (column "(model)")."""
        return rows_frame(json.loads(self._native.history()))

    def alerts(self) -> pl.DataFrame:
        """Every change of an alert, oldest first: opened, escalated, eased, resolved."""
        import polars as pl

        rows = json.loads(self._native.alerts())
        text, time = pl.String(), pl.Datetime("ns", "UTC")
        schema: dict[str, Any] = {"id": pl.Int64(), "column": text, "state": text, "verdict": text, "method": text, "value": pl.Float64()}
        schema |= {"time": pl.Int64(), "window_start": pl.Int64(), "reason": text}
        return pl.DataFrame(rows, schema=schema).with_columns(pl.col("time", "window_start").cast(time))

    def counts(self) -> dict[str, int]:
        """Late events, events without time, labels without event, what was given up."""
        return dict(self._native.counts())

    def __repr__(self) -> str:
        return f"Monitor({self.name!r})"


def _nanoseconds(argument: str, length: str | timedelta) -> int:
    if isinstance(length, timedelta):
        return round(length.total_seconds() * _SECOND)
    found = re.fullmatch(r"(\d{1,6})([smhdw])", str(length))
    if not found:
        raise InvalidArgumentError(f'`{argument}` must be a timedelta or text such as "30m", "1h", "1d", got {length!r}')
    return int(found[1]) * _SECONDS[found[2]] * _SECOND


def _instant(time: datetime) -> int:
    if not isinstance(time, datetime):
        raise InvalidArgumentError(f"a time must be a datetime, got {type(time).__name__}")
    aware = time if time.tzinfo else time.replace(tzinfo=UTC)
    # In integers: a float of nanoseconds would lose the last microseconds.
    return (aware - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) * 1000
