"""Histograms of a report in a terminal: the worst columns, now over their reference."""

from __future__ import annotations

from typing import Any

from barograph.reports import fit, paint, plain
from barograph.verdicts import glyph, sorted_columns

__all__ = ["histograms"]

_STEPS = " ▁▂▃▄▅▆▇█"
_WAS, _NOW = "38;5;67", "38;5;202"
_MOST_NAMES = 8
_LEAST_WIDTH = 40


def histograms(document: dict[str, Any], columns: int = 3, color: bool = False, width: int = 100) -> str:
    """Bars of the drifted columns, worst first, at most `columns` of them and `width` cells wide; empty if none drifted.

    Numbers: a line of blocks for the reference and one for the current rows, on one scale; the outer blocks hold what lies beyond.
    Names: a bar each, the most frequent first. In a terminal narrower than 40 cells nothing is drawn.
    """
    if width < _LEAST_WIDTH:
        return ""
    moved = [one for one in sorted_columns(document) if one["verdict"] in ("warning", "critical") and one["bars"]]
    parts = []
    for one in moved[:columns]:
        title = f"{glyph(one['verdict'])} {plain(one['column'])}"
        bars = one["bars"]
        drawn = _numbers(bars, color, width) if bars["edges"] else _names(bars, color, width)
        parts.append("\n".join([paint("1", fit(title, width).rstrip(), color), *drawn]))
    if len(moved) > columns:
        parts.append(fit(f"and {len(moved) - columns} more drifted columns", width).rstrip())
    return "\n\n".join(parts)


def _numbers(bars: dict[str, Any], color: bool, width: int) -> list[str]:
    room = width - 12
    # 40 bars: each as wide as fits, or neighbours together.
    was, now = bars["reference"], bars["current"]
    join = 1
    while len(was) // join > room:
        join *= 2
    was, now = (_joined(side, join) for side in (was, now))
    each = max(1, min(3, room // len(was)))
    top = max([*was, *now, 1e-12])
    lines = [
        f"  {name:<9} " + paint(code, "".join(_block(share, top) * each for share in side), color).rstrip()
        for name, code, side in (("reference", _WAS, was), ("current", _NOW, now))
    ]
    left, right = _number(bars["edges"][0]), _number(bars["edges"][-1])
    span = len(was) * each
    middle = _number(bars["edges"][len(bars["edges"]) // 2])
    space = span - len(left) - len(right) - len(middle)
    axis = f"{left}{' ' * (space // 2)}{middle}{' ' * (space - space // 2)}{right}" if space > 2 else f"{left} to {right}"
    return [*lines, fit(" " * 12 + axis, width).rstrip()]


def _joined(shares: list[float], by: int) -> list[float]:
    return [sum(shares[at : at + by]) for at in range(0, len(shares), by)]


def _block(share: float, top: float) -> str:
    # What is there at all is to be seen.
    return _STEPS[0] if share <= 0 else _STEPS[max(1, round(share / top * (len(_STEPS) - 1)))]


def _names(bars: dict[str, Any], color: bool, width: int) -> list[str]:
    was, now = bars["reference"], bars["current"]
    # Those that moved most stay, in their order.
    order = sorted(range(len(was)), key=lambda at: -abs(now[at] - was[at]))[:_MOST_NAMES]
    label = max(8, min(24, width // 4))
    room = width - label - 4 - 17
    top = max([*was, *now, 1e-12])
    lines = []
    for at in sorted(order):
        numbers = f"{100 * was[at]:5.1f} % → {100 * now[at]:5.1f} %"
        name = fit(plain(bars["labels"][at]), label)
        lines.append(f"  {name}  {paint(_WAS, _bar(was[at], top, room), color)}{numbers}")
        lines.append(f"  {' ' * label}  {paint(_NOW, _bar(now[at], top, room), color)}".rstrip())
    if len(was) > len(order):
        lines.append(f"  and {len(was) - len(order)} more names")
    return lines


def _bar(share: float, top: float, room: int) -> str:
    eighths = round(share / top * room * 8)
    whole, rest = divmod(eighths, 8)
    text = "█" * whole + ("▏▎▍▌▋▊▉"[rest - 1] if rest else "")
    return text.ljust(room)


def _number(value: float) -> str:
    return f"{value:.4g}"
