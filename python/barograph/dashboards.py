"""What a policy means to the tools people run: a Grafana dashboard, and alert rules for Prometheus.

Both read what `barograph.adapters.prometheus` exposes. The verdicts are barograph's own: the rules alarm on its open alerts, which
keep the policy's budget, not on thresholds of their own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from barograph.monitors import _nanoseconds

__all__ = ["grafana", "prometheus_rules"]

_WIDTH = 24


def grafana(model: str, policy: Mapping[str, Any]) -> dict[str, Any]:
    """A Grafana dashboard (schema 39) of one model, to be imported as JSON; its data source is a variable.

    policy: as in a policy file, with all its keys.

    >>> sheet = grafana("fraud", {"window": "1h", "rules": [{"metric": "roc_auc", "below": 0.7}]})
    >>> [panel["title"] for panel in sheet["panels"]][:3]
    ['Open alerts', 'Alerts opened', 'Events per second']
    """
    select = f"model={_quoted(model)}"
    limits = {rule["metric"]: rule for rule in policy.get("rules", ()) if rule.get("metric")}
    panels = [
        _panel("Open alerts", "table", 12, [(f"barograph_alerts_open{{{select}}}", "{{severity}} {{alert}}")], instant=True),
        _panel("Alerts opened", "timeseries", 12, [(f"increase(barograph_alerts_total{{{select}}}[1d])", "{{severity}} a day")]),
        _panel("Events per second", "timeseries", 8, [(f"rate(barograph_events_total{{{select}}}[5m])", "events")], "reqps"),
        _panel("Latency of the last window", "timeseries", 8, [(f"barograph_latency_seconds{{{select}}}", "p{{percentile}}")], "s"),
        _panel(
            "Latency, 5 minutes",
            "timeseries",
            8,
            [(_latency(q, select), f"p{100 * q:g}") for q in (0.5, 0.99)],
            "s",
        ),
        _panel("Columns by verdict", "table", 12, [(f"sort_desc(barograph_verdict{{{select}}} > 0)", "{{column}}")], instant=True),
        _panel(
            "Columns that moved most (psi)",
            "timeseries",
            12,
            [(f'topk(10, barograph_drift{{{select},method="psi"}})', "{{column}}")],
        ),
    ]
    for metric in dict.fromkeys([*_TASKS.get(policy.get("task", "binary"), ()), *limits]):
        if metric.startswith("latency_"):
            continue
        rule = limits.get(metric, {})
        limit = rule.get("below") if rule.get("below") is not None else rule.get("above")
        panels.append(
            _panel(
                _TITLES.get(metric, metric),
                "timeseries",
                8,
                [(f"barograph_metric{{{select},metric={_quoted(metric)}}}", metric)],
                limit=limit,
            )
        )
    panels.append(
        _panel("What did not go the usual way", "timeseries", 8, [(f"rate(barograph_odd_events_total{{{select}}}[1h])", "{{what}}")])
    )
    _arrange(panels)
    source = {"name": "source", "label": "Data source", "type": "datasource", "query": "prometheus"}
    return {
        "title": f"barograph: {model}",
        "uid": f"barograph-{_slug(model)}"[:40],
        "tags": ["barograph"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "refresh": "1m",
        "time": {"from": "now-7d", "to": "now"},
        "templating": {"list": [source]},
        "panels": panels,
    }


def prometheus_rules(model: str, policy: Mapping[str, Any]) -> str:
    """Alert rules for Prometheus (YAML) of one model: its pages, its tickets, each rule of the policy, and silence of the monitor.

    >>> print(prometheus_rules("fraud", {"window": "1h", "rules": []}).splitlines()[2])
      - name: "barograph fraud"
    """
    select = f"model={_quoted(model)}"
    silent = 3 * _nanoseconds("window", policy.get("window", "1h")) // 10**9
    named = [_name(rule) for rule in policy.get("rules", ())]
    others = "" if not named else f",alert!~{_quoted('|'.join(_escaped(name) for name in named))}"
    rules = [
        _rule(
            f"BarographDrift{severity.capitalize()}",
            f"barograph_alerts_open{{{select},severity={_quoted(severity)}{others}}} > 0",
            f"{model}: {what} {{{{ $labels.alert }}}}",
        )
        for severity, what in (("page", "broken data in"), ("ticket", "drift of"))
    ]
    rules += [
        _rule(
            f"Barograph{_camel(name)}",
            f"barograph_alerts_open{{{select},alert={_quoted(name)}}} > 0",
            f"{model}: {_words(rule)}",
        )
        for rule, name in zip(policy.get("rules", ()), named, strict=True)
    ]
    expression = f"time() - barograph_window_end_timestamp_seconds{{{select}}} > {silent} or absent(barograph_events_total{{{select}}})"
    summary = f"{model}: no window has closed for {silent} s, or nothing is scraped"
    rules.append(_rule("BarographSilent", expression, summary, severity="page"))
    return "\n".join(
        ["# Made by `barograph dashboards`.", "groups:", f"  - name: {_quoted(f'barograph {model}')}", "    rules:", *rules, ""]
    )


_TASKS = {"binary": ("roc_auc", "log_loss", "brier"), "regression": ("mae", "rmse", "bias")}
_TITLES = {"roc_auc": "ROC AUC", "log_loss": "Log loss", "brier": "Brier score", "mae": "MAE", "rmse": "RMSE", "error_rate": "Error rate"}


def _latency(q: float, select: str) -> str:
    """A quantile of calls, of whichever kind of histogram Prometheus keeps: with native ones there are no buckets by name."""
    classic = f"histogram_quantile({q}, sum by (le) (rate(barograph_call_seconds_bucket{{{select}}}[5m])))"
    return f"{classic} or histogram_quantile({q}, sum(rate(barograph_call_seconds{{{select}}}[5m])))"


def _panel(
    title: str,
    kind: str,
    width: int,
    queries: list[tuple[str, str]],
    unit: str | None = None,
    *,
    limit: float | None = None,
    instant: bool = False,
) -> dict[str, Any]:
    source = {"type": "prometheus", "uid": "${source}"}
    targets = [
        {"refId": chr(65 + at), "datasource": source, "expr": expression, "legendFormat": legend}
        | ({"instant": True, "format": "table"} if instant else {})
        for at, (expression, legend) in enumerate(queries)
    ]
    defaults: dict[str, Any] = {} if unit is None else {"unit": unit}
    if limit is not None:
        defaults |= {
            "thresholds": {"mode": "absolute", "steps": [{"color": "transparent", "value": None}, {"color": "red", "value": limit}]},
            "custom": {"thresholdsStyle": {"mode": "line"}},
        }
    place = {"x": 0, "y": 0, "w": width, "h": 8}
    field = {"defaults": defaults, "overrides": []}
    return {"title": title, "type": kind, "gridPos": place, "datasource": source, "targets": targets, "fieldConfig": field}


def _arrange(panels: list[dict[str, Any]]) -> None:
    """Places panels from left to right, row by row."""
    x = y = 0
    for at, panel in enumerate(panels):
        place = panel["gridPos"]
        if x + place["w"] > _WIDTH:
            x, y = 0, y + place["h"]
        place |= {"x": x, "y": y}
        panel["id"] = at + 1
        x += place["w"]


def _name(rule: Mapping[str, Any]) -> str:
    """What a monitor calls the alerts of a rule."""
    if rule.get("slo"):
        return f"slo:{rule['slo']}"
    return f"{rule['metric']}:change" if rule.get("detector") else str(rule["metric"])


def _words(rule: Mapping[str, Any]) -> str:
    if rule.get("slo"):
        within = f" within {rule['threshold']:g} s" if rule.get("threshold") is not None else ""
        return f"the budget of the objective burns too fast ({100 * rule['objective']:g} % of {rule['slo']} good{within})"
    if rule.get("detector"):
        return f"{rule['metric']} changed its course ({rule['detector']})"
    side = "below" if rule.get("below") is not None else "above"
    return f"{rule['metric']} {side} {rule[side]:g}"


def _rule(name: str, expression: str, summary: str, severity: str | None = None) -> str:
    """One rule; without a severity it has that of the alert it is about."""
    # Silence has to last: after a start nothing has been scraped yet.
    labels = [] if severity is None else ["  for: 5m", "  labels:", f"    severity: {severity}"]
    lines = [f"- alert: {name}", f"  expr: {_quoted(expression)}", *labels, "  annotations:", f"    summary: {_quoted(summary)}"]
    return "\n".join(f"      {line}" for line in lines)


def _quoted(text: str) -> str:
    """A string of JSON: also one of YAML and of PromQL."""
    return json.dumps(text, ensure_ascii=False)


def _escaped(name: str) -> str:
    import re

    return re.escape(name)


def _slug(model: str) -> str:
    return "".join(letter if letter.isalnum() and letter.isascii() else "-" for letter in model.lower())


def _camel(name: str) -> str:
    return "".join(part.capitalize() for part in name.replace(":", "_").split("_"))
