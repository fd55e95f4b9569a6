"""The loop of `barograph ingest`: takes spans from a broker, has them delivered, acknowledges them, tells what it counted."""

from __future__ import annotations

import json
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from types import FrameType
from typing import Any, Protocol

from barograph.ingest.delivery import Counters, Delivery, Outcome, Span
from barograph.ingest.messages import Dead
from barograph.ingest.settings import BrokerGone, Settings

__all__ = ["Broker", "Pump", "pump"]

_GRACE_SECONDS = 10.0
_SHORTEST, _LONGEST = 0.2, 15.0
_TOLD = 20
"""Dead letters that are told one by one between two reports."""


class Broker(Protocol):
    """What the module of a broker gives. Each method may raise BrokerGone: then `connect` is called again after a while."""

    ways: int
    """Connections to each sidecar."""

    def connect(self, pump: Pump) -> None:
        """Connects, or connects anew; spans that nobody else can have taken meanwhile stay on their way."""

    def take(self, room: int, seconds: float) -> list[Span]:
        """Spans that were written down as on their way, at most `room` new ones; waits so long at most. Keeps what is held alive."""

    def split(self, span: Span) -> None:
        """Writes down that a body of a span is sent message by message; `take` gives the span again."""

    def bury(self, dead: Sequence[Dead]) -> None:
        """Writes messages where dead letters go."""

    def finish(self, span: Span) -> None:
        """Acknowledges a span."""

    def lag(self) -> int | None:
        """Messages that are not acknowledged yet, as far as this consumer sees; None if it is not known."""

    def close(self) -> None:
        """Leaves in order."""


class Pump:
    """One consumer at work."""

    def __init__(self, broker: Broker, settings: Settings) -> None:
        self.settings = settings
        self.counters = Counters()
        self._broker = broker
        self._delivery = Delivery(settings.transports(), settings.model, settings.form, self.counters, ways=broker.ways)
        self.flying: dict[int, Span] = {}
        """Spans that are on their way, by identity."""
        self._answered: list[Outcome] = []
        self.stopping = threading.Event()
        self._told = 0

    # ---- what a broker's module asks for ----

    @property
    def flying_bytes(self) -> int:
        """Bytes of messages on their way."""
        return sum(span.size for span in self.flying.values())

    def give_up(self, spans: Sequence[Span]) -> None:
        """Nobody waits for these any longer: they are somebody else's, who will send the same."""
        for span in spans:
            span.given_up.set()
            self.flying.pop(id(span), None)

    def settle(self, spans: Sequence[Span], seconds: float) -> None:
        """Waits until spans are acknowledged, at most so long; those that are not are given up."""
        end = time.monotonic() + seconds
        while any(id(span) in self.flying for span in spans) and time.monotonic() < end:
            try:
                self._acknowledge(0.05)
            except BrokerGone:
                break
        self.give_up([span for span in spans if id(span) in self.flying])

    def tell(self, level: str, message: str, **more: Any) -> None:
        """A line for people and machines."""
        line = {"level": level, "message": message, **more, "time": datetime.now(UTC).isoformat().replace("+00:00", "Z")}
        print(json.dumps(line, ensure_ascii=False), file=sys.stderr, flush=True)

    # ---- the loop ----

    def run(self) -> int:
        """Until it is told to stop."""
        settings = self.settings
        started = {"broker": settings.broker_name, "topic": settings.topic, "group": settings.group, "model": settings.model}
        self.tell("info", "ingest begins", **started, to=list(settings.to))
        connected, pause, reported = False, _SHORTEST, time.monotonic()
        ending: float | None = None
        while True:
            now = time.monotonic()
            if self.stopping.is_set():
                ending = ending or now + _GRACE_SECONDS
                if not self.flying or now > ending:
                    break
            try:
                if not connected:
                    self._broker.connect(self)
                    connected = True
                self._round()
                pause = _SHORTEST
            except BrokerGone as error:
                if connected or pause == _SHORTEST:
                    self.tell("warn", str(error.message), again_seconds=round(pause, 1))
                connected = False
                self.stopping.wait(pause)
                pause = min(_LONGEST, 2 * pause)
            if now - reported >= settings.report_seconds:
                reported = now
                self._report()
        self.give_up(list(self.flying.values()))
        try:
            self._broker.close()
        except BrokerGone as error:
            self.tell("warn", str(error.message))
        self._delivery.close()
        self._report()
        self.tell("info", "ingest has ended")
        return 0

    def _round(self) -> None:
        # What waits may be answered any moment: then nobody waits long for the broker.
        waiting = bool(self.flying)
        full = self.flying_bytes > self.settings.memory // 2
        room = 0 if full or self.stopping.is_set() else max(0, 2 * self._delivery.ways - len(self.flying))
        for span in self._broker.take(room, 0.002 if waiting else 0.1):
            if id(span) not in self.flying:
                self.counters.add(consumed=len(span.messages))
            self.flying[id(span)] = span
            self._delivery.submit(span)
        self._acknowledge(0.02 if self.flying and not room else 0.0)

    def _acknowledge(self, seconds: float) -> None:
        self._answered += self._delivery.outcomes(seconds)
        while self._answered:
            outcome = self._answered[0]
            span = outcome.span
            if not span.given_up.is_set():
                if outcome.split is not None:
                    span.alone.add(outcome.split)
                    self._broker.split(span)
                else:
                    self._bury(span)
                    self._broker.finish(span)
                    self.flying.pop(id(span), None)
            self._answered.pop(0)

    def _bury(self, span: Span) -> None:
        if not span.dead:
            return
        if self.settings.dead_letter is not None:
            self._broker.bury(span.dead)
            self.counters.add(dead_lettered=len(span.dead))
        else:
            self.counters.add(dropped=len(span.dead))
        for dead in span.dead[: max(0, _TOLD - self._told)]:
            self.tell("warn", "a message cannot be counted", origin=dead.message.origin, reason=dead.reason)
        self._told += len(span.dead)
        span.dead.clear()

    def _report(self) -> None:
        self._told = 0
        try:
            lag = self._broker.lag()
        except BrokerGone:
            lag = None
        counts: dict[str, Any] = self.counters.all() | {"lag": lag, "on_the_way": sum(len(span.messages) for span in self.flying.values())}
        trouble = self.counters.trouble
        self.tell("warn" if trouble else "info", "counts", **counts, **({"trouble": trouble} if trouble else {}))
        if self.settings.as_json:
            print(json.dumps(counts), flush=True)


@contextmanager
def _signals(stopping: threading.Event) -> Iterator[None]:
    def stop(_number: int, _frame: FrameType | None) -> None:
        stopping.set()

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def pump(broker: Broker, settings: Settings) -> int:
    """Runs a consumer until SIGTERM or SIGINT; the exit code."""
    own = Pump(broker, settings)
    with _signals(own.stopping):
        return own.run()
