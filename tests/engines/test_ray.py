"""Ray on this machine: the profile of one process, whoever is killed; replicas of Serve that are counted once."""

import contextlib
import functools
import os
import re
import signal
import time

import barograph as bg
import pytest
from barograph.engines_bench import dies_half_way
from barograph.errors import BarographError, FrameError, IncompatibleError, InvalidArgumentError
from barograph.scaling import leaf, leaves, read_segments
from barograph.scaling import ray as engine
from barograph.scaling.deltas import Deltas
from barograph.scaling.deltas import Sidecar as Place
from barograph.testing import check_engine
from sidecars import TOKEN, Sidecar


@pytest.fixture(scope="module")
def ray():
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield ray
    ray.shutdown()


def test_the_laws_of_an_engine_hold_for_a_tree_of_tasks(ray):
    check_engine(functools.partial(engine.profile, tasks=5))


def test_a_worker_killed_in_its_leaf_is_made_good_by_a_second_attempt(ray, flights, tmp_path):
    folder, rows = flights
    reader = functools.partial(dies_half_way, str(tmp_path), "part-2.parquet")
    assert engine.profile(folder, reader=reader) == bg.profile(rows)
    assert (tmp_path / "killed").exists()
    assert len((tmp_path / "part-2.begun").read_text().split()) == 2


def test_workers_that_keep_dying_are_an_error(ray, flights, tmp_path):
    reader = functools.partial(dies_half_way, str(tmp_path), "part-2.parquet")
    with pytest.raises(BarographError, match="workers kept dying"):
        engine.profile(flights[0], reader=reader, retries=0)
    with pytest.raises(InvalidArgumentError, match="`retries`"):
        engine.profile(flights[0], retries=-1)


def test_a_dataset_is_counted_as_one_process_counts_it(ray, flights):
    folder, rows = flights
    dataset = ray.data.read_parquet([str(folder / f"part-{at}.parquet") for at in range(5)])
    whole = bg.profile(rows)
    assert engine.profile(dataset, schema=whole.schema) == whole
    segments = engine.profile(dataset, schema=whole.schema, by="origin")
    want = read_segments(leaf(rows, schema=whole.schema, by="origin"))
    assert {value: one.to_bytes() for value, one in segments.items()} == {value: one.to_bytes() for value, one in want.items()}


def test_workers_of_another_version_are_refused_by_naming_both(ray, flights, monkeypatch):
    folder, rows = flights
    schema = bg.profile(rows).schema
    refused = rf"the driver has barograph 0\.0\.9, this worker {re.escape(bg.__version__)}"
    monkeypatch.setattr(leaves._barograph, "__version__", "0.0.9")
    for source in (folder, ray.data.read_parquet([str(folder / "part-0.parquet")])):
        with pytest.raises(IncompatibleError, match=refused):
            engine.profile(source, schema=schema)


def test_a_column_that_a_file_lacks_is_null_in_it_and_a_half_written_file_is_named(ray, flights, tmp_path):
    folder, rows = flights
    schema = bg.profile(rows).schema
    rows[:1200].write_parquet(tmp_path / "a.parquet")
    rows[1200:2000].drop("carrier").write_parquet(tmp_path / "b.parquet")
    counted = engine.profile(tmp_path, schema=schema)
    assert (counted.rows, counted["carrier"].null_count) == (2000, 800 + rows["carrier"][:1200].null_count())
    whole = (folder / "part-0.parquet").read_bytes()
    (tmp_path / "b.parquet").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FrameError, match=r"b\.parquet"):
        engine.profile(tmp_path, schema=schema)


def test_replicas_of_serve_send_deltas_and_a_killed_one_loses_what_it_had_not_sent(ray, tmp_path):
    from ray import serve

    reference = bg.Reference({"x": [float(at % 10) for at in range(1000)]})
    with Sidecar(tmp_path) as sidecar:
        sidecar.request("PUT", "/v1/models/m", {})
        sidecar.request("PUT", "/v1/models/m/reference", reference.to_bytes(), "application/octet-stream")
        place = Place(f"http://127.0.0.1:{sidecar.port}", "m", TOKEN)

        @serve.deployment(num_replicas=2, ray_actor_options={"num_cpus": 0.1})
        class Model:
            def __init__(self):
                self.deltas = Deltas(place, reference=reference, interval=3600)

            def __call__(self, x):
                self.deltas.observe({"x": x})
                return 2 * x

            def flush(self, _):
                return os.getpid(), self.deltas.flush(60), self.deltas.counts()

            def die(self, pid):
                if os.getpid() == pid:
                    os.kill(pid, signal.SIGKILL)

        serve.start(http_options={"location": "NoServer"})
        handle = serve.run(Model.bind(), route_prefix=None)
        answers = [handle.remote(float(at % 10)) for at in range(300)]
        assert [answer.result() for answer in answers] == [2.0 * (at % 10) for at in range(300)]
        replicas = {}
        end = time.monotonic() + 60
        while sum(counts["acknowledged"] for counts in replicas.values()) < 300 and time.monotonic() < end:
            pid, done, counts = handle.flush.remote(None).result()
            assert done
            replicas[pid] = counts
        assert sum(counts["acknowledged"] for counts in replicas.values()) == sidecar.model("m")["events"] == 300
        # What comes after the last flush and before the kill is the stated loss: all of it, and nothing else.
        victim = max(replicas, key=lambda pid: replicas[pid]["observed"])
        lost = 0
        for at in range(50):
            handle.remote(float(at % 10)).result()
        for _ in range(50):
            # Whichever replica is asked: the victim dies of it, and does not answer.
            with contextlib.suppress(ray.exceptions.RayError):
                handle.die.remote(victim).result()
        observed = {}
        end = time.monotonic() + 60
        while time.monotonic() < end and len(observed) < 2:
            pid, done, counts = handle.flush.remote(None).result()
            if done:
                observed[pid] = counts
        assert victim not in observed
        survivors = sum(counts["acknowledged"] for pid, counts in observed.items() if pid in replicas)
        newcomers = sum(counts["acknowledged"] for pid, counts in observed.items() if pid not in replicas)
        lost = 350 - sidecar.model("m")["events"]
        assert sidecar.model("m")["events"] == replicas[victim]["acknowledged"] + survivors + newcomers
        assert 0 <= lost <= 50
        serve.shutdown()
