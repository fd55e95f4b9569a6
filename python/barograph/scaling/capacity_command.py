"""`barograph capacity`: replicas for an objective, from a log of calls or from a running sidecar."""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import quote

from barograph.errors import BarographError, InvalidArgumentError, NotFoundError
from barograph.scaling.capacity import Capacity, Slo, headroom, replicas_for, what_if
from barograph.scaling.forecasts import Forecast, forecast
from barograph.scaling.loads import Load, ServiceTimes

__all__ = ["load_of_sidecar", "run"]

_EXIT = {"ok": 0, None: 0, "warning": 1, "critical": 1, "insufficient": 3}
_NATIVE = "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"
_WAIT_SECONDS = 30.0


@dataclass(frozen=True)
class _Question:
    """A load, what is to come, and the rate that the answer is for."""

    load: Load
    ahead: Forecast | None
    rate_from: str
    shared: dict[str, Any]
    bounds: dict[str, Any]

    @classmethod
    def of(cls, options: argparse.Namespace) -> _Question:
        load = _load(options)
        hours = load.arrivals.hours
        ahead = None if hours is None else forecast(hours, level=options.level)
        rate, told = options.rate, "as stated"
        if rate is None and ahead is not None and ahead.peak_rate is not None:
            rate, told = ahead.peak_rate, f"upper limit of the forecast's highest hour, at {options.level:g}"
        elif rate is None:
            why = "there are no counts by the hour" if ahead is None else ahead.reason
            rate, told = load.arrivals.peak_rate, f"busiest stretch seen; no forecast: {why}"
        shared = {"concurrency": options.concurrency, "calls": options.calls, "seed": options.seed, "rate": rate}
        return cls(load, ahead, told, shared, {"least": options.least, "most": options.most})

    def replicas(self, slo: Slo) -> Capacity:
        return replicas_for(self.load, slo, **self.shared, **self.bounds)

    def to_dict(self) -> dict[str, Any]:
        return {"load": _described(self.load), "forecast": _foretold(self.ahead), "rate_from": self.rate_from}


def run(options: argparse.Namespace) -> int:
    """Runs the command and gives its exit code."""
    slo, factors = Slo.parse(options.slo), _factors(options.factors)
    if options.replicas is not None and options.replicas < 1:
        raise InvalidArgumentError(f"`--replicas` must be at least 1, got {options.replicas}")
    if options.listen is not None:
        from barograph.scaling.capacity_server import serve

        return serve(options.listen, lambda: _documents(options, slo), every=options.every)
    question = _Question.of(options)
    if options.keda or options.external_metrics:
        # An autoscaler wants to know how many there should be, whatever there are.
        wanted = question.replicas(slo)
        print(_as_json(wanted.to_keda() if options.keda else wanted.to_external_metrics(options.external_metrics, _labels(options))))
        return _EXIT[wanted.verdict]
    document = question.to_dict()
    if options.replicas is not None:
        room = headroom(question.load, options.replicas, slo, level=options.level, **question.shared)
        verdict: str | None = room.verdict
        text = room.to_terminal()
        document |= {"headroom": room.to_dict(), "capacity": room.now.to_dict()}
    else:
        found = question.replicas(slo)
        verdict, text = found.verdict, found.to_terminal()
        document["capacity"] = found.to_dict()
    table = None if factors is None else what_if(question.load, slo, factors=factors, **question.shared, **question.bounds)
    if options.json:
        print(_as_json(document | ({} if table is None else {"what_if": table.to_dicts()})))
        return _EXIT[verdict]
    print(_summary(question))
    print(text)
    if table is not None:
        print(_columns(table.select("factor", "rate", "replicas", "utilisation", "within", "response_p99", "verdict").to_dicts()))
    return _EXIT[verdict]


def _documents(options: argparse.Namespace, slo: Slo) -> dict[str, dict[str, Any]]:
    """What is served, by path."""
    question = _Question.of(options)
    found = question.replicas(slo)
    metrics = found.to_external_metrics(options.external_metrics or "barograph_replicas", _labels(options))
    return {"/capacity": question.to_dict() | {"capacity": found.to_dict()}, "/keda": found.to_keda(), "/external-metrics": metrics}


def load_of_sidecar(url: str, model: str, token: str | None = None, *, events_per_call: float = 1.0) -> Load:
    """The load of a model that a sidecar watches: calls of its closed windows, and the latencies of all calls it ever saw.

    Reads `…/history` and `/metrics` (scope read). events_per_call: as in `Load.from_history`. Raises NotFoundError for a model that is
    not there, BarographError for an answer that is not a sidecar's, and OSError where there is none.
    """
    from barograph.protobuf import native_cells
    from barograph.reports import rows_frame
    from barograph.transport import Transport

    transport = Transport(url, token)

    def get(path: str, accept: str) -> bytes:
        try:
            status, _, body = transport.request("GET", path, headers={"Accept": accept}, timeout=_WAIT_SECONDS)
        except HTTPException as error:
            raise BarographError(f"{url} did not answer as a sidecar does: {error}") from error
        if status == 404:
            raise NotFoundError(f"the sidecar at {url} has no model {model!r}")
        if status != 200:
            hint = "the token comes from BAROGRAPH_TOKEN, --token-file or ./barograph-data/token" if status in (401, 403) else None
            raise BarographError(f"{url}{path} answered with status {status}", hint)
        return body

    try:
        rows: list[dict[str, Any]] = []
        after = ""
        while True:
            page = json.loads(get(f"/v1/models/{quote(model, safe='')}/history?limit=100000{after}", "application/json"))
            rows += page["rows"]
            if not isinstance(page.get("next"), str):
                break
            after = f"&after={quote(page['next'], safe='')}"
        cells = native_cells(get("/metrics", _NATIVE), "barograph_call_seconds", {"model": model})
        return Load.from_history(rows_frame(rows), ServiceTimes.of_cells(cells or []), events_per_call=events_per_call)
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, BarographError):
            raise
        raise BarographError(f"{url} did not answer as a sidecar does") from error
    finally:
        transport.close()


def _load(options: argparse.Namespace) -> Load:
    if (options.log is None) == (options.url is None):
        raise InvalidArgumentError(
            "say either a LOG or --url", "barograph capacity calls.parquet --time at --seconds took --slo 'p99 <= 200ms'"
        )
    if options.log is not None:
        for name in ("time", "seconds"):
            if getattr(options, name) is None:
                raise InvalidArgumentError(f"`--{name}` is missing: it names a column of the log")
        return Load.from_log(Path(options.log), time=options.time, seconds=options.seconds)
    if options.model is None:
        raise InvalidArgumentError("`--model` is missing: it names a model of the sidecar")
    from barograph.transport import token_for

    token = token_for(options.url, options.token_file)
    return load_of_sidecar(options.url, options.model, token, events_per_call=options.events_per_call)


def _factors(text: str | None) -> list[float] | None:
    if text is None:
        return None
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise InvalidArgumentError(f"`--factors` must be numbers with commas between them, got {text!r}") from None


def _labels(options: argparse.Namespace) -> dict[str, str]:
    return {} if options.model is None else {"model": options.model}


def _described(load: Load) -> dict[str, Any]:
    arrivals, service = load.arrivals, load.service
    return {
        "calls": arrivals.count,
        "rate": arrivals.rate,
        "peak_rate": arrivals.peak_rate,
        "arrival_scv": arrivals.scv,
        "service_times": service.count,
        "service_mean": service.mean,
        "service_scv": service.scv,
        "heaviest_percent_of_work": service.heaviest(),
    }


def _foretold(ahead: Forecast | None) -> dict[str, Any] | None:
    if ahead is None or ahead.start is None:
        return None if ahead is None else {"reason": ahead.reason}
    rows = [row | {"hour": row["hour"].isoformat()} for row in ahead.to_frame().to_dicts()]
    return {"level": ahead.level, "weeks": ahead.weeks, "peak_rate": ahead.peak_rate, "hours": rows}


def _summary(question: _Question) -> str:
    arrivals, service, ahead = question.load.arrivals, question.load.service, question.ahead
    seen = "" if arrivals.count is None else f"{arrivals.count:,} calls, "
    lines = [
        f"arrivals               {seen}{arrivals.rate:.4g} per second, {arrivals.peak_rate:.4g} at the peak, gaps' scv {arrivals.scv:.3g}",
        f"service                {service.count:,} measured, mean {1000 * service.mean:.4g} ms, scv {service.scv:.3g}",
    ]
    if ahead is not None and ahead.start is not None:
        at = int(ahead.upper.argmax())
        hour = ahead.to_frame()["hour"][at]
        limits = f"{ahead.expected[at]:,.0f} calls, {ahead.lower[at]:,.0f} to {ahead.upper[at]:,.0f} at {ahead.level:g}"
        lines.append(f"forecast               highest hour {hour:%Y-%m-%d %H:%M} UTC: {limits}, from {ahead.weeks} weeks")
    return "\n".join([*lines, f"rate from              {question.rate_from}"])


def _columns(rows: list[dict[str, Any]]) -> str:
    def text(value: Any) -> str:
        return "-" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)

    cells = [[name.replace("_", " ") for name in rows[0]], *([text(value) for value in row.values()] for row in rows)]
    widths = [max(len(line[at]) for line in cells) for at in range(len(cells[0]))]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in cells)


def _as_json(document: dict[str, Any]) -> str:
    return json.dumps(document, ensure_ascii=False, allow_nan=False)
