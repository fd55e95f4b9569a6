"""Drift reports: for programs a frame and a dict, for people a page, a notebook cell and a terminal table."""

from __future__ import annotations

import copy
import os
import re
import shutil
import sys
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from barograph.verdicts import glyph, sorted_columns

if TYPE_CHECKING:
    import altair as alt
    import polars as pl

__all__ = ["DriftReport"]


_COLOURS = {"critical": "1;31", "warning": "33", "info": "36", "ok": "32", "insufficient": "35", "invalid": "35"}


class DriftReport:
    """What `compare` found: one row per column and method, one verdict.

    `drifted` means that some feature, prediction or score is beyond the warning tolerance after all columns were combined.
    """

    def __init__(self, document: dict[str, Any]) -> None:
        self._document = document

    @property
    def drifted(self) -> bool:
        """Some tested column is at warning or worse."""
        return bool(self._document["drifted"])

    @property
    def verdict(self) -> str | None:
        """The worst verdict of a tested column."""
        verdict: str | None = self._document["verdict"]
        return verdict

    @property
    def unjudged(self) -> list[str]:
        """Features that could not be judged: missing, of another type, or with too few rows."""
        return list(self._document["unjudged"])

    @property
    def columns(self) -> list[str]:
        """Names of the columns, those of the reference first."""
        return [column["column"] for column in self._document["columns"]]

    def to_dict(self) -> dict[str, Any]:
        """Everything in the report; JSON without NaN."""
        return copy.deepcopy(self._document)

    def to_frame(self) -> pl.DataFrame:
        """One row per column and method; what has no meaning is null, nothing is NaN."""
        return rows_frame(self._document["rows"])

    @overload
    def to_html(self, path: None = None) -> str: ...
    @overload
    def to_html(self, path: str | Path) -> Path: ...
    def to_html(self, path: str | Path | None = None) -> str | Path:
        """One page without any request to elsewhere: the text, or its path if one is given."""
        from barograph import report_html

        text = report_html.page(self._document, self.summary())
        if path is None:
            return text
        target = Path(path)
        part = target.with_name(f".{target.name}.{os.getpid()}.part")
        part.write_text(text, encoding="utf-8")
        part.replace(target)
        return target

    def to_junit(self, fail_on: str = "warning") -> bytes:
        """JUnit XML: one test case per tested column, a failure from `fail_on` on ("warning" or "critical"), an error where a feature
        could not be judged.
        """
        from barograph import report_gate

        failing = ("critical",) if fail_on == "critical" else ("warning", "critical")
        return report_gate.junit(self._document, self.summary(), failing)

    def to_markdown(self) -> str:
        """A heading and a table of the tested columns, worst first: for the summary of a job, or a comment."""
        from barograph import report_gate

        return report_gate.markdown(self._document, self.summary())

    def plot(self, column: str | None = None, *, columns: int = 40) -> alt.LayerChart:
        """A chart of Altair: the tested columns, worst first (at most `columns`), or one of them over its reference.

        See `barograph.plots`.
        """
        from barograph import plots

        return plots.report(self, columns) if column is None else plots.column(self, column)

    def _repr_html_(self) -> str:
        from barograph import report_html

        return report_html.cell(self._document, self.summary())

    def summary(self) -> str:
        """The verdict in one sentence."""
        tested = [column for column in self._document["columns"] if column["verdict"]]
        moved = [column for column in tested if column["verdict"] in ("warning", "critical")]
        text = f"{len(moved)} of {len(tested)} tested columns drifted" if moved else f"no drift in {len(tested)} tested columns"
        unjudged = self.unjudged
        return text + (f", {len(unjudged)} could not be judged" if unjudged else "")

    def to_terminal(self, color: bool | None = None, width: int | None = None) -> str:
        """A table, worst column first, at most `width` cells wide; colour if the output is a terminal and NO_COLOR is not set."""
        color = coloured() if color is None else color
        width = max(width or shutil.get_terminal_size((100, 24)).columns, 60)
        columns = sorted_columns(self._document)
        name_width = min(max([6, *(_cells(plain(column["column"])) for column in columns)]), max(12, width // 4))
        methods = {(row["column"], row["method"]): row for row in self._document["rows"]}
        beside = width - name_width - 4 - 14 - 8 - 2 - 15 - 2
        heading = f"  {'column':<{name_width}}  {'verdict':<14}{'psi':>8}  {'nulls':>15}" + ("  reason" if beside >= 40 else "")
        lines = [paint("1", heading, color)]
        for column in columns:
            psi, nulls = methods.get((column["column"], "psi"), {}), methods.get((column["column"], "null_share"), {})
            verdict = column["verdict"]
            mark = f"{glyph(verdict)} {verdict}" if verdict else f"· {column['role']}"
            value = "" if psi.get("value") is None else f"{psi['value']:.3f}"
            moved = nulls.get("value") or 0.0
            change = f"{100 * moved:+.1f} points" if abs(moved) >= 0.0005 else ""
            head = f"  {fit(plain(column['column']), name_width)}  "
            reason = plain(column["reason"] or "")
            tail = f"{value:>8}  {change:>15}" + (f"  {fit(reason, beside)}" if beside >= 40 else "")
            lines.append(head + paint(_COLOURS.get(verdict or "", "2"), f"{mark:<14}", color) + tail.rstrip())
            if reason and beside < 40:
                lines.append(paint("2", fit(f"    {reason}", width).rstrip(), color))
        lines += ["", paint("1", self.summary(), color)]
        lines += [
            f"{self._document['n_current']:,} rows against {self._document['n_reference']:,}, reference {self._document['reference'][:8]}"
        ]
        lines += [fit(f"note: {plain(note)}", width).rstrip() for note in self._document["notes"]]
        return "\n".join(lines)

    def to_histograms(self, columns: int = 3, color: bool | None = None, width: int | None = None) -> str:
        """The worst drifted columns drawn with blocks, now over their reference; empty if none drifted."""
        from barograph.terminal_bars import histograms

        width = width or shutil.get_terminal_size((100, 24)).columns
        return histograms(self._document, columns, coloured() if color is None else color, width)

    def __str__(self) -> str:
        return self.to_terminal(color=False)

    def __repr__(self) -> str:
        return f"DriftReport({self.summary()})"


def rows_frame(rows: list[dict[str, Any]]) -> pl.DataFrame:
    """Rows of a report or of a monitor's history as a frame with a fixed schema."""
    import polars as pl

    text, number, time = pl.String(), pl.Float64(), pl.Datetime("ns", "UTC")
    schema: dict[str, Any] = {"column": text, "method": text, "value": number, "lower": number, "upper": number, "threshold": number}
    schema |= {"verdict": text, "p_value": number, "adjusted_p": number, "interval": text}
    schema |= {"n_reference": pl.Int64(), "n_current": pl.Int64(), "window_start": time, "window_end": time}
    schema |= {"segment": text, "reference": text, "reason": text}
    whole = {name: (pl.Int64() if dtype == time else dtype) for name, dtype in schema.items()}
    return pl.DataFrame(rows, schema=whole).with_columns(pl.col("window_start", "window_end").cast(time))


def alerts_frame(rows: list[dict[str, Any]]) -> pl.DataFrame:
    """Changes of alerts as a frame with a fixed schema."""
    import polars as pl

    text, number, whole = pl.String(), pl.Float64(), pl.Int64()
    schema: dict[str, Any] = {"id": whole, "incident": whole}
    schema |= dict.fromkeys(("column", "state", "severity", "verdict", "method"), text)
    schema |= dict.fromkeys(("value", "lower", "upper", "threshold"), number) | {"time": whole, "window_start": whole}
    schema |= {"reason": text, "cause": text, "n_reference": whole, "n_current": whole}
    return pl.DataFrame(rows, schema=schema).with_columns(pl.col("time", "window_start").cast(pl.Datetime("ns", "UTC")))


def coloured() -> bool:
    """Whether the output is a terminal and NO_COLOR is not set."""
    return sys.stdout.isatty() and "NO_COLOR" not in os.environ


def paint(code: str, text: str, color: bool) -> str:
    """Text in a colour of the terminal, if it is wanted."""
    return f"\x1b[{code}m{text}\x1b[0m" if color else text


def plain(text: str) -> str:
    """Text without control characters: a column name must not steer the terminal."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]", "�", text)


def _cells(text: str) -> int:
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def fit(text: str, width: int) -> str:
    """Text cut or filled to so many cells."""
    if _cells(text) <= width:
        return text + " " * (width - _cells(text))
    out, used = "", 0
    for c in text:
        size = _cells(c)
        if used + size > width - 1:
            break
        out, used = out + c, used + size
    return out + "…" + " " * (width - used - 1)
