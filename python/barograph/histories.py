"""One timeline of a model: references, deploys, alerts, decisions, retrain requests, metrics and costs, and what each iteration gained.

| you have | `bg.history` takes |
|---|---|
| a monitor, a client of the sidecar | its deploys, alerts, metrics, and the reference in use |
| a `Lineage`, `Decision`s, `Outcome`s of an audit log, `RetrainRequest`s, a `Rollout` | as they are, or as the files they write |
| what `barograph store export` wrote, a timeline written before | the folder |
| what monitoring, labelling or serving cost | a frame: time, metric, value |
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from barograph.conditions import _datetime
from barograph.errors import InvalidArgumentError, NotFoundError, SnapshotError
from barograph.iterations import Iteration, iterations_of
from barograph.monitors import _instant
from barograph.snapshots import write_whole

if TYPE_CHECKING:
    import altair as alt
    import polars as pl

__all__ = ["EVENTS", "Timeline", "history"]

EVENTS = ("reference", "deploy", "decision", "retrain", "alert", "metric", "cost")
"""What a row can be, in the order of rows of one time."""
_QUIET = ("events", "deploy")
_NUMBERS = ("value", "lower", "upper", "threshold")


class Timeline:
    """Everything that happened to one model, in order of time.

    One row each: time, until (end of a window; null for a moment), model, event (reference, deploy, decision, retrain, alert, metric,
    cost), name (id of a reference, version, column of an alert, metric, kind of cost), state (accepted, in use; deployed; opened,
    escalated, eased, resolved; promote, roll back, hold, inconclusive; requested), severity, value, lower, upper, threshold, rows (events
    behind a value), iteration (from 1; it begins with a deploy of another version, or without deploys with an accepted reference), reason.
    """

    def __init__(self, rows: Iterable[Mapping[str, Any]], model: str, budget: Mapping[str, float] | None = None) -> None:
        order = {name: place for place, name in enumerate(EVENTS)}
        self.model = model
        # Whichever source comes first, the order is the same.
        words = ("name", "state", "severity", "reason")
        self._rows = sorted(
            (dict(row) for row in rows), key=lambda row: (row["time"], order[row["event"]], *(row[word] or "" for word in words))
        )
        self._budget = dict(budget or {})
        _number(self._rows)

    def to_frame(self) -> pl.DataFrame:
        """One row per thing that happened; what has no meaning is null."""
        import polars as pl

        return pl.DataFrame(self._rows, schema=_whole()).with_columns(pl.col("time", "until").cast(pl.Datetime("ns", "UTC")))

    def iterations(self, metric: str | None = None, *, confidence: float = 0.95) -> pl.DataFrame:
        """One row per iteration, and whether it was better than the one before.

        metric: of the timeline, the first of quality if absent; see `metrics`. Columns: iteration, version, reference, began, ended, days,
        windows, metric, value, lower, upper (mean over windows, weighted by their events, with limits), change, change_lower, change_upper
        (against the iteration before), verdict ("better", "worse", "no clear difference", "unknown"), pages and tickets (alerts opened),
        pages_allowed and tickets_allowed (false ones that the budget lets expect), open_hours (hours with an open page), cost (sum, of
        costs).

        Windows count as independent, and as many as there are decide how sure the mean is (Welch's t-test); below three windows on
        either side the verdict is "unknown". Metrics that follow each other closely make the limits too narrow.
        """
        import polars as pl

        found = self._iterations(metric, confidence)
        rows = [one._asdict() for one in found]
        times = ("began", "ended")
        numbers = ("days", *_NUMBERS[:3], "change", "change_lower", "change_upper")
        schema: dict[str, Any] = {"iteration": pl.Int64(), "version": pl.String(), "reference": pl.String()}
        schema |= dict.fromkeys(times, pl.Int64()) | {"days": pl.Float64(), "windows": pl.Int64(), "metric": pl.String()}
        schema |= dict.fromkeys(numbers[1:], pl.Float64()) | {"verdict": pl.String(), "pages": pl.Int64(), "tickets": pl.Int64()}
        schema |= dict.fromkeys(("pages_allowed", "tickets_allowed", "open_hours", "cost"), pl.Float64())
        return pl.DataFrame(rows, schema=schema).with_columns(pl.col(*times).cast(pl.Datetime("ns", "UTC")))

    def _iterations(self, metric: str | None, confidence: float) -> list[Iteration]:
        if not 0.5 <= confidence < 1:
            raise InvalidArgumentError(f"`confidence` must be in [0.5, 1), got {confidence}")
        names = self.metrics
        if metric is not None and metric not in names:
            raise NotFoundError(f"the timeline has no metric {metric!r}", f"it has {', '.join(names) or 'none'}")
        return iterations_of(self._rows, metric or (names[0] if names else None), confidence, self._budget)

    @property
    def metrics(self) -> list[str]:
        """Metrics in it: those of quality first, then the others."""
        names = dict.fromkeys(row["name"] for row in self._rows if row["event"] == "metric")
        late = ("latency_p50", "latency_p99", "error_rate", "missing_labels")
        return sorted(names, key=lambda name: name in late)

    def write_parquet(self, path: str | Path) -> None:
        """Writes the rows to a file, whole or not at all; `bg.history(path)` reads them."""
        import io

        out = io.BytesIO()
        self.to_frame().write_parquet(out)
        write_whole(Path(path), out.getvalue())

    def to_html(self, path: str | Path | None = None, *, metric: str | None = None) -> str | Path:
        """One page without any request to elsewhere: iterations, their metric, and everything that happened. The text, or its path."""
        from barograph import history_html

        text = history_html.page(self, metric)
        if path is None:
            return text
        write_whole(Path(path), text.encode())
        return Path(path)

    def plot(self, metric: str | None = None) -> alt.LayerChart | alt.VConcatChart:
        """A chart of Altair: the metric over time with the mean of each iteration, and below it what happened. Needs `barograph[plot]`."""
        from barograph import plots

        return plots.timeline(self, metric)

    def _repr_html_(self) -> str:
        from barograph import history_html

        return history_html.cell(self)

    def __len__(self) -> int:
        return len(self._rows)

    def __repr__(self) -> str:
        return f"Timeline({self.model!r}, {len(self):,} rows)"


def history(*sources: Any, model: str | None = None, costs: Any = None) -> Timeline:
    """One timeline out of whatever is known of a model.

    sources: monitors, clients, lineages, roll-outs, decisions and retrain requests (alone or in lists), and paths: a folder of files, or
    files: `history.parquet` and `alerts.parquet` of `barograph store export`, Parquet of `write_parquet`, a lineage and an audit log
    (JSON lines), retrain requests (JSON). Files of anything else are passed over in a folder; named by themselves they are an error. What
    is said twice counts once. model: whose rows are taken, where sources are of several models; found if absent.

    costs: a frame with time, metric (such as "cpu_seconds", "labels", "euro") and value; optional until and reason.

    Raises InvalidArgumentError for a source that is none of these or sources of several models, SnapshotError for a damaged file.

    >>> from datetime import UTC, timedelta
    >>> from barograph import Monitor, Reference
    >>> hour, day = timedelta(hours=1), datetime(2026, 1, 1, tzinfo=UTC)
    >>> monitor = Monitor("fraud", reference=Reference({"x": [1.0, 2.0] * 400}), window="1h", task="binary", ticks="manual")
    >>> for at in range(8):
    ...     if at in (0, 4):
    ...         monitor.deploy(f"v{1 + at // 4}", time=day + at * hour)
    ...     score = [0.1 + 0.8 * ((i * 7 + at) % 10 < (4, 7)[at // 4]) * (i % 2) for i in range(400)]
    ...     rows = {"x": [1.0, 2.0] * 200, "p": score, "id": [at * 400 + i for i in range(400)], "at": [day + at * hour] * 400}
    ...     monitor.observe_frame(rows, time="at", id="id", score="p")
    ...     monitor.label({"id": rows["id"], "y": [i % 2 for i in range(400)]}, id="id", label="y")
    ...     monitor.tick(day + (at + 1) * hour)
    >>> history(monitor).iterations("roc_auc")["verdict"].to_list()
    ['unknown', 'better']
    """
    found = _Found(model)
    for source in sources:
        found.take(source)
    if costs is not None:
        found.costs(costs)
    rows = [row for row in found.rows if row["model"] is None or row["model"] == found.model]
    names = {row["model"] for row in found.rows if row["model"] is not None}
    if model is None and len(names) > 1:
        raise InvalidArgumentError(f"`sources` are of several models: {', '.join(sorted(names))}", "say which by `model=`")
    if model is not None and names and model not in names:
        raise NotFoundError(f"`sources` hold nothing of model {model!r}", f"they are of {', '.join(sorted(names))}")
    name = found.model or ""
    accepted = {row["name"] for row in rows if row["event"] == "reference" and row["state"] == "accepted"}
    rows = [row for row in rows if not (row["event"] == "reference" and row["state"] == "in use" and row["name"] in accepted)]
    unique = {json.dumps({**row, "model": None}, sort_keys=True): {**row, "model": name} for row in rows}
    return Timeline(unique.values(), name, found.budget)


class _Found:
    """Rows of the sources, as they come."""

    def __init__(self, model: str | None) -> None:
        self.stated = model
        self.rows: list[dict[str, Any]] = []
        self.budget: dict[str, float] = {}

    @property
    def model(self) -> str | None:
        return self.stated or next((row["model"] for row in self.rows if row["model"] is not None), None)

    def take(self, source: Any) -> None:
        """The rows of one source."""
        from barograph.client import Client
        from barograph.decisions import Decision
        from barograph.lineages import Lineage
        from barograph.monitors import Monitor
        from barograph.rollout import Rollout
        from barograph.triggers import RetrainRequest

        if isinstance(source, Monitor):
            self._monitor(source)
        elif isinstance(source, Client):
            self._watched(source.history(), source.alerts(), source.model)
            told = source.told()
            # A look at a roll-out that is undecided has done nothing.
            ended = [one for one in told["decisions"] if one["decision"] != "hold"]
            self.rows += [_decided({**one, "time": _datetime(one["time"]).isoformat()}, None) for one in ended]
            self.rows += [_requested({**one, "created": _datetime(one["time"]).isoformat()}) for one in told["requests"]]
        elif isinstance(source, Lineage):
            self.rows += [_accepted(entry.to_dict()) for entry in source._entries]
        elif isinstance(source, Decision):
            self.rows.append(_decided(source.to_dict(), None))
        elif isinstance(source, Rollout):
            # A roll-out that is undecided has done nothing yet.
            if source._over is not None:
                self.rows.append(_decided(source._over.to_dict(), None))
        elif isinstance(source, RetrainRequest):
            self.rows.append(_requested(json.loads(source.to_json())))
        elif isinstance(source, Timeline):
            self.rows += [{name: row[name] for name in _whole() if name != "iteration"} for row in source._rows]
            self.budget |= source._budget
        elif isinstance(source, str | Path):
            self._path(Path(source))
        elif isinstance(source, list | tuple):
            for one in source:
                self.take(one)
        else:
            wanted = "a Monitor, Client, Lineage, Rollout, Decision, RetrainRequest, Timeline, or a path"
            raise InvalidArgumentError(f"`sources` must each be {wanted}, got {type(source).__name__}")

    def _monitor(self, monitor: Any) -> None:
        reference = monitor._native.reference
        history = monitor.history()
        if reference.created is not None:
            # In a replay the reference is younger than what is compared with it.
            began = None if history.is_empty() else _instant(history["window_start"].min())
            time = reference.created if began is None else min(reference.created, began)
            shown = {"name": reference.id[:8], "state": "in use", "reason": f"{reference.rows:,} rows", "rows": reference.rows}
            self.rows.append(_row("reference", time, model=monitor.name, **shown))
        budget = json.loads(monitor._native.policy()).get("budget") or {}
        self.budget |= {severity: seconds for severity, length in budget.items() if (seconds := _seconds(length)) is not None}
        self._watched(history, monitor.alerts(), monitor.name)

    def _watched(self, history: pl.DataFrame, alerts: pl.DataFrame, model: str | None) -> None:
        """Deploys, metrics of the model and alerts."""
        import polars as pl

        whole = history.filter((pl.col("column") == "(model)") & pl.col("segment").is_null())
        for row in _times(whole, "window_start", "window_end").iter_rows(named=True):
            start, end = row["window_start"], row["window_end"]
            if row["method"] == "deploy":
                said = row["reason"] or ""
                version = said.split('"')[1] if said.count('"') >= 2 else said
                self.rows.append(_row("deploy", start, model=model, name=version, state="deployed", reason=said or None))
            elif row["method"] not in _QUIET and row["value"] is not None:
                numbers = {name: row[name] for name in _NUMBERS}
                self.rows.append(
                    _row(
                        "metric", start, model=model, until=end, name=row["method"], rows=row["n_current"], state=row["verdict"], **numbers
                    )
                )
        for row in _times(alerts, "time").iter_rows(named=True):
            numbers = {name: row[name] for name in _NUMBERS}
            said = row["reason"] if row["cause"] is None else f"{row['reason'] or row['method']}; {row['cause']}"
            shown = {"name": row["column"], "state": row["state"], "severity": row["severity"], "reason": said, "rows": row["n_current"]}
            self.rows.append(_row("alert", row["time"], model=model, **shown, **numbers))

    def _path(self, path: Path) -> None:
        if not path.exists():
            raise NotFoundError(f"there is no {path}")
        if path.is_dir():
            for one in sorted(path.rglob("*")):
                if one.is_file():
                    self._file(one, named=False)
        else:
            self._file(path, named=True)

    def _file(self, path: Path, named: bool) -> None:
        taken = False
        if path.suffix == ".parquet":
            taken = self._parquet(path)
        elif path.suffix in (".json", ".jsonl", ".ndjson", ".lineage", ".log"):
            taken = self._json(path)
        if named and not taken:
            raise InvalidArgumentError(f"{path} holds nothing of a timeline", "it reads exports, lineages, audit logs and retrain requests")

    def _parquet(self, path: Path) -> bool:
        import polars as pl

        try:
            columns = set(pl.read_parquet_schema(path))
        except (pl.exceptions.PolarsError, OSError) as error:
            raise SnapshotError(f"{path} is no Parquet file: {str(error).splitlines()[0]}") from error
        if {"event", "time", "name", "iteration"} <= columns:
            frame = _times(pl.read_parquet(path), "time", "until")
            missing = [name for name in _whole() if name not in frame.columns]
            if missing or set(frame["event"]) - set(EVENTS):
                raise SnapshotError(f"{path} is no timeline of this version: {', '.join(missing) or 'it has other events'}")
            self.rows += frame.select(name for name in _whole() if name != "iteration").to_dicts()
        elif {"column", "method", "window_start", "segment"} <= columns:
            # Beside it lie its alerts; the folder has the model's name.
            beside = path.with_name("alerts.parquet")
            alerts = pl.read_parquet(beside) if beside.exists() else _no_alerts()
            self._watched(pl.read_parquet(path), alerts, path.parent.name or None)
        elif {"column", "state", "severity", "incident"} <= columns:
            if not path.with_name("history.parquet").exists():
                from barograph.reports import rows_frame

                self._watched(rows_frame([]), pl.read_parquet(path), path.parent.name or None)
        else:
            return False
        return True

    def _json(self, path: Path) -> bool:
        from barograph.lineages import Lineage
        from barograph.triggers import RetrainRequest

        data = path.read_bytes()
        first = data.lstrip()[:400]
        if b'"lineage 1"' in first:
            # Through its own reader: a line that was edited is found.
            self.take(Lineage(path))
        elif b'"retrain request 1"' in first:
            self.take(RetrainRequest.from_json(data))
        elif first.startswith(b'{"time": ') and b'"target"' in first:
            self.rows += list(_audited(data, path))
        else:
            return False
        return True

    def costs(self, frame: Any) -> None:
        """Rows of what was spent."""
        import polars as pl

        from barograph.frames import parts

        table = pl.concat([pl.DataFrame(part) for part in parts(frame)])
        if missing := [name for name in ("time", "metric", "value") if name not in table.columns]:
            raise InvalidArgumentError(f"`costs` must have columns time, metric and value, {missing[0]!r} is missing")
        for name in ("time", "until"):
            if name in table.columns and not table.schema[name].is_temporal():
                raise InvalidArgumentError(f"`costs` column {name!r} must hold times, it holds {table.schema[name]}")
        for row in _times(table, "time", "until").iter_rows(named=True):
            if row["time"] is None or row["value"] is None:
                raise InvalidArgumentError("`costs` must have a time and a value in every row, one is null")
            value = float(row["value"])
            if value - value != 0:
                raise InvalidArgumentError(f"`costs` must hold finite values, got {value}")
            self.rows.append(
                _row("cost", row["time"], until=row.get("until"), name=str(row["metric"]), value=value, reason=row.get("reason"))
            )


def _row(event: str, time: int, **more: Any) -> dict[str, Any]:
    names = [name for name in _whole() if name != "iteration"]
    return {**dict.fromkeys(names), "event": event, "time": time, **more}


def _whole() -> dict[str, Any]:
    import polars as pl

    schema: dict[str, Any] = {"time": pl.Int64(), "until": pl.Int64(), "model": pl.String(), "event": pl.String(), "name": pl.String()}
    schema |= {"state": pl.String(), "severity": pl.String(), **dict.fromkeys(_NUMBERS, pl.Float64())}
    return schema | {"rows": pl.Int64(), "iteration": pl.Int64(), "reason": pl.String()}


def _times(frame: pl.DataFrame, *names: str) -> pl.DataFrame:
    """Times as nanoseconds; naive ones are UTC."""
    import polars as pl

    kinds = {name: frame.schema[name] for name in names if name in frame.columns}
    return frame.with_columns(
        (pl.col(name).cast(pl.Datetime("ns")) if isinstance(kind, pl.Date) else pl.col(name).cast(kind).dt.cast_time_unit("ns"))
        .to_physical()
        .alias(name)
        for name, kind in kinds.items()
        if kind.is_temporal()
    )


def _no_alerts() -> pl.DataFrame:
    from barograph.reports import alerts_frame

    return alerts_frame([])


def _accepted(entry: dict[str, Any]) -> dict[str, Any]:
    moment = _instant(datetime.fromisoformat(entry["time"]))
    said = f"{entry['why']} ({entry['who']})"
    return _row("reference", moment, name=entry["reference"][:8], state="accepted", reason=said, rows=entry["rows"])


def _decided(decision: dict[str, Any], moment: str | None) -> dict[str, Any]:
    time = _instant(datetime.fromisoformat(moment or decision["time"]))
    name = f"{decision['challenger']} against {decision['champion']}"
    return _row("decision", time, name=name, state=decision["decision"], reason=decision["reason"])


def _requested(request: dict[str, Any]) -> dict[str, Any]:
    time = _instant(datetime.fromisoformat(request["created"]))
    shown = {"model": request["model"], "name": request["id"][:8], "state": "requested", "reason": request["reason"]}
    return _row("retrain", time, **shown)


def _audited(data: bytes, path: Path) -> Iterator[dict[str, Any]]:
    """Deeds of an audit log; a decision that was handed in and not acted on is one all the same."""
    for number, line in enumerate(data.splitlines(), 1):
        try:
            entry = json.loads(line)
            row = _decided(entry["decision"], entry["time"])
            row["reason"] = f"{entry['action']}: {entry['reason']}" if entry["done"] else f"{row['reason']} (not done: {entry['reason']})"
        except ValueError:
            if line.startswith(b'{"time": '):
                # What a crash cut short.
                continue
            raise SnapshotError(f"line {number} of {path} is no entry of an audit log") from None
        except (KeyError, TypeError, AttributeError) as error:
            raise SnapshotError(f"line {number} of {path} is no entry of an audit log: {error}") from error
        yield row


def _seconds(length: Any) -> float | None:
    """A length of a policy: text such as "7d", or nanoseconds."""
    from barograph.monitors import _nanoseconds

    if isinstance(length, int | float):
        return length / 1e9
    text = str(length)
    return int(text[:-2]) / 1e9 if text.endswith("ns") and text[:-2].isdigit() else _nanoseconds("budget", text) / 1e9


def _number(rows: list[dict[str, Any]]) -> None:
    """The iteration of every row: deploys of another version begin one, or accepted references where nothing was deployed."""
    deploys = any(row["event"] == "deploy" for row in rows)
    iteration, last = 1, None
    for row in rows:
        begins = row["event"] == "deploy" if deploys else row["event"] == "reference" and row["state"] == "accepted"
        if begins:
            iteration += last is not None and row["name"] != last
            last = row["name"]
        row["iteration"] = iteration
