"""How many replicas a load needs for a service-level objective, what is left, and when it will not do.

| question | call |
|---|---|
| how many replicas | `replicas_for(load, slo)` |
| what would so many do | `capacity_of(load, replicas, slo)` |
| what if more comes | `what_if(load, slo, factors=[1, 2, 3])` |
| how much more may come, and when it will be too much | `headroom(load, replicas, slo)` |

Where arrivals are Poisson and service exponential by statement, answers are Erlang's and exact. Measured service times are not exponential:
the answer is then that of a simulation that draws them, and the formula's stands beside it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from barograph.errors import InvalidArgumentError
from barograph.scaling.forecasts import Forecast, forecast
from barograph.scaling.loads import Arrivals, Load, ServiceTimes
from barograph.scaling.queue_simulations import MOST_SERVERS, Estimate, QueueSimulation, simulate
from barograph.scaling.queues import ErlangC, erlang_c, mean_wait

if TYPE_CHECKING:
    import polars as pl

__all__ = [
    "Arrivals",
    "Capacity",
    "Forecast",
    "Headroom",
    "Load",
    "ServiceTimes",
    "Slo",
    "capacity_of",
    "forecast",
    "headroom",
    "replicas_for",
    "what_if",
]

LEAST_ARRIVALS = 100
"""Fewer say the rate within no better than a fifth (two standard deviations of a Poisson count)."""
LEAST_BEYOND = 10
"""Service times that have to lie beyond the quantile that is promised: its share is then known within a third."""
_MOST_WARM_UP = 200_000
"""Calls of warm-up per lane; a line that needs more is too near to saturation to be simulated, and counts as not good enough."""


@dataclass(frozen=True)
class Slo:
    """A share `objective` of the calls has its `of` (response, or wait alone) within `threshold` seconds.

    threshold: seconds, at least 0; above 0 for responses. objective: in (0, 1). That at most a fifth of the calls waits at all is
    `Slo(0.0, 0.8, of="wait")`.

    >>> Slo.parse("p99 <= 200ms")
    Slo(threshold=0.2, objective=0.99, of='response')
    """

    threshold: float
    objective: float
    of: Literal["response", "wait"] = "response"

    def __post_init__(self) -> None:
        if self.of not in ("response", "wait"):
            raise InvalidArgumentError(f"`of` must be 'response' or 'wait', got {self.of!r}")
        least = "above" if self.of == "response" else "at least"
        fine = isinstance(self.threshold, int | float) and math.isfinite(self.threshold) and self.threshold >= 0
        if not fine or (self.of == "response" and self.threshold == 0):
            raise InvalidArgumentError(f"`threshold` must be finite seconds {least} 0, got {self.threshold!r}")
        if not (isinstance(self.objective, int | float) and 0 < self.objective < 1):
            raise InvalidArgumentError(f"`objective` must be in (0, 1), got {self.objective!r}", "99 % is 0.99")

    @classmethod
    def parse(cls, text: str) -> Slo:
        """`p99 <= 200ms`, `p95 wait <= 50ms`, or `wait probability <= 0.2`. Raises InvalidArgumentError for anything else."""
        number, unit = r"(\d{1,9}(?:\.\d{1,9})?)", {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}
        stated = text.strip().lower()
        if found := re.fullmatch(rf"p{number}\s*(response|wait)?\s*(?:<=|<)\s*{number}\s*(us|ms|s|m)", stated):
            q, of, value, scale = found.groups()
            return cls(round(float(value) * unit[scale], 12), round(float(q) / 100, 12), "wait" if of == "wait" else "response")
        if found := re.fullmatch(rf"wait probability\s*(?:<=|<)\s*{number}", stated):
            return cls(0.0, round(1 - float(found[1]), 12), "wait")
        raise InvalidArgumentError(
            f"`slo` must be such as 'p99 <= 200ms', 'p95 wait <= 50ms' or 'wait probability <= 0.2', got {text!r}",
            "units are us, ms, s and m",
        )

    def __str__(self) -> str:
        if self.of == "wait" and self.threshold == 0:
            return f"wait probability <= {1 - self.objective:g}"
        return f"p{100 * self.objective:g} {self.of} <= {1000 * self.threshold:g}ms"


@dataclass(frozen=True)
class Capacity:
    """What so many replicas do under a load; numbers that cannot be known are None and `reason` says why.

    verdict: "ok" the objective is kept (the lower limit of `within` is at least the objective), "critical" it is not, or no number of
    replicas keeps it, "insufficient" there is too little to say, None without an objective. servers: calls that are served at once,
    replicas times concurrency. rate: calls per second. utilisation: busy share of the servers; at 1 and above the line grows without
    end. queue_length: calls that wait, on average (Little's law); queue_objective: how many come during a wait of the objective's
    quantile, about what a bounded queue has to hold. within: share of calls within the threshold, `within_lower` and `within_upper` its
    99 % limits (equal where exact). response_p50 … wait_p99: seconds. method: "erlang_c" exact, "simulation" of `simulated` calls,
    "approximation" (Whitt's mean, an exponential tail). approximate_mean_wait: what the formula says beside a simulation.
    """

    verdict: str | None
    reason: str | None = None
    slo: Slo | None = None
    replicas: int | None = None
    servers: int | None = None
    concurrency: int = 1
    rate: float | None = None
    utilisation: float | None = None
    wait_probability: float | None = None
    mean_wait: float | None = None
    queue_length: float | None = None
    queue_objective: int | None = None
    within: float | None = None
    within_lower: float | None = None
    within_upper: float | None = None
    response_p50: float | None = None
    response_p99: float | None = None
    wait_p99: float | None = None
    method: str | None = None
    simulated: int = 0
    approximate_mean_wait: float | None = None
    notes: tuple[str, ...] = field(default=())

    def to_dict(self) -> dict[str, Any]:
        """All fields; the objective as text. JSON without NaN."""
        return asdict(self) | {"slo": None if self.slo is None else str(self.slo), "notes": list(self.notes)}

    def to_frame(self) -> pl.DataFrame:
        """One row: the fields but `notes`."""
        return _frame([self])

    def to_terminal(self) -> str:
        """A table of two columns."""
        return _terminal(self.to_dict())

    def to_keda(self) -> dict[str, Any]:
        """What KEDA's metrics-api scaler reads with `valueLocation: replicas` and `targetValue: "1"` (KEDA 2.17, Metrics API).

        `replicas` is null where nothing can be said: the scaler then fails, and KEDA keeps what is or goes to its `fallback`.
        """
        return {name: getattr(self, name) for name in ("replicas", "verdict", "reason", "utilisation", "rate")}

    def to_external_metrics(
        self, name: str = "barograph_replicas", labels: Mapping[str, str] | None = None, now: datetime | None = None
    ) -> dict[str, Any]:
        """An `ExternalMetricValueList` of external.metrics.k8s.io/v1beta1: the replicas, as a Kubernetes quantity.

        An autoscaler with `target: {type: AverageValue, averageValue: "1"}` then goes to that number. No items where nothing can be said:
        it keeps what is. name: of the metric. labels: that select it. now: the time of the value, UTC.
        """
        at = (datetime.now(UTC) if now is None else now).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        item = {"metricName": name, "metricLabels": dict(labels or {}), "timestamp": at, "value": str(self.replicas)}
        items = [] if self.replicas is None else [item]
        return {"kind": "ExternalMetricValueList", "apiVersion": "external.metrics.k8s.io/v1beta1", "metadata": {}, "items": items}


@dataclass(frozen=True)
class Headroom:
    """How far a number of replicas is from its end.

    verdict: "critical" the objective is not kept now, "warning" less than `margin` times the load would break it or the forecast saturates
    it, "ok", or "insufficient". now: what they do. factor: the highest multiple of the rate at which the objective is kept, within 2 %;
    saturation_factor: at which all servers are busy. objective_at, saturation_at: the first hour foretold whose upper limit is above that;
    None without one, or without a forecast (`reason` of the forecast says why).
    """

    verdict: str
    reason: str | None
    now: Capacity
    factor: float | None
    saturation_factor: float | None
    objective_at: datetime | None = None
    saturation_at: datetime | None = None
    forecast_reason: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """All fields; times as ISO 8601. JSON without NaN."""
        out = {name: getattr(self, name) for name in ("verdict", "reason", "factor", "saturation_factor", "forecast_reason")}
        times = {name: getattr(self, name) for name in ("objective_at", "saturation_at")}
        return out | {name: None if at is None else at.isoformat() for name, at in times.items()} | {"now": self.now.to_dict()}

    def to_terminal(self) -> str:
        """Two tables."""
        return _terminal({name: value for name, value in self.to_dict().items() if name != "now"}) + "\n" + self.now.to_terminal()


def _frame(rows: Iterable[Capacity]) -> pl.DataFrame:
    import polars as pl

    whole = dict.fromkeys(("replicas", "servers", "concurrency", "queue_objective", "simulated"), pl.Int64())
    text = dict.fromkeys(("verdict", "reason", "slo", "method"), pl.String())
    dicts = [{name: value for name, value in row.to_dict().items() if name != "notes"} for row in rows]
    names = [name for name in Capacity.__dataclass_fields__ if name != "notes"]
    return pl.DataFrame(dicts, schema={name: whole.get(name) or text.get(name) or pl.Float64() for name in names})


def _terminal(fields: Mapping[str, Any]) -> str:
    lines = []
    for name, value in fields.items():
        if value is not None and value != [] and not (name == "simulated" and not value):
            shown = "; ".join(value) if isinstance(value, list) else f"{value:.4g}" if isinstance(value, float) else str(value)
            lines.append(f"{name.replace('_', ' '):<22} {shown}")
    return "\n".join(lines)


def capacity_of(
    load: Load,
    replicas: int,
    slo: Slo | str | None = None,
    *,
    concurrency: int = 1,
    rate: float | None = None,
    calls: int = 2_000_000,
    simulated: bool = True,
    seed: int = 0,
) -> Capacity:
    """What so many replicas do under a load.

    replicas: at least 1. concurrency: calls that one replica serves at once, without slowing each other down. rate: calls per second; the
    load's busiest hour if not given. calls: simulated at least; more where the line is slow to settle. simulated: False for the
    approximation alone, in microseconds. seed: equal seeds give equal answers.

    Calls wait in one line and any free server takes the first: replicas behind a balancer that deals calls out blindly do worse.
    Costs about 0.4 s for 2 million calls at 8 servers.

    >>> found = capacity_of(Load.exponential(50.0, 0.1), 10, "p99 <= 500ms")
    >>> found.verdict, found.method, round(found.wait_probability, 4)
    ('ok', 'erlang_c', 0.0361)
    """
    slo = Slo.parse(slo) if isinstance(slo, str) else slo
    _whole("replicas", replicas)
    _whole("concurrency", concurrency)
    _whole("calls", calls)
    rate = _rate(load, rate)
    if reason := _too_little(load, slo):
        return Capacity("insufficient", reason, slo, replicas, replicas * concurrency, concurrency, notes=_notes(load))
    return _measure(load, replicas, concurrency, rate, slo, calls, simulated, seed)


def replicas_for(
    load: Load,
    slo: Slo | str,
    *,
    concurrency: int = 1,
    rate: float | None = None,
    least: int = 1,
    most: int = 1000,
    calls: int = 2_000_000,
    simulated: bool = True,
    seed: int = 0,
) -> Capacity:
    """The fewest replicas that keep an objective, and what they do. Arguments of `capacity_of`.

    least, most: the number lies between; where even `most` is not enough, or service alone takes too long, `replicas` is None and the
    verdict "critical". Without calls it is `least`. Two to eight simulations, about 3 s.

    With one seed, more replicas never make a simulated call later, so the search is exact for the calls that were drawn.

    >>> replicas_for(Load.exponential(50.0, 0.1), "p99 <= 500ms").replicas
    7
    """
    slo = Slo.parse(slo) if isinstance(slo, str) else slo
    for name, value in (("concurrency", concurrency), ("least", least), ("most", most), ("calls", calls)):
        _whole(name, value)
    if least > most:
        raise InvalidArgumentError(f"`least` must be at most `most`, got {least} and {most}")
    rate = _rate(load, rate)
    fields: dict[str, Any] = {"slo": slo, "concurrency": concurrency, "rate": rate, "notes": _notes(load)}
    if reason := _too_little(load, slo):
        return Capacity("insufficient", reason, **fields)
    if slo.of == "response" and _alone(load, slo) < slo.objective:
        share = f"{_alone(load, slo):.4g} of the calls take at most {1000 * slo.threshold:g} ms of service alone"
        return Capacity("critical", f"no number of replicas is enough: {share}", **fields)

    def measure(replicas: int, simulated: bool, quick: bool = False) -> Capacity:
        return _measure(load, replicas, concurrency, rate, slo, calls, simulated, seed, quick)

    # The formula's answer is near: the simulation looks around it.
    found = _fewest(lambda replicas: measure(replicas, False).verdict == "ok", least, least, most)
    answers: dict[int, Capacity] = {}

    def kept(replicas: int) -> bool:
        answers[replicas] = measure(replicas, simulated, quick=True)
        return answers[replicas].verdict == "ok"

    if load.law != "exponential" and simulated:
        found = _fewest(kept, found or most, least, most)
    if found is not None:
        return answers.get(found) or measure(found, simulated)
    best = answers.get(most) or measure(most, simulated)
    return Capacity("critical", f"{most} replicas, the most allowed, are not enough: {best.reason}", **fields)


def what_if(load: Load, slo: Slo | str, *, factors: Iterable[float] = (1.0, 1.25, 1.5, 2.0, 3.0), **options: Any) -> pl.DataFrame:
    """`replicas_for` at multiples of the load, a row each with its `factor`; further options are those of `replicas_for`.

    The calls come in the same way, only faster: bursts keep their shape and get shorter.

    >>> what_if(Load.exponential(50.0, 0.1), "p99 <= 500ms", factors=[1, 2]).select("factor", "replicas").rows()
    [(1.0, 7), (2.0, 12)]
    """
    import polars as pl

    factors = [float(factor) for factor in factors]
    rate = options.pop("rate", None)
    loads = [load.scaled(factor) for factor in factors]
    rates = [None if rate is None else rate * factor for factor in factors]
    found = [replicas_for(one, slo, rate=at, **options) for one, at in zip(loads, rates, strict=True)]
    return _frame(found).insert_column(0, pl.Series("factor", factors, dtype=pl.Float64))


def headroom(
    load: Load,
    replicas: int,
    slo: Slo | str,
    *,
    margin: float = 1.2,
    level: float = 0.9,
    concurrency: int = 1,
    rate: float | None = None,
    calls: int = 1_000_000,
    simulated: bool = True,
    seed: int = 0,
) -> Headroom:
    """How much more load so many replicas bear, and when the forecast goes beyond it.

    margin: at least 1; with less than that a warning. level: of the forecast's limits. Other arguments as in `capacity_of`. About eight
    simulations.

    >>> found = headroom(Load.exponential(50.0, 0.1), 10, "p99 <= 500ms")
    >>> found.verdict, round(found.factor, 1), found.saturation_factor
    ('ok', 1.6, 2.0)
    """
    slo = Slo.parse(slo) if isinstance(slo, str) else slo
    if not (isinstance(margin, int | float) and math.isfinite(margin) and margin >= 1):
        raise InvalidArgumentError(f"`margin` must be a finite number of at least 1, got {margin!r}")
    now = capacity_of(load, replicas, slo, concurrency=concurrency, rate=rate, calls=calls, simulated=simulated, seed=seed)
    if now.verdict == "insufficient" or now.rate == 0:
        return Headroom("insufficient", now.reason or "there are no calls to multiply", now, None, None)
    at = _rate(load, rate)
    saturation = replicas * concurrency / (at * load.service.mean)
    low, high = 0.0, saturation
    if _alone(load, slo) >= slo.objective or slo.of == "wait":
        while high - low > 0.01 * high:
            middle = (low + high) / 2
            ok = _measure(load, replicas, concurrency, at * middle, slo, calls, simulated, seed, quick=True).verdict == "ok"
            low, high = (middle, high) if ok else (low, middle)
    hours = load.arrivals.hours
    ahead = None if hours is None else forecast(hours, level=level)
    objective_at, saturation_at = (None if ahead is None else ahead.first_above(at * factor) for factor in (low, saturation))
    verdict, reason = "ok", None
    if now.verdict != "ok":
        verdict, reason = "critical", now.reason or "the objective is not kept"
    elif low < margin:
        verdict, reason = "warning", f"{low:.3g} times the load breaks the objective, less than the margin of {margin:g}"
    elif objective_at is not None:
        verdict, reason = "warning", f"at {objective_at:%Y-%m-%d %H:%M} UTC the forecast's upper limit breaks the objective"
    why = "there are no counts by the hour" if ahead is None else ahead.reason
    return Headroom(verdict, reason, now, low, saturation, objective_at, saturation_at, why)


def _whole(name: str, value: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 1 << 31:
        raise InvalidArgumentError(f"`{name}` must be an integer of at least 1, got {value!r}")


def _rate(load: Load, rate: float | None) -> float:
    if rate is None:
        return load.arrivals.peak_rate
    if not (isinstance(rate, int | float) and math.isfinite(rate) and rate >= 0):
        raise InvalidArgumentError(f"`rate` must be finite calls per second of at least 0, got {rate!r}")
    return float(rate)


def _too_little(load: Load, slo: Slo | None) -> str | None:
    """What is missing to say anything, or None."""
    count, service = load.arrivals.count, load.service
    if count is not None and count < LEAST_ARRIVALS:
        return f"{count:,} calls were seen, {LEAST_ARRIVALS} are needed to know how many come"
    if load.law == "exponential":
        return None
    wanted = LEAST_ARRIVALS if slo is None else max(LEAST_ARRIVALS, math.ceil(LEAST_BEYOND / (1 - slo.objective) - 1e-6))
    if service.count < wanted:
        return f"{service.count:,} service times were measured, {wanted:,} are needed" + (f" for {slo}" if slo else "")
    return "every service time is 0: nothing was measured" if service.mean == 0 else None


def _notes(load: Load) -> tuple[str, ...]:
    notes = [*load.notes, *load.arrivals.notes]
    tail = load.service.tail_index() if load.law != "exponential" else None
    if tail is not None and tail < 2:
        share = load.service.heaviest()
        notes.append(
            f"heavy tail (Hill {tail:.2g}): the longest 1 % take {share:.2g} of the work; longer ones than were seen are not simulated"
        )
    return tuple(notes)


def _alone(load: Load, slo: Slo) -> float:
    """The share of the calls whose service alone is within the threshold."""
    if slo.of == "wait":
        return 1.0
    if load.law == "exponential":
        return -math.expm1(-slo.threshold / load.service.mean)
    return load.service.within(slo.threshold)


def _measure(
    load: Load,
    replicas: int,
    concurrency: int,
    rate: float,
    slo: Slo | None,
    calls: int,
    simulated: bool,
    seed: int,
    quick: bool = False,
) -> Capacity:
    """quick: where the objective is plainly not kept, only the verdict and its reason are right."""
    servers, service, notes = replicas * concurrency, load.service, _notes(load)
    utilisation = rate * service.mean / servers
    fields: dict[str, Any] = {"slo": slo, "replicas": replicas, "servers": servers, "concurrency": concurrency}
    fields |= {"rate": rate, "utilisation": utilisation, "notes": notes}
    # A mean is right but for its last digits, which depend on the processor.
    if utilisation >= 1 - 1e-9:
        growth = rate - servers / service.mean
        reason = f"saturated: {servers / service.mean:.4g} calls per second can be served, {rate:.4g} come"
        reason += f", the line grows by {growth:.3g} a second" if growth > 1e-9 * rate else ""
        return Capacity("critical" if slo else None, reason, **fields)
    if load.law == "exponential":
        return _by_formula(ErlangC(servers, rate, service.mean), slo, fields)
    arrival_scv = load.arrivals.dispersion(max(1.0, rate * service.mean, utilisation / (1 - utilisation) ** 2))
    about = mean_wait(servers, rate, service.mean, arrival_scv, service.scv)
    settle = 20 * (arrival_scv + service.scv) / 2 * utilisation / (1 - utilisation) ** 2 + 10 * servers
    if not simulated or servers > MOST_SERVERS or rate == 0:
        return _by_approximation(load, servers, rate, about, slo, fields)
    if settle > _MOST_WARM_UP:
        reason = f"too near to saturation to be judged: a line of utilisation {utilisation:.4g} takes {settle:,.0f} calls to settle"
        return Capacity("critical" if slo else None, reason, **fields, approximate_mean_wait=about)
    gaps, lasts, fields = load.arrivals.draw(rate), service.draw(), fields | {"approximate_mean_wait": about}
    if quick and slo is not None and settle > 1000:
        # A line that began empty is on average shorter than one that has settled: what it does not keep, that does not keep.
        found = _by_simulation(simulate(gaps, lasts, servers, calls=calls // 10 + 1, warm_up=1000, seed=seed), slo, fields)
        if found.within_upper is not None and found.within_upper < slo.objective:
            return found
    warm_up = max(1000, int(settle))
    return _by_simulation(simulate(gaps, lasts, servers, calls=max(calls, 64 * warm_up), warm_up=warm_up, seed=seed), slo, fields)


def _judged(slo: Slo | None, within: Estimate | None) -> dict[str, Any]:
    if slo is None or within is None:
        return {"verdict": None}
    kept = within.lower >= slo.objective
    share = f"{within.value:.4g}" + ("" if within.lower == within.value else f" (at least {within.lower:.4g})")
    reason = None if kept else f"{share} of the calls are within {1000 * slo.threshold:g} ms, not {slo.objective:g}"
    limits = {"within": within.value, "within_lower": max(0.0, within.lower), "within_upper": min(1.0, within.upper)}
    return {"verdict": "ok" if kept else "critical", "reason": reason, **limits}


def _queue(rate: float, wait: float) -> int:
    return math.ceil(rate * wait - 1e-9)


def _by_formula(line: ErlangC, slo: Slo | None, fields: dict[str, Any]) -> Capacity:
    within = None
    if slo is not None:
        beyond = line.waits_beyond(slo.threshold) if slo.of == "wait" else line.responses_beyond(slo.threshold)
        within = Estimate(1 - beyond, 1 - beyond, 1 - beyond)
    return Capacity(
        **_judged(slo, within),
        **fields,
        wait_probability=line.wait_probability,
        mean_wait=line.mean_wait,
        queue_length=line.queue_length,
        queue_objective=_queue(line.rate, line.wait_quantile(slo.objective)) if slo else None,
        response_p50=line.response_quantile(0.5),
        response_p99=line.response_quantile(0.99),
        wait_p99=line.wait_quantile(0.99),
        method="erlang_c",
    )


def _by_simulation(line: QueueSimulation, slo: Slo | None, fields: dict[str, Any]) -> Capacity:
    rate, within = fields["rate"], None
    if slo is not None:
        within = line.waits_within(slo.threshold) if slo.of == "wait" else line.responses_within(slo.threshold)
    return Capacity(
        **_judged(slo, within),
        **fields,
        wait_probability=line.wait_probability.value,
        mean_wait=line.mean_wait.value,
        queue_length=rate * line.mean_wait.value,
        queue_objective=_queue(rate, line.wait_quantile(slo.objective).value) if slo else None,
        response_p50=line.response_quantile(0.5).value,
        response_p99=line.response_quantile(0.99).value,
        wait_p99=line.wait_quantile(0.99).value,
        method="simulation",
        simulated=line.calls,
    )


def _by_approximation(load: Load, servers: int, rate: float, about: float, slo: Slo | None, fields: dict[str, Any]) -> Capacity:
    """Erlang's share of calls that wait, and waits of those as exponential as those of M/M/c."""
    waiting = erlang_c(servers, rate * load.service.mean)
    decay = waiting / about if about > 0 else math.inf
    middle, weight = load.service.cells()

    def waits_beyond(seconds: Any) -> Any:
        late = np.asarray(seconds, dtype=np.float64)
        # What begins at once has waited 0 seconds, which is not beyond 0.
        return np.where(late < 0, 1.0, waiting * np.exp(-np.maximum(late, 0.0) * (decay if math.isfinite(decay) else 1e300)))

    def beyond(of: str, seconds: float) -> float:
        return float(waits_beyond(seconds)) if of == "wait" else float(weight @ waits_beyond(seconds - middle))

    def quantile(of: str, q: float) -> float:
        low, high = 0.0, max(float(middle.max(initial=0.0)), load.service.mean)
        while beyond(of, high) > 1 - q:
            high *= 2
        for _ in range(60):
            half = (low + high) / 2
            low, high = (half, high) if beyond(of, half) > 1 - q else (low, half)
        return high

    within = None
    if slo is not None:
        share = 1 - beyond(slo.of, slo.threshold)
        within = Estimate(share, share, share)
    return Capacity(
        **_judged(slo, within),
        **fields,
        wait_probability=waiting,
        mean_wait=about,
        queue_length=rate * about,
        queue_objective=_queue(rate, 0.0 if waiting <= 1 - slo.objective else quantile("wait", slo.objective)) if slo else None,
        response_p50=quantile("response", 0.5),
        response_p99=quantile("response", 0.99),
        wait_p99=0.0 if waiting <= 0.01 else quantile("wait", 0.99),
        method="approximation",
    )


def _fewest(kept: Callable[[int], bool], near: int, least: int, most: int) -> int | None:
    """The smallest number in [least, most] that is kept, if those above it are too; None without one. Looks around `near` first."""
    low, high, at, step = least - 1, most + 1, min(max(near, least), most), 1
    while high - low > 1:
        if kept(at):
            high = at
        else:
            low = at
        at = max(high - step, least) if low < least else min(low + step, most) if high > most else (low + high) // 2
        step *= 2
    return high if high <= most else None
