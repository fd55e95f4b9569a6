"""Live views in a notebook (Jupyter, marimo, VS Code, Colab): `pip install 'barograph[notebook]'`, which brings anywidget.

| you have | you call | you see |
|---|---|---|
| a monitor, a client | `bg.widgets.live(monitor)` | verdicts, metrics and open alerts, asked for again every two seconds |
| a report | `bg.widgets.live(report)` | its columns, to search, sort and open, with their histograms |

The view asks, so nothing runs when nobody looks: no thread, no timer in Python. What it shows are numbers and names as text; the page
asks nobody else.
"""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from barograph.errors import InvalidArgumentError

if TYPE_CHECKING:
    from barograph.client import Client
    from barograph.monitors import Monitor
    from barograph.reports import DriftReport

__all__ = ["live"]

_MOST_COLUMNS = 500
"""Of a view: a notebook keeps what it shows in its file."""


def live(source: Monitor | Client | DriftReport, seconds: float = 2.0) -> Any:
    """A widget that shows a monitor, a client or a report.

    seconds: how often a monitor or client is asked, while the view is open and its tab is seen; at least 0.5. What fails is shown in the
    view and asked for again. `.source = report` shows another one in the same place. At most 500 columns, the worst first.

    Raises ImportError without anywidget, InvalidArgumentError for anything else than the three.
    """
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not math.isfinite(seconds) or seconds < 0.5:
        raise InvalidArgumentError(f"`seconds` must be a number of at least 0.5, got {seconds!r}")
    content = _content(source)
    return _widget()(source, content, float(seconds))


def _content(source: Any) -> dict[str, Any]:
    """What a view shows, ready for JSON."""
    from barograph.reports import DriftReport

    if isinstance(source, DriftReport):
        return _of_report(source)
    if not hasattr(source, "history") or not hasattr(source, "alerts"):
        raise InvalidArgumentError(f"`source` must be a Monitor, a Client or a DriftReport, got {type(source).__name__}")
    from barograph.cells import monitor_numbers

    numbers = monitor_numbers(source)
    # A monitor is named, a client names its model.
    name = getattr(source, "model", None) or source.name
    return {"kind": "monitor", "name": name, **numbers, "columns": numbers["columns"][:_MOST_COLUMNS], "of": len(numbers["columns"])}


def _of_report(report: DriftReport) -> dict[str, Any]:
    from barograph.verdicts import sorted_columns

    document = report.to_dict()
    psi = {row["column"]: row for row in document["rows"] if row["method"] == "psi"}
    columns = []
    for one in sorted_columns(document)[:_MOST_COLUMNS]:
        score = psi.get(one["column"], {})
        bars = one["bars"]
        columns.append(
            {
                **{name: one[name] for name in ("column", "verdict", "role", "kind", "reason")},
                **{name: score.get(name) for name in ("value", "lower", "upper")},
                "bars": None if not bars else {name: bars[name] for name in ("labels", "reference", "current")},
            }
        )
    counts = {"rows": document["n_current"], "reference_rows": document["n_reference"], "of": len(document["columns"])}
    return {"kind": "report", "name": report.summary(), "verdict": report.verdict, "columns": columns, **counts}


@cache
def _widget() -> Any:
    try:
        import anywidget
        import traitlets
    except ImportError as error:
        raise ImportError("live views need anywidget: pip install 'barograph[notebook]'") from error

    class View(anywidget.AnyWidget):  # type: ignore[misc, unused-ignore]
        """What the notebook holds: content as JSON, and how often to ask for it."""

        _esm = (Path(__file__).parent / "widget.js").read_text(encoding="utf-8")
        _css = (Path(__file__).parent / "widget.css").read_text(encoding="utf-8")
        content = traitlets.Dict().tag(sync=True)
        # Milliseconds; 0 for what does not change by itself.
        interval = traitlets.Int(0).tag(sync=True)

        def __init__(self, source: Any, content: dict[str, Any], seconds: float) -> None:
            self._source, self._seconds = source, seconds
            super().__init__(content=content, interval=self._every(content))
            self.on_msg(lambda _, message, __: self.refresh() if message == {"ask": "content"} else None)

        def _every(self, content: dict[str, Any]) -> int:
            return 0 if content["kind"] == "report" else round(1000 * self._seconds)

        @property
        def source(self) -> Any:
            """What is shown."""
            return self._source

        @source.setter
        def source(self, source: Any) -> None:
            content = _content(source)
            self._source, self.content, self.interval = source, content, self._every(content)

        def refresh(self) -> None:
            """Asks the source again; what fails is shown."""
            try:
                self.content = _content(self._source)
            except Exception as error:
                # A sidecar that does not answer: the view keeps what it has, and says so.
                self.content = {**self.content, "trouble": f"{type(error).__name__}: {error}"}

    return View
