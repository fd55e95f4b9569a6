"""What has to be served: when calls come, and how long each keeps a server busy.

| made by | arrivals | service times |
|---|---|---|
| `Load.from_log(frame, time=, seconds=)` | measured, with their bursts | measured |
| `Load.from_histogram(histogram, rate=)` | Poisson, or as variable as stated | measured |
| `Load.from_monitor(monitor)` | Poisson at measured counts of each window | measured |
| `Load.exponential(rate, mean_seconds)` | Poisson | exponential: Erlang's formula is exact |
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from barograph.errors import InvalidArgumentError
from barograph.frames import Frame, parts, scan
from barograph.scaling.forecasts import Hours
from barograph.scaling.queue_simulations import Draw, Floats, exponential
from barograph.sketches import ExponentialHistogram

if TYPE_CHECKING:
    import polars as pl
    from numpy.typing import ArrayLike

    from barograph.monitors import Monitor

__all__ = ["Arrivals", "Load", "ServiceTimes"]

_ATOMS = 100_000
"""Measured durations that are drawn as they are; more are put into cells of 0.27 %."""
_BLOCK = 256
"""Gaps that are drawn in a row: bursts stay together."""
_HOUR = 3600.0


class ServiceTimes:
    """Measured seconds of service, as values or as the cells of a histogram.

    values: an array (NaN, infinite and negative ones are left out, and counted in `left_out`) or an ExponentialHistogram without a shift.
    What lies in a cell counts as spread evenly over it, so moments are within the histogram's relative error.

    >>> ServiceTimes([0.1, 0.3]).mean
    0.2
    """

    def __init__(self, values: ArrayLike | ExponentialHistogram) -> None:
        self.left_out = 0
        if not isinstance(values, ExponentialHistogram):
            array = _numbers("seconds", values)
            fine = array[np.isfinite(array) & (array >= 0)]
            self.left_out = len(array) - len(fine)
            if len(fine) <= _ATOMS:
                self._lower = self._upper = np.sort(fine)
                self._counts = np.ones(len(fine))
                self._sum_up()
                return
            values = ExponentialHistogram(8)
            values.update_many(fine)
        if values.shift:
            raise InvalidArgumentError("`values` must be a histogram without a shift", "count seconds with ExponentialHistogram(scale=6)")
        self._take(values.cells())

    @classmethod
    def of_cells(cls, cells: Iterable[tuple[float, float, int]]) -> ServiceTimes:
        """Of `(lower, upper, count)` in seconds, ascending, as `ExponentialHistogram.cells()` gives them."""
        out = cls.__new__(cls)
        out.left_out = 0
        out._take(list(cells))
        return out

    def _take(self, cells: list[tuple[float, float, int]]) -> None:
        self.left_out += sum(count for _, upper, count in cells if upper < 0)
        self._lower, self._upper, self._counts = (np.array(side, dtype=np.float64) for side in _sides(cells))
        self._sum_up()

    def _sum_up(self) -> None:
        self._ends = np.cumsum(self._counts)
        self.count = int(self._ends[-1]) if len(self._ends) else 0
        """Service times that were measured."""
        middle, spread = (self._lower + self._upper) / 2, (self._upper - self._lower) ** 2 / 12
        total = float(self._counts.sum())
        self.mean = float(self._counts @ middle) / total if total else 0.0
        """Seconds; 0 without any."""
        variance = float(self._counts @ ((middle - self.mean) ** 2 + spread)) / total if total else 0.0
        self.scv = variance / self.mean**2 if self.mean > 0 else 0.0
        """Variance over squared mean: 1 for exponential times, 0 for constant ones."""

    def within(self, seconds: float) -> float:
        """Share at or below; cells count in part. 0 without any."""
        width = np.maximum(self._upper - self._lower, 1e-300)
        inside = np.where(self._upper == self._lower, seconds >= self._lower, np.clip((seconds - self._lower) / width, 0.0, 1.0))
        return float(inside @ self._counts) / max(1, self.count)

    def cells(self) -> tuple[Floats, Floats]:
        """Middles of the cells, and their shares; at most some thousands."""
        middle = (self._lower + self._upper) / 2
        if len(middle) > 4096:
            at = (np.arange(4096) + 0.5) / 4096 * self.count
            return middle[np.searchsorted(self._ends, at)], np.full(4096, 1 / 4096)
        return middle, self._counts / max(1, self.count)

    def heaviest(self, share: float = 0.01) -> float:
        """The part of all seconds that the longest calls, this share of them, take."""
        if self.mean == 0:
            return 0.0
        middle = (self._lower + self._upper) / 2
        kept = np.clip(self._ends - (1 - share) * self.count, 0.0, self._counts)
        return float(kept @ middle) / (self.mean * self.count)

    def tail_index(self) -> float | None:
        """Hill's estimate of the tail's power from the longest 1 %, 50 calls at least; None where there are fewer than 500 calls.

        Below 2 the variance is that of the sample, not of the law behind it: longer calls than those seen decide the waits.
        """
        if self.count < 500:
            return None
        middle = (self._lower + self._upper) / 2
        most = max(50, self.count // 100)
        kept = np.clip(self._ends - (self.count - most), 0.0, self._counts)
        at = int(np.argmax(kept > 0))
        if middle[at] <= 0:
            return None
        excess = float(kept[at:] @ np.log(middle[at:] / middle[at])) / most
        return 1 / excess if excess > 0 else math.inf

    def draw(self) -> Draw:
        """Draws of what was measured, with replacement, spread evenly within cells."""
        if not self.count:
            raise InvalidArgumentError("there are no service times to draw")
        lower, width, ends, counts = self._lower, self._upper - self._lower, self._ends, self._counts
        if not width.any() and counts.max() == 1:
            return lambda rng, steps, lanes: lower[rng.integers(0, len(lower), (steps, lanes))]

        def drawn(rng: np.random.Generator, steps: int, lanes: int) -> Floats:
            at = rng.random((steps, lanes)) * ends[-1]
            cell = np.minimum(np.searchsorted(ends, at, side="right"), len(ends) - 1)
            inside = np.clip((at - (ends - counts)[cell]) / counts[cell], 0.0, 1.0)
            seconds: Floats = lower[cell] + width[cell] * inside
            return seconds

        return drawn


def _sides(cells: Iterable[tuple[float, float, int]]) -> tuple[list[float], list[float], list[int]]:
    lower, upper, counts = [], [], []
    for low, high, count in cells:
        if high >= 0:
            lower.append(low)
            upper.append(high)
            counts.append(count)
    return lower, upper, counts


@dataclass(frozen=True)
class Arrivals:
    """When calls come.

    rate: per second, on average over the time seen. peak_rate: of the busiest whole hour, or of the whole where less than two were seen.
    count: arrivals seen; None where the rate was stated. scv: squared coefficient of variation of the gaps. gaps: measured ones in their
    order, in units of their hour's mean, so that the day's course is no burst; None where only counts are known. hours: counts by the hour.
    """

    rate: float
    peak_rate: float
    count: int | None = None
    scv: float = 1.0
    gaps: Floats | None = None
    hours: Hours | None = None
    notes: tuple[str, ...] = ()

    def dispersion(self, arrivals: float) -> float:
        """Variance over mean of the calls that come while so many are expected: 1 for Poisson, above for bursts.

        At the length of one service time it is the arrivals' peakedness for constant service (A. E. Eckberg, Generalized peakedness of
        teletraffic processes, ITC 10, 1983); at that of the line's memory it is what the line feels (K. W. Fendick and W. Whitt, Proc. IEEE
        77(1), 1989). Measured over at least 30 stretches; without gaps it is `scv`.
        """
        if self.gaps is None or len(self.gaps) < 60:
            return self.scv
        length = min(max(arrivals, 0.1), len(self.gaps) / 30)
        at = np.cumsum(self.gaps)
        counts = np.bincount((at / length).astype(np.int64))[: int(at[-1] / length)]
        return float(counts.var() / counts.mean())

    def draw(self, rate: float) -> Draw:
        """Gaps in seconds at that rate: measured ones in blocks of 256 that begin anywhere, or independent ones with `scv`."""
        if self.gaps is not None:
            return _blocks(self.gaps / (self.gaps.mean() * rate))
        if self.scv == 1:
            return exponential(1 / rate)
        if self.scv == 0:
            return lambda rng, steps, lanes: np.full((steps, lanes), 1 / rate)
        if self.scv < 1:
            shape = 1 / self.scv
            return lambda rng, steps, lanes: rng.gamma(shape, 1 / (shape * rate), (steps, lanes))
        # Two exponentials with balanced means (W. Whitt, Operations Research 30(1), 1982).
        first = (1 + math.sqrt((self.scv - 1) / (self.scv + 1))) / 2
        means = 1 / (2 * rate * first), 1 / (2 * rate * (1 - first))
        return lambda rng, steps, lanes: np.where(rng.random((steps, lanes)) < first, *means) * rng.standard_exponential((steps, lanes))


def _blocks(gaps: Floats) -> Draw:
    def drawn(rng: np.random.Generator, steps: int, lanes: int) -> Floats:
        blocks = -(-steps // _BLOCK)
        first = rng.integers(0, len(gaps), (blocks, 1, lanes))
        at = (first + np.arange(_BLOCK)[None, :, None]) % len(gaps)
        found: Floats = gaps[at].reshape(blocks * _BLOCK, lanes)[:steps]
        return found

    return drawn


@dataclass(frozen=True)
class Load:
    """Arrivals and service times. `law` is "exponential" where both are stated to be so, else "measured"."""

    arrivals: Arrivals
    service: ServiceTimes
    law: str = "measured"
    notes: tuple[str, ...] = ()

    @classmethod
    def exponential(cls, rate: float, mean_seconds: float) -> Load:
        """Poisson arrivals, exponential service: both stated, nothing measured. rate: per second, at least 0. mean_seconds: above 0.

        >>> Load.exponential(50.0, 0.1).arrivals.rate
        50.0
        """
        _positive("rate", rate, zero=True)
        _positive("mean_seconds", mean_seconds)
        service = ServiceTimes([mean_seconds])
        service.scv = 1.0
        return cls(Arrivals(float(rate), float(rate)), service, law="exponential")

    @classmethod
    def from_histogram(cls, histogram: ExponentialHistogram | ArrayLike, *, rate: float, arrival_scv: float = 1.0) -> Load:
        """Measured service times in seconds, arrivals stated.

        rate: calls per second, at least 0. arrival_scv: squared coefficient of variation of the gaps; 1 is Poisson.
        """
        _positive("rate", rate, zero=True)
        _positive("arrival_scv", arrival_scv, zero=True)
        service = ServiceTimes(histogram)
        return cls(Arrivals(float(rate), float(rate), scv=float(arrival_scv)), service, notes=_left_out(service))

    @classmethod
    def from_log(cls, log: Frame, *, time: str, seconds: str) -> Load:
        """A log of calls: any frame, or the path of a Parquet or CSV file, one row per call, in any order.

        time: column of the instants at which calls came, without nulls; timestamps, or seconds as numbers. seconds: column of how long
        each kept a server busy, without the wait, as numbers or durations; null, NaN, infinite and negative ones are left out, and
        noted. Memory: about 60 bytes a call.

        Raises InvalidArgumentError for columns that are not there or of another kind, and for times that are missing.
        """
        import polars as pl

        frame = _columns(log, [time, seconds])
        if frame[time].null_count():
            missing = frame[time].null_count()
            raise InvalidArgumentError(f"`time` names column {time!r}, which has {missing:,} nulls", "every call came at some time")
        if not (isinstance(frame[time].dtype, pl.Datetime) or frame[time].dtype.is_numeric()):
            raise InvalidArgumentError(f"`time` must name a column of timestamps or numbers, {time!r} is {frame[time].dtype}")
        lasts = frame[seconds]
        lasts = lasts.dt.total_nanoseconds() / 1e9 if isinstance(lasts.dtype, pl.Duration) else lasts
        if not lasts.dtype.is_numeric():
            raise InvalidArgumentError(f"`seconds` must name a column of numbers or durations, {seconds!r} is {lasts.dtype}")
        stamps = frame[time]
        if isinstance(stamps.dtype, pl.Datetime):
            # Whole nanoseconds of now are no doubles: the first instant is taken off before.
            whole = stamps.dt.epoch("us").sort()
            first = int(whole[0]) if len(whole) else 0
            at, start = (whole - first).to_numpy() / 1e6, first / 1e6
        else:
            raw = np.sort(_numbers("time", stamps))
            if not np.isfinite(raw).all():
                raise InvalidArgumentError(f"`time` names column {time!r}, which has times that are not finite")
            start = float(raw[0]) if len(raw) else 0.0
            at = raw - start
        service = ServiceTimes(lasts.cast(pl.Float64).fill_null(math.nan).to_numpy())
        return cls(_arrivals(at, start), service, notes=_left_out(service))

    @classmethod
    def from_history(cls, history: pl.DataFrame, latencies: ExponentialHistogram | ServiceTimes, *, events_per_call: float = 1.0) -> Load:
        """Counts of a monitor's closed windows, and its latencies.

        history: `Monitor.history()`, or a client's; its rows of `events` are read. Windows that are missing between others count
        as without calls, and are noted; windows longer than an hour say nothing of its course. events_per_call: above 0; a `predict` of a
        frame is one call and one latency, but as many events as it has rows.
        """
        import polars as pl

        _positive("events_per_call", events_per_call)
        rows = history.filter((pl.col("column") == "(model)") & (pl.col("method") == "events"))
        service = latencies if isinstance(latencies, ServiceTimes) else ServiceTimes(latencies)
        if not len(rows):
            return cls(Arrivals(0.0, 0.0, count=0), service, notes=("no window has closed yet",))
        start, end = (rows[name].dt.epoch("us").to_numpy() / 1e6 for name in ("window_start", "window_end"))
        events = rows["value"].to_numpy().astype(np.float64)
        calls, notes = events / events_per_call, list(_left_out(service))
        if events_per_call == 1 and events.sum() > 1.05 * service.count:
            notes.append(
                f"{int(events.sum()):,} events came with {service.count:,} latencies, and each counts as a call: "
                "say `events_per_call` where one call makes several events"
            )
        hours, gone = Hours.of_windows(start, end, calls)
        if gone:
            notes.append(f"{gone:,} windows are missing between others and count as without calls")
        length = float((end - start)[0])
        span = len(np.unique(start)) + gone
        rates = calls / (end - start)
        arrivals = Arrivals(float(calls.sum()) / (span * length), float(rates.max()), int(calls.sum()), hours=hours)
        return cls(arrivals, service, notes=tuple(notes))

    @classmethod
    def from_monitor(
        cls, monitor: Monitor, start: datetime | None = None, end: datetime | None = None, *, events_per_call: float = 1.0
    ) -> Load:
        """What a monitor has counted: events of its closed windows, and latencies of `[start, end)`, or of all its life.

        Latencies must be those of the model's work alone: what a caller waited before it is no service.
        """
        import polars as pl

        from barograph.monitors import _instant

        history = monitor.history(start)
        if end is not None:
            history = history.filter(pl.col("window_start").dt.epoch("ns") < _instant(end))
        latencies = monitor.latencies(start, end) if start is not None and end is not None else monitor.latencies()
        latencies = ExponentialHistogram() if latencies is None else latencies
        return cls.from_history(history, latencies, events_per_call=events_per_call)

    def scaled(self, factor: float) -> Load:
        """The same with so many times the calls, coming in the same way. factor: above 0.

        >>> Load.exponential(50.0, 0.1).scaled(2).arrivals.rate
        100.0
        """
        _positive("factor", factor)
        arrivals = self.arrivals
        return replace(self, arrivals=replace(arrivals, rate=arrivals.rate * factor, peak_rate=arrivals.peak_rate * factor))


def _arrivals(at: Floats, start: float) -> Arrivals:
    """Of sorted seconds since `start`, which is in seconds since the epoch."""
    if len(at) < 2 or at[-1] <= 0:
        return Arrivals(0.0, 0.0, count=len(at))
    notes: list[str] = []
    at = _spread(at, notes)
    hours = Hours.of_times(at + start % _HOUR, start - start % _HOUR)
    span = float(at[-1]) * len(at) / (len(at) - 1)
    rate = len(at) / span
    whole = hours.whole()
    peak = max(whole) / _HOUR if len(whole) >= 2 else rate
    # Each gap in units of the mean gap of the hour that it ends in, so that the course of the day is no burst.
    within = ((at + start % _HOUR) // _HOUR).astype(np.int64)
    first, last = np.maximum(0.0, within * _HOUR - start % _HOUR), np.minimum(span, (within + 1) * _HOUR - start % _HOUR)
    local = np.bincount(within)[within] / np.maximum(last - first, 1e-9)
    gaps = np.diff(at) * local[1:]
    gaps = gaps / gaps.mean()
    return Arrivals(rate, float(peak), len(at), float(gaps.var()), gaps, hours, tuple(notes))


def _spread(at: Floats, notes: list[str]) -> Floats:
    """Times that are whole ticks, several calls to a tick, spread evenly over it: the clock made that burst."""
    steps = np.diff(at)
    if (steps == 0).mean() < 0.1:
        return at
    tick = next((tick for tick in (60.0, 1.0, 0.1, 0.01, 0.001) if np.abs(at / tick - np.round(at / tick)).max() < 1e-6), None)
    if tick is None:
        return at
    notes.append(f"times are whole multiples of {tick:g} s: calls of one tick were spread over it")
    moved = np.sort(at + np.random.default_rng(0).random(len(at)) * tick)
    from_first: Floats = moved - moved[0]
    return from_first


def _columns(log: Frame, names: list[str]) -> pl.DataFrame:
    import polars as pl

    from barograph.errors import FrameError

    def checked(known: list[str]) -> list[str]:
        missing = next((name for name in names if name not in known), None)
        if missing is not None:
            raise InvalidArgumentError(f"the log has no column {missing!r}", f"it has {', '.join(map(repr, known[:20]))}")
        return names

    try:
        if isinstance(log, str) or hasattr(log, "__fspath__"):
            lazy = scan(log)
            return lazy.select(checked(lazy.collect_schema().names())).collect()
        read = [pl.DataFrame(part) for part in parts(log)]
        return pl.concat([part.select(checked(part.columns)) for part in read])
    except (pl.exceptions.PolarsError, OSError) as error:
        raise FrameError(f"the log could not be read: {error}") from error


def _numbers(name: str, values: Any) -> Floats:
    try:
        return np.asarray(values, dtype=np.float64).reshape(-1)
    except (TypeError, ValueError) as error:
        raise InvalidArgumentError(f"`{name}` must be numbers, got {type(values).__name__}", str(error)) from error


def _positive(name: str, value: float, *, zero: bool = False) -> None:
    if not (isinstance(value, int | float) and math.isfinite(value) and (value >= 0 if zero else value > 0)):
        raise InvalidArgumentError(f"`{name}` must be a finite number {'of at least' if zero else 'above'} 0, got {value!r}")


def _left_out(service: ServiceTimes) -> tuple[str, ...]:
    left = service.left_out
    return (f"{left:,} service times that are missing, infinite or negative were left out",) if left else ()
