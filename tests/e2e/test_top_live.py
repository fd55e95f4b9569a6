"""`barograph top` on a sidecar that runs, plain and in a terminal of its own."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from sidecars import TOKEN, sidecar

pty = pytest.importorskip("pty", reason="terminals of Unix")

TOP = [sys.executable, "-m", "barograph", "top"]
ENVIRONMENT = {**os.environ, "BAROGRAPH_TOKEN": TOKEN, "TERM": "xterm-256color", "LC_ALL": "C.UTF-8", "LINES": "30", "COLUMNS": "110"}


def normal(shift: float, rows: int) -> pl.DataFrame:
    return pl.DataFrame({"amount": np.random.default_rng(rows).normal(shift, size=rows)})


def read(terminal: int, until: str, seconds: float = 20) -> str:
    """What was written to a terminal until something stands there, without what steers it."""
    end, seen = time.monotonic() + seconds, ""
    while time.monotonic() < end:
        if select.select([terminal], [], [], 0.1)[0]:
            with contextlib.suppress(OSError):
                seen += os.read(terminal, 65536).decode(errors="replace")
        if until in seen or until in re.sub(r"\x1b(\[[0-9;?]*[a-zA-Z]|\(B)", "", seen):
            return seen
    raise AssertionError(f"{until!r} did not come: {seen!r}")


def test_once_and_as_documents(tmp_path: Path) -> None:
    with sidecar(tmp_path) as running:
        running.request("PUT", "/v1/models/m", {"learn": {"events": 1000}})
        running.events("m", normal(0, 1000))
        running.events("m", normal(1, 500))
        url = f"http://127.0.0.1:{running.port}"
        plain = subprocess.run([*TOP, url, "--once"], env=ENVIRONMENT, capture_output=True, text=True, timeout=30, check=True).stdout
        assert re.search(r"^m +watching +0 +1,500 ", plain, re.M), plain
        assert "\x1b" not in plain
        once = subprocess.run([*TOP, url, "--once", "--json"], env=ENVIRONMENT, capture_output=True, text=True, timeout=30, check=True)
        document = json.loads(once.stdout)
        assert document["server"]["ready"]
        assert [(model["name"], model["events"]) for model in document["models"]] == [("m", 1500)]
    gone = subprocess.run([*TOP, url, "--once"], env=ENVIRONMENT, capture_output=True, text=True, timeout=30, check=False)
    assert gone.returncode == 2
    assert "no answer" in gone.stderr
    assert "Traceback" not in gone.stderr


def test_a_terminal_shows_what_moved_and_is_given_back(tmp_path: Path) -> None:
    with sidecar(tmp_path) as running:
        running.request("PUT", "/v1/models/m", {"learn": {"events": 1000}})
        running.events("m", normal(0, 1000))
        terminal, other = pty.openpty()
        url = f"http://127.0.0.1:{running.port}"
        shown = subprocess.Popen([*TOP, url, "--interval", "0.2"], env=ENVIRONMENT, stdin=other, stdout=other, stderr=other)
        os.close(other)
        try:
            read(terminal, "no open alerts")
            os.write(terminal, b"?")
            read(terminal, "this help")
            os.write(terminal, b"?")
            read(terminal, "watching")
            running.kill()
            read(terminal, "refused")
            os.write(terminal, b"q")
            # The screen from before comes back.
            read(terminal, "\x1b[?1049l")
            assert shown.wait(10) == 0
        finally:
            shown.kill()
            shown.wait()
            os.close(terminal)
