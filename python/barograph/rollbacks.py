"""What a decision does, guarded: dry unless told otherwise, not too often, only if nobody else was faster, and written down."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from barograph.errors import InvalidArgumentError
from barograph.monitors import _instant, _nanoseconds

if TYPE_CHECKING:
    from barograph.rollout import Decision

__all__ = ["Action", "Callback", "MlflowAlias", "Outcome"]


class Outcome(NamedTuple):
    """Whether something was done, and why or why not."""

    done: bool
    reason: str


class Action:
    """Does something when a decision says so.

    on: the decision it acts on. dry_run: says what it would do, and does nothing; the default. cooldown: time between two deeds.
    most: deeds within `period`. audit: a file to which one line of JSON is added for every decision that was handed in, with its
    evidence and what was done; it is also what cooldown and counts are read from, so they hold across restarts.
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
        if most < 1:
            raise InvalidArgumentError(f"`most` must be at least 1, got {most}")
        self.on, self.dry_run, self.most = on, dry_run, most
        self._cooldown, self._period = _nanoseconds("cooldown", cooldown), _nanoseconds("period", period)
        self._audit = None if audit is None else Path(audit)
        self._deeds: list[int] = self._read()

    def _read(self) -> list[int]:
        if self._audit is None or not self._audit.exists():
            return []
        deeds = []
        for number, line in enumerate(self._audit.read_text(encoding="utf-8").splitlines(), 1):
            try:
                entry = json.loads(line)
                if entry["done"] and entry["action"] == self.name:
                    deeds.append(_instant(datetime.fromisoformat(entry["time"])))
            except (ValueError, KeyError, TypeError) as error:
                raise InvalidArgumentError(f"`audit` line {number} of {self._audit} is no entry of an audit log: {error}") from error
        return deeds

    @property
    def name(self) -> str:
        """What it does and to what."""
        raise NotImplementedError

    def do(self, decision: Decision) -> Outcome:
        """The deed itself, once all guards allow it."""
        raise NotImplementedError

    def act(self, decision: Decision, now: datetime | None = None) -> Outcome:
        """Does it if the decision is the one to act on and no guard forbids it. An error of the deed is an outcome, not an exception."""
        moment = datetime.now(UTC) if now is None else now
        outcome = self._outcome(decision, _instant(moment))
        if outcome.done:
            self._deeds.append(_instant(moment))
        self._write(decision, outcome, moment)
        return outcome

    def _outcome(self, decision: Decision, now: int) -> Outcome:
        if decision.decision != self.on:
            return Outcome(False, f"the decision is to {decision.decision}" if decision.decision != "inconclusive" else "inconclusive")
        if self._deeds and now - self._deeds[-1] < self._cooldown:
            return Outcome(False, "the last time was too short ago")
        if sum(now - deed < self._period for deed in self._deeds) >= self.most:
            return Outcome(False, f"done {self.most} times already in this period")
        if self.dry_run:
            return Outcome(False, f"dry run: would {self.name}")
        try:
            return self.do(decision)
        except Exception as error:
            # A registry that is down must not take the serving process with it.
            return Outcome(False, f"{self.name} failed: {type(error).__name__}: {error}")

    def _write(self, decision: Decision, outcome: Outcome, moment: datetime) -> None:
        if self._audit is None:
            return
        stamp = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).isoformat()
        entry = {"time": stamp, "action": self.name, "done": outcome.done, "reason": outcome.reason, "decision": decision.to_dict()}
        with self._audit.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry, ensure_ascii=False) + "\n")


class Callback(Action):
    """Calls a function of yours with the decision; what it raises is the outcome's reason."""

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
    Needs `mlflow` (extra `mlflow`); client: an `MlflowClient`, made from the environment if absent.
    """

    def __init__(self, model: str, alias: str, *, expected: str | int, to: str | int, client: Any = None, **guards: Any) -> None:
        self.model, self.alias, self.expected, self.to = model, alias, str(expected), str(to)
        if self.expected == self.to:
            raise InvalidArgumentError(f"`to` must be another version than `expected`, got {to!r} twice")
        self._client = client
        super().__init__(**guards)

    @property
    def name(self) -> str:
        """What is moved from where to where."""
        return f"move {self.model}@{self.alias} from version {self.expected} to {self.to}"

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
