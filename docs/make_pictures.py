"""The pictures of the method pages: `python docs/make_pictures.py` writes one SVG per catalogue entry.

What they show is measured with barograph itself, from fixed seeds.
"""

import math
from pathlib import Path

import barograph as bg
import numpy as np

HERE = Path(__file__).parent / "methods" / "pictures"
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 640, 260, 64, 16, 30, 44
STYLE = (
    "<style>text{font:12px system-ui,sans-serif;fill:#444}.axis{stroke:#999}.grid{stroke:#8883}.a{stroke:#2563c9;fill:none;stroke-width:2}"
    ".b{stroke:#c2571a;fill:none;stroke-width:2}.band{fill:#2563c9;opacity:.18}.mark{stroke:#c2571a;stroke-width:1.5}.dot{fill:#2563c9}"
    "@media(prefers-color-scheme:dark){text{fill:#bbb}.a{stroke:#7aa7f0}.b,.mark{stroke:#f0a070}.band,.dot{fill:#7aa7f0}}</style>"
)


def picture(name, x, lines, *, title, across, log=False, band=None, marks=(), names=()):
    """One chart: `lines` over `x`, an optional band of limits, upright `marks` at positions of x."""
    x = np.asarray(x, dtype=float)
    lines = [np.array([math.nan if v is None else v for v in line], dtype=float) for line in lines]
    everything = [*lines, *(np.asarray(side, dtype=float) for side in band or ())]
    low = min(0.0, min(np.nanmin(values) for values in everything))
    high = max(np.nanmax(values) for values in everything) or 1.0
    high += 0.05 * (high - low)
    scale = np.log10 if log else np.asarray
    start, end = scale(x[0]), scale(x[-1])

    def at(a, b):
        across_share, up = (scale(a) - start) / (end - start), (b - low) / (high - low)
        return f"{LEFT + across_share * (WIDTH - LEFT - RIGHT):.1f},{HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM):.1f}"

    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{title}">{STYLE}']
    out.append(f'<text x="{LEFT}" y="18">{title}</text>')
    for step in np.linspace(low, high, 5):
        left, right = at(x[0], step), at(x[-1], step)
        (x1, y1), x2 = left.split(","), right.split(",")[0]
        label = f"{step:,.0f}" if abs(step) >= 1000 else f"{step:.3g}"
        out.append(f'<line class="grid" x1="{x1}" y1="{y1}" x2="{x2}" y2="{y1}"/>')
        out.append(f'<text x="{LEFT - 6}" y="{y1}" dy="4" text-anchor="end">{label}</text>')
    for step in np.logspace(start, end, 5) if log else np.linspace(x[0], x[-1], 5):
        anchor = "end" if math.isclose(step, x[-1]) else "middle"
        label = f"{step:,.0f}" if step >= 1000 else f"{step:.3g}"
        out.append(f'<text x="{at(step, low).split(",")[0]}" y="{HEIGHT - BOTTOM + 16}" text-anchor="{anchor}">{label}</text>')
    out.append(f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 8}" text-anchor="middle">{across}</text>')
    if band is not None:
        edge = [at(a, b) for a, b in zip(x, band[1], strict=True)] + [at(a, b) for a, b in zip(x[::-1], band[0][::-1], strict=True)]
        out.append(f'<polygon class="band" points="{" ".join(edge)}"/>')
    for mark in marks:
        place = at(mark, low).split(",")[0]
        out.append(f'<line class="mark" x1="{place}" y1="{TOP}" x2="{place}" y2="{HEIGHT - BOTTOM}"/>')
    for line, kind in zip(lines, "ab", strict=False):
        out.append(f'<polyline class="{kind}" points="{" ".join(at(a, b) for a, b in zip(x, line, strict=True) if not math.isnan(b))}"/>')
    for index, (text, kind) in enumerate(zip(names, "ab", strict=False)):
        start = WIDTH - RIGHT - 110 * (len(names) - index)
        out.append(f'<line class="{kind}" x1="{start}" y1="14" x2="{start + 18}" y2="14"/><text x="{start + 24}" y="18">{text}</text>')
    (HERE / f"{name}.svg").write_text("".join([*out, "</svg>\n"]))


def normal(shift=0.0, n=10_000, seed=0):
    return np.random.default_rng(seed).normal(shift, 1, n)


def of_shift():
    """Scores of two samples of 10,000 over the shift of their means."""
    shifts = np.linspace(0, 2, 21)
    reference = bg.Reference({"x": normal()})
    was = bg.profile({"x": normal()}, reference=reference)["x"]
    now = [bg.profile({"x": normal(shift, seed=1)}, reference=reference)["x"] for shift in shifts]
    counts = "psi psi_total jensen_shannon kullback_leibler hellinger total_variation l_infinity chi_square cramers_v kolmogorov_smirnov"
    for name in [*counts.split(), "wasserstein", "wasserstein_normalised", "wasserstein_clipped", "energy"]:
        found = [getattr(bg.scores, name)(was, side) for side in now]
        limits = None if found[0].lower is None else ([s.lower for s in found], [s.upper for s in found])
        title = f"{name} of two normal samples of 10,000" + ("" if limits is None else ", with its interval")
        picture(name, shifts, [[s.value for s in found]], title=title, across="shift of the mean, standard deviations", band=limits)


def of_shares():
    shares = np.linspace(0, 0.2, 21)

    def frame(share, kind):
        n, odd = 10_000, round(10_000 * share)
        values = {"null": [None], "nonfinite": [math.inf], "unseen": ["new"]}[kind] * odd + (["a"] if kind == "unseen" else [1.0]) * (
            n - odd
        )
        return bg.profile({"x": values})["x"]

    for kind in ("null", "nonfinite", "unseen"):
        found = [getattr(bg.scores, f"{kind}_share")(frame(0, kind), frame(share, kind)) for share in shares]
        band = [s.lower for s in found], [s.upper for s in found]
        picture(
            f"{kind}_share",
            shares,
            [[s.value for s in found]],
            title=f"{kind}_share with 99 % limits, 10,000 rows a side",
            across="share in the current rows",
            band=band,
        )
    found = [bg.scores.share_change((0, 10_000), (round(10_000 * share), 10_000)) for share in shares]
    band = [s.lower for s in found], [s.upper for s in found]
    picture(
        "out_of_range_share",
        shares,
        [[s.value for s in found]],
        title="out_of_range_share with 99 % limits, 10,000 rows a side",
        across="share outside the reference's range",
        band=band,
    )
    sizes = np.linspace(10, 1000, 12).astype(int)
    columns = [bg.profile({"x": [f"n{i % size}" for i in range(10_000)]})["x"] for size in sizes]
    picture(
        "distinct_share",
        sizes,
        [[bg.scores.distinct_share(columns[5], column).value for column in columns]],
        title="distinct_share against a reference of 460 names, 10,000 rows",
        across="names in the current rows",
    )


def of_rows():
    rhos = np.linspace(0, 0.8, 9)

    def rows(rho, seed):
        x, y = np.random.default_rng(seed).normal(size=(2, 2000))
        return np.column_stack([x, rho * x + math.sqrt(1 - rho * rho) * y])

    for name in ("mmd", "sliced_wasserstein", "pca_reconstruction", "domain_classifier"):
        found = [getattr(bg.scores, name)(rows(0, 0), rows(rho, 1)) for rho in rhos]
        picture(
            name,
            rhos,
            [[s.value for s in found], [s.p_value for s in found]],
            title=f"{name}: equal marginals, 2,000 rows a side",
            across="correlation of the current rows, 0 in the reference",
            names=["score", "p-value"],
        )


def of_sketches():
    x, q = np.random.default_rng(0).lognormal(3, 1, 1_000_000), np.linspace(0.001, 0.999, 200)
    s = np.sort(x)
    exact = s[np.ceil(q * len(s)).astype(int) - 1]
    h = bg.sketches.ExponentialHistogram(6)
    h.update_many(x)
    error = [100 * (h.quantile(p) / want - 1) for p, want in zip(q, exact, strict=True)]
    picture(
        "exponential_histogram",
        q,
        [error],
        title="error of quantiles in %, scale 6, a million lognormal values (bound 0.54)",
        across="quantile",
    )
    kll = bg.sketches.Kll()
    kll.update_many(x)
    rank = [100 * (np.searchsorted(s, kll.quantile(p)) / len(s) - p) for p in q]
    picture("kll", q, [rank], title="error of ranks in %, k = 200, a million values (1.65 at 99 %)", across="quantile")
    sizes = np.unique(np.logspace(1, 6, 40).astype(int))
    for name, face in (("hll", bg.sketches.Hll), ("theta", bg.sketches.Theta)):
        found = []
        for size in sizes:
            sketch = face()
            sketch.update_many(np.arange(size))
            found.append(100 * (sketch.estimate / size - 1))
        picture(name, sizes, [found], title="error of the estimate in %, lg_k = 12", across="distinct values", log=True)
    names = np.random.default_rng(1).zipf(1.3, 200_000) % 5000
    sketch = bg.sketches.FrequentItems(lg_size=8)
    sketch.update_many([f"n{v}" for v in names])
    top = sketch.frequent()[:20]
    true = [int((names == int(row[0][1:])).sum()) for row in top]
    picture(
        "frequent_items",
        range(1, len(top) + 1),
        [true],
        title="true counts of 20 frequent names inside the sketch's bounds, 200,000 values",
        across="rank",
        band=([r[1] for r in top], [r[2] for r in top]),
    )
    inclusion = []
    for size in sizes:
        sample = bg.sketches.Sample(k=1000)
        sample.update_many(np.arange(size))
        inclusion.append(sample.inclusion * size)
    picture(
        "sample",
        sizes,
        [inclusion, np.minimum(sizes, 1000)],
        title="ids seen times inclusion probability, k = 1,000",
        across="ids seen",
        log=True,
        names=["by the sketch", "ids kept"],
    )
    pairs = np.random.default_rng(2).multivariate_normal([0, 0], [[1, 0.5], [0.5, 1]], 100_000)
    moments, found, at = bg.sketches.CoMoments(2), [], np.unique(np.logspace(1, 5, 40).astype(int))
    for start, end in zip([0, *at[:-1]], at, strict=True):
        moments.update_many(pairs[start:end])
        found.append(moments.correlation()[0, 1])
    picture(
        "co_moments",
        at,
        [found, [0.5] * len(at)],
        title="correlation of a stream, true value 0.5",
        across="rows",
        log=True,
        names=["estimate", "truth"],
    )
    shifts = np.linspace(0, 2, 11)
    rows = np.random.default_rng(3).normal(size=(5000, 4))
    embedding, sliced = bg.sketches.MeanEmbedding.fit(rows), bg.sketches.SlicedProjections.fit(rows)
    embedding.update_many(rows)
    sliced.update_many(rows)
    mmd, distance = [], []
    for shift in shifts:
        for reference, found in ((embedding, mmd), (sliced, distance)):
            current = reference.empty()
            current.update_many(np.random.default_rng(4).normal(shift, 1, (5000, 4)))
            found.append(reference.mmd(current) if found is mmd else reference.sliced_wasserstein(current))
    across = "shift of each of four columns, standard deviations"
    picture("mean_embedding", shifts, [mmd], title="squared MMD of two streams of 5,000 rows", across=across)
    band = [s.lower for s in distance], [s.upper for s in distance]
    picture(
        "sliced_projections",
        shifts,
        [[s.value for s in distance]],
        title="sliced Wasserstein distance of two streams of 5,000 rows, with its interval",
        across=across,
        band=band,
    )


def of_detectors():
    rng = np.random.default_rng(5)
    errors = (rng.random(4000) < np.where(np.arange(4000) < 2000, 0.1, 0.35)).astype(float)
    values = rng.normal(np.where(np.arange(4000) < 2000, 0.0, 1.0))
    detectors = bg.detectors
    for name in ("adwin", "page_hinkley", "ddm", "eddm", "hddm_a", "hddm_w", "kswin", "cusum", "ewma", "rank"):
        face = getattr(detectors, "".join(part.capitalize() for part in name.split("_")))
        binary = name in {"ddm", "eddm", "hddm_a", "hddm_w", "adwin", "page_hinkley"}
        stream = errors if binary else values
        found = (face(rng.normal(size=5000)) if name == "rank" else face()).update_many(stream)
        smooth = np.convolve(stream, np.ones(100) / 100, mode="same")[::10]
        what = "errors of a model, rate 0.1 then 0.35" if binary else "normal values, mean 0 then 1"
        marks = [p for p in found if p < 4000][:40]
        picture(
            name, np.arange(0, 4000, 10), [smooth], title=f"{name}: {what} at 2,000; detections upright", across="position", marks=marks
        )


def of_metrics():
    rng = np.random.default_rng(6)
    noise = np.linspace(0.1, 3, 15)
    truth = rng.normal(size=20_000)
    found = [[], []]
    for level in noise:
        m = bg.metrics.BinaryMetrics()
        m.update_many(truth > 0, 1 / (1 + np.exp(-(truth + level * rng.normal(size=20_000)))))
        d = m.to_dict()
        found[0].append(d["roc_auc"])
        found[1].append(d["brier"])
    picture(
        "binary_metrics",
        noise,
        found,
        title="area under the ROC curve and Brier score, 20,000 rows",
        across="noise of the model's logit",
        names=["roc_auc", "brier"],
    )
    found = [[], []]
    classes = np.digitize(truth, [-0.5, 0.5])
    for level in noise:
        m = bg.metrics.MulticlassMetrics([0, 1, 2])
        m.update_many(classes, np.digitize(truth + level * rng.normal(size=20_000), [-0.5, 0.5]))
        d = m.to_dict()
        found[0].append(d["accuracy"])
        found[1].append(d["f1_macro"])
    picture(
        "multiclass_metrics",
        noise,
        found,
        title="accuracy and macro F1 of three classes, 20,000 rows",
        across="noise of the model",
        names=["accuracy", "f1_macro"],
    )
    found = [[], []]
    for level in noise:
        m = bg.metrics.RegressionMetrics()
        m.update_many(truth, truth + level * rng.normal(size=20_000))
        d = m.to_dict()
        found[0].append(d["mae"])
        found[1].append(d["rmse"])
    picture(
        "regression_metrics",
        noise,
        found,
        title="mean absolute and root mean squared error, 20,000 rows",
        across="noise of the model",
        names=["mae", "rmse"],
    )
    found = [[], []]
    for level in noise:
        m = bg.metrics.RankingMetrics(k=10)
        gains = rng.integers(0, 2, (500, 20)).astype(float)
        m.update_many(gains, gains + level * rng.normal(size=(500, 20)))
        d = m.to_dict()
        found[0].append(d["ndcg"])
        found[1].append(d["mrr"])
    picture(
        "ranking_metrics", noise, found, title="NDCG@10 and MRR of 500 lists of 20", across="noise of the scores", names=["ndcg", "mrr"]
    )


def of_estimates():
    rng = np.random.default_rng(7)
    found = [[], []]
    scores = rng.beta(1, 1, 20_000)
    cbpe = bg.estimates.Cbpe.fit(scores, rng.random(20_000) < scores)
    for window in range(60):
        # Easier rows at first, harder ones later; from window 30 on a third of the labels has nothing to do with the score.
        s = rng.beta(0.5 + window / 40, 0.5 + window / 40, 2000)
        y = rng.random(2000) < np.where(rng.random(2000) < (window >= 30) / 3, 0.5, s)
        found[0].append(cbpe.estimate(s)["accuracy"])
        found[1].append(((s >= 0.5) == y).mean())
    title = "accuracy; scores lose their meaning at window 30"
    picture("cbpe", range(60), found, title=title, across="window of 2,000 rows", names=["estimated", "realised"])
    marks = np.unique(np.logspace(1.5, 4.7, 80).astype(int))

    def limits(name, sequence, draw, title):
        low, high, at = [], [], 0
        for mark in marks:
            sequence.update_many(*draw(mark - at))
            at = mark
            both = sequence.interval or (None, None)
            low.append(both[0])
            high.append(both[1])
        fine = [one for one, other in zip(low, high, strict=True) if one is not None and other is not None]
        skip = len(low) - len(fine)
        picture(name, marks[skip:], [low[skip:], high[skip:]], title=title, across="events", log=True, band=(low[skip:], high[skip:]))

    e = bg.estimates
    limits("mean_sequence", e.MeanSequence(), lambda n: [rng.random(n) < 0.2], "limits of a share of 0.2, valid at all times")
    limits("quantile_sequence", e.QuantileSequence(0.9), lambda n: [rng.lognormal(0, 1, n)], "limits of the 0.9 quantile, lognormal")
    limits("asymptotic_sequence", e.AsymptoticSequence(), lambda n: [rng.exponential(1, n)], "limits of a mean of 1, exponential values")

    def both(n):
        y = rng.random(n) < 0.3
        return y, y + rng.normal(size=n), y / 2 + rng.normal(size=n)

    limits("auc_sequence", e.AucSequence(paired=True), both, "limits of the difference of two models' areas")
    alarm, mean, held = e.RiskAlarm(rng.random(5000) < 0.1), [], []
    for at in range(60):
        alarm.update_many(rng.random(100) < (0.1 if at < 20 else 0.2))
        mean.append(alarm.mean)
        held.append(alarm.limit)
    title = "the error doubles at 2,000; alarm upright"
    x = np.arange(1, 61) * 100
    picture("risk_alarm", x, [mean, held], title=title, across="events", marks=[alarm.alarmed], names=["mean loss", "limit"])
    wrong, capital = e.CalibrationAlarm(), []
    for at in range(60):
        p = rng.uniform(0.1, 0.9, 100)
        wrong.update_many(rng.random(100) < p - (0 if at < 20 else 0.1), p)
        capital.append(max(wrong.log_capital, -5.0))
    title = "evidence (log capital); probabilities become 0.1 too high at 2,000; alarm upright"
    picture("calibration_alarm", x, [capital], title=title, across="events", marks=[wrong.alarmed])


if __name__ == "__main__":
    HERE.mkdir(exist_ok=True)
    for draw in (of_shift, of_shares, of_rows, of_sketches, of_detectors, of_metrics, of_estimates):
        draw()
    missing = [name for names in bg.catalog().values() for name in names if not (HERE / f"{name}.svg").exists()]
    assert not missing, missing
