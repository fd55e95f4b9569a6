"""Pictures of every view with real flights that went wrong, in both themes and three widths; a dozen of them stand in the docs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import polars as pl
import pytest
from conftest import VIEWS, WIDTHS, Looker
from flights import BAD, DAY, DAYS, flights, gone_wrong, send, start, until_closed
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
        send(running, "cancelled", whole.head(4200), labelled=0)
        yield running


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_every_view_has_a_picture(airports: Sidecar, look: Open, width: int, theme: str, tmp_path: Path) -> None:
    kept = Path(os.environ.get("BAROGRAPH_PICTURES") or tmp_path)
    every = Path(os.environ.get("BAROGRAPH_EVERY_PICTURE") or tmp_path)
    for folder in (kept, every):
        folder.mkdir(parents=True, exist_ok=True)
    looker = look(airports, width=width, theme=theme)
    for view, place in VIEWS.items():
        page = looker.visit(place.format(model="late-ewr", column="dep_delay_min"))
        page.locator(".live.live").wait_for()
        name = f"{view}-{theme}-{width}"
        height = min(page.evaluate("document.documentElement.scrollHeight"), 1500 if width > 400 else 1400)
        clip = {"x": 0, "y": 0, "width": width, "height": height}
        shot = page.screenshot(path=every / f"{name}.png", full_page=True, clip=clip)
        assert len(shot) > 10_000, f"{name} is next to empty"
        if name in KEPT:
            (kept / f"{name}.png").write_bytes(shot)
