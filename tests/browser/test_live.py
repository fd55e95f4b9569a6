"""A real sidecar, real flights with a shift, a real browser: the verdict, the alert and its cause appear by themselves."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from conftest import Looker
from flights import BAD, DAYS, flights, gone_wrong, send
from sidecars import TOKEN, Sidecar

Open = Callable[..., Looker]


def test_a_shift_of_real_flights_is_seen_as_it_comes_with_its_alert_and_cause(watched: Sidecar, look: Open, tmp_path: Path) -> None:
    looker = look(watched)
    page = looker.visit()
    row = page.locator("tbody tr", has_text="late-flights")
    assert row.locator(".verdict").inner_text().strip() in ("ok", "info", "silent", "insufficient"), row.inner_text()
    page.locator(".live.live").wait_for()

    frame = flights()
    send(watched, "late-flights", gone_wrong(frame.filter(pl.col("day") >= DAYS - BAD)), labelled=0.6)
    # Nobody reloads: what happens comes by the stream.
    page.locator("tbody tr .verdict.critical").wait_for(timeout=60_000)
    assert page.locator("h1").inner_text() == "1 model needs a look"

    page.locator("tbody tr a", has_text="late-flights").first.click()
    page.locator(".headline .verdict.critical").wait_for()
    looker.settle()
    assert page.locator(".headline time").count() >= 1
    page.get_by_role("link", name="Alerts", exact=True).click()
    card = page.locator(".alert", has=page.locator("h3 bdi", has_text=re.compile("^air_time_min$"))).first
    card.wait_for()
    # An older one of it is over, since the storm of February: what is open comes first.
    assert card.locator(".verdict.critical, .verdict.warning").count() >= 1
    assert "went from" in card.locator(".cause").inner_text()
    assert "opened" in card.locator(".life").inner_text()

    # Flights that it is about, by their numbers: each was sent, and its air time was missing.
    card.locator("summary", has_text="Example events").click()
    card.locator(".examples li").first.wait_for()
    ids = [int(text) for text in card.locator(".examples code").all_inner_texts()]
    sent = gone_wrong(frame.filter(pl.col("day") >= DAYS - BAD))
    assert len(ids) == 5
    assert sent.filter(pl.col("_id").is_in(ids))["air_time_min"].null_count() == 5

    # The command beside it gives the number of the alert.
    card.locator("summary", has_text="Get this number again").click()
    told = card.locator("pre").inner_text()
    lines = told.replace("barograph compare", f"{shlex.quote(sys.executable)} -m barograph compare") + " --json --fail-on never"
    done = subprocess.run(
        ["bash", "-euc", f"export BAROGRAPH_TOKEN={TOKEN}\n{lines}"], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode in (0, 3), done.stderr
    rows = watched.get("/v1/models/late-flights/alerts").json["rows"]
    changes = [row for row in rows if row["column"] == "air_time_min" and row["state"] != "resolved"]
    found = {row["method"]: row["value"] for row in json.loads(done.stdout)["rows"] if row["column"] == "air_time_min"}
    assert found[changes[-1]["method"]] == pytest.approx(changes[-1]["value"], abs=1e-9)

    card.get_by_role("link", name="See its column").click()
    page.locator("h1", has_text="air_time_min").wait_for()
    looker.settle()
    # Forty bins, and one for those that are missing.
    assert page.locator(".histogram rect.current").count() == 41
    assert page.locator("table", has_text="quantile").or_(page.locator("caption", has_text="Quantiles")).count() > 0


def test_acknowledging_needs_the_scope_and_is_shown(watched: Sidecar, look: Open) -> None:
    looker = look(watched)
    page = looker.visit("models/late-flights/alerts", wait=".alert .say")
    card = page.locator(".alert", has=page.locator(".say")).first
    card.get_by_role("button", name="Acknowledge").click()
    page.get_by_text("Acknowledged by admin").first.wait_for()
    card.get_by_role("button", name="Mute").click()
    page.get_by_text("Muted by admin").first.wait_for()


def test_a_token_of_scope_read_may_look_and_is_told_that_it_may_not_acknowledge(browser_config: Sidecar, look: Open) -> None:
    looker = look(browser_config, token="only-reads")
    looker.expected = lambda text: "403" in text
    page = looker.visit()
    assert page.locator("tbody tr").count() == 1
    asked = "{method: 'POST', headers: {Authorization: 'Bearer only-reads'}}"
    answer = page.evaluate(f"fetch('/v1/models/m/alerts/1/acknowledge', {asked}).then(answer => answer.status)")
    assert answer == 403
