"""For tests of your own: a frame against its reference in one assertion, and the laws of an adapter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from barograph.drift import compare
from barograph.frames import Frame
from barograph.monitors import Monitor
from barograph.references import Reference
from barograph.reports import DriftReport

__all__ = ["assert_no_drift", "check_adapter"]


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


def check_adapter(serve: Callable[[Monitor, Callable[[float], float]], Callable[[float], Any]], *, observes: bool = True) -> None:
    """Raises AssertionError unless an adapter keeps its laws.

    serve: `serve(monitor, model)` builds whatever the adapter watches around a `model` (a function of one number that may raise) and
    returns `call(x)`, which sends one request for `x` through the framework and gives the model's answer; where the model raised, `call`
    raises too. observes: the adapter makes events of requests (the column `x` and the prediction); otherwise it only counts them.

    Laws: answers and errors pass unchanged; every request is counted once, with its latency, failed ones as errors; what fails in the
    monitor never reaches a request and is counted; no call goes on in the background afterwards.

    >>> check_adapter(lambda monitor, model: lambda x: monitor.watch(lambda row: model(row["x"]))({"x": x}))
    """
    from datetime import UTC, datetime, timedelta

    reference = Reference({"x": [float(at % 10) for at in range(1000)], "prediction": [2.0 * (at % 10) for at in range(1000)]})
    monitor = Monitor("check", reference=reference, ticks="manual", task="regression")

    def model(x: float) -> float:
        if x < 0:
            raise ValueError(f"no answer to {x}")
        return 2.0 * x

    call = serve(monitor, model)
    began = datetime.now(UTC) - timedelta(days=1)
    for x in range(20):
        _law(call(float(x % 10)) == 2.0 * (x % 10), f"the answer to {x % 10} did not pass unchanged")
    for wrong in (-1.0, -2.0):
        try:
            call(wrong)
        except Exception:
            continue
        _law(False, "an error of the model did not reach the caller")
    latencies = monitor.latencies(began, datetime.now(UTC) + timedelta(days=1))
    counted = 0 if latencies is None else latencies.count
    _law(counted == 22, f"22 requests gave {counted} latencies: each is counted once, failed ones too")
    summary = monitor.summary(began, datetime.now(UTC) + timedelta(days=1))
    _law(summary is not None and summary.errors == 2, f"2 failed requests gave {summary and summary.errors} errors")
    if observes:
        _law(monitor.counts()["events"] == 20, f"20 requests gave {monitor.counts()['events']} events")
        if summary is not None:
            came = summary.report.to_frame().filter(column="x")["n_current"].max()
            _law(came == 20, f"the column `x` came with {came!r} rows of 20")
    _law(monitor.counts()["failures"] == 0, "the monitor failed while it was whole")

    broken = Monitor("broken", reference=reference, ticks="manual")

    def fails(*_: Any, **__: Any) -> None:
        raise RuntimeError("the monitor is broken")

    for name in ("observe", "observe_frame", "request"):
        setattr(broken, name, fails)
    _law(serve(broken, model)(3.0) == 6.0, "a broken monitor changed an answer")
    _law(broken.counts()["failures"] >= 1, "a broken monitor was not counted in `failures`")


def _law(holds: bool, what: str) -> None:
    __tracebackhide__ = True
    if not holds:
        raise AssertionError(what)
