"""What a roll-out watches: each guard holds sequences of both models, or of their difference, and says what harm is certain."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from barograph.errors import InvalidArgumentError
from barograph.estimates import AsymptoticSequence, AucSequence, MeanSequence, QuantileSequence

if TYPE_CHECKING:
    import polars as pl

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
