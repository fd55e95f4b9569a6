"""Every message of a real broker is counted once, whatever is killed."""

from __future__ import annotations

import functools
import json
import os
import signal
import threading
import time
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from consumers import Consumer, Gate
from servers import Server, until
from sidecars import Sidecar, arrow, sidecar

GONE_SECONDS = float(os.environ.get("BAROGRAPH_GONE", "5"))


def events(count: int, seed: str) -> list[bytes]:
    """Single events, each another."""
    return [
        json.dumps({"_id": f"{seed}-{at}", "x": at * 0.5, "kind": "abc"[at % 3], "_score": at % 100 / 100}).encode() for at in range(count)
    ]


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
    total, few, producers = 12_000, 240, 3
    consumers: list[Consumer] = []
    with sidecar(tmp_path) as running:
        gate = Gate(running.port, 2, lambda: consumers[0].kill())
        rest = (total // 2 - few) // producers
        threads = [threading.Thread(target=broker.produce, args=(topic, events(rest, f"{seed}"))) for seed in range(producers)]
        try:
            # Too few for a full body: what was sent and not acknowledged is followed by more when it comes again.
            broker.produce(topic, events(few, "few"))
            consumers += [Consumer(tmp_path / "0", broker, topic, to=[gate.url])]
            assert gate.sprung.wait(60), consumers[0].log()
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            # The second and third take over what the first had sent, and not acknowledged.
            consumers += [Consumer(tmp_path / str(at), broker, topic, to=[gate.url]) for at in (1, 2)]
            until(lambda: counted(running) > total // 4, 90, lambda: consumers[1].log())
            running.kill()
            broker.produce(topic, events(total // 2, "late"))
            running.start()
            try:
                until(lambda: counted(running) >= total, 120)
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


def stands_still(consumer: Consumer, before: dict[str, int]) -> bool:
    """Whether it has told of new counts since the last time, and taken nothing meanwhile."""
    counts = consumer.counts()
    still = before.get("consumed") == counts["consumed"] and before.get("retried", 0) < counts["retried"]
    before.update(counts)
    return still


def settled(running: Sidecar, total: int, consumers: list[Consumer], model: str = "m") -> None:
    """Waits until everything is counted and acknowledged."""
    try:
        until(lambda: counted(running, model) >= total, 120)
        until(lambda: all(one.counts().get("on_the_way") == one.counts().get("lag") == 0 for one in consumers), 60)
    except AssertionError:
        raise AssertionError(f"{counted(running, model)} of {total}: {[one.log()[-3000:] for one in consumers]}") from None


def test_a_broker_that_is_gone_and_comes_back_costs_nothing_and_doubles_nothing(
    broker: Server, topic: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    total = 6_000
    if broker.name == "rabbitmq":
        # Killed soon after it has made a quorum queue, RabbitMQ 3.10 may come back without a leader for it, and then finds none.
        topic += "-classic"
        broker.create(topic)
    with sidecar(tmp_path) as running:
        broker.produce(topic, events(total // 2, "before"))
        consumers = [Consumer(tmp_path / str(at), broker, topic, to=[url(running)]) for at in range(2)]
        try:
            until(lambda: counted(running) > total // 8, 60, lambda: consumers[0].log())
            broker.end(signal.SIGKILL)
            time.sleep(GONE_SECONDS)
            # One that begins while there is no broker waits for it.
            consumers.append(Consumer(tmp_path / "late", broker, topic, to=[url(running)]))
            until(lambda: "again_seconds" in consumers[2].log(), 60, consumers[2].log)
            assert all(one.process.poll() is None for one in consumers), [one.log() for one in consumers]
            broker.start()
            broker.produce(topic, events(total // 2, "after"))
            settled(running, total, consumers)
            for one in consumers:
                one.stop()
        finally:
            for one in consumers:
                one.close()
        assert counted(running) == total
        with capsys.disabled():
            print(f"\n{broker.name}: killed and gone for {GONE_SECONDS:.0f} s: consumed {total} = counted {counted(running)}")


def test_consumers_that_come_and_go_while_messages_arrive_count_each_once(broker: Server, topic: str, tmp_path: Path) -> None:
    total = 0
    enough = threading.Event()
    consumers: list[Consumer] = []
    with sidecar(tmp_path) as running:

        def produce() -> None:
            # For as long as it takes: how soon a process begins is the machine's business.
            nonlocal total
            while not enough.is_set():
                broker.produce(topic, events(500, str(total)))
                total += 500
                enough.wait(0.15)

        thread = threading.Thread(target=produce)
        try:
            consumers.append(Consumer(tmp_path / "0", broker, topic, to=[url(running)]))
            thread.start()
            until(lambda: counted(running) > 500, 60, lambda: consumers[0].log())
            consumers += [Consumer(tmp_path / str(at), broker, topic, to=[url(running)]) for at in (1, 2)]
            until(
                lambda: all(one.counts().get("consumed", 0) > 0 for one in consumers), 60, lambda: [one.log()[-2000:] for one in consumers]
            )
            left = consumers[0].stop()
            until(lambda: sum(one.counts().get("consumed", 0) for one in consumers[1:]) > 2000, 60, consumers[1].log)
            enough.set()
            thread.join()
            settled(running, total, consumers[1:])
            told = [left, *(one.stop() for one in consumers[1:])]
        finally:
            enough.set()
            thread.join()
            for one in consumers:
                one.close()
        assert counted(running) == total
        # Whoever leaves in order leaves nothing that has to be sent again.
        assert sum(counts["accepted"] for counts in told) == total
        assert sum(counts["repeated"] for counts in told) == 0, told


def test_a_poisoned_message_goes_to_the_dead_letters_with_its_reason_and_the_others_count(
    broker: Server, topic: str, tmp_path: Path
) -> None:
    graves = f"{topic}dead"
    broker.create(graves)
    stream = arrow(pl.DataFrame({"x": [0.5] * 50, "kind": ["a"] * 50, "_score": [0.1] * 50}))
    later = (datetime.now(UTC) + timedelta(days=400)).isoformat()
    poison = {
        b"\x00\x01not json": "neither JSON nor an Arrow stream",
        b'{"x": 1.0, "kind": ': "",
        b'{"x": 1.0, "_id": {"no": "id"}}': "`_id` must be",
        json.dumps({"x": 1.0, "_time": later}).encode(): "more than a day ahead",
        stream[: len(stream) // 2]: "",
    }
    good: list[bytes] = [*events(300, "good"), stream, stream]
    messages = [*good[:150], *poison, *good[150:]]
    with sidecar(tmp_path) as running:
        consumer = Consumer(tmp_path / "0", broker, topic, "--dead-letter", broker.grave(graves), to=[url(running)])
        try:
            broker.produce(topic, messages)
            settled(running, 400, [consumer])
            counts = consumer.stop()
        finally:
            consumer.close()
        assert counted(running) == 400
        assert counts["dead_lettered"] == len(poison), consumer.log()
        assert counts["consumed"] == len(messages)
        found = broker.dead(graves)
        assert {body for body, _ in found} == set(poison)
        for body, beside in found:
            reason, origin = (next(value for key, value in beside.items() if key.endswith(what)) for what in ("reason", "origin"))
            assert reason, beside
            assert poison[body] in reason
            assert topic in origin
        # What people read has the reason, and nothing of the message.
        warned = [line for line in consumer.lines() if line["message"] == "a message cannot be counted"]
        assert len(warned) == len(poison)
        assert "not json" not in consumer.log()


def test_every_form_of_a_message_counts_its_events_and_labels_find_them(broker: Server, topic: str, tmp_path: Path) -> None:
    truths = f"{topic}labels"
    broker.create(truths)
    frame = pl.DataFrame({"_id": [f"a{at}" for at in range(200)], "x": [0.5] * 200, "_score": [0.25, 0.75] * 100})
    rows = frame.head(40).with_columns(pl.col("_id") + "r")
    columns = frame.head(30).with_columns(pl.col("_id") + "c").to_dict(as_series=False)
    lines = "".join(json.dumps(row) + "\n" for row in frame.head(20).with_columns(pl.col("_id") + "n").to_dicts()).encode()
    cloud = {"specversion": "1.0", "id": "1", "source": "/s", "type": "org.kubeflow.serving.inference.request"}
    request, response = (
        (
            json.dumps(content).encode(),
            {f"ce-{key}": value for key, value in (cloud | {"type": f"org.kubeflow.serving.inference.{side}"}).items()},
        )
        for side, content in (("request", {"instances": [[1.0]]}), ("response", {"predictions": [1]}))
    )
    messages = [
        *(arrow(part) for part in frame.iter_slices(50)),
        (json.dumps(rows.to_dicts()).encode(), {"content-type": "application/json"}),
        json.dumps(columns).encode(),
        (lines, {"content-type": "application/x-ndjson"}),
        json.dumps({"_id": "e1", "x": 1.0, "_score": 0.5}, indent=2).encode(),
        (request[0], request[1] | {"content-type": "application/json"}),
        (response[0], response[1] | {"content-type": "application/json"}),
    ]
    total = 200 + 40 + 30 + 20 + 1 + 1
    with sidecar(tmp_path) as running:
        assert running.request("PUT", "/v1/models/m", {"task": "binary", "learn": {"events": 100}}).status == 201
        consumer = Consumer(tmp_path / "0", broker, topic, "--labels-topic", truths, to=[url(running)])
        try:
            broker.produce(topic, messages)
            broker.produce(
                truths, [arrow(frame.select("_id", _label=pl.lit(1))), *(b'{"_id": "e%d", "_label": 0}' % at for at in range(3))]
            )
            settled(running, total, [consumer])
            counts = consumer.stop()
        finally:
            consumer.close()
        assert counted(running) == total
        assert counts["accepted"] - 203 in (total, total + 1), counts  # A request and its response are two that make one event.
        assert counts["refused"] == counts["dropped"] == 0
        assert running.model("m")["labels"] == 203, running.model("m")


def test_with_two_sidecars_messages_that_come_again_meet_the_one_that_counted_them(broker: Server, topic: str, tmp_path: Path) -> None:
    total = 4_000
    consumers: list[Consumer] = []
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with sidecar(tmp_path / "a") as one, sidecar(tmp_path / "b") as other:
        gates = [Gate(one.port, 3, lambda: consumers[0].kill()), Gate(other.port, -1, lambda: None)]
        to = [gate.url for gate in gates]
        try:
            consumers.append(Consumer(tmp_path / "0", broker, topic, to=to))
            broker.produce(topic, events(total // 2, "x"))
            assert gates[0].sprung.wait(60), consumers[0].log()
            consumers += [Consumer(tmp_path / str(at), broker, topic, to=to) for at in (1, 2)]
            broker.produce(topic, events(total // 2, "y"))
            until(lambda: counted(one) + counted(other) >= total, 90, lambda: [it.log()[-2000:] for it in consumers])
            until(lambda: all(it.counts().get("on_the_way") == it.counts().get("lag") == 0 for it in consumers[1:]), 60)
            told = [it.stop() for it in consumers[1:]]
        finally:
            for it in consumers:
                it.close()
            for gate in gates:
                gate.close()
        assert counted(one) + counted(other) == total
        assert counted(one) > 0
        assert counted(other) > 0
        assert sum(counts["repeated"] for counts in told) > 0


def test_a_sidecar_that_is_not_there_leaves_messages_at_the_broker_and_not_in_memory(broker: Server, topic: str, tmp_path: Path) -> None:
    frame = pl.DataFrame({f"x{at}": [0.1 * row for row in range(1000)] for at in range(12)})
    messages = [arrow(frame)] * 2000
    running = Sidecar(tmp_path)
    consumer = Consumer(tmp_path / "0", broker, topic, "--memory", "32MB", to=[url(running)])
    try:
        for begin in range(0, len(messages), 100):
            broker.produce(topic, messages[begin : begin + 100])
        until(lambda: consumer.counts().get("retried", 0) > 4, 60, consumer.log)
        until(functools.partial(stands_still, consumer, {}), 60, consumer.log, pause=0.5)
        status = Path(f"/proc/{consumer.process.pid}/status").read_text()
        peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) >> 10
        held = consumer.counts()["on_the_way"]
        with running:
            settled(running, 2_000_000, [consumer])
            counts = consumer.stop()
            assert counted(running) == 2_000_000
    finally:
        consumer.close()
    assert len(messages) * len(messages[0]) > 180 << 20
    assert peak < 150, f"{peak} MB, {held} messages on their way"
    assert counts["repeated"] == 0
