"""Lineages: which reference was accepted when, by whom and why, what it changed, and when a new one would be right."""

from __future__ import annotations

import hashlib
import json
import math
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, NamedTuple

from barograph.conditions import _canonical, _datetime, _some, _stamp, _time, open_alerts
from barograph.errors import IncompatibleError, InvalidArgumentError, NotFoundError, SnapshotError
from barograph.monitors import _instant, _nanoseconds
from barograph.references import Reference
from barograph.snapshots import write_whole

if TYPE_CHECKING:
    import polars as pl

    from barograph.frames import Frame

__all__ = ["Accepted", "Lineage", "Suggestion"]

_NUMBERS = ("mean", "std", "min", "p01", "median", "p99", "max")
_TOP = 10
_LOWER_IS_BETTER = ("log_loss", "brier", "ece", "ece_debiased", "mae", "rmse", "mse", "mape", "smape")
_NEITHER = ("bias", "prevalence", "predicted_positive")
_KEPT = ("value", "lower", "upper", "threshold", "verdict", "reason")
_NO_DRIFT = "the two references are not at hand: their drift is unknown"


@dataclass(frozen=True)
class Accepted:
    """One line of a lineage.

    number: from 1. reference, parent: ids; the first has no parent. rows: of the reference. difference: columns that came, went or changed
    their kind or role, and how the others drifted, against the parent. summary: of each column. hash: of this line and, by `previous`,
    of all before it.
    """

    number: int
    time: datetime
    who: str
    why: str
    reference: str
    parent: str | None
    rows: int
    difference: tuple[Mapping[str, Any], ...]
    summary: tuple[Mapping[str, Any], ...]
    previous: str | None
    hash: str

    def to_dict(self) -> dict[str, Any]:
        """The line, ready for JSON."""
        return {**_content(self), "hash": self.hash}

    def __str__(self) -> str:
        return f"{self.number}. {self.reference[:8]} by {self.who} on {self.time.date()}: {self.why}"


class Suggestion(NamedTuple):
    """Whether a new reference suggests itself after a change, in words. Never done by itself.

    change: the deploy, or the accepted reference, that the drift began with; time: when. columns: those that drifted.
    """

    suggested: bool
    reason: str
    columns: tuple[str, ...]
    change: str
    time: datetime


class Lineage:
    """The accepted references of a model, one after another.

    path: a file of JSON lines that is only appended to; without it the lineage lives in memory. Every line has the hash of the one
    before: a line that was edited, removed or put in is a SnapshotError with its number. What a chain cannot tell is that its last lines
    are gone: keep `head.hash` elsewhere if that matters. references: a folder that keeps the accepted references themselves, by id; with
    it `reference` and the drift in `diff` work after a restart too. One process writes; another's lines are an IncompatibleError, not lost.

    >>> lineage = Lineage()
    >>> first = lineage.accept(Reference({"x": [1.0, 2.0, 3.0] * 100}), who="ada", why="first model")
    >>> second = lineage.accept(Reference({"x": [1.0, 2.0, 3.0] * 100, "y": ["a", "b"] * 150}), who="ada", why="country added")
    >>> second.parent == first.reference, lineage.diff(first.reference, second.reference).filter(change="added")["column"].to_list()
    (True, ['y'])
    """

    def __init__(self, path: str | Path | None = None, *, references: str | Path | None = None) -> None:
        self._path = None if path is None else Path(path)
        self._folder = None if references is None else Path(references)
        self._held: dict[str, Reference] = {}
        self._lock = threading.Lock()
        self._entries: list[Accepted] = []
        self._size = 0
        if self._path is not None and self._path.exists():
            data = self._path.read_bytes()
            self._entries, self._size = _read(data, self._path), len(data)

    def accept(
        self, new_reference: Reference, *, who: str, why: str, when: datetime | None = None, parent: Reference | str | None = None
    ) -> Accepted:
        """Records that a reference is the one to compare with from now on.

        who, why: in words, not empty. when: now, if absent; not before the last line. parent: the reference it follows, the head if
        absent; it must have been accepted here before. Raises InvalidArgumentError for what is none of that, and for the head itself;
        IncompatibleError if somebody else wrote to the file meanwhile. Nothing is recorded then.
        """
        if not isinstance(new_reference, Reference):
            raise InvalidArgumentError(f"`new_reference` must be a Reference, got {type(new_reference).__name__}")
        for argument, text in (("who", who), ("why", why)):
            if not isinstance(text, str) or not text.strip():
                raise InvalidArgumentError(f"`{argument}` must say something, got {text!r}")
            if any("\ud800" <= letter <= "\udfff" for letter in text):
                raise InvalidArgumentError(f"`{argument}` must be text that can be written, got half a character in it")
        moment = _datetime(_instant(datetime.now(UTC) if when is None else when))
        with self._lock:
            head = self._entries[-1] if self._entries else None
            if head is not None and moment < head.time:
                raise InvalidArgumentError(
                    f"`when` must not be before the last accepted reference, {head.time.isoformat()}, got {moment.isoformat()}"
                )
            if head is not None and new_reference.id == head.reference:
                raise InvalidArgumentError(f"`new_reference` is the accepted one already, {head.reference[:8]}")
            before = self._parent(parent, head)
            summary = _summary(new_reference)
            difference: list[dict[str, Any]] = []
            if before is not None:
                old = parent if isinstance(parent, Reference) else self._at_hand(before.reference)
                drift = [row for row in _drift_rows(old, new_reference) if row["column"] is None or row["verdict"] is not None]
                difference = [*_schema_rows(before.summary, summary), *drift]
            entry = Accepted(
                number=len(self._entries) + 1,
                time=moment,
                who=who,
                why=why,
                reference=new_reference.id,
                parent=None if before is None else before.reference,
                rows=new_reference.rows,
                difference=tuple({key: value for key, value in row.items() if value is not None} for row in difference),
                summary=tuple(summary),
                previous=None if head is None else head.hash,
                hash="",
            )
            entry = Accepted(**{**vars(entry), "hash": _hash(_content(entry))})
            self._keep(new_reference)
            self._append(entry)
            self._entries.append(entry)
            self._held[new_reference.id] = new_reference
        return entry

    def _parent(self, parent: Reference | str | None, head: Accepted | None) -> Accepted | None:
        if parent is None:
            return head
        id = parent.id if isinstance(parent, Reference) else parent
        try:
            return self._find(id)
        except NotFoundError as error:
            raise InvalidArgumentError(f"`parent` must have been accepted before, got {str(id)[:8]}", "accept it first") from error

    def _keep(self, reference: Reference) -> None:
        if self._folder is None:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        target = self._folder / f"{reference.id}.baro"
        if not target.exists():
            write_whole(target, reference.to_bytes())

    def _append(self, entry: Accepted) -> None:
        if self._path is None:
            return
        line = json.dumps(entry.to_dict(), ensure_ascii=False, allow_nan=False).encode() + b"\n"
        with self._path.open("ab") as file:
            if file.tell() != self._size:
                raise IncompatibleError(f"{self._path} was written by somebody else meanwhile", "load the lineage again, then accept")
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        self._size += len(line)

    @property
    def head(self) -> Accepted | None:
        """The last accepted; None of an empty lineage."""
        return self._entries[-1] if self._entries else None

    def at(self, time: datetime) -> Accepted | None:
        """The one that was accepted last at a time; None before the first."""
        moment = _datetime(_instant(time))
        return next((one for one in reversed(self._entries) if one.time <= moment), None)

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, id: str) -> Accepted:
        """The line of a reference (the last, if it was accepted twice), by its id or at least 8 digits of its beginning."""
        return self._find(id)

    def _find(self, id: str) -> Accepted:
        found = {one.reference: one for one in self._entries if isinstance(id, str) and len(id) >= 8 and one.reference.startswith(id)}
        if len(found) != 1:
            known = ", ".join(dict.fromkeys(one.reference[:8] for one in self._entries)) or "none"
            raise NotFoundError(f"no reference {str(id)[:32]!r} was accepted here", f"there are {known}")
        return next(iter(found.values()))

    def reference(self, id: str) -> Reference:
        """An accepted reference itself. Raises NotFoundError for another, or if it is not at hand; SnapshotError if it was changed."""
        found = self._at_hand(self._find(id).reference)
        if found is None:
            raise NotFoundError(f"reference {id[:8]} is not at hand", "make the lineage with `references=` a folder that keeps them")
        return found

    def _at_hand(self, id: str) -> Reference | None:
        if id in self._held:
            return self._held[id]
        kept = None if self._folder is None else self._folder / f"{id}.baro"
        if kept is None or not kept.exists():
            return None
        found = Reference.load(kept)
        if found.id != id:
            raise SnapshotError(f"{kept} holds reference {found.id[:8]}, expected {id[:8]}")
        return found

    def to_frame(self) -> pl.DataFrame:
        """One row per line: number, time, who, why, reference, parent, rows, added, removed, changed, drifted (names of columns)."""
        import polars as pl

        def names(entry: Accepted, *changes: str) -> list[str]:
            return [row["column"] for row in entry.difference if row["change"] in changes and "column" in row]

        rows = [
            {
                "number": one.number,
                "time": one.time,
                "who": one.who,
                "why": one.why,
                "reference": one.reference,
                "parent": one.parent,
                "rows": one.rows,
                "added": names(one, "added"),
                "removed": names(one, "removed"),
                "changed": list(dict.fromkeys(names(one, "kind", "role"))),
                "drifted": list(dict.fromkeys(r["column"] for r in one.difference if r.get("verdict") in ("warning", "critical"))),
            }
            for one in self._entries
        ]
        texts = dict.fromkeys(("who", "why", "reference", "parent"), pl.String())
        lists = dict.fromkeys(("added", "removed", "changed", "drifted"), pl.List(pl.String()))
        schema: dict[str, Any] = {"number": pl.Int64(), "time": pl.Datetime("us", "UTC"), **texts, "rows": pl.Int64(), **lists}
        return pl.DataFrame(rows, schema=schema)

    def diff(self, a: Reference | str, b: Reference | str) -> pl.DataFrame:
        """What changed from one reference to another: each a Reference, or the id of an accepted one.

        Columns: column, change, method, before, after, value, lower, upper, threshold, verdict, reason. change: "added", "removed", "kind",
        "role"; "numbers" (method: count, null_share, distinct, mean, std, min, p01, median, p99, max, or `share of NAME`, with its value
        before and after); "drift" (the rows of `compare` of `b` against `a`, on the cells of both histograms), where both references are
        at hand, else one row that says so.
        """
        import polars as pl

        (old, before), (new, after) = (self._side(one) for one in (a, b))
        rows = [*_schema_rows(before, after), *_number_rows(before, after), *_drift_rows(old, new)]
        numbers = dict.fromkeys(("before", "after", "value", "lower", "upper", "threshold"), pl.Float64)
        schema = {"column": pl.String, "change": pl.String, "method": pl.String, **numbers, "verdict": pl.String, "reason": pl.String}
        return pl.DataFrame(rows, schema=schema)

    def _side(self, one: Reference | str) -> tuple[Reference | None, Sequence[Mapping[str, Any]]]:
        """A reference, if it is at hand, and the summary of its columns."""
        if isinstance(one, Reference):
            return one, _summary(one)
        entry = self._find(one)
        return self._at_hand(entry.reference), entry.summary

    def suggest(
        self,
        alerts: Frame,
        deploys: Mapping[str, datetime] | pl.DataFrame,
        metrics: pl.DataFrame | None = None,
        *,
        metric: str,
        margin: float,
        now: datetime,
        within: str | timedelta = "1d",
        lasting: str | timedelta = "3d",
        confidence: float = 0.95,
    ) -> list[Suggestion]:
        """Whether drift that came with a known change, and stayed, calls for a new reference: one suggestion per change, newest first.

        alerts: a monitor's `alerts()`. Tickets on columns count that are open for at least `lasting`; pages say that data or performance
        are broken, and a column with one is left out. deploys: version → time, or a monitor's `history()` (then known to its window).
        Accepted references are changes too. Drift began with a change if its alert opened after it, in a window that begins at most
        `within` later.

        metrics: what `FeedbackLoop.metrics(confidence=...)` gave. The mean of `metric` over the windows that end before the change, by
        labelled rows, less that over those that begin after it (the other way round where less is better), must be below `margin`, in the
        units of the metric, with its upper limit at the same confidence; windows count as independent. It is suggested then. Where
        performance fell, or cannot be judged, it is not, and the reason says which. Nothing is ever accepted by this.
        """
        import polars as pl

        if not isinstance(metric, str) or metric in _NEITHER or not metric:
            raise InvalidArgumentError(f"`metric` must be one where more or less is better, got {metric!r}")
        if isinstance(margin, bool) or not isinstance(margin, int | float) or not 0 <= margin < math.inf:
            raise InvalidArgumentError(f"`margin` must be a finite number of at least 0, got {margin!r}")
        if not 0.5 <= confidence < 1:
            raise InvalidArgumentError(f"`confidence` must be in [0.5, 1), got {confidence}")
        moment, reach, stays = _instant(now), _nanoseconds("within", within), _nanoseconds("lasting", lasting)
        changes = {**_deployed(deploys), **{f"reference {one.reference[:8]}": _instant(one.time) for one in self._entries}}
        table = alerts if isinstance(alerts, pl.DataFrame) else pl.DataFrame(alerts)
        broken = {row["column"] for row in open_alerts(table, moment, "page")}
        began: dict[str, list[str]] = {}
        for row in open_alerts(table, moment, "ticket"):
            if row["column"] in broken or row["column"] == "(model)" or moment - row["opened"] < stays:
                continue
            start = row["opened"] if row["window_start"] is None else row["window_start"]
            fitting = [(time, name) for name, time in changes.items() if time < row["opened"] and start - time <= reach]
            if fitting:
                began.setdefault(max(fitting)[1], []).append(row["column"])
        out = []
        for name, columns in sorted(began.items(), key=lambda one: changes[one[0]], reverse=True):
            kept, words = _performance(metrics, metric, changes[name], moment, float(margin), confidence)
            names = tuple(dict.fromkeys(columns))
            reason = f"{_some(names)} drifted since {name} on {_datetime(changes[name]).date()} and stayed so; {words}"
            reason += ": make a reference of the rows since then and accept it, if the change was meant" if kept else ": keep the reference"
            out.append(Suggestion(kept, reason, names, name, _datetime(changes[name])))
        return out

    def __repr__(self) -> str:
        return f"Lineage({len(self)} accepted" + (f", head {self.head.reference[:8]})" if self.head else ")")


def _content(entry: Accepted) -> dict[str, Any]:
    """What the hash of a line is made of."""
    return {
        "barograph": "lineage 1",
        "number": entry.number,
        "time": _stamp(entry.time),
        "who": entry.who,
        "why": entry.why,
        "reference": entry.reference,
        "parent": entry.parent,
        "rows": entry.rows,
        "difference": [dict(row) for row in entry.difference],
        "summary": [dict(row) for row in entry.summary],
        "previous": entry.previous,
    }


def _hash(content: dict[str, Any]) -> str:
    return hashlib.sha256(_canonical(content)).hexdigest()


def _read(data: bytes, path: Path) -> list[Accepted]:
    """The lines of a file, checked one after another."""
    entries: list[Accepted] = []
    known: set[str] = set()
    for number, line in enumerate(data.split(b"\n"), 1):
        if not line and number == data.count(b"\n") + 1:
            break
        try:
            if number > data.count(b"\n"):
                raise ValueError("it was cut off")
            entry = _entry(line)
            if entry.previous != (entries[-1].hash if entries else None):
                raise ValueError("the chain is broken: it does not follow the line before")
            if entry.number != number:
                raise ValueError(f"it is number {entry.number}")
            if entry.parent not in known and not (entry.parent is None and not entries):
                raise ValueError(f"its parent {str(entry.parent)[:8]} was never accepted")
            if entries and entry.time < entries[-1].time:
                raise ValueError("it is older than the line before")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise SnapshotError(f"line {number} of {path} is no line of this lineage: {error}") from error
        known.add(entry.reference)
        entries.append(entry)
    return entries


def _entry(line: bytes) -> Accepted:
    document = json.loads(line)
    if document["barograph"] != "lineage 1":
        raise ValueError(f"it is a {document['barograph']!r}")
    content = {name: value for name, value in document.items() if name != "hash"}
    if _hash(content) != document["hash"]:
        raise ValueError("it was edited: its content has another hash")
    fields = {name: value for name, value in document.items() if name != "barograph"}
    fields |= {"time": _time(document["time"]), **{name: tuple(dict(row) for row in document[name]) for name in ("difference", "summary")}}
    return Accepted(**fields)


def _summary(reference: Reference) -> list[dict[str, Any]]:
    """Kind, role, counts, moments, quantiles and the most frequent names of each column; what does not exist is left out."""
    profile, schema = reference.profile, reference.schema
    out = []
    for name, kind in schema.kinds.items():
        column = profile[name]
        quantiles = {"p01": 0.01, "median": 0.5, "p99": 0.99}
        row = {"column": name, "kind": kind, "role": schema.roles[name], "count": column.count, "null_count": column.null_count}
        row |= {"distinct": column.distinct, **{key: getattr(column, key) for key in ("mean", "std", "min", "max")}}
        row |= {key: column.quantile(q) for key, q in quantiles.items()}
        row |= {"top": [[word, count] for word, count in column.top_k(_TOP) or []] or None}
        out.append({key: value for key, value in row.items() if value is not None and not (isinstance(value, float) and math.isinf(value))})
    return out


def _drift_rows(old: Reference | None, new: Reference | None) -> list[dict[str, Any]]:
    """How the columns of both drifted, on the cells of their histograms."""
    from barograph.drift import compare

    if old is None or new is None:
        return [{"column": None, "change": "drift", "reason": _NO_DRIFT}]
    kinds = new.schema.kinds
    shared = {name for name, kind in old.schema.kinds.items() if kinds.get(name) == kind}
    rows = compare(old, new.profile).to_dict()["rows"]
    return [
        {"column": row["column"], "change": "drift", "method": row["method"], **{key: row[key] for key in _KEPT}}
        for row in rows
        if row["column"] in shared
    ]


def _schema_rows(before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Columns that came, went, or are of another kind or role."""
    old, new = ({row["column"]: row for row in side} for side in (before, after))
    rows: list[dict[str, Any]] = [
        {"column": name, "change": "added", "reason": f"kind {new[name]['kind']}"} for name in new if name not in old
    ]
    rows += [{"column": name, "change": "removed", "reason": f"kind {old[name]['kind']}"} for name in old if name not in new]
    for name in old:
        for what in ("kind", "role"):
            if name in new and old[name][what] != new[name][what]:
                rows.append({"column": name, "change": what, "reason": f"{old[name][what]} became {new[name][what]}"})
    return rows


def _number_rows(before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Counts, shares, moments and quantiles of the columns of both, side by side."""
    rows = []
    new = {row["column"]: row for row in after}
    for one in before:
        other = new.get(one["column"])
        if other is None or other["kind"] != one["kind"]:
            continue
        pairs: dict[str, tuple[Any, Any]] = {"count": (one["count"], other["count"])}
        pairs["null_share"] = (_share(one["null_count"], one), _share(other["null_count"], other))
        pairs |= {key: (one.get(key), other.get(key)) for key in ("distinct", *_NUMBERS)}
        tops = [dict(map(tuple, side.get("top") or [])) for side in (one, other)]
        for word in dict.fromkeys([*tops[0], *tops[1]]):
            # Fewer names than were asked for are all there are: the others have none.
            was, now = (top.get(word, 0 if len(top) < _TOP else None) for top in tops)
            pairs[f"share of {word}"] = (_share(was, one), _share(now, other))
        for method, (was, now) in pairs.items():
            if was is None and now is None:
                continue
            reason = None
            if method.startswith("share of ") and (was is None or now is None):
                reason = f"not among the {_TOP} most frequent {'before' if was is None else 'after'}"
            rows.append({"column": one["column"], "change": "numbers", "method": method, "before": was, "after": now, "reason": reason})
    return rows


def _share(count: int | None, row: Mapping[str, Any]) -> float | None:
    return None if count is None or not row["count"] else count / row["count"]


def _deployed(deploys: Any) -> dict[str, int]:
    """Names of deploys and their times, in nanoseconds."""
    import polars as pl

    if isinstance(deploys, pl.DataFrame):
        if missing := [name for name in ("method", "window_start", "reason") if name not in deploys.columns]:
            raise InvalidArgumentError(f"`deploys` must be a monitor's history, column {missing[0]!r} is missing")
        rows = deploys.filter(pl.col("method") == "deploy").select("reason", pl.col("window_start").cast(pl.Datetime("ns")).to_physical())
        return {str(reason): int(time) for reason, time in rows.rows()}
    if not isinstance(deploys, Mapping):
        raise InvalidArgumentError(f"`deploys` must map versions to times, or be a monitor's history, got {type(deploys).__name__}")
    return {f"deploy {version}": _instant(time) for version, time in deploys.items()}


def _performance(metrics: Any, metric: str, change: int, now: int, margin: float, confidence: float) -> tuple[bool, str]:
    """Whether the metric did not fall after a change, for certain, and that in words."""
    import polars as pl

    if metrics is None:
        return False, f"whether {metric} fell is unknown, no metrics were given"
    needed = ("metric", "value", "lower", "upper", "labelled", "window_start", "window_end")
    if missing := [name for name in needed if name not in metrics.columns]:
        raise InvalidArgumentError(f"`metrics` must have the columns of `loop.metrics()`, {missing[0]!r} is missing")
    times = [pl.col(name).cast(pl.Datetime("ns")).to_physical() for name in ("window_start", "window_end")]
    rows = metrics.with_columns(times).filter(pl.col("metric") == metric, pl.col("window_end") <= now)
    rows = rows.drop_nulls(["value", "lower", "upper"]).filter(pl.col("labelled") > 0)
    reach = NormalDist().inv_cdf((1 + confidence) / 2)
    means: list[tuple[float, float]] = []
    for side in (rows.filter(pl.col("window_end") <= change), rows.filter(pl.col("window_start") >= change)):
        if side.is_empty():
            when = "before" if not means else "since"
            return False, f"whether {metric} fell is unknown, there are no windows with an interval {when} the change"
        weights = side["labelled"] / side["labelled"].sum()
        errors = weights * (side["upper"] - side["lower"]) / (2 * reach)
        means.append((float((weights * side["value"]).sum()), float((errors * errors).sum())))
    (before, noise), (after, more) = means
    harm = after - before if metric in _LOWER_IS_BETTER else before - after
    half = NormalDist().inv_cdf(confidence) * math.sqrt(noise + more)
    worse = "risen" if metric in _LOWER_IS_BETTER else "fallen"
    said = f"{metric} went from {before:.4g} to {after:.4g}, has {worse} by at most {max(harm + half, 0.0):.2g} (margin {margin:g})"
    if harm + half < margin:
        return True, said
    if harm - half > 0:
        return False, f"{metric} has {worse} from {before:.4g} to {after:.4g}"
    return False, f"{said}, which is too uncertain"
