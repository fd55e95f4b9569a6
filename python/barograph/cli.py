"""The command line: `barograph profile`, `reference`, `compare`, `gate`, `backtest`, `config`, `dashboards`,
`serve`, `ingest`, `store`, `top`, `bench`, `capacity`, `plan`, `demo`, `doctor`.

Exit codes: 0 pass, 1 drift, 2 usage or data error, 3 a required column could not be judged. Data on stdout, the rest on stderr.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from barograph import doctor
from barograph.errors import BarographError, FrameError, InvalidArgumentError, UnsupportedError

_PASS, _DRIFT, _ERROR, _INCONCLUSIVE = 0, 1, 2, 3
_SEVERITIES = {"warning": ("warning", "critical"), "critical": ("critical",), "never": ()}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and gives its exit code."""
    options = _parser().parse_args(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A terminal or pipe that knows ASCII alone gets a sign for what it cannot show, not an error half-way.
        sys.stdout.reconfigure(errors="replace")
    try:
        code: int = options.run(options)
        sys.stdout.flush()
        return code
    except BarographError as error:
        print(f"barograph: {error}", file=sys.stderr)
    except BrokenPipeError:
        # The reader went away: `barograph profile x | head` is no error.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _PASS
    except OSError as error:
        print(f"barograph: {error.strerror or error}: {error.filename or ''}", file=sys.stderr)
    except KeyboardInterrupt:
        print("barograph: interrupted", file=sys.stderr)
        return 130
    return _ERROR


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="barograph", description="Watches machine-learning systems in production.")
    parser.add_argument("--version", action="version", version=f"barograph {_version()}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    profile = commands.add_parser("profile", help="summarise files", description="Summarises Parquet and CSV files, one row per column.")
    profile.add_argument("files", nargs="+", metavar="FILE", help="Parquet or CSV; globs in quotes")
    profile.add_argument("-o", "--output", metavar="PROFILE", help="also write the profile's snapshot")
    profile.add_argument("--json", action="store_true", help="rows as JSON")
    profile.set_defaults(run=_profile)

    compare = commands.add_parser(
        "compare",
        help="compare a file with a reference",
        description="Compares a file with a reference. Exit codes: 0 no drift, 1 drift, 2 error, 3 a feature could not be judged.",
    )
    compare.add_argument("reference", metavar="REFERENCE", help="a reference or profile snapshot, or a Parquet or CSV file")
    compare.add_argument("current", metavar="CURRENT", help="a profile snapshot, or a Parquet or CSV file")
    compare.add_argument("--html", metavar="OUT", help="write the report as one HTML page")
    compare.add_argument("--junit", metavar="OUT", help="write JUnit XML, one test case per column")
    compare.add_argument("--summary", metavar="OUT", help="append a Markdown table (default: the file $GITHUB_STEP_SUMMARY names)")
    compare.add_argument("--json", action="store_true", help="the report as JSON")
    compare.add_argument("--no-histogram", action="store_true", help="do not draw the worst columns under the table")
    compare.add_argument("--fail-on", choices=sorted(_SEVERITIES), default="warning", help="what makes it exit 1 (default: warning)")
    compare.add_argument("--confidence", type=float, default=0.99, metavar="C", help="of every test (default: 0.99)")
    compare.set_defaults(run=_compare)

    gate = commands.add_parser(
        "gate",
        help="hold a candidate model against the current one",
        description="Compares two files of predictions of the same inputs. Exit codes: 0 passed, 1 failed, 2 error, 3 inconclusive.",
    )
    gate.add_argument("current", metavar="CURRENT", help="Parquet or CSV with the current model's predictions")
    gate.add_argument("candidate", metavar="CANDIDATE", help="the candidate's predictions")
    gate.add_argument("--id", help="column that joins both; row by row without it")
    gate.add_argument("--label", help="column of the truth, in either file")
    gate.add_argument("--prediction", default="prediction", help="column of predictions (prediction)")
    gate.add_argument("--score", default="score", help="column of scores (score)")
    gate.add_argument(
        "--segment", action="append", default=[], metavar="COLUMN", help="judge every value of a column apart; can be repeated"
    )
    gate.add_argument("--task", choices=["binary", "multiclass", "regression"], help="inferred from the labels if absent")
    gate.add_argument("--limit", action="append", default=[], metavar="CHECK=HARM", help="harm that is tolerated, such as error=0.02")
    gate.add_argument("--confidence", type=float, default=0.95, help="of the limits (0.95)")
    gate.add_argument("--junit", metavar="FILE", help="write test cases as JUnit XML")
    gate.add_argument("--summary", metavar="FILE", help="append Markdown; $GITHUB_STEP_SUMMARY by itself")
    gate.add_argument("--json", action="store_true", help="checks as JSON")
    gate.set_defaults(run=_gate)

    reference = commands.add_parser("reference", help="freeze a reference", description="Makes a reference of a Parquet or CSV file.")
    reference.add_argument("file", metavar="FILE", help="Parquet or CSV (a glob in quotes), or a profile snapshot")
    reference.add_argument("-o", "--output", metavar="REF", required=True, help="where the reference goes")
    reference.add_argument("--bins", type=int, default=1000, metavar="N", help="bins per column of numbers (default: 1000)")
    reference.set_defaults(run=_reference)

    backtest = commands.add_parser(
        "backtest",
        help="replay a log through a policy",
        description="Replays a log through a monitor: alerts per week, and how fast shifts put into it are found. "
        "Exit codes: 0 within the wanted rate, 1 above it, 2 error.",
    )
    backtest.add_argument("reference", metavar="REFERENCE", help="a reference snapshot, or a Parquet or CSV file")
    backtest.add_argument("log", metavar="LOG", help="a Parquet or CSV file of events")
    backtest.add_argument("--time", required=True, metavar="COLUMN", help="its column of event times")
    backtest.add_argument("--score", metavar="COLUMN", help="its column of scores in [0, 1]")
    backtest.add_argument("--policy", metavar="FILE", help="a TOML file that states window, budget and rules")
    backtest.add_argument("--model", default="backtest", metavar="NAME", help="which model's policy of the file")
    backtest.add_argument("--window", default="1h", metavar="LENGTH", help="such as 30m, 1h, 1d, 1w (default: 1h)")
    backtest.add_argument("--budget", default="7d", metavar="LENGTH", help="at most one false alert in so long (default: 7d)")
    backtest.add_argument("--shifts", default="0.25,0.5,1", metavar="LIST", help="sizes in standard deviations (default: 0.25,0.5,1)")
    backtest.add_argument("--runs", type=int, default=20, metavar="N", help="shifts of each size (default: 20)")
    backtest.add_argument("--wanted", type=float, metavar="RATE", help="alerts per week: proposes a budget")
    backtest.add_argument("--json", action="store_true", help="rows as JSON")
    backtest.set_defaults(run=_backtest)

    config = commands.add_parser("config", help="check a policy file", description="Reads a TOML file as the monitor and the sidecar do.")
    config.add_argument("what", choices=["check"], metavar="check", help="say what the policies promise, or what is wrong with them")
    config.add_argument("file", metavar="FILE", help="a TOML file")
    config.set_defaults(run=_config)

    dashboards = commands.add_parser(
        "dashboards",
        help="a Grafana dashboard and Prometheus alert rules",
        description="Writes MODEL.dashboard.json for Grafana and MODEL.rules.yml for Prometheus, for every model of a policy file.",
    )
    dashboards.add_argument("file", metavar="FILE", help="a TOML file of policies")
    dashboards.add_argument("--model", metavar="NAME", help="its name, where the file is the policy of one model")
    dashboards.add_argument("-o", "--output", default=".", metavar="DIR", help="where they go (default: here)")
    dashboards.set_defaults(run=_dashboards)

    serve = commands.add_parser(
        "serve",
        help="run the sidecar",
        description="Runs the sidecar: events in, drift, alerts and metrics out. Without options it listens on 127.0.0.1:7464, keeps "
        "its data in ./barograph-data, and writes a token to DATA/token. The token can also come from BAROGRAPH_TOKEN.",
    )
    serve.add_argument("--config", metavar="FILE", help="a TOML file; every key has a default")
    serve.add_argument(
        "--listen", action="append", default=[], metavar="ADDRESS", help="such as 127.0.0.1:7464 or unix:/path; can be repeated"
    )
    serve.add_argument("--health-listen", metavar="ADDRESS", help="only health and metrics, without a token")
    serve.add_argument("--data", metavar="DIR", help="the folder of everything that lasts (default: barograph-data)")
    serve.add_argument("--token-file", metavar="FILE", help="a file that holds the administrator's token")
    serve.add_argument("--statsd", metavar="ADDRESS", help="where datagrams of DogStatsD come in, such as 127.0.0.1:8125 or unix:/path")
    serve.add_argument("--test-alert", action="store_true", help="send a test alert to every sink, and end")
    serve.set_defaults(run=_serve)

    _add_ingest(commands)

    store = commands.add_parser(
        "store",
        help="check, compact, export or erase what a sidecar has kept",
        description="Works on the data folder of a sidecar that is not running. Exit codes: 0, 1 for damage found by check, 2 error.",
    )
    what = store.add_subparsers(dest="what", required=True, metavar="WHAT")
    check = what.add_parser("check", help="read everything and say what is wrong; changes nothing")
    check.add_argument("--json", action="store_true", help="what was found as JSON")
    compact = what.add_parser("compact", help="write states, so that logs can go, and give space back to the disk")
    export = what.add_parser("export", help="history, alerts, profiles and references as Parquet, with sketches of DataSketches")
    export.add_argument("folder", metavar="DIR", nargs="?", help="where they go: a folder that is new or empty")
    export.add_argument("--postgres", metavar="ADDRESS", help="instead of DIR: a database, such as postgresql://user@host/database")
    export.add_argument("--schema", metavar="NAME", help="the schema of its tables (default: barograph)")
    export.add_argument("--model", metavar="NAME", help="only this one")
    erase = what.add_parser("erase", help="forget a model, or what is held for one of its ids")
    erase.add_argument("model", metavar="MODEL", help="its name")
    erase.add_argument("--id", metavar="ID", help="text, or a whole number; text of digits in double quotes")
    erase.add_argument("--yes", action="store_true", help="needed to forget a whole model")
    for command in (check, compact, export, erase):
        command.add_argument("--data", metavar="DIR", help="the data folder (default: barograph-data)")
        command.add_argument("--config", metavar="FILE", help="the sidecar's TOML file: it names the folder and the key of hashed columns")
    store.set_defaults(run=_store)

    top = commands.add_parser(
        "top",
        help="a running sidecar, live in the terminal",
        description="Shows a running sidecar live: its models, their rates, open alerts and drift. The token comes from BAROGRAPH_TOKEN, "
        "--token-file, or barograph-data/token. Exit codes: 0, and 2 for an error, or no answer with --once.",
    )
    top.add_argument("url", nargs="?", default="http://127.0.0.1:7464", metavar="URL", help="or https, unix:///path (default: %(default)s)")
    top.add_argument("--token-file", metavar="FILE", help="a file that holds a token of scope read")
    top.add_argument("--interval", type=float, default=2.0, metavar="SECONDS", help="between two polls (default: 2)")
    top.add_argument("--once", action="store_true", help="print one plain table and end; the same where there is no terminal")
    top.add_argument("--json", action="store_true", help="one JSON object a poll; with --once, one")
    top.set_defaults(run=_top)

    bench = commands.add_parser("bench", help="measure on this machine", description="Measures barograph on this machine.")
    what = bench.add_subparsers(dest="what", required=True, metavar="WHAT")
    sidecar = what.add_parser(
        "sidecar",
        help="rates, latencies, memory and recovery of the sidecar",
        description="Starts a sidecar of its own, loads it, kills it and prints a Markdown table beside the targets. "
        "Exit codes: 0 measured, 1 events were counted wrongly, 2 error, 3 something could not be measured. A missed target is no error.",
    )
    sidecar.add_argument("--seconds", type=float, default=10.0, metavar="S", help="length of each load (default: 10)")
    sidecar.add_argument("--json", action="store_true", help="machine and rows as JSON")
    sidecar.set_defaults(run=_bench_sidecar)

    budget = what.add_parser(
        "budget",
        help="a budget of processor time, kept by a monitor and by a sidecar",
        description="Runs 20,000 events a second of 50 features through a monitor and a sidecar that may take 1 % of a core: prints "
        "the plan, what it cost, and whether intervals cover what was true of all events. Exit codes: 0 kept within a fifth, 1 not, "
        "2 error.",
    )
    budget.add_argument("--seconds", type=float, default=60.0, metavar="S", help="length of each run (default: 60)")
    budget.add_argument("--cpu", default="1%", metavar="SHARE", help="the limit, of one core (default: 1%%)")
    budget.add_argument("--rows", default="20000/s", metavar="RATE", help="events per second (default: 20000/s)")
    budget.add_argument("--columns", type=int, default=50, metavar="N", help="features (default: 50)")
    budget.add_argument("--home", choices=["frames", "events", "sidecar"], action="append", help="only this one; can be repeated")
    budget.add_argument("--json", action="store_true", help="what was measured as JSON")
    budget.set_defaults(run=_bench_budget)

    capacity = commands.add_parser(
        "capacity",
        help="replicas that keep an objective",
        description="How many replicas keep an objective under the load of a log (Parquet or CSV, one row per call) or of a running "
        "sidecar's model, by simulation of the measured service times. Exit codes: 0 kept, 1 not kept (with --replicas also: nearly not), "
        "2 error, 3 too little data to say.",
    )
    capacity.add_argument("log", nargs="?", metavar="LOG", help="a Parquet or CSV file with a row per call")
    capacity.add_argument("--time", metavar="COLUMN", help="its column of the times at which calls came")
    capacity.add_argument("--seconds", metavar="COLUMN", help="its column of the seconds that each call took, without waiting")
    capacity.add_argument("--url", metavar="URL", help="a sidecar instead of a log, such as http://127.0.0.1:7464 or unix:///path")
    capacity.add_argument("--model", metavar="NAME", help="which of its models")
    capacity.add_argument("--token-file", metavar="FILE", help="a file that holds a token of scope read; BAROGRAPH_TOKEN goes before it")
    capacity.add_argument("--events-per-call", type=float, default=1.0, metavar="N", help="of the sidecar's model (default: 1)")
    capacity.add_argument("--slo", required=True, metavar="SLO", help="'p99 <= 200ms', 'p95 wait <= 50ms', 'wait probability <= 0.2'")
    capacity.add_argument("--concurrency", type=int, default=1, metavar="N", help="calls that one replica serves at once (default: 1)")
    capacity.add_argument("--replicas", type=int, metavar="N", help="so many are there: what they do, and how much more they bear")
    capacity.add_argument("--rate", type=float, metavar="R", help="calls per second (default: the forecast's peak, or the busiest hour)")
    capacity.add_argument("--level", type=float, default=0.9, metavar="L", help="of the forecast's limits (default: 0.9)")
    capacity.add_argument("--factors", metavar="LIST", help="also at these multiples of the load, such as 1,1.5,2")
    capacity.add_argument("--least", type=int, default=1, metavar="N", help="replicas at least (default: 1)")
    capacity.add_argument("--most", type=int, default=1000, metavar="N", help="replicas at most (default: 1000)")
    capacity.add_argument("--calls", type=int, default=2_000_000, metavar="N", help="simulated for one number of replicas (2,000,000)")
    capacity.add_argument("--seed", type=int, default=0, metavar="N", help="of the simulation (default: 0)")
    shown = capacity.add_mutually_exclusive_group()
    shown.add_argument("--json", action="store_true", help="everything as one JSON document")
    shown.add_argument("--keda", action="store_true", help="what KEDA's metrics-api scaler reads, with valueLocation: replicas")
    shown.add_argument("--external-metrics", metavar="NAME", help="an ExternalMetricValueList of that metric, for an autoscaler")
    capacity.add_argument(
        "--listen", metavar="ADDRESS", help="answer GET /keda, /external-metrics and /capacity there, such as 127.0.0.1:8080"
    )
    capacity.add_argument("--every", type=float, default=300.0, metavar="SECONDS", help="between two answers of --listen (default: 300)")
    capacity.set_defaults(run=_capacity)

    plan = commands.add_parser(
        "plan",
        help="what a budget buys, before it is spent",
        description="Picks histogram scale, bins, segments, how long windows are kept, and sampling, so that monitoring keeps to a "
        "budget, and says what each step down costs in error. Exit codes: 0, 2 for an impossible budget (with what would be possible) "
        "or an error.",
    )
    plan.add_argument("--rows", required=True, metavar="RATE", help="events per second, such as 20000/s")
    plan.add_argument("--columns", required=True, metavar="N", help="columns of numbers, or by kind: number=40,category=10,boolean=2")
    plan.add_argument("--cpu", metavar="SHARE", help="of one core, such as 1%% or 0.01")
    plan.add_argument("--memory", metavar="SIZE", help="such as 64MB")
    plan.add_argument("--disk", metavar="SIZE", help="such as 1GB")
    plan.add_argument("--wire", metavar="RATE", help="of windows that are handed on, such as 10kB/s")
    plan.add_argument("--segments", type=int, default=0, metavar="N", help="values of segment columns that are watched apart (default: 0)")
    plan.add_argument("--days", type=float, default=30.0, metavar="D", help="how long past windows are kept (default: 30)")
    plan.add_argument("--window", default="1h", metavar="LENGTH", help="such as 30m, 1h, 1d (default: 1h)")
    plan.add_argument("--batch", type=int, default=1000, metavar="N", help="events of a frame or body (default: 1000)")
    plan.add_argument("--home", choices=["frames", "events", "sidecar"], default="frames", help="where events come in (default: frames)")
    plan.add_argument("--no-sampling", action="store_true", help="no event may be left out")
    plan.add_argument("--measure", action="store_true", help="measure this machine first, two seconds or so")
    plan.add_argument("--toml", action="store_true", help="the [budget] table instead")
    plan.add_argument("--json", action="store_true", help="the plan as JSON")
    plan.set_defaults(run=_plan)
    engines = what.add_parser(
        "engines",
        help="one process, several, Spark, Ray and Dask side by side",
        description="Counts flights, replicated, by every engine that is installed, also while a worker is killed, and prints counters and "
        "costs side by side. Exit codes: 0 all agree, 1 they differ, 2 error, 3 an engine could not run. A missed target is no error.",
    )
    engines.add_argument("--rows", type=int, default=10_000_000, metavar="N", help="rows of the workload (default: 10000000)")
    engines.add_argument(
        "--engines", nargs="+", choices=["single", "processes", "spark", "ray", "dask"], metavar="ENGINE", help="only these (default: all)"
    )
    engines.add_argument("--json", action="store_true", help="machine and rows as JSON")
    engines.set_defaults(run=_bench_engines)

    demo = commands.add_parser(
        "demo", help="a year of flights through a monitored model", description="Replays real flights through a model."
    )
    demo.add_argument("--data", metavar="PATH", help="your own Parquet file instead")
    demo.add_argument("--label", metavar="COLUMN", help="its column of labels (0 or 1)")
    demo.add_argument("--score", metavar="COLUMN", help="its column of scores in [0, 1]")
    demo.add_argument("--time", metavar="COLUMN", help="its column of event times")
    demo.add_argument("--html", metavar="OUT", default="barograph-report.html", help="where the report goes (default: %(default)s)")
    demo.set_defaults(run=_demo)

    doctor.add_command(commands)
    return parser


def _add_ingest(commands: Any) -> None:
    from barograph.ingest import BROKERS
    from barograph.ingest.messages import FORMS

    ingest = commands.add_parser(
        "ingest",
        help="post the messages of a broker to sidecars",
        description="Takes messages of Kafka, Redis streams, NATS JetStream or RabbitMQ and posts them to sidecars, each counted once. "
        "Start several with the same group to share the work. SIGTERM ends it in order. Counts go to stderr as lines of JSON. "
        "The token comes from BAROGRAPH_TOKEN, --token-file, or the table [sidecar] of --config.",
    )
    ingest.add_argument("broker_name", choices=BROKERS, metavar="BROKER", help="kafka, redis, nats or rabbitmq")
    ingest.add_argument("--topic", "--stream", "--queue", required=True, metavar="NAME", help="topic, stream or queue of events")
    ingest.add_argument("--labels-topic", "--labels-stream", "--labels-queue", metavar="NAME", help="the one of labels")
    ingest.add_argument(
        "--dead-letter", metavar="NAME", help="where messages go that cannot be counted (default: counted, told and dropped)"
    )
    ingest.add_argument("--group", default="barograph", metavar="NAME", help="consumers that share the work (default: barograph)")
    ingest.add_argument("--model", required=True, metavar="NAME", help="the model that the events are of")
    ingest.add_argument(
        "--to", action="append", default=[], metavar="URL", help="a sidecar (default: http://127.0.0.1:7464); can be repeated"
    )
    ingest.add_argument("--broker", dest="address", metavar="ADDRESS", help="where the broker is (default: its usual port on this machine)")
    ingest.add_argument(
        "--format",
        dest="form",
        default="auto",
        choices=FORMS,
        help="what a message is (default: auto, by its content type or its first bytes)",
    )
    ingest.add_argument("--field", default="body", metavar="NAME", help="field of a Redis entry that holds the message (default: body)")
    ingest.add_argument("--start", choices=["earliest", "latest"], default="earliest", help="where a new group begins (default: earliest)")
    ingest.add_argument("--at-least-once", action="store_true", help="take messages of RabbitMQ without message_id, which may count twice")
    ingest.add_argument("--config", metavar="FILE", help="a TOML file: settings of the client, TLS, secrets")
    ingest.add_argument("--token-file", metavar="FILE", help="a file that holds a token of scope ingest")
    ingest.add_argument("--memory", default="64MB", metavar="SIZE", help="messages that are held at most (default: 64MB)")
    ingest.add_argument("--linger", type=float, default=0.2, metavar="SECONDS", help="how long messages are gathered (default: 0.2)")
    ingest.add_argument("--report", type=float, default=10.0, metavar="SECONDS", help="between two lines of counts (default: 10)")
    ingest.add_argument("--json", action="store_true", help="counts on stdout, too")
    ingest.set_defaults(run=_ingest)


def _top(options: argparse.Namespace) -> int:
    from barograph import top

    return top.run(options)


def _ingest(options: argparse.Namespace) -> int:
    from barograph import ingest

    return ingest.run(options)


def _bench_sidecar(options: argparse.Namespace) -> int:
    # What measures is loaded only then: `serve` has to stay small.
    from barograph import sidecar_bench

    _needs_sidecar()
    return sidecar_bench.run(options)


def _capacity(options: argparse.Namespace) -> int:
    from barograph.scaling import capacity_command

    return capacity_command.run(options)


def _bench_budget(options: argparse.Namespace) -> int:
    from barograph import budget_bench

    return budget_bench.run(options)


def _plan(options: argparse.Namespace) -> int:
    from barograph.scaling import budget_command

    return budget_command.run(options)


def _bench_engines(options: argparse.Namespace) -> int:
    from barograph import engines_bench

    options.engines = options.engines or list(engines_bench.ENGINES)
    return engines_bench.run(options)


def _version() -> str:
    try:
        from barograph import __version__
    except ImportError:
        # `doctor` has to run, and tell, where the extension cannot be loaded.
        return "unknown"
    return str(__version__)


def _snapshot(path: str) -> Any:
    """A reference or profile if the file begins like one; None for other files."""
    try:
        with Path(path).open("rb") as file:
            head = file.read(7)
    except (FileNotFoundError, IsADirectoryError):
        return None
    if head[:4] != b"BARO":
        return None
    from barograph.profiles import Profile
    from barograph.references import Reference

    return Profile.load(path) if head[6:7] == b"\x01" else Reference.load(path)


def _profile(options: argparse.Namespace) -> int:
    from barograph.profiles import Profile, merge, profile

    made = [_snapshot(path) or profile(path) for path in options.files]
    odd = next((path for path, one in zip(options.files, made, strict=True) if not isinstance(one, Profile)), None)
    if odd is not None:
        raise FrameError(f"{odd} is a reference, `profile` reads profiles and tables")
    whole = merge(made)
    if options.output:
        whole.save(options.output)
    rows = whole.to_frame().to_dicts()
    if options.json:
        print(json.dumps({"rows": whole.rows, "columns": rows}, ensure_ascii=False, allow_nan=False))
    else:
        _print_profile(whole.rows, rows)
    return _PASS


def _print_profile(count: int, rows: list[dict[str, Any]]) -> None:
    from barograph.reports import fit, plain

    def text(value: Any) -> str:
        return (
            ""
            if value is None
            else f"{value:,}"
            if isinstance(value, int)
            else f"{value:.4g}"
            if isinstance(value, float)
            else plain(str(value))
        )

    heads = ["column", "kind", "role", "null_count", "distinct", "mean", "std", "min", "median", "p99", "max", "top"]
    cells = [[head.replace("_count", "s") for head in heads], *[[text(row[head]) for head in heads] for row in rows]]
    widths = [min(24, max(len(line[at]) for line in cells)) for at in range(len(heads))]
    for line in cells:
        print("  ".join(fit(cell, width) for cell, width in zip(line, widths, strict=True)).rstrip())
    print(f"{count:,} rows")


def _compare(options: argparse.Namespace) -> int:
    from barograph.drift import compare
    from barograph.references import Reference

    reference = _snapshot(options.reference)
    if not isinstance(reference, Reference):
        reference = Reference(options.reference if reference is None else reference)
    current = _snapshot(options.current)
    if isinstance(current, Reference):
        current = current.profile
    report = compare(reference, options.current if current is None else current, confidence=options.confidence)
    if options.html:
        print(f"report: {report.to_html(options.html)}", file=sys.stderr)
    if options.junit:
        Path(options.junit).write_bytes(report.to_junit(options.fail_on))
    summary = options.summary or os.environ.get("GITHUB_STEP_SUMMARY")
    if summary:
        with Path(summary).open("a", encoding="utf-8") as file:
            file.write(report.to_markdown())
    print(json.dumps(report.to_dict(), ensure_ascii=False, allow_nan=False) if options.json else report.to_terminal())
    if not (options.json or options.no_histogram) and _shows("█") and (drawn := report.to_histograms()):
        print(f"\n{drawn}")
    if report.verdict in _SEVERITIES[options.fail_on]:
        return _DRIFT
    if report.unjudged:
        names = ", ".join(repr(name) for name in report.unjudged[:5])
        print(f"barograph: inconclusive, these features could not be judged: {names}", file=sys.stderr)
        return _INCONCLUSIVE
    return _PASS


def _shows(sign: str) -> bool:
    """Whether the output can hold a sign at all."""
    try:
        sign.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True


def _gate(options: argparse.Namespace) -> int:
    import polars as pl

    from barograph.frames import parts
    from barograph.gates import gate

    limits: dict[str, float | None] = {}
    for stated in options.limit:
        name, _, value = stated.partition("=")
        try:
            limits[name] = None if value == "none" else float(value)
        except ValueError:
            raise InvalidArgumentError(f"`--limit` must be CHECK=HARM, got {stated!r}", "such as --limit error=0.02") from None
    read = [pl.concat([pl.DataFrame(part) for part in parts(name)]) for name in (options.current, options.candidate)]
    names = {"label": options.label, "task": options.task, "id": options.id, "prediction": options.prediction, "score": options.score}
    report = gate(*read, **names, segments=options.segment, limits=limits, confidence=options.confidence)
    if options.junit:
        Path(options.junit).write_bytes(report.to_junit())
    summary = options.summary or os.environ.get("GITHUB_STEP_SUMMARY")
    if summary:
        with Path(summary).open("a", encoding="utf-8") as file:
            file.write(report.to_markdown())
    print(json.dumps(report.to_dict(), ensure_ascii=False, allow_nan=False) if options.json else report)
    return report.exit_code


def _reference(options: argparse.Namespace) -> int:
    from barograph.references import Reference

    found = _snapshot(options.file)
    if isinstance(found, Reference):
        raise FrameError(f"{options.file} is a reference already")
    made = Reference(options.file if found is None else found, bins=options.bins)
    made.save(options.output)
    print(f"{options.output}: {made.rows:,} rows, {len(made.schema.kinds)} columns, id {made.id}", file=sys.stderr)
    return _PASS


def _backtest(options: argparse.Namespace) -> int:
    from barograph.backtests import backtest
    from barograph.references import Reference

    reference = _snapshot(options.reference)
    if not isinstance(reference, Reference):
        reference = Reference(options.reference if reference is None else reference)
    try:
        shifts = [float(part) for part in options.shifts.split(",") if part.strip()]
    except ValueError:
        raise InvalidArgumentError(f"`--shifts` must be numbers with commas between them, got {options.shifts!r}") from None
    found = backtest(
        reference,
        options.log,
        time=options.time,
        score=options.score,
        policy=options.policy,
        model=options.model,
        window=options.window,
        budget=options.budget,
        shifts=shifts,
        runs=options.runs,
        wanted=options.wanted,
    )
    if options.json:
        rows = found.to_frame().to_dicts()
        print(json.dumps({"rows": rows, "weekly": found.weekly, "proposed": found.proposed}, ensure_ascii=False, allow_nan=False))
    else:
        print(found.to_terminal())
    return _DRIFT if options.wanted is not None and found.trials[0].per_week > options.wanted else _PASS


def _config(options: argparse.Namespace) -> int:
    from barograph import _barograph

    try:
        text = Path(options.file).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise InvalidArgumentError(f"{options.file} is not text") from None
    if _is_of_sidecar(text):
        _barograph.check_config(text, options.file)
        print(f"{options.file}: a configuration of the sidecar", file=sys.stderr)
        if "[models." not in text:
            return _PASS
    for model, promise in _barograph.policies_of_toml(text, options.file):
        print(f"{model or options.file}: {promise}")
    return _PASS


def _is_of_sidecar(text: str) -> bool:
    """Whether a file states more than the policy of one model."""
    import tomllib

    from barograph import _barograph

    try:
        keys = set(tomllib.loads(text))
    except tomllib.TOMLDecodeError:
        return False
    if not hasattr(_barograph, "config_keys"):
        return False
    # A budget stands in both.
    sidecar = set(_barograph.config_keys()) - {"budget"}
    policy = set(json.loads(_barograph.policy_from_json("{}"))) - sidecar - {"budget"}
    return "models" in keys or bool(keys & sidecar and not keys & policy)


def _needs_sidecar() -> None:
    """Raises UnsupportedError where this build has none."""
    from barograph import _barograph

    if not hasattr(_barograph, "serve"):
        raise UnsupportedError(
            "the sidecar runs on Linux and macOS, this build is without it", "run it in a container, or watch in the process"
        )


def _serve(options: argparse.Namespace) -> int:
    from barograph import _barograph

    _needs_sidecar()
    names = ("config", "listen", "health_listen", "data", "token_file", "statsd", "test_alert")
    _barograph.serve(json.dumps({name: getattr(options, name) for name in names}))
    return _PASS


def _store(options: argparse.Namespace) -> int:
    from barograph import stores

    _needs_sidecar()
    return stores.run(options)


def _dashboards(options: argparse.Namespace) -> int:
    from barograph import _barograph, dashboards
    from barograph.monitors import read_policy

    text = Path(options.file).read_text(encoding="utf-8")
    folder = Path(options.output)
    folder.mkdir(parents=True, exist_ok=True)
    for found, _ in _barograph.policies_of_toml(text, options.file):
        model = options.model or found
        if not model:
            raise InvalidArgumentError("`--model` is missing: the file is the policy of one model, which it does not name")
        if found and model != found:
            continue
        policy = json.loads(read_policy(options.file, model))
        name = "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in model)
        for path, content in (
            (folder / f"{name}.dashboard.json", json.dumps(dashboards.grafana(model, policy), indent=2, ensure_ascii=False) + "\n"),
            (folder / f"{name}.rules.yml", dashboards.prometheus_rules(model, policy)),
        ):
            path.write_text(content, encoding="utf-8")
            print(path)
    return _PASS


def _demo(options: argparse.Namespace) -> int:
    from barograph import demo

    return int(demo.run(data=options.data, label=options.label, score=options.score, time=options.time, html=options.html))


if __name__ == "__main__":
    sys.exit(main())
