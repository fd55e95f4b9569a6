"""Requests to refit, posted: signed, repeated a few times, never an exception into the caller."""

from __future__ import annotations

import hashlib
import hmac
import threading
import time as clock
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from barograph.conditions import _whole
from barograph.errors import InvalidArgumentError
from barograph.monitors import _nanoseconds
from barograph.rollbacks import Outcome

if TYPE_CHECKING:
    from barograph.triggers import RetrainRequest

__all__ = ["Webhook"]

_MOST_REDIRECTS = 3


class Webhook:
    """Posts requests as JSON to a URL, over http or https; for `RetrainRequest.deliver`, or called with a request.

    timeout: of each step of an attempt (connecting, sending, waiting for the answer). attempts: at most so many, while the other side is
    unreachable, too slow, or answers 429 or 5xx, with `backoff` before the second, twice that before the third. Every attempt has the
    header `Idempotency-Key` with the request's id. secret: adds `Barograph-Signature: sha256=` and the HMAC-SHA256 of the body, in
    hexadecimal digits (RFC 2104). Only 2xx is success. Redirects are followed with status 307 and 308, to the same scheme, host and port,
    and nowhere else. Posting never raises: it gives an `Outcome`, and counts.

    Raises InvalidArgumentError for anything but an http or https URL with a host and without a password in it.
    """

    def __init__(
        self,
        url: str,
        *,
        secret: str | bytes | None = None,
        timeout: str | timedelta = "10s",
        attempts: int = 3,
        backoff: str | timedelta = "1s",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        hint = "such as https://example.com/retrain"
        try:
            parts = urllib.parse.urlsplit(url)
            fine = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        except (ValueError, TypeError, AttributeError) as error:
            raise InvalidArgumentError("`url` must be an http or https URL", hint) from error
        if not fine or parts.username is not None or any(character.isspace() or ord(character) < 32 for character in url):
            what = "one with a password" if parts.username is not None else repr(parts.scheme)
            raise InvalidArgumentError(f"`url` must be an http or https URL with a host and no password, got {what}", hint)
        if not _whole(attempts, 1) or attempts > 10:
            raise InvalidArgumentError(f"`attempts` must be a whole number in [1, 10], got {attempts!r}")
        if secret is not None and not secret:
            raise InvalidArgumentError("`secret` must not be empty", "leave it out for no signature")
        self._url, self._attempts = url, attempts
        self._name = f"{parts.scheme}://{parts.netloc}"
        self._secret = secret.encode() if isinstance(secret, str) else secret
        self._timeout, self._backoff = _nanoseconds("timeout", timeout) / 1e9, _nanoseconds("backoff", backoff) / 1e9
        if self._timeout <= 0:
            raise InvalidArgumentError(f"`timeout` must be longer than nothing, got {timeout!r}")
        self._headers = dict(headers or {})
        for name, value in self._headers.items():
            if not isinstance(name, str) or not isinstance(value, str) or any(c in name + value for c in "\r\n"):
                raise InvalidArgumentError("`headers` must map names to values of one line")
        self._lock = threading.Lock()
        self._counts = {"delivered": 0, "failed": 0, "attempts": 0}

    def __call__(self, request: RetrainRequest) -> Outcome:
        """Posts it; waits for the answer and between attempts."""
        body = request.to_json().encode()
        headers = {**self._headers, "Content-Type": "application/json", "User-Agent": "barograph", "Idempotency-Key": request.id}
        if self._secret is not None:
            headers["Barograph-Signature"] = f"sha256={hmac.new(self._secret, body, hashlib.sha256).hexdigest()}"
        outcome, again = Outcome(False, ""), True
        for attempt in range(self._attempts):
            if attempt:
                clock.sleep(self._backoff * 2 ** (attempt - 1))
            outcome, again = self._attempt(body, headers)
            with self._lock:
                self._counts["attempts"] += 1
            if not again:
                break
        with self._lock:
            self._counts["delivered" if outcome.done else "failed"] += 1
        return outcome

    def _attempt(self, body: bytes, headers: Mapping[str, str]) -> tuple[Outcome, bool]:
        """What came of one attempt, and whether another may do better."""
        url = self._url
        for _ in range(_MOST_REDIRECTS + 1):
            # The scheme was checked when the webhook was made.
            asked = urllib.request.Request(url, data=body, headers=dict(headers), method="POST")
            try:
                with urllib.request.build_opener(_Unfollowed()).open(asked, timeout=self._timeout) as answer:
                    status, location = answer.status, None
            except urllib.error.HTTPError as error:
                with error:
                    status, location = error.code, error.headers.get("Location")
            except Exception as error:
                # urllib raises many kinds; none may reach who triggers.
                reason = getattr(error, "reason", error)
                return Outcome(False, f"{self._name} could not be reached: {reason or type(error).__name__}"), True
            onward = _onward(url, location) if status in (307, 308) else None
            if onward is None:
                break
            url = onward
        if 200 <= status < 300:
            return Outcome(True, f"{self._name} answered {status}"), False
        if 300 <= status < 400:
            return Outcome(False, f"{self._name} answered {status}, a redirect that is not followed"), False
        return Outcome(False, f"{self._name} answered {status}"), status == 429 or status >= 500

    def counts(self) -> dict[str, int]:
        """Requests delivered and failed, and attempts of both."""
        with self._lock:
            return dict(self._counts)

    def __repr__(self) -> str:
        return f"Webhook({self._name})"


class _Unfollowed(urllib.request.HTTPRedirectHandler):
    """Leaves redirects to whoever asked: urllib would turn them into a GET without the request, to any host."""

    def http_error_302(self, req: Any, fp: Any, code: int, msg: str, headers: Any) -> None:
        """Nothing: the redirect's own status stands."""

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302


def _onward(url: str, location: str | None) -> str | None:
    """Where a redirect leads, if that is the same scheme, host and port."""
    try:
        to = urllib.parse.urljoin(url, location or url)
        here, there = (urllib.parse.urlsplit(one) for one in (url, to))
        same = (here.scheme, here.netloc) == (there.scheme, there.netloc)
    except ValueError:
        return None
    return to if same and location else None
