"""Dask: profiles of files and of DataFrames, exactly what one process counts (extra `barograph[dask]`).

Leaves and merges are tasks of one graph; a worker that is lost takes results along, which Dask computes again.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from barograph.errors import BarographError, FrameError, UnsupportedError
from barograph.scaling.leaves import SEGMENTS, Recipe, merge, read, read_segments
from barograph.scaling.pieces import FAN_IN, Paths, Reader, cores, finished, leaf_of, names_files, plan

if TYPE_CHECKING:
    from barograph.references import Reference
    from barograph.schemas import Schema

__all__ = ["profile"]

_SAMPLE_ROWS = 10_000
_TASKS_PER_CORE = 2


def profile(
    source: Paths | Any,
    *,
    by: str | Sequence[str] | None = None,
    schema: Schema | None = None,
    reference: Reference | None = None,
    limit: int = SEGMENTS,
    tasks: int | None = None,
    reader: Reader | None = None,
    split_every: int = 8,
) -> Any:
    """A Profile of files or of a Dask DataFrame, or with `by` the profiles of `Segments`; to the byte what one process gives.

    source: paths, folders, globs, or a list of them, which the workers reach under the same names; or a DataFrame, whose partitions are
    reduced (`DataFrame.reduction`). Half the cost is in pandas' partitions: files are cheaper as paths. by, schema, reference, limit: as
    those of `barograph.scaling.leaf`. A schema that is not given is inferred from the first rows, which computes the first partition once
    more. tasks: among how many files are divided, by default twice the threads of the cluster. reader: how a path becomes a frame on a
    worker. split_every: so many leaves of a DataFrame are merged by one task.

    Runs on the client that is active, else on Dask's default scheduler. pandas' NaN are nulls. Raises what `bg.profile` raises, also if
    it happened on a worker; BarographError if the rows of the files and those that were counted differ. Cost on top of `bg.profile`:
    docs/guides/dask.md.
    """
    dask = _dask()
    if not names_files(source):
        return _of_frame(source, by=by, schema=schema, reference=reference, limit=limit, split_every=split_every)
    work = plan(source, tasks or _threads(), schema=schema, reference=reference, by=by, limit=limit, reader=reader)
    recipe = dask.delayed(work.recipe, traverse=False)
    leaf, node = dask.delayed(leaf_of, pure=False), dask.delayed(merge, pure=False)
    # What is passed as it is would be looked through for tasks.
    parts = [leaf(recipe, dask.delayed(pieces, traverse=False), work.opener) for pieces in work.tasks]
    while len(parts) > 1:
        parts = [node(*parts[at : at + FAN_IN]) for at in range(0, len(parts), FAN_IN)]
    return finished(work, parts[0].compute())


def _of_frame(
    frame: Any,
    *,
    by: str | Sequence[str] | None,
    schema: Schema | None,
    reference: Reference | None,
    limit: int,
    split_every: int,
) -> Any:
    if not hasattr(frame, "reduction") or not hasattr(frame, "npartitions"):
        raise UnsupportedError(f"`source` must be a Dask DataFrame or paths of files, got {type(frame).__name__}")
    import pandas as pd

    sample: Any = {}
    if schema is None:
        with warnings.catch_warnings():
            # It warns where the first partition has fewer rows: that is all that is wanted of it.
            warnings.simplefilter("ignore")
            sample = frame.head(_SAMPLE_ROWS)
    recipe = Recipe.of(sample, schema=schema, reference=reference, by=by, limit=limit)
    absent = next((name for name in recipe.by if name not in frame.columns), None)
    if absent is not None:
        raise FrameError(f"`by` names column {absent!r}, which the DataFrame has not", f"it has {', '.join(map(str, frame.columns[:20]))}")
    states = frame[recipe.columns(frame.columns)].reduction(
        partial(_leaf_of_partition, recipe),
        combine=_merged_states,
        aggregate=_merged_states,
        split_every=split_every,
        meta=pd.DataFrame({"state": pd.Series([], dtype=object)}),
    )
    data = merge(*states.compute()["state"])
    return read_segments(data) if recipe.by else read(data)


def _leaf_of_partition(recipe: Recipe, partition: Any) -> Any:
    import pandas as pd

    return pd.DataFrame({"state": pd.Series([recipe.leaf([partition])], dtype=object)})


def _merged_states(states: Any) -> Any:
    import pandas as pd

    return pd.DataFrame({"state": pd.Series([merge(*states["state"])], dtype=object)})


def _threads() -> int:
    try:
        from distributed import get_client

        return int(_TASKS_PER_CORE * sum(get_client().nthreads().values()))
    except (ImportError, ValueError):
        return _TASKS_PER_CORE * cores()


def _dask() -> Any:
    try:
        import dask
    except ImportError as error:
        raise BarographError("`barograph.scaling.dask` needs dask, which is not there", "pip install 'barograph[dask]'") from error
    return dask
