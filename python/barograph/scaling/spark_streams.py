"""Structured Streaming: every batch as profiles of its windows, counted once each, into a sidecar or a table."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from barograph.errors import BarographError, InvalidArgumentError
from barograph.scaling.deltas import Sidecar
from barograph.scaling.leaves import Recipe, as_leaf, read_segments

if TYPE_CHECKING:
    from barograph.profiles import Profile
    from barograph.references import Reference
    from barograph.schemas import Schema

__all__ = ["Table", "monitor_stream"]

_WINDOW = "__barograph_window"
_MOST_WINDOWS = 10_000
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_COLUMNS = "`window` timestamp, `rows` bigint, reference string, version string, state binary"


@dataclass(frozen=True)
class Table:
    """Where profiles of a stream go: a folder of Parquet files, or a table of Spark's catalog.

    name: a path or URI with a slash in it, or the name of a table, which is made if it is not there. A batch is one partition
    (`stream=…/batch=…`) that is replaced as a whole: a batch that is replayed leaves the table as it was.

    Columns: `stream`, `batch`, `window` (its start, null for rows without a time), `rows`, `reference` (its id), `version`, and `state`, a
    leaf: `read(merged(spark.read.parquet(path).where("window >= '2026-01-01'")))` is the profile of months.
    """

    name: str

    def __post_init__(self) -> None:
        if "/" not in self.name and not re.fullmatch(r"\w+(\.\w+){0,3}", self.name):
            raise InvalidArgumentError(f"`name` must be a path with a slash in it, or the name of a table, got {self.name!r}")

    def put(self, spark: Any, stream: str, batch: int, rows: list[tuple[Any, ...]]) -> None:
        """Replaces the partition of one batch."""
        from pyspark.sql import functions as f

        frame = spark.createDataFrame(rows, _COLUMNS).coalesce(1)
        if "/" in self.name:
            frame = frame.select("*", f.lit(stream).alias("stream"), f.lit(batch).cast("bigint").alias("batch"))
            frame.write.mode("overwrite").option("partitionOverwriteMode", "dynamic").partitionBy("stream", "batch").parquet(self.name)
            return
        # A partition that is named is all that is overwritten, whatever the session's mode.
        columns = f"{_COLUMNS}, stream string, batch bigint"
        spark.sql(f"CREATE TABLE IF NOT EXISTS {self.name} ({columns}) USING parquet PARTITIONED BY (stream, batch)")
        partition = f"PARTITION (stream = '{stream}', batch = {int(batch)})"
        spark.sql(f"INSERT OVERWRITE TABLE {self.name} {partition} SELECT * FROM {{made}}", made=frame)


def monitor_stream(
    frame: Any,
    *,
    to: Sidecar | Table,
    name: str,
    checkpoint: str,
    reference: Reference | None = None,
    schema: Schema | None = None,
    time: str | None = None,
    window: str = "1h",
    trigger: Mapping[str, Any] | None = None,
) -> Any:
    """Starts a query that profiles every batch of a stream, by windows of event time, and gives Spark's StreamingQuery.

    frame: a streaming DataFrame, classic or of Spark Connect. to: a sidecar's model, which must have this reference, or a table. name: of
    the stream, 1 to 150 letters, digits, `.`, `_` or `-`; a new checkpoint needs a new one. checkpoint: Spark's folder of progress.
    reference: counts its bins; it or `schema` has to be there, since nothing can be inferred from a stream. Their columns that the stream
    lacks stay out. time: the column of event times (timestamps; those without a zone are UTC); rows without one, and all rows without
    this argument, count in the window of their arrival. window: the pieces of event time that profiles stand for, such as "15m", "1h",
    "1d"; at most the model's. trigger: as that of Spark, such as {"availableNow": True} or {"processingTime": "1 minute"}.

    Exactly once: Spark replays a batch under its number after a failure, and the sidecar counts a number of a stream once for good, while
    a table replaces the batch's partition. The driver's memory holds the profiles of one batch; a batch of more than 10,000 windows is an
    error. The query fails, and Spark's retries begin, where the sidecar does not answer within its patience; it fails too where a batch
    was counted before under this name by another checkpoint, rather than leave it out.
    """
    if not isinstance(to, Sidecar | Table):
        raise InvalidArgumentError(f"`to` must be a Sidecar or a Table, got {type(to).__name__}")
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,150}", name):
        raise InvalidArgumentError(f"`name` must be 1 to 150 letters, digits, `.`, `_` or `-`, got {name!r}")
    if not getattr(frame, "isStreaming", False):
        raise InvalidArgumentError("`frame` must be a streaming DataFrame", "`spark.readStream...`; `profile(frame)` counts the others")
    if reference is None and schema is None:
        raise InvalidArgumentError("`reference` or `schema` must be given: nothing can be inferred from a stream")
    seconds = _seconds(window)
    kinds = dict(frame.dtypes)
    if time is not None and kinds.get(time) not in ("timestamp", "timestamp_ntz"):
        raise InvalidArgumentError(f"`time` must be a column of timestamps, {time!r} is {kinds.get(time, 'absent')}", "cast it before")
    fixed = schema if schema is not None else reference.schema if reference is not None else None
    recipe = _recipe(fixed, reference, frame.columns)
    batches = _Batches(recipe, to, name, time, kinds.get(time or ""), seconds)
    writer = frame.writeStream.foreachBatch(batches).option("checkpointLocation", checkpoint).queryName(name)
    return (writer.trigger(**trigger) if trigger else writer).start()


class _Batches:
    """What happens to a batch; Spark calls it with the batch and its number."""

    def __init__(self, recipe: Recipe, to: Sidecar | Table, name: str, time: str | None, kind: str | None, seconds: int) -> None:
        self._recipe, self._to, self._name = recipe, to, name
        self._time, self._kind, self._seconds = time, kind, seconds
        self._first: int | None = None

    def __call__(self, frame: Any, batch: int) -> None:
        from pyspark.sql import functions as f

        from barograph.scaling.spark import leaves, merged

        if self._first is None:
            self._first = batch
        data = merged(leaves(frame.withColumn(_WINDOW, f.expr(self._start_of_window())), self._recipe), self._recipe)
        segments = read_segments(data)
        if segments.other.rows:
            raise BarographError(f"batch {batch} has more than {_MOST_WINDOWS} windows of event time", "choose a longer `window`")
        profiles = [(_instant(start), profile) for start, profile in segments.items()]
        if isinstance(self._to, Table):
            rows = [(start, one.rows, self._reference(one), self._recipe.version, as_leaf(one)) for start, one in profiles]
            self._to.put(frame.sparkSession, self._name, batch, rows)
            return
        for at, (start, profile) in enumerate(profiles):
            # Windows are in order, so a replay gives each its number again.
            fresh = self._to.send(profile, stream=self._name, number=batch * _MOST_WINDOWS + at, time=start)
            if not fresh and batch > self._first:
                raise BarographError(
                    f"batch {batch} of stream {self._name!r} was counted before, by a query with another checkpoint",
                    "a new checkpoint needs a new `name`; what this query has sent so far was not counted",
                )

    def _start_of_window(self) -> str:
        """SQL of the start of a row's window, in seconds since the epoch."""
        if self._time is None:
            return "CAST(NULL AS BIGINT)"
        column = "`" + self._time.replace("`", "``") + "`"
        naive = f"timestampdiff(SECOND, TIMESTAMP_NTZ'1970-01-01 00:00:00', date_trunc('SECOND', {column}))"
        seconds = naive if self._kind == "timestamp_ntz" else f"unix_seconds({column})"
        return f"CAST(floor({seconds} / {self._seconds}) * {self._seconds} AS BIGINT)"

    @staticmethod
    def _reference(profile: Profile) -> str | None:
        return profile._native.reference


def _recipe(schema: Schema | None, reference: Reference | None, names: list[str]) -> Recipe:
    from barograph.schemas import Schema

    columns = [column for column in (schema._columns if schema is not None else []) if column["name"] in set(names)]
    if not columns:
        raise InvalidArgumentError("the stream has none of the columns of `reference` or `schema`", f"it has {', '.join(names[:20])}")
    return Recipe.of({}, schema=Schema(columns), reference=reference, by=_WINDOW, limit=_MOST_WINDOWS)


def _instant(seconds: Any) -> datetime | None:
    return None if seconds is None else datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)


def _seconds(window: str) -> int:
    found = re.fullmatch(r"([1-9]\d{0,4})([smhd])", window) if isinstance(window, str) else None
    seconds = int(found[1]) * _UNITS[found[2]] if found else 0
    if not 60 <= seconds <= 86_400 or 86_400 % seconds:
        raise InvalidArgumentError(f'`window` must divide a day, and be a minute at least, such as "15m", "1h" or "1d", got {window!r}')
    return seconds
