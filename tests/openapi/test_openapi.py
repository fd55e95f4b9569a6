"""Random requests by the sidecar's own description of itself: every answer is one that it lists, in the form that it lists."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "e2e"))

from sidecars import TOKEN, Sidecar, sidecar

if importlib.util.find_spec("schemathesis") is None:
    pytest.skip("schemathesis comes with the tools of `make lint`; `make test-openapi` installs them", allow_module_level=True)

EXAMPLES = os.environ.get("BAROGRAPH_EXAMPLES", "30")


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Sidecar]:
    with sidecar(tmp_path) as one:
        yield one


def test_nothing_is_found(running: Sidecar, tmp_path: Path) -> None:
    document = tmp_path / "openapi.json"
    document.write_bytes(running.get("/openapi.json").body)
    # Events for the models that it makes up, so that there is something to read.
    for model in ("0", "a"):
        body = "\n".join(json.dumps({"x": at % 17, "c": "ab"[at % 2]}) for at in range(11_000)).encode()
        assert running.request("POST", f"/v1/models/{model}/events", body, "application/x-ndjson").status == 200
    command = [sys.executable, "-m", "schemathesis.cli", "run", str(document), "--url", f"http://127.0.0.1:{running.port}"]
    command += ["-H", f"Authorization: Bearer {TOKEN}", "--max-examples", EXAMPLES, "--seed", "7", "--exclude-path", "/v1/stream"]
    # What a schema lets through may still be no Arrow stream, no snapshot, no rule of this task: being refused with 400 is right then.
    command += ["--exclude-checks", "positive_data_acceptance"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=500, cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-12_000:] + done.stderr[-2000:]
    assert running.get("/readyz").status == 200, running.log()


def test_every_route_is_described_and_no_schema_is_open(running: Sidecar) -> None:
    document = running.get("/openapi.json").json
    for path, item in document["paths"].items():
        asked = path.replace("{model}", "m").replace("{id}", "1")
        allowed = {method.upper() for method in item if method != "parameters"}
        answer = running.request("PATCH", asked)
        assert answer.status == 405, path
        assert set(answer.headers["allow"].split(", ")) == allowed, path
    closed = [schema for schema in document["components"]["schemas"].values() if "properties" in schema]
    assert closed
    assert all(schema["additionalProperties"] is False for schema in closed)
