"""What is hostile, broken or absent is shown right: as text, as a sentence, never as a blank and never as markup."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest
from conftest import VIEWS, Looker
from made_up import NAMES, MadeUp
from playwright.sync_api import expect
from sidecars import Sidecar

Open = Callable[..., Looker]


def seen(name: str) -> str:
    """How a name stands on the page: what would turn the text around is spelled out."""
    return " ".join(name.replace("\u202e", "⟨U+202E⟩").split()) or "(blank name)"


@pytest.mark.parametrize("width", [390, 1440])
@pytest.mark.parametrize("view", VIEWS)
def test_hostile_names_are_text(empty: Sidecar, look: Open, view: str, width: int) -> None:
    looker = look(empty, width=width)
    looker.make_up(MadeUp(names=NAMES))
    page = looker.visit()
    for name in NAMES:
        page = looker.visit(VIEWS[view].format(model=quote(name, safe=""), column=quote(name, safe="")))
        assert page.title() != "broken"
        assert page.locator("main img, main script").count() == 0
        assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, (view, name)
        if view not in ("fleet", "cost"):
            assert " ".join(page.locator("h1").inner_text().split()) == seen(name)
    if view in ("fleet", "cost"):
        text = page.locator("tbody").inner_text()
        assert all(seen(name) in text for name in NAMES if len(name) < 100)


@pytest.mark.parametrize("view", VIEWS)
def test_numbers_at_the_edges_of_doubles_are_shown(empty: Sidecar, look: Open, view: str) -> None:
    looker = look(empty)
    looker.make_up(MadeUp(extreme=True))
    page = looker.visit(VIEWS[view].format(model="model-000", column="dep_delay"))
    text = page.locator("main").inner_text()
    assert "NaN" not in text.replace("NaN or infinite", "").replace("NaN and infinities", "")
    assert "Infinity" not in text
    assert "undefined" not in text
    if view in ("fleet", "model", "column"):
        assert "1.80e308" in text
    if view == "model":
        assert "too large to be drawn" in text


PROBLEM = {"status": 0, "title": "too many requests", "detail": "there are 100 streams already", "hint": "try again"}


@pytest.mark.parametrize("status", [429, 500, 503, 0])
@pytest.mark.parametrize("view", ["fleet", "model", "column", "alerts", "cost"])
def test_a_sidecar_that_fails_is_told_of_and_asked_again(empty: Sidecar, look: Open, view: str, status: int) -> None:
    looker = look(empty)
    looker.expected = lambda text: "Failed to load resource" in text or "ERR_CONNECTION_REFUSED" in text
    looker.fail_with(status, json.dumps({**PROBLEM, "status": status}), {"Retry-After": "1"})
    page = looker.visit(VIEWS[view].format(model="model-000", column="dep_delay"))
    wrong = page.locator(".wrong").first
    wrong.wait_for()
    text = wrong.inner_text()
    assert (str(status) if status else "does not answer") in text
    assert "tried again by itself" in text
    # And when it is well again, so is the page, by itself.
    page.unroute("**/v1/**")
    looker.make_up(MadeUp())
    expect(page.locator(".wrong")).to_have_count(0, timeout=30_000)
    looker.settle()


def test_what_was_known_stays_while_the_sidecar_is_silent(empty: Sidecar, look: Open) -> None:
    looker = look(empty)
    looker.expected = lambda text: "Failed to load resource" in text or "ERR_CONNECTION_REFUSED" in text
    looker.make_up(MadeUp())
    page = looker.visit("models/model-000")
    page.unroute("**/v1/**")
    looker.fail_with(0)
    page.get_by_role("button", name="open", exact=True).click()
    page.locator(".wrong").wait_for()
    # The panels that were not asked again keep what they had.
    assert page.locator(".canvas").count() == 4


def test_a_token_that_is_refused_is_asked_for_again(empty: Sidecar, look: Open) -> None:
    looker = look(empty, token="wrong")
    looker.expected = lambda text: "401" in text
    looker.visit("", wait="form.token")
    page = looker.page
    page.locator(".wrong", has_text="does not know this token").wait_for()
    page.get_by_label("Token").fill("a-token-for-tests")
    page.get_by_role("button", name="Look").click()
    page.locator(".empty", has_text="no models yet").wait_for()


def test_an_address_of_nothing_says_so(empty: Sidecar, look: Open) -> None:
    looker = look(empty)
    looker.make_up(MadeUp())
    page = looker.visit("nowhere/at/all", wait=".empty")
    assert "nothing at this address" in page.locator(".empty").inner_text()
    page = looker.visit("models/no-such-model")
    assert "no model of this name" in page.locator("main").inner_text()


def test_a_document_that_is_no_json_is_a_problem_not_a_blank(empty: Sidecar, look: Open) -> None:
    looker = look(empty)
    looker.page.route("**/v1/**", lambda route: route.fulfill(status=200, content_type="text/html", body="<h1>a proxy's sign-in</h1>"))
    page = looker.visit()
    assert "is no JSON" in page.locator(".wrong").first.inner_text()


def test_a_document_of_another_version_costs_its_panel_alone(empty: Sidecar, look: Open) -> None:
    looker = look(empty)
    made = MadeUp()

    def answer(url: str) -> Any:
        return {"model": "m", "lines": [{"method": "psi", "values": 3}], "marks": None} if "/series" in url else MadeUp.answer(made, url)

    made.answer = answer  # type: ignore[method-assign]
    looker.make_up(made)
    page = looker.visit("models/model-000")
    assert "cannot be shown" in page.locator(".wrong").first.inner_text()
    assert page.locator("caption", has_text="Columns").count() == 1
