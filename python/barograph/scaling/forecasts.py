"""Arrivals by the hour, and what they will be: a profile of the week times a level, with limits that past weeks have earned."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from barograph.errors import InvalidArgumentError

if TYPE_CHECKING:
    import polars as pl
    from numpy.typing import ArrayLike

__all__ = ["Forecast", "Hours", "forecast"]

Floats: TypeAlias = NDArray[np.float64]

_HOUR, _WEEK = 3600.0, 168
LEAST_WEEKS = 5
"""Three to know the profile, and two whose forecasts show how far off it is."""
_PROFILE_WEEKS, _MISS_WEEKS = 4, 26
"""Weeks that make the profile (older ones know another season), and whose misses make the limits."""
_STEP = 0.1
"""How fast the limits follow what they covered; 0.05 to 0.2 cover the same within 1 % of hours on two years of bicycle rentals."""


@dataclass(frozen=True)
class Hours:
    """Calls per hour, from the hour that begins at `start` (seconds since the epoch) on, one after the other.

    first, last: the share of the first and last hour that was seen, in (0, 1].
    """

    start: float
    counts: Floats
    first: float = 1.0
    last: float = 1.0

    @classmethod
    def of_times(cls, at: Floats, start: float) -> Hours:
        """Of sorted seconds since `start`, which is the beginning of an hour."""
        counts = np.bincount((at // _HOUR).astype(np.int64)).astype(np.float64)
        return cls(start, counts, 1.0 - float(at[0]) / _HOUR, (float(at[-1]) % _HOUR) / _HOUR)

    @classmethod
    def of_windows(cls, start: Floats, end: Floats, counts: Floats) -> tuple[Hours | None, int]:
        """Of windows of one length, in seconds since the epoch, and how many are missing between them; None for those over an hour."""
        length = float((end - start).min())
        at = np.round((start - start.min()) / length).astype(np.int64)
        filled = np.zeros(int(at.max()) + 1)
        np.add.at(filled, at, counts)
        missing = len(filled) - len(np.unique(at))
        if length > _HOUR:
            return None, missing
        hour = ((start.min() + np.arange(len(filled)) * length) // _HOUR).astype(np.int64)
        by_hour = np.bincount(hour - hour[0], weights=filled).astype(np.float64)
        return cls(
            float(hour[0] * _HOUR),
            by_hour,
            1 - (float(start.min()) % _HOUR) / _HOUR,
            ((float(end.max()) % _HOUR) or _HOUR) / _HOUR,
        ), missing

    def whole(self) -> Floats:
        """Counts of the hours that were seen whole."""
        return self.counts[(self.first < 1) : len(self.counts) - (self.last < 0.999)]

    @property
    def whole_start(self) -> float:
        """When the first of them begins."""
        return self.start + (_HOUR if self.first < 1 else 0.0)


@dataclass(frozen=True)
class Forecast:
    """Calls per hour of the hours to come, in UTC.

    level: share of the hours that is to lie within `[lower, upper]`. weeks: those that made it. reason: why there is none; then the arrays
    are empty.
    """

    start: datetime | None
    expected: Floats
    lower: Floats
    upper: Floats
    level: float
    weeks: int
    reason: str | None = None

    @property
    def peak_rate(self) -> float | None:
        """The highest upper limit, as calls per second; None where nothing was foretold."""
        return float(self.upper.max()) / _HOUR if len(self.upper) else None

    def first_above(self, rate: float) -> datetime | None:
        """The first hour whose upper limit is above so many calls per second; None without one."""
        over = np.flatnonzero(self.upper > rate * _HOUR)
        return None if self.start is None or not len(over) else self.start + timedelta(hours=int(over[0]))

    def to_frame(self) -> pl.DataFrame:
        """`hour`, `expected`, `lower`, `upper`."""
        import polars as pl

        hours = [] if self.start is None else [self.start + timedelta(hours=at) for at in range(len(self.expected))]
        columns = {"hour": hours, "expected": self.expected, "lower": self.lower, "upper": self.upper}
        return pl.DataFrame(columns, schema_overrides={"hour": pl.Datetime("us", "UTC")})


def forecast(hours: Hours | ArrayLike, *, ahead: int = 168, level: float = 0.9, start: datetime | None = None) -> Forecast:
    """Calls of each of the next hours: the week's profile times the level of the last week, with limits.

    Expected is `level * profile[hour of the week]`, the level the mean of the last 168 hours, the profile the mean of the last four
    weeks after each was divided by its own mean. The limits are conformal: every past week from the fourth on is foretold in the same
    way from the weeks before it, and quantiles of `(√count - √expected) / (1 + 0.01 √expected)` over the hours of up to 26 such weeks,
    each side apart, make the limits of the next. Roots, because the noise of counts grows like them. Which quantiles is learned too:
    after each week whose hours lay outside more often than they should, the limits widen, else they narrow, so that over many weeks the
    share within goes to `level` whatever the hours do. Of one week less is promised: its hours miss together, by weather and holidays
    (docs/concepts/capacity.md says how often).

    hours: as counted, or an array of whole hours of which the first begins at `start` (UTC; Monday 00:00 if not given). ahead: 1 to 168.
    level: in (0, 1). Fewer than five whole weeks give a forecast without hours and a `reason`. Counts must be finite and at least 0, else
    InvalidArgumentError.

    Sources: V. Vovk, A. Gammerman and G. Shafer, Algorithmic Learning in a Random World, 2005; I. Gibbs and E. Candès, Adaptive conformal
    inference under distribution shift, NeurIPS 2021; R. J. Hyndman and G. Athanasopoulos, Forecasting: Principles and Practice, 3rd ed.
    2021, §5.2 (the seasonal naive method, here with a profile of several weeks).

    >>> week = [float(100 + 50 * (hour % 24 > 8)) for hour in range(168)]
    >>> found = forecast(week * 6)
    >>> [float(found.expected[hour]) for hour in (0, 12)]
    [100.0, 150.0]
    """
    if not isinstance(ahead, int) or isinstance(ahead, bool) or not 1 <= ahead <= _WEEK:
        raise InvalidArgumentError(f"`ahead` must be an integer in [1, {_WEEK}], got {ahead!r}")
    if not (isinstance(level, int | float) and 0 < level < 1):
        raise InvalidArgumentError(f"`level` must be in (0, 1), got {level!r}")
    if not isinstance(hours, Hours):
        begins = datetime(1970, 1, 5, tzinfo=UTC) if start is None else start
        begins = begins.replace(tzinfo=UTC) if begins.tzinfo is None else begins
        hours = Hours(begins.timestamp(), np.asarray(hours, dtype=np.float64).reshape(-1))
    counts = hours.whole()
    if not (np.isfinite(counts).all() and (counts >= 0).all()):
        raise InvalidArgumentError("`hours` must be finite counts of at least 0")
    weeks = len(counts) // _WEEK
    nothing = np.zeros(0)
    if weeks < LEAST_WEEKS:
        reason = f"{len(counts):,} whole hours were seen, a forecast needs {LEAST_WEEKS * _WEEK}"
        return Forecast(None, nothing, nothing, nothing, level, weeks, reason)
    # Weeks end with the last hour, so every one has each hour of the week once, and the next begins with the first.
    by_week = counts[len(counts) - weeks * _WEEK :].reshape(weeks, _WEEK)
    misses: list[Floats] = []
    outside = 1 - level
    for week in range(3, weeks):
        miss = _misses(by_week[week], _expected(by_week[:week]))
        if misses:
            low, high = _limits(misses, outside)
            outside += _STEP * ((1 - level) - float(((miss < low) | (miss > high)).mean()))
        misses.append(miss)
    low, high = _limits(misses, outside)
    expected = _expected(by_week)
    root, scale = np.sqrt(expected), _scale(expected)
    lower, upper = (np.maximum(0.0, root + miss * scale) ** 2 for miss in (low, high))
    begins = datetime.fromtimestamp(hours.whole_start + len(counts) * _HOUR, UTC)
    return Forecast(begins, expected[:ahead], lower[:ahead], upper[:ahead], level, weeks)


def _expected(weeks: Floats) -> Floats:
    recent = weeks[-_PROFILE_WEEKS:]
    means = recent.mean(axis=1)
    used = recent[means > 0]
    if not len(used):
        return np.zeros(_WEEK)
    profile: Floats = (used / used.mean(axis=1, keepdims=True)).mean(axis=0)
    return profile * float(weeks[-1].mean())


def _limits(misses: list[Floats], outside: float) -> tuple[float, float]:
    """What a share `outside` of the misses lies beyond, half on either side."""
    known = np.concatenate(misses[-_MISS_WEEKS:])
    tail = min(0.5, max(0.0, outside / 2))
    low, high = np.quantile(known, [tail, 1 - tail])
    return float(low), float(high)


def _misses(counts: Floats, expected: Floats) -> Floats:
    missed: Floats = (np.sqrt(counts) - np.sqrt(expected)) / _scale(expected)
    return missed


def _scale(expected: Floats) -> Floats:
    scale: Floats = 1 + 0.01 * np.sqrt(expected)
    return scale
