"""Half an hour at 70 % of what a sidecar can take: memory stays flat and every event is counted. `python soak.py [MINUTES]`."""

from __future__ import annotations

import json
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import polars as pl
from barograph import _barograph
from sidecars import TOKEN, Sidecar


def load(sidecar: Sidecar, seconds: float, rate: float | None, seed: int) -> dict[str, float]:
    plan = {"address": f"127.0.0.1:{sidecar.port}", "token": TOKEN, "model": "m", "protocol": "arrow", "seconds": seconds, "seed": seed}
    found: dict[str, float] = json.loads(_barograph.sidecar_load(json.dumps(plan | ({"rate": rate} if rate else {}))))
    return found


def main(minutes: float) -> int:
    with tempfile.TemporaryDirectory(prefix="barograph-") as folder, Sidecar(Path(folder)) as sidecar:
        draw = np.random.default_rng(0)
        names = [f"c{at}" for at in range(20)]
        frame = {f"x{at}": draw.normal(size=10_000) for at in range(8)}
        learned = pl.DataFrame(frame | {"x8": draw.choice(names, 10_000), "x9": draw.random(10_000) < 0.5})
        sidecar.events("m", learned)
        first = load(sidecar, 10.0, None, 1)
        rate = 0.7 * first["events_accepted"] / first["seconds"]
        print(f"{rate / 0.7:,.0f} events/s at most; {rate:,.0f} for {minutes:g} minutes")
        samples: list[int] = []
        stop = threading.Event()

        def watch() -> None:
            while not stop.wait(5.0):
                samples.append(sidecar.get("/v1/models").json["server"]["memory_bytes"])

        thread = threading.Thread(target=watch)
        thread.start()
        began = time.monotonic()
        found = load(sidecar, 60.0 * minutes, rate, 2)
        stop.set()
        thread.join()
        half = len(samples) // 2
        early, late = (float(np.median(part)) / 2**20 for part in (samples[: half or 1], samples[half:]))
        counted = sidecar.model("m")["events"]
        sent = 10_000 + first["events_accepted"] + found["events_accepted"]
        print(
            f"{time.monotonic() - began:.0f} s: memory {early:.0f} MB in the first half, {late:.0f} MB in the second, "
            f"at most {max(samples) / 2**20:.0f}"
        )
        print(f"accepted {sent:,}, counted {counted:,}, p99 {1000 * found['p99']:.1f} ms")
        return int(counted != sent or late > 1.1 * early + 5 or max(samples) > 256 << 20)


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]) if len(sys.argv) > 1 else 30.0))
