"""Redis streams, by a consumer group whose consumers are *lanes*.

Redis has no partitions, so the group gets sixteen: a lane is a consumer of the group that reads the next messages only when it has
acknowledged the ones before. Reading and writing down is one step (a script), so what a lane has pending *is* the span that is on its
way, whoever holds the lane. A process holds a lane for 30 seconds and renews that; when it dies, another takes the lane, reads its
pending messages again and sends them under the numbers that they had.

State is the consumer group and one hash, `{stream}:barograph:GROUP`. <https://redis.io/docs/latest/develop/data-types/streams/>
"""

from __future__ import annotations

import contextlib
import json
import secrets
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import redis
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError, ResponseError

from barograph.errors import InvalidArgumentError
from barograph.ingest.delivery import Span, digest
from barograph.ingest.messages import Dead, Message
from barograph.ingest.settings import BrokerGone, Settings, lease

if TYPE_CHECKING:
    from barograph.ingest.pump import Pump

__all__ = ["make"]

_LANES = 16
_MOST_MESSAGES = 5000
_SPAN_BYTES = 4 << 20

# A lane in the hash: L.owner, L.until (ms), L.base (number of the first message), L.to (digest of the sidecar), L.run (the life of the
# server in which it was read), L.alone; L.next is the number of the message after. Numbers of a life that lost what it had written come
# again only under the name of another life.
_TAKE = """
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local group, me, count, lease, lanes = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local first, run, fresh, targets = tonumber(ARGV[6]), ARGV[7], ARGV[8] == '1', tonumber(ARGV[9])
local free
for i = 0, lanes - 1 do
  local lane = (first + i) % lanes
  local at = lane .. '.'
  local held = redis.call('HMGET', KEYS[2], at .. 'owner', at .. 'until', at .. 'base', at .. 'to', at .. 'run', at .. 'alone')
  if held[1] then
    if tonumber(held[2]) < now then
      redis.call('HSET', KEYS[2], at .. 'owner', me, at .. 'until', now + lease)
      local read = redis.call('XREADGROUP', 'GROUP', group, 'lane-' .. lane, 'STREAMS', KEYS[1], '0')
      return {lane, held[3], held[4], held[5], held[6] or '', read and read[1][2] or {}}
    end
  elseif free == nil then
    free = lane
  end
end
if free == nil or not fresh then return nil end
local read = redis.call('XREADGROUP', 'GROUP', group, 'lane-' .. free, 'COUNT', count, 'STREAMS', KEYS[1], '>')
if not read then return nil end
local entries = read[1][2]
local at, to = free .. '.', ARGV[10 + free % targets]
local base = redis.call('HINCRBY', KEYS[2], at .. 'next', #entries) - #entries
redis.call('HSET', KEYS[2], at .. 'owner', me, at .. 'until', now + lease, at .. 'base', base, at .. 'to', to, at .. 'run', run)
return {free, tostring(base), to, run, '', entries}
"""
# Nothing happens if somebody else has taken the lane meanwhile.
_FINISH = """
local held = redis.call('HMGET', KEYS[2], ARGV[2] .. '.owner', ARGV[2] .. '.base')
if held[1] ~= ARGV[3] or held[2] ~= ARGV[4] then return 0 end
for at = 5, #ARGV, 1000 do redis.call('XACK', KEYS[1], ARGV[1], unpack(ARGV, at, math.min(at + 999, #ARGV))) end
for _, name in ipairs({'.owner', '.until', '.base', '.to', '.run', '.alone'}) do redis.call('HDEL', KEYS[2], ARGV[2] .. name) end
return 1
"""
_HOLD = """
local t = redis.call('TIME')
local lost = {}
for at = 3, #ARGV, 3 do
  local lane = ARGV[at]
  if redis.call('HGET', KEYS[1], lane .. '.owner') == ARGV[1] and redis.call('HGET', KEYS[1], lane .. '.base') == ARGV[at + 1] then
    redis.call('HSET', KEYS[1], lane .. '.until', t[1] * 1000 + tonumber(ARGV[2]))
    if ARGV[at + 2] ~= '' then redis.call('HSET', KEYS[1], lane .. '.alone', ARGV[at + 2]) end
  else
    lost[#lost + 1] = lane
  end
end
return lost
"""


@contextlib.contextmanager
def _reaching(address: str) -> Iterator[None]:
    """What Redis says as what it means here."""
    try:
        yield
    except (AuthenticationError, NoPermissionError) as error:
        raise BrokerGone(f"redis at {address} lets this user not do that: {error}") from None
    except ResponseError as error:
        if "WRONGTYPE" in str(error):
            raise InvalidArgumentError(f"`--topic` is a key of redis that is no stream: {error}") from None
        raise BrokerGone(f"redis at {address}: {error}") from None
    except (RedisError, OSError) as error:
        raise BrokerGone(f"redis at {address} does not answer: {error}") from None


class _Redis:
    """One consumer."""

    ways = 1

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._options = dict(settings.client)
        self._lease = lease(self._options)
        self._me = secrets.token_hex(8)
        # Shown to people: without what may be secret.
        self._shown = settings.address.rpartition("@")[2].removeprefix("redis://").removeprefix("rediss://")
        self._client: Any = None
        self._run = ""
        self._again: list[Span] = []
        self._held: dict[tuple[str, int], Span] = {}
        self._renewed = 0.0
        self._empty: dict[str, float] = {}
        self._sizes = dict.fromkeys(settings.sources, float(_SPAN_BYTES // 16))

    def connect(self, pump: Pump) -> None:
        """Makes the group if it is not there."""
        self._pump = pump
        with _reaching(self._shown):
            if self._client is None:
                options = {"socket_timeout": 20.0, "socket_connect_timeout": 5.0, "health_check_interval": 15} | self._options
                try:
                    self._client = redis.Redis.from_url(self._settings.address, **options)
                except (ValueError, TypeError) as error:
                    raise InvalidArgumentError(
                        f"`--broker` or the table [redis] is wrong: {error}", "such as redis://127.0.0.1:6379/0"
                    ) from None
                self._take, self._finish, self._hold = (self._client.register_script(text) for text in (_TAKE, _FINISH, _HOLD))
            self._run = str(self._client.info("server")["run_id"])
            for topic in self._settings.sources:
                self._group(topic)

    def _group(self, topic: str) -> None:
        try:
            self._client.xgroup_create(topic, self._settings.group, id="0" if self._settings.start == "earliest" else "$", mkstream=True)
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise

    def _keys(self, topic: str) -> list[str]:
        # One slot of a cluster for both.
        tag = topic if "{" in topic else "{" + topic + "}"
        return [topic, f"{tag}:barograph:{self._settings.group}"]

    def take(self, room: int, seconds: float) -> list[Span]:
        """The next messages of free lanes, or those of a lane whose holder is gone."""
        with _reaching(self._shown):
            self._renew()
            found, self._again = self._again, []
            now = time.monotonic()
            for topic in self._settings.sources:
                if now < self._empty.get(topic, 0.0):
                    continue
                while len(found) < room and (span := self._next(topic)) is not None:
                    found.append(span)
                if len(found) < room:
                    # Others may come: lanes are few, so they are not spent on one message each.
                    self._empty[topic] = now + max(self._settings.linger_seconds, 0.01)
        if not found:
            time.sleep(seconds)
        return found

    def _next(self, topic: str) -> Span | None:
        settings = self._settings
        count = max(1, min(_MOST_MESSAGES, int(_SPAN_BYTES / self._sizes[topic])))
        arguments = [settings.group, self._me, count, int(self._lease * 1000), _LANES, secrets.randbelow(_LANES), self._run, 1]
        try:
            taken = self._take(self._keys(topic), [*arguments, len(settings.targets), *settings.targets])
        except ResponseError as error:
            if "NOGROUP" not in str(error):
                raise
            # The stream was deleted, and its group with it.
            self._group(topic)
            return None
        if taken is None:
            return None
        lane, base, to, run, alone, entries = (one.decode() if isinstance(one, bytes) else one for one in taken)
        first, lane = int(base), int(lane)
        messages = [self._message(topic, first + at, *entry) for at, entry in enumerate(entries) if entry[1] is not None]
        self._pump.counters.add(vanished=len(entries) - len(messages))
        stream = f"redis/{digest(topic, settings.group)}/{run}/{lane}"
        span = Span(topic, stream, settings.sources[topic], settings.target_of(to), messages, set(json.loads(alone or "[]")))
        span.handle = (topic, lane, base, [entry[0] for entry in entries])
        if messages:
            self._sizes[topic] = max(64.0, 0.5 * self._sizes[topic], span.size / len(messages))
        other = self._held.get((topic, lane))
        if other is not None:
            self._pump.give_up([other])
        self._held[topic, lane] = span
        return span

    def _message(self, topic: str, number: int, name: bytes, fields: Sequence[bytes]) -> Message:
        pairs = dict(zip(fields[::2], fields[1::2], strict=False))
        value = pairs.pop(self._settings.field.encode(), b"")
        headers = {}
        for key, text in pairs.items():
            header = key.decode("latin-1").lower().replace("_", "-")
            if header in ("content-type", "content-encoding") or header.startswith("ce-"):
                headers[header] = text.decode("latin-1")
        return Message(number, value, headers, f"{topic}@{name.decode()}")

    def _renew(self) -> None:
        if not self._held or time.monotonic() - self._renewed < self._lease / 4:
            return
        self._renewed = time.monotonic()
        for topic in self._settings.sources:
            self._keep([span for (its, _), span in self._held.items() if its == topic])

    def _keep(self, spans: Sequence[Span]) -> None:
        """Holds lanes for another while, and gives up those that are somebody else's."""
        if not spans:
            return
        topic = spans[0].source
        arguments: list[Any] = [self._me, int(self._lease * 1000)]
        for span in spans:
            arguments += [span.handle[1], span.handle[2], json.dumps(sorted(span.alone)) if span.alone else ""]
        for lane in self._hold(self._keys(topic)[1:], arguments):
            lost = self._held.pop((topic, int(lane)), None)
            if lost is not None:
                self._pump.give_up([lost])

    def split(self, span: Span) -> None:
        """Written into the lane before any message is sent by itself."""
        with _reaching(self._shown):
            self._keep([span])
        if not span.given_up.is_set():
            self._again.append(span)

    def bury(self, dead: Sequence[Dead]) -> None:
        """Adds to the stream of dead letters: the body, why, and where it was."""
        with _reaching(self._shown):
            pipeline = self._client.pipeline(transaction=False)
            for message, reason in dead:
                fields = {self._settings.field: message.value, "reason": reason, "origin": message.origin, **message.headers}
                pipeline.xadd(self._settings.dead_letter, fields)
            pipeline.execute()

    def finish(self, span: Span) -> None:
        """Acknowledges the messages and lets the lane go, in one step."""
        topic, lane, base, names = span.handle
        with _reaching(self._shown):
            self._finish(self._keys(topic), [self._settings.group, lane, self._me, base, *names])
        if self._held.get((topic, lane)) is span:
            del self._held[topic, lane]
        # Where one span came from is another one.
        self._empty.pop(topic, None)

    def lag(self) -> int | None:
        """What no lane has read, and what lanes have read and not acknowledged."""
        total = 0
        with _reaching(self._shown):
            for topic in self._settings.sources:
                for found in self._client.xinfo_groups(topic) if self._client else []:
                    if found["name"] == self._settings.group.encode():
                        if found.get("lag") is None:
                            return None
                        total += int(found["lag"]) + int(found["pending"])
        return total

    def close(self) -> None:
        """Lanes that are still held are another's after half a minute."""
        if self._client is not None:
            self._client.close()


def make(settings: Settings) -> _Redis:
    """A consumer of Redis streams."""
    return _Redis(settings)
