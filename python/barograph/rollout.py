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
from barograph.rollbacks import Action, Callback, MlflowAlias, Outcome

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

_MEANS: dict[str, tuple[float, float] | None] = {
    "error": (0.0, 1.0),
    "brier": (0.0, 1.0),
    "error_rate": (0.0, 1.0),
    "absolute_error": None,
    "squared_error": None,
}
"""Guards that are means of a per-event quantity, and its range; without one the limits are asymptotic."""
_RATIOS = ("precision", "recall", "f1")
_NEEDS = {
    "error": ("label", "prediction"),
    "brier": ("label", "score"),
    "roc_auc": ("label", "score"),
    "error_rate": ("failed",),
    "latency": ("latency_seconds",),
    "absolute_error": ("label", "prediction"),
    "squared_error": ("label", "prediction"),
    **dict.fromkeys(_RATIOS, ("label", "prediction")),
}
_MARGINS = {"error": 0.01, "brier": 0.01, "roc_auc": 0.01, "error_rate": 0.001, "latency": 0.2, **dict.fromkeys(_RATIOS, 0.02)}


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
    than none), `quantile` (of latency, 0.99), `name`. Metrics: error (label against prediction), brier, error_rate (failed calls) and
    roc_auc are exact at any number of events; latency is, for independent calls; absolute_error, squared_error, precision, recall and f1
    are asymptotic and say so. The level is split evenly over the guards.

    A guard whose harm is above its margin for certain rolls back. Promotion needs every guard's harm below its margin for certain. Before
    that the decision is to hold, and from `max_events` of the challenger or `until` on, inconclusive. paired: both answer the same events
    (shadow): differences are taken event by event, joined by id, and find the same harm with fewer events. The first `least` events of
    each only count, they decide nothing.

    Labels that merely came early are no sample: feed matured windows (`observe_loop` does). About 0.3 us per event and guard.

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
        if not guards:
            raise InvalidArgumentError("`guards` must name at least one, got none", f"there are {', '.join(_NEEDS)}")
        if not 0 < alpha < 0.5:
            raise InvalidArgumentError(f"`alpha` must be in (0, 0.5), got {alpha}")
        self.champion, self.challenger, self.alpha, self.paired = champion, challenger, alpha, paired
        self._least, self._most, self._until = least, max_events, None if until is None else _instant(until)
        self._guards = [_guard(one, alpha / len(guards), paired) for one in guards]
        names = [one.name for one in self._guards]
        if len(set(names)) < len(names):
            raise InvalidArgumentError(f"`guards` must have names of their own, got {names}", 'give one a "name"')
        self._events = [0, 0]
        self._waiting: pl.DataFrame | None = None
        self._fed: int | None = None
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
    ) -> None:
        """Adds events. version: a column that names the model, or the name of the one that all rows are of; other versions are left out.

        The rest names columns. Rows without the columns of a guard, or with nulls in them, do not count for it; label and prediction are
        compared as they are; a score must be in [0, 1]. Paired events need an id, and count when both models' rows have come.
        Raises InvalidArgumentError for a name that the frame has not, or values out of range; nothing is added then.
        """
        import polars as pl

        names = {
            "id": id,
            "label": label,
            "prediction": prediction,
            "score": score,
            "failed": failed,
            "latency_seconds": latency_seconds,
        }
        if self.paired and id is None:
            raise InvalidArgumentError("paired events need an id", "name its column: `id=`")
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
            self._add(table.select(which.alias("version"), *columns))

    def _add(self, table: pl.DataFrame) -> None:
        import polars as pl

        _checked(table)
        if self.paired:
            both = table if self._waiting is None else pl.concat([self._waiting, table], how="diagonal_relaxed")
            both = both.filter(pl.col("version").is_in([self.champion, self.challenger])).unique(
                ["id", "version"], keep="first", maintain_order=True
            )
            old, new = (both.filter(version=one) for one in (self.champion, self.challenger))
            matched = old.join(new, on="id", suffix="_new", maintain_order="left")
            self._waiting = both.filter(~pl.col("id").is_in(matched["id"].implode())).tail(_MOST_WAITING)
            if matched.height:
                for one in self._guards:
                    one.pairs(matched)
                self._events = [count + matched.height for count in self._events]
            return
        for at, model in enumerate((self.champion, self.challenger)):
            rows = table.filter(version=model)
            if rows.height:
                self._events[at] += rows.height
                for guarding in self._guards:
                    guarding.rows(rows, at)

    def observe_loop(self, loop: FeedbackLoop, *, now: datetime) -> int:
        """Adds the labelled predictions of a feedback loop that are older than its horizon, each once; gives how many.

        Only matured predictions count: labels that came early are not a sample. Needs a loop with a horizon and versions.
        """
        import polars as pl

        if loop._horizon is None:
            raise InvalidArgumentError("`loop` must have a horizon: until it has passed, labels are no sample")
        end = _instant(now) - loop._horizon
        frame = loop.joined()
        at = pl.col("time").to_physical()
        frame = frame.filter((at < end) & (True if self._fed is None else at >= self._fed))
        self._fed = end
        known = {role: role for role in ("label", "prediction", "score") if frame[role].null_count() < frame.height}
        if frame.height:
            self.observe_frame(frame, version="version", id="id" if self.paired else None, **known)
        return frame.height

    def decide(self, now: datetime | None = None) -> Decision:
        """What to do now. A decision to promote or roll back stands from then on."""
        if self._over is not None:
            return self._over
        moment = datetime.now(UTC) if now is None else now
        rows = [one.judged() for one in self._guards]
        for row in rows:
            counts = (row["champion_events"], row["challenger_events"])
            if row["verdict"] != "unknown" and min(counts) < self._least:
                row |= {"verdict": "unknown", "reason": f"{min(counts):,} events, {self._least:,} are needed"}
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
            "waiting": None if self._waiting is None else base64.b64encode(_ipc(self._waiting)).decode(),
            "over": None if self._over is None else self._over.to_dict(),
        }
        return json.dumps(document, allow_nan=False).encode()

    @classmethod
    def restore(cls, data: bytes) -> Self:
        """Reads a snapshot. Raises SnapshotError for anything else."""
        import io

        import polars as pl

        try:
            document = json.loads(data)
            if document["barograph"] != "rollout 1":
                raise KeyError(document["barograph"])
            rest = {name: document[name] for name in ("guards", "alpha", "paired", "least", "max_events")}
            out = cls(document["champion"], document["challenger"], **rest)
            out._until, out._fed, out._events = document["until"], document["fed"], list(document["events"])
            for one, state in zip(out._guards, document["state"], strict=True):
                one.restore(state)
            if document["waiting"] is not None:
                out._waiting = pl.read_ipc(io.BytesIO(base64.b64decode(document["waiting"])))
            if document["over"] is not None:
                over = document["over"]
                out._over = Decision(**{**over, "time": datetime.fromisoformat(over["time"])})
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise SnapshotError(f"this is no snapshot of a rollout: {error}") from error
        return out

    def __repr__(self) -> str:
        return f"Rollout({self.challenger!r} against {self.champion!r}, {self._events[1]:,} and {self._events[0]:,} events)"


_MOST_WAITING = 1_000_000
"""Paired events that may wait for their other half; beyond it the oldest are given up."""


def argo_measurement(decision: Decision) -> dict[str, Any]:
    """What Argo Rollouts' web metric reads: jsonPath `{$.decision}`, success `result == "promote"`, failure `result == "roll back"`.

    With both conditions and neither true the measurement is inconclusive, and the analysis goes on within its `inconclusiveLimit`.
    """
    return {
        "decision": decision.decision,
        "ok": decision.decision == "promote",
        "reason": decision.reason,
        "time": decision.time.isoformat(),
        "evidence": decision.evidence,
    }


def flagger_response(
    decision: Decision, hook: Literal["rollout", "confirm-promotion", "rollback"] = "rollout"
) -> tuple[int, dict[str, Any]]:
    """HTTP status and body for a webhook of Flagger.

    rollout: 200 unless the challenger does harm; confirm-promotion: 200 once it may be promoted; rollback: 200 once it must go back.
    Anything else is 403, with the reason.
    """
    fine = {
        "rollout": decision.decision != "roll back",
        "confirm-promotion": decision.decision == "promote",
        "rollback": decision.decision == "roll back",
    }
    if hook not in fine:
        raise InvalidArgumentError(f"`hook` must be one of {', '.join(fine)}, got {hook!r}")
    return (200 if fine[hook] else 403), {"decision": decision.decision, "reason": decision.reason}


class _Guard:
    """One guard: sequences of both models, or of their difference, and what they say about harm."""

    def __init__(self, stated: dict[str, Any], alpha: float, paired: bool) -> None:
        self.stated, self.name, self.metric, self.paired = stated, stated["name"], stated["metric"], paired
        self.margin, self.superior, self.alpha = stated["margin"], stated["superior"], alpha
        self._seen = [0, 0]
        self._sums = [0.0, 0.0]
        self._tables = [[0, 0, 0, 0], [0, 0, 0, 0]]
        self._sequences: list[Any] = []
        bounds = _MEANS.get(self.metric)
        # Of two models apart, each has half of the level.
        if self.metric == "roc_auc":
            self._sequences = [AucSequence(alpha=alpha, paired=True)] if paired else [AucSequence(alpha=alpha / 2) for _ in range(2)]
        elif self.metric == "latency":
            self._sequences = [QuantileSequence(stated["quantile"], alpha=alpha / 2) for _ in range(2)]
        elif bounds is not None:
            low, high = (bounds[0] - bounds[1], bounds[1] - bounds[0]) if paired else bounds
            count, share = (1, alpha) if paired else (2, alpha / 2)
            self._sequences = [MeanSequence(low, high, alpha=share) for _ in range(count)]
        elif self.metric in _MEANS:
            count, share = (1, alpha) if paired else (2, alpha / 2)
            self._sequences = [AsymptoticSequence(alpha=share) for _ in range(count)]

    def rows(self, rows: pl.DataFrame, at: int) -> None:
        """Events of one model."""
        kept = _kept(rows, _NEEDS[self.metric])
        if kept is None or not kept.height:
            return
        if self.metric in _RATIOS:
            self._tables[at] = [a + b for a, b in zip(self._tables[at], _confusion(kept), strict=True)]
        elif self.metric == "roc_auc":
            self._sequences[at].update_many(kept["label"], kept["score"])
        elif self.metric == "latency":
            self._sequences[at].update_many(kept["latency_seconds"])
        else:
            self._sequences[at].update_many(_losses(self.metric, kept))
        self._seen[at] += kept.height

    def pairs(self, matched: pl.DataFrame) -> None:
        """Events that both models answered."""
        import polars as pl

        needs = [name for name in _NEEDS[self.metric] if name != "label"]
        # A label may have come with either row.
        if "label" in matched.columns and "label_new" in matched.columns:
            matched = matched.with_columns(label=pl.coalesce("label", "label_new"))
        elif "label_new" in matched.columns:
            matched = matched.rename({"label_new": "label"})
        columns = [*(["label"] if "label" in _NEEDS[self.metric] else []), *needs, *(f"{name}_new" for name in needs)]
        kept = _kept(matched, tuple(columns))
        if kept is None or not kept.height:
            return
        sides = [
            kept.select(*(["label"] if "label" in kept.columns else []), *(pl.col(f"{name}{end}").alias(name) for name in needs))
            for end in ("", "_new")
        ]
        if self.metric == "roc_auc":
            self._sequences[0].update_many(kept["label"], sides[1]["score"], sides[0]["score"])
        elif self.metric == "latency":
            for sequence, side in zip(self._sequences, sides, strict=True):
                sequence.update_many(side["latency_seconds"])
        elif self.metric in _RATIOS:
            for at, side in enumerate(sides):
                self._tables[at] = [a + b for a, b in zip(self._tables[at], _confusion(side), strict=True)]
        else:
            old, new = (_losses(self.metric, side) for side in sides)
            self._sequences[0].update_many(new - old)
            self._sums = [self._sums[0] + float(old.sum()), self._sums[1] + float(new.sum())]
        self._seen = [count + kept.height for count in self._seen]

    def judged(self) -> dict[str, Any]:
        """The row of evidence."""
        exact = self.metric in ("roc_auc", "latency") or _MEANS.get(self.metric) is not None
        row = {"guard": self.name, "margin": self.margin, "kind": "exact" if exact else "asymptotic"}
        row |= {"champion_events": self._seen[0], "challenger_events": self._seen[1]}
        old, new, harm, low, high = self._harm()
        row |= {"champion": old, "challenger": new, "harm": harm, "lower": low, "upper": high, "reason": None}
        if harm is None:
            missing = list(_NEEDS[self.metric]) if not min(self._seen) else []
            reason = f"no events with {' and '.join(missing)}" if missing else "too few events yet"
            return row | {"verdict": "unknown", "reason": reason}
        if low is not None and low > self.margin:
            return row | {"verdict": "harm"}
        if high is not None and high <= (0.0 if self.superior else self.margin):
            return row | {"verdict": "fine"}
        return row | {"verdict": "open"}

    def _harm(self) -> tuple[float | None, ...]:
        """Values of both models, the harm of the new one, and its limits."""
        nothing = (None,) * 5
        if self.metric in _RATIOS:
            return _ratio(self.metric, self._tables, self.alpha)
        if self.metric == "latency":
            (old, new), spans = [one.value for one in self._sequences], [one.interval for one in self._sequences]
            if old is None or new is None or old <= 0:
                return nothing
            (a, b), (c, d) = spans
            low = None if c is None or b is None else c / b - 1
            high = None if d is None or a is None or a <= 0 else d / a - 1
            return old, new, new / old - 1, low, high
        sign = -1.0 if self.metric == "roc_auc" else 1.0
        if len(self._sequences) == 1:
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
        (a, b), (c, d) = spans
        low, high = sorted((sign * (c - b), sign * (d - a)))
        return old, new, sign * (new - old), low, high

    def state(self) -> dict[str, Any]:
        """Ready for JSON."""
        sequences = [base64.b64encode(one.to_bytes()).decode() for one in self._sequences]
        return {"seen": self._seen, "sums": self._sums, "tables": self._tables, "sequences": sequences}

    def restore(self, state: dict[str, Any]) -> None:
        """Takes a state over."""
        self._seen, self._sums, self._tables = list(state["seen"]), list(state["sums"]), [list(table) for table in state["tables"]]
        data = [base64.b64decode(one) for one in state["sequences"]]
        self._sequences = [type(one).from_bytes(bytes_) for one, bytes_ in zip(self._sequences, data, strict=True)]


def _guard(stated: str | Mapping[str, Any], alpha: float, paired: bool) -> _Guard:
    given = {"metric": stated} if isinstance(stated, str) else dict(stated)
    if unknown := set(given) - {"metric", "margin", "superior", "quantile", "name"}:
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
    name = given.get("name", f"latency_p{quantile * 100:g}" if metric == "latency" else metric)
    full = {"metric": metric, "margin": float(margin), "superior": bool(given.get("superior", False)), "quantile": quantile, "name": name}
    return _Guard(full, alpha, paired)


def _checked(table: pl.DataFrame) -> None:
    """Refuses values out of range before anything is added."""
    import polars as pl

    if "score" in table.columns:
        scores = table["score"].cast(pl.Float64, strict=False).drop_nulls()
        if not scores.is_between(0, 1).all():
            raise InvalidArgumentError(f"`score` must be in [0, 1], got {scores.filter(~scores.is_between(0, 1))[0]}")
    if "latency_seconds" in table.columns:
        seconds = table["latency_seconds"].cast(pl.Float64, strict=False).drop_nulls()
        if not (seconds.is_finite() & (seconds >= 0)).all():
            raise InvalidArgumentError("`latency_seconds` must be finite and not negative")
    if "failed" in table.columns and not table["failed"].cast(pl.Float64, strict=False).drop_nulls().is_in([0.0, 1.0]).all():
        raise InvalidArgumentError("`failed` must hold true and false")


def _kept(rows: pl.DataFrame, needs: tuple[str, ...]) -> pl.DataFrame | None:
    """Rows that have all columns; None if a column is not there at all."""
    return None if any(name not in rows.columns for name in needs) else rows.drop_nulls(list(needs))


def _losses(metric: str, rows: pl.DataFrame) -> Any:
    import numpy as np
    import polars as pl

    if metric == "error_rate":
        return rows["failed"].cast(pl.Float64).to_numpy()
    if metric == "error":
        return (rows["label"] != rows["prediction"]).cast(pl.Float64).to_numpy()
    truth = rows["label"].cast(pl.Float64).to_numpy()
    guess = rows["score" if metric == "brier" else "prediction"].cast(pl.Float64).to_numpy()
    if metric == "brier" and not np.isin(truth, (0.0, 1.0)).all():
        raise InvalidArgumentError("`label` must be 0 or 1 for a Brier score")
    return np.abs(guess - truth) if metric == "absolute_error" else (guess - truth) ** 2


def _confusion(rows: pl.DataFrame) -> list[int]:
    """True negatives, false positives, false negatives, true positives."""
    import numpy as np
    import polars as pl

    truth, guess = (rows[name].cast(pl.Int64).to_numpy() for name in ("label", "prediction"))
    if not (np.isin(truth, (0, 1)).all() and np.isin(guess, (0, 1)).all()):
        raise InvalidArgumentError("`label` and `prediction` must be 0 or 1 for precision, recall and f1")
    return [int(count) for count in np.bincount(2 * truth + guess, minlength=4)]


def _ratio(metric: str, tables: list[list[int]], alpha: float) -> tuple[float | None, ...]:
    """Both values of a ratio of counts, the harm, and its asymptotic limits: the delta method inside an asymptotic sequence."""

    def value(shares: list[float]) -> float | None:
        _, fp, fn, tp = shares
        above, below = {"precision": (tp, tp + fp), "recall": (tp, tp + fn), "f1": (2 * tp, 2 * tp + fp + fn)}[metric]
        return above / below if below > 0 else None

    found = []
    for table in tables:
        n = sum(table)
        now = value([count / n for count in table]) if n else None
        if now is None or n < 100:
            return (None,) * 5
        slopes = []
        for cell in range(4):
            moved = [count / n for count in table]
            moved[cell] += 1e-6
            slopes.append(((value(moved) or 0.0) - now) / 1e-6)
        mean = sum(slope * count / n for slope, count in zip(slopes, table, strict=True))
        square = sum(slope**2 * count / n for slope, count in zip(slopes, table, strict=True))
        # As AsymptoticSequence, each model at half of the level.
        twice = 2 * math.log(2 / alpha)
        grown = n * (twice + math.log(1 + twice)) / 5000
        reach = math.sqrt(max(0.0, square - mean**2) * 2 * (grown + 1) / (n * grown) * math.log(math.sqrt(grown + 1) * 2 / alpha))
        found.append((now, reach))
    (old, a), (new, b) = found
    return old, new, old - new, old - new - a - b, old - new + a + b


def _ipc(frame: pl.DataFrame) -> bytes:
    import io

    out = io.BytesIO()
    frame.write_ipc(out)
    return out.getvalue()


def _short(value: float | None) -> str:
    return "?" if value is None else f"{value:+.4f}"
