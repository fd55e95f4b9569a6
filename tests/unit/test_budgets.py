"""Budgets of processor time and bytes: how they are stated, planned and shown."""

import json
import math
from datetime import UTC, datetime, timedelta

import barograph as bg
import numpy as np
import polars as pl
import pytest
from barograph.cli import main
from barograph.scaling.budget import SHIPPED, Governor, measure_costs, plan, psi_told, widening

START = datetime(2026, 1, 1, tzinfo=UTC)
REFERENCE = bg.Reference({"x": np.arange(2000.0)})
Wrong = bg.errors.InvalidArgumentError


@pytest.mark.parametrize("cpu", ["101%", "0%", "-1%", 0, -0.1, 1.5, "one", True, [1]])
def test_a_share_that_cannot_be_is_refused_by_name(cpu):
    with pytest.raises(Wrong, match=r"`cpu` of the budget: expected more than 0 and at most 100 % of one core"):
        bg.Monitor("m", reference=REFERENCE, ticks="manual", budget={"cpu": cpu})


@pytest.mark.parametrize(
    ("budget", "says"),
    [
        ({"cpu": math.nan}, "`cpu` of the budget must be a finite number, got nan"),
        ({"memory": 0}, "`memory` of the budget: expected a size"),
        ({"memory": "64 megabytes"}, "`memory` of the budget: expected a size"),
        ({"memory": "10kB"}, "`memory` of the budget must be at least 1 MB"),
        ({"disk": -1}, "`disk` of the budget: expected a size"),
        ({"wire": "10kB"}, "`wire` of the budget: expected a rate"),
        ({"cpus": "1%"}, 'unknown key "cpus"'),
        ({"sampling": "no"}, "sampling"),
        ({"ticket": "soon"}, "`budget` must be a timedelta or text"),
    ],
)
def test_limits_that_cannot_be_are_refused_by_name(budget, says):
    with pytest.raises(Wrong, match=says.replace("(", r"\(")):
        bg.Monitor("m", reference=REFERENCE, ticks="manual", budget=budget)


def test_a_file_states_both_kinds_of_budget_and_errors_name_file_line_and_key(tmp_path, capsys):
    path = tmp_path / "policy.toml"
    path.write_text('[budget]\nticket = "3d"\ncpu = "1%"\nmemory = "8MB"\ndisk = "1MB"\nwire = "10kB/s"\nsampling = false\n')
    monitor = bg.Monitor("m", reference=REFERENCE, policy=path, ticks="manual")
    limits = {"cpu": 0.01, "memory": 8 << 20, "disk": 1 << 20, "wire": 10_240.0, "sampling": False}
    assert monitor.cost()["limits"] == limits
    assert "one false ticket in 3 days" in monitor.policy
    assert bg.Monitor.restore(monitor.snapshot()).cost()["limits"] == limits
    assert main(["config", "check", str(path)]) == 0
    capsys.readouterr()
    for text, says in [
        ('[budget]\nticket = "3d"\ncpu = "101%"\n', "policy.toml:3: `cpu` of the budget: expected more than 0 and at most 100 %"),
        ('[budget]\ncpus = "1%"\n', 'policy.toml:2: unknown key "cpus"'),
        ("\n[budget]\nmemory = 1\n", "policy.toml: `memory` of the budget must be at least 1 MB"),
    ]:
        path.write_text(text)
        assert main(["config", "check", str(path)]) == 2
        assert says in capsys.readouterr().err
    sidecar = tmp_path / "sidecar.toml"
    sidecar.write_text('listen = "127.0.0.1:0"\n[budget]\ncpu = "2%"\nmemory = "128MB"\n')
    assert main(["config", "check", str(sidecar)]) == 0
    sidecar.write_text('listen = "127.0.0.1:0"\n[budget]\ncpu = nan\n')
    assert main(["config", "check", str(sidecar)]) == 2
    assert "sidecar.toml:3: `cpu` of the budget: expected more than 0" in capsys.readouterr().err
    sidecar.write_text('listen = "127.0.0.1:0"\n[models.m.budget]\ncpu = "1%"\n')
    assert main(["config", "check", str(sidecar)]) == 2
    assert "model m: `budget.cpu` of a model cannot be kept to by a sidecar" in capsys.readouterr().err


def test_a_monitor_without_limits_has_no_cost_and_one_with_them_tells_it():
    assert bg.Monitor("m", reference=REFERENCE, ticks="manual").cost() is None
    monitor = bg.Monitor("m", reference=REFERENCE, ticks="manual", budget={"cpu": "50%"})
    monitor.observe({"x": 1.0}, time=START)
    monitor.observe_frame({"x": np.arange(1000.0), "at": [START] * 1000}, time="at")
    cost = monitor.cost()
    assert (cost["inclusion"], cost["left_out"], cost["given_up"], cost["over"]) == (1.0, 0, None, False)
    assert 0 < cost["call_seconds"] < 1e-4
    counts = monitor.counts()
    assert (counts["events"], counts["sampled_out"], counts["left_out"]) == (1001, 0, 0)


def test_what_is_left_out_is_counted_exactly_and_estimated_where_it_is_not():
    monitor = bg.Monitor("m", reference=REFERENCE, ticks="manual", budget={"cpu": 1.0})
    monitor._native.pin(2.0, 0)
    for _ in range(10):
        monitor.observe_frame({"x": np.arange(2000.0), "at": [START] * 2000}, time="at")
    counts = monitor.counts()
    assert counts["events"] - counts["sampled_out"] + counts["left_out"] == 20_000
    assert counts["events"] == pytest.approx(20_000, rel=0.1)
    assert counts["left_out"] == pytest.approx(15_000, rel=0.05)
    again = bg.Monitor.restore(monitor.snapshot())
    assert again.counts()["events"] == counts["events"]
    assert again.counts()["sampled_out"] == counts["sampled_out"]


def test_a_limit_below_what_a_process_can_keep_says_that_it_is_over():
    import time

    monitor = bg.Monitor("m", reference=REFERENCE, ticks="manual", budget={"cpu": 1e-5, "sampling": False})
    frame = pl.DataFrame({"x": np.arange(5000.0), "at": [START] * 5000})
    deadline = time.monotonic() + 30
    while not monitor.cost()["over"] and time.monotonic() < deadline:
        monitor.observe_frame(frame, time="at")
    cost = monitor.cost()
    assert cost["over"]
    assert cost["inclusion"] == 1.0
    assert monitor.counts()["left_out"] == 0


def segmented(rng, rows, hour=0):
    names = [f"s{at:02}" for at in range(60)]
    weights = np.arange(60, 0, -1) / np.arange(60, 0, -1).sum()
    return pl.DataFrame(
        {
            "x": rng.normal(size=rows),
            "country": rng.choice(names, rows, p=weights),
            "at": [START + timedelta(hours=hour)] * rows,
        }
    )


def test_segments_are_pooled_when_memory_is_short_and_told_apart_again_later():
    rng = np.random.default_rng(0)
    reference = bg.Reference(segmented(rng, 100_000).drop("at"), segments=["country"])
    monitor = bg.Monitor("m", reference=reference, window="1h", ticks="manual", budget={"cpu": 1.0})
    told = []
    for hour, level in enumerate([0, 2, 0]):
        monitor.observe_frame(segmented(rng, 30_000, hour), time="at")
        monitor._native.keep(level)
        monitor.observe_frame(segmented(rng, 30_000, hour), time="at")
        monitor.tick(START + timedelta(hours=hour + 1))
        rows = monitor.history(START + timedelta(hours=hour)).filter(method="events").drop_nulls("segment")
        told.append(rows["segment"].n_unique())
        # Nothing is lost: what is not told apart is among the others.
        assert rows["value"].sum() == 60_000
    # The pooled hour had begun in full, the one after it begins pooled and cannot be told apart any more.
    assert told[:2] == [60, 11]
    assert told[2] in (11, 60)
    assert monitor.alerts().is_empty()


def test_the_plan_gives_up_what_costs_least_and_says_the_price():
    free = plan("20000/s", 50)
    assert (free.possible, free.steps, free.inclusion, free.scale, free.bins) == (True, [], 1.0, 6, 1000)
    tight = plan("20000/s", {"number": 40, "category": 10}, cpu="1%", memory="8MB", disk="8MB", segments=100, days=90)
    assert tight.possible
    assert tight.cpu <= 0.01
    assert tight.memory <= 8 << 20
    assert tight.disk <= 8 << 20
    assert {"sampling", "scale", "bins"} <= {step.what for step in tight.steps}
    assert tight.quantile_error > free.quantile_error
    assert tight.psi_told > tight.psi_told_full
    assert tight.widening == pytest.approx(widening(tight.inclusion))
    assert "intervals" in str(tight)
    assert json.loads(json.dumps(tight.to_dict()))["inclusion"] == tight.inclusion
    assert bg.Monitor("m", reference=REFERENCE, ticks="manual", budget={"cpu": tight.limits["cpu"]}).cost()["limits"]["cpu"] == 0.01
    assert "cpu = 0.01\nmemory = 8388608" in tight.to_toml()


def test_an_impossible_budget_says_what_would_be_possible():
    made = plan(1e6, 200, cpu="0.1%", memory="1MB")
    assert not made.possible
    assert any(reason.startswith("cpu is") for reason in made.reasons)
    assert any(reason.startswith("memory is") for reason in made.reasons)
    rate = float(next(way for way in made.instead if "events/s at" in way).split(" ")[0].replace(",", ""))
    assert plan(rate, 200, cpu="0.1%", rows_per_batch=1000).possible
    share = next(way for way in made.instead if way.startswith("cpu = ")).removeprefix("cpu = ").split(" at")[0]
    assert plan(1e6, 200, cpu=share.replace(" ", "")).possible
    without = plan("20000/s", 50, cpu="0.1%", sampling=False)
    assert not without.possible
    assert "without sampling" in without.reasons[0]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((0, 5), "`rows_per_second`"),
        (("-5/s", 5), "`rows_per_second`"),
        (("nan", 5), "`rows_per_second`"),
        ((1, 0), "`columns`"),
        ((1, {"text": 3}), "`columns` must be of kinds"),
        ((1, {"number": -1}), "`columns` must count columns"),
    ],
)
def test_arguments_of_a_plan_have_ranges(arguments, says):
    with pytest.raises(Wrong, match=says):
        plan(*arguments)
    for name, value in [("segments", -1), ("days", -1), ("rows_per_batch", 0), ("home", "moon"), ("window", "soon"), ("cpu", math.nan)]:
        with pytest.raises(Wrong, match=f"`{name}`"):
            plan(1, 1, **{name: value})
    with pytest.raises(Wrong, match="`cpu` of the budget"):
        plan(1, 1, cpu="101%")


def test_planning_on_the_command_line(capsys):
    asked = ["plan", "--rows", "20000/s", "--columns", "50", "--cpu", "1%", "--memory", "64MB"]
    assert main(asked) == 0
    said = capsys.readouterr().out
    assert "sampling" in said
    assert "constants: measured" in said
    assert main([*asked, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["possible"] is True
    assert main([*asked, "--toml"]) == 0
    assert capsys.readouterr().out.startswith("[budget]\ncpu = 0.01\n")
    assert main(["plan", "--rows", "1000000/s", "--columns", "number=100,category=20", "--cpu", "0.01%"]) == 2
    told = capsys.readouterr().out
    assert "\nimpossible: cpu is" in told
    assert "\npossible: " in told
    assert main(["plan", "--rows", "1000000/s", "--columns", "200", "--cpu", "0.01%", "--json"]) == 2
    told = capsys.readouterr()
    assert json.loads(told.out)["possible"] is False
    assert "barograph: impossible: cpu is" in told.err
    assert main(["plan", "--rows", "1/s", "--columns", "fifty"]) == 2
    assert "`--columns`" in capsys.readouterr().err


def test_this_machine_can_be_measured():
    costs = measure_costs(0.3)
    assert costs.origin != SHIPPED.origin
    assert all(cost > 0 for kind in costs.frame.values() for cost in kind.values())
    assert costs.call > 0
    assert plan("20000/s", 50, cpu="5%", costs=costs).origin == costs.origin


def test_formulas_of_the_plan():
    assert [widening(p) for p in (1.0, 0.5, 0.25)] == [1.0, math.sqrt(2), 2.0]
    with pytest.raises(Wrong, match="inclusion"):
        widening(0.0)
    assert psi_told(0, 1) == math.inf
    assert psi_told(1e9, 1e9) == pytest.approx(0.1, rel=0.01)
    with pytest.raises(Wrong, match="`cpu` of the budget must be a finite number"):
        Governor({"cpu": math.nan})
    with pytest.raises(Wrong, match="unknown field"):
        Governor({"cpus": 1})


def test_a_coarser_reference_makes_smaller_profiles_with_the_same_tests():
    rng = np.random.default_rng(0)
    values = rng.lognormal(size=50_000)
    fine, coarse = bg.Reference({"x": values}), bg.Reference({"x": values}, scale=3)
    now = {"x": rng.lognormal(size=20_000)}
    profiles = [bg.profile(now, reference=one) for one in (fine, coarse)]
    assert len(profiles[1].to_bytes()) < 0.8 * len(profiles[0].to_bytes())
    rows = [
        bg.compare(one, profile).to_frame().filter(method="psi").row(0, named=True)
        for one, profile in zip((fine, coarse), profiles, strict=True)
    ]
    assert rows[0]["value"] == rows[1]["value"]
    exact = np.sort(now["x"])[9999]
    assert profiles[1]["x"].quantile(0.5) == pytest.approx(exact, rel=0.0434)
    assert bg.Reference.from_bytes(coarse.to_bytes()).id == coarse.id
    for scale in (7, -1, 2.5):
        with pytest.raises(Wrong, match="`scale` must be a whole number"):
            bg.Reference({"x": values}, scale=scale)
