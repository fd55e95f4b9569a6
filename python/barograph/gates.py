"""The gate before a release: current and candidate answer the same inputs, and their differences are held against limits."""

from __future__ import annotations

import math
import time as clock
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from barograph.errors import InvalidArgumentError
from barograph.estimates import _normal
from barograph.report_gate import _cell, _printable

if TYPE_CHECKING:
    import polars as pl

__all__ = ["GateReport", "gate"]

_LIMITS = {"error": 0.01, "brier": 0.01, "roc_auc": 0.01, "latency": 0.2, "null_predictions": 0.0, "unknown_outputs": 0.0}
"""Harm that is tolerated where the caller states nothing: additive, of latency relative."""
_KNOWN = (*_LIMITS, "disagreement", "absolute_error", "squared_error")
_BATCHES = 20
_FEW_CLASSES = 100


class GateReport:
    """What the gate found: one row per check and segment. `passed` is None where a check could not be decided."""

    def __init__(self, rows: list[dict[str, Any]], count: int) -> None:
        self._rows, self.count = rows, count

    @property
    def passed(self) -> bool | None:
        """False if a check failed, None if one is open, else True."""
        verdicts = {row["verdict"] for row in self._rows}
        return False if "failed" in verdicts else None if "open" in verdicts else True

    @property
    def exit_code(self) -> int:
        """0 passed, 1 failed, 3 inconclusive."""
        return {True: 0, False: 1, None: 3}[self.passed]

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {"passed": self.passed, "rows": self.count, "checks": self._rows}

    def to_frame(self) -> pl.DataFrame:
        """Columns: check, segment, current, candidate, harm, lower, upper, limit, rows, verdict, reason."""
        import polars as pl

        numbers = dict.fromkeys(("current", "candidate", "harm", "lower", "upper", "limit"), pl.Float64)
        schema = {"check": pl.String, "segment": pl.String, **numbers, "rows": pl.Int64, "verdict": pl.String, "reason": pl.String}
        return pl.DataFrame(self._rows, schema=schema)

    def to_junit(self) -> bytes:
        """One test case per check and segment: a failure where it failed, an error where it is open."""
        counts = {verdict: str(sum(row["verdict"] == verdict for row in self._rows)) for verdict in ("failed", "open")}
        of: dict[str, Any] = {"tests": str(len(self._rows)), "failures": counts["failed"], "errors": counts["open"], "skipped": "0"}
        suite = ElementTree.Element("testsuite", name="barograph gate", **of)
        for row in self._rows:
            case = ElementTree.SubElement(suite, "testcase", classname="gate", name=_printable(_title(row)))
            if row["verdict"] in ("failed", "open"):
                kind = "failure" if row["verdict"] == "failed" else "error"
                ElementTree.SubElement(case, kind, message=_printable(_words(row)), type=row["verdict"])
        root = ElementTree.Element("testsuites")
        root.append(suite)
        out: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
        return out

    def to_markdown(self) -> str:
        """A heading and a table."""
        lines = [f"### barograph gate: {self._said()}", "", "| check | verdict | what was found |", "|---|---|---|"]
        lines += [f"| {_cell(_title(row))} | {row['verdict']} | {_cell(_words(row))} |" for row in self._rows]
        return "\n".join([*lines, ""])

    def _said(self) -> str:
        return {True: "passed", False: "failed", None: "inconclusive"}[self.passed] + f", {self.count:,} rows"

    def __str__(self) -> str:
        width = max(len(_title(row)) for row in self._rows)
        return "\n".join([f"gate {self._said()}", *(f"  {_title(row):<{width}}  {row['verdict']:<6}  {_words(row)}" for row in self._rows)])

    def __repr__(self) -> str:
        return f"GateReport({self._said()})"


def gate(
    current: Any,
    candidate: Any,
    frame: Any = None,
    *,
    label: str | None = None,
    id: str | None = None,
    prediction: str = "prediction",
    score: str = "score",
    segments: Sequence[str] = (),
    limits: Mapping[str, float | None] | None = None,
    features: Sequence[str] | None = None,
    confidence: float = 0.95,
) -> GateReport:
    """Holds a candidate against the current model on the same inputs.

    current, candidate: predictors (callables, or with `predict_proba` or `predict`), asked for the rows of `frame` (its `features`, all but
    label and segments if absent); or frames of predictions they made, with the columns `prediction` and/or `score`, joined by `id` (row by
    row without one), label and segments in either. limits: harm that is tolerated, by check: null_predictions and unknown_outputs (0),
    disagreement (not judged unless stated), error, brier, roc_auc (0.01 each), absolute_error and squared_error (relative; for labels that
    are no classes), latency (0.2 of the current median; of predictors, measured on 20 batches of both in turn); None leaves a check out.

    A check passes if its harm is below the limit for certain, fails if it is above for certain, and is open else. Differences are paired:
    normal limits for losses, DeLong's paired ones for the AUC. The checks of one kind over all and over segments share the level evenly.

    >>> import numpy as np
    >>> x = np.linspace(0, 1, 4000)
    >>> y = (np.random.default_rng(0).random(4000) < x).astype(int)
    >>> report = gate(lambda rows: rows["x"].to_numpy(), lambda rows: 1 - rows["x"].to_numpy(), {"x": x, "y": y}, label="y")
    >>> report.passed
    False
    """
    import polars as pl

    stated = {**_LIMITS, "absolute_error": 0.05, "squared_error": 0.05, **(limits or {})}
    for name, limit in stated.items():
        if name not in _KNOWN:
            raise InvalidArgumentError(f"`limits` holds {name!r}, which is no check", f"there are {', '.join(_KNOWN)}")
        if limit is not None and not limit >= 0:
            raise InvalidArgumentError(f"the limit of {name!r} must not be negative, got {limit}")
    rows: list[dict[str, Any]] = []
    if frame is None:
        table = _joined(_frame(current, "current"), _frame(candidate, "candidate"), id, prediction, score, label, segments)
    else:
        given = _frame(frame, "frame")
        for argument, column in (("label", label), *(("segments", one) for one in segments)):
            if column is not None and column not in given.columns:
                raise InvalidArgumentError(f"`{argument}` names column {column!r}, which the frame has not", f"it has {given.columns}")
        inputs = (
            given.select(features) if features is not None else given.drop([name for name in (label, id, *segments) if name is not None])
        )
        # The first call of either may load and compile: it answers, and is not timed.
        answers = [_asked(model, inputs, name) for model, name in ((current, "current"), (candidate, "candidate"))]
        table = pl.concat(
            [given.select([name for name in (label, *segments) if name is not None]).rename({label: "label"} if label else {})]
            + [
                one.rename({name: f"{name}_{side}" for name in one.columns})
                for one, side in zip(answers, ("current", "candidate"), strict=True)
            ],
            how="horizontal",
        )
        if stated["latency"] is not None:
            rows.append(_latency(current, candidate, inputs, stated["latency"], confidence))
    if not table.height:
        raise InvalidArgumentError("`frame` must hold rows, got none")
    groups: list[tuple[str | None, pl.DataFrame]] = [(None, table)]
    for one in segments:
        for value, part in table.group_by(one, maintain_order=True):
            groups.append((f"{one}={value[0]}", part))
    checks = []
    for segment, part in groups:
        checks += [{**row, "segment": segment} for row in _contract(part, stated)]
        checks += [{**row, "segment": segment} for row in _differences(part, stated, 1 - (1 - confidence) / len(groups))]
    order = list(dict.fromkeys(row["check"] for row in checks))
    checks.sort(key=lambda row: (order.index(row["check"]), row["segment"] is not None))
    return GateReport([*checks, *rows], table.height)


def _frame(value: Any, name: str) -> pl.DataFrame:
    import polars as pl

    if isinstance(value, pl.DataFrame):
        return value
    if isinstance(value, pl.LazyFrame):
        return value.collect()
    try:
        return pl.DataFrame(value)
    except Exception as error:
        raise InvalidArgumentError(
            f"`{name}` must be a frame, got {type(value).__name__}", "predictors need the inputs: `frame=`"
        ) from error


def _joined(
    old: pl.DataFrame, new: pl.DataFrame, id: str | None, prediction: str, score: str, label: str | None, segments: Sequence[str]
) -> pl.DataFrame:
    import polars as pl

    def sides(frame: pl.DataFrame, side: str) -> list[pl.Expr]:
        found = [(name, role) for name, role in ((prediction, "prediction"), (score, "score")) if name in frame.columns]
        if not found:
            raise InvalidArgumentError(f"`{side}` must have a column {prediction!r} or {score!r}", f"it has {frame.columns}")
        return [pl.col(name).alias(f"{role}_{side}") for name, role in found]

    for name in (label, *segments):
        if name is None:
            continue
        if name not in old.columns and name not in new.columns:
            raise InvalidArgumentError(f"neither frame has column {name!r}", f"they have {old.columns} and {new.columns}")
    rest = [name for name in (label, *segments) if name is not None]
    if id is None:
        if old.height != new.height:
            raise InvalidArgumentError(f"both must have as many rows, got {old.height} and {new.height}", "join them by `id=`")
        left, right = old.with_row_index("_row"), new.with_row_index("_row")
        id = "_row"
    else:
        for side, frame in (("current", old), ("candidate", new)):
            if id not in frame.columns:
                raise InvalidArgumentError(f"`id` names column {id!r}, which `{side}` has not", f"it has {frame.columns}")
            if frame[id].n_unique() < frame.height:
                raise InvalidArgumentError(f"`{side}` must have each id once, {frame.height - frame[id].n_unique()} come again")
        missing = old.join(new, on=id, how="anti").height
        if missing or new.height != old.height:
            extra = new.join(old, on=id, how="anti").height
            raise InvalidArgumentError(f"both must answer the same inputs: {missing} ids of the current one are missing, {extra} are new")
        left, right = old, new
    one = left.select(pl.col(id), *sides(left, "current"), *(name for name in rest if name in left.columns))
    two = right.select(pl.col(id), *sides(right, "candidate"), *(name for name in rest if name not in left.columns))
    out = one.join(two, on=id, maintain_order="left")
    return out.rename({label: "label"}) if label is not None else out


def _asked(model: Any, inputs: pl.DataFrame, name: str) -> pl.DataFrame:
    """The answers of a predictor: predictions, scores or both."""
    import numpy as np
    import polars as pl

    columns: dict[str, Any] = {}
    if hasattr(model, "predict_proba"):
        chances = np.asarray(model.predict_proba(inputs))
        if chances.ndim == 2 and chances.shape[1] == 2:
            columns["score"] = chances[:, 1]
    if hasattr(model, "predict"):
        columns["prediction"] = np.asarray(model.predict(inputs))
    elif callable(model):
        answer = np.asarray(model(inputs))
        score = answer.dtype.kind == "f" and np.all((answer >= 0) & (answer <= 1) | np.isnan(answer))
        columns["score" if score else "prediction"] = answer
    if not columns:
        raise InvalidArgumentError(f"`{name}` must be callable or have `predict`, got {type(model).__name__}")
    for role, values in columns.items():
        if len(values) != inputs.height:
            raise InvalidArgumentError(f"`{name}` must give one {role} per row, got {len(values)} for {inputs.height}")
    out = pl.DataFrame({role: values.tolist() if values.dtype == object else values for role, values in columns.items()})
    return out.with_columns(pl.selectors.float().fill_nan(None))


def _contract(part: pl.DataFrame, stated: Mapping[str, float | None]) -> list[dict[str, Any]]:
    """Null predictions, outputs that the current model never gives, disagreement."""
    import polars as pl

    rows = []
    role = next((role for role in ("prediction", "score") if f"{role}_candidate" in part.columns), None)
    n = part.height
    if role is not None and stated["null_predictions"] is not None:
        old = part[f"{role}_current"].null_count() / n if f"{role}_current" in part.columns else None
        new = part[f"{role}_candidate"].null_count() / n
        harm = new - (old or 0.0)
        rows.append(_exactly("null_predictions", old, new, harm, stated["null_predictions"], n))
    if {"prediction_current", "prediction_candidate"} <= set(part.columns):
        old_values, new_values = part["prediction_current"], part["prediction_candidate"]
        classes = not old_values.dtype.is_float() and old_values.n_unique() <= _FEW_CLASSES
        if stated["unknown_outputs"] is not None and classes:
            known = old_values.drop_nulls().unique().cast(pl.String)
            told = new_values.drop_nulls().cast(pl.String)
            share = int((~told.is_in(known.implode())).sum()) / len(told) if len(told) else 0.0
            rows.append(_exactly("unknown_outputs", 0.0, share, share, stated["unknown_outputs"], n))
        if (limit := stated.get("disagreement")) is not None and classes:
            differ = int(old_values.cast(pl.String).ne_missing(new_values.cast(pl.String)).sum())
            rows.append(_exactly("disagreement", None, differ / n, differ / n, limit, n))
    return rows


def _exactly(check: str, old: float | None, new: float, harm: float, limit: float, n: int) -> dict[str, Any]:
    """A check of these very rows: nothing is inferred."""
    verdict = "passed" if harm <= limit + 1e-12 else "failed"
    return _row(check, old, new, harm, harm, harm, limit, n, verdict)


def _row(
    check: str,
    old: float | None,
    new: float | None,
    harm: float | None,
    low: float | None,
    high: float | None,
    limit: float,
    n: int,
    verdict: str | None = None,
    reason: str | None = None,
) -> dict[str, Any]:
    if verdict is None:
        verdict = "open" if low is None or high is None else "failed" if low > limit else "passed" if high <= limit else "open"
    numbers = {"current": old, "candidate": new, "harm": harm, "lower": low, "upper": high, "limit": limit}
    return {"check": check, "segment": None, **numbers, "rows": n, "verdict": verdict, "reason": reason}


def _differences(part: pl.DataFrame, stated: Mapping[str, float | None], confidence: float) -> list[dict[str, Any]]:
    """Metrics of both on labelled rows, paired."""
    import numpy as np
    import polars as pl

    if "label" not in part.columns:
        return []
    rows = []
    binary = not part["label"].dtype.is_float() or part["label"].drop_nulls().is_in([0.0, 1.0]).all()
    classes = binary or part["label"].dtype == pl.String
    z = _normal(confidence)

    def pairs(role: str) -> pl.DataFrame | None:
        names = [f"{role}_current", f"{role}_candidate"]
        return part.select("label", *names).drop_nulls() if set(names) <= set(part.columns) else None

    def losses(check: str, known: pl.DataFrame, of: Any, *, relative: bool = False) -> None:
        limit = stated[check]
        if limit is None:
            return
        old, new = (np.asarray(of(known, side), float) for side in ("current", "candidate"))
        n = len(old)
        if n < 30:
            rows.append(_row(check, None, None, None, None, None, limit, n, reason=f"{n} labelled rows, 30 are needed"))
            return
        scale = float(old.mean()) if relative else 1.0
        if relative and scale <= 0:
            rows.append(_row(check, scale, float(new.mean()), None, None, None, limit, n, reason="the current model makes no error"))
            return
        harm = float((new - old).mean()) / scale
        # Student's interval of the paired difference; rows without any difference leave the rule of three.
        reach = z * float(np.std(new - old, ddof=1)) / math.sqrt(n) / scale
        reach = max(reach, 3.0 / n) if classes else reach
        rows.append(_row(check, float(old.mean()), float(new.mean()), harm, harm - reach, harm + reach, limit, n))

    guessed = pairs("prediction")
    if guessed is not None and classes:
        losses("error", guessed, lambda known, side: known["label"].cast(pl.String) != known[f"prediction_{side}"].cast(pl.String))
    if guessed is not None and not classes:

        def gap(known: pl.DataFrame, side: str) -> pl.Series:
            return (known[f"prediction_{side}"] - known["label"]).cast(pl.Float64)

        losses("absolute_error", guessed, lambda known, side: gap(known, side).abs(), relative=True)
        losses("squared_error", guessed, lambda known, side: gap(known, side) ** 2, relative=True)
    scored = pairs("score")
    if scored is not None and binary and part["label"].dtype != pl.String:
        losses("brier", scored, lambda known, side: (known[f"score_{side}"] - known["label"].cast(pl.Float64)) ** 2)
        if stated["roc_auc"] is not None:
            rows.append(_areas(scored, stated["roc_auc"], z))
    return rows


def _areas(known: pl.DataFrame, limit: float, z: float) -> dict[str, Any]:
    """Both AUCs and DeLong's paired limits of their difference. Source: DeLong, DeLong & Clarke-Pearson, Biometrics 1988."""
    import numpy as np
    import polars as pl

    y = known["label"].cast(pl.Float64).to_numpy() > 0.5
    n, p = int((~y).sum()), int(y.sum())
    if min(n, p) < 10:
        reason = f"{p} positives and {n} negatives, 10 of each are needed"
        return _row("roc_auc", None, None, None, None, None, limit, len(y), reason=reason)
    above, below = [], []
    for side in ("current", "candidate"):
        scores = known[f"score_{side}"].rank("average").to_numpy()
        positives, negatives = known[f"score_{side}"].filter(y).rank("average"), known[f"score_{side}"].filter(~y).rank("average")
        above.append((scores[y] - positives.to_numpy()) / n)
        below.append(1 - (scores[~y] - negatives.to_numpy()) / p)
    old, new = (float(one.mean()) for one in above)
    variance = np.var(above[1] - above[0], ddof=1) / p + np.var(below[1] - below[0], ddof=1) / n
    reach = z * math.sqrt(float(variance))
    return _row("roc_auc", old, new, old - new, old - new - reach, old - new + reach, limit, len(y))


def _latency(current: Any, candidate: Any, inputs: pl.DataFrame, limit: float, confidence: float) -> dict[str, Any]:
    """How much longer the candidate takes: the mean logarithm of ratios of batches that both answer, one after the other."""
    import numpy as np

    size = max(1, min(inputs.height, 1000))
    spent = []
    for at in range(_BATCHES):
        batch = inputs.slice((at * size) % max(1, inputs.height - size + 1), size)
        order = ((0, current), (1, candidate)) if at % 2 else ((1, candidate), (0, current))
        took = [0.0, 0.0]
        for side, model in order:
            began = clock.perf_counter()
            _asked(model, batch, "candidate")
            took[side] = clock.perf_counter() - began
        spent.append(took)
    times = np.array(spent)
    # Half of the batches may be disturbed: the middle half counts.
    ratios = np.sort(np.log(times[:, 1] / times[:, 0]))[_BATCHES // 4 : -(_BATCHES // 4)]
    reach = _normal(confidence) * 1.5 * float(np.std(ratios, ddof=1)) / math.sqrt(len(ratios))
    middle = float(ratios.mean())
    old, new = (float(value) for value in np.median(times, axis=0))
    return _row("latency", old, new, math.expm1(middle), math.expm1(middle - reach), math.expm1(middle + reach), limit, inputs.height)


def _title(row: dict[str, Any]) -> str:
    return row["check"] if row["segment"] is None else f"{row['check']} [{row['segment']}]"


def _words(row: dict[str, Any]) -> str:
    if row["harm"] is None:
        return row["reason"] or ""
    values = "" if row["current"] is None else f"{row['current']:.4g} -> {row['candidate']:.4g}, "
    return f"{values}harm {row['harm']:+.4f} ({row['lower']:+.4f} to {row['upper']:+.4f}), limit {row['limit']:g}"
