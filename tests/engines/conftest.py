"""Engines as tests need them: two executors on this machine, workers that are killed, files of flights."""

import os
import sys
from pathlib import Path

import polars as pl
import pytest
from barograph.engines_bench import local_cluster

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
    # JVMs that live for a minute: what they would compile thoroughly is never used.
    os.environ["JAVA_TOOL_OPTIONS"] = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"
    session = local_cluster(tmp_path_factory.mktemp("spark"))
    yield session
    session.stop()
