"""Files cut into pieces that a task can count: whole files, or ranges of rows where there are fewer files than tasks.

A piece is made of what the files themselves say of their rows, so that what was counted can be held against it.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from glob import glob
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from barograph import errors
from barograph.errors import BarographError, FrameError, InvalidArgumentError
from barograph.frames import Frame, scan
from barograph.scaling.leaves import SEGMENTS, Recipe, Segments, read, read_segments

if TYPE_CHECKING:
    import polars as pl

    from barograph.profiles import Profile
    from barograph.references import Reference
    from barograph.schemas import Schema

__all__ = [
    "FAN_IN",
    "Opener",
    "Paths",
    "Piece",
    "Reader",
    "Work",
    "by_path",
    "cores",
    "error_in",
    "finished",
    "frame_of",
    "leaf_of",
    "names_files",
    "plan",
]

Paths: TypeAlias = str | Path | Sequence[str | Path]
Reader: TypeAlias = Callable[[str], Frame]
"""How a path becomes a frame; a function at the top of a module where processes are spawned."""
Opener: TypeAlias = "Callable[[Piece], Frame]"

FAN_IN = 4
"""Leaves that one task of a tree merges: wide enough for few levels, narrow enough to begin early."""
_TABLES = ("parquet", "csv", "tsv", "txt", "arrow", "ipc", "feather")


@dataclass(frozen=True)
class Piece:
    """A file, or `rows` of its rows from `first` on."""

    path: str
    first: int = 0
    rows: int | None = None

    def __str__(self) -> str:
        return self.path if self.rows is None else f"{self.path}, rows {self.first} to {self.first + self.rows}"


@dataclass(frozen=True)
class Work:
    """What is to be counted and how: one tuple of pieces per task, the recipe of every leaf, and how many rows there have to be.

    rows: None where files do not say. opener: how a piece becomes a frame.
    """

    tasks: list[tuple[Piece, ...]] = field(repr=False)
    recipe: Recipe
    rows: int | None
    opener: Opener


def leaf_of(recipe: Recipe, pieces: Iterable[Piece], opener: Opener) -> bytes:
    """The leaf of some pieces. Raises FrameError, naming the file, for one that is missing, half-written or no table."""
    at = ""

    def frames() -> Iterator[Frame]:
        nonlocal at
        for piece in pieces:
            at = piece.path
            yield opener(piece)

    try:
        return recipe.leaf(frames())
    except FrameError as error:
        raise _named(error, at) from error


def _named(error: FrameError, path: str) -> FrameError:
    return error if path in error.message else FrameError(f"{path}: {error.message}", error.hint)


def error_in(text: str) -> BarographError | None:
    """An error of ours that happened on a worker, read from the trace that an engine has made of it; the last one, or None."""
    found = re.findall(r"^\s*barograph\.errors\.(\w+): (.*(?:\n\s*hint: .*)?)$", text, re.MULTILINE)
    if not found:
        return None
    name, words = found[-1]
    message, _, hint = words.partition("hint: ")
    kind = getattr(errors, name, BarographError)
    error: BarographError = kind(message.strip(), hint.strip() or None)
    return error


def by_path(reader: Reader, piece: Piece) -> Frame:
    """A reader of whole files as an opener: `partial(by_path, reader)`."""
    return reader(piece.path)


def frame_of(piece: Piece) -> pl.LazyFrame:
    """The rows of a piece, to be read in batches."""
    frame = scan(piece.path)
    return frame if piece.rows is None else frame.slice(piece.first, piece.rows)


def plan(
    paths: Paths,
    tasks: int,
    *,
    schema: Schema | None = None,
    reference: Reference | None = None,
    by: str | Sequence[str] | None = None,
    limit: int = SEGMENTS,
    reader: Reader | None = None,
) -> Work:
    """Cuts files into about `tasks` tasks of equal size, and fixes the schema with the first rows of the first file.

    paths: Parquet, CSV or Arrow files, folders, globs, or several of them; those with "://" are taken as they are. reader: files are
    not looked into then, and whole. Raises FrameError, naming the file, for one that is missing, half-written or no table.
    """
    if tasks < 1:
        raise InvalidArgumentError(f"the number of tasks must be at least 1, got {tasks}")
    files = expanded(paths)
    sample: Any = scan(files[0]).head(10_000) if reader is None else reader(files[0])
    try:
        recipe = Recipe.of(sample, schema=schema, reference=reference, by=by, limit=limit)
    except FrameError as error:
        raise _named(error, files[0]) from error
    known = None if reader is not None else [rows_of(file) for file in files]
    rows = None if known is None or None in known else sum(count or 0 for count in known)
    if known is None or rows is None or len(files) >= 4 * tasks:
        sized: list[tuple[Piece, int]] = [(Piece(file), 1 if known is None else known[at] or 1) for at, file in enumerate(files)]
    else:
        share = max(1, -(-rows // tasks))
        sized = [cut for file, count in zip(files, known, strict=True) for cut in _cut(file, count or 0, share)]
    return Work(_balanced(sized, tasks), recipe, rows, frame_of if reader is None else functools.partial(by_path, reader))


def finished(work: Work, data: bytes) -> Profile | Segments:
    """What a plan's leaves, merged, say; segments where the plan has some. Raises BarographError if rows are missing, or there are more."""
    profile = read(data)
    if work.rows is not None and profile.rows != work.rows:
        raise BarographError(
            f"the files hold {work.rows:,} rows, but {profile.rows:,} were counted", "did something write to them meanwhile? count again"
        )
    return read_segments(data) if work.recipe.by else profile


def names_files(source: Any) -> bool:
    """Whether something is a path or a list of them, not a frame."""
    several = isinstance(source, list | tuple) and all(isinstance(one, str | Path) for one in source)
    return several or isinstance(source, str | Path)


def expanded(paths: Paths) -> list[str]:
    """The files that paths, folders and globs stand for, in order. Raises FrameError if there is none."""
    files: list[str] = []
    for path in [paths] if isinstance(paths, str | Path) else paths:
        text = str(path)
        if "://" in text:
            found = [text]
        elif Path(text).is_dir():
            found = sorted(str(file) for file in Path(text).rglob("*") if _is_table(file.relative_to(text)))
        elif any(sign in text for sign in "*?["):
            found = sorted(glob(text, recursive=True))  # noqa: PTH207 (pathlib's takes no absolute patterns)
        else:
            found = [text] if Path(text).exists() else []
        if not found:
            raise FrameError(f"no such file: {text}", "give Parquet, CSV or Arrow files, folders of them, or globs in quotes")
        files += found
    if not files:
        raise FrameError("`paths` names no file")
    return files


def _is_table(file: Path) -> bool:
    # What begins with `_` or `.` is not data: marks of success, and what is being written.
    hidden = any(part.startswith(("_", ".")) for part in file.parts)
    return not hidden and file.suffix.lower().lstrip(".") in _TABLES


def rows_of(file: str) -> int | None:
    """Rows of a Parquet file as it says itself; None for what would have to be read for that."""
    import polars as pl

    if "://" in file or not file.lower().endswith(".parquet"):
        return None
    try:
        return int(pl.scan_parquet(file).select(pl.len()).collect().item())
    except (pl.exceptions.PolarsError, OSError) as error:
        first = str(error).strip().splitlines()[0]
        raise FrameError(f"{file} could not be read: {first}", "is it a whole Parquet file? half-written ones have no end") from error


def _cut(file: str, rows: int, share: int) -> list[tuple[Piece, int]]:
    if rows <= share + share // 2:
        return [(Piece(file), rows)]
    pieces = round(rows / share)
    edges = [rows * at // pieces for at in range(pieces + 1)]
    return [(Piece(file, start, end - start), end - start) for start, end in itertools.pairwise(edges)]


def _balanced(sized: list[tuple[Piece, int]], tasks: int) -> list[tuple[Piece, ...]]:
    """The largest first, each to the task that has least (Graham, SIAM J. Appl. Math. 1969: within 4/3 of the best)."""
    import heapq

    heap: list[tuple[int, int]] = [(0, at) for at in range(min(tasks, len(sized)))]
    out: list[list[Piece]] = [[] for _ in heap]
    for piece, size in sorted(sized, key=lambda one: -one[1]):
        load, at = heapq.heappop(heap)
        out[at].append(piece)
        heapq.heappush(heap, (load + size, at))
    return [tuple(pieces) for pieces in out]


@functools.cache
def cores() -> int:
    """Cores this process may use."""
    import os

    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
