"""For tests of your own: a frame against its reference in one assertion, and the laws of an adapter and of an engine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from barograph.drift import compare
from barograph.frames import Frame
from barograph.monitors import Monitor
from barograph.references import Reference
from barograph.reports import DriftReport
from barograph.schemas import Schema

__all__ = ["assert_no_drift", "check_adapter", "check_engine"]


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


def check_engine(count: Callable[..., Any], *, missing: bool = True, seed: int = 0) -> None:
    """Raises AssertionError unless what an engine counts over Parquet files is what one process counts, to the byte.

    count: `count(paths, schema=..., reference=..., by=...)` gives the profile of a list of files, or with `by` its segments; made of
    `barograph.scaling.leaf` and `merge` by the engine's tasks. missing: files need not have the same columns. seed: of the rows.

    Laws: files of any size, an empty one among them, in any order, with and without a reference, give the profile of all rows; segments
    are those of all rows, and the rest is counted; a column that one file lacks is null in its rows; a file that is half-written is an
    error that names it, never a smaller count.

    >>> from barograph.scaling import leaf, merge, read, read_segments
    >>> def count(paths, *, by=None, **settings):
    ...     return (read_segments if by else read)(merge(*(leaf(path, by=by, **settings) for path in paths)))
    >>> check_engine(count)
    """
    import random
    import tempfile
    from pathlib import Path

    import polars as pl

    from barograph.errors import BarographError
    from barograph.profiles import profile
    from barograph.scaling.leaves import leaf, read_segments

    dice = random.Random(seed)
    rows, schema = _engine_rows(dice)
    references = (None, Reference(rows.head(500), schema=schema))
    sizes = [0, 1, *(dice.randrange(2, 400) for _ in range(5))]
    with tempfile.TemporaryDirectory(prefix="barograph-") as folder:
        paths, at = [], 0
        for number, size in enumerate([*sizes, rows.height - sum(sizes)]):
            paths.append(f"{folder}/part-{number}.parquet")
            rows[at : at + size].write_parquet(paths[-1])
            at += size
        for reference in references:
            dice.shuffle(paths)
            got = count(list(paths), schema=schema, reference=reference, by=None)
            _law(got.rows == rows.height, f"{got.rows} rows were counted of {rows.height}")
            _law(got == profile(rows, schema=schema, reference=reference), "the profile is another than that of one process")
            for by in ("name", ["whole", "flag"]):
                want = read_segments(leaf(rows, schema=schema, reference=reference, by=by))
                segments = count(list(paths), schema=schema, reference=reference, by=by)
                _law(list(segments) == list(want), f"the segments by {by} are {list(segments)}, not {list(want)}")
                _law(all(segments[value] == want[value] for value in want), f"a segment by {by} is another than that of one process")
                _law(segments.other == want.other, f"the rest by {by} is another than that of one process")
        empty = [path for path in paths if path.endswith("/part-0.parquet")]
        got = count(empty, schema=schema, reference=None, by=None)
        _law(got == profile(rows[:0], schema=schema), "a file without rows is not an empty profile")
        if missing:
            rows[:50].drop("number").write_parquet(f"{folder}/lacks.parquet")
            got = count([*paths, f"{folder}/lacks.parquet"], schema=schema, reference=None, by=None)
            nulls = rows[:50].with_columns(number=pl.lit(None, pl.Float64))
            _law(got == profile(pl.concat([rows, nulls]), schema=schema), "a column that one file lacks is not null in its rows")
        whole = Path(paths[0]).read_bytes()
        Path(f"{folder}/half.parquet").write_bytes(whole[: len(whole) // 2])
        try:
            count([*paths, f"{folder}/half.parquet"], schema=schema, reference=None, by=None)
        except BarographError as error:
            _law("half.parquet" in str(error), f"the error of a half-written file does not name it: {error}")
        else:
            _law(False, "a half-written file was passed over")


def _engine_rows(dice: Any) -> tuple[Any, Schema]:
    """Rows with whatever a column may hold, and their schema."""
    import polars as pl

    odd = [0.0, -0.0, 1e308, -1e-320, float("nan"), float("inf"), None]
    number = [dice.choice(odd) if dice.random() < 0.1 else dice.gauss(0, 1e3) for _ in range(3000)]
    name = [dice.choice([None, "", "a", "b", "ü", "a longer name"]) for _ in range(3000)]
    whole = [dice.choice([None, -1, 0, 7]) for _ in range(3000)]
    flag = [dice.choice([None, True, False]) for _ in range(3000)]
    time = [None if at % 50 == 0 else at * 1_000_000 for at in range(3000)]
    rows = pl.DataFrame(
        {"number": number, "name": name, "whole": whole, "flag": flag, "time": time},
        schema={"number": pl.Float64, "name": pl.String, "whole": pl.Int32, "flag": pl.Boolean, "time": pl.Datetime("us")},
    )
    kinds = {"number": "number", "name": "category", "whole": "number", "flag": "boolean", "time": "time"}
    roles = dict.fromkeys(kinds, "feature") | {"time": "time"}
    return rows, Schema([{"name": one, "kind": kind, "role": roles[one]} for one, kind in kinds.items()])


def _law(holds: bool, what: str) -> None:
    __tracebackhide__ = True
    if not holds:
        raise AssertionError(what)
