"""Pictures of every view with real flights that went wrong, in both themes and three widths; a dozen of them stand in the docs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import barograph as bg
import polars as pl
import pytest
from conftest import VIEWS, WIDTHS, Looker
from flights import BAD, DAY, DAYS, flights, gone_wrong, send, start, tell, until_closed
from palettes import packed
from playwright.sync_api import Browser
from sidecars import Sidecar, sidecar

Open = Callable[..., Looker]

KEPT = {
    "fleet-light-1440",
    "fleet-dark-390",
    "model-light-1440",
    "model-dark-1440",
    "model-light-390",
    "columns-light-1440",
    "column-dark-1440",
    "column-light-820",
    "segments-light-1440",
    "alerts-light-1440",
    "loop-light-1440",
    "cost-dark-1440",
}


@pytest.fixture(scope="module")
def airports(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sidecar]:
    """Three models, of which one went wrong four days ago; and one that learns."""
    with sidecar(tmp_path_factory.mktemp("airports")) as running:
        whole = flights()
        for airport in ("EWR", "JFK", "LGA"):
            model = f"late-{airport.lower()}"
            frame = whole.filter(pl.col("origin") == airport)
            start(running, model, frame)
            send(running, model, frame.filter((pl.col("day") >= 20) & (pl.col("day") < DAYS - BAD)))
            last = frame.filter(pl.col("day") >= DAYS - BAD)
            send(running, model, gone_wrong(last) if airport == "EWR" else last, labelled=0.5)
        until_closed(running, "late-ewr")
        time = pl.Series([whole["_time"].max()]).dt.epoch("ns").item() // DAY * DAY - 12 * DAY
        when = pl.Series([time]).cast(pl.Datetime("ns", "UTC")).dt.to_string("%Y-%m-%dT%H:%M:%SZ").item()
        assert running.request("POST", "/v1/models/late-ewr/deploys", {"version": "2.1", "time": when}).status == 204
        tell(running, "late-ewr", whole.filter(pl.col("origin") == "EWR"))
        send(running, "cancelled", whole.head(4200), labelled=0)
        yield running


# Of a picture in the docs.
MOST_BYTES = 150_000


def keep(browser: Browser, name: str, shot: bytes) -> None:
    """Puts a picture into the folder of those that stand in the docs, if there is one."""
    folder = os.environ.get("BAROGRAPH_PICTURES")
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        small = packed(browser, shot)
        assert len(small) <= MOST_BYTES, (name, len(small))
        Path(folder, f"{name}.png").write_bytes(small)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_every_view_has_a_picture(airports: Sidecar, browser: Browser, look: Open, width: int, theme: str, tmp_path: Path) -> None:
    every = Path(os.environ.get("BAROGRAPH_EVERY_PICTURE") or tmp_path)
    every.mkdir(parents=True, exist_ok=True)
    looker = look(airports, width=width, theme=theme)
    for view, place in VIEWS.items():
        page = looker.visit(place.format(model="late-ewr", column="dep_delay_min"))
        page.locator(".live.live").wait_for()
        name = f"{view}-{theme}-{width}"
        # To the end of what is there, or as much as fits on a page.
        end = page.evaluate("Math.ceil(document.querySelector('main').lastElementChild.getBoundingClientRect().bottom + scrollY) + 16")
        height = min(end, 1500 if width > 400 else 1400)
        clip = {"x": 0, "y": 0, "width": width, "height": height}
        shot = page.screenshot(path=every / f"{name}.png", full_page=True, clip=clip)
        assert len(shot) > 10_000, f"{name} is next to empty"
        if name in KEPT:
            keep(browser, name, shot)


def test_the_report_has_a_picture(browser: Browser, tmp_path: Path) -> None:
    """One file that a browser opens without asking anybody."""
    frame = flights()
    before, after = frame.filter(pl.col("day") < 20), gone_wrong(frame.filter(pl.col("day") >= DAYS - BAD))
    features = ["carrier", "origin", "dest", "distance_mi", "dep_delay_min", "air_time_min"]
    bg.compare(bg.Reference(before.select(features)), after.select(features)).to_html(tmp_path / "report.html")
    page = browser.new_page(viewport={"width": 1000, "height": 900})
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto((tmp_path / "report.html").as_uri())
    page.locator("h1").first.wait_for()
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    page.locator("summary").first.click()
    height = min(page.evaluate("document.documentElement.scrollHeight"), 790)
    shot = page.screenshot(clip={"x": 0, "y": 0, "width": 1000, "height": height}, full_page=True)
    assert len(shot) > 10_000
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    page.close()
    keep(browser, "report-light-1000", shot)
