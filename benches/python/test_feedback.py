"""The label ledger: ten million predictions wait, labels come."""

import time
from pathlib import Path

import barograph as bg
import numpy as np
import polars as pl

PENDING, LABELS = 10_000_000, 1_000_000
START = np.datetime64("2026-01-01", "us")


def peak():
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1e3


def test_join_against_ten_million_pending(benchmark):
    loop = bg.FeedbackLoop()
    for first in range(0, PENDING, LABELS):
        ids = np.arange(first, first + LABELS)
        frame = {"id": ids, "at": START + ids.astype("m8[ms]"), "p": np.ones(LABELS, np.int8), "s": np.full(LABELS, 0.5)}
        loop.predictions(pl.DataFrame(frame), id="id", time="at", prediction="p", score="s")
    ids = iter(np.random.default_rng(0).permutation(PENDING).reshape(-1, LABELS))
    spent = []

    def join():
        frame = pl.DataFrame({"id": next(ids), "y": np.ones(LABELS, np.int8), "at": np.full(LABELS, START)})
        began = time.process_time()
        loop.labels(frame, id="id", label="y", time="at")
        spent.append(time.process_time() - began)

    benchmark.pedantic(join, rounds=4)
    assert loop.counts()["joined"] == len(spent) * LABELS
    benchmark.extra_info.update(
        {"M labels per CPU-s": LABELS / np.median(spent) / 1e6, "ledger MB": loop.bytes / 1e6, "process MB": peak()}
    )
