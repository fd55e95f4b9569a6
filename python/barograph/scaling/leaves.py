"""Leaves: what a worker of any engine makes of its rows, as bytes, and how leaves become one.

An engine that knows `leaf` and `merge` can count: one binary column is all that travels. State lives in return values alone, never in an
actor: a leaf that is made again, because its worker died, takes the place of the one that was lost, and no row counts twice.

| | |
|---|---|
| one batch, on your own | `leaf(batch, schema=schema)` |
| many batches, one setting for all workers | `Recipe.of(sample, ...)` on the driver, `recipe.leaf(batches)` on the workers |
| bytes into one, in any order and grouping | `merge(a, b, c)` |
| the result | `read(data)`, or `read_segments(data)` with one profile per segment |

Fix the schema before rows are split: a part of the rows may look different (a column of few values, or of nulls alone), and parts of
different schemas are refused, not guessed at.
"""

from __future__ import annotations

import functools
import hashlib
import heapq
import json
import sys
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from barograph import _barograph
from barograph.errors import FrameError, IncompatibleError, InvalidArgumentError, SnapshotError
from barograph.frames import Frame, parts
from barograph.profiles import Profile
from barograph.schemas import Schema
from barograph.snapshots import as_bytes

if TYPE_CHECKING:
    import polars as pl

    from barograph.references import Reference

__all__ = ["SEGMENTS", "Key", "Recipe", "Segments", "as_leaf", "leaf", "merge", "read", "read_segments"]

SEGMENTS = 100
"""Segments that are counted apart by default; as many as a reference keeps of a column."""
_MOST_SEGMENTS = 10_000
_MAGIC = b"BGLF\x01"
_HEAD = len(_MAGIC) + 8
_HINT = "fix it before rows are split: `schema=Schema.infer(sample)`, the same for every worker"

Key: TypeAlias = tuple[str | int | bool | None, ...]
"""The values of the grouping columns of one segment."""


def leaf(
    batch: Frame,
    *,
    schema: Schema | None = None,
    reference: Reference | None = None,
    by: str | Sequence[str] | None = None,
    limit: int = SEGMENTS,
) -> bytes:
    """What a worker returns for its rows: a profile of them, or one per segment, as bytes.

    batch: anything `bg.profile` reads; empty ones are fine. schema: kinds and roles of the columns, the same on every worker; a column
    of it that the batch lacks counts as null in all its rows, one that is not in it is not counted. Without a schema it is inferred from
    this batch, and `merge` refuses parts whose schemas came out different. reference: counts its bins too. by: one or several columns of
    text, whole numbers, booleans or dates (these as ISO text); nulls are a segment of their own. limit: so many segments are kept apart,
    in [1, 10,000]: those whose hashes are smallest, so that which ones does not depend on how rows were split; the rows of all others are
    counted together, in `Segments.other`.

    Raises FrameError for a batch without a column of `by` or that cannot be read, InvalidArgumentError for grouping columns of another
    type. Cost: that of `bg.profile`; with `by` also of grouping the rows. 1 to 20 KB per column and segment.

    >>> parts = [leaf({"x": [1.0, None]}), leaf({"x": [float("inf"), 3.0]})]
    >>> read(merge(*parts))["x"].count
    4
    """
    return _Counting(schema, reference, _columns(by), _limit(limit)).of([batch])


def merge(*parts: bytes) -> bytes:
    """Leaves, or what `merge` gave, as one: the same bytes in any order and grouping, and those of a leaf of all rows.

    Where a column has more than 8,192 names besides the reference's, counts of the rarer ones are within their stated error instead;
    totals, distinct counts and the reference's names stay the same.

    Raises InvalidArgumentError without parts, SnapshotError for bytes that are no leaf, IncompatibleError, naming both, for parts of
    different versions of the package, schemas, references or groupings.
    """
    if not parts:
        raise InvalidArgumentError("`parts` must hold at least one leaf, got none")
    total = _State.decode(parts[0], 0)
    for at, part in enumerate(parts[1:], 1):
        total.merge(_State.decode(part, at), at)
    return total.encode()


def as_leaf(profile: Profile) -> bytes:
    """A profile as a leaf, to be merged with others: of the same schema and reference."""
    return _State((), [], SEGMENTS, profile._native, {}).encode()


def read(data: bytes) -> Profile:
    """The profile of all rows, those of all segments together.

    Raises SnapshotError for bytes that are no leaf.
    """
    return Profile(_State.decode(data, None).total())


def read_segments(data: bytes) -> Segments:
    """The profiles of a leaf made with `by`. Raises InvalidArgumentError for one made without."""
    state = _State.decode(data, None)
    if not state.by:
        raise InvalidArgumentError("`data` has no segments", "make the leaves with `by=`, or use `read`")
    return Segments(state)


class Segments(Mapping[Any, Profile]):
    """Profiles by segment, in the order of their values: a mapping from the value, or the tuple of values, to the profile.

    >>> segments = read_segments(leaf({"x": [1, 2, 3], "c": ["a", "b", "a"]}, by="c"))
    >>> segments["a"].rows, segments.other.rows, segments.total.rows
    (2, 0, 3)
    """

    def __init__(self, state: _State) -> None:
        self._state = state
        self._keys = sorted(state.segments, key=_order)

    @property
    def by(self) -> tuple[str, ...]:
        """The grouping columns."""
        return self._state.by

    @property
    def limit(self) -> int:
        """How many segments were to be kept apart."""
        return self._state.limit

    @property
    def other(self) -> Profile:
        """The rows of all segments beyond the limit; without rows if there were none."""
        return Profile(self._state.rest)

    @property
    def total(self) -> Profile:
        """All rows."""
        return Profile(self._state.total())

    def __getitem__(self, value: Any) -> Profile:
        key = value if isinstance(value, tuple) else (value,)
        return Profile(self._state.segments[key])

    def __iter__(self) -> Iterator[Any]:
        return iter([key[0] for key in self._keys] if len(self.by) == 1 else self._keys)

    def __len__(self) -> int:
        return len(self._keys)

    def to_frame(self) -> pl.DataFrame:
        """The rows of `Profile.to_frame` of every segment, behind its grouping columns as text; `other` says which rows are of the rest."""
        import polars as pl

        def of(key: Key | None, profile: Profile) -> pl.DataFrame:
            values = dict.fromkeys(self.by) if key is None else dict(zip(self.by, key, strict=True))
            named = [pl.lit(None if value is None else str(value), dtype=pl.String).alias(f"by_{name}") for name, value in values.items()]
            return profile.to_frame().select(*named, pl.lit(key is None).alias("other"), pl.all())

        frames = [of(key, Profile(self._state.segments[key])) for key in self._keys]
        if self._state.rest.rows or not frames:
            frames.append(of(None, self.other))
        return pl.concat(frames)

    def __repr__(self) -> str:
        return f"Segments({len(self)} by {', '.join(self.by)}, {self.other.rows:,} of {self.total.rows:,} rows in the rest)"


@dataclass(frozen=True)
class Recipe:
    """What every worker has to know to make a leaf; made once, on the driver, and sent along with the work (it pickles).

    schema: its JSON. reference: its snapshot. exact: a batch with a column that the schema lacks is an error. version: of the package
    that made it; a worker of another version refuses it.
    """

    schema: str
    reference: bytes | None
    by: tuple[str, ...]
    limit: int
    exact: bool
    version: str

    @classmethod
    def of(
        cls,
        sample: Frame,
        *,
        schema: Schema | None = None,
        reference: Reference | None = None,
        by: str | Sequence[str] | None = None,
        limit: int = SEGMENTS,
    ) -> Recipe:
        """Fixes the schema: the one given, else what `bg.profile(sample, reference=reference)` takes.

        sample: the first rows, at least one batch of them. Without a schema, columns that come up later are an error.
        """
        fixed = schema
        if fixed is None:
            builder = _barograph.ProfileBuilder(None, None if reference is None else reference._native)
            builder.update(next(parts(sample)))
            fixed = Profile(builder.finish()).schema
        state = None if reference is None else reference.to_bytes()
        return cls(fixed.to_json(), state, _columns(by), _limit(limit), schema is None, _barograph.__version__)

    def leaf(self, batches: Iterable[Frame]) -> bytes:
        """One leaf of all these batches; of none, an empty one."""
        if self.version != _barograph.__version__:
            raise IncompatibleError(
                f"the driver has barograph {self.version}, this worker {_barograph.__version__}", "install one version everywhere"
            )
        reference = None if self.reference is None else _reference(self.reference)
        return _Counting(_schema(self.schema), reference, self.by, self.limit, self.exact).of(batches)

    def columns(self, names: Iterable[str]) -> list[str]:
        """Of a frame's columns, those that a leaf reads: what to select before rows travel."""
        wanted = {column["name"] for column in json.loads(self.schema)["columns"]} | set(self.by)
        return [name for name in names if name in wanted]


@functools.lru_cache(maxsize=4)
def _schema(text: str) -> Schema:
    return Schema(json.loads(text)["columns"])


@functools.lru_cache(maxsize=4)
def _reference(data: bytes) -> Reference:
    from barograph.references import Reference

    return Reference.from_bytes(data)


class _Counting:
    """Batches on their way into one leaf."""

    def __init__(self, schema: Schema | None, reference: Reference | None, by: tuple[str, ...], limit: int, exact: bool = False) -> None:
        self._schema, self._by, self._limit, self._exact = schema, by, limit, exact
        self._reference = None if reference is None else reference._native
        self._kinds: list[str | None] = [None] * len(by)
        # All rows, or with `by` those of no segment that is kept.
        self._rest: _barograph.ProfileBuilder | None = None
        self._evicted: list[_barograph.Profile] = []
        self._segments: dict[Key, _barograph.ProfileBuilder] = {}

    def of(self, batches: Iterable[Frame]) -> bytes:
        for batch in batches:
            for part in parts(batch):
                self._update(part)
        if self._rest is None:
            if self._schema is None:
                raise InvalidArgumentError("there is no batch to infer a schema from", "pass `schema=`")
            self._rest = self._begun([])
        rest = self._rest.finish()
        for profile in self._evicted:
            rest.merge(profile)
        segments = {key: builder.finish() for key, builder in self._segments.items()}
        return _State(self._by, self._kinds, self._limit, rest, segments).encode()

    def _update(self, part: Any) -> None:
        if self._schema is None and not self._by:
            # The builder infers, from its first batch, as `bg.profile` does.
            self._rest = self._rest or self._builder()
            self._rest.update(part)
            return
        names = None if self._by else _names(part)
        if names is None:
            part, names = _as_polars(part)
        if self._schema is None:
            builder = self._builder()
            builder.update(part)
            self._schema = Profile(builder.finish()).schema
        odd = next((name for name in names if name not in self._schema.kinds and name not in self._by), None)
        if self._exact and odd is not None:
            raise FrameError(f"column {odd!r} is not in the schema that was inferred from the first rows", "pass `schema=` with it")
        if self._rest is None:
            self._rest = self._begun(names)
        if self._by:
            self._group(part, names)
        else:
            self._rest.update(part)

    def _group(self, frame: pl.DataFrame, names: list[str]) -> None:
        import polars as pl

        absent = next((name for name in self._by if name not in names), None)
        if absent is not None:
            raise FrameError(f"`by` names column {absent!r}, which the batch has not", f"it has {', '.join(names[:20])}")
        assert self._rest is not None
        # Grouping is by columns of their own, so that one that is also counted is counted as it came.
        keys = [f"\0by{at}" for at in range(len(self._by))]
        frame = frame.with_columns(self._values(frame[name], at).alias(keys[at]) for at, name in enumerate(self._by))
        found = frame.select(keys).unique()
        rows = found.rows()
        kept = _kept(self._segments.keys() | set(rows), self._limit)
        for key in [key for key in self._segments if key not in kept]:
            self._evicted.append(self._segments.pop(key).finish())
            if len(self._evicted) > 1:
                self._evicted[0].merge(self._evicted.pop())
        if not kept.issuperset(rows):
            chosen = found.filter(pl.Series([key in kept for key in rows]))
            self._rest.update(frame.join(chosen, on=keys, how="anti", nulls_equal=True).drop(keys))
            frame = frame.join(chosen, on=keys, how="semi", nulls_equal=True)
        for key, part in frame.partition_by(keys, as_dict=True, include_key=False).items():
            if key not in self._segments:
                self._segments[key] = self._begun(names)
            self._segments[key].update(part)

    def _values(self, series: pl.Series, at: int) -> pl.Series:
        import polars as pl

        dtype = series.dtype
        if dtype == pl.Null:
            return series.cast(pl.String)
        if dtype.is_integer():
            kind = "integer"
        elif dtype == pl.Boolean:
            kind = "boolean"
        elif dtype in (pl.String, pl.Categorical, pl.Enum):
            kind, series = "text", series.cast(pl.String)
        elif dtype in (pl.Date, pl.Datetime):
            kind, series = "time", series.dt.to_string("iso")
        else:
            raise InvalidArgumentError(
                f"`by` must name columns of text, whole numbers, booleans or dates, {self._by[at]!r} is {dtype}", "cast it, or bucket it"
            )
        self._kinds[at] = _one_kind(self._by[at], self._kinds[at], kind)
        return series

    def _builder(self) -> _barograph.ProfileBuilder:
        return _barograph.ProfileBuilder(None if self._schema is None else self._schema.to_json(), self._reference)

    def _begun(self, names: Sequence[str]) -> _barograph.ProfileBuilder:
        """A builder that has every column of the schema, whatever its first batch has."""
        assert self._schema is not None
        builder = self._builder()
        if self._by or not set(self._schema.kinds) <= set(names):
            builder.update(_empty(self._schema))
        return builder


class _State:
    """A leaf, or several merged, in memory."""

    def __init__(
        self,
        by: tuple[str, ...],
        kinds: list[str | None],
        limit: int,
        rest: _barograph.Profile,
        segments: dict[Key, _barograph.Profile],
        version: str = _barograph.__version__,
    ) -> None:
        self.by, self.kinds, self.limit, self.version = by, kinds, limit, version
        self.rest, self.segments = rest, segments

    def merge(self, other: _State, at: int) -> None:
        """Adds another one, the part `at` of those that are merged."""
        self._fits(other, at)
        self.kinds = [_one_kind(name, *pair) for name, *pair in zip(self.by, self.kinds, other.kinds, strict=True)]
        kept = _kept(self.segments.keys() | other.segments.keys(), self.limit)
        for key in [key for key in self.segments if key not in kept]:
            self.rest.merge(self.segments.pop(key))
        for key, profile in other.segments.items():
            if key not in kept:
                self.rest.merge(profile)
            elif key in self.segments:
                self.segments[key].merge(profile)
            else:
                self.segments[key] = profile
        self.rest.merge(other.rest)

    def _fits(self, other: _State, at: int) -> None:
        def refuse(what: str, mine: object, theirs: object, hint: str) -> None:
            if mine != theirs:
                raise IncompatibleError(f"parts 0 and {at} cannot be merged: {what} {mine} in one and {theirs} in the other", hint)

        refuse("barograph is", self.version, other.version, "install one version on every worker")
        refuse("they are grouped by", list(self.by), list(other.by), "make all leaves with the same `by`")
        refuse("the limit of segments is", self.limit, other.limit, "make all leaves with the same `limit`")
        mine, theirs = ((state.rest.reference or "none")[:12] for state in (self, other))
        refuse("the reference is", mine, theirs, "make all leaves with the same `reference`")
        mine_json, their_json = self.rest.schema_json(), other.rest.schema_json()
        if mine_json != their_json:
            columns = [{c["name"]: f"{c['kind']} {c['role']}" for c in json.loads(text)["columns"]} for text in (mine_json, their_json)]
            for name in [*columns[0], *columns[1]]:
                refuse(f"column {name!r} is", columns[0].get(name, "absent"), columns[1].get(name, "absent"), _HINT)
            refuse("the order of columns is", list(columns[0]), list(columns[1]), _HINT)

    def total(self) -> _barograph.Profile:
        """All rows, as a profile of its own."""
        out = _barograph.Profile.from_bytes(self.rest.to_bytes())
        for profile in self.segments.values():
            out.merge(profile)
        return out

    def encode(self) -> bytes:
        """The same bytes for the same content: segments are ordered by their values."""
        rest = self.rest.to_bytes()
        bodies = {key: self.segments[key].to_bytes() for key in sorted(self.segments, key=_order)}
        head = {
            "by": list(self.by),
            "kinds": self.kinds,
            "limit": self.limit,
            "rest": len(rest),
            "segments": [[list(key), len(body)] for key, body in bodies.items()],
            "version": self.version,
        }
        text = json.dumps(head, ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode()
        payload = b"".join([text, rest, *bodies.values()])
        return _MAGIC + len(text).to_bytes(4, "little") + zlib.crc32(payload).to_bytes(4, "little") + payload

    @classmethod
    def decode(cls, data: object, at: int | None) -> _State:
        """Reads what `encode` wrote; `at` names the part in errors. Raises SnapshotError for anything else."""
        name = "`data`" if at is None else f"part {at}"
        whole = as_bytes(data)
        if whole[: len(_MAGIC)] != _MAGIC or len(whole) < _HEAD:
            began = f"{len(whole)} bytes that begin with {whole[:8]!r}"
            raise SnapshotError(
                f"{name} must be what `leaf` or `merge` gave, got {began}", "a profile's own bytes are read by `Profile.from_bytes`"
            )
        length, checksum = (int.from_bytes(whole[start : start + 4], "little") for start in (len(_MAGIC), len(_MAGIC) + 4))
        if zlib.crc32(whole[_HEAD:]) != checksum:
            raise SnapshotError(f"{name} is damaged: its checksum is another", "was it cut off on its way?")
        try:
            return cls._read(whole, _HEAD + length)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise SnapshotError(f"{name} is no leaf: {error}") from error

    @classmethod
    def _read(cls, whole: bytes, start: int) -> _State:
        head = json.loads(whole[_HEAD:start])
        by, kinds, limit, version = (head[word] for word in ("by", "kinds", "limit", "version"))
        named = isinstance(by, list) and all(isinstance(name, str) for name in by) and isinstance(version, str)
        if not named or len(kinds) != len(by) or not all(kind is None or kind in _KINDS for kind in kinds):
            raise ValueError("its head is not one")
        sizes = [([], head["rest"]), *head["segments"]]
        if len(sizes) - 1 > _limit(limit) or (len(sizes) > 1 and not by):
            raise ValueError("it holds more segments than its limit")
        profiles: list[tuple[Key, _barograph.Profile]] = []
        for key, size in sizes:
            if type(size) is not int or not 0 <= size <= len(whole) - start:
                raise ValueError("a size is beyond its end")
            if not all(value is None or type(value) in (str, int, bool) for value in key):
                raise ValueError("a segment's value is none")
            "".join(value for value in key if isinstance(value, str)).encode()
            profiles.append((tuple(key), _barograph.Profile.from_bytes(whole[start : start + size])))
            start += size
        rest, segments = profiles[0][1], dict(profiles[1:])
        if start != len(whole) or len(segments) != len(sizes) - 1 or any(len(key) != len(by) for key in segments):
            raise ValueError("its parts are not those of its head")
        alike = (rest.schema_json(), rest.reference)
        if any((profile.schema_json(), profile.reference) != alike for profile in segments.values()):
            raise ValueError("its segments have different schemas or references")
        return cls(tuple(by), kinds, limit, rest, segments, version)


_KINDS = ("integer", "boolean", "text", "time")


def _one_kind(name: str, mine: str | None, theirs: str | None) -> str | None:
    """A column of nulls alone goes with every kind."""
    if mine is not None and theirs is not None and mine != theirs:
        raise IncompatibleError(f"grouping column {name!r} is {mine} in one batch and {theirs} in another", "cast it before")
    return mine or theirs


def _kept(keys: Iterable[Key], limit: int) -> set[Key]:
    """The segments with the smallest hashes: what of all keys is kept, is kept among any of them, so that no split shows."""
    found = set(keys)
    return found if len(found) <= limit else set(heapq.nsmallest(limit, found, key=_hash))


@functools.lru_cache(maxsize=1 << 16)
def _hash(key: Key) -> bytes:
    return hashlib.blake2b(json.dumps(key).encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _order(key: Key) -> list[tuple[bool, str, Any]]:
    """Nulls first, then values in their own order."""
    return [(value is not None, type(value).__name__, 0 if value is None else value) for value in key]


def _columns(by: str | Sequence[str] | None) -> tuple[str, ...]:
    names = () if by is None else (by,) if isinstance(by, str) else tuple(by)
    if len(set(names)) < len(names) or not all(isinstance(name, str) for name in names):
        raise InvalidArgumentError(f"`by` must be the name of a column, or different names, got {by!r}")
    return names


def _limit(limit: int) -> int:
    if type(limit) is not int or not 1 <= limit <= _MOST_SEGMENTS:
        raise InvalidArgumentError(f"`limit` must be a whole number in [1, {_MOST_SEGMENTS}], got {limit!r}")
    return limit


def _names(part: Any) -> list[str] | None:
    """The columns of an Arrow or polars table; None where only reading it tells."""
    if "polars" in sys.modules and isinstance(part, sys.modules["polars"].DataFrame):
        return list(part.columns)
    names = getattr(getattr(part, "schema", None), "names", None)
    return list(names) if isinstance(names, list) else None


def _as_polars(part: Any) -> tuple[pl.DataFrame, list[str]]:
    import polars as pl

    frame = part if isinstance(part, pl.DataFrame) else pl.DataFrame(part)
    return frame, frame.columns


def _empty(schema: Schema) -> Any:
    """A table without rows that has every column. Types that do not fit the kind leave a note in the profile which every true note
    comes before, so that it goes in a merge.
    """
    if "pyarrow" in sys.modules:
        import pyarrow as pa

        arrow = {"number": pa.float64(), "boolean": pa.bool_(), "time": pa.timestamp("ns")}
        return pa.table({name: pa.array([], arrow.get(kind, pa.string())) for name, kind in schema.kinds.items()})
    import polars as pl

    types: dict[str, Any] = {"number": pl.Float64, "boolean": pl.Boolean, "time": pl.Datetime("ns")}
    return pl.DataFrame(schema={name: types.get(kind, pl.String) for name, kind in schema.kinds.items()})
