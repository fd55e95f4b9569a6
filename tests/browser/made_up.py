"""Documents of the read API that no sidecar would give at once: many models, wide ones, hostile names, numbers at the edges."""

from __future__ import annotations

import math
import random
import time
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

HOUR = 3_600_000_000_000
WORDS = ["ok", "ok", "ok", "ok", "info", "warning", "critical", "insufficient"]
LARGEST = 1.7976931348623157e308
SMALLEST = 5e-324

MARKUP = '<img src=x onerror="document.title=\'broken\'"><script>document.title="broken"</script>&amp;'
RIGHT_TO_LEFT = "مبلغ_المعاملة ‮txt.exe"
EMOJI = "🛩️👨‍👩‍👧‍👦 délai 遅延"
LONG = "x" * 240 + " " + "y" * 259
NAMES = [MARKUP, RIGHT_TO_LEFT, EMOJI, LONG, "a/b?c=d#e%2F", " ", "__proto__"]


def hour(at: int) -> int:
    """The start of the hour so many hours before the running one, in nanoseconds."""
    return (time.time_ns() // HOUR - at) * HOUR


class MadeUp:
    """Answers like a sidecar that watches `models` models of `columns` columns."""

    def __init__(
        self, models: int = 12, columns: int = 12, windows: int = 24 * 14, names: list[str] | None = None, extreme: bool = False
    ) -> None:
        self.windows, self.extreme = windows, extreme
        self.models = names or [f"model-{at:03}" for at in range(models)]
        self.columns = names or [
            "dep_delay",
            "origin",
            "carrier",
            "distance",
            "air_time",
            *(f"feature_{at:03}" for at in range(columns - 5)),
        ]
        self.asked: list[str] = []
        self.gap: tuple[int, int] | None = None

    def answer(self, url: str) -> Any:
        """The document at an address, or None."""
        parts = urlsplit(url)
        path = [unquote(part) for part in parts.path.strip("/").split("/")]
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        self.asked.append(parts.path)
        match path:
            case ["v1", "overview"]:
                return {"models": [self._overview(at, name) for at, name in enumerate(self.models)], "next": None}
            case ["v1", "models"]:
                return self._models()
            case ["v1", "models", _, "columns"]:
                return self._columns()
            case ["v1", "models", _, "columns", name]:
                return self._column(name)
            case ["v1", "models", _, "series"]:
                return self._series(query.get("column"), query)
            case ["v1", "models", _, "quality"]:
                return self._quality()
            case ["v1", "models", _, "segments"]:
                return self._segments()
            case ["v1", "models", _, "alerts"]:
                return self._alerts()
            case ["v1", "models", name, "alerts", _, "examples"]:
                ids = [*self.models[:3], "7"] if self.extreme or self.columns == self.models else ["tx-1839", "tx-2043", "tx-1"]
                events = [{"id": one, "bin": self.columns[0], "window_start": hour(1)} for one in ids]
                return {"model": name, "column": self.columns[0], "events": events, "reason": None}
            case ["v1", "models", name, "decisions"]:
                return {"model": name, "decision": "fail", "ok": False, "open_alerts": [], "reason": None}
            case ["v1", "models", name, "feedback"]:
                return self._feedback(name)
        return None

    def _overview(self, at: int, name: str) -> dict[str, Any]:
        draw = random.Random(at)
        verdict = draw.choice(WORDS)
        moved = verdict in ("warning", "critical")
        learning = at % 17 == 11
        value = LARGEST if self.extreme else draw.uniform(0.7, 0.95)
        return {
            "name": name,
            "task": "binary",
            "state": "learning" if learning else "watching",
            "learning": {"events": 4200, "of": 10000, "trouble": None} if learning else None,
            "verdict": None if learning else verdict,
            "since": None if learning else hour(draw.randrange(1, 200)),
            "window_start": None if learning else hour(1),
            "window_end": None if learning else hour(0),
            "window_seconds": 3600,
            "events": 2**53 if self.extreme else draw.randrange(10**7),
            "events_per_second": None if learning else (LARGEST if self.extreme else draw.lognormvariate(3, 2)),
            "latency_p50": SMALLEST if self.extreme else draw.uniform(0.001, 0.02),
            "latency_p99": LARGEST if self.extreme else draw.uniform(0.02, 0.4),
            "error_rate": 0.0,
            "quality": None
            if at % 3 == 0
            else {
                "metric": "roc_auc",
                "value": value,
                "lower": -LARGEST,
                "upper": LARGEST,
                "window_end": hour(0),
                "labelled": 2 if at % 3 == 1 else 4000,
                "reason": "too few labels: by 2 labelled events it is anywhere between 0.00 and 1.00" if at % 3 == 1 else None,
            },
            "estimate": None if at % 4 == 0 else {"metric": "roc_auc", "value": value, "lower": value - 0.02, "upper": value},
            "open_pages": 1 if verdict == "critical" else 0,
            "open_tickets": 2 if moved else 0,
            "worst": {
                "column": self.columns[0],
                "method": "psi",
                "severity": "page",
                "verdict": verdict,
                "reason": "PSI is above 0.25 with confidence 0.99",
                "cause": "(30, 45] went from 4.1 % to 18.3 %; null went from 0.0 % to 2.2 %",
            }
            if moved
            else None,
            "reference": "56e6b22f" * 4,
        }

    def _models(self) -> dict[str, Any]:
        counts = {
            "events": 10**6,
            "labels": 5000,
            "requests": 10,
            "sampled_out": 1200,
            "rejected": 3,
            "unknown_fields": 0,
            "mistyped_fields": 1,
            "late": 7,
            "memory_bytes": 2**60 if self.extreme else 8_400_000,
            "given_up": "segments beyond the 10 largest of each column are pooled; no new models",
            "forgotten": 12,
        }
        server = {
            "version": "0.1.0",
            "uptime_seconds": 90_000,
            "events_total": 123_456_789,
            "rejected_total": 42,
            "queue_bytes": 12_000,
            "memory_bytes": 91_000_000,
            "replaying": False,
            "problems": ['the log of model "fraud" has lost 3 records'],
            "budget": {
                "limits": {"cpu": 0.01, "memory": 64e6, "disk": None, "wire": None},
                "used": {"cpu": 0.0093, "memory": 91e6, "disk": 1e8, "wire": 2e4},
                "inclusion": 0.25,
                "level": 2,
                "given_up": "half of the cells of histograms",
                "over": True,
                "counts": {},
            },
        }
        return {"models": [{"name": name, "state": "watching", **counts} for name in self.models], "server": server}

    def _columns(self) -> dict[str, Any]:
        lines = []
        for at, name in enumerate(self.columns):
            draw = random.Random(f"column {at}")
            verdict = ["critical", "warning", "info"][at] if at < 3 else "ok"
            value = LARGEST if self.extreme else [0.61, 0.22, 0.06][at] if at < 3 else draw.uniform(0.0005, 0.02)
            reason = f"PSI is above {[0.25, 0.1, 0.02][at]} with confidence 0.99" if at < 3 else None
            recent = [abs(value * draw.uniform(0.2, 1)) if math.isfinite(value) else 0 for _ in range(30)]
            line = {"column": name, "kind": "number", "role": "feature", "verdict": verdict, "psi": value, "method": "psi", "value": value}
            lines.append({**line, "threshold": 0.1, "reason": reason, "recent": recent})
        return {"model": "m", "window_start": hour(1), "window_end": hour(0), "provisional": False, "columns": lines, "next": None}

    def _column(self, name: str) -> dict[str, Any]:
        named = name == "origin" or self.columns.index(name) % 3 == 1 if name in self.columns else False
        spread = 20 if not self.extreme else 10
        was = [math.exp(-(((at - 20) / 7) ** 2)) for at in range(40)]
        now = [math.exp(-(((at - 24) / 8) ** 2)) for at in range(40)]
        was, now = [x / sum(was) for x in was], [x / sum(now) for x in now]
        edges = [at * spread - 200.0 for at in range(41)]
        labels = [f"{edges[at]:g} to {edges[at + 1]:g}" for at in range(40)]
        names = self.columns if self.extreme else ["JFK", "EWR", "LGA", "PHL", "other"]
        bars: dict[str, Any] | None = {"labels": labels, "reference": was, "current": now, "edges": edges}
        if named:
            bars = {
                "labels": names[:5],
                "reference": [0.4, 0.3, 0.2, 0.05, 0.05][: len(names[:5])],
                "current": [0.2, 0.3, 0.35, 0.1, 0.05][: len(names[:5])],
                "edges": None,
            }
        elif self.extreme:
            bars = None
        bins = [
            {"bin": label, "reference": p, "current": q, "contribution": abs((q - p) * math.log(q / p))}
            for label, p, q in zip(labels, was, now, strict=True)
        ]
        quantiles = [
            {"q": q, "reference": -LARGEST if self.extreme else 100 * q, "current": LARGEST if self.extreme else 130 * q}
            for q in (0.01, 0.25, 0.5, 0.75, 0.99)
        ]
        summary = {
            "count": 100_000,
            "null_count": 12,
            "mean": SMALLEST if self.extreme else 50.0,
            "std": 21.0,
            "min": -LARGEST,
            "max": LARGEST,
            "median": 50.0,
            "p99": 99.0,
        }
        rows = []
        for method, value in (
            ("psi", 0.61),
            ("null_share", 0.022),
            ("out_of_range_share", 0.0),
            ("jensen_shannon", 0.21),
            ("wasserstein", 12.4),
            ("energy", 1.2),
        ):
            row = {
                "column": name,
                "method": method,
                "value": LARGEST if self.extreme else value,
                "lower": 0.5 * value,
                "upper": 1.4 * value,
            }
            tested = method in ("psi", "null_share", "out_of_range_share")
            rows.append(
                {
                    **row,
                    "threshold": 0.1 if tested else None,
                    "verdict": "critical" if method == "psi" else "ok" if tested else None,
                    "p_value": None,
                    "reason": None,
                }
            )
        shares = [
            {"name": word, "reference": 0.001, "current": 0.02}
            for word in ("null", "NaN or infinite", "below the reference", "above the reference")
        ]
        return {
            "model": "m",
            "column": name,
            "kind": "category" if named else "number",
            "role": "feature",
            "verdict": "critical",
            "reason": "PSI is above 0.25 with confidence 0.99",
            "window_start": hour(1),
            "window_end": hour(0),
            "provisional": False,
            "reference": "56e6b22f" * 4,
            "reference_created": hour(500),
            "n_reference": 100_000,
            "n_current": 4211,
            "bars": bars,
            "bins": sorted(bins, key=lambda bin: -bin["contribution"]),
            "reference_summary": summary,
            "current_summary": summary,
            "shares": shares,
            "quantiles": [] if named else quantiles,
            "names": [{"name": word, "reference": 0.4, "current": 0.2} for word in names] if named else [],
            "rows": rows,
        }

    def _line(self, column: str, method: str, level: float, seed: int, threshold: float | None = None) -> dict[str, Any]:
        draw = random.Random(f"{column} {method} {seed}")
        times = [hour(at) for at in range(self.windows, 0, -1) if self.gap is None or not self.gap[0] <= hour(at) < self.gap[1]]
        rise = lambda at: 1 + (2.5 if threshold and at > len(times) * 0.8 else 0)  # noqa: E731
        values = [
            LARGEST if self.extreme else level * rise(at) * draw.uniform(0.7, 1.3) * (1.3 + math.sin(at / 24 * 2 * math.pi))
            for at in range(len(times))
        ]
        return {
            "column": column,
            "method": method,
            "threshold": threshold,
            "windows": len(times),
            "times": times,
            "values": values,
            "lower": [0.8 * value for value in values],
            "upper": [min(1.2 * value, LARGEST) for value in values],
            "verdicts": ["ok"] * len(times),
        }

    def _series(self, column: str | None, query: dict[str, str]) -> dict[str, Any]:
        if column is not None:
            lines = [self._line(column, "psi", 0.05, 1, 0.1), self._line(column, "null_share", 0.001, 2, 0.1)]
        else:
            lines = [
                self._line("(model)", "events", 4000, 1),
                self._line("(model)", "latency_p50", 0.004, 2),
                self._line("(model)", "latency_p99", 0.08, 3),
            ]
            lines += [self._line(name, "psi", 0.03 / (at + 1), at, 0.1) for at, name in enumerate(self.columns[:5])]
        mark = {"column": None, "severity": None, "id": None}
        marks = [
            {**mark, "time": hour(200), "kind": "deploy", "text": 'version "2.1" deployed'},
            {**mark, "time": hour(280), "kind": "reference", "text": 'version "reference 56e6b22f" deployed'},
            {"time": hour(60), "kind": "opened", "text": "PSI is above 0.25", "column": self.columns[0], "severity": "page", "id": 1},
            {"time": hour(20), "kind": "resolved", "text": None, "column": self.columns[1], "severity": "ticket", "id": 2},
        ]
        times = lines[0]["times"]
        answer = {"model": "m", "window_seconds": 3600, "since": times[0], "until": times[-1] + HOUR, "lines": lines, "marks": marks}
        return {**answer, "gaps": [list(self.gap)] if self.gap else []}

    def _quality(self) -> dict[str, Any]:
        tiles = []
        for at in range(self.windows, 0, -1):
            draw = random.Random(at)
            value = LARGEST if self.extreme else 0.8 - (0.1 if at < 60 else 0) + draw.uniform(-0.02, 0.02)
            metrics = [
                {"metric": word, "value": value, "lower": value - 0.03, "upper": min(value + 0.03, LARGEST), "reason": None}
                for word in ("roc_auc", "brier")
            ]
            tiles.append(
                {
                    "start": hour(at),
                    "end": hour(at - 1),
                    "events": 4000,
                    "labelled": min(4000, at * 60),
                    "metrics": metrics if at > 3 else [],
                    "estimated": metrics if at < 200 else [],
                }
            )
        counts = {
            "events": 1,
            "late": 12,
            "too_late": 0,
            "untimed": 0,
            "orphan_labels": 3,
            "superseded_labels": 5,
            "duplicate_ids": 1,
            "dropped": 0,
        }
        delays = [
            {"up_to_seconds": length, "labels": 2**53 if self.extreme else 1000 * at}
            for at, length in enumerate((60, 300, 900, 3600, 10_800, 21_600, 43_200, 86_400, None))
        ]
        taken = {"delays": delays, "delays_within_seconds": 30.0}
        return {"model": "m", "labels": 400_000, "counts": counts, **taken, "calibrated_until": hour(200), "tiles": tiles}

    def _feedback(self, model: str) -> dict[str, Any]:
        names = self.models if self.extreme or self.columns == self.models else ["v1", "v2", "v3"]
        challengers = [*names, *names][1:3]
        decisions = []
        for at in range(20):
            for place, challenger in enumerate(challengers):
                harm, reach = (LARGEST, LARGEST) if self.extreme else (0.004 + 0.02 * place, 0.2 / math.sqrt(at + 1))
                guard = {
                    "guard": "error_rate",
                    "champion": 0.01,
                    "challenger": 0.01 + min(harm, 1),
                    "harm": harm,
                    "lower": harm - reach,
                    "upper": min(harm + reach, LARGEST),
                    "margin": 0.01,
                    "kind": "exact",
                    "champion_events": 1000 * (at + 1),
                    "challenger_events": 1000 * (at + 1),
                    "verdict": "open",
                    "reason": None,
                }
                blind = {**guard, "guard": "roc_auc", "harm": None, "lower": None, "upper": None, "champion": None, "challenger": None}
                blind |= {"verdict": "unknown", "reason": "too few events yet"}
                over = at == 19 and place == 1
                decisions.append(
                    {
                        "decision": "roll back" if over else "hold",
                        "champion": names[0],
                        "challenger": challenger,
                        "reason": f"undecided: {names[0]}",
                        "evidence": [guard, blind],
                        "time": hour(20 - at),
                    }
                )
        rows = {"since": hour(900), "until": hour(3), "version": names[0], "columns": None}
        requests = [
            {"id": f"{at:032x}", "model": model, "time": hour(10 * at), "as_of": hour(10 * at), "rows": rows, "evidence": []}
            | {"reason": f"roc_auc below 0.7 in 2 of the last 3 windows: {names[0]}"}
            for at in range(30)
        ]
        conditions = [
            {"condition": f"drift of {names[0]} at warning or worse", "holds": True, "reason": f"drift: {names[0]} at warning or worse"},
            {"condition": "roc_auc below 0.7", "holds": False, "reason": "roc_auc not below 0.7 for certain: 0.81 (0.79 to 0.83)"},
            {"condition": "5,000 new labels", "holds": None, "reason": "labels: no loop was given"},
        ]
        return {
            "model": model,
            "decisions": decisions[::-1],
            "requests": requests,
            "triggers": [{"time": hour(1), "conditions": conditions}],
        }

    def _segments(self) -> dict[str, Any]:
        found = []
        for at in range(300):
            row = {
                "column": self.columns[0],
                "method": "psi",
                "value": 0.4,
                "lower": 0.3,
                "upper": 0.5,
                "threshold": 0.1,
                "verdict": "warning",
                "reason": None,
            }
            name = f"carrier={self.models[at] if self.extreme and at < len(self.models) else f'C{at:03}'}"
            found.append(
                {"segment": name, "events": 1000.0 - at, "verdict": "warning" if at < 7 else None, "moved": [row] if at < 7 else []}
            )
        return {"model": "m", "window_start": hour(1), "window_end": hour(0), "by": ["carrier"], "segments": found, "next": None}

    def _alerts(self) -> dict[str, Any]:
        rows = []
        for at, name in enumerate(self.columns[:5]):
            for state, verdict, ago in (("opened", "warning", 60 - at), ("escalated", "critical", 40 - at), ("resolved", "ok", 10)):
                if state == "resolved" and at < 2:
                    continue
                value = LARGEST if self.extreme else 0.61
                rows.append(
                    {
                        "id": at + 1,
                        "incident": 1,
                        "column": name,
                        "state": state,
                        "severity": "page" if at == 0 else "ticket",
                        "verdict": verdict,
                        "method": "psi",
                        "value": value,
                        "lower": 0.5,
                        "upper": 0.7,
                        "threshold": 0.1,
                        "time": hour(ago),
                        "window_start": hour(ago + 1),
                        "reason": "PSI is above 0.25 with confidence 0.99",
                        "cause": "(30, 45] went from 4.1 % to 18.3 %; null went from 0.0 % to 2.2 %",
                        "n_reference": 100_000,
                        "n_current": 4200,
                        "open": at < 2,
                        "standing": None,
                    }
                )
        return {"model": "m", "rows": sorted(rows, key=lambda row: row["time"]), "next": None}
