"""Any object that predicts, watched: scikit-learn estimators and pipelines, or whatever has `predict`, `predict_proba`, `__call__`."""

from __future__ import annotations

from typing import Any

from barograph.errors import InvalidArgumentError
from barograph.monitors import Monitor

__all__ = ["WatchedPredictor"]

_METHODS = ("predict", "predict_proba", "__call__")


class WatchedPredictor:
    """The model itself to whoever uses it, and every prediction observed.

    model: what predicts. monitor: what watches. Inputs are frames, or arrays of rows in the order of the reference's features; the second
    column of `predict_proba` is the score, what `predict` gives fills the reference's column of role prediction (or score). All other
    attributes are the model's. `sklearn.base.clone` gives an unfitted model with the same monitor; a pickle takes the monitor's snapshot
    along. Whatever fails in monitoring is counted in `monitor.counts()["failures"]`.

    >>> import barograph as bg, numpy as np
    >>> from sklearn.linear_model import LogisticRegression
    >>> x = np.random.default_rng(0).normal(size=(500, 2))
    >>> model = LogisticRegression().fit(x, x[:, 0] > 0)
    >>> monitor = bg.Monitor("m", reference=bg.Reference({"a": x[:, 0], "b": x[:, 1]}), ticks="manual")
    >>> model = WatchedPredictor(model, monitor)
    >>> model.predict(x[:100]).shape, monitor.counts()["events"]
    ((100,), 100)
    """

    def __init__(self, model: Any, monitor: Monitor) -> None:
        if not isinstance(monitor, Monitor):
            raise InvalidArgumentError(f"`monitor` must be a Monitor, got {type(monitor).__name__}")
        if not any(callable(getattr(model, name, None)) for name in _METHODS):
            raise InvalidArgumentError(f"`model` must have predict, predict_proba or be callable, got {type(model).__name__}")
        self.model = model
        self.monitor = monitor

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name in ("model", "monitor"):
            # Before `__init__` has run (copy, pickle) there is nothing to ask.
            raise AttributeError(name)
        value = getattr(self.model, name)
        return self.monitor.watch(value) if name in _METHODS else value

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """Calls the model, observed."""
        return self.monitor.watch(self.model)(*arguments, **named)

    def fit(self, *arguments: Any, **named: Any) -> WatchedPredictor:
        """Fits the model, not observed."""
        self.model.fit(*arguments, **named)
        return self

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """For `sklearn.base.clone`: model and monitor, with `deep` the model's own parameters as `model__name`."""
        found: dict[str, Any] = {"model": self.model, "monitor": self.monitor}
        if deep and hasattr(self.model, "get_params"):
            found |= {f"model__{name}": value for name, value in self.model.get_params().items()}
        return found

    def set_params(self, **parameters: Any) -> WatchedPredictor:
        """Sets `model`, `monitor`, or parameters of the model as `model__name`."""
        own = {name.removeprefix("model__"): value for name, value in parameters.items() if name.startswith("model__")}
        for name in ("model", "monitor"):
            if name in parameters:
                setattr(self, name, parameters[name])
        unknown = set(parameters) - {"model", "monitor"} - {f"model__{name}" for name in own}
        if unknown:
            raise InvalidArgumentError(f"unknown parameter {min(unknown)!r}", "model, monitor, or model__name")
        if own:
            self.model.set_params(**own)
        return self

    def __sklearn_tags__(self) -> Any:
        """What scikit-learn asks an estimator about itself."""
        return self.model.__sklearn_tags__()

    def __sklearn_is_fitted__(self) -> bool:
        """Whether the model is fitted."""
        from sklearn.exceptions import NotFittedError
        from sklearn.utils.validation import check_is_fitted

        try:
            check_is_fitted(self.model)
        except NotFittedError:
            return False
        return True

    def __repr__(self) -> str:
        return f"WatchedPredictor({self.model!r}, {self.monitor!r})"
