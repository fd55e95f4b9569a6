"""What makes a trigger fire: conditions, checked when they are stated, and judged at a time."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from barograph.errors import InvalidArgumentError
from barograph.monitors import _instant, _nanoseconds

if TYPE_CHECKING:
    from barograph.feedback import FeedbackLoop
    from barograph.reports import DriftReport

__all__ = ["Condition", "open_alerts"]

_VERDICTS = ("info", "warning", "critical")
_SEVERITIES = ("ticket", "page")
_KEYS: dict[str, dict[str, Any]] = {
    "metric": {
        "below": None,
        "above": None,
        "window": "1d",
        "k": 1,
        "of": None,
        "least": 100,
        "coverage": 0.9,
        "confidence": 0.99,
        "correct": None,
        "version": None,
        "task": None,
        "point": False,
    },
    "estimate": {"below": None, "above": None},
    "drift": {"columns": None, "least": 1},
    "alert": {"columns": None},
    "every": {},
    "labels": {},
    "all": {},
    "any": {},
}
"""What a condition may say besides its first word, and what holds where it does not."""
_EVIDENCE = ("condition", "name", "value", "lower", "upper", "limit", "rows", "window_start", "window_end", "reason")


class Condition:
    """Something that may hold at a time: one thing, or several combined by `&` (all of them) and `|` (any of them).

    terms: what `to_dict` gives, so that conditions can stand in a file: `{"metric": "roc_auc", "below": 0.7}`, `{"labels": 5000}`,
    `{"all": [...]}`. The class methods below make the same and explain it. Raises InvalidArgumentError for unknown keys, and limits that
    are no finite numbers.

    >>> Condition.metric("roc_auc", below=0.7) & Condition.labels(5000) | Condition.schedule("30d")
    Condition((roc_auc below 0.7 and 5,000 new labels) or every 30d)
    """

    def __init__(self, terms: Mapping[str, Any] | Condition) -> None:
        if isinstance(terms, Condition):
            terms = terms.to_dict()
        if not isinstance(terms, Mapping):
            raise InvalidArgumentError(f"a condition must be a Condition or a mapping, got {type(terms).__name__}")
        self._terms = _checked(dict(terms))

    @classmethod
    def metric(
        cls,
        name: str,
        *,
        below: float | None = None,
        above: float | None = None,
        window: str | timedelta = "1d",
        k: int = 1,
        of: int | None = None,
        least: int = 100,
        coverage: float = 0.9,
        confidence: float = 0.99,
        correct: Literal["delay", "sampling"] | None = None,
        version: str | None = None,
        task: Literal["binary", "multiclass", "regression"] | None = None,
        point: bool = False,
    ) -> Condition:
        """`k` of the last `of` (as many as `k`) windows of the loop have the metric, with all of its interval, below or above the limit.

        window: as in `FeedbackLoop.metrics`; correct, task: too. Only windows count that are over, have `least` labelled rows, and whose
        labels have had their time: with a horizon, windows that ended longer ago than it; without one, windows of which the share
        `coverage` of the predictions has a label; `correct` takes the place of both. Labels that merely came early are no sample.
        confidence: of the interval; a metric that is exactly at its limit fires in one window of 2 / (1 - confidence). version:
        predictions of this one only. point: judge the value itself where a metric has no interval (f1, rmse, average_precision);
        otherwise that is unknown.
        A window counts for one request at most: those that were over at the last request are its cause, not the next one's.
        """
        rest = {"k": k, "of": of, "least": least, "coverage": coverage, "confidence": confidence, "correct": correct}
        return cls(
            {"metric": name, "below": below, "above": above, "window": window, **rest, "version": version, "task": task, "point": point}
        )

    @classmethod
    def estimate(cls, name: str, *, below: float | None = None, above: float | None = None) -> Condition:
        """An estimate without labels is below or above the limit, with its interval where it has one.

        The trigger is handed `estimates`: a mapping of names to numbers or to (value, lower, upper), a frame with the columns metric,
        value, lower and upper (and window_end, if its newest window is to be taken), or what has such a `to_frame()`, as those of `Cbpe`.
        """
        return cls({"estimate": name, "below": below, "above": above})

    @classmethod
    def drift(
        cls, verdict: Literal["info", "warning", "critical"] = "warning", *, columns: Sequence[str] | None = None, least: int = 1
    ) -> Condition:
        """At least `least` tested columns (of `columns`, if given) of the `report` have this verdict or a worse one.

        A report against another reference than the accepted one (where the trigger is handed a lineage) is unknown, and one that was the
        evidence of the last request is no cause for another.
        """
        return cls({"drift": verdict, "columns": None if columns is None else list(columns), "least": least})

    @classmethod
    def alert(cls, severity: Literal["ticket", "page"] = "ticket", *, columns: Sequence[str] | None = None) -> Condition:
        """An alert of this severity, or a worse one, is open (on one of `columns`, if given) in `alerts`, a monitor's `alerts()`.

        It must have opened, or reached the severity, after the last request.
        """
        return cls({"alert": severity, "columns": None if columns is None else list(columns)})

    @classmethod
    def schedule(cls, every: str | timedelta) -> Condition:
        """So much time passed since the last request, the last accepted reference, or the trigger's first check, whichever is last."""
        return cls({"every": every})

    @classmethod
    def labels(cls, count: int) -> Condition:
        """So many predictions have a label (or a correction) that arrived after the last request."""
        return cls({"labels": count})

    @classmethod
    def all(cls, *conditions: Condition | Mapping[str, Any]) -> Condition:
        """All of them hold; unknown where one is unknown and none fails."""
        return cls({"all": conditions})

    @classmethod
    def any(cls, *conditions: Condition | Mapping[str, Any]) -> Condition:
        """One of them holds."""
        return cls({"any": conditions})

    def __and__(self, other: Condition) -> Condition:
        return Condition({"all": [*_parts(self, "all"), *_parts(other, "all")]}) if isinstance(other, Condition) else NotImplemented

    def __or__(self, other: Condition) -> Condition:
        return Condition({"any": [*_parts(self, "any"), *_parts(other, "any")]}) if isinstance(other, Condition) else NotImplemented

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON; `Condition(...)` of it is equal."""
        copied: dict[str, Any] = json.loads(json.dumps(self._terms))
        return copied

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Condition) and self._terms == other._terms

    def __hash__(self) -> int:
        return hash(_canonical(self._terms))

    def __repr__(self) -> str:
        return f"Condition({_words(self._terms)})"


class _Seen(NamedTuple):
    """What a check looks at; times in nanoseconds. `held` and `judged` are filled while it looks."""

    now: int
    loop: FeedbackLoop | None
    report: DriftReport | None
    alerts: Any
    estimates: Any
    accepted: Any
    last: int | None
    began: int
    used: frozenset[str]
    held: list[str]
    judged: list[tuple[dict[str, Any], _Found]]

    @property
    def accepted_at(self) -> int | None:
        """When the newest accepted reference was."""
        return None if self.accepted is None else _instant(self.accepted.time)

    def new(self, time: int) -> bool:
        """Whether something of this time is newer than the last request, and not older than the accepted reference."""
        since = self.accepted_at
        return (self.last is None or time > self.last) and (since is None or time >= since)


class _Found(NamedTuple):
    """Whether a condition holds (None: unknown), why, and on what evidence."""

    holds: bool | None
    reason: str
    evidence: list[dict[str, Any]]


def _judge(terms: dict[str, Any], seen: _Seen) -> _Found:
    kind = next(iter(terms))
    if kind not in ("all", "any"):
        found = _JUDGES[kind](terms, seen)
        if found.holds:
            mark = _mark(terms, found.evidence)
            seen.held.append(mark)
            # Windows, alerts and labels know their time; what does not is known by its content.
            if kind in ("drift", "estimate") and mark in seen.used:
                found = _Found(False, f"{found.reason}; the same as at the last request", [])
        seen.judged.append((terms, found))
        return found
    founds = [_judge(one, seen) for one in terms[kind]]
    decisive = kind == "any"
    if any(one.holds is decisive for one in founds):
        holds: bool | None = decisive
    else:
        holds = None if any(one.holds is None for one in founds) else not decisive
    telling = [one for one in founds if one.holds is holds]
    evidence = [row for one in telling for row in one.evidence] if holds else []
    return _Found(holds, "; ".join(one.reason for one in telling), evidence)


def _metric(terms: dict[str, Any], seen: _Seen) -> _Found:
    import polars as pl

    name, loop, correct, version = terms["metric"], seen.loop, terms["correct"], terms["version"]
    if loop is None:
        return _Found(None, f"{name}: no loop was given", [])
    length, horizon = _nanoseconds("window", terms["window"]), loop._horizon
    if correct == "delay" and horizon is not None:
        mature = loop.joined(as_of=_datetime(seen.now)).filter(pl.col("time").to_physical() <= seen.now - horizon)
        if mature.is_empty():
            return _Found(None, f"{name}: no labelled prediction is older than the horizon yet", [])
    frame = loop.metrics(
        terms["window"],
        by=None if version is None else "version",
        task=terms["task"],
        correct=correct,
        as_of=_datetime(seen.now),
        confidence=terms["confidence"],
    )
    if version is not None:
        frame = frame.filter(pl.col("version") == version)
    if frame.is_empty():
        return _Found(None, f"{name}: no predictions yet", [])
    if not (frame["labelled"] > 0).any():
        return _Found(None, f"{name}: no labels yet", [])
    if name not in (known := frame["metric"].unique(maintain_order=True).to_list()):
        raise InvalidArgumentError(f"the loop has no metric {name!r}", _nearest(name, known))
    end = pl.col("window_end").to_physical()
    frame = frame.filter(pl.col("metric") == name, end <= seen.now).sort("window_end")
    if correct is None and horizon is not None:
        frame = frame.filter(end + horizon <= seen.now)
    elif correct is None:
        frame = frame.filter(pl.col("labelled") >= terms["coverage"] * pl.col("predictions"))
    frame = frame.filter(pl.col("value").is_not_null(), pl.col("labelled") >= terms["least"])
    if seen.last is not None:
        frame = frame.filter(end > seen.last)
    if seen.accepted_at is not None:
        frame = frame.filter(end - length >= seen.accepted_at)
    k, of = terms["k"], terms["of"] or terms["k"]
    rows = frame.tail(of).to_dicts()
    if len(rows) < k:
        return _Found(None, f"{name}: {len(rows)} new windows can be judged, {k} are needed", [])
    if not terms["point"] and any(row["lower"] is None or row["upper"] is None for row in rows):
        return _Found(None, f"{name} has no interval here; `point=True` judges the value itself", [])
    limit, side = _limit(terms)
    beyond = [row for row in rows if _beyond(terms, row["value"], row["lower"], row["upper"])]
    newest = (beyond or rows)[-1]
    value = (
        f"{_number(newest['value'])}{_span(newest)} in the window of {newest['window_start'].isoformat()}, {newest['labelled']:,} labels"
    )
    windows = f"{len(beyond)} of {len(rows)} windows, the newest of them " if of > 1 else ""
    reason = f"{name} {side} {_number(limit)}: {windows}{value}"
    if len(beyond) < k:
        return _Found(False, f"{name} not {side} {_number(limit)} for certain: {windows if beyond else ''}{value}", [])
    evidence = [
        _row(
            terms,
            name,
            row,
            limit,
            rows=row["labelled"],
            window_start=_stamp(row["window_start"]),
            window_end=_stamp(row["window_end"]),
        )
        for row in beyond
    ]
    return _Found(True, reason, evidence)


def _estimate(terms: dict[str, Any], seen: _Seen) -> _Found:
    name = terms["estimate"]
    if seen.estimates is None:
        return _Found(None, f"estimated {name}: no estimates were given", [])
    row = _estimated(name, seen.estimates)
    if row is None or row["value"] is None:
        return _Found(None, f"estimated {name}: there is no value", [])
    limit, side = _limit(terms)
    value = f"{_number(row['value'])}{_span(row)}"
    if not _beyond(terms, row["value"], row["lower"], row["upper"]):
        return _Found(False, f"estimated {name} not {side} {_number(limit)} for certain: {value}", [])
    end = row.get("window_end")
    evidence = _row(terms, name, row, limit, window_end=None if end is None else _stamp(end))
    return _Found(True, f"estimated {name} {side} {_number(limit)}: {value}", [evidence])


def _estimated(name: str, estimates: Any) -> dict[str, Any] | None:
    """Value and limits of an estimate, whatever they came in; None if it is not there."""
    import polars as pl

    if hasattr(estimates, "to_frame"):
        estimates = estimates.to_frame()
    if isinstance(estimates, pl.DataFrame):
        if missing := {"metric", "value"} - set(estimates.columns):
            raise InvalidArgumentError(f"`estimates` must have the columns metric and value, {sorted(missing)[0]!r} is missing")
        rows = estimates.filter(pl.col("metric") == name)
        if "window_end" in rows.columns:
            rows = rows.sort("window_end")
        row = rows.row(-1, named=True) if rows.height else None
        return None if row is None else {"lower": None, "upper": None, **{key: _finite(one) for key, one in row.items()}}
    if not isinstance(estimates, Mapping):
        raise InvalidArgumentError(f"`estimates` must be a mapping, a frame, or have a `to_frame()`, got {type(estimates).__name__}")
    value = estimates.get(name)
    if value is None:
        return None
    three = [value, None, None] if isinstance(value, int | float) else list(value)
    if len(three) != 3 or not all(one is None or isinstance(one, int | float) for one in three):
        raise InvalidArgumentError(f"`estimates` must map {name!r} to a number or to (value, lower, upper), got {value!r}")
    return dict(zip(("value", "lower", "upper"), map(_finite, three), strict=True))


def _drift(terms: dict[str, Any], seen: _Seen) -> _Found:
    from barograph.reports import DriftReport

    wanted, columns = terms["drift"], terms["columns"]
    if seen.report is None:
        return _Found(None, "drift: no report was given", [])
    if not isinstance(seen.report, DriftReport):
        raise InvalidArgumentError(f"`report` must be a DriftReport, got {type(seen.report).__name__}")
    document = seen.report.to_dict()
    if seen.accepted is not None and document["reference"] != seen.accepted.reference:
        against, accepted = document["reference"][:8], seen.accepted.reference[:8]
        return _Found(None, f"drift: the report is against reference {against}, the accepted one is {accepted}", [])
    judged = {column["column"]: column["verdict"] for column in document["columns"] if column["verdict"]}
    if columns is not None:
        judged = {name: verdict for name, verdict in judged.items() if name in columns}
    moved = {name for name, verdict in judged.items() if verdict in _VERDICTS[_VERDICTS.index(wanted) :]}
    if not judged:
        return _Found(None, "drift: no such column was tested", [])
    if len(moved) < terms["least"]:
        return _Found(False, f"drift: {len(moved)} of {len(judged)} columns at {wanted} or worse, {terms['least']} are needed", [])
    evidence = [
        _row(terms, row["column"], row, row["threshold"], rows=row["n_current"], reason=row["reason"])
        for row in document["rows"]
        if row["column"] in moved and row["verdict"] in _VERDICTS[_VERDICTS.index(wanted) :]
    ]
    return _Found(True, f"drift: {_some(sorted(moved))} at {wanted} or worse", evidence)


def _alert(terms: dict[str, Any], seen: _Seen) -> _Found:
    if seen.alerts is None:
        return _Found(None, "alerts: none were given", [])
    wanted, columns = terms["alert"], terms["columns"]
    fitting = [row for row in open_alerts(seen.alerts, seen.now, wanted) if columns is None or row["column"] in columns]
    rows = [row for row in fitting if seen.new(row["reached"])]
    if not rows:
        old = f", but {len(fitting)} from before the last request or accepted reference" if fitting else ""
        return _Found(False, f"alerts: no {wanted} is open{old}", [])
    evidence = []
    for row in rows:
        window = {"window_start": None if row["window_start"] is None else _iso(row["window_start"]), "window_end": _iso(row["reached"])}
        evidence.append(_row(terms, row["column"], row, row["threshold"], **window, reason=row["reason"]))
    return _Found(True, f"alerts: {_some([row['column'] for row in rows])} open at {wanted} or worse", evidence)


def open_alerts(alerts: Any, now: int, severity: str) -> list[dict[str, Any]]:
    """The alerts open at a time (nanoseconds) with this severity or a worse one, as they opened: `reached` is when they came to have it."""
    import polars as pl

    frame = alerts if isinstance(alerts, pl.DataFrame) else pl.DataFrame(alerts)
    needed = ("id", "column", "state", "severity", "time", "window_start")
    if missing := [name for name in needed if name not in frame.columns]:
        raise InvalidArgumentError(
            f"`alerts` must have the columns of a monitor's alerts, {missing[0]!r} is missing", "pass `monitor.alerts()`"
        )
    for name in ("time", "window_start"):
        if not frame.schema[name].is_temporal() and not frame.schema[name].is_integer():
            raise InvalidArgumentError(f"`alerts` must have times, column {name!r} is {frame.schema[name]}")
    if unknown := set(frame["severity"].drop_nulls()) - set(_SEVERITIES):
        raise InvalidArgumentError(f"`alerts` must have severities {' and '.join(_SEVERITIES)}, got {min(unknown)!r}")
    times = [pl.col(name).cast(pl.Datetime("ns")).to_physical() for name in ("time", "window_start")]
    open_ones: dict[int, dict[str, Any]] = {}
    for change in frame.with_columns(times).drop_nulls(["id", "time", "severity"]).iter_rows(named=True):
        if change["time"] > now:
            continue
        if change["state"] == "resolved":
            open_ones.pop(change["id"], None)
            continue
        shown = {name: change.get(name) for name in ("column", "window_start", "value", "lower", "upper", "threshold", "reason")}
        row = open_ones.setdefault(change["id"], {**shown, "opened": change["time"], "reached": None})
        bad = _SEVERITIES.index(change["severity"]) >= _SEVERITIES.index(severity)
        row["reached"] = (row["reached"] or change["time"]) if bad else None
        row["severity"] = change["severity"]
    return [row for row in open_ones.values() if row["reached"] is not None]


def _every(terms: dict[str, Any], seen: _Seen) -> _Found:
    begins = {"the first check": seen.began, "the last request": seen.last, "the last accepted reference": seen.accepted_at}
    name, since = max(((name, time) for name, time in begins.items() if time is not None), key=lambda one: one[1])
    passed = seen.now - since
    reason = f"every {terms['every']}: {passed / 86_400e9:.4g} days since {name}"
    evidence = {"value": passed / 1e9, "lower": None, "upper": None}
    limit = _nanoseconds("every", terms["every"])
    if passed < limit:
        return _Found(False, reason, [])
    return _Found(True, reason, [_row(terms, "seconds", evidence, limit / 1e9, window_start=_iso(since), window_end=_iso(seen.now))])


def _labels(terms: dict[str, Any], seen: _Seen) -> _Found:
    if seen.loop is None:
        return _Found(None, "labels: no loop was given", [])
    arrived = seen.loop.joined(as_of=_datetime(seen.now))["label_time"].to_physical()
    count = len(arrived) if seen.last is None else int((arrived > seen.last).sum())
    since = "" if seen.last is None else " since the last request"
    reason = f"labels: {count:,}{since}, {terms['labels']:,} are needed"
    if count < terms["labels"]:
        return _Found(False, reason, [])
    value = {"value": float(count), "lower": None, "upper": None}
    start = None if seen.last is None else _iso(seen.last)
    evidence = _row(terms, "labels", value, float(terms["labels"]), rows=count, window_start=start, window_end=_iso(seen.now))
    return _Found(True, f"{count:,} new labels{since}", [evidence])


_JUDGES: dict[str, Callable[[dict[str, Any], _Seen], _Found]] = {
    "metric": _metric,
    "estimate": _estimate,
    "drift": _drift,
    "alert": _alert,
    "every": _every,
    "labels": _labels,
}


def _row(terms: dict[str, Any], name: str, row: Mapping[str, Any], limit: float | None, **rest: Any) -> dict[str, Any]:
    """A row of evidence, ready for JSON."""
    numbers = {key: _finite(row[key]) for key in ("value", "lower", "upper")}
    known = {"condition": _words(terms), "name": name, "limit": _finite(limit), **numbers, **rest}
    return {key: known.get(key) for key in _EVIDENCE}


def _limit(terms: Mapping[str, Any]) -> tuple[float, str]:
    return (terms["below"], "below") if terms["below"] is not None else (terms["above"], "above")


def _beyond(terms: Mapping[str, Any], value: float, lower: float | None, upper: float | None) -> bool:
    """All of the interval, or the value where there is none."""
    if terms["below"] is not None:
        return bool((value if upper is None else upper) < terms["below"])
    return bool((value if lower is None else lower) > terms["above"])


def _checked(terms: dict[str, Any]) -> dict[str, Any]:
    """The terms with everything stated, first the word that says what it is about."""
    kinds = [name for name in _KEYS if name in terms]
    if len(kinds) != 1:
        raise InvalidArgumentError(f"a condition must have one of the keys {', '.join(_KEYS)}, got {', '.join(map(str, terms)) or 'none'}")
    kind = kinds[0]
    allowed = {kind: None, **_KEYS[kind]}
    for name in terms:
        if name not in allowed:
            raise InvalidArgumentError(f"a condition on {kind!r} has no {name!r}", _nearest(str(name), list(allowed)))
    if kind in ("all", "any"):
        inner = terms[kind]
        if isinstance(inner, str | Mapping) or not isinstance(inner, Sequence) or not inner:
            raise InvalidArgumentError(f"`{kind}` must hold at least one condition, got {inner!r}")
        return {kind: [Condition(one)._terms for one in inner]}
    out = {kind: terms[kind], **_KEYS[kind], **terms}
    _CHECKS[kind](out)
    return out


def _check_limit(terms: dict[str, Any]) -> None:
    kind = next(iter(terms))
    if not isinstance(terms[kind], str) or not terms[kind]:
        raise InvalidArgumentError(f"`{kind}` must be a name, got {terms[kind]!r}")
    given = [name for name in ("below", "above") if terms[name] is not None]
    if len(given) != 1:
        raise InvalidArgumentError(f"a condition on {terms[kind]!r} needs `below` or `above`, got {'both' if given else 'neither'}")
    limit = terms[given[0]]
    if isinstance(limit, bool) or not isinstance(limit, int | float) or not math.isfinite(limit):
        raise InvalidArgumentError(f"`{given[0]}` must be a finite number, got {limit!r}")
    terms[given[0]] = float(limit)


def _check_metric(terms: dict[str, Any]) -> None:
    _check_limit(terms)
    terms["window"] = _text_length("window", terms["window"])
    for name, least in (("k", 1), ("of", 1), ("least", 0)):
        if not _whole(terms[name], least) and not (name == "of" and terms[name] is None):
            raise InvalidArgumentError(f"`{name}` must be a whole number of at least {least}, got {terms[name]!r}")
    if terms["of"] is not None and terms["of"] < terms["k"]:
        raise InvalidArgumentError(f"`of` must not be less than `k`, got {terms['k']} of {terms['of']}")
    for name, low, end in (("coverage", 0.0, "]"), ("confidence", 0.5, ")")):
        share = terms[name]
        number = isinstance(share, int | float) and not isinstance(share, bool)
        if not number or not low <= share <= 1 or (share == 1 and end == ")"):
            raise InvalidArgumentError(f"`{name}` must be in [{low:g}, 1{end}, got {share!r}")
    if terms["correct"] not in (None, "delay", "sampling"):
        raise InvalidArgumentError(f'`correct` must be "delay" or "sampling", got {terms["correct"]!r}')
    if terms["task"] not in (None, "binary", "multiclass", "regression"):
        raise InvalidArgumentError(f"`task` must be binary, multiclass or regression, got {terms['task']!r}")
    if not isinstance(terms["point"], bool):
        raise InvalidArgumentError(f"`point` must be true or false, got {terms['point']!r}")


def _check_columns(terms: dict[str, Any]) -> None:
    columns = terms["columns"]
    if columns is None:
        return
    if isinstance(columns, str) or not isinstance(columns, Sequence) or not columns or not all(isinstance(name, str) for name in columns):
        raise InvalidArgumentError(f"`columns` must be a list of names, got {columns!r}")


def _check_drift(terms: dict[str, Any]) -> None:
    if terms["drift"] not in _VERDICTS:
        raise InvalidArgumentError(f"`drift` must be {', '.join(_VERDICTS[:-1])} or {_VERDICTS[-1]}, got {terms['drift']!r}")
    _check_columns(terms)
    if not _whole(terms["least"], 1):
        raise InvalidArgumentError(f"`least` must be a whole number of at least 1, got {terms['least']!r}")


def _check_alert(terms: dict[str, Any]) -> None:
    if terms["alert"] not in _SEVERITIES:
        raise InvalidArgumentError(f"`alert` must be {' or '.join(_SEVERITIES)}, got {terms['alert']!r}")
    _check_columns(terms)


def _check_every(terms: dict[str, Any]) -> None:
    terms["every"] = _text_length("every", terms["every"])


def _check_labels(terms: dict[str, Any]) -> None:
    if not _whole(terms["labels"], 1):
        raise InvalidArgumentError(f"`labels` must be a whole number of at least 1, got {terms['labels']!r}")


_CHECKS: dict[str, Callable[[dict[str, Any]], None]] = {
    "metric": _check_metric,
    "estimate": _check_limit,
    "drift": _check_drift,
    "alert": _check_alert,
    "every": _check_every,
    "labels": _check_labels,
}


def _words(terms: Mapping[str, Any]) -> str:
    """A condition in words."""
    kind = next(iter(terms))
    if kind in ("all", "any"):
        inner = [_words(one) for one in terms[kind]]
        nested = [f"({text})" if next(iter(one)) in ("all", "any") else text for text, one in zip(inner, terms[kind], strict=True)]
        return {"all": " and ", "any": " or "}[kind].join(nested)
    if kind in ("metric", "estimate"):
        limit, side = _limit(terms)
        return f"{'estimated ' if kind == 'estimate' else ''}{terms[kind]} {side} {_number(limit)}"
    if kind in ("drift", "alert"):
        of = "" if terms["columns"] is None else f" of {_some(terms['columns'])}"
        return f"{kind} at {terms[kind]}{of}"
    return f"every {terms['every']}" if kind == "every" else f"{terms['labels']:,} new labels"


def _parts(condition: Condition, kind: str) -> list[Any]:
    """What a combination of the same kind is made of, so that chains stay flat."""
    terms = condition._terms
    return list(terms[kind]) if kind in terms else [terms]


def _whole(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _length(argument: str, length: str | timedelta) -> int:
    found = _nanoseconds(argument, length)
    if found <= 0:
        raise InvalidArgumentError(f"`{argument}` must be longer than nothing, got {length!r}")
    return found


def _text_length(argument: str, length: str | timedelta) -> str:
    """A length as text, so that it can stand in a file."""
    nanoseconds = _length(argument, length)
    if isinstance(length, str):
        return length
    if nanoseconds % 10**9:
        raise InvalidArgumentError(f"`{argument}` must be whole seconds, got {length!r}")
    seconds = nanoseconds // 10**9
    unit = next(unit for unit in (86_400, 3600, 60, 1) if seconds % unit == 0)
    return f"{seconds // unit}{ {86_400: 'd', 3600: 'h', 60: 'm', 1: 's'}[unit] }"


def _nearest(name: str, known: Sequence[str]) -> str:
    near = get_close_matches(name, known, 1)
    return f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"


def _number(value: float) -> str:
    return f"{value:.4g}"


def _span(row: Mapping[str, Any]) -> str:
    if row["lower"] is None or row["upper"] is None:
        return ""
    return f" ({_number(row['lower'])} to {_number(row['upper'])})"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _canonical(document: Any) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def _mark(terms: Mapping[str, Any], evidence: Sequence[Mapping[str, Any]]) -> str:
    return hashlib.sha256(_canonical([terms, list(evidence)])).hexdigest()[:32]


def _datetime(nanoseconds: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=nanoseconds // 1000)


def _month(nanoseconds: int) -> tuple[int, int]:
    moment = _datetime(nanoseconds)
    return moment.year, moment.month


def _stamp(moment: datetime) -> str:
    """ISO 8601 in UTC, to the microsecond."""
    return _iso(_instant(moment))


def _iso(nanoseconds: int) -> str:
    return _datetime(nanoseconds).isoformat(timespec="microseconds")


def _said(nanoseconds: int) -> str:
    return _datetime(nanoseconds).isoformat()


def _time(text: Any) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"the time {text!r} has no offset")
    return moment.astimezone(UTC)


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name} must be text, got {type(value).__name__}")
    return value


def _maybe(value: Any) -> int | None:
    return None if value is None else int(value)
