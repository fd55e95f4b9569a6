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

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self

from barograph.decisions import Decision, Verdict, argo_measurement, flagger_response
from barograph.errors import InvalidArgumentError, SnapshotError
from barograph.frames import Frame, parts
from barograph.gates import GateReport, gate
from barograph.guards import _KINDS, _LEAST_ASYMPTOTIC, _NEEDS, _checked, _counts, _guard, _halves
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


_MOST_WAITING = 1_000_000
"""Paired events that may wait for their other half; beyond it the oldest are given up, and counted."""


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
