"""`barograph top`: a sidecar that runs, in a terminal.

A `Board` turns answers into a `View`, `screen` turns a view into lines, and a thin loop shows them by curses. All text from outside passes
`_text` on its way into a view: names must not steer the terminal.
"""

from __future__ import annotations

import argparse
import json
import locale
import math
import os
import shutil
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from http.client import HTTPException
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from barograph.errors import BarographError, InvalidArgumentError
from barograph.top_screen import SORTS, Alert, Detail, Drift, Line, Model, Server, View, ascii_only, cells, ordered, screen, span, table
from barograph.verdicts import rank

if TYPE_CHECKING:
    import curses

__all__ = ["Board", "run"]

_POLLS = 60
"""Rates that are kept: the sparkline of a wide terminal."""
_DETAIL_SECONDS = 10.0
"""Comparing a window with its reference costs the sidecar work, so drift is not asked for with every poll."""
_WAIT_SECONDS = 5.0
_MOST_TEXT = 300


# ---- answers -----------------------------------------------------------------------------------------------------------------------------


def _text(value: Any, otherwise: str = "") -> str:
    """Text that can be shown: whatever a terminal could obey is replaced, what does not end is cut."""
    if not isinstance(value, str):
        return otherwise
    return "".join(letter if letter.isprintable() else "�" for letter in value[:_MOST_TEXT])


def _whole(value: Any) -> int:
    return value if isinstance(value, int) and 0 <= value < 1 << 63 else 0


def _number(value: Any) -> float | None:
    with suppress(OverflowError):
        if isinstance(value, int | float) and math.isfinite(value):
            return float(value)
    return None


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _seconds(value: Any) -> float | None:
    """Nanoseconds since the epoch as seconds, if they are of a year that can be written."""
    found = _number(value)
    return found / 1e9 if found is not None and 0 <= found < 1 << 63 else None


def _server(said: Mapping[str, Any]) -> Server:
    problems = said.get("problems")
    return Server(
        version=_text(said.get("version"), "?"),
        uptime=_number(said.get("uptime_seconds")) or 0.0,
        events=_whole(said.get("events_total")),
        rejected=_whole(said.get("rejected_total")),
        queue=_whole(said.get("queue_bytes")),
        memory=_whole(said.get("memory_bytes")),
        queue_limit=_whole(said.get("queue_limit_bytes")) or None,
        memory_limit=_whole(said.get("memory_limit_bytes")) or None,
        replaying=said.get("replaying") is True,
        problems=tuple(_text(problem) for problem in problems) if isinstance(problems, list) else (),
    )


def _model(said: Mapping[str, Any]) -> Model:
    learning = said.get("learning")
    learning = learning if isinstance(learning, dict) else {}
    return Model(
        name=_text(said.get("name"), "?"),
        state=_text(said.get("state"), "?"),
        events=_whole(said.get("events")),
        labels=_whole(said.get("labels")),
        late=_whole(said.get("late")),
        rejected=_whole(said.get("rejected")),
        alerts=tuple((_text(one.get("column"), "?"), _text(one.get("severity"))) for one in _dicts(said.get("open_alerts"))),
        learned=(_whole(learning.get("events")), _whole(learning.get("of"))) if learning else None,
        trouble=_text(learning.get("trouble")),
        p50=_number(said.get("latency_p50")),
        p99=_number(said.get("latency_p99")),
        reference=_text(said.get("reference")),
    )


@dataclass
class _Series:
    """A counter over polls."""

    at: float
    count: int
    rates: deque[float | None] = field(default_factory=lambda: deque(maxlen=_POLLS))

    def take(self, at: float, count: int, comparable: bool) -> tuple[float | None, ...]:
        passed = at - self.at
        # A counter that went back has begun anew: nobody knows how far it came before.
        self.rates.append((count - self.count) / passed if comparable and count >= self.count and passed > 0 else None)
        self.at, self.count = at, count
        return tuple(self.rates)


class Board:
    """What is known of a sidecar after some polls."""

    def __init__(self, address: str, interval: float = 2.0) -> None:
        self.view = View(_text(address), 0.0, interval)
        self._whole: _Series | None = None
        self._series: dict[str, _Series] = {}

    def take(self, answer: Any, at: float, clock: float) -> None:
        """An answer of `/v1/models`; `at` is of a clock that only goes forward, `clock` is seconds since the epoch."""
        if not isinstance(answer, dict) or not isinstance(answer.get("models"), list) or not isinstance(answer.get("server"), dict):
            raise ValueError("the answer is not that of a sidecar")
        before, server = self.view.server, _server(answer["server"])
        # Counts of a restarted sidecar jump while it replays its log: events that came long ago.
        replaying = server.replaying or before is None or before.replaying
        comparable = not replaying and before is not None and server.uptime >= before.uptime
        if self._whole is None:
            self._whole = _Series(at, server.events)
            rates: tuple[float | None, ...] = ()
        else:
            rates = self._whole.take(at, server.events, comparable)
        models, kept = [], {}
        for model in map(_model, _dicts(answer["models"])):
            known = self._series.get(model.name)
            kept[model.name] = known or _Series(at, model.events)
            models.append(replace(model, rates=known.take(at, model.events, comparable)) if known else model)
        self._series = kept
        self.view = replace(self.view, clock=clock, server=server, rates=rates, models=tuple(models), trouble="", since=None)

    def miss(self, why: str, clock: float) -> None:
        """No answer."""
        since = clock if self.view.since is None else self.view.since
        self.view = replace(self.view, clock=clock, trouble=_text(why, "no answer"), since=since)


def _standing(said: Any, clock: float) -> str:
    if not isinstance(said, dict):
        return ""
    until = _seconds(said.get("muted_until"))
    if until is not None and until > clock:
        return f"muted, {span(until - clock)} left"
    return "acknowledged" if said.get("acknowledged_at") is not None else ""


def _alerts(answer: Any, clock: float) -> tuple[Alert, ...]:
    """Open alerts of the changes that `…/alerts` lists, pages first."""
    found: dict[str, Alert] = {}
    for row in _dicts(answer.get("rows") if isinstance(answer, dict) else None):
        column, state = _text(row.get("column"), "?"), row.get("state")
        if state == "resolved" or row.get("open") is False:
            found.pop(column, None)
            continue
        before = found.get(column)
        found[column] = Alert(
            column=column,
            severity=_text(row.get("severity")),
            verdict=_text(row.get("verdict")),
            value=_number(row.get("value")),
            reason=_text(row.get("reason")),
            cause=_text(row.get("cause")),
            since=_seconds(row.get("time")) if before is None or state == "opened" else before.since,
            standing=_standing(row.get("standing"), clock),
        )
    return tuple(sorted(found.values(), key=lambda alert: (alert.severity != "page", rank(alert.verdict), alert.column)))


def _worst(row: Mapping[str, Any]) -> tuple[int, float]:
    """Smaller for worse."""
    verdict, value, threshold = row.get("verdict"), _number(row.get("value")), _number(row.get("threshold"))
    return rank(verdict if isinstance(verdict, str) else None), -abs(value or 0.0) / (threshold or 1.0)


def _drift(answer: Any) -> tuple[tuple[Drift, ...], str]:
    """The worst row of each column, and the window they are of."""
    closed: dict[tuple[str, str], dict[str, Any]] = {}
    now: dict[tuple[str, str, str], dict[str, Any]] = {}
    unclosed: dict[tuple[str, str], dict[str, Any]] = {}
    for row in _dicts(answer.get("rows") if isinstance(answer, dict) else None):
        if not isinstance(row.get("verdict"), str):
            continue
        key = _text(row.get("column"), "?"), _text(row.get("segment"))
        worst = closed
        if row.get("provisional") is True:
            now[(*key, _text(row.get("method")))] = row
            worst = unclosed
        if key not in worst or _worst(row) < _worst(worst[key]):
            worst[key] = row
    chosen = closed or unclosed
    window = ""
    for row in chosen.values():
        start, end = _seconds(row.get("window_start")), _seconds(row.get("window_end"))
        if start is not None and end is not None:
            window = f"{_instant(start)} to {_instant(end, start)} UTC{'' if closed else ', still open'}"
            break
    out = []
    for (column, segment), row in sorted(chosen.items(), key=lambda item: (_worst(item[1]), item[0])):
        method = _text(row.get("method"))
        later = now.get((column, segment, method), {}) if closed else {}
        out.append(
            Drift(
                column=f"{column} [{segment}]" if segment else column,
                method=method,
                verdict=_text(row.get("verdict")),
                value=_number(row.get("value")),
                threshold=_number(row.get("threshold")),
                open_verdict=_text(later.get("verdict")),
                open_value=_number(later.get("value")),
                reason=_text(row.get("reason")),
            )
        )
    return tuple(out), window


def _instant(seconds: float, beside: float | None = None) -> str:
    """Minutes of a time, with its day unless that of `beside` is the same."""
    moment = datetime.fromtimestamp(seconds, UTC)
    same = beside is not None and datetime.fromtimestamp(beside, UTC).date() == moment.date()
    return f"{moment:%H:%M}" if same else f"{moment:%Y-%m-%d %H:%M}"


# ---- asking ------------------------------------------------------------------------------------------------------------------------------


class _Sidecar:
    """Answers of a sidecar as documents."""

    def __init__(self, url: str, token_file: str | None) -> None:
        self._url, self._token_file = url, token_file
        self._transport = self._connect()

    def _connect(self) -> Any:
        from barograph.transport import Transport, token_for

        return Transport(self._url, token_for(self._url, self._token_file))

    def get(self, path: str) -> Any:
        """A document.

        Raises ConnectionError with words for people.
        """
        try:
            status, _, body = self._transport.request("GET", path, timeout=_WAIT_SECONDS)
        except (OSError, HTTPException, BarographError) as error:
            raise ConnectionError(_why(error)) from None
        document = None
        with suppress(ValueError, RecursionError):
            document = json.loads(body)
        if status == 200:
            return document
        if status in (401, 403):
            # It may have been made since.
            with suppress(OSError, BarographError):
                self._transport = self._connect()
        said = document if isinstance(document, dict) else {}
        words = [_text(said.get(key)) for key in ("detail", "title") if _text(said.get(key))]
        raise ConnectionError(f"{words[0] if words else 'an answer without words'} (status {status})")


def _why(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return f"nothing came within {_WAIT_SECONDS:g} s"
    if isinstance(error, BarographError):
        return error.message
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error) or type(error).__name__


def _poll(board: Board, sidecar: _Sidecar) -> Any:
    """Puts an answer, or that there is none, on the board; gives the answer."""
    try:
        answer = sidecar.get("/v1/models")
        board.take(answer, time.monotonic(), time.time())
    except (ConnectionError, ValueError) as error:
        board.miss(str(error), time.time())
        return None
    return answer


def _ask_detail(sidecar: _Sidecar, model: Model) -> Detail:
    path = f"/v1/models/{quote(model.name, safe='')}"
    try:
        # The limit counts changes before those that are not open go.
        alerts = _alerts(sidecar.get(f"{path}/alerts?open=true&limit=100000"), time.time()) if model.alerts else ()
        drift, window = _drift(sidecar.get(f"{path}/drift"))
    except (ConnectionError, ValueError) as error:
        return Detail(model.name, trouble=_text(str(error)))
    return Detail(model.name, alerts, drift, window)


class _Watcher(threading.Thread):
    """Asks a sidecar again and again, apart from the keyboard."""

    def __init__(self, board: Board, sidecar: _Sidecar) -> None:
        super().__init__(name="barograph-top", daemon=True)
        self.view = board.view
        self.wanted = ""
        self.wake = threading.Event()
        self._board, self._sidecar = board, sidecar
        self._asked: tuple[str, tuple[tuple[str, str], ...], float] = ("", (), 0.0)

    def run(self) -> None:
        """Polls for as long as the process lives."""
        due = time.monotonic()
        while True:
            now = time.monotonic()
            if now >= due:
                _poll(self._board, self._sidecar)
                self.view = replace(self._board.view, detail=self.view.detail)
                due = max(due + self.view.interval, time.monotonic() + self.view.interval / 2)
            self._look()
            self.wake.wait(max(due - time.monotonic(), 0.0))
            self.wake.clear()

    def _look(self) -> None:
        """The selected model more closely, where there may be something new."""
        model = next((model for model in self.view.models if model.name == self.wanted), None)
        if model is None or model.learned is not None or self.view.since is not None:
            return
        name, alerts, at = self._asked
        if (name, alerts) != (model.name, model.alerts) or time.monotonic() - at > _DETAIL_SECONDS:
            detail = _ask_detail(self._sidecar, model)
            self._asked = (model.name, model.alerts, time.monotonic())
            self.view = replace(self.view, detail=detail)


# ---- the terminal ------------------------------------------------------------------------------------------------------------------------


def _attributes(coloured: bool) -> dict[str, int]:
    """What the terminal does for each style."""
    import curses

    colours = dict.fromkeys(("good", "warning", "critical", "info"), 0)
    if coloured and curses.has_colors():
        curses.start_color()
        back = curses.COLOR_BLACK
        with suppress(curses.error):
            curses.use_default_colors()
            back = -1
        wanted = {"good": curses.COLOR_GREEN, "warning": curses.COLOR_YELLOW, "critical": curses.COLOR_RED, "info": curses.COLOR_CYAN}
        for number, (style, colour) in enumerate(wanted.items(), 1):
            curses.init_pair(number, colour, back)
            colours[style] = curses.color_pair(number)
    return {
        **colours,
        "critical": colours["critical"] | curses.A_BOLD,
        "title": curses.A_BOLD,
        "bold": curses.A_BOLD,
        "name": 0,
        "key": curses.A_BOLD,
        "dim": curses.A_DIM,
        "heads": curses.A_REVERSE | curses.A_DIM,
        "selected": curses.A_REVERSE,
    }


def _paint(window: curses.window, lines: Sequence[Line], attributes: Mapping[str, int], width: int) -> None:
    import curses

    window.erase()
    for at, line in enumerate(lines):
        column = 0
        for text, style in line:
            attribute = 0
            for part in style.split():
                attribute |= attributes.get(part, 0)
            # Writing into the last cell moves the cursor off the screen, and sizes change in between: both raise.
            with suppress(curses.error):
                window.addstr(at, column, text, attribute)
            column += cells(text)
    window.refresh()


def _step(view: View, key: int, keys: Mapping[int, str]) -> View | None:
    """The view after a key; None ends."""
    name = keys.get(key, "")
    if name == "quit":
        return None
    if name == "help":
        return replace(view, help=not view.help)
    if name == "sort":
        return replace(view, sort=SORTS[(SORTS.index(view.sort) + 1) % len(SORTS)])
    names = [model.name for model in ordered(view)]
    moves = {"up": -1, "down": 1, "far up": -10, "far down": 10, "first": -len(names), "last": len(names)}
    if name not in moves or not names:
        return view
    at = names.index(view.selected) if view.selected in names else 0
    return replace(view, selected=names[min(max(at + moves[name], 0), len(names) - 1)])


def _live(window: curses.window, watcher: _Watcher, coloured: bool, plain: bool) -> None:
    import curses

    with suppress(curses.error):
        curses.curs_set(0)
    attributes = _attributes(coloured)
    letters = {"q": "quit", "Q": "quit", "?": "help", "h": "help", "s": "sort", "k": "up", "j": "down", "g": "first", "G": "last"}
    keys = {ord(letter): name for letter, name in letters.items()}
    keys |= {curses.KEY_UP: "up", curses.KEY_DOWN: "down", curses.KEY_PPAGE: "far up", curses.KEY_NPAGE: "far down"}
    keys |= {curses.KEY_HOME: "first", curses.KEY_END: "last"}
    window.timeout(200)
    watcher.start()
    chosen = watcher.view
    while True:
        seen = watcher.view
        names = [model.name for model in seen.models]
        selected = chosen.selected
        if selected not in names and names:
            selected = ordered(replace(seen, sort=chosen.sort))[0].name
        chosen = replace(seen, selected=selected, sort=chosen.sort, help=chosen.help, clock=time.time())
        if selected != watcher.wanted:
            watcher.wanted = selected
            watcher.wake.set()
        height, width = window.getmaxyx()
        _paint(window, screen(chosen, width, height, plain), attributes, width)
        key = window.getch()
        if key == curses.KEY_RESIZE:
            window.clear()
            continue
        following = _step(chosen, key, keys)
        if following is None:
            return
        chosen = following


def _run_live(board: Board, sidecar: _Sidecar) -> int:
    try:
        import curses
    except ImportError:
        raise BarographError("this Python has no curses, which the live view needs", "`barograph top --once` works without") from None

    def end(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    # The terminal has to be given back as it was.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end)
    # Escape is no key here; waiting for what may follow it would make the arrows slow.
    os.environ.setdefault("ESCDELAY", "25")
    with suppress(locale.Error):
        locale.setlocale(locale.LC_ALL, "")
    plain = "utf" not in locale.getencoding().lower()
    coloured = not os.environ.get("NO_COLOR")
    with suppress(KeyboardInterrupt):
        try:
            curses.wrapper(_live, _Watcher(board, sidecar), coloured, plain)
        except curses.error as error:
            raise BarographError(f"the terminal cannot be used: {_text(str(error))}", "`barograph top --once` needs none") from None
    return 0


def _document(board: Board, sidecar: _Sidecar) -> dict[str, Any]:
    """A poll as a document: the answer, with rates beside its counts."""
    answer, view = _poll(board, sidecar), board.view
    moment = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    out: dict[str, Any] = {"time": moment, "url": view.address, "server": None, "models": [], "trouble": view.trouble or None}
    if answer is not None:
        rates = {model.name: model.rate for model in view.models}
        out["server"] = {**answer["server"], "ready": view.ready, "events_per_second": view.rates[-1] if view.rates else None}
        out["models"] = [{**model, "events_per_second": rates.get(_text(model.get("name"), "?"))} for model in _dicts(answer["models"])]
    return out


def _run_plain(options: argparse.Namespace, board: Board, sidecar: _Sidecar) -> int:
    while options.json and not options.once:
        print(json.dumps(_document(board, sidecar)), flush=True)
        time.sleep(options.interval)
    document = _document(board, sidecar)
    if document["trouble"] is None:
        # A rate needs two.
        time.sleep(min(options.interval, 1.0))
        document = _document(board, sidecar)
    if document["trouble"] is not None:
        raise BarographError(f"no answer of {board.view.address}: {board.view.trouble}", _hint(board.view.trouble))
    if options.json:
        print(json.dumps(document))
        return 0
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    plain = "utf" not in (sys.stdout.encoding or "").lower()
    for line in table(board.view, width):
        print(ascii_only(line) if plain else line)
    return 0


def _hint(trouble: str) -> str:
    if "(status 40" in trouble:
        return "the token comes from BAROGRAPH_TOKEN, --token-file or ./barograph-data/token"
    return "is `barograph serve` running, and is this its address?"


def run(options: argparse.Namespace) -> int:
    """Shows a sidecar until `q`, or once."""
    if not 0.1 <= options.interval <= 3600:
        raise InvalidArgumentError(f"`--interval` must be 0.1 to 3600 seconds, got {options.interval}")
    sidecar, board = _Sidecar(options.url, options.token_file), Board(options.url, options.interval)
    terminal = sys.stdin.isatty() and sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"
    if options.once or options.json or not terminal:
        return _run_plain(options, board, sidecar)
    return _run_live(board, sidecar)
