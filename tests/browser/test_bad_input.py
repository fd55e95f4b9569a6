"""What is hostile, broken or absent is shown right: as text, as a sentence, never as a blank and never as markup."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest
from conftest import VIEWS, Looker
from made_up import NAMES, MadeUp, hour
from playwright.sync_api import expect
from sidecars import Sidecar

Open = Callable[..., Looker]


def seen(name: str) -> str:
    """How a name stands on the page: what would turn the text around is spelled out."""
    return " ".join(name.replace("\u202e", "⟨U+202E⟩").split()) or "(blank name)"


def place(view: str) -> str:
    return VIEWS[view].format(model="model-000", column="dep_delay")


def words(looker: Looker) -> str:
    text: str = looker.page.locator("main").inner_text()
    return text


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
        text = page.locator("tbody").last.inner_text()
        assert all(seen(name) in text for name in NAMES if len(name) < 100)


@pytest.mark.parametrize("view", VIEWS)
def test_numbers_at_the_edges_of_doubles_are_shown(empty: Sidecar, look: Open, view: str) -> None:
    looker = look(empty)
    looker.make_up(MadeUp(extreme=True))
    page = looker.visit(place(view))
    text = words(looker)
    assert "NaN" not in text.replace("NaN or infinite", "").replace("NaN and infinities", "")
    assert "Infinity" not in text
    assert "undefined" not in text
    if view in ("fleet", "model", "column", "columns", "alerts", "loop"):
        assert "1.80e308" in text
    if view in ("model", "loop"):
        assert "too large to be drawn" in text
    assert page.locator(".wrong").count() == 0


@pytest.mark.parametrize("status", [429, 500, 503, 0])
@pytest.mark.parametrize("view", VIEWS)
def test_a_sidecar_that_fails_is_told_of_on_every_view(empty: Sidecar, look: Open, view: str, status: int) -> None:
    looker = look(empty)
    looker.expected = lambda text: "Failed to load resource" in text or "ERR_CONNECTION_REFUSED" in text
    problem = {"status": status, "title": "too many requests", "detail": "there are 100 streams already", "hint": "try again"}
    looker.fail_with(status, json.dumps(problem), {"Retry-After": "1"})
    page = looker.visit(place(view))
    wrong = page.locator(".wrong").first
    wrong.wait_for()
    text = wrong.inner_text()
    assert (str(status) if status else "does not answer") in text
    assert "tried again by itself" in text
    # Nothing else pretends to know anything.
    assert page.locator("main .verdict").count() == 0
    assert "quiet" not in words(looker)
    if view not in ("fleet", "model", "column", "alerts", "cost"):
        return
    # And when it is well again, so is the page, by itself.
    page.unroute("**/v1/**")
    looker.make_up(MadeUp())
    expect(page.locator(".wrong")).to_have_count(0, timeout=30_000)
    looker.settle()


@pytest.mark.parametrize("view", VIEWS)
def test_an_answer_that_does_not_come_is_waited_for_and_said(empty: Sidecar, look: Open, view: str) -> None:
    looker = look(empty)
    looker.expected = lambda text: "ERR_FAILED" in text or "ERR_ABORTED" in text or "Failed to load resource" in text
    waiting: list[Any] = []
    looker.page.route("**/v1/**", lambda route: waiting.append(route))
    page = looker.page
    page.goto(f"{looker.address}/#token=t/{place(view)}")
    expect(page.locator("main [role=status]", has_text="Loading").first).to_be_visible()
    assert "NaN" not in words(looker)
    for route in waiting:
        route.abort()


@pytest.mark.parametrize("view", VIEWS)
def test_a_token_that_is_refused_in_between_is_asked_for(empty: Sidecar, look: Open, view: str) -> None:
    looker = look(empty)
    looker.expected = lambda text: "401" in text
    looker.fail_with(401, json.dumps({"status": 401, "title": "unauthorized", "detail": "the token is not known"}))
    looker.visit(place(view), wait="form.token")
    assert "does not know this token" in looker.page.locator(".wrong").inner_text()


@pytest.mark.parametrize("view", [view for view in VIEWS if view not in ("fleet", "cost")])
def test_a_week_without_events_is_said(empty: Sidecar, look: Open, view: str) -> None:
    """A model to which nothing came for a week, looked at now and at that week."""
    looker = look(empty)
    made = MadeUp(windows=24 * 21)
    made.gap = (hour(24 * 14), hour(24 * 7))
    looker.make_up(made)
    page = looker.visit(place(view))
    assert page.locator(".wrong").count() == 0
    if view in ("model", "loop"):
        # The canvas says it in its own colour, and the list beside it in words.
        assert page.locator(".canvas").count() >= 1
    if view == "model":
        page.locator("summary", has_text="What happened").click()
        assert "no events until" in words(looker)


@pytest.mark.parametrize("view", VIEWS)
def test_nothing_at_all_is_a_sentence(empty: Sidecar, look: Open, view: str) -> None:
    """A model that has closed no window: every panel says why it shows nothing."""
    looker = look(empty)
    looker.make_up(Nothing())
    page = looker.visit(place(view))
    text = words(looker)
    assert "NaN" not in text
    assert "undefined" not in text
    for panel in page.locator("section.panel").all():
        content = panel.inner_text().split("\n", 1)
        assert len(content) > 1, f"a panel shows nothing: {content}"
        assert len(content[1].strip()) > 10, f"a panel says next to nothing: {content}"
    if view == "fleet":
        assert "1 model is waiting for its first closed window" in text
        assert "quiet" not in text


class Nothing(MadeUp):
    """Answers of a sidecar whose one model waits for its first window."""

    def __init__(self) -> None:
        super().__init__(models=1)

    def answer(self, url: str) -> Any:
        found = super().answer(url)
        path = url.split("?", 1)[0]
        if path.endswith("/overview"):
            line = found["models"][0]
            null = ("verdict", "since", "window_start", "window_end", "events_per_second", "latency_p50", "latency_p99", "error_rate")
            line |= dict.fromkeys((*null, "quality", "estimate", "worst")) | {"open_pages": 0, "open_tickets": 0}
        elif path.endswith("/columns"):
            found |= {"window_start": None, "window_end": None, "columns": []}
        elif "/columns/" in path:
            found |= {"verdict": None, "reason": "there are no events in that time", "bars": None, "bins": [], "n_current": 0}
            found |= {"current_summary": None, "rows": [], "quantiles": [], "names": [], "shares": []}
        elif path.endswith("/series"):
            found |= {"since": None, "until": None, "lines": [], "marks": [], "gaps": []}
        elif path.endswith("/quality"):
            found |= {"labels": 0, "counts": {}, "delays": [], "tiles": [], "calibrated_until": None}
        elif path.endswith("/segments"):
            found |= {"window_start": None, "window_end": None, "segments": []}
        elif path.endswith("/alerts"):
            found |= {"rows": []}
        elif path.endswith("/feedback"):
            found |= {"decisions": [], "requests": [], "triggers": []}
        elif path.endswith("/decisions"):
            found |= {"decision": "inconclusive", "reason": "no window has closed yet"}
        elif path.endswith("/v1/models"):
            found["models"] = []
        return found


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


def test_too_few_labels_are_no_quality(empty: Sidecar, look: Open) -> None:
    """A window of two labels has shown "ROC AUC 0"."""
    looker = look(empty)
    looker.make_up(MadeUp())
    page = looker.visit("models/model-001")
    fact = page.locator(".facts div", has_text="ROC AUC").first
    assert "too few labels" in fact.inner_text()
    assert "by 2 labelled events" in (fact.locator("dd").get_attribute("title") or "")
