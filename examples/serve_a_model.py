"""A web service around a scikit-learn model, watched: one line for the model, one for the application, one for Prometheus.

Needs starlette, scikit-learn and prometheus-client; served here by Starlette's own test client, in production by any ASGI server.
"""

import barograph as bg
import numpy as np
from barograph.adapters.asgi import WatchedAsgi
from barograph.adapters.predictor import WatchedPredictor
from barograph.adapters.prometheus import exposition
from sklearn.linear_model import LogisticRegression
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient

rng = np.random.default_rng(2)
x = rng.normal(size=(5000, 2))
model = LogisticRegression().fit(x, x[:, 0] + rng.normal(size=5000) > 0)
reference = bg.Reference({"amount": x[:, 0], "age": x[:, 1]})

inputs = bg.Monitor("credit", reference=reference, ticks="manual", rules=[{"slo": "errors", "objective": 0.999}])
model = WatchedPredictor(model, inputs)


async def predict(request: Request) -> JSONResponse:
    """One score per call."""
    row = await request.json()
    return JSONResponse({"score": float(model.predict_proba(np.array([[row["amount"], row["age"]]]))[0, 1])})


async def metrics(_: Request) -> Response:
    """What Prometheus scrapes."""
    return Response(exposition(inputs), media_type="text/plain")


app = Starlette(routes=[Route("/predict", predict, methods=["POST"]), Route("/metrics", metrics)])
app.add_middleware(WatchedAsgi, monitor=inputs, paths=("/predict",))

client = TestClient(app)
for amount, age in rng.normal(size=(200, 2)):
    client.post("/predict", json={"amount": amount, "age": age})
print(client.get("/metrics").text.splitlines()[2])
print(inputs.counts())
