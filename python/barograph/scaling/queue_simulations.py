"""Waiting lines by simulation: first come, first served, any arrivals, any service times, any number of servers.

Many independent lines ("lanes") are stepped together, one call of each per step, so that a step is a handful of numpy calls whatever the
number of lanes, and the lanes give the interval. A step is Kiefer and Wolfowitz' recursion: the call takes the server that is free first.

Sources: J. Kiefer and J. Wolfowitz, On the theory of queues with many servers, Trans. AMS 78 (1955); A. M. Law, Simulation Modeling and
Analysis, 5th ed. 2015, §9.5.2 (replication and deletion).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from barograph.errors import InvalidArgumentError
from barograph.sketches import ExponentialHistogram

__all__ = ["Draw", "Estimate", "QueueSimulation", "exponential", "simulate", "student_t"]

Floats: TypeAlias = NDArray[np.float64]
Draw: TypeAlias = Callable[[np.random.Generator, int, int], Floats]
"""`draw(rng, steps, lanes)` gives an array of that shape, of finite numbers of at least 0; a lane's numbers follow each other in it."""

LANES = 128
"""A step costs about 10 µs whatever it does, so it does 128 calls; that many lanes make an interval that is near to the normal one."""
MOST_SERVERS = 4096
_CELLS = 1 << 21
"""Calls drawn at once: two arrays of 16 MB."""
_SCALE = 8
"""Of the histograms that hold waits and responses: 0.14 % of the value."""


@dataclass(frozen=True)
class Estimate:
    """A simulated number and its interval at 99 %, by Student's t over the lanes."""

    value: float
    lower: float
    upper: float

    @property
    def relative_error(self) -> float:
        """Half the interval over the value; 0 where both are 0."""
        half = (self.upper - self.lower) / 2
        return half / self.value if self.value else (math.inf if half else 0.0)

    @property
    def other(self) -> Estimate:
        """What a share leaves of 1."""
        return Estimate(1 - self.value, 1 - self.upper, 1 - self.lower)


class QueueSimulation:
    """What a simulated line did: shares, means and quantiles of waits and responses, each with its interval.

    Quantiles are those of all lanes together, within 0.14 % of the value; a quantile's interval is that of the share of calls below it,
    lane by lane, so lanes too short to have a quantile of their own do not bend it. Where the interval of the share reaches 1, the upper
    limit is infinite: too few calls were simulated.
    """

    def __init__(self, waits: list[ExponentialHistogram], responses: list[ExponentialHistogram], sums: Floats, zeros: Floats) -> None:
        self._waits, self._responses, self._sums, self._zeros = waits, responses, sums, zeros

    @property
    def calls(self) -> int:
        """Calls that were counted; those of the warm-up were not."""
        return sum(one.count for one in self._waits)

    @property
    def wait_probability(self) -> Estimate:
        """Share of calls that wait."""
        return _estimate(1 - self._zeros / self._per_lane)

    @property
    def mean_wait(self) -> Estimate:
        """Seconds, over all calls."""
        return _estimate(self._sums[0] / self._per_lane)

    @property
    def mean_response(self) -> Estimate:
        """Seconds of wait and service."""
        return _estimate(self._sums[1] / self._per_lane)

    def wait_quantile(self, q: float) -> Estimate:
        """Seconds within which a share q of the calls begins to be served. q: in (0, 1)."""
        return _quantile(self._waits, q)

    def response_quantile(self, q: float) -> Estimate:
        """Seconds within which a share q of the calls is answered. q: in (0, 1)."""
        return _quantile(self._responses, q)

    def waits_within(self, seconds: float) -> Estimate:
        """Share of calls that wait no longer, to the nearest edge of a cell of 0.27 %."""
        return self.wait_probability.other if seconds == 0 else _estimate(_within(self._waits, seconds))

    def responses_within(self, seconds: float) -> Estimate:
        """Share of calls answered in that time, to the nearest edge of a cell of 0.27 %."""
        return _estimate(_within(self._responses, seconds))

    @property
    def _per_lane(self) -> int:
        return self._waits[0].count


def _within(lanes: list[ExponentialHistogram], seconds: float) -> Floats:
    """The share of each lane at or below a value; cells count whole."""
    return np.array([sum(count for _, upper, count in lane.cells() if upper <= seconds * (1 + 1e-9)) / lane.count for lane in lanes])


def _quantile(lanes: list[ExponentialHistogram], q: float) -> Estimate:
    if not (isinstance(q, int | float) and 0 < q < 1):
        raise InvalidArgumentError(f"`q` must be in (0, 1), got {q!r}", "quantiles are fractions, such as 0.99")
    whole = ExponentialHistogram(_SCALE)
    for lane in lanes:
        whole.merge(lane)
    value = whole.quantile(q) or 0.0
    # Half a cell further is the cell's edge.
    share = _estimate(_within(lanes, value * 2.0 ** (0.5 / (1 << _SCALE))))
    half = (share.upper - share.lower) / 2
    lower = (whole.quantile(q - half) or 0.0) if q - half > 0 else 0.0
    upper = (whole.quantile(q + half) or 0.0) if q + half < 1 else math.inf
    # A quantile is known to its cell.
    return Estimate(value, lower * (1 - whole.relative_error), upper * (1 + whole.relative_error))


def _estimate(lanes: Floats) -> Estimate:
    mean = float(lanes.mean())
    half = student_t(0.995, len(lanes) - 1) * float(lanes.std(ddof=1)) / math.sqrt(len(lanes))
    return Estimate(mean, max(0.0, mean - half), mean + half)


def student_t(q: float, freedom: int) -> float:
    """Student's t quantile by Cornish and Fisher's expansion (Abramowitz and Stegun 26.7.5); within 0.1 % from 15 degrees on."""
    from statistics import NormalDist

    z = NormalDist().inv_cdf(q)
    first, second = (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / freedom + second / freedom**2 + third / freedom**3


def exponential(mean: float) -> Draw:
    """Independent exponential times with that mean in seconds: gaps of Poisson arrivals."""
    return lambda rng, steps, lanes: rng.standard_exponential((steps, lanes)) * mean


def simulate(
    gaps: Draw,
    service: Draw,
    servers: int,
    *,
    calls: int = 2_000_000,
    warm_up: int = 2000,
    precision: float | None = None,
    lanes: int = LANES,
    seed: int = 0,
) -> QueueSimulation:
    """Simulates G/G/c, first come first served, from an empty line.

    gaps, service: draw seconds between arrivals and seconds of service. servers: 1 to 4096. calls: about how many are counted, over all
    lanes. warm_up: calls per lane before counting begins. precision: goes on, up to 16 times `calls`, until the half-widths of the 99 %
    intervals of the mean wait and the 99th percentile of the response are within this share of their values. lanes: independent lines,
    at least 16. seed: equal seeds give equal numbers; with equal seeds a further server, or longer gaps, makes no call later.

    The caller sees to it that the line is stable: an overloaded one gives the waits of its first calls. 5 to 8 million calls per second
    of one core up to 64 servers, 4 million at 512 (docs/concepts/capacity.md). Memory: about 100 MB and `8 * lanes * servers` bytes.
    Raises InvalidArgumentError for arguments out of range, and for draws that are no numbers.

    >>> line = simulate(exponential(1.0), exponential(0.5), servers=1, calls=200_000)
    >>> line.wait_probability.lower < 0.5 < line.wait_probability.upper
    True
    """
    for name, value, least, most in (
        ("servers", servers, 1, MOST_SERVERS),
        ("calls", calls, 1, 1 << 32),
        ("warm_up", warm_up, 0, 1 << 32),
        ("lanes", lanes, 16, 1 << 16),
    ):
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise InvalidArgumentError(f"`{name}` must be an integer in [{least}, {most}], got {value!r}")
    line = _Lines(servers, lanes, gaps, service, seed)
    line.run(warm_up, None)
    waits = [ExponentialHistogram(_SCALE) for _ in range(lanes)]
    responses = [ExponentialHistogram(_SCALE) for _ in range(lanes)]
    found = QueueSimulation(waits, responses, np.zeros((2, lanes)), np.zeros(lanes))
    each, most = -(-calls // lanes), 16
    for _ in range(most):
        line.run(each, found)
        if precision is None or max(found.mean_wait.relative_error, found.response_quantile(0.99).relative_error) <= precision:
            break
    return found


class _Lines:
    """Lanes of one line each, and when their servers are free, in seconds from now."""

    def __init__(self, servers: int, lanes: int, gaps: Draw, service: Draw, seed: int) -> None:
        # Two streams, so that neither the number of servers nor the other law changes what is drawn.
        self._for_gaps, self._for_service = (np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(2))
        self._gaps, self._service = gaps, service
        self._free = np.zeros((lanes, servers))
        self._first = np.arange(lanes) * servers

    def run(self, steps: int, into: QueueSimulation | None) -> None:
        lanes = len(self._first)
        at_once = max(1, _CELLS // lanes)
        while steps > 0:
            some = min(steps, at_once)
            # A lane's clock begins anew with every block, so that times stay small and sums exact enough.
            arrivals = np.cumsum(_fine("gaps", self._gaps(self._for_gaps, some, lanes), some, lanes), axis=0)
            service = _fine("service", self._service(self._for_service, some, lanes), some, lanes)
            waits = self._waits(arrivals, service)
            self._free -= arrivals[-1][:, None]
            if into is not None:
                _count(into, waits, service)
            steps -= some

    def _waits(self, arrivals: Floats, service: Floats) -> Floats:
        lanes, servers = self._free.shape
        if servers == 1:
            return self._waits_of_one(arrivals, service)
        free, flat, first = self._free, self._free.reshape(-1), self._first
        start, at, waits = np.empty(lanes), np.empty(lanes, dtype=np.intp), np.empty_like(arrivals)
        for arrival, lasts, wait in zip(arrivals, service, waits, strict=True):
            free.argmin(axis=1, out=at)
            np.add(at, first, out=at)
            flat.take(at, out=start)
            np.maximum(start, arrival, out=start)
            np.subtract(start, arrival, out=wait)
            np.add(start, lasts, out=start)
            flat[at] = start
        return waits

    def _waits_of_one(self, arrivals: Floats, service: Floats) -> Floats:
        # Lindley's recursion unrolled: the n-th start is max over k <= n of (arrival k + service k to n - 1).
        done = np.cumsum(service, axis=0)
        before = done - service
        start = np.maximum.accumulate(np.maximum(arrivals - before, self._free[:, 0]), axis=0) + before
        self._free[:, 0] = start[-1] + service[-1]
        # What begins at its arrival has waited for rounding only.
        waits: Floats = start - arrivals
        waits[waits <= 1e-12 * done[-1]] = 0.0
        return waits


def _fine(name: str, drawn: Floats, steps: int, lanes: int) -> Floats:
    if drawn.shape != (steps, lanes) or not np.isfinite(drawn).all() or drawn.min(initial=0.0) < 0:
        raise InvalidArgumentError(f"`{name}` must draw finite seconds of at least 0, of the shape asked for")
    return drawn


def _count(into: QueueSimulation, waits: Floats, service: Floats) -> None:
    responses = waits + service
    into._sums += waits.sum(axis=0), responses.sum(axis=0)
    into._zeros += (waits == 0).sum(axis=0)
    for seconds, lanes in ((waits, into._waits), (responses, into._responses)):
        for lane, column in zip(lanes, np.ascontiguousarray(seconds.T), strict=True):
            lane.update_many(column)
