"""MLflow models, logged, loaded and served."""

import os
from datetime import UTC, datetime, timedelta

import barograph as bg
import mlflow
import numpy as np
import pandas as pd
import pytest
from barograph.adapters.mlflow import WatchedPythonModel
from barograph.adapters.predictor import WatchedPredictor
from barograph.testing import check_adapter
from mlflow.pyfunc import PythonModel

RNG = np.random.default_rng(0)
FRAME = pd.DataFrame({"a": RNG.normal(size=2000), "b": RNG.normal(size=2000)})
FRAME["prediction"] = FRAME["a"] + FRAME["b"]


class Sum(PythonModel):
    def predict(self, context, model_input, params=None):
        if (model_input["a"] > 1e6).any():
            raise ValueError("no answer")
        return (model_input["a"] + model_input["b"]).to_numpy()


@pytest.fixture
def logged(tmp_path):
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    path = tmp_path / "m.baro"
    bg.Reference(FRAME).save(path)
    model = WatchedPythonModel(Sum(), "sums", ticks="manual", task="regression", window="1d")
    saved = tmp_path / "model"
    mlflow.pyfunc.save_model(saved, python_model=model, artifacts={"reference": str(path)}, input_example=FRAME[["a", "b"]][:5])
    return str(saved)


def seen(monitor):
    start = datetime.now(UTC) - timedelta(days=2)
    return monitor.summary(start, start + timedelta(days=4))


def test_a_logged_model_is_observed_where_it_is_loaded(logged):
    model = mlflow.pyfunc.load_model(logged)
    rows = FRAME[["a", "b"]][:500]
    assert np.allclose(model.predict(rows), FRAME["prediction"][:500])
    monitor = model.unwrap_python_model().monitor
    assert monitor.counts()["events"] == 500
    assert monitor.counts()["failures"] == 0
    assert seen(monitor).report.to_frame().filter(column="prediction")["n_current"].max() == 500
    with pytest.raises(ValueError, match="no answer"):
        model.predict(pd.DataFrame({"a": [1e7], "b": [0.0]}))
    assert seen(monitor).errors == 1


def test_it_is_observed_behind_the_scoring_server(logged):
    from mlflow.pyfunc.scoring_server import init
    from starlette.testclient import TestClient

    model = mlflow.pyfunc.load_model(logged)
    client = TestClient(init(model))
    answer = client.post("/invocations", json={"dataframe_split": FRAME[["a", "b"]][:40].to_dict(orient="split")})
    assert np.allclose(answer.json()["predictions"], FRAME["prediction"][:40])
    assert model.unwrap_python_model().monitor.counts()["events"] == 40


def test_a_forked_worker_has_a_monitor_of_its_own(logged):
    model = mlflow.pyfunc.load_model(logged)
    model.predict(FRAME[["a", "b"]][:10])
    mine = model.unwrap_python_model().monitor
    worker = os.fork()
    if worker == 0:
        model.predict(FRAME[["a", "b"]][:30])
        own = model.unwrap_python_model().monitor
        os._exit(0 if own is not mine and own.counts()["events"] == 30 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1]) == 0
    assert mine.counts()["events"] == 10


def test_a_loaded_model_keeps_the_laws_of_adapters(tmp_path):
    class Asked(PythonModel):
        def predict(self, context, model_input, params=None):
            return answers["model"](float(model_input["x"].iloc[0]))

    answers = {}

    def serve(monitor, model):
        answers["model"] = model
        watched = WatchedPythonModel(Asked(), "m")
        watched._monitor, watched._process = monitor, os.getpid()
        return lambda x: watched.predict(None, pd.DataFrame({"x": [x]}))

    check_adapter(serve)


def test_a_loaded_model_is_a_predictor_too(logged):
    monitor = bg.Monitor("m", reference=bg.Reference(FRAME), ticks="manual")
    model = WatchedPredictor(mlflow.pyfunc.load_model(logged), monitor)
    model.predict(FRAME[["a", "b"]][:50])
    assert monitor.counts()["events"] == 50
