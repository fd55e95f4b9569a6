"""Verdicts in reports: their signs and their order."""

from __future__ import annotations

from typing import Any

__all__ = ["glyph", "rank", "sorted_columns"]

_GLYPHS = {"critical": "▲", "warning": "△", "info": "◇", "insufficient": "○", "invalid": "×", "ok": "●"}
"""Worst first; a sign each, so that colour is never the only one."""


def glyph(verdict: str | None) -> str:
    """The sign of a verdict."""
    return _GLYPHS.get(verdict or "", "·")


def rank(verdict: str | None) -> int:
    """0 for the worst; what is not tested comes last."""
    return list(_GLYPHS).index(verdict) if verdict in _GLYPHS else len(_GLYPHS)


def sorted_columns(document: dict[str, Any]) -> list[dict[str, Any]]:
    """Worst verdict first, then the highest score, then the order of the frame."""
    return sorted(document["columns"], key=lambda column: (rank(column["verdict"]), -(column["score"] or 0.0)))
