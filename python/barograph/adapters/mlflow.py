"""MLflow models, watched where they are served: `mlflow models serve`, `mlflow.pyfunc.load_model`, Spark."""

from __future__ import annotations

import os
from typing import Any

from mlflow.pyfunc import PythonModel

from barograph.monitors import Monitor
from barograph.references import Reference

__all__ = ["WatchedPythonModel"]


class WatchedPythonModel(PythonModel):  # type: ignore[misc]  # mlflow's class has no types here
    """A `PythonModel` whose predictions are observed by a monitor of its own in every process that serves it.

    model: the `PythonModel` that predicts. name: of the monitor. arguments: those of `Monitor`, except the reference, which is the
    artifact `reference` (a file that `Reference.save` wrote). The monitor is made with the first prediction of a process, so that
    servers may fork. A model that is loaded by hand can also be watched by `barograph.adapters.predictor`.

    `mlflow.pyfunc.log_model(name="m", python_model=WatchedPythonModel(model, "fraud"), artifacts={"reference": "fraud.baro"})`
    """

    def __init__(self, model: PythonModel, name: str, **arguments: Any) -> None:
        self.model = model
        self.name = name
        self.arguments = arguments
        self._monitor: Monitor | None = None
        self._process: int | None = None
        self._reference: Reference | None = None

    def load_context(self, context: Any) -> None:
        """Loads the model and the reference."""
        self.model.load_context(context)
        self._reference = Reference.load(context.artifacts["reference"])

    # Without types: MLflow reads them as the model's signature.
    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
        """Predicts, observed. A monitor that cannot be made is an error with the first prediction, not a silence."""
        return self.monitor.watch(self.model.predict)(context, model_input, params)

    @property
    def monitor(self) -> Monitor:
        """The monitor of this process."""
        if self._monitor is None or self._process != os.getpid():
            if self._reference is None:
                raise RuntimeError("the model has no reference yet: it is loaded from the artifact `reference`")
            self._monitor = Monitor(self.name, reference=self._reference, **self.arguments)
            self._process = os.getpid()
        return self._monitor

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_monitor": None, "_process": None, "_reference": None}
