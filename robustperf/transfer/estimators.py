"""scikit-learn classifiers as PyTorch modules: the same labels and decision values, with gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.functional import linear

from robustperf import check
from robustperf.label_only import LabelOnly
from robustperf.transfer import image_rows
from robustperf.transfer.svm import KERNELS, SVMModule

_BATCH = 4096  # points in one forward pass of `predict`
_ACTIVATIONS = {"identity": nn.Identity, "logistic": nn.Sigmoid, "relu": nn.ReLU, "tanh": nn.Tanh}


def module_from_sklearn(estimator: Any, *, dtype: torch.dtype = torch.float32) -> EstimatorModule | SVMModule:
    """A `torch.nn.Module` exactly equal to a fitted scikit-learn classifier: the argmax of its logits [B, C] for images
    [B, ...], which it flattens, is the label that the estimator predicts; `classes_` has the labels; `predict` takes
    tensors and arrays.

    - `SVC` and `NuSVC` with a linear, polynomial or RBF kernel: an `SVMModule`.
    - `LinearSVC`, `LogisticRegression` (and `LogisticRegressionCV`), and `OneVsRestClassifier` of these: the logits are
      the decision values, or (0, d) for two classes, whose softmax is `predict_proba` of a `LogisticRegression`
      (one-vs-rest, scikit-learn normalises the sigmoids of the same values).
    - `MLPClassifier`: the inputs of its softmax; (0, d) for two classes.
    - a `Pipeline` that ends in one of these, after `StandardScaler`, `MinMaxScaler`, `MaxAbsScaler`, `RobustScaler` or
      `Normalizer`.
    - `GridSearchCV` and `RandomizedSearchCV`: the module of their `best_estimator_`; `FrozenEstimator`: of the
      estimator in it.

    Everything is computed in float64, as by scikit-learn for float64 data.

    Args:
        estimator: a fitted estimator.
        dtype: of the images that an `SVMModule` takes; other modules take float32 and float64 and return their dtype.

    Raises TypeError for another estimator (`NoExactModule` for a fitted classifier), ValueError for one that is not
    fitted or whose parameters are not finite.

    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> from sklearn.svm import SVC
    >>> X, y = np.array([[0.0], [0.4], [0.6], [1.0]]), np.array(["a", "a", "b", "b"])
    >>> module = module_from_sklearn(make_pipeline(StandardScaler(), SVC()).fit(X, y))
    >>> module.predict(X)
    array(['a', 'a', 'b', 'b'], dtype='<U1')
    """
    from sklearn.base import BaseEstimator
    from sklearn.exceptions import NotFittedError
    from sklearn.utils.validation import check_is_fitted

    if not isinstance(estimator, BaseEstimator):
        if hasattr(estimator, "classes_") and hasattr(estimator, "predict"):
            raise NoExactModule(f"estimator: expected one of scikit-learn, got {type(estimator).__name__}")
        got = f"the class {estimator.__name__}" if isinstance(estimator, type) else type(estimator).__name__
        raise TypeError(f"estimator: expected a fitted scikit-learn classifier, got {got}")
    try:
        check_is_fitted(estimator)
    except NotFittedError as error:
        raise ValueError(
            f"estimator: expected a fitted one, got a {type(estimator).__name__} that is not fitted"
        ) from error
    steps, final = _unwrapped(estimator)
    scalings = [_scaling(step) for step in steps]
    if isinstance(final, _svm_classes()):
        if final.kernel not in KERNELS:
            raise NoExactModule(f"estimator: expected an SVC with one of the kernels {KERNELS}, got {final.kernel!r}")
        svm = SVMModule.from_sklearn(final, dtype=torch.float64 if scalings else dtype)
        return EstimatorModule(svm.classes_, [*scalings, svm]) if scalings else svm
    classes, layers = _layers(final)
    if len(classes) < 2:
        raise ValueError(f"estimator: expected at least two classes, got {list(classes)}")
    return EstimatorModule(classes, [*scalings, *layers])


class NoExactModule(TypeError):
    """A fitted scikit-learn estimator that `module_from_sklearn` has no module for.

    >>> from sklearn.tree import DecisionTreeClassifier
    >>> tree = DecisionTreeClassifier().fit(np.array([[0.0], [1.0]]), np.array([0, 1]))
    >>> rp.transfer.module_from_sklearn(tree)
    Traceback (most recent call last):
        ...
    robustperf.transfer.estimators.NoExactModule: estimator: expected SVC, NuSVC, LinearSVC, LogisticRegressio...
    """


def classifier_from_sklearn(
    estimator: Any, *, dtype: torch.dtype = torch.float32
) -> EstimatorModule | SVMModule | LabelOnly:
    """`module_from_sklearn` where there is an exact module, otherwise the estimator's labels as a `LabelOnly` of its
    `classes_`. An estimator that was fitted with a pandas data frame is given data frames.

    Raises TypeError for an estimator that is not a classifier, ValueError for one that is not fitted.

    >>> from sklearn.tree import DecisionTreeClassifier
    >>> tree = DecisionTreeClassifier().fit(np.array([[0.0], [1.0]]), np.array([0, 1]))
    >>> classifier_from_sklearn(tree)(torch.tensor([[0.2], [0.9]])).argmax(1)  # its labels, as a classifier
    tensor([0, 1])
    """
    try:
        return module_from_sklearn(estimator, dtype=dtype)
    except NoExactModule:
        classes = getattr(estimator, "classes_", None)
        several = classes is not None and any(np.ndim(each) for each in classes)
        if classes is None or several or not hasattr(estimator, "predict"):
            raise TypeError(
                "estimator: expected a classifier of one output, with classes_ and predict, got "
                + f"{type(estimator).__name__}"
                + " of several outputs" * several
            ) from None
    columns = getattr(estimator, "feature_names_in_", None)

    def predict(rows: np.ndarray) -> np.ndarray:
        rows = image_rows.flat(rows)
        if columns is not None:
            import pandas

            rows = pandas.DataFrame(rows, columns=columns)
        return estimator.predict(rows)

    return LabelOnly(predict, classes, arrays=True)


class EstimatorModule(nn.Module):
    """A scikit-learn classifier as layers; created by `module_from_sklearn`.

    Args:
        classes: [C], the labels, a numpy array.
        layers: modules that map rows [B, D] float64 to logits [B, C] in turn.

    Attributes:
        classes_: [C], the labels that the estimator was fitted with, a numpy array.
        layers: the layers, with fixed parameters.

    >>> from sklearn.linear_model import LogisticRegression
    >>> X, y = np.array([[0.0], [0.4], [0.6], [1.0]]), np.array(["a", "a", "b", "b"])
    >>> module = rp.transfer.module_from_sklearn(LogisticRegression().fit(X, y))
    >>> module.classes_, module.predict(X)
    (array(['a', 'b'], dtype='<U1'), array(['a', 'a', 'b', 'b'], dtype='<U1'))
    """

    layers: torch.nn.Sequential

    def __init__(self, classes: np.ndarray, layers: Sequence[nn.Module]) -> None:
        super().__init__()
        self.classes_ = classes
        self.layers = nn.Sequential(*layers).requires_grad_(False)

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> EstimatorModule:
        """Moves to another device; the parameters stay float64, also under `float()` and `half()`."""
        device = fn(torch.empty(0, dtype=torch.float64, device=_device(self.layers))).device
        self.layers._apply(lambda value: value.to(device), recurse)
        return self

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The logits [B, C] of images [B, ...] float32 or float64, of their dtype; NaN for images that are not finite.

        Raises TypeError for a wrong dtype, ValueError for a wrong shape or device.
        """
        return self.layers(self._flat(x)).to(x.dtype)

    @torch.no_grad()
    def predict(self, x: torch.Tensor | np.ndarray) -> torch.Tensor | np.ndarray:
        """The labels [B] that the estimator predicts, from `classes_`.

        Args:
            x: images [B, ...], a tensor or an array, float32 or float64; an array of integers too.

        Returns a tensor if x is one and the labels are numeric, else an array. Raises TypeError or ValueError as
        `forward`, and ValueError for images that are not finite.
        """
        images = check.images("x", image_rows.as_tensor(x))
        parts = [self.layers(self._flat(part)).argmax(1) for part in images.split(_BATCH)]
        return image_rows.labels_like(x, self.classes_, torch.cat(parts))

    def affine_logits(self) -> tuple[torch.Tensor, torch.Tensor] | None:
        """(W [C, D], b [C]) float64 of logits W x + b; None if they are not linear in x."""
        scale: torch.Tensor | float = 1.0
        shift: torch.Tensor | float = 0.0
        weight = bias = None
        for layer in self.layers:
            if isinstance(layer, _Affine) and layer.bounds is None and weight is None:
                centre = 0.0 if layer.centre is None else layer.centre
                factor = 1.0 if layer.scale is None else layer.scale
                if layer.multiply:
                    scale, shift = scale * factor, shift * factor + centre
                else:
                    scale, shift = scale / factor, (shift - centre) / factor
            elif isinstance(layer, _Linear) and weight is None:
                weight, bias = layer.weight * scale, layer.bias + (layer.weight * shift).sum(1)
            elif isinstance(layer, _Linear):
                weight, bias = layer.weight @ weight, layer.weight @ bias + layer.bias
            elif isinstance(layer, _TwoClasses) and weight is not None:
                weight, bias = torch.cat([torch.zeros_like(weight), weight]), torch.cat([torch.zeros_like(bias), bias])
            elif isinstance(layer, SVMModule) and weight is None and (found := layer.affine_logits()) is not None:
                weight, bias = found[0] * scale, found[1] + (found[0] * shift).sum(1)
            elif not isinstance(layer, nn.Identity):
                return None
        return None if weight is None else (weight, bias)

    def _flat(self, x: torch.Tensor) -> torch.Tensor:
        check.tensor("x", x, ("B", ...), device=_device(self.layers))
        return x.flatten(1).double()


class _Affine(nn.Module):
    """(x - centre) / scale, or x * scale + centre if `multiply`, as the estimator computes it; clipped to bounds."""

    def __init__(
        self, centre: Any, scale: Any, *, multiply: bool = False, bounds: tuple[float, float] | None = None
    ) -> None:
        super().__init__()
        self.multiply, self.bounds = multiply, bounds
        for name, value in (("centre", centre), ("scale", scale)):
            self.register_buffer(name, None if value is None else _parameter(name, value))
        self.features = next((value.numel() for value in (self.centre, self.scale) if value is not None), None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        _check_features(x, self.features)
        if self.multiply:
            x = x * self.scale + self.centre
        else:
            x = x if self.centre is None else x - self.centre
            x = x if self.scale is None else x / self.scale
        return x if self.bounds is None else x.clamp(*self.bounds)


class _RowNormaliser(nn.Module):
    """x / ||x||; rows of norm 0 are unchanged."""

    def __init__(self, norm: float) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        length = torch.linalg.vector_norm(x, self.norm, dim=1, keepdim=True)
        return x / torch.where(length == 0, 1.0, length)


class _Linear(nn.Module):
    """x W^T + b for W [C, D] and b [C]."""

    def __init__(self, weight: Any, bias: Any) -> None:
        super().__init__()
        self.register_buffer("weight", _parameter("coef_", weight))
        self.register_buffer("bias", _parameter("intercept_", bias).expand(len(self.weight)).clone())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        _check_features(x, self.weight.shape[1])
        return linear(x, self.weight, self.bias)


class _TwoClasses(nn.Module):
    """(0, d) for a decision value d, which is above 0 for the second class."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([torch.zeros_like(x), x], 1)


def _unwrapped(estimator: Any) -> tuple[list[Any], Any]:
    """(transformers, classifier) of an estimator that may contain others."""
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
        return _RowNormaliser({"l1": 1.0, "l2": 2.0, "max": float("inf")}[step.norm])
    raise NoExactModule(
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
        raise NoExactModule(
            "estimator: expected SVC, NuSVC, LinearSVC, LogisticRegression, MLPClassifier, a Pipeline of "
            "scalers and one of these, or a search over one, which have exact modules, got "
            f"{type(estimator).__name__}; robustperf.margins takes it with attacks that need labels only"
        )
    final = layers[-1]
    assert isinstance(final, _Linear)
    return estimator.classes_, layers if len(final.weight) > 1 else [*layers, _TwoClasses()]


def _svm_classes() -> tuple[type, ...]:
    from sklearn.svm import SVC, NuSVC

    return SVC, NuSVC


def _dense(value: Any) -> np.ndarray:
    return value.toarray() if hasattr(value, "toarray") else np.asarray(value)


def _parameter(name: str, value: Any) -> torch.Tensor:
    return check.finite(f"estimator.{name}", torch.tensor(_dense(value), dtype=torch.float64))


def _device(layers: nn.Module) -> torch.device:
    return next((value.device for value in layers.buffers()), torch.device("cpu"))


def _check_features(x: torch.Tensor, features: int | None) -> None:
    if features is not None and x.shape[1] != features:
        raise ValueError(f"x: expected images of {features} values, got {x.shape[1]}")
