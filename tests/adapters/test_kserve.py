"""KServe models behind KServe's own server application."""

import asyncio
from datetime import UTC, datetime, timedelta

import barograph as bg
import kserve
import numpy as np
import pytest
from barograph.adapters.kserve import watch
from barograph.testing import check_adapter

RNG = np.random.default_rng(0)
A, B = RNG.normal(size=2000), RNG.normal(size=2000)
REFERENCE = bg.Reference({"a": A, "b": B, "prediction": A + B})


class Plain(kserve.Model):
    def __init__(self):
        super().__init__("sums")
        self.load()

    def predict(self, payload, headers=None, response_headers=None):
        if isinstance(payload, kserve.InferRequest):
            rows = np.column_stack([tensor.as_numpy().reshape(-1) for tensor in payload.inputs])
            output = kserve.InferOutput("sum", [len(rows)], "FP64", data=rows.sum(axis=1).tolist())
            return kserve.InferResponse(payload.id, self.name, [output])
        rows = payload["instances"]
        rows = [list(row.values()) if isinstance(row, dict) else row for row in rows]
        if any(len(row) != 2 for row in rows):
            raise kserve.errors.InvalidInput("two numbers")
        return {"predictions": [sum(row) for row in rows]}


class Async(Plain):
    async def predict(self, payload, headers=None, response_headers=None):
        return Plain.predict(self, payload, headers)


def made():
    return bg.Monitor("m", reference=REFERENCE, ticks="manual", task="regression")


def seen(monitor):
    start = datetime.now(UTC) - timedelta(days=2)
    return monitor.summary(start, start + timedelta(days=4))


@pytest.mark.parametrize("kind", [Plain, Async])
def test_models_are_observed_over_both_protocols(kind):
    from fastapi import FastAPI
    from fastapi.testclient import TestClient
    from kserve.model_repository import ModelRepository
    from kserve.protocol.dataplane import DataPlane
    from kserve.protocol.model_repository_extension import ModelRepositoryExtension
    from kserve.protocol.rest.server import RESTServer

    monitor = made()
    repository = ModelRepository()
    repository.update(watch(kind(), monitor))
    server = RESTServer("", DataPlane(repository), ModelRepositoryExtension(repository), 0)
    app = FastAPI()
    server._register_endpoints(app)
    server._add_exception_handlers(app)
    with TestClient(app) as client:
        lists = client.post("/v1/models/sums:predict", json={"instances": [[1, 2], [3, 4]]}, headers={"x-request-id": "r1"})
        assert lists.json() == {"predictions": [3, 7]}
        mappings = client.post("/v1/models/sums:predict", json={"instances": [{"a": 1, "b": 2}]}, headers={"x-request-id": "r2"})
        assert mappings.json() == {"predictions": [3]}
        inputs = [{"name": name, "shape": [3], "datatype": "FP64", "data": [1.0, 2.0, 3.0]} for name in ("a", "b")]
        tensors = client.post("/v2/models/sums/infer", json={"id": "r3", "inputs": inputs})
        assert tensors.json()["outputs"][0]["data"] == [2.0, 4.0, 6.0]
        assert client.post("/v1/models/sums:predict", json={"instances": [[1]]}).status_code == 400
    monitor.label({"id": ["r1-0", "r1-1", "r2", "r3-2"], "y": [3.0, 8.0, 3.0, 6.0]}, id="id", label="y")
    summary = seen(monitor)
    assert (summary.events, summary.labelled, summary.errors) == (6, 4, 1)
    assert summary.metrics["mae"].value == pytest.approx(0.25)
    assert monitor.counts()["failures"] == 0


def test_the_laws_of_adapters_hold():
    def serve(monitor, model):
        class Asked(kserve.Model):
            def predict(self, payload, headers=None, response_headers=None):
                return {"predictions": [model(row["x"]) for row in payload["instances"]]}

        watched = watch(Asked("m"), monitor)

        def call(x):
            answer, _ = asyncio.run(watched({"instances": [{"x": x}]}))
            return answer["predictions"][0]

        return call

    check_adapter(serve)


def test_what_cannot_be_read_is_counted_and_passes():
    class Odd(kserve.Model):
        def predict(self, payload, headers=None, response_headers=None):
            return payload

    monitor = made()
    watched = watch(Odd("odd"), monitor)
    answer, _ = asyncio.run(watched({"instances": [[1, 2, 3, 4, 5]]}))
    assert answer == {"instances": [[1, 2, 3, 4, 5]]}
    assert monitor.counts()["failures"] == 1
