"""Replicas send deltas to a sidecar: each counts once, and what is lost is what was said."""

import http.server
import os
import signal
import threading
import time

import barograph as bg
import pytest
from barograph.errors import InvalidArgumentError, NotFoundError
from barograph.scaling.deltas import Deltas
from barograph.scaling.deltas import Sidecar as Place
from sidecars import TOKEN, Sidecar

REFERENCE = bg.Reference({"x": [float(at % 10) for at in range(1000)], "c": ["a", "b"] * 500})


@pytest.fixture
def model(tmp_path):
    with Sidecar(tmp_path) as sidecar:
        sidecar.request("PUT", "/v1/models/m", {})
        assert sidecar.request("PUT", "/v1/models/m/reference", REFERENCE.to_bytes(), "application/octet-stream").status < 300
        yield sidecar


def place(sidecar, **settings):
    return Place(f"http://127.0.0.1:{sidecar.port}", "m", TOKEN, **settings)


class Forgetful(http.server.BaseHTTPRequestHandler):
    """Passes a request on and loses every second answer."""

    target = None
    turns = 0

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        headers = {name: self.headers[name] for name in ("Barograph-Sequence", "Content-Type")}
        answer = self.target.request("POST", self.path, body, None, **{name.replace("-", "_"): value for name, value in headers.items()})
        type(self).turns += 1
        if self.turns % 2:
            self.connection.close()
            return
        self.send_response(answer.status)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(answer.body)

    def log_message(self, *_):
        pass


def test_deltas_whose_answer_was_lost_count_once(model):
    handler = type("Handler", (Forgetful,), {"target": model})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        deltas = Deltas(Place(f"http://127.0.0.1:{server.server_port}", "m", TOKEN), reference=REFERENCE, interval=3600)
        for round in range(3):
            for at in range(100):
                deltas.observe({"x": float(at % 10), "c": "a"})
            assert deltas.flush(30), (round, deltas.last_error)
        assert deltas.close()
        server.shutdown()
    counts = deltas.counts()
    assert (counts["acknowledged"], counts["waiting"], counts["dropped"], counts["refused"]) == (300, 0, 0, 0)
    assert counts["repeated"] >= 1
    assert model.model("m")["events"] == 300


def test_replicas_are_counted_together_and_odd_fields_are_told(model):
    replicas = [Deltas(place(model), reference=REFERENCE, interval=0.2) for _ in range(2)]
    for at in range(500):
        replicas[at % 2].observe({"x": float(at % 10), "c": 7 if at == 3 else None, "more": 1})
    assert all(one.close(30) for one in replicas)
    assert model.model("m")["events"] == 500
    assert replicas[0].incarnation != replicas[1].incarnation
    assert sum(one.counts()["unknown_fields"] for one in replicas) == 500
    assert sum(one.counts()["mistyped_fields"] for one in replicas) == 1
    replicas[0].observe({"x": 1.0})
    assert replicas[0].counts()["dropped"] == 1


def test_what_waits_while_the_sidecar_is_gone_is_counted_when_it_is_back(model):
    deltas = Deltas(place(model), reference=REFERENCE, interval=3600)
    model.kill()
    for _ in range(3):
        for at in range(100):
            deltas.observe({"x": float(at % 10)})
        assert not deltas.flush(0.3)
    assert deltas.counts()["waiting"] == 300
    model.start()
    assert deltas.close(60)
    assert model.model("m")["events"] == 300


def test_a_killed_replica_loses_what_it_observed_since_its_last_delta_and_a_forked_one_is_another(model):
    deltas = Deltas(place(model), reference=REFERENCE, interval=3600)
    for at in range(100):
        deltas.observe({"x": float(at % 10)})
    assert deltas.flush(30)
    child = os.fork()
    if child == 0:
        for at in range(70):
            deltas.observe({"x": float(at % 10)})
        sent = deltas.flush(30)
        for at in range(30):
            deltas.observe({"x": float(at % 10)})
        os.kill(os.getpid(), signal.SIGKILL if sent else signal.SIGTERM)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert model.model("m")["events"] == 170
    assert deltas.close(30)


def test_a_profile_is_sent_once_and_what_is_refused_is_told(model):
    profile = bg.profile({"x": [1.0] * 10}, reference=REFERENCE)
    to = place(model, patience=0.5)
    assert to.send(profile, stream="job", number=1)
    assert not to.send(profile, stream="job", number=1)
    assert model.model("m")["events"] == 10
    with pytest.raises(InvalidArgumentError, match="refused the profile: status"):
        to.send(bg.profile({"x": [1.0] * 10}, reference=bg.Reference({"x": [5.0] * 100})), stream="job", number=2)
    with pytest.raises(NotFoundError, match="status 404"):
        Place(to.url, "nope", TOKEN).send(profile, stream="job", number=1)
    model.kill()
    began = time.monotonic()
    with pytest.raises(ConnectionError, match="did not take number 3 of job"):
        to.send(profile, stream="job", number=3)
    assert time.monotonic() - began < 10
    with pytest.raises(InvalidArgumentError, match="`interval`"):
        Deltas(to, reference=REFERENCE, interval=0)
