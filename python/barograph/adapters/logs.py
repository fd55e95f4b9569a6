"""Alerts as log records, for whatever collects logs."""

from __future__ import annotations

import json
import logging
from typing import Any

__all__ = ["AlertLog"]


class AlertLog:
    """`Monitor(..., on_alert=AlertLog())` logs every change of an alert: pages as errors, tickets as warnings, ends as information.

    logger: a logger or its name. lines: the message is one line of JSON instead of a sentence. The change itself is in the record's
    attribute `barograph`, for structured formatters.

    >>> import barograph as bg
    >>> monitor = bg.Monitor("m", reference=bg.Reference({"x": [1.0, 2.0] * 500}), ticks="manual", on_alert=AlertLog("alerts"))
    """

    def __init__(self, logger: logging.Logger | str = "barograph.alerts", *, lines: bool = False) -> None:
        self.logger = logging.getLogger(logger) if isinstance(logger, str) else logger
        self.lines = lines

    def __call__(self, alert: dict[str, Any]) -> None:
        """Logs one change."""
        if alert["state"] in ("resolved", "eased"):
            level = logging.INFO
        else:
            level = logging.ERROR if alert["severity"] == "page" else logging.WARNING
        if self.lines:
            text = json.dumps(alert, ensure_ascii=False, allow_nan=False)
        else:
            what = ": ".join(str(part) for part in (alert["reason"], alert["cause"]) if part)
            text = f"{alert['model']}: {alert['severity']} {alert['state']}, {alert['column']}" + (f": {what}" if what else "")
        # A name from outside must not begin a line of its own.
        self.logger.log(level, "%s", text.replace("\r", " ").replace("\n", " "), extra={"barograph": alert})
