"""Golden numbers from numpy and scipy: `python make_scores.py` writes scores.json and sketches.json beside it."""

import json
from pathlib import Path

import numpy as np
import pairs
import scipy
from scipy import optimize, stats
from scipy.spatial import distance
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.preprocessing import PolynomialFeatures

SKETCHES = [
    "exponential_histogram",
    "kll",
    "hll",
    "theta",
    "frequent_items",
    "sample",
    "co_moments",
    "mean_embedding",
    "sliced_projections",
]

HERE = Path(__file__).parent
ALPHA = 0.01


def psi(a, b):
    """The variance-adapted test, with scipy's laws."""
    a, b = np.array(a, dtype=float), np.array(b, dtype=float)
    n, m, bins = a.sum(), b.sum(), len(a)
    p, q = (a + 0.5) / (n + bins / 2), (b + 0.5) / (m + bins / 2)
    statistic = np.sum((p - q) * np.log(p / q))
    g, h = np.log(p / q) + 1 - q / p, np.log(q / p) + 1 - p / q
    variance = (np.sum(p * g**2) - np.sum(p * g) ** 2) / n + (np.sum(q * h**2) - np.sum(q * h) ** 2) / m
    size = n * m / (n + m)
    adapted, k = min(size, 4 * statistic / variance), bins - 1

    def p_value(tolerance):
        return stats.ncx2.sf(adapted * statistic, k, adapted * tolerance)

    lower = 0.0
    if p_value(statistic * 1e-6) <= ALPHA:
        lower = optimize.brentq(lambda t: p_value(t) - ALPHA, statistic * 1e-6, statistic, xtol=1e-14)

    def excess(tolerance):
        return stats.ncx2.cdf(adapted * statistic, k, adapted * tolerance) - ALPHA

    upper = statistic if excess(statistic) <= 0 else optimize.brentq(excess, statistic, statistic * 2 + 1, xtol=1e-14)
    p_values = {str(t): p_value(t) for t in (0.02, 0.1, 0.25)} | {"0": stats.chi2.sf(size * statistic, k)}
    return {"value": statistic, "p": p_values, "lower": lower, "upper": upper}


def association(a, b):
    table = np.array([a, b])[:, a + b > 0]
    found = stats.chi2_contingency(table, correction=False)
    p, q = (0.999 * side / side.sum() + 0.001 / len(side) for side in (a, b))
    return {
        "chi_square": found.statistic,
        "chi_square_p": found.pvalue,
        "cramers_v": stats.contingency.association(table, method="cramer"),
        "kullback_leibler": stats.entropy(q, p),
        "hellinger": distance.euclidean(np.sqrt(a / a.sum()), np.sqrt(b / b.sum())) / np.sqrt(2),
    }


def on_counts(a, b):
    p, q = np.array(a) / np.sum(a), np.array(b) / np.sum(b)
    return {
        "reference": [int(x) for x in a],
        "current": [int(x) for x in b],
        "psi": psi(a, b),
        "jensen_shannon": distance.jensenshannon(p, q, base=2),
        "total_variation": 0.5 * np.abs(p - q).sum(),
        "l_infinity": np.abs(p - q).max(),
        **association(np.array(a), np.array(b)),
    }


def summary(series):
    values = series.drop_nulls().to_numpy().astype(float)
    quantiles = {str(q): np.quantile(values, q, method="inverted_cdf") for q in (0.01, 0.25, 0.5, 0.75, 0.99, 0.999)}
    return {
        "count": len(series),
        "null_count": series.null_count(),
        "mean": values.mean(dtype=np.longdouble),
        "variance": np.var(values, ddof=1, dtype=np.longdouble),
        "min": values.min(),
        "max": values.max(),
        "quantiles": quantiles,
    }


def numbers(load):
    reference, current = load()
    a, b = (side.drop_nulls().to_numpy().astype(float) for side in (reference, current))
    edges = np.unique(np.quantile(a, np.linspace(0.1, 0.9, 9), method="inverted_cdf"))
    counts = [np.bincount(np.searchsorted(edges, side, side="left"), minlength=len(edges) + 1) for side in (a, b)]
    return {
        "summaries": [summary(reference), summary(current)],
        "kolmogorov_smirnov": stats.ks_2samp(a, b, method="asymp").statistic,
        "wasserstein": stats.wasserstein_distance(a, b),
        "energy": stats.energy_distance(a, b),
        "deciles": on_counts(*counts),
    }


def rows(load):
    """Scores of rows by scikit-learn and scipy; mmd and sliced_wasserstein exactly, where ours draw 256 waves and 64 directions."""
    reference, current = load()
    a, b = ((side - reference.mean(0)) / reference.std(0, ddof=1) for side in (reference, current))
    halves = [PCA(0.65).fit(a[half::2]).components_[: a.shape[1] - 1] for half in (0, 1)]

    def error(side, components):
        return np.linalg.norm(side - side @ components.T @ components, axis=1)

    # Each half of the reference by the components of the other.
    out = np.where(np.arange(len(a)) % 2 == 0, error(a, halves[1]), error(a, halves[0]))
    errors = [out, (error(b, halves[0]) + error(b, halves[1])) / 2]
    test = stats.ttest_ind(errors[1], errors[0], equal_var=False)
    rng = np.random.default_rng(0)
    pairs_of_rows = rng.integers(0, len(a), (2, 200_000))
    gamma = 0.5 / np.median(np.linalg.norm(a[pairs_of_rows[0]] - a[pairs_of_rows[1]], axis=1)) ** 2
    directions = rng.normal(size=(2000, a.shape[1]))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    inputs = PolynomialFeatures(2, include_bias=False).fit_transform(np.clip(np.vstack([a, b]), -5, 5))
    labels = np.repeat([0, 1], [len(a), len(b)])
    model = LogisticRegression(C=1e4 / len(labels), class_weight="balanced", max_iter=2000)
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    return {
        "mmd": rbf_kernel(a, a, gamma).mean() + rbf_kernel(b, b, gamma).mean() - 2 * rbf_kernel(a, b, gamma).mean(),
        "sliced_wasserstein": np.mean([stats.wasserstein_distance(a @ d, b @ d) for d in directions]),
        "pca_reconstruction": errors[1].mean() - errors[0].mean(),
        "pca_t": test.statistic,
        "domain_classifier": roc_auc_score(labels, cross_val_predict(model, inputs, labels, cv=folds, method="decision_function")),
    }


def names(load):
    reference, current = load()
    keys = sorted(set(reference.drop_nulls()))
    counted = [dict(side.drop_nulls().value_counts().iter_rows()) for side in (reference, current)]
    counts = [[side.get(key, 0) for key in keys] for side in counted]
    unseen = sum(count for key, count in counted[1].items() if key not in keys)
    return {"names": keys, "unseen": unseen, "nulls": [reference.null_count(), current.null_count()], "counts": on_counts(*counts)}


def tails():
    rng = np.random.default_rng(1)
    out = []
    for k in (1, 4, 9, 19, 49):
        for nc in (0.05, 1, 10, 100, 2000, 20_000):
            for tail in (0.5, 0.1, 1e-2, 1e-4, 1e-8, 1e-11):
                x = stats.ncx2.isf(tail, k, nc)
                got = stats.ncx2.sf(x, k, nc)
                # scipy's own inverse says where it is unsure of its tail.
                if np.isfinite(x) and abs(got / tail - 1) < 1e-6:
                    out.append([x, k, nc, got, stats.ncx2.cdf(x, k, nc)])
    limits = []
    for total in (10, 500, 50_000, 2_000_000):
        for count in {0, 1, total // 3, int(rng.integers(total)), total}:
            for alpha in (0.01, 1e-6):
                lower = 0.0 if count == 0 else stats.beta.ppf(alpha, count, total - count + 1)
                upper = 1.0 if count == total else stats.beta.ppf(1 - alpha, count + 1, total - count)
                limits.append([count, total, alpha, lower, upper])
    families = []
    for size in (1, 3, 20):
        p = rng.random(size) ** 3
        families.append({"p": p.tolist(), **{m: stats.false_discovery_control(p, method=m).tolist() for m in ("bh", "by")}})
    return {"ncx2": out, "clopper_pearson": limits, "combination": families}


def cells():
    """Cells of the base-2 histogram by exact integer arithmetic: the largest i with base**i < x."""
    from decimal import Decimal, getcontext

    getcontext().prec = 60
    out = []
    for scale in (0, 3, 6, 8):
        for x in (1.0, 1.5, 2.0, 3.0000000000000004, 0.1, 1e-300, 1e300, 123456.789):
            index = int((Decimal(x).ln() / Decimal(2).ln() * 2**scale).to_integral_value(rounding="ROUND_FLOOR"))

            def bound(at, scale=scale):
                return Decimal(2) ** (Decimal(at) / 2**scale)

            while bound(index) >= Decimal(x):
                index -= 1
            while bound(index + 1) < Decimal(x):
                index += 1
            out.append([scale, x, float(bound(index)), float(bound(index + 1))])
    return out


def write(name, document):
    versions = {"numpy": np.__version__, "scipy": scipy.__version__}
    text = json.dumps({"versions": versions, **document}, indent=1, default=float)
    (HERE / name).write_text(text + "\n")


if __name__ == "__main__":
    scores = [
        "psi",
        "psi_total",
        "null_share",
        "nonfinite_share",
        "out_of_range_share",
        "unseen_share",
        "jensen_shannon",
        "total_variation",
    ]
    scores += [
        "kullback_leibler",
        "hellinger",
        "chi_square",
        "cramers_v",
        "l_infinity",
        "kolmogorov_smirnov",
        "wasserstein",
        "wasserstein_normalised",
        "wasserstein_clipped",
        "energy",
        "distinct_share",
        "mmd",
        "sliced_wasserstein",
        "pca_reconstruction",
        "domain_classifier",
    ]
    document = {"covers": scores, "numbers": {k: numbers(v) for k, v in pairs.NUMBERS.items()}}
    document["rows"] = {k: rows(v) for k, v in pairs.ROWS.items()}
    write("scores.json", {**document, "names": {k: names(v) for k, v in pairs.NAMES.items()}, **tails()})
    write("sketches.json", {"covers": SKETCHES, "cells": cells()})
