"""A real Prometheus that scrapes a monitor over HTTP, native histogram and rules and all."""

import http.server
import json
import shutil
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from datetime import UTC, datetime, timedelta

import barograph as bg
import numpy as np
import pytest
from barograph import dashboards
from barograph.adapters.prometheus import PROTOBUF, exposition

pytestmark = pytest.mark.skipif(shutil.which("prometheus") is None, reason="prometheus is not installed")


def free_port():
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as server:
        return server.server_port


@pytest.fixture
def scraped(tmp_path):
    rng = np.random.default_rng(0)
    monitor = bg.Monitor("m", reference=bg.Reference({"a": rng.normal(size=5000)}), ticks="manual")
    hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=1)
    at = [hour.replace(tzinfo=None) + timedelta(seconds=3.6 * i) for i in range(1000)]
    seconds = rng.lognormal(-5, 1, 1000)
    monitor.observe_frame({"a": rng.normal(3, 1, 1000), "at": at, "s": seconds}, time="at", latency_seconds="s")
    monitor.tick(hour + timedelta(hours=1))

    class Metrics(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            native = "protobuf" in self.headers.get("Accept", "")
            body = exposition(monitor, format="protobuf" if native else "text")
            self.send_response(200)
            self.send_header("Content-Type", PROTOBUF if native else "text/plain; version=0.0.4")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    served = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Metrics)
    threading.Thread(target=served.serve_forever, daemon=True).start()
    (tmp_path / "rules.yml").write_text(dashboards.prometheus_rules("m", {"window": "1h", "rules": []}))
    (tmp_path / "prometheus.yml").write_text(
        f"""global: {{scrape_interval: 1s, evaluation_interval: 1s}}
rule_files: ["{tmp_path}/rules.yml"]
scrape_configs:
  - job_name: barograph
    static_configs: [{{targets: ["127.0.0.1:{served.server_port}"]}}]
"""
    )
    port = free_port()
    command = ["prometheus", f"--config.file={tmp_path}/prometheus.yml", f"--storage.tsdb.path={tmp_path}/data"]
    command += [f"--web.listen-address=127.0.0.1:{port}", "--enable-feature=native-histograms", "--log.level=error"]
    process = subprocess.Popen(command)

    def ask(path, **arguments):
        address = f"http://127.0.0.1:{port}/api/v1/{path}?{urllib.parse.urlencode(arguments)}"
        with urllib.request.urlopen(address, timeout=5) as answer:
            return json.load(answer)["data"]

    yield ask, seconds
    process.terminate()
    process.wait(10)
    served.shutdown()


def eventually(ask, seconds=30):
    until = time.monotonic() + seconds
    while True:
        try:
            found = ask()
        except OSError:
            found = None
        if found:
            return found
        assert time.monotonic() < until, "Prometheus did not come to it"
        time.sleep(0.3)


def test_prometheus_reads_the_native_histogram_and_fires_the_rules(scraped):
    ask, seconds = scraped
    found = eventually(lambda: ask("query", query="histogram_quantile(0.99, barograph_call_seconds)")["result"])
    assert float(found[0]["value"][1]) == pytest.approx(np.quantile(seconds, 0.99, method="inverted_cdf"), rel=0.011)
    counted = ask("query", query="histogram_count(barograph_call_seconds)")["result"]
    assert float(counted[0]["value"][1]) == 1000
    fired = eventually(lambda: [alert for alert in ask("alerts")["alerts"] if alert["state"] == "firing"])
    assert {(alert["labels"]["alertname"], alert["labels"]["severity"]) for alert in fired} == {("BarographDriftTicket", "ticket")}
    assert fired[0]["annotations"]["summary"] == "m: drift of a"
