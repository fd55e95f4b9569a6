"""Several processes of one machine count what one counts, also when one of them is killed."""

import functools
import os
import signal
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import barograph as bg
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from barograph.errors import BarographError, FrameError, IncompatibleError, InvalidArgumentError
from barograph.frames import scan
from barograph.scaling import leaves, processes
from barograph.scaling.pieces import error_in
from barograph.testing import check_engine

SCHEMA = bg.Schema([{"name": "x", "kind": "number", "role": "feature"}, {"name": "c", "kind": "category", "role": "feature"}])


@pytest.fixture
def files(tmp_path):
    rows = pl.DataFrame({"x": [float(at % 97) if at % 11 else None for at in range(9000)], "c": [f"n{at % 5}" for at in range(9000)]})
    for at in range(3):
        rows[at * 3000 : (at + 1) * 3000].write_parquet(tmp_path / f"part-{at}.parquet", row_group_size=500)
    return tmp_path, rows


def dies_half_way(folder, times, path):
    """Half of a file, then SIGKILL, as often as it is said."""
    table = pq.read_table(path)
    begun = Path(folder) / f"{Path(path).stem}.begun"
    with begun.open("a") as log:
        log.write(f"{os.getpid()}\n")
    attempt = len(begun.read_text().splitlines())

    def batches():
        first, *rest = table.to_batches(max_chunksize=1000)
        yield first
        if attempt <= times and path.endswith("part-1.parquet"):
            os.kill(os.getpid(), signal.SIGKILL)
        yield from rest

    return pa.RecordBatchReader.from_batches(table.schema, batches())


@pytest.mark.parametrize("start", ["spawn", "forkserver", "fork"])
def test_files_and_frames_give_the_bytes_of_one_process_however_workers_begin(files, start):
    folder, rows = files
    whole = bg.profile(rows, schema=SCHEMA).to_bytes()
    for source in (str(folder / "*.parquet"), folder, sorted(folder.glob("*.parquet")), rows):
        assert processes.profile(source, processes=2, start=start, schema=SCHEMA).to_bytes() == whole
    # One file, more workers: it is cut by rows.
    one = processes.profile(folder / "part-0.parquet", processes=2, start=start, schema=SCHEMA)
    assert one.to_bytes() == bg.profile(rows[:3000], schema=SCHEMA).to_bytes()


def test_the_laws_of_an_engine_hold_for_processes():
    check_engine(lambda paths, **settings: processes.profile(paths, processes=2, start="forkserver", **settings))


@pytest.mark.parametrize("start", ["spawn", "forkserver", "fork"])
def test_a_worker_killed_in_the_middle_of_its_leaf_costs_a_second_attempt_and_no_row(files, tmp_path, start):
    folder, rows = files
    reader = functools.partial(dies_half_way, str(tmp_path), 1)
    got = processes.profile(str(folder / "*.parquet"), processes=2, start=start, schema=SCHEMA, reader=reader)
    assert got.to_bytes() == bg.profile(rows, schema=SCHEMA).to_bytes()
    begun = {at: (tmp_path / f"part-{at}.begun").read_text().split() for at in (1, 2)}
    assert len(set(begun[1])) == 2
    assert len(begun[2]) == 1


def test_workers_that_keep_dying_are_given_up_by_saying_with_what(files, tmp_path):
    reader = functools.partial(dies_half_way, str(tmp_path), 99)
    with pytest.raises(BarographError, match=r"a worker died 3 times with .*part-1\.parquet: the last one was ended by SIGKILL"):
        processes.profile(str(files[0] / "*.parquet"), processes=1, start="forkserver", schema=SCHEMA, reader=reader, retries=2)


def test_what_is_wrong_in_a_worker_is_the_error_of_the_caller_and_names_the_file(files):
    folder, _ = files
    whole = (folder / "part-1.parquet").read_bytes()
    (folder / "part-1.parquet").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FrameError, match=r"part-1\.parquet could not be read"):
        processes.profile(folder, processes=2, start="forkserver", schema=SCHEMA)
    with pytest.raises(FrameError, match=r"no such file: .*nothing"):
        processes.profile(folder / "nothing", processes=2)
    with pytest.raises(FrameError, match=r"part-1\.parquet: the file could not be read"):
        processes.profile(str(folder / "part-*.parquet"), processes=1, start="forkserver", schema=SCHEMA, reader=scan)


def test_a_column_that_only_a_later_file_has_is_told(files):
    folder, rows = files
    rows[:10].with_columns(new=1).write_parquet(folder / "part-3.parquet")
    with pytest.raises(FrameError, match=r"part-3\.parquet: column 'new' is not in the schema that was inferred"):
        processes.profile(folder, processes=2, start="forkserver")


def test_workers_of_another_version_are_refused_by_naming_both(files, monkeypatch):
    monkeypatch.setattr(leaves._barograph, "__version__", "0.0.9")
    for source in files:
        with pytest.raises(IncompatibleError, match=r"the driver has barograph 0\.0\.9, this worker \d"):
            processes.profile(source, processes=1, start="forkserver", schema=SCHEMA)


def test_an_error_of_ours_is_found_in_the_trace_that_an_engine_makes_of_it():
    trace = "Traceback:\n{0}barograph.errors.FrameError: part-1: column 'x' is odd\n{0}hint: mend it\n\nThe above came of a task"
    for indent in ("", "    "):
        found = error_in(trace.format(indent))
        assert isinstance(found, FrameError)
        assert (found.message, found.hint) == ("part-1: column 'x' is odd", "mend it")
    assert error_in("ValueError: barograph.errors.FrameError: no") is None


def test_no_rows_are_an_empty_profile(files):
    _, rows = files
    assert processes.profile(rows[:0], processes=2, start="forkserver", schema=SCHEMA) == bg.profile(rows[:0], schema=SCHEMA)


def test_arguments_say_what_they_must_be(files):
    _, rows = files
    for wrong, message in (
        ({"processes": 0}, r"`processes` must be a whole number in \[1, 1024\], got 0"),
        ({"start": "thread"}, "`start` must be one of fork, spawn, forkserver, got 'thread'"),
        ({"retries": -1}, r"`retries` must be a whole number in \[0, 100\], got -1"),
        ({"start": "fork", "by": "c"}, "`by` needs threads"),
    ):
        with pytest.raises(InvalidArgumentError, match=message):
            processes.profile(rows, **wrong)


def test_segments_are_counted_by_processes_too(files):
    folder, _ = files
    segments = processes.profile(folder, processes=2, start="forkserver", schema=SCHEMA, by="c")
    assert {value: one.rows for value, one in segments.items()} == dict.fromkeys([f"n{at}" for at in range(5)], 1800)


def test_forked_workers_of_a_server_merge_into_the_monitor_that_saw_everything(tmp_path):
    rows = pl.DataFrame({"x": [float(at % 10) for at in range(2000)], "at": [datetime(2026, 1, 1, tzinfo=UTC)] * 2000})
    reference = bg.Reference(rows.select("x"))
    made = functools.partial(bg.Monitor, "m", reference=reference, window="1h", ticks="manual")
    alone, parent = made(), made()
    alone.observe_frame(rows, time="at")
    children = []
    events = list(rows.iter_rows(named=True))
    for worker in range(3):
        # As a prefork server does: after the monitor was made, while other threads run.
        quiet = threading.Event()
        thread = threading.Thread(target=quiet.wait)
        thread.start()
        child = os.fork()
        if child == 0:
            for row in events[worker::3]:
                parent.observe({"x": row["x"]}, time=row["at"])
            (tmp_path / f"{worker}.snapshot").write_bytes(parent.snapshot())
            os._exit(0)
        children.append(child)
        quiet.set()
        thread.join()
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]
    merged = processes.merge_monitors(sorted(tmp_path.glob("*.snapshot")))
    for monitor in (alone, merged):
        monitor.tick(rows["at"][0] + timedelta(hours=1))
    assert merged.counts()["events"] == alone.counts()["events"] == 2000
    assert merged.history().equals(alone.history())
    with pytest.raises(InvalidArgumentError, match="at least one"):
        processes.merge_monitors([])
