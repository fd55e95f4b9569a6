"""Processes of one machine: files or a frame counted by several, with the result of one; and monitors of prefork servers, as one.

A worker that dies takes nothing with it but the piece it had: another one makes that leaf again.
"""

from __future__ import annotations

import io
import multiprocessing
import pickle
import signal
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from barograph.errors import BarographError, FrameError, InvalidArgumentError
from barograph.frames import Frame, parts
from barograph.scaling.leaves import SEGMENTS, Recipe, merge
from barograph.scaling.pieces import Paths, Piece, Reader, Work, cores, finished, frame_of, leaf_of, names_files, plan

if TYPE_CHECKING:
    import polars as pl

    from barograph.monitors import Monitor
    from barograph.references import Reference
    from barograph.schemas import Schema

__all__ = ["merge_monitors", "profile"]

Start = Literal["spawn", "fork", "forkserver"]
_TASKS_PER_PROCESS = 4
"""So that one slow piece does not hold up the end, and a lost one costs little."""


def profile(
    source: Paths | Frame,
    *,
    processes: int | None = None,
    start: Start = "spawn",
    schema: Schema | None = None,
    reference: Reference | None = None,
    by: str | Sequence[str] | None = None,
    limit: int = SEGMENTS,
    reader: Reader | None = None,
    retries: int = 3,
) -> Any:
    """`bg.profile` by several processes: a Profile, or with `by` the profiles of `Segments`; to the byte what one process gives.

    source: Parquet, CSV or Arrow files, folders, globs, a list of them, or a frame in memory. processes: at least 1; the cores by
    default. start: how they begin. "spawn" is safe everywhere; "forkserver" is as safe and begins faster from the second on; "fork"
    shares a frame without copying it; polars' threads do not survive it, so it needs pyarrow, reads no files but Parquet, and refuses
    `by`. reader: how a path becomes a frame, a function at the top of a module. retries: so often a piece is given to another worker
    after one died with it, in [0, 100]. limit, schema, reference: as those of `barograph.scaling.leaf`.

    A worker that is killed while its leaf is unfinished loses nothing; its piece counts once. Raises what `bg.profile` raises, naming the
    file; BarographError if workers keep dying with a piece, or the count differs from what the files say. Cost: that of `bg.profile`, and
    about 0.3 CPU seconds per process to begin.

    >>> profile({"x": [1.0, 2.0, None]}, processes=1, start="forkserver")["x"].null_count
    1
    """
    number = cores() if processes is None else processes
    if type(number) is not int or not 1 <= number <= 1024:
        raise InvalidArgumentError(f"`processes` must be a whole number in [1, 1024], got {processes!r}")
    if start not in multiprocessing.get_all_start_methods():
        known = ", ".join(multiprocessing.get_all_start_methods())
        raise InvalidArgumentError(f"`start` must be one of {known}, got {start!r}")
    if type(retries) is not int or not 0 <= retries <= 100:
        raise InvalidArgumentError(f"`retries` must be a whole number in [0, 100], got {retries!r}")
    if start == "fork" and by:
        raise InvalidArgumentError('`by` needs threads that do not survive start="fork"', 'use start="spawn" or "forkserver"')
    tasks = number * _TASKS_PER_PROCESS
    if names_files(source):
        work = plan(source, tasks, schema=schema, reference=reference, by=by, limit=limit, reader=reader)
        if start == "fork" and reader is None:
            work = replace(work, opener=_opened_by_pyarrow)
        jobs = [_Job(pieces=pieces) for pieces in work.tasks]
        return finished(work, merge(*_Pool(work, start, retries, None).run(jobs, number)))
    # The parts of a frame are Arrow; what polars makes of them shares their memory.
    import polars as pl

    frames: list[Any] = [part if isinstance(part, pl.DataFrame) else pl.DataFrame(part) for part in parts(source)]
    recipe = Recipe.of(frames[0], schema=schema, reference=reference, by=by, limit=limit)
    work = Work([], recipe, sum(frame.height for frame in frames), frame_of)
    share = max(1, -(-(work.rows or 0) // tasks))
    cuts = [(at, first, min(share, frame.height - first)) for at, frame in enumerate(frames) for first in range(0, frame.height, share)]
    jobs = [_Job(rows=cut) for cut in cuts] or [_Job(rows=(0, 0, 0))]
    if start == "fork":
        frames = [_as_pyarrow(frame) for frame in frames]
    return finished(work, merge(*_Pool(work, start, retries, frames).run(jobs, number)))


def merge_monitors(snapshots: Iterable[str | Path | bytes]) -> Monitor:
    """One monitor of several workers' snapshots: files or bytes of `monitor.snapshot()`.

    For prefork servers (gunicorn, uvicorn with workers): every worker observes with a monitor of its own that does not tick
    (`ticks="manual"`) and writes its snapshot to a file of its own from time to time; whoever wants to look merges the files and ticks.
    What it then says is what one monitor that had seen every event would say. A worker that is killed loses what it observed since its
    last snapshot. snapshots: paths of files, or bytes. Raises InvalidArgumentError without snapshots, IncompatibleError for monitors of
    different models, references or policies.

    >>> import barograph as bg
    >>> reference = bg.Reference({"x": [1.0, 2.0] * 500})
    >>> workers = [bg.Monitor("m", reference=reference, ticks="manual") for _ in range(2)]
    >>> for worker in workers:
    ...     worker.observe({"x": 1.0})
    >>> merge_monitors(worker.snapshot() for worker in workers).counts()["events"]
    2
    """
    from barograph.monitors import Monitor

    total: Monitor | None = None
    for snapshot in snapshots:
        one = Monitor.restore(snapshot if isinstance(snapshot, bytes) else Path(snapshot).read_bytes(), ticks="manual")
        if total is None:
            total = one
        else:
            total.merge(one)
    if total is None:
        raise InvalidArgumentError("`snapshots` must hold at least one, got none", "have the workers saved yet?")
    return total


@dataclass
class _Job:
    """One leaf: some pieces of files, or the rows `(frame, first, number)` of frames in memory; and how often it was begun."""

    pieces: tuple[Piece, ...] | None = None
    rows: tuple[int, int, int] | None = None
    attempts: int = 0

    def __str__(self) -> str:
        return (
            f"rows {self.rows[1]} to {self.rows[1] + self.rows[2]}" if self.rows else ", ".join(str(piece) for piece in self.pieces or ())
        )


class _Pool:
    """Workers that each get one job at a time through a pipe; a worker that is gone is replaced, and its job is done again."""

    def __init__(self, work: Work, start: str, retries: int, frames: list[Any] | None) -> None:
        self._context: Any = multiprocessing.get_context(start)
        self._work, self._retries, self._frames = work, retries, frames
        self._shared = start == "fork"
        self._workers: dict[Connection, Any] = {}

    def run(self, jobs: list[_Job], number: int) -> list[bytes]:
        """The leaves of all jobs, in the order of the jobs."""
        done: dict[int, bytes] = {}
        waiting = deque(range(len(jobs)))
        busy: dict[Connection, int] = {}
        try:
            for _ in range(min(number, len(jobs))):
                self._begin()
            while len(done) < len(jobs):
                for pipe in [pipe for pipe in self._workers if pipe not in busy]:
                    if waiting:
                        busy[pipe] = waiting.popleft()
                        jobs[busy[pipe]].attempts += 1
                        self._send(pipe, jobs[busy[pipe]])
                for pipe in cast("list[Connection]", wait(list(busy))):
                    at = busy.pop(pipe)
                    try:
                        failed, answer = pickle.loads(pipe.recv_bytes())
                    except (EOFError, OSError):
                        self._replace(pipe, jobs[at])
                        waiting.append(at)
                        continue
                    if failed:
                        raise answer
                    done[at] = answer
            return [done[at] for at in range(len(jobs))]
        finally:
            self._end()

    def _begin(self) -> None:
        mine, theirs = self._context.Pipe()
        inherited = (*self._workers, mine) if self._shared else ()
        arguments = (theirs, self._work, self._frames if self._shared else None, inherited)
        worker = self._context.Process(target=_work_off, args=arguments, daemon=True)
        worker.start()
        theirs.close()
        self._workers[mine] = worker

    def _send(self, pipe: Connection, job: _Job) -> None:
        data = None
        if self._frames is not None and not self._shared and job.rows is not None:
            at, first, rows = job.rows
            buffer = io.BytesIO()
            self._frames[at].slice(first, rows).write_ipc_stream(buffer)
            data = buffer.getvalue()
        try:
            pipe.send_bytes(pickle.dumps((job, data), protocol=5))
        except OSError:
            # It is gone already; the answer that does not come says so.
            return

    def _replace(self, pipe: Connection, job: _Job) -> None:
        worker = self._workers.pop(pipe)
        pipe.close()
        worker.join()
        if job.attempts > self._retries:
            code = worker.exitcode
            how = f"was ended by {signal.Signals(-code).name}" if code is not None and code < 0 else f"exited with {code}"
            raise BarographError(
                f"a worker died {job.attempts} times with {job}: the last one {how}",
                "was there enough memory? the operating system ends what takes too much",
            )
        self._begin()

    def _end(self) -> None:
        for pipe, worker in self._workers.items():
            pipe.close()
            # Those that wait for a job end by themselves; others would work for nobody.
            worker.terminate()
        for worker in self._workers.values():
            worker.join()
        self._workers.clear()


def _work_off(pipe: Connection, work: Work, frames: list[Any] | None, inherited: Sequence[Connection]) -> None:
    """What a worker does: one leaf per job, until nobody asks any more."""
    # The parent is interrupted, and ends its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for other in inherited:
        # Held by two, a pipe would not tell when one of them is gone.
        other.close()
    while True:
        try:
            job, data = pickle.loads(pipe.recv_bytes())
        except EOFError:
            return
        answer: tuple[bool, Any]
        try:
            answer = (False, _leaf(work, job, data, frames))
        except Exception as error:
            answer = (True, error)
        try:
            answered = pickle.dumps(answer, protocol=5)
        except Exception:
            answered = pickle.dumps((True, BarographError(f"{job}: {answer[1]!r}")))
        pipe.send_bytes(answered)


def _leaf(work: Work, job: _Job, data: bytes | None, frames: list[Any] | None) -> bytes:
    if job.pieces is not None:
        return leaf_of(work.recipe, job.pieces, work.opener)
    if frames is not None and job.rows is not None:
        at, first, rows = job.rows
        return work.recipe.leaf([frames[at].slice(first, rows)])
    import polars as pl

    return work.recipe.leaf([pl.read_ipc_stream(io.BytesIO(data or b""))])


def _pyarrow() -> Any:
    """What forked workers use instead of polars, whose threads are not there after a fork: it would wait for them for ever."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise BarographError('start="fork" needs pyarrow, which is not there', 'install pyarrow, or use start="spawn"') from error
    return pyarrow


def _as_pyarrow(frame: pl.DataFrame) -> Any:
    import polars as pl

    _pyarrow()
    return frame.to_arrow(compat_level=pl.CompatLevel.newest())


def _opened_by_pyarrow(piece: Piece) -> Any:
    """A piece as a reader of batches."""
    pa = _pyarrow()
    pq = pa.parquet
    if not piece.path.lower().endswith(".parquet"):
        raise InvalidArgumentError(f'start="fork" reads Parquet files, got {piece.path}', 'use start="spawn" or "forkserver"')
    try:
        file = pq.ParquetFile(piece.path)
        sizes = [file.metadata.row_group(at).num_rows for at in range(file.num_row_groups)]
    except (pa.ArrowException, OSError) as error:
        raise FrameError(f"the file could not be read: {str(error).splitlines()[0]}", "is it a whole Parquet file?") from error
    return pa.RecordBatchReader.from_batches(file.schema_arrow, _range(file, sizes, piece))


def _range(file: Any, sizes: list[int], piece: Piece) -> Iterator[Any]:
    end = sum(sizes) if piece.rows is None else piece.first + piece.rows
    at = 0
    for group, size in enumerate(sizes):
        if at + size > piece.first and at < end:
            start = at
            for batch in file.iter_batches(row_groups=[group], use_threads=False):
                first, last = max(piece.first - start, 0), min(end - start, batch.num_rows)
                if first < last:
                    yield batch.slice(first, last - first)
                start += batch.num_rows
        at += size
