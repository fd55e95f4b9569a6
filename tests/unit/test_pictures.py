"""Plots, cells of notebooks, blocks in a terminal, live views: complete, safe, and right at the edges."""

import json
import math
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser

import barograph as bg
import numpy as np
import polars as pl
import pytest

HOSTILE = "<script>alert('x')</script>"
RIGHT_TO_LEFT = "\u202eשלום עולם"
LONG = "🦩" + "x" * 499
ROWS = 3000


def frame(shift=0.0):
    draw = np.random.default_rng(3)
    return pl.DataFrame(
        {
            HOSTILE: draw.normal(shift, 1, ROWS),
            RIGHT_TO_LEFT: draw.normal(size=ROWS),
            LONG: draw.normal(size=ROWS),
            "edges": draw.choice([1.7976931348623157e308, -1.7976931348623157e308, 5e-324, 0.0, math.inf, math.nan], ROWS),
            "names": draw.choice(["<b>bold</b>", "\u202eevil", "a" * 500, "&amp;"], ROWS),
            "nothing": pl.Series([None] * ROWS, dtype=pl.Float64),
            "steady": draw.normal(size=ROWS),
        }
    )


@pytest.fixture(scope="module")
def reference():
    return bg.Reference(frame())


@pytest.fixture(scope="module")
def report(reference):
    return bg.compare(reference, frame(1.0))


BEGAN = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def monitor(reference):
    made = bg.Monitor("<i>fraud</i>", reference=reference, window="1h", ticks="manual", rules=[{"metric": "latency_p99", "above": 0.01}])
    for hour in range(8):
        if hour == 4:
            made.deploy("v2 <b>", time=BEGAN + hour * timedelta(hours=1))
        at = [BEGAN + timedelta(hours=hour, seconds=second) for second in range(ROWS)]
        events = frame(1.0 if hour >= 5 else 0.0).with_columns(at=pl.Series(at), seconds=pl.lit(0.002 + 0.01 * (hour > 6)))
        made.observe_frame(events, time="at", latency_seconds="seconds")
        made.tick(BEGAN + timedelta(hours=hour + 1))
    return made


class Structure(HTMLParser):
    """Tags that are open, and everything that could run or load."""

    def __init__(self):
        super().__init__()
        self.open, self.active, self.text = [], [], []

    def handle_starttag(self, tag, attributes):
        if tag not in ("meta", "br", "hr", "path", "circle", "rect", "input"):
            self.open.append(tag)
        if tag in ("script", "iframe", "img", "link", "object", "b", "i") or any(name.startswith("on") for name, _ in attributes):
            self.active.append((tag, attributes))

    def handle_endtag(self, tag):
        if tag not in ("meta", "br", "hr", "path", "circle", "rect", "input"):
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def parsed(html):
    out = Structure()
    out.feed(html)
    out.close()
    assert out.open == []
    return out


@pytest.mark.parametrize("what", ["report", "profile", "reference", "monitor"])
def test_a_cell_shows_every_column_and_runs_nothing(what, report, reference, monitor):
    shown = {"report": report, "profile": reference.profile, "reference": reference, "monitor": monitor}[what]
    html = shown._repr_html_()
    structure = parsed(html)
    # Bold words are ours; nothing that came in may make one.
    assert not [tag for tag, _ in structure.active if tag != "b"]
    text = "".join(structure.text)
    assert HOSTILE in text
    assert "�שלום עולם" in text, "what turns the direction of text is a sign, and stays inside its <bdi>"
    assert "\u202e" not in html
    assert LONG in text
    assert "nan" not in text.replace("anan", "").lower().split()
    if what == "monitor":
        assert "<i>fraud</i>" in text
        assert "2 open alerts" in text
        assert "latency p99" in text
    if what == "profile":
        assert "1.798e+308" in text


def test_a_monitor_without_events_or_windows_says_so(reference):
    made = bg.Monitor("m", reference=reference, ticks="manual")
    assert "nothing was observed yet" in made._repr_html_()
    made.observe({"steady": 1.0})
    assert "no window has closed yet" in made._repr_html_()


def test_a_wide_profile_says_how_many_columns_it_leaves_out():
    html = bg.profile({f"x{at}": [1.0, 2.0] for at in range(60)})._repr_html_()
    assert "and 10 more columns" in html
    assert html.count("<tr>") == 51


def specification(chart):
    """Of a chart, as JSON has it; NaN would be an error."""
    text = chart.to_json()
    return json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} in a chart"))


def inline(specification):
    """All rows of all layers."""
    found = [layer["data"]["values"] for layer in specification["layer"] if "values" in layer.get("data", {})]
    found += specification.get("datasets", {}).values()
    return [row for rows in found for row in rows]


def test_a_column_is_drawn_over_its_reference(report):
    chart = specification(report.plot(HOSTILE))
    assert chart["title"]["text"] == f"{HOSTILE}: critical"
    rows = inline(chart)
    was = [row for row in rows if row.get("side") == "reference"]
    assert len(was) == 40
    assert sum(row["share"] for row in was) == pytest.approx(1.0)
    now = [row["share"] for row in rows if row.get("side") == "current"]
    assert sum(now[:-1]) == pytest.approx(1.0)
    # The shift is to the right: what lies above the reference is in the last bar.
    assert now[-1] > was[-1]["share"] * 3


def test_names_keep_their_order_and_shares(report):
    rows = inline(specification(report.plot("names")))
    was = {row["name"][3:]: row["share"] for row in rows if row["side"] == "reference"}
    assert sum(was.values()) == pytest.approx(1.0)
    assert {"<b>bold</b>", "�evil", "&amp;"} <= set(was)


def test_a_report_has_one_row_per_tested_column_worst_first(report):
    chart = specification(report.plot())
    rows = [row for row in inline(chart) if "verdict" in row]
    order = [row["column"] for row in rows if row["column"].startswith("0000")]
    assert order[0] == f"0000 {HOSTILE}"
    tested = [one for one in report.to_dict()["columns"] if one["verdict"]]
    assert len({row["column"] for row in rows}) == len(tested)
    few = specification(report.plot(columns=2))
    assert f"; {len(tested) - 2} more columns" in few["title"]["subtitle"]


def test_a_history_is_drawn_with_its_limits_alerts_and_deploys(monitor):
    heat = inline(specification(monitor.plot()))
    verdicts = {row["verdict"] for row in heat if row.get("column", "").endswith(HOSTILE) and "verdict" in row}
    assert verdicts == {"ok", "critical"}
    assert any("v2 <b>" in row.get("said", "") for row in heat)
    line = specification(monitor.plot(HOSTILE))
    points = [row for row in inline(line) if "value" in row]
    assert len({row["from"] for row in points}) == 8
    assert "▼ an alert opened" in line["title"]["subtitle"]
    latency = specification(monitor.plot(method="latency_p99"))
    assert latency["title"]["text"] == "latency p99 (s) of the model"
    assert {row["threshold"] for row in inline(latency) if "threshold" in row} == {0.01}


def test_a_long_history_is_thinned_to_its_worst(monitor):
    history = monitor.history().filter(pl.col("method") == "psi", pl.col("segment").is_null())
    hours = [
        history.filter(pl.col("window_start") == BEGAN).with_columns(
            pl.col("window_start", "window_end").dt.offset_by(f"{hour}h"), verdict=pl.lit("critical" if hour == 1234 else "ok")
        )
        for hour in range(3000)
    ]
    chart = specification(bg.plots.history(pl.concat(hours)))
    tiles = [row for row in inline(chart) if "verdict" in row]
    assert len({row["from"] for row in tiles}) <= 400
    assert "critical" in {row["verdict"] for row in tiles}
    line = [row for row in inline(specification(bg.plots.history(pl.concat(hours), column="steady"))) if "value" in row]
    assert len({row["from"] for row in line}) <= 800
    assert "critical" in {row["verdict"] for row in line}


def test_a_week_without_data_is_a_gap_not_a_blank(monitor):
    empty = monitor.history().clear()
    assert specification(bg.plots.history(empty))["title"]["subtitle"] == "0 windows"


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda report, monitor: report.plot("absent"), bg.errors.NotFoundError, "the report has no column 'absent'"),
        (lambda report, monitor: report.plot("nothing"), bg.errors.InvalidArgumentError, "has no histogram"),
        (lambda report, monitor: report.plot(columns=0), bg.errors.InvalidArgumentError, "`columns` must be a whole number"),
        (lambda report, monitor: monitor.plot("absent"), bg.errors.NotFoundError, "the history has no column 'absent'"),
        (lambda report, monitor: monitor.plot("steady", method="rmse"), bg.errors.NotFoundError, "has no method 'rmse'"),
        (lambda report, monitor: bg.plots.history(pl.DataFrame({"x": [1]})), bg.errors.InvalidArgumentError, "column 'column' is missing"),
        (
            lambda report, monitor: bg.widgets.live(3),
            bg.errors.InvalidArgumentError,
            "must be a Monitor, a Client or a DriftReport, got int",
        ),
        (
            lambda report, monitor: bg.widgets.live(report, 0.1),
            bg.errors.InvalidArgumentError,
            "`seconds` must be a number of at least 0.5",
        ),
    ],
)
def test_what_cannot_be_drawn_is_said(call, kind, message, report, monitor):
    with pytest.raises(kind, match=re.escape(message)):
        call(report, monitor)


@pytest.mark.parametrize("ending", ["svg", "png", "html"])
def test_charts_are_written(ending, report, monitor, tmp_path):
    for name, chart in {"column": report.plot(HOSTILE), "report": report.plot(), "history": monitor.plot()}.items():
        path = tmp_path / f"{name}.{ending}"
        chart.save(path)
        assert path.stat().st_size > 2000
        if ending == "svg":
            # Text, not markup.
            assert "<script>" not in path.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("module", "call", "extra"),
    [("altair", "report.plot()", "plot"), ("anywidget", "bg.widgets.live(report)", "notebook")],
)
def test_without_the_extra_the_error_names_it(module, call, extra):
    code = f"""
import sys; sys.modules[{module!r}] = None
import barograph as bg
report = bg.compare(bg.Reference({{"x": [1.0, 2.0] * 200}}), {{"x": [1.0, 2.0] * 200}})
try:
    {call}
except ImportError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert f"pip install 'barograph[{extra}]'" in done.stdout


def cells_of(text):
    from barograph.reports import _cells

    return [_cells(line) for line in text.splitlines()]


@pytest.mark.parametrize("width", [40, 60, 100, 200])
def test_blocks_fit_the_terminal(report, width):
    drawn = report.to_histograms(width=width, color=False)
    assert max(cells_of(drawn)) <= width
    assert "▲" in drawn
    assert "\x1b" not in drawn
    assert "\u202e" not in drawn
    assert "\x1b[38;5;202m" in report.to_histograms(width=width, color=True)


@pytest.mark.parametrize("width", [40, 60, 100])
def test_bars_of_names_fit_the_terminal(width):
    names = {"wide": ["日本航空", "a" * 90, "\u202eevil"] * 500}
    drawn = bg.compare(bg.Reference(names), {"wide": ["日本航空"] * 900 + ["a" * 90] * 50}).to_histograms(width=width, color=False)
    assert "█" in drawn
    assert max(cells_of(drawn)) <= width


def test_blocks_are_left_out_where_nothing_drifted_or_nothing_fits(report, reference):
    assert bg.compare(reference, frame()).to_histograms(width=100) == ""
    assert report.to_histograms(width=39) == ""
    assert report.to_histograms(columns=1, width=80).count("reference") == 1


def test_the_command_draws_and_can_be_told_not_to(tmp_path):
    draw = np.random.default_rng(0)
    for name, mean in (("a", 0.0), ("b", 1.0)):
        pl.DataFrame({"x": draw.normal(mean, 1, 5000), "c": draw.choice(["α", "β"], 5000)}).write_parquet(tmp_path / f"{name}.parquet")

    def compare(*options, **environment):
        command = [sys.executable, "-m", "barograph", "compare", str(tmp_path / "a.parquet"), str(tmp_path / "b.parquet"), *options]
        import os

        return subprocess.run(command, capture_output=True, encoding="utf-8", env={**os.environ, **environment}, check=False)

    done = compare(COLUMNS="80")
    assert done.returncode == 1, done.stderr
    assert "▲ x\n  reference ▁" in done.stdout
    assert "\x1b" not in done.stdout
    assert "reference ▁" not in compare("--no-histogram").stdout
    json.loads(compare("--json").stdout)
    # What a terminal of ASCII cannot show is left out or a sign, never an error.
    plain = compare(PYTHONIOENCODING="ascii")
    assert (plain.returncode, plain.stderr) == (1, "")
    assert "? critical" in plain.stdout
    assert "reference ?" not in plain.stdout


def test_a_view_holds_numbers_and_asks_again(monitor, report):
    view = bg.widgets.live(monitor, seconds=1)
    content = json.loads(json.dumps(view.content, allow_nan=False))
    assert (content["kind"], content["name"], content["windows"], view.interval) == ("monitor", "<i>fraud</i>", 8, 1000)
    assert content["columns"][0] | {"line": None, "reason": None, "score": None} == {
        "column": HOSTILE,
        "verdict": "critical",
        "line": None,
        "reason": None,
        "score": None,
    }
    view.source = report
    assert (view.content["kind"], view.interval) == ("report", 0)
    json.dumps(view.content, allow_nan=False)


def test_a_view_shows_what_fails_and_keeps_what_it_has(monitor):
    class Away:
        name = "away"
        trouble = False

        def history(self):
            if self.trouble:
                raise ConnectionError("nobody answers")
            return monitor.history()

        def alerts(self):
            return monitor.alerts()

    source = Away()
    view = bg.widgets.live(source)
    source.trouble = True
    view._handle_custom_msg({"ask": "content"}, [])
    assert view.content["trouble"] == "ConnectionError: nobody answers"
    assert view.content["windows"] == 8
    source.trouble = False
    view._handle_custom_msg({"ask": "content"}, [])
    assert "trouble" not in view.content
