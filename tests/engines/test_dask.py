"""Dask on two workers of this machine: the profile of one process, whoever is killed."""

import functools
import re
from pathlib import Path

import barograph as bg
import pytest
from barograph.engines_bench import dies_half_way
from barograph.errors import FrameError, IncompatibleError, InvalidArgumentError
from barograph.scaling import dask as engine
from barograph.scaling import leaf, leaves, read_segments
from barograph.testing import check_engine
from pages import blocks

PAGE = Path(__file__).parents[2] / "docs" / "guides" / "dask.md"


@pytest.fixture(scope="module")
def client():
    from distributed import Client, LocalCluster

    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None, host="127.0.0.1") as cluster, Client(cluster) as client:
        yield client


def test_the_laws_of_an_engine_hold_for_tasks(client):
    check_engine(functools.partial(engine.profile, tasks=5))


def test_the_laws_hold_without_a_cluster():
    check_engine(functools.partial(engine.profile, tasks=3), seed=1)


def test_a_worker_killed_in_its_leaf_is_made_good_by_a_second_attempt(client, flights, tmp_path):
    folder, rows = flights
    reader = functools.partial(dies_half_way, str(tmp_path), "part-2.parquet")
    assert engine.profile(folder, reader=reader) == bg.profile(rows)
    assert (tmp_path / "killed").exists()
    assert len((tmp_path / "part-2.begun").read_text().split()) == 2


def test_workers_of_another_version_are_refused_by_naming_both(client, flights, monkeypatch):
    import dask.dataframe as frames

    folder, rows = flights
    schema = bg.profile(rows).schema
    refused = rf"the driver has barograph 0\.0\.9, this worker {re.escape(bg.__version__)}"
    monkeypatch.setattr(leaves._barograph, "__version__", "0.0.9")
    for source in (folder, frames.read_parquet(str(folder / "*.parquet"))):
        with pytest.raises(IncompatibleError, match=refused):
            engine.profile(source, schema=schema)


def test_files_of_a_dataframe_that_lack_a_column_or_are_half_written_are_errors(client, flights, tmp_path):
    import dask.dataframe as frames

    folder, rows = flights
    schema = bg.profile(rows).schema
    rows[:1200].write_parquet(tmp_path / "a.parquet")
    rows[1200:2000].drop("carrier").write_parquet(tmp_path / "b.parquet")
    with pytest.raises(Exception, match="carrier"):
        engine.profile(frames.read_parquet(str(tmp_path)), schema=schema)
    whole = (folder / "part-0.parquet").read_bytes()
    (tmp_path / "b.parquet").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(Exception, match=r"[Pp]arquet"):
        engine.profile(frames.read_parquet(str(tmp_path)), schema=schema)


def test_a_dataframe_is_reduced_to_the_profile_of_one_process(client, flights):
    import dask.dataframe as frames

    folder, rows = flights
    frame = frames.read_parquet(str(folder / "*.parquet"))
    whole = bg.profile(rows)
    reference = bg.Reference(rows.head(20_000))
    assert engine.profile(frame, split_every=2) == whole
    assert engine.profile(frame, reference=reference) == bg.profile(rows, reference=reference)
    segments = engine.profile(frame, by="origin")
    want = read_segments(leaf(rows, schema=whole.schema, by="origin"))
    assert {value: one.to_bytes() for value, one in segments.items()} == {value: one.to_bytes() for value, one in want.items()}
    with pytest.raises(FrameError, match="`by` names column 'nope'"):
        engine.profile(frame, by="nope")
    with pytest.raises(InvalidArgumentError, match="'share' is Float64"):
        engine.profile(frame.assign(share=frame["dep_delay_min"] / 60.0), by="share")


def test_the_blocks_of_the_page_run(client, flights):
    folder, rows = flights
    names = {"reference": bg.Reference(rows.head(20_000))}
    for block in blocks(PAGE):
        exec(compile(block.replace('"/lake/flights', f'"{folder}'), str(PAGE), "exec"), names)
    assert names["profile"] == bg.profile(rows)
    assert set(names["segments"]) == {"EWR", "JFK", "LGA"}
