"""Engines as tests need them: two executors on this machine, workers that are killed, files of flights."""

import os
import shutil
import sys
from pathlib import Path

import polars as pl
import pytest

ROOT = Path(__file__).parents[2]
FLIGHTS = ROOT / "python" / "barograph" / "data" / "flights_nyc_2013.parquet"
sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(ROOT / "tests" / "e2e"))
# What is imported here has to be found by the workers, too.
os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), str(ROOT / "python")])


@pytest.fixture(scope="session")
def flights(tmp_path_factory):
    """Six files of flights, one of them without rows, and the frame they are."""
    folder = tmp_path_factory.mktemp("flights")
    rows = pl.read_parquet(FLIGHTS).head(120_000)
    for at, start in enumerate(range(0, 120_000, 24_000)):
        rows[start : start + 24_000].write_parquet(folder / f"part-{at}.parquet", row_group_size=6000)
    rows[:0].write_parquet(folder / "part-5.parquet")
    return folder, rows


@pytest.fixture(scope="session")
def spark(tmp_path_factory):
    """Two executors of one core, each a process of its own: `local[2]` would not try a task again."""
    assert shutil.which("java"), "Spark needs Java 17, and there is no `java` on the PATH"
    from pyspark.sql import SparkSession

    os.environ["PYSPARK_PYTHON"] = sys.executable
    # Executors keep their logs in the folder they were started from.
    os.environ["SPARK_WORKER_DIR"] = str(tmp_path_factory.mktemp("workers"))
    os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"
    session = (
        SparkSession.builder.master("local-cluster[2,1,1024]")
        .appName("barograph")
        .config("spark.ui.enabled", "false")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.executorEnv.PYTHONPATH", os.environ["PYTHONPATH"])
        .config("spark.sql.shuffle.partitions", "4")
        .config("spark.sql.warehouse.dir", str(tmp_path_factory.mktemp("warehouse")))
        .config("spark.log.level", "ERROR")
        .getOrCreate()
    )
    yield session
    session.stop()
