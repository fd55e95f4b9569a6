"""The page of a drift report: one file, no request to elsewhere, readable without its script."""

from __future__ import annotations

import math
from html import escape
from importlib.resources import files
from typing import Any

from barograph.reports import plain
from barograph.verdicts import glyph, rank, sorted_columns

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"
_W, _H = 640, 200
_LEFT, _BOTTOM = 44, 24


def page(document: dict[str, Any], summary: str) -> str:
    """The whole page."""
    style, script = _asset("report.css"), _asset("report.js")
    columns = sorted_columns(document)
    rows: dict[str, list[dict[str, Any]]] = {}
    for row in document["rows"]:
        rows.setdefault(row["column"], []).append(row)
    counts: dict[str, int] = {}
    for column in columns:
        counts[column["verdict"] or "not tested"] = counts.get(column["verdict"] or "not tested", 0) + 1
    chips = "".join(
        f'<button type="button" class="chip {_class(name)}" data-verdict="{escape(name)}" aria-pressed="false">'
        f"{glyph(name)} {escape(name)} <b>{count}</b></button>"
        for name, count in counts.items()
    )
    settings = document["settings"]
    facts = [
        f"{document['n_current']:,} rows against {document['n_reference']:,}",
        f"reference <code>{escape(document['reference'][:8])}</code>",
        f"confidence {settings['confidence']:g}",
        f"drift begins at PSI {settings['psi_tolerances'][1]:g} or a share moved by {100 * settings['share_tolerances'][1]:g} points",
    ]
    window = next((row for row in document["rows"] if row["window_start"] is not None), None)
    if window:
        facts.insert(0, f"{_day(window['window_start'])} to {_day(window['window_end'])}")
    items = "".join(_column(column, rows.get(column["column"], []), settings) for column in columns)
    notes = "".join(f"<li>{escape(note)}</li>" for note in document["notes"])
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}"><title>barograph: {escape(summary)}</title>'
        f"<style>{style}</style></head><body>"
        f'<header><p class="brand">barograph drift report</p><h1 class="{_class(document["verdict"])}">'
        f"{glyph(document['verdict'])} {escape(summary[:1].upper() + summary[1:])}</h1>"
        f'<p class="facts">{" · ".join(facts)}</p></header><main>'
        f'<div class="tools"><input type="search" placeholder="Find a column" aria-label="Find a column" hidden>{chips}</div>'
        f'<div class="head" role="group" aria-label="Sort">{_heading("verdict", "Verdict")}{_heading("name", "Column")}'
        f"{_heading('score', 'PSI with limits')}{_heading('nulls', 'Nulls')}</div>"
        f'<div id="columns">{items}</div><ul class="notes">{notes}</ul></main><script>{script}</script></body></html>'
    )


def cell(document: dict[str, Any], summary: str) -> str:
    """A notebook cell: no script, styles of its own."""
    rows = ""
    methods = {(row["column"], row["method"]): row for row in document["rows"]}
    for column in sorted_columns(document)[:50]:
        psi = methods.get((column["column"], "psi"), {}).get("value")
        rows += (
            f"<tr><td>{glyph(column['verdict'])} {escape(column['verdict'] or column['role'])}</td>"
            f'<td style="text-align:left;max-width:28em;overflow-wrap:anywhere">{display_name(column["column"])}</td>'
            f"<td>{'' if psi is None else f'{psi:.3f}'}</td><td>{_spark(column['bars'])}</td>"
            f"<td>{escape(column['reason'] or '')}</td></tr>"
        )
    more = len(document["columns"]) - 50
    tail = f"<p>and {more} more columns: <code>to_html(path)</code> shows all</p>" if more > 0 else ""
    return (
        f"<div><p><b>{glyph(document['verdict'])} {escape(summary)}</b> · "
        f"{document['n_current']:,} rows against {document['n_reference']:,}</p>"
        f"<table><thead><tr><th>verdict</th><th>column</th><th>PSI</th><th>reference and current</th><th>reason</th></tr></thead>"
        f"<tbody>{rows}</tbody></table>{tail}</div>"
    )


def _asset(name: str) -> str:
    return (files("barograph") / name).read_text(encoding="utf-8")


def _class(verdict: str | None) -> str:
    return f"v-{verdict}" if verdict in ("ok", "info", "warning", "critical", "insufficient", "invalid") else "v-none"


def _heading(key: str, text: str) -> str:
    return f'<button type="button" class="sort s-{key}" data-key="{key}" aria-sort="none">{text}</button>'


def _column(column: dict[str, Any], rows: list[dict[str, Any]], settings: dict[str, Any]) -> str:
    methods = {row["method"]: row for row in rows}
    psi, nulls = methods.get("psi", {}), methods.get("null_share", {})
    name = escape(plain(column["column"]))
    verdict = column["verdict"]
    change = nulls.get("value")
    word = escape(verdict or "not tested")
    limits = _limits(psi, settings["psi_tolerances"])
    moved = "".join(
        f"<tr><td>{display_name(bin['bin'])}</td><td>{display_percent(bin['reference'])}</td><td>{display_percent(bin['current'])}</td>"
        f"<td>{bin['contribution']:.3f}</td></tr>"
        for bin in column["moved"]
    )
    tables = ""
    if moved:
        tables += _table("Bins that moved most", ["bin", "reference", "current", "adds to PSI"], moved)
    tables += _summaries(column)
    tables += _table(
        "Every method", ["method", "value", "limits", "verdict", "adjusted p", "reason"], "".join(_method(row) for row in rows)
    )
    reason = f'<p class="reason">{escape(column["reason"])}</p>' if column["reason"] else ""
    return (
        f'<details class="col {_class(verdict)}" data-name="{name}" data-verdict="{word}" data-rank="{rank(verdict)}" '
        f'data-score="{column["score"] or 0:.9g}" data-nulls="{abs(change or 0):.9g}"><summary>'
        f'<span class="badge">{glyph(verdict)} {word}</span><span class="name">{display_name(column["column"])}'
        f"<small>{escape(column['role'])}, {escape(column['kind'])}</small></span>"
        f'<span class="limits">{limits}</span><span class="nulls{" moved" if nulls.get("verdict") in ("warning", "critical") else ""}">'
        f"{'' if change is None else f'{100 * change:+.1f} pt'}</span></summary>"
        f'<div class="panel">{reason}{_histogram(column["bars"], name)}{tables}</div></details>'
    )


def _method(row: dict[str, Any]) -> str:
    limits = "" if row["lower"] is None or row["upper"] is None else f"{row['lower']:.3g} to {row['upper']:.3g}"
    if limits and row["interval"] == "certain":
        limits += " (certain)"
    verdict = f"{glyph(row['verdict'])} {row['verdict']}" if row["verdict"] else ""
    p = "" if row["adjusted_p"] is None else "< 1e-15" if row["adjusted_p"] < 1e-15 else f"{row['adjusted_p']:.2g}"
    cells = [row["method"].replace("_", " "), display_number(row["value"]), limits, verdict, p, row["reason"] or ""]
    return "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>"


def _table(title: str, heads: list[str], body: str) -> str:
    head = "".join(f'<th scope="col">{escape(text)}</th>' for text in heads)
    return f'<h3>{title}</h3><div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _summaries(column: dict[str, Any]) -> str:
    was, now = column["reference_summary"] or {}, column["current_summary"] or {}
    body = "".join(
        f"<tr><td>{escape(key.replace('_', ' '))}</td><td>{_cell(was.get(key))}</td><td>{_cell(now.get(key))}</td></tr>"
        for key in dict.fromkeys([*was, *now])
    )
    return _table("Both sides", ["", "reference", "current"], body) if body else ""


def _cell(value: Any) -> str:
    return display_name(value) if isinstance(value, str) else display_number(value)


def _limits(psi: dict[str, Any], tolerances: list[float]) -> str:
    if psi.get("value") is None:
        return ""
    # A square-root scale to twice the last tolerance: small differences stay visible, large ones stay inside.
    top = 2 * tolerances[2]

    def at(value: float) -> float:
        return 120 * math.sqrt(min(max(value, 0.0), top) / top)

    low, high = at(psi["lower"] or 0.0), at(psi["upper"] if psi["upper"] is not None else psi["value"])
    ticks = "".join(f'<path class="tick" d="M{at(tolerance):.1f} 2v12"/>' for tolerance in tolerances)
    text = f"{psi['value']:.3f}, limits {psi['lower'] or 0:.3f} to {psi['upper'] or 0:.3f}"
    return (
        f'<b>{psi["value"]:.3f}</b><svg viewBox="0 0 124 16" width="124" height="16" role="img" aria-label="{text}"><title>{text}</title>'
        f'<path class="rail" d="M0 8h120"/>{ticks}<path class="range" d="M{low:.1f} 8H{max(high, low + 1):.1f}"/>'
        f'<circle class="dot" cx="{at(psi["value"]):.1f}" cy="8" r="3.5"/></svg>'
    )


def _histogram(bars: dict[str, Any] | None, name: str) -> str:
    if not bars:
        return ""
    kind = "legend" if bars["edges"] else "legend names"
    legend = f'<p class="{kind}"><span class="was">reference</span> <span class="now">current</span></p>'
    return legend + (_area(bars, name) if bars["edges"] else _names(bars, name))


def _area(bars: dict[str, Any], name: str) -> str:
    """Numbers: the reference as filled steps, the current rows as an outline over it."""
    top = max([*bars["reference"], *bars["current"], 1e-12])
    count = len(bars["labels"])
    step = (_W - _LEFT) / count
    base = _H - _BOTTOM

    def path(shares: list[float]) -> str:
        points = f"M{_LEFT} {base}"
        for at, share in enumerate(shares):
            y = base - share / top * (base - 8)
            points += f"L{_LEFT + at * step:.1f} {y:.1f}H{_LEFT + (at + 1) * step:.1f}"
        return points + f"V{base}Z"

    labels = ""
    for fraction in (0.0, 0.25, 0.5, 0.75, 1.0):
        at = bars["edges"][round(fraction * count)]
        anchor = "start" if fraction == 0 else "end" if fraction == 1 else "middle"
        labels += f'<text x="{_LEFT + fraction * (_W - _LEFT):.0f}" y="{_H - 6}" text-anchor="{anchor}">{display_number(at)}</text>'
    for fraction in (0.5, 1.0):
        y = base - fraction * (base - 8)
        labels += f'<path class="grid" d="M{_LEFT} {y:.1f}H{_W}"/>'
        labels += f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{display_percent(fraction * top)}</text>'
    hover = "".join(
        f'<path class="hit" d="M{_LEFT + at * step:.1f} 0h{step:.1f}v{base}h-{step:.1f}z"><title>{escape(label)}: '
        f"{display_percent(bars['reference'][at])} → {display_percent(bars['current'][at])}</title></path>"
        for at, label in enumerate(bars["labels"])
        if bars["reference"][at] or bars["current"][at]
    )
    return (
        f'<svg class="histogram" viewBox="0 0 {_W} {_H}" role="img" aria-label="histograms of {name}">'
        f"<title>{name}: share of rows per bar; the outer "
        f'bars hold what lies beyond</title>{labels}<path class="was" d="{path(bars["reference"])}"/><path class="now" '
        f'd="{path(bars["current"])}"/><path class="axis" d="M{_LEFT} {base}H{_W}"/>{hover}</svg>'
    )


def _names(bars: dict[str, Any], name: str) -> str:
    """Names: two bars on one line each, the current one slimmer over the reference's."""
    top = max([*bars["reference"], *bars["current"], 1e-12])
    height, left = 22, 170
    lines = ""
    for at, label in enumerate(bars["labels"]):
        y = at * height
        was, now = bars["reference"][at], bars["current"][at]
        label = plain(label)
        short = label if len(label) <= 20 else label[:19] + "…"
        lines += (
            f"<g>{f'<title>{escape(label)}</title>' if short != label else ''}"
            f'<text x="{left - 8}" y="{y + 15}" text-anchor="end">{escape(short)}</text>'
            f'<rect class="was" x="{left}" y="{y + 2}" width="{was / top * 380:.1f}" height="18"/>'
            f'<rect class="now" x="{left}" y="{y + 7}" width="{now / top * 380:.1f}" height="8"/>'
            f'<text x="{left + 388}" y="{y + 15}">{display_percent(was)} → {display_percent(now)}</text></g>'
        )
    size = max(len(bars["labels"]) * height, height)
    return f'<svg class="histogram names" viewBox="0 0 {_W + 60} {size}" role="img" aria-label="shares of {name}">{lines}</svg>'


def _spark(bars: dict[str, Any] | None) -> str:
    if not bars:
        return ""
    top = max([*bars["reference"], *bars["current"], 1e-12])
    count = len(bars["labels"])
    step = 120 / count

    def path(shares: list[float]) -> str:
        return (
            "M0 28"
            + "".join(f"L{at * step:.1f} {28 - 26 * share / top:.1f}H{(at + 1) * step:.1f}" for at, share in enumerate(shares))
            + "V28Z"
        )

    return (
        f'<svg width="120" height="28" viewBox="0 0 120 28" role="img" aria-label="histograms"><path d="{path(bars["reference"])}" '
        f'fill="#8aa0b8" opacity="0.55"/><path d="{path(bars["current"])}" fill="none" stroke="#e0662f" stroke-width="1.5"/></svg>'
    )


def display_name(name: str) -> str:
    """A name as markup: nothing in it is markup or steers the page, and text from right to left keeps to itself."""
    return f"<bdi>{escape(plain(name))}</bdi>"


def display_percent(share: float) -> str:
    """A share as markup, rounded for reading."""
    return (
        f"{100 * share:.0f} %" if share >= 0.0995 else f"{100 * share:.1f} %" if share >= 0.001 else "0 %" if share == 0 else "&lt; 0.1 %"
    )


def display_number(value: float | None) -> str:
    """A number in four digits, whole ones in all of theirs; nothing for None."""
    if value is None:
        return ""
    if isinstance(value, int) or (float(value).is_integer() and abs(value) < 1e15):
        return f"{int(value):,}"
    return f"{value:.4g}"


def _day(nanoseconds: int) -> str:
    from datetime import UTC, datetime

    time = datetime.fromtimestamp(nanoseconds / 1e9, UTC)
    return f"{time:%Y-%m-%d}" if time.hour == time.minute == 0 else f"{time:%Y-%m-%d %H:%M}"
