"""Spark on two executors of this machine: the profile of one process, whoever is killed; streams that count once."""

import contextlib
import functools
import os
import re
import signal
import socket
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

import barograph as bg
import polars as pl
import pyspark
import pytest
from barograph.engines_bench import dies_half_way
from barograph.errors import FrameError, IncompatibleError, InvalidArgumentError
from barograph.scaling import leaf, leaves, read, read_segments
from barograph.scaling import spark as engine
from barograph.scaling.sql import reference_of_sketches, sketches
from barograph.testing import check_engine
from dying import once_executor, once_worker
from sidecars import TOKEN, Sidecar, free_port


def test_the_laws_of_an_engine_hold_for_files(spark):
    check_engine(functools.partial(engine.profile, spark=spark, tasks=3))


def test_a_dataframe_is_counted_as_one_process_counts_it(spark, flights):
    folder, rows = flights
    frame = spark.read.parquet(str(folder))
    reference = bg.Reference(rows.head(20_000))
    for settings in ({}, {"reference": reference}):
        assert engine.profile(frame, **settings) == bg.profile(rows, **settings)
    segments = engine.profile(frame, by=["origin", "carrier"], limit=20)
    want = read_segments(leaf(rows, schema=bg.profile(rows).schema, by=["origin", "carrier"], limit=20))
    assert list(segments) == list(want)
    assert all(segments[value] == want[value] for value in want)
    assert segments.other == want.other
    assert engine.profile(frame.where("origin = 'nowhere'")).rows == 0


def test_reports_are_those_of_one_process(spark, flights):
    folder, rows = flights
    reference = bg.Reference(rows.head(60_000))
    frame = spark.read.parquet(str(folder))
    assert engine.compare(reference, frame).to_dict()["rows"] == bg.compare(reference, rows).to_dict()["rows"]
    reports = engine.compare(reference, str(folder), by="origin", spark=spark)
    assert set(reports) == {"EWR", "JFK", "LGA"}


def test_columns_that_are_not_asked_for_do_not_travel(spark, flights):
    folder, rows = flights
    schema = bg.Schema([{"name": "dep_delay_min", "kind": "number", "role": "feature"}])
    frame = spark.read.parquet(str(folder))
    recipe = engine.recipe_of(frame, schema=schema, by="origin")
    plan = engine.leaves(frame, recipe)._jdf.queryExecution().executedPlan().toString()
    read_columns = re.search(r"ReadSchema: struct<(.*?)>", plan)[1]
    assert sorted(re.findall(r"(\w+):", read_columns)) == ["dep_delay_min", "origin"]
    assert engine.profile(frame, schema=schema) == bg.profile(rows, schema=schema)


def test_a_python_worker_killed_in_its_leaf_is_made_good_by_a_second_attempt(spark, flights, tmp_path):
    folder, rows = flights
    reader = functools.partial(dies_half_way, str(tmp_path), "part-2.parquet")
    assert engine.profile(folder, spark=spark, reader=reader, tasks=4) == bg.profile(rows)
    assert (tmp_path / "killed").exists()
    assert len((tmp_path / "part-2.begun").read_text().split()) == 2


@pytest.mark.parametrize("dies", [once_worker, once_executor])
def test_a_worker_and_an_executor_killed_in_a_leaf_of_a_dataframe_cost_no_row(spark, flights, tmp_path, dies):
    folder, rows = flights
    frame = spark.read.parquet(str(folder)).repartition(4)
    recipe = engine.recipe_of(spark.read.parquet(str(folder)))
    states = frame.select(*recipe.columns(frame.columns)).mapInArrow(functools.partial(dies, recipe, str(tmp_path)), engine.STATE)
    assert read(engine.merged(states, recipe)) == bg.profile(rows, schema=bg.profile(rows).schema)
    # A dead executor takes its shuffle files with it: then the whole stage is begun again, and its tasks count their attempts from 0.
    tries = [len(note.read_text().split()) for note in tmp_path.glob("*.attempts")]
    assert (tmp_path / "killed").exists()
    assert max(tries) >= 2, tries


def test_what_is_wrong_on_an_executor_is_the_error_of_the_driver(spark, flights):
    folder, _ = flights
    frame = spark.read.parquet(str(folder))
    with pytest.raises(FrameError, match="`by` names column 'nope', which the DataFrame has not"):
        engine.profile(frame, by="nope")
    with pytest.raises(InvalidArgumentError, match="`by` must name columns of text, whole numbers, booleans or dates, 'share' is Float64"):
        engine.profile(frame.selectExpr("*", "dep_delay_min / 60.0D AS share"), by="share")


def test_workers_of_another_version_are_refused_by_naming_both(spark, flights, monkeypatch):
    folder, rows = flights
    schema = bg.profile(rows).schema
    refused = rf"the driver has barograph 0\.0\.9, this worker {re.escape(bg.__version__)}"
    monkeypatch.setattr(leaves._barograph, "__version__", "0.0.9")
    for source in (spark.read.parquet(str(folder)), str(folder)):
        with pytest.raises(IncompatibleError, match=refused):
            engine.profile(source, schema=schema, spark=spark)


def test_a_column_that_a_file_lacks_is_null_in_it_and_a_half_written_file_is_named(spark, flights, tmp_path):
    folder, rows = flights
    schema = bg.profile(rows).schema
    rows[:1200].write_parquet(tmp_path / "a.parquet")
    rows[1200:2000].drop("carrier").write_parquet(tmp_path / "b.parquet")
    counted = engine.profile(str(tmp_path), schema=schema, spark=spark)
    assert (counted.rows, counted["carrier"].null_count) == (2000, 800 + rows["carrier"][:1200].null_count())
    whole = (folder / "part-0.parquet").read_bytes()
    (tmp_path / "b.parquet").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FrameError, match=r"b\.parquet"):
        engine.profile(str(tmp_path), schema=schema, spark=spark)


def rows_of_stream(start, number):
    at = [datetime(2026, 1, 1, hour % 3, 30) for hour in range(number)]
    return pl.DataFrame({"x": [float((start + one) % 10) for one in range(number)], "at": at})


def stream_of(spark, folder):
    return spark.readStream.schema("x double, at timestamp").option("maxFilesPerTrigger", 1).parquet(str(folder))


@pytest.fixture
def stream(spark, tmp_path):
    folder = tmp_path / "incoming"
    folder.mkdir()
    # Spark writes what its timestamps are, instants.
    for batch in range(3):
        rows_of_stream(batch * 90, 90).with_columns(pl.col("at").dt.replace_time_zone("UTC")).write_parquet(folder / f"{batch}.parquet")
    reference = bg.Reference({"x": [float(at % 10) for at in range(1000)]})
    return folder, reference


def test_batches_of_a_stream_are_counted_once_in_the_windows_of_their_events_by_a_sidecar(spark, stream, tmp_path):
    folder, reference = stream
    with Sidecar(tmp_path) as sidecar:
        sidecar.request("PUT", "/v1/models/m", {})
        assert sidecar.request("PUT", "/v1/models/m/reference", reference.to_bytes(), "application/octet-stream").status < 300
        to = engine.Sidecar(f"http://127.0.0.1:{sidecar.port}", "m", TOKEN, patience=60)
        settings = {"to": to, "name": "s", "reference": reference, "time": "at", "trigger": {"availableNow": True}}
        engine.monitor_stream(stream_of(spark, folder), checkpoint=str(tmp_path / "progress"), **settings).awaitTermination(300)
        events = sidecar.model("m")["events"]
        assert events == 270
        # The driver dies after it wrote, before Spark noted the batch: the batch is replayed under its number.
        for note in (tmp_path / "progress" / "commits").glob("*2*"):
            note.unlink()
        query = engine.monitor_stream(stream_of(spark, folder), checkpoint=str(tmp_path / "progress"), **settings)
        query.awaitTermination(300)
        assert query.exception() is None
        assert sidecar.model("m")["events"] == 270
        # A new checkpoint under an old name would be taken for a replay: it fails instead.
        query = engine.monitor_stream(stream_of(spark, folder), checkpoint=str(tmp_path / "another"), **settings)
        with pytest.raises(Exception, match="was counted before, by a query with another checkpoint"):
            query.awaitTermination(300)


def test_a_table_of_a_stream_holds_each_batch_once_and_months_of_it_are_a_profile(spark, stream, tmp_path):
    folder, reference = stream
    whole = pl.concat([rows_of_stream(batch * 90, 90) for batch in range(3)])
    for table in (str(tmp_path / "table"), "profiles_of_stream"):
        to, progress = engine.Table(table), tmp_path / f"progress-{len(table)}"
        settings = {"to": to, "name": "s", "reference": reference, "time": "at", "trigger": {"availableNow": True}}
        for _ in range(2):
            engine.monitor_stream(stream_of(spark, folder), checkpoint=str(progress), **settings).awaitTermination(300)
            for note in (progress / "commits").glob("*2*"):
                note.unlink()
        kept = spark.read.parquet(table) if "/" in table else spark.table(table)
        assert kept.count() == 9
        assert read(engine.merged(kept)) == bg.profile(whole.select("x"), reference=reference)
        assert read(engine.merged(kept.where("`window` = timestamp'2026-01-01T01:00:00Z'"))).rows == 90


def test_streams_say_what_they_need(spark, stream, tmp_path):
    folder, reference = stream
    frame = stream_of(spark, folder)
    to = engine.Table(str(tmp_path / "t"))
    for wrong, message in (
        ({"name": "a b"}, "`name` must be 1 to 150 letters"),
        ({"window": "7m"}, "`window` must divide a day"),
        ({"time": "x"}, "`time` must be a column of timestamps, 'x' is double"),
        ({"to": "http://x"}, "`to` must be a Sidecar or a Table"),
    ):
        with pytest.raises(InvalidArgumentError, match=message):
            engine.monitor_stream(frame, **{"to": to, "name": "s", "checkpoint": "c", "reference": reference, **wrong})
    with pytest.raises(InvalidArgumentError, match="`frame` must be a streaming DataFrame"):
        engine.monitor_stream(spark.range(3), to=to, name="s", checkpoint="c", reference=reference)


def test_sketches_go_to_sql_and_references_come_from_it(spark, flights):
    folder, rows = flights
    days = [sketches(bg.profile(part)).with_columns(pl.lit(at).alias("day")) for at, part in enumerate(rows.iter_slices(30_000))]
    spark.createDataFrame(pl.concat(days).to_arrow()).createOrReplaceTempView("days")
    row = spark.sql(
        """SELECT kll_sketch_get_quantile_double(kll_merge_agg_double(kll) FILTER (WHERE column = 'dep_delay_min'), 0.5D) AS median,
           hll_sketch_estimate(hll_union_agg(hll) FILTER (WHERE column = 'dest')) AS dests,
           theta_sketch_estimate(theta_union_agg(theta) FILTER (WHERE column = 'carrier')) AS carriers FROM days"""
    ).first()
    delays = rows["dep_delay_min"].drop_nulls()
    assert abs((delays <= row["median"]).mean() - 0.5) < 0.06
    assert row["dests"] == pytest.approx(rows["dest"].n_unique(), rel=0.05)
    assert row["carriers"] == rows["carrier"].n_unique()

    made = spark.read.parquet(str(folder)).selectExpr("kll_sketch_agg_double(CAST(dep_delay_min AS DOUBLE), 800) AS kll").first()
    share = rows["dep_delay_min"].null_count() / rows.height
    reference = reference_of_sketches({"dep_delay_min": bytes(made["kll"])}, nulls={"dep_delay_min": share}, bins=50)
    assert not bg.compare(reference, rows.select("dep_delay_min")).drifted
    assert bg.compare(reference, rows.select(pl.col("dep_delay_min") + 30)).drifted


CONNECT = """
import sys
from pyspark.sql import SparkSession
import barograph as bg
from barograph.scaling import spark as engine
folder, port = sys.argv[1:]
spark = SparkSession.builder.remote(f"sc://127.0.0.1:{port}").getOrCreate()
whole = bg.profile(folder + "/*.parquet")
assert engine.profile(spark.read.parquet(folder)) == whole
assert engine.profile(folder, spark=spark, tasks=3) == whole
try:
    engine.profile(spark.read.parquet(folder).selectExpr("*", "dep_delay_min / 60.0D AS share"), by="share")
except bg.errors.InvalidArgumentError as error:
    assert "'share' is Float64" in str(error), error
else:
    raise AssertionError("an error of a worker was swallowed")
print("connected, equal")
"""


def answers(port):
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def test_over_spark_connect_it_is_the_same(flights, tmp_path):
    port = free_port()
    environment = {**os.environ, "SPARK_LOCAL_IP": "127.0.0.1", "PYSPARK_PYTHON": sys.executable}
    settings = {"spark.connect.grpc.binding.address": "127.0.0.1", "spark.connect.grpc.binding.port": port, "spark.ui.enabled": "false"}
    command = [Path(pyspark.__file__).parent / "bin" / "spark-submit", "--master", "local[2]"]
    command += [part for name, value in settings.items() for part in ("--conf", f"{name}={value}")]
    command += ["--class", "org.apache.spark.sql.connect.service.SparkConnectServer", "spark-internal"]
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        end = time.monotonic() + 120
        while not answers(port):
            assert server.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < end, (tmp_path / "log").read_text()
            time.sleep(0.2)
        done = subprocess.run(
            [sys.executable, "-c", CONNECT, str(flights[0]), str(port)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=400,
            check=False,
        )
        assert done.stdout.endswith("connected, equal\n"), done.stderr[-3000:]
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()
