"""Frameworks on one side, a monitor on the other: one module per framework, imported by name.

| module | watches |
|---|---|
| `barograph.adapters.predictor` | any object with `predict`, `predict_proba` or `__call__`; scikit-learn estimators and pipelines |
| `barograph.adapters.asgi` | ASGI applications: FastAPI, Starlette, Litestar |
| `barograph.adapters.wsgi` | WSGI applications: Flask, Django |
| `barograph.adapters.grpc` | gRPC servers, sync and asyncio |
| `barograph.adapters.mlflow` | MLflow models where they are served |
| `barograph.adapters.kserve` | KServe models |
| `barograph.adapters.prometheus` | nothing: shows a monitor to Prometheus |
| `barograph.adapters.opentelemetry` | nothing: shows a monitor as OpenTelemetry metrics |
| `barograph.adapters.logs` | nothing: logs alerts |

`load(name)` gives these and what other packages register in the entry-point group `barograph.adapters`; `barograph.testing.check_adapter`
holds an adapter to its laws.
"""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Any

from barograph.errors import NotFoundError

__all__ = ["load", "names"]

GROUP = "barograph.adapters"
"""The group of entry points that packages register adapters in."""


def names() -> list[str]:
    """All adapters that are installed, ours and those of other packages."""
    return sorted({entry.name for entry in entry_points(group=GROUP)})


def load(name: str) -> Any:
    """The adapter of this name: a class or function. Imports its framework.

    Raises NotFoundError for a name that no installed package registers.

    >>> load("wsgi").__name__
    'WatchedWsgi'
    """
    found = next((entry for entry in entry_points(group=GROUP) if entry.name == name), None)
    if found is None:
        raise NotFoundError(f"no adapter {name!r} is installed", f"there are {', '.join(names())}")
    return found.load()
