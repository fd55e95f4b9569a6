"""What only queues have: messages are told apart by the ids that their producers gave them."""

from __future__ import annotations

import uuid
from pathlib import Path

from consumers import Consumer
from servers import Server, until
from sidecars import sidecar

KINDS = ("rabbitmq",)


def test_a_message_without_an_id_is_a_dead_letter_unless_it_may_count_twice(broker: Server, tmp_path: Path) -> None:
    queue = f"q{uuid.uuid4().hex[:8]}"
    broker.create(queue)
    broker.create(f"{queue}dead")
    messages = [(b'{"x": %d}' % at, {"message-id": "" if at % 4 == 0 else f"id-{at}"}) for at in range(40)]
    with sidecar(tmp_path) as running:
        for model, options, accepted in (("strict", ["--dead-letter", f"{queue}dead"], 30), ("loose", ["--at-least-once"], 40)):
            broker.produce(queue, messages)
            consumer = Consumer(tmp_path / model, broker, queue, *options, to=[f"http://127.0.0.1:{running.port}"], model=model)
            try:
                until(lambda: consumer.counts().get("consumed") == 40 and consumer.counts()["lag"] == 0, 60, consumer.log)  # noqa: B023
                counts = consumer.stop()
            finally:
                consumer.close()
            assert (counts["accepted"], counts["dead_lettered"]) == (accepted, 40 - accepted)
    found = broker.dead(f"{queue}dead")
    assert {body for body, _ in found} == {body for body, beside in messages if not beside["message-id"]}
    assert all("has no message_id" in beside["barograph-reason"] for _, beside in found)


def test_an_id_that_is_published_twice_counts_once_and_one_with_another_body_is_a_dead_letter(broker: Server, tmp_path: Path) -> None:
    queue = f"q{uuid.uuid4().hex[:8]}"
    broker.create(queue)
    broker.create(f"{queue}dead")
    broker.produce(queue, [(b'{"x": 1}', {"message-id": "a"})] * 3 + [(b'{"x": 2}', {"message-id": "a"})])
    with sidecar(tmp_path) as running:
        consumer = Consumer(tmp_path / "c", broker, queue, "--dead-letter", f"{queue}dead", to=[f"http://127.0.0.1:{running.port}"])
        try:
            until(lambda: consumer.counts().get("consumed") == 4 and consumer.counts()["lag"] == 0, 60, consumer.log)
            counts = consumer.stop()
        finally:
            consumer.close()
        assert running.model("m")["events"] == 1
    assert (counts["accepted"], counts["repeated"], counts["dead_lettered"]) == (1, 2, 1)
    ((_, beside),) = broker.dead(f"{queue}dead")
    assert "came with another body before" in beside["barograph-reason"]
