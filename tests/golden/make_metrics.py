"""Metrics of scikit-learn: `python make_metrics.py` writes metrics.json beside it."""

import json
import warnings
from pathlib import Path

import numpy as np
import predictions
import sklearn
from sklearn import metrics

warnings.simplefilter("ignore")


def binary(y, s, p, w):
    out = {
        "accuracy": metrics.accuracy_score(y, p, sample_weight=w),
        "precision": metrics.precision_score(y, p, sample_weight=w, zero_division=0),
        "recall": metrics.recall_score(y, p, sample_weight=w, zero_division=0),
        "f1": metrics.f1_score(y, p, sample_weight=w, zero_division=0),
        "log_loss": metrics.log_loss(y, s, sample_weight=w, labels=[0, 1]),
        "brier": metrics.brier_score_loss(y, s, sample_weight=w, pos_label=1),
    }
    if 0 < y.mean() < 1:
        out |= {
            "balanced_accuracy": metrics.balanced_accuracy_score(y, p, sample_weight=w),
            "mcc": metrics.matthews_corrcoef(y, p, sample_weight=w),
            "roc_auc": metrics.roc_auc_score(y, s, sample_weight=w),
            "average_precision": metrics.average_precision_score(y, s, sample_weight=w),
        }
    return out


def multiclass(y, p, s):
    out = {"accuracy": metrics.accuracy_score(y, p), "balanced_accuracy": metrics.balanced_accuracy_score(y, p)}
    for average in ("macro", "weighted"):
        for name, score in (("precision", metrics.precision_score), ("recall", metrics.recall_score), ("f1", metrics.f1_score)):
            out[f"{name}_{average}"] = score(y, p, average=average, zero_division=0)
    return out | {"roc_auc_ovr": metrics.roc_auc_score(y, s, multi_class="ovr", average="macro")}


def regression(y, p):
    return {
        "mae": metrics.mean_absolute_error(y, p),
        "mse": metrics.mean_squared_error(y, p),
        "rmse": metrics.root_mean_squared_error(y, p),
        "mape": metrics.mean_absolute_percentage_error(y, p),
        "r2": metrics.r2_score(y, p) if y.std() > 0 else None,
        "bias": (p - y).mean(),
    }


def pinball(y, p):
    return {str(alpha): metrics.mean_pinball_loss(y, p, alpha=alpha) for alpha in (0.0, 0.1, 0.5, 0.9)}


def ranking(y, s):
    out = {"ndcg": metrics.ndcg_score(y, s), "ndcg at 3": metrics.ndcg_score(y, s, k=3)}
    if not (s == s.astype(int)).all():
        first = [
            next((1 / rank for rank, item in enumerate(np.argsort(-scores), 1) if labels[item]), 0)
            for labels, scores in zip(y, s, strict=True)
        ]
        out["mrr"] = np.mean(first)
    return out


if __name__ == "__main__":
    document = {
        "versions": {"scikit-learn": sklearn.__version__},
        "covers": ["binary_metrics", "multiclass_metrics", "regression_metrics", "ranking_metrics"],
        "binary": {name: binary(*make()) for name, make in predictions.BINARY.items()},
        "multiclass": {name: multiclass(*make()) for name, make in predictions.MULTICLASS.items()},
        "regression": {name: regression(*make()) for name, make in predictions.REGRESSION.items()},
        "pinball": {name: pinball(*make()) for name, make in predictions.REGRESSION.items()},
        "ranking": {name: ranking(*make()) for name, make in predictions.RANKING.items()},
    }
    (Path(__file__).parent / "metrics.json").write_text(json.dumps(document, indent=1, default=float) + "\n")
