"""Before and during a release: a gate on the same inputs, shadow and canary decisions that hold whenever one looks, guarded roll-backs.

| what | when |
|---|---|
| `gate` | before: both models answer the same inputs, once |
| `Rollout(paired=True)` | shadow: both answer the same events, one counts |
| `Rollout()` | canary, champion and challenger: each event goes to one of them |
| `MlflowAlias`, `Callback` | what a decision does, dry unless told otherwise, with an audit log |
| `argo_measurement`, `flagger_response` | what other controllers ask for |
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self

from barograph.errors import InvalidArgumentError, SnapshotError
from barograph.estimates import AsymptoticSequence, AucSequence, MeanSequence, QuantileSequence
from barograph.frames import Frame, parts
from barograph.gates import GateReport, gate
from barograph.monitors import _instant
from barograph.rollbacks import Action, Callback, MlflowAlias, Outcome, argo_measurement, flagger_response

if TYPE_CHECKING:
    import polars as pl

    from barograph.feedback import FeedbackLoop

__all__ = [
    "Action",
    "Callback",
    "Decision",
    "GateReport",
    "MlflowAlias",
    "Outcome",
    "Rollout",
    "argo_measurement",
    "flagger_response",
    "gate",
]

Verdict = Literal["promote", "hold", "roll back", "inconclusive"]

_RANGES: dict[str, tuple[float, float] | None] = {
    **dict.fromkeys(("error", "brier", "error_rate", "precision", "recall", "f1"), (0.0, 1.0)),
    **dict.fromkeys(("absolute_error", "squared_error", "loss"), None),
}
"""Guards that are means, and their range; without one the limits are asymptotic."""
_RATIOS = ("precision", "recall", "f1")
_NEEDS = {
    "error": ("label", "prediction"),
    "brier": ("label", "score"),
    "roc_auc": ("label", "score"),
    "error_rate": ("failed",),
    "latency": ("latency_seconds",),
    **dict.fromkeys(("absolute_error", "squared_error", *_RATIOS), ("label", "prediction")),
    "loss": ("loss",),
}
_MARGINS = {"error": 0.01, "brier": 0.01, "roc_auc": 0.01, "error_rate": 0.001, "latency": 0.2, **dict.fromkeys(_RATIOS, 0.02)}
_LEAST_ASYMPTOTIC = 500
"""Events of each model from which on asymptotic limits decide anything."""
_MOST_WAITING = 1_000_000
"""Paired events that may wait for their other half; beyond it the oldest are given up, and counted."""


class Decision(NamedTuple):
    """What to do, why, and on what evidence: one row per guard, with the harm of the challenger, its limits and its margin."""

    decision: Verdict
    reason: str
    evidence: list[dict[str, Any]]
    time: datetime
    champion: str
    challenger: str

    def to_frame(self) -> pl.DataFrame:
        """The evidence: guard, champion, challenger (values), harm, lower, upper, margin, kind, events of both, verdict."""
        import polars as pl

        kinds = {"guard": pl.String, **dict.fromkeys(("champion", "challenger", "harm", "lower", "upper", "margin"), pl.Float64)}
        counts = dict.fromkeys(("champion_events", "challenger_events"), pl.Int64)
        return pl.DataFrame(self.evidence, schema={**kinds, **counts, "kind": pl.String, "verdict": pl.String, "reason": pl.String})

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {**self._asdict(), "time": self.time.isoformat()}

    def __str__(self) -> str:
        lines = [f"{self.challenger} against {self.champion}: {self.decision} ({self.reason})"]
        for row in self.evidence:
            if row["harm"] is None:
                lines.append(f"  {row['guard']:<16} {row['verdict']:<8} {row['reason']}")
                continue
            span = f"{_short(row['lower'])} to {_short(row['upper'])}"
            lines.append(
                f"  {row['guard']:<16} {row['verdict']:<8} harm {_short(row['harm'])} ({span}, {row['kind']}), margin {row['margin']}"
            )
        return "\n".join(lines)


class Rollout:
    """Decides between a champion and a challenger; wrong ever, however often one asks, with probability alpha at most.

    guards: names, or mappings with `metric`, `margin` (harm that is tolerated; of latency relative), `superior` (promotion needs less harm
    than none), `quantile` (of latency, 0.99), `range` (of a loss: values are clipped into it), `name`. Metrics: error (label against
    prediction), brier, error_rate (failed calls), precision, recall, f1 and roc_auc are exact at any number of events, and so are
    absolute_error, squared_error and loss (a column of yours) with a `range`; without one those three are asymptotic, say so, and decide
    nothing before the 500th event of each. latency is exact for independent calls. The level is split evenly over the guards.

    A guard whose harm is above its margin for certain rolls back. Promotion needs every guard's harm below its margin for certain. Before
    that the decision is to hold, and from `max_events` of the challenger or `until` on, inconclusive. paired: both answer the same events
    (shadow): differences are taken event by event, joined by id, and find the same harm with fewer events. The first `least` events of
    each only count, they decide nothing.

    Labels that merely came early are no sample: feed matured windows (`observe_loop` does). An event that is handed in twice counts twice.
    About 0.03 us per event and guard, 0.3 us per event more if paired; 30 us per decision of three guards.

    Exact, because given what the events share each is a mean of independent values in a known range: precision of those over predicted
    positives, recall over positives; F1 is 2 t / (1 + t) of the share t of true positives among events that are either.

    >>> import numpy as np
    >>> random = np.random.default_rng(0)
    >>> rollout = Rollout("v1", "v2", guards=["error_rate"])
    >>> for version, rate in (("v1", 0.01), ("v2", 0.05)):
    ...     rollout.observe_frame({"failed": random.random(4000) < rate}, version=version, failed="failed")
    >>> rollout.decide().decision
    'roll back'
    """

    def __init__(
        self,
        champion: str,
        challenger: str,
        *,
        guards: Sequence[str | Mapping[str, Any]] = ("error",),
        alpha: float = 0.05,
        paired: bool = False,
        least: int = 100,
        max_events: int | None = None,
        until: datetime | None = None,
    ) -> None:
        if champion == challenger:
            raise InvalidArgumentError(f"`challenger` must be another version than the champion, got {challenger!r} twice")
        if isinstance(guards, str | Mapping):
            raise InvalidArgumentError(f"`guards` must be a list, got {guards!r}", f"[{guards!r}]")
        if not guards:
            raise InvalidArgumentError("`guards` must name at least one, got none", f"there are {', '.join(_NEEDS)}")
        if not isinstance(alpha, float) or not 0 < alpha < 0.5:
            raise InvalidArgumentError(f"`alpha` must be a number in (0, 0.5), got {alpha!r}")
        for name, count in (("least", least), ("max_events", 1 if max_events is None else max_events)):
            if not isinstance(count, int) or count < 1:
                raise InvalidArgumentError(f"`{name}` must be a whole number of at least 1, got {count!r}")
        self.champion, self.challenger, self.alpha, self.paired = champion, challenger, alpha, paired
        self._least, self._most, self._until = least, max_events, None if until is None else _instant(until)
        self._guards = [_guard(one, alpha / len(guards), paired) for one in guards]
        names = [one.name for one in self._guards]
        if len(set(names)) < len(names):
            raise InvalidArgumentError(f"`guards` must have names of their own, got {names}", 'give one a "name"')
        self._events = [0, 0]
        self._waiting: pl.DataFrame | None = None
        self._fed: int | None = None
        self.given_up = 0
        self._over: Decision | None = None

    def observe_frame(
        self,
        frame: Frame,
        *,
        version: str,
        id: str | None = None,
        label: str | None = None,
        prediction: str | None = None,
        score: str | None = None,
        failed: str | None = None,
        latency_seconds: str | None = None,
        loss: str | None = None,
    ) -> None:
        """Adds events. version: a column that names the model, or the name of the one that all rows are of; other versions are left out.

        The rest names columns. Rows without the columns of a guard, or with nulls in them, do not count for it: a call without an answer
        is a failed one. label and prediction are compared as they are, numbers with numbers and text with text; a score must be in [0, 1].
        Paired events need an id, and count when both models' rows have come, with the label of either; up to a million wait for that,
        older ones are given up and counted in `given_up`.
        Raises InvalidArgumentError for a name that the frame has not, values out of range or of a wrong kind; nothing is added then.
        """
        import polars as pl

        names = {
            "id": id,
            "label": label,
            "prediction": prediction,
            "score": score,
            "failed": failed,
            "latency_seconds": latency_seconds,
            "loss": loss,
        }
        if self.paired and id is None:
            raise InvalidArgumentError("paired events need an id", "name its column: `id=`")
        read = []
        for part in parts(frame):
            table = part if isinstance(part, pl.DataFrame) else pl.DataFrame(part)
            for argument, name in names.items():
                if name is not None and name not in table.columns:
                    raise InvalidArgumentError(f"`{argument}` names column {name!r}, which the frame has not", f"it has {table.columns}")
            columns = [pl.col(name).alias(role) for role, name in names.items() if name is not None]
            if version not in (self.champion, self.challenger):
                if version not in table.columns:
                    hint = f"the versions are {self.champion!r} and {self.challenger!r}"
                    raise InvalidArgumentError(f"`version` must be one of both or a column that names them, got {version!r}", hint)
                which = pl.col(version).cast(pl.String)
            else:
                which = pl.lit(version)
            table = table.select(which.alias("version"), *columns)
            read.append(_checked(table.filter(pl.col("version").is_in([self.champion, self.challenger]))))
        self._add(pl.concat(read, how="vertical_relaxed"))

    def _add(self, table: pl.DataFrame) -> None:
        """Every guard reads before any takes, so that what is refused leaves no trace."""
        import polars as pl

        both = table
        if self.paired:
            if self._waiting is not None:
                for name in set(table.columns) & set(self._waiting.columns):
                    if (table.schema[name] == pl.String) != (self._waiting.schema[name] == pl.String):
                        known = self._waiting.schema[name]
                        raise InvalidArgumentError(f"`{name}` must be {known} as before, got {table.schema[name]}", "cast one of them")
                both = pl.concat([self._waiting, table], how="diagonal_relaxed")
            both = both.unique(["id", "version"], keep="first", maintain_order=True)
        old, new = (both.filter(version=one) for one in (self.champion, self.challenger))
        if self.paired:
            matched = old.join(new, on="id", suffix="_new", maintain_order="left")
            waiting = both.filter(~pl.col("id").is_in(matched["id"].implode()))
            old, new = _halves(matched)
        read = [one.read(old, new) for one in self._guards]
        for guarding, values in zip(self._guards, read, strict=True):
            guarding.take(values)
        self._events = [self._events[0] + old.height, self._events[1] + new.height]
        if self.paired:
            self.given_up += max(0, waiting.height - _MOST_WAITING)
            self._waiting = waiting.tail(_MOST_WAITING)

    def observe_loop(self, loop: FeedbackLoop, *, now: datetime) -> int:
        """Adds both models' labelled predictions of a feedback loop that are older than its horizon, each once; gives how many.

        Only matured predictions count: labels that came early are not a sample. Needs a loop with a horizon and versions. What it says
        holds of predictions whose label comes within the horizon. One that reaches the loop only after a call here has gone past its time
        is left out.
        """
        import polars as pl

        if loop._horizon is None:
            raise InvalidArgumentError("`loop` must have a horizon: until it has passed, labels are no sample")
        end = _instant(now) - loop._horizon
        frame = loop.joined()
        at = pl.col("time").to_physical()
        frame = frame.filter((at < end) & (True if self._fed is None else at >= self._fed))
        frame = frame.filter(pl.col("version").is_in([self.champion, self.challenger]))
        known = {role: role for role in ("label", "prediction", "score") if frame[role].null_count() < frame.height}
        if frame.height:
            self.observe_frame(frame, version="version", id="id" if self.paired else None, **known)
        self._fed = end if self._fed is None else max(end, self._fed)
        return frame.height

    def decide(self, now: datetime | None = None) -> Decision:
        """What to do now. A decision to promote or roll back stands from then on."""
        if self._over is not None:
            return self._over
        moment = datetime.now(UTC) if now is None else now
        rows = [one.judged() for one in self._guards]
        for row in rows:
            counts = (row["champion_events"], row["challenger_events"])
            least = self._least if row["kind"] == "exact" else max(self._least, _LEAST_ASYMPTOTIC)
            if row["verdict"] != "unknown" and min(counts) < least:
                row |= {"verdict": "unknown", "reason": f"{min(counts):,} events, {least:,} are needed"}
        harmed = [row["guard"] for row in rows if row["verdict"] == "harm"]
        open_ones = [row["guard"] for row in rows if row["verdict"] != "fine"]
        over = (self._most is not None and self._events[1] >= self._most) or (self._until is not None and _instant(moment) >= self._until)
        verdict: Verdict
        if harmed:
            verdict, reason = "roll back", f"worse than its margin for certain: {', '.join(harmed)}"
        elif not open_ones:
            verdict, reason = "promote", "no guard is worse than its margin, for certain"
        elif over:
            verdict, reason = "inconclusive", f"the time is up, undecided: {', '.join(open_ones)}"
        else:
            verdict, reason = "hold", f"undecided: {', '.join(open_ones)}"
        out = Decision(verdict, reason, rows, moment, self.champion, self.challenger)
        if verdict in ("promote", "roll back"):
            self._over = out
        return out

    def snapshot(self) -> bytes:
        """All its state: what is restored goes on as if nothing had happened. Paired events that wait for their other half are in it."""
        document = {
            "barograph": "rollout 1",
            "champion": self.champion,
            "challenger": self.challenger,
            "alpha": self.alpha,
            "paired": self.paired,
            "least": self._least,
            "max_events": self._most,
            "until": self._until,
            "guards": [one.stated for one in self._guards],
            "state": [one.state() for one in self._guards],
            "events": self._events,
            "fed": self._fed,
            "given_up": self.given_up,
            "waiting": None
            if self._waiting is None
            else {name: [str(one.dtype), one.to_list()] for name, one in self._waiting.to_dict().items()},
            "over": None if self._over is None else self._over.to_dict(),
        }
        return json.dumps(document, allow_nan=False).encode()

    @classmethod
    def restore(cls, data: bytes) -> Self:
        """Reads a snapshot. Raises SnapshotError for anything else."""
        import polars as pl

        try:
            document = json.loads(data)
            if document["barograph"] != "rollout 1":
                raise KeyError(document["barograph"])
            rest = {name: document[name] for name in ("guards", "alpha", "paired", "least", "max_events")}
            out = cls(document["champion"], document["challenger"], **rest)
            out._until, out._fed = (None if document[name] is None else int(document[name]) for name in ("until", "fed"))
            out._events, out.given_up = _counts(document["events"]), int(document["given_up"])
            for one, state in zip(out._guards, document["state"], strict=True):
                one.restore(state)
            if document["waiting"] is not None:
                columns = document["waiting"].items()
                kinds = {kind: getattr(pl, kind) for kind in _KINDS}
                out._waiting = pl.DataFrame([pl.Series(name, values, dtype=kinds[kind]) for name, (kind, values) in columns])
            if document["over"] is not None:
                over = document["over"]
                out._over = Decision(**{**over, "time": datetime.fromisoformat(over["time"])})
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, pl.exceptions.PolarsError) as error:
            raise SnapshotError(f"this is no snapshot of a rollout: {error}") from error
        return out

    def __repr__(self) -> str:
        return f"Rollout({self.challenger!r} against {self.champion!r}, {self._events[1]:,} and {self._events[0]:,} events)"


class _Guard:
    """One guard: sequences of both models, or of their difference, and what they say about harm."""

    def __init__(self, stated: dict[str, Any], alpha: float, paired: bool) -> None:
        self.stated, self.name, self.metric = stated, stated["name"], stated["metric"]
        self.margin, self.superior, self.range = stated["margin"], stated["superior"], stated["range"]
        # A ratio's events are not the same for both models: it has no difference event by event.
        self.differs = paired and self.metric not in (*_RATIOS, "latency")
        self._seen = [0, 0]
        self._sums = [0.0, 0.0]
        # Of two models apart, each has half of the level.
        count, share = (1, alpha) if self.differs else (2, alpha / 2)

        def sequence() -> Any:
            if self.metric == "roc_auc":
                return AucSequence(alpha=share, paired=self.differs)
            if self.metric == "latency":
                return QuantileSequence(stated["quantile"], alpha=share)
            if self.range is None:
                return AsymptoticSequence(alpha=share)
            low, high = self.range
            return MeanSequence(low - high, high - low, alpha=share) if self.differs else MeanSequence(low, high, alpha=share)

        self._sequences = [sequence() for _ in range(count)]

    def read(self, old: pl.DataFrame, new: pl.DataFrame) -> list[Any]:
        """What the guard takes of both models' events, checked: how many there are, and their values. Changes nothing."""
        needs = _NEEDS[self.metric]
        if any(name not in rows.columns for name in needs for rows in (old, new)):
            return [None, None] if self.differs else [self._values(rows) for rows in (old, new)]
        if self.differs and any(rows[name].null_count() for name in needs for rows in (old, new)):
            # A pair counts if both halves have all it takes; they stand in the same order.
            whole = old.select(needs).with_columns(new.select(needs).rename({name: f"{name}_new" for name in needs}))
            kept = whole.select(~_missing(whole.columns)).to_series()
            old, new = old.filter(kept), new.filter(kept)
        return [self._values(rows) for rows in (old, new)]

    def _values(self, rows: pl.DataFrame) -> tuple[int, Any] | None:
        import numpy as np

        needs = _NEEDS[self.metric]
        if any(name not in rows.columns for name in needs):
            return None
        if any(rows[name].null_count() for name in needs):
            rows = rows.drop_nulls(list(needs))
        if not rows.height:
            return None
        if self.metric == "latency":
            return rows.height, _numbers(rows, "latency_seconds")
        if self.metric == "roc_auc":
            return rows.height, (_zero_one(rows, "label"), _numbers(rows, "score"))
        if self.metric in _RATIOS:
            truth, guess = _zero_one(rows, "label") > 0, _zero_one(rows, "prediction") > 0
            among = {"precision": guess, "recall": truth, "f1": truth | guess}[self.metric]
            return rows.height, (truth & guess)[among].astype(float)
        losses = _losses(self.metric, rows)
        if not np.isfinite(losses).all() or np.abs(losses).max() > _MOST_LOSS:
            raise InvalidArgumentError(f"the values of {self.metric!r} must be finite, and below {_MOST_LOSS:g}")
        return rows.height, losses if self.range is None else np.clip(losses, *self.range)

    def take(self, read: list[Any]) -> None:
        """Adds what was read."""
        if self.differs:
            if None in [one if one is None else 0 for one in read]:
                return
            (count, old), (_, new) = read
            if self.metric == "roc_auc":
                self._sequences[0].update_many(old[0], new[1], old[1])
            else:
                self._sequences[0].update_many(new - old)
                self._sums = [self._sums[0] + float(old.sum()), self._sums[1] + float(new.sum())]
            self._seen = [seen + count for seen in self._seen]
            return
        for at, one in enumerate(read):
            if one is None:
                continue
            count, values = one
            if isinstance(values, tuple):
                self._sequences[at].update_many(*values)
            elif len(values):
                self._sequences[at].update_many(values)
            self._seen[at] += count

    def judged(self) -> dict[str, Any]:
        """The row of evidence."""
        exact = self.metric in ("roc_auc", "latency") or self.range is not None
        row = {"guard": self.name, "margin": self.margin, "kind": "exact" if exact else "asymptotic"}
        row |= {"champion_events": self._seen[0], "challenger_events": self._seen[1]}
        old, new, harm, low, high = self._harm()
        row |= {"champion": old, "challenger": new, "harm": harm, "lower": low, "upper": high, "reason": None}
        if harm is None:
            reason = "too few events yet" if min(self._seen) else f"no events with {' and '.join(_NEEDS[self.metric])}"
            return row | {"verdict": "unknown", "reason": reason}
        if low is not None and low > self.margin:
            return row | {"verdict": "harm"}
        if high is not None and (high < 0.0 if self.superior else high <= self.margin):
            return row | {"verdict": "fine"}
        return row | {"verdict": "open"}

    def _harm(self) -> tuple[float | None, ...]:
        """Values of both models, the harm of the new one, and its limits."""
        nothing = (None,) * 5
        if self.metric == "latency":
            (old, new), spans = [one.value for one in self._sequences], [one.interval for one in self._sequences]
            if old is None or new is None or old <= 0:
                return nothing
            (a, b), (c, d) = spans
            low = None if c is None or b is None else c / b - 1
            high = None if d is None or a is None or a <= 0 else d / a - 1
            return old, new, new / old - 1, low, high
        sign = -1.0 if self.metric in ("roc_auc", *_RATIOS) else 1.0
        if self.differs:
            (sequence,) = self._sequences
            if sequence.mean is None or sequence.interval is None:
                return nothing
            low, high = sorted(sign * limit for limit in sequence.interval)
            means = [None, None] if self.metric == "roc_auc" else [total / self._seen[0] for total in self._sums]
            return means[0], means[1], sign * sequence.mean, low, high
        old, new = (one.mean for one in self._sequences)
        spans = [one.interval for one in self._sequences]
        if old is None or new is None or None in spans:
            return nothing
        if self.metric == "f1":
            # It rises with the share of true positives among events that are positive or predicted to be, so limits carry over.
            old, new = _dice(old), _dice(new)
            spans = [(_dice(low), _dice(high)) for low, high in spans]
        (a, b), (c, d) = spans
        low, high = sorted((sign * (c - b), sign * (d - a)))
        return old, new, sign * (new - old), low, high

    def state(self) -> dict[str, Any]:
        """Ready for JSON."""
        sequences = [base64.b64encode(one.to_bytes()).decode() for one in self._sequences]
        return {"seen": self._seen, "sums": self._sums, "sequences": sequences}

    def restore(self, state: dict[str, Any]) -> None:
        """Takes a state over."""
        self._seen, self._sums = _counts(state["seen"]), [float(total) for total in state["sums"]]
        data = [base64.b64decode(one) for one in state["sequences"]]
        self._sequences = [type(one).from_bytes(bytes_) for one, bytes_ in zip(self._sequences, data, strict=True)]


def _guard(stated: str | Mapping[str, Any], alpha: float, paired: bool) -> _Guard:
    given: dict[str, Any] = {"metric": stated} if isinstance(stated, str) else dict(stated)
    if unknown := set(given) - {"metric", "margin", "superior", "quantile", "range", "name"}:
        raise InvalidArgumentError(f"`guards` holds {sorted(unknown)[0]!r}, which is no setting of a guard")
    metric = given.get("metric")
    if metric not in _NEEDS:
        raise InvalidArgumentError(f"`guards` holds {metric!r}, which is no metric", f"there are {', '.join(_NEEDS)}")
    margin = given.get("margin", _MARGINS.get(metric))
    if margin is None:
        raise InvalidArgumentError(f"guard {metric!r} needs a margin: its unit is the model's", 'give it as {"metric": ..., "margin": ...}')
    if not isinstance(margin, int | float) or not 0 <= margin < math.inf:
        raise InvalidArgumentError(f"the margin of guard {metric!r} must not be negative, got {margin!r}")
    quantile = given.get("quantile", 0.99)
    if not isinstance(quantile, float) or not 0 < quantile < 1:
        hint = "quantiles are fractions, such as 0.99"
        raise InvalidArgumentError(f"the quantile of guard {metric!r} must be in (0, 1), got {quantile!r}", hint)
    span, stated_span = _RANGES.get(metric), given.get("range")
    if stated_span is not None and list(stated_span) != list(span or ()):
        if metric not in ("absolute_error", "squared_error", "loss"):
            raise InvalidArgumentError(f"guard {metric!r} takes no range", "only absolute_error, squared_error and loss do")
        if len(stated_span) != 2 or not -_MOST_LOSS < stated_span[0] < stated_span[1] < _MOST_LOSS:
            raise InvalidArgumentError(f"the range of guard {metric!r} must be two numbers, the smaller first, got {stated_span!r}")
        span = (float(stated_span[0]), float(stated_span[1]))
    name = given.get("name", f"latency_p{quantile * 100:g}" if metric == "latency" else metric)
    full = {"metric": metric, "margin": float(margin), "superior": bool(given.get("superior", False)), "quantile": quantile}
    return _Guard({**full, "range": span, "name": name}, alpha, paired)


_MOST_LOSS = 1e150
"""Beyond it squares overflow."""
_KINDS = ("Boolean", "Float64", "Int64", "Null", "String", "UInt64")
"""Types of the columns that guards read, and that may wait in a snapshot."""


def _dice(share: float) -> float:
    """F1 of the share of true positives among events that are positive, predicted to be, or both."""
    return 2 * share / (1 + share)


def _counts(values: Any) -> list[int]:
    """Two counts out of a snapshot."""
    old, new = (int(value) for value in values)
    if min(old, new) < 0:
        raise ValueError("a count must not be negative")
    return [old, new]


def _missing(names: Sequence[str]) -> pl.Expr:
    import polars as pl

    return pl.any_horizontal(pl.col(name).is_null() for name in names)


def _halves(matched: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Pairs as the rows of either model, in the same order. A label may have come with either."""
    import polars as pl

    names = [name for name in matched.columns if f"{name}_new" in matched.columns]
    if "label" in names:
        matched = matched.with_columns(label=pl.coalesce("label", "label_new"), label_new=pl.coalesce("label", "label_new"))
    return matched.select(names), matched.select(pl.col(f"{name}_new").alias(name) for name in names)


def _checked(table: pl.DataFrame) -> pl.DataFrame:
    """Columns of few kinds, and an error for values out of range before anything is added."""
    import numpy as np
    import polars as pl

    casts: dict[Any, Any] = {}
    for name, kind in table.schema.items():
        if kind in (pl.Categorical, pl.Enum):
            casts[name] = pl.String
        elif kind.is_integer() and kind not in (pl.Int64, pl.UInt64):
            casts[name] = pl.Int64
        elif kind == pl.Float32 or kind.is_decimal():
            casts[name] = pl.Float64
        elif str(kind) not in _KINDS:
            raise InvalidArgumentError(f"`{name}` must be numbers, booleans or text, got {kind}")
    table = table.cast(casts) if casts else table
    for name in ("score", "latency_seconds", "failed"):
        if name not in table.columns:
            continue
        rows = table.drop_nulls(name) if table[name].null_count() else table
        if name == "failed":
            _zero_one(rows, name)
            continue
        values = _numbers(rows, name)
        right = np.isfinite(values) & (values >= 0) & (values <= (1 if name == "score" else np.inf))
        if not right.all():
            span = "in [0, 1]" if name == "score" else "finite and not negative"
            raise InvalidArgumentError(f"`{name}` must be {span}, got {values[~right][0]:g}")
    return table


def _numbers(rows: pl.DataFrame, name: str) -> Any:
    """A column without nulls as doubles."""
    import polars as pl

    if rows.schema[name] == pl.String:
        raise InvalidArgumentError(f"`{name}` must be numbers, got text such as {rows[name][0] if rows.height else ''!r}")
    return rows[name].cast(pl.Float64).to_numpy()


def _zero_one(rows: pl.DataFrame, name: str) -> Any:
    import numpy as np

    values = _numbers(rows, name)
    odd = values[~np.isin(values, (0.0, 1.0))]
    if len(odd):
        raise InvalidArgumentError(f"`{name}` must be 0 or 1 (or false and true) here, got {odd[0]:g}")
    return values


def _losses(metric: str, rows: pl.DataFrame) -> Any:
    import numpy as np
    import polars as pl

    if metric == "error_rate":
        return _zero_one(rows, "failed")
    if metric == "loss":
        return _numbers(rows, "loss")
    if metric == "error":
        kinds = [rows.schema[name] for name in ("label", "prediction")]
        if (kinds[0] == pl.String) != (kinds[1] == pl.String):
            raise InvalidArgumentError(f"`label` and `prediction` must be comparable, got {kinds[0]} and {kinds[1]}", "cast one of them")
        if kinds[0] == pl.String:
            return (rows["label"] != rows["prediction"]).cast(pl.Float64).to_numpy()
        return (_numbers(rows, "label") != _numbers(rows, "prediction")).astype(float)
    if metric == "brier":
        return (_numbers(rows, "score") - _zero_one(rows, "label")) ** 2
    gap = np.abs(_numbers(rows, "prediction") - _numbers(rows, "label"))
    with np.errstate(over="ignore"):
        return gap if metric == "absolute_error" else gap**2


def _short(value: float | None) -> str:
    return "?" if value is None else f"{value:+.4f}"
