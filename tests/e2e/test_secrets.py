"""What must not be told is not: neither secrets in logs, answers and files, nor values that privacy rules keep back, on the disk."""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
from sidecars import ARROW, JSON, LINES, TOKEN, Sidecar, arrow, sidecar

RULES = """
privacy_key = "a-key-of-sixteen-or-more"
[privacy.m.columns]
card = "drop"
email = "hash"
age = [18, 30, 65]
city = { names = ["Bonn", "Graz"] }
_id = "hash"
[learn.m]
events = 200
"""


def values(number: int) -> dict[str, object]:
    """An event whose kept-back values are found nowhere else."""
    return {
        "_id": f"customer-{number}-Zz1",
        "amount": float(number % 17),
        "card": f"4711-{number}-Zz2",
        "email": f"someone-{number}-Zz3@example.org",
        "age": 40 + number % 3,
        "city": f"Nowhere-{number}-Zz4",
    }


def traces(folder: Path) -> list[tuple[str, bytes]]:
    found = []
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            content = path.read_bytes()
            found += [(path.name, mark) for mark in (b"Zz1", b"Zz2", b"Zz3", b"Zz4") if mark in content]
    return found


def everything(running: Sidecar, first: int) -> int:
    """Ten events by each protocol; gives how many."""
    frames = [[values(number) for number in range(first + at * 10, first + at * 10 + 10)] for at in range(8)]
    path = "/v1/models/m/events"
    sent = [
        running.request("POST", path, "\n".join(map(json.dumps, frames[0])).encode(), LINES),
        running.request("POST", path, json.dumps(frames[1]).encode(), JSON),
        running.request("POST", path, pl.DataFrame(frames[2]).to_dict(as_series=False)),
        running.request("POST", path, arrow(pl.DataFrame(frames[3])), ARROW),
    ]
    ce = {"ce_specversion": "1.0", "ce_source": "s"}
    plain = [{name: value for name, value in row.items() if name != "_id"} for row in frames[4]]
    for side, document in (("request", {"instances": plain}), ("response", {"predictions": [0.5] * 10})):
        kind = f"org.kubeflow.serving.inference.{side}"
        sent.append(running.request("POST", path, json.dumps(document).encode(), JSON, **ce, ce_id=f"call-{first}-Zz1", ce_type=kind))
    # One that waits for its other half.
    waiting = json.dumps({"instances": plain[:1]}).encode()
    kind = "org.kubeflow.serving.inference.request"
    sent.append(running.request("POST", path, waiting, JSON, **ce, ce_id=f"alone-{first}-Zz1", ce_type=kind))
    columns = {name: [row[name] for row in frames[5]] for name in ("card", "email", "city")}
    inputs = [{"name": name, "shape": [10], "datatype": "BYTES", "data": data} for name, data in columns.items()]
    inputs.append({"name": "amount", "shape": [10], "datatype": "FP64", "data": [row["amount"] for row in frames[5]]})
    outputs = [{"name": "predict", "shape": [10], "datatype": "FP64", "data": [0.5] * 10}]
    both = {"request": {"id": f"call-{first}-Zz1", "inputs": inputs}, "response": {"outputs": outputs}}
    sent.append(running.request("POST", path + "?protocol=open_inference", both))
    data = base64.b64encode(
        json.dumps({"instances": [{name: row[name] for name in row if name != "_id"} for row in frames[6]]}).encode()
    ).decode()
    capture = {"endpointInput": {"observedContentType": JSON, "encoding": "BASE64", "data": data}}
    line = {"captureData": capture, "eventMetadata": {"eventId": f"event-{first}-Zz1"}, "eventVersion": "0"}
    sent.append(running.request("POST", path + "?protocol=sagemaker", json.dumps(line).encode(), LINES))
    for answer in sent:
        assert answer.status == 200, answer
    # Of a row that is refused neither.
    refused = running.request("POST", path, json.dumps(values(first + 70) | {"_time": "soon"}).encode() + b"\n{Zz2", LINES)
    assert refused.status == 422, refused
    return 70


def test_what_privacy_rules_keep_back_reaches_no_file(tmp_path: Path) -> None:
    with sidecar(tmp_path, config=RULES) as running:
        sent = 0
        for turn in range(4):
            # While it learns, after a crash, and while it watches.
            sent += everything(running, turn * 100)
            assert traces(tmp_path) == [], turn
            running.kill()
            running.start()
            assert traces(tmp_path) == [], turn
        assert running.model("m")["events"] == sent
        assert running.model("m")["state"] == "watching"
        assert running.request("POST", "/v1/models/m/save").status == 204
        assert running.get("/metrics").body.count(b"Zz") == 0
        running.stop()
        assert traces(tmp_path) == []
        # And the rules are what does it.
        assert any(b"amount" in path.read_bytes() for path in (tmp_path / "data").rglob("*") if path.is_file())


def test_a_model_whose_rules_cannot_be_kept_takes_nothing(tmp_path: Path) -> None:
    with sidecar(tmp_path, config=RULES) as running:
        assert running.request("POST", "/v1/models/m/events", json.dumps(values(1)).encode(), LINES).status == 200
        running.stop()
        config = tmp_path / "barograph.toml"
        config.write_text("\n".join(config.read_text().splitlines()[2:2]) + "\n")
        running.start(wait=False)
        end = time.monotonic() + 30
        status = 0
        while time.monotonic() < end and status != 503:
            try:
                status = running.request("POST", "/v1/models/m/events", json.dumps(values(2)).encode(), LINES).status
            except OSError:
                time.sleep(0.02)
        assert status == 503
        assert running.get("/readyz").status == 503
        assert traces(tmp_path) == []


SECRETS = {
    "token": "Qx1-token-of-the-app",
    "slack": "http://127.0.0.1:9/services/Qx2-of-slack",
    "hook": "http://user:Qx3-in-the-address@127.0.0.1:9/hook?key=Qx3-in-the-query",
    "signature": "Qx4-secret-of-the-signature",
    "routing": "Qx5-routing-key",
    "mail": "Qx6-password-of-mail",
    "header": "Qx7-header-of-a-hook",
    "push": "Qx8-header-of-otlp",
    "privacy": "Qx9-key-of-privacy",
}
CONFIG = """
privacy_key = "{privacy}"
[[tokens]]
name = "app"
token = "{token}"
scopes = ["ingest"]
[[sinks]]
kind = "slack"
url = "{slack}"
[[sinks]]
kind = "webhook"
url = "http://127.0.0.1:9/hook?key=Qx3-in-the-query"
secret = "{signature}"
headers = {{ x-key = "{header}" }}
[[sinks]]
kind = "pagerduty"
routing_key = "{routing}"
url = "http://127.0.0.1:9/"
[[sinks]]
kind = "email"
host = "127.0.0.1"
port = 9
from = "a@example.org"
to = ["b@example.org"]
username = "someone"
password = "{mail}"
[otlp]
endpoint = "http://127.0.0.1:9"
interval = "1s"
headers = {{ authorization = "{push}" }}
[models.m]
window = "1m"
[learn.m]
events = 1000
"""


def test_no_secret_is_told(tmp_path: Path) -> None:
    found = re.compile(rb"Qx\d|" + TOKEN.encode())
    text = CONFIG.format(**SECRETS)
    with sidecar(tmp_path, config=text) as running:
        minute = 60_000_000_000
        start = time.time_ns() // minute * minute - 20 * minute
        rows = pl.DataFrame({"x": [float(at % 13) for at in range(1000)]})
        assert running.events("m", rows).status == 200
        for at in range(15):
            times = pl.Series([start + at * minute + 1] * 600).cast(pl.Datetime("ns", "UTC"))
            assert running.events("m", rows.head(600).with_columns(pl.col("x") + 50 * (at > 5), _time=times)).status == 200
        end = time.monotonic() + 60
        while time.monotonic() < end and running.log().count("is tried again") < 3:
            time.sleep(0.05)
        assert running.log().count("is tried again") >= 3, running.log()
        assert running.get("/v1/models", Authorization="Bearer Qx1-wrong").status == 401
        assert running.get("/v1/models", Authorization=f"Bearer {SECRETS['token']}").status == 403
        # A configuration that is wrong just there.
        path = tmp_path / "barograph.toml"
        path.write_text(text.replace('scopes = ["ingest"]', 'scopes = ["Qx1-no-scope-but-shown"]').replace("Qx1-no-scope-but-shown", "all"))
        assert running.process is not None
        running.process.send_signal(signal.SIGHUP)
        while time.monotonic() < end and "stays as it was" not in running.log():
            time.sleep(0.05)
        for asked in ("/metrics", "/v1/models", "/v1/audit", "/readyz", "/v1/models/m", "/v1/models/m/policy", "/v1/models/m/alerts"):
            answer = running.get(asked)
            assert not found.search(answer.body), asked
            assert not found.search(repr(answer.headers).encode()), asked
        command_line = Path(f"/proc/{running.process.pid}/cmdline")
        if command_line.exists():
            assert not found.search(command_line.read_bytes())
        running.stop()
        assert not found.search(running.log().encode()), running.log()
        for file in (tmp_path / "data").rglob("*"):
            assert not file.is_file() or not found.search(file.read_bytes()), file


def test_a_test_alert_says_who_took_it_and_no_secret(tmp_path: Path) -> None:
    path = tmp_path / "barograph.toml"
    path.write_text(CONFIG.format(**SECRETS) + '[[sinks]]\nkind = "log"\n')
    command = [sys.executable, "-m", "barograph", "serve", "--config", str(path), "--data", str(tmp_path / "data"), "--test-alert"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env={**os.environ, "BAROGRAPH_TOKEN": TOKEN})
    assert done.returncode == 2, done
    assert "sink log took a test alert" in done.stderr
    for sink in ("slack", "webhook", "pagerduty", "email"):
        assert re.search(rf"\b{sink} \(", done.stderr), (sink, done.stderr)
    assert "Qx" not in done.stdout + done.stderr, done.stderr


def test_secrets_of_a_wrong_configuration_are_not_shown(tmp_path: Path) -> None:
    path = tmp_path / "barograph.toml"
    wrong = ['token = ["Qx1"]', 'token = { file = "Qx1-is-a-name" }', 'token = ""', 'token = "Qx1"\nmore = 1']
    for line in wrong:
        path.write_text(f'[[tokens]]\nname = "app"\nscopes = ["read"]\n{line}\n')
        command = [sys.executable, "-m", "barograph", "serve", "--config", str(path), "--data", str(tmp_path / "data")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 2, (line, done)
        assert "Qx1" not in (done.stdout + done.stderr).replace("Qx1-is-a-name", ""), (line, done.stderr)
