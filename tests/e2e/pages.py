"""Blocks of a page of the docs, to be run."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any


def blocks(page: Path, language: str = "python") -> list[str]:
    """The fenced blocks of a language, in their order."""
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.S)


def run(page: Path, names: dict[str, Any], change: Callable[[str], str] = lambda block: block) -> dict[str, Any]:
    """Runs a page's blocks one after another; names go on from one to the next."""
    for block in blocks(page):
        if "reference.parquet" not in block:
            exec(compile(change(block), str(page), "exec"), names)
    return names
