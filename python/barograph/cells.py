"""What a notebook shows of a profile, a reference and a monitor: tables without script, in the notebook's own colours."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from barograph.report_html import display_name, display_number, display_percent
from barograph.verdicts import glyph, rank

if TYPE_CHECKING:
    from barograph.client import Client
    from barograph.monitors import Monitor
    from barograph.profiles import Profile
    from barograph.references import Reference

__all__ = ["monitor_cell", "monitor_numbers", "profile_cell", "reference_cell"]

_MOST_COLUMNS = 50
_MOST_ALERTS = 10
_LINE_WINDOWS = 60
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


def monitor_numbers(monitor: Monitor | Client) -> dict[str, Any]:
    """The window that closed last, ready for JSON: verdict and score of every column, metrics, what they were before, open alerts."""
    import polars as pl

    from barograph.conditions import open_alerts

    history = monitor.history().filter(pl.col("segment").is_null()).sort("window_start", maintain_order=True)
    counted = history.filter((pl.col("column") == "(model)") & (pl.col("method") == "events"))
    # Tickets and what is worse, open whenever one asks.
    opened = sorted(open_alerts(monitor.alerts(), (1 << 63) - 1, "ticket"), key=lambda one: str(one["severity"]))
    last: Any = counted["window_end"].max()
    return {
        "events": int(counted["value"].sum() or 0),
        "windows": counted.height,
        "last": None if last is None else f"{last:%Y-%m-%d %H:%M} UTC",
        "alerts": [{name: one[name] for name in ("severity", "column", "reason")} for one in opened[:_MOST_ALERTS]],
        "open": len(opened),
        "columns": [] if last is None else _judged(history, last),
        "metrics": [] if last is None else _metrics(history, last),
    }


def _judged(history: Any, last: Any) -> list[dict[str, Any]]:
    import polars as pl

    judged = history.filter((pl.col("window_end") == last) & pl.col("verdict").is_not_null() & (pl.col("column") != "(model)"))
    worst: dict[str, dict[str, Any]] = {}
    for row in judged.to_dicts():
        known = worst.get(row["column"])
        if known is None or rank(row["verdict"]) < rank(known["verdict"]):
            worst[row["column"]] = row
    scores = history.filter(pl.col("method") == "psi").group_by("column").agg(pl.col("value").tail(_LINE_WINDOWS))
    lines = dict(scores.rows())
    out = []
    for name, row in sorted(worst.items(), key=lambda one: rank(one[1]["verdict"])):
        line = lines.get(name, [])
        shown = {"column": name, "verdict": row["verdict"], "score": line[-1] if line else None, "reason": row["reason"], "line": line}
        out.append(shown)
    return out


def _metrics(history: Any, last: Any) -> list[dict[str, Any]]:
    import polars as pl

    whole = history.filter((pl.col("column") == "(model)") & (pl.col("method") != "deploy"))
    out = []
    for method in whole["method"].unique(maintain_order=True):
        of_it = whole.filter(pl.col("method") == method)
        row = of_it.row(-1, named=True)
        if row["window_end"] == last and row["value"] is not None:
            shown = {name: row[name] for name in ("value", "lower", "upper", "verdict")}
            out.append({"metric": method, **shown, "line": of_it["value"].to_list()[-_LINE_WINDOWS:]})
    return out


def monitor_cell(monitor: Monitor) -> str:
    """The window that closed last: a row per column with its verdict and its score over time; metrics; open alerts."""
    numbers = monitor_numbers(monitor)
    events = monitor.counts()["events"]
    head = f"<b>monitor</b> {display_name(monitor.name)} · {events:,} events"
    if not numbers["windows"]:
        return _cell(head, f"<p>{'no window has closed yet' if events else 'nothing was observed yet'}</p>")
    head += f" · {numbers['windows']:,} windows, the last ends {numbers['last']}"
    count = numbers["open"]
    items = "".join(
        f"<li>{escape(one['severity'])}: {display_name(one['column'])}{': ' + escape(one['reason']) if one['reason'] else ''}</li>"
        for one in numbers["alerts"]
    )
    more = f"<li>and {count - len(numbers['alerts'])} more</li>" if count > len(numbers["alerts"]) else ""
    alerts = f"<p><b>{count} open alert{'s' if count != 1 else ''}</b></p><ul>{items}{more}</ul>" if count else "<p>no open alert</p>"
    columns = "".join(
        _row(
            display_name(row["column"]),
            f"{glyph(row['verdict'])} {escape(row['verdict'])}",
            "" if row["score"] is None else f"{row['score']:.3f}",
            _line(row["line"]),
            escape(row["reason"] or ""),
        )
        for row in numbers["columns"][:_MOST_COLUMNS]
    )
    metrics = "".join(
        _row(
            escape(row["metric"].replace("_", " ")),
            display_number(row["value"]),
            "" if row["lower"] is None else f"{display_number(row['lower'])} to {display_number(row['upper'])}",
            f"{glyph(row['verdict'])} {escape(row['verdict'])}" if row["verdict"] else "",
            _line(row["line"]),
        )
        for row in numbers["metrics"]
    )
    body = _table(["column", "verdict", "PSI", "PSI over time", "reason"], columns) if columns else ""
    body += _more(len(numbers["columns"]), "history()")
    return _cell(head, alerts + body + (_table(["metric", "value", "limits", "verdict", "over time"], metrics) if metrics else ""))


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


def _line(values: list[float | None]) -> str:
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
        f'<svg width="120" height="28" viewBox="0 0 120 28" role="img" aria-label="{text}"><title>{text}</title>'
        f'<path d="{path}" fill="none" stroke="currentColor" stroke-width="1.5"/></svg>'
    )
