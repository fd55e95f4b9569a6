"""NannyML's estimates and others': `python make_estimates.py` writes estimates.json beside it.

Needs nannyml 0.13.1 for CBPE, ppi-python for prediction-powered means, scipy for the sequences; each in an environment of its own, as
`python make_estimates.py cbpe`, `ppi` or `sequences`, adds its part.
"""

import json
import sys
import warnings
from importlib.metadata import version
from pathlib import Path

import numpy as np

warnings.simplefilter("ignore")
FILE = Path(__file__).parent / "estimates.json"
CHUNK = 2500
COVERS = [
    *("cbpe", "mean_sequence", "quantile_sequence", "auc_sequence", "asymptotic_sequence", "risk_alarm", "calibration_alarm"),
    *("pape", "dle", "prediction_powered_mean"),
]


def _frame(part, classes=None):
    import pandas as pd

    scores, *rest = part
    columns = {"s": scores} if classes is None else {f"s{at}": scores[:, at] for at in range(classes)}
    return pd.DataFrame(columns | dict(zip(("y", "p") if len(rest) == 2 else ("p",), rest, strict=True)))


def cbpe():
    import nannyml as nml
    import unlabelled

    def estimated(reference, current, classes, metrics):
        score = "s" if classes is None else {at: f"s{at}" for at in range(classes)}
        problem = "classification_binary" if classes is None else "classification_multiclass"
        rest = {"y_true": "y", "y_pred": "p", "y_pred_proba": score, "problem_type": problem, "chunk_size": CHUNK}
        fitted = nml.CBPE(metrics=metrics, **rest).fit(_frame(reference, classes))
        # NannyML leaves scores alone that it takes for calibrated.
        assert classes is not None or fitted.needs_calibration
        found = fitted.estimate(_frame(current, classes)).filter(period="analysis").to_df()
        return {metric: found[(metric, "value")].tolist() for metric in metrics}

    names = ["roc_auc", "average_precision", "f1", "precision", "recall", "specificity", "accuracy"]
    several = [name for name in names if name != "average_precision"]
    return {"nannyml": version("nannyml")}, {
        "cbpe": {name: estimated(*make(), None, names) for name, make in unlabelled.BINARY.items()},
        "several": estimated(*unlabelled.several(), 3, several),
    }


def ppi():
    import ppi_py

    out = []
    for seed, noise in ((0, 0.2), (1, 0.5), (2, 2.0)):
        rng = np.random.default_rng(seed)
        y = rng.normal(3, 1, 300)
        f, rest = y + rng.normal(0.3, noise, 300), rng.normal(3, 1, 4000) + rng.normal(0.3, noise, 4000)
        point = float(ppi_py.ppi_mean_pointestimate(y, f, rest)[0])
        low, high = (float(limit[0]) for limit in ppi_py.ppi_mean_ci(y, f, rest, alpha=0.05))
        out.append({"seed": seed, "noise": noise, "value": point, "lower": low, "upper": high})
    return {"ppi-python": version("ppi-python")}, {"ppi": out}


def sequences():
    """Limits by numerical integration of the mixtures, with scipy."""
    import scipy
    import unlabelled
    from scipy import integrate, optimize, special, stats

    def boundary(alpha, v):
        twice = 2 * np.log(1 / (2 * alpha))
        rho = 100 / (twice + np.log(1 + twice))
        # u = 1 - lambda is a gamma variable cut at 1.
        law = stats.gamma(rho, scale=1 / rho)

        def martingale(s):
            term = lambda u: np.exp((1 - u) * s + v * (np.log(u) + 1 - u)) * law.pdf(u) / law.cdf(1)  # noqa: E731
            return np.log(integrate.quad(term, 0, 1, limit=500, epsabs=0, epsrel=1e-10)[0])

        return optimize.brentq(lambda s: martingale(s) + np.log(alpha), 0, 20 + 20 * v**0.5, xtol=1e-12)

    def mean(x, alpha):
        guess = (np.concatenate([[0.0], np.cumsum(x)[:-1]]) + 0.5) / np.arange(1, len(x) + 1)
        reach = boundary(alpha / 2, float(((x - guess) ** 2).sum())) / len(x)
        return [max(0.0, x.mean() - reach), min(1.0, x.mean() + reach)]

    def quantile(x, q, alpha):
        n, twice = len(x), 2 * np.log(1 / alpha)
        scale = 2000 / (twice + np.log(1 + twice))
        k = np.arange(n + 1)
        a, b = q * scale, (1 - q) * scale
        log = special.betaln(a + k, b + n - k) - special.betaln(a, b) - k * np.log(q) - (n - k) * np.log(1 - q)
        inside = k[log < -np.log(alpha)]
        x = np.sort(x)
        return [x[inside[0] - 1] if inside[0] else None, x[inside[-1]] if inside[-1] < n else None]

    def asymptotic(x, alpha):
        n, twice = len(x), 2 * np.log(1 / alpha)
        rho = (twice + np.log(1 + twice)) / 5000
        reach = x.std() * np.sqrt(2 * (n * rho + 1) / (n**2 * rho) * np.log(np.sqrt(n * rho + 1) / alpha))
        return [x.mean() - reach, x.mean() + reach]

    found = [
        {
            "stream": name,
            "alpha": alpha,
            "mean": mean(x, alpha),
            "asymptotic": asymptotic(x, alpha),
            "quantiles": {str(q): quantile(x, q, alpha) for q in (0.5, 0.99)},
        }
        for name, x in unlabelled.STREAMS.items()
        for alpha in (0.05, 0.01)
    ]
    return {"scipy": scipy.__version__}, {"sequences": found}


if __name__ == "__main__":
    versions, part = globals()[sys.argv[1]]()
    document = json.loads(FILE.read_text()) if FILE.exists() else {"versions": {}}
    document["versions"] |= versions
    document |= {"covers": COVERS} | part
    FILE.write_text(json.dumps(document, indent=1, default=float) + "\n")
