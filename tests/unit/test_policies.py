"""What a user states about watching a model: in Python or in a TOML file, and what follows from it."""

from datetime import UTC, datetime, timedelta

import barograph as bg
import numpy as np
import polars as pl
import pytest

START = datetime(2026, 1, 5, tzinfo=UTC)


def rows(rng, n, hour=0, a=0.0, b=0.0):
    at = [START.replace(tzinfo=None) + timedelta(hours=hour, seconds=3600 * i / n) for i in range(n)]
    return pl.DataFrame({"a": rng.normal(a, 1, n), "b": rng.normal(b, 1, n), "at": at})


REFERENCE = bg.Reference(rows(np.random.default_rng(0), 20_000).drop("at"))


def test_a_file_says_the_same_as_arguments(tmp_path):
    text = """
window = "1h"
lateness = "2d"
importance = { a = 3.0, b = 1.0 }
budget = { ticket = "14d", page = "60d" }
[settings]
confidence = 0.95
[[rules]]
metric = "error_rate"
above = 0.1
severity = "ticket"
cooldown = "6h"
"""
    path = tmp_path / "policy.toml"
    path.write_text(text)
    (tmp_path / "sidecar.toml").write_text(
        text.replace("\nwindow", "\n[models.m]\nwindow")
        .replace("[settings]", "[models.m.settings]")
        .replace("[[rules]]", "[[models.m.rules]]")
    )
    stated = bg.Monitor(
        "m",
        reference=REFERENCE,
        ticks="manual",
        window="1h",
        lateness=timedelta(days=2),
        importance={"a": 3, "b": 1},
        budget={"ticket": "14d", "page": "60d"},
        confidence=0.95,
        rules=[{"metric": "error_rate", "above": 0.1, "severity": "ticket", "cooldown": "6h"}],
    )
    read = bg.Monitor("m", reference=REFERENCE, ticks="manual", policy=path)
    of_sidecar = bg.Monitor("m", reference=REFERENCE, ticks="manual", policy=tmp_path / "sidecar.toml")
    assert stated.snapshot() == read.snapshot() == of_sidecar.snapshot()
    assert "one false ticket in 14 days and one false page in 60 days" in read.policy


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('window = "1h"\nbudgte = "7d"\n', r'policy.toml:2: unknown key "budgte".*did you mean "budget"'),
        ('[[rules]]\nmetric = "mae"\n\nabove_ = 3\n', r'policy.toml:4: unknown key "above_".*did you mean "above"'),
        ("window = 3\n", r"policy.toml:1: "),
        ("window = \n", r"policy.toml:1: "),
        ('[[rules]]\nmetric = "roc_auc"\n', r"policy.toml: `rules`: roc_auc needs one of"),
        ("importance = { a = -1.0 }\n", r"`importance` of \"a\" must be"),
        ("importance = { aa = 1.0 }\n", r'`importance` names column "aa".*did you mean "a"'),
    ],
)
def test_a_file_that_cannot_be_names_line_key_and_nearest_name(tmp_path, text, message):
    path = tmp_path / "policy.toml"
    path.write_text(text)
    with pytest.raises(bg.errors.InvalidArgumentError, match=f"(?s){message}"):
        bg.Monitor("m", reference=REFERENCE, policy=path)


def test_a_file_that_is_no_text_and_one_beside_arguments(tmp_path):
    path = tmp_path / "policy.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(bg.errors.InvalidArgumentError, match="not text"):
        bg.Monitor("m", reference=REFERENCE, policy=path)
    path.write_text('[models.fraud]\nwindow = "1h"\n')
    with pytest.raises(bg.errors.NotFoundError, match=r'(?s)no model "frau".*did you mean "fraud"'):
        bg.Monitor("frau", reference=REFERENCE, policy=path)
    with pytest.raises(bg.errors.InvalidArgumentError, match="`policy` and `window` both"):
        bg.Monitor("fraud", reference=REFERENCE, policy=path, window="1h")


def test_a_file_is_checked_and_backtested_on_the_command_line(tmp_path, capsys):
    from barograph.cli import main

    path = tmp_path / "policy.toml"
    path.write_text('[models.fraud]\nwindow = "1h"\nbudget = { ticket = "3d" }\n[models.churn]\nwindow = "1d"\n')
    assert main(["config", "check", str(path)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert [line.split(" ticket")[0] for line in said] == ["churn: At most one false", "fraud: At most one false"]
    rng = np.random.default_rng(7)
    log = pl.concat([rows(rng, 50, hour) for hour in range(30)])
    found = bg.backtest(REFERENCE, log, time="at", policy=path, model="fraud", shifts=[3.0], runs=2, horizon=10)
    assert (found.trials[0].policy, found.window, found.trials[0].detected[3.0]) == ("budget 3d", "1h", 1.0)
    path.write_text('windw = "1h"\n')
    assert main(["config", "check", str(path)]) == 2
    assert 'policy.toml:1: unknown key "windw"' in capsys.readouterr().err


def test_events_beyond_the_allowed_lateness_are_only_counted():
    rng = np.random.default_rng(1)
    monitor = bg.Monitor("m", reference=REFERENCE, ticks="manual", lateness="3h")
    monitor.observe_frame(rows(rng, 100, 10), time="at")
    monitor.tick(START + timedelta(hours=11))
    monitor.observe_frame(rows(rng, 50, 8), time="at")
    monitor.observe_frame(rows(rng, 40, 7), time="at")
    monitor.observe_frame(rows(rng, 30, -500_000), time="at")
    assert monitor.summary(START - timedelta(days=40_000), START + timedelta(days=1)).events == 150
    counts = monitor.counts()
    assert (counts["late"], counts["too_late"], counts["events"]) == (120, 70, 220)


def broken(nulls, n, pages):
    """One hour in which so many of n values of `a` are null, under a budget of pages."""
    rng = np.random.default_rng(2)
    frame = rows(rng, n).with_columns(a=pl.when(pl.int_range(n) < nulls).then(None).otherwise(pl.col("a")))
    monitor = bg.Monitor("m", reference=REFERENCE, ticks="manual", budget={"ticket": "7d", "page": pages})
    monitor.observe_frame(frame, time="at")
    monitor.tick(START + timedelta(hours=1))
    return monitor.alerts().filter(column="a")["severity"].to_list()


def test_broken_data_page_when_it_is_certain():
    assert broken(150, 300, "30d") == ["page"]
    # 8 of 25 are surely beyond the warning's tolerance, not surely beyond that of critical.
    assert broken(8, 25, "30d") == ["ticket"]


def test_a_column_of_another_type_is_a_page_that_ends():
    rng = np.random.default_rng(3)
    monitor = bg.Monitor("m", reference=REFERENCE, ticks="manual")
    for hour, frame in enumerate([rows(rng, 300), rows(rng, 300, 1).with_columns(pl.col("a").cast(pl.String)), rows(rng, 300, 2)]):
        monitor.observe_frame(frame, time="at")
        monitor.tick(START + timedelta(hours=hour + 1))
    alerts = monitor.alerts()
    assert alerts["column", "state", "severity"].rows() == [("a", "opened", "page"), ("a", "resolved", "ticket")]
    assert "of another type than the reference: expected number" in alerts["reason"][0]


def test_importance_moves_the_budget_and_ranks_causes():
    rng = np.random.default_rng(4)
    # Both columns moved alike; the error rate's alert names the one that matters first.
    frame = rows(rng, 2000, a=0.6, b=0.6).with_columns(failed=rng.random(2000) < 0.5)
    for importance, first in (({"a": 10.0, "b": 1.0}, "a moved"), ({"a": 1.0, "b": 10.0}, "b moved")):
        monitor = bg.Monitor(
            "m", reference=REFERENCE, ticks="manual", importance=importance, rules=[{"metric": "error_rate", "above": 0.1}]
        )
        monitor.observe_frame(frame, time="at", error="failed")
        monitor.tick(START + timedelta(hours=1))
        assert monitor.alerts().filter(column="error_rate")["cause"][0].startswith(first)


def test_a_rule_that_is_a_test_waits_for_the_level_its_budget_allows():
    rng = np.random.default_rng(5)
    # 64 of 400 failed: beyond a tenth at 99 %, not at the level of one false page in a thousand years.
    frame = rows(rng, 400).with_columns(failed=pl.int_range(400) < 64)
    found = {}
    for pages in ("30d", "15000w"):
        monitor = bg.Monitor(
            "m", reference=REFERENCE, ticks="manual", rules=[{"metric": "error_rate", "above": 0.1}], budget={"page": pages}
        )
        monitor.observe_frame(frame, time="at", error="failed")
        monitor.tick(START + timedelta(hours=1))
        row = monitor.history().filter(method="error_rate").row(0, named=True)
        found[pages] = monitor.alerts().height, row["verdict"], row["reason"]
    assert found["30d"][:2] == (1, "warning")
    assert found["15000w"][:2] == (0, "info")
    assert "that the budget allows" in found["15000w"][2]


@pytest.mark.parametrize("detector", ["adwin", "cusum", "ewma"])
def test_a_detector_watches_a_metric_and_goes_on_after_a_restore(detector):
    rng = np.random.default_rng(6)
    rules = [{"metric": "error_rate", "detector": detector, "severity": "ticket"}]
    monitor = bg.Monitor("m", reference=REFERENCE, ticks="manual", rules=rules, window="1h")
    for hour in range(160):
        share = 0.02 if hour < 110 else 0.6
        frame = rows(rng, 200, hour).with_columns(failed=rng.random(200) < share)
        monitor.observe_frame(frame, time="at", error="failed")
        if hour == 115:
            monitor = bg.Monitor.restore(monitor.snapshot())
        monitor.tick(START + timedelta(hours=hour + 1))
    alerts = monitor.alerts().filter(column="error_rate:change", state="opened")
    hours = [(time - START).total_seconds() / 3600 for time in alerts["time"]]
    assert 110 < next(iter(hours), 0) <= 140, hours
    assert f"{detector} saw a change" in alerts["reason"][0]
