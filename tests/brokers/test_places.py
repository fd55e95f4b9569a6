"""What is read that cannot be, or is made anew."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

from consumers import Consumer
from servers import Server, until
from sidecars import sidecar

KINDS = ("redis", "nats", "kafka")


def test_a_stream_that_is_made_anew_is_counted_from_its_beginning(broker: Server, tmp_path: Path) -> None:
    topic = f"t{uuid.uuid4().hex[:8]}"
    with sidecar(tmp_path) as running:

        def count() -> int:
            return sum(model["events"] for model in running.get("/v1/models").json["models"])

        for life in range(2):
            broker.create(topic)
            consumer = Consumer(tmp_path / str(life), broker, topic, to=[f"http://127.0.0.1:{running.port}"])
            try:
                broker.produce(topic, [b'{"x": %d}' % at for at in range(500)])
                until(lambda: count() >= 500 * (life + 1) and consumer.counts().get("lag") == 0, 60, consumer.log)  # noqa: B023
                consumer.stop()
            finally:
                consumer.close()
            assert count() == 500 * (life + 1)
            _delete(broker, topic)


def _delete(broker: Any, topic: str) -> None:
    if broker.name == "redis":
        with broker.client() as client:
            client.delete(topic)
    elif broker.name == "nats":
        broker._with(lambda stream: stream.delete_stream(topic))
    else:
        admin = broker.admin()
        admin.delete_topics([topic])[topic].result(30)
        until(lambda: topic not in broker.admin().list_topics(timeout=5).topics)


def test_what_is_no_stream_is_told(broker: Server, tmp_path: Path) -> None:
    if broker.name == "kafka":
        return
    topic = f"t{uuid.uuid4().hex[:8]}"
    _spoil(broker, topic)
    consumer = Consumer(tmp_path, broker, topic, to=["http://127.0.0.1:1"])
    try:
        assert consumer.process.wait(30) == 2
        assert ("retention" if broker.name == "nats" else "no stream") in consumer.log()
    finally:
        consumer.close()


def _spoil(broker: Any, topic: str) -> None:
    if broker.name == "redis":
        with broker.client() as client:
            client.set(topic, "x")
        return
    from nats.js.api import RetentionPolicy, StreamConfig

    config = StreamConfig(name=topic, subjects=[topic], retention=RetentionPolicy.WORK_QUEUE)
    broker._with(lambda stream: stream.add_stream(config))
