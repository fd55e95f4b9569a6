"""What runs around a monitor: the background timer, the decorator of predict functions, the calls of a server."""

from __future__ import annotations

import functools
import inspect
import os
import threading
import time as clock
import weakref
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar, cast

if TYPE_CHECKING:
    from barograph.client import Client
    from barograph.monitors import Monitor

__all__ = ["Call", "F", "Timer", "observe_call", "quiet_at_fork", "watched"]

F = TypeVar("F", bound=Callable[..., Any])


_MONITORS: weakref.WeakSet[Monitor] = weakref.WeakSet()
_HELD: list[threading.RLock] = []


def quiet_at_fork(monitor: Monitor) -> threading.RLock:
    """A lock to hold around what lets other threads run inside the monitor: a fork waits for it, or the child would inherit it locked."""
    _MONITORS.add(monitor)
    return threading.RLock()


def _before_fork() -> None:
    for monitor in list(_MONITORS):
        lock = getattr(monitor, "_busy", None)
        if lock is not None:
            lock.acquire()
            _HELD.append(lock)


def _after_fork() -> None:
    while _HELD:
        _HELD.pop().release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)


class Timer:
    """Ticks a monitor every so many seconds from a daemon thread, for as long as the monitor lives.

    The thread starts with the first event, and again in a process that was forked after that.
    """

    def __init__(self, monitor: Monitor, seconds: float) -> None:
        self._monitor = weakref.ref(monitor)
        self._seconds = seconds
        self._process: int | None = None
        self._stopped = threading.Event()

    def awake(self) -> None:
        """Starts the thread if this process has none."""
        if self._process != os.getpid() and not self._stopped.is_set():
            self._process = os.getpid()
            threading.Thread(target=self._run, name="barograph-ticks", daemon=True).start()

    def stop(self) -> None:
        """No more ticks."""
        self._stopped.set()

    def _run(self) -> None:
        while not self._stopped.wait(self._seconds):
            monitor = self._monitor()
            if monitor is None:
                return
            try:
                monitor.tick()
            except Exception as error:
                monitor._failed(error)
            del monitor


class Call:
    """One call of a server, from now to its last byte: told to the monitor once, and nothing that fails there reaches the call."""

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor
        self._began = clock.perf_counter()
        self._ended = False

    def end(self, *, failed: bool = False, events: Callable[[], Any] | None = None) -> None:
        """The call is over. events: gives the events it stands for, a mapping, several, or None; not asked where it failed.

        An event is a mapping of columns to values, and `_prediction`, `_score`, `_id`, `_time`.
        """
        if self._ended:
            return
        self._ended = True
        seconds = clock.perf_counter() - self._began
        try:
            found = None if events is None or failed else events()
            if not found:
                self._monitor.request(seconds, error=failed)
                return
            several = [found] if isinstance(found, Mapping) else list(found)
            alone = len(several) == 1
            for row in several:
                roles = {role: row[name] for name, role in _ROLES.items() if name in row}
                fields = {name: value for name, value in row.items() if name not in _ROLES}
                self._monitor.observe(fields, latency_seconds=seconds if alone else None, **roles)
            if not alone:
                # One latency, many events.
                self._monitor._call(seconds, None)
        except Exception as error:
            self._monitor._failed(error)


_ROLES = {"_prediction": "prediction", "_score": "score", "_id": "id", "_time": "time"}


def watched(monitor: Monitor | Client, function: F) -> F:
    """The function with every call observed."""

    def seen(arguments: tuple[Any, ...], named: dict[str, Any], result: Any, began: float) -> None:
        try:
            observe_call(monitor, _input(arguments, named), result, clock.perf_counter() - began)
        except Exception as error:
            monitor._failed(error)

    def failed(began: float) -> None:
        try:
            monitor.request(clock.perf_counter() - began, error=True)
        except Exception as error:
            monitor._failed(error)

    if inspect.isasyncgenfunction(function):

        @functools.wraps(function)
        async def async_stream(*arguments: Any, **named: Any) -> AsyncIterator[Any]:
            began = clock.perf_counter()
            try:
                async for part in function(*arguments, **named):
                    yield part
            except Exception:
                failed(began)
                raise
            seen(arguments, named, None, began)

        return cast("F", async_stream)
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def coroutine(*arguments: Any, **named: Any) -> Any:
            began = clock.perf_counter()
            try:
                result = await function(*arguments, **named)
            except Exception:
                failed(began)
                raise
            seen(arguments, named, result, began)
            return result

        return cast("F", coroutine)
    if inspect.isgeneratorfunction(function):

        @functools.wraps(function)
        def stream(*arguments: Any, **named: Any) -> Iterator[Any]:
            began = clock.perf_counter()
            try:
                yield from function(*arguments, **named)
            except Exception:
                failed(began)
                raise
            seen(arguments, named, None, began)

        return cast("F", stream)

    @functools.wraps(function)
    def call(*arguments: Any, **named: Any) -> Any:
        began = clock.perf_counter()
        try:
            result = function(*arguments, **named)
        except Exception:
            failed(began)
            raise
        seen(arguments, named, result, began)
        return result

    return cast("F", call)


def _input(arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
    """The first argument that may be a model's input; `self` of a method is none."""
    for value in (*arguments, *named.values()):
        if isinstance(value, Mapping) or hasattr(value, "__arrow_c_stream__") or hasattr(value, "columns") or hasattr(value, "__array__"):
            return value
    raise TypeError("no argument of the watched call is a mapping, a frame or an array")


def observe_call(monitor: Monitor | Client, value: Any, result: Any, seconds: float, id: str | None = None) -> None:
    """Observes a call by its input and what it gave. id: of the call; of several events the ids are `id-0`, `id-1` and so on."""
    roles = _roles(monitor)
    if isinstance(value, Mapping) and not any(hasattr(field, "__len__") and not isinstance(field, str) for field in value.values()):
        outcome = _number(result)
        role = "score" if isinstance(outcome, float) and "score" in roles else "prediction"
        monitor.observe(value, latency_seconds=seconds, id=id, **{role: outcome})
        return
    import polars as pl

    frame = _frame(monitor, value)
    column = roles.get("score") or roles.get("prediction")
    if column and column not in frame.columns:
        import numpy as np

        outcome = np.asarray(result)
        if outcome.ndim == 2 and outcome.shape[1] == 2:
            outcome = outcome[:, 1]
        if outcome.size == frame.height:
            frame = frame.with_columns(pl.Series(column, outcome.reshape(-1)))
    if id is not None:
        names = pl.format("{}-{}", pl.lit(id), pl.int_range(frame.height)) if frame.height > 1 else pl.lit(id)
        frame = frame.with_columns(names.alias("_id"))
    # Labels are compared with the score, or, of a regression, with the prediction.
    there = column if column in frame.columns else None
    judged = {"score" if column == roles.get("score") else "prediction": there}
    monitor.observe_frame(frame, id=None if id is None else "_id", **judged)
    # A batch is one latency and many events.
    monitor._call(seconds, None)


def _roles(monitor: Monitor | Client) -> dict[str, str]:
    return {column["role"]: column["name"] for column in reversed(monitor._columns())}


def _number(result: Any) -> Any:
    """A single outcome as a plain value, else None."""
    if isinstance(result, (bool, int, float, str)):
        return result
    item = getattr(result, "item", None)
    if item is not None and getattr(result, "size", 0) == 1:
        return item()
    return None


def _frame(monitor: Monitor | Client, value: Any) -> Any:
    import polars as pl

    if isinstance(value, Mapping):
        return pl.DataFrame(dict(value))
    if hasattr(value, "columns") and not isinstance(value, pl.DataFrame):
        return pl.DataFrame(value) if not hasattr(value, "__dataframe__") else pl.from_dataframe(value)
    if isinstance(value, pl.DataFrame) or hasattr(value, "__arrow_c_stream__"):
        return pl.DataFrame(value)
    import numpy as np

    features = [column["name"] for column in monitor._columns() if column["role"] in ("feature", "segment")]
    rows = np.atleast_2d(np.asarray(value))
    if rows.ndim != 2 or rows.shape[1] != len(features):
        raise ValueError(f"rows of {rows.shape[-1]} values where the reference has {len(features)} features")
    return pl.DataFrame({name: rows[:, at] for at, name in enumerate(features)})
