"""Frameworks on one side, a monitor on the other: one module per framework, imported by name.

| module | watches |
|---|---|
| `barograph.adapters.predictor` | any object with `predict`, `predict_proba` or `__call__`; scikit-learn estimators and pipelines |
| `barograph.adapters.asgi` | ASGI applications: FastAPI, Starlette, Litestar |
| `barograph.adapters.wsgi` | WSGI applications: Flask, Django |
| `barograph.adapters.prometheus` | nothing: shows a monitor to Prometheus |
| `barograph.adapters.opentelemetry` | nothing: shows a monitor as OpenTelemetry metrics |
| `barograph.adapters.logs` | nothing: logs alerts |
"""
