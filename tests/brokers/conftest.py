"""One broker of each kind for all tests, and consumers and sidecars of each test's own."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "e2e")]

from servers import BROKERS, Server


@pytest.fixture(scope="module", params=BROKERS, ids=lambda kind: kind.name)
def broker(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A real broker that runs."""
    missing = request.param.missing()
    if missing:
        pytest.skip(f"needs {missing}")
    server: Server = request.param(tmp_path_factory.mktemp(request.param.name))
    try:
        server.start()
        yield server
    finally:
        server.close()
