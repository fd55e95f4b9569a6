"""ASGI applications, watched: FastAPI, Starlette, Litestar, anything that speaks ASGI 3."""

from __future__ import annotations

import time as clock
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, TypeAlias

from barograph.monitors import Monitor

__all__ = ["WatchedAsgi"]

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

MOST_BYTES = 1 << 20
"""Bodies longer than this are not kept for `events`; the request is counted all the same."""


class WatchedAsgi:
    """An ASGI application with every request observed: latency to the last byte, failures (an exception, or a status of 500 and above).

    events: makes events of a request, `events(scope, body, status, answer)` with both bodies as bytes; a mapping or a list of mappings of
    the reference's columns, or None. Without it bodies are not looked at. paths: only requests whose path begins with one of these.
    Bodies pass untouched and as they come; answers that stream are not kept. What fails in here never reaches the request.

    With Starlette or FastAPI: `app.add_middleware(WatchedAsgi, monitor=monitor)`.
    """

    def __init__(
        self,
        app: App,
        monitor: Monitor,
        *,
        events: Callable[[Scope, bytes, int, bytes], Mapping[str, Any] | list[Mapping[str, Any]] | None] | None = None,
        paths: tuple[str, ...] = ("/",),
    ) -> None:
        self.app = app
        self.monitor = monitor
        self.events = events
        self.paths = paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one connection."""
        if scope["type"] != "http" or not scope["path"].startswith(self.paths):
            await self.app(scope, receive, send)
            return
        began = clock.perf_counter()
        status = 500
        body, answer = _Kept(), _Kept()

        async def watched_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            elif self.events is not None and message["type"] == "http.response.body":
                answer.add(message)
            await send(message)

        async def watched_receive() -> Message:
            message = await receive()
            if message["type"] == "http.request":
                body.add(message)
            return message

        failed = True
        try:
            await self.app(scope, receive if self.events is None else watched_receive, watched_send)
            failed = status >= 500
        finally:
            self._observe(scope, body, status, answer, clock.perf_counter() - began, failed)

    def _observe(self, scope: Scope, body: _Kept, status: int, answer: _Kept, seconds: float, failed: bool) -> None:
        try:
            observe(self.monitor, self.events, scope, body.bytes(), status, answer.bytes(), seconds, failed)
        except Exception as error:
            self.monitor._failed(error)


def observe(
    monitor: Monitor, events: Any, scope: Any, body: bytes | None, status: int, answer: bytes | None, seconds: float, failed: bool
) -> None:
    """Counts a request and the events it stands for."""
    found = None if events is None or failed or body is None or answer is None else events(scope, body, status, answer)
    if not found:
        monitor.request(seconds, error=failed)
        return
    several = [found] if isinstance(found, Mapping) else found
    for row in several:
        roles = {role: row[name] for role, name in _ROLES if name in row}
        alone = len(several) == 1
        monitor.observe(
            {name: value for name, value in row.items() if name not in _NAMES}, latency_seconds=seconds if alone else None, **roles
        )
    if len(several) > 1:
        # One latency, many events.
        monitor._native.call(seconds, clock.time_ns(), None)


_ROLES = (("prediction", "_prediction"), ("score", "_score"), ("id", "_id"), ("time", "_time"))
_NAMES = {name for _, name in _ROLES}


class _Kept:
    """The parts of a body, up to a limit."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.size = 0
        self.whole = False

    def add(self, message: Message) -> None:
        part = message.get("body", b"")
        self.whole = not message.get("more_body", False)
        self.size += len(part)
        if self.size <= MOST_BYTES:
            self.parts.append(part)
        else:
            self.parts.clear()

    def bytes(self) -> bytes | None:
        """All of it; None if it was too long or did not end."""
        return b"".join(self.parts) if self.whole and self.size <= MOST_BYTES else None
