"""The live view of notebooks in a real browser: Debian's Chromium, where it is found."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import barograph as bg
import numpy as np
import polars as pl
import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PACKAGE = Path(bg.__file__).parent
HOSTILE = "<img src=x onerror=alert(1)>"
# A model as anywidget hands it over; what the view sends is counted in the title.
HARNESS = """<!doctype html><meta charset="utf-8"><style>STYLE</style><body><div id="place"></div><script type="module">
SCRIPT
const state = CONTENT;
let asked = 0;
const heard = {};
const model = {
  get: (name) => state[name],
  send: () => { asked += 1; document.title = `asked ${asked}`; },
  on: (name, call) => { heard[name] = call; },
  off: (name) => { delete heard[name]; },
};
const end = render({ model, el: document.querySelector("#place") });
ACTIONS
</script>"""

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")


def page(view, actions=""):
    script = (PACKAGE / "widget.js").read_text(encoding="utf-8").replace("export default { render };", "")
    content = json.dumps({"content": view.content, "interval": view.interval}).replace("<", "\\u003c")
    out = HARNESS.replace("STYLE", (PACKAGE / "widget.css").read_text(encoding="utf-8")).replace("SCRIPT", script)
    return out.replace("CONTENT", content).replace("ACTIONS", actions)


def rendered(tmp_path, view, actions=""):
    """The document after its script has run for two seconds of the browser's own time."""
    path = tmp_path / "page.html"
    path.write_text(page(view, actions), encoding="utf-8")
    quiet = ["--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update"]
    command = [CHROMIUM, "--headless", "--no-sandbox", *quiet, "--disable-sync", f"--user-data-dir={tmp_path / 'profile'}"]
    command += ["--virtual-time-budget=2000", "--dump-dom", path.as_uri()]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=60, check=True)
    dom = re.sub(r"<script[\s\S]*?</script>|<style[\s\S]*?</style>", "", done.stdout)
    return dom, re.sub(r"<[^>]*>", "", dom)


@pytest.fixture(scope="module")
def report():
    draw = np.random.default_rng(0)
    names = draw.choice(["<b>a</b>", "b"], 4000)
    reference = bg.Reference(pl.DataFrame({HOSTILE: draw.normal(size=4000), "steady": draw.normal(size=4000), "names": names}))
    return bg.compare(reference, {HOSTILE: draw.normal(1, 1, 4000), "steady": draw.normal(size=4000), "names": names})


def test_a_report_is_searched_opened_and_runs_nothing(report, tmp_path):
    view = bg.widgets.live(report)
    dom, text = rendered(tmp_path, view)
    assert "▲ critical 1 of 3 tested columns drifted" in text
    assert "&lt;img src=x onerror=alert(1)&gt;" in dom
    assert "<img" not in dom
    act = """document.querySelectorAll("td button")[0].click();
    const search = document.querySelector("input"); search.value = "IMG"; search.dispatchEvent(new Event("input"));"""
    dom, text = rendered(tmp_path, view, act)
    assert "steady" not in text
    assert 'aria-expanded="true"' in dom
    assert 'class="now"' in dom
    assert "moved most" in text
    dom, text = rendered(tmp_path, view, act.replace("IMG", "nobody"))
    assert "no column of this name" in text


def test_a_monitor_is_asked_again_until_the_view_closes(tmp_path):
    monitor = bg.Monitor("<i>m</i>", reference=bg.Reference({"x": [1.0, 2.0] * 500}), ticks="manual")
    view = bg.widgets.live(monitor, seconds=0.5)
    dom, text = rendered(tmp_path, view)
    assert "no window has closed yet" in text
    assert "&lt;i&gt;m&lt;/i&gt;" in dom
    asked = re.search(r"<title>asked (\d)</title>", dom)
    assert asked, dom
    assert 2 <= int(asked[1]) <= 4
    dom, _ = rendered(tmp_path, view, "end();")
    assert "<title>asked" not in dom


def test_trouble_is_shown_beside_what_was_last_known(report, tmp_path):
    act = 'state.content = {...state.content, trouble: "ConnectionError: <b>401</b>"}; heard["change:content"]();'
    dom, text = rendered(tmp_path, bg.widgets.live(report), act)
    assert "not up to date: ConnectionError: &lt;b&gt;401" in dom
    assert "1 of 3 tested columns drifted" in text
