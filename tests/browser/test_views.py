"""Every view: read by machines (axe), by keyboard, on a phone, in the dark."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from conftest import AXE, VIEWS, WIDTHS, Looker
from made_up import HOUR, MadeUp, hour
from playwright.sync_api import expect
from sidecars import Sidecar

Open = Callable[..., Looker]


def place(view: str) -> str:
    return VIEWS[view].format(model="model-000", column="dep_delay")


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("view", VIEWS)
def test_axe_finds_nothing_serious(empty: Sidecar, look: Open, view: str, theme: str) -> None:
    looker = look(empty, theme=theme)
    looker.make_up(MadeUp())
    page = looker.visit(place(view))
    for one in page.locator("details > summary").all()[:3]:
        one.click()
    page.evaluate(AXE.read_text())
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    bad = [
        (rule["id"], rule["impact"], [node["html"][:200] for node in rule["nodes"][:3]])
        for rule in found["violations"]
        if rule["impact"] in ("serious", "critical", "moderate")
    ]
    assert not bad, bad
    # It did look: there are rules that passed.
    assert len(page.evaluate("axe.run(document).then(found => found.passes)")) > 10


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("view", VIEWS)
def test_nothing_is_wider_than_the_screen(empty: Sidecar, look: Open, view: str, width: int) -> None:
    looker = look(empty, width=width)
    looker.make_up(MadeUp())
    page = looker.visit(place(view))
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0


def test_the_keyboard_reaches_a_column_from_the_fleet(empty: Sidecar, look: Open) -> None:
    looker = look(empty)
    looker.make_up(MadeUp())
    page = looker.visit()

    def tab_to(test: str, most: int = 80) -> None:
        for _ in range(most):
            page.keyboard.press("Tab")
            if page.evaluate(f"(element => {test})(document.activeElement)"):
                # Where the focus is can be seen.
                assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"
                return
        raise AssertionError(f"never reached {test}")

    tab_to("element.textContent.startsWith('Events/s')")
    page.keyboard.press("Enter")
    expect(page.locator("th[aria-sort=descending]", has_text="Events/s")).to_have_count(1)
    tab_to("element.matches('tbody a.name')")
    page.keyboard.press("Enter")
    page.wait_for_url("**/#/models/**")
    looker.settle()
    tab_to("element.matches('input[type=datetime-local]')")
    tab_to("element.tagName === 'SUMMARY'")
    page.keyboard.press("Enter")
    expect(page.locator("details[open] table")).to_have_count(1)
    tab_to("element.matches('tbody a.name')", most=120)
    page.keyboard.press("Enter")
    page.wait_for_url("**/columns/**")


def test_every_picture_has_its_table_and_words(empty: Sidecar, look: Open) -> None:
    looker = look(empty)
    looker.make_up(MadeUp())
    page = looker.visit("models/model-000")
    pictures = page.locator(".canvas")
    assert pictures.count() == 4
    for at in range(4):
        words = pictures.nth(at).get_attribute("aria-label") or ""
        assert "over time" in words
        assert "last" in words
    for at in range(4):
        page.locator(".timechart summary").nth(at).click()
        expect(page.locator(".timechart").nth(at).locator("tbody tr")).to_have_count(50)


def test_what_is_brushed_becomes_the_address_and_the_address_what_is_shown(empty: Sidecar, look: Open) -> None:
    looker = look(empty)
    made = MadeUp()
    looker.make_up(made)
    page = looker.visit("models/model-000")
    box = page.locator(".canvas").first.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] * 0.4, box["y"] + 40)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + 40, steps=5)
    page.mouse.up()
    page.wait_for_url("**since=**")
    looker.settle()
    assert page.locator("input[type=datetime-local]").first.input_value() != ""
    page.get_by_role("button", name="All", exact=True).click()
    page.wait_for_url(lambda url: "since" not in url)


def test_a_week_without_events_is_a_gap_that_says_so(empty: Sidecar, look: Open) -> None:
    looker = look(empty)
    made = MadeUp(windows=24 * 21)
    made.gap = (hour(24 * 14), hour(24 * 7))
    looker.make_up(made)
    page = looker.visit("models/model-000")
    page.locator(".timechart summary").first.click()
    table = page.locator(".timechart").first
    table.get_by_role("button", name="Next").click()
    for _ in range(5):
        if table.get_by_text("no events").count():
            break
        table.get_by_role("button", name="Next").click()
    assert table.get_by_text("no events").count() == 1
    assert made.gap[1] - made.gap[0] == 7 * 24 * HOUR
    # The line is not drawn across: in the middle of the gap the canvas has the gap's colour.
    color = page.evaluate(
        """() => { const canvas = document.querySelector('.canvas canvas'); const context = canvas.getContext('2d');
        const data = context.getImageData(Math.floor(canvas.width * 0.45), 0, 1, canvas.height).data; const colors = new Set();
        for (let at = 0; at < data.length; at += 4) colors.add(data.slice(at, at + 4).join()); return [...colors]; }"""
    )
    line = page.evaluate("getComputedStyle(document.documentElement).getPropertyValue('--line1')")
    red, green, blue = (int(line.strip()[at : at + 2], 16) for at in (1, 3, 5))
    assert f"{red},{green},{blue},255" not in color
    assert len(color) >= 2


def test_the_theme_is_kept(empty: Sidecar, look: Open) -> None:
    looker = look(empty, theme="light")
    looker.make_up(MadeUp())
    page = looker.visit()
    ground = "getComputedStyle(document.documentElement).backgroundColor"
    light = page.evaluate(ground)
    page.get_by_label("Theme").select_option("dark")
    dark = page.evaluate(ground)
    assert light != dark
    page.reload()
    looker.settle()
    assert page.evaluate(ground) == dark
    page.get_by_label("Theme").select_option("system")
    assert page.evaluate(ground) == light


def test_the_token_leaves_the_address_and_stays_in_the_tab(empty: Sidecar, look: Open) -> None:
    looker = look(empty)
    looker.make_up(MadeUp())
    page = looker.visit()
    assert "token" not in page.url
    page.goto(f"{looker.address}/#token=another/models/model-000")
    page.wait_for_url("**/#/models/model-000")
    page.reload()
    page.locator(".headline h1", has_text="model-000").wait_for()
    assert page.evaluate("sessionStorage.length") == 1
    assert page.evaluate("Object.values(localStorage).join()").find("another") < 0
    page.get_by_role("button", name="Forget token").click()
    page.get_by_label("Token").wait_for()
    assert page.evaluate("sessionStorage.length") == 0


def test_a_fragment_that_changes_while_the_page_starts_is_followed(empty: Sidecar, look: Open) -> None:
    looker = look(empty)
    looker.make_up(MadeUp())
    # As soon as the page's script has run, before the browser has drawn anything.
    looker.page.add_init_script(
        "addEventListener('DOMContentLoaded', () => { if (location.hash === '#/') location.hash = '#/models/model-000'; })"
    )
    page = looker.page
    page.goto(f"{looker.address}/#token={looker.token}")
    page.locator(".headline h1", has_text="model-000").wait_for(timeout=5_000)
