"""Waiting lines by formula: Erlang's exactly, those with other variability by approximation.

| what | exact for | else |
|---|---|---|
| `erlang_b`, `erlang_c` | M/G/c/c; M/M/c | |
| `ErlangC` | waits and responses of M/M/c | |
| `mean_wait` | M/M/c, M/G/1 | Kingman at one server, Whitt's refinement of Allen and Cunneen at several |

Sources: A. K. Erlang 1917; R. B. Cooper, Introduction to Queueing Theory, 2nd ed. 1981, ch. 3; J. F. C. Kingman, Proc. Cambridge Phil. Soc.
57 (1961); A. O. Allen, Probability, Statistics, and Queueing Theory, 2nd ed. 1990, §5.4 (Allen and Cunneen); W. Whitt, Approximations for
the GI/G/m queue, Production and Operations Management 2(2), 1993.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from barograph.errors import InvalidArgumentError

__all__ = ["ErlangC", "erlang_b", "erlang_c", "mean_wait"]

MOST_SERVERS = 1_000_000
"""Erlang's recursion takes a step for every server."""


def _checked(servers: int, offered: float) -> None:
    if not isinstance(servers, int) or isinstance(servers, bool) or not 1 <= servers <= MOST_SERVERS:
        raise InvalidArgumentError(f"`servers` must be an integer in [1, {MOST_SERVERS}], got {servers!r}")
    if not (isinstance(offered, int | float) and math.isfinite(offered) and offered >= 0):
        raise InvalidArgumentError(
            f"`offered` must be finite and at least 0, got {offered!r}", "it is arrivals per second times mean seconds"
        )


def erlang_b(servers: int, offered: float) -> float:
    """The share of calls that find every server busy where nobody waits (M/G/c/c).

    `B(0) = 1`, `B(n) = a B(n - 1) / (n + a B(n - 1))`: every term is in [0, 1] and nothing is subtracted, so the relative error stays near
    that of rounding at any size; a B below 1e-308 is 0. One step per server, 40 ns each.

    servers: 1 to 1,000,000. offered: arrivals per second times mean seconds (erlangs). Raises InvalidArgumentError otherwise.

    >>> round(erlang_b(10, 5.0), 4)
    0.0184
    """
    _checked(servers, offered)
    blocked = 1.0
    for n in range(1, servers + 1):
        blocked *= offered
        blocked /= n + blocked
    return blocked


def erlang_c(servers: int, offered: float) -> float:
    """The share of calls that wait at c servers with a line before them (M/M/c); 1 where more is offered than can be served.

    `C = B / (1 - (a / c)(1 - B))`. Arguments and errors of `erlang_b`.

    >>> round(erlang_c(10, 5.0), 4)
    0.0361
    """
    if offered >= servers:
        _checked(servers, offered)
        return 1.0
    blocked = erlang_b(servers, offered)
    return blocked / (1.0 - offered / servers * (1.0 - blocked))


@dataclass(frozen=True)
class ErlangC:
    """Waits and responses of M/M/c: Poisson arrivals, exponential service, c servers, first come first served. Exact.

    servers: 1 to 1,000,000. rate: arrivals per second, at least 0. mean_seconds: of the service, above 0. Raises InvalidArgumentError for
    others, and where the rate is not below `servers / mean_seconds`: then the line grows without end.

    >>> line = ErlangC(servers=10, rate=50.0, mean_seconds=0.1)
    >>> round(line.wait_probability, 4), round(line.mean_wait, 6)
    (0.0361, 0.000722)
    >>> round(line.response_quantile(0.99), 3)
    0.461
    """

    servers: int
    rate: float
    mean_seconds: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.mean_seconds) and self.mean_seconds > 0):
            raise InvalidArgumentError(f"`mean_seconds` must be above 0, got {self.mean_seconds!r}")
        _checked(self.servers, self.rate * self.mean_seconds)
        if self.utilisation >= 1:
            raise InvalidArgumentError(
                f"{self.servers} servers can do {self.servers / self.mean_seconds:g} calls per second, `rate` is {self.rate:g}",
                "the line would grow without end",
            )

    @property
    def utilisation(self) -> float:
        """Share of the servers that is busy, in [0, 1)."""
        return self.rate * self.mean_seconds / self.servers

    @property
    def wait_probability(self) -> float:
        """Share of calls that wait."""
        return erlang_c(self.servers, self.rate * self.mean_seconds)

    @property
    def mean_wait(self) -> float:
        """Seconds, over all calls."""
        return self.wait_probability * self.mean_seconds / (self.servers * (1 - self.utilisation))

    @property
    def queue_length(self) -> float:
        """Calls that wait, on average (Little's law)."""
        return self.rate * self.mean_wait

    def waits_beyond(self, seconds: float) -> float:
        """Share of calls that wait longer."""
        return self.wait_probability * math.exp(-seconds * self.servers * (1 - self.utilisation) / self.mean_seconds)

    def responses_beyond(self, seconds: float) -> float:
        """Share of calls whose wait and service together take longer."""
        # Wait and service are exponential with rates `left` and 1, in mean services; neither form subtracts what is nearly equal.
        left, x = self.servers * (1 - self.utilisation), seconds / self.mean_seconds
        apart = abs(left - 1)
        both = math.exp(-min(left, 1.0) * x) * (-math.expm1(-apart * x) / apart if apart * x > 1e-12 else x)
        waiting = self.wait_probability
        return min(1.0, (1 - waiting) * math.exp(-x) + waiting * (math.exp(-left * x) + left * both))

    def wait_quantile(self, q: float) -> float:
        """Seconds; 0 where at most 1 - q of the calls wait. q: in (0, 1)."""
        _share("q", q)
        waiting = self.wait_probability
        if waiting <= 1 - q:
            return 0.0
        return math.log(waiting / (1 - q)) * self.mean_seconds / (self.servers * (1 - self.utilisation))

    def response_quantile(self, q: float) -> float:
        """Seconds within which a share q of the calls is answered, within a relative 1e-12. q: in (0, 1)."""
        _share("q", q)
        return solve(lambda seconds: self.responses_beyond(seconds) - (1 - q), self.mean_seconds)


def _share(name: str, value: float) -> None:
    if not (isinstance(value, int | float) and 0 < value < 1):
        raise InvalidArgumentError(f"`{name}` must be in (0, 1), got {value!r}", "quantiles are fractions, such as 0.99")


def mean_wait(servers: int, rate: float, mean_seconds: float, arrival_scv: float = 1.0, service_scv: float = 1.0) -> float:
    """About the mean wait of G/G/c in seconds, from two squared coefficients of variation (variance over squared mean).

    One server: Kingman's heavy-traffic form `(c_a² + c_s²) / 2` times the wait of M/M/1, exact for Poisson arrivals. Several:
    that of Allen and Cunneen (the same factor before M/M/c, by Erlang C) times Whitt's correction φ(ρ, c_a², c_s², c), which takes in that
    regular arrivals queue less and irregular ones more as servers are added (1993, (2.14) to (2.25)). Within some percent where both
    variabilities are near 1, and rough elsewhere: `QueueSimulation` says how rough.

    arrival_scv, service_scv: at least 0; 1 is Poisson and exponential. Raises InvalidArgumentError as `ErlangC` does.

    >>> round(mean_wait(1, 5.0, 0.1, service_scv=0.0), 6)  # M/D/1
    0.05
    """
    for name, value in (("arrival_scv", arrival_scv), ("service_scv", service_scv)):
        if not (isinstance(value, int | float) and math.isfinite(value) and value >= 0):
            raise InvalidArgumentError(f"`{name}` must be a finite number of at least 0, got {value!r}")
    poisson = ErlangC(servers, rate, mean_seconds)
    variability = (arrival_scv + service_scv) / 2
    correction = 1.0 if servers == 1 else _whitt(poisson.utilisation, arrival_scv, service_scv, servers)
    return correction * variability * poisson.mean_wait


def _whitt(utilisation: float, arrival: float, service: float, servers: int) -> float:
    """φ of Whitt 1993; 1 for M/M/c."""
    if utilisation == 0 or arrival + service == 0:
        return 1.0
    idle = 1 - utilisation
    gamma = min(0.24, idle * (servers - 1) * (math.sqrt(4 + 5 * servers) - 2) / (16 * servers * utilisation))
    first, third = 1 + gamma, (1 - 4 * gamma) * math.exp(-2 * idle / (3 * utilisation))
    between, variability = min(1.0, (first + third) / 2), (arrival + service) / 2
    shape = 1.0 if variability >= 1 else between ** (2 * (1 - variability))
    if arrival >= service:
        scale = 4 * arrival - 3 * service
        return (4 * (arrival - service) * first + service * shape) / scale if scale > 0 else shape
    return ((service - arrival) * third + (service + 3 * arrival) * shape) / (2 * arrival + 2 * service)


def solve(excess: Callable[[float], float], start: float) -> float:
    """Where a function that falls from above 0 to 0 or below gets there, within a relative 1e-12; 0 where it is not above 0 at 0.

    start: above 0, a guess of the order of size.
    """
    if excess(0.0) <= 0:
        return 0.0
    low, high = 0.0, start
    while excess(high) > 0 and high < 1e300:
        low, high = high, 2 * high
    while high - low > 1e-12 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if excess(middle) > 0 else (low, middle)
    return high
