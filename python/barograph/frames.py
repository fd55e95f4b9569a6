"""Frames of any kind as Arrow streams of bounded size.

A polars DataFrame, Series or LazyFrame, a pandas frame, a pyarrow table, batch or reader, a DuckDB relation, anything else
with `__arrow_c_stream__`, the path or glob of Parquet and CSV files, a dict of arrays.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from barograph.errors import FrameError

if TYPE_CHECKING:
    import polars as pl

__all__ = ["Frame", "parts", "scan"]

Frame: TypeAlias = Any
"""Anything `parts` reads; there is no common base class to name."""

ROWS = 1 << 18
"""Rows per stream: enough to make the border cheap, few enough to bound memory."""
STREAMED_ROWS = 1 << 16
"""Rows polars holds per batch while it streams; its own read-ahead of row groups comes on top."""

_KINDS = "a polars, pandas or pyarrow table, a LazyFrame, a DuckDB relation, a Parquet or CSV path, or a dict of arrays"


def parts(frame: Frame, *, again: bool = False) -> Iterator[Any]:
    """Streams of at most `ROWS` rows, at least one.

    With `again` the frame must be readable twice: a one-shot reader is an error then. A column whose Arrow export fails
    becomes one of nulls of an unsupported type, so that it shows as a row that says so.
    """
    if type(frame).__name__ == "_Private":
        yield from frame.parts(again)
    elif isinstance(frame, str | Path):
        yield from _lazy(scan(frame), str(frame))
    elif _is_polars_lazy(frame):
        yield from _lazy(frame)
    elif isinstance(frame, Mapping):
        yield from _sliced(_from_dict(frame))
    elif "polars" in sys.modules and isinstance(frame, sys.modules["polars"].Series):
        yield from _sliced(frame.to_frame(frame.name or "value"))
    elif "polars" in sys.modules and isinstance(frame, sys.modules["polars"].DataFrame):
        yield from _sliced(frame)
    elif _is_pandas(frame):
        yield _from_pandas(frame)
    elif hasattr(frame, "__arrow_c_stream__"):
        if again and type(frame).__name__ in {"RecordBatchReader", "ArrowArrayStreamReader"}:
            raise FrameError(
                f"a {type(frame).__name__} can be read once only, and this needs to read it twice", "pass a table: `reader.read_all()`"
            )
        yield frame
    else:
        raise FrameError(f"`frame` must be {_KINDS}, got {type(frame).__name__}")


def _is_polars_lazy(value: object) -> bool:
    return "polars" in sys.modules and isinstance(value, sys.modules["polars"].LazyFrame)


def _is_pandas(value: object) -> bool:
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(value, pandas.DataFrame | pandas.Series)


def scan(path: str | Path) -> pl.LazyFrame:
    """A Parquet, CSV or Arrow file, or a glob, to be read in batches. Raises FrameError if there is none."""
    import polars as pl

    text = str(path)
    suffix = text.lower().rsplit(".", 1)[-1]
    local = "://" not in text
    if local and not any(c in text for c in "*?[") and not Path(text).exists():
        raise FrameError(f"no such file: {text}", "give the path of a Parquet or CSV file, or a glob in quotes")
    if suffix in {"csv", "tsv", "txt"}:
        return pl.scan_csv(text, separator="\t" if suffix == "tsv" else ",", try_parse_dates=True)
    if suffix in {"arrow", "ipc", "feather"}:
        return pl.scan_ipc(text)
    return pl.scan_parquet(text, low_memory=True)


def _lazy(frame: pl.LazyFrame, name: str = "the file") -> Iterator[Any]:
    import polars as pl

    try:
        with warnings.catch_warnings():
            # `collect_batches` is marked unstable; the lock file pins the polars it is tested with.
            warnings.simplefilter("ignore")
            batches = frame.collect_batches(chunk_size=STREAMED_ROWS, maintain_order=True, lazy=True)
        empty = True
        for batch in batches:
            if batch.height:
                empty = False
                yield from _sliced(batch)
        if empty:
            yield from _sliced(frame.head(0).collect())
    except (pl.exceptions.PolarsError, OSError) as error:
        raise FrameError(
            f"{name} could not be read: {_first_line(error)}", "is it a whole Parquet or CSV file? the ending tells which"
        ) from error


def _sliced(frame: pl.DataFrame) -> Iterator[Any]:
    if frame.height == 0:
        yield _checked(frame)
    for part in frame.iter_slices(ROWS):
        yield _checked(part)


def _checked(frame: pl.DataFrame) -> Any:
    import polars as pl

    # Polars exports a column without a type with a buffer that Arrow's readers refuse; one of no names fits every kind as well.
    untyped: dict[Any, Any] = {pl.Object: pl.Binary(), pl.Null: pl.Enum([])}
    odd = {name: untyped[dtype] for name, dtype in frame.schema.items() if dtype in untyped}
    return frame.with_columns(pl.lit(None, dtype=dtype).alias(name) for name, dtype in odd.items()) if odd else frame


def _from_dict(columns: Mapping[Any, Any]) -> pl.DataFrame:
    import polars as pl

    try:
        return pl.DataFrame({str(name): values for name, values in columns.items()}, nan_to_null=False, strict=False)
    except Exception as error:
        raise FrameError(
            f"the dict could not be read as a table: {_first_line(error)}", "columns must be arrays of equal length"
        ) from error


def _from_pandas(frame: Any) -> Any:
    pandas = sys.modules["pandas"]
    if isinstance(frame, pandas.Series):
        frame = frame.to_frame(frame.name if frame.name is not None else "value")
    names = [str(name) for name in frame.columns]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise FrameError(f"column names must be unique, got {twice!r} twice", "rename one of the two")
    frame = frame.set_axis(names, axis="columns").reset_index(drop=True)
    import pyarrow as pa

    try:
        return pa.Table.from_pandas(frame, preserve_index=False)
    except (pa.ArrowException, TypeError, ValueError):
        # One bad column must not hide the others.
        return pa.table({name: _pandas_column(frame[name], pa) for name in names})


def _pandas_column(column: Any, pa: Any) -> Any:
    try:
        return pa.array(column, from_pandas=True)
    except (pa.ArrowException, TypeError, ValueError):
        return pa.nulls(len(column), pa.binary())


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
