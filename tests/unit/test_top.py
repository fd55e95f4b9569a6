from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from barograph.top import Board, _alerts, _drift, _step
from barograph.top_screen import Detail, View, cells, screen, table
from hypothesis import given
from hypothesis import strategies as st


def model(name: str, **stated: Any) -> dict[str, Any]:
    return {
        "name": name,
        "state": "watching",
        "events": 0,
        "labels": 0,
        "late": 0,
        "rejected": 0,
        "open_alerts": [],
        "learning": None,
        "latency_p50": None,
        "latency_p99": None,
        "reference": "0123456789abcdef",
        **stated,
    }


def answer(*models: dict[str, Any], **stated: Any) -> dict[str, Any]:
    server = {"version": "1.0", "uptime_seconds": 10.0, "events_total": 0, "rejected_total": 0, "queue_bytes": 0, "memory_bytes": 1 << 20}
    return {"server": {**server, "replaying": False, "problems": [], **stated}, "models": list(models)}


def text(view: View, width: int = 100, height: int = 24) -> str:
    return "\n".join("".join(part for part, _ in line) for line in screen(view, width, height, plain=False))


def board(*answers: dict[str, Any]) -> Board:
    out = Board("http://127.0.0.1:7464")
    for at, said in enumerate(answers):
        out.take(said, float(at), 1e9 + at)
    return out


def test_rates_are_of_the_time_between_two_polls():
    out = Board("http://127.0.0.1:7464")
    out.take(answer(model("m", events=100), events_total=100), 0.0, 1e9)
    assert out.view.models[0].rate is None
    out.take(answer(model("m", events=600), events_total=600, uptime_seconds=12.0), 2.0, 1e9)
    assert (out.view.models[0].rate, out.view.rates[-1]) == (250.0, 250.0)


def test_a_restart_or_a_replay_is_no_rate():
    out = board(
        answer(model("m", events=1000), events_total=1000, uptime_seconds=100.0),
        answer(model("m", events=50), events_total=50, uptime_seconds=0.5, replaying=True),
        answer(model("m", events=1000), events_total=1000, uptime_seconds=1.5),
        answer(model("m", events=1010), events_total=1010, uptime_seconds=2.5),
    )
    assert out.view.models[0].rates == (None, None, 10.0)


def test_what_is_wrong_stands_on_top():
    out = board(answer(model("m")))
    out.miss("connection refused", 1e9 + 60)
    assert "connection refused" in text(out.view)
    out.take(answer(model("m"), problems=["the disk is full"]), 100.0, 1e9 + 61)
    shown = text(out.view)
    assert "connection refused" not in shown
    assert "the disk is full" in shown
    learning = {"events": 5000, "of": 10_000, "trouble": "every value of x is null"}
    out.take(answer(model("m", state="learning", learning=learning)), 101.0, 1e9 + 62)
    assert "learn 50%" in text(out.view)
    assert "every value of x is null" in text(replace(out.view, selected="m"))


def test_open_alerts_and_the_worst_row_of_each_column():
    rows = [
        {"column": "x", "state": "opened", "severity": "ticket", "verdict": "warning", "value": 0.2, "time": 10**18, "reason": "moved"},
        {"column": "y", "state": "opened", "severity": "page", "verdict": "critical", "value": 0.9, "time": 10**18},
        {"column": "z", "state": "opened", "severity": "page", "verdict": "critical", "time": 10**18},
        {"column": "z", "state": "resolved", "severity": "page", "time": 2 * 10**18},
    ]
    alerts = _alerts({"rows": rows}, 1e9)
    assert [alert.column for alert in alerts] == ["y", "x"]
    drift = [
        {"column": "x", "method": "psi", "verdict": "ok", "value": 0.01, "threshold": 0.1, "window_start": 0, "window_end": 3600 * 10**9},
        {"column": "x", "method": "null_share", "verdict": "critical", "value": 0.5, "threshold": 0.02},
        {"column": "x", "method": "null_share", "verdict": "ok", "value": 0.0, "threshold": 0.02, "provisional": True},
        {"column": "a", "method": "psi", "verdict": "ok", "value": 0.02, "threshold": 0.1},
    ]
    found, window = _drift({"rows": drift})
    assert [(row.column, row.method, row.verdict, row.open_verdict) for row in found] == [
        ("x", "null_share", "critical", "ok"),
        ("a", "psi", "ok", ""),
    ]
    assert window == ""
    view = replace(board(answer(model("m", open_alerts=[{"column": "y", "severity": "page"}]))).view, selected="m")
    shown = text(replace(view, detail=Detail("m", alerts, found)))
    assert shown.index("y") < shown.index("null_share")
    assert "moved" in shown


def test_keys():
    view = replace(board(answer(*(model(name) for name in "abc"))).view, selected="a")
    keys = {1: "down", 2: "last", 3: "sort", 4: "help", 5: "quit", 6: "up"}
    assert _step(view, 1, keys).selected == "b"
    assert _step(view, 2, keys).selected == "c"
    assert _step(view, 6, keys).selected == "a"
    assert _step(view, 3, keys).sort != view.sort
    assert "this help" in text(_step(view, 4, keys))
    assert _step(view, 99, keys) == view
    assert _step(view, 5, keys) is None


def test_names_do_not_steer_the_terminal():
    name = "\x1b[2J\x1b]0;owned\x07\u202eevil\x9b31m"
    out = board(answer(model(name, open_alerts=[{"column": name, "severity": "page"}]), problems=[name]))
    shown = text(out.view) + "".join(table(out.view, None))
    assert all(letter.isprintable() or letter == "\n" for letter in shown)


def test_an_answer_of_something_else():
    out = board()
    for wrong in (None, [], {}, {"models": 1, "server": {}}, {"models": [], "server": 3}, "text"):
        with pytest.raises(ValueError, match="not that of a sidecar"):
            out.take(wrong, 0.0, 0.0)
    assert out.view.server is None


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=10,
)


@given(
    st.lists(st.dictionaries(st.sampled_from(sorted(model("m"))), ANYTHING), max_size=5),
    st.dictionaries(st.sampled_from(sorted(answer()["server"])), ANYTHING),
    st.integers(1, 250),
    st.integers(1, 60),
    st.booleans(),
    ANYTHING,
)
def test_no_answer_breaks_the_screen(models, server, width, height, plain, rows):
    """Whatever is answered, and however small the terminal is: lines that fit."""
    out = board({"models": models, "server": server}, {"models": models, "server": server})
    view = out.view
    if view.models:
        alerts, (drift, window) = _alerts(rows, 0.0), _drift(rows)
        view = replace(view, selected=view.models[0].name, detail=Detail(view.models[0].name, alerts, drift, window))
    for seen in (view, replace(view, help=True), replace(view, trouble="gone", since=0.0)):
        lines = screen(seen, width, height, plain)
        assert len(lines) <= height
        for line in lines:
            assert sum(cells(part) for part, _ in line) <= width
            assert not plain or all(part.isascii() for part, _ in line)
    json.dumps(table(view, width))
