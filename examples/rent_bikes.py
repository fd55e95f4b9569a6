"""Hourly rentals of a town that takes to cycling: a regression that falls behind, fitted again, tested, tried and promoted by itself.

Made-up counts of two years, like those of a bike-sharing system: hours, weekdays, weather, and more riders every month. The first model
has seen three months. A trigger watches the mean absolute error of matured weeks; candidates pass a gate on the newest weeks, then shadow
the live model until a decision is certain.
"""

from datetime import UTC, datetime, timedelta

import barograph as bg
import numpy as np
import polars as pl
from barograph.rollout import Rollout, gate

START, HOURS = datetime(2024, 1, 1, tzinfo=UTC), 2 * 365 * 24
FEATURES = ["hour", "weekday", "warmth"]


def rentals() -> pl.DataFrame:
    """One row per hour; the count of an hour is known at its end."""
    rng = np.random.default_rng(7)
    hour, day = np.arange(HOURS) % 24, np.arange(HOURS) // 24
    warmth = 12 - 8 * np.cos(2 * np.pi * day / 365) + rng.normal(0, 3, HOURS // 24)[day]
    rush = np.where(day % 7 < 5, np.exp(-((hour - 8) ** 2) / 4) + np.exp(-((hour - 17) ** 2) / 6), np.exp(-((hour - 14) ** 2) / 30))
    mean = (10 + 120 * rush) * np.exp(0.04 * warmth) * (1 + day / 365)
    return pl.DataFrame(
        {
            "id": np.arange(HOURS),
            "at": [START + timedelta(hours=i) for i in range(HOURS)],
            "hour": hour,
            "weekday": day % 7,
            "warmth": warmth,
            "count": rng.poisson(mean).astype(float),
        }
    ).with_columns(known=pl.col("at") + pl.duration(hours=1))


class Model:
    """The logarithm of the count: one mean per hour of the week, and a slope of the warmth."""

    def __init__(self, rows: pl.DataFrame, version: str) -> None:
        self.version = version
        table, y = self._table(rows), np.log1p(rows["count"].to_numpy())
        self._weights = np.linalg.solve(table.T @ table + np.eye(table.shape[1]), table.T @ y)

    def _table(self, rows: pl.DataFrame) -> np.ndarray:
        place = (rows["weekday"] * 24 + rows["hour"]).to_numpy()
        return np.column_stack([np.eye(168)[place], rows["warmth"].to_numpy() / 10])

    def predict(self, rows: pl.DataFrame) -> np.ndarray:
        """The expected count of each hour."""
        return np.expm1(self._table(rows) @ self._weights)


def main() -> None:
    rows = rentals()
    first = START + timedelta(days=91)
    frozen = live = Model(rows.filter(pl.col("at") < first), "v1")
    loop = bg.FeedbackLoop(horizon="1d")
    condition = bg.Condition.metric("mae", above=60.0, window="7d", task="regression")
    trigger = bg.Trigger("rentals", condition, fit_on="182d", cooldown="28d", most_per_month=1)
    candidate, rollout, served = None, None, []
    for week in range((HOURS - 91 * 24) // 168):
        now = first + timedelta(weeks=week + 1)
        calls = rows.filter(pl.col("at").is_between(now - timedelta(weeks=1), now, closed="left"))
        calls = calls.with_columns(prediction=pl.Series(live.predict(calls)), frozen=pl.Series(frozen.predict(calls)))
        served.append(calls.select("id", "prediction", "frozen", "count"))
        loop.predictions(calls, id="id", time="at", prediction="prediction")
        loop.labels(calls, id="id", label="count", time="known")
        if rollout is not None and candidate is not None:
            for model in (live, candidate):
                shadow = calls.with_columns(prediction=pl.Series(model.predict(calls)))
                rollout.observe_frame(shadow, version=model.version, id="id", label="count", prediction="prediction")
            decision = rollout.decide(now)
            if decision.decision == "hold":
                continue
            print(f"{now:%d %b %Y}  {decision.decision}: {decision.reason}")
            live = candidate if decision.decision == "promote" else live
            candidate = rollout = None
        elif (request := trigger.check(now, loop=loop)) is not None:
            fit = request.training_frame(loop, rows.drop("count"), id="id").rename({"label": "count"}).collect()
            made = Model(fit[: int(0.8 * fit.height)], f"v{week + 2}")
            test = fit[int(0.8 * fit.height) :]
            report = gate(live, made, test, label="count", features=FEATURES, task="regression", limits={"latency": None})
            print(f"{now:%d %b %Y}  {request.reason}; gate {'passed' if report.passed else 'did not pass'}")
            if report.passed:
                candidate = made
                guards = [{"metric": "absolute_error", "margin": 2.0, "range": (0, 400)}]
                rollout = Rollout(live.version, made.version, guards=guards, paired=True, max_events=2000)
    after = pl.concat(served)
    off = {name: (after[name] - after["count"]).abs().mean() for name in ("frozen", "prediction")}
    print(f"mean absolute error of {after.height:,} hours: frozen {off['frozen']:.1f}, kept up {off['prediction']:.1f}")


if __name__ == "__main__":
    main()
