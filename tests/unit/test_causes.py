"""Planted causes are found and named, nothing is claimed where nothing happened, and the parts add up."""

import json
import math
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import barograph as bg
import numpy as np
import polars as pl
import pytest
from barograph.causes import _student, _tail, explain
from barograph.errors import InvalidArgumentError
from hypothesis import given, settings
from hypothesis import strategies as st

FLIGHTS = Path(bg.__file__).parent / "data" / "flights_nyc_2013.parquet"
START = datetime(2026, 1, 1)


def rows(seed, n=20_000, *, fr=0.1, worse=0.0, nulls=0.01, new=0.0, day=0, bad_day=0):
    """Thirty days of labelled rows: errors of 0.1, 0.35 in fr, 0.4 without x; `worse` is added to mobile rows of de from `bad_day` on."""
    rng = np.random.default_rng(seed)
    country = rng.choice(["fr", "de", "us"], p=[fr, 0.5, 0.5 - fr], size=n)
    device = rng.choice(["mobile", "desk"], size=n)
    x = rng.lognormal(size=n)
    unknown = rng.random(n) < nulls
    days = rng.random(n) * 30
    error = 0.1 + 0.25 * (country == "fr") + 0.3 * unknown
    score = error.copy()
    error += worse * ((country == "de") & (device == "mobile") & (days >= bad_day))
    added = rng.random(n) < new
    country, error = np.where(added, "xx", country), np.where(added, 0.6, error)
    at = np.datetime64(START) + ((days + day) * 86_400e6).astype("timedelta64[us]")
    label = (rng.random(n) < error).astype(int)
    columns = {"country": country, "device": device, "x": x, "noise": rng.normal(size=n), "at": at, "label": label, "score": score}
    return pl.DataFrame({**columns, "prediction": np.zeros(n, int)}).with_columns(x=pl.when(pl.Series(~unknown)).then("x"))


FEATURES = ["country", "device", "x", "noise"]
BEFORE = rows(0)


def of(found, part, **where):
    frame = found.to_frame().filter(part=part)
    for name, value in where.items():
        frame = frame.filter(pl.col(name).is_null() if value is None else pl.col(name) == value)
    return frame


def sections(found):
    return {section for section, _ in found.lines}


def test_a_mix_shift_is_named_with_its_segment_and_nothing_else_is():
    found = explain(BEFORE, rows(1, fr=0.35), features=["device", "x", "noise"], segments=["country"])
    assert found.changed
    whole = of(found, "segment", bin=None, effect="mix").row(0, named=True)
    assert whole["claimed"]
    assert whole["lower"] < 0.25 * 0.25 < whole["upper"]
    fr = of(found, "segment", bin="country = fr", effect="mix").row(0, named=True)
    assert fr["share_before"] == pytest.approx(0.1, abs=0.01)
    assert fr["share_after"] == pytest.approx(0.35, abs=0.015)
    assert fr["value"] == of(found, "segment", effect="mix").drop_nulls("bin")["value"].max()
    assert not of(found, "feature")["claimed"].any()
    assert not of(found, "slice")["claimed"].any()
    covariate, concept = of(found, "shift", effect="covariate"), of(found, "shift", effect="concept")
    assert covariate["claimed"].item()
    assert not concept["claimed"].item()
    assert re.search(r"country = fr: share 10\.?\d* % -> 3\d\.?\d* %, error 0\.3\d+ -> 0\.3\d+: mix \+0\.0", str(found))
    assert str(found).count("covariate shift") == 1


def test_a_rate_shift_is_found_as_the_slice_it_lies_in():
    found = explain(BEFORE, rows(1, worse=0.2), features=FEATURES)
    slices = of(found, "slice", claimed=True)
    assert slices["bin"].to_list() == ["country = de and device = mobile"]
    # Measured on rows that the search did not see: the planted size is inside its limits.
    assert slices["lower"].item() < 0.2 < slices["upper"].item()
    assert slices["lower"].item() > 0.1
    assert of(found, "shift", effect="concept")["claimed"].item()
    assert not of(found, "shift", effect="covariate")["claimed"].item()
    assert not of(found, "feature")["claimed"].any()
    assert "concept shift" in str(found)


def test_three_bins_are_joined_if_asked():
    rng = np.random.default_rng(5)

    def made(worse):
        a, b, c = (rng.choice(["p", "q"], size=30_000) for _ in range(3))
        wrong = rng.random(30_000) < 0.2 + worse * ((a == "p") & (b == "p") & (c == "p"))
        return {"a": a, "b": b, "c": c, "loss": wrong * 1.0}

    old, new = made(0.0), made(0.3)
    assert of(explain(old, new, loss="loss", conjunctions=3), "slice", claimed=True)["bin"][0] == "a = p and b = p and c = p"
    assert "a = p and b = p and c = p" not in of(explain(old, new, loss="loss"), "slice")["bin"].to_list()
    single = of(explain(old, new, loss="loss", conjunctions=1), "slice")["bin"]
    assert not any(" and " in one for one in single)


def test_values_that_were_never_there_are_named():
    found = explain(BEFORE, rows(1, new=0.08), features=FEATURES)
    new = of(found, "new_value").row(0, named=True)
    assert (new["bin"], new["claimed"], new["n_before"]) == ("country = xx", True, 0)
    assert new["share_after"] == pytest.approx(0.08, abs=0.01)
    assert new["metric_after"] == pytest.approx(0.6, abs=0.05)
    unseen = of(found, "feature", bin="country of values not there before")
    assert unseen.filter(effect="rate")["value"].item() == 0.0
    mix = unseen.filter(effect="mix").row(0, named=True)
    assert mix["claimed"]
    assert mix["metric_before"] is None
    assert any("support" in note for note in found.notes)


def test_a_flood_of_nulls_is_a_bin_of_its_own():
    found = explain(BEFORE, rows(1, nulls=0.3), features=FEATURES)
    assert of(found, "feature", bin=None, claimed=True)["column"].to_list() == ["x"]
    null = of(found, "feature", bin="x is null", effect="mix").row(0, named=True)
    assert null["claimed"]
    assert null["value"] > 0.8 * of(found, "metric")["value"].item()


def test_where_nothing_changed_nothing_is_claimed():
    found = explain(BEFORE, rows(2), features=FEATURES, time="at", segments=["country"])
    assert found.changed is False
    assert not found.to_frame()["claimed"].any()
    assert sections(found) == {"change"}
    assert "cannot be told from noise: nothing is attributed" in str(found)


def test_false_slices_and_changes_keep_to_their_level():
    slices = changes = tested = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)

        def made(rng=rng):
            a, b = rng.integers(0, 4, 3000).astype(str), rng.normal(size=3000)
            noise = {name: rng.normal(size=3000) for name in "cdef"}
            return {"a": a, "b": b, **noise, "loss": (rng.random(3000) < 0.1 + 0.15 * (a == "1") + 0.1 * (b > 1)) * 1.0}

        found = explain(made(), made(), loss="loss", features=list("abcdef"), min_share=0.03, seed=seed)
        slices += bool(of(found, "slice")["claimed"].any())
        tested += of(found, "slice").height
        changes += bool(found.changed)
    # At a level of 5 % more than 21 of 200 come with a chance of 0.0005 each.
    assert slices <= 21
    # Many were looked at each time: without a correction one of five runs would claim one.
    assert tested > 4 * 200
    assert 1 <= changes <= 21


def test_limits_are_those_of_the_jackknife():
    rng = np.random.default_rng(3)
    rates = np.array([0.0, 8.0, 3.0])

    def made(shares, more):
        bin = rng.choice(3, size=1500, p=shares)
        return bin, rates[bin] + more * (bin == 2) + rng.normal(size=1500)

    sides = made([0.5, 0.3, 0.2], 0.0), made([0.2, 0.4, 0.4], 2.0)

    def effects(n, s, n2, s2):
        p, q, r, r2 = n / n.sum(), n2 / n2.sum(), s / n, s2 / n2
        centre = (s.sum() / n.sum() + s2.sum() / n2.sum()) / 2
        each = np.concatenate([(q - p) * ((r + r2) / 2 - centre), (r2 - r) * (p + q) / 2])
        return np.concatenate([each, [each[:3].sum(), each[3:].sum()]])

    counts = [(np.bincount(bin).astype(float), np.bincount(bin, loss)) for bin, loss in sides]
    variance = np.zeros(8)
    for at, (bin, loss) in enumerate(sides):
        left = []
        for row in range(1500):
            one = [[values.copy() for values in side] for side in counts]
            one[at][0][bin[row]] -= 1
            one[at][1][bin[row]] -= loss[row]
            left.append(effects(*one[0], *one[1]))
        variance += np.var(left, axis=0) * 1499
    frames = [pl.DataFrame({"bin": bin.astype(str), "loss": loss}) for bin, loss in sides]
    found = explain(*frames, loss="loss", features=["bin"])
    values = effects(*counts[0], *counts[1])
    for effect, start, whole in (("mix", 0, 6), ("rate", 3, 7)):
        rows = of(found, "feature", effect=effect).sort("bin", nulls_last=True)
        assert rows["value"].to_list() == pytest.approx([*values[start : start + 3], values[whole]])
        errors = np.sqrt([*variance[start : start + 3], variance[whole]])
        # One column at 95 %, shared by mix and rate; three bins likewise.
        reach = np.array([_student(0.05 / 6, 1000)] * 3 + [_student(0.05 / 2, 1000)])
        assert ((rows["upper"] - rows["lower"]) / 2 / reach).to_list() == pytest.approx(errors.tolist(), rel=0.015)


def test_rows_of_one_window_that_resemble_each_other_are_no_evidence():
    changed = {None: 0, "at": 0}
    slices = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)

        def made(first, rng=rng):
            day = rng.integers(0, 20, 1000)
            rate = np.clip(0.3 + 0.12 * rng.normal(size=20), 0, 1)[day]
            at = np.datetime64(START) + ((day + first) * 86_400).astype("timedelta64[s]").astype("timedelta64[us]")
            return pl.DataFrame({"a": rng.integers(0, 3, 1000).astype(str), "loss": (rng.random(1000) < rate) * 1.0, "at": at})

        old, new = made(0), made(20)
        for time in changed:
            found = explain(old, new, loss="loss", features=["a"], time=time)
            changed[time] += bool(found.changed)
            slices += time is not None and bool(of(found, "slice")["claimed"].any())
    # At 5 % more than 9 of 60 come with a chance of 0.001; taken as independent rows, half of the runs alarm.
    assert changed["at"] <= 9
    assert slices <= 9
    assert changed[None] > 18


def test_limits_cover_what_was_planted():
    p = np.array([0.1, 0.2, 0.1, 0.1, 0.1, 0.1, 0.2, 0.1])
    q = np.array([0.25, 0.15, 0.05, 0.05, 0.1, 0.15, 0.15, 0.1])
    r = np.array([0.1, 0.2, 0.3, 0.4, 0.1, 0.1, 0.2, 0.3])
    r2 = r + np.array([0, 0.1, 0, 0, 0.05, 0, 0, -0.1])

    def mix(axis):
        a, b = (one.reshape(2, 4) for one in (p, q))
        rates, rates2 = (a * r.reshape(2, 4)).sum(axis) / a.sum(axis), (b * r2.reshape(2, 4)).sum(axis) / b.sum(axis)
        return float(((b.sum(axis) - a.sum(axis)) * (rates + rates2) / 2).sum())

    both = float(((q - p) * (r + r2) / 2).sum())
    truth = {"mix": both, "rate": float(q @ r2 - p @ r) - both, "shapley": (mix(1) + both - mix(0)) / 2}
    hits = dict.fromkeys(truth, 0)
    for seed in range(150):
        rng = np.random.default_rng(seed)

        def made(shares, rates, rng=rng):
            cell = rng.choice(8, size=2000, p=shares)
            named = {"cell": cell.astype(str), "a": (cell // 4).astype(str), "b": (cell % 4).astype(str)}
            return {**named, "loss": (rng.random(2000) < rates[cell]) * 1.0}

        terms = {"features": ["cell"], "segments": ["a", "b"], "joint": ["a", "b"], "confidence": 0.9, "conjunctions": 1}
        found = explain(made(p, r), made(q, r2), loss="loss", **terms)
        for effect, value in truth.items():
            part, column = ("joint", "a") if effect == "shapley" else ("feature", "cell")
            row = of(found, part, effect=effect, column=column, bin=None).row(0, named=True)
            hits[effect] += row["lower"] <= value <= row["upper"]
    # Two limits each share a tenth: 95 % cover. Fewer than 133 of 150 do with a chance of 0.0005, all with one of 0.0005.
    assert all(133 <= hit <= 149 for hit in hits.values()), hits


@given(
    st.lists(
        st.tuples(st.sampled_from(["a", "b", "c", None]), st.one_of(st.none(), st.integers(0, 40)), st.floats(-1e6, 1e6)),
        min_size=80,
        max_size=160,
    ),
    st.integers(30, 50),
    st.integers(2, 12),
)
@settings(max_examples=40, deadline=None)
def test_parts_add_up_to_the_change(values, cut, bins):
    frame = pl.DataFrame(values, schema={"name": pl.String, "number": pl.Float64, "loss": pl.Float64}, orient="row")
    old, new = frame[:cut], frame[cut:]
    found = explain(old, new, loss="loss", features=["number"], segments=["name"], joint=["name", "number"], bins=bins)
    change = new["loss"].mean() - old["loss"].mean()
    close = {"rel": 1e-9, "abs": 1e-11 * float(frame["loss"].abs().max()) + 1e-300}
    assert of(found, "metric")["value"].item() == pytest.approx(change, **close)
    for part, column in (("feature", "number"), ("segment", "name")):
        whole, each = of(found, part, column=column, bin=None), of(found, part, column=column).drop_nulls("bin")
        if not whole["value"].drop_nulls().len():
            continue
        assert whole["value"].sum() == pytest.approx(change, **close)
        for effect in ("mix", "rate"):
            total = whole.filter(effect=effect)["value"].item()
            assert each.filter(effect=effect)["value"].sum() == pytest.approx(total, **close)
        for side in ("before", "after"):
            assert each.filter(effect="mix")[f"share_{side}"].sum() == pytest.approx(1.0)
    shift = of(found, "shift")["value"]
    assert shift.sum() == pytest.approx(change, **close) or not len(shift)
    numbers = found.to_frame().select(pl.selectors.float())
    assert all(numbers[name].drop_nulls().is_finite().all() for name in numbers.columns)


def test_shapley_values_add_up_to_the_joint_mix_and_are_fair():
    rng = np.random.default_rng(2)

    def made(share):
        a = rng.random(20_000) < share
        wrong = rng.random(20_000) < 0.1 + 0.3 * a
        return {"a": a, "copy": a, "c": rng.integers(0, 3, 20_000), "loss": wrong * 1.0}

    found = explain(made(0.2), made(0.6), loss="loss", features=["a", "copy", "c"], joint=["a", "copy", "c"])
    values = dict(of(found, "joint").select("column", "value").rows())
    # A copy says the same: both have half, and a column that tells nothing has nothing.
    assert values["a"] == pytest.approx(values["copy"], abs=1e-12)
    assert sum(values.values()) == pytest.approx(of(found, "shift", effect="covariate")["value"].item(), abs=1e-12)
    assert abs(values["c"]) < 0.002
    assert values["a"] == pytest.approx(0.06, abs=0.006)


def test_the_first_bad_window_and_the_deploy_before_it():
    new = rows(1, worse=0.3, day=30, bad_day=12)
    deploys = {"v1": START + timedelta(days=3), "v2": START + timedelta(days=41, hours=22), "v3": START + timedelta(days=50)}
    found = explain(BEFORE, new, features=FEATURES, time="at", deploys=deploys)
    window = of(found, "window").row(0, named=True)
    assert window["claimed"]
    assert window["time"] == datetime(2026, 2, 12, tzinfo=UTC)
    assert window["metric_after"] > window["metric_before"] + 0.05
    deploy = of(found, "deploy").row(0, named=True)
    assert (deploy["bin"], deploy["value"]) == ("deploy v2", 7200.0)
    assert "2026-02-12 00:00 is the first bad window (of 1 d)" in str(found)
    assert "deploy v2 at 2026-02-11 22:00, 2 h before that" in str(found)
    late = explain(BEFORE, new, features=["x"], time="at", deploys={"v3": START + timedelta(days=50)})
    assert of(late, "deploy")["reason"].to_list() == ["none lies before the first bad window"]


def test_deploys_are_read_from_a_history():
    monitor = bg.Monitor("m", reference=bg.Reference({"x": [1.0, 2.0] * 300}), ticks="manual", window="1d")
    monitor.observe_frame({"x": [1.0], "at": [START + timedelta(days=42)]}, time="at")
    monitor.deploy("v9", time=START + timedelta(days=42))
    monitor.tick(START + timedelta(days=60))
    history = monitor.history()
    assert "deploy" in history["method"].to_list()
    found = explain(BEFORE, rows(1, worse=0.3, day=30, bad_day=12), features=["x"], time="at", deploys=history)
    assert "v9" in of(found, "deploy")["bin"].item()


def test_one_frame_with_an_instant_is_two_frames():
    new = rows(1, fr=0.3, day=30)
    two = explain(BEFORE, new, features=FEATURES, time="at")
    one = explain(pl.concat([new, BEFORE]), time="at", split=START + timedelta(days=30), features=FEATURES)
    zoned = [frame.with_columns(pl.col("at").dt.replace_time_zone("UTC").dt.convert_time_zone("Asia/Tokyo")) for frame in (BEFORE, new)]
    assert explain(*zoned, features=FEATURES, time="at").to_frame().equals(two.to_frame())
    moved = {"part", "effect", "column", "bin", "value", "n_before", "n_after"}
    plain = [found.to_frame().filter(pl.col("part").is_in(["metric", "segment", "shift", "joint"])).select(moved) for found in (one, two)]
    assert plain[0].height > 3
    assert plain[0].with_columns(pl.col("value").round(9)).equals(plain[1].with_columns(pl.col("value").round(9)))


def test_bins_hold_the_rows_their_labels_say():
    rng = np.random.default_rng(4)

    def made(low, high):
        x = np.where(rng.random(3000) < 0.4, 7, rng.integers(low, high, 3000))
        return pl.DataFrame({"x": x, "loss": rng.random(3000)})

    old, new = made(0, 50), made(-20, 90)
    for reference in (None, bg.Reference(old.select("x"))):
        bins = of(explain(old, new, loss="loss", features=["x"], reference=reference), "feature", effect="mix").drop_nulls("bin")
        assert "x = 7" in bins["bin"].to_list()
        assert 8 <= bins.height <= 15
        for label, before, after in bins.select("bin", "n_before", "n_after").rows():
            condition = re.sub(r"(?<![<>])=(?!=)", "==", label.removesuffix(", out of range"))
            held = [sum(eval(condition, {"x": value}) for value in frame["x"]) for frame in (old, new)]
            assert held == [before, after], label
        assert bins.filter(pl.col("bin").str.ends_with("out of range"))["n_before"].to_list() == [0, 0]


def test_noise_has_no_importance():
    rng = np.random.default_rng(6)
    columns = [f"x{at}" for at in range(12)]
    old, new = ({**{name: rng.normal(size=600) for name in columns}, "loss": rng.random(600)} for _ in range(2))
    # Bins of the rows they are judged by would explain 9 in 600, 1.5 %.
    assert of(explain(old, new, loss="loss", features=columns), "feature")["importance"].max() < 0.005


def test_features_rank_by_drift_times_importance():
    new = rows(1, fr=0.3).with_columns(pl.col("noise") + 0.5)
    ranked = explain(BEFORE, new, features=FEATURES)
    whole = of(ranked, "feature", bin=None, effect="mix")
    assert whole["column"][0] == "country"
    importance = dict(whole.select("column", "importance").rows())
    drift = dict(whole.select("column", "drift").rows())
    # What explains nothing has nothing, by cross-validation; what did not move has no drift.
    assert importance["noise"] < 1e-3 < 0.02 < importance["country"]
    assert drift["device"] < 1e-3 < 0.1 < drift["noise"]
    told = explain(BEFORE, new, features=FEATURES, importance={"noise": 8.0, "country": 1.0})
    whole = of(told, "feature", bin=None, effect="mix")
    assert whole["column"][0] == "noise"
    assert dict(whole.select("column", "importance").rows())["x"] == 4.5


@pytest.mark.parametrize(
    ("metric", "plain"),
    [
        ("error", lambda f: (f["label"] != f["prediction"]).mean()),
        ("correctness", lambda f: (f["label"] == f["prediction"]).mean()),
        ("brier", lambda f: ((f["score"] - f["label"]) ** 2).mean()),
        ("log_loss", lambda f: -(f["label"] * f["score"].log() + (1 - f["label"]) * (1 - f["score"]).log()).mean()),
        ("absolute_error", lambda f: (f["prediction"] - f["label"]).abs().mean()),
        ("squared_error", lambda f: ((f["prediction"] - f["label"]) ** 2).mean()),
    ],
)
def test_metrics_are_what_they_say(metric, plain):
    new = rows(1, worse=0.2)
    found = explain(BEFORE, new, metric=metric, features=FEATURES)
    row = of(found, "metric").row(0, named=True)
    assert row["metric_before"] == pytest.approx(plain(BEFORE), rel=1e-12)
    assert row["metric_after"] == pytest.approx(plain(new), rel=1e-12)
    assert row["value"] == pytest.approx(plain(new) - plain(BEFORE), rel=1e-9)
    # Less correct is worse: the slice is found either way.
    assert "worse;" in found.lines[0][1]
    assert of(found, "slice", claimed=True)["bin"].to_list() == ["country = de and device = mobile"]
    assert (of(found, "slice", claimed=True)["value"].item() < 0) == (metric == "correctness")


def test_the_metric_is_inferred():
    assert explain(BEFORE, BEFORE, features=[]).metric == "error"
    assert explain(BEFORE.drop("prediction"), BEFORE, features=[]).metric == "brier"
    assert explain(*[BEFORE.with_columns(prediction=pl.col("x"))] * 2, features=[]).metric == "absolute_error"
    text = BEFORE.with_columns(pl.col("label", "prediction").cast(pl.String))
    assert explain(text, text, features=[]).metric == "error"
    assert of(explain(BEFORE, BEFORE.with_columns(pl.col("prediction") * 1.0), features=[]), "metric")["value"].item() == 0.0
    # Features are those of the schema: neither label nor score, nor the time.
    assert set(of(explain(BEFORE, BEFORE), "feature")["column"]) == set(FEATURES)


def test_rows_without_label_are_left_out_and_said():
    holed = rows(1).with_columns(label=pl.when(pl.int_range(pl.len()) % 10 > 0).then("label"))
    found = explain(BEFORE, holed, features=["x"])
    assert of(found, "metric")["n_after"].item() == 18_000
    assert "2,000 of 20,000 rows after have no label or prediction and are left out" in found.notes
    gone = explain(BEFORE, {"label": [1.0, float("nan")] * 50, "prediction": [0.0] * 100, "x": [1.0] * 100}, features=["x"])
    assert of(gone, "metric")["n_after"].item() == 50


def test_what_cannot_be_judged_has_a_reason():
    for few in (BEFORE[:10], BEFORE[:0]):
        found = explain(BEFORE, few, features=FEATURES)
        assert found.changed is None
        row = of(found, "metric").row(0, named=True)
        assert row["value"] is None
        assert row["reason"].endswith("30 of each are needed")
        assert "cannot be judged" in str(found)
        assert "cannot be judged" in found.to_markdown()
    unlabelled = explain(BEFORE, BEFORE.with_columns(label=pl.lit(None)), features=FEATURES)
    assert unlabelled.changed is None
    assert "20,000 of 20,000 rows after have no label" in unlabelled.notes[0]
    ids = [f"id{at}" for at in range(BEFORE.height)]
    old = BEFORE.with_columns(id=pl.Series(ids), only=pl.lit(1), odd=pl.lit("a"), empty=pl.lit(None, pl.Float64), tags=pl.lit([1]))
    new = rows(1, fr=0.3).with_columns(id=pl.Series(ids), odd=pl.lit(1.5), empty=pl.lit(2.5), tags=pl.lit([1]))
    found = explain(old, new, features=["id", "only", "odd", "at", "tags", "empty", "country"])
    reasons = dict(of(found, "feature").drop_nulls("reason").select("column", "reason").rows())
    assert reasons["only"] == "it is not there after"
    assert reasons["odd"] == "it is String before and Float64 after"
    assert reasons["id"].startswith("20,000 values in 20,000 rows before")
    assert reasons["at"].endswith("is not cut into bins")
    assert reasons["tags"].endswith("is not cut into bins")
    assert set(reasons) == {"id", "only", "odd", "at", "tags"}
    assert of(found, "new_value", column="empty")["bin"].to_list() == ["empty = 2.5"]
    short = explain(BEFORE, rows(1, day=30).filter(pl.col("at") < START + timedelta(days=33)), features=["x"], time="at")
    assert short.notes[0].startswith("rows are taken as independent: of 30 windows before and 3 after")
    hours = explain(BEFORE[:200], BEFORE[:200], features=["x"], time="at", window="1w")
    assert "windows hold rows" in of(hours, "window")["reason"].item()


def test_losses_without_scatter():
    flat = {"x": list(range(200)), "loss": [0.0] * 200}
    same = explain(flat, flat, loss="loss")
    assert same.changed is False
    assert of(same, "metric")["p_value"].item() == pytest.approx(1.0)
    assert explain(flat, {**flat, "loss": [0.0] * 150 + [1.0] * 50}, loss="loss").changed
    assert explain({**flat, "loss": [5.0] * 200}, {**flat, "loss": [6.0] * 200}, loss="loss").changed
    far = explain(
        {**flat, "loss": [1e12 + at % 2 for at in range(200)]}, {**flat, "loss": [1e12 + 3 + at % 2 for at in range(200)]}, loss="loss"
    )
    assert of(far, "metric")["value"].item() == 3.0
    assert 2.8 < of(far, "metric")["lower"].item() < 3.0


def test_frames_of_other_kinds():
    pandas = pytest.importorskip("pandas")
    new = rows(1, nulls=0.3)
    expected = explain(BEFORE, new, features=FEATURES).to_frame()
    for old, later in (
        (BEFORE.lazy(), new.lazy()),
        (BEFORE.to_arrow(), new.to_arrow()),
        (pandas.DataFrame(BEFORE.to_dict(as_series=False)), pandas.DataFrame(new.to_dict(as_series=False))),
        (BEFORE.with_columns(pl.col("country").cast(pl.Categorical)), new.with_columns(pl.col("device").cast(pl.Enum(["desk", "mobile"])))),
    ):
        assert explain(old, later, features=FEATURES).to_frame().equals(expected)


def test_the_card_in_other_forms():
    odd = "a|b<c>\x01"
    found = explain(
        BEFORE.rename({"country": odd}),
        rows(1, fr=0.35, day=30).rename({"country": odd}),
        features=[odd, "x"],
        time="at",
        deploys={"v": START},
    )
    text = json.dumps(found.to_dict(), allow_nan=False)
    assert json.loads(text)["rows"][0]["part"] == "metric"
    table = [line for line in found.to_markdown().splitlines() if line.startswith("|")]
    assert len(table) == 2 + len(found.lines) - 1
    assert all(re.sub(r"\\\|", "", line).count("|") == 3 for line in table)
    assert "\x01" not in str(found)
    assert "\x01" not in found.to_markdown()
    assert repr(found).startswith("Causes(error rose from")
    assert found._repr_markdown_() == found.to_markdown()
    again = explain(
        BEFORE.rename({"country": odd}),
        rows(1, fr=0.35, day=30).rename({"country": odd}),
        features=[odd, "x"],
        time="at",
        deploys={"v": START},
    )
    assert again.to_frame().equals(found.to_frame())


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ({"metric": "auc"}, "`metric` must be one of error, correctness"),
        ({"metric": "error", "loss": "x"}, "one of `metric` and `loss` must be absent"),
        ({"loss": "y"}, "`loss` names column 'y', which `before` has not"),
        ({"loss": "country"}, "`loss` must name a column of numbers, 'country' is String"),
        ({"label": "y"}, "`label` names column 'y'"),
        ({"metric": "brier", "score": "x"}, r"`score` must be in \[0, 1\]"),
        ({"metric": "brier", "label": "x"}, "`label` must be 0 or 1 for brier"),
        ({"label": "country"}, "`label` and `prediction` must be comparable, got String and Int64"),
        ({"features": ["y"]}, "`features` names column 'y', which neither frame has"),
        ({"features": "country"}, "must be lists of names"),
        ({"segments": ["y"]}, "`segments` names column 'y'"),
        ({"importance": {"y": 1.0}}, "`importance` names 'y'"),
        ({"importance": {"x": -1.0}}, "`importance` must not be negative"),
        ({"joint": ["y"]}, "`joint` must name at most 6 features or segments, column 'y' is none"),
        ({"conjunctions": 4}, "`conjunctions` must be 1, 2 or 3, got 4"),
        ({"bins": 1}, r"`bins` must be an integer in \[2, 100\], got 1"),
        ({"min_share": 5}, r"`min_share` must be in \(0, 0.5\], got 5"),
        ({"confidence": 95}, r"`confidence` must be in \[0.5, 1\), got 95"),
        ({"after": None}, "one of `after` and `split` must be given, got neither"),
        ({"time": "at", "split": START}, "one of `after` and `split` must be given, got both"),
        ({"after": None, "split": START}, "`split` needs `time`"),
        ({"deploys": {"v": START}}, "`deploys` needs `time`"),
        ({"deploys": ["v"], "time": "at"}, "`deploys` must map versions to times"),
        ({"time": "y"}, "`time` names column 'y', which `before` has not"),
        ({"time": "x"}, "`time` must name a column of times, 'x' is Float64"),
        ({"time": "at", "window": timedelta(milliseconds=10)}, "`window` must be longer"),
        ({"time": "at", "window": "day"}, "`window` must be a timedelta or text"),
    ],
)
def test_bad_arguments_are_said(terms, message):
    after = terms.get("after", BEFORE)
    settings = {"features": FEATURES, **{name: value for name, value in terms.items() if name != "after"}}
    with pytest.raises(InvalidArgumentError, match=message):
        explain(BEFORE, after, **settings)


def test_bad_rows_are_said():
    with pytest.raises(InvalidArgumentError, match="`loss` must be finite, 1 values of 'x' are not"):
        explain({"x": [1.0, math.inf] * 1}, {"x": [1.0, 2.0]}, loss="x")
    with pytest.raises(InvalidArgumentError, match="`time` must not be null, 1 rows of `after` have none"):
        explain(BEFORE, BEFORE.with_columns(at=pl.when(pl.int_range(pl.len()) > 0).then("at")), time="at")
    with pytest.raises(bg.errors.FrameError):
        explain("nowhere.parquet", BEFORE)


def test_students_law():
    # Tables: two-sided 5 %, 1 % and 0.1 %.
    for free, tail, value in ((3, 0.05, 3.182446), (10, 0.01, 3.169273), (30, 0.001, 3.645959), (1e9, 0.05, 1.959964), (1, 0.5, 1.0)):
        assert _student(tail, free) == pytest.approx(value, rel=1e-6)
        assert _tail(value, free) == pytest.approx(tail, rel=1e-5)


def test_flights():
    late = pl.col("dep_delay_min").ge(15).cast(pl.Int8)
    frame = pl.read_parquet(FLIGHTS).with_columns(prediction=late, hour=pl.col("prediction_timestamp").dt.hour())
    frame = frame.filter(pl.col("prediction_timestamp") >= datetime(2013, 9, 1))
    terms = {"features": ["carrier", "dest", "distance_mi", "hour", "air_time_min"], "segments": ["origin"], "label": "y_true"}
    found = explain(frame, time="prediction_timestamp", split=datetime(2013, 12, 1), **terms)
    known = frame.drop_nulls(["y_true", "prediction"])
    gap = (known["y_true"] != known["prediction"]).to_numpy()
    december = (known["prediction_timestamp"] >= datetime(2013, 12, 1)).to_numpy()
    change = gap[december].mean() - gap[~december].mean()
    assert of(found, "metric")["value"].item() == pytest.approx(change, rel=1e-9)
    assert found.changed
    assert of(found, "segment", bin=None)["value"].sum() == pytest.approx(change, rel=1e-9)
    # Recomputed with a plain group by.
    shares = known.with_columns(loss=pl.Series(gap), after=pl.Series(december)).group_by("origin", "after")
    cells = shares.agg(pl.len(), pl.col("loss").mean()).with_columns(share=pl.col("len") / pl.col("len").sum().over("after"))
    wide = cells.pivot("after", index="origin", values=["share", "loss"])
    mix = ((wide["share_true"] - wide["share_false"]) * (wide["loss_true"] + wide["loss_false"]) / 2).sum()
    assert of(found, "segment", bin=None, effect="mix")["value"].item() == pytest.approx(mix, abs=1e-12)
    # The winter storms of December: the first bad days are its first ones, and all airports share them.
    assert of(found, "window")["time"].item() in {datetime(2013, 12, day, tzinfo=UTC) for day in range(1, 9)}
    assert abs(mix) < 0.05 * change
    assert of(found, "shift", effect="concept")["claimed"].item()
