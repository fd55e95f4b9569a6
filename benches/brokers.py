"""What a consumer of each broker costs: `make bench-brokers`, or `python benches/brokers.py [WORD ...]` for some rows.

Each row fills a topic of a real broker on loopback, then starts one consumer and one sidecar, and reads the consumer's own CPU time from
/proc once everything has been counted and acknowledged. Start of the process included; the sidecar's and the broker's time is not.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests/brokers"), str(ROOT / "tests/e2e")]

from consumers import Consumer  # noqa: E402
from servers import BROKERS, Server, until  # noqa: E402
from sidecars import arrow, sidecar  # noqa: E402

TARGET = 0.5e6
ROWS = 1000
"""Events of a message that holds many."""


def frame(rows: int, seed: int) -> pl.DataFrame:
    """Ten values an event, as the sidecar's own bench has them."""
    draw = np.random.default_rng(seed)
    columns = {f"x{at}": draw.normal(size=rows) for at in range(7)}
    return pl.DataFrame(columns | {"k": draw.choice(["a", "b", "c", "d"], rows), "f": draw.random(rows) < 0.5, "_score": draw.random(rows)})


def payloads(form: str, events: int) -> tuple[list[bytes], int]:
    """Messages, and how many events they hold."""
    if form == "single":
        lines = [json.dumps(row).encode() for row in frame(1000, 1).to_dicts()]
        return [lines[at % 1000] for at in range(events)], events
    frames = [frame(ROWS, seed) for seed in range(20)]
    made = [arrow(one) if form == "arrow" else json.dumps(one.to_dict(as_series=False)).encode() for one in frames]
    return [made[at % 20] for at in range(events // ROWS)], events // ROWS * ROWS


def cpu_seconds(process: int) -> float:
    """User and system time of a process and its threads."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(broker: Server, form: str, events: int, folder: Path) -> tuple[float, float, int, int]:
    """CPU seconds, seconds, events and peak memory of one consumer."""
    topic = f"bench{form}"
    broker.create(topic)
    messages, total = payloads(form, events)
    for begin in range(0, len(messages), 20_000):
        broker.produce(topic, messages[begin : begin + 20_000])
    with sidecar(folder) as running:
        consumer = Consumer(folder / "consumer", broker, topic, to=[f"http://127.0.0.1:{running.port}"])
        try:
            began = time.monotonic()
            until(lambda: consumer.counts().get("accepted", 0) >= total and consumer.counts().get("lag") == 0, 300, consumer.log)
            took, cpu = time.monotonic() - began, cpu_seconds(consumer.process.pid)
            status = Path(f"/proc/{consumer.process.pid}/status").read_text()
            peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
            consumer.stop()
        finally:
            consumer.close()
        counted = next(model["events"] for model in running.get("/v1/models").json["models"])
        assert counted == total, f"{counted} events were counted, {total} were sent"
    return cpu, took, total, peak // 1024


PLANS = {
    "kafka": [("arrow", 10_000_000), ("columns", 4_000_000), ("single", 400_000)],
    "redis": [("arrow", 2_000_000), ("single", 200_000)],
    "nats": [("arrow", 2_000_000), ("single", 200_000)],
    "rabbitmq": [("arrow", 2_000_000), ("single", 50_000)],
}
SHOWN = {
    "arrow": f"Arrow, {ROWS} events a message",
    "columns": f"columns of JSON, {ROWS} events a message",
    "single": "one event of JSON a message",
}


def main(words: list[str]) -> int:
    load = os.getloadavg()[0]
    processor = next(
        line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")
    )
    shared = f"{os.cpu_count()} cores shared with broker and sidecar"
    print(f"On {processor}, {shared}, Python {platform.python_version()}; load average before: {load:.1f}.\n")
    print("| broker | messages | events/s per core of the consumer | target | events/s | peak memory, MB |")
    print("|---|---|---|---|---|---|")
    missed = False
    for kind in BROKERS:
        plans = [(form, events) for form, events in PLANS[kind.name] if not words or {kind.name, form} & set(words)]
        if not plans:
            continue
        if kind.missing():
            print(f"| {kind.name} | needs {kind.missing()} | | | | |")
            continue
        with tempfile.TemporaryDirectory() as place:
            broker = kind(Path(place) / "broker")
            try:
                broker.start()
                for form, events in plans:
                    folder = Path(place) / form
                    folder.mkdir()
                    cpu, took, total, peak = measure(broker, form, events, folder)
                    target = TARGET if kind.name == "kafka" and form != "single" else None
                    missed = missed or (target is not None and total / cpu < target)
                    goal = "" if target is None else f"≥ {target:,.0f}"
                    print(f"| {kind.name} | {SHOWN[form]} | {total / cpu:,.0f} | {goal} | {total / took:,.0f} | {peak} |", flush=True)
            finally:
                broker.close()
    return int(missed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
