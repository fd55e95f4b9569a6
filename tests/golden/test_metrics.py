"""Metrics against scikit-learn, and their laws."""

import json
from pathlib import Path

import barograph as bg
import numpy as np
import predictions
import pytest

GOLDEN = json.loads((Path(__file__).parent / "metrics.json").read_text())
BOUNDS = {"roc_auc": 1e-4, "average_precision": 1e-3, "roc_auc_ovr": 2e-4}


def agrees(got, want):
    for name, value in want.items():
        if value is None:
            assert got[name] is None, name
        elif not (value == 0 and got[name] is None):
            # scikit-learn gives 0 where nothing is predicted; here that is None.
            assert got[name] == pytest.approx(value, abs=BOUNDS.get(name, 1e-9), rel=1e-9), name


@pytest.mark.parametrize("name", predictions.BINARY)
def test_binary(name):
    y, s, p, w = predictions.BINARY[name]()
    m = bg.metrics.BinaryMetrics()
    m.update_many(y, s, y_pred=p, weight=w)
    agrees(m.to_dict(), GOLDEN["binary"][name])
    frame = m.to_frame()
    inside = frame.drop_nulls()
    assert (inside["lower"] <= inside["value"]).all()
    assert (inside["value"] <= inside["upper"]).all()
    assert not frame["value"].is_nan().any()
    if 0 < y.mean() < 1:
        assert inside.height >= (1 if w is not None else 7)


@pytest.mark.parametrize("name", predictions.BINARY)
def test_shards_and_order_leave_no_trace(name):
    y, s, p, w = predictions.BINARY[name]()
    whole, parts, back = (bg.metrics.BinaryMetrics() for _ in range(3))
    whole.update_many(y, s, y_pred=p, weight=w)
    for at in range(0, len(y), 377):
        one, cut = bg.metrics.BinaryMetrics(), slice(at, at + 377)
        one.update_many(y[cut], s[cut], y_pred=p[cut], weight=None if w is None else w[cut])
        parts.merge(bg.metrics.BinaryMetrics.from_bytes(one.to_bytes()))
    back.update_many(y[::-1], s[::-1], y_pred=p[::-1], weight=None if w is None else w[::-1])
    assert whole.to_bytes() == parts.to_bytes() == back.to_bytes()


@pytest.mark.parametrize("name", predictions.MULTICLASS)
def test_multiclass(name):
    y, p, s = predictions.MULTICLASS[name]()
    m = bg.metrics.MulticlassMetrics(range(s.shape[1]))
    m.update_many(y, p, s)
    agrees(m.to_dict(), GOLDEN["multiclass"][name])
    parts = bg.metrics.MulticlassMetrics(range(s.shape[1]))
    for cut in (slice(0, 100), slice(100, None)):
        one = bg.metrics.MulticlassMetrics(range(s.shape[1]))
        one.update_many(y[cut], p[cut], s[cut])
        parts.merge(bg.metrics.MulticlassMetrics.from_bytes(one.to_bytes()))
    assert parts.to_bytes() == m.to_bytes()
    assert np.sum(m.confusion()) == len(y)
    assert m.per_class()["support"].sum() == len(y)


@pytest.mark.parametrize("name", predictions.REGRESSION)
def test_regression(name):
    y, p = predictions.REGRESSION[name]()
    m, parts = bg.metrics.RegressionMetrics(), bg.metrics.RegressionMetrics()
    m.update_many(y, p)
    agrees(m.to_dict(), GOLDEN["regression"][name])
    for cut in (slice(1000, None), slice(0, 1000)):
        one = bg.metrics.RegressionMetrics()
        one.update_many(y[cut], p[cut])
        parts.merge(bg.metrics.RegressionMetrics.from_bytes(one.to_bytes()))
    assert parts.to_bytes() == m.to_bytes()
    errors = np.sort(p - y)
    for q in (0.05, 0.5, 0.95):
        want = errors[int(np.ceil(q * len(errors))) - 1]
        assert abs(m.error_quantile(q) - want) <= 0.00542 * abs(want)


@pytest.mark.parametrize("name", predictions.RANKING)
def test_ranking(name):
    y, s = predictions.RANKING[name]()
    golden = GOLDEN["ranking"][name]
    m, top, parts = bg.metrics.RankingMetrics(), bg.metrics.RankingMetrics(k=3), bg.metrics.RankingMetrics()
    m.update_many(y, s)
    top.update_many(y, s)
    agrees(m.to_dict(), {key: golden[key] for key in golden if key != "ndcg at 3"})
    agrees(top.to_dict(), {"ndcg": golden["ndcg at 3"]})
    for cut in (slice(100, None), slice(0, 100)):
        one = bg.metrics.RankingMetrics()
        one.update_many(y[cut], s[cut])
        parts.merge(bg.metrics.RankingMetrics.from_bytes(one.to_bytes()))
    assert parts.to_bytes() == m.to_bytes()
    with pytest.raises(bg.errors.IncompatibleError, match="k"):
        top.merge(m)
    with pytest.raises(bg.errors.InvalidArgumentError, match="y_true"):
        m.update_many([[-1.0]], [[0.0]])
    with pytest.raises(bg.errors.InvalidArgumentError, match="shape"):
        m.update_many([[1.0, 2.0]], [[0.0]])


@pytest.mark.parametrize("name", predictions.REGRESSION)
def test_pinball(name):
    m = bg.metrics.RegressionMetrics()
    assert m.pinball(0.5) is None
    m.update_many(*predictions.REGRESSION[name]())
    for alpha, want in GOLDEN["pinball"][name].items():
        assert m.pinball(float(alpha)) == pytest.approx(want, rel=1e-9)
    with pytest.raises(bg.errors.InvalidArgumentError, match="alpha"):
        m.pinball(90)


def test_calibration_of_a_calibrated_and_an_overconfident_score():
    def error(name):
        y, s, p, _ = predictions.BINARY[name]()
        m = bg.metrics.BinaryMetrics()
        m.update_many(y, s, y_pred=p)
        bins = np.minimum((s * 10).astype(int), 9)
        want = sum((bins == b).mean() * abs(y[bins == b].mean() - s[bins == b].mean()) for b in range(10) if (bins == b).any())
        assert m.to_dict()["ece"] == pytest.approx(want, abs=1e-12)
        assert m.calibration()["weight"].sum() == len(y)
        return m.to_dict()["ece_debiased"]

    assert error("rare positives") < 0.01
    assert error("overconfident") > 0.1


def test_empty_missing_and_wrong_input():
    for make in (bg.metrics.BinaryMetrics, bg.metrics.RegressionMetrics, lambda: bg.metrics.MulticlassMetrics("ab")):
        values = make().to_dict()
        assert values.pop("count") == values.pop("unlabelled") == 0
        assert set(values.values()) == {None}
    m = bg.metrics.BinaryMetrics()
    m.update_many([1.0, np.nan, 0.0], [0.9, 0.5, 0.2])
    assert (m.count, m.unlabelled, m.to_dict()["accuracy"]) == (2, 1, 1.0)
    before = m.to_bytes()
    for arguments, message in (
        (([0, 1], [0.1, 1.5]), "`y_score` must be in .* got 1.5 at position 1"),
        (([0, 2], [0.1, 0.5]), "`y_true` must be 0, 1 or missing, got 2 at position 1"),
        (([0, 1], [0.1]), "as many rows"),
        (([0, 1],), "neither"),
        ((["a", "b"], [0.1, 0.2]), "`y_true` must be a row of numbers"),
    ):
        with pytest.raises(bg.errors.InvalidArgumentError, match=message):
            m.update_many(*arguments)
    assert m.to_bytes() == before
    with pytest.raises(bg.errors.InvalidArgumentError, match="position 1"):
        bg.metrics.RegressionMetrics().update_many([1, 2], [1, np.inf])
    with pytest.raises(bg.errors.InvalidArgumentError, match="known classes, got 'c'"):
        bg.metrics.MulticlassMetrics("ab").update_many(["a"], ["c"])
    with pytest.raises(bg.errors.SnapshotError, match="binary_metrics"):
        bg.metrics.RegressionMetrics.from_bytes(before)
    for cut in range(0, len(before), 97):
        with pytest.raises(bg.errors.SnapshotError):
            bg.metrics.BinaryMetrics.from_bytes(before[:cut])
