"""For tests of your own: a frame against its reference in one assertion."""

from __future__ import annotations

from typing import Any

from barograph.drift import compare
from barograph.frames import Frame
from barograph.references import Reference
from barograph.reports import DriftReport

__all__ = ["assert_no_drift"]


def assert_no_drift(
    reference: Reference | Frame, current: Frame, *, fail_on: str = "warning", inconclusive: bool = True, **settings: Any
) -> DriftReport:
    """Raises AssertionError, with the report in it, if `current` drifted from `reference`.

    fail_on: "warning" or "critical". inconclusive: features that could not be judged fail too. settings: those of `compare`.

    >>> report = assert_no_drift({"x": [1.0, 2.0, 3.0] * 100}, {"x": [1.0, 2.0, 3.0] * 100})
    >>> assert_no_drift({"x": [1.0, 2.0, 3.0] * 100}, {"x": [3.0, 3.0, 3.0] * 100})
    Traceback (most recent call last):
    AssertionError: 1 of 1 tested columns drifted
    ...
    """
    __tracebackhide__ = True
    from barograph.errors import InvalidArgumentError

    if fail_on not in ("warning", "critical"):
        raise InvalidArgumentError(f'`fail_on` must be "warning" or "critical", got {fail_on!r}')
    frozen = reference if isinstance(reference, Reference) else Reference(reference)
    report = compare(frozen, current, **settings)
    worst = ("critical",) if fail_on == "critical" else ("warning", "critical")
    if report.verdict in worst or (inconclusive and report.unjudged):
        raise AssertionError(f"{report.summary()}\n{report.to_terminal(color=False)}")
    return report
