"""The gate before a release: current and candidate answer the same inputs, and their differences are held against limits."""

from __future__ import annotations

import math
import time as clock
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal
from xml.etree import ElementTree

from barograph.errors import InvalidArgumentError
from barograph.estimates import _normal
from barograph.report_gate import _cell, _printable

if TYPE_CHECKING:
    import polars as pl

    from barograph.schemas import Schema

__all__ = ["GateReport", "gate"]

_LIMITS = {"error": 0.01, "brier": 0.01, "roc_auc": 0.01, "latency": 0.2, "schema": 0.0, "null_predictions": 0.0, "unknown_outputs": 0.0}
"""Harm that is tolerated where the caller states nothing: additive, of latency relative."""
_KNOWN = (*_LIMITS, "disagreement", "absolute_error", "squared_error")
_METRICS = {
    "binary": ("error", "brier", "roc_auc"),
    "multiclass": ("error",),
    "regression": ("absolute_error", "squared_error"),
}
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
    task: Literal["binary", "multiclass", "regression"] | None = None,
    schema: Schema | None = None,
    confidence: float = 0.95,
) -> GateReport:
    """Holds a candidate against the current model on the same inputs.

    current, candidate: predictors (callables, or with `predict_proba` or `predict`), asked for the rows of `frame` (its `features`, all but
    label and segments if absent); or frames of predictions they made, with the columns `prediction` and/or `score`, joined by `id` (row by
    row without one), label and segments in either. task: inferred if absent: labels of text are multiclass, of 0 and 1 (or false and
    true) binary, other numbers a regression. schema: columns and kinds that the inputs (of frames: the candidate) must have.

    limits: harm that is tolerated, by check: schema (0: no column of the schema missing or of another kind, and the candidate's outputs of
    the current ones' kinds), null_predictions (0; an answer that is not finite is none), unknown_outputs (0; of classes), disagreement
    (not judged unless stated), error, brier, roc_auc (0.01 each), absolute_error and squared_error (0.05 each, relative; of regressions),
    latency (0.2 of the current median; of predictors, measured on 20 batches of both in turn); None leaves a check out.

    A check passes if its harm is below the limit for certain, fails if it is above for certain, and is open else. Differences are paired:
    normal limits for losses, DeLong's paired ones for the AUC. The checks of one kind over all and over segments share the level evenly.
    Numbers, booleans and whole numbers are compared by value: 1, 1.0 and true are the same class.

    >>> import numpy as np
    >>> x = np.linspace(0, 1, 4000)
    >>> y = (np.random.default_rng(0).random(4000) < x).astype(int)
    >>> report = gate(lambda rows: rows["x"].to_numpy(), lambda rows: 1 - rows["x"].to_numpy(), {"x": x, "y": y}, label="y")
    >>> report.passed
    False
    """
    import polars as pl

    if not isinstance(confidence, float) or not 0.5 < confidence < 1:
        raise InvalidArgumentError(f"`confidence` must be in (0.5, 1), got {confidence!r}")
    if task not in (None, "binary", "multiclass", "regression"):
        raise InvalidArgumentError(f"`task` must be binary, multiclass or regression, got {task!r}")
    stated = {**_LIMITS, "absolute_error": 0.05, "squared_error": 0.05, **(limits or {})}
    for name, limit in stated.items():
        if name not in _KNOWN:
            raise InvalidArgumentError(f"`limits` holds {name!r}, which is no check", f"there are {', '.join(_KNOWN)}")
        if limit is not None and not limit >= 0:
            raise InvalidArgumentError(f"the limit of {name!r} must not be negative, got {limit}")
    rows: list[dict[str, Any]] = []
    contract: list[str] = []
    if frame is None:
        contract = [] if schema is None else _broken(schema, _frame(candidate, "candidate"))
        table = _joined(_frame(current, "current"), _frame(candidate, "candidate"), id, prediction, score, label, segments)
    else:
        given = _frame(frame, "frame")
        named = [("label", label), ("id", id), *(("segments", one) for one in segments), *(("features", one) for one in features or ())]
        for argument, column in named:
            if column is not None and column not in given.columns:
                raise InvalidArgumentError(f"`{argument}` names column {column!r}, which the frame has not", f"it has {given.columns}")
        inputs = (
            given.select(features) if features is not None else given.drop([name for name in (label, id, *segments) if name is not None])
        )
        contract = [] if schema is None else _broken(schema, inputs)
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
        if stated["latency"] is not None and inputs.height:
            rows.append(_latency(current, candidate, inputs, stated["latency"], confidence))
    if not table.height:
        raise InvalidArgumentError("`frame` must hold rows, got none")
    table, found = _plain(table)
    kind = task or _task(table)
    if (limit := stated["schema"]) is not None:
        contract += found
        count = float(len(contract))
        row = _exactly("schema", None, count, count, limit, table.height)
        checks = [{**row, "reason": "; ".join(contract) or None}]
    else:
        checks = []
    groups: list[tuple[str | None, pl.DataFrame]] = [(None, table)]
    for one in segments:
        for value, part in table.group_by(one, maintain_order=True):
            groups.append((f"{one}={value[0]}", part))
    for segment, part in groups:
        checks += [{**row, "segment": segment} for row in _contract(part, stated, kind)]
        checks += [{**row, "segment": segment} for row in _differences(part, stated, kind, 1 - (1 - confidence) / len(groups))]
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
        if _kind(old.schema[id]) != _kind(new.schema[id]):
            raise InvalidArgumentError(f"`id` must be of one kind, got {old.schema[id]} and {new.schema[id]}", "cast one of them")
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
    return pl.DataFrame({role: values.tolist() if values.dtype == object else values for role, values in columns.items()})


def _kind(dtype: Any) -> str:
    import polars as pl

    return (
        "boolean"
        if dtype == pl.Boolean
        else "number"
        if dtype.is_numeric()
        else "text"
        if dtype in (pl.String, pl.Categorical, pl.Enum)
        else str(dtype)
    )


def _broken(schema: Schema, frame: pl.DataFrame) -> list[str]:
    """What the schema promises and the frame does not keep."""
    from barograph.schemas import Schema

    kinds = Schema.infer(frame).kinds
    out = [f"column {name!r} is missing" for name in schema.kinds if name not in kinds]
    # A few rows do not tell names from text, nor whole numbers from categories.
    alike = {"text": "category"}
    for name, kind in schema.kinds.items():
        if name in kinds and alike.get(kinds[name], kinds[name]) != alike.get(kind, kind):
            out.append(f"column {name!r} is {kinds[name]}, not {kind}")
    return out


def _plain(table: pl.DataFrame) -> tuple[pl.DataFrame, list[str]]:
    """Outputs and labels that compare by value, and where the candidate's are of another kind than the current model's.

    Numbers and booleans become doubles, so that 1, 1.0 and true are one class; what is not finite is no answer.
    """
    import polars as pl

    found = []
    for role in ("prediction", "score"):
        sides = [f"{role}_current", f"{role}_candidate"]
        there = [one in table.columns for one in sides]
        if any(there) and not all(there):
            found.append(f"only the {'current model' if there[0] else 'candidate'} gives a {role}")
        elif all(there):
            kinds = [_kind(table.schema[one]) for one in sides]
            if kinds[0] != kinds[1] and "Null" not in kinds:
                found.append(f"{role} is {kinds[1]}, not {kinds[0]}")
    columns = []
    for name in ("label", "prediction_current", "prediction_candidate", "score_current", "score_candidate"):
        if name in table.columns:
            text = _kind(table.schema[name]) == "text"
            values = pl.col(name).cast(pl.String if text else pl.Float64)
            columns.append(values if text else pl.when(values.is_finite()).then(values).alias(name))
    return table.with_columns(columns), found


def _task(table: pl.DataFrame) -> str:
    import polars as pl

    role = next((name for name in ("label", "prediction_current", "prediction_candidate") if name in table.columns), None)
    if role is None or table.schema[role] == pl.String:
        return "binary" if role is None else "multiclass"
    if role == "label":
        return "binary" if table[role].drop_nulls().is_in([0.0, 1.0]).all() else "regression"
    # Without labels whole numbers of few values are taken for classes.
    values = table[role].drop_nulls()
    return "multiclass" if values.n_unique() <= _FEW_CLASSES and (values == values.round()).all() else "regression"


def _contract(part: pl.DataFrame, stated: Mapping[str, float | None], task: str) -> list[dict[str, Any]]:
    """Null predictions, outputs that the current model never gives, disagreement."""
    import polars as pl

    rows = []
    n = part.height
    missing = {}
    for side in ("current", "candidate"):
        names = [name for name in (f"prediction_{side}", f"score_{side}") if name in part.columns]
        missing[side] = part.select(pl.any_horizontal(pl.col(name).is_null() for name in names).mean()).item() if names else None
    if missing["candidate"] is not None and stated["null_predictions"] is not None:
        old, new = missing["current"], missing["candidate"]
        rows.append(_exactly("null_predictions", old, new, new - (old or 0.0), stated["null_predictions"], n))
    if {"prediction_current", "prediction_candidate"} <= set(part.columns) and task != "regression":
        old_values, new_values = part["prediction_current"], part["prediction_candidate"]
        if old_values.dtype != new_values.dtype:
            return rows
        if stated["unknown_outputs"] is not None:
            told = new_values.drop_nulls()
            share = int((~told.is_in(old_values.drop_nulls().unique().implode())).sum()) / len(told) if len(told) else 0.0
            rows.append(_exactly("unknown_outputs", 0.0, share, share, stated["unknown_outputs"], n))
        if (limit := stated.get("disagreement")) is not None:
            differ = int(old_values.ne_missing(new_values).sum())
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


def _differences(part: pl.DataFrame, stated: Mapping[str, float | None], task: str, confidence: float) -> list[dict[str, Any]]:
    """Metrics of both on labelled rows, paired."""
    import numpy as np
    import polars as pl

    if "label" not in part.columns:
        return []
    rows = []
    z = _normal(confidence)

    def pairs(role: str) -> pl.DataFrame | None:
        names = [f"{role}_current", f"{role}_candidate"]
        if not set(names) <= set(part.columns):
            return None
        kinds = {part.schema[name] == pl.String for name in ("label", *names)}
        if role == "prediction" and len(kinds) > 1:
            told = ", ".join(f"{name} {part.schema[name]}" for name in ("label", *names))
            raise InvalidArgumentError(f"label and predictions must be comparable: {told}", "numbers with numbers, text with text")
        return part.select("label", *names).drop_nulls()

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
        # Of a ratio by the delta method; where no row differs, at most 3 of n would have.
        spread = new - (1 + harm) * old if relative else new - old
        reach = z * float(np.std(spread, ddof=1)) / math.sqrt(n) / scale
        reach = reach if relative else max(reach, 3.0 / n)
        rows.append(_row(check, float(old.mean()), float(new.mean()), harm, harm - reach, harm + reach, limit, n))

    guessed = pairs("prediction")
    if guessed is not None and task != "regression":
        losses("error", guessed, lambda known, side: known["label"] != known[f"prediction_{side}"])
    if guessed is not None and task == "regression":

        def gap(known: pl.DataFrame, side: str) -> pl.Series:
            return known[f"prediction_{side}"] - known["label"]

        losses("absolute_error", guessed, lambda known, side: gap(known, side).abs(), relative=True)
        losses("squared_error", guessed, lambda known, side: gap(known, side) ** 2, relative=True)
    if task == "binary" and (scored := pairs("score")) is not None:
        if not scored["label"].is_in([0.0, 1.0]).all():
            raise InvalidArgumentError("`label` must be 0 and 1 for a binary task", "task='multiclass' compares predictions alone")
        losses("brier", scored, lambda known, side: (known[f"score_{side}"] - known["label"]) ** 2)
        if stated["roc_auc"] is not None:
            rows.append(_areas(scored, stated["roc_auc"], z))
    if not rows and any(stated[check] is not None for check in _METRICS[task]):
        # Labels that nothing was held against must not look like a pass.
        reason = f"no metric of a {task} task can be computed from these columns"
        rows.append(_row("label", None, None, None, None, None, 0.0, part.height, reason=reason))
    return rows


def _areas(known: pl.DataFrame, limit: float, z: float) -> dict[str, Any]:
    """Both AUCs and DeLong's paired limits of their difference. Source: DeLong, DeLong & Clarke-Pearson, Biometrics 1988."""
    import numpy as np

    y = known["label"].to_numpy() > 0.5
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
    # Pairs that differ nowhere leave the rule of three: two models that both separate ten rows are not known to be equal.
    reach = max(z * math.sqrt(float(variance)), 3.0 / min(n, p))
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
    if row["harm"] is None or row["reason"]:
        return row["reason"] or ""
    values = "" if row["current"] is None else f"{row['current']:.4g} -> {row['candidate']:.4g}, "
    return f"{values}harm {row['harm']:+.4f} ({row['lower']:+.4f} to {row['upper']:+.4f}), limit {row['limit']:g}"
