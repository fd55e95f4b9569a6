"""`bg.connect`: events, labels and latencies to a sidecar, in the background, and what it says about a model.

Observing puts into a queue and returns; one thread sends. What cannot be sent waits and is sent again under the same key, so that it
counts once; what does not fit into the queue is dropped and counted. Nothing in here reaches the request that is observed.
"""

from __future__ import annotations

import atexit
import io
import json
import logging
import os
import random
import secrets
import threading
import time as clock
import weakref
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from barograph.errors import InvalidArgumentError, NotFoundError
from barograph.frames import Frame, parts
from barograph.monitors import _instant, _nanoseconds
from barograph.reports import alerts_frame, rows_frame
from barograph.sketches import ExponentialHistogram
from barograph.transport import Transport
from barograph.watching import F, watched

if TYPE_CHECKING:
    import altair as alt
    import polars as pl

    from barograph.decisions import Decision
    from barograph.privacies import Privacy
    from barograph.references import Reference
    from barograph.rollout import Rollout
    from barograph.triggers import RetrainRequest, Trigger

__all__ = ["Client", "connect"]

ADDRESS = "http://127.0.0.1:7464"

_LOG = logging.getLogger("barograph")
_ARROW = "application/vnd.apache.arrow.stream"
_JSON = "application/json"
_BODY_BYTES = 4 << 20
"""What a body has at most before it is cut: far below what a sidecar takes."""
_TOGETHER = 20_000
"""Single events that become one body."""
_SCALE = 6
_CLIENTS: weakref.WeakSet[Client] = weakref.WeakSet()


class _Body:
    """Something to be sent: encoded by the thread that sends, once, so that every attempt sends the same bytes."""

    def __init__(self, path: str, frame: pl.DataFrame | None, events: int, size: int, content: bytes | None = None) -> None:
        self.path, self.frame, self.events, self.size, self.content = path, frame, events, size, content
        self.key = secrets.token_hex(16)

    def bytes(self) -> bytes:
        if self.content is None and self.frame is not None:
            import polars as pl

            out = io.BytesIO()
            self.frame.write_ipc_stream(out, compat_level=pl.CompatLevel.oldest())
            self.content, self.frame = out.getvalue(), None
        return self.content or b""


class Client:
    """One model of a sidecar, with the methods of a `Monitor`; see `connect`.

    `observe`, `observe_frame`, `label`, `request` and watched functions return at once and never raise: what is wrong with an argument is
    counted (`counts()["failures"]`), kept as `last_error` and logged once. `drift`, `history`, `alerts`, `register` and `deploy` ask the
    sidecar and raise: NotFoundError, InvalidArgumentError for what it refuses, ConnectionError if it does not answer.

    Safe from several threads. After a fork the child has a queue of its own, and what the parent had queued stays the parent's. At the end
    of the process what is queued is sent for two seconds more.
    """

    def __init__(
        self,
        transport: Transport,
        model: str,
        *,
        privacy: Privacy | None,
        delay: float,
        timeout: float,
        queue_events: int,
        queue_bytes: int,
    ) -> None:
        self.model = model
        self._transport, self._privacy = transport, privacy
        self._delay, self._timeout = delay, timeout
        self._most_events, self._most_bytes = queue_events, queue_bytes
        self._path = f"/v1/models/{quote(model, safe='')}"
        self._reference: Reference | None = None
        self.last_error: str | None = None
        self._begin()
        _CLIENTS.add(self)

    def _begin(self) -> None:
        """An empty queue, and nobody who sends."""
        self._changed = threading.Condition(threading.Lock())
        self._rows: list[dict[str, Any]] = []
        self._bodies: deque[_Body] = deque()
        self._calls: tuple[ExponentialHistogram, list[int]] | None = None
        self._sending: int = 0
        self._queued_events = self._queued_bytes = 0
        self._waited = 0
        self._thread: threading.Thread | None = None
        self._closed = False
        self._counts = dict.fromkeys(("accepted", "refused", "dropped", "retried", "failures"), 0)
        self._warned = -1e9

    # ---- what is observed ----

    def observe(
        self,
        row: Mapping[str, Any],
        *,
        prediction: Any = None,
        score: float | Sequence[float] | None = None,
        latency_seconds: float | None = None,
        id: int | str | None = None,
        time: datetime | None = None,
        error: bool = False,
        version: str | None = None,
        weight: float | None = None,
    ) -> None:
        """Queues one event; arguments as those of `Monitor.observe`. A few microseconds."""
        try:
            event = dict(row) if self._privacy is None else self._privacy.row(row)
            event["_time"] = clock.time_ns() if time is None else _instant(time)
            if prediction is not None:
                event["_prediction"] = prediction
            if score is not None:
                event |= _scores(score)
            if latency_seconds is not None:
                event["_latency_seconds"] = latency_seconds
            if id is not None:
                event["_id"] = id
            if error:
                event["_error"] = True
            if version is not None:
                event["_version"] = str(version)
            if weight is not None:
                event["_weight"] = weight
        except Exception as wrong:
            self._failed(wrong)
            return
        with self._changed:
            if self._closed or self._queued_events >= self._most_events:
                self._drop(1)
                return
            self._rows.append(event)
            self._queued_events += 1
            if self._thread is None:
                self._start()
            elif len(self._rows) == _TOGETHER:
                self._changed.notify_all()

    def observe_frame(
        self,
        frame: Frame,
        *,
        time: str | None = None,
        id: str | None = None,
        prediction: str | None = None,
        score: str | Sequence[str] | None = None,
        latency_seconds: str | None = None,
        error: str | None = None,
        version: str | None = None,
        weight: str | None = None,
    ) -> None:
        """Queues a frame of events; arguments as those of `Monitor.observe_frame`. Without `time` all have the time of now."""
        scores = {} if score is None else {"_score": score} if isinstance(score, str) else {f"_score.{at}": s for at, s in enumerate(score)}
        roles = {"_time": time, "_id": id, "_prediction": prediction, "_latency_seconds": latency_seconds, **scores}
        roles |= {"_error": error, "_version": version, "_weight": weight}
        try:
            for part in parts(frame if self._privacy is None else self._privacy.frame(frame)):
                self._put(f"{self._path}/events", _with_roles(part, roles))
        except Exception as wrong:
            self._failed(wrong)

    def label(self, frame: Frame, *, id: str, label: str, time: str | None = None) -> None:
        """Queues labels by event id; arguments as those of `Monitor.label`."""
        roles = {"_id": id, "_label": label, "_time": time}
        try:
            for part in parts(frame if self._privacy is None else self._privacy.frame(frame)):
                self._put(f"{self._path}/labels", _with_roles(part, roles).select("_id", "_label", "_time"))
        except Exception as wrong:
            self._failed(wrong)

    def request(self, seconds: float, *, error: bool = False) -> None:
        """A request without its event: latency in seconds, and whether it failed."""
        self._call(seconds, error)

    def watch(self, function: F) -> F:
        """Decorates a predict function as `Monitor.watch` does. A result that is a number is the score, anything else the prediction; rows
        without names need a reference that was registered here.
        """
        return watched(self, function)

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Measures the latency of its block."""
        began = clock.perf_counter()
        try:
            yield
        finally:
            self._call(clock.perf_counter() - began, None)

    def _call(self, seconds: float, error: bool | None) -> None:
        """Counts a latency; with `error` the call stands for itself, as a request."""
        try:
            with self._changed:
                if self._closed:
                    self._drop(1)
                    return
                if self._calls is None:
                    self._calls = ExponentialHistogram(_SCALE), [0, 0, clock.time_ns()]
                latencies, counts = self._calls
                latencies.update(float(seconds))
                if error is not None:
                    counts[0] += 1
                    counts[1] += bool(error)
                if self._thread is None:
                    self._start()
        except Exception as wrong:
            self._failed(wrong)

    def _columns(self) -> list[dict[str, str]]:
        """The columns of the reference, as far as it is known here."""
        if self._reference is None:
            return [{"name": "_score", "role": "score"}, {"name": "_prediction", "role": "prediction"}]
        columns: list[dict[str, str]] = json.loads(self._reference._native.schema_json())["columns"]
        return columns

    def _failed(self, error: Exception) -> None:
        """Nothing that fails in monitoring may reach the request it watches."""
        with self._changed:
            self._counts["failures"] += 1
            first = self._counts["failures"] == 1
            self.last_error = str(error)
        if first:
            _LOG.warning("client of model %s: %s; further failures are counted only", self.model, error)

    # ---- the queue ----

    def _put(self, path: str, frame: pl.DataFrame) -> None:
        size = max(int(frame.estimated_size()), 1)
        rows = max(1, frame.height * _BODY_BYTES // size)
        for part in frame.iter_slices(rows):
            body = _Body(path, part, part.height, max(int(part.estimated_size()), 64))
            with self._changed:
                full = self._queued_bytes + body.size > self._most_bytes and self._bodies
                if self._closed or full:
                    self._drop(body.events)
                    continue
                self._append(body)
                self._start()
                self._changed.notify_all()

    def _append(self, body: _Body) -> None:
        self._bodies.append(body)
        self._queued_bytes += body.size
        self._queued_events += body.events

    def _drop(self, events: int) -> None:
        self._counts["dropped"] += events
        if clock.monotonic() - self._warned > 60.0:
            self._warned = clock.monotonic()
            why = "is closed" if self._closed else "has a full queue"
            _LOG.warning("client of model %s %s: %d events were dropped so far", self.model, why, self._counts["dropped"])

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=_run, args=(weakref.ref(self),), name="barograph-client", daemon=True)
            self._thread.start()

    def _gather(self) -> _Body | None:
        """The next body; None once there is nothing."""
        with self._changed:
            if not self._bodies:
                if not self._rows and self._calls is None and not self._closed:
                    self._changed.wait(1.0)
                if self._rows and not self._bodies and not self._waited and len(self._rows) < _TOGETHER:
                    # Others may come.
                    self._changed.wait(self._delay)
            rows, self._rows = self._rows[:_TOGETHER], self._rows[_TOGETHER:]
            calls, self._calls = self._calls, None
            self._sending = 1
        made = []
        try:
            made = [_Body(f"{self._path}/events", frame, frame.height, 0) for frame in _frames(rows)]
        except Exception as wrong:
            self._failed(wrong)
        lost = len(rows) - sum(body.events for body in made)
        if calls is not None:
            made.append(_Body("/v1/metrics", None, 0, 0, _measured(self.model, *calls)))
        with self._changed:
            self._queued_events -= len(rows)
            self._counts["dropped"] += lost
            for body in made:
                self._append(body)
            if not self._bodies:
                self._sending = 0
                self._changed.notify_all()
                return None
            return self._bodies[0]

    def _sent(self, body: _Body, accepted: int, refused: int, error: str | None) -> None:
        with self._changed:
            if self._bodies and self._bodies[0] is body:
                self._bodies.popleft()
                self._queued_bytes -= body.size
                self._queued_events -= body.events
            self._counts["accepted"] += accepted
            self._counts["refused"] += refused
            self.last_error = error or self.last_error
            self._sending = 0
            self._changed.notify_all()

    def _send(self, body: _Body) -> float | None:
        """Sends; None if there is an answer, else the seconds that the server wants to be left alone, 0 if it did not say."""
        kind = _JSON if body.path == "/v1/metrics" else _ARROW
        try:
            headers = {"Content-Type": kind, "Idempotency-Key": body.key}
            status, said, answer = self._transport.request("POST", body.path, body.bytes(), headers, timeout=self._timeout)
        except (OSError, HTTPException) as error:
            self.last_error = f"{self._transport.url}: {error or type(error).__name__}"
            return 0.0
        if status in (429, 503):
            self.last_error = _words(status, answer)
            return _seconds(said.get("retry-after"))
        found = _document(answer)
        if status == 200:
            self._sent(body, _count(found, "accepted"), _count(found, "rejected_count"), _reason(found))
        elif status == 422 and "rejected_count" in found:
            self._sent(body, 0, body.events, _reason(found))
        else:
            self._sent(body, 0, body.events, _words(status, answer))
        return None

    def flush(self, timeout: float = 10.0) -> bool:
        """Waits until all that was queued has been answered, at most so many seconds; whether it has been."""
        end = clock.monotonic() + timeout
        with self._changed:
            self._waited += 1
            try:
                self._changed.notify_all()
                while self._rows or self._bodies or self._calls is not None or self._sending:
                    if self._thread is None:
                        self._start()
                    left = end - clock.monotonic()
                    if left <= 0:
                        return False
                    self._changed.wait(left)
                return True
            finally:
                self._waited -= 1

    def close(self, timeout: float = 5.0) -> bool:
        """Sends what is queued, for at most so many seconds, and takes no more; whether all was answered."""
        done = self.flush(timeout)
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if done:
            self._transport.close()
        return done

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def counts(self) -> dict[str, int]:
        """Events that were accepted, refused by the sidecar, dropped here, are queued; attempts that were made again; failures in here."""
        with self._changed:
            return {**self._counts, "queued": self._queued_events}

    # ---- what is asked ----

    def register(self, reference: Reference) -> None:
        """Gives the model its reference; the model is made if it is not there. Needs a token of scope admin."""
        self._ask("PUT", f"{self._path}/reference", reference.to_bytes(), "application/octet-stream")
        self._reference = reference

    def deploy(self, version: str, *, time: datetime | None = None, mute: str | timedelta = "0s") -> None:
        """Declares a deploy, as `Monitor.deploy` does."""
        from datetime import UTC

        body: dict[str, Any] = {"version": str(version), "mute": f"{_nanoseconds('mute', mute)}ns"}
        if time is not None:
            _instant(time)
            body["time"] = (time.replace(tzinfo=UTC) if time.tzinfo is None else time).isoformat()
        self._ask("POST", f"{self._path}/deploys", json.dumps(body).encode(), _JSON)

    def tell(self, what: Decision | Rollout | RetrainRequest | Trigger) -> None:
        """Keeps a decision, a request to fit again, or what a trigger saw, with the model: the page and `bg.history` show it.

        what: a `Decision`, or a `Rollout`, which is asked for one: told at every look, the page draws how sure it got; a `RetrainRequest`,
        also as a target of `deliver`: `request.deliver(client.tell)`; a `Trigger`, of which the last `check` or `judge` is told. The same
        once more is kept once. The last 1,000 decisions, 200 requests and 50 triggers are kept. Raises InvalidArgumentError for anything
        else, for a request of another model, for a trigger that has judged nothing yet, and for more than 64 KB.
        """
        from barograph.decisions import Decision
        from barograph.rollout import Rollout
        from barograph.triggers import RetrainRequest, Trigger

        if isinstance(what, Rollout):
            what = what.decide()
        if isinstance(what, Decision):
            document: dict[str, Any] = {"decision": what.to_dict()}
        elif isinstance(what, RetrainRequest):
            document = {"request": json.loads(what.to_json())}
        elif isinstance(what, Trigger):
            document = {"trigger": what._last()}
        else:
            wanted = "a Decision, Rollout, RetrainRequest or Trigger"
            raise InvalidArgumentError(f"`what` must be {wanted}, got {type(what).__name__}")
        self._ask("POST", f"{self._path}/feedback", json.dumps(document, allow_nan=False).encode(), _JSON)

    def told(self) -> dict[str, list[dict[str, Any]]]:
        """What was told of the feedback loop, by anybody: `decisions`, `requests`, `triggers`, each the newest first.

        Times are nanoseconds since the epoch.
        """
        found = self._ask("GET", f"{self._path}/feedback?limit=1000")
        return {name: found[name] for name in ("decisions", "requests", "triggers")}

    def drift(self) -> pl.DataFrame:
        """Rows of the window that closed last and of the one that is open, as of a report. Empty while the model learns."""
        return rows_frame(self._ask("GET", f"{self._path}/drift")["rows"])

    def history(self, since: datetime | None = None) -> pl.DataFrame:
        """Rows of closed windows, as `Monitor.history` gives them."""
        from datetime import UTC

        start = "" if since is None else (since.replace(tzinfo=UTC) if since.tzinfo is None else since).isoformat()
        return rows_frame(list(self._pages("history", {"since": start} if start else {})))

    def alerts(self) -> pl.DataFrame:
        """Every change of an alert, oldest first, as `Monitor.alerts` gives them."""
        return alerts_frame(list(self._pages("alerts", {})))

    def plot(self, column: str | None = None, *, method: str | None = None, since: datetime | None = None) -> alt.LayerChart:
        """A chart of Altair: verdicts of all columns over time, or one number of a column (or of the model) with its limits and alerts.

        See `barograph.plots.history`.
        """
        from barograph import plots

        return plots.history(self.history(since), self.alerts(), column=column, method=method)

    def _pages(self, what: str, query: Mapping[str, str]) -> Iterator[dict[str, Any]]:
        after = None
        while True:
            pairs = {**query, "limit": "10000"} | ({} if after is None else {"after": after})
            page = self._ask("GET", f"{self._path}/{what}?" + "&".join(f"{key}={quote(value)}" for key, value in pairs.items()))
            yield from page["rows"]
            after = page["next"]
            if after is None:
                return

    def _ask(self, method: str, path: str, body: bytes | None = None, kind: str | None = None) -> Any:
        try:
            headers = {} if kind is None else {"Content-Type": kind}
            status, _, answer = self._transport.request(method, path, body, headers, timeout=max(self._timeout, 30.0))
        except (OSError, HTTPException) as error:
            raise ConnectionError(f"{self._transport.url} gave no answer: {error or type(error).__name__}") from error
        if 200 <= status < 300:
            return _document(answer)
        said = _words(status, answer)
        if status == 404:
            raise NotFoundError(said)
        if status in (400, 409, 413, 415, 422):
            raise InvalidArgumentError(said)
        raise ConnectionError(said)

    def __repr__(self) -> str:
        return f"Client({self._transport.url!r}, model={self.model!r})"


def connect(
    url: str | None = None,
    *,
    model: str,
    token: str | None = None,
    privacy: Privacy | None = None,
    ca: str | Path | None = None,
    certificate: str | tuple[str, str] | None = None,
    delay: float = 0.2,
    timeout: float = 10.0,
    queue_events: int = 200_000,
    queue_bytes: int = 64 << 20,
) -> Client:
    """A client of a sidecar for one model; nothing is asked of it yet.

    url: `http://host:port`, `https://…` or `unix:///path`; without it BAROGRAPH_URL, or http://127.0.0.1:7464. token: without it
    BAROGRAPH_TOKEN. privacy: what happens to columns before they leave the process. ca, certificate: for https, PEM files of authorities,
    and of the client's certificate and key. delay: seconds that a single event waits for others. timeout: seconds of every step of a
    request. queue_events, queue_bytes: what may wait to be sent, single events and frames; what comes beyond is dropped and counted.

    Raises InvalidArgumentError for arguments that cannot be.

    >>> client = connect("http://127.0.0.1:7464", model="fraud", token="secret")
    >>> client.counts()["queued"]
    0
    >>> client.close()
    True
    """
    if not isinstance(model, str) or not model:
        raise InvalidArgumentError(f"`model` must be the name of a model, got {model!r}")
    for name, value, least in (("delay", delay, 0.0), ("timeout", timeout, 0.001), ("queue_events", queue_events, 1)):
        if not isinstance(value, int | float) or isinstance(value, bool) or not least <= value < float("inf"):
            raise InvalidArgumentError(f"`{name}` must be a number of at least {least:g}, got {value!r}")
    if not isinstance(queue_bytes, int) or queue_bytes < _BODY_BYTES:
        raise InvalidArgumentError(f"`queue_bytes` must be a whole number of at least {_BODY_BYTES}, got {queue_bytes!r}")
    url = url or os.environ.get("BAROGRAPH_URL") or ADDRESS
    token = token if token is not None else os.environ.get("BAROGRAPH_TOKEN")
    transport = Transport(url, token, ca=ca, certificate=certificate)
    return Client(transport, model, privacy=privacy, delay=delay, timeout=timeout, queue_events=int(queue_events), queue_bytes=queue_bytes)


# ---- the thread ----


def _run(of: weakref.ref[Client]) -> None:
    """Sends what a client has, for as long as there is one."""
    attempt = 0
    while True:
        client = of()
        if client is None:
            return
        body = client._gather()
        if body is None:
            if client._closed:
                return
            continue
        try:
            wanted = client._send(body)
        except Exception as error:
            # A body that cannot even be encoded must not keep the others.
            client._sent(body, 0, body.events, str(error))
            wanted = None
        if wanted is None:
            attempt = 0
            continue
        attempt += 1
        with client._changed:
            client._counts["retried"] += 1
            client._sending = 0
            if client._closed:
                return
            # Full jitter: clients that failed together do not come back together.
            pause = max(wanted, random.uniform(0.0, min(30.0, 0.1 * 2.0 ** min(attempt, 10))))
            end = clock.monotonic() + pause
            while not client._closed and (left := end - clock.monotonic()) > 0:
                client._changed.wait(left)
        del client, body


def _after_fork() -> None:
    for client in list(_CLIENTS):
        client._begin()


def _at_end() -> None:
    for client in list(_CLIENTS):
        if not client._closed and client._thread is not None:
            client.close(2.0)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
atexit.register(_at_end)


# ---- bodies and answers ----


def _scores(score: Any) -> dict[str, float]:
    """A score, or one per class."""
    if isinstance(score, int | float) or not hasattr(score, "__len__"):
        return {"_score": float(score)}
    return {f"_score.{at}": float(chance) for at, chance in enumerate(score)}


def _with_roles(part: Any, roles: Mapping[str, str | None]) -> pl.DataFrame:
    import polars as pl

    frame = part if isinstance(part, pl.DataFrame) else pl.DataFrame(part)
    for name in roles.values():
        if name is not None and name not in frame.columns:
            raise InvalidArgumentError(f"column {name!r} is named, which the frame has not", f"it has {', '.join(frame.columns[:20])}")
    frame = frame.with_columns(pl.col(name).alias(role) for role, name in roles.items() if name is not None and name != role)
    if "_time" in frame.columns:
        # What has no time happened now, also if it is sent late.
        return frame.with_columns(pl.col("_time").fill_null(_now())) if frame["_time"].dtype.is_temporal() else frame
    return frame.with_columns(pl.lit(_now()).alias("_time"))


def _now() -> Any:
    import polars as pl

    return pl.Series("_time", [clock.time_ns()]).cast(pl.Datetime("ns", "UTC"))[0]


def _frames(rows: list[dict[str, Any]]) -> list[pl.DataFrame]:
    """Events as frames: one, unless a field is of one type here and of another there."""
    import polars as pl

    if not rows:
        return []
    try:
        return [_timed(pl.from_dicts(rows, infer_schema_length=None))]
    except Exception:
        groups: dict[Any, list[dict[str, Any]]] = {}
        for row in rows:
            plain = {str(name): _plain(value) for name, value in row.items()}
            groups.setdefault(frozenset((name, type(value)) for name, value in plain.items()), []).append(plain)
        return [_timed(pl.from_dicts(group, infer_schema_length=None)) for group in groups.values()]


def _timed(frame: pl.DataFrame) -> pl.DataFrame:
    import polars as pl

    return frame.with_columns(pl.col("_time").cast(pl.Datetime("ns", "UTC")))


def _plain(value: Any) -> Any:
    """A value that Arrow has a type for: of anything else its text."""
    if value is None or isinstance(value, bool | float | str | datetime):
        return value
    if isinstance(value, int):
        return value if -(1 << 63) <= value < 1 << 63 else float(value)
    item = getattr(value, "item", None)
    return _plain(item()) if item is not None and getattr(value, "size", 1) == 1 else str(value)


def _measured(model: str, latencies: ExponentialHistogram, counts: list[int]) -> bytes:
    """Latencies and requests as OTLP metrics."""
    requests, failures, began = counts
    span = {
        "startTimeUnixNano": str(began),
        "timeUnixNano": str(max(clock.time_ns(), began + 1)),
        "attributes": [{"key": "model", "value": {"stringValue": model}}],
    }
    point = latencies.to_otlp()
    point = {**point, "count": str(point["count"]), "zeroCount": str(point["zeroCount"])}
    for side in ("positive", "negative"):
        point[side] = {**point[side], "bucketCounts": [str(count) for count in point[side]["bucketCounts"]]}
    delta = {"aggregationTemporality": 1}
    metrics: list[dict[str, Any]] = [
        {"name": "barograph.latency", "unit": "s", "exponentialHistogram": {**delta, "dataPoints": [{**span, **point}]}}
    ]
    for name, count in (("barograph.requests", requests), ("barograph.failures", failures)):
        if count:
            metrics.append({"name": name, "sum": {**delta, "isMonotonic": True, "dataPoints": [{**span, "asInt": str(count)}]}})
    return json.dumps({"resourceMetrics": [{"scopeMetrics": [{"metrics": metrics}]}]}).encode()


def _document(answer: bytes) -> dict[str, Any]:
    try:
        found = json.loads(answer)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _words(status: int, answer: bytes) -> str:
    said = _document(answer)
    words = [str(said[key])[:500] for key in ("detail", "hint") if said.get(key)]
    return f"the sidecar says {status}: {'; '.join(words) or said.get('title') or 'nothing more'}"


def _count(found: Mapping[str, Any], key: str) -> int:
    value = found.get(key)
    return value if isinstance(value, int) and value >= 0 else 0


def _reason(found: Mapping[str, Any]) -> str | None:
    rows = found.get("rejected")
    first = rows[0] if isinstance(rows, list) and rows and isinstance(rows[0], dict) else None
    return None if first is None else f"row {first.get('row')} was refused: {str(first.get('reason'))[:500]}"


def _seconds(value: str | None) -> float:
    try:
        return min(max(float(value or 0), 0.0), 300.0)
    except ValueError:
        return 0.0
