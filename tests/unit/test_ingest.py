"""`barograph ingest` without a broker: messages into bodies, bodies to a sidecar, spans through the pump, settings."""

from __future__ import annotations

import contextlib
import http.server
import io
import json
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from barograph.cli import main
from barograph.errors import InvalidArgumentError
from barograph.ingest.delivery import NUMBERED, Counters, Delivery, Outcome, Span
from barograph.ingest.messages import MOST_BYTES, MOST_EVENTS, Body, Dead, Message, bodies
from barograph.ingest.pump import Pump
from barograph.ingest.settings import BrokerGone, Settings
from barograph.transport import Transport

ARROW = "application/vnd.apache.arrow.stream"


def message(number: int, value: bytes, **headers: str) -> Message:
    return Message(number, value, {name.replace("_", "-"): text for name, text in headers.items()}, f"t/0@{number}")


def stream(frame: pl.DataFrame) -> bytes:
    out = io.BytesIO()
    frame.write_ipc_stream(out, compat_level=pl.CompatLevel.oldest())
    return out.getvalue()


def cut(*values: bytes, form: str = "auto") -> list[Body | Dead]:
    return list(bodies([message(10 + at, value) for at, value in enumerate(values)], form))


# ---- bodies ------------------------------------------------------------------------------------------------------------------------------


def test_single_events_become_lines_that_stand_for_their_messages():
    found = cut(*(b'{"x": %d}' % at for at in range(MOST_EVENTS + 5)))
    assert [len(body.messages) for body in found] == [MOST_EVENTS, 5]
    assert [body.number for body in found] == [10, 10 + MOST_EVENTS]
    assert found[0].rows
    assert found[0].headers == {"Content-Type": "application/x-ndjson"}
    assert [json.loads(line)["x"] for line in found[0].content.splitlines()] == list(range(MOST_EVENTS))


def test_arrow_streams_of_one_schema_become_one_stream():
    frames = [pl.DataFrame({"x": [float(at), None], "k": ["a", "b"]}) for at in range(5)]
    # The last eight bytes of the data look like the end of a stream.
    tail = pl.DataFrame({"n": [1, 4294967295]})
    found = cut(*map(stream, frames), stream(tail), stream(tail)[:-8], stream(tail))
    assert [len(body.messages) for body in found] == [5, 3]
    assert pl.read_ipc_stream(found[0].content).equals(pl.concat(frames))
    assert pl.read_ipc_stream(found[1].content)["n"].to_list() == [1, 4294967295] * 3
    assert not found[0].rows


def test_arrow_streams_that_cannot_be_joined_go_by_themselves():
    words = stream(pl.DataFrame({"k": pl.Series(["a", "b"], dtype=pl.Categorical)}))
    empty = stream(pl.DataFrame({"x": [1.0]}).clear())
    plain = stream(pl.DataFrame({"x": [1.0]}))
    found = cut(words, words, empty[:100], plain[:-20], plain)
    assert [body.headers for body in found] == [{"Content-Type": ARROW}] * 5
    assert [body.content for body in found[:4]] == [words, words, empty[:100], plain[:-20]]


def test_large_messages_are_not_put_together():
    value = json.dumps({"x": "a" * (MOST_BYTES // 3)}).encode()
    assert [len(body.messages) for body in cut(*[value] * 7)] == [2, 2, 2, 1]


@pytest.mark.parametrize(
    ("value", "headers", "kind"),
    [
        (b'[{"x": 1}, {"x": 2}]', {}, "application/json"),
        (b'{"x": [1, 2], "k": ["a", "b"]}', {}, "application/json"),
        (b'{"x": 1}\n{"x": 2}\n', {}, "application/x-ndjson"),
        (b'{\n "x": 1\n}', {}, "application/x-ndjson"),
        (b'{"_score": [0.1, 0.9]}', {}, "application/x-ndjson"),
        (b'{"a": [0.1, 0.9], "b": 1, "c": [1]}', {}, "application/x-ndjson"),
        (b'{"x": 1}\n{"x": 2}\n', {"content_type": "application/x-ndjson; charset=utf-8"}, "application/x-ndjson"),
        (b"any", {"content_type": "application/cloudevents+json"}, "application/cloudevents+json"),
        (b'{"x": [1]}', {"content_type": "application/json"}, "application/json"),
        (b"any", {"content_type": "application/json", "content_encoding": "gzip"}, "application/json"),
        (b"any", {"content_type": "image/png"}, "image/png"),
    ],
)
def test_forms_are_told_by_header_or_first_bytes(value, headers, kind):
    (found,) = bodies([message(0, value, **headers)])
    assert isinstance(found, Body)
    assert found.headers["Content-Type"] == kind


def test_one_event_over_several_lines_is_one_line():
    (found,) = cut(b'{\n "x": 1,\r\n "k": "\xc3\xa4"\n}')
    assert found.rows
    assert json.loads(found.content) == {"x": 1, "k": "ä"}
    assert found.content.count(b"\n") == 1


def test_cloud_events_keep_their_attributes():
    (found,) = bodies([message(0, b"{}", ce_type="t", ce_id="1", ce_specversion="1.0", other="x", content_type="application/json")])
    assert found.headers == {"Content-Type": "application/json", "ce-type": "t", "ce-id": "1", "ce-specversion": "1.0"}


def test_what_is_no_event_is_told_and_parts_what_stands_around_it():
    found = cut(b'{"x": 1}', b"", b"  \n", b"hello", b'{"x": 2}', form="auto")
    assert [type(one) for one in found] == [Body, Dead, Dead, Dead, Body]
    assert [one.reason for one in found[1:4]] == ["the message is empty"] * 2 + ["the message is neither JSON nor an Arrow stream"]
    (packed,) = bodies([message(0, b"\x1f\x8b", content_encoding="gzip")])
    assert "no header `content-type`" in packed.reason


def test_a_body_that_is_to_be_split_is_split_and_no_other():
    values = [b'{"x": %d}' % at for at in range(250)]
    messages = [message(at, value) for at, value in enumerate(values)]
    found = list(bodies(messages, alone=frozenset({100})))
    assert [len(body.messages) for body in found] == [100, *[1] * 100, 50]
    assert [body.number for body in found] == [0, *range(100, 200), 200]


def test_hostile_bytes_are_bodies_or_told_and_nothing_else():
    draw = random.Random(4)
    honest = stream(pl.DataFrame({"x": [1.0, 2.0], "k": ["a", "b"]}))
    for _ in range(3000):
        value = bytearray(honest)
        for _ in range(draw.randrange(1, 6)):
            value[draw.randrange(len(value))] = draw.randrange(256)
        value = value[: draw.randrange(len(value) + 1)]
        for form in ("auto", "arrow", "ndjson"):
            found = list(bodies([message(1, bytes(value)), message(2, honest)], form))
            assert sum(len(one.messages) if isinstance(one, Body) else 1 for one in found) == 2
    deep = b'{"a": ' * 50_000
    assert len(cut(deep + b"\n" + deep, b'{"a": [' + b"[" * 50_000 + b"]}")) == 2


# ---- delivery ----------------------------------------------------------------------------------------------------------------------------

Answer = tuple[int, dict[str, Any]] | tuple[int, dict[str, Any], dict[str, str]]


@contextlib.contextmanager
def server(answer: Callable[[str, dict[str, str], bytes], Answer]) -> Iterator[str]:
    """An HTTP server that answers as it is told."""

    class Asked(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            status, found, *more = answer(self.path, {name.lower(): text for name, text in self.headers.items()}, body)
            content = json.dumps(found).encode()
            self.send_response(status)
            for name, text in ({"Content-Length": str(len(content))} | (more[0] if more else {})).items():
                self.send_header(name, text)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Asked)
    thread = threading.Thread(target=running.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{running.server_port}"
    finally:
        running.shutdown()
        thread.join()
        running.server_close()


def span_of(values: Sequence[bytes], **more: Any) -> Span:
    return Span("t", "kafka/abc/0", "events", 0, [message(100 + at, value) for at, value in enumerate(values)], **more)


def deliver(url: str, *spans: Span, form: str = "auto") -> tuple[list[Outcome], Counters]:
    counters = Counters()
    delivery = Delivery([lambda: Transport(url)], "m", form, counters)
    found: list[Outcome] = []
    try:
        for span in spans:
            delivery.submit(span)
        end = time.monotonic() + 20
        while len(found) < len(spans) and time.monotonic() < end:
            found += delivery.outcomes(0.05)
    finally:
        delivery.close()
    return found, counters


def test_what_may_pass_is_tried_again_with_the_same_number_until_it_does():
    seen = []
    answers = [(503, {}, {"Retry-After": "0"}), (429, {}), (401, {"detail": "no token"}), (500, {}), (200, {"accepted": 2})]

    def answer(path, headers, body):
        seen.append((path, headers[NUMBERED.lower()], body))
        return answers[len(seen) - 1]

    with server(answer) as url:
        ((outcome,), counters) = deliver(url, span_of([b'{"x": 1}', b'{"x": 2}']))
    assert seen == [("/v1/models/m/events", "kafka/abc/0/100", b'{"x": 1}\n{"x": 2}\n')] * 5
    assert (outcome.split, outcome.span.dead) == (None, [])
    assert {name: count for name, count in counters.all().items() if count} == {"accepted": 2, "retried": 4}


def test_a_body_that_is_refused_whole_is_split_once_that_is_written_down():
    bodies_seen = []

    def answer(_path, headers, body):
        bodies_seen.append((headers[NUMBERED.lower()], body))
        return (400, {"detail": "`_time` lies ahead"}) if b"bad" in body else (200, {"accepted": body.count(b"\n")})

    span = span_of([b'{"x": 1}', b'{"x": "bad"}', b'{"x": 3}'])
    with server(answer) as url:
        ((outcome,), counters) = deliver(url, span)
        assert outcome.split == 100
        span.alone.add(outcome.split)
        ((outcome,), more) = deliver(url, span)
    assert outcome.split is None
    assert [number for number, _ in bodies_seen] == [f"kafka/abc/0/{number}" for number in (100, 100, 101, 102)]
    assert [(dead.message.number, dead.reason) for dead in span.dead] == [(101, "the sidecar says 400: `_time` lies ahead")]
    assert counters.all()["accepted"] + more.all()["accepted"] == 2


def test_rows_that_are_refused_are_dead_letters_also_when_they_come_again():
    found = {"accepted": 1, "rejected_count": 1, "rejected": [{"row": 1, "reason": "no object"}], "repeated": True}
    span, whole = span_of([b'{"x": 1}', b"{]"]), span_of([b'{"x": 1}\n{]\n'])
    with server(lambda *_: (200, found)) as url:
        _, counters = deliver(url, span, whole)
    assert [(dead.message.number, dead.reason) for dead in span.dead] == [(101, "no object")]
    assert [dead.reason for dead in whole.dead] == ["1 of its rows were refused, the first: row 1: no object"]
    assert counters.all()["repeated"] == 3
    assert counters.all()["accepted"] == counters.all()["refused"] == 0


def test_messages_with_keys_of_their_own_are_bodies_of_their_own():
    seen = []

    def answer(_path, headers, _body):
        seen.append(headers["idempotency-key"])
        return 200, {"accepted": 1}

    with server(answer) as url:
        deliver(url, span_of([b'{"x": 1}', b'{"x": 2}'], keys=lambda message: f"k{message.number}"))
    assert seen == ["k100", "k101"]


def test_a_span_that_is_given_up_is_not_tried_any_longer():
    counters = Counters()
    delivery = Delivery([lambda: Transport("http://127.0.0.1:1")], "m", "auto", counters)
    span = span_of([b'{"x": 1}'])
    delivery.submit(span)
    end = time.monotonic() + 10
    while not counters.all()["retried"] and time.monotonic() < end:
        time.sleep(0.01)
    span.given_up.set()
    delivery.close()
    assert delivery.outcomes(0) == []
    assert not any(thread.is_alive() for thread in delivery._threads)


# ---- the pump ----------------------------------------------------------------------------------------------------------------------------


def settings(**more: Any) -> Settings:
    plain = {
        "broker_name": "kafka",
        "address": "x",
        "topic": "t",
        "labels_topic": None,
        "group": "g",
        "dead_letter": "graves",
        "model": "m",
        "form": "auto",
        "to": ("http://127.0.0.1:1",),
        "token_file": None,
        "start": "earliest",
        "field": "body",
        "memory": 64 << 20,
        "linger_seconds": 0.1,
        "report_seconds": 0.0,
        "as_json": True,
        "at_least_once": False,
        "client": {},
        "sidecar": {},
    }
    return Settings(**(plain | more))


class Scripted:
    """A broker of one span that fails as it is told."""

    ways = 1

    def __init__(self, span: Span, *troubles: str) -> None:
        self.span, self.troubles, self.done = span, list(troubles), []

    def _now(self, what: str) -> None:
        if what in self.troubles:
            self.troubles.remove(what)
            raise BrokerGone(f"{what} failed")
        self.done.append(what)

    def connect(self, pump: Pump) -> None:
        self.pump = pump
        self._now("connect")

    def take(self, room: int, seconds: float) -> list[Span]:
        if self.done[-1] == "finish":
            self.pump.stopping.set()
        if "take" in self.done or not room:
            time.sleep(seconds)
            return []
        self._now("take")
        return [self.span]

    def split(self, span: Span) -> None:
        self._now("split")

    def bury(self, dead: Sequence[Dead]) -> None:
        self._now("bury")
        self.buried = list(dead)

    def finish(self, span: Span) -> None:
        self._now("finish")

    def lag(self) -> int | None:
        return 7

    def close(self) -> None:
        self._now("close")


@pytest.mark.parametrize("trouble", ["connect", "take", "bury", "finish", "close"])
def test_dead_letters_are_written_before_a_span_is_acknowledged_whatever_fails_once(trouble, capsys):
    with server(lambda *_: (200, {"accepted": 1})) as url:
        span = span_of([b'{"x": 1}', b"hello"])
        broker = Scripted(span, trouble)
        assert Pump(broker, settings(to=(url,))).run() == 0
    assert not broker.troubles
    assert [what for what in broker.done if what not in ("connect", "close")] in (
        ["take", "bury", "finish"],
        # Written again where the first acknowledgement failed: dead letters come at least once.
        ["take", "bury", "bury", "finish"],
    )
    assert [dead.message.value for dead in broker.buried] == [b"hello"]
    out, err = capsys.readouterr()
    counts = json.loads(out.splitlines()[-1])
    assert (counts["consumed"], counts["accepted"], counts["dead_lettered"], counts["lag"]) == (2, 1, 1, 7)
    assert f"{trouble} failed" in err
    assert "hello" not in err


def test_what_cannot_be_delivered_is_given_up_when_it_is_told_to_end_and_not_acknowledged(monkeypatch):
    monkeypatch.setattr("barograph.ingest.pump._GRACE_SECONDS", 0.2)
    broker = Scripted(span_of([b'{"x": 1}']))
    own = Pump(broker, settings())
    threading.Timer(0.3, own.stopping.set).start()
    assert own.run() == 0
    assert broker.done == ["connect", "take", "close"]


# ---- settings ----------------------------------------------------------------------------------------------------------------------------


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    code = main(["ingest", *arguments])
    return code, capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--broker", "redis://:secret@127.0.0.1:1"], "`--broker` must have no password"),
        (["--model", "../x"], "`--model` must be a name of a model, got '../x'"),
        (["--memory", "2"], "`--memory` must be at least 16MB"),
        (["--linger", "-1"], "`--linger` must be seconds in [0, 3600]"),
        (["--report", "nan"], "`--report` must be seconds in [0, 3600]"),
        (["--dead-letter", "t"], "`--dead-letter` must not be what is read"),
        (["--labels-topic", "t"], "`--labels-topic` must not be that of the events"),
        (["--to", "ftp://x"], "`url` must be an http, https or unix URL"),
        (["--to", "http://a", "--to", "http://a"], "`--to` must name each sidecar once"),
        (["--token-file", "/nowhere"], "/nowhere"),
    ],
)
def test_options_that_cannot_be_are_told_and_secrets_are_not(capsys, monkeypatch, arguments, words):
    monkeypatch.delenv("BAROGRAPH_TOKEN", raising=False)
    code, told = run(capsys, "redis", "--topic", "t", "--model", "m", *arguments)
    assert code == 2
    assert words in told
    assert "secret" not in told


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[kafkaa]", "table 'kafkaa' is not known"),
        ("[sidecar]\ntokens = 'x'", "[sidecar] has no key 'tokens'"),
        ("[redis]\npassword = { env = 'NO_SUCH_VARIABLE' }", "`password` names the variable 'NO_SUCH_VARIABLE', which is not set"),
        ("[redis]\npassword = { vault = 'x' }", "`password` must be a value"),
        ("redis = 3", "must be a table"),
        ("[redis", "is not TOML"),
    ],
)
def test_a_configuration_that_cannot_be_is_told(capsys, tmp_path, text, words):
    (tmp_path / "ingest.toml").write_text(text)
    code, told = run(capsys, "redis", "--topic", "t", "--model", "m", "--config", str(tmp_path / "ingest.toml"))
    assert code == 2
    assert words in told


def test_secrets_come_from_files_and_the_environment(tmp_path: Path, monkeypatch):
    import argparse

    monkeypatch.setenv("SASL", "from-env")
    (tmp_path / "token").write_text("from-file\n")
    (tmp_path / "c.toml").write_text(
        f'[kafka]\n"sasl.password" = {{ env = "SASL" }}\n"queue" = 3\n[sidecar]\ntoken = {{ file = "{tmp_path / "token"}" }}'
    )
    from barograph.cli import _parser

    options: argparse.Namespace = _parser().parse_args(
        ["ingest", "kafka", "--topic", "t", "--model", "m", "--config", str(tmp_path / "c.toml")]
    )
    found = Settings.of(options)
    assert found.client == {"sasl.password": "from-env", "queue": 3}
    (make,) = found.transports()
    assert make()._token == "from-file"
    assert found.to == ("http://127.0.0.1:7464",)


def test_a_package_that_is_missing_is_named_with_the_extra_that_brings_it(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "redis", None)
    monkeypatch.delitem(sys.modules, "barograph.ingest.redis", raising=False)
    code, told = run(capsys, "redis", "--topic", "t", "--model", "m")
    assert code == 2
    assert "needs the package redis" in told
    assert "pip install 'barograph[redis]'" in told


def test_what_is_on_its_way_to_a_sidecar_that_is_not_named_any_longer_stops_the_consumer():
    found = settings()
    assert found.target_of(found.targets[0]) == 0
    with pytest.raises(InvalidArgumentError, match="not named here any longer"):
        found.target_of("0123456789abcdef")
