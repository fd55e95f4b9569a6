"""References: what current rows are compared with."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from barograph import _barograph
from barograph.errors import InvalidArgumentError
from barograph.frames import Frame, parts
from barograph.profiles import Profile
from barograph.schemas import Schema
from barograph.snapshots import Pickled, as_bytes

__all__ = ["Reference"]


class Reference(Pickled):
    """A frozen profile plus the bins it fixes; no raw rows.

    data: a frame (read once, twice where it holds more than a million rows: a one-shot reader is refused then) or a profile. A
    reference made from rows has about `bins` bins of equal mass per column of numbers, and values that are heavier than that
    stand alone; one made from a profile takes the cells of its histogram instead. With a column of times (role "time") it also
    learns how much rows of one window resemble each other, see `dependence`. scale: profiles made with it have 2^scale histogram cells
    per octave; fewer take less memory and make quantiles less exact (6: 0.54 %, 4: 2.2 %), tests stay as they are.

    schema: kinds and roles, inferred if absent. segments:
    columns of names, of which each value (the 100 most frequent; the others as one) gets coarse counts of its own, so that a monitor
    can watch it; the same as role "segment" in the schema. season: also keep coarse counts by hour of the day or week, day of the
    week or month of the year (UTC), so that a monitor compares a window with its like; needs a column of times. For either the frame
    is read once more.

    >>> reference = Reference({"x": list(range(1000))}, bins=100)
    >>> reference.rows, len(reference.id)
    (1000, 32)
    """

    def __init__(
        self,
        data: Frame | Profile,
        schema: Schema | None = None,
        *,
        bins: int = 1000,
        scale: int = 6,
        segments: Sequence[str] = (),
        season: Literal["hour_of_day", "hour_of_week", "day_of_week", "month_of_year"] | None = None,
    ) -> None:
        if not isinstance(scale, int) or not 0 <= scale <= 6:
            raise InvalidArgumentError(
                f"`scale` must be a whole number in [0, 6], got {scale!r}", "6 keeps quantiles within 0.54 %, 4 within 2.2 %"
            )
        created = time.time_ns()
        if isinstance(data, Profile) and (segments or season):
            what = "segments` need" if segments else "season` needs"
            raise InvalidArgumentError(f"`{what} rows, got a Profile", "make the reference of the frame itself")
        if isinstance(data, Profile):
            native = _barograph.Reference.from_profile(data._native, bins, created)
            self._native = native if scale == 6 else native.coarsened(scale)
            return
        if segments:
            schema = _with_segments(data, schema, segments)
        builder = _barograph.ReferenceBuilder(None if schema is None else schema.to_json(), bins, season)
        for part in parts(data):
            builder.update(part)
        while builder.fix():
            for part in parts(data, again=True):
                builder.count(part)
        native = builder.finish(created)
        self._native = native if scale == 6 else native.coarsened(scale)

    @classmethod
    def _of(cls, native: _barograph.Reference) -> Reference:
        out = cls.__new__(cls)
        out._native = native
        return out

    @property
    def id(self) -> str:
        """A hash of the content: equal references have equal ids."""
        return self._native.id

    @property
    def rows(self) -> int:
        """Rows it was made of."""
        return self._native.rows

    @property
    def created(self) -> datetime | None:
        """When it was made, UTC."""
        created = self._native.created
        return None if created is None else datetime.fromtimestamp(created / 1e9, UTC)

    @property
    def schema(self) -> Schema:
        """Kinds and roles of the columns."""
        return Schema(json.loads(self._native.schema_json())["columns"])

    @property
    def profile(self) -> Profile:
        """The frozen profile."""
        return Profile(self._native.profile())

    def bins(self, column: str) -> tuple[list[float], list[int]] | None:
        """Edges and counts of a column of numbers: `counts[0]` lies below, `counts[-1]` above; bins are right-closed."""
        return self._native.bins(column)

    def dependence(self, column: str) -> list[dict[str, float]]:
        """How much rows of one window resemble each other, per length of window: `hours`, and the factors of `values` and `nulls`.

        At least 1, and 1 for independent rows: the dispersion of the windows' counts about the whole. A comparison divides its
        counts by the factor of its window's length. Empty if the reference had no column of times or spans fewer than four windows.
        """
        return [{"hours": hours, "values": values, "nulls": nulls} for hours, values, nulls in self._native.dependence(column)]

    def to_bytes(self) -> bytes:
        """A snapshot."""
        return self._native.to_bytes()

    @classmethod
    def from_bytes(cls, data: bytes) -> Reference:
        """Reads a snapshot. Raises SnapshotError for anything else."""
        return cls._of(_barograph.Reference.from_bytes(as_bytes(data)))

    def save(self, path: str | Path) -> None:
        """Writes the snapshot to a file."""
        Path(path).write_bytes(self.to_bytes())

    @classmethod
    def load(cls, path: str | Path) -> Reference:
        """Reads a file that `save` wrote."""
        return cls.from_bytes(Path(path).read_bytes())

    @property
    def season(self) -> str | None:
        """What windows are also compared by, such as "hour_of_week"."""
        return self._native.season()

    @property
    def segments(self) -> dict[str, list[str]]:
        """The values of each segment column that are counted apart, the most frequent first."""
        return dict(self._native.segments())

    def _repr_html_(self) -> str:
        from barograph.cells import reference_cell

        return reference_cell(self)

    def __repr__(self) -> str:
        return f"Reference({self.id[:8]}, {self.rows:,} rows, {len(self.schema.kinds)} columns)"


def _with_segments(data: Frame, schema: Schema | None, segments: Sequence[str]) -> Schema:
    schema = Schema.infer(data) if schema is None else schema
    for name in segments:
        if name not in schema.kinds:
            raise InvalidArgumentError(
                f"`segments` names column {name!r}, which the frame has not", f"it has {', '.join(list(schema.kinds)[:20])}"
            )
        if schema.kinds[name] not in ("category", "boolean"):
            raise InvalidArgumentError(
                f"`segments` must name columns of names, {name!r} is of kind {schema.kinds[name]}", "cast it to text, or bucket it"
            )
    return schema.with_roles(dict.fromkeys(segments, "segment"))
