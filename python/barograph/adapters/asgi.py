"""ASGI applications, watched: FastAPI, Starlette, Litestar, anything that speaks ASGI 3."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, TypeAlias

from barograph.monitors import Monitor
from barograph.watching import Call

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
        call = Call(self.monitor)
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
            call.end(failed=failed, events=None if self.events is None else lambda: self._events(scope, body, status, answer))

    def _events(self, scope: Scope, body: _Kept, status: int, answer: _Kept) -> Any:
        asked, said = body.bytes(), answer.bytes()
        return None if self.events is None or asked is None or said is None else self.events(scope, asked, status, said)


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
