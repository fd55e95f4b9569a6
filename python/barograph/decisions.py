"""What is decided between two versions of a model, and how other controllers read it: Argo Rollouts, Flagger."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from barograph.errors import InvalidArgumentError

if TYPE_CHECKING:
    import polars as pl

__all__ = ["Decision", "Verdict", "argo_measurement", "flagger_response"]

Verdict = Literal["promote", "hold", "roll back", "inconclusive"]


class Decision(NamedTuple):
    """What to do, why, and on what evidence: one row per guard, with the harm of the challenger, its limits and its margin."""

    decision: Verdict
    reason: str
    evidence: list[dict[str, Any]]
    time: datetime
    champion: str
    challenger: str

    def to_frame(self) -> pl.DataFrame:
        """The evidence: guard, champion, challenger (values), harm, lower, upper, margin, kind, events of both, verdict."""
        import polars as pl

        kinds = {"guard": pl.String, **dict.fromkeys(("champion", "challenger", "harm", "lower", "upper", "margin"), pl.Float64)}
        counts = dict.fromkeys(("champion_events", "challenger_events"), pl.Int64)
        return pl.DataFrame(self.evidence, schema={**kinds, **counts, "kind": pl.String, "verdict": pl.String, "reason": pl.String})

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {**self._asdict(), "time": self.time.isoformat()}

    def __str__(self) -> str:
        lines = [f"{self.challenger} against {self.champion}: {self.decision} ({self.reason})"]
        for row in self.evidence:
            if row["harm"] is None:
                lines.append(f"  {row['guard']:<16} {row['verdict']:<8} {row['reason']}")
                continue
            span = f"{_short(row['lower'])} to {_short(row['upper'])}"
            lines.append(
                f"  {row['guard']:<16} {row['verdict']:<8} harm {_short(row['harm'])} ({span}, {row['kind']}), margin {row['margin']}"
            )
        return "\n".join(lines)


def _short(value: float | None) -> str:
    return "?" if value is None else f"{value:+.4f}"


def argo_measurement(decision: Decision) -> dict[str, Any]:
    """What Argo Rollouts' web metric reads: jsonPath `{$.decision}`, success `result == "promote"`, failure `result == "roll back"`.

    Answer with status 200 whatever the decision: any other is an error to Argo. To hold is neither success nor failure, a measurement that
    Argo calls inconclusive: `inconclusiveLimit` (0 unless stated, which pauses at the first) must be at least the number of looks until
    the decision, and `consecutiveSuccessLimit: 1` ends the analysis with the promotion.
    Source: argo-rollouts v1.10, docs/analysis/web.md and analysis/analysis.go.
    """
    return {
        "decision": decision.decision,
        "ok": decision.decision == "promote",
        "reason": decision.reason,
        "time": decision.time.isoformat(),
        "evidence": decision.evidence,
    }


def flagger_response(
    decision: Decision, hook: Literal["rollout", "confirm-traffic-increase", "confirm-promotion", "rollback"] = "rollout"
) -> tuple[int, dict[str, Any]]:
    """HTTP status and body for a webhook of Flagger, by its type.

    rollout: 200 unless the challenger does harm (Flagger counts anything else as a failed check, and sends it back after `threshold` of
    them); confirm-traffic-increase: 200 while it holds or promotes, so that an undecided end keeps its share; confirm-promotion: 200 once
    it may be promoted; rollback: 200 once it must go back, which Flagger then does at once. Anything else is 403, with the reason.
    Source: flagger, docs/gitbook/usage/webhooks.md and pkg/controller/scheduler_hooks.go.
    """
    fine: dict[str, tuple[Verdict, ...]] = {
        "rollout": ("promote", "hold", "inconclusive"),
        "confirm-traffic-increase": ("promote", "hold"),
        "confirm-promotion": ("promote",),
        "rollback": ("roll back",),
    }
    if hook not in fine:
        raise InvalidArgumentError(f"`hook` must be one of {', '.join(fine)}, got {hook!r}")
    return (200 if decision.decision in fine[hook] else 403), {"decision": decision.decision, "reason": decision.reason}
