"""One broker of each kind for all tests; what a test needs besides lies in the modules beside this one."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "e2e")]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    from servers import BROKERS

    if "broker" in metafunc.fixturenames:
        kinds = [kind for kind in BROKERS if kind.name in getattr(metafunc.module, "KINDS", kind.name)]
        metafunc.parametrize("broker", kinds, ids=lambda kind: kind.name, indirect=True, scope="module")


@pytest.fixture(scope="module")
def broker(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A real broker that runs."""
    missing = request.param.missing()
    if missing:
        (pytest.fail if os.environ.get("BAROGRAPH_BROKERS") == "all" else pytest.skip)(f"needs {missing}")
    server = request.param(tmp_path_factory.mktemp(request.param.name))
    try:
        server.start()
        yield server
    finally:
        server.close()
