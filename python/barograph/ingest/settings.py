"""What `barograph ingest` is told: options of the command line, and a TOML file for what has no place there, such as passwords."""

from __future__ import annotations

import argparse
import math
import os
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from barograph.errors import BarographError, InvalidArgumentError
from barograph.ingest.delivery import digest
from barograph.transport import Transport, token_for

if TYPE_CHECKING:
    from barograph.ingest.pump import Broker

__all__ = ["BrokerGone", "Settings", "lease"]

_ADDRESSES = {
    "kafka": "127.0.0.1:9092",
    "redis": "redis://127.0.0.1:6379",
    "nats": "nats://127.0.0.1:4222",
    "rabbitmq": "amqp://127.0.0.1:5672",
}
_SIZE = re.compile(r"(\d{1,6})\s*(MB|GB)")


class BrokerGone(BarographError, ConnectionError):
    """The broker does not answer, or not now: it is tried again."""


@dataclass(frozen=True)
class Settings:
    """One run of `barograph ingest`."""

    broker_name: str
    address: str
    topic: str
    labels_topic: str | None
    group: str
    dead_letter: str | None
    model: str
    form: str
    to: tuple[str, ...]
    token_file: str | None
    start: str
    field: str
    memory: int
    linger_seconds: float
    report_seconds: float
    as_json: bool
    at_least_once: bool
    client: Mapping[str, Any]
    sidecar: Mapping[str, Any]

    @classmethod
    def of(cls, options: argparse.Namespace) -> Settings:
        """Options, and the file that they name, checked.

        Raises InvalidArgumentError, FileNotFoundError.
        """
        name = options.broker_name
        known = _read(options.config) if options.config else {}
        for key in known:
            if key not in (*_ADDRESSES, "sidecar"):
                raise InvalidArgumentError(
                    f"{options.config}: table {key!r} is not known", f"tables are {', '.join(_ADDRESSES)} and sidecar"
                )
        client, sidecar = (_resolved(known.get(table, {}), f"{options.config}: [{table}]") for table in (name, "sidecar"))
        for key in sidecar:
            if key not in ("token", "ca", "certificate"):
                raise InvalidArgumentError(f"{options.config}: [sidecar] has no key {key!r}", "keys are token, ca, certificate")
        address = options.address or str(client.pop("address", _ADDRESSES[name]))
        if options.address and urlsplit(options.address if "//" in options.address else f"//{options.address}").password is not None:
            raise InvalidArgumentError(
                "`--broker` must have no password: everybody sees arguments", f"put `address` into the table [{name}] of --config"
            )
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", options.model):
            raise InvalidArgumentError(
                f"`--model` must be a name of a model, got {options.model!r}",
                "names have 1 to 100 letters, digits, - _ and ., and begin with a letter or digit",
            )
        size = _SIZE.fullmatch(options.memory.strip())
        memory = int(size[1]) << (20 if size[2] == "MB" else 30) if size else 0
        if memory < 16 << 20:
            raise InvalidArgumentError(f"`--memory` must be at least 16MB, such as 64MB, got {options.memory!r}")
        for option, seconds in (("linger", options.linger), ("report", options.report)):
            if not (math.isfinite(seconds) and 0.0 <= seconds <= 3600.0):
                raise InvalidArgumentError(f"`--{option}` must be seconds in [0, 3600], got {seconds}")
        if options.dead_letter is not None and options.dead_letter in (options.topic, options.labels_topic):
            raise InvalidArgumentError(f"`--dead-letter` must not be what is read, got {options.dead_letter!r}")
        if options.labels_topic == options.topic:
            raise InvalidArgumentError(f"`--labels-topic` must not be that of the events, got {options.topic!r}")
        settings = cls(
            broker_name=name,
            address=address,
            topic=options.topic,
            labels_topic=options.labels_topic,
            group=options.group,
            dead_letter=options.dead_letter,
            model=options.model,
            form=options.form,
            to=tuple(options.to) or ("http://127.0.0.1:7464",),
            token_file=options.token_file,
            start=options.start,
            field=options.field,
            memory=memory,
            linger_seconds=options.linger,
            report_seconds=options.report,
            as_json=options.json,
            at_least_once=options.at_least_once,
            client=client,
            sidecar=sidecar,
        )
        if len(set(settings.to)) != len(settings.to):
            raise InvalidArgumentError("`--to` must name each sidecar once")
        settings.transports()
        return settings

    @property
    def sources(self) -> dict[str, str]:
        """`events` or `labels`, by what is read."""
        return {self.topic: "events"} | ({self.labels_topic: "labels"} if self.labels_topic is not None else {})

    @property
    def targets(self) -> list[str]:
        """What stands for each sidecar in what is written down at the broker."""
        return [digest(url.rstrip("/"), self.model) for url in self.to]

    def target_of(self, written: str) -> int:
        """The sidecar that something was on its way to.

        Raises InvalidArgumentError if it is none of ours any longer.
        """
        try:
            return self.targets.index(written)
        except ValueError:
            raise InvalidArgumentError(
                f"messages of the group {self.group!r} are on their way to a sidecar or model that is not named here any longer",
                "start once more with the --to and --model of before, and end that by SIGTERM: then nothing is on its way",
            ) from None

    def transports(self) -> Sequence[Callable[[], Transport]]:
        """How each sidecar is reached; tokens are read anew for each connection."""

        def maker(url: str) -> Callable[[], Transport]:
            own = {key: self.sidecar[key] for key in ("ca", "certificate") if key in self.sidecar}

            def make() -> Transport:
                token = str(self.sidecar["token"]).strip() if "token" in self.sidecar else token_for(url, self.token_file)
                return Transport(url, token, **(own if url.startswith("https:") else {}))

            return make

        makers = [maker(url) for url in self.to]
        for make in makers:
            make()
        return makers

    def broker(self) -> Broker:
        """What reads this kind of broker; its package is imported only here.

        Raises InvalidArgumentError if the package is missing.
        """
        from importlib import import_module

        try:
            module = import_module(f"barograph.ingest.{self.broker_name}")
        except ModuleNotFoundError as error:
            raise InvalidArgumentError(
                f"`ingest {self.broker_name}` needs the package {error.name}", f"pip install 'barograph[{self.broker_name}]'"
            ) from None
        made: Broker = module.make(self)
        return made


def lease(client: dict[str, Any]) -> float:
    """Takes `lease_seconds` out of a broker's table: how long a process may be silent before others take over what it holds (30).

    Raises InvalidArgumentError for anything but seconds in [1, 3600].
    """
    seconds = client.pop("lease_seconds", 30.0)
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 1.0 <= seconds <= 3600.0:
        raise InvalidArgumentError(f"`lease_seconds` must be seconds in [1, 3600], got {seconds!r}")
    return float(seconds)


def _read(path: str) -> dict[str, Any]:
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except UnicodeDecodeError:
        raise InvalidArgumentError(f"{path} is not text") from None
    except tomllib.TOMLDecodeError as error:
        raise InvalidArgumentError(f"{path} is not TOML: {error}") from None


def _resolved(table: Any, place: str) -> dict[str, Any]:
    """A table whose `{ file = … }` and `{ env = … }` have become what they stand for."""
    if not isinstance(table, dict):
        raise InvalidArgumentError(f"{place} must be a table")
    found: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, dict) and set(value) == {"file"}:
            found[key] = Path(str(value["file"])).read_text(encoding="utf-8").strip()
        elif isinstance(value, dict) and set(value) == {"env"}:
            if str(value["env"]) not in os.environ:
                raise InvalidArgumentError(f"{place}: `{key}` names the variable {value['env']!r}, which is not set")
            found[key] = os.environ[str(value["env"])]
        elif isinstance(value, dict):
            raise InvalidArgumentError(f"{place}: `{key}` must be a value, or {{ file = … }}, or {{ env = … }}")
        else:
            found[key] = value
    return found
