"""A fleet's merge tree: what it costs, what it does when parts of it fail, and where it breaks.

`python benches/merge_tree.py` measures the constants with the package on this machine, then simulates minutes of 10,000 sidecars that push
a profile of 20 columns every ten seconds to aggregators, which merge by (source, sequence) and push what they merged to a root. It prints
the tables of docs/concepts/scale.md. `--merge-us` puts another cost of a merge in place of the measured one.

A level is simulated delta by delta: cuts at the interval with phases of their own, deliveries with lost acknowledgements, outages with
back-off, one line per aggregator (a model's state has one thread) by Lindley's recursion; what was merged by an aggregator's cut goes up.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import barograph as bg
import numpy as np
import polars as pl
from barograph.scaling.queues import mean_wait

COLUMNS = 20
RETRY_SECONDS, MOST_BACK_OFF = 5.0, 60.0
NETWORK_SECONDS = 0.001


# ---- constants ---------------------------------------------------------------------------------------------------------------------------


def frame(rows: int, seed: int) -> pl.DataFrame:
    """12 doubles, 3 small integers, 3 columns of names (10, 40 and 160), 2 booleans."""
    rng = np.random.default_rng(seed)
    columns = {f"normal_{at}": rng.normal(size=rows) for at in range(4)}
    columns |= {f"lognormal_{at}": rng.lognormal(3, 1, rows) for at in range(5)}
    columns |= {f"uniform_{at}": rng.uniform(size=rows) for at in range(2)} | {"score": rng.beta(2, 5, rows)}
    columns |= {f"count_{at}": rng.poisson(5 + 10 * at, rows) for at in range(3)}
    for at, names in enumerate((10, 40, 160)):
        columns[f"name_{at}"] = np.array([f"v{name}" for name in range(names)])[np.minimum(rng.zipf(1.5, rows) - 1, names - 1)]
    return pl.DataFrame(columns | {"yes": rng.random(rows) < 0.3, "rare": rng.random(rows) < 0.01})


def cpu(run: Callable[[], object], seconds: float) -> float:
    """The least CPU time of a call, over calls of about so many seconds."""
    run()
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        began = time.process_time()
        for _ in range(5):
            run()
        best = min(best, (time.process_time() - began) / 5)
    return best


@dataclass
class Constants:
    """Measured here: bytes of a snapshot by its rows, and CPU seconds."""

    bytes_of: dict[int, int] = field(default_factory=dict)
    encode: float = 0.0
    merge: float = 0.0
    add: float = 0.0
    observe: float = 0.0
    repeated: float = 5e-6  # assumed: a look-up and an answer; the body is not decoded
    resident: float = 0.0

    @classmethod
    def measured(cls, rows: int, fan_in: int, seconds: float) -> Constants:
        """rows: events of one delta. merge: a snapshot read and added; add: two profiles in memory; observe: per event; resident: bytes."""
        reference = bg.Reference(frame(100_000, 1))
        out = cls()
        for count in sorted({100, max(100, rows // 10), rows, min(2_000_000, rows * fan_in)}):
            out.bytes_of[count] = len(bg.profile(frame(count, 2), reference=reference).to_bytes())
        part, whole = (bg.profile(frame(rows, seed), reference=reference) for seed in (3, 4))
        snapshot = part.to_bytes()
        out.encode = cpu(part.to_bytes, seconds)
        out.merge = cpu(lambda: whole.merge(bg.Profile.from_bytes(snapshot)), seconds)
        out.add = cpu(lambda: whole.merge(part), seconds)
        before = _resident()
        kept = [bg.Profile.from_bytes(snapshot) for _ in range(500)]
        out.resident = (_resident() - before) / len(kept)
        rest = frame(rows, 5)
        monitor = bg.Monitor("m", reference=reference, window="1h", ticks="manual")
        out.observe = cpu(lambda: monitor.observe_frame(rest), seconds) / rows
        return out

    def size(self, rows: float) -> float:
        """Bytes of a snapshot of so many rows, between those measured by the logarithm."""
        known = sorted(self.bytes_of.items())
        return float(np.interp(np.log(max(1.0, rows)), [np.log(count) for count, _ in known], [size for _, size in known]))


def _resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


# ---- one level ---------------------------------------------------------------------------------------------------------------------------


@dataclass
class Deltas:
    """Numbered parts on their way up: when each was cut, by whom, the events in it, and whose it is above."""

    at: np.ndarray
    source: np.ndarray
    sequence: np.ndarray
    events: np.ndarray
    node: np.ndarray


@dataclass
class Trouble:
    """What goes wrong: acknowledgements that are lost, nodes that are down from `start` to `end`, sources that are cut off so."""

    lost: float = 0.0
    down: tuple[float, float] | None = None
    nodes: np.ndarray | None = None
    cut_off: float = 0.0
    cut: tuple[float, float] = (0.0, 0.0)


@dataclass
class Level:
    """What a level did. `done`: when each delta was first merged, in the order of the deltas; `unguarded`: events, had repeats counted."""

    done: np.ndarray
    utilisation: float
    wait_p99: float
    longest_line: int
    most_waiting: int
    repeated: int
    counted: int
    unguarded: int


def level(sent: Deltas, nodes: int, merge: float, repeated: float, trouble: Trouble, rng: np.random.Generator) -> Level:
    """Delivers, merges and counts; every (source, sequence) once."""
    sources = int(sent.source.max()) + 1
    held = np.zeros(len(sent.at))
    for (start, end), hit in _outages(sent, sources, nodes, trouble, rng):
        # A sender tries again at growing distances: it is back up to its back-off late, and then sends all it holds in their order.
        back = end + rng.uniform(0, min(MOST_BACK_OFF, end - start), sources)[sent.source]
        held = np.where(hit & (sent.at >= start) & (sent.at < back), np.maximum(held, back), held)
    arrived = np.maximum(sent.at, held) + NETWORK_SECONDS
    again = np.flatnonzero(rng.random(len(arrived)) < trouble.lost)
    index = np.concatenate([np.arange(len(arrived)), again])
    when = np.concatenate([arrived, arrived[again] + RETRY_SECONDS])
    first = np.concatenate([np.ones(len(arrived), bool), np.zeros(len(again), bool)])
    cost = np.where(first, merge, repeated)
    done = np.zeros(len(arrived))
    waits, longest, busy = [], 0, 0.0
    node = sent.node[index]
    order = np.lexsort((when, node))
    edges = np.searchsorted(node[order], np.arange(nodes + 1))
    span = sent.at.max() - sent.at.min()
    for low, high in pairwise(edges):
        mine = order[low:high]
        if not len(mine):
            continue
        # Lindley: the n-th start is the latest of (k-th arrival + the work of k to n - 1).
        before = np.cumsum(cost[mine]) - cost[mine]
        start = np.maximum.accumulate(when[mine] - before) + before
        waits.append(start - when[mine])
        longest = max(longest, int((np.arange(1, len(mine) + 1) - np.searchsorted(start, when[mine], side="right")).max()))
        busy = max(busy, cost[mine].sum() / span)
        fresh = first[mine]
        done[index[mine[fresh]]] = start[fresh] + merge
    # What the aggregator holds, as it tells: the distinct pairs, whatever came twice.
    pairs = sent.source[index] * (int(sent.sequence.max()) + 1) + sent.sequence[index]
    _, kept = np.unique(pairs, return_index=True)
    counted = int(sent.events[index[kept]].sum())
    most_held = np.bincount(sent.source[held > sent.at], minlength=1).max()
    wait = float(np.quantile(np.concatenate(waits), 0.99))
    return Level(done, busy, wait, longest, int(most_held), len(again), counted, int(sent.events[index].sum()))


def _outages(sent: Deltas, sources: int, nodes: int, trouble: Trouble, rng: np.random.Generator):
    if trouble.down is not None:
        down = np.ones(nodes, bool) if trouble.nodes is None else np.isin(np.arange(nodes), trouble.nodes)
        yield trouble.down, down[sent.node]
    if trouble.cut_off:
        yield trouble.cut, (rng.random(sources) < trouble.cut_off)[sent.source]


def cuts(sources: int, seconds: float, interval: float, phases: np.ndarray, events: float, fan_in: int, rng: np.random.Generator) -> Deltas:
    """What sidecars cut: every interval, from their phase on, Poisson events each."""
    steps = int(seconds / interval)
    at = phases[:, None] + np.arange(1, steps + 1) * interval
    source = np.repeat(np.arange(sources), steps)
    counted = rng.poisson(events * interval, at.shape)
    return Deltas(at.ravel(), source, np.tile(np.arange(steps), sources), counted.ravel(), source // fan_in)


def upwards(
    sent: Deltas, done: np.ndarray, interval: float, phases: np.ndarray, fan_in: int, trouble: Trouble
) -> tuple[Deltas, np.ndarray]:
    """What aggregators cut of what they merged, and which of these deltas each of the lower ones went into.

    One that is down cuts when it is back: what it acknowledged, it has on its disk.
    """
    step = np.ceil((done - phases[sent.node]) / interval).astype(np.int64)
    most = int(step.max()) + 1
    keys, into = np.unique(sent.node * most + step, return_inverse=True)
    node, step = keys // most, keys % most
    events = np.bincount(into, weights=sent.events).astype(np.int64)
    at = phases[node] + step * interval
    if trouble.down is not None:
        start, end = trouble.down
        hit = (at >= start) & (at < end) & (True if trouble.nodes is None else np.isin(node, trouble.nodes))
        at = np.where(hit, end, at)
    return Deltas(at, node, step, events, node // fan_in), into


# ---- a tree ------------------------------------------------------------------------------------------------------------------------------


@dataclass
class Tree:
    """Sidecars, what they see, and how many push to one aggregator at each level; the last level is the root."""

    sidecars: int
    events: float
    interval: float
    fan_ins: tuple[int, ...]


def run(
    tree: Tree, merge: float, repeated: float, seconds: float, troubles: dict[int, Trouble], together: bool, seed: int
) -> dict[str, object]:
    """Simulates a tree. troubles: by level, 0 the first aggregators. together: every clock's phase is the same."""
    rng = np.random.default_rng(seed)

    def phases(count: int) -> np.ndarray:
        return np.zeros(count) if together else rng.uniform(0, tree.interval, count)

    sent = first = cuts(tree.sidecars, seconds, tree.interval, phases(tree.sidecars), tree.events, tree.fan_ins[0], rng)
    levels, into, below = [], None, tree.sidecars
    for depth, fan_in in enumerate(tree.fan_ins):
        nodes = -(-below // fan_in)
        found = level(sent, nodes, merge, repeated, troubles.get(depth, Trouble()), rng)
        levels.append(found)
        reached = found.done if into is None else found.done[into]
        if depth + 1 < len(tree.fan_ins):
            trouble = troubles.get(depth, Trouble())
            sent, step = upwards(sent, found.done, tree.interval, phases(nodes), tree.fan_ins[depth + 1], trouble)
            into = step if into is None else step[into]
        below = nodes
    age = reached - (first.at - tree.interval)
    return {
        "sent": int(first.events.sum()),
        "counted": levels[-1].counted,
        "unguarded": levels[0].unguarded,
        "age_p50": float(np.quantile(age, 0.5)),
        "age_p99": float(np.quantile(age, 0.99)),
        "age_max": float(age.max()),
        "levels": levels,
    }


# ---- tables ------------------------------------------------------------------------------------------------------------------------------


def paper(constants: Constants, tree: Tree, prices: tuple[float, float]) -> list[str]:
    """Bytes, merges, memory, network and cost of a day."""
    per_delta = tree.events * tree.interval
    day = tree.sidecars * tree.events * 86_400
    lines = [
        "| | deltas/s into a node | bytes of a delta | into a node | into the level, TB a day | CPU of a node | of the level, cores |",
        "|" + "---|" * 7,
    ]
    below, rows, cpu_seconds, terabytes = tree.sidecars, per_delta, 0.0, 0.0
    for depth, fan_in in enumerate(tree.fan_ins):
        nodes = -(-below // fan_in)
        size, into = constants.size(rows), below / tree.interval
        busy = into * constants.merge + (nodes / tree.interval * constants.encode if depth + 1 < len(tree.fan_ins) else 0)
        name = "root" if depth + 1 == len(tree.fan_ins) else f"{nodes:,} aggregators"
        lines.append(
            f"| {name} | {into / nodes:,.1f} | {size:,.0f} | {into / nodes * size / 1e6:,.2f} MB/s | {into * size * 86_400 / 1e12:.2f} "
            f"| {100 * busy / nodes:.2f} % | {busy:.2f} |"
        )
        cpu_seconds += busy * 86_400
        terabytes += into * size * 86_400 / 1e12
        below, rows = nodes, rows * fan_in
    observing = day * constants.observe
    encoding = tree.sidecars / tree.interval * constants.encode * 86_400
    per_million = [one / day * 1e6 for one in (observing, encoding, cpu_seconds)]
    money = (sum(per_million) / 3600 * prices[0], terabytes * 1e3 / day * 1e6 * prices[1])
    return [
        *lines,
        "",
        f"{day:.3g} events a day, {tree.events:,.0f} a second and sidecar, {per_delta:,.0f} in a delta. Per million events: observing "
        f"{per_million[0]:.3f} CPU-s, encoding {per_million[1]:.4f}, merging {per_million[2]:.4f}; "
        f"{1e6 * money[0]:.2f} millionths of a dollar for CPU at {prices[0]:g} $ an hour and core and "
        f"{1e6 * money[1]:.2f} for network at {prices[1]:g} $ a GB.",
    ]


def failures(constants: Constants, tree: Tree, seconds: float) -> list[str]:
    """Scenarios of a tree, one line each."""
    first = -(-tree.sidecars // tree.fan_ins[0])
    window = (seconds * 0.3, seconds * 0.3 + 60)
    last = len(tree.fan_ins) - 1
    scenarios: list[tuple[str, dict[int, Trouble], bool]] = [
        ("calm, clocks apart", {}, False),
        ("all clocks push at once", {}, True),
        ("1 % of acknowledgements lost", {depth: Trouble(lost=0.01) for depth in range(last + 1)}, False),
        ("1 % of the sidecars cut off for 2 min", {0: Trouble(cut_off=0.01, cut=(window[0], window[0] + 120))}, False),
        ("root down for 60 s", {last: Trouble(down=window)}, False),
    ]
    if last:
        scenarios += [
            ("one aggregator down for 60 s", {0: Trouble(down=window, nodes=np.array([first // 2]))}, False),
            ("all aggregators down for 60 s, 1 % lost", {0: Trouble(down=window, lost=0.01)}, False),
        ]
    lines = [
        "| | age p50, s | p99 | most | wait p99 at the first level, ms | longest line | held by a sender | repeated | counted - sent "
        "| without numbers |",
        "|" + "---|" * 10,
    ]
    for name, troubles, together in scenarios:
        found = run(tree, constants.merge, constants.repeated, seconds, troubles, together, seed=1)
        low = found["levels"][0]
        extra = found["unguarded"] - found["sent"]
        lines.append(
            f"| {name} | {found['age_p50']:.1f} | {found['age_p99']:.1f} | {found['age_max']:.1f} | {1e3 * low.wait_p99:.2f} "
            f"| {max(one.longest_line for one in found['levels']):,} | {max(one.most_waiting for one in found['levels'])} "
            f"| {sum(one.repeated for one in found['levels']):,} | {found['counted'] - found['sent']:,} | {extra:+,} |"
        )
    return lines


def intervals(constants: Constants, tree: Tree) -> list[str]:
    """The same events at other intervals."""
    lines = ["| interval, s | deltas/s | events in one | bytes of one | TB a day | merging, cores |", "|" + "---|" * 6]
    for interval in (1.0, 10.0, 60.0, 300.0):
        each = tree.events * interval
        size, rate = constants.size(each), tree.sidecars / interval
        lines.append(
            f"| {interval:g} | {rate:,.0f} | {each:,.0f} | {size:,.0f} | {rate * size * 86_400 / 1e12:.2f} | {rate * constants.merge:.2f} |"
        )
    return lines


def breaking(constants: Constants, tree: Tree, seconds: float) -> list[str]:
    """One aggregator with more and more sidecars, simulated and by formula."""
    most = tree.interval / constants.merge
    lines = [
        f"A model's thread does {1 / constants.merge:,.0f} merges a second: at {tree.interval:g} s {most:,.0f} sidecars saturate it.",
        "",
        "| sidecars | utilisation | wait p99, ms | longest line | p99, all clocks at once | mean wait, ms | by formula, ms |",
        "|" + "---|" * 7,
    ]
    for share in (0.1, 0.25, 0.5, 0.7, 0.9, 0.95, 1.05):
        count = max(1, int(most * share))
        one = Tree(count, tree.events, tree.interval, (count,))
        apart, at_once = (run(one, constants.merge, constants.repeated, seconds, {}, together, seed=2) for together in (False, True))
        low = apart["levels"][0]
        rng = np.random.default_rng(2)
        deltas = cuts(count, seconds, tree.interval, rng.uniform(0, tree.interval, count), tree.events, count, rng)
        mean = float((low.done - deltas.at - NETWORK_SECONDS - constants.merge).mean())
        rate = count / tree.interval
        about = f"{1e3 * mean_wait(1, rate, constants.merge, 1.0, 0.0):.3f}" if rate * constants.merge < 1 else "none: grows"
        lines.append(
            f"| {count:,} | {low.utilisation:.2f} | {1e3 * low.wait_p99:,.2f} | {low.longest_line:,} "
            f"| {1e3 * at_once['levels'][0].wait_p99:,.0f} | {1e3 * mean:,.3f} | {about} |"
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sidecars", type=int, default=10_000)
    parser.add_argument("--events", type=float, default=1e12, help="a day, over all")
    parser.add_argument("--interval", type=float, default=10.0, help="seconds between pushes")
    parser.add_argument("--fan-in", type=int, default=100, help="sidecars of one aggregator in the tree of two levels")
    parser.add_argument("--minutes", type=float, default=10.0, help="simulated")
    parser.add_argument("--merge-us", type=float, help="CPU of one merge instead of the measured one")
    parser.add_argument("--measure-seconds", type=float, default=3.0, help="of each constant")
    parser.add_argument("--dollars", type=float, nargs=2, default=(0.04, 0.01), metavar=("CORE_HOUR", "GB"), help="prices, assumed")
    options = parser.parse_args()
    rate = options.events / 86_400 / options.sidecars
    rows = max(100, round(rate * options.interval))
    constants = Constants.measured(rows, options.fan_in, options.measure_seconds)
    print(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}, barograph {bg.__version__}")
    sizes = ", ".join(f"{count:,} rows {size:,} bytes" for count, size in sorted(constants.bytes_of.items()))
    print(f"a profile of {COLUMNS} columns: {sizes}")
    print(
        f"CPU: encode {1e6 * constants.encode:.0f} us, read and merge {1e6 * constants.merge:.0f} us, add {1e6 * constants.add:.0f} us, "
        f"observe {1e9 * constants.observe / COLUMNS:.1f} ns a value; {constants.resident / 1e3:.0f} kB of memory a profile\n"
    )
    if options.merge_us is not None:
        constants.merge = options.merge_us / 1e6
        print(f"merges count as {options.merge_us:g} us\n")
    flat = Tree(options.sidecars, rate, options.interval, (options.sidecars,))
    two = Tree(options.sidecars, rate, options.interval, (options.fan_in, -(-options.sidecars // options.fan_in)))
    for name, tree in (("One root", flat), (f"Aggregators of {options.fan_in} sidecars, and a root", two)):
        print(f"### {name}\n\n" + "\n".join(paper(constants, tree, tuple(options.dollars))) + "\n")
        print("\n".join(failures(constants, tree, options.minutes * 60)) + "\n")
    print("### Other intervals, one root\n\n" + "\n".join(intervals(constants, flat)) + "\n")
    print("### Where an aggregator breaks\n\n" + "\n".join(breaking(constants, flat, options.minutes * 60)))


if __name__ == "__main__":
    main()
