"""What `barograph top` shows, as lines of text with styles: pure functions of a `View`, which know no terminal and no sidecar."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from barograph.reports import fit
from barograph.verdicts import glyph

__all__ = [
    "SORTS",
    "Alert",
    "Detail",
    "Drift",
    "Line",
    "Model",
    "Server",
    "View",
    "ascii_only",
    "cells",
    "ordered",
    "screen",
    "span",
    "table",
]

Span = tuple[str, str]
"""Text and the names of its styles."""
Line = list[Span]

SORTS = ("name", "events/s", "events", "p99", "alerts")
_SEVERITIES = {"page": "critical", "ticket": "warning"}
_VERDICTS = {"critical": "critical", "warning": "warning", "ok": "good"}
_ASCII = str.maketrans("▁▂▃▄▅▆▇█▲△◇○×●·…–░►▼↑↓�", "_.,-=+*#!!io?*|~-.>v^v?")


@dataclass(frozen=True)
class Server:
    """What a sidecar says about itself."""

    version: str
    uptime: float
    events: int
    rejected: int
    queue: int
    memory: int
    queue_limit: int | None
    memory_limit: int | None
    replaying: bool
    problems: tuple[str, ...]


@dataclass(frozen=True)
class Model:
    """A row of the table."""

    name: str
    state: str
    events: int
    labels: int
    late: int
    rejected: int
    alerts: tuple[tuple[str, str], ...]
    """Column and severity."""
    learned: tuple[int, int] | None
    """Events and how many are wanted, while it learns its reference."""
    trouble: str
    p50: float | None
    p99: float | None
    reference: str
    rates: tuple[float | None, ...] = ()
    """Events a second between polls, oldest first; None where it cannot be known."""

    @property
    def rate(self) -> float | None:
        """Since the last poll."""
        return self.rates[-1] if self.rates else None


@dataclass(frozen=True)
class Alert:
    """An alert that is open, as its last change left it."""

    column: str
    severity: str
    verdict: str
    value: float | None
    reason: str
    cause: str
    since: float | None
    standing: str


@dataclass(frozen=True)
class Drift:
    """The worst tested row of a column, in the window that closed last and in the open one."""

    column: str
    method: str
    verdict: str
    value: float | None
    threshold: float | None
    open_verdict: str
    open_value: float | None
    reason: str


@dataclass(frozen=True)
class Detail:
    """What is shown beneath the table of one model."""

    model: str
    alerts: tuple[Alert, ...] = ()
    drift: tuple[Drift, ...] = ()
    window: str = ""
    trouble: str = ""


@dataclass(frozen=True)
class View:
    """All that a screen shows."""

    address: str
    clock: float
    interval: float
    server: Server | None = None
    rates: tuple[float | None, ...] = ()
    models: tuple[Model, ...] = ()
    detail: Detail | None = None
    trouble: str = ""
    since: float | None = None
    """Since when there is no answer."""
    selected: str = ""
    sort: str = "name"
    help: bool = False

    @property
    def ready(self) -> bool:
        """It answers, and has nothing to complain of."""
        return self.since is None and self.server is not None and not self.server.problems and not self.server.replaying


def span(seconds: float, parts: int = 2) -> str:
    """A length of time in its largest units."""
    left = int(max(seconds, 0))
    out: list[str] = []
    for name, size in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        # After a unit that counts nothing a smaller one says no more.
        if left < size and out:
            break
        if left >= size and len(out) < parts:
            out.append(f"{left // size} {name}")
            left %= size
    return " ".join(out) or "0 s"


def _count(value: float, width: int) -> str:
    """A count in at most so many cells."""
    whole = f"{value:,.0f}"
    if len(whole) <= width:
        return whole
    for unit in ("k", "M", "G", "T", "P", "E"):
        value /= 1000
        for digits in (2, 1, 0):
            text = f"{value:.{digits}f}{unit}"
            if value < 1000 and len(text) <= min(width, 5):
                return text
    return whole


def _rate(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}" if 0 < value < 10 else _count(value, 6)


def _latency(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    for unit, size in (("µs", 1e-6), ("ms", 1e-3)):
        if seconds < 1000 * size:
            return f"{seconds / size:.{0 if seconds >= 9.95 * size else 1}f} {unit}"
    return f"{seconds:.1f} s" if seconds < 100 else f"{_count(seconds, 5)} s"


def _bytes(value: int) -> str:
    # As the configuration counts them: 1 MB is 1024 kB.
    return f"{value / (1 << 10):,.0f} kB" if value < 1 << 20 else f"{value / (1 << 20):,.0f} MB"


def _value(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}" if 0.001 <= abs(value) < 1000 or value == 0 else f"{value:.2g}"


def _spark(rates: Sequence[float | None], width: int) -> str:
    """One sign per poll, the highest is the highest of them; a blank where nothing is known."""
    shown = list(rates[-width:]) if width > 0 else []
    most = max((rate for rate in shown if rate is not None), default=0.0)
    signs = [" " if rate is None else "▁▂▃▄▅▆▇█"[min(7, int(8 * rate / most))] if most > 0 else "▁" for rate in shown]
    return "".join(signs).rjust(max(width, 0))


def _bar(share: float, width: int) -> Span:
    share = min(max(share, 0.0), 1.0)
    full = round(share * width)
    return "█" * full + "░" * (width - full), "good" if share < 0.75 else "warning" if share < 0.9 else "critical"


# ---- the table ---------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Column:
    """A column: the importance decides which stay in a narrow terminal."""

    title: str
    width: int
    importance: int
    cell: Callable[[Model, int], Span]
    left: bool = False


def _state(model: Model, width: int) -> Span:
    if model.learned is None:
        return model.state, "good" if model.state == "watching" else "warning"
    share = model.learned[0] / model.learned[1] if model.learned[1] else 0.0
    # What is not complete is not 100 %.
    return f"learn {min(int(100 * share), 99)}%", "warning" if model.trouble else "info"


def _open(model: Model, width: int) -> Span:
    if not model.alerts:
        return "0", "dim"
    pages = any(severity == "page" for _, severity in model.alerts)
    return f"{'▲' if pages else '△'} {len(model.alerts)}", "critical" if pages else "warning"


def _counted(of: Callable[[Model], int]) -> Callable[[Model, int], Span]:
    return lambda model, width: (_count(of(model), width), "" if of(model) else "dim")


_COLUMNS = (
    _Column("STATE", 9, 1, _state, left=True),
    _Column("ALERTS", 6, 0, _open),
    _Column("EVENTS", 8, 2, _counted(lambda model: model.events)),
    _Column("EVENTS/S", 8, 3, lambda model, width: (_rate(model.rate), "")),
    _Column("P50", 7, 6, lambda model, width: (_latency(model.p50), "")),
    _Column("P99", 7, 4, lambda model, width: (_latency(model.p99), "")),
    _Column("REJECTED", 8, 7, lambda model, width: (_count(model.rejected, width), "warning" if model.rejected else "dim")),
    _Column("LABELS", 8, 8, _counted(lambda model: model.labels)),
    _Column("LATE", 6, 9, _counted(lambda model: model.late)),
)
_SPARK = 5
"""Importance of the sparkline, which takes what is left."""


def ordered(view: View) -> list[Model]:
    """Models as they are sorted; equal ones by name."""
    keys: dict[str, Callable[[Model], tuple[float, ...]]] = {
        "name": lambda model: (),
        "events/s": lambda model: (-(model.rate or 0.0),),
        "events": lambda model: (-model.events,),
        "p99": lambda model: (-(model.p99 or 0.0),),
        "alerts": lambda model: (-sum(severity == "page" for _, severity in model.alerts), -len(model.alerts)),
    }
    return sorted(view.models, key=lambda model: (keys[view.sort](model), model.name))


def _cell(text: str, width: int, left: bool) -> str:
    return fit(text, width) if left else fit(text, len(text) if len(text) <= width else width).rjust(width)


def _shape(names: Sequence[str], width: int) -> tuple[int, int, list[_Column]]:
    """Cells for the name, for the sparkline, and the columns between."""
    longest = max(6, *(len(name) for name in names)) if names else 6
    name = max(6, min(longest, 32, width // 5 + 2))
    left, chosen, spark = width - 2 - name, set(), 0
    for importance in range(10):
        if importance == _SPARK:
            if left >= 9:
                spark, left = 8, left - 9
            continue
        column = next(column for column in _COLUMNS if column.importance == importance)
        if left < column.width + 1:
            break
        chosen.add(column.title)
        left -= column.width + 1
    more = min(max(longest - name, 0), max(left, 0))
    if spark:
        spark = min(60, spark + max(left - more, 0))
    return name + more, spark, [column for column in _COLUMNS if column.title in chosen]


def _heads(name: int, spark: int, columns: Sequence[_Column], sort: str) -> str:
    def title(text: str) -> str:
        return text if text.lower() != sort.replace("name", "model") else f"▼{text}"

    out = "  " + fit(title("MODEL"), name)
    for column in columns:
        out += " " + _cell(title(column.title), column.width, column.left)
        if spark and column.title == "EVENTS/S":
            out += " " + fit("LAST POLLS" if spark >= 10 else "POLLS", spark)
    return out


def _row(model: Model, name: int, spark: int, columns: Sequence[_Column], selected: bool) -> Line:
    line: Line = [("► " if selected else "  ", ""), (fit(model.name, name), "name")]
    for column in columns:
        text, style = column.cell(model, column.width)
        line.append((" " + _cell(text, column.width, column.left), style))
        if spark and column.title == "EVENTS/S":
            line.append((" " + _spark(model.rates, spark), "info"))
    return [(text, "selected") for text, _ in line] if selected else line


def _models(view: View, width: int, rows: int) -> list[Line]:
    """The table with its head, in `rows` lines."""
    models = ordered(view)
    shape = _shape([model.name for model in models], width)
    index = next((at for at, model in enumerate(models) if model.name == view.selected), 0)
    room = max(rows - 1, 1)
    first = max(0, min(index - room // 2, len(models) - room))
    lines: list[Line] = [[(_heads(*shape, view.sort), "heads")]]
    lines += [_row(model, *shape, selected=at == index) for at, model in enumerate(models) if first <= at < first + room]
    return lines[:rows]


# ---- the screen --------------------------------------------------------------------------------------------------------------------------


def _readiness(view: View) -> Span:
    if view.since is not None:
        return "▲ no answer", "critical"
    if view.server is None:
        return "○ asking", "dim"
    if view.server.replaying:
        return "▲ replaying", "critical"
    return ("● ready", "good") if view.ready else ("▲ not ready", "critical")


def _troubles(view: View) -> list[str]:
    if view.since is not None:
        when = datetime.fromtimestamp(view.since, UTC)
        return [f"no answer since {when:%H:%M:%S} UTC, trying again every {view.interval:g} s: {view.trouble}"]
    return list(view.server.problems) if view.server else []


def _ends(left: Line, right: Line, width: int) -> Line:
    """Two ends of a line; the right one gives way."""
    used = sum(len(text) for text, _ in left)
    beside = sum(len(text) for text, _ in right)
    return [*left, (" " * (width - used - beside), ""), *right] if used + beside + 1 <= width else left


def _parts(parts: Sequence[Line], width: int) -> Line:
    """As many parts as fit, with space between them."""
    out: Line = [(" ", "")]
    used = 1
    for part in parts:
        size = sum(len(text) for text, _ in part)
        if used + size > width:
            break
        out += [*part, ("   ", "")]
        used += size + 3
    return out


def _header(view: View, width: int) -> list[Line]:
    server, ready = view.server, _readiness(view)
    left: Line = [(f" barograph {server.version if server else ''}".rstrip(), "title"), (f"  {view.address}", "dim")]
    up: Line = [(f"   up {span(server.uptime)}", "")] if server and view.since is None else []
    if width < sum(len(text) for text, _ in (*left, ready, *up)) + 3:
        left, up = left[:1], []
    lines = [_ends(left, [ready, *up, (" ", "")], width)]
    if server:
        rate = view.rates[-1] if view.rates else None
        events: Line = [(_rate(rate), "bold"), (" events/s ", ""), (_spark(view.rates, 20 if width >= 110 else 10), "info")]
        memory: Line = [("memory ", "dim"), (_bytes(server.memory), "")]
        if server.memory_limit:
            memory += [(f" of {_bytes(server.memory_limit)} ", "dim"), _bar(server.memory / server.memory_limit, 10)]
        queue: Line = [("queue ", "dim"), (_bytes(server.queue), "")]
        if server.queue_limit:
            queue += [(f" of {_bytes(server.queue_limit)}", "dim")]
        more: list[Line] = [
            [("events ", "dim"), (_count(server.events, 15), "")],
            [("rejected ", "dim"), (_count(server.rejected, 15), "warning" if server.rejected else "")],
        ]
        lines.append(_parts([events, memory, queue, *more], width))
    lines += [[(f" {'▲' if at == 0 else ' '} {text}", "critical")] for at, text in enumerate(_troubles(view)[:3])]
    return lines


def _of_alerts(model: Model, detail: Detail, clock: float, width: int, rows: int) -> list[Line]:
    heading = f"{len(model.alerts) or 'no'} open alert{'' if len(model.alerts) == 1 else 's'}"
    lines: list[Line] = [[(f" {model.name}", "title"), (f"  {heading}", "")]]
    shown = detail.alerts[: max(rows - 1, 0)]
    # Causes have a line of their own where there is one for all.
    causes = rows >= 1 + 2 * len(shown) and width >= 50
    name = min(28, max((cells(alert.column) for alert in shown), default=6), max(8, width // 4))
    for alert in shown:
        style = _SEVERITIES.get(alert.severity, "")
        age = "" if alert.since is None else f"for {span(clock - alert.since, 1)}"
        line: Line = [(f" {'▲' if alert.severity == 'page' else '△'} {fit(alert.severity, 6)} ", style), (fit(alert.column, name), "name")]
        line += [(f" {_value(alert.value):>8}", "bold"), (f"  {age:>10}", "")]
        line += [(f"  {alert.standing},", "info")] if alert.standing else [(" ", "")]
        line += [(f" {alert.reason}", "")]
        lines.append(line)
        if causes and alert.cause:
            lines.append([(f"   {'':6} {alert.cause}", "dim")])
    return lines


def _of_drift(model: Model, detail: Detail, width: int, rows: int) -> list[Line]:
    title: Line = [(" drift", "title"), (f"  {detail.window}" if detail.window else "", "")]
    if model.reference and width >= 100:
        title.append((f"  against the reference {model.reference[:8]}", "dim"))
    if not detail.drift:
        return [title, [(" no window has been compared yet", "dim")]][:rows]
    heads = rows >= 5
    shown = detail.drift[: max(rows - 1 - heads, 0)]
    name = min(28, max((cells(row.column) for row in shown), default=6), max(8, width // 4))
    method = max((len(row.method) for row in shown), default=6)
    verdict = max((len(row.verdict) for row in shown), default=7)
    now = any(row.open_verdict for row in shown)
    lines = [title]
    if heads:
        words = f"   {'':{verdict}} {fit('COLUMN', name)} {'TEST':{method}}   VALUE   LIMIT{'     NOW' if now else ''}  REASON"
        lines.append([(words, "dim")])
    for row in shown:
        line: Line = [(f" {glyph(row.verdict)} {row.verdict:{verdict}} ", _VERDICTS.get(row.verdict, "info"))]
        line += [(fit(row.column, name), "name"), (f" {row.method:{method}}", "")]
        line += [(f" {_value(row.value):>7}", "bold"), (f" {_value(row.threshold):>7}", "dim")]
        if now:
            line.append((f" {_value(row.open_value):>7}", _VERDICTS.get(row.open_verdict, "info")))
        line.append((f"  {row.reason}", "dim"))
        lines.append(line)
    return lines


def _of_learning(model: Model, width: int) -> list[Line]:
    seen, wanted = model.learned or (0, 0)
    share = seen / wanted if wanted else 0.0
    # Nearly complete is no danger: the bar keeps its colour.
    bar = _bar(share, max(0, min(40, width - 34)))[0], "info"
    lines: list[Line] = [
        [(f" {model.name}", "title"), ("  learns its reference", "")],
        [(" ", ""), bar, (f" {seen:,} of {wanted:,} events", "")],
    ]
    if model.trouble:
        lines.append([(f" ▲ {model.trouble}", "warning")])
    return lines


def _detail(view: View, width: int, rows: int) -> list[Line]:
    model = next((model for model in view.models if model.name == view.selected), None)
    if model is None or rows <= 0:
        return []
    if model.learned is not None:
        return _of_learning(model, width)[:rows]
    detail = view.detail if view.detail is not None and view.detail.model == model.name else Detail(model.name)
    if detail.trouble:
        return [[(f" {model.name}: {detail.trouble}", "warning")]]
    gap = 1 if rows >= 9 else 0
    wanted = 1 + sum(2 if alert.cause else 1 for alert in detail.alerts)
    least = min(2 + len(detail.drift), 5)
    above = min(wanted, max(rows - gap - least, 1 + min(len(detail.alerts), 2)))
    lines = _of_alerts(model, detail, view.clock, width, above)[:rows]
    left = rows - len(lines) - gap
    if left >= 2:
        lines += [[("", "")]] * gap + _of_drift(model, detail, width, left)
    return lines


_HELP = (
    ("↑ ↓ or k j", "select a model"),
    ("Home End or g G", "the first, the last"),
    ("PgUp PgDn", "ten further"),
    ("s", "sort by the next of: " + ", ".join(SORTS)),
    ("?", "this help"),
    ("q", "end"),
    ("", ""),
    ("EVENTS/S", "between the last two polls; POLLS has those before"),
    ("P50 P99", "latency of all calls so far"),
    ("ALERTS", "open ones; ▲ somebody now (page), △ this week (ticket)"),
    ("REJECTED", "events that could not be read"),
    ("LATE", "events of a window that had closed"),
    ("drift", "the worst test of each column in the last closed window"),
    ("now", "the same test in the window that is open"),
)


def _help(rows: int) -> list[Line]:
    return [[(f"  {key:<17}", "title"), (words, "")] for key, words in _HELP][: max(rows, 0)]


def _footer(view: View, width: int) -> Line:
    keys = [("j k", "select"), ("s", f"sort ({view.sort})"), ("?", "close help" if view.help else "help"), ("q", "quit")]
    left: Line = [(" ", "")]
    for key, word in keys:
        left += [(key, "key"), (f" {word}  ", "dim")]
    clock = datetime.fromtimestamp(view.clock, UTC)
    place = next((at + 1 for at, model in enumerate(ordered(view)) if model.name == view.selected), 0)
    right = f"{place} of {len(view.models)}  " if len(view.models) > 1 else ""
    return _ends(left, [(f"{right}{clock:%H:%M:%S} UTC ", "dim")], width)


def _cut(line: Line, width: int) -> Line:
    """A line of at most so many cells."""
    out: Line = []
    for text, style in line:
        if width <= 0:
            break
        size = cells(text)
        out.append((text if size <= width else fit(text, width), style))
        width -= size
    return out


def cells(text: str) -> int:
    """How wide a terminal shows a text."""
    # `fit` fills with one space for each cell that is left.
    wide = 2 * len(text) + 1
    return wide - (len(fit(text, wide)) - len(text))


def screen(view: View, width: int, height: int, plain: bool = False) -> list[Line]:
    """A view as at most `height` lines of at most `width` cells. `plain` is for terminals that know ASCII only."""
    if width <= 0 or height <= 0:
        return []
    lines = _header(view, width)
    roomy = height >= 18
    if roomy:
        lines.append([("", "")])
    room = height - len(lines) - 1
    if view.help:
        lines += _help(room)
    elif view.models:
        beneath = 10 if roomy else 5
        table = min(len(view.models) + 1, max(room - beneath - roomy, room // 2, 2))
        lines += _models(view, width, table)
        lines += [[("", "")]] * roomy + _detail(view, width, room - table - roomy)
    elif view.server:
        lines += [
            [(" no models yet", "title")],
            [(" The first events make one: POST /v1/models/NAME/events", "dim")],
        ]
    # The footer keeps its place; whatever is too much goes.
    lines = lines[: max(height - 1, 1)]
    if height > 1:
        lines += [[("", "")]] * (height - 1 - len(lines))
        lines.append(_footer(view, width))
    if view.since is not None and view.server is not None:
        # What stands there is old.
        head = len(_header(view, width))
        lines = [*lines[:head], *([(text, "dim") for text, _ in line] for line in lines[head:])]
    lines = [_cut(line, width) for line in lines]
    return [[(ascii_only(text), style) for text, style in line] for line in lines] if plain else lines


def ascii_only(text: str) -> str:
    """Signs as ASCII, letters of other scripts as question marks."""
    return text.translate(_ASCII).encode("ascii", "replace").decode("ascii")


def table(view: View, width: int | None = None) -> list[str]:
    """All models and their open alerts as plain text; without a width, as wide as needed."""
    server = view.server
    out = []
    if server:
        rate = view.rates[-1] if view.rates else None
        memory = _bytes(server.memory) + (f" of {_bytes(server.memory_limit)}" if server.memory_limit else "")
        ready = _readiness(view)[0][2:]
        out.append(f"barograph {server.version}  {view.address}  {ready}, up {span(server.uptime)}")
        counts = f"{server.events:,} events  {server.rejected:,} rejected"
        out.append(f"{_rate(rate)} events/s  memory {memory}  queue {_bytes(server.queue)}  {counts}")
        out += [f"not ready: {problem}" for problem in server.problems]
    if not view.models:
        return [*out, "no models yet"]
    models = ordered(view)
    name = max(6, *(len(model.name) for model in models))
    columns: Sequence[_Column] = _COLUMNS
    if width is not None:
        name, _, columns = _shape([model.name for model in models], width)
    lines = [_heads(name, 0, columns, "")]
    lines += ["".join(text for text, _ in _row(model, name, 0, columns, False)) for model in models]
    out += ["", *(line[2:].rstrip() for line in lines)]
    alerts = [f"{model.name}: {severity} {column}" for model in models for column, severity in model.alerts]
    return [*out, *(["", *alerts] if alerts else [])]
