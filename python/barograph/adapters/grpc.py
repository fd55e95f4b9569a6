"""gRPC servers, watched: interceptors for `grpc.server` and `grpc.aio.server`."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from typing import Any, TypeAlias

import grpc
import grpc.aio

from barograph.monitors import Monitor
from barograph.watching import Call

__all__ = ["WatchedAioGrpc", "WatchedGrpc"]

Events: TypeAlias = Callable[[Any, Any], Mapping[str, Any] | list[Mapping[str, Any]] | None]

FAILED = ("UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS")
"""Codes that are the server's failure; the others are the client's. As OpenTelemetry's conventions for RPC say it."""


class _Watched:
    """What both interceptors share.

    events: makes events of a call that has one request and one response, `events(request, response)`: a mapping or a list of
    mappings of the reference's columns (and `_prediction`, `_score`, `_id`, `_time`), or None. Without it messages are not looked at.
    methods: only methods whose full name begins with one of these, such as `"/inference.GRPCInferenceService/"`.
    """

    def __init__(self, monitor: Monitor, *, events: Events | None = None, methods: tuple[str, ...] = ("/",)) -> None:
        self.monitor = monitor
        self.events = events
        self.methods = methods

    def _end(self, call: Call, context: Any, *, raised: bool, messages: tuple[Any, Any] | None = None) -> None:
        code = context.code()
        # A code is a StatusCode, or its number where the server runs on asyncio; none, or 0, is success unless something was raised.
        name = code.name if isinstance(code, grpc.StatusCode) else _NAMES.get(code, "UNKNOWN" if code else "OK")
        failed = name in FAILED or (raised and name == "OK")
        events = self.events
        asked = None if events is None or messages is None else lambda: events(*messages)
        call.end(failed=failed, events=None if raised or name != "OK" else asked)

    def _plain(self, behaviour: Callable[..., Any], streams: bool, single: bool) -> Callable[..., Any]:
        """A handler's function that is called and returns, or gives responses one by one."""

        def unary(request: Any, context: Any) -> Any:
            call, context = Call(self.monitor), _coded(context)
            try:
                response = behaviour(request, context)
            except BaseException:
                self._end(call, context, raised=True)
                raise
            self._end(call, context, raised=False, messages=(request, response) if single else None)
            return response

        def stream(request: Any, context: Any) -> Iterator[Any]:
            call, context = Call(self.monitor), _coded(context)
            try:
                yield from behaviour(request, context)
            except BaseException:
                self._end(call, context, raised=True)
                raise
            self._end(call, context, raised=False)

        return stream if streams else unary

    def _async(self, behaviour: Callable[..., Any], streams: bool, single: bool) -> Callable[..., Any]:
        """The same for functions of asyncio."""

        async def unary(request: Any, context: Any) -> Any:
            call = Call(self.monitor)
            try:
                response = await behaviour(request, context)
            except BaseException:
                self._end(call, context, raised=True)
                raise
            self._end(call, context, raised=False, messages=(request, response) if single else None)
            return response

        async def stream(request: Any, context: Any) -> AsyncIterator[Any]:
            call = Call(self.monitor)
            try:
                async for part in behaviour(request, context):
                    yield part
            except BaseException:
                self._end(call, context, raised=True)
                raise
            self._end(call, context, raised=False)

        # A coroutine that writes its responses to the context is awaited like a single one.
        return stream if streams and not inspect.iscoroutinefunction(behaviour) else unary

    def _around(self, handler: Any) -> Any:
        if handler is None:
            return None
        asked, said = handler.request_streaming, handler.response_streaming
        kind = ("stream" if asked else "unary") + "_" + ("stream" if said else "unary")
        behaviour = getattr(handler, kind)
        is_async = inspect.iscoroutinefunction(behaviour) or inspect.isasyncgenfunction(behaviour)
        make = getattr(grpc, f"{kind}_rpc_method_handler")
        watched = (self._async if is_async else self._plain)(behaviour, said, not asked and not said)
        return make(watched, handler.request_deserializer, handler.response_serializer)


class _Coded:
    """The context of a plain handler on asyncio's server, which does not tell its code."""

    def __init__(self, context: Any) -> None:
        self._context = context
        self._code: Any = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    def code(self) -> Any:
        return self._code

    def set_code(self, code: Any) -> None:
        self._code = code
        self._context.set_code(code)

    def abort(self, code: Any, details: str = "", *more: Any) -> None:
        self._code = code
        self._context.abort(code, details, *more)


def _coded(context: Any) -> Any:
    return context if hasattr(context, "code") else _Coded(context)


_NAMES = {code.value[0]: code.name for code in grpc.StatusCode}


class WatchedGrpc(_Watched, grpc.ServerInterceptor):  # type: ignore[misc]  # grpc has no types
    """A gRPC server with every call observed: latency to the last message, failures (an exception or a code of the server's).

    `grpc.server(pool, interceptors=[WatchedGrpc(monitor)])`. Messages pass untouched and as they come. What fails in here never
    reaches the call.
    """

    __doc__ += _Watched.__doc__ or ""

    def intercept_service(self, continuation: Callable[[Any], Any], handler_call_details: Any) -> Any:
        """Watches the handler that serves a call."""
        handler = continuation(handler_call_details)
        return self._around(handler) if handler_call_details.method.startswith(self.methods) else handler


class WatchedAioGrpc(_Watched, grpc.aio.ServerInterceptor):  # type: ignore[misc]  # grpc has no types
    """The same for `grpc.aio.server(interceptors=[WatchedAioGrpc(monitor)])`; handlers may be coroutines, generators or plain."""

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: Any) -> Any:
        """Watches the handler that serves a call."""
        handler = await continuation(handler_call_details)
        return self._around(handler) if handler_call_details.method.startswith(self.methods) else handler
