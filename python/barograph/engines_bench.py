"""`barograph bench engines`: one process, several, Spark, Ray and Dask count the same flights; counters and costs side by side.

Every engine runs in a process tree of its own, started by this file as a program; its cost is the CPU time of that whole tree (JVMs,
daemons and workers too). Three costs are told apart: to start, until the first two files are counted; of a call, whatever its rows; and of
a row, the slope between a quarter of the files and all of them on an engine that is warm, beside the slope of one process. Then a worker is
ended by SIGKILL in the middle of a leaf.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from barograph.errors import BarographError, InvalidArgumentError

__all__ = ["dies_half_way", "local_cluster", "run"]

_PASS, _FAILED, _INCONCLUSIVE = 0, 1, 3
_FILES = 20
_QUARTER = _FILES // 4
# The file whose first reader is killed.
_DEADLY = 7
# Whole runs before anything is timed: a JVM compiles what runs often, and goes on to for some of them.
_WARM_UPS = 2
# A quarter and the whole, so often; the medians count.
_ROUNDS = 3
# From Linux' <sys/prctl.h>.
_PR_SET_CHILD_SUBREAPER = 36
_SECONDS = 1500
# What is run, what its row says, and how many CPU seconds per million rows it may add to those of one process.
_ENGINES: dict[str, tuple[tuple[str, str, float | None], ...]] = {
    "single": (("single", "one process", None),),
    "processes": (("processes", "2 processes", None),),
    "spark": (("spark_paths", "Spark, paths", 0.3), ("spark_arrow", "Spark, mapInArrow", 1.2)),
    "ray": (("ray_paths", "Ray, tasks", 0.1),),
    "dask": (("dask_paths", "Dask, tasks", None), ("dask_frame", "Dask, DataFrame.reduction", None)),
}
ENGINES = tuple(_ENGINES)


@dataclass(frozen=True)
class _Row:
    """What one engine counted; without rows the note says why."""

    name: str
    engine: str
    rows: int | None = None
    digest: str | None = None
    counters: str = ""
    start_seconds: float | None = None
    cpu_seconds: float | None = None
    call_seconds: float | None = None
    million_seconds: float | None = None
    extra: float | None = None
    target: float | None = None
    killed_digest: str | None = None
    attempts: int | None = None
    note: str = ""


def run(options: argparse.Namespace) -> int:
    """Counts, measures and prints; gives the exit code."""
    if platform.system() != "Linux":
        raise BarographError("`bench engines` reads the cost of process trees from /proc", "run it on Linux")
    if not 100_000 <= options.rows <= 10**9:
        raise InvalidArgumentError(f"`--rows` must be in [100,000, 1,000,000,000], got {options.rows}")
    from barograph.sidecar_bench import _machine

    machine = _machine()
    _adopt_orphans()
    with tempfile.TemporaryDirectory(prefix="barograph-") as folder:
        _replicate(Path(folder), options.rows)
        rows: list[_Row] = []
        for engine in options.engines:
            print(f"barograph: {engine}", file=sys.stderr)
            rows += _measured(engine, folder)
    rows = _beside_one_process(rows)
    if options.json:
        print(json.dumps({"machine": machine, "rows": [asdict(row) for row in rows]}, ensure_ascii=False, allow_nan=False))
    else:
        print(_markdown(machine, options.rows, rows))
    if any(row.rows is None for row in rows):
        return _INCONCLUSIVE if _agree(rows, options.rows) else _FAILED
    return _PASS if _agree(rows, options.rows) else _FAILED


def _agree(rows: list[_Row], number: int) -> bool:
    """Whether all that counted, counted the same, and all of it; also where a worker was killed, and one really was."""
    counted = [row for row in rows if row.rows is not None]
    digests = {row.digest for row in counted} | {row.killed_digest for row in counted if row.attempts is not None}
    killed = all(row.attempts is None or row.attempts > 1 for row in counted)
    return len(digests) == 1 and killed and all(row.rows == number for row in counted)


def _beside_one_process(rows: list[_Row]) -> list[_Row]:
    """What a million rows cost on top of one process."""
    alone = next((row.million_seconds for row in rows if row.name == "single"), None)
    if alone is None:
        return rows
    return [row if row.million_seconds is None or row.name == "single" else replace(row, extra=row.million_seconds - alone) for row in rows]


def _replicate(folder: Path, number: int) -> None:
    """A year of flights over and over, in files of equal size."""
    import polars as pl

    source = pl.read_parquet(Path(__file__).parent / "data" / "flights_nyc_2013.parquet")
    edges = [number * at // _FILES for at in range(_FILES + 1)]
    whole = pl.concat([source] * (max(end - start for start, end in pairwise(edges)) // source.height + 2))
    for at, (start, end) in enumerate(pairwise(edges)):
        whole.slice(start % source.height, end - start).write_parquet(folder / f"part-{at:03}.parquet")


def _measured(engine: str, folder: str) -> list[_Row]:
    """The rows of one engine, measured by a process of its own."""
    environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "PYTHONWARNINGS": "ignore"}
    environment["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-m", "barograph.engines_bench", engine, folder]
    with tempfile.TemporaryDirectory(prefix="barograph-") as logs, (Path(logs) / "log").open("w+b") as log:
        try:
            done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=log, timeout=_SECONDS, check=False)
            lines = [line for line in done.stdout.decode().splitlines() if line.startswith('{"name"')]
            why = "" if done.returncode == 0 else _last_line(log)
        except subprocess.TimeoutExpired:
            lines, why = [], f"it took more than {_SECONDS} seconds"
        finally:
            _end_descendants()
    rows = {row["name"]: _Row(**row) for row in map(json.loads, lines)}
    return [rows.get(name, _Row(name, label, target=target, note=why or "nothing came")) for name, label, target in _ENGINES[engine]]


def _last_line(log: Any) -> str:
    log.seek(0)
    lines = [line.strip() for line in log.read().decode(errors="replace").splitlines() if line.strip()]
    return next((line for line in reversed(lines) if "Error" in line), lines[-1] if lines else "it ended without a word")[:300]


def _adopt_orphans() -> None:
    """Daemons, whose parents end, become children of this process, and so stay in its tree."""
    import ctypes

    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise BarographError("the system does not let this process adopt orphans, so engines' costs cannot be measured")


def _descendants(root: int) -> dict[int, list[str]]:
    """The fields behind the name in `/proc/PID/stat`, of every process that descends from `root`."""
    every: dict[int, list[str]] = {}
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                every[int(process.name)] = (process / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                # It has ended meanwhile.
                continue
    found: dict[int, list[str]] = {}
    generation = {root}
    while generation:
        generation = {pid for pid, fields in every.items() if int(fields[1]) in generation}
        found |= {pid: every[pid] for pid in generation}
    return found


def _end_descendants() -> None:
    while found := _descendants(os.getpid()):
        for pid in found:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        try:
            while os.waitpid(-1, os.WNOHANG) != (0, 0):
                continue
        except ChildProcessError:
            return
        time.sleep(0.01)


def _cpu_seconds(root: int) -> float:
    """CPU time so far of all that descends from a process, with those that have ended and were waited for."""
    ticks = sum(int(field) for fields in _descendants(root).values() for field in fields[11:15])
    return ticks / os.sysconf("SC_CLK_TCK")


def _markdown(machine: dict[str, Any], number: int, rows: list[_Row]) -> str:
    where = "On {processor}, {cores} cores, {kernel}, Python {python}, barograph {barograph}, {date}; load average before: {load_average}."
    versions = "".join(f"{name} {version}, " for name, version in _versions().items())
    what = (
        f"Flights replicated to {number:,} rows in {_FILES} files. {versions}CPU seconds of the whole process tree: to start, until two "
        f"files are counted; of one call on all files, the median of {_ROUNDS} on an engine that is warm; and apart from each other what a "
        "call costs whatever its rows, and what a million rows cost on top of one process (slope between a quarter of the files and all)."
    )
    lines = [
        f"{where.format(**machine)} {what}",
        "",
        "| engine | rows | delays: nulls, sum, distinct destinations | profile, SHA-256 | start, CPU-s | all, CPU-s | of it the call | "
        "extra CPU-s per M rows | target | a worker killed: profile | attempts |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]

    def number_of(value: float | None, digits: int) -> str:
        return "" if value is None else f"{value:.{digits}f}"

    for row in rows:
        if row.rows is None:
            lines.append(f"| {row.engine} | not run: {row.note.replace('|', ' ')} | | | | | | | | | |")
            continue
        cells = [
            row.engine,
            f"{row.rows:,}",
            row.counters,
            row.digest or "",
            number_of(row.start_seconds, 1),
            number_of(row.cpu_seconds, 1),
        ]
        cells += [number_of(row.call_seconds, 1), number_of(row.extra, 2), "" if row.target is None else f"≤ {row.target}"]
        cells += ["" if row.attempts is None else row.killed_digest or "", "" if row.attempts is None else str(row.attempts)]
        lines.append("| " + " | ".join(cells) + " |")
    same = "All profiles are the same to the byte." if _agree(rows, number) else "THE COUNTS DIFFER."
    return "\n".join([*lines, "", same])


def _versions() -> dict[str, str]:
    """Of the engines that are installed."""
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for name in ("pyspark", "ray", "dask"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


# ---- in the process of one engine ----


def dies_half_way(folder: str, deadly: str, path: str) -> Any:
    """A file whose reader is killed once its first batch is taken, if it is the file `deadly` and nobody was; `folder` has who began."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with (Path(folder) / f"{Path(path).stem}.begun").open("a") as log:
        log.write(f"{os.getpid()}\n")
    source = pq.ParquetFile(path)

    def batches() -> Iterator[Any]:
        for batch in source.iter_batches(batch_size=10_000):
            yield batch
            if Path(path).name == deadly and _first(folder):
                os.kill(os.getpid(), signal.SIGKILL)

    return pa.RecordBatchReader.from_batches(source.schema_arrow, batches())


def _first(folder: str) -> bool:
    """Whether nobody was killed yet."""
    try:
        os.close(os.open(f"{folder}/killed", os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


def _leaves_that_die(recipe: Any, folder: str, batches: Iterable[Any]) -> Iterator[Any]:
    """What `spark.leaves` does of a partition, with a death once a batch is taken, the first time."""
    from pyspark import TaskContext

    from barograph.scaling.spark import _leaves_of_batches

    context = TaskContext.get()
    with (Path(folder) / f"partition-{context.partitionId()}.begun").open("a") as log:
        log.write(f"{context.attemptNumber()}\n")

    def watched() -> Iterator[Any]:
        for batch in batches:
            yield batch
            if _first(folder):
                os.kill(os.getpid(), signal.SIGKILL)

    return _leaves_of_batches(recipe, watched())


def local_cluster(folder: str | Path) -> Any:
    """A Spark session with two executors of one core, each a process of its own, on loopback."""
    import shutil

    if shutil.which("java") is None:
        raise BarographError("Spark needs Java 17 or newer, and there is no `java` on the PATH", "apt-get install openjdk-17-jre-headless")
    try:
        from pyspark.sql import SparkSession
    except ImportError as error:
        raise BarographError("Spark needs pyspark, which is not there", "pip install 'barograph[spark]'") from error
    os.environ["PYSPARK_PYTHON"] = sys.executable
    os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"
    settings = {
        "spark.ui.enabled": "false",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.executorEnv.PYTHONPATH": os.environ.get("PYTHONPATH", ""),
        "spark.sql.shuffle.partitions": "4",
        "spark.sql.warehouse.dir": str(Path(folder) / "warehouse"),
        "spark.log.level": "ERROR",
        "spark.ui.showConsoleProgress": "false",
    }
    builder = SparkSession.builder.master("local-cluster[2,1,1024]").appName("barograph")
    for name, value in settings.items():
        builder = builder.config(name, value)
    return builder.getOrCreate()


@dataclass(frozen=True)
class _Runner:
    """How one engine counts files: in full, and while `folder` notes who began and one worker dies."""

    plain: Callable[[list[str]], Any]
    killed: Callable[[list[str], str], Any] | None


def _runners(engine: str, folder: str) -> dict[str, _Runner]:
    """The ways of one engine, started."""

    def deadly(at: str) -> Callable[[str], Any]:
        return partial(dies_half_way, at, f"part-{_DEADLY:03}.parquet")

    if engine == "single":
        import polars as pl

        from barograph.profiles import profile

        return {"single": _Runner(lambda files: profile(pl.scan_parquet(files, low_memory=True)), None)}
    if engine == "processes":
        from barograph.scaling import processes

        count = partial(processes.profile, processes=2)
        return {"processes": _Runner(count, lambda files, at: count(files, reader=deadly(at)))}
    if engine == "ray":
        import ray as engine_of_ray

        from barograph.scaling import ray

        engine_of_ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
        return {"ray_paths": _Runner(ray.profile, lambda files, at: ray.profile(files, reader=deadly(at)))}
    if engine == "dask":
        import dask.dataframe as frames
        from distributed import Client, LocalCluster

        from barograph.scaling import dask

        cluster = LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None, host="127.0.0.1")
        # Held by its module while it runs.
        globals()["_client"] = Client(cluster)
        of_paths = _Runner(dask.profile, lambda files, at: dask.profile(files, reader=deadly(at)))
        return {"dask_paths": of_paths, "dask_frame": _Runner(lambda files: dask.profile(frames.read_parquet(files)), None)}
    from barograph.scaling import read, spark

    session = local_cluster(folder)

    def dying(files: list[str], at: str) -> Any:
        frame = session.read.parquet(*files)
        recipe = spark.recipe_of(frame)
        states = frame.select(*recipe.columns(frame.columns)).mapInArrow(partial(_leaves_that_die, recipe, at), spark.STATE)
        return read(spark.merged(states, recipe))

    return {
        "spark_paths": _Runner(
            lambda files: spark.profile(files, spark=session), lambda files, at: spark.profile(files, spark=session, reader=deadly(at))
        ),
        "spark_arrow": _Runner(lambda files: spark.profile(session.read.parquet(*files)), dying),
    }


def _of_engine(engine: str, folder: str) -> None:
    """Runs one engine and prints its rows as JSON."""
    files = [str(file) for file in sorted(Path(folder).glob("*.parquet"))]
    # Of the tree of whoever started this: orphans are there.
    root = os.getppid()
    with tempfile.TemporaryDirectory(prefix="barograph-") as own:
        runners = _runners(engine, own)
        for at, (name, label, target) in enumerate(_ENGINES[engine]):
            runner = runners[name]
            begun = _cpu_seconds(root) if at else 0.0
            runner.plain(files[:2])
            started = _cpu_seconds(root) - begun
            fewer = runner.plain(files[:_QUARTER]).rows
            for _ in range(_WARM_UPS):
                profile = runner.plain(files)
            costs = [(_cost(runner, files[:_QUARTER], root), _cost(runner, files, root)) for _ in range(_ROUNDS)]
            quarter, whole = median(cost for cost, _ in costs), median(cost for _, cost in costs)
            slope = (whole - quarter) / (profile.rows - fewer)
            row = _Row(
                name,
                label,
                profile.rows,
                _digest(profile),
                _counters(profile),
                start_seconds=started,
                cpu_seconds=whole,
                call_seconds=max(0.0, whole - slope * profile.rows),
                million_seconds=1e6 * slope,
                target=target,
            )
            if runner.killed is not None:
                notes = Path(own) / name
                notes.mkdir()
                profile = runner.killed(files, str(notes))
                attempts = max(len(note.read_text().splitlines()) for note in notes.glob("*.begun"))
                row = _Row(**{**asdict(row), "killed_digest": _digest(profile), "attempts": attempts if (notes / "killed").exists() else 0})
            print(json.dumps(asdict(row)), flush=True)


def _cost(runner: _Runner, files: list[str], root: int) -> float:
    """CPU seconds of one call."""
    before = _cpu_seconds(root)
    runner.plain(files)
    return _cpu_seconds(root) - before


def _digest(profile: Any) -> str:
    return hashlib.sha256(profile.to_bytes()).hexdigest()[:12]


def _counters(profile: Any) -> str:
    delay = profile["dep_delay_min"]
    counted = delay.count - delay.null_count
    return f"{delay.null_count:,}, {round(delay.mean * counted):,}, {profile['dest'].distinct:,.0f}"


if __name__ == "__main__":
    # Under its own name, so that what workers are sent is found there.
    from barograph import engines_bench

    engines_bench._of_engine(sys.argv[1], sys.argv[2])
    sys.stdout.flush()
    # Engines leave threads and daemons; whoever started this ends them all.
    os._exit(0)
