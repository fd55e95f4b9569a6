"""Quality without labels, or with few, and limits that hold whenever one looks.

| class | what for |
|---|---|
| `Cbpe` | metrics of a classifier from calibrated scores alone |
| `Pape` | the same when the inputs have shifted: the calibration is weighted towards them |
| `Dle` | errors of a regression, learnt from the reference |
| `prediction_powered_mean` | a mean over all rows from few labels and many predictions |
| `MeanSequence`, `QuantileSequence`, `AucSequence` | limits valid at all times together, exact |
| `AsymptoticSequence` | the same for means without bounds, valid for many values |
| `RiskAlarm` | says when a loss rose above the reference's |
| `CalibrationAlarm` | says when probabilities are no longer right |

None of the first three can see that `P(label | inputs)` changed (concept shift): only labels can, so `FeedbackLoop` shows how far past
estimates were off.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from barograph import _barograph
from barograph.errors import InvalidArgumentError
from barograph.metrics import MulticlassMetrics, _floats, _Metrics, _Row, _table
from barograph.sequences import AsymptoticSequence, AucSequence, CalibrationAlarm, MeanSequence, QuantileSequence, RiskAlarm
from barograph.snapshots import as_bytes

if TYPE_CHECKING:
    import polars as pl
    from numpy.typing import ArrayLike, NDArray

__all__ = [
    "AsymptoticSequence",
    "AucSequence",
    "CalibrationAlarm",
    "Cbpe",
    "Dle",
    "MeanSequence",
    "Pape",
    "QuantileSequence",
    "RiskAlarm",
    "prediction_powered_mean",
]


class Check(NamedTuple):
    """How well scores tell probabilities, by reference rows that the calibration had not seen.

    raw and calibrated: debiased expected calibration errors, in units of probability; holds: whether the calibrated scores cannot be told
    from right ones at 1 %.
    """

    raw: float
    calibrated: float
    holds: bool


class CbpeEstimate(_Metrics):
    """Expected metrics of rows without labels; more rows by `update_many`, other workers' by `merge`. Names as in `BinaryMetrics`.

    Limits cover the chance of labels and rows and the error of the calibration: realised metrics of as many such rows lie inside at the
    stated confidence, unless `P(label | score)` changed. About 300 KB.
    """

    def update_many(self, scores: ArrayLike, *, y_pred: ArrayLike | None = None) -> None:
        """Adds rows. scores: of class 1, in [0, 1]; y_pred: 0 or 1, from the scores at 0.5 if absent."""
        self._native.update_many(_floats("scores", scores), None if y_pred is None else _floats("y_pred", y_pred))

    @property
    def count(self) -> int:
        """Rows."""
        return int(self._native.rows())

    @property
    def unlabelled(self) -> int:
        """All of them."""
        return self.count

    def confusion(self) -> list[list[float]]:
        """Expected rows by label (row) and prediction (column)."""
        tn, fp, fn, tp = self._native.confusion()
        return [[tn, fp], [fn, tp]]

    def __getitem__(self, metric: str) -> float | None:
        """The value of one metric."""
        return self.to_dict()[metric]

    def __repr__(self) -> str:
        return f"CbpeEstimate({self.count:,} rows)"


class MulticlassEstimate(MulticlassMetrics):
    """Expected metrics of rows without labels, several classes; names as in `MulticlassMetrics`. The accuracy has limits."""

    def __init__(self, cbpe: Cbpe) -> None:
        super().__init__(cbpe.classes or [])
        self._cbpe = cbpe

    def update_many(self, scores: ArrayLike, y_pred: ArrayLike | None = None, **_: Any) -> None:  # type: ignore[override]
        """Adds rows. scores: one column per class, in [0, 1]; y_pred: classes, those of the highest score if absent."""
        import numpy as np

        table = self._cbpe._columns(scores)
        codes = table.argmax(axis=1).astype(np.int64) if y_pred is None else self._codes("y_pred", y_pred)
        if len(codes) != len(table):
            raise InvalidArgumentError(f"`y_pred` must have as many rows as `scores`, got {len(codes)} and {len(table)}")
        self._native.update_expected(self._cbpe.calibrated(table), codes, table)

    def _rows(self, confidence: float) -> list[_Row]:
        import math

        rows = []
        reach = _normal(confidence)
        for name, value, lower, upper in super()._rows(confidence):
            if name == "accuracy" and value is not None and self.count:
                half = reach * math.sqrt(value * (1 - value) / self.count)
                lower, upper = max(0.0, value - half), min(1.0, value + half)
            rows.append((name, value, lower, upper))
        return rows

    def __getitem__(self, metric: str) -> float | None:
        """The value of one metric."""
        return self.to_dict()[metric]

    @classmethod
    def from_bytes(cls, data: bytes, classes: Sequence[Any] | None = None) -> Self:
        """Not available: a snapshot has counts only; read it with `MulticlassMetrics.from_bytes`."""
        raise InvalidArgumentError("a multiclass estimate is read back as MulticlassMetrics", "use `MulticlassMetrics.from_bytes`")

    @classmethod
    def _of(cls, cbpe: Cbpe, data: bytes) -> Self:
        out = cls(cbpe)
        out._native = _barograph.MulticlassMetrics.from_bytes(data)
        return out

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self)._of, (self._cbpe, self.to_bytes())


class Cbpe:
    """Confidence-based performance estimation: the metrics that labels would give, from calibrated scores alone.

    The scores are calibrated by isotonic regression on a reference with labels, class by class where there are several. A row whose
    calibrated score is 0.8 counts as 0.8 positives and 0.2 negatives. Assumes `P(label | score)` as in the reference: concept shift
    cannot be seen, and strong shifts of the inputs can break it (`Pape` weighs for them). Fitting sorts once: about 1 s per million rows.
    Estimating takes about 10 ns per row. Source: Białek et al., arXiv 2401.08348; equal to NannyML 0.13.1 within 1e-6.

    >>> import numpy as np
    >>> scores = np.linspace(0, 1, 2000)
    >>> labels = (np.random.default_rng(0).random(2000) < scores**2).astype(int)
    >>> round(Cbpe.fit(scores, labels).estimate(scores)["prevalence"], 2)
    0.33
    """

    classes: list[Any] | None

    def __init__(self) -> None:
        raise InvalidArgumentError("a Cbpe comes from labels", "use `Cbpe.fit(scores, labels)`")

    @classmethod
    def fit(cls, scores: ArrayLike, labels: ArrayLike, *, weight: ArrayLike | None = None, classes: Sequence[Any] | None = None) -> Self:
        """Fits the calibration.

        scores: of class 1, in [0, 1], or one column per class, named by `classes`. labels: 0, 1 or missing (NaN, None), or classes.
        weight: not negative. Raises InvalidArgumentError for values outside, unequal lengths, or without a labelled row.
        """
        import numpy as np

        out = cls.__new__(cls)
        weights = None if weight is None else _floats("weight", weight)
        if np.ndim(scores) == 2:
            table = _table("scores", scores)
            known = sorted({one for one in np.asarray(labels, dtype=object) if one is not None and one == one})
            out.classes = list(known if classes is None else classes)
            if table.shape[1] != len(out.classes):
                raise InvalidArgumentError(
                    f"`scores` must have one column per class, got {table.shape[1]} for {len(out.classes)} classes", "name all `classes`"
                )
            codes = MulticlassMetrics(out.classes)._codes("labels", labels, missing=True)
            of = [np.where(codes < 0, np.nan, codes == at) for at in range(len(out.classes))]
            columns = [np.ascontiguousarray(column) for column in table.T]
            out._natives = [_barograph.Cbpe.fit(column, own, weights) for column, own in zip(columns, of, strict=True)]
        else:
            out.classes = None
            out._natives = [_barograph.Cbpe.fit(_floats("scores", scores), _floats("labels", labels), weights)]
        return out

    _natives: list[Any]

    def estimate(self, scores: ArrayLike, y_pred: ArrayLike | None = None) -> CbpeEstimate | MulticlassEstimate:
        """Expected metrics of rows without labels; none at all gives an estimate to be filled by `update_many`.

        scores: as in `fit`; y_pred: predicted classes, from the scores if absent (at 0.5, or the highest).
        """
        if self.classes is not None:
            many = MulticlassEstimate(self)
            many.update_many(scores, y_pred)
            return many
        out = CbpeEstimate.__new__(CbpeEstimate)
        out._native = self._natives[0].estimate()
        out.update_many(scores, y_pred=y_pred)
        return out

    def calibrated(self, scores: ArrayLike) -> NDArray[Any]:
        """Probabilities of scores, of the same shape; several classes add up to 1."""
        import numpy as np

        if self.classes is None:
            one: NDArray[Any] = self._natives[0].calibrated(_floats("scores", scores))
            return one
        table = self._columns(scores)
        pairs = zip(self._natives, table.T, strict=True)
        out = np.column_stack([native.calibrated(np.ascontiguousarray(column)) for native, column in pairs])
        total = out.sum(axis=1, keepdims=True)
        return np.where(total > 0, out / np.where(total > 0, total, 1.0), 1 / len(self._natives))

    def _columns(self, scores: ArrayLike) -> NDArray[Any]:
        table = _table("scores", scores)
        if table.shape[1] != len(self._natives):
            raise InvalidArgumentError(f"`scores` must have {len(self._natives)} columns, one per class, got {table.shape[1]}")
        return table

    @property
    def check(self) -> Check | None:
        """Whether the calibration holds, by tenths of the reference left out in turn; of several classes the worst.

        None for a reference of fewer than 40 labelled rows.
        """
        found = [native.check() for native in self._natives]
        known = [Check(*one) for one in found if one is not None]
        return max(known, key=lambda check: (not check.holds, check.calibrated)) if len(known) == len(found) else None

    def to_bytes(self) -> bytes:
        """A snapshot, of two classes."""
        if self.classes is not None:
            raise InvalidArgumentError("a calibration of several classes has no snapshot", "fit it again")
        data: bytes = self._natives[0].to_bytes()
        return data

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Reads a snapshot. Raises SnapshotError for anything else."""
        return cls._of(None, [as_bytes(data)])

    @classmethod
    def _of(cls, classes: list[Any] | None, data: list[bytes]) -> Self:
        out = cls.__new__(cls)
        out.classes = classes
        out._natives = [_barograph.Cbpe.from_bytes(one) for one in data]
        return out

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self)._of, (self.classes, [native.to_bytes() for native in self._natives])

    def __repr__(self) -> str:
        knots = sum(len(native.knots()[0]) for native in self._natives)
        return f"Cbpe({'2' if self.classes is None else len(self.classes)} classes, {knots} knots)"


class Pape:
    """CBPE whose calibration is weighted towards the rows that are estimated: right under covariate shift where CBPE alone is off.

    A classifier learns to tell current inputs from the reference's; its odds weigh the reference's rows when the calibration is fitted.
    The idea of PAPE, Białek et al., arXiv 2401.08348. Needs scikit-learn (extra `learners`), and keeps the reference's rows in memory.
    Costs about 1 s per 100,000 rows of ten features. Rows that the reference knows nothing like cannot be weighed for: see
    `effective_share`.
    """

    def __init__(self, features: Any, scores: ArrayLike, labels: ArrayLike) -> None:
        """The reference. features: a frame of numbers and names; scores in [0, 1] and labels 0, 1 or missing, row by row."""
        self._scores, self._labels = _floats("scores", scores), _floats("labels", labels)
        self._columns = _Columns(features)
        self._features = self._columns.numbers(features)
        if len({len(self._scores), len(self._labels), len(self._features)}) > 1:
            sizes = f"{len(self._features)}, {len(self._scores)} and {len(self._labels)}"
            raise InvalidArgumentError(f"`features`, `scores` and `labels` must have as many rows, got {sizes}")
        Cbpe.fit(self._scores, self._labels)
        self.effective_share: float | None = None

    def estimate(self, features: Any, scores: ArrayLike, y_pred: ArrayLike | None = None, *, seed: int = 0) -> CbpeEstimate:
        """Expected metrics of rows without labels. `effective_share` then says what part of the reference's rows the weights leave."""
        import numpy as np

        current = self._columns.numbers(features)
        if not len(current):
            raise InvalidArgumentError("`features` must hold rows, got none")
        both = np.vstack([self._features, current])
        where = np.concatenate([np.zeros(len(self._features)), np.ones(len(current))])
        odds = _cross_fitted(_classifier(seed, self._columns.names), both, where, seed)[: len(self._features)]
        weights = np.clip(odds / (1 - odds) * len(self._features) / len(current), 1 / _MOST_WEIGHT, _MOST_WEIGHT)
        self.effective_share = float(weights.sum() ** 2 / (len(weights) * (weights**2).sum()))
        estimate = Cbpe.fit(self._scores, self._labels, weight=weights).estimate(scores, y_pred)
        assert isinstance(estimate, CbpeEstimate)
        return estimate


class DleEstimate(NamedTuple):
    """Expected errors of a regression, each with limits at the confidence asked for."""

    mae: tuple[float, float, float]
    mse: tuple[float, float, float]
    rmse: tuple[float, float, float]
    rows: int

    def to_dict(self) -> dict[str, float]:
        """Value by name."""
        return {name: getattr(self, name)[0] for name in ("mae", "mse", "rmse")}

    def to_frame(self) -> pl.DataFrame:
        """One row per metric: `metric, value, lower, upper`."""
        import polars as pl

        rows = [(name, *getattr(self, name)) for name in ("mae", "mse", "rmse")]
        return pl.DataFrame(rows, schema=["metric", "value", "lower", "upper"], orient="row")


class Dle:
    """Direct loss estimation: a second model learns the errors of the first on a reference with labels, and foretells them elsewhere.

    Gradient-boosted trees of scikit-learn (extra `learners`) on the features and the prediction. Limits cover the spread of errors and how
    far off the estimate was on tenths of the reference it had not seen (`past_error`, of the mae). Assumes `P(label | inputs)` as in the
    reference. The idea is NannyML's DLE; its learner (LightGBM) differs.
    """

    def __init__(self, features: Any, predictions: ArrayLike, labels: ArrayLike, *, seed: int = 0) -> None:
        """The reference: a frame of numbers and names, predictions and labels, row by row; rows without label are left out."""
        import numpy as np

        self._columns = _Columns(features)
        guesses, truth = _floats("predictions", predictions), _floats("labels", labels)
        table = self._columns.numbers(features)
        if len({len(table), len(guesses), len(truth)}) > 1:
            sizes = f"{len(table)}, {len(guesses)} and {len(truth)}"
            raise InvalidArgumentError(f"`features`, `predictions` and `labels` must have as many rows, got {sizes}")
        known = np.isfinite(truth) & np.isfinite(guesses)
        if known.sum() < 100:
            raise InvalidArgumentError(f"`labels` must hold at least 100 labels, got {int(known.sum())}")
        x, error = np.column_stack([table, guesses])[known], np.abs(guesses - truth)[known]
        self._models, self._spread, self._off = {}, {}, {}
        for name, loss in (("mae", error), ("mse", error**2)):
            foretold = _cross_fitted(_regressor(seed, self._columns.names), x, loss, seed, tiles=True)
            tiles = np.array_split(loss - foretold, _TILES)
            gaps = np.array([tile.mean() for tile in tiles])
            noise = float(np.mean([tile.var(ddof=1) / len(tile) for tile in tiles]))
            self._spread[name] = float(np.var(loss - foretold, ddof=1))
            # What is more than chance is the model's own error.
            self._off[name] = max(0.0, float(np.mean(gaps**2)) - noise)
            self._models[name] = _regressor(seed, self._columns.names).fit(x, loss)
            if name == "mae":
                self.past_error = float(np.mean(np.abs(gaps)))

    def estimate(self, features: Any, predictions: ArrayLike, *, confidence: float = 0.95) -> DleEstimate:
        """Expected errors of rows without labels. Rows whose prediction is missing are left out."""
        import numpy as np

        guesses = _floats("predictions", predictions)
        table = self._columns.numbers(features)
        if len(table) != len(guesses):
            raise InvalidArgumentError(f"`predictions` must have as many rows as `features`, got {len(guesses)} and {len(table)}")
        x = np.column_stack([table, guesses])[np.isfinite(guesses)]
        if not len(x):
            raise InvalidArgumentError("`predictions` must hold rows, got none")
        found = {}
        for name, model in self._models.items():
            foretold = model.predict(x)
            value = max(0.0, float(foretold.mean()))
            variance = (self._spread[name] + float(foretold.var())) / len(x) + self._off[name]
            reach = _normal(confidence) * variance**0.5
            found[name] = (value, max(0.0, value - reach), value + reach)
        low, middle, high = (found["mse"][at] ** 0.5 for at in (1, 0, 2))
        return DleEstimate(found["mae"], found["mse"], (middle, low, high), len(x))


class PredictionPowered(NamedTuple):
    """A mean with its limits; power: the weight of the predictions; method: "prediction-powered" or "labels alone"."""

    value: float
    lower: float
    upper: float
    power: float
    method: str


def prediction_powered_mean(
    labels: ArrayLike,
    predictions: ArrayLike,
    others: ArrayLike,
    *,
    inclusion: ArrayLike | None = None,
    confidence: float = 0.95,
) -> PredictionPowered:
    """The mean of labels over all rows, from few labelled rows and the predictions of many: without bias whatever the predictions are.

    labels, predictions: of the labelled rows, which must be a random sample, or have known inclusion probabilities (`inclusion`, as
    `FeedbackLoop.sample_for_labels` gives them; labels that merely came early are neither). others: predictions of the rows without label,
    with `inclusion` of all rows, the labelled ones included. The predictions count as far as they correlate with the labels; below two
    standard errors of no correlation the labels stand alone. Limits are asymptotic. Sources: Angelopoulos, Duchi & Zrnic, PPI++,
    arXiv 2311.01453; Zrnic & Candès, ICML 2024, for inclusion probabilities.

    >>> prediction_powered_mean([1, 0, 1, 1], [0.9, 0.2, 0.7, 0.8], [0.1, 0.9, 0.5, 0.4, 0.8, 0.2]).method
    'labels alone'
    """
    import numpy as np

    y, f, rest = _floats("labels", labels), _floats("predictions", predictions), _floats("others", others)
    if len(y) != len(f):
        raise InvalidArgumentError(f"`predictions` must have as many rows as `labels`, got {len(f)} and {len(y)}")
    if len(y) < 2:
        raise InvalidArgumentError(f"`labels` must hold at least 2 labels, got {len(y)}")
    for name, values in (("labels", y), ("predictions", f), ("others", rest)):
        if not np.isfinite(values).all():
            raise InvalidArgumentError(f"`{name}` must be finite, got {values[~np.isfinite(values)][0]}")
    weights = np.ones(len(y))
    if inclusion is not None:
        chances = _floats("inclusion", inclusion)
        if len(chances) != len(y) or not ((chances > 0) & (chances <= 1)).all():
            raise InvalidArgumentError("`inclusion` must hold one probability in (0, 1] per label")
        weights = 1 / chances
    share = weights / weights.sum()
    mean, guess = float(share @ y), float(share @ f)
    covariance = float(share @ ((y - mean) * (f - guess)))
    spreads = float(share @ (y - mean) ** 2) * float(share @ (f - guess) ** 2)
    correlation = covariance / spreads**0.5 if spreads > 0 else 0.0
    power = 0.0
    effective = 1 / float(share @ share)
    if len(rest) > 1 and abs(correlation) > 2 / effective**0.5:
        spread = float(np.var(np.concatenate([f, rest]) if inclusion is None else rest))
        more = effective / len(rest) if inclusion is None else 0.0
        power = float(np.clip(covariance / ((1 + more) * spread), 0.0, 1.0))
    left = y - power * f
    value = float(share @ left) + (power * float(rest.mean()) if power else 0.0)
    variance = float((share**2) @ (left - share @ left) ** 2) + (power**2 * float(rest.var()) / len(rest) if power else 0.0)
    reach = _normal(confidence) * variance**0.5
    return PredictionPowered(value, value - reach, value + reach, power, "prediction-powered" if power else "labels alone")


_TILES = 10
_MOST_WEIGHT = 50.0


class _Columns:
    """The columns of a frame as numbers: names by their place among the reference's, what it has not is missing."""

    def __init__(self, features: Any) -> None:
        import polars as pl

        frame = _frame(features)
        self._kinds: dict[str, dict[str, int] | None] = {}
        for name, kind in frame.schema.items():
            if kind.is_numeric() or kind.is_temporal() or kind == pl.Boolean:
                self._kinds[name] = None
            else:
                self._kinds[name] = {str(value): at for at, value in enumerate(frame[name].drop_nulls().unique().sort()[:250])}
        if not self._kinds:
            raise InvalidArgumentError("`features` must have columns, got none")

    @property
    def names(self) -> list[bool]:
        """Which columns hold names."""
        return [known is not None for known in self._kinds.values()]

    def numbers(self, features: Any) -> NDArray[Any]:
        import numpy as np
        import polars as pl

        frame = _frame(features)
        if missing := [name for name in self._kinds if name not in frame.columns]:
            raise InvalidArgumentError(f"`features` must have the columns of the reference, {missing[0]!r} is missing")
        columns = []
        for name, known in self._kinds.items():
            column = frame[name]
            if known is not None:
                column = column.cast(pl.String).replace_strict(known, default=None, return_dtype=pl.Float64)
            columns.append(column.to_physical().cast(pl.Float64).to_numpy())
        return np.column_stack(columns).astype(np.float64)


def _frame(features: Any) -> pl.DataFrame:
    import polars as pl

    if isinstance(features, pl.LazyFrame):
        return features.collect()
    return features if isinstance(features, pl.DataFrame) else pl.DataFrame(features)


def _learners() -> Any:
    try:
        from sklearn import ensemble
    except ImportError as error:
        raise ImportError("this needs scikit-learn: pip install 'barograph[learners]'") from error
    return ensemble


def _classifier(seed: int, names: list[bool]) -> Any:
    return _learners().HistGradientBoostingClassifier(random_state=seed, categorical_features=names, early_stopping=False)


def _regressor(seed: int, names: list[bool]) -> Any:
    return _learners().HistGradientBoostingRegressor(random_state=seed, categorical_features=[*names, False], early_stopping=False)


def _cross_fitted(model: Any, x: NDArray[Any], y: NDArray[Any], seed: int, *, tiles: bool = False) -> NDArray[Any]:
    """Predictions of rows by models that have not seen them: in tiles of neighbours, or in five random folds."""
    import numpy as np

    rows = np.arange(len(x))
    folds = np.array_split(rows, _TILES) if tiles else np.array_split(np.random.default_rng(seed).permutation(rows), 5)
    out = np.empty(len(x))
    for fold in folds:
        rest = np.setdiff1d(rows, fold, assume_unique=True)
        fitted = model.fit(x[rest], y[rest])
        out[fold] = fitted.predict_proba(x[fold])[:, 1] if hasattr(fitted, "predict_proba") else fitted.predict(x[fold])
    return out


def _normal(confidence: float) -> float:
    """Two-sided quantile of the normal law."""
    from statistics import NormalDist

    if not 0.5 <= confidence < 1:
        raise InvalidArgumentError(f"`confidence` must be in [0.5, 1), got {confidence}")
    return NormalDist().inv_cdf((1 + confidence) / 2)
