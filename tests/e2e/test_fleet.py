"""Twenty sidecars and one that judges for all: whatever dies on the way, what is counted is what was sent, once."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

import barograph as bg
import pytest
from fleets import SNAPSHOT, as_one, counted, events, frame, has_reference, labels, make, reference, until, waiting
from sidecars import ARROW, TOKEN, Sidecar, sidecar

EDGES = 20
ROWS = 6000


def config(aggregator: Sidecar, name: str) -> str:
    return f'[fleet]\nto = "http://127.0.0.1:{aggregator.port}"\ntoken = "{TOKEN}"\ninterval = "1s"\nname = "{name}"\n'


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[tuple[Sidecar, list[Sidecar]]]:
    """An aggregator with a reference, and its edges."""
    with contextlib.ExitStack() as stack:
        aggregator = Sidecar(make(tmp_path, "aggregator"))
        stack.enter_context(aggregator)
        assert aggregator.request("PUT", "/v1/models/m", {"learn": {"events": 1000}}).status == 201
        assert aggregator.request("PUT", "/v1/models/m/policy", {"window": "1m", "task": "binary"}).status == 204
        assert aggregator.request("PUT", "/v1/models/m/reference", reference().to_bytes(), SNAPSHOT).status == 204
        edges = [Sidecar(make(tmp_path, f"edge-{at}"), config=config(aggregator, f"edge-{at}")) for at in range(EDGES)]
        for edge in edges:
            edge.start(wait=False)
            stack.callback(edge.__exit__)
        for edge in edges:
            edge.until_ready(180)
            has_reference(edge)
        yield aggregator, edges


def test_twenty_sidecars_are_one(fleet: tuple[Sidecar, list[Sidecar]], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    aggregator, edges = fleet
    # A minute that has more than forty seconds to go: what is in it comes while it is open.
    while (now := time.time()) % 60 > 15:
        time.sleep(0.2)
    start = datetime.fromtimestamp(now // 60 * 60, UTC)
    rows = frame(ROWS, 1, start, shift=0.7)
    sent = 0
    parts = [rows[at::EDGES] for at in range(EDGES)]
    for at, edge in enumerate(edges):
        answer = edge.request("POST", "/v1/models/m/events", events(parts[at]), ARROW)
        assert answer.json["accepted"] == parts[at].height, answer
        sent += parts[at].height
        # The label comes to another sidecar than its prediction.
        other = edges[(at + 7) % EDGES]
        assert other.request("POST", "/v1/models/m/labels", labels(parts[at]), ARROW).json["accepted"] == parts[at].height
        if at == 5:
            edges[3].kill()
            edges[3].start(wait=False)
        if at == 9:
            aggregator.kill()
        if at == 14:
            aggregator.start()
            edges[3].until_ready()
    until(
        lambda: sum(map(waiting, edges)) == 0 and counted(aggregator) >= sent,
        lambda: (counted(aggregator), [e.get("/readyz") for e in edges]),
    )
    with capsys.disabled():
        print(f"\ncounted = {counted(aggregator)}, sent = {sent}, labels = {aggregator.model('m')['labels']}, by {EDGES} sidecars")
    assert counted(aggregator) == sent
    assert aggregator.model("m")["labels"] == ROWS
    sources = aggregator.get("/v1/models/m").json["fleet"]["sources"]
    assert len({source["source"].split(".")[0] for source in sources if source["events"]}) == EDGES
    assert all(source["missing"] == 0 for source in sources)
    assert 'barograph_source_sequence{model="m",source="edge-0.' in aggregator.get("/metrics").body.decode()

    as_one(aggregator, rows, start)

    # Every alert is one, at the aggregator; any sidecar shows it.
    alerts = aggregator.get("/v1/models/m/alerts").json["rows"]
    opened = [alert["column"] for alert in alerts if alert["state"] == "opened"]
    assert "x" in opened
    assert len(opened) == len(set(opened))
    assert edges[4].get("/v1/models/m/alerts").json == aggregator.get("/v1/models/m/alerts").json
    assert edges[4].get("/v1/models/m/alerts?local=true").json["rows"] == []
    assert [model["events"] for model in edges[4].get("/v1/models").json["models"]] == [sent]

    # A second aggregator is not the one that has the earlier deltas, and two do not share a folder.
    with sidecar(make(tmp_path, "other")) as other:
        refused = other.request(
            "POST", "/v1/models/m/deltas", b"x", SNAPSHOT, Barograph_Sequence="edge-0.1/1", Barograph_Aggregator="0" * 32
        )
        assert (refused.status, refused.json["title"]) == (409, "another aggregator")
    # Nobody answers for an aggregator that is gone.
    aggregator.stop()
    gone = edges[0].get("/v1/models")
    assert gone.status == 502
    assert "could not be reached" in gone.json["detail"]
    assert edges[0].get("/readyz").status == 200
    assert edges[0].get("/v1/models?local=true").status == 200


def test_a_reference_is_learned_by_the_aggregator(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        aggregator = stack.enter_context(sidecar(make(tmp_path, "aggregator")))
        aggregator.request("PUT", "/v1/models/m", {"learn": {"events": 1000}})
        edges = [stack.enter_context(Sidecar(make(tmp_path, f"e{at}"), config=config(aggregator, f"e{at}"))) for at in range(3)]
        rows = frame(3000, 2, datetime.now(UTC))
        sent = 0
        for at in range(30):
            part = rows[at * 100 : at * 100 + 100]
            assert edges[at % 3].request("POST", "/v1/models/m/events", events(part), ARROW).json["accepted"] == 100
            sent += 100
            if at == 14:
                until(lambda: aggregator.model("m")["state"] == "watching", lambda: aggregator.model("m"))
                for edge in edges:
                    has_reference(edge)
        until(lambda: counted(aggregator) == sent, lambda: (counted(aggregator), sent, [edge.get("/readyz") for edge in edges]))
        ids = {edge.get("/v1/models/m/reference?local=true").headers["etag"] for edge in edges}
        assert ids == {aggregator.get("/v1/models/m/reference").headers["etag"]}
        # What is stated there holds here, and only there can it be stated.
        assert edges[0].request("PUT", "/v1/models/m/policy", {"window": "1d"}).status == 409
        assert aggregator.request("PUT", "/v1/models/m/policy", {"window": "1d"}).status == 204
        until(lambda: edges[1].get("/v1/models/m/policy?local=true").json["window"] == "1d", lambda: edges[1].log())


def test_deltas_of_another_reference_are_kept_and_told(tmp_path: Path) -> None:
    rows = frame(500, 3, datetime.now(UTC))
    folder = make(tmp_path, "edge")
    with sidecar(folder) as alone:
        assert alone.request("PUT", "/v1/models/m/reference", reference(3.0).to_bytes(), SNAPSHOT).status == 204
        alone.request("POST", "/v1/models/m/events", events(rows), ARROW)
    with sidecar(make(tmp_path, "aggregator")) as aggregator:
        aggregator.request("PUT", "/v1/models/m/reference", reference().to_bytes(), SNAPSHOT)
        with Sidecar(folder, config=config(aggregator, "edge")) as edge:
            until(lambda: "expected" in edge.get("/readyz").body.decode(), lambda: edge.get("/readyz"))
            assert edge.get("/readyz").status == 200
            until(
                lambda: edge.get("/v1/models/m?local=true").json["state"] == aggregator.get("/v1/models/m").json["state"],
                lambda: edge.log(),
            )
            edge.request("POST", "/v1/models/m/events", events(rows), ARROW)
            until(lambda: counted(aggregator) == 500, lambda: (counted(aggregator), edge.get("/readyz")))
            assert waiting(edge) >= 1
            edge.kill()
            edge.start()
            assert waiting(edge) >= 1


def test_the_page_of_an_edge_shows_the_fleet(tmp_path: Path) -> None:
    """What the page asks of an edge is answered by the aggregator: it was the edge's own, which judges nothing."""
    odd = "a/b?c=<b>"
    reader = '[[tokens]]\nname = "some"\ntoken = "for-some"\nscopes = ["read"]\nmodels = ["m"]\n'
    with contextlib.ExitStack() as stack:
        aggregator = stack.enter_context(sidecar(make(tmp_path, "aggregator")))
        named = {"c": odd}
        learned = frame(5000, 99, datetime(2026, 1, 1, tzinfo=UTC)).rename(named).select("x", odd, score="_score")
        stated = bg.Reference(learned, segments=[odd]).to_bytes()
        for model in ("m", "other"):
            assert aggregator.request("PUT", f"/v1/models/{model}", {"task": "binary"}).status == 201
            assert aggregator.request("PUT", f"/v1/models/{model}/policy", {"window": "1m", "task": "binary"}).status == 204
            assert aggregator.request("PUT", f"/v1/models/{model}/reference", stated, SNAPSHOT).status == 204
        edge = stack.enter_context(Sidecar(make(tmp_path, "e"), config=reader + config(aggregator, "e")))
        has_reference(edge)
        start = datetime.fromtimestamp(time.time() // 60 * 60 - 180, UTC)
        rows = frame(4000, 3, start, shift=1.5).rename(named)
        assert edge.request("POST", "/v1/models/m/events", events(rows), ARROW).json["accepted"] == rows.height
        assert edge.request("POST", "/v1/models/m/labels", labels(rows), ARROW).json["accepted"] == rows.height
        line = lambda at: next(one for one in at.get("/v1/overview").json["models"] if one["name"] == "m")  # noqa: E731
        until(lambda: line(aggregator)["open_tickets"] + line(aggregator)["open_pages"] > 0, lambda: line(aggregator))
        until(lambda: line(aggregator)["quality"] is not None, lambda: line(aggregator))

        whole = f"/v1/models/m/columns/{quote(odd, safe='')}"
        for path in ("series?points=50", "columns", "columns/x", "segments", "quality", "alerts", "decisions"):
            place = f"/v1/models/m/{path}"
            there = aggregator.get(place)
            assert there.status == 200, there
            here = edge.get(place)
            assert (here.status, here.json) == (200, there.json), place
            assert edge.get(place, If_None_Match=there.headers["etag"]).status == 304, place
        assert edge.get(whole).json == aggregator.get(whole).json
        assert edge.get(whole).json["column"] == odd
        assert line(edge) == line(aggregator)
        assert line(edge)["verdict"] in ("warning", "critical")
        # Who may see one model sees it alone, whatever the edge itself may see there.
        some = {"Authorization": "Bearer for-some"}
        assert [one["name"] for one in edge.get("/v1/overview").json["models"]] == ["m", "other"]
        assert [one["name"] for one in edge.get("/v1/overview", **some).json["models"]] == ["m"]
        assert edge.get("/v1/models/other/series", **some).status == 403
        # What is its own it says when it is asked for it: it judges nothing.
        assert edge.get("/v1/models/m/segments?local=true").json["segments"] == []
        assert next(one for one in edge.get("/v1/overview?local=true").json["models"] if one["name"] == "m")["verdict"] is None
        # Alerts are said something about where they are.
        refused = edge.request("POST", "/v1/models/m/alerts/1/acknowledge")
        assert (refused.status, refused.json["title"]) == (409, "conflict")
        assert str(aggregator.port) in refused.json["detail"]
        assert aggregator.request("POST", "/v1/models/m/alerts/1/acknowledge").status == 204
