"""Columns that must not be kept as they are: dropped, hashed with a key, or put into buckets before anything is counted."""

from __future__ import annotations

import bisect
import hashlib
import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from barograph.errors import FrameError, InvalidArgumentError
from barograph.frames import Frame, parts

if TYPE_CHECKING:
    import polars as pl

__all__ = ["Privacy"]

Rule: TypeAlias = str | int | Sequence[float] | frozenset[str]
RARE = "(rare)"
"""What names are called that are not common enough to be kept."""


class Privacy:
    """What happens to columns before they are counted, on every way in.

    columns: by name, "drop" (the column is not there), "hash" (16 hexadecimal digits of BLAKE2b with `key`, the same for equal values:
    names can be counted, compared and joined, not read), the edges of buckets (a number becomes a name such as "(18, 65]"), or a whole
    number: names that come less often than that in the frame given to `fit` become "(rare)", there and ever after. Nulls
    stay null. key: 16 to 64 bytes, kept by you: it enters no profile, reference or snapshot; with another key nothing compares.

    `bg.profile(privacy.frame(df))`, `bg.Reference(privacy.frame("rows.parquet"))`, `bg.compare(reference, privacy.frame(df))`; a monitor
    with `privacy=` applies it itself to whatever it observes.

    >>> privacy = Privacy({"email": "hash", "age": [18, 65], "note": "drop"}, key=b"sixteen bytes or more")
    >>> privacy.row({"email": "ada@example.org", "age": 36, "note": "?", "x": 1.0})
    {'email': 'b2a1002f6ae25986', 'age': '(18, 65]', 'x': 1.0}
    """

    def __init__(self, columns: Mapping[str, Rule], key: bytes | None = None) -> None:
        if not isinstance(columns, Mapping):
            raise InvalidArgumentError(f"`columns` must be a mapping of names to rules, got {type(columns).__name__}")
        for name, rule in columns.items():
            if isinstance(rule, str):
                if rule not in ("drop", "hash"):
                    raise InvalidArgumentError(f'the rule of {name!r} must be "drop", "hash" or edges, got {rule!r}')
            elif isinstance(rule, int):
                if isinstance(rule, bool) or rule < 2:
                    raise InvalidArgumentError(f"the least count of {name!r} must be a whole number of at least 2, got {rule!r}")
            elif not isinstance(rule, frozenset):
                edges = list(rule)
                fine = edges and all(isinstance(edge, int | float) and math.isfinite(edge) for edge in edges)
                if not fine or any(a >= b for a, b in itertools.pairwise(edges)):
                    raise InvalidArgumentError(f"the edges of {name!r} must be finite ascending numbers, got {rule!r}")
        if "hash" in [rule for rule in columns.values() if isinstance(rule, str)] and not (isinstance(key, bytes) and 16 <= len(key) <= 64):
            # The key itself must not stand in a message.
            got = f"{len(key)} bytes" if isinstance(key, bytes) else type(key).__name__
            raise InvalidArgumentError(
                f"`key` must be 16 to 64 bytes where columns are hashed, got {got}", "make one by `secrets.token_bytes(32)`"
            )
        plain = (str, int, frozenset)
        self.columns: dict[str, Rule] = {name: rule if isinstance(rule, plain) else tuple(rule) for name, rule in columns.items()}
        self._key = key

    def fit(self, frame: Frame) -> Privacy:
        """The same with the names that are common enough in this frame, which is read once; the other rules need no fitting.

        >>> Privacy({"city": 3}).fit({"city": ["Bonn"] * 5 + ["Ulm"]}).row({"city": "Ulm"})
        {'city': '(rare)'}
        """
        import polars as pl

        least = {name: rule for name, rule in self.columns.items() if isinstance(rule, int)}
        counts: dict[str, dict[str, int]] = {name: {} for name in least}
        for part in parts(frame):
            read = part if isinstance(part, pl.DataFrame) else pl.DataFrame(part)
            for name in least:
                if name not in read.columns:
                    raise InvalidArgumentError(
                        f"`columns` names {name!r}, which the frame has not", f"it has {', '.join(read.columns[:20])}"
                    )
                for value, count in read[name].drop_nulls().value_counts().iter_rows():
                    counts[name][_text(value)] = counts[name].get(_text(value), 0) + count
        kept = {name: frozenset(value for value, count in counts[name].items() if count >= least[name]) for name in least}
        return Privacy({**self.columns, **kept}, self._key)

    def frame(self, frame: Frame) -> _Private:
        """The frame as it may be counted; nothing is read yet, files are streamed."""
        return _Private(self, frame)

    def row(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """One event as it may be counted."""
        out = dict(row)
        for name in self.columns.keys() & out.keys():
            rule = self.columns[name]
            if rule == "drop":
                del out[name]
            elif out[name] is not None:
                out[name] = self._changed(name, out[name], rule)
        return out

    def _changed(self, name: str, value: Any, rule: Rule) -> str | None:
        """A value that is not null as it may be counted."""
        if rule == "hash":
            return self._hashed(value)
        if isinstance(rule, frozenset):
            text = _text(value)
            return text if text in rule else RARE
        if isinstance(rule, int | str):
            raise InvalidArgumentError(f"which names of {name!r} are common is not known yet", "use `privacy.fit(frame)`")
        return _bucket(value, rule)

    def describe(self) -> str:
        """The rules without the key, as JSON."""

        def plain(rule: Rule) -> Any:
            return {"names": sorted(rule)} if isinstance(rule, frozenset) else rule if isinstance(rule, str | int) else list(rule)

        return json.dumps({name: plain(rule) for name, rule in sorted(self.columns.items())})

    def _hashed(self, value: Any) -> str:
        text = repr(float(value)) if isinstance(value, float) and not float(value).is_integer() else _text(value)
        return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), key=self._key or b"", digest_size=8).hexdigest()

    def _applied(self, part: Any) -> pl.DataFrame:
        import polars as pl

        try:
            frame = part if isinstance(part, pl.DataFrame) else pl.DataFrame(part)
        except Exception as error:
            raise FrameError(f"the frame could not be read: {error}") from error
        for name, rule in self.columns.items():
            if name not in frame.columns:
                continue
            if rule == "drop":
                frame = frame.drop(name)
                continue
            # Each different value once: the rest is a look-up.
            values = frame[name].unique()
            old = values.to_list()
            new = [None if value is None else self._changed(name, value, rule) for value in old]
            if frame[name].dtype.is_nested():
                raise FrameError(f"column {name!r} of type {frame[name].dtype} can be dropped, not hashed or put into buckets")
            frame = frame.with_columns(frame[name].replace_strict(values, pl.Series(new, dtype=pl.String), return_dtype=pl.String))
        return frame

    def __repr__(self) -> str:
        return f"Privacy({self.describe()})"

    def __reduce__(self) -> Any:
        raise InvalidArgumentError("a Privacy holds a key and is not pickled", "make it anew where it is needed")


class _Private:
    """A frame on its way through a privacy; `frames.parts` asks it for its parts."""

    def __init__(self, privacy: Privacy, frame: Frame) -> None:
        self.privacy = privacy
        self.inner = frame

    def parts(self, again: bool) -> Iterator[Any]:
        """The frame's parts, each as it may be counted."""
        for part in parts(self.inner, again=again):
            yield self.privacy._applied(part)


def _text(value: Any) -> str:
    """A whole number is the same text in whatever type it comes."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    item = getattr(value, "item", None)
    return str(item() if item is not None else value)


def _bucket(value: Any, edges: Sequence[Any]) -> str | None:
    if value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    if math.isnan(number):
        return None
    at = bisect.bisect_left(edges, number)
    low = f"({edges[at - 1]:g}" if at else "(-inf"
    return f"{low}, {edges[at]:g}]" if at < len(edges) else f"{low}, inf)"
