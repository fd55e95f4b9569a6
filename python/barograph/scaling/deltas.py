"""Profiles on their way to a sidecar, each counted once: of the batches of a stream, and of replicas that come and go.

What is sent carries a place in a numbered stream (`Barograph-Sequence`), so that the same one, sent again because its answer was lost or
its batch was replayed, is not counted again, however much later.
"""

from __future__ import annotations

import atexit
import http.client
import json
import math
import os
import random
import secrets
import threading
import time as clock
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from barograph.errors import BarographError, InvalidArgumentError, NotFoundError
from barograph.transport import Transport

if TYPE_CHECKING:
    from barograph.profiles import Profile
    from barograph.references import Reference

__all__ = ["Deltas", "Sidecar"]

_MINUTE = 60
_MOST_ROWS = 100_000
_MOST_MINUTES = 1440
_LAST_SECONDS = 2.0
_ALL: weakref.WeakSet[Deltas] = weakref.WeakSet()


class _Later(Exception):
    """No answer, or one that says to try again."""


@dataclass(frozen=True)
class Sidecar:
    """Where profiles go: a sidecar and one of its models. It pickles, and connects where it is used.

    url, token: as those of `bg.connect`; without a token that of BAROGRAPH_TOKEN where it is used. patience: so many seconds `send` tries
    again while there is no answer, or one that says to wait. ca: a PEM file of authorities, for https.
    """

    url: str
    model: str
    token: str | None = field(default=None, repr=False)
    patience: float = 300.0
    ca: str | None = None

    def __post_init__(self) -> None:
        if not self.model:
            raise InvalidArgumentError("`model` must be the name of a model, got ''")
        if not (isinstance(self.patience, int | float) and 0 <= self.patience < math.inf):
            raise InvalidArgumentError(f"`patience` must be a number of seconds, got {self.patience!r}")
        self.transport()

    def transport(self) -> Transport:
        """A connection of the caller's own."""
        return Transport(self.url, self.token if self.token is not None else os.environ.get("BAROGRAPH_TOKEN"), ca=self.ca)

    def send(self, profile: Profile, *, stream: str, number: int, time: datetime | None = None) -> bool:
        """Has a profile counted in the window that `time` lies in (now by default); False if this number had been counted before.

        Raises ConnectionError if there is no answer within the patience, NotFoundError and InvalidArgumentError for what is refused.
        """
        transport, end, wait = self.transport(), clock.monotonic() + self.patience, 0.1
        body = profile.to_bytes()
        try:
            while True:
                try:
                    return self.once(transport, body, stream, number, time)
                except _Later as why:
                    if clock.monotonic() + wait > end:
                        raise ConnectionError(f"{self.url} did not take number {number} of {stream}: {why}") from why
                clock.sleep(wait)
                wait = min(wait * 2, 10.0) * random.uniform(0.8, 1.2)
        finally:
            transport.close()

    def once(self, transport: Transport, body: bytes, stream: str, number: int, time: datetime | None) -> bool:
        """One attempt. Raises _Later where another one may do."""
        path = f"/v1/models/{quote(self.model, safe='')}/profiles"
        if time is not None:
            path += "?" + urlencode({"time": time.astimezone(UTC).isoformat().replace("+00:00", "Z")})
        headers = {"Content-Type": "application/octet-stream", "Barograph-Sequence": f"{stream}/{number}"}
        try:
            status, _, answer = transport.request("POST", path, body, headers)
        except (OSError, http.client.HTTPException) as error:
            raise _Later(str(error) or type(error).__name__) from error
        text = answer[:2000].decode(errors="replace")
        if status == 200:
            try:
                return not json.loads(answer).get("repeated", False)
            except (ValueError, AttributeError) as error:
                raise BarographError(f"{self.url} answered with what is no answer of a sidecar: {text[:200]!r}") from error
        if status in (408, 429) or status >= 500:
            raise _Later(f"status {status}, {text}")
        kind = NotFoundError if status == 404 else InvalidArgumentError
        raise kind(f"{self.url} refused the profile: status {status}, {_detail(text)}")


def _detail(text: str) -> str:
    try:
        problem = json.loads(text)
        return str(problem.get("detail") or problem.get("title") or text)
    except (ValueError, AttributeError):
        return text


class Deltas:
    """What one replica of a service sees, as profiles for a sidecar: a delta every few seconds, under numbers of its own.

    For Ray Serve, prefork servers and whatever else has replicas that come and go: each makes a `Deltas` where it starts, and calls
    `observe`. A delta is keyed by `(incarnation, sequence)`: a random name of this object in this process, and a number that counts up. It
    is sent until it is acknowledged, with the same key, and counts once.

    What a replica that is killed had not sent yet is lost: at most what it observed in the last `interval` seconds, or since the sidecar
    was last reached. Where processes end in order nothing is. While the sidecar is gone, deltas of the same minute are merged: memory is
    that of a profile a minute, for a day; older ones are dropped and counted.

    reference: the model's; columns of it that are observed are counted, nulls too, whatever else a row has is counted in
    `counts()["unknown_fields"]`. Only profiles travel: drift is judged, but there are no latencies, ids or labels (`bg.connect` sends
    events). interval: seconds between deltas, in [0.1, 3600].

    Observing never raises and never waits for the sidecar. Safe from several threads; after a fork the child is another incarnation.
    """

    def __init__(self, to: Sidecar, *, reference: Reference, interval: float = 10.0) -> None:
        if not (isinstance(interval, int | float) and 0.1 <= interval <= 3600):
            raise InvalidArgumentError(f"`interval` must be in [0.1, 3600] seconds, got {interval!r}")
        self._to, self._reference, self._interval = to, reference, float(interval)
        self._kinds = reference.schema.kinds
        self.last_error: str | None = None
        self._begin()
        _ALL.add(self)

    def _begin(self) -> None:
        self.incarnation = secrets.token_hex(8)
        self._lock = threading.Lock()
        self._sending = threading.Lock()
        self._wanted = threading.Event()
        self._closed = False
        self._thread: threading.Thread | None = None
        # Rows by the minute they came in, then profiles by minute, then the one that is on its way.
        self._rows: dict[int, list[Mapping[str, Any]]] = {}
        self._waiting = 0
        self._minutes: dict[int, Profile] = {}
        self._delta: tuple[int, int, bytes, int] | None = None
        self._sequence = 0
        self._transport = self._to.transport()
        names = ("observed", "acknowledged", "deltas", "repeated", "dropped", "refused", "retried", "unknown_fields", "mistyped_fields")
        self._counts = dict.fromkeys(names, 0)

    def observe(self, row: Mapping[str, Any]) -> None:
        """Adds one event: a mapping of columns to values. About a microsecond; what cannot be counted is dropped, and that is counted."""
        with self._lock:
            self._counts["observed"] += 1
            if self._closed or self._waiting >= _MOST_ROWS or not isinstance(row, Mapping):
                self._counts["dropped"] += 1
                return
            self._rows.setdefault(int(clock.time()) // _MINUTE, []).append(row)
            self._waiting += 1
            if self._waiting == _MOST_ROWS // 2:
                self._wanted.set()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="barograph-deltas", daemon=True)
                self._thread.start()

    def counts(self) -> dict[str, int]:
        """Rows `observed`, `acknowledged`, `dropped`, `refused` and `waiting`; `deltas` sent, `repeated` and `retried` ones; odd fields."""
        with self._lock:
            held = self._waiting + sum(profile.rows for profile in self._minutes.values()) + (self._delta[3] if self._delta else 0)
            return {**self._counts, "waiting": held}

    def flush(self, timeout: float = 10.0) -> bool:
        """Sends what there is; whether all of it was acknowledged, or refused, within so many seconds."""
        end, wait = clock.monotonic() + timeout, 0.02
        while True:
            if self._sending.acquire(timeout=max(0.0, end - clock.monotonic())):
                try:
                    self._step()
                finally:
                    self._sending.release()
            if self.counts()["waiting"] == 0:
                return True
            if clock.monotonic() + wait > end:
                return False
            clock.sleep(wait)
            wait = min(1.0, wait * 2)

    def close(self, timeout: float = 10.0) -> bool:
        """Sends what there is, and observes no more."""
        done = self.flush(timeout)
        with self._lock:
            self._closed, thread = True, self._thread
        self._wanted.set()
        if thread is not None:
            thread.join(timeout)
        self._transport.close()
        return done

    def __enter__(self) -> Deltas:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self) -> None:
        failures = 0
        while not self._closed:
            pause = self._interval if failures == 0 else min(self._interval, 0.1 * 2.0 ** min(failures, 10))
            self._wanted.wait(pause * random.uniform(0.8, 1.2) if failures else pause)
            self._wanted.clear()
            with self._sending:
                failures = 0 if self._step() else failures + 1

    def _step(self) -> bool:
        """Rows become profiles; then one delta after another is sent, until there is none or one has to wait."""
        self._count_rows()
        while True:
            with self._lock:
                if self._delta is None and self._minutes:
                    minute = min(self._minutes)
                    profile = self._minutes.pop(minute)
                    self._delta = (self._sequence, minute, profile.to_bytes(), profile.rows)
                    self._sequence += 1
                delta = self._delta
            if delta is None:
                return True
            number, minute, body, rows = delta
            try:
                fresh = self._to.once(self._transport, body, self.incarnation, number, datetime.fromtimestamp(minute * _MINUTE, UTC))
                what, amount = "acknowledged", rows
                self._add("deltas" if fresh else "repeated", 1)
            except _Later as error:
                self.last_error = str(error)
                self._add("retried", 1)
                return False
            except Exception as error:
                self.last_error = str(error)
                what, amount = "refused", rows
            with self._lock:
                self._counts[what] += amount
                self._delta = None

    def _count_rows(self) -> None:
        from barograph.profiles import profile

        with self._lock:
            taken, self._rows = self._rows, {}
        for minute, rows in taken.items():
            try:
                made = profile(self._frame(rows), reference=self._reference)
                with self._lock:
                    self._minutes[minute] = self._minutes[minute] + made if minute in self._minutes else made
                    self._waiting -= len(rows)
                    while len(self._minutes) > _MOST_MINUTES:
                        self._counts["dropped"] += self._minutes.pop(min(self._minutes)).rows
            except Exception as error:
                # Whatever rows hold must not end the thread.
                self.last_error = f"{type(error).__name__}: {error}"
                with self._lock:
                    self._waiting -= len(rows)
                    self._counts["dropped"] += len(rows)

    def _frame(self, rows: list[Mapping[str, Any]]) -> Any:
        """The columns of the reference that any row has; a value of another kind is null, and counted."""
        import polars as pl

        names = {name for row in rows for name in row}
        self._add("unknown_fields", sum(name not in self._kinds for row in rows for name in row))
        types: dict[str, Any] = {"number": pl.Float64, "boolean": pl.Boolean, "time": pl.Datetime("us", "UTC"), "category": pl.String}
        columns = {}
        for name, kind in self._kinds.items():
            if name in names:
                values = [_fitting(kind, row.get(name)) for row in rows]
                odd = sum(value is None and row.get(name) is not None for value, row in zip(values, rows, strict=True))
                self._add("mistyped_fields", odd)
                columns[name] = pl.Series(values, dtype=types.get(kind, pl.String))
        return pl.DataFrame(columns) if columns else pl.DataFrame({next(iter(self._kinds), ""): [None] * len(rows)})

    def _add(self, what: str, amount: int) -> None:
        with self._lock:
            self._counts[what] += amount


def _fitting(kind: str, value: Any) -> Any:
    """A value as its column takes it; None for one of another kind."""
    if value is None:
        return None
    if kind == "number":
        try:
            return None if isinstance(value, bool | str) or not hasattr(value, "__float__") else float(value)
        except (OverflowError, TypeError, ValueError):
            return None
    if kind == "boolean":
        return bool(value) if isinstance(value, bool) or type(value).__name__ == "bool_" else None
    if kind == "time":
        if not isinstance(value, datetime):
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value
    return value if isinstance(value, str) else None


def _after_fork() -> None:
    # What the parent holds is the parent's, and so are its locks.
    for deltas in list(_ALL):
        deltas._begin()


def _at_end() -> None:
    end = clock.monotonic() + _LAST_SECONDS
    for deltas in list(_ALL):
        if not deltas._closed:
            deltas.flush(max(0.0, end - clock.monotonic()))


atexit.register(_at_end)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
