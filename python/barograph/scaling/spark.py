"""Spark: profiles of DataFrames and of files by the executors, exactly what one process counts (extra `barograph[spark]`).

Executors make leaves inside `mapInArrow`, some of their tasks merge them, and the driver gets a handful of bytes. There are no RDDs and
no row shuffles, so it works the same over Spark Connect. Lost executors and Python workers are Spark's business: it does their tasks
again, and what a lost attempt had counted went with it.

| | |
|---|---|
| a table, a query | `profile(df)`, `compare(reference, df)` |
| files that executors reach | `profile("…/*.parquet", spark=spark)`: cheaper, since rows never pass through the JVM |
| a stream | `monitor_stream(df, ...)` |
| bytes per group or day, to be kept in a table | `leaves(df, recipe)` and `merged(states)` |
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from barograph import errors
from barograph.errors import BarographError, InvalidArgumentError, UnsupportedError
from barograph.frames import Frame
from barograph.scaling.deltas import Sidecar
from barograph.scaling.leaves import SEGMENTS, Recipe, merge, read, read_segments
from barograph.scaling.pieces import Opener, Piece, Reader, error_in, finished, leaf_of, names_files, plan
from barograph.scaling.spark_streams import Table, monitor_stream

if TYPE_CHECKING:
    from barograph.references import Reference
    from barograph.reports import DriftReport
    from barograph.schemas import Schema

__all__ = ["STATE", "Sidecar", "Table", "compare", "leaves", "merged", "monitor_stream", "profile", "recipe_of"]

STATE = "state binary"
"""The one column that leaves and merges give."""
SAMPLE_ROWS = 10_000
"""The rows a schema is inferred from, as many as `bg.profile` looks at."""
MERGES = 4
"""Tasks that merge the leaves before the driver does."""
_FEW = 64
"""So many leaves the driver merges by itself."""


def profile(
    source: Any,
    *,
    spark: Any = None,
    by: str | Sequence[str] | None = None,
    schema: Schema | None = None,
    reference: Reference | None = None,
    limit: int = SEGMENTS,
    tasks: int | None = None,
    reader: Reader | None = None,
) -> Any:
    """A Profile of a DataFrame or of files, or with `by` the profiles of `Segments`; to the byte what one process gives.

    source: a DataFrame, classic or of Spark Connect, or files: paths, folders, globs, or a list of them, which the driver and the
    executors reach under the same names. spark: the session for files, the active one by default. by, schema, reference, limit: as those
    of `barograph.scaling.leaf`. A schema that is not given is inferred from the first 10,000 rows, which computes these once more.
    tasks: among how many the files are divided; by default twice as many as Spark's default parallelism where it says that, else 16.
    reader: how a path becomes a frame on a worker; it pickles.

    A column that one file lacks is null in its rows; one that only a later file has is an error where the schema was inferred. One pass
    for all columns and segments; columns that the schema lacks are left out before the rows reach Python. Raises what `bg.profile` raises,
    also if it happened on a worker, BarographError if the rows of the files and those that were counted differ. Cost on top of
    `bg.profile`: see docs/guides/spark.md.
    """
    with _told():
        if names_files(source):
            session = _session(spark)
            work = plan(source, tasks or _parallelism(session), schema=schema, reference=reference, by=by, limit=limit, reader=reader)
            numbers = session.range(0, len(work.tasks), 1, len(work.tasks))
            made = numbers.mapInArrow(partial(_leaves_of_tasks, work.recipe, work.tasks, work.opener), STATE)
            return finished(work, merged(made, work.recipe, merges=MERGES if len(work.tasks) > _FEW else 0))
        _is_frame(source)
        recipe = recipe_of(source, schema=schema, reference=reference, by=by, limit=limit)
        data = merged(leaves(source, recipe), recipe)
        return read_segments(data) if recipe.by else read(data)


def compare(
    reference: Reference,
    source: Any,
    *,
    spark: Any = None,
    by: str | Sequence[str] | None = None,
    schema: Schema | None = None,
    limit: int = SEGMENTS,
    tasks: int | None = None,
    reader: Reader | None = None,
    **settings: Any,
) -> DriftReport | dict[Any, DriftReport]:
    """`bg.compare` of a DataFrame or of files: exact bins, counted by the executors.

    settings: those of `bg.compare`. The rest is that of `profile`. With `by` a dict of reports by segment value; rows of
    segments beyond the limit are in none of them, see `profile(...).other`. Tests are those of each report alone: with many segments some
    alarm by chance, which a `Monitor` with `segments=` takes into account.
    """
    from barograph.drift import compare

    made = profile(source, spark=spark, by=by, schema=schema, reference=reference, limit=limit, tasks=tasks, reader=reader)
    if not by:
        return compare(reference, made, **settings)
    return {value: compare(reference, one, **settings) for value, one in made.items()}


def recipe_of(
    frame: Any,
    *,
    schema: Schema | None = None,
    reference: Reference | None = None,
    by: str | Sequence[str] | None = None,
    limit: int = SEGMENTS,
) -> Recipe:
    """What the leaves of a DataFrame need to know; without `schema` its first rows are computed for it.

    A column of `schema` that the DataFrame lacks stays out, as with `bg.profile`.
    """
    if schema is not None:
        from barograph.schemas import Schema

        schema = Schema([column for column in schema._columns if column["name"] in set(frame.columns)])
    sample: Frame = {} if schema is not None else frame.limit(SAMPLE_ROWS).toArrow()
    recipe = Recipe.of(sample, schema=schema, reference=reference, by=by, limit=limit)
    absent = next((name for name in recipe.by if name not in frame.columns), None)
    if absent is not None:
        raise errors.FrameError(f"`by` names column {absent!r}, which the DataFrame has not", f"it has {', '.join(frame.columns[:20])}")
    return recipe


def leaves(frame: Any, recipe: Recipe) -> Any:
    """A DataFrame with one leaf per partition in its column `state`: lazy, as DataFrames are."""
    # No pruning passes through `mapInArrow`: what is not read here would travel.
    names = ["`" + name.replace("`", "``") + "`" for name in recipe.columns(frame.columns)]
    return frame.select(*names).mapInArrow(partial(_leaves_of_batches, recipe), STATE)


def merged(states: Any, recipe: Recipe | None = None, *, merges: int = MERGES) -> bytes:
    """The leaves in a DataFrame's column `state`, of `leaves` or read from a table, as one; by `merges` tasks, or none, then by the driver.

    recipe: gives an empty leaf where there are none. Raises what `merge` raises.
    """
    with _told():
        states = states.select("state")
        if merges:
            states = states.repartition(merges).mapInArrow(_merged_states, STATE)
        parts = [bytes(row["state"]) for row in states.collect()]
        return merge(*(parts or ([] if recipe is None else [recipe.leaf([])])))


# ---- on the executors ----


def _leaves_of_batches(recipe: Recipe, batches: Iterable[Any]) -> Iterator[Any]:
    yield _row(recipe.leaf(batches))


def _leaves_of_tasks(recipe: Recipe, tasks: list[tuple[Piece, ...]], opener: Opener, batches: Iterable[Any]) -> Iterator[Any]:
    for batch in batches:
        for at in batch.column(0).to_pylist():
            yield _row(leaf_of(recipe, tasks[at], opener))


def _merged_states(batches: Iterable[Any]) -> Iterator[Any]:
    total: list[bytes] = []
    for batch in batches:
        parts = [bytes(state) for state in batch.column(0).to_pylist()]
        if parts:
            total = [merge(*total, *parts)]
    for state in total:
        yield _row(state)


def _row(state: bytes) -> Any:
    import pyarrow as pa

    return pa.RecordBatch.from_arrays([pa.array([state], pa.binary())], ["state"])


# ---- on the driver ----


def _is_frame(source: Any) -> None:
    if not hasattr(source, "mapInArrow") or not hasattr(source, "toArrow"):
        raise UnsupportedError(
            f"`source` must be a Spark DataFrame or paths of files, got {type(source).__name__}", "Spark 4 or newer is needed"
        )


def _session(spark: Any) -> Any:
    if spark is not None:
        return spark
    try:
        from pyspark.sql import SparkSession
    except ImportError as error:
        raise BarographError("Spark needs pyspark, which is not there", "pip install 'barograph[spark]'") from error
    active = SparkSession.getActiveSession()
    if active is None:
        raise InvalidArgumentError("`spark` must be a session where files are counted, and none is active", "pass `spark=`")
    return active


def _parallelism(session: Any) -> int:
    try:
        return 2 * int(session.sparkContext.defaultParallelism)
    except Exception:
        # Over Spark Connect there is no context to ask.
        return 16


@contextmanager
def _told() -> Iterator[None]:
    """Errors of ours that happened on a worker are raised here as what they are; Spark wraps them in pages of trace."""
    try:
        yield
    except BarographError:
        raise
    except Exception as error:
        told = error_in(str(error))
        if told is None:
            raise
        raise told from error
