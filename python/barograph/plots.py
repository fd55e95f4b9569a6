"""Pictures: a column against its reference, a report, a history, as charts of Altair (the library that Polars itself plots with).

| you have | you call | you see |
|---|---|---|
| a report | `report.plot()` | every tested column: PSI with its limits beside the tolerances, worst first |
| a report | `report.plot("delay")` | the column now over its reference |
| a monitor, a client | `monitor.plot()` | columns by windows, in the colour of their verdict, with deploys and alerts |
| a monitor, a client | `monitor.plot("delay")`, `monitor.plot(method="roc_auc")` | one number over time, its limits, its threshold |
| a timeline | `bg.history(monitor).plot("roc_auc")` | a metric, its mean in each iteration, and what happened |
| a `history()` frame | `bg.plots.history(frame)` | the same, from the frame alone |

All return a chart: a notebook shows it, `chart.save("x.html")` writes it, `chart.save("x.png")` and `"x.svg"` too where vl-convert is
installed. `pip install 'barograph[plot]'` brings both. Charts hold summaries, never rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from barograph.errors import InvalidArgumentError, NotFoundError
from barograph.verdicts import glyph, rank, sorted_columns

if TYPE_CHECKING:
    import altair as alt
    import polars as pl

    from barograph.histories import Timeline
    from barograph.reports import DriftReport

__all__ = ["column", "history", "report", "timeline"]

_VERDICTS = ["critical", "warning", "info", "insufficient", "invalid", "ok"]
_COLOURS = ["#b3261e", "#d98a00", "#2f86c1", "#8a72b5", "#8a72b5", "#6cae7f"]
_SHAPES = ["triangle-up", "triangle-right", "diamond", "circle", "cross", "circle"]
_SIDES, _SIDE_COLOURS = ["reference", "current"], ["#8aa0b8", "#d9541e"]
_EVENT_COLOURS = ["#6b4fa0", "#1a2330", "#2f86c1", "#6cae7f", "#b3261e", "#d98a00"]
_WIDTH = 640
_MOST_WINDOWS = 400
"""Windows side by side: beyond it neighbours share a place, and the worst of them is shown."""


def _altair() -> Any:
    try:
        import altair
    except ImportError as error:
        raise ImportError("plots need Altair: pip install 'barograph[plot]'") from error
    return altair


def column(report: DriftReport, name: str) -> alt.LayerChart:
    """A column of a report: shares of rows per bar, the current ones over those of the reference.

    Numbers: 40 bars of equal width between the reference's 0.5 % and 99.5 % quantile, the outer ones hold what lies beyond. Names: the
    20 most frequent of the reference, then the others and the unseen. Raises NotFoundError for a column the report has not, and
    InvalidArgumentError for one without a picture: text, ids, times, a column that could not be read.
    """
    from barograph.reports import plain

    document = report.to_dict()
    found = next((one for one in document["columns"] if one["column"] == name), None)
    if found is None:
        raise NotFoundError(f"the report has no column {name!r}", f"it has {', '.join(report.columns[:20])}")
    bars = found["bars"]
    if not bars:
        raise InvalidArgumentError(f"column {name!r} has no histogram: {found['reason'] or 'it is of role ' + found['role']}")
    verdict = found["verdict"]
    title = {
        "text": f"{_short(plain(name))}: {verdict or 'not tested'}",
        "subtitle": _short(plain(found["reason"]), 110) if found["reason"] else f"{document['n_current']:,} rows",
    }
    return _numbers(bars, title) if bars["edges"] else _names(bars, title)


def _numbers(bars: dict[str, Any], title: dict[str, str]) -> alt.LayerChart:
    altair = _altair()
    edges, count = bars["edges"], len(bars["labels"])
    was = [
        {"from": edges[at], "to": edges[at + 1], "share": bars["reference"][at], "side": "reference", "bar": bars["labels"][at]}
        for at in range(count)
    ]
    # The outline steps at each edge; the last one closes it.
    now = [{"from": edges[at], "share": bars["current"][min(at, count - 1)], "side": "current"} for at in range(count + 1)]
    tips = [
        {"from": edges[at], "to": edges[at + 1], "bar": bars["labels"][at], "was": bars["reference"][at], "now": bars["current"][at]}
        for at in range(count)
    ]
    x = altair.X("from:Q", title=None, scale=altair.Scale(nice=False, zero=False), axis=altair.Axis(grid=False))
    y = altair.Y("share:Q", title="share of rows", axis=altair.Axis(format="%", tickCount=4), scale=altair.Scale(domainMin=0))
    colour = altair.Color("side:N", scale=altair.Scale(domain=_SIDES, range=_SIDE_COLOURS), legend=altair.Legend(title=None, orient="top"))
    shaded = altair.Chart(_inline(was)).mark_bar(opacity=0.55).encode(x=x, x2="to:Q", y=y, y2=altair.Y2(datum=0), color=colour)
    line = altair.Chart(_inline(now)).mark_line(interpolate="step-after", strokeWidth=2).encode(x=x, y=y, color=colour)
    hover = (
        altair.Chart(_inline(tips))
        .mark_rect(opacity=0)
        .encode(
            x=x,
            x2="to:Q",
            tooltip=[
                altair.Tooltip("bar:N", title="bar"),
                altair.Tooltip("was:Q", title="reference", format=".2%"),
                altair.Tooltip("now:Q", title="current", format=".2%"),
            ],
        )
    )
    chart: alt.LayerChart = _styled(altair.layer(shaded, line, hover).properties(width=_WIDTH, height=220, title=title))
    return chart


def _names(bars: dict[str, Any], title: dict[str, str]) -> alt.LayerChart:
    from barograph.reports import plain

    altair = _altair()
    # Names that differ only far out, or only in what is not shown, stay apart by their place.
    labels = [f"{at:02d} {plain(label)}" for at, label in enumerate(bars["labels"])]
    rows = [
        {"name": label, "share": shares[at], "side": side}
        for side, shares in (("reference", bars["reference"]), ("current", bars["current"]))
        for at, label in enumerate(labels)
    ]
    axis = altair.Axis(labelExpr="slice(datum.label, 3)", labelLimit=220)
    colour = altair.Color("side:N", scale=altair.Scale(domain=_SIDES, range=_SIDE_COLOURS), legend=altair.Legend(title=None, orient="top"))
    x = altair.X("share:Q", title="share of rows", axis=altair.Axis(format="%", tickCount=5))
    y = altair.Y("name:N", title=None, sort=None, axis=axis)
    tips = [altair.Tooltip("side:N"), altair.Tooltip("share:Q", format=".2%")]

    def side(name: str, size: float) -> Any:
        return (
            altair.Chart(_inline([row for row in rows if row["side"] == name]))
            .mark_bar(size=size)
            .encode(x=x, y=y, color=colour, tooltip=tips)
        )

    chart: alt.LayerChart = _styled(
        altair.layer(side("reference", 16), side("current", 7)).properties(width=_WIDTH - 100, height=altair.Step(22), title=title)
    )
    return chart


def report(report: DriftReport, columns: int = 40) -> alt.LayerChart:
    """The tested columns of a report, worst first: PSI, its limits, and the tolerances as lines, on a square-root scale.

    columns: at most so many; the subtitle says how many are left out. A column without a PSI has its reason in its place.
    """
    from barograph.reports import plain

    if isinstance(columns, bool) or not isinstance(columns, int) or columns < 1:
        raise InvalidArgumentError(f"`columns` must be a whole number of at least 1, got {columns!r}")
    altair = _altair()
    document = report.to_dict()
    psi = {row["column"]: row for row in document["rows"] if row["method"] == "psi"}
    tested = [one for one in sorted_columns(document) if one["verdict"]]
    tolerances = document["settings"]["psi_tolerances"]
    top = 2 * tolerances[-1]
    rows = []
    for at, one in enumerate(tested[:columns]):
        score = psi.get(one["column"], {})
        value = score.get("value")
        lower, upper = score.get("lower"), score.get("upper")
        rows.append(
            {
                "column": f"{at:04d} {plain(one['column'])}",
                "verdict": one["verdict"],
                "psi": value,
                "shown": None if value is None else min(value, top),
                "lower": None if value is None else min(value if lower is None else lower, top),
                "upper": None if value is None else min(value if upper is None else upper, top),
                "reason": plain(one["reason"] or ""),
                # Beside the marks, where there is none or where another method speaks.
                "said": f"{glyph(one['verdict'])} {_short(plain(one['reason'] or one['verdict']))}" if value is None else "",
            }
        )
    lines = [
        {"at": tolerance, "word": word}
        for tolerance, word in zip(tolerances, ("info", "warning", "critical"), strict=False)
        if tolerance <= top
    ]
    left = len(tested) - len(rows)
    subtitle = f"{document['n_current']:,} rows against {document['n_reference']:,}" + (f"; {left} more columns" if left > 0 else "")
    axis = altair.Axis(labelExpr="slice(datum.label, 5)", labelLimit=220, grid=True, gridColor="#eef1f4")
    # Stated: each layer would put its own rows first.
    y = altair.Y("column:N", title=None, sort=[row["column"] for row in rows], axis=axis)

    def x(field: str) -> Any:
        scale = altair.Scale(type="sqrt", domain=[0, top], clamp=True)
        return altair.X(
            f"{field}:Q", title=f"PSI (shown up to {top:g})", scale=scale, axis=altair.Axis(grid=False, values=_ticks(top), format="~g")
        )

    tips = [altair.Tooltip("verdict:N"), altair.Tooltip("psi:Q", format=".4g"), altair.Tooltip("reason:N")]
    base = altair.Chart(_inline(rows))
    drawn = base.transform_filter("isValid(datum.psi)")
    ranges = drawn.mark_rule(strokeWidth=3, opacity=0.45).encode(x=x("lower"), x2="upper:Q", y=y, color=_verdicts())
    dots = drawn.mark_point(size=70, filled=True, opacity=1).encode(x=x("shown"), y=y, color=_verdicts(), shape=_shapes(), tooltip=tips)
    words = (
        base.transform_filter("datum.said != ''")
        .mark_text(align="left", dx=4, fontSize=10, color="#566273")
        .encode(y=y, text="said:N", x=altair.value(0))
    )
    marks = altair.Chart(_inline(lines)).mark_rule(strokeDash=[3, 3], color="#8a94a0").encode(x=x("at"))
    named = (
        altair.Chart(_inline(lines))
        .mark_text(dy=-7, fontSize=10, color="#566273", baseline="bottom")
        .encode(x=x("at"), y=altair.value(0), text="word:N")
    )
    title = {"text": report.summary(), "subtitle": subtitle, "offset": 18}
    # Where nothing is tested there is nothing to lay out by steps, and a blank says so.
    chart: alt.LayerChart = _styled(
        altair.layer(marks, named, ranges, dots, words).properties(width=_WIDTH - 160, height=altair.Step(20) if rows else 40, title=title)
    )
    return chart


def history(
    history: pl.DataFrame, alerts: pl.DataFrame | None = None, *, column: str | None = None, method: str | None = None, columns: int = 30
) -> alt.LayerChart:
    """A history over time.

    history: rows of `Monitor.history()` or `Client.history()`. alerts: those of `.alerts()`, marked where they opened. Without column and
    method: columns by windows, each in the colour of its worst verdict, the worst `columns` first; deploys as lines. column: one number of
    it over time, `method` or its "psi"; with a method alone, one of the model, such as "roc_auc" or "latency_p99". Rows of segments are
    left out. Beyond 400 windows neighbours share a place, and the worst of them is shown.

    Raises NotFoundError for a column or method that the history has not; InvalidArgumentError for a frame that is none.
    """
    import polars as pl

    needed = ("column", "method", "value", "lower", "upper", "threshold", "verdict", "window_start", "window_end", "segment")
    missing = next((name for name in needed if name not in history.columns), None)
    if missing is not None:
        raise InvalidArgumentError(f"`history` must be what `history()` gave, column {missing!r} is missing")
    whole = history.filter(pl.col("segment").is_null())
    deploys = whole.filter(pl.col("method") == "deploy")
    whole = whole.filter(pl.col("method") != "deploy")
    opened = [] if alerts is None else alerts.filter(pl.col("state") == "opened").to_dicts()
    if column is None and method is None:
        return _heat(whole, deploys, opened, columns)
    column = "(model)" if column is None else column
    rows = whole.filter(pl.col("column") == column)
    if rows.is_empty():
        known = whole["column"].unique(maintain_order=True).to_list()
        raise NotFoundError(f"the history has no column {column!r}", f"it has {', '.join(known[:20]) or 'no rows yet'}")
    methods = rows["method"].unique(maintain_order=True).to_list()
    method = method or ("psi" if "psi" in methods else methods[0])
    if method not in methods:
        raise NotFoundError(f"the history of {column!r} has no method {method!r}", f"it has {', '.join(methods)}")
    return _line(rows.filter(pl.col("method") == method), deploys, opened, column, method)


def _heat(whole: pl.DataFrame, deploys: pl.DataFrame, opened: list[dict[str, Any]], columns: int) -> alt.LayerChart:
    import polars as pl

    from barograph.reports import plain

    altair = _altair()
    worst = {name: place for place, name in enumerate(_VERDICTS)}
    judged = whole.filter(pl.col("verdict").is_not_null()).with_columns(
        place=pl.col("verdict").replace_strict(worst, default=len(worst), return_dtype=pl.Int64)
    )
    times = judged["window_start"].unique().sort()
    share = -(-len(times) // _MOST_WINDOWS) or 1
    group = pl.DataFrame({"window_start": times, "group": [at // share for at in range(len(times))]})
    cells = (
        judged.join(group, on="window_start")
        .group_by("column", "group", maintain_order=True)
        .agg(pl.col("window_start").min(), pl.col("window_end").max(), pl.col("place").min())
    )
    order = (
        cells.group_by("column", maintain_order=True)
        .agg(pl.col("place").min(), count=(pl.col("place") <= 1).sum())
        .sort("place", "count", descending=[False, True], maintain_order=True)["column"]
        .to_list()
    )
    places = {name: at for at, name in enumerate(order[:columns])}
    rows = [
        {
            "column": f"{places[row['column']]:04d} {plain(row['column'])}",
            "from": _stamp(row["window_start"]),
            "to": _stamp(row["window_end"]),
            "verdict": _VERDICTS[row["place"]] if row["place"] < len(_VERDICTS) else "invalid",
        }
        for row in cells.to_dicts()
        if row["column"] in places
    ]
    subtitle = f"{len(times):,} windows" + (f"; {len(order) - len(places)} more columns" if len(order) > len(places) else "")
    axis = altair.Axis(labelExpr="slice(datum.label, 5)", labelLimit=200)
    x = _times()
    tips = [altair.Tooltip("verdict:N"), altair.Tooltip("from:T", format="%Y-%m-%d %H:%M"), altair.Tooltip("to:T", format="%Y-%m-%d %H:%M")]
    tiles = (
        altair.Chart(_inline(rows))
        .mark_rect(stroke="white", strokeWidth=0.5 if len(times) <= 120 else 0)
        .encode(x=x, x2="to:T", y=altair.Y("column:N", title=None, sort=None, axis=axis), color=_verdicts(), tooltip=tips)
    )
    marks = [
        {"from": _middle(row), "opened": _stamp(row["time"]), "column": f"{places[row['column']]:04d} {plain(row['column'])}"}
        | {"said": plain(row["reason"] or "")}
        for row in opened
        if row["column"] in places
    ]
    layers = [tiles, *_deploys(deploys, x)]
    if marks:
        tip = [altair.Tooltip("opened:T", format="%Y-%m-%d %H:%M"), altair.Tooltip("said:N", title="reason")]
        dots = altair.Chart(_inline(marks)).mark_point(shape="triangle-up", size=60, filled=True, color="#1a2330", opacity=1)
        layers.append(dots.encode(x=x, y=altair.Y("column:N", sort=None, axis=axis, title=None), tooltip=tip))
        subtitle += "; ▲ an alert opened"
    title = {"text": "verdicts over time", "subtitle": subtitle}
    chart: alt.LayerChart = _styled(altair.layer(*layers).properties(width=_WIDTH, height=altair.Step(18) if rows else 40, title=title))
    return chart


def _line(rows: pl.DataFrame, deploys: pl.DataFrame, opened: list[dict[str, Any]], column: str, method: str) -> alt.LayerChart:
    import polars as pl

    from barograph.reports import plain

    altair = _altair()
    share = -(-rows.height // (2 * _MOST_WINDOWS)) or 1
    thinned = (
        rows.sort("window_start")
        .with_row_index("at")
        .with_columns(place=pl.col("verdict").map_elements(rank, return_dtype=pl.Int64, skip_nulls=False))
        .sort("place", pl.col("value").abs(), descending=[False, True], nulls_last=True)
        .group_by(pl.col("at") // share, maintain_order=True)
        .first()
        .sort("window_start")
    )
    kept = ("value", "lower", "upper", "threshold")
    points = [
        {"from": _stamp(row["window_start"]), **{name: row[name] for name in kept}}
        | {"verdict": row["verdict"] or "not tested", "reason": plain(row.get("reason") or "")}
        for row in thinned.to_dicts()
    ]
    x = _times()
    label = method.replace("_", " ") + (" (s)" if method.startswith("latency") else "")
    y = altair.Y("value:Q", title=label, scale=altair.Scale(zero=False))
    data = _inline(points)
    layers = []
    if any(point["lower"] is not None and point["upper"] is not None for point in points):
        band = altair.Chart(data).transform_filter("isValid(datum.lower) && isValid(datum.upper)").mark_area(opacity=0.18, color="#4c78a8")
        layers.append(band.encode(x=x, y=altair.Y("lower:Q", title=label), y2="upper:Q"))
    if any(point["threshold"] is not None for point in points):
        rule = altair.Chart(data).transform_filter("isValid(datum.threshold)").mark_line(strokeDash=[4, 3], color="#8a94a0")
        layers.append(rule.encode(x=x, y=altair.Y("threshold:Q", title=label)))
    drawn = altair.Chart(data).transform_filter("isValid(datum.value)")
    tips = [
        altair.Tooltip("from:T", format="%Y-%m-%d %H:%M"),
        altair.Tooltip("value:Q", format=".4g"),
        altair.Tooltip("verdict:N"),
        altair.Tooltip("reason:N"),
    ]
    layers.append(drawn.mark_line(color="#4c78a8", strokeWidth=1.5).encode(x=x, y=y))
    layers.append(drawn.mark_point(size=40, filled=True, opacity=1).encode(x=x, y=y, color=_verdicts(True), tooltip=tips))
    marks = [
        {"from": _stamp(row["window_start"] or row["time"]), "said": plain(row["reason"] or "")}
        for row in opened
        if row["method"] == method and row["column"] in (column, method)
    ]
    if marks:
        flags = altair.Chart(_inline(marks)).mark_point(shape="triangle-down", size=70, filled=True, color="#1a2330", opacity=1)
        layers.append(flags.encode(x=x, y=altair.value(4), tooltip=[altair.Tooltip("said:N", title="alert")]))
    layers += _deploys(deploys, x)
    name = "of the model" if column == "(model)" else f"of {_short(plain(column))}"
    title = {"text": f"{label} {name}", "subtitle": f"{rows.height:,} windows" + ("; ▼ an alert opened" if marks else "")}
    chart: alt.LayerChart = _styled(altair.layer(*layers).properties(width=_WIDTH, height=220, title=title))
    return chart


def timeline(timeline: Timeline, metric: str | None = None) -> alt.VConcatChart:
    """A metric of every window with the mean of each iteration and its limits, and below it deploys, references, alerts and the rest.

    metric: the first of quality if absent. Raises NotFoundError for one that the timeline has not.
    """
    from barograph.reports import plain

    altair = _altair()
    iterations = timeline._iterations(metric, 0.95)
    metric = iterations[0].metric if iterations else None
    x = _times()
    rows = timeline._rows
    values = [
        {"from": _epoch(row["time"]), "value": row["value"], "lower": row["lower"], "upper": row["upper"]}
        for row in rows
        if row["event"] == "metric" and row["name"] == metric
    ]
    values = values[:: max(1, -(-len(values) // (4 * _MOST_WINDOWS)))]
    means = [
        {"from": _epoch(one.began), "to": _epoch(one.ended), "value": one.value, "lower": one.lower, "upper": one.upper}
        | {"name": f"{one.iteration}: {_short(plain(one.version or ''), 30)}", "verdict": one.verdict}
        for one in iterations
    ]
    label = (metric or "no metric yet").replace("_", " ")
    y = altair.Y("value:Q", title=label, scale=altair.Scale(zero=False))
    tips = [altair.Tooltip("from:T", format="%Y-%m-%d %H:%M"), altair.Tooltip("value:Q", format=".4g")]
    points = altair.Chart(_inline(values)).mark_point(size=18, filled=True, color="#8aa0b8", opacity=0.8).encode(x=x, y=y, tooltip=tips)
    base = altair.Chart(_inline(means))
    limits = base.transform_filter("isValid(datum.lower)").mark_rect(color="#d9541e", opacity=0.16)
    limits = limits.encode(x=x, x2="to:T", y=altair.Y("lower:Q", title=label), y2="upper:Q")
    tips = [altair.Tooltip("name:N", title="iteration"), altair.Tooltip("value:Q", format=".4g"), altair.Tooltip("verdict:N")]
    lines = base.transform_filter("isValid(datum.value)").mark_rule(color="#d9541e", strokeWidth=2.5)
    lines = lines.encode(x=x, x2="to:T", y=y, tooltip=tips)
    names = base.mark_text(align="left", dx=3, fontSize=11, color="#566273", baseline="top").encode(x=x, y=altair.value(2), text="name:N")
    begins = altair.Chart(_inline(means[1:])).mark_rule(strokeDash=[3, 3], color="#1a2330").encode(x=x)
    top = altair.layer(points, limits, lines, begins, names).properties(width=_WIDTH, height=220)
    happened = [
        {"from": _epoch(row["time"]), "event": row["event"] if row["severity"] is None else row["severity"], "state": row["state"]}
        | {"said": _short(plain(f"{row['name'] or ''} {row['state'] or ''}: {row['reason'] or ''}"), 200)}
        for row in rows
        if row["event"] not in ("metric", "cost")
    ]
    happened = happened[-20 * _MOST_WINDOWS :]
    order = ["reference", "deploy", "decision", "retrain", "page", "ticket"]
    shape = altair.Shape("state:N", legend=None)
    colour = altair.Color("event:N", scale=altair.Scale(domain=order, range=_EVENT_COLOURS), legend=None)
    strip = altair.Chart(_inline(happened)).mark_point(size=60, filled=True, opacity=0.9)
    strip = strip.encode(
        x=x, y=altair.Y("event:N", title=None, sort=order), color=colour, shape=shape, tooltip=[altair.Tooltip("said:N", title="what")]
    )
    both = altair.vconcat(top, strip.properties(width=_WIDTH, height=altair.Step(18) if happened else 20)).resolve_scale(x="shared")
    verdict = iterations[-1].verdict if iterations else "nothing has happened yet"
    subtitle = f"iteration {iterations[-1].iteration} against the one before: {verdict}" if len(iterations) > 1 else f"{len(rows):,} rows"
    chart: alt.VConcatChart = _styled(both.properties(title={"text": f"{label} of {_short(plain(timeline.model))}", "subtitle": subtitle}))
    return chart


def _epoch(nanoseconds: int) -> int:
    """Milliseconds, as Vega counts."""
    return nanoseconds // 1_000_000


def _deploys(deploys: pl.DataFrame, x: Any) -> list[Any]:
    from barograph.reports import plain

    altair = _altair()
    rows = [{"from": _stamp(row["window_start"]), "said": plain(row["reason"] or "deploy")} for row in deploys.to_dicts()]
    if not rows:
        return []
    line = altair.Chart(_inline(rows)).mark_rule(color="#1a2330", strokeWidth=1)
    return [line.encode(x=x, tooltip=[altair.Tooltip("said:N", title="deploy"), altair.Tooltip("from:T", format="%Y-%m-%d %H:%M")])]


def _verdicts(plain: bool = False) -> Any:
    altair = _altair()
    domain, colours = ([*_VERDICTS, "not tested"], [*_COLOURS, "#4c78a8"]) if plain else (_VERDICTS, _COLOURS)
    return altair.Color(
        "verdict:N",
        scale=altair.Scale(domain=domain, range=colours),
        legend=altair.Legend(title=None, orient="right", symbolType="square", symbolOpacity=1),
    )


def _times() -> Any:
    """The axis of time, in UTC, by 24 hours."""
    altair = _altair()
    words = {"minutes": "%H:%M", "hours": "%H:%M", "day": "%b %d", "date": "%b %d", "week": "%b %d", "month": "%b", "year": "%Y"}
    return altair.X("from:T", title=None, scale=altair.Scale(type="utc"), axis=altair.Axis(format=words, labelOverlap=True))


def _shapes() -> Any:
    altair = _altair()
    return altair.Shape("verdict:N", scale=altair.Scale(domain=_VERDICTS, range=_SHAPES), legend=None)


def _ticks(top: float) -> list[float]:
    return [at for at in (0.0, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0) if at <= top]


def _inline(rows: list[dict[str, Any]]) -> Any:
    """Rows in the chart itself, whatever limit Altair has on rows of frames."""
    return _altair().InlineData(values=rows)


def _styled(chart: Any) -> Any:
    font = "system-ui, -apple-system, 'Segoe UI', sans-serif"
    return (
        chart.configure(font=font, padding=12)
        .configure_view(stroke=None)
        .configure_title(anchor="start", fontSize=14, subtitleFontSize=12, subtitleColor="#566273")
        .configure_axis(labelColor="#566273", titleColor="#566273", titleFontWeight="normal", domainColor="#c9d1da", tickColor="#c9d1da")
    )


def _stamp(time: Any) -> str:
    """As Vega reads a time, in UTC."""
    return str(time.replace(tzinfo=None).isoformat(timespec="milliseconds")) + "Z"


def _middle(alert: dict[str, Any]) -> str:
    """The middle of the window that an alert opened for."""
    if alert["window_start"] is None:
        return _stamp(alert["time"])
    return _stamp(alert["window_start"] + (alert["time"] - alert["window_start"]) / 2)


def _short(text: str, most: int = 60) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
