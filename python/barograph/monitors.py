"""The monitor of a serving process: events and labels in, history and alerts out."""

from __future__ import annotations

import json
import logging
import math
import re
import threading
import time as clock
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from barograph import _barograph
from barograph.errors import IncompatibleError, InvalidArgumentError
from barograph.frames import Frame, parts
from barograph.privacies import Privacy
from barograph.references import Reference
from barograph.reports import DriftReport, alerts_frame, rows_frame
from barograph.sketches import ExponentialHistogram
from barograph.snapshots import as_bytes, write_whole
from barograph.watching import F, Timer, quiet_at_fork, watched

if TYPE_CHECKING:
    import altair as alt
    import polars as pl

__all__ = ["Monitor", "Summary"]

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_SECOND = 10**9
_EPOCH = datetime(1970, 1, 1)
_LOG = logging.getLogger("barograph")
_REHEARSALS, _CALLS = 5, 200


class MetricValue(NamedTuple):
    """A metric with its two-sided limits at the monitor's confidence; what does not exist is None."""

    value: float | None
    lower: float | None
    upper: float | None


@dataclass(frozen=True)
class Summary:
    """Numbers of a stretch of event time; what does not exist yet is None.

    metrics: by name, those of the task: roc_auc, average_precision, log_loss, brier, or mae, rmse, r2, bias.
    """

    events: int
    labelled: int
    errors: int
    latency_p50: float | None
    latency_p99: float | None
    metrics: Mapping[str, MetricValue]
    report: DriftReport


class Monitor:
    """Watches one model: drift against its reference, latency, accuracy from labels that come late.

    reference: what inputs are compared with. window: how long a window is, such as "1h", "1d", "1w"; windows are half-open, align to
    the UTC epoch, weeks to Monday, and close in `tick` alone. task: "binary" judges `score` by labels of 0 and 1, "multiclass" the
    `prediction` (or the largest of the probabilities in `score`) by labels that are among `classes`, at most 100 of them, "regression" a
    `prediction` that is a number by labels that are numbers. rules: besides drift, mappings such as

    - `{"metric": "roc_auc", "below": 0.6}`; metrics: those of the task (roc_auc, average_precision, log_loss, brier; accuracy,
      balanced_accuracy, f1_macro, roc_auc_ovr; mae, rmse, r2, bias), latency_p50, latency_p99 (seconds), error_rate,
      missing_labels (shares), events (of a window: below a limit, silence is an alert). Optional: severity ("page" or "ticket"), k
      and of (windows beyond the limit, of the last so many), cooldown (such as "6h": no new alert so soon after the last one);
    - `{"slo": "latency", "threshold": 0.2, "objective": 0.99}` or `{"slo": "errors", "objective": 0.999}`: a page when the budget of bad
      calls burns 14.4 times too fast over 1 h and 5 min, or 6 times over 6 h and 30 min, a ticket at once over 3 d and 6 h;
    - `{"metric": "rmse", "detector": "cusum"}`: a detector (adwin, cusum, ewma) watches the metric from window to window.

    budget: at most one false alert in so long, in expectation, over all columns: of tickets, or {"ticket": "7d", "page": "30d"} (the
    default); `monitor.policy` says it in words. In the same mapping what monitoring may cost: cpu (of one core, "1%" or 0.01), memory and
    disk ("64MB"), wire ("10kB/s", of snapshots), sampling (False: no event may be left out for `cpu`); see `cost()`. importance: how much
    columns matter to the model, by name; half of the budget goes to columns by it, and causes are ranked by it. lateness: events of
    windows that closed longer ago are only counted ("30d"). memory: bytes for tiles and history (256 MB); beyond them the oldest are
    given up and counted. policy: a TOML file, or a mapping, that states all these instead, at its top or in `[models.NAME]`; the sidecar
    reads the same.

    segments: columns whose values are watched apart; the reference decides which it can, and without the argument all of them are.
    privacy: what happens to columns before they are counted; the reference must have been made through the same. ticks:
    "auto" closes windows by the wall clock, from a background thread that starts with the first event; "manual" leaves it to you.
    autosave: a file that every tick writes, and that a monitor of the same name and reference resumes from. on_alert: called with every
    change of an alert, as a dict of `alerts()`'s columns and the model (times in nanoseconds), from whatever ticks; what it raises is
    counted as a failure. A monitor keeps no rows: per tile (a day for whole days, else the window) one profile; after three days tiles
    become days, after a hundred days weeks.

    >>> monitor = Monitor("m", reference=Reference({"x": [1.0, 2.0, 3.0, 4.0] * 200}), window="1h", ticks="manual")
    >>> hour = datetime(2026, 1, 1, tzinfo=UTC)
    >>> monitor.observe_frame({"x": [1.0, 2.0, 3.0, 4.0] * 200, "at": [hour] * 800}, time="at")
    >>> monitor.tick(hour + timedelta(hours=1))
    >>> monitor.history().filter(method="psi")["verdict"].to_list()
    ['ok']
    """

    def __init__(
        self,
        name: str,
        *,
        reference: Reference,
        policy: str | Path | Mapping[str, Any] | None = None,
        window: str | timedelta | None = None,
        task: Literal["binary", "multiclass", "regression"] | None = None,
        classes: Sequence[Any] | None = None,
        rules: Sequence[Mapping[str, Any]] | None = None,
        confidence: float | None = None,
        budget: str | timedelta | Mapping[str, Any] | None = None,
        importance: Mapping[str, float] | None = None,
        lateness: str | timedelta | None = None,
        memory: int | None = None,
        segments: Sequence[str] | None = None,
        privacy: Privacy | None = None,
        ticks: Literal["auto", "manual"] = "auto",
        autosave: str | Path | None = None,
        on_alert: Callable[[dict[str, Any]], object] | None = None,
    ) -> None:
        if ticks not in ("auto", "manual"):
            raise InvalidArgumentError(f'`ticks` must be "auto" or "manual", got {ticks!r}', "call `tick()` yourself if manual")
        missing = next((name for name in segments or () if name not in reference.segments), None)
        if missing is not None:
            known = ", ".join(reference.segments) or "no segments"
            hint = f"it has {known}; make it by `Reference(frame, segments=[{missing!r}])`"
            raise InvalidArgumentError(f"`segments` names {missing!r}, which the reference has no segments of", hint)
        stated = _stated(window, task, classes, rules, confidence, budget, importance, lateness, memory)
        if policy is not None and stated:
            raise InvalidArgumentError(f"`policy` and `{next(iter(stated))}` both given", "a policy file states all of it")
        text = json.dumps(stated) if policy is None else read_policy(policy, name)
        native = _barograph.Monitor(name, text, None if privacy is None else privacy.describe(), reference._native)
        length = native.window
        if autosave is not None and Path(autosave).exists():
            native = self._resumed(Path(autosave), name, reference)
        self._begin(native, ticks, min(60.0, max(1.0, length / _SECOND / 10)), autosave, on_alert, privacy)

    @staticmethod
    def _resumed(path: Path, name: str, reference: Reference) -> _barograph.Monitor:
        native = _barograph.Monitor.from_bytes(path.read_bytes())
        if (native.name, native.reference.id) != (name, reference.id):
            raise IncompatibleError(
                f"`autosave` holds monitor {native.name!r} with reference {native.reference.id[:8]}, "
                f"expected {name!r} with {reference.id[:8]}",
                "choose another file, or move this one away",
            )
        return native

    def _begin(
        self,
        native: _barograph.Monitor,
        ticks: str,
        seconds: float,
        autosave: str | Path | None,
        on_alert: Callable[[dict[str, Any]], object] | None,
        privacy: Privacy | None,
    ) -> None:
        if native.privacy != (None if privacy is None else privacy.describe()):
            raise IncompatibleError(
                f"the monitor was made with privacy {native.privacy}, expected the same, got {privacy!r}", "pass it as `privacy=`"
            )
        self._privacy = privacy
        self._native = native
        self._observe_one = native.observe_one
        self._governed = native.governed
        self._admit = native.admit if native.governed else None
        self._regression = native.task == "regression"
        classes = json.loads(native.policy())["classes"]
        self._classes = {name: float(at) for at, name in enumerate(classes)}
        self._autosave = None if autosave is None else Path(autosave)
        self._on_alert = on_alert
        self._telling = threading.Lock()
        self._busy = quiet_at_fork(self)
        self._versions: set[str] = set()
        self._told = 0 if on_alert is None else len(json.loads(native.alerts(0)))
        self._failures = 0
        self._timer = None if ticks == "manual" else Timer(self, seconds)
        if self._governed:
            self._rehearse()

    def _rehearse(self) -> None:
        """Measures what a call costs even if its event is left out: nobody inside can see it."""
        row: dict[str, Any] = {}
        self._native.rehearse(True, 0.0)
        took = []
        for _ in range(_REHEARSALS):
            began = clock.thread_time_ns()
            for _ in range(_CALLS):
                self.observe(row, prediction=None, score=None, id=None)
            took.append((clock.thread_time_ns() - began) / _CALLS)
        self._native.rehearse(False, sorted(took)[_REHEARSALS // 2] / _SECOND)

    @property
    def name(self) -> str:
        """The name of the model."""
        return self._native.name

    def observe(
        self,
        row: Mapping[str, Any],
        *,
        prediction: Any = None,
        score: float | Sequence[float] | None = None,
        latency_seconds: float | None = None,
        id: int | str | None = None,
        time: datetime | None = None,
        error: bool = False,
        version: str | None = None,
        weight: float | None = None,
    ) -> None:
        """Adds one event: a mapping of the reference's columns to values. About 1 us.

        time: naive ones are UTC; without it, now. prediction, score: they also fill the reference's columns of these roles. A column that
        the row lacks is null; a field that is no column, and a value of another kind than its column (then null), are counted.
        error: the call failed. version: of the model; a new one is a deploy in the history. weight: how much the event
        counts in metrics (not in those of a regression), in [0, 1e12]; otherwise 1.
        """
        halvings = 0
        if self._admit is not None:
            if version is not None and version not in self._versions:
                self._see_version(version, clock.time_ns() if time is None else _instant(time))
            # First of all: an event that is left out has to cost next to nothing.
            halvings = self._admit()
            if halvings < 0:
                return
        if type(row) is not dict:
            if not isinstance(row, Mapping):
                raise InvalidArgumentError(f"`row` must be a mapping of columns to values, got {type(row).__name__}")
            row = dict(row)
        if self._privacy is not None:
            row = self._privacy.row(row)
        now = clock.time_ns() if time is None else _instant(time)
        if version is not None and version not in self._versions:
            self._see_version(version, now)
        chances: list[float] | None = None
        judged: Any = prediction if self._regression and score is None else score
        if self._classes:
            prediction, judged, chances = self._of_classes(prediction, score)
        self._observe_one(row, now, id, prediction, judged, chances, weight, latency_seconds, error, halvings)
        if self._timer is not None:
            self._timer.awake()

    def _see_version(self, version: str, now: int) -> None:
        self._versions.add(version)
        self._native.version(str(version), now)

    def _of_classes(self, prediction: Any, score: Any) -> tuple[Any, float | None, list[float] | None]:
        """Name and position of the class, and the probabilities, if they are one per class and in [0, 1]."""
        chances = None if score is None else [float(chance) for chance in score]
        if chances is not None and (len(chances) != len(self._classes) or not all(0.0 <= chance <= 1.0 for chance in chances)):
            raise InvalidArgumentError(f"`score` must be {len(self._classes)} probabilities, one per class, got {score!r}")
        if prediction is None and chances:
            prediction = list(self._classes)[chances.index(max(chances))]
        return prediction, None if prediction is None else self._classes.get(_class(prediction)), chances

    def observe_frame(
        self,
        frame: Frame,
        *,
        time: str | None = None,
        id: str | None = None,
        prediction: str | None = None,
        score: str | Sequence[str] | None = None,
        latency_seconds: str | None = None,
        error: str | None = None,
        version: str | None = None,
        weight: str | None = None,
    ) -> None:
        """Adds a frame of events, columns of the reference by name; the arguments name columns.

        time: naive ones are UTC; without it, or where it is null, now. id: integers or strings, what labels are joined by. score: of
        the positive class, in [0, 1]; of several classes the columns of their probabilities, in order. prediction: a column of another
        name than the reference's. error: true or not 0 where the call failed. version: a new
        one is a deploy in the history. weight: how much events count in metrics. Raises InvalidArgumentError for a name that the frame
        has not.
        """
        with self._measured():
            self._observe_parts(frame, time, id, prediction, score, latency_seconds, error, version, weight)
        if self._timer is not None:
            self._timer.awake()

    def _observe_parts(
        self,
        frame: Frame,
        time: str | None,
        id: str | None,
        prediction: str | None,
        score: str | Sequence[str] | None,
        latency_seconds: str | None,
        error: str | None,
        version: str | None,
        weight: str | None,
    ) -> None:
        chances: list[str] = []
        judged: Any = prediction if self._regression and score is None else score
        if self._classes:
            judged, chances = prediction, [] if score is None else [score] if isinstance(score, str) else list(score)
        roles = json.dumps(
            {"time": time, "id": id, "score": judged, "chances": chances, "weight": weight, "latency": latency_seconds, "error": error}
        )
        now = clock.time_ns()
        for part in parts(frame if self._privacy is None else self._privacy.frame(frame)):
            named = part if prediction is None else self._with_prediction(part, prediction)
            if version is not None:
                self._see_versions(named, version, time, now)
            with self._busy:
                self._native.observe(named, roles, now)

    @contextmanager
    def _measured(self) -> Iterator[None]:
        """Counts what its block takes, where there is a budget."""
        if not self._governed:
            yield
            return
        began = clock.thread_time_ns()
        try:
            yield
        finally:
            self._native.spend(clock.thread_time_ns() - began)

    def _see_versions(self, part: Any, version: str, time: str | None, now: int) -> None:
        import polars as pl

        frame = pl.DataFrame(part)
        if version not in frame.columns:
            raise InvalidArgumentError(f"`version` names column {version!r}, which the frame has not")
        first = frame.drop_nulls(version).unique(version, keep="first", maintain_order=True)
        times = first[time].cast(pl.Datetime("ns")).to_physical() if time is not None else [now] * first.height
        for name, at in zip(first[version], times, strict=True):
            self._native.version(str(name), now if at is None else at)

    def _with_prediction(self, part: Any, prediction: str) -> pl.DataFrame:
        """The predictions under the name that the reference has for them."""
        import polars as pl

        frame = pl.DataFrame(part)
        if prediction not in frame.columns:
            raise InvalidArgumentError(f"`prediction` names column {prediction!r}, which the frame has not")
        columns = json.loads(self._native.reference.schema_json())["columns"]
        wanted = next((column["name"] for column in columns if column["role"] == "prediction"), prediction)
        return frame.with_columns(pl.col(prediction).alias(wanted))

    def watch(self, function: F) -> F:
        """Decorates a predict function, sync or async, plain or generating: every call is observed, its latency measured.

        The first argument is the input: a mapping is one event; a frame, or an array of rows in the order of the reference's
        features, are many. What it returns fills the reference's column of role score (or prediction), if it is one number per event.
        A call that raises is an error. Whatever fails in here is counted in `counts()["failures"]` and logged once; the function's own
        result and errors pass untouched.
        """
        return watched(self, function)

    def deploy(self, version: str, *, time: datetime | None = None, mute: str | timedelta = "0s") -> None:
        """Declares a deploy: a row of the history; for as long as `mute` no alert opens (counted as muted), open ones may end."""
        start = clock.time_ns() if time is None else _instant(time)
        self._native.deploy(str(version), start, start + _nanoseconds("mute", mute))

    def merge(self, other: Monitor) -> None:
        """Adds what the monitor of another worker has observed and been told, once; it must be made alike, and must not have ticked.

        Workers observe with `ticks="manual"` and hand over `snapshot()`; the one that all are merged into ticks. Its windows, metrics
        and alerts are those of one monitor that saw everything.
        """
        with self._busy:
            self._native.merge(other._native)

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Measures the latency of its block."""
        began = clock.perf_counter()
        try:
            yield
        finally:
            self._call(clock.perf_counter() - began, None)

    def request(self, seconds: float, *, error: bool = False, time: datetime | None = None) -> None:
        """Adds a request without its event: latency, and whether it failed. What the adapters of web servers call."""
        self._native.call(seconds, clock.time_ns() if time is None else _instant(time), error)
        if self._timer is not None:
            self._timer.awake()

    def label(self, frame: Frame, *, id: str, label: str, time: str | None = None) -> None:
        """Adds labels by event id: 0 or 1, classes, or numbers for a regression; late, early, corrected, in any order.

        time: the column of arrival times; without it labels arrive now. Of several labels of an event the one that arrived last counts, or
        the first where the policy says `labels = "first"`; metrics change as if the other had never come. Labelled events stay for
        corrections while an eighth of `memory` holds them (128 bytes each), then the first labelled go; four million may wait for a label.
        """
        with self._measured():
            for part in parts(frame):
                with self._busy:
                    self._native.label(part, id, label, clock.time_ns(), time)

    def tick(self, now: datetime | None = None) -> None:
        """Closes every window that ends at or before `now` and judges it; tells `on_alert`, and saves to `autosave`."""
        with self._measured():
            with self._busy:
                self._native.tick(clock.time_ns() if now is None else _instant(now))
            if self._on_alert is not None:
                self._tell(self._on_alert)
            self._save()

    def _save(self) -> None:
        if self._autosave is not None:
            with self._busy:
                data = self._native.to_bytes()
            write_whole(self._autosave, data)
            self._native.wrote(len(data), 0)

    def _tell(self, on_alert: Callable[[dict[str, Any]], object]) -> None:
        """Hands on what changed since the last time, once, also where two threads tick."""
        with self._telling:
            changes = json.loads(self._native.alerts(self._told))
            self._told += len(changes)
        for change in changes:
            try:
                on_alert({"model": self.name, **change})
            except Exception as error:
                self._failed(error)

    def snapshot(self) -> bytes:
        """Everything the monitor knows, its reference included; equal monitors give equal bytes. No raw rows."""
        with self._measured(), self._busy:
            data = self._native.to_bytes()
        self._native.wrote(None, len(data))
        return data

    @classmethod
    def restore(
        cls,
        data: bytes,
        *,
        ticks: Literal["auto", "manual"] = "manual",
        autosave: str | Path | None = None,
        on_alert: Callable[[dict[str, Any]], object] | None = None,
        privacy: Privacy | None = None,
    ) -> Monitor:
        """A monitor that goes on as if nothing had happened. Raises SnapshotError for bytes that `snapshot` did not write."""
        out = cls.__new__(cls)
        out._begin(_barograph.Monitor.from_bytes(as_bytes(data)), ticks, 10.0, autosave, on_alert, privacy)
        return out

    def close(self) -> None:
        """Stops ticking by itself and saves to `autosave`."""
        if self._timer is not None:
            self._timer.stop()
        self._save()

    def _call(self, seconds: float, error: bool | None) -> None:
        """Counts a latency; with `error` the call stands for itself, as a request."""
        self._native.call(seconds, clock.time_ns(), error)

    def _columns(self) -> list[dict[str, str]]:
        """The columns of the reference."""
        columns: list[dict[str, str]] = json.loads(self._native.reference.schema_json())["columns"]
        return columns

    def _failed(self, error: Exception) -> None:
        """Nothing that fails in monitoring may reach the request it watches."""
        self._failures += 1
        if self._failures == 1:
            _LOG.warning("monitor %s: %s; further failures are counted only", self.name, error)

    def summary(self, start: datetime, end: datetime) -> Summary | None:
        """Numbers and drift of the tiles that begin in `[start, end)`; None without events."""
        with self._busy:
            text = self._native.summary(_instant(start), _instant(end))
        if text is None:
            return None
        fields = json.loads(text)
        metrics = {name: MetricValue(*values) for name, values in fields["metrics"].items()}
        return Summary(**{**fields, "metrics": metrics, "report": DriftReport(fields["report"])})

    def latencies(self, start: datetime | None = None, end: datetime | None = None) -> ExponentialHistogram | None:
        """Latencies in seconds of the tiles that begin in `[start, end)`, None without any; without times all since the monitor began."""
        if start is None or end is None:
            if start is not end:
                raise InvalidArgumentError("`start` and `end` must be given together")
            return ExponentialHistogram._of(self._native.lifetime())
        native = self._native.latencies(_instant(start), _instant(end))
        return None if native is None else ExponentialHistogram._of(native)

    def history(self, since: datetime | None = None) -> pl.DataFrame:
        """One row per closed window, column and tested method, and per metric of the model (column "(model)").

        since: windows that begin at or after it.
        """
        return rows_frame(json.loads(self._native.history(-(1 << 63) if since is None else _instant(since))))

    def alerts(self) -> pl.DataFrame:
        """Every change of an alert, oldest first: opened, escalated, eased, resolved.

        incident: the id of the alert that opened first of those that opened in the same window or in the next.
        severity: "page" for lost performance, latency and broken data, "ticket" for drift. reason: the rule, in words. cause: the bins or
        names that moved most, with their shares in the reference and now.
        """
        return alerts_frame(json.loads(self._native.alerts(0)))

    def plot(self, column: str | None = None, *, method: str | None = None, since: datetime | None = None) -> alt.LayerChart:
        """A chart of Altair: verdicts of all columns over time, or one number of a column (or of the model) with its limits and alerts.

        See `barograph.plots.history`.
        """
        from barograph import plots

        return plots.history(self.history(since), self.alerts(), column=column, method=method)

    def cost(self) -> dict[str, Any] | None:
        """What monitoring costs, and what was given up for it; None without a budget of processor time or bytes.

        limits: what is allowed, None for no limit. cpu: the share of one core that observing, labelling, ticking and saving took over the
        last ten seconds or so, threads together. memory, disk: bytes now, the reference left out. wire: bytes of snapshots per second.
        inclusion: the probability with which an event is kept now. left_out: events that were left out so far, exactly. given_up: detail
        that is given up, in words. over: a limit is passed by more than a fifth, and nothing more can be given up for it. counts: what was
        done how often. call_seconds, event_seconds: what an `observe` costs that is left out, and what one that is kept costs beside.
        """
        text = self._native.cost()
        return None if text is None else dict(json.loads(text))

    @property
    def policy(self) -> str:
        """What the monitor promises about false alerts, in words."""
        return self._native.promise()

    def counts(self) -> dict[str, int]:
        """Events; of these `sampled_out`, those that a budget left out, estimated as `events` is; late events, events without time, labels
        without event, what was given up, odd fields, failures of watched calls; with a budget `left_out`, the exact number.
        """
        return dict(self._native.counts()) | {"failures": self._failures}

    def __deepcopy__(self, memo: object) -> Monitor:
        # What is copied with a model watches with the same monitor.
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return Monitor.restore, (self.snapshot(),)

    def _repr_html_(self) -> str:
        from barograph.cells import monitor_cell

        return monitor_cell(self)

    def __repr__(self) -> str:
        return f"Monitor({self.name!r})"


def read_policy(policy: str | Path | Mapping[str, Any], model: str) -> str:
    """The policy of a model in a TOML file, or in a mapping of the same keys, checked, as JSON.

    Raises InvalidArgumentError with file, line and the nearest key.
    """
    if isinstance(policy, Mapping):
        return _barograph.policy_from_json(json.dumps(dict(policy)))
    try:
        text = Path(policy).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InvalidArgumentError(f"`policy` must name a TOML file, {policy} is not text") from error
    return _barograph.policy_from_toml(text, model, str(policy))


def _stated(
    window: str | timedelta | None,
    task: str | None,
    classes: Sequence[Any] | None,
    rules: Sequence[Mapping[str, Any]] | None,
    confidence: float | None,
    budget: str | timedelta | Mapping[str, Any] | None,
    importance: Mapping[str, float] | None,
    lateness: str | timedelta | None,
    memory: int | None,
) -> dict[str, Any]:
    """What was stated, in the words of a policy file."""
    if memory is not None and (not isinstance(memory, int) or memory < 1 << 20):
        raise InvalidArgumentError(f"`memory` must be a whole number of bytes, at least 1 MB, got {memory!r}")
    if budget is not None:
        budget = budget if isinstance(budget, Mapping) else {"ticket": budget}
        budget = {str(key): _amount(key, value) for key, value in budget.items() if value is not None}
    stated = {
        "window": None if window is None else _length("window", window),
        "task": task,
        "classes": None if classes is None else [_class(one) for one in classes],
        "rules": None if rules is None else [_rule(rule) for rule in rules],
        "settings": None if confidence is None else {"confidence": confidence},
        "budget": budget,
        "importance": None if importance is None else {name: float(weight) for name, weight in importance.items()},
        "lateness": None if lateness is None else _length("lateness", lateness),
        "memory": memory,
    }
    return {key: value for key, value in stated.items() if value is not None}


def _rule(rule: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(rule, Mapping):
        raise InvalidArgumentError(f"`rules` must hold mappings, got {type(rule).__name__}")
    fields = {str(key): value for key, value in rule.items() if value is not None}
    for key in ("below", "above", "objective", "threshold"):
        if isinstance(fields.get(key), float) and not math.isfinite(fields[key]):
            raise InvalidArgumentError(f"`rules`: `{key}` must be a finite number, got {fields[key]}")
    if "cooldown" in fields:
        fields["cooldown"] = _length("cooldown", fields["cooldown"])
    return fields


def _class(name: Any) -> str:
    """A class as text: whole numbers and booleans as Arrow's columns of them are read."""
    if isinstance(name, bool):
        return str(name).lower()
    item = getattr(name, "item", None)
    return str(item() if item is not None else name)


def _amount(key: str, value: Any) -> Any:
    """An entry of a budget: a length for a severity, else what it is, to be read where all limits are."""
    if key in ("ticket", "page"):
        return _length("budget", value)
    if isinstance(value, float) and not math.isfinite(value):
        raise InvalidArgumentError(f"`{key}` of the budget must be a finite number, got {value}")
    return value


def _length(argument: str, length: str | timedelta) -> str:
    return f"{_nanoseconds(argument, length)}ns"


def _nanoseconds(argument: str, length: str | timedelta) -> int:
    if isinstance(length, timedelta):
        return round(length.total_seconds() * _SECOND)
    found = re.fullmatch(r"(\d{1,6})([smhdw])", str(length))
    if not found:
        raise InvalidArgumentError(f'`{argument}` must be a timedelta or text such as "30m", "1h", "1d", got {length!r}')
    return int(found[1]) * _SECONDS[found[2]] * _SECOND


def _instant(time: datetime) -> int:
    if not isinstance(time, datetime):
        raise InvalidArgumentError(f"a time must be a datetime, got {type(time).__name__}")
    # In integers: a float of nanoseconds would lose the last microseconds.
    since = (time if time.tzinfo is None else time.astimezone(UTC).replace(tzinfo=None)) - _EPOCH
    return ((since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds) * 1000
