"""One timeline of a model, and what each iteration gained."""

import itertools
import json
import re
from datetime import UTC, datetime, timedelta

import barograph as bg
import numpy as np
import polars as pl
import pytest
from barograph.histories import EVENTS
from barograph.iterations import student_quantile
from scipy import stats

DAY = datetime(2026, 1, 1, tzinfo=UTC)
HOURS = timedelta(hours=6)


def watched(separations=(0.3, 0.9, 0.9), windows=20, name="fraud", outage=(), deploys=True):
    """A monitor of as many versions as there are separations of the classes; no labels can be learnt from during an outage."""
    draw = np.random.default_rng(1)
    reference = bg.Reference({"x": draw.normal(size=3000)})
    monitor = bg.Monitor(
        name, reference=reference, window="6h", task="binary", ticks="manual", rules=[{"metric": "roc_auc", "below": 0.6}], budget="7d"
    )
    for at in range(windows * len(separations)):
        version, step = divmod(at, windows)
        if step == 0 and deploys:
            monitor.deploy(f"v{version + 1}", time=DAY + at * HOURS)
        y = draw.integers(0, 2, 300)
        separation = 0.0 if at in outage else separations[version]
        score = 1 / (1 + np.exp(-(separation * (2 * y - 1) + draw.normal(size=300))))
        events = pl.DataFrame({"x": draw.normal(size=300), "p": score, "id": np.arange(300) + at * 300})
        monitor.observe_frame(events.with_columns(at=pl.lit(DAY + at * HOURS)), time="at", id="id", score="p")
        monitor.label({"id": events["id"], "y": y}, id="id", label="y")
        monitor.tick(DAY + (at + 1) * HOURS)
    return monitor


@pytest.fixture(scope="module")
def monitor():
    return watched(outage=(5, 6, 7))


def test_every_iteration_is_compared_with_the_one_before(monitor):
    iterations = bg.history(monitor).iterations("roc_auc")
    assert iterations["version"].to_list() == ["v1", "v2", "v3"]
    assert iterations["verdict"].to_list() == ["unknown", "better", "no clear difference"]
    assert iterations["windows"].to_list() == [20, 20, 20]
    # Of a metric where less is better the same change is an improvement too.
    assert bg.history(monitor).iterations("brier")["verdict"].to_list()[1] == "better"
    assert bg.history(watched((0.9, 0.3))).iterations("roc_auc")["verdict"].to_list() == ["unknown", "worse"]


def test_the_limits_are_those_of_welch(monitor):
    timeline = bg.history(monitor)
    rows = timeline.to_frame().filter((pl.col("event") == "metric") & (pl.col("name") == "roc_auc"))
    one, two = (rows.filter(pl.col("iteration") == number)["value"].to_numpy() for number in (1, 2))
    found = timeline.iterations("roc_auc", confidence=0.9).row(1, named=True)
    wanted = stats.ttest_ind(two, one, equal_var=False).confidence_interval(0.9)
    assert found["change"] == pytest.approx(two.mean() - one.mean(), rel=1e-9)
    assert (found["change_lower"], found["change_upper"]) == pytest.approx(tuple(wanted), rel=2e-3)
    own = stats.t.interval(0.9, len(two) - 1, two.mean(), stats.sem(two))
    assert (found["lower"], found["upper"]) == pytest.approx(own, rel=1e-4)


def test_students_quantile_is_scipys():
    for q, freedom in itertools.product(
        [0.1, 0.6, 0.75, 0.9, 0.95, 0.975, 0.995, 0.9995], [2, 2.3, 2.9, 3, 3.7, 4, 5, 8, 17.3, 40, 400, 1e5]
    ):
        assert student_quantile(q, freedom) == pytest.approx(stats.t.ppf(q, freedom), rel=2e-4)


def test_two_windows_are_too_few_to_judge():
    iterations = bg.history(watched((0.3, 2.0), windows=2)).iterations("roc_auc")
    assert iterations["verdict"].to_list() == ["unknown", "unknown"]
    assert iterations["change"].to_list()[1] > 0
    assert iterations["change_lower"].to_list() == [None, None]


def test_alerts_stand_beside_what_the_budget_allows(monitor):
    first, second, _ = bg.history(monitor).iterations("roc_auc").to_dicts()
    assert first["days"] == pytest.approx(5.0)
    assert first["pages"] >= 1
    assert second["pages"] == 0
    assert first["tickets_allowed"] == pytest.approx(5 / 7)
    opened = monitor.alerts().filter((pl.col("severity") == "page") & (pl.col("state") == "opened"))["time"]
    ended = monitor.alerts().filter((pl.col("severity") == "page") & (pl.col("state") == "resolved"))["time"]
    hours = sum((end - start).total_seconds() / 3600 for start, end in zip(opened, ended, strict=True))
    assert first["open_hours"] == pytest.approx(hours)


def test_lineages_decisions_requests_and_costs_stand_in_one_line(monitor, tmp_path):
    lineage = bg.Lineage(tmp_path / "fraud.lineage", references=tmp_path / "references")
    lineage.accept(bg.Reference({"x": [1.0, 2.0] * 500}), who="ada", why="first <b>", when=DAY)
    rollout = bg.rollout.Rollout("v1", "v2", guards=["error_rate"])
    for version, rate in (("v1", 0.001), ("v2", 0.05)):
        rollout.observe_frame({"failed": np.arange(20_000) % 1000 < 1000 * rate}, version=version, failed="failed")
    moment = DAY + timedelta(days=4)
    decision = rollout.decide(moment)
    audit = tmp_path / "deeds.jsonl"
    bg.rollout.Callback(lambda decision: None, on=decision.decision, dry_run=False, audit=audit).act(decision, moment)
    request = bg.RetrainRequest(
        model="fraud",
        created=DAY + timedelta(days=3),
        since=None,
        until=DAY,
        version=None,
        columns=None,
        reason="AUC fell",
        evidence=(),
        as_of=DAY,
    )
    request.save(tmp_path / "request.json")
    costs = {"time": [DAY + timedelta(days=day) for day in range(15)], "metric": ["cpu_seconds"] * 15, "value": [2.0] * 15}
    together = bg.history(monitor, lineage, [request], rollout, costs=costs)
    frame = together.to_frame()
    assert set(frame["event"]) == {"reference", "deploy", "decision", "retrain", "alert", "metric", "cost"} <= set(EVENTS)
    assert frame["time"].is_sorted()
    assert set(frame["model"]) == {"fraud"}
    assert together.iterations()["cost"].to_list() == [10.0, 10.0, 10.0]
    kept = frame.filter(pl.col("event") == "decision").row(0, named=True)
    assert (kept["name"], kept["state"], kept["time"]) == ("v2 against v1", decision.decision, moment)
    # From the files that the same things write, and from all that was written before.
    from_files = bg.history(tmp_path, model="fraud").to_frame()
    events = ("reference", "retrain", "decision")
    assert [from_files.filter(pl.col("event") == event).height for event in events] == [1, 1, 1]
    together.write_parquet(tmp_path / "timeline.parquet")
    assert bg.history(tmp_path / "timeline.parquet").to_frame().equals(frame)
    # What is said twice counts once: the lineage, the request and the whole timeline lie in one folder.
    again = bg.history(tmp_path, monitor, costs=costs)
    assert again.to_frame().filter(pl.col("event") != "decision").equals(frame.filter(pl.col("event") != "decision"))


def test_an_edited_line_of_a_lineage_is_found(tmp_path):
    path = tmp_path / "m.lineage"
    bg.Lineage(path).accept(bg.Reference({"x": [1.0, 2.0] * 500}), who="ada", why="first", when=DAY)
    path.write_text(path.read_text().replace("ada", "eve"))
    with pytest.raises(bg.errors.SnapshotError, match="line 1 of"):
        bg.history(tmp_path)


def test_a_line_of_an_audit_log_that_a_crash_cut_short_is_passed_over(tmp_path):
    decision = {"decision": "promote", "reason": "fine", "evidence": [], "time": DAY.isoformat(), "champion": "a", "challenger": "b"}
    line = json.dumps({"time": DAY.isoformat(), "target": "t", "action": "call", "done": True, "reason": "done", "decision": decision})
    path = tmp_path / "audit.jsonl"
    path.write_text(line + "\n" + line[:40] + "\n" + line.replace('"b"', '"c"') + "\n")
    assert bg.history(path).to_frame()["name"].to_list() == ["b against a", "c against a"]
    path.write_text(line + "\n[1]\n")
    with pytest.raises(bg.errors.SnapshotError, match="line 2 of"):
        bg.history(path)


def test_without_deploys_an_accepted_reference_begins_an_iteration():
    monitor = watched((0.3, 1.2), deploys=False)
    lineage = bg.Lineage()
    lineage.accept(bg.Reference({"x": [1.0, 2.0] * 500}), who="ada", why="first", when=DAY)
    lineage.accept(bg.Reference({"x": [1.0, 3.0] * 500}), who="ada", why="second", when=DAY + 20 * HOURS)
    assert bg.history(monitor, lineage).iterations("roc_auc")["verdict"].to_list() == ["unknown", "better"]
    assert bg.history(monitor).iterations("roc_auc")["iteration"].to_list() == [1]


def test_a_version_that_is_deployed_again_is_no_new_iteration():
    monitor = watched((0.5,), windows=6)
    monitor.deploy("v1", time=DAY + 3 * HOURS)
    assert bg.history(monitor).iterations()["iteration"].to_list() == [1]


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda m, _: bg.history(3), bg.errors.InvalidArgumentError, "got int"),
        (lambda m, _: bg.history("/nowhere/at/all"), bg.errors.NotFoundError, "there is no /nowhere/at/all"),
        (lambda m, _: bg.history(m, watched((0.5,), 2, "other")), bg.errors.InvalidArgumentError, "several models: fraud, other"),
        (lambda m, _: bg.history(m, model="absent"), bg.errors.NotFoundError, "nothing of model 'absent'"),
        (lambda m, _: bg.history(m).iterations("rmse"), bg.errors.NotFoundError, "no metric 'rmse'"),
        (lambda m, _: bg.history(m).iterations(confidence=95), bg.errors.InvalidArgumentError, r"`confidence` must be in [0.5, 1), got 95"),
        (lambda m, _: bg.history(m, costs={"time": [DAY], "value": [1.0]}), bg.errors.InvalidArgumentError, "'metric' is missing"),
        (
            lambda m, _: bg.history(m, costs={"time": [DAY], "metric": ["x"], "value": [float("nan")]}),
            bg.errors.InvalidArgumentError,
            "finite values, got nan",
        ),
        (
            lambda m, _: bg.history(m, costs={"time": [1], "metric": ["x"], "value": [1.0]}),
            bg.errors.InvalidArgumentError,
            "must hold times",
        ),
        (lambda m, path: bg.history(path), bg.errors.InvalidArgumentError, "holds nothing of a timeline"),
        (lambda m, path: bg.history(path.with_name("broken.parquet")), bg.errors.SnapshotError, "is no Parquet file"),
    ],
)
def test_what_cannot_be_told_is_said(call, kind, message, monitor, tmp_path):
    (tmp_path / "broken.parquet").write_bytes(b"PAR1nothing")
    path = tmp_path / "notes.json"
    path.write_text("{}")
    with pytest.raises(kind, match=re.escape(message)):
        call(monitor, path)


def test_nothing_at_all_is_an_empty_timeline():
    timeline = bg.history()
    assert (len(timeline), timeline.to_frame().height, timeline.iterations().height) == (0, 0, 0)
    assert "Nothing has happened yet" in timeline.to_html() or "nothing has happened yet" in timeline.to_html()
    assert "no row yet" in timeline._repr_html_()
    json.loads(timeline.plot().to_json())


def test_pages_and_charts_hold_names_as_text(tmp_path):
    timeline = bg.history(watched((0.3, 0.9), name="<script>x</script>", windows=5))
    page = timeline.to_html()
    assert "<script" not in page
    assert "&lt;script&gt;x" in page
    assert "v2</bdi>) is better than the one before" in page
    assert timeline.to_html(tmp_path / "page.html").read_text(encoding="utf-8") == page
    chart = json.loads(timeline.plot("roc_auc").to_json(), parse_constant=lambda word: pytest.fail(word))
    assert chart["title"]["subtitle"] == "iteration 2 against the one before: better"
    timeline.plot("roc_auc").save(tmp_path / "chart.svg")


def test_an_export_of_a_sidecar_is_read(monitor, tmp_path):
    folder = tmp_path / "fraud"
    folder.mkdir()
    monitor.history().write_parquet(folder / "history.parquet")
    monitor.alerts().write_parquet(folder / "alerts.parquet")
    found, wanted = bg.history(tmp_path), bg.history(monitor)
    events = pl.col("event") != "reference"
    assert found.to_frame().filter(events).equals(wanted.to_frame().filter(events))
    assert found.model == "fraud"
