"""WSGI applications, watched: Flask, Django, anything that speaks PEP 3333."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeAlias

from barograph.monitors import Monitor
from barograph.watching import Call

__all__ = ["WatchedWsgi"]

App: TypeAlias = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class WatchedWsgi:
    """A WSGI application with every request observed: latency to the last byte, failures (an exception, or a status of 500 and above).

    paths: only requests whose path begins with one of these. Bodies pass untouched: observe features in the view, by `monitor.observe` or a
    watched predict function. What fails in here never reaches the request.

    With Flask: `app.wsgi_app = WatchedWsgi(app.wsgi_app, monitor)`.
    """

    def __init__(self, app: App, monitor: Monitor, *, paths: tuple[str, ...] = ("/",)) -> None:
        self.app = app
        self.monitor = monitor
        self.paths = paths

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Serves one request."""
        if not environ.get("PATH_INFO", "/").startswith(self.paths):
            return self.app(environ, start_response)
        call = Call(self.monitor)
        status_failed = False

        def watched_start(status: str, headers: Any, exc_info: Any = None) -> Any:
            nonlocal status_failed
            status_failed = status[:1] == "5"
            return start_response(status, headers) if exc_info is None else start_response(status, headers, exc_info)

        try:
            answer = self.app(environ, watched_start)
        except BaseException:
            call.end(failed=True)
            raise
        return _Answer(answer, call, lambda: status_failed)


class _Answer:
    """The answer's parts as they come, and the request's end with the last of them."""

    def __init__(self, answer: Iterable[bytes], call: Call, failed: Callable[[], bool]) -> None:
        self._answer = answer
        self._call = call
        self._failed = failed
        self._parts: Iterator[bytes] = iter(answer)

    def __iter__(self) -> _Answer:
        return self

    def __next__(self) -> bytes:
        try:
            return next(self._parts)
        except StopIteration:
            self._call.end(failed=self._failed())
            raise
        except BaseException:
            self._call.end(failed=True)
            raise

    def close(self) -> None:
        """The server has sent what it wanted."""
        try:
            close = getattr(self._answer, "close", None)
            if close is not None:
                close()
        finally:
            self._call.end(failed=self._failed())
