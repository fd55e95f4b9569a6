"""Interceptors in real gRPC servers, sync and asyncio, in this process."""

import asyncio
import json
from concurrent import futures

import barograph as bg
import grpc
import pytest
from barograph.adapters.grpc import WatchedAioGrpc, WatchedGrpc
from barograph.testing import check_adapter

REFERENCE = bg.Reference({"x": [float(at % 10) for at in range(1000)], "prediction": [2.0 * (at % 10) for at in range(1000)]})


def pack(value):
    return json.dumps(value).encode()


def events(request, response):
    return {"x": request, "_prediction": response}


def unary(behaviour):
    return grpc.unary_unary_rpc_method_handler(behaviour, json.loads, pack)


def handlers(one, many, collected):
    methods = {
        "One": unary(one),
        "Many": grpc.unary_stream_rpc_method_handler(many, json.loads, pack),
        "Collected": grpc.stream_unary_rpc_method_handler(collected, json.loads, pack),
    }
    return grpc.method_handlers_generic_handler("m.Model", methods)


def serve(monitor, model):
    """A server and a channel of its own for each monitor."""
    server = grpc.server(futures.ThreadPoolExecutor(1), interceptors=[WatchedGrpc(monitor, events=events)])
    server.add_generic_rpc_handlers((handlers(lambda x, _: model(x), None, None),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    SERVERS.append(server)
    channel = grpc.insecure_channel(f"127.0.0.1:{port}")
    SERVERS.append(channel)
    return channel.unary_unary("/m.Model/One", pack, json.loads)


SERVERS = []


@pytest.fixture(autouse=True)
def _stopped():
    yield
    while SERVERS:
        one = SERVERS.pop()
        one.close() if hasattr(one, "close") else one.stop(None).wait()


def test_the_laws_of_adapters_hold():
    check_adapter(serve)


def made():
    return bg.Monitor("m", reference=REFERENCE, ticks="manual", task="regression")


def outcomes(monitor):
    from datetime import UTC, datetime, timedelta

    start = datetime.now(UTC) - timedelta(hours=2)
    latencies, summary = monitor.latencies(start, start + timedelta(hours=4)), monitor.summary(start, start + timedelta(hours=4))
    return latencies.count, summary.errors, monitor.counts()["events"], monitor.counts()["failures"]


def one(x, context):
    if x == 400:
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, "not this")
    if x == 500:
        context.set_code(grpc.StatusCode.UNAVAILABLE)
    return 2 * x


def many(x, context):
    for at in range(int(x)):
        yield at
        if at == 5:
            raise ValueError("six is too many")


def collected(requests, context):
    return sum(requests)


def asked(channel):
    """The same requests to either server: 4 good, 2 failed by the server, 1 refused for the client's sake."""
    ask = channel.unary_unary("/m.Model/One", pack, json.loads)
    stream = channel.unary_stream("/m.Model/Many", pack, json.loads)
    collect = channel.stream_unary("/m.Model/Collected", pack, json.loads)
    assert [ask(3), list(stream(4)), collect(iter([1, 2, 3]))] == [6, [0, 1, 2, 3], 6]
    with pytest.raises(grpc.RpcError) as refused:
        ask(400)
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert refused.value.details() == "not this"
    with pytest.raises(grpc.RpcError):
        ask(500)
    with pytest.raises(grpc.RpcError):
        list(stream(9))
    assert ask(1) == 2


def test_codes_and_streams_of_a_plain_server():
    monitor = made()
    interceptors = [WatchedGrpc(monitor, events=events)]
    server = grpc.server(futures.ThreadPoolExecutor(2), interceptors=interceptors)
    server.add_generic_rpc_handlers((handlers(one, many, collected),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        asked(channel)
    server.stop(None).wait()
    assert outcomes(monitor) == (7, 2, 2, 0)


def test_only_named_methods_are_watched():
    monitor = made()
    server = grpc.server(futures.ThreadPoolExecutor(2), interceptors=[WatchedGrpc(monitor, methods=("/other.",))])
    server.add_generic_rpc_handlers((handlers(one, many, collected),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        asked(channel)
    server.stop(None).wait()
    assert monitor.counts()["events"] == 0


async def async_one(x, context):
    if x == 400:
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "not this")
    if x == 500:
        context.set_code(grpc.StatusCode.UNAVAILABLE)
    return 2 * x


async def async_many(x, context):
    for at in range(int(x)):
        yield at
        if at == 5:
            raise ValueError("six is too many")


async def async_written(x, context):
    for at in range(int(x)):
        await context.write(at)
        if at == 5:
            raise ValueError("six is too many")


async def async_collected(requests, context):
    return sum([request async for request in requests])


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    "served", [(async_one, async_many, async_collected), (async_one, async_written, async_collected), (one, many, collected)]
)
def test_codes_and_streams_of_a_server_on_asyncio(served):
    monitor = made()

    async def run():
        server = grpc.aio.server(futures.ThreadPoolExecutor(2), interceptors=[WatchedAioGrpc(monitor, events=events)])
        server.add_generic_rpc_handlers((handlers(*served),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()

        def ask():
            with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
                asked(channel)

        await asyncio.to_thread(ask)
        await server.stop(None)
        # Its `__del__` schedules a coroutine, which needs the loop.
        del server
        await asyncio.sleep(0.05)

    asyncio.run(run())
    assert outcomes(monitor) == (7, 2, 2, 0)
