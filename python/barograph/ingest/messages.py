"""Messages of a broker as bodies for a sidecar: which form a message has, and which messages share a body.

How messages are cut into bodies depends on nothing but the messages, and a body has the number of its first message. Who takes over
another's messages therefore sends the same bodies under the same numbers, and a sidecar that has counted them counts them no more.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

__all__ = ["FORMS", "Body", "Dead", "Message", "bodies"]

ARROW = "application/vnd.apache.arrow.stream"
JSON = "application/json"
LINES = "application/x-ndjson"

FORMS = ("auto", "arrow", "event", "ndjson", "json", "cloudevents", "open_inference", "sagemaker")

MOST_EVENTS = 100
"""Single events that share a body: a sidecar tells the reason of the first hundred rows that it refuses, so every one of them is told."""
MOST_BYTES = 4 << 20
"""Messages are no longer put together beyond it; one that is larger goes by itself."""

_END = b"\xff\xff\xff\xff\x00\x00\x00\x00"
_RECORDS = 3
_FIRST_VALUE = re.compile(rb'\s*\{\s*"(?:[^"\\]|\\.)*"\s*:\s*(\[?)')
_SECOND_ARRAY = re.compile(rb'[^\[\]{}]*\]\s*,\s*"(?:[^"\\]|\\.)*"\s*:\s*\[')
_LAST_VALUE = re.compile(rb"\]\s*\}\s*\Z")
_KINDS = {
    "arrow": ARROW,
    "ndjson": LINES,
    "json": JSON,
    "cloudevents": "application/cloudevents+json",
    "open_inference": JSON,
    "sagemaker": LINES,
}


class Message(NamedTuple):
    """One message as it came."""

    number: int
    """Its place in its stream, in [0, 2^64): grows, and is never given again."""
    value: bytes
    headers: Mapping[str, str]
    """Names in lower case: `content-type`, `content-encoding`, `ce-…`."""
    origin: str
    """Where it stands at the broker, for people."""
    handle: Any = None
    """What the broker's module wants back with it."""


class Dead(NamedTuple):
    """A message that cannot be counted, and why."""

    message: Message
    reason: str


class Body(NamedTuple):
    """What is sent in one request."""

    content: bytes
    headers: dict[str, str]
    protocol: str | None
    messages: list[Message]
    rows: bool
    """Whether row n of the body is message n."""

    @property
    def number(self) -> int:
        """That of its first message."""
        return self.messages[0].number


def bodies(messages: Iterable[Message], form: str = "auto", alone: frozenset[int] = frozenset()) -> Iterator[Body | Dead]:
    """Cuts messages into bodies, in their order.

    Arrow streams of one schema become one stream and single events become lines, up to 4 MB or a hundred events. Everything else is a
    body of its own, and so is every message of a body whose number is in `alone`. form: one of `FORMS`; by `auto` a header
    `content-type` says what a message is, or else its first bytes.
    """
    gathered: list[Message] = []
    pieces: list[bytes] = []
    key, size = b"", 0

    def close() -> Iterator[Body]:
        if not gathered:
            return
        if key and gathered[0].number in alone:
            for message, piece in zip(gathered, pieces, strict=True):
                yield _gathered(key, [piece], [message])
        else:
            yield _gathered(key, list(pieces), list(gathered))
        gathered.clear()
        pieces.clear()

    for message in messages:
        found = _piece(message, form)
        if isinstance(found, tuple):
            its_key, piece = found
            most = MOST_EVENTS if its_key == b"event" else 10 * MOST_EVENTS
            if its_key != key or size + len(piece) > MOST_BYTES or len(gathered) >= most:
                yield from close()
                key, size = its_key, 0
            gathered.append(message)
            pieces.append(piece)
            size += len(piece)
            continue
        yield from close()
        key = b""
        yield Dead(message, found) if isinstance(found, str) else Body(message.value, found, _protocol(form), [message], False)
    yield from close()


def _gathered(key: bytes, pieces: list[bytes], messages: list[Message]) -> Body:
    if key == b"event":
        return Body(b"\n".join(pieces) + b"\n", {"Content-Type": LINES}, None, messages, True)
    return Body(b"".join((key, *pieces, _END)), {"Content-Type": ARROW}, None, messages, False)


def _protocol(form: str) -> str | None:
    return form if form in ("open_inference", "sagemaker") else None


def _piece(message: Message, form: str) -> tuple[bytes, bytes] | dict[str, str] | str:
    """What it adds to a body with others (what they have in common, and its own part), the headers of its own body, or why it is none."""
    value, headers = message.value, message.headers
    if not value or value.isspace():
        return "the message is empty"
    kind = headers.get("content-type", "").partition(";")[0].strip().lower() if form == "auto" else _KINDS.get(form, "")
    own = {"Content-Type": kind} if kind else {}
    if "content-encoding" in headers:
        # Its bytes say nothing before they are unpacked, which is the sidecar's.
        if not kind:
            return "the message is compressed, and no header `content-type` says what it is"
        return own | {"Content-Encoding": headers["content-encoding"]}
    if form == "auto" and "ce-type" in headers:
        events = {f"ce-{name[3:]}": text for name, text in headers.items() if name.startswith("ce-")}
        return {"Content-Type": kind or JSON} | events
    if kind == ARROW or (not kind and value.startswith(b"\xff\xff\xff\xff")):
        return _spliced(value) or {"Content-Type": ARROW}
    if (kind and kind not in (JSON, LINES, "application/ndjson", "application/jsonl")) or _protocol(form) is not None:
        return own
    return _json(value, form, own)


def _json(value: bytes, form: str, own: dict[str, str]) -> tuple[bytes, bytes] | dict[str, str] | str:
    text = value.strip()
    many = b"\n" in text or b"\r" in text
    if text[:1] == b"[":
        return {"Content-Type": JSON}
    if text[:1] != b"{":
        return "the message is neither JSON nor an Arrow stream"
    lines = form == "ndjson" or own.get("Content-Type", JSON) != JSON
    if lines and many:
        return {"Content-Type": LINES}
    if form == "json" or (form == "auto" and not lines and _has_columns(text)):
        return {"Content-Type": JSON}
    if not many:
        return b"event", text
    try:
        return b"event", json.dumps(json.loads(text), ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        # Several lines, each an event; what is none the sidecar refuses.
        return {"Content-Type": LINES}


def _has_columns(text: bytes) -> bool:
    """Whether an object holds columns: its values are arrays. An event may have one array, its scores."""
    first = _FIRST_VALUE.match(text)
    if first is None or not first[1] or not _LAST_VALUE.search(text, len(text) - 100):
        return False
    if _SECOND_ARRAY.match(text, first.end()):
        return True
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return True
    return all(isinstance(value, list) for value in found.values()) and list(found) != ["_score"]


def _spliced(value: bytes) -> tuple[bytes, bytes] | None:
    """The schema of an Arrow stream and its record batches, which can follow those of another stream with the same schema.

    None for a stream that has to go by itself: one with dictionaries, one that is broken, one without rows.
    <https://arrow.apache.org/docs/format/Columnar.html#encapsulated-message-format>
    """
    at, schema, size = 0, 0, len(value)
    try:
        while at < size:
            mark, length = struct.unpack_from("<II", value, at)
            if mark != 0xFFFFFFFF:
                return None
            if length == 0:
                break
            kind, body = _message(value, at + 8, at + 8 + length)
            if (kind != _RECORDS and at) or body < 0:
                return None
            at += 8 + length + body
            schema = schema or at
    except (struct.error, ValueError, IndexError):
        return None
    if at > size or not schema or at == schema:
        return None
    return value[:schema], value[schema:at]


def _message(value: bytes, start: int, end: int) -> tuple[int, int]:
    """Kind of an Arrow message and length of its body, out of the flatbuffer that describes it (format/Message.fbs)."""
    if end > len(value):
        raise ValueError
    table = start + struct.unpack_from("<I", value, start)[0]
    fields = table - struct.unpack_from("<i", value, table)[0]
    if not start <= fields or not start <= table < end:
        raise ValueError
    count = (struct.unpack_from("<H", value, fields)[0] - 4) // 2
    places = struct.unpack_from(f"<{min(count, 4)}H", value, fields + 4)
    kind = value[table + places[1]] if count > 1 and places[1] else 0
    body = struct.unpack_from("<q", value, table + places[3])[0] if count > 3 and places[3] else 0
    return kind, body
