"""The policy simulator against the monitor itself."""

import json
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path

import barograph as bg
import numpy as np
import polars as pl
import pytest

START = datetime(2026, 1, 5)


def log(hours, per_hour=300, shift_from=None, seed=0):
    rng = np.random.default_rng(seed)
    n = hours * per_hour
    x = rng.normal(size=n)
    if shift_from is not None:
        x[shift_from * per_hour :] += 1.0
    at = [START + timedelta(hours=i / per_hour) for i in range(n)]
    return pl.DataFrame({"x": x, "y": rng.normal(size=n), "name": rng.choice(["a", "b"], n), "at": at})


REFERENCE = bg.Reference(log(100, seed=9).drop("at"))


def test_it_does_what_a_monitor_does_on_the_same_log():
    rows = log(450, shift_from=300)
    found = bg.backtest(REFERENCE, rows.sample(fraction=1, shuffle=True, seed=1), time="at", shifts=[])
    monitor = bg.Monitor("m", reference=REFERENCE, window="1h", ticks="manual")
    for day in range(19):
        monitor.observe_frame(rows[day * 24 * 300 : (day + 1) * 24 * 300], time="at")
        monitor.tick(START + timedelta(hours=min(450, 24 * (day + 1))))
    assert found.alerts.drop("id", "incident").equals(monitor.alerts().drop("id", "incident"))
    assert found.trials[0].opened == 1
    assert found.weekly == (0, 1, 0)
    assert found.trials[0].weeks == pytest.approx(450 / 168)


def test_shifts_are_found_beside_the_baselines():
    found = bg.backtest(REFERENCE, log(200), time="at", shifts=[0.0, 0.5, 1.5], runs=12)
    policy, always, never = found.trials
    assert policy.opened == 0
    assert policy.detected == {0.0: 0.0, 0.5: 1.0, 1.5: 1.0}
    assert policy.delays[0.0] is None
    assert policy.delays[1.5] <= policy.delays[0.5] <= 12
    assert (always.per_week, never.per_week) == (7 * 24, 0)
    frame = found.to_frame()
    assert frame.height == 9
    assert set(frame["policy"]) == {"budget 7d", "always fires", "never fires"}
    assert "0.5 sd found" in found.to_terminal()
    again = bg.backtest(REFERENCE, log(200), time="at", shifts=[0.0, 0.5, 1.5], runs=12)
    assert again.to_frame().equals(frame)


def test_a_budget_is_proposed_for_a_wanted_rate():
    found = bg.backtest(REFERENCE, log(400), time="at", shifts=[], wanted=1.0)
    assert found.proposed == "1d"
    assert len(found.trials) == 8
    drifted = bg.backtest(REFERENCE, log(400, shift_from=10), time="at", shifts=[], wanted=0.0)
    assert drifted.proposed is None
    assert "no budget of" in drifted.to_terminal()


def test_a_gap_and_weeks_and_rules_are_replayed():
    rows = pl.concat([log(30), log(30).with_columns(pl.col("at") + timedelta(days=60))])
    found = bg.backtest(REFERENCE, rows, time="at", window="1w", shifts=[], rules=[{"metric": "events", "below": 10}])
    assert found.alerts.filter(column="events")["state"].to_list() == ["opened", "resolved"]
    names = bg.backtest(bg.Reference({"c": ["a", "b"] * 500}), rows.select("at", c="name"), time="at")
    assert names.to_frame().height == 0
    assert "no feature of numbers" in names.to_terminal()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"time": "when"}, "names column 'when'"),
        ({"time": "x"}, "column of timestamps"),
        ({"score": "nothing"}, "`score` names column"),
        ({"runs": 0}, "`runs` must be"),
        ({"horizon": 1000}, "`horizon` must be"),
        ({"window": "soon"}, "`window` must be"),
        ({"log": log(1).head(0)}, "needs rows"),
    ],
)
def test_what_cannot_be_replayed_is_refused(change, message):
    arguments = {"log": log(5), "time": "at", "shifts": []} | change
    with pytest.raises(bg.errors.InvalidArgumentError, match=message):
        bg.backtest(REFERENCE, **arguments)


def test_on_the_command_line(tmp_path):
    log(100, seed=9).drop("at").write_parquet(tmp_path / "r.parquet")
    log(300, shift_from=100).write_parquet(tmp_path / "log.parquet")
    command = str(Path(sys.executable).with_name("barograph"))

    def run(*arguments):
        return subprocess.run([command, *map(str, arguments)], capture_output=True, text=True, cwd=tmp_path)

    made = run("reference", "r.parquet", "-o", "ref.baro")
    assert made.returncode == 0
    assert "30,000 rows" in made.stderr
    assert bg.Reference.load(tmp_path / "ref.baro").id == bg.Reference(str(tmp_path / "r.parquet")).id
    plain = run("backtest", "ref.baro", "log.parquet", "--time", "at", "--shifts", "1", "--runs", "3")
    assert plain.returncode == 0
    assert "budget 7d" in plain.stdout
    wanted = run("backtest", "ref.baro", "log.parquet", "--time", "at", "--shifts", "", "--wanted", "0.1", "--json")
    assert wanted.returncode == 1
    assert json.loads(wanted.stdout)["proposed"] is None
    for broken in (["--time", "nope"], ["--time", "at", "--shifts", "a"], []):
        done = run("backtest", "ref.baro", "log.parquet", *broken)
        assert done.returncode == 2
        assert "Traceback" not in done.stderr
    assert run("reference", "ref.baro", "-o", "again").returncode == 2
