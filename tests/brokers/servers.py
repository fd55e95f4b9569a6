"""Real brokers, each a process of its own on free loopback ports, and what a test does with any of them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from sidecars import free_port

KAFKA = Path(os.environ.get("BAROGRAPH_KAFKA", Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "barograph/kafka/lib"))
RABBITMQ = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")


def free_ports(count: int) -> list[int]:
    """Ports that nobody has, all different: brokers start again where they were."""
    found: set[int] = set()
    while len(found) < count:
        found.add(free_port())
    return list(found)


def until(condition: Callable[[], bool], seconds: float = 60.0, what: Callable[[], Any] = lambda: "", pause: float = 0.05) -> None:
    """Waits for something to become true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, what()
        time.sleep(pause)


class Server:
    """A broker: starts, stops, dies, comes back with what it had."""

    name: ClassVar[str]
    option: ClassVar[str] = "--topic"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.process: subprocess.Popen[bytes] | None = None

    @classmethod
    def missing(cls) -> str | None:
        """What is not on this machine."""
        raise NotImplementedError

    def command(self) -> tuple[list[str], dict[str, str]]:
        raise NotImplementedError

    def ready(self) -> bool:
        raise NotImplementedError

    def start(self) -> None:
        command, environment = self.command()
        with (self.folder / "log").open("ab") as log:
            # A group of its own: some brokers are more than one process.
            self.process = subprocess.Popen(
                command, env={**os.environ, **environment}, stdout=log, stderr=log, cwd=self.folder, start_new_session=True
            )
        # A machine that is busy with other tests takes its time for a virtual machine of Java or Erlang.
        until(self._up, 300, self.log, pause=0.3)

    @property
    def running(self) -> bool:
        """Whether its process is there."""
        return self.process is not None and self.process.poll() is None

    def _up(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log()
        with contextlib.suppress(Exception):
            return self.ready()
        return False

    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")[-4000:]

    def end(self, number: int = signal.SIGTERM) -> None:
        if self.process is not None and self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, number)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait(30)

    def close(self) -> None:
        self.end()

    # ---- what a test does with it ----

    address: str

    def create(self, topic: str) -> None:
        """Makes a topic, stream or queue."""

    def produce(self, topic: str, messages: Sequence[bytes | tuple[bytes, Mapping[str, str]]]) -> None:
        """Puts messages there, acknowledged."""
        raise NotImplementedError

    def grave(self, topic: str) -> str:
        """What `--dead-letter` is told, for what `create` has made."""
        return topic

    def dead(self, topic: str) -> list[tuple[bytes, dict[str, str]]]:
        """All dead letters: bodies, and what stands beside them."""
        raise NotImplementedError


class RedisServer(Server):
    name = "redis"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        (self.port,) = free_ports(1)
        self.address = f"redis://127.0.0.1:{self.port}"

    @classmethod
    def missing(cls) -> str | None:
        return None if shutil.which("redis-server") else "Debian's package redis-server"

    def command(self) -> tuple[list[str], dict[str, str]]:
        options = {"port": self.port, "bind": "127.0.0.1", "dir": self.folder, "appendonly": "yes", "appendfsync": "always", "save": ""}
        return ["redis-server", *(str(part) for name, value in options.items() for part in (f"--{name}", value))], {}

    def client(self) -> Any:
        import redis

        return redis.Redis(port=self.port)

    def ready(self) -> bool:
        with self.client() as client:
            return bool(client.ping())

    def produce(self, topic: str, messages: Sequence[bytes | tuple[bytes, Mapping[str, str]]]) -> None:
        with self.client() as client:
            pipeline = client.pipeline(transaction=False)
            for message in messages:
                value, headers = message if isinstance(message, tuple) else (message, {})
                pipeline.xadd(topic, {"body": value, **headers})
            pipeline.execute()

    def dead(self, topic: str) -> list[tuple[bytes, dict[str, str]]]:
        with self.client() as client:
            entries = [{key.decode(): value for key, value in fields.items()} for _, fields in client.xrange(topic)]
        return [(fields.pop("body"), {key: value.decode() for key, value in fields.items()}) for fields in entries]


class KafkaServer(Server):
    name = "kafka"
    partitions = 6

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.port, self.controller = free_ports(2)
        self.address = f"127.0.0.1:{self.port}"
        settings = {
            "process.roles": "broker,controller",
            "node.id": 1,
            "controller.quorum.bootstrap.servers": f"127.0.0.1:{self.controller}",
            "listeners": f"PLAINTEXT://127.0.0.1:{self.port},CONTROLLER://127.0.0.1:{self.controller}",
            "advertised.listeners": f"PLAINTEXT://127.0.0.1:{self.port}",
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "PLAINTEXT",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "log.dirs": folder / "data",
            "offsets.topic.replication.factor": 1,
            "offsets.topic.num.partitions": 3,
            "transaction.state.log.replication.factor": 1,
            "transaction.state.log.min.isr": 1,
            "group.initial.rebalance.delay.ms": 0,
            "group.min.session.timeout.ms": 1000,
            "num.partitions": self.partitions,
            "auto.create.topics.enable": "false",
        }
        (folder / "server.properties").write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
        self._java("kafka.tools.StorageTool", "format", "--standalone", "-t", "barographAAAAAAAAAAAAA", "-c", "server.properties")

    @classmethod
    def missing(cls) -> str | None:
        if not shutil.which("java"):
            return "Java 17"
        return None if list(KAFKA.glob("kafka_2.13-*.jar")) else f"Kafka's jars in {KAFKA} (make {KAFKA.parent}/done.stamp)"

    @staticmethod
    def _call(*words: str) -> list[str]:
        return ["java", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", f"{KAFKA}/*", *words]

    def _java(self, *words: str) -> None:
        done = subprocess.run(self._call(*words), cwd=self.folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    def command(self) -> tuple[list[str], dict[str, str]]:
        return self._call("kafka.Kafka", "server.properties"), {}

    def admin(self) -> Any:
        from confluent_kafka.admin import AdminClient

        return AdminClient({"bootstrap.servers": self.address, "log_level": 0})

    def ready(self) -> bool:
        return bool(self.admin().list_topics(timeout=2).brokers)

    def create(self, topic: str) -> None:
        from confluent_kafka.admin import NewTopic

        admin = self.admin()
        admin.create_topics([NewTopic(topic, self.partitions, 1)])[topic].result(30)

    def produce(self, topic: str, messages: Sequence[bytes | tuple[bytes, Mapping[str, str]]]) -> None:
        from confluent_kafka import Producer

        # Small batches: partitions take turns, as with many producers.
        producer = Producer({"bootstrap.servers": self.address, "enable.idempotence": True, "sticky.partitioning.linger.ms": 1})
        failed: list[Any] = []
        for at, message in enumerate(messages):
            value, headers = message if isinstance(message, tuple) else (message, {})
            told = lambda error, _: error and failed.append(error)  # noqa: E731
            while True:
                try:
                    producer.produce(topic, value, headers=list(headers.items()), partition=at // 7 % self.partitions, on_delivery=told)
                    break
                except BufferError:
                    producer.poll(0.1)
        assert producer.flush(60) == 0
        assert not failed, failed[0]

    def dead(self, topic: str) -> list[tuple[bytes, dict[str, str]]]:
        from confluent_kafka import Consumer, TopicPartition

        consumer = Consumer({"bootstrap.servers": self.address, "group.id": "reads-dead-letters", "enable.partition.eof": True})
        consumer.assign([TopicPartition(topic, partition, 0) for partition in range(self.partitions)])
        found, ended = [], 0
        while ended < self.partitions:
            message = consumer.poll(10)
            assert message is not None
            if message.error():
                ended += 1
                continue
            found.append((message.value(), {name: value.decode() for name, value in message.headers() or []}))
        consumer.close()
        return found


class NatsServer(Server):
    name = "nats"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        (self.port,) = free_ports(1)
        self.address = f"nats://127.0.0.1:{self.port}"

    @classmethod
    def missing(cls) -> str | None:
        return None if shutil.which("nats-server") else "Debian's package nats-server"

    def command(self) -> tuple[list[str], dict[str, str]]:
        return ["nats-server", "-a", "127.0.0.1", "-p", str(self.port), "-js", "-sd", str(self.folder / "data")], {}

    def _with(self, work: Callable[[Any], Any]) -> Any:
        import nats

        async def run() -> Any:
            connection = await nats.connect(self.address, allow_reconnect=False, connect_timeout=2)
            try:
                return await work(connection.jetstream(timeout=30))
            finally:
                await connection.close()

        return asyncio.run(run())

    def ready(self) -> bool:
        return self._with(lambda stream: stream.account_info()) is not None

    def create(self, topic: str) -> None:
        from nats.js.api import StreamConfig

        self._with(lambda stream: stream.add_stream(StreamConfig(name=topic, subjects=[f"{topic}.>"])))

    def produce(self, topic: str, messages: Sequence[bytes | tuple[bytes, Mapping[str, str]]]) -> None:
        async def work(stream: Any) -> None:
            for begin in range(0, len(messages), 200):
                sent = []
                for at, message in enumerate(messages[begin : begin + 200], begin):
                    value, headers = message if isinstance(message, tuple) else (message, {})
                    sent.append(stream.publish(f"{topic}.{at % 3}", value, headers=dict(headers) or None))
                await asyncio.gather(*sent)

        self._with(work)

    def grave(self, topic: str) -> str:
        return f"{topic}.dead"

    def dead(self, topic: str) -> list[tuple[bytes, dict[str, str]]]:
        async def work(stream: Any) -> list[tuple[bytes, dict[str, str]]]:
            info = await stream.stream_info(topic)
            found = [await stream.get_msg(topic, number) for number in range(info.state.first_seq, info.state.last_seq + 1) if number]
            return [(one.data, dict(one.headers or {})) for one in found]

        read: list[tuple[bytes, dict[str, str]]] = self._with(work)
        return read


class RabbitServer(Server):
    name = "rabbitmq"
    option = "--queue"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.port, self.dist, self.names = free_ports(3)
        self.address = f"amqp://guest:guest@127.0.0.1:{self.port}"
        self._epmd: subprocess.Popen[bytes] | None = None

    @classmethod
    def missing(cls) -> str | None:
        return None if RABBITMQ.exists() and shutil.which("epmd") else "Debian's package rabbitmq-server"

    def command(self) -> tuple[list[str], dict[str, str]]:
        (self.folder / "plugins").write_text("[].\n")
        (self.folder / "rabbitmq.conf").write_text(f"listeners.tcp.1 = 127.0.0.1:{self.port}\n")
        if self._epmd is None:
            self._epmd = subprocess.Popen(["epmd", "-port", str(self.names), "-address", "127.0.0.1"], stderr=subprocess.DEVNULL)
        environment = {
            "HOME": str(self.folder),
            "ERL_EPMD_PORT": str(self.names),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": f"barograph{self.port}@localhost",
            "RABBITMQ_DIST_PORT": str(self.dist),
            "RABBITMQ_MNESIA_BASE": str(self.folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self.folder / "logs"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "plugins"),
            "RABBITMQ_CONFIG_FILE": str(self.folder / "rabbitmq.conf"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1} +sbwt none +S 2:2",
        }
        return [str(RABBITMQ)], environment

    def close(self) -> None:
        super().close()
        if self._epmd is not None:
            self._epmd.terminate()
            self._epmd.wait(10)

    @contextlib.contextmanager
    def channel(self) -> Iterator[Any]:
        import pika

        connection = pika.BlockingConnection(pika.URLParameters(self.address))
        try:
            yield connection.channel()
        finally:
            connection.close()

    def ready(self) -> bool:
        with self.channel():
            return True

    def create(self, topic: str) -> None:
        # Both kinds of queue are read from.
        kind = "classic" if topic.endswith(("dead", "labels", "classic")) else "quorum"
        with self.channel() as channel:
            channel.queue_declare(topic, durable=True, arguments={"x-queue-type": kind})

    def produce(self, topic: str, messages: Sequence[bytes | tuple[bytes, Mapping[str, str]]]) -> None:
        import uuid

        import pika

        with self.channel() as channel:
            channel.tx_select()
            for message in messages:
                value, headers = message if isinstance(message, tuple) else (message, {})
                headers = dict(headers)
                name = headers.pop("message-id", str(uuid.uuid4()))
                properties = pika.BasicProperties(
                    delivery_mode=2, message_id=name or None, content_type=headers.pop("content-type", None), headers=headers or None
                )
                channel.basic_publish("", topic, value, properties)
            channel.tx_commit()

    def dead(self, topic: str) -> list[tuple[bytes, dict[str, str]]]:
        found = []
        with self.channel() as channel:
            while True:
                method, properties, body = channel.basic_get(topic, auto_ack=True)
                if method is None:
                    return found
                found.append((body, {key: str(value) for key, value in (properties.headers or {}).items()}))


BROKERS: list[type[Server]] = [RedisServer, KafkaServer, NatsServer, RabbitServer]
