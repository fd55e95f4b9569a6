"""What a notebook shows of a profile, a reference and a monitor: tables without script, in the notebook's own colours."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from barograph.report_html import display_name, display_number, display_percent
from barograph.verdicts import glyph, rank

if TYPE_CHECKING:
    from barograph.monitors import Monitor
    from barograph.profiles import Profile
    from barograph.references import Reference

__all__ = ["monitor_cell", "profile_cell", "reference_cell"]

_MOST_COLUMNS = 50
_MOST_ALERTS = 10
_SPARK_WINDOWS = 60
# Wide names wrap instead of pushing the numbers out of sight; nothing sets a colour of the page.
_NAME_STYLE = "text-align:left;max-width:28em;overflow-wrap:anywhere"


def profile_cell(profile: Profile) -> str:
    """A row per column: kind, share of nulls, distinct values, moments and quantiles, the most frequent name."""
    rows = profile.to_frame().to_dicts()
    body = "".join(
        _row(
            display_name(row["column"]),
            escape(row["kind"] + ("" if row["role"] == "feature" else f", {row['role']}")),
            _share_bar(row["null_count"], row["count"]),
            *(display_number(row[key]) for key in ("distinct", "mean", "std", "min", "median", "p99", "max")),
            display_name(row["top"]) if row["top"] is not None else escape(row["unread"] or ""),
        )
        for row in rows[:_MOST_COLUMNS]
    )
    heads = ["column", "kind", "nulls", "distinct", "mean", "std", "min", "median", "p99", "max", "top"]
    return _cell(f"<b>profile</b> · {profile.rows:,} rows, {len(rows)} columns", _table(heads, body) + _more(len(rows), "to_frame()"))


def reference_cell(reference: Reference) -> str:
    """Id, rows, date, then a row per column: kind, role, bins, values counted apart."""
    schema = reference.schema
    profile = reference.profile
    rows = []
    for name, kind in list(schema.kinds.items())[:_MOST_COLUMNS]:
        bins = reference.bins(name)
        column = profile[name]
        apart = ", ".join(reference.segments.get(name, [])[:5])
        rows.append(
            _row(
                display_name(name),
                escape(kind),
                escape(schema.roles[name]),
                "" if bins is None else f"{max(len(bins[1]) - 2, 0):,}",
                _share_bar(column.null_count, column.count),
                display_name(apart) if apart else "",
            )
        )
    made = "" if reference.created is None else f" · made {reference.created:%Y-%m-%d %H:%M} UTC"
    season = f" · season {escape(reference.season)}" if reference.season else ""
    head = f"<b>reference</b> <code>{escape(reference.id[:8])}</code> · {reference.rows:,} rows, {len(schema.kinds)} columns{made}{season}"
    heads = ["column", "kind", "role", "bins", "nulls", "segments"]
    return _cell(head, _table(heads, "".join(rows)) + _more(len(schema.kinds), "profile.to_frame()"))


def monitor_cell(monitor: Monitor) -> str:
    """The window that closed last: a row per column with its verdict and its score over time; metrics; open alerts."""
    import polars as pl

    from barograph.conditions import open_alerts

    counts = monitor.counts()
    history = monitor.history().filter(pl.col("segment").is_null())
    head = f"<b>monitor</b> {display_name(monitor.name)} · {counts['events']:,} events"
    if history.is_empty():
        word = "no window has closed yet" if counts["events"] else "nothing was observed yet"
        return _cell(head, f"<p>{word}</p>")
    last: Any = history["window_end"].max()
    windows = history.filter(pl.col("method") == "events")["window_start"].n_unique()
    head += f" · {windows:,} windows, the last ends {last:%Y-%m-%d %H:%M} UTC"
    # Tickets and what is worse, open whenever one asks.
    opened = sorted(open_alerts(monitor.alerts(), (1 << 63) - 1, "ticket"), key=lambda one: str(one["severity"]))
    items = "".join(
        f"<li>{escape(one['severity'])}: {display_name(one['column'])}{': ' + escape(one['reason']) if one['reason'] else ''}</li>"
        for one in opened[:_MOST_ALERTS]
    )
    more = f"<li>and {len(opened) - _MOST_ALERTS} more</li>" if len(opened) > _MOST_ALERTS else ""
    word = f"{len(opened)} open alert{'s' if len(opened) != 1 else ''}"
    alerts = f"<p><b>{word}</b></p><ul>{items}{more}</ul>" if opened else "<p>no open alert</p>"
    return _cell(head, alerts + _verdict_table(history, last) + _metric_table(history, last))


def _verdict_table(history: Any, last: Any) -> str:
    import polars as pl

    judged = history.filter((pl.col("window_end") == last) & pl.col("verdict").is_not_null() & (pl.col("column") != "(model)"))
    worst: dict[str, dict[str, Any]] = {}
    for row in judged.to_dicts():
        known = worst.get(row["column"])
        if known is None or rank(row["verdict"]) < rank(known["verdict"]):
            worst[row["column"]] = row
    if not worst:
        return ""
    scores = history.filter(pl.col("method") == "psi").sort("window_start")
    rows = ""
    for name, row in sorted(worst.items(), key=lambda one: rank(one[1]["verdict"]))[:_MOST_COLUMNS]:
        values = scores.filter(pl.col("column") == name)["value"].to_list()
        score = values[-1] if values else None
        verdict = row["verdict"]
        said = f"{glyph(verdict)} {escape(verdict)}"
        said_score = "" if score is None else f"{score:.3f}"
        rows += _row(display_name(name), said, said_score, _spark(values[-_SPARK_WINDOWS:]), escape(row["reason"] or ""))
    return _table(["column", "verdict", "PSI", "PSI over time", "reason"], rows) + _more(len(worst), "history()")


def _metric_table(history: Any, last: Any) -> str:
    import polars as pl

    whole = history.filter((pl.col("column") == "(model)") & (pl.col("method") != "deploy")).sort("window_start")
    rows = ""
    for method in whole["method"].unique(maintain_order=True):
        of_it = whole.filter(pl.col("method") == method)
        row = of_it.row(-1, named=True)
        if row["window_end"] != last or row["value"] is None:
            continue
        limits = "" if row["lower"] is None else f"{display_number(row['lower'])} to {display_number(row['upper'])}"
        said = f"{glyph(row['verdict'])} {escape(row['verdict'])}" if row["verdict"] else ""
        values = of_it["value"].to_list()[-_SPARK_WINDOWS:]
        rows += _row(escape(method.replace("_", " ")), display_number(row["value"]), limits, said, _spark(values))
    return _table(["metric", "value", "limits", "verdict", "over time"], rows) if rows else ""


def _row(name: str, *cells: str) -> str:
    return f'<tr><td style="{_NAME_STYLE}">{name}</td>' + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


def _table(heads: list[str], body: str) -> str:
    head = "".join(f'<th scope="col">{escape(text)}</th>' for text in heads)
    return f'<div style="overflow-x:auto"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _cell(head: str, body: str) -> str:
    return f'<div><p style="overflow-wrap:anywhere">{head}</p>{body}</div>'


def _more(count: int, call: str) -> str:
    return f"<p>and {count - _MOST_COLUMNS} more columns: <code>{escape(call)}</code> has all</p>" if count > _MOST_COLUMNS else ""


def _share_bar(part: int, whole: int) -> str:
    if not whole:
        return ""
    share = part / whole
    return f'<meter min="0" max="1" value="{share:.4g}" style="width:3em"></meter> {display_percent(share)}' if part else "0 %"


def _spark(values: list[float | None]) -> str:
    """A line of at most sixty values, gaps where there are none."""
    known = [value for value in values if value is not None]
    if len(known) < 2:
        return ""
    low, high = min(known), max(known)
    # Halves: the difference of the two ends of f64 is no f64.
    half = high / 2 - low / 2
    step = 120 / max(len(values) - 1, 1)
    path, pen = "", "M"
    for at, value in enumerate(values):
        if value is None:
            pen = "M"
            continue
        y = 14.0 if half == 0 else 26 - 24 * ((value / 2 - low / 2) / half)
        path += f"{pen}{at * step:.1f} {y:.1f}"
        pen = "L"
    text = f"from {display_number(known[0])} to {display_number(known[-1])}"
    return (
        f'<svg width="120" height="28" viewBox="0 0 120 28" role="img" aria-label="{escape(text)}"><title>{escape(text)}</title>'
        f'<path d="{path}" fill="none" stroke="currentColor" stroke-width="1.5"/></svg>'
    )
