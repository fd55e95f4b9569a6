"""A budget is kept, and what was left out for it shows: counts without bias, intervals that cover, false alarms below their rate.

Every statistical test states its own chance of failing a right program.
"""

import math
from datetime import UTC, datetime, timedelta

import barograph as bg
import numpy as np
import polars as pl
import pytest
from barograph.scaling.budget import Governor, widening

START = datetime(2026, 1, 1, tzinfo=UTC)


def replayed(governor, steps, cost, seed=0):
    """CPU shares and inclusion probabilities of so many seconds under a cost model `cost(step, inclusion, rng)`."""
    rng = np.random.default_rng(seed)
    seen = []
    for step in range(steps):
        cpu = cost(step, governor.inclusion, rng)
        governor.measure(1.0, cpu=cpu)
        seen.append((cpu, governor.inclusion))
    return np.array(seen)


@pytest.mark.parametrize("fixed", [0.0, 0.004, 0.008])
@pytest.mark.parametrize("load", [0.015, 0.1, 2.0])
def test_the_limit_is_kept_within_a_fifth_whatever_the_cost_is_made_of(fixed, load):
    def cost(step, inclusion, rng):
        return fixed + load * inclusion * rng.lognormal(0, 0.2) + (0.03 if step % 60 == 59 else 0.0)

    seen = replayed(Governor({"cpu": "1%"}), 600, cost)
    assert seen[120:, 0].mean() == pytest.approx(0.01, rel=0.2)
    # No stretch of five minutes strays either.
    assert all(seen[at : at + 300, 0].mean() == pytest.approx(0.01, rel=0.2) for at in range(120, 300, 60))


def test_it_comes_to_rest_and_does_not_oscillate():
    seen = replayed(Governor({"cpu": "1%"}), 400, lambda step, inclusion, rng: 0.002 + 0.1 * inclusion)
    depth = -np.log2(seen[150:, 1])
    assert depth.max() - depth.min() < 0.15
    # With noise it moves, without swinging: what one step takes the next ones do not give back all together.
    noisy = replayed(Governor({"cpu": "1%"}), 1000, lambda step, inclusion, rng: 0.1 * inclusion * rng.lognormal(0, 0.2))
    depth = -np.log2(noisy[200:, 1])
    assert depth.std() < 0.35


def test_it_recovers_when_the_load_is_gone_and_steps_down_when_it_is_back():
    governor = Governor({"cpu": "1%"})
    replayed(governor, 100, lambda step, inclusion, rng: 0.2 * inclusion)
    assert governor.inclusion < 0.1
    replayed(governor, 60, lambda step, inclusion, rng: 0.005 * inclusion)
    assert governor.inclusion == 1.0
    seen = replayed(governor, 100, lambda step, inclusion, rng: 0.2 * inclusion)
    assert seen[50:, 0].mean() == pytest.approx(0.01, rel=0.2)


def test_a_load_that_fits_is_never_sampled():
    seen = replayed(Governor({"cpu": "1%"}), 1000, lambda step, inclusion, rng: 0.008 * inclusion * rng.lognormal(0, 0.05))
    assert (seen[:, 1] == 1.0).all()


def test_bytes_cost_detail_one_level_at_a_time_and_detail_comes_back():
    governor = Governor({"memory": 1000, "disk": 1000, "wire": 100})
    levels = []
    for used in [{"memory": 1100}] * 15 + [{"disk": 1100}] * 15 + [{"wire": 200.0}] * 40 + [{"memory": 100}] * 400:
        governor.measure(1.0, **used)
        levels.append(governor.level)
    assert max(levels) == 4
    assert levels[-1] == 0
    assert np.abs(np.diff(levels)).max() == 1
    # Between four fifths of the limit and all of it nothing moves.
    governor.measure(1.0, memory=1100)
    for _ in range(200):
        governor.measure(1.0, memory=900)
    assert governor.level == 1
    assert (governor.counts()["detail_given_up"], governor.counts()["detail_taken_back"]) == (5, 4)


def test_a_clock_that_jumps_is_counted_and_changes_nothing():
    governor = Governor({"cpu": "1%"})
    replayed(governor, 50, lambda step, inclusion, rng: 0.1 * inclusion)
    before = governor.inclusion
    for seconds, cpu in [(-3600.0, 0.1), (0.0, 0.1), (math.nan, 0.1), (1e7, 0.1), (1.0, -1.0), (1.0, math.nan), (1.0, math.inf)]:
        assert not governor.measure(seconds, cpu=cpu)
    assert (governor.inclusion, governor.counts()["discarded"]) == (before, 7)


# ---- what sampling does to results ----

N = 20_000
RULES = [
    {"metric": "roc_auc", "below": 0.1},
    {"metric": "error_rate", "above": 0.9},
    {"metric": "latency_p99", "above": 100.0},
]


def population(rng, rows=N):
    """Events of one hour, with labels; x has nulls."""
    x = rng.normal(size=rows)
    score = 1 / (1 + np.exp(-x))
    return pl.DataFrame(
        {
            "x": pl.Series(x).scatter(np.flatnonzero(rng.random(rows) < 0.1), None),
            "id": np.arange(rows),
            "at": pl.Series([START], dtype=pl.Datetime("us", "UTC")).new_from_index(0, rows),
            "score": score,
            "label": (rng.random(rows) < score).astype(float),
            "latency": rng.lognormal(-3, 0.6, rows),
            "failed": rng.random(rows) < 0.05,
            "target": x + rng.normal(size=rows),
        }
    )


def sampled(reference, frame, depth, seed, task="binary", parts=20, rules=RULES):
    """A monitor that saw the frame sampled at a depth, in so many parts, with its hour closed."""
    monitor = bg.Monitor(
        "m", reference=reference, window="1h", ticks="manual", task=task, rules=rules, confidence=0.95, budget={"cpu": 1.0}
    )
    monitor._native.pin(depth, seed)
    score = "score" if task == "binary" else None
    for part in frame.iter_slices(frame.height // parts):
        monitor.observe_frame(
            part, time="at", id="id", score=score, prediction=None if score else "x_hat", latency_seconds="latency", error="failed"
        )
    monitor.label(frame.select("id", "label" if task == "binary" else "target"), id="id", label="label" if task == "binary" else "target")
    monitor.tick(START + timedelta(hours=1))
    return monitor


@pytest.fixture(scope="module")
def reference():
    return bg.Reference(population(np.random.default_rng(1), 50_000).select("x"))


def of(monitor, method, column="(model)"):
    return monitor.history().filter(method=method, column=column).row(0, named=True)


def exact_auc(frame):
    ranks = frame["score"].rank().to_numpy()
    positive = frame["label"].to_numpy() == 1
    n, m = positive.sum(), (~positive).sum()
    return (ranks[positive].sum() - n * (n + 1) / 2) / (n * m)


def test_counts_and_metrics_are_without_bias_and_intervals_cover(reference):
    frame = population(np.random.default_rng(2))
    latencies = np.sort(frame["latency"].to_numpy())
    truth = {
        "events": N,
        "error_rate": frame["failed"].mean(),
        "latency_p50": latencies[math.ceil(0.5 * N) - 1],
        "latency_p99": latencies[math.ceil(0.99 * N) - 1],
        "roc_auc": exact_auc(frame),
        "brier": ((frame["score"] - frame["label"]) ** 2).mean(),
        "log_loss": -np.log(np.where(frame["label"] == 1, frame["score"], 1 - frame["score"])).mean(),
    }
    runs = 150
    values = {method: [] for method in truth}
    covered = dict.fromkeys(truth, 0)
    nulls = 0
    for seed in range(runs):
        monitor = sampled(reference, frame, 2.6, seed)
        for method, true in truth.items():
            row = of(monitor, method)
            values[method].append(row["value"])
            # Of few calls no order statistic lies above the 99 % quantile for sure.
            covered[method] += row["lower"] <= true <= (math.inf if row["upper"] is None else row["upper"])
            # Each row says what it rests on.
            assert 0.12 < float(row["reason"].split("inclusion probability ")[1].split(";")[0]) < 0.26, row
        row = of(monitor, "null_share", "x")
        nulls += row["lower"] <= frame["x"].null_count() / N - reference.profile["x"].null_count / 50_000 <= row["upper"]
    for method in ("events", "error_rate", "brier", "log_loss", "roc_auc"):
        mean, error = np.mean(values[method]), np.std(values[method]) / math.sqrt(runs)
        # Four standard errors: 6e-5 each. Halves of a per mille are for cells, of the area under the curve.
        assert abs(mean - truth[method]) < 4 * error + 5e-4 * truth[method], (method, mean, truth[method], error)
    for method, count in {**covered, "null_share": nulls}.items():
        # 90 % two-sided at least; a right interval covers fewer than 121 of 150 with a chance below 2e-4.
        assert count >= 121, (method, count)
    # And they are no wider than they have to be: what was left out makes them about as wide as the plan says.
    full = sampled(reference, frame, 0.0, 0)
    wide, narrow = (of(one, "brier") for one in (sampled(reference, frame, 2.6, 1), full))
    assert (wide["upper"] - wide["lower"]) / (narrow["upper"] - narrow["lower"]) == pytest.approx(widening(2**-2.6), rel=0.25)
    assert (of(full, "latency_p99")["lower"], of(full, "events")["lower"]) == (None, None)


def test_metrics_of_regressions_and_of_classes_cover_too(reference):
    frame = population(np.random.default_rng(3)).with_columns(x_hat=pl.col("x").fill_null(0.0))
    true = (frame["x_hat"] - frame["target"]).abs().mean()
    hits, runs = 0, 60
    for seed in range(runs):
        row = of(sampled(reference, frame, 3.4, seed, task="regression", rules=[{"metric": "mae", "above": 100.0}]), "mae")
        hits += row["lower"] <= true <= row["upper"]
    # 95 % each: below 49 of 60 once in 1e5.
    assert hits >= 49
    classes = frame.with_columns(
        guess=pl.when(pl.col("score") > 0.5).then(pl.lit("yes")).otherwise(pl.lit("no")),
        truth=pl.when(pl.col("label") == 1).then(pl.lit("yes")).otherwise(pl.lit("no")),
    )
    accuracy = (classes["guess"] == classes["truth"]).mean()
    hits = 0
    for seed in range(runs):
        monitor = bg.Monitor(
            "m",
            reference=reference,
            ticks="manual",
            window="1h",
            task="multiclass",
            classes=["no", "yes"],
            confidence=0.95,
            budget={"cpu": 1.0},
        )
        monitor._native.pin(2.6, seed)
        monitor.observe_frame(classes, time="at", id="id", prediction="guess")
        monitor.label(classes.select("id", "truth"), id="id", label="truth")
        monitor.tick(START + timedelta(hours=1))
        row = of(monitor, "accuracy")
        hits += row["lower"] <= accuracy <= row["upper"]
    assert hits >= 49


def test_intervals_that_take_weights_for_rows_would_not_cover(reference):
    # The test above has to be able to fail: limits of the whole frame, moved to the estimate, miss as often as not.
    frame = population(np.random.default_rng(4))
    true = ((frame["score"] - frame["label"]) ** 2).mean()
    row = of(sampled(reference, frame, 0.0, 0), "brier")
    half = (row["upper"] - row["lower"]) / 2
    misses = sum(abs(of(sampled(reference, frame, 3.0, seed), "brier")["value"] - true) > half for seed in range(40))
    assert misses >= 10


def test_single_events_are_sampled_without_bias_too(reference):
    rng = np.random.default_rng(5)
    values = rng.normal(size=4000)
    totals = []
    for seed in range(40):
        monitor = bg.Monitor("m", reference=reference, window="1h", ticks="manual", budget={"cpu": 1.0})
        monitor._native.pin(1.7, seed)
        for value in values:
            monitor.observe({"x": value}, time=START, latency_seconds=0.1)
        summary = monitor.summary(START, START + timedelta(hours=1))
        counts = monitor.counts()
        assert counts["events"] == summary.events
        assert counts["left_out"] + (counts["events"] - counts["sampled_out"]) == 4000
        totals.append(summary.events)
    # Weights are 2 and 4: the variance of a total is at most 4000 times 3; four standard errors.
    assert abs(np.mean(totals) - 4000) < 4 * math.sqrt(4000 * 3 / 40)


def test_false_alarms_stay_below_their_rate_under_sampling():
    # Sixty days of hours on a budget of one false ticket a day, depth changing from hour to hour: sixty tickets are allowed; with the
    # tolerance none is expected.
    rng = np.random.default_rng(6)
    columns = [f"x{at}" for at in range(5)]
    reference = bg.Reference({name: rng.normal(size=20_000) for name in columns})
    monitor = bg.Monitor("m", reference=reference, window="1h", budget={"ticket": "1d", "cpu": 1.0}, ticks="manual")
    for hour in range(24 * 60):
        monitor._native.pin(float(rng.uniform(0, 4)), hour)
        at = START + timedelta(hours=hour)
        times = [at + timedelta(minutes=minute) for minute in range(60) for _ in range(20)]
        monitor.observe_frame(pl.DataFrame({name: rng.normal(size=1200) for name in columns} | {"at": times}), time="at")
        monitor.tick(at + timedelta(hours=1))
    assert monitor.counts()["sampled_out"] > 0
    assert monitor.alerts().height <= 3, monitor.alerts()


def test_a_shift_is_still_found_under_sampling():
    rng = np.random.default_rng(7)
    reference = bg.Reference({"x": rng.normal(size=50_000)})
    monitor = bg.Monitor("m", reference=reference, window="1h", budget={"cpu": 1.0}, ticks="manual")
    monitor._native.pin(3.5, 0)
    for hour in range(4):
        at = START + timedelta(hours=hour)
        monitor.observe_frame(pl.DataFrame({"x": rng.normal(size=20_000) + 1.0, "at": [at] * 20_000}), time="at")
        monitor.tick(at + timedelta(hours=1))
    alerts = monitor.alerts()
    assert alerts["column"].to_list()[:1] == ["x"]
    assert "inclusion probability" in alerts["reason"][0] or alerts["method"][0] == "psi"


def test_objectives_take_sampled_calls_for_what_they_are_worth():
    # Of 2,000 calls a tenth failed, the objective allows 1 %: that the budget burns six times too fast is sure if all were kept, and a
    # page. Of one in 32 it is not.
    rng = np.random.default_rng(8)
    reference = bg.Reference({"x": rng.normal(size=1000)})
    severities = {}
    for depth in (0.0, 5.0):
        monitor = bg.Monitor(
            "m", reference=reference, window="1h", ticks="manual", rules=[{"slo": "errors", "objective": 0.99}], budget={"cpu": 1.0}
        )
        monitor._native.pin(depth, 3)
        times = [START + timedelta(minutes=55, milliseconds=100 * at) for at in range(2000)]
        frame = pl.DataFrame({"x": rng.normal(size=2000), "at": times, "failed": rng.random(2000) < 0.1})
        monitor.observe_frame(frame, time="at", error="failed")
        monitor.tick(START + timedelta(hours=1))
        # Some of those kept failed: it is not that nothing was seen.
        assert monitor.summary(START, START + timedelta(hours=1)).errors > 0
        severities[depth] = set(monitor.alerts().filter(column="slo:errors")["severity"])
    assert "page" in severities[0.0]
    assert "page" not in severities[5.0]
