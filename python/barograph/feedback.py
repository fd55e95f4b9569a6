"""The feedback loop: labels join their predictions, metrics follow, and what should be labelled or learnt from next."""

from __future__ import annotations

import json
import time as clock
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, Protocol

from barograph import _barograph
from barograph.errors import InvalidArgumentError
from barograph.frames import Frame, parts
from barograph.monitors import _instant, _nanoseconds

if TYPE_CHECKING:
    import polars as pl

    from barograph.estimates import Cbpe
    from barograph.references import Reference

__all__ = ["FeedbackLoop"]

_WEEK, _MONDAY = 7 * 86_400 * 10**9, 4 * 86_400 * 10**9
_LEAST_POOLED = 200
"""Labelled rows of a label and score decile from which on its delays stand for themselves."""
_LEAST_ARRIVED = 0.05
_MOST_DECISIONS = 20
"""Values of a prediction up to which delays are told apart by it."""


class Store(Protocol):
    """Keeps what does not fit in memory: a database, files, whatever you have.

    Predictions have the columns id, time, prediction, score, version and what is kept, labels id, label and time.
    """

    def save(self, predictions: pl.DataFrame, labels: pl.DataFrame) -> None:
        """Takes predictions that are given up, with all label events of their ids; if it raises, nothing is given up."""

    def load(self, ids: pl.Series) -> tuple[pl.DataFrame, pl.DataFrame] | None:
        """Gives back what was saved under these ids, and forgets it; None if there is nothing."""


class _Frames:
    """A store, handed frames of polars."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def save(self, predictions: Any, labels: Any) -> None:
        import polars as pl

        self._store.save(pl.DataFrame(predictions), pl.DataFrame(labels))

    def load(self, ids: Any) -> tuple[Any, Any] | None:
        import polars as pl

        return self._store.load(pl.DataFrame(ids)["id"])


class FeedbackLoop:
    """Joins labels to predictions by id, and by version where there are several; labels may come late, early, twice, corrected or never.

    policy: which label of several counts: "last" that of the greatest arrival time (of equal ones the later row), "first" that of the
    smallest (the earlier row). as_of: labels that arrived after it, and predictions at or after it, do not count: what was known then.
    horizon: labels that arrive more than that after their prediction do not count (counted as late). memory: bytes the ledger may take;
    beyond them the oldest predictions are given up and counted as expired (without label) or archived. store: takes them instead, and is
    asked for ids that are not known here, so that a label finds its prediction however old it is; what is stored is counted, and not
    part of `joined` and metrics until it is back.

    Predictions keep id, time, prediction, score, version and what `keep` names; nothing else of a row stays. About 90 bytes per
    prediction whose id is a number, 24 per label event. A join costs about 0.2 us per label.

    >>> from datetime import UTC
    >>> day = datetime(2026, 1, 5, tzinfo=UTC)
    >>> loop = FeedbackLoop()
    >>> loop.labels({"id": [2, 9], "y": [0, 1], "at": [day, day]}, id="id", label="y", time="at")
    >>> loop.predictions({"id": [1, 2], "at": [day, day], "p": [1, 0], "s": [0.9, 0.2]}, id="id", time="at", prediction="p", score="s")
    >>> loop.labels({"id": [1], "y": [1], "at": [day + timedelta(days=3)]}, id="id", label="y", time="at")
    >>> loop.joined().select("id", "prediction", "label").rows()
    [(2, 0, 0), (1, 1, 1)]
    >>> loop.counts()["orphan"]
    1
    """

    def __init__(
        self,
        *,
        policy: Literal["last", "first"] = "last",
        as_of: datetime | None = None,
        horizon: str | timedelta | None = None,
        memory: int = 1 << 30,
        store: Store | None = None,
    ) -> None:
        if policy not in ("last", "first"):
            raise InvalidArgumentError(f'`policy` must be "last" or "first", got {policy!r}')
        self._as_of = None if as_of is None else _instant(as_of)
        self._horizon = None if horizon is None else _nanoseconds("horizon", horizon)
        terms = {"policy": policy, "as_of": self._as_of, "horizon": self._horizon, "memory": memory}
        if store is not None and not (hasattr(store, "save") and hasattr(store, "load")):
            raise InvalidArgumentError(f"`store` must have `save` and `load`, got {type(store).__name__}")
        self._native = _barograph.Ledger(json.dumps(terms), None if store is None else _Frames(store))
        self._types: dict[str, Any] = {}
        self._sampled: pl.DataFrame | None = None

    def predictions(
        self,
        frame: Frame,
        *,
        id: str,
        time: str,
        prediction: str | None = None,
        score: str | None = None,
        version: str | None = None,
        keep: Sequence[str] = (),
    ) -> None:
        """Adds predictions; the arguments name columns. Of several with one id (and version) the first that is given counts.

        id: whole numbers or text. time: naive ones are UTC; rows without id or time are counted as untimed and left out. prediction: a
        number, a boolean or a class. score: of the positive class. keep: columns of names to group by later.
        Raises InvalidArgumentError for a name that the frame has not, or ids of another kind than before.
        """
        names = {"id": id, "time": time, "prediction": prediction, "score": score, "version": version, "keep": list(keep)}
        for part in parts(frame):
            read, types = self._typed(part, {"id": id, "prediction": prediction, "score": score})
            self._native.predictions(read, json.dumps(names))
            self._types = types

    def labels(self, frame: Frame, *, id: str, label: str, time: str | None = None) -> None:
        """Adds label events, in any order, before or after their predictions. Null labels and ids are counted and left out.

        time: the column of arrival times; without it they arrive now. Raises InvalidArgumentError as `predictions` does.
        """
        for part in parts(frame):
            read, types = self._typed(part, {"id": id, "label": label})
            self._native.labels(read, json.dumps({"id": id, "label": label, "time": time}), clock.time_ns())
            self._types = types

    def _typed(self, part: Any, columns: dict[str, str | None]) -> tuple[Any, dict[str, Any]]:
        """The part, and the types known with it: what goes in comes out as it was."""
        import polars as pl

        frame = part if isinstance(part, pl.DataFrame) else pl.DataFrame(part)
        types = dict(self._types)
        for role, name in columns.items():
            if name is None or name not in frame.columns:
                continue
            kind = frame.schema[name]
            known = types.setdefault(role, kind)
            if (known in _TEXTS) != (kind in _TEXTS):
                hint = "cast one of them; a class is text in every frame or in none"
                raise InvalidArgumentError(f"`{role}` must be {known} as before, column {name!r} is {kind}", hint)
        texts = {types[role] in _TEXTS for role in ("prediction", "label") if role in types}
        if len(texts) > 1:
            differ = f"predictions are {types['prediction']}, labels {types['label']}"
            raise InvalidArgumentError(f"`label` and `prediction` must be comparable: {differ}", "cast one of them")
        return frame, types

    def joined(self, *, as_of: datetime | None = None) -> pl.DataFrame:
        """Predictions that have a label, in the order their ids were seen.

        as_of: as a loop with this `as_of` would have it: a label that was corrected later appears with its earlier value. (Of predictions
        that came twice the first that was given counts, also where it is after `as_of`.)
        Columns: id, time, prediction, score, version, label, label_time, and what is kept.
        """
        return self._table(everything=False, as_of=as_of)

    def _table(self, *, everything: bool, as_of: datetime | None = None) -> pl.DataFrame:
        import polars as pl

        terms = (everything,) if as_of is None else (everything, _instant(as_of))
        frame = pl.DataFrame(self._native.table(*terms))
        for role in ("id", "prediction", "score", "label"):
            kind = self._types.get(role)
            if kind is None:
                continue
            if kind in _TEXTS and role in ("prediction", "label"):
                names = pl.Series(self._native.classes(), dtype=pl.String)
                frame = frame.with_columns(names.gather(frame[role].cast(pl.UInt32)).alias(role))
            elif kind not in _TEXTS and frame.schema[role] != kind:
                frame = frame.with_columns(pl.col(role).cast(kind))
        return frame

    def counts(self) -> dict[str, int]:
        """What came and what became of it.

        predictions and labels that were accepted as rows; joined and pending predictions; orphan: ids that only labels know; late: label
        events beyond the horizon; duplicate: later predictions of a known id; superseded: label events that another one won against;
        conflicting: predictions with another label at the same instant as theirs; null labels; untimed rows; after: beyond `as_of`;
        expired and archived: given up without and with a label; stored: those that the store has.
        """
        return dict(self._native.counts())

    def expire(self, before: datetime) -> None:
        """Gives up predictions before a time, and labels that only wait and came before it."""
        self._native.expire(_instant(before))

    @property
    def bytes(self) -> int:
        """What the ledger takes, about."""
        return self._native.size()

    def metrics(
        self,
        window: str | timedelta = "1d",
        by: str | None = None,
        *,
        task: Literal["binary", "multiclass", "regression"] | None = None,
        correct: Literal["delay", "sampling"] | None = None,
        now: datetime | None = None,
        as_of: datetime | None = None,
        confidence: float = 0.95,
    ) -> pl.DataFrame:
        """Metrics of the labelled predictions of each window, one row per window, group and metric.

        window: half-open, by the time of the prediction, aligned to the UTC epoch, weeks to Monday. by: "version" or a kept column. task:
        inferred if absent: text is multiclass, labels of 0 and 1 are binary, other numbers a regression. correct: "delay" weighs
        labels by one over the probability that they had arrived by `now` (the greatest time here if absent), by label, prediction and
        score decile of the cohorts that are older than the horizon, which must be given; where a stratum cannot have arrived yet,
        there is no value and a reason. "sampling" uses only rows that `sample_for_labels` chose, by their inclusion probabilities.
        as_of: what was known then, as in `joined`; `now` is the same time unless given.

        Columns: window_start, window_end, the group, metric, value, lower, upper, predictions, labelled, effective_share (of the
        labelled rows, after weights), reason. A value that does not exist is null and has a reason.
        """
        import polars as pl

        length = _nanoseconds("window", window)
        frame = self._table(everything=True, as_of=as_of)
        if by is not None and by not in frame.columns:
            raise InvalidArgumentError(
                f"`by` must be version or a column that was kept, got {by!r}", f"there are {', '.join(frame.columns)}"
            )
        if correct not in (None, "delay", "sampling"):
            raise InvalidArgumentError(f'`correct` must be "delay" or "sampling", got {correct!r}')
        kind: str = task or self._task(frame)
        frame, unreached = self._weighed(frame, correct, as_of if now is None else now)
        start = _floor(pl.col("time").to_physical(), length)
        frame = frame.with_columns(window_start=start).sort("window_start", maintain_order=True)
        keys = ["window_start"] if by is None else ["window_start", by]
        rows: list[dict[str, Any]] = []
        classes = sorted(set(frame["label"].drop_nulls()) | set(frame["prediction"].drop_nulls())) if kind == "multiclass" else []
        for key, group in frame.group_by(keys, maintain_order=True):
            labelled = group.drop_nulls("label")
            if correct is not None:
                labelled = labelled.filter(pl.col("weight").is_not_null())
            share = _effective(labelled["weight"]) if correct is not None and labelled.height else 1.0
            shared = {
                "window_start": key[0],
                "window_end": key[0] + length,
                **({} if by is None else {by: key[1]}),
                "predictions": group.height,
                "labelled": labelled.height,
                "effective_share": share,
            }
            why = None if unreached is None else unreached(group["age"])
            for metric, value, lower, upper in _metrics(kind, labelled, classes, confidence, weighted=correct is not None):
                reason = why
                if why is not None:
                    value = None
                elif value is None:
                    reason = "no labels yet" if not labelled.height else _why(kind, labelled)
                if value is None:
                    lower = upper = None
                elif share < 1.0 and lower is not None and upper is not None:
                    lower, upper = (value + (limit - value) / share**0.5 for limit in (lower, upper))
                rows.append({**shared, "metric": metric, "value": value, "lower": lower, "upper": upper, "reason": reason})
        group_type = {} if by is None else {by: pl.String}
        schema = {
            "window_start": pl.Int64,
            "window_end": pl.Int64,
            **group_type,
            "metric": pl.String,
            **dict.fromkeys(("value", "lower", "upper"), pl.Float64),
            **dict.fromkeys(("predictions", "labelled"), pl.Int64),
            "effective_share": pl.Float64,
            "reason": pl.String,
        }
        out = pl.DataFrame(rows, schema=schema)
        return out.with_columns(pl.col("window_start", "window_end").cast(pl.Datetime("ns", "UTC")))

    def _task(self, frame: pl.DataFrame) -> str:
        import polars as pl

        if self._types.get("label") in _TEXTS:
            return "multiclass"
        labels = frame["label"].drop_nulls()
        return "binary" if labels.cast(pl.Float64).is_in([0.0, 1.0]).all() else "regression"

    def _weighed(self, frame: pl.DataFrame, correct: str | None, now: datetime | None) -> tuple[pl.DataFrame, _Unreached | None]:
        """The frame with weights of its labelled rows, and what says which windows cannot have any."""
        import polars as pl

        if correct is None:
            return frame, None
        if correct == "sampling":
            if self._sampled is None:
                raise InvalidArgumentError('`correct="sampling"` needs a sample', "choose one by `sample_for_labels` first")
            frame = frame.join(self._sampled, on=["id", "version"], how="left", nulls_equal=True)
            return frame.with_columns(weight=1 / pl.col("inclusion")), None
        if self._horizon is None:
            raise InvalidArgumentError('`correct="delay"` needs a horizon', 'say within which time labels are waited for: `horizon="30d"`')
        at = self._now(frame, now)
        return _by_delay(frame, at, self._horizon)

    def _now(self, frame: pl.DataFrame, now: datetime | None) -> int:
        if now is not None:
            return _instant(now)
        if self._as_of is not None:
            return self._as_of
        last = [frame[name].to_physical().max() for name in ("time", "label_time")]
        return max(int(one) for one in (*last, 0) if isinstance(one, int))

    def estimates(self, cbpe: Cbpe, window: str | timedelta = "1d", *, confidence: float = 0.95) -> pl.DataFrame:
        """Estimated metrics of every window beside the realised ones, and how far off past estimates were: one row per window and metric.

        cbpe: a calibration of two classes, fitted on reference scores and labels. Needs predictions with scores.
        Columns: window_start, window_end, metric, estimate, lower, upper (limits of the realised metric if nothing but chance differs),
        realised, predictions, labelled, gap (estimate minus realised, where at least half of the labels have come), past_error (mean
        absolute gap of the windows before), inside (whether the realised metric lies in the limits). Null where there is none.
        """
        import polars as pl

        length = _nanoseconds("window", window)
        frame = self._table(everything=True).drop_nulls("score")
        if frame.is_empty():
            raise InvalidArgumentError("an estimate needs predictions with scores", "name them in `predictions(score=)`")
        frame = frame.with_columns(window_start=_floor(pl.col("time").to_physical(), length)).sort("window_start", maintain_order=True)
        rows: list[dict[str, Any]] = []
        gaps: dict[str, list[float]] = {}
        for (start,), group in frame.group_by("window_start", maintain_order=True):
            guesses = group["prediction"].cast(pl.Float64) if not group["prediction"].null_count() else None
            estimated = cbpe.estimate(group["score"].to_numpy(), None if guesses is None else guesses.to_numpy())
            labelled = group.drop_nulls("label")
            realised = {row[0]: row[1] for row in _metrics("binary", labelled, [], confidence, weighted=False)} if labelled.height else {}
            matured = 2 * labelled.height >= group.height
            for metric, value, lower, upper in estimated.to_frame(confidence).iter_rows():
                truth = realised.get(metric)
                past = gaps.setdefault(metric, [])
                known = matured and value is not None and truth is not None
                row = {
                    "window_start": start,
                    "window_end": start + length,
                    "metric": metric,
                    "estimate": value,
                    "lower": lower,
                    "upper": upper,
                    "realised": truth,
                    "predictions": group.height,
                    "labelled": labelled.height,
                    "gap": value - truth if known else None,
                    "past_error": sum(past) / len(past) if past else None,
                    "inside": lower <= truth <= upper if known and lower is not None else None,
                }
                rows.append(row)
                if known:
                    past.append(abs(value - truth))
        numbers = dict.fromkeys(("estimate", "lower", "upper", "realised"), pl.Float64)
        counts = dict.fromkeys(("predictions", "labelled"), pl.Int64)
        schema = {"window_start": pl.Int64, "window_end": pl.Int64, "metric": pl.String, **numbers, **counts}
        out = pl.DataFrame(rows, schema={**schema, "gap": pl.Float64, "past_error": pl.Float64, "inside": pl.Boolean})
        return out.with_columns(pl.col("window_start", "window_end").cast(pl.Datetime("ns", "UTC")))

    def coverage(self, window: str | timedelta = "1d", *, now: datetime | None = None) -> pl.DataFrame:
        """How many predictions of each window have a label, and how long that took.

        Columns: window_start, window_end, predictions, labelled, coverage, expected (the share of labels that a prediction of this age
        has by the Kaplan-Meier estimate over all windows, in which pending ones are censored), delay_p50, delay_p90 (seconds). now:
        as in `metrics`.
        """
        import numpy as np
        import polars as pl

        length = _nanoseconds("window", window)
        frame = self._table(everything=True)
        at = self._now(frame, now)
        times, arrived = frame["time"].to_physical(), frame["label_time"].to_physical()
        delay, age = (arrived - times).clip(0), (at - times).clip(0)
        curve = _kaplan_meier(np.asarray(delay.fill_null(-1)), np.asarray(age))
        frame = frame.with_columns(delay=delay, age=age, window_start=_floor(pl.col("time").to_physical(), length))
        out = frame.group_by("window_start").agg(
            predictions=pl.len().cast(pl.Int64),
            labelled=pl.col("label").count().cast(pl.Int64),
            delay_p50=pl.col("delay").quantile(0.5, "nearest") / 1e9,
            delay_p90=pl.col("delay").quantile(0.9, "nearest") / 1e9,
            age=pl.col("age").median(),
        )
        reached = [float(curve[1][np.searchsorted(curve[0], one, "right") - 1]) if len(curve[0]) else 0.0 for one in out["age"]]
        out = out.with_columns(
            window_end=pl.col("window_start") + length,
            coverage=pl.col("labelled") / pl.col("predictions"),
            expected=pl.Series(reached, dtype=pl.Float64),
        ).sort("window_start")
        times_utc = pl.col("window_start", "window_end").cast(pl.Datetime("ns", "UTC"))
        order = ["window_start", "window_end", "predictions", "labelled", "coverage", "expected", "delay_p50", "delay_p90"]
        return out.with_columns(times_utc).select(order)

    def sample_for_labels(
        self,
        budget: int,
        strategy: Literal["uniform", "stratified", "uncertainty", "drift"] = "uniform",
        *,
        by: str | None = None,
        reference: Reference | None = None,
        since: datetime | None = None,
        seed: int = 0,
    ) -> pl.DataFrame:
        """Chooses pending predictions to be labelled, each with a known probability, so that metrics of them are without bias.

        budget: how many. strategy: "uniform"; "stratified" gives the values of `by` (else ten groups by score) equal shares;
        "uncertainty" prefers scores near one half; "drift" prefers scores that are more frequent now than in the reference's column of
        role score. since: predictions before it are not asked about. Gives id, version, time, prediction, score and inclusion, the
        probability; metrics(correct="sampling") uses it. Systematic sampling with unequal probabilities: Madow, Ann. Math. Stat. 1949.
        """
        import numpy as np
        import polars as pl

        if not isinstance(budget, int) or budget < 1:
            raise InvalidArgumentError(f"`budget` must be a whole number of at least 1, got {budget!r}")
        frame = self._table(everything=True).filter(pl.col("label").is_null())
        if since is not None:
            frame = frame.filter(pl.col("time").to_physical() >= _instant(since))
        sizes = _sizes(frame, strategy, by, reference)
        chances = _inclusion(sizes, min(budget, frame.height))
        random = np.random.default_rng(seed)
        order = random.permutation(frame.height)
        ends = np.cumsum(chances[order])
        marks = random.random() + np.arange(round(float(ends[-1])) if frame.height else 0)
        chosen = order[np.minimum(np.searchsorted(ends, marks, "right"), frame.height - 1)] if len(marks) else order[:0]
        chosen = np.unique(chosen)
        picked = frame[chosen].select("id", "version", "time", "prediction", "score").with_columns(inclusion=chances[chosen])
        kept = picked.select("id", "version", "inclusion")
        self._sampled = (
            kept if self._sampled is None else pl.concat([self._sampled, kept]).unique(["id", "version"], keep="first", maintain_order=True)
        )
        return picked

    def training_frame(
        self,
        features: pl.DataFrame | pl.LazyFrame,
        *,
        id: str,
        since: datetime | None = None,
        until: datetime | None = None,
        version: str | None = None,
        as_of: datetime | None = None,
    ) -> pl.LazyFrame:
        """The rows of `features` whose prediction has a label that counts, with label and prediction time: what a model may be fitted on.

        features: a frame of yours with the column `id`; nothing of it is kept here; its order stays. since, until: of the prediction.
        version: predictions of this one only. as_of: what was known then, as in `joined`. Labels beyond the loop's own `as_of` or its
        horizon are not in it. Columns added: label, time (as prediction_time).
        """
        import polars as pl

        joined = self.joined(as_of=as_of)
        if version is not None:
            joined = joined.filter(pl.col("version") == version)
        if since is not None:
            joined = joined.filter(pl.col("time").to_physical() >= _instant(since))
        if until is not None:
            joined = joined.filter(pl.col("time").to_physical() < _instant(until))
        joined = joined.unique("id", keep="first", maintain_order=True).select(pl.col("id").alias(id), "label", prediction_time="time")
        return features.lazy().join(joined.lazy(), on=id, how="inner", maintain_order="left")

    def __repr__(self) -> str:
        counts = self.counts()
        return f"FeedbackLoop({counts['predictions']:,} predictions, {counts['joined']:,} with label)"


def _texts() -> tuple[Any, ...]:
    import polars as pl

    return (pl.String, pl.Categorical, pl.Enum)


class _Texts:
    """The types of text, known without loading polars with this module."""

    def __contains__(self, kind: object) -> bool:
        return any(kind == text for text in _texts())


_TEXTS = _Texts()


def _floor(time: Any, length: int) -> Any:
    """The start of the window that holds a time."""
    offset = _MONDAY if length % _WEEK == 0 else 0
    return (time - offset) // length * length + offset


def _metrics(task: str, rows: pl.DataFrame, classes: list[Any], confidence: float, *, weighted: bool) -> list[Any]:
    """Metric, value and limits, of whatever exists for these rows."""
    import polars as pl

    from barograph.metrics import BinaryMetrics, MulticlassMetrics, RegressionMetrics

    weights = rows["weight"].to_numpy() if weighted else None
    if task == "binary":
        measured: Any = BinaryMetrics()
        rows = rows.with_columns(pl.col("label").cast(pl.Float64))
        usable = rows["score"].is_between(0, 1).all() and not rows["score"].null_count()
        guessed = not rows["prediction"].null_count() and rows["prediction"].cast(pl.Float64).is_in([0.0, 1.0]).all()
        if rows.height and (usable or guessed):
            scores = rows["score"].to_numpy() if usable else None
            guesses = rows["prediction"].cast(pl.Float64).to_numpy() if guessed else None
            measured.update_many(rows["label"].to_numpy(), scores, y_pred=guesses, weight=weights)
    elif task == "multiclass":
        measured = MulticlassMetrics(classes if len(classes) > 1 else [*classes, "(other)"])
        known = rows.filter(pl.col("prediction").is_not_null())
        if known.height:
            kept = known["weight"].to_numpy() if weighted else None
            measured.update_many(known["label"].to_list(), known["prediction"].to_list(), weight=kept)
    else:
        if weighted:
            raise InvalidArgumentError("metrics of a regression take no weights", "leave out `correct`")
        measured = RegressionMetrics()
        rows = rows.with_columns(pl.col("label", "prediction").cast(pl.Float64)).drop_nulls("prediction")
        measured.update_many(rows["label"].to_numpy(), rows["prediction"].to_numpy())
    rows_of: list[Any] = measured.to_frame(confidence).rows()
    return rows_of


def _why(task: str, rows: pl.DataFrame) -> str:
    if task == "binary" and rows["label"].n_unique() < 2:
        return "the labels are of one class"
    if rows["score"].null_count() or rows["prediction"].null_count():
        return "predictions or scores are missing"
    return "it divides by nothing here"


def _effective(weights: pl.Series) -> float:
    """(Σw)² / (n Σw²): the share of independent rows that weighted ones are worth."""
    squares = float((weights * weights).sum())
    return float(weights.sum()) ** 2 / (len(weights) * squares) if squares > 0 else 0.0


def _by_delay(frame: pl.DataFrame, now: int, horizon: int) -> tuple[pl.DataFrame, _Unreached | None]:
    """Weights of labelled rows by one over the probability that their label had arrived, and what says where that cannot be."""
    import numpy as np
    import polars as pl

    times, arrived = frame["time"].to_physical(), frame["label_time"].to_physical()
    frame = frame.with_columns(age=now - times, delay=(arrived - times).clip(0))
    mature = frame.filter((pl.col("age") >= horizon) & pl.col("label").is_not_null())
    if mature.is_empty():
        raise InvalidArgumentError("no labelled prediction is older than the horizon", "wait, or give a shorter horizon")
    scores = mature["score"].drop_nulls()
    cuts = np.unique(np.quantile(scores, np.arange(1, 10) / 10)) if len(scores) else np.array([])

    decisions = sorted(mature["prediction"].drop_nulls().unique()) if mature["prediction"].n_unique() <= _MOST_DECISIONS else []

    def strata(rows: pl.DataFrame) -> Any:
        decile = np.searchsorted(cuts, rows["score"].fill_null(0.0).to_numpy()) if len(cuts) else np.zeros(rows.height, int)
        decided = [decisions.index(one) + 1 if one in decisions else 0 for one in rows["prediction"]] if decisions else 0
        return decile * (len(decisions) + 1) + np.asarray(decided)

    labels, groups, delays = mature["label"].to_numpy(), strata(mature), mature["delay"].to_numpy()
    curves, pools = {}, {}
    for label in np.unique(labels):
        pooled = pools[label] = np.sort(delays[labels == label])
        for group in np.unique(groups):
            own = np.sort(delays[(labels == label) & (groups == group)])
            share = len(own) / len(labels)
            curves[label, group] = (own if len(own) >= _LEAST_POOLED else pooled), share

    def arrived_by(ages: Any, delays: Any) -> Any:
        return (np.searchsorted(delays, ages, "right") + 0.5) / (len(delays) + 1)

    young = frame.filter((pl.col("age") < horizon) & pl.col("label").is_not_null())
    weights = np.ones(young.height)
    own_labels, own_groups, ages = young["label"].to_numpy(), strata(young), young["age"].to_numpy()
    for label, pooled in pools.items():
        weights[own_labels == label] = 1 / arrived_by(ages[own_labels == label], pooled)
    for (label, group), (delays, _) in curves.items():
        at = (own_labels == label) & (own_groups == group)
        weights[at] = 1 / arrived_by(ages[at], delays)
    weighed = pl.concat(
        [
            young.with_columns(weight=weights),
            frame.filter((pl.col("age") >= horizon) | pl.col("label").is_null()).with_columns(
                weight=pl.when(pl.col("label").is_not_null()).then(1.0)
            ),
        ]
    )
    return weighed, _Unreached(curves, arrived_by)


class _Unreached:
    """Whether all strata of a window can have arrived: at its middle age every one of 1 % of the labels needs a probability of 5 %."""

    def __init__(self, curves: dict[Any, Any], arrived_by: Any) -> None:
        self._curves = curves
        self._arrived_by = arrived_by

    def __call__(self, ages: pl.Series) -> str | None:
        """Why a window of these ages has no value; None if it has one."""
        age = ages.median()
        for (label, _), (delays, share) in self._curves.items():
            if share >= 0.01 and (reached := float(self._arrived_by(age, delays))) < _LEAST_ARRIVED:
                return f"insufficient: of the labels {label} {100 * reached:.1f} % have arrived at this age, 5 % are needed"
        return None


def _kaplan_meier(delay: Any, age: Any) -> tuple[Any, Any]:
    """Delays in ascending order and the share of labels that has come by each; a delay below 0 is a pending one, censored at its age."""
    import numpy as np

    came = delay >= 0
    duration = np.where(came, delay, age)
    order = np.lexsort((~came, duration))
    duration, came = duration[order], came[order]
    at_risk = len(duration) - np.arange(len(duration))
    survival = np.cumprod(1 - came / np.maximum(at_risk, 1))
    return duration[came], (1 - survival)[came]


def _sizes(frame: pl.DataFrame, strategy: str, by: str | None, reference: Reference | None) -> Any:
    """How much each row is wanted, positive."""
    import numpy as np
    import polars as pl

    n = frame.height
    if strategy == "uniform":
        return np.ones(n)
    if strategy == "stratified":
        if by is not None and by not in frame.columns:
            raise InvalidArgumentError(
                f"`by` must be version or a column that was kept, got {by!r}", f"there are {', '.join(frame.columns)}"
            )
        group = pl.col(by) if by is not None else (pl.col("score").rank("average") * 10 / (pl.len() + 1)).floor()
        return 1.0 / frame.select(pl.len().over(group)).to_series().to_numpy()
    if frame["score"].null_count() == n and n:
        raise InvalidArgumentError(f"strategy {strategy!r} needs scores", "name them in `predictions(score=)`")
    scores = frame["score"].cast(pl.Float64).fill_null(0.5).to_numpy()
    if strategy == "uncertainty":
        # Nobody is excluded: a row that cannot be chosen cannot be weighed.
        return 0.05 + 1.0 - np.abs(2.0 * np.clip(scores, 0.0, 1.0) - 1.0)
    if strategy == "drift":
        column = next(iter(reference.schema.names("score")), None) if reference is not None else None
        found = reference.bins(column) if reference is not None and column is not None else None
        if found is None:
            raise InvalidArgumentError("strategy 'drift' needs a reference with a column of role score", "pass `reference=`")
        edges, counts = np.asarray(found[0]), np.asarray(found[1], float)
        groups = np.minimum(np.searchsorted(np.cumsum(counts) / counts.sum(), np.arange(1, 10) / 10), len(edges) - 1)
        cuts = np.unique(edges[groups])
        expected = np.diff(np.concatenate([[0], np.cumsum(counts)[np.searchsorted(edges, cuts)], [counts.sum()]])) / counts.sum()
        where = np.searchsorted(cuts, scores)
        now = np.bincount(where, minlength=len(cuts) + 1) / max(n, 1)
        return np.clip(now / np.maximum(expected, 1e-9), 0.1, 10.0)[where]
    raise InvalidArgumentError(f"`strategy` must be uniform, stratified, uncertainty or drift, got {strategy!r}")


def _inclusion(sizes: Any, budget: int) -> Any:
    """Probabilities proportional to the sizes that add up to the budget, none above 1."""
    import numpy as np

    chances, certain = np.zeros(len(sizes)), np.zeros(len(sizes), bool)
    while len(sizes):
        left = budget - certain.sum()
        rest = sizes[~certain].sum()
        chances = np.where(certain, 1.0, sizes * left / rest if rest > 0 else 0.0)
        over = (chances > 1.0) & ~certain
        if not over.any():
            break
        certain |= over
    return np.minimum(chances, 1.0)
