"""What a decision does, guarded: dry unless told otherwise, not too often, only if nobody else was faster, and written down."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from barograph.errors import InvalidArgumentError
from barograph.monitors import _instant, _nanoseconds

if TYPE_CHECKING:
    from barograph.decisions import Decision

__all__ = ["Action", "Callback", "MlflowAlias", "Outcome"]


class Outcome(NamedTuple):
    """Whether something was done, and why or why not."""

    done: bool
    reason: str


class Action:
    """Does something when a decision says so, once per decision.

    on: the decision it acts on. dry_run: says what it would do, and does nothing; the default. cooldown: time between two deeds to one
    target, whichever versions they were about. most: deeds within `period`. audit: a file to which one line of JSON is added for every
    decision that was handed in, with its evidence and what was done. It is also what cooldown and counts are read from, so they hold
    across restarts, and for processes that do not act in the same instant; without it they hold in this object. A log that cannot be
    written forbids the deed; of a line that a crash cut short nothing is read.
    """

    def __init__(
        self,
        *,
        on: str = "roll back",
        dry_run: bool = True,
        cooldown: str | timedelta = "1h",
        most: int = 3,
        period: str | timedelta = "1d",
        audit: str | Path | None = None,
    ) -> None:
        if on not in ("promote", "roll back", "inconclusive"):
            raise InvalidArgumentError(f"`on` must be promote, roll back or inconclusive, got {on!r}")
        if not isinstance(most, int) or most < 1:
            raise InvalidArgumentError(f"`most` must be a whole number of at least 1, got {most!r}")
        self.on, self.dry_run, self.most = on, dry_run, most
        self._cooldown, self._period = _nanoseconds("cooldown", cooldown), _nanoseconds("period", period)
        self._audit = None if audit is None else Path(audit)
        self._deeds: list[tuple[int, str]] = []
        self._read_up_to, self._lines = 0, 0
        self._catch_up()

    def _catch_up(self) -> None:
        """Reads the deeds that were added to the log since the last time, by whomever."""
        if self._audit is None or not self._audit.exists():
            return
        with self._audit.open("rb") as file:
            file.seek(self._read_up_to)
            added = file.read()
        # A line without its end is still being written, or was cut short by a crash.
        whole = added[: added.rfind(b"\n") + 1]
        for line in whole.splitlines():
            self._lines += 1
            try:
                entry = json.loads(line)
                if entry["done"] and entry["target"] == self.target:
                    self._deeds.append((_instant(datetime.fromisoformat(entry["time"])), _key(entry["decision"])))
            except (ValueError, KeyError, TypeError) as error:
                if line.startswith(_BEGINNING) and isinstance(error, ValueError):
                    continue
                raise InvalidArgumentError(f"`audit` line {self._lines} of {self._audit} is no entry of an audit log: {error}") from error
        self._read_up_to += len(whole)

    @property
    def name(self) -> str:
        """What it does and to what."""
        raise NotImplementedError

    @property
    def target(self) -> str:
        """What it does it to: deeds to one target share cooldown and counts."""
        return self.name

    def do(self, decision: Decision) -> Outcome:
        """The deed itself, once all guards allow it."""
        raise NotImplementedError

    def act(self, decision: Decision, now: datetime | None = None) -> Outcome:
        """Does it if the decision is the one to act on and no guard forbids it. An error is an outcome, not an exception.

        A deed that failed counts for nothing: it is tried again when the decision is handed in again.
        """
        moment = datetime.now(UTC) if now is None else now
        if self._audit is None:
            outcome = self._outcome(decision, _instant(moment))
            if outcome.done:
                self._deeds.append((_instant(moment), _key(decision.to_dict())))
            return outcome
        try:
            # Opened before the deed: what cannot be written down is not done.
            with self._audit.open("ab") as file:
                self._catch_up()
                return self._written(file, decision, moment)
        except (OSError, InvalidArgumentError) as error:
            return Outcome(False, f"the audit log cannot be kept: {error}")

    def _written(self, file: BinaryIO, decision: Decision, moment: datetime) -> Outcome:
        outcome = self._outcome(decision, _instant(moment))
        try:
            # The next look reads this entry back, as it does everybody's.
            self._write(file, decision, outcome, moment)
        except OSError as error:
            if outcome.done:
                self._deeds.append((_instant(moment), _key(decision.to_dict())))
            return Outcome(outcome.done, f"{outcome.reason}; not written down: {error}")
        return outcome

    def _outcome(self, decision: Decision, now: int) -> Outcome:
        if decision.decision != self.on:
            return Outcome(False, f"the decision is to {decision.decision}" if decision.decision != "inconclusive" else "inconclusive")
        if any(key == _key(decision.to_dict()) for _, key in self._deeds):
            return Outcome(False, "done for this decision already")
        if any(now - time < self._cooldown for time, _ in self._deeds):
            return Outcome(False, "the last time was too short ago")
        if sum(now - time < self._period for time, _ in self._deeds) >= self.most:
            return Outcome(False, f"done {self.most} times already in this period")
        if self.dry_run:
            return Outcome(False, f"dry run: would {self.name}")
        try:
            return self.do(decision)
        except Exception as error:
            # A registry that is down must not take the serving process with it.
            return Outcome(False, f"{self.name} failed: {type(error).__name__}: {error}")

    def _write(self, file: BinaryIO, decision: Decision, outcome: Outcome, moment: datetime) -> None:
        stamp = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).isoformat()
        entry = {"time": stamp, "target": self.target, "action": self.name, "done": outcome.done, "reason": outcome.reason}
        line = json.dumps({**entry, "decision": decision.to_dict()}, ensure_ascii=False).encode() + b"\n"
        size = file.seek(0, os.SEEK_END)
        if self._audit is not None and size:
            with self._audit.open("rb") as before:
                before.seek(size - 1)
                # What a crash cut short stays, on a line of its own.
                line = line if before.read() == b"\n" else b"\n" + line
        file.write(line)
        file.flush()
        os.fsync(file.fileno())


_BEGINNING = b'{"time": '


def _key(decision: dict[str, Any]) -> str:
    """What makes two decisions the same: one that stands is handed in again and again."""
    return "|".join(str(decision[name]) for name in ("decision", "champion", "challenger", "time"))


class Callback(Action):
    """Calls a function of yours with the decision; what it raises is the outcome's reason.

    name: of what it does; callbacks of one name and audit log share cooldown and counts.

    >>> from datetime import UTC, datetime
    >>> from barograph.rollout import Decision
    >>> back = Decision("roll back", "error", [], datetime(2026, 3, 1, tzinfo=UTC), "v1", "v2")
    >>> Callback(print, name="switch traffic").act(back).reason
    'dry run: would switch traffic'
    """

    def __init__(self, function: Callable[[Decision], object], *, name: str = "call back", **guards: Any) -> None:
        self._function, self._name = function, name
        super().__init__(**guards)

    @property
    def name(self) -> str:
        """As given."""
        return self._name

    def do(self, decision: Decision) -> Outcome:
        """Calls it."""
        said = self._function(decision)
        return Outcome(True, self.name if said is None else f"{self.name}: {said}")


class MlflowAlias(Action):
    """Moves an alias of MLflow's model registry, only if it still points where it is expected to.

    model, alias: as in `models:/model@alias`. expected: the version it must point at now. to: the version it is moved to. Somebody who was
    faster is not overruled. MLflow has no compare-and-set: the alias is read, written and read again, which leaves a gap of milliseconds.
    Cooldown and counts are the alias's. Needs `mlflow` (extra `mlflow`); client: an `MlflowClient`, made from the environment if absent.
    """

    def __init__(self, model: str, alias: str, *, expected: str | int, to: str | int, client: Any = None, **guards: Any) -> None:
        self.model, self.alias, self.expected, self.to = model, alias, str(expected), str(to)
        if self.expected == self.to:
            raise InvalidArgumentError(f"`to` must be another version than `expected`, got {to!r} twice")
        if client is None and find_spec("mlflow") is None:
            # Found out now, not in the middle of an incident.
            raise ImportError("this needs MLflow: pip install 'barograph[mlflow]'")
        self._client = client
        super().__init__(**guards)

    @property
    def name(self) -> str:
        """What is moved from where to where."""
        return f"move {self.model}@{self.alias} from version {self.expected} to {self.to}"

    @property
    def target(self) -> str:
        """The alias, whichever versions it is moved between."""
        return f"{self.model}@{self.alias}"

    def do(self, decision: Decision) -> Outcome:
        """Reads, compares, writes, reads again."""
        del decision
        client = self._client
        if client is None:
            from mlflow import MlflowClient

            client = self._client = MlflowClient()
        client.get_model_version(self.model, self.to)
        found = str(client.get_model_version_by_alias(self.model, self.alias).version)
        if found != self.expected:
            return Outcome(False, f"{self.model}@{self.alias} points at version {found} by now, not at {self.expected}: left alone")
        client.set_registered_model_alias(self.model, self.alias, self.to)
        after = str(client.get_model_version_by_alias(self.model, self.alias).version)
        if after != self.to:
            return Outcome(False, f"{self.model}@{self.alias} points at version {after} after the move: somebody else moved it too")
        return Outcome(True, self.name)
