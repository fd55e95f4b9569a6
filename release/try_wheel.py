"""Tries a wheel as a new user would: `python release/try_wheel.py WHEEL`.

An environment of its own, nothing of the checkout on any path, an empty folder; then what stands on the three start pages, block by
block, as it stands there. Each has to end in its picture, after five minutes at most of a machine of its own: the time of its processors is
held to that, as others may share them. Needs a package index for numpy, polars and Altair.
"""

from __future__ import annotations

import contextlib
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]
MOST_SECONDS, MOST_WAITED = 300, 1200
PICTURES = {
    "notebook": ["report.svg", "column.svg", "report.html"],
    "serving": ["history.svg", "amount.svg"],
    "sidecar": ["drift.svg"],
}


def blocks(page: str) -> list[tuple[str, str]]:
    """Language and text of each block of a start page."""
    return re.findall(r"```(python|sh)\n(.*?)```", (ROOT / "docs/start" / f"{page}.md").read_text(encoding="utf-8"), re.S)


def environment(folder: Path) -> dict[str, str]:
    """Of a user who knows nothing of this checkout."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "BAROGRAPH", "VIRTUAL_ENV"))}
    return {**kept, "PATH": f"{folder / 'env/bin'}:{os.environ['PATH']}", "HOME": str(folder)}


def installed(wheel: Path, folder: Path, page: str) -> None:
    """The page's own `pip install`, with the wheel in the place of the name."""
    venv.create(folder / "env", with_pip=True)
    command = next(text for language, text in blocks(page) if language == "sh" and text.startswith("pip install"))
    extras = re.search(r"barograph(\[[^]]*\])?", command)
    assert extras, command
    pip = [folder / "env/bin/python", "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    cache = {**environment(folder), "PIP_CACHE_DIR": str(Path.home() / ".cache/pip")}
    subprocess.run([*pip, f"{wheel.resolve()}{extras[1] or ''}"], check=True, env=cache)


def script(page: str, port: int) -> str:
    """All blocks of a page as one program of bash. Python between two blocks of sh is one program; names do not reach beyond."""
    out = ["set -euo pipefail", "set -m"]
    python: list[str] = []
    for language, text in blocks(page):
        text = text.replace("7464", str(port))
        if text.startswith("pip install"):
            continue
        if language == "python":
            python.append(text)
            continue
        if "barograph serve" in text:
            text = text.replace("barograph serve", f"barograph serve --listen 127.0.0.1:{port}")
        text = text.replace("barograph top", f"barograph top http://127.0.0.1:{port}")
        if "--fail-on" in text:
            # A gate that fails says so by its exit code.
            text = f"({text.strip()}) || [ $? = 1 ]\n"
        # What Python came before has to have run.
        out += [*_run(python), text]
        python = []
    return "\n".join([*out, *_run(python)]) + "\n"


def _run(python: list[str]) -> list[str]:
    if not python:
        return []
    return ["python - <<'END_OF_BLOCK'", "\n".join(python), "END_OF_BLOCK"]


def tried(wheel: Path, page: str) -> str:
    """Seconds from an empty folder to the picture; raises if there is none."""
    began, spent = time.monotonic(), processors()
    with tempfile.TemporaryDirectory(prefix=f"barograph-{page}-") as name:
        folder = Path(name)
        installed(wheel, folder, page)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        work = folder / "work"
        work.mkdir()
        process = subprocess.Popen(["bash", "-c", script(page, port)], cwd=work, env=environment(folder), start_new_session=True)
        try:
            code = process.wait(MOST_WAITED)
        finally:
            # The sidecar that a page left running, if it failed half-way.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
        assert code == 0, f"{page}: exit code {code}"
        for picture in PICTURES[page]:
            assert (work / picture).stat().st_size > 2000, f"{page}: {picture} is no picture"
        if os.environ.get("BAROGRAPH_PICTURES"):
            shutil.copytree(work, Path(os.environ["BAROGRAPH_PICTURES"]) / page, dirs_exist_ok=True)
    waited, spent = time.monotonic() - began, processors() - spent
    assert spent < MOST_SECONDS, f"{page}: it took {spent:.0f} s of processors"
    return f"{page}: {waited:.0f} s from an empty folder to its picture, {spent:.0f} s of processors"


def processors() -> float:
    """What all that has ended so far took of them."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    wheel = Path(sys.argv[1])
    for page in PICTURES:
        print(tried(wheel, page), flush=True)


if __name__ == "__main__":
    main()
