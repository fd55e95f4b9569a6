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
        metafunc.parametrize("broker", kinds, ids=lambda kind: kind.name, indirect=True)


@pytest.fixture(scope="session")
def begun() -> Iterator[dict[str, Any]]:
    """Brokers by name: each is started once, for all tests."""
    found: dict[str, Any] = {}
    yield found
    for server in found.values():
        server.close()


@pytest.fixture
def broker(request: pytest.FixtureRequest, begun: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A real broker that runs."""
    kind = request.param
    missing = kind.missing()
    if missing:
        (pytest.fail if os.environ.get("BAROGRAPH_BROKERS") == "all" else pytest.skip)(f"needs {missing}")
    if kind.name not in begun:
        begun[kind.name] = kind(tmp_path_factory.mktemp(kind.name))
    if not begun[kind.name].running:
        # Not yet, or a test that failed has left it dead.
        begun[kind.name].start()
    return begun[kind.name]
