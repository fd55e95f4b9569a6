"""Every message of a real broker is counted once, whatever is killed."""

from __future__ import annotations

import json
import signal
import threading
import time
import uuid
from pathlib import Path

import polars as pl
import pytest
from consumers import Consumer, Gate
from servers import Server, until
from sidecars import Sidecar, arrow, sidecar


def events(count: int, seed: str) -> list[bytes]:
    """Single events, each another."""
    return [json.dumps({"_id": f"{seed}-{at}", "x": at * 0.5, "kind": "abc"[at % 3], "_score": at % 100 / 100}).encode() for at in range(count)]


def counted(running: Sidecar, model: str = "m") -> int:
    models = running.get("/v1/models").json["models"]
    return sum(found["events"] for found in models if found["name"] == model)


def url(running: Sidecar) -> str:
    return f"http://127.0.0.1:{running.port}"


@pytest.fixture
def topic(broker: Server) -> str:
    name = f"t{uuid.uuid4().hex[:12]}"
    broker.create(name)
    return name


def test_three_consumers_one_killed_before_it_acknowledges_and_a_killed_sidecar_count_each_event_once(
    broker: Server, topic: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    total, producers = 12_000, 3
    consumers: list[Consumer] = []
    with sidecar(tmp_path) as running:
        gate = Gate(running.port, 5, lambda: consumers[0].kill())
        threads = [
            threading.Thread(target=broker.produce, args=(topic, events(total // 2 // producers, f"{seed}"))) for seed in range(producers)
        ]
        try:
            consumers += [Consumer(tmp_path / "0", broker, topic, to=[gate.url])]
            for thread in threads:
                thread.start()
            assert gate.sprung.wait(60), consumers[0].log()
            for thread in threads:
                thread.join()
            # The second and third take over what the first had sent, and not acknowledged.
            consumers += [Consumer(tmp_path / str(at), broker, topic, to=[gate.url]) for at in (1, 2)]
            until(lambda: counted(running) > total // 4, 90, lambda: consumers[1].log())
            running.kill()
            broker.produce(topic, events(total // 2, "late"))
            running.start()
            try:
                until(lambda: counted(running) >= total, 90)
            except AssertionError:
                raise AssertionError(f"{counted(running)} of {total}: {[one.log()[-3000:] for one in consumers]}") from None
            # The broker has been told of everything, the killed one's messages too.
            until(lambda: all(one.counts().get("on_the_way") == one.counts().get("lag") == 0 for one in consumers[1:]), 60)
            told = [one.stop() for one in consumers[1:]]
        finally:
            for one in consumers:
                one.close()
            gate.close()
        assert counted(running) == total
        repeated = sum(counts["repeated"] for counts in told)
        with capsys.disabled():
            print(f"\n{broker.name}: consumed {total} = counted {counted(running)}; {repeated} came again and counted once")
        # What the killed one had sent came again.
        assert repeated > 0
