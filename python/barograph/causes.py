"""Why a metric dropped: its change split over segments, features, slices and time, each part with limits, on one card."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from barograph.attributions import (
    _FOLDS,
    _Cells,
    _cusum,
    _drift,
    _excess,
    _explained,
    _Joint,
    _kitagawa,
    _search,
    _shapley,
    _Side,
    _spread,
    _student,
    _tail,
)
from barograph.cause_bins import _Bins, _bins, _short
from barograph.errors import InvalidArgumentError
from barograph.frames import Frame, parts
from barograph.lineages import _deployed
from barograph.monitors import _instant, _nanoseconds
from barograph.report_gate import _cell, _printable

if TYPE_CHECKING:
    import polars as pl
    from numpy.typing import NDArray

    from barograph.references import Reference

    Array: TypeAlias = NDArray[Any]

__all__ = ["Causes", "explain"]

_METRICS = ("error", "correctness", "brier", "log_loss", "absolute_error", "squared_error")
_LEAST_ROWS = 30
_LEAST_WINDOWS = 8
"""Windows of either frame from which on their scatter says how much rows of one window resemble each other."""
_LEAST_SLICE = 100
"""Rows a slice needs in each frame: half of them test it, and fifty make a mean near enough to normal."""
_SLICE_NAMES, _JOINT_NAMES = 12, 5
_SLICE_GROUPS, _JOINT_GROUPS = 5, 4
_JOINT_COLUMNS, _JOINT_CELLS, _JOINT_ROWS = 6, 4096, 20
"""A joint table: columns, cells, and rows per cell of the smaller frame."""
_SEARCHED_ROWS = 100_000
_SHUFFLES, _MOST_WINDOWS = 999, 20_000
_WORTH = 0.05
"""Share of the change from which on an effect is told."""


class Causes:
    """A card of causes. `metric`: its name; `changed`: whether its change can be told from noise, None where that cannot be judged.

    `lines`: what is claimed, in words, as pairs of a section and a sentence; `notes`: what was assumed, left out or not possible.
    """

    def __init__(
        self, metric: str, changed: bool | None, rows: list[dict[str, Any]], lines: list[tuple[str, str]], notes: list[str]
    ) -> None:
        self.metric, self.changed, self.lines, self.notes = metric, changed, lines, notes
        self._rows = rows

    def to_frame(self) -> pl.DataFrame:
        """One row per part, column, bin and effect, claimed or not.

        part: metric, shift, segment, feature, joint, slice, window, new_value, deploy. effect: change; covariate, concept; mix, rate;
        shapley; excess; level. value, lower, upper: in units of the metric (of a deploy: seconds before the first bad window). p_value:
        after correction for all that was looked at. metric_before and metric_after are means over the rows of the bin, share_before and
        share_after their parts of the frames. `bin` is null for a whole column; reason says why a value is null.
        """
        import polars as pl

        numbers = (
            "value",
            "lower",
            "upper",
            "p_value",
            "share_before",
            "share_after",
            "metric_before",
            "metric_after",
            "drift",
            "importance",
        )
        schema = {
            **dict.fromkeys(("part", "column", "bin", "effect"), pl.String()),
            **dict.fromkeys(numbers[:4], pl.Float64()),
            **dict.fromkeys(("n_before", "n_after"), pl.Int64()),
            **dict.fromkeys(numbers[4:], pl.Float64()),
            "time": pl.Datetime("ns", "UTC"),
            "claimed": pl.Boolean(),
            "reason": pl.String(),
        }
        return pl.DataFrame([{name: row.get(name) for name in schema} for row in self._rows], schema=schema)

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON; times are ISO 8601."""
        rows = [{name: value.isoformat() if isinstance(value, datetime) else value for name, value in row.items()} for row in self._rows]
        lines = [{"section": section, "text": text} for section, text in self.lines]
        return {"metric": self.metric, "changed": self.changed, "lines": lines, "notes": self.notes, "rows": rows}

    def to_markdown(self) -> str:
        """A heading, a table of what is claimed, and the notes."""
        (_, head), *rest = self.lines
        table = (
            ["| part | what was found |", "|---|---|", *(f"| {_cell(section)} | {_cell(text)} |" for section, text in rest)] if rest else []
        )
        return "\n".join([f"### {_cell(head)}", "", *table, *([""] if rest else []), *(f"- {_cell(note)}" for note in self.notes), ""])

    def __str__(self) -> str:
        (_, head), *rest = self.lines
        out, last = [_printable(head)], ""
        for section, text in rest:
            out.append(f"  {'' if section == last else section:<9} {_printable(text)}")
            last = section
        return "\n".join([*out, *(f"  {'note':<9} {_printable(note)}" for note in self.notes)])

    def _repr_markdown_(self) -> str:
        return self.to_markdown()

    def __repr__(self) -> str:
        return f"Causes({self.lines[0][1]})"


def explain(
    before: Frame,
    after: Frame | None = None,
    *,
    features: Sequence[str] | None = None,
    segments: Sequence[str] = (),
    metric: Literal["error", "correctness", "brier", "log_loss", "absolute_error", "squared_error"] | None = None,
    loss: str | None = None,
    label: str = "label",
    prediction: str = "prediction",
    score: str = "score",
    time: str | None = None,
    split: datetime | None = None,
    window: str | timedelta = "1d",
    deploys: Mapping[str, datetime] | pl.DataFrame | None = None,
    reference: Reference | None = None,
    importance: Mapping[str, float] | None = None,
    joint: Sequence[str] | None = None,
    conjunctions: Literal[1, 2, 3] = 2,
    bins: int = 10,
    min_share: float = 0.01,
    confidence: float = 0.95,
    seed: int = 0,
) -> Causes:
    """Says why a metric of labelled rows changed from one frame to the other.

    before, after: labelled rows, such as `FeedbackLoop.joined()` with features you keep; or one frame with a column `time` and the
    instant to `split` it at. features: columns; those of role feature of the inferred schema if absent. segments: columns to split by.
    metric: of each row; if absent `error` where there are predictions of classes, `brier` where there are scores of labels 0 and 1,
    `absolute_error` of other numbers. Of `correctness` less is worse, of the others more. `log_loss` takes no probability below
    2^-52. loss: instead, a column of a number per row, of which more is worse. label, prediction, score: columns the metric needs;
    rows in which one is null, or the loss is, are left out and counted. time, window: whole windows are taken as independent of each
    other if both frames have at least eight, else rows are; and the first bad window is looked for. deploys: version → time, or a
    monitor's `history()`. reference: whose bins of numbers to use, united into `bins`; if absent quantiles of `before`. importance:
    weights of features; those not named weigh as the mean. joint: up to six columns whose joint table is kept; if absent the first in
    rank, as many as the rows are enough for. conjunctions: how many bins a slice may join. min_share: a slice's least share of both
    frames (and at least 100 rows). confidence: of limits and claims, as follows.

    The change is split by mix (the shares of bins changed) and rate (the metric changed inside them), which add up to it exactly:
    `Σ (q_b − p_b) (r_b + r'_b) / 2` and `Σ (r'_b − r_b) (p_b + q_b) / 2` (Kitagawa, JASA 1955). A bin's own mix counts against the
    mean of both frames; a bin that one frame alone has is mix. Features rank by drift (PSI less what chance gives) × importance
    (variance of the metric that bins explain, cross-validated, mean of both frames: noise has 0). `joint` holds Shapley values of the
    game whose worth of a set of columns is the mix of their joint table; `shift` is the mix of score and first columns against the
    remaining rate. Slices are looked for in one half of the rows (of at most 100,000 of each frame) and tested in the other: Welch's
    test that they became worse by more than the other rows, Holm's correction. So a false one is claimed with a chance of at most
    1 − confidence, and their sizes are honest; rows of slices found before count in neither. The first bad window is where the
    largest standardised CUSUM of the windows' means is, tested by 999 shuffles of windows. Limits of columns hold for all columns of a
    part together, those of bins for all bins of a column (Bonferroni). What is claimed is beyond its limits; of mix, rate and shares
    also at least a twentieth of the change.

    A change that cannot be told from noise is attributed to nothing; slices are claimed all the same. Causes inside a bin, or in
    columns that are not given, count as rate. A split is bookkeeping: that the mix changed does not say that a feature caused it.

    A million rows of each frame × 20 features take 2 to 3 s of CPU time. Raises InvalidArgumentError for columns that are not
    there, labels that do not suit the metric, a loss that is infinite.

    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> def rows(share):
    ...     fr = rng.random(20_000) < share
    ...     wrong = rng.random(20_000) < np.where(fr, 0.4, 0.1)
    ...     return {"country": np.where(fr, "fr", "de"), "label": wrong.astype(int), "prediction": np.zeros(20_000, int)}
    >>> found = explain(rows(0.1), rows(0.4))
    >>> print(found.lines[0][1])
    error rose from 0.133 to 0.2231: +0.0901 (+0.0827 to +0.0976), worse; 20,000 rows before, 20,000 after
    >>> print(found.lines[1][1])
    country: mix explains +0.0901 (+0.085 to +0.0952) of +0.0901, rate +4.56e-05; drift 0.538 x importance 0.0985
    """
    _check(metric, loss, conjunctions, bins, min_share, confidence, split, after, time, deploys)
    old, new = _frames(before, after, time, split)
    names = {"label": label, "prediction": prediction, "score": score}
    named, needs = _needs(old, new, metric, loss, names)
    notes: list[str] = []
    usable = [_usable(frame, needs, side, notes) for frame, side in ((old, "before"), (new, "after"))]
    used = {label, prediction, score, time, loss, *segments}
    chosen = _columns(old, new, features, segments, used)
    losses = [_losses(frame, named, loss, names) for frame in usable]
    sign = -1.0 if loss is None and named == "correctness" else 1.0
    least = min(len(one) for one in losses)
    if least < _LEAST_ROWS:
        why = f"{len(losses[0]):,} labelled rows before and {len(losses[1]):,} after, {_LEAST_ROWS} of each are needed"
        counts = {"n_before": len(losses[0]), "n_after": len(losses[1])}
        row = {"part": "metric", "effect": "change", **counts, "claimed": False, "reason": why}
        return Causes(named, None, [row], [("change", f"{named} cannot be judged: {why}")], notes)
    card = _Card(named, sign, usable, losses, chosen, segments, _times(usable, time), confidence, seed, notes)
    if time is not None:
        card.cut(_nanoseconds("window", window))
    card.change()
    card.columns(bins, reference, importance)
    score_column = score if score in usable[0].columns and score in usable[1].columns else None
    card.joints(joint, score_column, bins)
    card.slices(conjunctions, min_share)
    card.first_bad_window({} if deploys is None else _deployed(deploys))
    card.new_values()
    return card.finished()


def _check(
    metric: str | None,
    loss: str | None,
    conjunctions: int,
    bins: int,
    min_share: float,
    confidence: float,
    split: datetime | None,
    after: Frame | None,
    time: str | None,
    deploys: Any,
) -> None:
    if metric is not None and metric not in _METRICS:
        raise InvalidArgumentError(f"`metric` must be one of {', '.join(_METRICS)}, got {metric!r}", "or name a column of numbers: `loss=`")
    if metric is not None and loss is not None:
        raise InvalidArgumentError(f"one of `metric` and `loss` must be absent, got {metric!r} and {loss!r}")
    if conjunctions not in (1, 2, 3):
        raise InvalidArgumentError(f"`conjunctions` must be 1, 2 or 3, got {conjunctions!r}")
    if not isinstance(bins, int) or not 2 <= bins <= 100:
        raise InvalidArgumentError(f"`bins` must be an integer in [2, 100], got {bins!r}")
    if not 0 < min_share <= 0.5:
        raise InvalidArgumentError(f"`min_share` must be in (0, 0.5], got {min_share!r}", "shares are fractions")
    if not 0.5 <= confidence < 1:
        raise InvalidArgumentError(f"`confidence` must be in [0.5, 1), got {confidence!r}")
    if (after is None) == (split is None):
        got = "neither" if after is None else "both"
        raise InvalidArgumentError(f"one of `after` and `split` must be given, got {got}", "two frames, or one with `time=` and `split=`")
    if time is None and (split is not None or deploys is not None):
        raise InvalidArgumentError(f"`{'split' if split is not None else 'deploys'}` needs `time`", "name the column of times")


def _frames(before: Frame, after: Frame | None, time: str | None, split: datetime | None) -> tuple[pl.DataFrame, pl.DataFrame]:
    import polars as pl

    def read(frame: Frame) -> pl.DataFrame:
        return pl.concat([pl.DataFrame(part) for part in parts(frame)], how="vertical_relaxed")

    old = read(before)
    new = old if after is None else read(after)
    for side, frame in (("before", old), ("after", new)):
        if time is None:
            break
        if time not in frame.columns:
            raise InvalidArgumentError(f"`time` names column {time!r}, which `{side}` has not", f"it has {', '.join(frame.columns[:20])}")
        if frame.schema[time] != pl.Datetime and frame.schema[time] != pl.Date:
            raise InvalidArgumentError(f"`time` must name a column of times, {time!r} is {frame.schema[time]}")
        if frame[time].null_count():
            raise InvalidArgumentError(f"`time` must not be null, {frame[time].null_count()} rows of `{side}` have none")
    if split is not None and time is not None:
        early = old[time].cast(pl.Datetime("ns")).to_physical() < _instant(split)
        old, new = old.filter(early), old.filter(~early)
    return old, new


def _times(frames: list[pl.DataFrame], time: str | None) -> list[Array] | None:
    """Nanoseconds since the epoch, UTC."""
    import polars as pl

    return None if time is None else [frame[time].cast(pl.Datetime("ns")).to_physical().to_numpy() for frame in frames]


def _needs(
    old: pl.DataFrame, new: pl.DataFrame, metric: str | None, loss: str | None, names: Mapping[str, str]
) -> tuple[str, list[tuple[str, str]]]:
    """The metric's name, and the columns it needs with the arguments that name them."""
    there = set(old.columns) & set(new.columns)
    if loss is not None:
        metric, needs = loss, [("loss", loss)]
    else:
        if metric is None:
            metric = _default(old, names, there)
        second = "score" if metric in ("brier", "log_loss") else "prediction"
        needs = [("label", names["label"]), (second, names[second])]
    for argument, name in needs:
        for side, frame in (("before", old), ("after", new)):
            if name not in frame.columns:
                has = f"it has {', '.join(frame.columns[:20])}"
                raise InvalidArgumentError(f"`{argument}` names column {name!r}, which `{side}` has not", has)
    return metric, needs


def _default(frame: pl.DataFrame, names: Mapping[str, str], there: set[str]) -> str:
    import polars as pl

    if names["label"] not in there:
        return "error"
    labels = frame[names["label"]]
    text = not _numeric(labels.dtype)
    binary = not text and bool(labels.drop_nulls().cast(pl.Float64).is_in([0.0, 1.0]).all())
    if names["prediction"] in there:
        guesses = frame[names["prediction"]]
        classes = text or (binary and bool(guesses.drop_nulls().cast(pl.Float64, strict=False).is_in([0.0, 1.0]).all()))
        return "error" if classes else "absolute_error"
    return "brier" if binary and names["score"] in there else "error"


def _numeric(kind: pl.DataType) -> bool:
    """Numbers, booleans, and columns that hold nothing."""
    import polars as pl

    return kind.is_numeric() or kind in (pl.Boolean, pl.Null)


def _usable(frame: pl.DataFrame, needs: list[tuple[str, str]], side: str, notes: list[str]) -> pl.DataFrame:
    import polars as pl

    columns = [name for _, name in needs]
    whole = frame.with_columns(pl.col(name).fill_nan(None) for name in columns if frame.schema[name].is_float())
    out = whole.drop_nulls(columns)
    if left := frame.height - out.height:
        notes.append(f"{left:,} of {frame.height:,} rows {side} have no {' or '.join(columns)} and are left out")
    return out


def _losses(frame: pl.DataFrame, metric: str, loss: str | None, names: Mapping[str, str]) -> Array:
    """The metric of each row."""
    import numpy as np
    import polars as pl

    def numbers(argument: str, name: str) -> Array:
        if not _numeric(frame.schema[name]):
            raise InvalidArgumentError(f"`{argument}` must name a column of numbers, {name!r} is {frame.schema[name]}")
        out = frame[name].cast(pl.Float64).to_numpy()
        if not np.isfinite(out).all():
            raise InvalidArgumentError(f"`{argument}` must be finite, {int((~np.isfinite(out)).sum())} values of {name!r} are not")
        return out

    if loss is not None:
        return numbers("loss", loss)
    truth = frame[names["label"]]
    if metric in ("error", "correctness"):
        guess = frame[names["prediction"]]
        texts = [not _numeric(one.dtype) for one in (truth, guess)]
        if texts[0] != texts[1] and truth.count() > 0 and guess.count() > 0:
            kinds = f"{truth.dtype} and {guess.dtype}"
            raise InvalidArgumentError(f"`label` and `prediction` must be comparable, got {kinds}", "cast one of them")
        # A column of nulls alone has no kind of its own.
        kind = pl.String if any(texts) else pl.Float64
        right: Array = (truth.cast(kind) == guess.cast(kind)).to_numpy()
        return np.where(right if metric == "correctness" else ~right, 1.0, 0.0)
    y = numbers("label", names["label"])
    if metric in ("absolute_error", "squared_error"):
        gap = numbers("prediction", names["prediction"]) - y
        errors: Array = np.abs(gap) if metric == "absolute_error" else gap * gap
        return errors
    chance = numbers("score", names["score"])
    if not np.isin(y, (0.0, 1.0)).all():
        raise InvalidArgumentError(f"`label` must be 0 or 1 for {metric}", 'use "error" or "absolute_error" for other labels')
    if len(chance) and not (chance.min() >= 0 and chance.max() <= 1):
        raise InvalidArgumentError(f"`score` must be in [0, 1] for {metric}, got {chance.min():g} to {chance.max():g}")
    right = np.where(y == 1.0, chance, 1.0 - chance)
    out: Array = (1.0 - right) ** 2 if metric == "brier" else -np.log(np.maximum(right, 2.0**-52))
    return out


def _columns(
    old: pl.DataFrame, new: pl.DataFrame, features: Sequence[str] | None, segments: Sequence[str], used: set[str | None]
) -> list[str]:
    from barograph.schemas import Schema

    if isinstance(features, str) or isinstance(segments, str):
        raise InvalidArgumentError("`features` and `segments` must be lists of names, got text", 'write ["country"]')
    if features is None:
        schema = Schema.infer(old)
        features = [
            name for name in schema.names("feature") if schema.kinds[name] in ("number", "category", "boolean") and name not in used
        ]
    for argument, names in (("features", features), ("segments", segments)):
        for name in names:
            if name not in old.columns and name not in new.columns:
                has = f"they have {', '.join(old.columns[:20])}"
                raise InvalidArgumentError(f"`{argument}` names column {name!r}, which neither frame has", has)
    return list(dict.fromkeys(name for name in features if name not in segments))


# Rows of one frame, and their sums by bin.


# Bins of one column.


# The card.


class _Card:
    """Gathers rows, lines and notes, part by part."""

    def __init__(
        self,
        metric: str,
        sign: float,
        frames: list[pl.DataFrame],
        losses: list[Array],
        features: list[str],
        segments: Sequence[str],
        times: list[Array] | None,
        confidence: float,
        seed: int,
        notes: list[str],
    ) -> None:
        import numpy as np

        self.metric, self.sign, self.frames, self.losses = metric, sign, frames, losses
        self.features, self.segments, self.times = features, list(dict.fromkeys(segments)), times
        self.level, self.seed, self.notes = 1 - confidence, seed, notes
        self.random = np.random.default_rng(seed)
        self.rows: list[dict[str, Any]] = []
        self.lines: list[tuple[str, str]] = []
        self.changed = False
        self.indices: list[Array] | None = None
        self.length = self.offset = 0
        shift = float(losses[0].mean())
        self.shift = shift
        shares = all(bool(np.isin(one, (0.0, 1.0)).all()) for one in losses)
        self.sides = [
            _Side(one - shift, shift, self.random.integers(0, _FOLDS, len(one)), _FOLDS, blocked=False, shares=shares) for one in losses
        ]
        self.bins: dict[str, _Bins] = {}
        self.ranked: list[str] = []

    def cut(self, length: int) -> None:
        """Groups rows by window, where there are enough."""
        import numpy as np

        assert self.times is not None
        # As everywhere: windows align to the epoch, weeks to its first Monday.
        self.length, self.offset = length, 4 * 86_400 * 10**9 if length % (7 * 86_400 * 10**9) == 0 else 0
        self.indices = [(one - self.offset) // length for one in self.times]
        first = min(int(one.min()) for one in self.indices)
        if max(int(one.max()) for one in self.indices) - first >= 1 << 24:
            raise InvalidArgumentError("`window` must be longer: the frames span more than sixteen million", 'try "1h" or "1d"')
        groups = []
        for one in self.indices:
            there = np.bincount(one - first) > 0
            groups.append((np.cumsum(there) - 1)[one - first])
        counts = [int(one.max()) + 1 for one in groups]
        if max(counts) > _MOST_WINDOWS:
            raise InvalidArgumentError(f"`window` must be longer: {max(counts):,} windows hold rows, {_MOST_WINDOWS:,} are the most")
        if min(counts) < _LEAST_WINDOWS:
            few = f"of {counts[0]} windows before and {counts[1]} after nothing is learnt about how rows of one resemble each other"
            self.notes.append(f"rows are taken as independent: {few}, {_LEAST_WINDOWS} of each are needed")
            return
        for side, own, count in zip(self.sides, groups, counts, strict=True):
            side.groups, side.count, side.blocked = own, count, True

    def _limits(self, value: float, error: float, free: float, level: float) -> tuple[float, float]:
        reach = _student(level, free) * error if error > 0 else 0.0
        return value - reach, value + reach

    def change(self) -> None:
        import numpy as np

        cells = tuple(side.cells(np.zeros(len(side.losses), np.uint8), 1) for side in self.sides)
        n, n2 = (len(side.losses) for side in self.sides)
        self.means = [float(one.s[0]) / len(side.losses) + self.shift for one, side in zip(cells, self.sides, strict=True)]
        self.delta = float(cells[1].s[0]) / n2 - float(cells[0].s[0]) / n
        gradient = tuple(
            (np.array([[-sign * float(one.s[0]) / size**2]]), np.array([[sign / size]]))
            for one, size, sign in ((cells[0], n, -1.0), (cells[1], n2, 1.0))
        )
        errors, free = _spread((cells[0], cells[1]), (gradient[0], gradient[1]))
        low, high = self._limits(self.delta, float(errors[0]), float(free[0]), self.level)
        self.changed = low > 0 or high < 0
        p = _tail(self.delta / float(errors[0]), float(free[0])) if errors[0] > 0 else None
        self._row("metric", "change", self.delta, low, high, p_value=p, means=self.means, counts=(n, n2), claimed=self.changed)
        went = "rose" if self.delta > 0 else "fell"
        worse = "worse" if self.delta * self.sign > 0 else "better"
        what = f"from {_plain(self.means[0])} to {_plain(self.means[1])}: {_signed(self.delta)} ({_signed(low)} to {_signed(high)})"
        if self.changed:
            self._line("change", f"{self.metric} {went} {what}, {worse}; {n:,} rows before, {n2:,} after")
        else:
            self._line("change", f"{self.metric} went {what}, which cannot be told from noise: nothing is attributed")

    def _row(
        self,
        part: str,
        effect: str | None,
        value: float | None,
        lower: float | None = None,
        upper: float | None = None,
        *,
        counts: tuple[float, float] | None = None,
        totals: tuple[float, float] | None = None,
        means: Sequence[float | None] = (None, None),
        claimed: bool = False,
        **more: Any,
    ) -> None:
        row: dict[str, Any] = {"part": part, "column": None, "bin": None, "effect": effect, "value": value, "lower": lower, "upper": upper}
        if counts is not None:
            row |= {"n_before": int(counts[0]), "n_after": int(counts[1])}
        if counts is not None and totals is not None:
            row |= {"share_before": counts[0] / totals[0], "share_after": counts[1] / totals[1]}
        self.rows.append({**row, "metric_before": means[0], "metric_after": means[1], "claimed": claimed, **more})

    def _line(self, section: str, text: str) -> None:
        self.lines.append((section, text))

    def _rates(self, cells: tuple[_Cells, _Cells], at: int) -> list[float | None]:
        return [float(one.s[at] / one.n[at]) + self.shift if one.n[at] else None for one in cells]

    def columns(self, bins: int, reference: Reference | None, importance: Mapping[str, float] | None) -> None:
        """Mix and rate of each column's bins, and the features' rank."""
        import numpy as np

        columns = [*self.segments, *self.features]
        weights = _weights(importance, columns)
        totals = (float(len(self.losses[0])), float(len(self.losses[1])))
        folds = [self.random.permutation(side.count) % _FOLDS for side in self.sides]
        squares = [float(side.squares.sum()) for side in self.sides]
        found: dict[str, tuple[Any, ...]] = {}
        for column in columns:
            made = _bins(column, self.frames[0], self.frames[1], bins, reference, self.seed)
            part = "segment" if column in self.segments else "feature"
            if isinstance(made, str):
                self._row(part, None, None, column=column, reason=made)
                self.notes.append(f"{column} is not split: {made}")
                continue
            self.bins[column] = made
            cells = (self.sides[0].cells(made.codes[0], made.size), self.sides[1].cells(made.codes[1], made.size))
            there = np.flatnonzero((cells[0].n > 0) | (cells[1].n > 0))
            drift = _drift(cells[0].n[there], cells[1].n[there])
            own = np.mean([_explained(one, *rest) for one, rest in zip(cells, zip(squares, folds, strict=True), strict=True)])
            weight = max(0.0, float(own)) if weights is None else weights[column]
            found[column] = (cells, there, drift, weight)
        self.ranked = sorted(found, key=lambda name: (-found[name][2] * found[name][3], -found[name][3]))
        for part, members in (("segment", self.segments), ("feature", self.features)):
            several = max(1, sum(name in found for name in members))
            for rank, column in enumerate([name for name in self.ranked if name in members], 1):
                self._column(part, column, rank, several, totals, *found[column])

    def _column(
        self,
        part: str,
        column: str,
        rank: int,
        several: int,
        totals: tuple[float, float],
        cells: tuple[_Cells, _Cells],
        there: Array,
        drift: float,
        weight: float,
    ) -> None:
        import numpy as np

        # One effect per bin that holds rows, and their sum.
        size = len(cells[0].n)
        weights = np.vstack([np.ones(size), np.eye(size)[there]])
        effects, gradients = _kitagawa(cells[0].n, cells[0].s, cells[1].n, cells[1].s, weights)
        limits: dict[str, list[tuple[float, float]]] = {}
        for effect, gradient in gradients.items():
            errors, free = _spread(cells, gradient)
            levels = [self.level / (2 * several), *[self.level / (2 * len(there))] * len(there)]
            limits[effect] = [
                self._limits(float(value), float(error), float(one), level)
                for value, error, one, level in zip(effects[effect], errors, free, levels, strict=True)
            ]
        whole = {effect: float(effects[effect][0]) for effect in effects}
        told = self.changed and self._tells(whole["mix"], limits["mix"][0])
        for effect in effects:
            more: dict[str, Any] = {"column": column, "drift": drift, "importance": weight}
            claimed = told and effect == "mix"
            self._row(
                part, effect, whole[effect], *limits[effect][0], counts=totals, totals=totals, means=self.means, claimed=claimed, **more
            )
        lines = []
        for at, bin in enumerate(there, 1):
            counts = (cells[0].n[bin], cells[1].n[bin])
            means, label = self._rates(cells, bin), self.bins[column].labels[bin]
            tells = {effect: self.changed and self._tells(float(effects[effect][at]), limits[effect][at]) for effect in effects}
            shown = any(tells.values()) if part == "segment" else told and tells["mix"]
            values = {effect: float(effects[effect][at]) for effect in effects}
            for effect in effects:
                claimed = shown and tells[effect]
                named = {"column": column, "bin": label}
                limit = limits[effect][at]
                self._row(part, effect, values[effect], *limit, counts=counts, totals=totals, means=means, claimed=claimed, **named)
            if shown:
                shares = f"share {_percent(counts[0] / totals[0])} -> {_percent(counts[1] / totals[1])}"
                rates = f"{self.metric} {_plain(means[0])} -> {_plain(means[1])}"
                explains = f"mix {_signed(values['mix'])}, rate {_signed(values['rate'])} of {_signed(self.delta)}"
                lines.append((sum(abs(values[effect]) for effect in effects if tells[effect]), f"{label}: {shares}, {rates}: {explains}"))
        if told and (part == "segment" or rank <= 5):
            low, high = limits["mix"][0]
            explains = f"mix explains {_signed(whole['mix'])} ({_signed(low)} to {_signed(high)}) of {_signed(self.delta)}"
            self._line(f"{part}s", f"{column}: {explains}, rate {_signed(whole['rate'])}; drift {drift:.3g} x importance {weight:.3g}")
        if (told and rank <= 5) or part == "segment":
            for _, text in sorted(lines, key=lambda one: -one[0])[:3]:
                self._line(f"{part}s", f"  {text}" if told else text)

    def _tells(self, value: float, limits: tuple[float, float]) -> bool:
        return (limits[0] > 0 or limits[1] < 0) and abs(value) >= _WORTH * abs(self.delta)

    def joints(self, joint: Sequence[str] | None, score: str | None, bins: int) -> None:
        """Shapley values over a few columns, and how much of the change the mix of score and first columns explains."""
        if joint is not None:
            unknown = [name for name in joint if name not in self.segments and name not in self.features]
            if unknown or len(joint) > _JOINT_COLUMNS:
                wrong = f"column {unknown[0]!r} is none" if unknown else f"got {len(joint)}"
                raise InvalidArgumentError(f"`joint` must name at most {_JOINT_COLUMNS} features or segments, {wrong}")
        columns = [name for name in self.ranked if joint is None or name in joint]
        self._shift(columns, score, bins)
        table = self._table(columns, limit=joint is None)
        if len(table.columns) < 2:
            return
        values, gradient = _shapley(table)
        errors, free = _spread(table.cells, gradient)
        found = []
        for at, column in enumerate(table.columns):
            low, high = self._limits(float(values[at]), float(errors[at]), float(free[at]), self.level / len(table.columns))
            told = self.changed and self._tells(float(values[at]), (low, high))
            self._row("joint", "shapley", float(values[at]), low, high, column=column, claimed=told, reason=table.unsupported)
            if told:
                found.append((float(values[at]), f"{column} {_signed(float(values[at]))} ({_signed(low)} to {_signed(high)})"))
        if found:
            told_of = "; ".join(text for _, text in sorted(found, key=lambda one: -abs(one[0])))
            self._line("together", f"{told_of}: Shapley values of the joint mix of {', '.join(table.columns)}")
            if table.unsupported is not None:
                self.notes.append(table.unsupported)

    def _shift(self, columns: list[str], score: str | None, bins: int) -> None:
        import numpy as np

        first = []
        if score is not None and score not in self.bins:
            made = _bins(score, self.frames[0], self.frames[1], bins, None, self.seed)
            if isinstance(made, _Bins):
                self.bins[score] = made
                first = [score]
        table = self._table([*first, *columns], limit=True)
        if not table.columns:
            return
        (n, s), (n2, s2) = ((one.n, one.s) for one in table.cells)
        effects, gradients = _kitagawa(n, s, n2, s2, np.ones((1, len(n))))
        limits = {}
        for effect, gradient in gradients.items():
            errors, free = _spread(table.cells, gradient)
            limits[effect] = self._limits(float(effects[effect][0]), float(errors[0]), float(free[0]), self.level / 2)
        mix, rate = float(effects["mix"][0]), float(effects["rate"][0])
        tells = {effect: self.changed and self._tells(value, limits[effect]) for effect, value in (("mix", mix), ("rate", rate))}
        names = ", ".join(table.columns)
        for effect, name, value in (("mix", "covariate", mix), ("rate", "concept", rate)):
            self._row("shift", name, value, *limits[effect], column=names, claimed=tells[effect], reason=table.unsupported)
        if not self.changed:
            return
        verdict = {
            (True, False): "covariate shift",
            (False, True): "concept shift, or a cause among columns that are not given",
            (True, True): f"both, {_percent(abs(mix) / (abs(mix) + abs(rate)))} covariate shift",
            (False, False): "which of both cannot be told",
        }[tells["mix"], tells["rate"]]
        said = {effect: f"({_signed(low)} to {_signed(high)})" for effect, (low, high) in limits.items()}
        explains = f"the mix of {names} explains {_signed(mix)} {said['mix']} of {_signed(self.delta)}"
        self._line("shift", f"{explains}, the rest inside equal rows is {_signed(rate)} {said['rate']}: {verdict}")

    def _table(self, columns: list[str], *, limit: bool) -> _Joint:
        """The joint table of the first columns, of as many as the rows are enough for."""
        import numpy as np

        least = min(len(one) for one in self.losses)
        most = min(_JOINT_CELLS, least // _JOINT_ROWS)
        totals = [len(one) for one in self.losses]
        codes: list[Array] = [np.zeros(total, np.int64) for total in totals]
        digits = np.zeros((1, 0), int)
        kept: list[str] = []
        for column in columns[: _JOINT_COLUMNS if not limit else None]:
            bins = self.bins[column]
            counts = [np.bincount(one, minlength=bins.size)[: bins.ordinary] for one in bins.codes]
            # The values whose shares moved most: chosen without a look at the metric, which would bias the mix.
            moved = np.argsort(-np.abs(counts[0] / totals[0] - counts[1] / totals[1]), kind="stable")[:_JOINT_NAMES]
            lut, _ = bins.merged(_JOINT_GROUPS, [int(one) for one in moved])
            size = int(lut.max()) + 1
            own = [lut[one] for one in bins.codes]
            there = np.flatnonzero(sum(np.bincount(one, minlength=size) for one in own))
            if (limit and len(digits) * len(there) > most) or len(digits) * len(there) > 1 << 16:
                if not limit:
                    notes = f"`joint` keeps {', '.join(kept)} only: with {column} its table has more than {1 << 16:,} cells"
                    self.notes.append(notes)
                continue
            compact = np.zeros(size, np.int64)
            compact[there] = np.arange(len(there))
            codes = [code * len(there) + compact[one] for code, one in zip(codes, own, strict=True)]
            digits = np.hstack([np.repeat(digits, len(there), axis=0), np.tile(np.arange(len(there)), len(digits))[:, None]])
            kept.append(column)
            if len(kept) == _JOINT_COLUMNS:
                break
        # Cells that hold no rows are left out: there may be many.
        there = np.flatnonzero(sum(np.bincount(code, minlength=len(digits)) for code in codes))
        compact = np.zeros(len(digits), np.int64)
        compact[there] = np.arange(len(there))
        cells = tuple(side.cells(compact[code], len(there)) for side, code in zip(self.sides, codes, strict=True))
        alone = [float(one.n[other.n == 0].sum() / one.n.sum()) for one, other in ((cells[0], cells[1]), (cells[1], cells[0]))]
        unsupported = None
        if max(alone) > 0.05:
            shares = f"{_percent(alone[1])} of the rows after lie in cells without rows before, {_percent(alone[0])} the other way round"
            unsupported = f"support: {shares}, which count as mix whatever their cause"
        return _Joint(kept, digits[there], (cells[0], cells[1]), unsupported)

    def slices(self, conjunctions: int, min_share: float) -> None:
        """Conjunctions of bins that became worse than other rows: found in one half of the rows, tested in the other."""
        import numpy as np

        columns = [name for name in self.bins if name in self.features or name in self.segments]
        if not columns:
            return
        merged = {name: self.bins[name].merged(_SLICE_GROUPS, range(min(_SLICE_NAMES, self.bins[name].ordinary))) for name in columns}
        halves = []
        for side in self.sides:
            chosen = self.random.permutation(side.count) % 2 == 0 if side.blocked else None
            halves.append(chosen[side.groups] if chosen is not None else self.random.random(len(side.losses)) < 0.5)
        looked, tested = [], []
        for at, half in enumerate(halves):
            rows = np.flatnonzero(half)
            if len(rows) > _SEARCHED_ROWS:
                rows = np.sort(self.random.choice(rows, _SEARCHED_ROWS, replace=False))
            looked.append((np.stack([merged[name][0][self.bins[name].codes[at][rows]] for name in columns]), self.sides[at].losses[rows]))
            tested.append(self.sides[at].part(~half))
        if min(min(len(one[1]) for one in looked), min(len(one.losses) for one in tested)) < _LEAST_SLICE:
            self.notes.append(f"no slices were looked for: {2 * _LEAST_SLICE} rows of each frame are needed")
            return
        sizes = [len(merged[name][1]) for name in columns]
        least = [max(min_share * len(one[1]), _LEAST_SLICE / 2) for one in looked]
        candidates = _search(looked, sizes, least, self.sign, conjunctions)
        results: list[tuple[float, str, float, float, float, tuple[_Cells, _Cells]]] = []
        free = [np.ones(len(one.losses), bool) for one in tested]
        for members in candidates:
            inside = []
            for at, half in enumerate(halves):
                codes = [merged[columns[column]][0][self.bins[columns[column]].codes[at][~half]] == bin for column, bin in members]
                inside.append(np.logical_and.reduce(codes))
            # Rows of slices before it count neither as its own nor as others: what overlaps with a cause is none.
            parts = [
                side.part(open_).cells(mask[open_].astype(np.uint8), 2) for side, mask, open_ in zip(tested, inside, free, strict=True)
            ]
            free = [open_ & ~mask for mask, open_ in zip(inside, free, strict=True)]
            cells = (parts[0], parts[1])
            if min(float(one.n.min()) for one in cells) < _LEAST_SLICE / 2:
                continue
            value, error, freedom = _excess(cells)
            t = self.sign * value / error if error > 0 else 0.0
            p = _tail(t, freedom) / 2 if t > 0 else 1.0
            label = " and ".join(merged[columns[column]][1][bin] for column, bin in members)
            results.append((p, label, value, error, freedom, cells))
        steps = sorted(range(len(results)), key=lambda at: results[at][0])
        corrected, reached = [1.0] * len(results), 0.0
        for step, at in enumerate(steps):
            corrected[at] = reached = min(1.0, max(reached, results[at][0] * (len(results) - step)))
        for at, (_, label, value, error, freedom, cells) in enumerate(results):
            claimed = corrected[at] <= self.level
            # Of the same step as the claim, so that what is claimed is beyond its limit.
            low, high = self._limits(value, error, freedom, min(1.0, 2 * self.level / (len(results) - steps.index(at))))
            counts, totals = (cells[0].n[1], cells[1].n[1]), (cells[0].n.sum(), cells[1].n.sum())
            means, rest = self._rates(cells, 1), self._rates(cells, 0)
            more: dict[str, Any] = {"bin": label, "p_value": corrected[at], "claimed": claimed, "totals": totals}
            self._row("slice", "excess", value, low, high, counts=counts, means=means, **more)
            if claimed:
                went = f"{self.metric} {_plain(means[0])} -> {_plain(means[1])}, elsewhere {_plain(rest[0])} -> {_plain(rest[1])}"
                shares = f"share {_percent(counts[0] / totals[0])} -> {_percent(counts[1] / totals[1])}"
                beyond = f"{_signed(value)} ({_signed(low)} to {_signed(high)}) beyond the others, {_chance(corrected[at])}"
                self._line("slices", f"{label}: {went}: {beyond}; {shares}")

    def first_bad_window(self, deploys: Mapping[str, int]) -> None:
        """Where the metric of windows changed, and the deploy before it."""
        import numpy as np

        if self.indices is None:
            return
        first = min(int(one.min()) for one in self.indices)
        index = np.concatenate(self.indices) - first
        counts = np.bincount(index).astype(float)
        there = np.flatnonzero(counts)
        if len(there) < _LEAST_WINDOWS:
            self._row("window", "level", None, reason=f"{len(there)} windows hold rows, {_LEAST_WINDOWS} are needed")
            return
        n = counts[there]
        s = np.bincount(index, np.concatenate([side.losses for side in self.sides]))[there]
        # Towards the side the metric went to.
        gaps = math.copysign(1.0, self.delta) * (s - n * s.sum() / n.sum())
        at, largest = _cusum(n[None], gaps[None])
        reached, left = 0, _SHUFFLES
        while left:
            step = min(left, max(1, 2_000_000 // len(n)))
            order = self.random.permuted(np.tile(np.arange(len(n)), (step, 1)), axis=1)
            # Sums in another order may differ in the last place.
            reached += int((_cusum(n[order], gaps[order])[1] >= largest[0] * (1 - 1e-9)).sum())
            left -= step
        p = (1 + reached) / (1 + _SHUFFLES)
        begin = int(at[0])
        means = [float(s[part].sum() / n[part].sum()) + self.shift for part in (slice(begin), slice(begin, None))]
        start = (int(there[begin]) + first) * self.length + self.offset
        claimed = self.changed and p <= self.level
        moment = _moment(start)
        both = (n[:begin].sum(), n[begin:].sum())
        self._row("window", "level", means[1] - means[0], p_value=p, time=moment, counts=both, means=means, claimed=claimed)
        last = max(((when, name) for name, when in deploys.items() if when < start + self.length), default=None)
        gap = None
        if last is not None:
            gap = (start - last[0]) / 1e9
            self._row("deploy", None, gap, bin=last[1], time=_moment(last[0]), claimed=claimed)
        elif deploys:
            self._row("deploy", None, None, reason="none lies before the first bad window")
        if claimed:
            went = f"{self.metric} {_plain(means[0])} before, {_plain(means[1])} since, {_chance(p)}"
            self._line("since", f"{moment:%Y-%m-%d %H:%M} is the first bad window (of {_length(self.length / 1e9)}): {went}")
            if last is not None and gap is not None:
                when = f"{_length(gap)} before that" if gap > 0 else "within it"
                self._line("since", f"{last[1]} at {_moment(last[0]):%Y-%m-%d %H:%M}, {when}")
            elif deploys:
                self._line("since", "no deploy lies before it")

    def new_values(self) -> None:
        """Names that `before` has not, where chance does not explain that."""
        import polars as pl

        totals = [len(one) for one in self.losses]
        told = 0
        for column, bins in self.bins.items():
            values = self.frames[1][column]
            values = values.cast(pl.Float64) if values.dtype.is_numeric() else values.cast(pl.String)
            distinct = len(bins.new) + bins.ordinary
            for value, count in bins.new[:5]:
                # All rows of a value would lie after with this chance, were rows exchanged at random; of as many values as there are.
                p = min(1.0, (totals[1] / sum(totals)) ** count * distinct)
                claimed = self.changed and p <= self.level
                rate = float(self.losses[1][(values == value).fill_null(False).to_numpy()].mean())
                name = f"{column} = {_short(value)}"
                more: dict[str, Any] = {"column": column, "bin": name, "p_value": p, "claimed": claimed}
                self._row("new_value", None, None, counts=(0, count), totals=(totals[0], totals[1]), means=(None, rate), **more)
                told += claimed
                if claimed and told <= 5:
                    self._line("new", f"{name} was never there before: {_percent(count / totals[1])} of rows, {self.metric} {_plain(rate)}")

    def finished(self) -> Causes:
        return Causes(self.metric, self.changed, self.rows, self.lines, self.notes)


def _weights(importance: Mapping[str, float] | None, columns: Sequence[str]) -> dict[str, float] | None:
    if importance is None:
        return None
    for name, weight in importance.items():
        if name not in columns:
            raise InvalidArgumentError(
                f"`importance` names {name!r}, which is no feature or segment", f"there are {', '.join(columns[:20])}"
            )
        if not (math.isfinite(weight) and weight >= 0):
            raise InvalidArgumentError(f"`importance` must not be negative, got {weight!r} for {name!r}")
    mean = sum(importance.values()) / len(importance) if importance else 1.0
    return {name: float(importance.get(name, mean)) for name in columns}


def _moment(nanoseconds: int) -> datetime:
    return datetime.fromtimestamp(0, UTC) + timedelta(microseconds=nanoseconds // 1000)


def _length(seconds: float) -> str:
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"


def _plain(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _signed(value: float) -> str:
    return f"{value:+.3g}"


def _chance(p: float) -> str:
    return f"p = {p:.2g}" if p >= 1e-12 else "p < 1e-12"


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"
