"""Requests to a sidecar over http, https or a Unix socket: one connection that is kept, answers of bounded size, no redirects."""

from __future__ import annotations

import http.client
import os
import re
import socket
import ssl
import threading
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from barograph.errors import InvalidArgumentError

__all__ = ["Transport", "token_for"]

_MOST_ANSWER = 256 << 20
_HINT = "such as http://127.0.0.1:7464, or unix:///run/barograph.sock"


class _UnixConnection(http.client.HTTPConnection):
    """HTTP through a socket in the file system."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Transport:
    """Asks one server; safe from several threads, which wait for each other, and after a fork, where it connects anew.

    url: `http://host:port`, `https://host:port` or `unix:///path`; a path in it goes before every path that is asked. token: sent as a
    bearer token. ca: a PEM file of authorities instead of the system's. certificate: a PEM file of the client's certificate and key, or a
    pair of files, for servers that want one. Raises InvalidArgumentError for a URL that cannot be, or a token with blanks in it.
    """

    def __init__(
        self, url: str, token: str | None = None, *, ca: str | Path | None = None, certificate: str | tuple[str, str] | None = None
    ) -> None:
        try:
            parts = urlsplit(url)
            port = parts.port
        except (ValueError, TypeError, AttributeError) as error:
            raise InvalidArgumentError("`url` must be the URL of a sidecar", _HINT) from error
        fine = parts.hostname if parts.scheme in ("http", "https") else parts.scheme == "unix" and parts.path and not parts.netloc
        if not fine or parts.username is not None or re.search(r"[\x00-\x20\x7f]", url):
            raise InvalidArgumentError(f"`url` must be an http, https or unix URL without a password, got {parts.scheme!r}", _HINT)
        if token is not None and not re.fullmatch(r"[!-~]{1,1000}", token):
            raise InvalidArgumentError("`token` must have 1 to 1000 printable characters without spaces")
        self.url = url
        self._parts, self._port, self._token = parts, port, token
        self._tls = None
        if parts.scheme == "https":
            self._tls = ssl.create_default_context(cafile=None if ca is None else str(ca))
            if certificate is not None:
                self._tls.load_cert_chain(*([certificate] if isinstance(certificate, str) else certificate))
        elif ca is not None or certificate is not None:
            raise InvalidArgumentError("`ca` and `certificate` need an https URL", _HINT)
        self._lock = threading.Lock()
        self._kept: http.client.HTTPConnection | None = None
        self._process = os.getpid()

    def request(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None, *, timeout: float = 10.0
    ) -> tuple[int, dict[str, str], bytes]:
        """Status, headers in lower case, and body of the answer.

        timeout: seconds for every step. Raises OSError or http.client.HTTPException if there is no answer, a redirect included.
        """
        if self._process != os.getpid():
            # The parent's connection is the parent's, and its lock may be held for ever.
            self._lock, self._kept, self._process = threading.Lock(), None, os.getpid()
        with self._lock:
            fresh = self._kept is None
            try:
                return self._once(method, path, body, headers, timeout)
            except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError):
                # A kept connection may have been closed while nobody looked; the request may still have arrived, so only what can be
                # sent twice is.
                once = not {"Idempotency-Key", "Barograph-Sequence"}.isdisjoint(headers or {})
                again = not fresh and (method in ("GET", "PUT") or once)
                self._drop()
                if not again:
                    raise
                return self._once(method, path, body, headers, timeout)
            except BaseException:
                self._drop()
                raise

    def close(self) -> None:
        """Lets the connection go; another request makes a new one."""
        with self._lock:
            self._drop()

    def _drop(self) -> None:
        if self._kept is not None:
            self._kept.close()
            self._kept = None

    def _connect(self, timeout: float) -> http.client.HTTPConnection:
        if self._parts.scheme == "unix":
            return _UnixConnection(self._parts.path, timeout)
        host = self._parts.hostname or ""
        if self._tls is not None:
            return http.client.HTTPSConnection(host, self._port, timeout=timeout, context=self._tls)
        return http.client.HTTPConnection(host, self._port, timeout=timeout)

    def _once(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str] | None, timeout: float
    ) -> tuple[int, dict[str, str], bytes]:
        if self._kept is None:
            self._kept = self._connect(timeout)
        connection = self._kept
        connection.timeout = timeout
        if connection.sock is not None:
            connection.sock.settimeout(timeout)
        sent = {} if self._token is None else {"Authorization": f"Bearer {self._token}"}
        before = "" if self._parts.scheme == "unix" else self._parts.path.rstrip("/")
        connection.request(method, before + path, body, sent | dict(headers or {}))
        answer = connection.getresponse()
        found = answer.read(_MOST_ANSWER + 1)
        if len(found) > _MOST_ANSWER:
            raise http.client.HTTPException(f"the answer has more than {_MOST_ANSWER} bytes")
        if 300 <= answer.status < 400 and answer.status != 304:
            raise http.client.HTTPException(f"{self.url} redirects (status {answer.status}), where a token would go elsewhere")
        if answer.will_close:
            self._drop()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, found


def _default_token(url: str) -> Path | None:
    """Where a sidecar of this folder keeps its token; nobody else is sent it."""
    parts = urlsplit(url)
    near = parts.scheme == "unix" or parts.hostname in ("127.0.0.1", "localhost", "::1")
    return Path("barograph-data") / "token" if near else None


def _checked(token: str, place: str) -> str:
    token = token.strip()
    if not re.fullmatch(r"[!-~]{1,1000}", token):
        raise InvalidArgumentError(f"the token of {place} must have 1 to 1000 printable characters without spaces")
    return token


def token_for(url: str, file: str | None) -> str | None:
    """The token for a sidecar, found in the order of `barograph serve`: BAROGRAPH_TOKEN, the file, ./barograph-data/token if it is near.

    Raises InvalidArgumentError for what is no token, OSError for a file that was named and cannot be read.
    """
    stated = os.environ.get("BAROGRAPH_TOKEN")
    if stated is not None:
        return _checked(stated, "BAROGRAPH_TOKEN")
    path = Path(file) if file is not None else _default_token(url)
    if path is None:
        return None
    try:
        with path.open("rb") as opened:
            text = opened.read(4096).decode("ascii", "replace")
    except OSError:
        if file is not None:
            raise
        return None
    return _checked(text, f"the file {path}")
