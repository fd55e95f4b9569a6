"""A model that is fed other numbers from the third day on, watched in windows of a day; labels come a day late."""

from datetime import UTC, datetime, timedelta

import barograph as bg
import numpy as np
import polars as pl

rng = np.random.default_rng(1)
START = datetime(2026, 1, 5, tzinfo=UTC)


def day(number: int, shift: float) -> pl.DataFrame:
    """A thousand calls with their scores; the truth follows the score less and less."""
    amount = rng.normal(shift, 1, 1000)
    score = 1 / (1 + np.exp(-amount))
    times = [START + timedelta(days=number, seconds=86 * i) for i in range(1000)]
    truth = (rng.random(1000) < (score if shift == 0 else 0.5)).astype(int)
    return pl.DataFrame({"id": np.arange(1000) + 1000 * number, "at": times, "amount": amount, "score": score, "truth": truth})


reference = bg.Reference(day(0, 0.0).select("amount", "score"))
monitor = bg.Monitor("payments", reference=reference, window="1d", ticks="manual", rules=[{"metric": "roc_auc", "below": 0.6}])

late = None
for number in range(1, 7):
    calls = day(number, 1.0 if number >= 3 else 0.0)
    monitor.observe_frame(calls, time="at", id="id", score="score")
    if late is not None:
        monitor.label(late, id="id", label="truth")
    late = calls
    monitor.tick(START + timedelta(days=number))

print(monitor.alerts().select("id", "column", "state", "time", "reason"))
print(
    monitor.history()
    .filter(pl.col("method").is_in(["psi", "missing_labels"]))
    .select("window_start", "column", "method", "value", "verdict")
)
