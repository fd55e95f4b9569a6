"""RabbitMQ: quorum and classic queues, over AMQP 0-9-1.

A queue gives its messages no numbers, and what comes again comes one by one and to anybody. So each message is a body of its own, under
an `Idempotency-Key` made of the queue and the message's own `message_id`, which its producer has to set: one that has none cannot be told
from another when it comes again, and is refused unless `--at-least-once` says that it may count twice. A sidecar remembers keys for
24 hours, and 200,000 of a model. Messages that hold many events (Arrow, columns) cost less than single ones.

<https://www.rabbitmq.com/docs/confirms>, <https://www.rabbitmq.com/docs/quorum-queues>
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import secrets
import ssl
import time
from collections import deque
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pika
from pika.exceptions import AMQPError, ChannelClosedByBroker, NackError, UnroutableError

from barograph.errors import InvalidArgumentError
from barograph.ingest.delivery import Span
from barograph.ingest.messages import Dead, Message
from barograph.ingest.settings import BrokerGone, Settings

if TYPE_CHECKING:
    from barograph.ingest.pump import Pump

__all__ = ["make"]

_TOGETHER = 100
"""Messages that one thread is given at a time."""
_SPAN_BYTES = 1 << 20
_NO_NAME = "the message has no message_id, by which it could be told from another when it comes again"


class _Rabbit:
    """One consumer."""

    ways = 4

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        # What it cannot do is told here, once.
        logging.getLogger("pika").addHandler(logging.NullHandler())
        logging.getLogger("pika").propagate = False
        options = dict(settings.client)
        self._prefetch = options.pop("prefetch", 1000)
        if isinstance(self._prefetch, bool) or not isinstance(self._prefetch, int) or not 1 <= self._prefetch <= 65_535:
            raise InvalidArgumentError(f"[rabbitmq]: `prefetch` must be a whole number in [1, 65535], got {self._prefetch!r}")
        try:
            self._parameters = pika.URLParameters(settings.address)
        except (ValueError, TypeError) as error:
            raise InvalidArgumentError(f"the address of RabbitMQ is wrong: {error}", "such as amqp://127.0.0.1:5672/%2F") from None
        if "username" in options:
            self._parameters.credentials = pika.PlainCredentials(str(options.pop("username")), str(options.pop("password", "")))
        if "ca" in options or "certificate" in options:
            context = ssl.create_default_context(cafile=options.pop("ca", None))
            if "certificate" in options:
                context.load_cert_chain(options.pop("certificate"), options.pop("key", None))
            self._parameters.ssl_options = pika.SSLOptions(context, self._parameters.host)
        if options:
            raise InvalidArgumentError(
                f"[rabbitmq] has no key {next(iter(options))!r}", "keys are address, username, password, prefetch, ca, certificate, key"
            )
        # A consumer that has fallen silent is noticed before much else has been counted.
        self._parameters.heartbeat = 10
        self._parameters.blocked_connection_timeout = 60
        self._connection: Any = None
        self._waiting: deque[tuple[str, Message, int]] = deque()
        self._unacknowledged = 0
        self._count = 0
        self._cancelled: str | None = None
        self._since = 0.0
        self._asked = 0
        # Of messages that are not known yet much is expected.
        self._average = float(1 << 20)

    @contextlib.contextmanager
    def _reaching(self) -> Iterator[None]:
        try:
            yield
        except (AMQPError, OSError) as error:
            self._leave()
            told = error.reply_text if isinstance(error, ChannelClosedByBroker) else str(error) or type(error).__name__
            raise BrokerGone(f"rabbitmq at {self._parameters.host}:{self._parameters.port}: {told}") from None

    def connect(self, pump: Pump) -> None:
        """Connects and asks for messages."""
        self._pump = pump
        if self._connection is not None:
            return
        with self._reaching():
            self._connection = pika.BlockingConnection(self._parameters)
            self._channel = self._connection.channel()
            self._channel.add_on_cancel_callback(self._on_cancel)
            self._cancelled = None
            self._unacknowledged = 0
            self._tags: list[str] = []
            self._subscribe()
            self._graves = self._connection.channel()
            self._graves.confirm_delivery()

    def _subscribe(self) -> None:
        """Asks for as many messages at once as memory has room for, by what they were like so far: RabbitMQ counts messages, not bytes."""
        wanted = max(1, min(self._prefetch, int(self._settings.memory / 2 / len(self._settings.sources) / self._average)))
        if self._tags and self._asked // 2 <= wanted <= self._asked * 2:
            return
        for tag in self._tags:
            self._channel.basic_cancel(tag)
        self._asked = wanted
        self._channel.basic_qos(prefetch_count=wanted)
        self._tags = [
            self._channel.basic_consume(queue, lambda _, method, properties, body, of=queue: self._arrived(of, method, properties, body))
            for queue in self._settings.sources
        ]

    def _on_cancel(self, _method: Any) -> None:
        self._cancelled = "the queue has gone"

    def _arrived(self, queue: str, method: Any, properties: Any, body: bytes) -> None:
        headers = {}
        for name, value in (properties.headers or {}).items():
            # CloudEvents' binding for AMQP has `cloudEvents:…` where that for HTTP has `ce-…`.
            header = name.lower().replace("cloudevents:", "ce-").replace("cloudevents_", "ce-").replace("_", "-")
            if header.startswith("ce-"):
                headers[header] = str(value)
        for header, value in (("content-type", properties.content_type), ("content-encoding", properties.content_encoding)):
            if value:
                headers[header] = str(value)
        self._count += 1
        self._unacknowledged += 1
        self._average = max(256.0, 0.9 * self._average, float(len(body)))
        name = properties.message_id
        key = hashlib.sha256(f"{self._parameters.virtual_host}\0{queue}\0{name}".encode()).hexdigest() if name else ""
        message = Message(self._count, body, headers, f"{queue}@{name or 'no message_id'}", key)
        if not self._waiting:
            self._since = time.monotonic()
        self._waiting.append((queue, message, method.delivery_tag))

    def take(self, room: int, seconds: float) -> list[Span]:
        """Messages that have come, for each sidecar those whose ids fall to it."""
        with self._reaching():
            if self._connection is None:
                raise BrokerGone("rabbitmq: not connected")
            self._connection.process_data_events(time_limit=seconds if not self._waiting else 0)
            if self._cancelled is None:
                self._subscribe()
            if self._cancelled is not None:
                self._leave()
                raise BrokerGone(f"rabbitmq: {self._cancelled}")
        found: list[Span] = []
        while self._waiting and len(found) < room:
            if len(self._waiting) < _TOGETHER and time.monotonic() - self._since < min(self._settings.linger_seconds, 0.05):
                break
            found += self._spans()
        return found

    def _spans(self) -> list[Span]:
        spans: dict[tuple[str, int], Span] = {}
        size = 0
        while self._waiting and len(spans) < 100 and size < _SPAN_BYTES:
            queue, message, tag = self._waiting.popleft()
            key = message.handle or (secrets.token_hex(16) if self._settings.at_least_once else "")
            target = int(key[:8], 16) % len(self._settings.to) if key else 0
            span = spans.get((queue, target))
            if span is None:
                span = Span(queue, f"rabbitmq/{queue}", self._settings.sources[queue], target, [], keys=lambda message: message.handle)
                span.handle = (self._connection, [])
                spans[queue, target] = span
            message = message._replace(handle=key)
            span.messages.append(message)
            span.handle[1].append(tag)
            if not key:
                span.dead.append(Dead(message, _NO_NAME))
                span.sent.add(message.number)
            size += len(message.value)
            if len(span.messages) == _TOGETHER:
                break
        self._since = time.monotonic()
        return list(spans.values())

    def split(self, span: Span) -> None:
        """Never asked for: every message is a body of its own."""

    def bury(self, dead: Sequence[Dead]) -> None:
        """Publishes to the queue of dead letters, confirmed: the body, why, and where it was."""
        with self._reaching():
            if self._connection is None:
                raise BrokerGone("rabbitmq: not connected")
            for message, reason in dead:
                headers = {name: value for name, value in message.headers.items() if name.startswith("ce-")}
                properties = pika.BasicProperties(
                    delivery_mode=2,
                    content_type=message.headers.get("content-type"),
                    content_encoding=message.headers.get("content-encoding"),
                    headers=headers | {"barograph-reason": reason, "barograph-origin": message.origin},
                )
                try:
                    self._graves.basic_publish("", str(self._settings.dead_letter), message.value, properties, mandatory=True)
                except (UnroutableError, NackError):
                    raise BrokerGone(f"rabbitmq: the queue {self._settings.dead_letter!r} of dead letters takes nothing") from None

    def finish(self, span: Span) -> None:
        """Acknowledges messages; those of a connection that is gone come again, and count once."""
        connection, tags = span.handle
        if connection is not self._connection:
            return
        with self._reaching():
            for tag in tags:
                self._channel.basic_ack(tag)
        self._unacknowledged -= len(tags)

    def lag(self) -> int | None:
        """What waits in the queues, and what we have and did not acknowledge."""
        if self._connection is None:
            return None
        with self._reaching():
            ready = sum(self._channel.queue_declare(queue, passive=True).method.message_count for queue in self._settings.sources)
        return int(ready) + self._unacknowledged

    def _leave(self) -> None:
        connection, self._connection = self._connection, None
        self._waiting.clear()
        if connection is not None:
            with contextlib.suppress(AMQPError, OSError):
                connection.close()

    def close(self) -> None:
        """What was not acknowledged goes back into the queue."""
        self._leave()


def make(settings: Settings) -> _Rabbit:
    """A consumer of RabbitMQ."""
    return _Rabbit(settings)
