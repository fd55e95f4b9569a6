"""The page and the cell of a timeline: no request to elsewhere, no script."""

from __future__ import annotations

from datetime import UTC, datetime
from html import escape
from importlib.resources import files
from typing import TYPE_CHECKING

from barograph.report_html import display_name, display_number

if TYPE_CHECKING:
    from barograph.histories import Timeline
    from barograph.iterations import Iteration

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
_W, _H, _LEFT, _BOTTOM = 900, 240, 56, 22
_MOST_POINTS = 1500
_MOST_ROWS = 1000
_SIGNS = {"better": "▲", "worse": "▼", "no clear difference": "●", "unknown": "○"}
_CLASSES = {"better": "v-ok", "worse": "v-critical"}
_EXTRA = """
main{max-width:70rem}header{max-width:70rem}table{background:var(--card)}.timeline text{font-size:11px;fill:var(--soft)}
.timeline .point{fill:var(--was)}.timeline .mean{stroke:var(--now);stroke-width:2}.timeline .limits{fill:var(--now);fill-opacity:.14}
.timeline .begin{stroke:var(--ink);stroke-dasharray:3 3}.timeline .page{fill:var(--critical)}.timeline .axis{stroke:var(--line)}
td:first-child{white-space:nowrap}td.v-critical,b.v-critical{color:var(--critical)}td.v-ok,b.v-ok{color:var(--ok)}
"""


def page(timeline: Timeline, metric: str | None) -> str:
    """The whole page."""
    iterations = timeline._iterations(metric, 0.95)
    metric = iterations[0].metric if iterations else None
    title = (
        f"{len(iterations)} iteration{'s' if len(iterations) != 1 else ''} of {timeline.model}"
        if iterations
        else "nothing has happened yet"
    )
    style = (files("barograph") / "report.css").read_text(encoding="utf-8") + _EXTRA
    drawn = _drawing(timeline, iterations, metric) if metric else ""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}"><title>barograph: {escape(title)}</title>'
        f'<style>{style}</style></head><body><header><p class="brand">barograph history</p><h1>{display_name(title)}</h1>'
        f'<p class="facts">{_sentence(iterations)}</p></header><main>{drawn}<h3>Iterations</h3>{_iterations(iterations)}'
        f"<h3>What happened</h3>{_events(timeline)}</main></body></html>"
    )


def cell(timeline: Timeline) -> str:
    """A notebook cell."""
    iterations = timeline._iterations(None, 0.95)
    return f"<div><p><b>history</b> of {display_name(timeline.model)}: {_sentence(iterations)}</p>{_iterations(iterations)}</div>"


def _sentence(iterations: list[Iteration]) -> str:
    """The last iteration against the one before, in words."""
    if not iterations:
        return "no row yet"
    last = iterations[-1]
    name = "iteration " + str(last.iteration) + (f" ({display_name(last.version)})" if last.version else "")
    if last.change is None or last.metric is None:
        return f"{name} is the first with a metric" if last.value is not None else f"{name} has no metric yet"
    metric = escape(last.metric.replace("_", " "))
    span = "" if last.change_lower is None else f", {last.change_lower:+.3g} to {last.change_upper:+.3g}"
    words = {"better": "is better than the one before", "worse": "is worse than the one before"}
    said = words.get(last.verdict, "shows no clear difference" if last.verdict == "no clear difference" else "cannot be judged yet")
    begins = f'<b class="{_CLASSES.get(last.verdict, "")}">{_SIGNS[last.verdict]} {name} {said}</b>'
    return f"{begins}: {metric} changed by {last.change:+.3g}{span}"


def _iterations(iterations: list[Iteration]) -> str:
    heads = ["iteration", "version", "against the one before", "metric", "mean", "limits", "change", "pages", "tickets"]
    heads += ["false ones allowed", "hours with a page", "cost", "began", "days", "windows", "reference"]
    body = ""
    for one in iterations:
        allowed = "" if one.tickets_allowed is None else f"{(one.pages_allowed or 0) + one.tickets_allowed:.2g}"
        limits = "" if one.lower is None else f"{display_number(one.lower)} to {display_number(one.upper)}"
        change = "" if one.change is None else f"{one.change:+.3g}"
        if one.change_lower is not None:
            change += f" ({one.change_lower:+.3g} to {one.change_upper:+.3g})"
        cells = [
            str(one.iteration),
            display_name(one.version or ""),
            f"{_SIGNS[one.verdict]} {one.verdict}",
            escape((one.metric or "").replace("_", " ")),
            display_number(one.value),
            limits,
            change,
            str(one.pages),
            str(one.tickets),
            allowed,
            f"{one.open_hours:.1f}",
            display_number(one.cost),
            _day(one.began),
            f"{one.days:.1f}",
            f"{one.windows:,}",
            f"<code>{escape(one.reference or '')}</code>",
        ]
        marks = [f' class="{_CLASSES[one.verdict]}"' if at == 2 and one.verdict in _CLASSES else "" for at in range(len(cells))]
        body += "<tr>" + "".join(f"<td{mark}>{cell}</td>" for mark, cell in zip(marks, cells, strict=True)) + "</tr>"
    return _table(heads, body)


def _events(timeline: Timeline) -> str:
    rows = [row for row in timeline._rows if row["event"] not in ("metric", "cost")]
    body = ""
    for row in reversed(rows[-_MOST_ROWS:]):
        said = row["state"] or ""
        value = "" if row["value"] is None else display_number(row["value"])
        word = f"{row['event']} ({row['severity']})" if row["severity"] else row["event"]
        cells = [_day(row["time"]), escape(word), display_name(row["name"] or ""), escape(said), value, display_name(row["reason"] or "")]
        body += "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"
    more = f"<p>and {len(rows) - _MOST_ROWS:,} earlier rows: <code>to_frame()</code> has all</p>" if len(rows) > _MOST_ROWS else ""
    return _table(["time (UTC)", "what", "name", "state", "value", "reason"], body) + more if rows else "<p>nothing yet</p>"


def _table(heads: list[str], body: str) -> str:
    head = "".join(f'<th scope="col">{escape(text)}</th>' for text in heads)
    return f'<div class="scroll" style="overflow-x:auto"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _drawing(timeline: Timeline, iterations: list[Iteration], metric: str) -> str:
    """The metric of every window, its mean over each iteration with limits, where iterations begin, and pages."""
    points = [(row["time"], row["value"]) for row in timeline._rows if row["event"] == "metric" and row["name"] == metric]
    if not points:
        return ""
    points = points[:: max(1, -(-len(points) // _MOST_POINTS))]
    known = [value for _, value in points]
    known += [edge for one in iterations for edge in (one.lower, one.upper) if edge is not None]
    low: float = min(known)
    high: float = max(known)
    begin: int = timeline._rows[0]["time"]
    end: int = max(row["until"] or row["time"] for row in timeline._rows)
    # Halves, as the ends of f64 have no difference.
    half: float = high / 2 - low / 2 or 1.0

    def x(time: int) -> float:
        return _LEFT + (_W - _LEFT - 8) * (time - begin) / max(end - begin, 1)

    def y(value: float) -> float:
        return _H - _BOTTOM - 8 - (_H - _BOTTOM - 24) * min(max((value / 2 - low / 2) / half, 0.0), 1.0)

    shapes = f'<path class="axis" d="M{_LEFT} {_H - _BOTTOM}H{_W}"/>'
    for one in iterations:
        left, right = x(one.began), x(one.ended)
        if one.iteration > 1:
            shapes += f'<path class="begin" d="M{left:.1f} 0V{_H - _BOTTOM}"/>'
        shapes += f'<text x="{left + 4:.1f}" y="10">{escape(_short(one.version or str(one.iteration)))}</text>'
        if one.lower is not None and one.upper is not None:
            top, height = y(one.upper), y(one.lower) - y(one.upper)
            shapes += f'<rect class="limits" x="{left:.1f}" y="{top:.1f}" width="{right - left:.1f}" height="{max(height, 1):.1f}"/>'
        if one.value is not None:
            shapes += f'<path class="mean" d="M{left:.1f} {y(one.value):.1f}H{right:.1f}"/>'
    shapes += "".join(f'<circle class="point" cx="{x(time):.1f}" cy="{y(value):.1f}" r="2.5"/>' for time, value in points)
    for row in timeline._rows:
        if row["event"] == "alert" and row["state"] == "opened" and row["severity"] == "page":
            at, said = x(row["time"]), escape(f"page: {row['name']}")
            shapes += f'<path class="page" d="M{at - 4:.1f} {_H - _BOTTOM}h8l-4-7z"><title>{said}</title></path>'
    for value, place in ((low, y(low)), (high, y(high))):
        shapes += f'<text x="{_LEFT - 6}" y="{place + 4:.1f}" text-anchor="end">{display_number(value)}</text>'
    shapes += f'<text x="{_LEFT}" y="{_H - 6}">{_day(begin)}</text><text x="{_W}" y="{_H - 6}" text-anchor="end">{_day(end)}</text>'
    label = escape(metric.replace("_", " "))
    return (
        f'<svg class="timeline" viewBox="0 0 {_W} {_H}" role="img" aria-label="{label} over time"><title>{label} of every window, the mean '
        f"of each iteration with its limits, and pages below</title>{shapes}</svg>"
    )


def _short(text: str) -> str:
    return text if len(text) <= 24 else text[:23] + "…"


def _day(nanoseconds: int) -> str:
    try:
        return f"{datetime.fromtimestamp(nanoseconds // 10**9, UTC):%Y-%m-%d %H:%M}"
    except (OverflowError, ValueError, OSError):
        return "far away"
