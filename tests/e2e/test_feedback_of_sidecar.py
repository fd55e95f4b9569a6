"""Triggers, requests to fit again and decisions are told to a sidecar, and read there by the page and by `bg.history`."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import barograph as bg
import numpy as np
import pytest
from barograph.errors import InvalidArgumentError, NotFoundError
from sidecars import TOKEN, Sidecar, sidecar

NOW = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sidecar]:
    tokens = '[[tokens]]\nname = "reader"\ntoken = "only-reads"\nscopes = ["read"]\n'
    with sidecar(tmp_path_factory.mktemp("feedback"), config=tokens) as one:
        for model in ("m", "kept"):
            assert one.request("PUT", f"/v1/models/{model}", {"task": "binary"}).status == 201
        yield one


def client(running: Sidecar, model: str = "m") -> bg.Client:
    return bg.connect(f"http://127.0.0.1:{running.port}", model=model, token=TOKEN)


def looks(challenger: str, rate: float, times: int = 4) -> list[bg.rollout.Decision]:
    """A roll-out that is looked at after each thousand events."""
    draw = np.random.default_rng(0)
    rollout = bg.rollout.Rollout("v1", challenger, guards=["error_rate"])
    out = []
    for at in range(times):
        for version, chance in (("v1", 0.01), (challenger, rate)):
            rollout.observe_frame({"failed": draw.random(1000) < chance}, version=version, failed="failed")
        out.append(rollout.decide(NOW + at * timedelta(hours=1)))
    return out


def test_what_is_told_is_kept_and_read_by_all(running: Sidecar) -> None:
    with client(running) as told:
        tell_all(running, told)
    # A restart forgets none of it, and a model that goes takes it along.
    with client(running) as told:
        before = told.told()
    running.stop()
    running.start()
    with client(running) as told:
        assert told.told() == before
        assert running.request("DELETE", "/v1/models/m").status == 204
        assert running.request("PUT", "/v1/models/m", {"task": "binary"}).status == 201
        assert told.told() == {"decisions": [], "requests": [], "triggers": []}


def tell_all(running: Sidecar, told: bg.Client) -> None:
    trigger = bg.Trigger("m", bg.Condition.schedule("30d") & bg.Condition.labels(1), cooldown="1d")
    with pytest.raises(InvalidArgumentError, match="judged nothing yet"):
        told.tell(trigger)
    assert trigger.check(NOW) is None
    told.tell(trigger)
    bad, fine = looks("v2", 0.06), looks("v3", 0.01, 2)
    for decision in [*bad, *fine]:
        told.tell(decision)
    # The same once more is kept once.
    told.tell(bad[0])
    request = bg.Trigger("m", bg.Condition.schedule("1h"), cooldown="0s")
    request.check(NOW)
    asked = request.check(NOW + timedelta(hours=2))
    assert asked is not None
    assert [one.done for one in asked.deliver(told.tell)] == [True]

    found = told.told()
    assert found == {key: value for key, value in running.get("/v1/models/m/feedback").json.items() if key != "model"}
    assert next(one["decision"] for one in found["decisions"] if one["challenger"] == "v2") == "roll back"
    v2 = [one for one in found["decisions"] if one["challenger"] == "v2"]
    # A roll-back stands from then on: looks after it are the same decision.
    assert len(v2) == len({decision.time for decision in bad})
    guard = v2[-1]["evidence"][0]
    assert guard["guard"] == "error_rate"
    assert guard["lower"] <= guard["harm"] <= guard["upper"]
    assert v2[-1]["time"] == int(NOW.timestamp()) * 1_000_000_000
    (one,) = found["requests"]
    assert (one["id"], one["reason"]) == (asked.id, asked.reason)
    (seen,) = found["triggers"]
    assert [row["holds"] for row in seen["conditions"]] == [False, None, False]
    assert running.get("/v1/models/m/feedback?limit=1").json["decisions"] == found["decisions"][:1]

    # One timeline has what was decided, and not each look at what was not.
    rows = bg.history(told).to_frame()
    assert rows.filter(event="decision")["state"].to_list() == ["roll back"]
    assert rows.filter(event="retrain")["reason"].to_list() == [asked.reason]


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"decision": {}}, 400, "missing field"),
        ({"opinion": {}}, 400, "unknown variant"),
        ({"trigger": {"time": "soon", "conditions": []}}, 400, "2026-01-31T12:00:00Z"),
        ({"trigger": {"time": "2026-01-31T12:00:00Z", "conditions": []}}, 400, "at least one"),
        ({"trigger": {"time": "2026-01-31T12:00:00Z", "conditions": [{"condition": "x"}] * 201}}, 400, "at most 200"),
        ({"trigger": {"time": "2026-01-31T12:00:00Z", "conditions": [{"condition": "x" * 70_000}]}}, 413, "65536"),
    ],
)
def test_what_is_no_such_thing_is_refused(running: Sidecar, body: dict[str, Any], status: int, words: str) -> None:
    answer = running.request("POST", "/v1/models/kept/feedback", body)
    assert answer.status == status, answer
    assert words in answer.json["detail"]


def test_who_may_only_read_tells_nothing_and_others_models_take_nothing(running: Sidecar) -> None:
    reader = {"Authorization": "Bearer only-reads"}
    body = {"trigger": {"time": "2026-01-31T12:00:00Z", "conditions": [{"condition": "x"}]}}
    assert running.request("POST", "/v1/models/kept/feedback", body, None, **reader).status == 403
    assert running.get("/v1/models/kept/feedback", **reader).status == 200
    trigger = bg.Trigger("other", bg.Condition.schedule("1h"), cooldown="0s")
    trigger.check(NOW)
    request = trigger.check(NOW + timedelta(hours=2))
    assert request is not None
    with client(running, "kept") as kept, client(running, "nobody") as nobody:
        with pytest.raises(InvalidArgumentError, match="other"):
            kept.tell(request)
        with pytest.raises(InvalidArgumentError, match="got int"):
            kept.tell(3)  # type: ignore[arg-type]
        with pytest.raises(NotFoundError):
            nobody.told()


def test_whoever_listens_is_told(running: Sidecar) -> None:
    import http.client

    stream = http.client.HTTPConnection("127.0.0.1", running.port, timeout=20)
    stream.request("GET", "/v1/stream", headers={"Authorization": f"Bearer {TOKEN}"})
    answer = stream.getresponse()
    assert answer.readline() == b"retry: 1000\n"
    body = {"trigger": {"time": "2026-01-31T12:00:00Z", "conditions": [{"condition": "every day", "holds": True}]}}
    assert running.request("POST", "/v1/models/kept/feedback", body).status == 204
    lines = [answer.readline() for _ in range(3)]
    assert lines[1:] == [b"event: feedback\n", b'data: {"model":"kept"}\n']
    stream.close()
