"""Profiles of the mixed frame."""

import subprocess
import sys
import time

import barograph as bg
import polars as pl
import pytest
from frames import mixed

ROWS = 1_000_000


def test_profile(benchmark):
    frame = mixed(ROWS)
    benchmark.pedantic(bg.profile, (frame,), rounds=5, warmup_rounds=1)
    began = time.process_time()
    bg.profile(frame)
    benchmark.extra_info["M cells per CPU-s"] = frame.height * frame.width / (time.process_time() - began) / 1e6


def test_polars_describe(benchmark):
    benchmark.pedantic(mixed(ROWS).describe, rounds=2)


@pytest.mark.parametrize("how", ["frame", "path"])
def test_memory_does_not_grow_with_the_rows(benchmark, tmp_path, how):
    code = """
import sys
import barograph as bg, polars as pl


def peak():
    # Not getrusage: its peak is handed down by the process that started this one.
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) / 1024


bg.profile({"x": [1.0]})
frame = pl.read_parquet(sys.argv[1]) if sys.argv[2] == "frame" else sys.argv[1]
# The peak so far, the frame itself among it: what comes on top is ours, and polars' read-ahead for a path.
before = peak()
bg.profile(frame)
print(peak() - before)
"""
    path = tmp_path / "mixed.parquet"
    mixed(ROWS).write_parquet(path, row_group_size=100_000)

    def measure():
        return float(subprocess.run([sys.executable, "-c", code, str(path), how], capture_output=True, text=True, check=True).stdout)

    benchmark.extra_info["extra MB"] = benchmark.pedantic(measure, rounds=1)


def test_merge(benchmark):
    a, b = (bg.profile(mixed(20_000, seed)) for seed in (1, 2))
    benchmark(lambda: a + b)


def test_event_by_event_is_not_the_fast_path(benchmark):
    row = pl.DataFrame({"x": [1.0]})
    benchmark(bg.profile, row)
