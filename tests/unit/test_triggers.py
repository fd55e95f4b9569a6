"""Triggers: when a refit is asked for, once per cause, on which rows; and that the request arrives."""

import hashlib
import hmac
import json
import threading
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import barograph as bg
import numpy as np
import polars as pl
import pytest
from barograph.errors import InvalidArgumentError, SnapshotError
from barograph.lineages import Lineage
from barograph.rollbacks import Outcome
from barograph.triggers import Condition, RetrainRequest, Trigger
from barograph.webhooks import Webhook
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

START = datetime(2026, 1, 5, tzinfo=UTC)
LOW = Condition.estimate("roc_auc", below=0.7)


def day(days):
    return START + timedelta(days=days)


def rows_of(days, *, good, n=400, seed=0, version="v1"):
    """Predictions of whole days, whose scores tell the label or do not; each label comes a day later."""
    rng = np.random.default_rng([seed, *days])
    parts = []
    for one in days:
        score = rng.random(n)
        chance = score if good else np.full(n, 0.5)
        at = [day(one) + timedelta(minutes=3 * i) for i in range(n)]
        part = {"id": np.arange(n) + 1000 * one, "at": at, "s": score, "p": (score > 0.5).astype(int), "y": rng.random(n) < chance}
        parts.append(pl.DataFrame(part).with_columns(pl.col("y").cast(int), v=pl.lit(version), came=pl.col("at") + timedelta(days=1)))
    return pl.concat(parts)


def loop_of(*frames, labels=True, **terms):
    loop = bg.FeedbackLoop(**terms)
    for frame in frames:
        loop.predictions(frame, id="id", time="at", prediction="p", score="s", version="v")
        if labels:
            loop.labels(frame, id="id", label="y", time="came")
    return loop


GOOD, BAD = rows_of([0, 1, 2], good=True), rows_of([3, 4, 5], good=False)
DECAYED = loop_of(GOOD, BAD)


def holds(condition, now, **seen):
    frame = Trigger("m", condition).judge(now, **seen)
    return frame["holds"][-1], frame["reason"][-1]


# Metrics


def test_a_metric_fires_once_all_of_its_interval_is_beyond():
    below = Condition.metric("roc_auc", below=0.7)
    assert holds(below, day(4), loop=DECAYED)[0] is False
    held, reason = holds(below, day(5), loop=DECAYED)
    assert held
    assert reason.startswith("roc_auc below 0.7: 0.")
    assert "in the window of 2026-01-08T00:00:00+00:00, 400 labels" in reason
    rows = DECAYED.metrics(as_of=day(5), confidence=0.99).filter(metric="roc_auc")
    row = rows.filter(pl.col("window_start") == day(3)).row(0, named=True)
    # The value is below this limit, the interval is not.
    between = (row["value"] + row["upper"]) / 2
    assert holds(Condition.metric("roc_auc", below=between), day(5), loop=DECAYED)[0] is False
    assert holds(Condition.metric("roc_auc", below=row["upper"] + 1e-9), day(5), loop=DECAYED)[0] is True
    assert holds(Condition.metric("log_loss", above=0.5), day(5), loop=DECAYED)[0] is True
    assert holds(Condition.metric("log_loss", above=0.9), day(5), loop=DECAYED)[0] is False


def test_only_windows_count_whose_labels_had_their_time():
    below = Condition.metric("roc_auc", below=0.7)
    # Half of the labels of day 3 have come at half past day 4: they are no sample, whatever they say.
    assert "day" not in holds(below, day(4.5), loop=DECAYED)[1]
    assert holds(below, day(4.5), loop=DECAYED)[0] is False
    assert holds(Condition.metric("roc_auc", below=0.7, coverage=0.4), day(4.5), loop=DECAYED)[0] is True
    waiting = loop_of(GOOD, BAD, horizon="2d")
    assert holds(below, day(5), loop=waiting)[0] is False
    assert holds(below, day(6), loop=waiting)[0] is True


def test_a_window_that_is_still_open_is_not_judged():
    at_once = loop_of(GOOD.with_columns(came="at"), BAD.with_columns(came="at"))
    assert holds(Condition.metric("roc_auc", below=0.7), day(3.99), loop=at_once)[0] is False
    assert holds(Condition.metric("roc_auc", below=0.7), day(4), loop=at_once)[0] is True


def test_k_of_windows_least_rows_and_versions():
    assert holds(Condition.metric("roc_auc", below=0.7, k=2), day(5), loop=DECAYED)[0] is False
    assert holds(Condition.metric("roc_auc", below=0.7, k=2), day(6), loop=DECAYED)[0] is True
    assert holds(Condition.metric("roc_auc", below=0.7, k=2, of=4), day(6), loop=DECAYED)[0] is True
    assert holds(Condition.metric("roc_auc", below=0.7, k=3, of=4), day(6), loop=DECAYED)[0] is False
    held, reason = holds(Condition.metric("roc_auc", below=0.7, k=9), day(6), loop=DECAYED)
    assert (held, reason) == (None, "roc_auc: 5 new windows can be judged, 9 are needed")
    assert holds(Condition.metric("roc_auc", below=0.7, least=401), day(6), loop=DECAYED)[0] is None
    both = loop_of(rows_of([0], good=True), rows_of([1], good=False, version="v2"))
    assert holds(Condition.metric("roc_auc", below=0.7, version="v2"), day(3), loop=both)[0] is True
    assert holds(Condition.metric("roc_auc", below=0.7, version="v1"), day(3), loop=both)[0] is False
    assert holds(Condition.metric("roc_auc", below=0.7, version="v3"), day(3), loop=both)[0] is None


def test_what_cannot_be_judged_is_unknown_and_says_why():
    assert holds(Condition.metric("f1", below=0.9), day(5), loop=DECAYED) == (
        None,
        "f1 has no interval here; `point=True` judges the value itself",
    )
    assert holds(Condition.metric("f1", below=0.9, point=True), day(5), loop=DECAYED)[0] is True
    assert holds(Condition.metric("f1", below=0.9), day(5)) == (None, "f1: no loop was given")
    assert holds(Condition.metric("mae", above=1), day(5), loop=bg.FeedbackLoop())[1] == "mae: no predictions yet"
    assert holds(Condition.metric("mae", above=1), day(5), loop=loop_of(GOOD, labels=False))[1] == "mae: no labels yet"
    with pytest.raises(InvalidArgumentError, match=r"the loop has no metric 'roc_aux'\nhint: did you mean 'roc_auc'"):
        holds(Condition.metric("roc_aux", above=1), day(5), loop=DECAYED)


def test_metrics_corrected_for_delay_need_no_mature_window():
    waiting = loop_of(rows_of(range(12), good=True), rows_of([12], good=False), horizon="3d")
    early = Condition.metric("brier", above=0.25, correct="delay", point=True)
    assert holds(early, day(2), loop=waiting)[1] == "brier: no labelled prediction is older than the horizon yet"
    assert holds(early, day(12), loop=waiting)[0] is False
    assert holds(early, day(14), loop=waiting)[0] is True
    assert holds(Condition.metric("brier", above=0.25), day(14), loop=waiting)[0] is False
    then = loop_of(rows_of(range(12), good=True), rows_of([12], good=False), horizon="3d", as_of=day(14.9))
    assert_frame_equal(waiting.metrics(correct="delay", as_of=day(14.9)), then.metrics(correct="delay"), check_exact=True)


@pytest.mark.parametrize("now", [4, 5, 5.5])
def test_nothing_later_than_now_counts(now):
    """A loop that already knows the future decides as one that does not."""
    known = loop_of(GOOD, BAD, as_of=day(now))
    corrected = loop_of(GOOD, BAD)
    corrected.labels(BAD.with_columns(y=1 - pl.col("y"), came=pl.lit(day(30))), id="id", label="y", time="came")
    when = Condition.any(Condition.metric("roc_auc", below=0.7), Condition.labels(1200))
    first, second = (Trigger("m", when).judge(day(now), loop=loop) for loop in (known, corrected))
    assert_frame_equal(first, second)


# Estimates, drift, alerts, schedules, labels


def test_estimates_in_whatever_form():
    cbpe = bg.estimates.Cbpe.fit(GOOD["s"].to_numpy(), GOOD["y"].to_numpy())
    unsure = cbpe.estimate(np.full(500, 0.5) + np.linspace(-0.01, 0.01, 500))
    assert holds(LOW, START, estimates=unsure)[0] is True
    frame = unsure.to_frame()
    assert holds(LOW, START, estimates=frame) == holds(LOW, START, estimates=unsure)
    assert holds(LOW, START, estimates={"roc_auc": 0.6}) == (True, "estimated roc_auc below 0.7: 0.6")
    assert holds(LOW, START, estimates={"roc_auc": (0.6, 0.5, 0.71)})[0] is False
    assert holds(LOW, START, estimates={"roc_auc": (0.6, 0.5, 0.69)})[0] is True
    assert holds(Condition.estimate("mae", above=2), START, estimates={"mae": (2.5, 2.1, 2.9)})[0] is True
    for nothing in ({}, {"roc_auc": None}, {"roc_auc": float("nan")}, frame.clear()):
        assert holds(LOW, START, estimates=nothing) == (None, "estimated roc_auc: there is no value")
    assert holds(LOW, START)[0] is None
    windows = pl.DataFrame({"metric": ["roc_auc"] * 2, "value": [0.6, 0.8], "window_end": [day(1), day(2)]})
    assert holds(LOW, START, estimates=windows)[0] is False
    assert holds(LOW, START, estimates=windows.reverse())[0] is False
    assert holds(LOW, START, estimates=windows.filter(window_end=day(1)))[0] is True


@pytest.mark.parametrize("estimates", [3, {"roc_auc": "low"}, {"roc_auc": (1, 2)}, pl.DataFrame({"roc_auc": [0.1]})])
def test_estimates_of_another_form_are_refused(estimates):
    with pytest.raises(InvalidArgumentError, match="`estimates` must"):
        holds(LOW, START, estimates=estimates)


RNG = np.random.default_rng(0)
REFERENCE = bg.Reference({"x": RNG.normal(size=5000), "z": RNG.normal(size=5000)})
MOVED = bg.compare(REFERENCE, {"x": RNG.normal(size=5000) + 1, "z": RNG.normal(size=5000)})
STILL = bg.compare(REFERENCE, {"x": RNG.normal(size=5000), "z": RNG.normal(size=5000)})


def test_drift_of_a_report():
    assert holds(Condition.drift(), START, report=MOVED) == (True, "drift: x at warning or worse")
    assert holds(Condition.drift(), START, report=STILL)[0] is False
    assert holds(Condition.drift(), START) == (None, "drift: no report was given")
    assert holds(Condition.drift("critical"), START, report=MOVED)[0] is True
    assert holds(Condition.drift(least=2), START, report=MOVED)[0] is False
    assert holds(Condition.drift(columns=["z"]), START, report=MOVED)[0] is False
    assert holds(Condition.drift(columns=["q"]), START, report=MOVED)[0] is None
    with pytest.raises(InvalidArgumentError, match="`report` must be a DriftReport, got dict"):
        holds(Condition.drift(), START, report={})
    lineage = Lineage()
    lineage.accept(bg.Reference({"x": RNG.normal(size=500)}), who="a", why="b", when=day(1))
    assert holds(Condition.drift(), START, report=MOVED, lineage=lineage)[0] is True, "nothing was accepted by then"
    held, reason = holds(Condition.drift(), day(1), report=MOVED, lineage=lineage)
    assert held is None
    assert reason.startswith(f"drift: the report is against reference {REFERENCE.id[:8]}")


def alerts_of(*changes):
    """Changes of alerts: id, column, state, severity, day."""
    schema = {"id": pl.Int64, "column": pl.String, "state": pl.String, "severity": pl.String, "time": pl.Datetime("ns", "UTC")}
    frame = pl.DataFrame([(*change[:4], day(change[4])) for change in changes], schema=schema, orient="row")
    return frame.with_columns(window_start=pl.col("time") - timedelta(days=1), value=0.3, lower=0.2, upper=0.4, threshold=0.1, reason=None)


def test_alerts_are_open_from_when_they_reach_the_severity_until_they_are_resolved():
    frame = alerts_of((1, "x", "opened", "ticket", 1), (1, "x", "escalated", "page", 3), (1, "x", "eased", "ticket", 5))
    frame = pl.concat([frame, alerts_of((1, "x", "resolved", "ticket", 7))])
    found = {
        at: (holds(Condition.alert(), day(at), alerts=frame)[0], holds(Condition.alert("page"), day(at), alerts=frame)[0])
        for at in (0, 1, 3, 5, 7)
    }
    assert found == {0: (False, False), 1: (True, False), 3: (True, True), 5: (True, False), 7: (False, False)}
    assert holds(Condition.alert(columns=["y"]), day(2), alerts=frame)[0] is False
    assert holds(Condition.alert(columns=["y", "x"]), day(2), alerts=frame)[0] is True
    assert holds(Condition.alert(), day(2)) == (None, "alerts: none were given")


def test_alerts_of_a_monitor():
    monitor = bg.Monitor("m", reference=REFERENCE, window="1h", ticks="manual")
    assert holds(Condition.alert(), START, alerts=monitor.alerts())[0] is False
    monitor.observe_frame({"x": RNG.normal(size=3000) + 2, "z": RNG.normal(size=3000), "at": [START] * 3000}, time="at")
    monitor.tick(START + timedelta(hours=1))
    assert holds(Condition.alert(columns=["x"]), day(1), alerts=monitor.alerts())[0] is True
    request = Trigger("m", Condition.alert()).check(day(1), alerts=monitor.alerts())
    assert request.to_frame().row(0, named=True)["window_start"] == START


def test_an_alert_is_the_cause_of_one_request():
    first = alerts_of((1, "x", "opened", "ticket", 1))
    trigger = Trigger("m", Condition.alert(), cooldown="1d")
    assert trigger.check(day(2), alerts=first).reason == "alerts: x open at ticket or worse"
    assert trigger.check(day(9), alerts=first) is None
    both = pl.concat([first, alerts_of((2, "z", "opened", "ticket", 9))])
    request = trigger.check(day(10), alerts=both)
    assert [row["name"] for row in request.evidence] == ["z"]
    # An alert from before the accepted reference was against another one.
    lineage = Lineage()
    lineage.accept(REFERENCE, who="a", why="b", when=day(5))
    assert Trigger("m", Condition.alert()).check(day(10), alerts=both, lineage=lineage).to_frame()["name"].to_list() == ["z"]
    assert holds(Condition.alert(), day(8), alerts=both, lineage=lineage) == (
        False,
        "alerts: no ticket is open, but 1 from before the last request or accepted reference",
    )
    # Escalation is news to who waits for pages.
    paging = Trigger("m", Condition.any(Condition.alert("page"), Condition.schedule("1d")), cooldown="0s")
    paging.check(START, alerts=first)
    assert paging.check(day(2), alerts=first).reason.startswith("every 1d")
    escalated = pl.concat([first, alerts_of((1, "x", "escalated", "page", 2.5))])
    assert paging.check(day(2.6), alerts=escalated).reason == "alerts: x open at page or worse"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.drop("state"), "`alerts` must have the columns of a monitor's alerts, 'state' is missing"),
        (lambda f: f.with_columns(time=pl.lit("now")), "`alerts` must have times, column 'time' is String"),
        (lambda f: f.with_columns(severity=pl.lit("loud")), "`alerts` must have severities ticket and page, got 'loud'"),
    ],
)
def test_alerts_of_another_form_are_refused(change, message):
    with pytest.raises(InvalidArgumentError, match=message):
        holds(Condition.alert(), day(2), alerts=change(alerts_of((1, "x", "opened", "ticket", 1))))


def test_a_schedule_counts_from_the_last_request_or_accepted_reference():
    trigger = Trigger("m", Condition.schedule("30d"))
    fired = [at for at in range(0, 100, 5) if trigger.check(day(at))]
    assert fired == [30, 60, 90]
    lineage = Lineage()
    lineage.accept(REFERENCE, who="a", why="b", when=day(20))
    trigger = Trigger("m", Condition.schedule(timedelta(days=30)))
    assert [at for at in range(0, 100, 5) if trigger.check(day(at), lineage=lineage)] == [50, 80]


def test_labels_are_counted_since_the_last_request():
    trigger = Trigger("m", Condition.labels(1000), cooldown="0s")
    found = {at: request.reason for at in range(8) if (request := trigger.check(day(at), loop=DECAYED))}
    # 400 a day, each a day after its prediction: the first of day 3 arrives at the very start of day 4.
    assert found == {4: "1,201 new labels", 7: "1,199 new labels since the last request"}
    assert holds(Condition.labels(1), day(1))[0] is None


# Combinations


def leaf(at):
    return Condition.estimate(f"e{at}", below=0.5)


trees = st.recursive(
    st.integers(0, 5).map(lambda at: ("leaf", at)),
    lambda inner: st.tuples(st.sampled_from(["all", "any"]), st.lists(inner, min_size=1, max_size=3)),
    max_leaves=8,
)


def condition_of(tree):
    kind, inner = tree
    return leaf(inner) if kind == "leaf" else getattr(Condition, kind)(*map(condition_of, inner))


def truth(tree, values):
    """Kleene's logic of three values, unknown between false and true."""
    kind, inner = tree
    if kind == "leaf":
        return values[inner]
    return {"all": min, "any": max}[kind](truth(one, values) for one in inner)


@settings(max_examples=200, deadline=None)
@given(trees, st.lists(st.sampled_from([0, 0.5, 1]), min_size=6, max_size=6))
def test_combinations_are_those_of_three_valued_logic(tree, values):
    estimates = {f"e{at}": {1: 0.1, 0: 0.9, 0.5: None}[value] for at, value in enumerate(values)}
    condition = condition_of(tree)
    want = {1: True, 0: False, 0.5: None}[truth(tree, values)]
    assert holds(condition, START, estimates=estimates)[0] is want
    assert Condition(json.loads(json.dumps(condition.to_dict()))) == condition
    request = Trigger("m", condition).check(START, estimates=estimates)
    assert (request is not None) == (want is True)
    if request is not None:
        fired = {row["name"] for row in request.evidence}
        assert fired
        assert fired <= {f"e{at}" for at, value in enumerate(values) if value == 1}


def test_operators_and_words():
    combined = leaf(0) & leaf(1) & Condition.labels(5000) | Condition.schedule("30d")
    assert combined.to_dict()["any"][0]["all"][2] == {"labels": 5000}
    assert len(combined.to_dict()["any"][0]["all"]) == 3
    assert repr(combined) == "Condition((estimated e0 below 0.5 and estimated e1 below 0.5 and 5,000 new labels) or every 30d)"
    assert combined == Condition({"any": [{"all": [leaf(0), leaf(1), {"labels": 5000}]}, {"every": "30d"}]})
    assert Condition({"every": timedelta(hours=36)}).to_dict() == {"every": "36h"}
    with pytest.raises(TypeError):
        leaf(0) & 3


# Once per cause, not too often


def low(value=0.6):
    return {"roc_auc": value}


def test_the_same_report_or_estimate_is_no_cause_twice():
    trigger = Trigger("m", Condition.any(LOW, Condition.drift()), cooldown="0s", most_per_month=None)
    assert trigger.check(day(0), estimates=low(), report=MOVED).reason == "estimated roc_auc below 0.7: 0.6; drift: x at warning or worse"
    assert trigger.check(day(1), estimates=low(), report=MOVED) is None
    assert trigger.check(day(2), estimates=low(0.61), report=MOVED).reason == "estimated roc_auc below 0.7: 0.61"
    # The report was known at that request too: it stays the same cause.
    assert trigger.check(day(3), estimates=low(0.61), report=MOVED) is None
    other = bg.compare(REFERENCE, {"x": RNG.normal(size=5000) + 2, "z": RNG.normal(size=5000)})
    assert trigger.check(day(4), estimates=low(0.61), report=other).reason == "drift: x at warning or worse"


def test_windows_that_were_over_at_the_last_request_are_no_cause_again():
    trigger = Trigger("m", Condition.metric("roc_auc", below=0.7), cooldown="0s")
    assert trigger.check(day(5), loop=DECAYED) is not None
    assert trigger.check(day(5.9), loop=DECAYED) is None
    request = trigger.check(day(7), loop=DECAYED)
    assert request.to_frame()["window_start"].to_list() == [day(5)]
    lineage = Lineage()
    lineage.accept(REFERENCE, who="a", why="b", when=day(4.5))
    fresh = Trigger("m", Condition.metric("roc_auc", below=0.7))
    assert fresh.check(day(6), loop=DECAYED, lineage=lineage) is None, "the windows of days 3 and 4 began before the accepted reference"
    assert fresh.check(day(7), loop=DECAYED, lineage=lineage) is not None


def test_the_cooldown_holds_back_and_forgets_nothing():
    trigger = Trigger("m", LOW, cooldown="7d")
    assert trigger.check(day(0), estimates=low())
    assert [trigger.check(day(at), estimates=low(0.5)) for at in (1, 6.99)] == [None, None]
    assert trigger.check(day(7), estimates=low(0.5)) is not None
    assert trigger.counts() == {"checks": 4, "requests": 2, "cooldown": 2, "budget": 0}
    assert trigger.last == day(7)


def test_the_budget_is_of_calendar_months():
    trigger = Trigger("m", LOW, cooldown="0s", most_per_month=2)
    times = [datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=at) for at in range(70)]
    fired = [time for at, time in enumerate(times) if trigger.check(time, estimates=low(0.6 - at / 1000))]
    assert [(time.month, time.day) for time in fired] == [(1, 1), (1, 2), (2, 1), (2, 2), (3, 1), (3, 2)]
    assert trigger.counts()["budget"] == 70 - 6
    # The border is that of UTC, and a December is no January.
    eve = Trigger("m", LOW, cooldown="0s", most_per_month=1)
    assert eve.check(datetime(2026, 12, 31, 23, 59), estimates=low(0.5))
    assert eve.check(datetime(2026, 12, 31, 23, 59, 59), estimates=low(0.4)) is None
    assert eve.check(datetime.fromisoformat("2026-12-31T23:30:00-01:00"), estimates=low(0.3))
    assert eve.check(datetime(2027, 1, 31), estimates=low(0.2)) is None
    assert eve.check(datetime(2027, 12, 31), estimates=low(0.2)) is not None
    assert eve.check(datetime(2028, 12, 31), estimates=low(0.1)) is not None


def test_time_goes_forward_and_an_error_changes_nothing():
    trigger = Trigger("m", Condition.any(Condition.metric("nope", below=1), LOW))
    trigger.check(day(5))
    before = trigger.snapshot()
    with pytest.raises(InvalidArgumentError, match="`now` must not be before the last check, 2026-01-10"):
        trigger.check(day(4.9))
    with pytest.raises(InvalidArgumentError, match="no metric"):
        trigger.check(day(6), loop=DECAYED)
    trigger.judge(day(6), estimates=low())
    assert trigger.snapshot() == before


steps = st.lists(
    st.tuples(st.integers(0, 40), st.sampled_from([None, 0.3, 0.31, 0.9]), st.sampled_from([None, "moved", "still"]), st.integers(0, 3)),
    min_size=1,
    max_size=12,
)


@settings(max_examples=80, deadline=None)
@given(steps, st.lists(st.booleans(), min_size=12, max_size=12), st.sampled_from(["0s", "3d", "20d"]), st.sampled_from([None, 1, 2]))
def test_a_restarted_trigger_goes_on_as_if_nothing_had_happened(steps, restarts, cooldown, most):
    when = Condition.drift() & LOW | Condition.alert() | Condition.schedule("25d") | Condition.labels(900)
    terms = {"fit_on": "60d", "version": "v1", "columns": ["x"]}
    straight = Trigger("m", when, cooldown=cooldown, most_per_month=most, **terms)
    broken = Trigger("m", when, cooldown=cooldown, most_per_month=most, **terms)
    now = START
    for (passed, estimate, report, opened), restart in zip(steps, restarts, strict=False):
        now += timedelta(days=passed)
        changes = [(at, f"c{at}", "opened", "ticket", 10 * at) for at in range(opened)]
        seen = {
            "estimates": {"roc_auc": estimate},
            "report": {None: None, "moved": MOVED, "still": STILL}[report],
            "alerts": alerts_of(*changes),
            "loop": DECAYED,
        }
        if restart:
            broken = Trigger.restore(broken.snapshot())
        first, second = straight.check(now, **seen), broken.check(now, **seen)
        assert first == second
        assert (first and first.id) == (second and second.id)
    assert straight.snapshot() == broken.snapshot()


@pytest.mark.parametrize("data", [b"", b"{}", b"[1]", b'{"barograph": "trigger 2"}', b"\xff", b"[" * 100_000])
def test_bytes_that_are_no_trigger(data):
    with pytest.raises(SnapshotError, match="no snapshot of a trigger"):
        Trigger.restore(data)


# Requests


def request_of(**terms):
    trigger = Trigger("fraud", Condition.metric("roc_auc", below=0.7), **terms)
    return trigger.check(day(5), loop=DECAYED)


def test_a_request_says_what_to_fit_on_and_why():
    request = request_of(fit_on="3d", version="v1", columns=["x", "z"])
    assert request.rows == {
        "since": "2026-01-07T00:00:00.000000+00:00",
        "until": "2026-01-10T00:00:00.000000+00:00",
        "version": "v1",
        "columns": ["x", "z"],
    }
    assert (request.model, request.created, request.as_of) == ("fraud", day(5), day(5))
    row = request.to_frame().row(0, named=True)
    assert (row["condition"], row["name"], row["limit"], row["rows"]) == ("roc_auc below 0.7", "roc_auc", 0.7, 400)
    assert (row["window_start"], row["window_end"]) == (day(3), day(4))
    assert row["upper"] < 0.7
    waiting = loop_of(GOOD, BAD, horizon="2d")
    later = Trigger("fraud", Condition.metric("roc_auc", below=0.7), fit_on="3d").check(day(6), loop=waiting)
    assert (later.since, later.until, later.as_of) == (day(1), day(4), day(6)), "rows younger than the horizon have only early labels"
    assert request_of().since is None


def test_a_request_is_read_back_and_its_id_is_its_content():
    request = request_of(fit_on="3d", columns=["x"])
    text = request.to_json()
    assert RetrainRequest.from_json(text) == request
    assert RetrainRequest.from_json(text.encode()).id == request.id == request_of(fit_on="3d", columns=["x"]).id
    assert request.id != request_of(fit_on="4d", columns=["x"]).id
    assert len(request.id) == 32
    for old, new in (('"model": "fraud"', '"model": "freud"'), ("400", "401"), ("request 1", "request 2"), ("+00:00", "")):
        with pytest.raises(SnapshotError, match="no retrain request"):
            RetrainRequest.from_json(text.replace(old, new))
    for garbage in ("", "{}", "[]", "3", b"\xff", text[:-5]):
        with pytest.raises(SnapshotError, match="no retrain request"):
            RetrainRequest.from_json(garbage)


FEATURES = pl.concat([GOOD, BAD]).select("id", x=pl.col("s") * 2, z=pl.col("s") * 3)


def test_a_refit_uses_only_labels_that_had_arrived():
    request = request_of(fit_on="5d")
    before = request.training_frame(DECAYED, FEATURES, id="id").collect()
    told = loop_of(GOOD, BAD)
    told.labels(BAD.with_columns(y=1 - pl.col("y"), came=pl.lit(day(5) + timedelta(microseconds=1))), id="id", label="y", time="came")
    told.predictions(rows_of([6], good=True), id="id", time="at", prediction="p", score="s", version="v")
    after = request.training_frame(told, FEATURES, id="id").collect()
    assert_frame_equal(before, after)
    wanted = pl.concat([GOOD, BAD]).filter(pl.col("at") < day(5), pl.col("came") <= day(5))
    assert before["id"].to_list() == wanted["id"].to_list(), "in the order of the features"
    assert before["label"].to_list() == wanted["y"].to_list()
    assert told.training_frame(FEATURES, id="id").collect().height > after.height
    # A correction that had arrived counts.
    corrected = loop_of(GOOD, BAD)
    corrected.labels(GOOD.with_columns(y=1 - pl.col("y"), came=pl.lit(day(5))), id="id", label="y", time="came")
    flipped = request.training_frame(corrected, FEATURES, id="id").collect()
    assert flipped.filter(pl.col("id") < 3000)["label"].to_list() == [1 - y for y in GOOD["y"]]


events = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 1), st.integers(0, 8)), max_size=25)


@settings(max_examples=100, deadline=None)
@given(events, st.sampled_from(["last", "first"]), st.none() | st.integers(0, 5), st.integers(0, 9))
def test_reading_as_of_a_time_is_a_loop_of_that_time(labels, policy, horizon, as_of):
    """Also where labels are corrected back and forth, under both policies and any horizon."""
    asked = {"id": list(range(5)), "at": [day(at) for at in (0, 1, 2, 3, 6)], "p": [0, 1, 0, 1, 0]}
    told = pl.DataFrame(
        [(id, y, day(at)) for id, y, at in labels], schema={"id": pl.Int64, "y": pl.Int8, "at": pl.Datetime("us", "UTC")}, orient="row"
    )
    terms = {"policy": policy, "horizon": None if horizon is None else timedelta(days=horizon)}
    whole, then = bg.FeedbackLoop(**terms), bg.FeedbackLoop(**terms, as_of=day(as_of))
    for loop in (whole, then):
        loop.predictions(asked, id="id", time="at", prediction="p")
        loop.labels(told, id="id", label="y", time="at")
    assert_frame_equal(whole.joined(as_of=day(as_of)), then.joined(), check_row_order=False)
    assert_frame_equal(whole.metrics(as_of=day(as_of)), then.metrics())


def test_training_frames_have_the_columns_and_version_of_the_request():
    frame = request_of(columns=["z"]).training_frame(DECAYED, FEATURES.lazy(), id="id")
    assert isinstance(frame, pl.LazyFrame)
    assert frame.collect_schema().names() == ["id", "z", "label", "prediction_time"]
    assert request_of(version="v2").training_frame(DECAYED, FEATURES, id="id").collect().is_empty()
    with pytest.raises(InvalidArgumentError, match="`features` must have the columns of the request, 'q' is missing"):
        request_of(columns=["q"]).training_frame(DECAYED, FEATURES, id="id")


# Delivery


def test_functions_and_files_take_requests(tmp_path):
    request, got = request_of(), []

    def refuse(_):
        raise RuntimeError("no room")

    file = tmp_path / "retrain.json"
    outcomes = request.deliver(got.append, refuse, lambda _: Outcome(False, "not now"), file, tmp_path, str(tmp_path / "none" / "x"))
    assert got == [request]
    assert [one.done for one in outcomes] == [True, False, False, True, True, False]
    assert outcomes[1].reason == "RuntimeError: no room"
    assert outcomes[2].reason == "not now"
    for path in (file, tmp_path / f"{request.id}.json"):
        assert RetrainRequest.from_json(path.read_bytes()) == request
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([file.name, f"{request.id}.json"])
    for wrong, message in ((3, "got int"), ("https://example.com", r"got a URL\nhint: wrap it")):
        with pytest.raises(InvalidArgumentError, match=message):
            request.deliver(got.append, wrong)
    assert len(got) == 1, "checked before anything is handed on"


def test_a_file_is_whole_or_the_old_one(tmp_path, monkeypatch):
    file = tmp_path / "retrain.json"
    first, second = request_of(), request_of(fit_on="1d")
    assert first.deliver(file)[0].done

    def full(_):
        raise OSError("disk full")

    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", full)
        assert second.deliver(file) == [Outcome(False, "OSError: disk full")]
    assert RetrainRequest.from_json(file.read_bytes()) == first
    assert second.deliver(file)[0].done
    assert RetrainRequest.from_json(file.read_bytes()) == second


class Hook(BaseHTTPRequestHandler):
    """Answers as its server's script says, and remembers what came."""

    protocol_version = "HTTP/1.0"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.came.append((self.path, dict(self.headers), body))
        answers = self.server.answers
        status, headers = answers.pop(0) if len(answers) > 1 else answers[0]
        if status is None:
            self.server.over.wait(5)
            return
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def do_GET(self):
        self.server.came.append(("GET " + self.path, {}, b""))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def serve(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    servers = []

    def start(*answers):
        server = ThreadingHTTPServer(("127.0.0.1", 0), Hook)
        server.answers = [(one, {}) if not isinstance(one, tuple) else one for one in answers]
        server.came, server.over = [], threading.Event()
        server.url = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.over.set()
        server.shutdown()
        server.server_close()


QUICK = {"backoff": "0s", "timeout": "5s"}


def test_a_webhook_posts_the_request_signed(serve):
    server, request = serve(204), request_of()
    hook = Webhook(server.url + "/retrain?key=hidden", secret="s3cret", headers={"X-Team": "risk"}, **QUICK)
    assert request.deliver(hook) == [Outcome(True, f"{server.url} answered 204")]
    path, headers, body = server.came[0]
    assert path == "/retrain?key=hidden"
    assert RetrainRequest.from_json(body) == request
    assert headers["Content-Type"] == "application/json"
    assert headers["Idempotency-Key"] == request.id
    assert headers["X-Team"] == "risk"
    signature = next(value for name, value in headers.items() if name.lower() == "barograph-signature")
    assert signature == "sha256=" + hmac.new(b"s3cret", body, hashlib.sha256).hexdigest()
    assert "hidden" not in repr(hook)
    assert hook.counts() == {"delivered": 1, "failed": 0, "attempts": 1}
    Webhook(server.url, **QUICK)(request)
    assert not any(name.lower() == "barograph-signature" for name in server.came[1][1])


def test_a_webhook_tries_again_where_that_may_help(serve):
    server, request = serve(500, 429, 200), request_of()
    hook = Webhook(server.url, **QUICK)
    assert hook(request).done
    assert {headers["Idempotency-Key"] for _, headers, _ in server.came} == {request.id}
    assert hook.counts() == {"delivered": 1, "failed": 0, "attempts": 3}
    down = serve(503)
    hook = Webhook(down.url, attempts=2, **QUICK)
    assert hook(request) == Outcome(False, f"{down.url} answered 503")
    assert hook.counts() == {"delivered": 0, "failed": 1, "attempts": 2}
    down.answers = [(200, {})]
    assert hook(request).done, "a failed one can be retried"
    refusing = serve(400)
    assert Webhook(refusing.url, **QUICK)(request) == Outcome(False, f"{refusing.url} answered 400")
    assert len(refusing.came) == 1


def test_waiting_between_attempts_doubles(serve, monkeypatch):
    server, slept = serve(500), []
    monkeypatch.setattr("barograph.webhooks.clock.sleep", slept.append)
    Webhook(server.url, attempts=4, backoff="3s")(request_of())
    assert slept == [3.0, 6.0, 12.0]


def test_a_webhook_that_is_slow_or_gone_is_an_outcome(serve):
    slow = serve(None)
    outcome = Webhook(slow.url, attempts=2, timeout=timedelta(milliseconds=50), backoff="0s")(request_of())
    assert outcome == Outcome(False, f"{slow.url} could not be reached: timed out")
    assert len(slow.came) == 2
    gone = serve(200)
    gone.shutdown()
    gone.server_close()
    outcome = Webhook(gone.url, **QUICK)(request_of())
    assert not outcome.done
    assert "refused" in outcome.reason


def test_redirects_stay_on_the_host_and_keep_the_body(serve):
    elsewhere = serve(200)
    for status in (301, 302, 303, 307, 308):
        server = serve((status, {"Location": elsewhere.url + "/new"}))
        hook = Webhook(server.url, secret="s", **QUICK)
        assert hook(request_of()) == Outcome(False, f"{server.url} answered {status}, a redirect that is not followed")
        assert hook.counts()["attempts"] == 1
    assert elsewhere.came == []
    for status in (307, 308):
        moved = serve((status, {"Location": "/new"}), 200)
        assert Webhook(moved.url + "/old", secret="s", **QUICK)(request_of()).done
        (_, first, body), (path, second, again) = moved.came
        assert (path, again) == ("/new", body)
        assert first == second
    turned = serve((303, {"Location": "/new"}), 200)
    assert not Webhook(turned.url, **QUICK)(request_of()).done, "a GET would lose the request"
    assert len(turned.came) == 1
    circle = serve((307, {"Location": "/again"}))
    assert Webhook(circle.url, **QUICK)(request_of()).reason.endswith("answered 307, a redirect that is not followed")
    assert len(circle.came) == 4
    for target in ("file:///etc/passwd", "http://[", "https://127.0.0.1/"):
        odd = serve((307, {"Location": target}))
        assert not Webhook(odd.url, attempts=1, **QUICK)(request_of()).done


@pytest.mark.parametrize(
    "url",
    [
        "",
        "example.com",
        "file:///etc/passwd",
        "ftp://example.com",
        "http://",
        "http://u:p@example.com",
        "http://a:99999",
        "http://a b/",
        None,
        3,
    ],
)
def test_urls_that_are_none(url):
    with pytest.raises(InvalidArgumentError, match="`url` must be an http or https URL"):
        Webhook(url)


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ({"attempts": 0}, r"`attempts` must be a whole number in \[1, 10\], got 0"),
        ({"attempts": 11}, "`attempts` must"),
        ({"attempts": 1.5}, "`attempts` must"),
        ({"timeout": "soon"}, "`timeout` must be a timedelta or text"),
        ({"timeout": "0s"}, "`timeout` must be longer than nothing"),
        ({"backoff": "later"}, "`backoff` must be"),
        ({"secret": ""}, "`secret` must not be empty"),
        ({"headers": {"X": "a\r\nY: b"}}, "`headers` must map names to values of one line"),
        ({"headers": {"X": 3}}, "`headers` must"),
    ],
)
def test_bad_terms_of_a_webhook(terms, message):
    with pytest.raises(InvalidArgumentError, match=message):
        Webhook("http://127.0.0.1/", **terms)


# Bad input


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        (3, "a condition must be a Condition or a mapping, got int"),
        ({}, "must have one of the keys metric, estimate, drift, alert, every, labels, all, any, got none"),
        ({"metric": "a", "labels": 3}, "must have one of the keys"),
        ({"metric": "roc_auc"}, "needs `below` or `above`, got neither"),
        ({"metric": "roc_auc", "below": 1, "above": 2}, "got both"),
        ({"metric": "", "below": 1}, "`metric` must be a name"),
        ({"metric": "a", "below": float("nan")}, "`below` must be a finite number, got nan"),
        ({"metric": "a", "above": True}, "`above` must be a finite number"),
        ({"metric": "a", "below": "0.7"}, "`below` must be a finite number"),
        ({"metric": "a", "belwo": 1}, r"has no 'belwo'\nhint: did you mean 'below'"),
        ({"metric": "a", "below": 1, "window": "day"}, "`window` must be a timedelta or text"),
        ({"metric": "a", "below": 1, "window": "0d"}, "`window` must be longer than nothing"),
        ({"metric": "a", "below": 1, "window": timedelta(microseconds=3)}, "`window` must be whole seconds"),
        ({"metric": "a", "below": 1, "k": 0}, "`k` must be a whole number of at least 1"),
        ({"metric": "a", "below": 1, "k": 3, "of": 2}, "`of` must not be less than `k`, got 3 of 2"),
        ({"metric": "a", "below": 1, "least": -1}, "`least` must be a whole number of at least 0"),
        ({"metric": "a", "below": 1, "coverage": 1.1}, r"`coverage` must be in \[0, 1\], got 1.1"),
        ({"metric": "a", "below": 1, "confidence": 1}, r"`confidence` must be in \[0.5, 1\), got 1"),
        ({"metric": "a", "below": 1, "correct": "both"}, "`correct` must be"),
        ({"metric": "a", "below": 1, "task": "ranking"}, "`task` must be"),
        ({"metric": "a", "below": 1, "point": 1}, "`point` must be true or false"),
        ({"drift": "bad"}, "`drift` must be info, warning or critical, got 'bad'"),
        ({"drift": "info", "columns": "x"}, "`columns` must be a list of names"),
        ({"drift": "info", "columns": []}, "`columns` must be a list of names"),
        ({"drift": "info", "least": 0}, "`least` must be"),
        ({"alert": "warning"}, "`alert` must be ticket or page, got 'warning'"),
        ({"every": "month"}, "`every` must be"),
        ({"labels": 0}, "`labels` must be a whole number of at least 1, got 0"),
        ({"labels": True}, "`labels` must be"),
        ({"all": []}, "`all` must hold at least one condition"),
        ({"any": {"labels": 3}}, "`any` must hold at least one condition"),
        ({"any": [{"labels": "x"}]}, "`labels` must be"),
    ],
)
def test_bad_conditions(terms, message):
    with pytest.raises(InvalidArgumentError, match=message):
        Condition(terms)


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ({"model": ""}, "`model` must be a name, got ''"),
        ({"when": None}, "a condition must be"),
        ({"fit_on": "0d"}, "`fit_on` must be longer than nothing"),
        ({"fit_on": 90}, "`fit_on` must be a timedelta"),
        ({"cooldown": "x"}, "`cooldown` must be"),
        ({"most_per_month": 0}, "`most_per_month` must be a whole number of at least 1, or None, got 0"),
        ({"columns": "x"}, "`columns` must be a list of names, got 'x'"),
        ({"columns": [1]}, "`columns` must be a list of names"),
    ],
)
def test_bad_terms_of_a_trigger(terms, message):
    with pytest.raises(InvalidArgumentError, match=message):
        Trigger(**{"model": "m", "when": LOW, **terms})


def test_a_time_must_be_one():
    with pytest.raises(InvalidArgumentError, match="a time must be a datetime, got str"):
        Trigger("m", LOW).check("2026-01-01")
