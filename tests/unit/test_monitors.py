"""The monitor against a plain recomputation."""

from datetime import UTC, datetime, timedelta

import barograph as bg
import numpy as np
import polars as pl
import pytest

DAY = datetime(2026, 1, 5, tzinfo=UTC)


def rows(n, seed, shift=0.0, days=1.0, start=DAY):
    rng = np.random.default_rng(seed)
    score = rng.random(n)
    seconds = np.sort(rng.random(n)) * 86_400 * days
    return pl.DataFrame(
        {
            "id": [f"e{seed}-{i}" for i in range(n)],
            "x": rng.normal(shift, 1, n),
            "score": score,
            "y": (rng.random(n) < score).astype(float),
            "seconds": rng.lognormal(-5, 1, n),
            "at": pl.Series((seconds * 1e6).astype(np.int64)).cast(pl.Duration("us")) + pl.Series([start.replace(tzinfo=None)] * n),
        }
    )


REFERENCE = bg.Reference(rows(5000, 0).select("x", "score"))


def watched(parts, labels=(), window="1d"):
    monitor = bg.Monitor("m", reference=REFERENCE, window=window, ticks="manual", rules=[{"metric": "roc_auc", "below": 0.5}])
    for part in parts:
        monitor.observe_frame(part, time="at", id="id", score="score", latency_seconds="seconds")
    for part in labels:
        monitor.label(part, id="id", label="y")
    return monitor


def test_summary_is_what_a_plain_computation_gives():
    from sklearn.metrics import roc_auc_score

    frame = rows(4000, 1)
    labelled = frame[::2]
    monitor = watched([frame], [labelled])
    summary = monitor.summary(DAY, DAY + timedelta(days=1))
    assert (summary.events, summary.labelled) == (4000, 2000)
    want = roc_auc_score(labelled["y"], labelled["score"])
    auc = summary.metrics["roc_auc"]
    assert auc.value == pytest.approx(want, abs=1e-3)
    assert auc.lower < want < auc.upper
    assert summary.latency_p99 == pytest.approx(frame["seconds"].quantile(0.99, "higher"), rel=0.006)
    assert not summary.report.drifted


def test_batches_and_label_order_leave_no_trace():
    frame = rows(3000, 2, days=3)
    one = watched([frame], [frame])
    many = watched([frame[i : i + 97] for i in range(0, 3000, 97)], [frame[::-1]])
    early = bg.Monitor("m", reference=REFERENCE, window="1d", ticks="manual", rules=[{"metric": "roc_auc", "below": 0.5}])
    early.label(frame, id="id", label="y")
    early.observe_frame(frame[::-1], time="at", id="id", score="score", latency_seconds="seconds")
    for monitor in (one, many, early):
        monitor.tick(DAY + timedelta(days=4))
    assert one.history().height > 10
    assert one.history().equals(many.history())
    assert one.history().equals(early.history())


def test_an_alert_opens_and_resolves_with_its_reason():
    parts = [rows(3000, seed, shift, start=DAY + timedelta(days=seed)) for seed, shift in enumerate((0.0, 1.0, 1.0, 0.0))]
    monitor = watched(parts)
    monitor.tick(DAY + timedelta(days=10))
    alerts = monitor.alerts()
    assert alerts.select("column", "state").rows() == [("x", "opened"), ("x", "resolved")]
    assert alerts["reason"][0] == "PSI is above 0.25 with confidence 0.99"
    assert alerts["time"][0] == DAY + timedelta(days=2)


def test_windows_close_in_tick_alone_and_once():
    monitor = watched([rows(2000, 1)])
    assert monitor.history().is_empty()
    monitor.tick(DAY + timedelta(hours=23))
    assert monitor.history().is_empty()
    monitor.tick(DAY + timedelta(days=1))
    height = monitor.history().height
    assert height > 0
    monitor.tick(DAY + timedelta(days=2))
    assert monitor.history().height == height
    monitor.observe_frame(rows(10, 5), time="at")
    assert monitor.counts()["late"] == 10


def test_a_rule_waits_until_the_whole_interval_is_beyond():
    frame = rows(4000, 3).with_columns(y=1 - pl.col("y"))
    monitor = watched([frame], [frame])
    monitor.tick(DAY + timedelta(days=1))
    assert monitor.alerts().filter(pl.col("column") == "roc_auc")["state"].to_list() == ["opened"]
    few = watched([frame[:20]], [frame[:20]])
    few.tick(DAY + timedelta(days=1))
    assert few.alerts().is_empty()


def test_orphans_are_counted_and_nulls_skipped():
    monitor = watched([rows(100, 1)])
    monitor.label(pl.DataFrame({"id": ["nobody", None, "e1-0"], "y": [1.0, 1.0, None]}), id="id", label="y")
    assert monitor.counts()["orphan_labels"] == 1
    assert monitor.summary(DAY, DAY + timedelta(days=1)).labelled == 0


def test_a_label_that_comes_twice_counts_once():
    frame = rows(500, 1)
    once, twice = watched([frame], [frame]), watched([frame], [frame, frame])
    end = DAY + timedelta(days=1)
    assert once.summary(DAY, end).labelled == twice.summary(DAY, end).labelled == 500
    assert once.summary(DAY, end).metrics == twice.summary(DAY, end).metrics
    assert twice.counts()["superseded_labels"] == 500


@pytest.mark.parametrize("choice", ["last", "first"])
def test_corrected_labels_leave_no_trace_of_what_they_correct(choice):
    frame = rows(500, 1).with_columns(arrived=pl.lit(DAY + timedelta(hours=30)))
    wrong = frame.with_columns(y=1 - pl.col("y"), arrived=pl.lit(DAY + timedelta(hours=29 if choice == "last" else 31)))
    end = DAY + timedelta(days=1)
    want = watched([frame], [frame]).summary(DAY, end)
    assert want.metrics != watched([frame], [wrong]).summary(DAY, end).metrics
    # Whatever comes first, also before its event, and across a restart.
    for order in ([wrong, frame], [frame, wrong], [wrong[:250], frame, wrong[250:]]):
        for early in (False, True):
            monitor = bg.Monitor("m", reference=REFERENCE, ticks="manual", policy={"labels": choice, "window": "1d"})
            if not early:
                monitor.observe_frame(frame, time="at", id="id", score="score")
            for part in order:
                monitor.label(part, id="id", label="y", time="arrived")
                monitor = bg.Monitor.restore(monitor.snapshot(), ticks="manual")
            if early:
                monitor.observe_frame(frame, time="at", id="id", score="score")
            found = monitor.summary(DAY, end)
            assert (found.labelled, found.metrics) == (500, want.metrics)


def test_workers_that_saw_one_event_each_with_a_label_count_it_once():
    frame = rows(300, 1).with_columns(arrived=pl.lit(DAY + timedelta(hours=30)))
    wrong = frame.with_columns(y=1 - pl.col("y"), arrived=pl.lit(DAY + timedelta(hours=29)))
    end = DAY + timedelta(days=1)
    mine, theirs = watched([frame]), watched([])
    mine.label(wrong, id="id", label="y", time="arrived")
    theirs.label(frame, id="id", label="y", time="arrived")
    mine.merge(theirs)
    want = watched([frame], [frame]).summary(DAY, end)
    assert (mine.summary(DAY, end).labelled, mine.summary(DAY, end).metrics) == (300, want.metrics)


def test_what_is_wrong_is_named():
    monitor = watched([])
    frame = rows(10, 1)
    for arguments, message in (
        ({"time": "no"}, "time"),
        ({"time": "x"}, "timestamps"),
        ({"id": "x"}, "integers or strings"),
        ({"score": "id"}, "numbers"),
    ):
        with pytest.raises(bg.errors.InvalidArgumentError, match=message):
            monitor.observe_frame(frame, **arguments)
    with pytest.raises(bg.errors.InvalidArgumentError, match="window"):
        bg.Monitor("m", reference=REFERENCE, window="soon")
    with pytest.raises(bg.errors.InvalidArgumentError, match="rules"):
        bg.Monitor("m", reference=REFERENCE, rules=[{"metric": "nonsense", "below": 1}])
    assert monitor.summary(DAY, DAY + timedelta(days=1)) is None


HOUR = timedelta(hours=1)


def calls(start, n, *, minutes=60.0, slow=0.0, failed=0.0, seed=0):
    rng = np.random.default_rng(seed)
    return pl.DataFrame(
        {
            "x": rng.normal(size=n),
            "score": rng.random(n),
            "seconds": np.where(rng.random(n) < slow, 0.5, 0.01),
            "failed": rng.random(n) < failed,
            "at": [start + timedelta(minutes=minutes * i / n) for i in range(n)],
        }
    )


def ruled(*rules, parts, until, window="1h"):
    monitor = bg.Monitor("m", reference=REFERENCE, window=window, ticks="manual", rules=rules)
    for part in parts:
        monitor.observe_frame(part, time="at", latency_seconds="seconds", error="failed")
    monitor.tick(until)
    return monitor


def states(monitor, column):
    return monitor.alerts().filter(pl.col("column") == column).select("state", "severity").rows()


def test_an_objective_pages_when_its_budget_burns_and_resolves_when_it_stops():
    healthy = [calls(DAY + i * HOUR, 2000, slow=0.005, seed=i) for i in range(10)]
    broken = [calls(DAY + 10 * HOUR, 2000, slow=0.4, seed=99)]
    after = [calls(DAY + i * HOUR, 2000, slow=0.0, seed=i) for i in range(11, 40)]
    slo = {"slo": "latency", "threshold": 0.2, "objective": 0.99}
    monitor = ruled(slo, parts=healthy + broken + after, until=DAY + 40 * HOUR)
    # The budget of three days is over first: a ticket. Minutes later that of an hour: a page.
    assert states(monitor, "slo:latency")[:2] == [("opened", "ticket"), ("escalated", "page")]
    assert states(monitor, "slo:latency")[-1][0] == "resolved"
    paged = monitor.alerts().filter(column="slo:latency", state="escalated").row(0, named=True)
    assert DAY + 10 * HOUR < paged["time"].replace(tzinfo=UTC) <= DAY + 10 * HOUR + timedelta(minutes=30)
    assert "burns 14.4 times too fast" in paged["reason"]
    assert states(ruled(slo, parts=healthy, until=DAY + 12 * HOUR), "slo:latency") == []
    # One slow call of five is no burn that could be told from chance.
    one = calls(DAY, 5).with_columns(seconds=pl.Series([0.5, 0.01, 0.01, 0.01, 0.01]))
    assert states(ruled(slo, parts=[one], until=DAY + 2 * HOUR), "slo:latency") == []


def test_objectives_do_not_depend_on_batches_or_restores():
    parts = [calls(DAY + i * HOUR, 500, slow=0.02 if i < 5 else 0.5, failed=0.02 * i, seed=i) for i in range(8)]
    rules = [
        {"slo": "latency", "threshold": 0.2, "objective": 0.99},
        {"slo": "errors", "objective": 0.95},
        {"metric": "error_rate", "above": 0.1},
    ]
    whole = ruled(*rules, parts=[pl.concat(parts)], until=DAY + 9 * HOUR)
    half = ruled(*rules, parts=parts[:3], until=DAY + 3 * HOUR)
    half = bg.Monitor.restore(half.snapshot())
    one = bg.Monitor("m", reference=REFERENCE, window="1h", ticks="manual", rules=rules)
    for part in parts[3:]:
        half.observe_frame(part, time="at", latency_seconds="seconds", error="failed")
    for row in pl.concat(parts).iter_rows(named=True):
        at, seconds, failed = row.pop("at"), row.pop("seconds"), row.pop("failed")
        one.observe(row, time=at, latency_seconds=seconds, error=failed, score=row["score"])
    for monitor in (half, one):
        monitor.tick(DAY + 9 * HOUR)
        assert monitor.alerts().equals(whole.alerts())
        assert monitor.history().equals(whole.history())
    assert one.snapshot() == whole.snapshot()
    assert ("escalated", "page") in states(whole, "slo:latency")
    assert ("opened", "ticket") in states(whole, "slo:errors")


def test_a_rate_of_errors_is_judged_by_its_interval():
    few = ruled({"metric": "error_rate", "above": 0.05}, parts=[calls(DAY, 30, failed=0.1, seed=3)], until=DAY + HOUR)
    assert states(few, "error_rate") == []
    many = ruled({"metric": "error_rate", "above": 0.05, "severity": "ticket"}, parts=[calls(DAY, 3000, failed=0.1)], until=DAY + HOUR)
    assert states(many, "error_rate") == [("opened", "ticket")]
    row = many.history().filter(method="error_rate").row(0, named=True)
    assert 0.05 < row["lower"] < row["value"] < row["upper"]


def test_silence_is_an_alert_where_a_rule_asks_for_events():
    parts = [calls(DAY, 200), calls(DAY + 4 * HOUR, 200)]
    monitor = ruled({"metric": "events", "below": 100}, parts=parts, until=DAY + 7 * HOUR)
    found = monitor.alerts().filter(column="events").select("state", "window_start").rows()
    assert [(state, at.replace(tzinfo=UTC)) for state, at in found] == [
        ("opened", DAY + HOUR),
        ("resolved", DAY + 4 * HOUR),
        ("opened", DAY + 5 * HOUR),
    ]
    assert ruled(parts=parts, until=DAY + 7 * HOUR).history().filter(method="events").height == 2


def test_k_of_m_and_cooldown():
    rates = [0.0, 0.5, 0.0, 0.5, 0.5, 0.0, 0.0, 0.0, 0.5, 0.5]
    parts = [calls(DAY + i * HOUR, 500, failed=rate, seed=i) for i, rate in enumerate(rates)]
    rule = {"metric": "error_rate", "above": 0.1, "k": 2, "of": 2}
    opened = ruled(rule, parts=parts, until=DAY + 10 * HOUR).alerts().select("state", "window_start").rows()
    assert [(state, at.hour) for state, at in opened] == [("opened", 4), ("resolved", 5), ("opened", 9)]
    cooled = ruled(rule | {"cooldown": "6h"}, parts=parts, until=DAY + 10 * HOUR)
    assert [state for state, _ in cooled.alerts().select("state", "window_start").rows()] == ["opened", "resolved"]


def test_a_deploy_mutes_what_would_open_and_stands_in_the_history():
    parts = [calls(DAY + i * HOUR, 500, failed=0.5, seed=i) for i in range(3)]
    monitor = bg.Monitor("m", reference=REFERENCE, window="1h", ticks="manual", rules=[{"metric": "error_rate", "above": 0.1}])
    monitor.deploy("v2", time=DAY + timedelta(minutes=10), mute="90m")
    for part in parts:
        monitor.observe_frame(part, time="at", latency_seconds="seconds", error="failed")
    monitor.tick(DAY + 3 * HOUR)
    assert monitor.alerts().filter(column="error_rate")["window_start"].dt.hour().to_list() == [2]
    assert monitor.counts()["muted"] == 2
    assert "v2" in monitor.history().filter(method="deploy")["reason"][0]
    assert bg.Monitor.restore(monitor.snapshot()).counts()["muted"] == 2


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"metric": "nonsense", "below": 1}, "one of roc_auc"),
        ({"metric": "roc_auc"}, "one of `below` and `above`"),
        ({"metric": "roc_auc", "below": 0.1, "above": 0.9}, "one of `below` and `above`"),
        ({"metric": "roc_auc", "below": float("nan")}, "`below` must be a finite"),
        ({"metrik": "roc_auc", "below": 1}, 'unknown key "metrik".*did you mean "metric"'),
        ({"slo": "latency", "objective": 0.99}, "needs a `threshold`"),
        ({"slo": "latency", "objective": 99, "threshold": 1}, r"in \(0, 1\), got"),
        ({"slo": "uptime", "objective": 0.9}, "latency or errors"),
        ({"below": 3}, "one of `metric` and `slo`"),
        ({"metric": "events", "below": 1, "k": 3, "of": 2}, "`k` must be in"),
        ({"metric": "events", "below": 1, "severity": "shout"}, "severity|variant"),
        ("roc_auc", "must hold mappings"),
    ],
)
def test_rules_that_cannot_be_are_refused(rule, message):
    with pytest.raises(bg.errors.InvalidArgumentError, match=f"(?s){message}"):
        bg.Monitor("m", reference=REFERENCE, rules=[rule])


def test_weights_are_scikit_learns_sample_weights():
    from sklearn import metrics

    rng = np.random.default_rng(13)
    frame = rows(1000, 5).with_columns(w=pl.Series(rng.integers(1, 5, 1000).astype(float)))
    many, one = watched([]), watched([])
    many.observe_frame(frame, time="at", id="id", score="score", weight="w")
    for row in frame.iter_rows(named=True):
        one.observe({"x": row["x"]}, score=row["score"], id=row["id"], time=row["at"], weight=row["w"])
    many = bg.Monitor.restore(many.snapshot())
    for monitor in (many, one):
        monitor.label(frame, id="id", label="y")
        found = monitor.summary(DAY, DAY + timedelta(days=1)).metrics
        assert found["brier"].value == pytest.approx(
            metrics.brier_score_loss(frame["y"], frame["score"], sample_weight=frame["w"]), abs=1e-9
        )
        assert found["roc_auc"].value == pytest.approx(
            metrics.roc_auc_score(frame["y"], frame["score"], sample_weight=frame["w"]), abs=1e-3
        )
    with pytest.raises(bg.errors.InvalidArgumentError, match="`weight` must hold"):
        many.observe_frame(frame.with_columns(w=-1.0), weight="w")


def test_a_new_version_is_a_deploy():
    frame = rows(100, 1).with_columns(version=pl.when(pl.int_range(100) < 60).then(pl.lit("v1")).otherwise(pl.lit("v2")))
    many, one = watched([]), watched([])
    many.observe_frame(frame, time="at", version="version")
    for row in frame.iter_rows(named=True):
        one.observe({"x": row["x"], "score": row["score"]}, time=row["at"], version=row["version"])
    one = bg.Monitor.restore(one.snapshot())
    for monitor in (many, one):
        monitor.observe({"x": 1.0}, time=DAY, version="v2")
        found = monitor.history().filter(method="deploy")
        assert found["reason"].to_list() == ['version "v1" deployed', 'version "v2" deployed']
    with pytest.raises(bg.errors.InvalidArgumentError, match="`version` names"):
        many.observe_frame(frame, version="nothing")


def test_two_rules_on_one_metric_are_refused():
    rules = [{"metric": "events", "below": 1}, {"metric": "events", "above": 9}]
    with pytest.raises(bg.errors.InvalidArgumentError, match="two rules on events"):
        bg.Monitor("m", reference=REFERENCE, rules=rules)


def weeks_of(days, per_day=240):
    rng = np.random.default_rng(8)
    n = days * per_day
    at = [DAY + timedelta(days=i / per_day) for i in range(n)]
    return pl.DataFrame({"id": range(n), "x": rng.normal(size=n), "score": rng.random(n), "at": at})


def test_old_tiles_become_days_and_weeks_and_lose_nothing():
    frame = weeks_of(150)
    monitor = bg.Monitor("m", reference=REFERENCE, window="1h", ticks="manual", lateness="200d")
    for day in range(150):
        monitor.observe_frame(frame[day * 240 : (day + 1) * 240], time="at", id="id", score="score")
        monitor.tick(DAY + timedelta(days=day + 1))
    everything = DAY, DAY + timedelta(days=200)
    assert monitor.summary(*everything).events == 150 * 240
    assert monitor.summary(DAY + timedelta(days=148), DAY + timedelta(days=149)).events == 240
    assert monitor.summary(DAY + timedelta(days=130), DAY + timedelta(days=131)).events == 240
    # A week ago hours are gone: the day answers for its start.
    assert monitor.summary(DAY + timedelta(days=130, hours=3), DAY + timedelta(days=130, hours=4)) is None
    assert monitor.summary(DAY + timedelta(days=7), DAY + timedelta(days=14)).events == 7 * 240
    # Labels and events that come after it find the day and the week they belong to.
    again = bg.Monitor.restore(monitor.snapshot())
    labels = frame.select("id", "at", y=(pl.col("score") > 0.5).cast(pl.Int8))
    for one in (monitor, again):
        one.label(labels, id="id", label="y", time="at")
        one.observe_frame(frame[:100].drop("id"), time="at", score="score")
        one.tick(DAY + timedelta(days=151))
    assert monitor.snapshot() == again.snapshot()
    summary = monitor.summary(*everything)
    assert (summary.events, summary.labelled, summary.metrics["roc_auc"].value) == (150 * 240 + 100, 150 * 240, 1.0)
    assert monitor.summary(DAY, DAY + timedelta(days=7)).events == 7 * 240 + 100
    assert monitor.counts()["late"] == 100
    assert monitor.counts()["forgotten_tiles"] == 0


def test_a_monitor_keeps_to_its_memory_and_counts_what_it_gave_up():
    rng = np.random.default_rng(1)
    wide = pl.DataFrame({f"f{i}": rng.normal(size=4000) for i in range(20)})
    monitor = bg.Monitor("m", reference=bg.Reference(wide), window="1h", ticks="manual", memory=2 << 20)
    for part in range(5):
        hours = rng.integers(0, 50_000, 800)
        stamped = wide[part * 800 : (part + 1) * 800].with_columns(at=pl.Series([DAY + timedelta(hours=int(h)) for h in hours]))
        monitor.observe_frame(stamped, time="at")
    assert monitor.counts()["forgotten_tiles"] > 1000
    assert len(monitor.snapshot()) < 3 << 20
    for bad in (1000, "256MB", 1.5):
        with pytest.raises(bg.errors.InvalidArgumentError, match="memory"):
            bg.Monitor("m", reference=REFERENCE, memory=bad)


def test_the_metrics_of_several_classes_are_scikit_learns():
    from sklearn import metrics

    rng = np.random.default_rng(11)
    names, n = ["cat", "dog", "fish"], 3000
    truth = rng.integers(0, 3, n)
    chances = rng.dirichlet([1, 1, 1], n) * 0.6
    chances[np.arange(n), truth] += 0.4 * rng.random(n)
    chances /= chances.sum(axis=1, keepdims=True)
    guess = chances.argmax(axis=1)
    frame = pl.DataFrame(
        {
            "x": rng.normal(size=n),
            "guess": [names[at] for at in guess],
            "id": np.arange(n),
            "at": [DAY.replace(tzinfo=None)] * n,
            "y": [names[at] for at in truth],
        }
    ).with_columns(pl.Series(f"p_{name}", chances[:, at]) for at, name in enumerate(names))
    reference = bg.Reference(frame.select("x", prediction="guess"))
    made = {"reference": reference, "window": "1d", "ticks": "manual", "task": "multiclass", "classes": names}
    rules = [{"metric": "accuracy", "below": 0.99}]
    many, one = bg.Monitor("pets", **made, rules=rules), bg.Monitor("pets", **made, rules=rules)
    many.observe_frame(frame, time="at", id="id", prediction="guess", score=[f"p_{name}" for name in names])
    one.label(frame[:2000], id="id", label="y")
    for row, chance in zip(frame.iter_rows(named=True), chances, strict=True):
        one.observe({"x": row["x"]}, time=row["at"], id=row["id"], score=chance)
    one = bg.Monitor.restore(one.snapshot())
    one.label(frame[2000:], id="id", label="y")
    many.label(frame, id="id", label="y")
    found = many.summary(DAY, DAY + timedelta(days=1)).metrics
    assert found["accuracy"].value == pytest.approx(metrics.accuracy_score(truth, guess), abs=1e-12)
    assert found["accuracy"].lower < found["accuracy"].value < found["accuracy"].upper
    assert found["balanced_accuracy"].value == pytest.approx(metrics.balanced_accuracy_score(truth, guess), abs=1e-12)
    assert found["f1_macro"].value == pytest.approx(metrics.f1_score(truth, guess, average="macro"), abs=1e-12)
    assert found["roc_auc_ovr"].value == pytest.approx(metrics.roc_auc_score(truth, chances, multi_class="ovr"), abs=1e-3)
    for monitor in (many, one):
        monitor.tick(DAY + timedelta(days=1))
        assert states(monitor, "accuracy") == [("opened", "page")]
    assert one.history().equals(many.history())
    with pytest.raises(bg.errors.InvalidArgumentError, match=r'(?s)holds "horse".*cat, dog, fish'):
        many.label({"id": [1], "y": ["horse"]}, id="id", label="y")
    with pytest.raises(bg.errors.InvalidArgumentError, match="3 probabilities"):
        many.observe({"x": 1.0}, score=[0.5, 0.5])
    with pytest.raises(bg.errors.InvalidArgumentError, match="`classes` must name 2 to 100"):
        bg.Monitor("m", reference=reference, task="multiclass")
    numbered = bg.Monitor("m", **{**made, "classes": [0, 1, 2]})
    numbered.observe({"x": 1.0}, prediction=np.int64(2), id=1, time=DAY)
    numbered.label({"id": [1], "y": [2]}, id="id", label="y")
    assert numbered.summary(DAY, DAY + timedelta(days=1)).metrics["accuracy"].value == 1.0


def test_the_metrics_of_both_tasks_are_scikit_learns():
    from sklearn import metrics

    frame = rows(3000, 4)
    found = watched([frame], [frame]).summary(DAY, DAY + timedelta(days=1)).metrics
    y, p = frame["y"], frame["score"]
    assert found["log_loss"].value == pytest.approx(metrics.log_loss(y, p), abs=1e-9)
    assert found["brier"].value == pytest.approx(metrics.brier_score_loss(y, p), abs=1e-9)
    assert found["average_precision"].value == pytest.approx(metrics.average_precision_score(y, p), abs=1e-3)

    rng = np.random.default_rng(4)
    rents = frame.with_columns(y=rng.normal(100, 20, 3000)).with_columns(guess=pl.col("y") + rng.normal(1, 5, 3000))
    rules = [{"metric": "mae", "above": 3.0}]
    many = bg.Monitor("rents", reference=REFERENCE, window="1d", ticks="manual", task="regression", rules=rules)
    one = bg.Monitor("rents", reference=REFERENCE, window="1d", ticks="manual", task="regression", rules=rules)
    many.observe_frame(rents, time="at", id="id", prediction="guess")
    one.label(rents[:2000], id="id", label="y")
    for row in rents.select("x", "score", "id", "at", "guess").iter_rows(named=True):
        one.observe({"x": row["x"], "score": row["score"]}, time=row["at"], id=row["id"], prediction=row["guess"])
    many.label(rents, id="id", label="y")
    one = bg.Monitor.restore(one.snapshot())
    one.label(rents[2000:], id="id", label="y")
    for monitor in (many, one):
        monitor.tick(DAY + timedelta(days=1))
        assert states(monitor, "mae") == [("opened", "page")]
        found = monitor.summary(DAY, DAY + timedelta(days=1)).metrics
        y, p = rents["y"], rents["guess"]
        assert found["mae"].value == pytest.approx(metrics.mean_absolute_error(y, p), rel=1e-12)
        assert found["rmse"].value == pytest.approx(metrics.root_mean_squared_error(y, p), rel=1e-12)
        assert found["r2"].value == pytest.approx(metrics.r2_score(y, p), rel=1e-9)
        assert found["bias"].lower < (p - y).mean() < found["bias"].upper
    assert one.history().equals(many.history())
    with pytest.raises(bg.errors.InvalidArgumentError, match="one of mae, rmse"):
        bg.Monitor("m", reference=REFERENCE, task="regression", rules=[{"metric": "roc_auc", "below": 0.5}])
    with pytest.raises(bg.errors.InvalidArgumentError, match="`task`: unknown variant"):
        bg.Monitor("m", reference=REFERENCE, task="ranking")
