"""Ray: profiles of files by a tree of tasks, and of Datasets, exactly what one process counts (extra `barograph[ray]`).

Tasks return leaves and other tasks merge them; nothing is kept in an actor, because an actor that is lost takes along what it had counted
and the call that lost it is not made again. Replicas of Ray Serve send what they see to a sidecar: `barograph.scaling.deltas`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from barograph.errors import BarographError, InvalidArgumentError, UnsupportedError
from barograph.scaling.leaves import SEGMENTS, Recipe, merge, read, read_segments
from barograph.scaling.pieces import FAN_IN, Paths, Reader, error_in, finished, leaf_of, names_files, plan

if TYPE_CHECKING:
    from barograph.references import Reference
    from barograph.schemas import Schema

__all__ = ["profile"]

_SAMPLE_ROWS = 10_000
_TASKS_PER_CPU = 2


def profile(
    source: Paths | Any,
    *,
    by: str | Sequence[str] | None = None,
    schema: Schema | None = None,
    reference: Reference | None = None,
    limit: int = SEGMENTS,
    tasks: int | None = None,
    reader: Reader | None = None,
    retries: int = 3,
) -> Any:
    """A Profile of files or of a `ray.data.Dataset`, or with `by` the profiles of `Segments`; to the byte what one process gives.

    source: paths, folders, globs, or a list of them, which the workers reach under the same names; or a Dataset. by, schema, reference,
    limit: as those of `barograph.scaling.leaf`. A schema that is not given is inferred from the first rows: of a Dataset these are
    computed once more. tasks: among how many files are divided, twice the CPUs by default. reader: how a path becomes a frame on a worker.
    retries: so often a task is done again after its worker or node was lost, in [0, 100]; a Dataset has Ray's own rules for that.

    Starts Ray on this machine if it does not run. Raises what `bg.profile` raises, also if it happened on a worker; BarographError if
    workers keep dying, or the rows of the files and those that were counted differ. Cost on top of `bg.profile`: docs/guides/ray.md.
    """
    ray = _ray()
    if type(retries) is not int or not 0 <= retries <= 100:
        raise InvalidArgumentError(f"`retries` must be a whole number in [0, 100], got {retries!r}")
    with _told(ray):
        if not names_files(source):
            return _of_dataset(source, schema=schema, reference=reference, by=by, limit=limit)
        if not ray.is_initialized():
            ray.init(log_to_driver=False, include_dashboard=False)
        number = tasks or max(2, _TASKS_PER_CPU * int(ray.cluster_resources().get("CPU", 1)))
        work = plan(source, number, schema=schema, reference=reference, by=by, limit=limit, reader=reader)
        leaf, node = (ray.remote(max_retries=retries)(function) for function in (leaf_of, merge))
        recipe, opener = ray.put(work.recipe), ray.put(work.opener)
        parts = [leaf.remote(recipe, pieces, opener) for pieces in work.tasks]
        while len(parts) > 1:
            parts = [node.remote(*parts[at : at + FAN_IN]) for at in range(0, len(parts), FAN_IN)]
        return finished(work, ray.get(parts[0]))


def _of_dataset(dataset: Any, *, by: str | Sequence[str] | None, **settings: Any) -> Any:
    if not hasattr(dataset, "map_batches") or not hasattr(dataset, "select_columns"):
        raise UnsupportedError(f"`source` must be a ray.data.Dataset or paths of files, got {type(dataset).__name__}")
    if settings["schema"] is None:
        settings["sample"] = dataset.limit(_SAMPLE_ROWS).take_batch(_SAMPLE_ROWS, batch_format="pyarrow")
    recipe = Recipe.of(settings.pop("sample", {}), by=by, **settings)
    found = dataset.schema()
    if found is not None:
        dataset = dataset.select_columns(recipe.columns(found.names))
    states = dataset.map_batches(partial(_leaf_of_block, recipe), batch_format="pyarrow", batch_size=None, zero_copy_batch=True)
    parts: list[bytes] = [recipe.leaf([])]
    for batch in states.iter_batches(batch_format="pyarrow", batch_size=None):
        parts = [merge(*parts, *(bytes(state) for state in batch["state"].to_pylist()))]
    return read_segments(parts[0]) if recipe.by else read(parts[0])


def _leaf_of_block(recipe: Recipe, block: Any) -> Any:
    import pyarrow as pa

    return pa.table({"state": pa.array([recipe.leaf([block])], pa.binary())})


def _ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise BarographError("`barograph.scaling.ray` needs ray, which is not there", "pip install 'barograph[ray]'") from error
    return ray


@contextmanager
def _told(ray: Any) -> Iterator[None]:
    """Errors of ours that happened in a task are raised as what they are, and a worker that was lost for good as one of ours."""
    lost = (ray.exceptions.WorkerCrashedError, ray.exceptions.NodeDiedError)
    try:
        yield
    except Exception as error:
        # A task whose argument could not be made fails with what its maker failed with.
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, BarographError) and not isinstance(cause, ray.exceptions.RayTaskError):
                if cause is error:
                    raise
                raise cause from error
            if isinstance(cause, lost):
                raise BarographError(
                    "workers kept dying with a task, and it was given up", "was there enough memory? Ray's logs tell what ended them"
                ) from error
            cause = getattr(cause, "cause", None) or cause.__cause__
        # What fails in a block of a Dataset is known by its trace alone.
        told = error_in(str(error))
        if told is None:
            raise
        raise told from error
