"""barograph watches machine-learning systems in production.

>>> import barograph as bg
>>> reference = bg.Reference({"x": [1.0, 2.0, 3.0] * 100})
>>> bg.compare(reference, {"x": [1.0, 2.0, 3.0] * 100}).drifted
False

Names are loaded when they are first used: importing barograph loads neither numpy nor polars.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from barograph import detectors, errors, estimates, metrics, plots, rollout, scores, sketches, widgets
    from barograph._barograph import ColumnProfile, __version__, catalog
    from barograph.backtests import Backtest, backtest
    from barograph.causes import Causes, explain
    from barograph.client import Client, connect
    from barograph.conditions import Condition
    from barograph.drift import compare
    from barograph.feedback import FeedbackLoop
    from barograph.histories import Timeline, history
    from barograph.lineages import Lineage
    from barograph.monitors import Monitor
    from barograph.privacies import Privacy
    from barograph.profiles import Profile, merge, profile
    from barograph.references import Reference
    from barograph.reports import DriftReport
    from barograph.schemas import Schema
    from barograph.triggers import RetrainRequest, Trigger
    from barograph.webhooks import Webhook

_HOMES = {
    "ColumnProfile": "_barograph",
    "__version__": "_barograph",
    "catalog": "_barograph",
    "DriftReport": "reports",
    "FeedbackLoop": "feedback",
    "Monitor": "monitors",
    "Privacy": "privacies",
    "Profile": "profiles",
    "Reference": "references",
    "Schema": "schemas",
    "Causes": "causes",
    "Client": "client",
    "Condition": "conditions",
    "Lineage": "lineages",
    "RetrainRequest": "triggers",
    "Timeline": "histories",
    "Trigger": "triggers",
    "Webhook": "webhooks",
    "Backtest": "backtests",
    "backtest": "backtests",
    "compare": "drift",
    "connect": "client",
    "explain": "causes",
    "history": "histories",
    "merge": "profiles",
    "profile": "profiles",
}
_MODULES = ("detectors", "errors", "estimates", "metrics", "plots", "rollout", "scores", "sketches", "widgets")

__all__ = [
    "Backtest",
    "Causes",
    "Client",
    "ColumnProfile",
    "Condition",
    "DriftReport",
    "FeedbackLoop",
    "Lineage",
    "Monitor",
    "Privacy",
    "Profile",
    "Reference",
    "RetrainRequest",
    "Schema",
    "Timeline",
    "Trigger",
    "Webhook",
    "__version__",
    "backtest",
    "catalog",
    "compare",
    "connect",
    "detectors",
    "errors",
    "estimates",
    "explain",
    "history",
    "merge",
    "metrics",
    "plots",
    "profile",
    "rollout",
    "scores",
    "sketches",
    "widgets",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"barograph.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'barograph' has no attribute {name!r}")
    value = getattr(import_module(f"barograph.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
