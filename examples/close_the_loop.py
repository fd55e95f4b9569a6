"""A model of late flights that grows old, is fitted again, tested, tried on a fifth of the traffic and promoted, all by itself.

Every prediction and every label of 2013 goes through a feedback loop, each label when the flight has landed. Once a week a trigger looks
at the AUC of matured weeks; a request becomes a candidate, the candidate has to pass a gate on rows it was not fitted on, then a canary.
What that is worth is the difference to the frozen first model on the same flights. Needs scikit-learn.
"""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import barograph as bg
import numpy as np
import polars as pl
from barograph.rollout import Rollout, gate
from sklearn.ensemble import HistGradientBoostingClassifier

FLIGHTS = Path(bg.__file__).parent / "data" / "flights_nyc_2013.parquet"
NAMES, NUMBERS = ["carrier", "origin", "dest"], ["distance_mi", "hour", "weekday"]
FIRST = datetime(2013, 3, 1, tzinfo=UTC)
# Better for certain, or it stays where it is.
LIMITS = {"latency": None, "roc_auc": 0.0, "brier": 0.001}


def flights() -> pl.DataFrame:
    """Every second flight; what is known before departure, the truth, and when it is known."""
    frame = pl.read_parquet(FLIGHTS).filter(pl.col("y_true").is_not_null() & (pl.col("flight_id") % 2 == 0))
    at = pl.col("prediction_timestamp").dt.replace_time_zone("UTC")
    landed = at + pl.duration(minutes=pl.col("air_time_min").fill_null(180) + pl.col("dep_delay_min").fill_null(0).clip(0))
    return frame.with_columns(at=at, landed=landed, hour=at.dt.hour(), weekday=at.dt.weekday()).sort("at")


class Model:
    """Boosted trees; the same for every version but for the rows they have seen."""

    def __init__(self, rows: pl.DataFrame, version: str) -> None:
        self.version = version
        self._levels = {name: {value: at for at, value in enumerate(rows[name].unique().sort())} for name in NAMES}
        marks = [True] * len(NAMES) + [False] * len(NUMBERS)
        trees = HistGradientBoostingClassifier(random_state=0, max_iter=60, categorical_features=marks)
        self._trees = trees.fit(self._table(rows), rows["y_true"].to_numpy())

    def _table(self, rows: pl.DataFrame) -> np.ndarray:
        names = [rows[name].replace_strict(self._levels[name], default=None, return_dtype=pl.Float64).to_numpy() for name in NAMES]
        return np.column_stack([*names, *(rows[name].cast(pl.Float64).to_numpy() for name in NUMBERS)])

    def __call__(self, rows: pl.DataFrame) -> np.ndarray:
        """The probability of each flight to be late."""
        return self._trees.predict_proba(self._table(rows))[:, 1]


def main() -> None:
    rows = flights()
    months = rows.filter(pl.col("at") < FIRST)
    frozen = live = Model(months, "v1")
    loop = bg.FeedbackLoop(horizon="1d")
    lineage = bg.Lineage()
    lineage.accept(bg.Reference(months.select(*NAMES, *NUMBERS)), who="example", why="January and February", when=FIRST)
    condition = bg.Condition.metric("roc_auc", below=0.66, window="7d") | bg.Condition.schedule("60d")
    trigger = bg.Trigger("late flights", condition, cooldown="28d")
    candidate, rollout, tried = None, None, []
    served = []
    for week in range(43):
        now = FIRST + timedelta(weeks=week + 1)
        calls = rows.filter(pl.col("at").is_between(now - timedelta(weeks=1), now, closed="left"))
        if calls.is_empty():
            break
        # A fifth of the flights is the candidate's while it is tried.
        canary = (calls["flight_id"] % 10 < 2).to_numpy() if candidate is not None else np.zeros(calls.height, bool)
        score = np.where(canary, candidate(calls), live(calls)) if candidate is not None else live(calls)
        calls = calls.with_columns(
            score=pl.Series(score),
            version=pl.Series(np.where(canary, candidate.version if candidate is not None else "", live.version)),
            frozen=pl.Series(frozen(calls)),
        )
        served.append(calls.select("flight_id", "score", "frozen", "y_true"))
        loop.predictions(calls, id="flight_id", time="at", score="score", version="version")
        loop.labels(calls, id="flight_id", label="y_true", time="landed")
        if rollout is not None and candidate is not None:
            rollout.observe_loop(loop, now=now)
            decision = rollout.decide(now)
            if decision.decision != "hold":
                print(f"{now:%d %b}  {decision.decision}: {decision.reason}")
                if decision.decision == "promote":
                    live = candidate
                    lineage.accept(tried.pop(), who="example", why=decision.reason, when=now)
                candidate = rollout = None
            continue
        request = trigger.check(now, loop=loop, lineage=lineage)
        if request is None:
            continue
        fit = request.training_frame(loop, rows.drop("y_true"), id="flight_id").rename({"label": "y_true"}).collect()
        # The last fifth of the window is for the gate.
        cut = int(0.8 * fit.height)
        made = Model(fit[:cut], f"v{week + 2}")
        report = gate(live, made, fit[cut:].drop("prediction_time"), label="y_true", features=[*NAMES, *NUMBERS], limits=LIMITS)
        print(f"{now:%d %b}  {request.reason}; gate {'passed' if report.passed else 'did not pass'}")
        if report.passed:
            candidate = made
            tried.append(bg.Reference(fit.select(*NAMES, *NUMBERS)))
            guards = [{"metric": "brier", "margin": 0.02}]
            rollout = Rollout(live.version, made.version, guards=guards, max_events=5000)
    after = pl.concat(served)
    both = [after.select("flight_id", "y_true", score=name) for name in ("frozen", "score")]
    worth = gate(*both, label="y_true", id="flight_id").to_frame().row(by_predicate=pl.col("check") == "roc_auc", named=True)
    print(f"AUC from March on, {after.height:,} flights: frozen {worth['current']:.4f}, kept up {worth['candidate']:.4f}")
    print(f"better by {-worth['harm']:+.4f} ({-worth['upper']:+.4f} to {-worth['lower']:+.4f})")
    print(lineage.to_frame().select("time", "why", "rows"))


if __name__ == "__main__":
    main()
