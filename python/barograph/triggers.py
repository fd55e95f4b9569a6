"""When to retrain: conditions on metrics, estimates, drift, time and labels, and the request that comes of them.

| condition | holds when |
|---|---|
| `Condition.metric` | a windowed metric of the loop is beyond a limit, with its interval |
| `Condition.estimate` | an estimate without labels is |
| `Condition.drift` | columns of a report moved |
| `Condition.alert` | an alert of a monitor is open |
| `Condition.schedule` | the last request is so long ago |
| `Condition.labels` | so many labels came since the last request |

Any of them combine by `&` and `|`. A `Trigger` asks for a refit, it does not refit: what it gives is a `RetrainRequest`.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from barograph.conditions import (
    Condition,
    _canonical,
    _datetime,
    _Found,
    _judge,
    _length,
    _maybe,
    _month,
    _said,
    _Seen,
    _stamp,
    _text,
    _time,
    _whole,
    _words,
)
from barograph.errors import InvalidArgumentError, SnapshotError
from barograph.monitors import _instant, _nanoseconds
from barograph.rollbacks import Outcome
from barograph.snapshots import as_bytes, write_whole

if TYPE_CHECKING:
    import polars as pl

    from barograph.feedback import FeedbackLoop
    from barograph.frames import Frame
    from barograph.lineages import Lineage
    from barograph.reports import DriftReport

__all__ = ["Condition", "RetrainRequest", "Trigger"]


@dataclass(frozen=True, kw_only=True)
class RetrainRequest:
    """Fit the model again, on these rows, for this reason.

    created: when, and `as_of`: labels that had arrived by then count, later ones and corrections do not. since, until: predictions of the
    half-open window `[since, until)`; since None is from the beginning. version: predictions of this one only; columns: features;
    None is all. reason: in words. evidence: the rows that made it fire. id: a hash of all that; equal requests have equal ids.
    """

    model: str
    created: datetime
    since: datetime | None
    until: datetime
    version: str | None
    columns: tuple[str, ...] | None
    reason: str
    evidence: tuple[Mapping[str, Any], ...]
    as_of: datetime

    @property
    def id(self) -> str:
        """32 hexadecimal digits."""
        return hashlib.sha256(_canonical(self._document())).hexdigest()[:32]

    @property
    def rows(self) -> dict[str, Any]:
        """The filter: since, until, version, columns, ready for JSON."""
        columns = None if self.columns is None else list(self.columns)
        since = None if self.since is None else _stamp(self.since)
        return {"since": since, "until": _stamp(self.until), "version": self.version, "columns": columns}

    def _document(self) -> dict[str, Any]:
        return {
            "barograph": "retrain request 1",
            "model": self.model,
            "created": _stamp(self.created),
            "as_of": _stamp(self.as_of),
            "rows": self.rows,
            "reason": self.reason,
            "evidence": [dict(row) for row in self.evidence],
        }

    def to_json(self) -> str:
        """All of it; times in UTC as ISO 8601."""
        return json.dumps({"id": self.id, **self._document()}, ensure_ascii=False, allow_nan=False)

    @classmethod
    def from_json(cls, text: str | bytes) -> RetrainRequest:
        """Reads what `to_json` gave. Raises SnapshotError for anything else, or for a content that does not fit its id."""
        try:
            document = json.loads(text)
            if document["barograph"] != "retrain request 1":
                raise ValueError(f"it is a {document['barograph']!r}")
            rows = document["rows"]
            out = cls(
                model=_text("model", document["model"]),
                created=_time(document["created"]),
                since=None if rows["since"] is None else _time(rows["since"]),
                until=_time(rows["until"]),
                version=None if rows["version"] is None else _text("version", rows["version"]),
                columns=None if rows["columns"] is None else tuple(_text("columns", name) for name in rows["columns"]),
                reason=_text("reason", document["reason"]),
                evidence=tuple(dict(row) for row in document["evidence"]),
                as_of=_time(document["as_of"]),
            )
            if out.id != document["id"]:
                raise ValueError(f"its id is {document['id']!r}, its content gives {out.id!r}")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise SnapshotError(f"this is no retrain request: {error}") from error
        return out

    def to_frame(self) -> pl.DataFrame:
        """The evidence: condition, name (metric or column), value, lower, upper, limit, rows, window_start, window_end, reason."""
        import polars as pl

        numbers = dict.fromkeys(("value", "lower", "upper", "limit"), pl.Float64)
        schema = {"condition": pl.String, "name": pl.String, **numbers, "rows": pl.Int64}
        schema |= {"window_start": pl.String, "window_end": pl.String, "reason": pl.String}
        frame = pl.DataFrame([dict(row) for row in self.evidence], schema=schema)
        return frame.with_columns(pl.col("window_start", "window_end").str.to_datetime("%+", time_unit="us", time_zone="UTC"))

    def training_frame(self, loop: FeedbackLoop, features: pl.DataFrame | pl.LazyFrame, *, id: str) -> pl.LazyFrame:
        """The rows to fit on: `features` joined with the labels that had arrived when the request was made.

        Labels and corrections that the loop was told of since do not change it, as `as_of` decides what counts. features: a frame of yours
        with the column `id`. Gives its columns (those of the request and `id`, if it names any), label, prediction_time. Raises
        InvalidArgumentError for a column that it has not.
        """
        frame = loop.training_frame(features, id=id, since=self.since, until=self.until, version=self.version, as_of=self.as_of)
        if self.columns is None:
            return frame
        known = frame.collect_schema().names()
        if missing := [name for name in self.columns if name not in known]:
            raise InvalidArgumentError(f"`features` must have the columns of the request, {missing[0]!r} is missing")
        return frame.select(list(dict.fromkeys([id, *self.columns, "label", "prediction_time"])))

    def save(self, path: str | Path) -> Path:
        """Writes it to a file, or as ID.json into a folder; whoever reads finds all of it or nothing. Gives the file's path."""
        target = Path(path)
        if target.is_dir():
            target = target / f"{self.id}.json"
        write_whole(target, self.to_json().encode())
        return target

    def deliver(self, *to: Callable[[RetrainRequest], object] | str | Path) -> list[Outcome]:
        """Hands it to functions, webhooks, files or folders; one outcome each, in order.

        What fails is an outcome with its reason, not an exception; handing it over once more is a retry, with the same id. A function that
        gives an `Outcome` has decided itself. Takes as long as they take.
        """
        for one in to:
            if not isinstance(one, str | Path) and not callable(one):
                raise InvalidArgumentError(f"`to` must be functions, webhooks or paths, got {type(one).__name__}")
            if isinstance(one, str) and one.startswith(("http://", "https://")):
                raise InvalidArgumentError("`to` must be functions, webhooks or paths, got a URL", "wrap it: `Webhook(url)`")
        return [self._delivered(one) for one in to]

    def _delivered(self, to: Callable[[RetrainRequest], object] | str | Path) -> Outcome:
        try:
            if isinstance(to, str | Path):
                return Outcome(True, f"written to {self.save(to)}")
            said = to(self)
        except Exception as error:
            # Whoever takes requests must not stop whoever makes them.
            return Outcome(False, f"{type(error).__name__}: {error}")
        return said if isinstance(said, Outcome) else Outcome(True, "called" if said is None else str(said))


class Trigger:
    """Says when a model should be fitted again, and on what.

    when: a `Condition`, or a mapping of its terms. fit_on: how much time of predictions to fit on, until the decision (less the loop's
    horizon, as later predictions have only the labels that came early); without it everything from the beginning. cooldown: no request so
    soon after another. most_per_month: at most so many requests in a calendar month, UTC; None is without limit. version, columns: handed
    on in the request.

    Deterministic: the time is an argument, nothing later than it counts, and equal calls give equal requests. A cause is asked for once:
    windows, alerts and labels count if they are newer than the last request, a report or an estimate if it is not the same again. What
    cooldown or budget hold back is not forgotten: it fires after them if it still holds.

    >>> from datetime import UTC, timedelta
    >>> trigger = Trigger("fraud", Condition.schedule("30d"), cooldown="1d")
    >>> start = datetime(2026, 1, 1, tzinfo=UTC)
    >>> trigger.check(start), trigger.check(start + timedelta(days=29))
    (None, None)
    >>> trigger.check(start + timedelta(days=30)).reason
    'every 30d: 30 days since the first check'
    """

    def __init__(
        self,
        model: str,
        when: Condition | Mapping[str, Any],
        *,
        fit_on: str | timedelta | None = None,
        cooldown: str | timedelta = "1d",
        most_per_month: int | None = 4,
        version: str | None = None,
        columns: Sequence[str] | None = None,
    ) -> None:
        if not isinstance(model, str) or not model:
            raise InvalidArgumentError(f"`model` must be a name, got {model!r}")
        if most_per_month is not None and not _whole(most_per_month, 1):
            raise InvalidArgumentError(f"`most_per_month` must be a whole number of at least 1, or None, got {most_per_month!r}")
        if isinstance(columns, str) or (columns is not None and not all(isinstance(name, str) for name in columns)):
            raise InvalidArgumentError(f"`columns` must be a list of names, got {columns!r}")
        self.model, self.when, self.most_per_month = model, Condition(when), most_per_month
        self.version, self.columns = version, None if columns is None else tuple(columns)
        self._fit_on = None if fit_on is None else _length("fit_on", fit_on)
        self._cooldown = _nanoseconds("cooldown", cooldown)
        self._lock = threading.Lock()
        self._began: int | None = None
        self._checked: int | None = None
        self._requested: list[int] = []
        self._used: list[str] = []
        self._counts = {"checks": 0, "requests": 0, "cooldown": 0, "budget": 0}
        self._judged: dict[str, Any] | None = None

    def check(
        self,
        now: datetime,
        *,
        loop: FeedbackLoop | None = None,
        report: DriftReport | None = None,
        alerts: Frame | None = None,
        estimates: Any = None,
        lineage: Lineage | None = None,
    ) -> RetrainRequest | None:
        """The request to make at `now`, or None. What a condition needs and is not handed is unknown, and unknown does not fire.

        lineage: accepted references: windows and alerts that began before the last of them are no cause any more. Costs what the
        loop's metrics cost. Raises InvalidArgumentError for a `now` before the last check, a metric that the loop has not, and frames
        without the columns they need; nothing changes then.
        """
        with self._lock:
            moment = self._moment(now)
            seen = self._seen(moment, loop, report, alerts, estimates, lineage)
            found = _judge(self.when._terms, seen)
            self._judged = {"time": _stamp(_datetime(moment)), "conditions": _conditions(self.when._terms, seen, found)}
            self._began, self._checked = seen.began, moment
            self._counts["checks"] += 1
            if not found.holds:
                return None
            if seen.last is not None and moment - seen.last < self._cooldown:
                self._counts["cooldown"] += 1
                return None
            month = _month(moment)
            if self.most_per_month is not None and sum(_month(one) == month for one in self._requested) >= self.most_per_month:
                self._counts["budget"] += 1
                return None
            # No more is needed than this month's, and the last.
            self._requested = [one for one in self._requested if _month(one) == month] + [moment]
            self._used = sorted(set(seen.held))
            self._counts["requests"] += 1
            return self._request(moment, loop, found)

    def judge(
        self,
        now: datetime,
        *,
        loop: FeedbackLoop | None = None,
        report: DriftReport | None = None,
        alerts: Frame | None = None,
        estimates: Any = None,
        lineage: Lineage | None = None,
    ) -> pl.DataFrame:
        """What `check` would see, and why: one row per condition, the whole last. Changes nothing.

        Columns: condition, holds (null is unknown), reason. Whether cooldown or budget would hold it back is not in it.
        """
        import polars as pl

        with self._lock:
            moment = self._moment(now)
            seen = self._seen(moment, loop, report, alerts, estimates, lineage)
            rows = _conditions(self.when._terms, seen, _judge(self.when._terms, seen))
            self._judged = {"time": _stamp(_datetime(moment)), "conditions": rows}
        return pl.DataFrame(rows, schema={"condition": pl.String, "holds": pl.Boolean, "reason": pl.String})

    def _last(self) -> dict[str, Any]:
        """What the last `check` or `judge` saw, ready for JSON."""
        with self._lock:
            if self._judged is None:
                raise InvalidArgumentError("the trigger has judged nothing yet", "`check` or `judge` first")
            return self._judged

    def _moment(self, now: datetime) -> int:
        moment = _instant(now)
        if self._checked is not None and moment < self._checked:
            raise InvalidArgumentError(f"`now` must not be before the last check, {_said(self._checked)}, got {_said(moment)}")
        return moment

    def _seen(self, now: int, loop: Any, report: Any, alerts: Any, estimates: Any, lineage: Any) -> _Seen:
        accepted = None if lineage is None else lineage.at(_datetime(now))
        last = self._requested[-1] if self._requested else None
        began = now if self._began is None else self._began
        return _Seen(now, loop, report, alerts, estimates, accepted, last, began, frozenset(self._used), [], [])

    def _request(self, now: int, loop: FeedbackLoop | None, found: _Found) -> RetrainRequest:
        until = now - (loop._horizon or 0) if loop is not None else now
        return RetrainRequest(
            model=self.model,
            created=_datetime(now),
            since=None if self._fit_on is None else _datetime(until - self._fit_on),
            until=_datetime(until),
            version=self.version,
            columns=self.columns,
            reason=found.reason,
            evidence=tuple(found.evidence),
            as_of=_datetime(now),
        )

    def counts(self) -> dict[str, int]:
        """Checks, requests, and how often conditions held while the cooldown or the month's budget forbade a request."""
        with self._lock:
            return dict(self._counts)

    @property
    def last(self) -> datetime | None:
        """When the last request was made."""
        return _datetime(self._requested[-1]) if self._requested else None

    def snapshot(self) -> bytes:
        """What it is and what it has done; a restored trigger goes on as if nothing had happened."""
        with self._lock:
            document = {
                "barograph": "trigger 1",
                "model": self.model,
                "when": self.when.to_dict(),
                "fit_on": self._fit_on,
                "cooldown": self._cooldown,
                "most_per_month": self.most_per_month,
                "version": self.version,
                "columns": self.columns,
                "began": self._began,
                "checked": self._checked,
                "requested": self._requested,
                "used": self._used,
                "counts": self._counts,
            }
            return _canonical(document)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self).restore, (self.snapshot(),)

    @classmethod
    def restore(cls, data: bytes) -> Trigger:
        """Reads a snapshot. Raises SnapshotError for anything else."""
        try:
            document = json.loads(as_bytes(data))
            if document["barograph"] != "trigger 1":
                raise ValueError(f"it is a {document['barograph']!r}")
            terms = {name: document[name] for name in ("most_per_month", "version", "columns")}
            out = cls(document["model"], document["when"], **terms)
            out._fit_on, out._cooldown = _maybe(document["fit_on"]), int(document["cooldown"])
            out._began, out._checked = _maybe(document["began"]), _maybe(document["checked"])
            out._requested = [int(one) for one in document["requested"]]
            out._used = [str(one) for one in document["used"]]
            out._counts = {name: int(document["counts"][name]) for name in out._counts}
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise SnapshotError(f"this is no snapshot of a trigger: {error}") from error
        return out

    def __repr__(self) -> str:
        return f"Trigger({self.model!r}, {_words(self.when._terms)})"


def _conditions(terms: dict[str, Any], seen: _Seen, whole: _Found) -> list[dict[str, Any]]:
    """One row per condition, the whole last."""
    rows = [{"condition": _words(one), "holds": found.holds, "reason": found.reason} for one, found in seen.judged]
    if len(rows) != 1:
        rows.append({"condition": _words(terms), "holds": whole.holds, "reason": whole.reason})
    return rows
