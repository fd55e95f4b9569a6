"""Answers of `barograph capacity` over HTTP, where an autoscaler can fetch them: made anew every so often, and never served too old."""

from __future__ import annotations

import json
import math
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from barograph.errors import BarographError, InvalidArgumentError

__all__ = ["Answers", "serve"]

_MOST_AT_ONCE = 32
_WAIT_SECONDS = 5.0


class Answers:
    """Documents by path, and since when; safe from several threads.

    make: gives the documents, or raises what is wrong. every: seconds between two answers; one that is three times as old is no answer.
    """

    def __init__(self, make: Callable[[], dict[str, dict[str, Any]]], every: float) -> None:
        if not (isinstance(every, int | float) and math.isfinite(every) and every > 0):
            raise InvalidArgumentError(f"`every` must be finite seconds above 0, got {every!r}")
        self._make, self._every = make, every
        self._lock = threading.Lock()
        self._documents: dict[str, dict[str, Any]] = {}
        self._at, self._trouble = -math.inf, "no answer has been made yet"

    def refresh(self) -> None:
        """Makes an answer; where that fails the last one stays until it is too old, and what went wrong is told with it."""
        try:
            documents = self._make()
        except (BarographError, OSError) as error:
            with self._lock:
                self._trouble = str(error).splitlines()[0]
            print(f"barograph: {self._trouble}", file=sys.stderr)
            return
        with self._lock:
            self._documents, self._at, self._trouble = documents, time.monotonic(), "the answer is too old"

    def get(self, path: str) -> tuple[int, dict[str, Any]]:
        """Status and document: 200, 404 for another path, 503 without an answer that is new enough."""
        with self._lock:
            if path == "/healthz":
                return 200, {"ok": True}
            if time.monotonic() - self._at > 3 * self._every:
                return 503, {"reason": self._trouble}
            if path not in self._documents:
                return 404, {"reason": f"there are {', '.join(self._documents)}"}
            return 200, self._documents[path]


class _Server(ThreadingHTTPServer):
    """A thread for each connection, and a bounded number of them."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self._slots = threading.BoundedSemaphore(_MOST_AT_ONCE)
        super().__init__(address, handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._slots.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._slots.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is no error of ours."""


def serve(
    address: str,
    make: Callable[[], dict[str, dict[str, Any]]],
    *,
    every: float = 300.0,
    stop: threading.Event | None = None,
    ready: Callable[[int], object] | None = None,
) -> int:
    """Serves until `stop` is set, or Ctrl-C; gives exit code 0.

    address: `host:port`; port 0 takes a free one. ready: told the port. No token is asked for: what is told is the load of a model and how
    many replicas it wants. At most 32 connections at once, further ones are closed; each has five seconds to say something.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or int(port) > 65_535:
        raise InvalidArgumentError(f"`listen` must be an address such as 127.0.0.1:8080, got {address!r}")
    answers, stop = Answers(make, every), threading.Event() if stop is None else stop

    class Handler(BaseHTTPRequestHandler):
        timeout = _WAIT_SECONDS

        def do_GET(self) -> None:
            status, document = answers.get(self.path.partition("?")[0])
            body = json.dumps(document, ensure_ascii=False, allow_nan=False).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Requests are not logged."""

    with _Server((host.strip("[]"), int(port)), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        bound = server.server_address[1]
        print(f"listening on {host}:{bound}", file=sys.stderr, flush=True)
        if ready is not None:
            ready(bound)
        try:
            while not stop.is_set():
                answers.refresh()
                stop.wait(every)
        finally:
            server.shutdown()
            thread.join()
    return 0
