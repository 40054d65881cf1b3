"""scikit-learn classifiers as modules: the same labels and decision values, with gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.functional import linear

from robustperf import check
from robustperf.transfer import image_rows
from robustperf.transfer.svm import SVMModule

_BATCH = 4096  # points that `predict` works on at a time
_ACTIVATIONS = {"identity": nn.Identity, "logistic": nn.Sigmoid, "relu": nn.ReLU, "tanh": nn.Tanh}


def module_from_sklearn(estimator: Any, *, dtype: torch.dtype = torch.float32) -> EstimatorModule | SVMModule:
    """The `torch.nn.Module` of a fitted scikit-learn classifier, exactly: the argmax of its logits [B, C] on images
    [B, ...], flattened, is the label that `predict` gives, `classes_` names them, and `predict` takes tensors and
    arrays.

    - `SVC` and `NuSVC` with a linear, polynomial or RBF kernel: an `SVMModule`.
    - `LinearSVC`, `LogisticRegression` (and `LogisticRegressionCV`), and `OneVsRestClassifier` of these: the logits are
      the decision values, or (0, d) of two classes, whose softmax is `predict_proba` of a `LogisticRegression`
      (one-vs-rest, scikit-learn normalises the sigmoids of the same values).
    - `MLPClassifier`: the values before its softmax; of two classes (0, d).
    - a `Pipeline` that ends in one of these, after `StandardScaler`, `MinMaxScaler`, `MaxAbsScaler`, `RobustScaler` or
      `Normalizer`.
    - `GridSearchCV` and `RandomizedSearchCV`: the module of their `best_estimator_`; `FrozenEstimator`: of what it
      holds.

    Everything is computed in float64, as scikit-learn does for float64 data.

    Args:
        estimator: fitted.
        dtype: of the images that an `SVMModule` takes; the others take float32 and float64 and return what they got.

    Raises TypeError for another estimator, ValueError for one that is not fitted or whose parameters are not finite.

    >>> module = module_from_sklearn(make_pipeline(StandardScaler(), SVC()).fit(X, y))
    """
    from sklearn.base import BaseEstimator
    from sklearn.exceptions import NotFittedError
    from sklearn.utils.validation import check_is_fitted

    if not isinstance(estimator, BaseEstimator):
        got = f"the class {estimator.__name__}" if isinstance(estimator, type) else type(estimator).__name__
        raise TypeError(f"estimator: expected a fitted scikit-learn classifier, got {got}")
    try:
        check_is_fitted(estimator)
    except NotFittedError as error:
        raise ValueError(
            f"estimator: expected a fitted one, got a {type(estimator).__name__} that is not fitted"
        ) from error
    steps, final = _taken_apart(estimator)
    scalings = [_scaling(step) for step in steps]
    if isinstance(final, _svm_classes()):
        machine = SVMModule.from_sklearn(final, dtype=torch.float64 if scalings else dtype)
        return EstimatorModule(machine.classes_, [*scalings, machine]) if scalings else machine
    classes, layers = _layers(final)
    if len(classes) < 2:
        raise ValueError(f"estimator: expected at least two classes, got {list(classes)}")
    return EstimatorModule(classes, [*scalings, *layers])


class EstimatorModule(nn.Module):
    """A classifier of scikit-learn as layers; made by `module_from_sklearn`.

    Attributes:
        classes_: [C], the labels as the estimator was given them, a numpy array.
        layers: from rows [B, D] float64 to logits [B, C].
    """

    layers: torch.nn.Sequential

    def __init__(self, classes: np.ndarray, layers: Sequence[nn.Module]) -> None:
        super().__init__()
        self.classes_ = classes
        self.layers = nn.Sequential(*layers).requires_grad_(False)

    def _apply(self, fn, recurse=True):
        """Moves to another device; the parameters stay float64, whatever `float()` or `half()` say."""
        device = fn(torch.empty(0, dtype=torch.float64, device=_device(self.layers))).device
        self.layers._apply(lambda value: value.to(device), recurse)
        return self

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The logits [B, C] of images [B, ...], of their dtype. An image that is not finite gives NaN.

        Raises TypeError for a wrong dtype, ValueError for a wrong shape or device.
        """
        return self.layers(self._flat(x)).to(x.dtype)

    @torch.no_grad()
    def predict(self, x: torch.Tensor | np.ndarray) -> torch.Tensor | np.ndarray:
        """The labels [B] that the estimator gives, from `classes_`: a tensor for a tensor where labels are numbers,
        else an array. Raises ValueError for images that are not finite too."""
        images = check.images("x", image_rows.as_tensor(x))
        parts = [self.layers(self._flat(part)).argmax(1) for part in images.split(_BATCH)]
        return image_rows.labels_like(x, self.classes_, torch.cat(parts))

    def _flat(self, x: torch.Tensor) -> torch.Tensor:
        check.tensor("x", x, ("B", ...), device=_device(self.layers))
        return x.flatten(1).double()


class _Affine(nn.Module):
    """(x - centre) / scale, or x * scale + centre where that is how the estimator computes it, clipped to bounds."""

    def __init__(self, centre: Any, scale: Any, *, multiply: bool = False, bounds: tuple[float, float] | None = None):
        super().__init__()
        self.multiply, self.bounds = multiply, bounds
        for name, value in (("centre", centre), ("scale", scale)):
            self.register_buffer(name, None if value is None else _numbers(name, value))
        self.features = next((value.numel() for value in (self.centre, self.scale) if value is not None), None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        _check_features(x, self.features)
        if self.multiply:
            x = x * self.scale + self.centre
        else:
            x = x if self.centre is None else x - self.centre
            x = x if self.scale is None else x / self.scale
        return x if self.bounds is None else x.clamp(*self.bounds)


class _Normalised(nn.Module):
    """x / ||x||, rows of norm 0 as they are."""

    def __init__(self, norm: float):
        super().__init__()
        self.norm = norm

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        length = torch.linalg.vector_norm(x, self.norm, dim=1, keepdim=True)
        return x / torch.where(length == 0, 1.0, length)


class _Linear(nn.Module):
    """x W^T + b for W [C, D] and b [C]."""

    def __init__(self, weight: Any, bias: Any):
        super().__init__()
        self.register_buffer("weight", _numbers("coef_", weight))
        self.register_buffer("bias", _numbers("intercept_", bias).expand(len(self.weight)).clone())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        _check_features(x, self.weight.shape[1])
        return linear(x, self.weight, self.bias)


class _TwoClasses(nn.Module):
    """(0, d) for a decision value d: above 0 is the second class."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([torch.zeros_like(x), x], 1)


def _taken_apart(estimator: Any) -> tuple[list[Any], Any]:
    """(transformers, classifier) of an estimator that may hold others."""
    from sklearn.frozen import FrozenEstimator
    from sklearn.model_selection import GridSearchCV, RandomizedSearchCV
    from sklearn.pipeline import Pipeline

    steps = []
    while True:
        if isinstance(estimator, GridSearchCV | RandomizedSearchCV):
            if not hasattr(estimator, "best_estimator_"):
                raise ValueError("estimator: expected a search with refit=True, got one without best_estimator_")
            estimator = estimator.best_estimator_
        elif isinstance(estimator, FrozenEstimator):
            estimator = estimator.estimator
        elif isinstance(estimator, Pipeline):
            steps += [step for _, step in estimator.steps[:-1] if step is not None and step != "passthrough"]
            estimator = estimator.steps[-1][1]
        else:
            return steps, estimator


def _scaling(step: Any) -> nn.Module:
    from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, Normalizer, RobustScaler, StandardScaler

    if isinstance(step, StandardScaler):
        return _Affine(step.mean_ if step.with_mean else None, step.scale_ if step.with_std else None)
    if isinstance(step, RobustScaler):
        return _Affine(step.center_ if step.with_centering else None, step.scale_ if step.with_scaling else None)
    if isinstance(step, MinMaxScaler):
        return _Affine(step.min_, step.scale_, multiply=True, bounds=step.feature_range if step.clip else None)
    if isinstance(step, MaxAbsScaler):
        return _Affine(None, step.scale_, bounds=(-1.0, 1.0) if getattr(step, "clip", False) else None)
    if isinstance(step, Normalizer):
        return _Normalised({"l1": 1.0, "l2": 2.0, "max": float("inf")}[step.norm])
    raise TypeError(
        "estimator: expected a Pipeline of StandardScaler, MinMaxScaler, MaxAbsScaler, RobustScaler or "
        f"Normalizer and a classifier, got one with {type(step).__name__}"
    )


def _layers(estimator: Any) -> tuple[np.ndarray, list[nn.Module]]:
    """(classes, layers from rows to logits)."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.multiclass import OneVsRestClassifier
    from sklearn.neural_network import MLPClassifier
    from sklearn.svm import LinearSVC

    layers: list[nn.Module]
    if isinstance(estimator, LinearSVC | LogisticRegression):
        layers = [_Linear(estimator.coef_, estimator.intercept_)]
    elif (
        isinstance(estimator, OneVsRestClassifier)
        and not estimator.multilabel_
        and all(isinstance(each, LinearSVC | LogisticRegression) for each in estimator.estimators_)
    ):
        layers = [
            _Linear(
                np.concatenate([_dense(each.coef_) for each in estimator.estimators_]),
                np.concatenate([np.broadcast_to(each.intercept_, 1) for each in estimator.estimators_]),
            )
        ]
    elif isinstance(estimator, MLPClassifier) and estimator._label_binarizer.y_type_ != "multilabel-indicator":
        layers = []
        for weight, bias in zip(estimator.coefs_, estimator.intercepts_, strict=True):
            layers += [_Linear(weight.T, bias), _ACTIVATIONS[estimator.activation]()]
        layers.pop()
    else:
        raise TypeError(
            "estimator: expected SVC, NuSVC, LinearSVC, LogisticRegression, MLPClassifier, a Pipeline of "
            "scalers and one of these, or a search for one, which are exact as modules, got "
            f"{type(estimator).__name__}; attacks that need nothing but labels are not available yet"
        )
    final = layers[-1]
    assert isinstance(final, _Linear)
    return estimator.classes_, layers if len(final.weight) > 1 else [*layers, _TwoClasses()]


def _svm_classes() -> tuple[type, ...]:
    from sklearn.svm import SVC, NuSVC

    return SVC, NuSVC


def _dense(value: Any) -> np.ndarray:
    return value.toarray() if hasattr(value, "toarray") else np.asarray(value)


def _numbers(name: str, value: Any) -> torch.Tensor:
    return check.finite(f"estimator.{name}", torch.tensor(_dense(value), dtype=torch.float64))


def _device(layers: nn.Module) -> torch.device:
    return next((value.device for value in layers.buffers()), torch.device("cpu"))


def _check_features(x: torch.Tensor, features: int | None) -> None:
    if features is not None and x.shape[1] != features:
        raise ValueError(f"x: expected images of {features} numbers, got {x.shape[1]}")
