"""Adapters against the frameworks they are for."""

import copy
import json
import pickle
from datetime import UTC, datetime, timedelta
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import barograph as bg
import flask
import numpy as np
import polars as pl
import pytest
from barograph import adapters
from barograph.adapters.asgi import WatchedAsgi
from barograph.adapters.logs import AlertLog
from barograph.adapters.opentelemetry import metrics_data, push
from barograph.adapters.predictor import WatchedPredictor
from barograph.adapters.prometheus import Collector, exposition
from barograph.adapters.wsgi import WatchedWsgi
from barograph.testing import check_adapter
from prometheus_client.parser import text_string_to_metric_families
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from starlette.applications import Starlette
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route
from starlette.testclient import TestClient

X = np.random.default_rng(0).normal(size=(2000, 2))
Y = (X[:, 0] + 0.5 * X[:, 1] > 0).astype(int)
FRAME = pl.DataFrame({"a": X[:, 0], "b": X[:, 1], "score": np.random.default_rng(1).random(2000)})
REFERENCE = bg.Reference(FRAME, schema=bg.Schema.infer(FRAME).with_roles(score="score"))


def made():
    return bg.Monitor("m", reference=REFERENCE, ticks="manual")


def now_and_here(monitor):
    """The summary of today and tomorrow: events without a time take the clock's."""
    start = datetime.now(UTC) - timedelta(hours=2)
    return monitor.summary(start, start + timedelta(hours=4))


def test_a_predictor_stays_itself_and_is_observed():
    plain = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, Y)
    model = WatchedPredictor(plain, made())
    assert np.array_equal(model.predict(X), plain.predict(X))
    assert np.array_equal(model.predict_proba(X[:100]), plain.predict_proba(X[:100]))
    assert (model.classes_ == [0, 1]).all()
    assert model.monitor.counts()["events"] == 2100
    assert model.monitor.counts()["failures"] == 0
    summary = now_and_here(model.monitor)
    assert summary.events == 2100
    assert summary.latency_p50 > 0
    with pytest.raises(ValueError, match="features"):
        model.predict(X[:, :1])
    assert now_and_here(model.monitor).errors == 1


def test_a_predictor_survives_scikit_learns_habits():
    model = WatchedPredictor(LogisticRegression(C=3.0), made())
    twin = clone(model)
    assert twin.model is not model.model
    assert twin.monitor is model.monitor
    assert twin.get_params()["model__C"] == 3.0
    twin.set_params(model__C=0.5).fit(X, Y)
    assert twin.model.C == 0.5
    assert cross_val_score(model, X, Y, scoring="accuracy").mean() > 0.9
    again = pickle.loads(pickle.dumps(twin))
    assert np.array_equal(again.predict(X), twin.model.predict(X))
    assert again.monitor is not twin.monitor
    assert copy.deepcopy(twin).monitor is twin.monitor
    with pytest.raises(bg.errors.InvalidArgumentError, match="modle"):
        twin.set_params(modle=1)
    with pytest.raises(bg.errors.InvalidArgumentError, match="predict"):
        WatchedPredictor(3, made())
    with pytest.raises(AttributeError):
        _ = twin.nothing


def test_a_plain_callable_is_observed():
    model = WatchedPredictor(lambda row: row["a"] * 2, made())
    assert model({"a": 1.5, "b": 0.0}) == 3.0
    assert model.monitor.counts()["events"] == 1


def starlette(monitor, **options):
    async def predict(request):
        row = await request.json()
        return JSONResponse({"score": min(1.0, abs(row["a"]))})

    async def stream(request):
        async def parts():
            for _ in range(50):
                yield b"x" * 100

        return StreamingResponse(parts())

    async def broken(request):
        raise RuntimeError("model fell over")

    routes = [Route("/predict", predict, methods=["POST"]), Route("/stream", stream), Route("/broken", broken), Route("/healthz", stream)]
    app = Starlette(routes=routes)
    app.add_middleware(WatchedAsgi, monitor=monitor, **options)
    return TestClient(app, raise_server_exceptions=False)


def features(scope, body, status, answer):
    return json.loads(body) | {"_score": json.loads(answer)["score"]} if scope["path"] == "/predict" else None


def test_an_asgi_application_is_observed_with_its_features():
    monitor = made()
    client = starlette(monitor, events=features, paths=("/predict", "/stream", "/broken"))
    for i in range(20):
        assert client.post("/predict", json={"a": i / 20, "b": 1.0}).json() == {"score": i / 20}
    assert client.get("/stream").content == b"x" * 5000
    assert client.get("/broken").status_code == 500
    assert client.get("/healthz").status_code == 200
    summary = now_and_here(monitor)
    assert (summary.events, summary.errors) == (20, 1)
    assert monitor.counts()["failures"] == 0
    profile = summary.report.to_frame().filter(column="score", method="psi")
    assert profile.height == 1


def test_what_fails_in_the_asgi_adapter_never_reaches_the_request():
    monitor = made()
    client = starlette(monitor, events=lambda *_: 1 / 0)
    assert client.post("/predict", json={"a": 0.5, "b": 0.0}).json() == {"score": 0.5}
    assert monitor.counts()["failures"] == 1
    # Half a body is no event, and a long one is not kept.
    assert client.post("/predict", content=b"not json").status_code == 500
    assert client.post("/predict", json={"a": 0.1, "pad": "x" * (2 << 20)}).status_code == 200
    assert now_and_here(monitor).errors == 1


def test_a_wsgi_application_is_observed_and_keeps_to_the_protocol():
    monitor = made()
    app = flask.Flask("app")

    @app.get("/ok")
    def ok():
        return flask.Response((b"part" for _ in range(3)), mimetype="text/plain")

    @app.get("/broken")
    def broken():
        raise RuntimeError("model fell over")

    app.wsgi_app = WatchedWsgi(app.wsgi_app, monitor, paths=("/ok", "/broken"))
    client = app.test_client()
    assert client.get("/ok").data == b"partpartpart"
    # Servers close what they have sent; the test client does so if it buffers.
    assert client.get("/broken", buffered=True).status_code == 500
    assert client.get("/other").status_code == 404
    assert now_and_here(monitor).errors == 1

    def plain(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"whole"]

    environ = {"QUERY_STRING": ""}
    setup_testing_defaults(environ)
    answer = validator(WatchedWsgi(validator(plain), monitor))(environ, lambda *_: lambda data: None)
    assert b"".join(answer) == b"whole"
    answer.close()

    def raises(environ, start_response):
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        WatchedWsgi(raises, monitor)(environ, print)
    assert now_and_here(monitor).errors == 2


def test_prometheus_reads_what_a_monitor_shows():
    start = datetime(2026, 1, 5, tzinfo=UTC)
    monitor = bg.Monitor("fraud", reference=REFERENCE, ticks="manual", rules=[{"metric": "latency_p99", "above": 0.2}])
    assert b'barograph_events_total{model="fraud"} 0.0' in exposition(monitor)
    shifted = FRAME.with_columns(pl.col("a") + 2, at=pl.lit(start), seconds=pl.lit(0.5))
    monitor.observe_frame(shifted, time="at", latency_seconds="seconds")
    monitor.tick(start + timedelta(hours=1))
    found = {}
    for family in text_string_to_metric_families(exposition(monitor).decode()):
        for sample in family.samples:
            found[sample.name, *sorted(sample.labels.items())] = sample.value
    model = ("model", "fraud")
    assert found["barograph_events_total", model] == 2000
    assert found["barograph_verdict", ("column", "a"), model] == 3
    assert found["barograph_verdict", ("column", "b"), model] == 0
    assert found["barograph_drift", ("column", "a"), ("method", "psi"), model] > 1
    assert found["barograph_latency_seconds", model, ("percentile", "99")] == pytest.approx(0.5, rel=0.01)
    assert found["barograph_alerts_open", ("alert", "latency_p99"), model, ("severity", "page")] == 1
    assert found["barograph_alerts_total", model, ("severity", "page")] >= 1
    assert found["barograph_window_end_timestamp_seconds", model] == (start + timedelta(hours=1)).timestamp()
    assert len(list(Collector(monitor).collect())) == 10


def alarmed(**options):
    start = datetime(2026, 1, 5, tzinfo=UTC)
    monitor = bg.Monitor("fraud", reference=REFERENCE, ticks="manual", rules=[{"metric": "latency_p99", "above": 0.2}], **options)
    for hour, shift in enumerate([2.0, 2.0, 0.0, 0.0]):
        seconds = np.random.default_rng(hour).lognormal(0, 1, 2000) if shift else np.full(2000, 0.01)
        rows = FRAME.with_columns(pl.col("a") + shift, at=pl.lit(start + timedelta(hours=hour)), seconds=seconds)
        monitor.observe_frame(rows, time="at", latency_seconds="seconds")
        monitor.tick(start + timedelta(hours=hour + 1))
    return monitor, start


def test_alerts_are_told_once_and_logged(caplog):
    told = []
    monitor, _ = alarmed(on_alert=told.append)
    monitor.tick(datetime(2026, 1, 6, tzinfo=UTC))
    assert [(one["column"], one["state"]) for one in told] == [(a, s) for a, s in monitor.alerts().select("column", "state").rows()]
    assert {one["model"] for one in told} == {"fraud"}
    assert {"opened", "resolved"} == {one["state"] for one in told}
    # A restored monitor tells what is new, not what was told.
    again = []
    bg.Monitor.restore(monitor.snapshot(), on_alert=again.append).tick(datetime(2026, 1, 7, tzinfo=UTC))
    assert again == []

    log = AlertLog()
    with caplog.at_level("INFO", logger="barograph.alerts"):
        for one in told:
            log(one | {"reason": f"first\nsecond {one['reason']}"})
        AlertLog("barograph.alerts", lines=True)(told[0])
    assert {record.levelname for record in caplog.records} == {"ERROR", "WARNING", "INFO"}
    assert all("\n" not in record.getMessage() for record in caplog.records)
    assert caplog.records[0].barograph["model"] == "fraud"
    assert json.loads(caplog.records[-1].getMessage()) == told[0]

    failing, _ = alarmed(on_alert=lambda alert: 1 / 0)
    assert failing.counts()["failures"] == len(told)


def test_opentelemetry_encodes_what_a_monitor_shows():
    from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
    from opentelemetry.sdk.metrics.export import MetricExporter, MetricExportResult

    assert metrics_data(made()) is None
    start = datetime(2026, 1, 5, tzinfo=UTC)
    monitor = bg.Monitor("fraud", reference=REFERENCE, ticks="manual")
    seconds = np.random.default_rng(0).lognormal(0, 1, 2000)
    monitor.observe_frame(FRAME.with_columns(pl.col("a") + 2, at=pl.lit(start), seconds=seconds), time="at", latency_seconds="seconds")
    monitor.tick(start + timedelta(hours=1))
    request = encode_metrics(metrics_data(monitor))
    metrics = {metric.name: metric for metric in request.resource_metrics[0].scope_metrics[0].metrics}
    point = metrics["barograph.latency"].exponential_histogram.data_points[0]
    assert (point.count, sum(point.positive.bucket_counts), point.scale) == (2000, 2000, 6)
    assert point.sum == pytest.approx(seconds.sum(), rel=0.006)
    base = 2 ** (2**-point.scale)
    cell = point.positive.offset + int(np.argmax(np.cumsum(point.positive.bucket_counts) >= 1000))
    assert base**cell <= np.sort(seconds)[999] <= base ** (cell + 1) * (1 + 1e-12)
    verdicts = {p.attributes[1].value.string_value: p.as_int for p in metrics["barograph.verdict"].gauge.data_points}
    assert (verdicts["a"], verdicts["b"]) == (3, 0)

    class Kept(MetricExporter):
        def export(self, data, timeout_millis=10_000, **_):
            self.data = data
            return MetricExportResult.SUCCESS

        def force_flush(self, timeout_millis=10_000):
            return True

        def shutdown(self, timeout_millis=30_000, **_):
            return None

    exporter = Kept()
    assert push(monitor, exporter) is MetricExportResult.SUCCESS
    assert exporter.data.resource_metrics[0].resource.attributes["service.name"] == "fraud"


def by_predictor(monitor, model):
    class Plain:
        def predict(self, rows):
            return model(rows["x"])

    watched = WatchedPredictor(Plain(), monitor)
    return lambda x: watched.predict({"x": x})


def by_asgi(monitor, model):
    async def endpoint(request):
        return JSONResponse(model((await request.json())["x"]))

    def events(scope, body, status, answer):
        return {**json.loads(body), "_prediction": json.loads(answer)}

    client = TestClient(WatchedAsgi(Starlette(routes=[Route("/", endpoint, methods=["POST"])]), monitor, events=events))
    return lambda x: client.post("/", json={"x": x}).json()


def by_wsgi(monitor, model):
    app = flask.Flask("m")
    app.config["PROPAGATE_EXCEPTIONS"] = True
    app.add_url_rule("/", view_func=lambda: str(model(float(flask.request.args["x"]))))
    app.wsgi_app = WatchedWsgi(app.wsgi_app, monitor)
    return lambda x: float(app.test_client().get(f"/?x={x}").data)


@pytest.mark.parametrize(("serve", "observes"), [(by_predictor, True), (by_asgi, True), (by_wsgi, False)])
def test_adapters_keep_their_laws(serve, observes):
    check_adapter(serve, observes=observes)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda call: lambda x: call(x) + 1, "did not pass unchanged"),
        (lambda call: lambda x: 0.0 if x < 0 else call(x), "did not reach the caller"),
        (lambda call: lambda x: (call(x), call(x))[0] if x >= 0 else call(x), "each is counted once"),
        (lambda call: lambda x: 2.0 * x if x > 5 else call(x), "each is counted once"),
    ],
)
def test_an_adapter_that_breaks_a_law_is_told_which(spoil, message):
    with pytest.raises(AssertionError, match=message):
        check_adapter(lambda monitor, model: spoil(by_predictor(monitor, model)))


def test_adapters_of_other_packages_are_found_by_entry_point(tmp_path, monkeypatch):
    package = tmp_path / "elsewhere-1.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: elsewhere\nVersion: 1\n")
    (package / "entry_points.txt").write_text("[barograph.adapters]\nelsewhere = elsewhere:Watched\n")
    (tmp_path / "elsewhere.py").write_text("class Watched:\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert "elsewhere" in adapters.names()
    assert adapters.load("elsewhere").__module__ == "elsewhere"
    assert adapters.load("asgi") is WatchedAsgi
    with pytest.raises(bg.errors.NotFoundError, match=r"(?s)no adapter 'nothing'.*asgi"):
        adapters.load("nothing")
