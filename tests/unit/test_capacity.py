"""Replicas for an objective: from logs, histograms and monitors, with everything that can be wrong with them."""

import contextlib
import http.client
import json
import math
import threading
import time
from datetime import UTC, datetime, timedelta

import barograph as bg
import numpy as np
import polars as pl
import pytest
from barograph.cli import _parser, main
from barograph.protobuf import metric_family, native_cells
from barograph.scaling.capacity import Capacity, Load, ServiceTimes, Slo, capacity_of, headroom, replicas_for, what_if
from barograph.scaling.capacity_command import _documents
from barograph.scaling.capacity_server import serve
from barograph.scaling.loads import Arrivals
from barograph.scaling.queues import ErlangC
from barograph.sketches import ExponentialHistogram

START = datetime(2026, 1, 5, tzinfo=UTC)
ERROR = bg.errors.InvalidArgumentError
QUICK = {"calls": 200_000}


def log(rate=2.0, hours=3.0, mean=0.5, seed=0):
    rng = np.random.default_rng(seed)
    at = np.sort(rng.uniform(0, hours * 3600, rng.poisson(rate * hours * 3600)))
    took = rng.gamma(2, mean / 2, len(at))
    return pl.DataFrame({"at": pl.Series(START.timestamp() * 1e6 + at * 1e6).cast(pl.Int64).cast(pl.Datetime("us", "UTC")), "took": took})


# ---- objectives --------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "slo"),
    [
        ("p99 <= 200ms", Slo(0.2, 0.99)),
        ("P99.9 response < 2s", Slo(2.0, 0.999)),
        ("p95 wait <= 50ms", Slo(0.05, 0.95, "wait")),
        ("wait probability <= 0.2", Slo(0.0, 0.8, "wait")),
        ("p50 <= 100us", Slo(1e-4, 0.5)),
    ],
)
def test_objectives_are_read_and_written(text, slo):
    assert Slo.parse(text) == slo
    assert Slo.parse(str(slo)) == slo or slo.threshold == 1e-4


@pytest.mark.parametrize(
    "text", ["", "p99", "p99 <= 200", "p99 <= -1ms", "p100 <= 1s", "p0 <= 1s", "p99 <= 0ms", "wait probability <= 1.5", "p99 <= nanms"]
)
def test_what_is_no_objective_is_refused(text):
    with pytest.raises(ERROR, match=r"`slo` must be|`objective` must be|`threshold` must be"):
        Slo.parse(text)


# ---- answers -----------------------------------------------------------------------------------------------------------------------------


def test_stated_exponential_lines_are_answered_by_erlangs_formula_and_need_the_fewest_replicas():
    load = Load.exponential(50.0, 0.1)
    for text in ("p99 <= 500ms", "p95 wait <= 20ms", "wait probability <= 0.1"):
        found = replicas_for(load, text)
        assert (found.verdict, found.method) == ("ok", "erlang_c")
        fewer = capacity_of(load, found.replicas - 1, text)
        assert fewer.verdict == "critical"
        assert found.within == found.within_lower >= found.slo.objective > fewer.within
    line = ErlangC(8, 50.0, 0.1)
    found = capacity_of(load, 4, concurrency=2)
    assert (found.servers, found.wait_probability, found.mean_wait) == (8, line.wait_probability, line.mean_wait)
    assert found.queue_length == pytest.approx(50 * line.mean_wait)
    assert found.verdict is None


def test_measured_service_times_are_answered_by_the_simulation_of_themselves():
    # Exponential ones measured finely: the simulation has to say what Erlang says.
    histogram = ExponentialHistogram(8)
    histogram.update_many(-np.log1p(-(np.arange(200_000) + 0.5) / 200_000) * 0.1)
    load = Load.from_histogram(histogram, rate=50.0)
    assert load.service.mean == pytest.approx(0.1, rel=1e-3)
    assert load.service.scv == pytest.approx(1.0, rel=5e-3)
    found = capacity_of(load, 8, "p99 <= 600ms", calls=1_000_000)
    exact = ErlangC(8, 50.0, 0.1)
    assert found.method == "simulation"
    assert found.simulated >= 1_000_000
    assert found.mean_wait == pytest.approx(exact.mean_wait, rel=0.05)
    assert found.wait_probability == pytest.approx(exact.wait_probability, rel=0.05)
    assert found.response_p99 == pytest.approx(exact.response_quantile(0.99), rel=0.02)
    assert found.within_lower <= 1 - exact.responses_beyond(0.6) <= found.within_upper
    assert found.approximate_mean_wait == pytest.approx(exact.mean_wait, rel=0.01)


def test_constant_service_needs_fewer_than_exponential_and_bursts_need_more():
    seconds = np.full(1000, 0.1)
    poisson = replicas_for(Load.from_histogram(seconds, rate=80.0), "p99 wait <= 50ms", **QUICK)
    bursts = replicas_for(Load.from_histogram(seconds, rate=80.0, arrival_scv=9.0), "p99 wait <= 50ms", **QUICK)
    exponential = replicas_for(Load.exponential(80.0, 0.1), "p99 wait <= 50ms")
    assert poisson.replicas < exponential.replicas < bursts.replicas


def test_the_search_finds_what_looking_at_every_number_finds():
    load = Load.from_log(log(), time="at", seconds="took")
    every = [count for count in range(1, 8) if capacity_of(load, count, "p95 <= 1500ms", rate=6.0, **QUICK).verdict == "ok"]
    found = replicas_for(load, "p95 <= 1500ms", rate=6.0, **QUICK)
    assert found.replicas == every[0] == 5
    assert found == capacity_of(load, 5, "p95 <= 1500ms", rate=6.0, **QUICK)
    assert every == list(range(every[0], 8))
    assert replicas_for(load, "p95 <= 1500ms", rate=6.0, least=6, **QUICK).replicas == 6


def test_the_search_gives_whole_answers_where_it_looked_shortly_first():
    # At 90 % a line takes long to settle, so the search begins with a tenth of the calls.
    load = Load.from_histogram(np.random.default_rng(0).gamma(2, 0.05, 5000), rate=1.0)
    rate = 4 * 0.9 / load.service.mean
    found = replicas_for(load, "p95 <= 2s", rate=rate, **QUICK)
    assert found.replicas == 4
    assert found.simulated >= 200_000
    assert found == capacity_of(load, 4, "p95 <= 2s", rate=rate, **QUICK)


def test_the_approximation_alone_is_near_the_simulation():
    load = Load.from_histogram(np.random.default_rng(0).gamma(2, 0.05, 5000), rate=70.0)
    simulated, about = (capacity_of(load, 9, "p99 <= 400ms", simulated=flag) for flag in (True, False))
    assert about.method == "approximation"
    assert about.mean_wait == simulated.approximate_mean_wait
    assert about.mean_wait == pytest.approx(simulated.mean_wait, rel=0.05)
    assert about.response_p99 == pytest.approx(simulated.response_p99, rel=0.05)
    assert about.wait_p99 == pytest.approx(simulated.wait_p99, rel=0.1)


def test_equal_seeds_give_equal_answers():
    load = Load.from_log(log(), time="at", seconds="took")
    answers = [capacity_of(load, 4, "p95 <= 1500ms", rate=6.0, seed=seed, **QUICK) for seed in (1, 1, 2)]
    assert answers[0] == answers[1] != answers[2]


def test_more_load_needs_no_fewer_replicas():
    load = Load.from_log(log(), time="at", seconds="took")
    table = what_if(load, "p95 <= 1500ms", factors=[0.5, 1, 2, 4], concurrency=2, **QUICK)
    assert table["replicas"].to_list() == sorted(table["replicas"].to_list())
    assert table["factor"].to_list() == [0.5, 1.0, 2.0, 4.0]
    assert table["rate"][3] == pytest.approx(4 * load.arrivals.peak_rate)
    assert set(table["method"]) == {"simulation"}


# ---- the ends ----------------------------------------------------------------------------------------------------------------------------


def test_a_saturated_line_has_no_numbers_but_a_reason():
    for load in (Load.exponential(100.0, 0.1), Load.from_histogram(np.full(1000, 0.1), rate=100.0)):
        for replicas in (8, 10):
            found = capacity_of(load, replicas, "p99 <= 1s")
            assert found.verdict == "critical"
            assert found.reason.startswith("saturated: ")
            assert found.mean_wait is found.response_p99 is found.within is None
    assert "the line grows by 20 a second" in capacity_of(Load.exponential(100.0, 0.1), 8, "p99 <= 1s").reason


def test_a_line_too_near_to_saturation_is_not_guessed_at():
    load = Load.from_histogram(np.random.default_rng(0).exponential(0.1, 2000), rate=1.0)
    found = capacity_of(load, 1, "p99 <= 10s", rate=0.995 / load.service.mean)
    assert found.verdict == "critical"
    assert found.reason.startswith("too near to saturation to be judged: a line of utilisation 0.995")
    assert found.mean_wait is found.within is None


def test_no_calls_need_what_is_least():
    for load in (Load.exponential(0.0, 0.1), Load.from_histogram(np.full(1000, 0.1), rate=0.0)):
        found = replicas_for(load, "p99 <= 1s", least=2)
        assert (found.verdict, found.replicas, found.utilisation, found.mean_wait, found.queue_length) == ("ok", 2, 0.0, 0.0, 0.0)
        assert headroom(load, 2, "p99 <= 1s").verdict == "insufficient"


def test_a_threshold_below_the_service_itself_is_kept_by_no_number():
    found = replicas_for(Load.from_histogram(np.full(1000, 0.3), rate=1.0), "p99 <= 200ms")
    assert (found.verdict, found.replicas) == ("critical", None)
    assert "no number of replicas is enough" in found.reason
    assert replicas_for(Load.exponential(1.0, 0.1), "p99 <= 200ms").replicas is None


def test_too_few_allowed_say_how_far_they_come():
    found = replicas_for(Load.from_histogram(np.full(1000, 0.1), rate=95.0), "p99 <= 110ms", most=10, **QUICK)
    assert (found.verdict, found.replicas) == ("critical", None)
    assert found.reason.startswith("10 replicas, the most allowed, are not enough: 0.")


@pytest.mark.parametrize(
    ("rows", "slo", "reason"),
    [
        (0, "p99 <= 1s", "0 calls were seen"),
        (1, "p99 <= 1s", "1 calls were seen"),
        (99, "p90 <= 1s", "99 calls were seen, 100 are needed"),
        (500, "p99 <= 1s", "500 service times were measured, 1,000 are needed for p99 response <= 1000ms"),
    ],
)
def test_few_data_are_insufficient_and_never_a_guess(rows, slo, reason):
    load = Load.from_log(log(hours=1).head(rows), time="at", seconds="took")
    for found in (replicas_for(load, slo), capacity_of(load, 3, slo), headroom(load, 3, slo).now):
        assert found.verdict == "insufficient"
        assert reason in found.reason
        assert found.within is found.mean_wait is found.method is None
    assert replicas_for(load, slo).to_keda()["replicas"] is None
    assert replicas_for(load, slo).to_external_metrics()["items"] == []


def test_odd_service_times_are_left_out_and_noted():
    rows = log()
    rows = rows.with_columns(took=pl.Series([None, math.nan, math.inf, -1.0, *rows["took"][4:]]))
    load = Load.from_log(rows, time="at", seconds="took")
    assert load.service.count == len(rows) - 4
    assert load.arrivals.count == len(rows)
    assert load.notes == ("4 service times that are missing, infinite or negative were left out",)
    assert load.notes[0] in replicas_for(load, "p95 <= 2s", **QUICK).notes
    nothing = Load.from_log(rows.with_columns(took=pl.lit(0.0)), time="at", seconds="took")
    assert replicas_for(nothing, "p99 <= 1s").reason == "every service time is 0: nothing was measured"


def test_a_heavy_tail_is_said_to_be_one():
    rng = np.random.default_rng(0)
    heavy = Load.from_histogram((rng.pareto(1.3, 20_000) + 1) * 0.01, rate=20.0)
    assert heavy.service.tail_index() == pytest.approx(1.3, rel=0.2)
    found = capacity_of(heavy, 4, "p95 <= 1s", **QUICK)
    assert any(note.startswith("heavy tail") for note in found.notes)
    light = Load.from_histogram(rng.exponential(0.01, 20_000), rate=20.0)
    assert light.service.tail_index() > 2
    assert capacity_of(light, 4, **QUICK).notes == ()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Load.exponential(math.nan, 0.1), "`rate` must be"),
        (lambda: Load.exponential(-1.0, 0.1), "`rate` must be"),
        (lambda: Load.exponential(1.0, 0.0), "`mean_seconds` must be"),
        (lambda: Load.from_histogram([0.1], rate=math.inf), "`rate` must be"),
        (lambda: Load.from_histogram([0.1], rate=1.0, arrival_scv=-1), "`arrival_scv` must be"),
        (lambda: Load.from_histogram(["x"], rate=1.0), "`seconds` must be numbers"),
        (lambda: Load.from_histogram(ExponentialHistogram(6, 5.0), rate=1.0), "without a shift"),
        (lambda: Load.exponential(1.0, 1.0).scaled(0), "`factor` must be"),
        (lambda: capacity_of(Load.exponential(1.0, 1.0), 0), "`replicas` must be"),
        (lambda: capacity_of(Load.exponential(1.0, 1.0), 2, concurrency=1.5), "`concurrency` must be"),
        (lambda: capacity_of(Load.exponential(1.0, 1.0), 2, rate=math.nan), "`rate` must be"),
        (lambda: replicas_for(Load.exponential(1.0, 1.0), "p99 <= 9s", least=5, most=4), "`least` must be at most"),
        (lambda: headroom(Load.exponential(1.0, 1.0), 2, "p99 <= 9s", margin=0.5), "`margin` must be"),
        (lambda: Slo(math.nan, 0.9), "`threshold` must be"),
        (lambda: Slo(1.0, 0.9, "latency"), "`of` must be"),
        (lambda: ErlangC(2, 2.0, 1.0), "the line would grow without end"),
        (lambda: ErlangC(0, 1.0, 1.0), "`servers` must be an integer"),
        (lambda: ErlangC(2, 1.0, 1.0).response_quantile(95), r"`q` must be in \(0, 1\), got 95"),
    ],
)
def test_arguments_out_of_range_are_refused(call, message):
    with pytest.raises(ERROR, match=message):
        call()


# ---- loads -------------------------------------------------------------------------------------------------------------------------------


def test_a_log_in_any_order_of_any_kind_is_one_load(tmp_path):
    rows = log()
    rows.write_parquet(tmp_path / "log.parquet")
    rows.write_csv(tmp_path / "log.csv")
    first = Load.from_log(rows, time="at", seconds="took")
    kinds = [
        rows.sample(fraction=1, shuffle=True, seed=1),
        tmp_path / "log.parquet",
        str(tmp_path / "log.csv"),
        rows.with_columns(at=pl.col("at").dt.epoch("us") / 1e6),
        rows.with_columns(took=(pl.col("took") * 1e9).round().cast(pl.Int64).cast(pl.Duration("ns"))),
        {"at": rows["at"].to_list(), "took": rows["took"].to_list()},
    ]
    for kind in kinds:
        load = Load.from_log(kind, time="at", seconds="took")
        assert load.arrivals.count == len(rows)
        assert load.arrivals.peak_rate == pytest.approx(first.arrivals.peak_rate, rel=1e-6)
        assert load.service.mean == pytest.approx(first.service.mean, rel=1e-6)
        assert np.allclose(load.arrivals.gaps, first.arrivals.gaps, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows.rename({"at": "when"}), "the log has no column 'at'"),
        (lambda rows: rows.drop("took"), "the log has no column 'took'"),
        (lambda rows: rows.with_columns(at=pl.lit("x")), "`time` must name a column of timestamps or numbers"),
        (lambda rows: rows.with_columns(at=pl.col("at").dt.date()), "`time` must name a column of timestamps or numbers"),
        (lambda rows: rows.with_columns(took=pl.lit("x")), "`seconds` must name a column of numbers or durations"),
        (lambda rows: rows.with_columns(at=pl.when(pl.col("took") > 0.3).then("at")), "nulls"),
        (lambda rows: rows.with_columns(at=pl.lit(math.nan)), "times that are not finite"),
    ],
)
def test_logs_that_cannot_be_read_are_refused(change, message):
    with pytest.raises(ERROR, match=message):
        Load.from_log(change(log(hours=0.2)), time="at", seconds="took")


def test_a_broken_file_is_an_error_with_words(tmp_path):
    (tmp_path / "half.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(bg.errors.FrameError):
        Load.from_log(tmp_path / "half.parquet", time="at", seconds="took")


def test_the_course_of_the_day_is_no_burst_but_bursts_are():
    rng = np.random.default_rng(0)
    hours = np.arange(24 * 14)
    counts = rng.poisson(600 * (1 + 0.9 * np.sin(2 * np.pi * hours / 24)))
    calm = np.sort(np.concatenate([rng.uniform(0, 3600, count) + 3600 * hour for hour, count in zip(hours, counts, strict=True)]))
    load = Load.from_log({"at": calm, "took": np.full(len(calm), 0.5)}, time="at", seconds="took")
    # Poisson within each hour: 1, although the hours differ twentyfold.
    assert load.arrivals.scv == pytest.approx(1, abs=0.05)
    assert load.arrivals.dispersion(10) == pytest.approx(1, abs=0.1)
    assert load.arrivals.peak_rate == counts.max() / 3600
    first = calm[rng.random(len(calm)) < 0.1]
    tens = np.sort(np.repeat(first, 10) + np.tile(np.arange(10) * 1e-3, len(first)))
    bursts = Load.from_log({"at": tens, "took": np.full(len(tens), 0.5)}, time="at", seconds="took")
    assert bursts.arrivals.dispersion(100) == pytest.approx(10, rel=0.15)
    assert bursts.arrivals.scv > 5
    waits = [capacity_of(one, 2, rate=2.0, **QUICK).mean_wait for one in (load, bursts)]
    assert waits[1] > 5 * waits[0]


def test_simulated_gaps_keep_the_order_of_bursts():
    # A hundred fast calls, a hundred slow ones: single gaps hardly vary, stretches do.
    gaps = np.tile(np.r_[np.full(100, 0.1), np.full(100, 1.9)], 50)
    arrivals = Arrivals(1.0, 1.0, count=len(gaps), gaps=gaps)
    drawn = arrivals.draw(5.0)(np.random.default_rng(0), 20_000, 16)
    assert drawn.mean() == pytest.approx(1 / 5, rel=0.05)
    again = Arrivals(1.0, 1.0, gaps=drawn[:, 0] / drawn[:, 0].mean())
    mixed = Arrivals(1.0, 1.0, gaps=np.random.default_rng(0).permutation(gaps))
    assert again.dispersion(50) == pytest.approx(arrivals.dispersion(50), rel=0.25)
    assert again.dispersion(50) > 10 * mixed.dispersion(50)


def test_calls_of_one_tick_of_the_clock_are_spread_over_it():
    rows = log(rate=20.0, hours=1)
    ticks = rows.with_columns(at=pl.col("at").dt.truncate("1s"))
    load = Load.from_log(ticks, time="at", seconds="took")
    assert load.arrivals.notes == ("times are whole multiples of 1 s: calls of one tick were spread over it",)
    assert load.arrivals.scv == pytest.approx(1, abs=0.1)
    assert Load.from_log(rows, time="at", seconds="took").arrivals.notes == ()


def test_histogram_and_values_are_the_same_service():
    values = np.random.default_rng(0).lognormal(-2, 1, 50_000)
    histogram = ExponentialHistogram(8)
    histogram.update_many(values)
    both = [ServiceTimes(values), ServiceTimes(histogram), ServiceTimes(np.tile(values, 3))]
    for one in both[1:]:
        assert one.mean == pytest.approx(both[0].mean, rel=0.002)
        assert one.scv == pytest.approx(both[0].scv, rel=0.01)
        assert one.within(0.3) == pytest.approx(both[0].within(0.3), abs=0.002)
        assert one.heaviest() == pytest.approx(both[0].heaviest(), rel=0.01)
        drawn = one.draw()(np.random.default_rng(1), 2000, 100)
        assert drawn.mean() == pytest.approx(values.mean(), rel=0.03)
        assert np.quantile(drawn, 0.99) == pytest.approx(np.quantile(values, 0.99), rel=0.03)
    with pytest.raises(ERROR, match="no service times"):
        ServiceTimes([]).draw()


@pytest.mark.parametrize("scv", [0.0, 0.25, 1.0, 4.0, 25.0])
def test_gaps_are_as_variable_as_stated(scv):
    gaps = Arrivals(1.0, 1.0, scv=scv).draw(20.0)(np.random.default_rng(0), 20_000, 100)
    assert gaps.mean() == pytest.approx(1 / 20, rel=0.02)
    assert gaps.var() / gaps.mean() ** 2 == pytest.approx(scv, rel=0.05)


def test_a_monitor_knows_its_load():
    rng = np.random.default_rng(0)
    reference = bg.Reference({"x": rng.normal(size=2000)})
    monitor = bg.Monitor("m", reference=reference, window="1h", ticks="manual")
    at = np.sort(rng.uniform(0, 24 * 3600, 24 * 1800))
    at = at[(at < 10 * 3600) | (at > 12 * 3600)]
    took = rng.gamma(2, 0.2, len(at))
    frame = pl.DataFrame({"x": rng.normal(size=len(at)), "at": [START + timedelta(seconds=float(one)) for one in at], "took": took})
    monitor.observe_frame(frame, time="at", latency_seconds="took")
    monitor.tick(START + timedelta(hours=25))
    load = Load.from_monitor(monitor)
    assert load.arrivals.count == len(at)
    assert load.arrivals.rate == pytest.approx(len(at) / (24 * 3600), rel=1e-9)
    assert load.service.mean == pytest.approx(took.mean(), rel=0.01)
    assert len(load.arrivals.hours.counts) == 24
    assert load.arrivals.hours.counts[10:12].sum() == 0
    assert replicas_for(load, "p99 <= 3s", **QUICK).verdict == "ok"
    part = Load.from_monitor(monitor, START + timedelta(hours=2), START + timedelta(hours=5))
    assert part.arrivals.count == ((at >= 7200) & (at < 5 * 3600)).sum() == part.service.count
    fresh = Load.from_monitor(bg.Monitor("n", reference=reference, window="1h", ticks="manual"))
    assert replicas_for(fresh, "p99 <= 3s").verdict == "insufficient"


def test_calls_of_several_events_are_counted_as_calls_where_that_is_said():
    window = {"column": "(model)", "method": "events", "window_start": START, "window_end": START + timedelta(hours=1)}
    history = pl.DataFrame([window | {"value": 5000.0}])
    service = ServiceTimes(np.full(1000, 0.1))
    assert Load.from_history(history, service, events_per_call=5).arrivals.count == 1000
    load = Load.from_history(history, service)
    assert load.arrivals.count == 5000
    assert load.notes[0].startswith("5,000 events came with 1,000 latencies")
    with pytest.raises(ERROR, match="`events_per_call` must be"):
        Load.from_history(history, service, events_per_call=0)


# ---- headroom ----------------------------------------------------------------------------------------------------------------------------


def test_headroom_is_the_load_at_which_the_objective_breaks():
    load = Load.exponential(50.0, 0.1)
    found = headroom(load, 10, "p99 <= 500ms")
    assert found.saturation_factor == pytest.approx(2.0)
    assert capacity_of(load.scaled(found.factor), 10, "p99 <= 500ms").verdict == "ok"
    assert capacity_of(load.scaled(found.factor * 1.02), 10, "p99 <= 500ms").verdict == "critical"
    assert headroom(load, 10, "p99 <= 500ms", margin=1.9).verdict == "warning"
    assert headroom(load, 5, "p99 <= 500ms").verdict == "critical"
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["now"]["replicas"] == 10


def test_saturation_is_foretold_with_its_hour():
    # Six weeks alike, but that every Friday at 16:00 more comes than two servers of ten seconds can do: 720 an hour.
    week = np.full(168, 540.0)
    week[4 * 24 + 16] = 800.0
    window = [(START + timedelta(hours=at), value) for at, value in enumerate(np.tile(week, 6))]
    history = pl.DataFrame(
        [
            {"column": "(model)", "method": "events", "value": value, "window_start": at, "window_end": at + timedelta(hours=1)}
            for at, value in window
        ]
    )
    load = Load.from_history(history, ServiceTimes.of_cells([(10.0, 10.0, 500_000)]))
    found = headroom(load, 2, "p99 <= 600s", rate=0.15, **QUICK)
    assert found.saturation_factor == pytest.approx(0.2 / 0.15)
    assert found.saturation_at == START + timedelta(weeks=6, days=4, hours=16)
    assert found.objective_at is not None
    assert found.verdict == "warning"
    calm = headroom(load, 20, "p99 <= 600s", rate=0.15, **QUICK)
    assert (calm.verdict, calm.saturation_at) == ("ok", None)
    assert headroom(Load.from_log(log(), time="at", seconds="took"), 9, "p95 <= 2s", **QUICK).forecast_reason.endswith(
        "a forecast needs 840"
    )


# ---- what autoscalers and people read ----------------------------------------------------------------------------------------------------


def test_the_documents_are_those_that_keda_and_kubernetes_read():
    found = replicas_for(Load.exponential(50.0, 0.1), "p99 <= 500ms")
    keda = found.to_keda()
    assert keda["replicas"] == found.replicas == 7
    assert isinstance(keda["replicas"], int)
    listed = found.to_external_metrics("barograph_replicas", {"model": "fraud"}, datetime(2026, 1, 5, 1, 2, 3, tzinfo=UTC))
    # Field by field as k8s.io/metrics pkg/apis/external_metrics/v1beta1/types.go tags them; a Quantity is a string.
    assert listed == {
        "kind": "ExternalMetricValueList",
        "apiVersion": "external.metrics.k8s.io/v1beta1",
        "metadata": {},
        "items": [
            {"metricName": "barograph_replicas", "metricLabels": {"model": "fraud"}, "timestamp": "2026-01-05T01:02:03Z", "value": "7"},
        ],
    }
    assert set(found.to_frame().columns) == set(Capacity.__dataclass_fields__) - {"notes"}
    assert "replicas               7" in found.to_terminal()
    json.dumps(found.to_dict(), allow_nan=False)


@pytest.fixture(scope="module")
def calls(tmp_path_factory):
    path = tmp_path_factory.mktemp("capacity") / "calls.parquet"
    log().write_parquet(path)
    return str(path)


def run(capsys, *arguments):
    code = main(["capacity", *map(str, arguments)])
    said = capsys.readouterr()
    return code, said.out, said.err


def test_the_command_answers_from_a_log(calls, capsys):
    source = [calls, "--time", "at", "--seconds", "took", "--calls", 200_000]
    code, out, _ = run(capsys, *source, "--slo", "p99 <= 2s", "--factors", "1,3")
    assert code == 0
    assert "busiest stretch seen; no forecast: 3 whole hours" in out or "no forecast: 2 whole hours" in out
    assert "verdict                ok" in out
    assert out.splitlines()[-3].split()[:3] == ["factor", "rate", "replicas"]
    code, out, _ = run(capsys, *source, "--slo", "p99 <= 2s", "--json", "--factors", "2")
    document = json.loads(out)
    assert code == 0
    assert document["capacity"]["method"] == "simulation"
    assert document["what_if"][0]["replicas"] >= document["capacity"]["replicas"]
    assert document["load"]["calls"] == document["load"]["service_times"]
    replicas = document["capacity"]["replicas"]
    code, out, _ = run(capsys, *source, "--slo", "p99 <= 2s", "--keda")
    assert (code, json.loads(out)["replicas"]) == (0, replicas)
    code, out, _ = run(capsys, *source, "--slo", "p99 <= 2s", "--external-metrics", "wanted", "--replicas", 1)
    assert (code, json.loads(out)["items"][0]["value"]) == (0, str(replicas))
    code, out, _ = run(capsys, *source, "--slo", "p99 <= 2s", "--replicas", 4 * replicas)
    assert code == 0
    assert "saturation factor" in out


def test_the_command_says_what_is_wrong(calls, capsys):
    source = [calls, "--time", "at", "--seconds", "took"]
    for arguments, code, words in (
        ([*source, "--slo", "fast"], 2, "`slo` must be such as"),
        ([calls, "--time", "at", "--slo", "p99 <= 2s"], 2, "`--seconds` is missing"),
        (["--slo", "p99 <= 2s"], 2, "either a LOG or --url"),
        ([*source, "--slo", "p99 <= 2s", "--url", "http://127.0.0.1:1"], 2, "either a LOG or --url"),
        (["--url", "http://127.0.0.1:1", "--slo", "p99 <= 2s"], 2, "`--model` is missing"),
        (["--url", "http://127.0.0.1:1", "--model", "m", "--slo", "p99 <= 2s"], 2, "barograph: "),
        ([*source, "--slo", "p99 <= 2s", "--factors", "a"], 2, "`--factors` must be numbers"),
        ([*source, "--slo", "p99 <= 2s", "--factors", "0"], 2, "`factor` must be"),
        ([*source, "--slo", "p99 <= 2s", "--replicas", 0], 2, "`--replicas` must be at least 1"),
        ([*source, "--slo", "p99 <= 2s", "--concurrency", 0], 2, "`concurrency` must be"),
        ([*source, "--slo", "p99 <= 2s", "--level", 2], 2, "`level` must be"),
        ([*source, "--slo", "p99 <= 10ms"], 1, ""),
        ([*source, "--slo", "p99.999 <= 2s"], 3, ""),
    ):
        found, _, err = run(capsys, *arguments)
        assert (found, words in err) == (code, True), (arguments, err)


def get(port, path):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", path)
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read())


@contextlib.contextmanager
def served(make, every=300.0):
    stop, ready, ports = threading.Event(), threading.Event(), []
    thread = threading.Thread(
        target=lambda: serve("127.0.0.1:0", make, every=every, stop=stop, ready=lambda port: (ports.append(port), ready.set()))
    )
    thread.start()
    assert ready.wait(10)
    try:
        yield ports[0]
    finally:
        stop.set()
        thread.join(10)
        assert not thread.is_alive()


def until(found):
    end = time.monotonic() + 10
    while not found() and time.monotonic() < end:
        time.sleep(0.01)
    return found()


def test_answers_are_served_where_an_autoscaler_fetches_them(calls):
    options = _parser().parse_args(["capacity", calls, "--time", "at", "--seconds", "took", "--slo", "p99 <= 2s", "--calls", "100000"])
    with served(lambda: _documents(options, Slo.parse("p99 <= 2s"))) as port:
        assert until(lambda: get(port, "/keda")[0] == 200)
        _, keda = get(port, "/keda?x=1")
        assert keda["replicas"] >= 2
        assert get(port, "/external-metrics")[1]["items"][0]["value"] == str(keda["replicas"])
        assert get(port, "/capacity")[1]["capacity"]["method"] == "simulation"
        assert get(port, "/other") == (404, {"reason": "there are /capacity, /keda, /external-metrics"})
        assert get(port, "/healthz") == (200, {"ok": True})


def test_an_answer_that_cannot_be_made_is_told_and_an_old_one_is_none(capsys):
    made, broken = [], threading.Event()

    def make():
        if broken.is_set():
            raise ConnectionRefusedError("nobody there")
        made.append(1)
        return {"/keda": {"replicas": len(made)}}

    broken.set()
    with served(make, every=0.1) as port:
        assert until(lambda: get(port, "/keda") == (503, {"reason": "nobody there"}))
        broken.clear()
        assert until(lambda: get(port, "/keda")[0] == 200)
        broken.set()
        assert until(lambda: get(port, "/keda")[0] == 503)
    assert "barograph: nobody there" in capsys.readouterr().err
    for address in ("8080", "127.0.0.1:http", "127.0.0.1:70000", ":80"):
        with pytest.raises(ERROR, match="`listen` must be an address"):
            serve(address, make)
    with pytest.raises(ERROR, match="`every` must be"):
        serve("127.0.0.1:0", make, every=0)


# ---- what a sidecar says -----------------------------------------------------------------------------------------------------------------


def test_native_histograms_are_read_back_cell_by_cell():
    histogram = ExponentialHistogram(6)
    histogram.update_many(np.r_[0.0, 0.0, -3.0, np.random.default_rng(0).lognormal(-3, 2, 5000)])
    native = histogram.to_prometheus() | {"sample_sum": 1.0}
    other = metric_family("other_total", "x", "counter", [({"model": "m"}, 3.0)])
    family = metric_family("barograph_call_seconds", "x", "histogram", [({"model": "n"}, native), ({"model": "m"}, native)])
    cells = native_cells(other + family, "barograph_call_seconds", {"model": "m"})
    assert [count for _, _, count in cells] == [count for _, _, count in histogram.cells()]
    assert np.allclose([cell[:2] for cell in cells], [cell[:2] for cell in histogram.cells()], rtol=1e-12)
    assert native_cells(other + family, "barograph_call_seconds", {"model": "x"}) is None
    assert native_cells(other, "barograph_call_seconds", {"model": "m"}) is None
    assert native_cells(b"", "barograph_call_seconds", {"model": "m"}) is None


def test_bytes_that_are_no_messages_are_refused_in_bounded_time():
    histogram = ExponentialHistogram(6)
    histogram.update_many(np.random.default_rng(0).lognormal(-3, 2, 500))
    whole = metric_family("f", "x", "histogram", [({"model": "m"}, histogram.to_prometheus() | {"sample_sum": 1.0})])
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(2000):
        data = bytearray(whole[: rng.integers(1, len(whole) + 1)])
        for _ in range(rng.integers(1, 4)):
            data[rng.integers(len(data))] = rng.integers(256)
        try:
            native_cells(bytes(data), "f", {"model": "m"})
        except bg.errors.SnapshotError:
            refused += 1
    assert refused > 1000
