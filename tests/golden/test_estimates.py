"""Estimates against NannyML, ppi-python and scipy, and what they promise."""

import json
from pathlib import Path

import barograph as bg
import numpy as np
import polars as pl
import pytest
import unlabelled
from barograph import estimates
from hypothesis import given, settings
from hypothesis import strategies as st

GOLDEN = json.loads((Path(__file__).parent / "estimates.json").read_text())
CHUNK = 2500


def chunks(values):
    for at, want in enumerate(values):
        yield slice(at * CHUNK, (at + 1) * CHUNK if at + 1 < len(values) else None), want


@pytest.mark.parametrize("name", unlabelled.BINARY)
def test_cbpe_is_nannymls(name):
    (scores, labels, _), (current, predicted) = unlabelled.BINARY[name]()
    cbpe = estimates.Cbpe.fit(scores, labels)
    for metric, values in GOLDEN["cbpe"][name].items():
        # Continuous scores share cells: their order inside one is unknown.
        bound = 1e-6 if name == "car loans" or metric not in ("roc_auc", "average_precision") else 3e-4
        for rows, want in chunks(values):
            assert cbpe.estimate(current[rows], predicted[rows])[metric] == pytest.approx(want, abs=bound), metric


def test_cbpe_of_several_classes_is_nannymls():
    (scores, labels, _), (current, predicted) = unlabelled.several()
    cbpe = estimates.Cbpe.fit(scores, labels, classes=[0, 1, 2])
    names = {"f1": "f1_macro", "precision": "precision_macro", "recall": "recall_macro", "roc_auc": "roc_auc_ovr", "accuracy": "accuracy"}
    for metric, name in names.items():
        for rows, want in chunks(GOLDEN["several"][metric]):
            bound = 3e-4 if metric == "roc_auc" else 1e-6
            assert cbpe.estimate(current[rows], predicted[rows])[name] == pytest.approx(want, abs=bound), metric
    accuracy = cbpe.estimate(current, predicted).to_frame().row(by_predicate=pl.col("metric") == "accuracy", named=True)
    assert accuracy["lower"] < accuracy["value"] < accuracy["upper"]


@pytest.mark.parametrize("case", GOLDEN["ppi"], ids=lambda case: str(case["noise"]))
def test_prediction_powered_means_are_ppi_pythons(case):
    rng = np.random.default_rng(case["seed"])
    y = rng.normal(3, 1, 300)
    f, rest = y + rng.normal(0.3, case["noise"], 300), rng.normal(3, 1, 4000) + rng.normal(0.3, case["noise"], 4000)
    found = estimates.prediction_powered_mean(y, f, rest)
    # Its variances divide by n - 1 here and there.
    assert [found.value, found.lower, found.upper] == pytest.approx([case["value"], case["lower"], case["upper"]], abs=2e-3)
    assert found.method == "prediction-powered"


@pytest.mark.parametrize("case", GOLDEN["sequences"], ids=lambda case: f"{case['stream']} {case['alpha']}")
def test_sequences_are_their_integrals(case):
    values, alpha = unlabelled.STREAMS[case["stream"]], case["alpha"]
    mean, asymptotic = estimates.MeanSequence(alpha=alpha), estimates.AsymptoticSequence(alpha=alpha)
    mean.update_many(values)
    asymptotic.update_many(values)
    assert list(mean.interval) == pytest.approx(case["mean"], abs=1e-8)
    assert list(asymptotic.interval) == pytest.approx(case["asymptotic"], abs=1e-12)
    for q, limits in case["quantiles"].items():
        sequence = estimates.QuantileSequence(float(q), alpha=alpha)
        sequence.update_many(values)
        for got, want, beyond in zip(sequence.interval, limits, (-1, 1), strict=True):
            # On the safe side of the order statistic, by no more than the histogram's error twice.
            assert (got is None) == (want is None)
            if want is not None:
                assert 0 <= (got - want) * beyond <= 3e-3 * want + 1e-12


def drawn(n, seed, power=1.5, beta=(2, 3)):
    rng = np.random.default_rng(seed)
    scores = rng.beta(*beta, n)
    return scores, (rng.random(n) < scores**power).astype(float)


def test_realised_metrics_lie_inside_the_limits():
    inside = dict.fromkeys(("accuracy", "precision", "recall", "f1", "mcc", "log_loss", "brier", "roc_auc", "average_precision"), 0)
    runs = 120
    for seed in range(runs):
        estimate = estimates.Cbpe.fit(*drawn(2000, seed)).estimate((current := drawn(1000, 1000 + seed))[0])
        realised = bg.metrics.BinaryMetrics()
        realised.update_many(current[1], current[0])
        truth = realised.to_dict()
        for row in estimate.to_frame(0.9).iter_rows(named=True):
            if row["metric"] in inside:
                inside[row["metric"]] += row["lower"] <= truth[row["metric"]] <= row["upper"]
    # At 90 % each, 120 runs are below 93 inside with probability 1e-5; not wider than 99 % either.
    for metric, count in inside.items():
        assert count >= 93, (metric, count)
    assert min(inside.values()) < runs


def test_the_check_tells_whether_scores_are_probabilities():
    wrong = estimates.Cbpe.fit(*drawn(20_000, 0, power=2)).check
    right = estimates.Cbpe.fit(*drawn(20_000, 1, power=1)).check
    assert wrong.raw > 0.1
    assert right.raw < 0.02
    assert wrong.holds
    assert right.holds
    assert wrong.calibrated < 0.02
    # Scores that fall where probabilities rise have no rising calibration.
    scores, labels = drawn(10_000, 2)
    assert not estimates.Cbpe.fit(1 - scores, labels).check.holds
    assert estimates.Cbpe.fit([0.1, 0.9], [0, 1]).check is None


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 1)), max_size=60), st.integers(0, 60), st.randoms())
def test_estimates_of_shards_in_any_order_are_the_whole(rows, cut, random):
    cbpe = estimates.Cbpe.fit(*drawn(500, 3))
    whole = cbpe.estimate([row[0] for row in rows], [row[1] for row in rows])
    mixed = random.sample(rows, len(rows))
    left, right = (cbpe.estimate([row[0] for row in part], [row[1] for row in part]) for part in (mixed[:cut], mixed[cut:]))
    left.merge(right)
    assert left.to_bytes() == whole.to_bytes()
    again = estimates.CbpeEstimate.from_bytes(whole.to_bytes())
    assert again.to_dict() == whole.to_dict()
    values = [value for value in whole.to_dict().values() if value is not None]
    assert np.isfinite(values).all()


def test_the_calibration_has_a_snapshot_and_one_class_is_no_error():
    cbpe = estimates.Cbpe.fit(*drawn(500, 4))
    again = estimates.Cbpe.from_bytes(cbpe.to_bytes())
    assert again.estimate([0.2, 0.7]).to_bytes() == cbpe.estimate([0.2, 0.7]).to_bytes()
    assert again.check == cbpe.check
    one = estimates.Cbpe.fit([0.2, 0.3, 0.4] * 30, [0] * 90).estimate([0.1, 0.9])
    assert one["roc_auc"] is None
    assert one["recall"] is None
    assert one["accuracy"] == 0.5
    assert cbpe.estimate([])["accuracy"] is None


def shifted(n, seed, by):
    """Scores that are right on average but not given x: the model knows only half of it."""
    rng = np.random.default_rng(seed)
    x = rng.normal(by, 1, n)
    z = rng.normal(0, 1, n)
    scores = 1 / (1 + np.exp(-z))
    labels = (rng.random(n) < 1 / (1 + np.exp(-(z + 1.5 * x)))).astype(float)
    return pl.DataFrame({"x": x, "z": z, "n": rng.choice(["a", "b"], n)}), scores, labels


def test_pape_is_nearer_than_cbpe_when_the_inputs_shift():
    features, scores, labels = shifted(20_000, 0, 0.0)
    current, now, truth = shifted(10_000, 1, 0.8)
    realised = truth[now >= 0.5].mean()
    pape = estimates.Pape(features, scores, labels)
    weighed = abs(pape.estimate(current, now)["precision"] - realised)
    plain = abs(estimates.Cbpe.fit(scores, labels).estimate(now)["precision"] - realised)
    assert plain > 0.04
    assert weighed < plain / 3
    assert 0.05 < pape.effective_share < 0.9
    same, again, _ = shifted(10_000, 2, 0.0)
    assert pape.estimate(same, again)["accuracy"] == pytest.approx(estimates.Cbpe.fit(scores, labels).estimate(again)["accuracy"], abs=0.01)


def rents(n, seed, by=0.0):
    rng = np.random.default_rng(seed)
    frame = pl.DataFrame({"size": rng.uniform(1 + by, 5 + by, n), "kind": rng.choice(["a", "b"], n)}).with_columns(
        pl.when(pl.col("size") < 1.1).then(None).otherwise("kind").alias("kind")
    )
    truth = 10 * frame["size"].to_numpy() + rng.normal(0, 0.5 + frame["size"].to_numpy(), n)
    return frame, 10 * frame["size"].to_numpy(), truth


def test_dle_foretells_errors_that_depend_on_inputs():
    features, predictions, labels = rents(20_000, 0)
    dle = estimates.Dle(features, predictions, labels)
    inside = 0
    for seed in range(20):
        # Larger objects, larger errors; still inside what the reference has seen.
        current, guesses, truth = rents(2000, 100 + seed)
        large = (current["size"] > 3).to_numpy()
        found = dle.estimate(current.filter(large), guesses[large])
        error = np.abs(guesses - truth)[large]
        inside += found.mae[1] <= error.mean() <= found.mae[2]
        # Three of its sampling errors, as an independent learner is held to.
        assert abs(found.to_dict()["rmse"] - (error**2).mean() ** 0.5) < 3.5 * (error**2).std() / len(error) ** 0.5 / (2 * error.mean())
        assert found.mae[0] > np.abs(predictions - labels).mean() * 1.1
    # At 95 %: 16 or fewer of 20 with probability 0.003.
    assert inside >= 16
    assert dle.past_error < 0.1
    assert dle.estimate(current, guesses).to_frame()["metric"].to_list() == ["mae", "mse", "rmse"]


def test_prediction_powered_limits_hold_and_are_narrower():
    rng = np.random.default_rng(5)
    hits, widths, inside_alone = 0, [], 0
    for _ in range(400):
        truth = (rng.random(5000) < (p := rng.beta(1, 3, 5000))).astype(float)
        # Uncertain rows are preferred; early labels would have no inclusion probability.
        chances = np.clip(0.03 + 0.3 * p, 0, 1)
        asked = rng.random(5000) < chances
        found = estimates.prediction_powered_mean(truth[asked], p[asked], p, inclusion=chances[asked])
        hits += found.lower <= truth.mean() <= found.upper
        inside_alone += abs(truth[asked].mean() - truth.mean()) < (found.upper - found.lower) / 2
        alone = estimates.prediction_powered_mean(truth[asked], rng.random(asked.sum()), p, inclusion=chances[asked])
        widths.append((found.upper - found.lower) / (alone.upper - alone.lower))
    # 95 % of 400 less four standard errors.
    assert hits >= 380 - 17
    assert inside_alone < 200
    assert np.median(widths) < 0.95


def test_what_is_wrong_is_named():
    cbpe = estimates.Cbpe.fit(*drawn(100, 0))
    sequence = estimates.MeanSequence()
    sequence.update_many([0.5])
    cases = [
        (lambda: estimates.Cbpe(), "comes from labels"),
        (lambda: estimates.Cbpe.fit([0.5], [2]), "`labels` must be 0, 1 or missing"),
        (lambda: estimates.Cbpe.fit([1.5], [1]), r"`scores` must be in \[0, 1\], got 1.5 at position 0"),
        (lambda: estimates.Cbpe.fit([0.5, 0.5], [1]), "as many rows"),
        (lambda: estimates.Cbpe.fit([], []), "at least one row"),
        (lambda: estimates.Cbpe.fit([[0.5, 0.5]], ["a"], classes=["a"]), "one column per class"),
        (lambda: cbpe.estimate([0.5], [0, 1]), "`y_pred` must have as many rows"),
        (lambda: cbpe.estimate([0.5], [0.4]), "`y_pred` must be 0 or 1"),
        (lambda: cbpe.estimate([float("nan")]), "`scores` must be in"),
        (lambda: cbpe.estimate([0.5]).merge(estimates.Cbpe.fit(*drawn(100, 1)).estimate([0.5])), "same calibration"),
        (lambda: estimates.MeanSequence(1, 0), "`lower` must be below"),
        (lambda: estimates.MeanSequence(alpha=0.7), "`alpha` must be"),
        (lambda: sequence.update_many([2.0]), "`values` must be in"),
        (lambda: estimates.QuantileSequence(1.5), "`q` must be in"),
        (lambda: estimates.AucSequence().update_many([0.5], [0.5]), "`labels` must be 0 or 1"),
        (lambda: estimates.AucSequence().update_many([1], [0.5], [0.5]), "`other_scores` must not"),
        (lambda: estimates.AsymptoticSequence().update_many([float("inf")]), "`values` must be in"),
        (lambda: estimates.RiskAlarm([]), "`reference` must hold"),
        (lambda: estimates.RiskAlarm([0.0], tolerance=-1), "`tolerance` must not be negative"),
        (lambda: estimates.CalibrationAlarm().update_many([1], [0.5, 0.5]), "`probabilities` must have as many"),
        (lambda: estimates.prediction_powered_mean([1, 0], [1], [1]), "`predictions` must have as many"),
        (lambda: estimates.prediction_powered_mean([1, 0], [1, 0], [1], inclusion=[0, 1]), "`inclusion` must hold"),
        (lambda: estimates.Pape(pl.DataFrame({"x": [1.0]}), [0.5, 0.5], [1, 0]), "as many rows"),
        (lambda: estimates.Dle(pl.DataFrame({"x": [1.0]}), [0.5], [1]), "at least 100 labels"),
    ]
    for wrong, message in cases:
        with pytest.raises(bg.errors.InvalidArgumentError, match=message):
            wrong()
    assert (sequence.count, sequence.mean) == (1, 0.5)
    for kind, data in ((estimates.Cbpe, sequence.to_bytes()), (estimates.MeanSequence, b"junk"), (estimates.RiskAlarm, cbpe.to_bytes())):
        with pytest.raises(bg.errors.SnapshotError):
            kind.from_bytes(data)


def sequences():
    yield estimates.MeanSequence(), lambda s, x: s.update_many(x)
    yield estimates.QuantileSequence(0.9), lambda s, x: s.update_many(x)
    yield estimates.AsymptoticSequence(), lambda s, x: s.update_many(x)
    yield estimates.RiskAlarm(np.linspace(0, 0.2, 500)), lambda s, x: s.update_many(x)
    yield estimates.AucSequence(), lambda s, x: s.update_many((x > 0.4).astype(int), x**2)
    yield estimates.CalibrationAlarm(), lambda s, x: s.update_many((x > 0.4).astype(int), x)


@pytest.mark.parametrize("at", range(6))
def test_a_restored_sequence_goes_on_whatever_the_batches(at):
    values = np.random.default_rng(at).random(1000)
    (whole, feed), (pieces, _) = (list(sequences())[at] for _ in range(2))
    feed(whole, values)
    for part in np.split(values, [1, 17, 600]):
        feed(pieces, part)
        pieces = type(pieces).from_bytes(pieces.to_bytes())
    assert pieces.to_bytes() == whole.to_bytes()
    assert getattr(whole, "interval", None) == getattr(pieces, "interval", None)
