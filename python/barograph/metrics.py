"""Quality of predictions against labels, over any number of rows, in any order, in shards that merge.

| class | labels | choose it for |
|---|---|---|
| `BinaryMetrics` | 0 or 1 | classifiers with a score: confusion, losses, AUC, calibration |
| `MulticlassMetrics` | one of several classes | confusion matrix, averages, one-versus-rest AUC |
| `RegressionMetrics` | numbers | MAE, RMSE, R², pinball loss and quantiles of the error |
| `RankingMetrics` | relevances of the items of a query | NDCG at k, mean reciprocal rank |

Missing labels (NaN, None) are counted and left out. A metric that does not exist (no rows, one class only) is None, never NaN.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

from barograph import _barograph
from barograph.errors import InvalidArgumentError
from barograph.snapshots import Snapshots, as_bytes

if TYPE_CHECKING:
    import numpy as np
    import polars as pl
    from numpy.typing import ArrayLike, NDArray

__all__ = ["BinaryMetrics", "MulticlassMetrics", "RankingMetrics", "RegressionMetrics"]

_Row = tuple[str, float | None, float | None, float | None]


class _Metrics(Snapshots):
    def _rows(self, confidence: float) -> list[_Row]:
        rows: list[_Row] = self._native.metrics(confidence)
        return rows

    @property
    def count(self) -> int:
        """Rows with a label."""
        rows, unlabelled = self._native.rows()
        return int(rows - unlabelled)

    @property
    def unlabelled(self) -> int:
        """Rows without a label."""
        return int(self._native.rows()[1])

    def to_dict(self) -> dict[str, float | None]:
        """Value by name, with `count` and `unlabelled`."""
        values = {name: value for name, value, _, _ in self._rows(0.95)}
        return {"count": self.count, "unlabelled": self.unlabelled, **values}

    def to_frame(self, confidence: float = 0.95) -> pl.DataFrame:
        """One row per metric: `metric, value, lower, upper`; limits are null where there are none."""
        import polars as pl

        if not 0.5 <= confidence < 1:
            raise InvalidArgumentError(f"`confidence` must be in [0.5, 1), got {confidence}")
        schema = {"metric": pl.String, "value": pl.Float64, "lower": pl.Float64, "upper": pl.Float64}
        return pl.DataFrame(self._rows(confidence), schema=schema, orient="row")

    def merge(self, other: Self) -> None:
        """Adds another's rows: the same state as if this one had seen them."""
        self._native.merge(other._native)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.count:,} rows, {self.unlabelled:,} unlabelled)"


class BinaryMetrics(_Metrics):
    """Accuracy, precision, recall, specificity, f1, balanced_accuracy, mcc, log_loss, brier, roc_auc, average_precision, ece, ece_debiased.

    roc_auc and average_precision come from score cells (within 1e-4 and 1e-3, more only where few scores fill a cell); everything else is
    exact. Limits: Clopper-Pearson for shares, normal for losses, DeLong for the AUC, for rows without weights. About 100 KB.

    >>> m = BinaryMetrics()
    >>> m.update_many([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8])
    >>> m.to_dict()["accuracy"]
    0.75
    """

    def __init__(self) -> None:
        self._native = _barograph.BinaryMetrics()

    def update_many(
        self, y_true: ArrayLike, y_score: ArrayLike | None = None, *, y_pred: ArrayLike | None = None, weight: ArrayLike | None = None
    ) -> None:
        """Adds rows. y_true: 0, 1 or missing; y_score: of class 1, in [0, 1]; y_pred: 0 or 1, from the scores at 0.5 if absent."""
        rest = (None if values is None else _floats(name, values) for name, values in _named(y_score=y_score, y_pred=y_pred, weight=weight))
        self._native.update_many(_floats("y_true", y_true), *rest)

    def calibration(self) -> pl.DataFrame:
        """One row per tenth of the score that holds rows: `score` (mean), `positive` (share), `weight`."""
        import polars as pl

        found = [bin for bin in self._native.calibration() if bin is not None]
        return pl.DataFrame(found, schema={"score": pl.Float64, "positive": pl.Float64, "weight": pl.Float64}, orient="row")


class MulticlassMetrics(_Metrics):
    """Accuracy, balanced_accuracy, precision, recall and f1 as macro and weighted averages, roc_auc_ovr.

    classes: their names, in the order of the columns of `y_score`. Micro averages of precision, recall and f1 are the accuracy.

    >>> m = MulticlassMetrics(["cat", "dog", "fish"])
    >>> m.update_many(["cat", "dog", "fish"], ["cat", "dog", "dog"])
    >>> m.confusion()
    [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 1.0, 0.0]]
    """

    def __init__(self, classes: Sequence[Any]) -> None:
        self.classes = list(classes)
        if len(set(self.classes)) < len(self.classes):
            raise InvalidArgumentError("`classes` must be unique")
        self._native = _barograph.MulticlassMetrics(len(self.classes))

    def update_many(
        self, y_true: ArrayLike, y_pred: ArrayLike, y_score: ArrayLike | None = None, *, weight: ArrayLike | None = None
    ) -> None:
        """Adds rows. y_true: classes, None or NaN for missing; y_score: one column per class, in [0, 1]."""
        import numpy as np

        scores = None if y_score is None else np.ascontiguousarray(y_score, dtype=np.float64)
        if scores is not None and scores.ndim != 2:
            raise InvalidArgumentError(f"`y_score` must have two dimensions, got {scores.ndim}")
        weights = None if weight is None else _floats("weight", weight)
        self._native.update_many(self._codes("y_true", y_true, missing=True), self._codes("y_pred", y_pred), scores, weights)

    def _codes(self, name: str, values: ArrayLike, *, missing: bool = False) -> NDArray[np.int64]:
        import numpy as np

        position = {known: at for at, known in enumerate(self.classes)}
        items = np.asarray(values, dtype=object).reshape(-1)
        codes = np.empty(len(items), dtype=np.int64)
        for at, item in enumerate(items):
            if item in position:
                codes[at] = position[item]
            elif missing and (item is None or item != item):
                codes[at] = -1
            else:
                known = ", ".join(map(repr, self.classes[:10]))
                raise InvalidArgumentError(f"`{name}` must hold known classes, got {item!r} at position {at}", f"the classes are {known}")
        return codes

    def _rows(self, confidence: float) -> list[_Row]:
        rows: list[_Row] = self._native.metrics()
        return rows

    def confusion(self) -> list[list[float]]:
        """Weight by label (row) and prediction (column)."""
        matrix: list[list[float]] = self._native.confusion()
        return matrix

    def per_class(self) -> pl.DataFrame:
        """One row per class: `precision, recall, f1, support, roc_auc`; null where there is none."""
        import polars as pl

        schema = dict.fromkeys(("precision", "recall", "f1", "support", "roc_auc"), pl.Float64)
        frame = pl.DataFrame(self._native.per_class(), schema=schema, orient="row")
        return frame.select(pl.Series("class", [str(name) for name in self.classes]), pl.all())

    def to_bytes(self) -> bytes:
        """A snapshot of the counters; the names of the classes are not part of it."""
        return super().to_bytes()

    @classmethod
    def from_bytes(cls, data: bytes, classes: Sequence[Any] | None = None) -> Self:
        """Reads a snapshot; classes are numbered unless their names are given."""
        out = cls.__new__(cls)
        out._native = _barograph.MulticlassMetrics.from_bytes(as_bytes(data))
        size = len(out._native.confusion())
        out.classes = list(range(size) if classes is None else classes)
        if len(out.classes) != size:
            raise InvalidArgumentError(f"`classes` must name the {size} classes of the snapshot, got {len(out.classes)}")
        return out

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self).from_bytes, (self.to_bytes(), self.classes)


class RegressionMetrics(_Metrics):
    """mae, rmse, mse, mape, smape, r2, bias (prediction minus label), and quantiles of the error within 0.54 %.

    >>> m = RegressionMetrics()
    >>> m.update_many([1.0, 2.0, 4.0], [1.5, 2.0, 3.0])
    >>> m.to_dict()["mae"]
    0.5
    """

    def __init__(self) -> None:
        self._native = _barograph.RegressionMetrics()

    def update_many(self, y_true: ArrayLike, y_pred: ArrayLike) -> None:
        """Adds rows: labels (NaN for missing) and predictions."""
        self._native.update_many(_floats("y_true", y_true), _floats("y_pred", y_pred))

    def pinball(self, alpha: float) -> float | None:
        """The mean pinball loss of predictions of the quantile `alpha`; None without rows."""
        value: float | None = self._native.pinball(alpha)
        return value

    def error_quantile(self, q: float) -> float | None:
        """A quantile of prediction minus label; None without rows."""
        value: float | None = self._native.error_quantile(q)
        return value


class RankingMetrics(_Metrics):
    """ndcg (linear gains, ties share the mean gain, as scikit-learn) and mrr of ranked lists, one row per query.

    k: ranks that count for NDCG, all if None. The reciprocal rank is that of the best relevant item, items tied with it counting before
    it by half. A query without a relevant item scores 0 in both.

    >>> m = RankingMetrics(k=3)
    >>> m.update_many([[0, 1, 0, 2]], [[0.9, 0.8, 0.2, 0.1]])
    >>> m.to_dict()["mrr"]
    0.5
    """

    def __init__(self, k: int | None = None) -> None:
        if k is not None and (not isinstance(k, int) or k < 1):
            raise InvalidArgumentError(f"`k` must be a whole number of at least 1 or None, got {k!r}")
        self._native = _barograph.RankingMetrics(k or 0)

    def update_many(self, y_true: ArrayLike, y_score: ArrayLike) -> None:
        """Adds queries: relevances of at least 0 and scores, both of shape (queries, items)."""
        self._native.update_many(_table("y_true", y_true), _table("y_score", y_score))


def _named(**values: Any) -> list[tuple[str, Any]]:
    return list(values.items())


def _floats(name: str, values: ArrayLike) -> NDArray[np.float64]:
    import numpy as np

    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InvalidArgumentError(f"`{name}` must be a row of numbers, got {type(values).__name__}") from error
    if array.ndim != 1:
        raise InvalidArgumentError(f"`{name}` must have one dimension, got {array.ndim}")
    return array


def _table(name: str, values: ArrayLike) -> NDArray[np.float64]:
    import numpy as np

    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InvalidArgumentError(f"`{name}` must be rows of numbers, got {type(values).__name__}") from error
    if array.ndim != 2:
        raise InvalidArgumentError(f"`{name}` must have two dimensions, queries and items, got {array.ndim}")
    return array
