"""Detectors watch one number after the other and say where the stream changed.

| detector | takes | finds | choose it for |
|---|---|---|---|
| `Rank` | numbers | any change of the law beyond a tolerance | a stated false-alarm rate against a reference, whatever the distribution |
| `Adwin` | numbers | a change of the mean | error rates without a reference; keeps a window of the newest law |
| `PageHinkley` | numbers | a lasting rise or fall of the mean | cheap, one or both sides |
| `Cusum` | numbers | a small lasting shift | when mean and spread can be learnt from a warm-up |
| `Ewma` | numbers | a small lasting shift | as `Cusum`, smoother |
| `Kswin` | numbers | any change of the law | comparisons with the literature; it has no false-alarm rate to speak of |
| `Ddm`, `Eddm` | errors, 0 or 1 | a rising error rate | comparisons with the literature |
| `HddmA`, `HddmW` | numbers in [0, 1] | a rising mean | abrupt, gradual changes of an error rate |

Adwin, PageHinkley, Ddm, Eddm, HddmA and HddmW have river's parameters, defaults and reset after a detection, and find the same
positions. Values outside a detector's domain, NaN among them, are an InvalidArgumentError and change nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from barograph import _barograph
from barograph.errors import InvalidArgumentError
from barograph.references import Reference
from barograph.snapshots import Snapshots

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

__all__ = ["Adwin", "Cusum", "Ddm", "Eddm", "Ewma", "HddmA", "HddmW", "Kswin", "PageHinkley", "Rank"]


class _Detector(Snapshots):
    def update(self, x: float) -> bool:
        """Takes one value; True if the stream changed here."""
        changed: bool = self._native.update(x)
        return changed

    def update_many(self, values: ArrayLike) -> NDArray[np.int64]:
        """Takes values; the positions within them where the stream changed."""
        import numpy as np

        return np.array(self._native.update_many(np.ascontiguousarray(values, dtype=np.float64).reshape(-1)), dtype=np.int64)


class Adwin(_Detector):
    """A window of variable length that drops its old part when two parts of it have different means.

    delta: level of each test. clock: values between tests. Source: Bifet & Gavaldà, SDM 2007.

    >>> Adwin().update_many([0.0] * 500 + [1.0] * 500).tolist()
    [511]
    """

    def __init__(
        self, delta: float = 0.002, clock: int = 32, max_buckets: int = 5, min_window_length: int = 5, grace_period: int = 10
    ) -> None:
        self._native = _barograph.Adwin(delta, clock, max_buckets, min_window_length, grace_period)


class PageHinkley(_Detector):
    """The forgetful cumulative deviation from the running mean. Source: Page, Biometrika 1954."""

    def __init__(
        self,
        min_instances: int = 30,
        delta: float = 0.005,
        threshold: float = 50.0,
        alpha: float = 1 - 0.0001,
        mode: Literal["both", "up", "down"] = "both",
    ) -> None:
        modes = ("both", "up", "down")
        if mode not in modes:
            raise InvalidArgumentError(f"`mode` must be one of {', '.join(modes)}, got {mode!r}")
        self._native = _barograph.PageHinkley(min_instances, delta, threshold, alpha, modes.index(mode))


class Ddm(_Detector):
    """The error rate against its own best. Takes 1 for an error, 0 for a success. Source: Gama et al., SBIA 2004."""

    def __init__(self, warm_start: int = 30, warning_threshold: float = 2.0, drift_threshold: float = 3.0) -> None:
        self._native = _barograph.Ddm(warm_start, warning_threshold, drift_threshold)


class Eddm(_Detector):
    """The distance between errors against its own best. Source: Baena-García et al., 2006."""

    def __init__(self, warm_start: int = 30, alpha: float = 0.95, beta: float = 0.9) -> None:
        self._native = _barograph.Eddm(warm_start, alpha, beta)


class HddmA(_Detector):
    """Running means compared by Hoeffding's bound. Source: Frías-Blanco et al., IEEE TKDE 2015."""

    def __init__(self, drift_confidence: float = 0.001, warning_confidence: float = 0.005, two_sided_test: bool = False) -> None:
        self._native = _barograph.HddmA(drift_confidence, warning_confidence, two_sided_test)


class HddmW(_Detector):
    """Exponentially weighted means compared by McDiarmid's bound. Source: Frías-Blanco et al., IEEE TKDE 2015."""

    def __init__(
        self, drift_confidence: float = 0.001, warning_confidence: float = 0.005, lambda_val: float = 0.05, two_sided_test: bool = False
    ) -> None:
        self._native = _barograph.HddmW(drift_confidence, warning_confidence, lambda_val, two_sided_test)


class Kswin(_Detector):
    """Kolmogorov-Smirnov test of the newest values against as many drawn from the older part of a window; as river's KSWIN.

    The draws depend on seed and position alone, so positions have river's law but are not river's. At the defaults an unchanged
    stream raises an alarm every few hundred values: the test is made at every value. Source: Raab et al., Neurocomputing 2020.
    """

    def __init__(self, alpha: float = 0.005, window_size: int = 100, stat_size: int = 30, seed: int = 0) -> None:
        self._native = _barograph.Kswin(alpha, window_size, stat_size, seed)


class Cusum(_Detector):
    """Two cumulative sums of standardised deviations; mean and spread are learnt from a warm-up. Source: Page, Biometrika 1954."""

    def __init__(self, slack: float = 0.5, threshold: float = 8.0, warm_up: int = 500) -> None:
        self._native = _barograph.Cusum(slack, threshold, warm_up)


class Ewma(_Detector):
    """The exponentially weighted mean against its control limits. Source: Roberts, Technometrics 1959."""

    def __init__(self, weight: float = 0.05, width: float = 4.0, warm_up: int = 500) -> None:
        self._native = _barograph.Ewma(weight, width, warm_up)


class Rank(_Detector):
    """Bets against "every value lies within a tolerance of the reference's law": an e-detector on ranks.

    reference: an array, or a `Reference` with the name of a column. tolerance: Kolmogorov-Smirnov distance that is no change; 0.05 is
    an eighth of a standard deviation. threshold: values between two false alarms, at least, on average, whatever the distribution:
    the expected number of alarms in T values is at most T / threshold, except with probability 0.001 over references. For values
    that depend on those before them the bound does not hold. Source: Shin, Ramdas & Rinaldo, arXiv 2203.03532.
    """

    def __init__(
        self, reference: ArrayLike | Reference, column: str | None = None, *, tolerance: float = 0.05, threshold: float = 100_000.0
    ) -> None:
        import numpy as np

        if isinstance(reference, Reference):
            found = reference.bins(column) if column is not None else None
            if found is None:
                raise InvalidArgumentError(f"`column` must name a column of numbers in the reference, got {column!r}")
            # Counter i of 1..n lies between edges i-1 and i: its values are at most edge i.
            values, counts = found[0][1:], found[1][1:-1]
        else:
            array = np.asarray(reference, dtype=np.float64).reshape(-1)
            if not np.isfinite(array).all():
                raise InvalidArgumentError("`reference` must hold finite numbers", "leave out what is missing")
            unique, tally = np.unique(array, return_counts=True)
            values, counts = unique.tolist(), tally.tolist()
        self._native = _barograph.Rank(values, counts, tolerance, threshold)
