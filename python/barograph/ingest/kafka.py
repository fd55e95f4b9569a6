"""Kafka, by a consumer group with cooperative rebalances.

A partition has one span on its way. Before it is sent its end is written into the metadata of the group's committed offset, so whoever
gets the partition next sends the same messages in the same bodies. The offset moves once a sidecar has taken the span, and the same
commit writes down the next one. Bodies are numbered by offset, in a stream that is named after cluster, topic (its id: a topic that is
made anew is another one), group and partition.

<https://kafka.apache.org/documentation/#consumerconfigs>, <https://github.com/confluentinc/librdkafka/blob/master/CONFIGURATION.md>
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from confluent_kafka import OFFSET_INVALID, Consumer, KafkaError, KafkaException, Producer, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient

from barograph.errors import InvalidArgumentError
from barograph.ingest.delivery import Span, digest
from barograph.ingest.messages import Dead, Message
from barograph.ingest.settings import BrokerGone, Settings

if TYPE_CHECKING:
    from barograph.ingest.pump import Pump

__all__ = ["make"]

_SPAN_BYTES = 8 << 20
_SPAN_MESSAGES = 10_000
_READ_BYTES = 4 << 20
"""What is read at once, about."""
_MOST_ALONE = 100
"""Refused bodies of a span that the metadata has room for (4096 bytes); what is refused beyond them waits for the next span."""
_SETTLE_SECONDS = 10.0
_MARK = "barograph1"
_OURS = ("group.id", "enable.auto.commit", "enable.auto.offset.store", "partition.assignment.strategy", "enable.partition.eof")
_PRODUCER = (
    "bootstrap.",
    "security.",
    "sasl.",
    "ssl.",
    "socket.",
    "broker.",
    "client.",
    "message.max.",
    "metadata.",
    "enable.ssl",
    "https.",
)
_LOG = logging.getLogger("barograph.ingest.kafka")


@dataclass
class _Written:
    """A span that somebody wrote down before and did not acknowledge."""

    end: int
    to: str
    alone: set[int]


@dataclass(eq=False)
class _Partition:
    """A partition that is ours."""

    topic: str
    number: int
    stream: str
    done: int | None
    """Everything before it has been acknowledged; None until the first message of a new group shows where it begins."""
    written: _Written | None
    moved: bool = False
    """Whether the broker has still to be told of `done`."""
    span: Span | None = None
    end: int = 0
    declared: bool = False
    """Whether the broker knows of the span as it is."""
    waiting: deque[Message] = field(default_factory=deque)
    size: int = 0
    since: float = 0.0
    ended: int = -1
    """The end of the log, when it was reached."""

    @property
    def metadata(self) -> str:
        """What is written beside the offset."""
        if self.span is None:
            return ""
        alone = ",".join(str(number) for number in sorted(self.span.alone)[:_MOST_ALONE])
        return f"{_MARK} {self.end} {self.span.handle} {alone}".rstrip()


def _written(metadata: str | None) -> _Written | None:
    words = (metadata or "").split(" ")
    if words[0] != _MARK or len(words) not in (3, 4):
        return None
    try:
        return _Written(int(words[1]), words[2], {int(one) for one in words[3].split(",")} if len(words) == 4 else set())
    except ValueError:
        return None


class _Kafka:
    """One consumer."""

    ways = 1

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        for key in settings.client:
            if key in _OURS:
                raise InvalidArgumentError(f"[kafka]: `{key}` is set by barograph itself")
        _LOG.addHandler(logging.NullHandler())
        _LOG.propagate = False
        self._common = {"bootstrap.servers": settings.address, "client.id": "barograph"} | dict(settings.client)
        self._consumer: Consumer | None = None
        self._producer: Producer | None = None
        self._partitions: dict[tuple[str, int], _Partition] = {}
        self._committing: list[tuple[_Partition, int, str]] = []
        self._committed_at = 0.0
        self._ready: list[Span] = []
        self._paused = False
        self._average = float(_READ_BYTES // 16)
        self._ids: dict[str, str] = {}
        self._told = 0.0
        self._trouble: str | None = None

    # ---- connecting ----

    def connect(self, pump: Pump) -> None:
        """Looks up the topics and joins the group."""
        self._pump = pump
        if self._consumer is not None:
            return
        settings = self._settings
        try:
            self._ids = self._look_up()
            defaults = {
                "group.id": settings.group,
                "auto.offset.reset": settings.start,
                "queued.max.messages.kbytes": max(1024, settings.memory // 4 >> 10),
                "fetch.max.bytes": max(1 << 20, settings.memory // 4),
            }
            ours = {
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "enable.partition.eof": True,
                "error_cb": self._failed,
                "on_commit": self._on_commit,
                "logger": _LOG,
            }
            if self._common.get("group.protocol") != "consumer":
                ours["partition.assignment.strategy"] = "cooperative-sticky"
            self._consumer = Consumer(defaults | self._common | ours)
            self._consumer.subscribe(list(settings.sources), on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost)
        except KafkaException as error:
            raise self._gone(error) from None
        except (ValueError, TypeError) as error:
            raise InvalidArgumentError(f"[kafka]: {error}") from None

    def _look_up(self) -> dict[str, str]:
        """What tells each topic from another that has its name at another time or place."""
        try:
            admin = AdminClient({key: value for key, value in self._common.items() if key.startswith(_PRODUCER)} | {"logger": _LOG})
        except KafkaException as error:
            raise InvalidArgumentError(f"[kafka]: {error.args[0].str()}") from None
        names = list(self._settings.sources)
        cluster = str(admin.list_topics(timeout=10).cluster_id)
        found = admin.describe_topics(TopicCollection(names), request_timeout=10)
        return {name: digest(cluster, str(found[name].result(15).topic_id), self._settings.group) for name in names}

    def _gone(self, error: Exception) -> BrokerGone:
        what = error.args[0] if error.args else error
        words = what.str() if isinstance(what, KafkaError) else str(what)
        return BrokerGone(f"kafka at {self._common['bootstrap.servers']}: {words}")

    def _failed(self, error: KafkaError) -> None:
        """What the client's threads could not do; it goes on trying by itself."""
        now = time.monotonic()
        if error.fatal() or error.code() in (KafkaError._AUTHENTICATION, KafkaError._ALL_BROKERS_DOWN, KafkaError._SSL):
            self._trouble = error.str()
        if now - self._told > 30.0:
            self._told = now
            self._pump.tell("warn", f"kafka: {error.str()}")

    # ---- partitions come and go ----

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        known = consumer.committed(partitions, timeout=20) if partitions else []
        begins = []
        for found in known:
            if found.error is not None:
                raise KafkaException(found.error)
            offset = found.offset if found.offset >= 0 else None
            stream = f"kafka/{self._ids[found.topic]}/{found.partition}"
            own = _Partition(found.topic, found.partition, stream, offset, _written(found.metadata) if offset is not None else None)
            if offset is not None:
                self._expired(consumer, own, offset)
            self._partitions[found.topic, found.partition] = own
            begins.append(TopicPartition(found.topic, found.partition, OFFSET_INVALID if own.done is None else own.done))
        consumer.incremental_assign(begins)

    def _expired(self, consumer: Consumer, own: _Partition, offset: int) -> None:
        """Messages that the broker has deleted before they were read are told: they cannot be counted."""
        low, _ = consumer.get_watermark_offsets(TopicPartition(own.topic, own.number), timeout=20)
        if low > offset:
            self._pump.counters.add(vanished=low - offset)
            self._pump.tell(
                "error", "messages were deleted before they were read", origin=f"{own.topic}/{own.number}", offsets=[offset, low]
            )
            own.done, own.moved = low, own.written is None

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """What is on its way gets some time; what is not done by then is done by whoever gets the partition."""
        going = [own for one in partitions if (own := self._partitions.get((one.topic, one.partition))) is not None]
        self._pump.settle([own.span for own in going if own.span is not None and id(own.span) in self._pump.flying], _SETTLE_SECONDS)
        moved = [TopicPartition(own.topic, own.number, own.done or 0) for own in going if own.moved and own.span is None]
        if moved:
            try:
                consumer.commit(offsets=moved, asynchronous=False)
            except KafkaException as error:
                self._pump.tell("warn", f"{self._gone(error).message}; what was not acknowledged comes again, and counts once")
        self._drop(going)

    def _on_lost(self, _consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._drop([own for one in partitions if (own := self._partitions.get((one.topic, one.partition))) is not None])

    def _drop(self, going: Sequence[_Partition]) -> None:
        spans = [own.span for own in going if own.span is not None]
        self._pump.give_up(spans)
        self._ready = [span for span in self._ready if span not in spans]
        for own in going:
            self._partitions.pop((own.topic, own.number), None)

    # ---- messages ----

    def take(self, room: int, seconds: float) -> list[Span]:
        """Reads, writes down what is complete, and gives what the broker has written down."""
        del room  # A partition has one span on its way, and memory is what bounds the rest.
        try:
            self._read(seconds)
            self._commit()
        except KafkaException as error:
            self._leave()
            raise self._gone(error) from None
        ready, self._ready = self._ready, []
        return ready

    def _read(self, seconds: float) -> None:
        consumer = self._joined()
        held = sum(own.size for own in self._partitions.values()) + self._pump.flying_bytes
        full = held > self._settings.memory // 2
        if full or (self._paused and held < self._settings.memory // 4):
            places = consumer.assignment()
            (consumer.pause if full else consumer.resume)(places)
            self._paused = full
        # A commit that is on its way is answered while we wait here.
        count = max(1, min(1000, int(_READ_BYTES / self._average)))
        read = consumer.consume(count, 0.002 if self._committing else seconds)
        if read:
            self._average = max(64.0, 0.5 * self._average, sum(len(message) for message in read) / len(read))
        for message in read:
            own = self._partitions.get((message.topic(), message.partition()))
            error = message.error()
            if error is not None:
                if error.code() == KafkaError._PARTITION_EOF and own is not None:
                    own.ended = message.offset()
                elif error.fatal() or not (error.retriable() or error.code() == KafkaError._PARTITION_EOF):
                    raise KafkaException(error)
                continue
            if own is None:
                continue
            if not own.waiting:
                own.since = time.monotonic()
            offset = message.offset()
            before = own.waiting[-1].number if own.waiting else (own.end if own.span is not None else (own.done or 0)) - 1
            if offset <= before:
                # Offsets grow. Where they do not, this is another topic of the same name, whose numbers are not those of the first.
                raise KafkaException(KafkaError(KafkaError._INCONSISTENT, f"offsets of {own.topic} went back: was it made anew?"))
            if own.done is None:
                own.done = offset
            value = message.value() or b""
            own.waiting.append(Message(offset, value, _headers(message.headers()), f"{own.topic}/{own.number}@{offset}", message.key()))
            own.size += len(value) + 64

    def _joined(self) -> Consumer:
        if self._consumer is None:
            raise BrokerGone("kafka: not connected")
        return self._consumer

    def _next(self, own: _Partition) -> Span | None:
        """The next span of a partition, if it is complete."""
        settings = self._settings
        if own.written is not None:
            end, to, alone = own.written.end, own.written.to, own.written.alone
            if (own.waiting[-1].number if own.waiting else -1) < end - 1 and own.ended < end:
                return None
            own.written = None
            messages = self._from(own, lambda message: message.number < end)
            if not messages:
                own.done, own.moved = end, True
                return None
        else:
            full = own.size >= _SPAN_BYTES or len(own.waiting) >= _SPAN_MESSAGES
            if not own.waiting or not (full or time.monotonic() - own.since >= settings.linger_seconds):
                return None
            taken = [0, 0]

            def fits(message: Message) -> bool:
                taken[0] += 1
                taken[1] += len(message.value)
                return taken[0] == 1 or (taken[0] <= _SPAN_MESSAGES and taken[1] <= _SPAN_BYTES)

            messages = self._from(own, fits)
            end, to, alone = messages[-1].number + 1, settings.targets[own.number % len(settings.targets)], set()
        own.end, own.declared = end, False
        span = Span(own.topic, own.stream, settings.sources[own.topic], settings.target_of(to), messages, alone)
        span.handle = to
        return span

    @staticmethod
    def _from(own: _Partition, wanted: Any) -> list[Message]:
        found = []
        while own.waiting and wanted(own.waiting[0]):
            found.append(own.waiting.popleft())
        own.size -= sum(len(message.value) + 64 for message in found)
        own.since = time.monotonic()
        return found

    # ---- what the broker is told ----

    def _commit(self) -> None:
        """One commit for all partitions: how far each is, and what is on its way next."""
        if self._committing or time.monotonic() < self._committed_at:
            return
        places, told = [], []
        for own in self._partitions.values():
            if own.span is None and not self._pump.stopping.is_set():
                own.span = self._next(own)
            if (own.span is None or own.declared) and not own.moved:
                continue
            assert own.done is not None
            metadata = own.metadata
            places.append(TopicPartition(own.topic, own.number, own.done, metadata))
            told.append((own, own.done, metadata))
        if places:
            self._joined().commit(offsets=places, asynchronous=True)
            self._committing = told

    def _on_commit(self, error: KafkaError | None, places: list[TopicPartition]) -> None:
        failed = {(place.topic, place.partition) for place in places if place.error is not None}
        told, self._committing = self._committing, []
        for own, done, metadata in told:
            if error is not None or (own.topic, own.number) in failed:
                # Said again soon; a group that has gone on without us takes the partition away first.
                self._committed_at = time.monotonic() + 0.2
                continue
            if self._partitions.get((own.topic, own.number)) is not own:
                continue
            own.moved = own.moved and own.done != done
            if own.span is not None and not own.declared and own.metadata == metadata:
                own.declared = True
                self._ready.append(own.span)

    def split(self, span: Span) -> None:
        """Written into the metadata before any message is sent by itself."""
        own = self._owner(span)
        if own is not None:
            own.declared = False

    def _owner(self, span: Span) -> _Partition | None:
        return next((own for own in self._partitions.values() if own.span is span), None)

    def bury(self, dead: Sequence[Dead]) -> None:
        """Produces to the topic of dead letters: key, value and headers, why, and where it was."""
        failed: list[KafkaError] = []

        def told(error: KafkaError | None, _message: Any) -> None:
            if error is not None:
                failed.append(error)

        try:
            if self._producer is None:
                common = {key: value for key, value in self._common.items() if key.startswith(_PRODUCER)}
                self._producer = Producer(common | {"enable.idempotence": True, "message.timeout.ms": 20_000, "logger": _LOG})
            for message, reason in dead:
                headers = [*message.headers.items(), ("barograph-reason", reason), ("barograph-origin", message.origin)]
                self._producer.produce(
                    self._settings.dead_letter,
                    message.value,
                    message.handle,
                    headers=[(name, text.encode()) for name, text in headers],
                    on_delivery=told,
                )
                self._producer.poll(0)
            left = self._producer.flush(20)
        except (KafkaException, BufferError) as error:
            self._producer = None
            raise self._gone(error) from None
        if left or failed:
            self._producer = None
            raise BrokerGone(f"kafka: dead letters could not be written: {failed[0].str() if failed else 'no answer'}")

    def finish(self, span: Span) -> None:
        """The offset moves with the next commit."""
        own = self._owner(span)
        if own is not None:
            own.done, own.moved, own.span, own.declared = own.end, True, None, False

    def lag(self) -> int | None:
        """What lies between what is acknowledged and the end of our partitions."""
        if self._consumer is None:
            return None
        total = 0
        for own in self._partitions.values():
            try:
                _, high = self._consumer.get_watermark_offsets(TopicPartition(own.topic, own.number), cached=True)
            except KafkaException:
                return None
            if high < 0:
                return None
            # Until the broker has been told, it is not acknowledged.
            total += max(0, high - (own.done or 0)) + (1 if own.moved else 0)
        return total

    def _leave(self) -> None:
        consumer, self._consumer = self._consumer, None
        self._drop(list(self._partitions.values()))
        self._committing = []
        if consumer is not None:
            try:
                consumer.close()
            except (KafkaException, RuntimeError) as error:
                self._pump.tell("warn", f"kafka: {error}")

    def close(self) -> None:
        """Tells how far it is, and leaves the group."""
        if self._consumer is not None:
            moved = [
                TopicPartition(own.topic, own.number, own.done or 0) for own in self._partitions.values() if own.moved and own.span is None
            ]
            try:
                if moved:
                    self._consumer.commit(offsets=moved, asynchronous=False)
            except KafkaException as error:
                self._pump.tell("warn", f"{self._gone(error).message}; what was not acknowledged comes again, and counts once")
            self._leave()


def _headers(found: Any) -> dict[str, str]:
    """Those that say what a message is. CloudEvents' binding for Kafka has `ce_…` where that for HTTP has `ce-…`."""
    headers = {}
    for name, value in found or ():
        header = name.lower().replace("_", "-")
        if isinstance(value, bytes) and (header in ("content-type", "content-encoding") or header.startswith("ce-")):
            headers[header] = value.decode("utf-8", "replace")
    return headers


def make(settings: Settings) -> _Kafka:
    """A consumer of Kafka."""
    return _Kafka(settings)
