"""A browser, a sidecar with flights in it, and a page that shows documents that were made up."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "e2e"))
sys.path.insert(0, str(Path(__file__).parent))

from flights import DAYS, flights, send, start, until_closed
from made_up import MadeUp
from playwright.sync_api import Browser, Page, Route, expect, sync_playwright
from sidecars import TOKEN, Sidecar, sidecar

ROOT = Path(__file__).parents[2]
AXE = ROOT / "web" / "node_modules" / "axe-core" / "axe.min.js"
# As root and in a container there is no sandbox; the rest keeps Chromium from asking its makers anything.
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"]
WIDTHS = (390, 820, 1440)
VIEWS = {
    "fleet": "",
    "model": "models/{model}",
    "columns": "models/{model}/columns",
    "column": "models/{model}/columns/{column}",
    "segments": "models/{model}/segments",
    "alerts": "models/{model}/alerts",
    "loop": "models/{model}/loop",
    "cost": "cost",
}


def chromium() -> str:
    """Where the browser is. On CI it has to be somewhere."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        message = "no Chromium was found: `apt-get install chromium` brings Debian's"
        if os.environ.get("CI"):
            raise RuntimeError(message)
        pytest.skip(message)
    return found


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    path = chromium()
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield running
        running.close()


@pytest.fixture(scope="session")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sidecar]:
    """A sidecar that serves the page; what the page asks for is made up."""
    with sidecar(tmp_path_factory.mktemp("empty")) as running:
        if b"make page" in running.get("/", Accept_Encoding=None).body:
            pytest.fail("the sidecar was built without its page: `make page develop` builds both")
        yield running


@pytest.fixture(scope="session")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sidecar]:
    """A sidecar with sixty days of flights of one model, all as they were."""
    with sidecar(tmp_path_factory.mktemp("watched")) as running:
        frame = flights()
        start(running, "late-flights", frame)
        send(running, "late-flights", frame.filter((frame["day"] >= 20) & (frame["day"] < DAYS - 4)))
        until_closed(running, "late-flights")
        yield running


class Looker:
    """A page of a browser that fails its test for what goes wrong in it: errors, refused sources, requests elsewhere."""

    def __init__(self, browser: Browser, address: str, width: int = 1440, theme: str = "light", token: str = TOKEN) -> None:
        self.address, self.token = address, token
        scheme: Any = theme
        self.context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, reduced_motion="reduce")
        self.page: Page = self.context.new_page()
        self.wrong: list[str] = []
        self.expected: Callable[[str], bool] = lambda text: False
        self.page.on("console", lambda message: self.wrong.append(message.text) if message.type in ("error", "warning") else None)
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("request", lambda request: self.wrong.append(f"asked {request.url}") if not request.url.startswith(address) else None)

    def make_up(self, made: MadeUp, stream: str = "retry: 1000\n\n: alive\n\n") -> None:
        """Lets the page be answered with what is made up."""

        def answer(route: Route) -> None:
            if urlsplit(route.request.url).path == "/v1/stream":
                route.fulfill(status=200, content_type="text/event-stream", body=stream)
                return
            found = made.answer(route.request.url)
            problem = {"status": 404, "title": "not found", "detail": "there is no such thing"}
            kind = "application/json" if found is not None else "application/problem+json"
            route.fulfill(status=200 if found is not None else 404, content_type=kind, body=json.dumps(problem if found is None else found))

        self.page.route("**/v1/**", answer)

    def fail_with(self, status: int, body: str = "", headers: dict[str, str] | None = None) -> None:
        """Lets the read API answer this status, or nobody (0)."""

        def answer(route: Route) -> None:
            if status == 0:
                route.abort("connectionrefused")
            else:
                route.fulfill(status=status, content_type="application/problem+json", body=body, headers=headers or {})

        self.page.route("**/v1/**", answer)

    def visit(self, place: str = "", wait: str | None = "main h1") -> Page:
        """Goes to a place of the page, with the token in the fragment the first time."""
        if self.page.url == "about:blank":
            self.page.goto(f"{self.address}/#token={self.token}")
        self.page.goto(f"{self.address}/#/{place}")
        if wait:
            self.page.wait_for_selector(wait, timeout=15_000)
        self.settle()
        return self.page

    def settle(self) -> None:
        """Waits until nothing is loading."""
        expect(self.page.locator("[aria-busy=true]")).to_have_count(0, timeout=20_000)

    def close(self) -> None:
        self.context.close()
        bad = [text for text in self.wrong if not self.expected(text)]
        assert not bad, bad


@pytest.fixture
def look(browser: Browser) -> Iterator[Callable[..., Looker]]:
    """Opens pages, and looks at the end whether anything went wrong in one."""
    opened: list[Looker] = []

    def open_one(running: Sidecar, **options: Any) -> Looker:
        opened.append(Looker(browser, f"http://127.0.0.1:{running.port}", **options))
        return opened[-1]

    yield open_one
    for one in opened:
        one.close()


@pytest.fixture(scope="session")
def browser_config(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sidecar]:
    """A sidecar with a token that may only read, and a model that learns."""
    tokens = '[[tokens]]\nname = "reader"\ntoken = "only-reads"\nscopes = ["read"]\n'
    with sidecar(tmp_path_factory.mktemp("reader"), config=tokens) as running:
        assert running.request("POST", "/v1/models/m/events", b'{"x": 1}', "application/x-ndjson").status == 200
        yield running
