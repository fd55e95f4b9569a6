"""Spans of messages, posted to sidecars: one thread for each way to one, tries again what may pass, says what became of each message."""

from __future__ import annotations

import contextlib
import hashlib
import json
import queue
import random
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http.client import HTTPException
from typing import Any
from urllib.parse import quote

from barograph.ingest.messages import Body, Dead, Message, bodies
from barograph.transport import Transport

__all__ = ["Counters", "Delivery", "Outcome", "Span", "digest"]

NUMBERED = "Barograph-Sequence"
"""The header of a body's stream and number."""
_REFUSED = (400, 413, 415, 422)
"""The body is wrong and stays so. Everything else may pass: a sidecar that is full or gone, a token that is not there yet."""
_SHORTEST, _LONGEST = 0.1, 10.0


def digest(*parts: str) -> str:
    """Sixteen characters that stand for some text."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


@dataclass(eq=False)
class Span:
    """Messages that were written down at the broker as on their way, and that nobody else counts under other numbers."""

    source: str
    """Where they come from, for people."""
    stream: str
    """What their numbers count in: 1 to 180 visible characters."""
    kind: str
    """`events` or `labels`."""
    target: int
    """Which sidecar: always the same for a stream while spans of it are on their way."""
    messages: list[Message]
    alone: set[int] = field(default_factory=set)
    """Bodies whose messages are sent one by one, because the whole was refused."""
    keys: Callable[[Message], str] | None = None
    """For messages without numbers that grow: their `Idempotency-Key`; each is a body of its own."""
    handle: Any = None
    sent: set[int] = field(default_factory=set)
    dead: list[Dead] = field(default_factory=list)
    given_up: threading.Event = field(default_factory=threading.Event)

    @property
    def size(self) -> int:
        """Bytes of its messages."""
        return sum(len(message.value) for message in self.messages)


@dataclass
class Outcome:
    """What became of a span."""

    span: Span
    split: int | None = None
    """The body that was refused as a whole: its messages are to be sent one by one, once that is written down."""


class Counters:
    """What was taken and what became of it, since the start."""

    NAMES = ("consumed", "accepted", "refused", "repeated", "dead_lettered", "dropped", "retried", "vanished")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts = dict.fromkeys(self.NAMES, 0)
        self.trouble: str | None = None

    def add(self, **counts: int) -> None:
        """Counts."""
        with self._lock:
            for name, count in counts.items():
                self._counts[name] += count

    def all(self) -> dict[str, int]:
        """A copy."""
        with self._lock:
            return dict(self._counts)


class Delivery:
    """Threads that post spans to sidecars.

    targets: how to reach each of them. ways: connections to each; spans of one stream are given one at a time, so more of them change
    nothing of any order. A span that is given up is not tried any longer, and no outcome comes of it.
    """

    def __init__(self, targets: Sequence[Callable[[], Transport]], model: str, form: str, counters: Counters, *, ways: int = 1) -> None:
        self._path = f"/v1/models/{quote(model, safe='')}/"
        self._form, self._counters = form, counters
        self._done: queue.SimpleQueue[Outcome | BaseException] = queue.SimpleQueue()
        self._waiting: list[queue.SimpleQueue[Span | None]] = [queue.SimpleQueue() for _ in targets]
        self._threads = [
            threading.Thread(target=self._run, args=(make, jobs), name="barograph-delivery", daemon=True)
            for make, jobs in zip(targets, self._waiting, strict=True)
            for _ in range(ways)
        ]
        self.ways = len(self._threads)
        for thread in self._threads:
            thread.start()

    def submit(self, span: Span) -> None:
        """Has a span sent."""
        self._waiting[span.target].put(span)

    def outcomes(self, seconds: float) -> list[Outcome]:
        """What has been finished; waits so long for the first."""
        found: list[Outcome] = []
        while True:
            try:
                one = self._done.get(timeout=seconds) if not found and seconds > 0 else self._done.get_nowait()
            except queue.Empty:
                return found
            if isinstance(one, BaseException):
                raise one
            if not one.span.given_up.is_set():
                found.append(one)

    def close(self) -> None:
        """Ends the threads once what they send has been answered or given up."""
        for jobs in self._waiting:
            for _ in self._threads:
                jobs.put(None)
        for thread in self._threads:
            thread.join(1.0)

    def _run(self, make: Callable[[], Transport], jobs: queue.SimpleQueue[Span | None]) -> None:
        try:
            with contextlib.closing(make()) as transport:
                self._serve(transport, jobs)
        except BaseException as error:
            self._done.put(error)

    def _serve(self, transport: Transport, jobs: queue.SimpleQueue[Span | None]) -> None:
        while (span := jobs.get()) is not None:
            if not span.given_up.is_set():
                outcome = self._send(transport, span)
                if outcome is not None:
                    self._done.put(outcome)

    def _send(self, transport: Transport, span: Span) -> Outcome | None:
        # Messages with a key of their own share no body.
        alone = frozenset(message.number for message in span.messages) if span.keys else frozenset(span.alone)
        for body in bodies(span.messages, self._form, alone):
            if isinstance(body, Dead):
                if body.message.number not in span.sent:
                    span.sent.add(body.message.number)
                    span.dead.append(body)
                continue
            if body.number in span.sent:
                continue
            answer = self._post(transport, span, body)
            if answer is None:
                return None
            status, found = answer
            refused = _whole(found, "rejected_count")
            if status == 200 or (status == 422 and "rejected_count" in found):
                self._count(span, body, found, refused)
            elif len(body.messages) > 1:
                return Outcome(span, split=body.number)
            else:
                span.dead.append(Dead(body.messages[0], _words(status, found)))
            span.sent.add(body.number)
        return Outcome(span)

    def _count(self, span: Span, body: Body, found: Mapping[str, Any], refused: int) -> None:
        if found.get("repeated"):
            self._counters.add(repeated=len(body.messages))
        else:
            self._counters.add(accepted=_whole(found, "accepted"), refused=refused)
        told = [one for one in found.get("rejected") or [] if isinstance(one, dict)]
        if not body.rows:
            if refused:
                first = f", the first: row {told[0].get('row')}: {told[0].get('reason')}" if told else ""
                span.dead.append(Dead(body.messages[0], f"{refused} of its rows were refused{first}"[:500]))
            return
        for one in told:
            row = one.get("row")
            if isinstance(row, int) and 0 <= row < len(body.messages):
                span.dead.append(Dead(body.messages[row], str(one.get("reason"))[:500]))

    def _post(self, transport: Transport, span: Span, body: Body) -> tuple[int, dict[str, Any]] | None:
        """Status and answer of a sidecar that took or refused it; None if the span was given up before."""
        number = f"{span.stream}/{body.number}"
        once = {"Idempotency-Key": span.keys(body.messages[0])} if span.keys else {NUMBERED: number}
        path = f"{self._path}{span.kind}" + (f"?protocol={body.protocol}" if body.protocol else "")
        attempt = 0
        while not span.given_up.is_set():
            wait = 0.0
            try:
                status, said, answer = transport.request("POST", path, body.content, body.headers | once, timeout=60.0)
            except (OSError, HTTPException) as error:
                trouble = f"{transport.url}: {error or type(error).__name__}"
            else:
                found = _document(answer)
                if status == 200 or status in _REFUSED:
                    self._counters.trouble = None
                    return status, found
                trouble, wait = _words(status, found), _seconds(said.get("retry-after"))
            self._counters.trouble = trouble
            self._counters.add(retried=1)
            pause = min(_LONGEST, _SHORTEST * 2.0 ** min(attempt, 10)) * random.uniform(0.5, 1.0)
            attempt += 1
            span.given_up.wait(max(pause, min(wait, _LONGEST)))
        return None


def _document(answer: bytes) -> dict[str, Any]:
    try:
        found = json.loads(answer)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _words(status: int, found: Mapping[str, Any]) -> str:
    words = [str(found[key])[:300] for key in ("detail", "hint") if found.get(key)]
    return f"the sidecar says {status}: {'; '.join(words) or found.get('title') or 'nothing more'}"


def _whole(found: Mapping[str, Any], name: str) -> int:
    value = found.get(name)
    return value if isinstance(value, int) and value >= 0 else 0


def _seconds(value: str | None) -> float:
    return float(value) if value is not None and value.isascii() and value.isdecimal() else 0.0
