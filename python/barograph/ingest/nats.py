"""NATS JetStream, read as the log that it is.

JetStream gives a message that was not acknowledged to whoever asks next, one by one: what was on its way together comes again apart, and
could not be recognised. So the group keeps its own place: one document in the key-value bucket `barograph`, changed by compare-and-set,
which says how far the stream has been given out and which sequences are on their way in which of sixteen *lanes*. A process holds a lane
for a while and renews that; when it dies, another reads the same sequences and sends them under the same numbers.

The stream needs the retention `limits`, JetStream's default. <https://docs.nats.io/nats-concepts/jetstream>
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import json
import secrets
import ssl
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import nats
from nats.errors import Error
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy, KeyValueConfig, RetentionPolicy
from nats.js.errors import BucketNotFoundError, KeyNotFoundError, KeyWrongLastSequenceError, NoStreamResponseError, NotFoundError

from barograph.errors import InvalidArgumentError
from barograph.ingest.delivery import Span, digest
from barograph.ingest.messages import Dead, Message
from barograph.ingest.settings import BrokerGone, Settings, lease

if TYPE_CHECKING:
    from barograph.ingest.pump import Pump

__all__ = ["make"]

_BUCKET = "barograph"
_LANES = 16
_MOST_MESSAGES = 5000
_SPAN_BYTES = 4 << 20
_WAIT_SECONDS = 5.0
_KEYS = ("user", "password", "token", "user_credentials", "nkeys_seed", "name", "ca", "certificate", "key")

T = TypeVar("T")
Place = dict[str, Any]
"""What the document says: `life` of the stream, `next` sequence that nobody has yet, `lanes`: first, last, to, owner, until, alone."""


class _Stream:
    """One stream, and what is known of the group's place in it."""

    def __init__(self, topic: str, group: str) -> None:
        self.topic = topic
        self.name, _, self.subject = topic.partition("/")
        self.key = digest(topic, group)
        self.place: Place | None = None
        self.revision: int | None = None
        self.life = ""
        """When the stream was made: another one of its name counts anew."""
        self.first = self.last = 0
        self.average = float(_SPAN_BYTES)
        self.pause_until = 0.0


class _Nats:
    """One consumer."""

    ways = 1

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._options = dict(settings.client)
        self._lease = lease(self._options)
        for key in self._options:
            if key not in _KEYS:
                raise InvalidArgumentError(f"[nats] has no key {key!r}", f"keys are address, lease_seconds, {', '.join(_KEYS)}")
        self._me = secrets.token_hex(8)
        self._streams = {topic: _Stream(topic, settings.group) for topic in settings.sources}
        self._held: dict[tuple[str, int], Span] = {}
        self._again: list[Span] = []
        self._renewed = 0.0
        self._client: Any = None
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="barograph-nats", daemon=True).start()

    def _call(self, work: Coroutine[Any, Any, T], seconds: float = 30.0) -> T:
        """Runs something on the loop's thread, and says what NATS says as what it means here."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(seconds)
        except (concurrent.futures.TimeoutError, TimeoutError):
            future.cancel()
            raise BrokerGone("nats does not answer") from None
        except NoStreamResponseError:
            raise BrokerGone(f"nats: no stream takes the subject {self._settings.dead_letter!r}") from None
        except (Error, OSError) as error:
            raise BrokerGone(f"nats: {error or type(error).__name__}") from None

    def connect(self, pump: Pump) -> None:
        """Connects, and makes the bucket if it is not there."""
        self._pump = pump
        self._call(self._connect())

    async def _connect(self) -> None:
        if self._client is None or self._client.is_closed:
            options = {key: value for key, value in self._options.items() if key not in ("ca", "certificate", "key")}
            if "ca" in self._options or "certificate" in self._options:
                context = ssl.create_default_context(cafile=self._options.get("ca"))
                if "certificate" in self._options:
                    context.load_cert_chain(self._options["certificate"], self._options.get("key"))
                options["tls"] = context

            async def quiet(_error: Exception) -> None:
                """What fails is told where it is asked for."""

            servers = [one.strip() for one in self._settings.address.split(",")]
            self._client = await nats.connect(
                servers,
                error_cb=quiet,
                connect_timeout=5,
                reconnect_time_wait=1,
                max_reconnect_attempts=-1,
                allow_reconnect=True,
                **options,
            )
        self._jetstream = self._client.jetstream(timeout=_WAIT_SECONDS)
        try:
            self._bucket = await self._jetstream.key_value(_BUCKET)
        except (BucketNotFoundError, NotFoundError):
            self._bucket = await self._jetstream.create_key_value(config=KeyValueConfig(bucket=_BUCKET, history=1))
        for stream in self._streams.values():
            await self._look(stream)

    async def _look(self, stream: _Stream) -> None:
        try:
            info = await self._jetstream.stream_info(stream.name)
        except NotFoundError:
            raise BrokerGone(f"nats has no stream {stream.name!r}") from None
        if info.config.retention not in (None, RetentionPolicy.LIMITS):
            raise InvalidArgumentError(
                f"stream {stream.name!r} has the retention {info.config.retention}, and `limits` is needed",
                "a stream of retention `limits` can take its messages from this one: `sources`",
            )
        state = info.state
        stream.life, stream.first, stream.last = digest(str(info.created)), state.first_seq, state.last_seq
        if state.messages:
            stream.average = max(64.0, stream.average * 0.5, state.bytes / state.messages)

    # ---- the group's place ----

    async def _change(self, stream: _Stream, change: Callable[[Place], T | None]) -> T | None:
        """Changes the document, or not if `change` gives None; tries again when somebody else has changed it meanwhile."""
        for _ in range(50):
            if stream.place is None:
                try:
                    entry = await self._bucket.get(stream.key)
                    stream.place, stream.revision = json.loads(entry.value), entry.revision
                except KeyNotFoundError:
                    begins = max(1, stream.first) if self._settings.start == "earliest" else stream.last + 1
                    stream.place, stream.revision = {"version": 1, "life": stream.life, "next": begins, "lanes": {}}, 0
            place: Place = json.loads(json.dumps(stream.place))
            result = change(place)
            if result is None:
                return None
            content = json.dumps(place).encode()
            try:
                if stream.revision:
                    stream.revision = await self._bucket.update(stream.key, content, last=stream.revision)
                else:
                    stream.revision = await self._bucket.create(stream.key, content)
            except KeyWrongLastSequenceError:
                stream.place = None
                await asyncio.sleep(secrets.randbelow(20) / 1000)
                continue
            except BaseException:
                # Whether it was written is not known: it is read again.
                stream.place = None
                raise
            stream.place = place
            return result
        raise BrokerGone("nats: the group's place is changed by too many at once")

    def _claim(self, stream: _Stream, place: Place) -> tuple[int, dict[str, Any]] | None:
        """A lane whose holder is gone, or the next sequences for a free one."""
        if place["life"] != stream.life:
            # The stream was made anew: what was on its way is gone with the old one.
            place |= {"life": stream.life, "next": max(1, stream.first), "lanes": {}}
        now, lanes = time.time(), place["lanes"]
        first_lane = secrets.randbelow(_LANES)
        order = [(first_lane + at) % _LANES for at in range(_LANES)]
        for lane in order:
            held = lanes.get(str(lane))
            ours = held is not None and held["owner"] == self._me and (stream.topic, lane) not in self._held
            if held is not None and (held["until"] < now or ours):
                held |= {"owner": self._me, "until": now + self._lease}
                return lane, held
        free = next((lane for lane in order if str(lane) not in lanes), None)
        begins = max(place["next"], stream.first)
        if free is None or begins > stream.last:
            return None
        if begins > place["next"]:
            self._pump.counters.add(vanished=begins - place["next"])
        ends = min(stream.last, begins + max(1, min(_MOST_MESSAGES, int(_SPAN_BYTES / stream.average))) - 1)
        targets = self._settings.targets
        held = {"first": begins, "last": ends, "to": targets[free % len(targets)]}
        held |= {"owner": self._me, "until": now + self._lease, "alone": []}
        place["next"], lanes[str(free)] = ends + 1, held
        return free, held

    async def _next(self, stream: _Stream) -> Span | None:
        await self._look(stream)
        claimed = await self._change(stream, lambda place: self._claim(stream, place))
        if claimed is None:
            return None
        (lane, held), life = claimed, stream.life
        messages = await self._messages(stream, held["first"], held["last"])
        name = f"nats/{stream.key}/{life}/{lane}"
        target = self._settings.target_of(held["to"])
        span = Span(
            stream.topic, name, self._settings.sources[stream.topic], target, messages, set(held["alone"]), handle=(lane, held["first"])
        )
        other = self._held.get((stream.topic, lane))
        if other is not None:
            self._pump.give_up([other])
        self._held[stream.topic, lane] = span
        return span

    async def _messages(self, stream: _Stream, first: int, last: int) -> list[Message]:
        """What the stream has from one sequence to another; what was deleted is passed over."""
        config = ConsumerConfig(
            deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
            opt_start_seq=first,
            ack_policy=AckPolicy.EXPLICIT,
            max_ack_pending=-1,
            ack_wait=300.0,
            inactive_threshold=60.0,
            mem_storage=True,
            filter_subject=stream.subject or None,
        )
        made = await self._jetstream.add_consumer(stream.name, config)
        found: list[Message] = []
        left = made.num_pending or 0
        reader = await self._jetstream.pull_subscribe_bind(consumer=made.name, stream=stream.name)
        try:
            while left and (not found or found[-1].number < last):
                for message in await reader.fetch(min(500, left, last - first + 1), timeout=_WAIT_SECONDS):
                    number = message.metadata.sequence.stream
                    left = message.metadata.num_pending
                    if number > last:
                        left = 0
                        break
                    headers = {name.lower(): text for name, text in (message.headers or {}).items()}
                    found.append(Message(number, message.data, headers, f"{stream.name}/{message.subject}@{number}", message.subject))
        finally:
            await reader.unsubscribe()
            await self._jetstream.delete_consumer(stream.name, made.name)
        return found

    # ---- what the pump asks for ----

    def take(self, room: int, seconds: float) -> list[Span]:
        """The next sequences, or those of a lane whose holder is gone."""
        self._renew()
        found, self._again = self._again, []
        for stream in self._streams.values():
            while len(found) < room and time.monotonic() >= stream.pause_until:
                span = self._call(self._next(stream))
                if span is not None:
                    found.append(span)
                # Others may come: lanes are few, so they are not spent on one message each.
                if span is None or stream.place is None or stream.place["next"] > stream.last:
                    stream.pause_until = time.monotonic() + max(self._settings.linger_seconds, 0.01)
        if not found:
            time.sleep(seconds)
        return found

    def _renew(self) -> None:
        if not self._held or time.monotonic() - self._renewed < self._lease / 4:
            return
        self._renewed = time.monotonic()
        for stream in self._streams.values():
            spans = [span for (topic, _), span in self._held.items() if topic == stream.topic]
            if spans:
                self._keep(stream, spans)

    def _keep(self, stream: _Stream, spans: Sequence[Span]) -> None:
        """Holds lanes for another while, and gives up those that are somebody else's."""

        def change(place: Place) -> list[Span]:
            lost = []
            for span in spans:
                lane, first = span.handle
                held = place["lanes"].get(str(lane))
                if held is None or held["owner"] != self._me or held["first"] != first:
                    lost.append(span)
                else:
                    held |= {"until": time.time() + self._lease, "alone": sorted(span.alone)}
            return lost

        lost = self._call(self._change(stream, change)) or []
        for span in lost:
            self._held.pop((stream.topic, span.handle[0]), None)
        self._pump.give_up(lost)

    def split(self, span: Span) -> None:
        """Written into the document before any message is sent by itself."""
        self._keep(self._streams[span.source], [span])
        if not span.given_up.is_set():
            self._again.append(span)

    def bury(self, dead: Sequence[Dead]) -> None:
        """Publishes to the subject of dead letters: the body, why, and where it was."""

        async def publish() -> None:
            for message, reason in dead:
                headers = {**message.headers, "barograph-reason": " ".join(reason.split()), "barograph-origin": message.origin}
                await self._jetstream.publish(self._settings.dead_letter, message.value, headers=headers)

        self._call(publish(), 60.0)

    def finish(self, span: Span) -> None:
        """Lets the lane go; nothing if it is somebody else's by now."""
        lane, first = span.handle

        def change(place: Place) -> bool | None:
            held = place["lanes"].get(str(lane))
            if held is None or held["owner"] != self._me or held["first"] != first:
                return None
            del place["lanes"][str(lane)]
            return True

        stream = self._streams[span.source]
        self._call(self._change(stream, change))
        if self._held.get((span.source, lane)) is span:
            del self._held[span.source, lane]

    def lag(self) -> int | None:
        """What nobody has yet, and what is on its way."""
        if self._client is None:
            return None
        total = 0
        for stream in self._streams.values():
            # Others have changed the document since we did.
            stream.place = None
            self._call(self._look(stream), 6.0)
            self._call(self._change(stream, lambda _: None), 6.0)
            if stream.place is None:
                return None
            lanes = stream.place["lanes"].values()
            total += max(0, stream.last + 1 - stream.place["next"]) + sum(held["last"] + 1 - held["first"] for held in lanes)
        return total

    def close(self) -> None:
        """Lanes that are still held are another's after their time."""
        if self._client is not None:
            self._call(self._client.close(), 10.0)
        self._loop.call_soon_threadsafe(self._loop.stop)


def make(settings: Settings) -> _Nats:
    """A consumer of NATS JetStream."""
    return _Nats(settings)
