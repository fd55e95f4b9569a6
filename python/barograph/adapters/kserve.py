"""KServe models, watched: every `predict` of a `kserve.Model`, over REST v1, v2 and gRPC."""

from __future__ import annotations

import functools
import inspect
import time as clock
from collections.abc import Mapping
from typing import Any, TypeVar

import kserve
import numpy as np

from barograph.monitors import Monitor
from barograph.watching import observe_call

__all__ = ["watch"]

M = TypeVar("M", bound=kserve.Model)


def watch(model: M, monitor: Monitor) -> M:
    """The same model with every call of its `predict` observed, between its `preprocess` and `postprocess`.

    Rows are what `predict` is given: `instances` (mappings, or lists in the order of the reference's features) or the tensors of an
    `InferRequest` (one per column, or one of all features). The first output is the score or prediction, where it is one number per row.
    The id is the header `x-request-id`, else the request's own, with `-0`, `-1` and so on where a request has several rows. What is
    given and returned passes untouched; what cannot be read is counted in `monitor.counts()["failures"]`. KServe starts workers by
    fork: call this in `load`, which each of them runs, if there are several.

    `kserve.ModelServer().start([watch(model, monitor)])`
    """
    predict = model.predict
    seen = functools.partial(_seen, monitor)

    if inspect.iscoroutinefunction(predict):

        @functools.wraps(predict)
        async def watched_async(payload: Any, headers: dict[str, str] | None = None, *more: Any, **named: Any) -> Any:
            began = clock.perf_counter()
            try:
                response = await predict(payload, headers, *more, **named)
            except Exception:
                _failed(monitor, began)
                raise
            seen(payload, headers, response, began)
            return response

        model.predict = watched_async
    else:

        @functools.wraps(predict)
        def watched(payload: Any, headers: dict[str, str] | None = None, *more: Any, **named: Any) -> Any:
            began = clock.perf_counter()
            try:
                response = predict(payload, headers, *more, **named)
            except Exception:
                _failed(monitor, began)
                raise
            seen(payload, headers, response, began)
            return response

        model.predict = watched
    return model


def _failed(monitor: Monitor, began: float) -> None:
    try:
        monitor.request(clock.perf_counter() - began, error=True)
    except Exception as error:
        monitor._failed(error)


def _seen(monitor: Monitor, payload: Any, headers: Mapping[str, str] | None, response: Any, began: float) -> None:
    try:
        id = (headers or {}).get("x-request-id") or getattr(payload, "id", None)
        observe_call(monitor, _rows(payload), _outcome(response), clock.perf_counter() - began, id)
    except Exception as error:
        monitor._failed(error)


def _rows(payload: Any) -> Any:
    """What `predict` was given, as a mapping of columns or an array of rows."""
    if isinstance(payload, Mapping):
        rows = payload.get("instances", payload)
        if isinstance(rows, list) and rows and isinstance(rows[0], Mapping):
            return {name: [row.get(name) for row in rows] for name in rows[0]}
        return rows if isinstance(rows, Mapping) else np.asarray(rows)
    if isinstance(payload, kserve.InferRequest):
        tensors = {tensor.name: _values(tensor) for tensor in payload.inputs}
        if len(tensors) == 1:
            only = next(iter(tensors.values()))
            if only.ndim == 2 and only.shape[1] > 1:
                return only
        return {name: values.reshape(-1) for name, values in tensors.items()}
    return payload


def _values(tensor: Any) -> Any:
    values = tensor.as_numpy()
    if tensor.datatype == "BYTES":
        text = [value.decode() if isinstance(value, bytes) else str(value) for value in values.reshape(-1)]
        return np.asarray(text).reshape(values.shape)
    return values


def _outcome(response: Any) -> Any:
    if isinstance(response, Mapping):
        return response.get("predictions")
    if isinstance(response, kserve.InferResponse) and response.outputs:
        return _values(response.outputs[0])
    return response
