"""f∘T as a scikit-learn estimator."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from sklearn.base import (
    BaseEstimator,
    ClassifierMixin,
    OneToOneFeatureMixin,
    TransformerMixin,
    clone,
    is_classifier,
)
from sklearn.frozen import FrozenEstimator
from sklearn.utils import check_random_state
from sklearn.utils._set_output import _get_output_config
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from robustperf import check, random
from robustperf.transfer import image_rows
from robustperf.transfer.autoencoder import PairedAutoencoder
from robustperf.transfer.module_classifier import ModuleClassifier

_FLOAT = (np.float64, np.float32)
_EXAMPLES = 1000  # clean images on which `adapt` compares f(T(x)) with f(x)


def _estimator_has(name: str) -> Callable[[TransferClassifier], bool]:
    def has(self: TransferClassifier) -> bool:
        estimator = getattr(self, "estimator_", self.estimator)
        getattr(ModuleClassifier if isinstance(estimator, torch.nn.Module) else estimator, name)  # or AttributeError
        return True

    return has


class TransferClassifier(OneToOneFeatureMixin, ClassifierMixin, TransformerMixin, BaseEstimator):
    """Any classifier f, adapted to a shifted world without labels: f(T(x)) (T section 4).

    `fit` trains f on clean images, once. `adapt` trains T = D1 E, a `PairedAutoencoder`, on shifted images without
    labels and the clean images of `fit`; further calls continue from its current weights. Before the first call T is
    the identity, and predictions are f's own. `adapt()` without images is T's case N_c = 0: an auto-encoder of the
    clean images alone.

    X: [N, D], [N, H, W] or [N, C, H, W], floats. y: [N], any labels.

    After `fit`, scikit-learn's estimator checks pass; they never call `adapt`. Two do not hold after `adapt`: a second
    call changes T (idempotence), and the float32 network T rounds differently for subsets of X (invariance to subsets
    and order, to 1e-7).

    Args:
        estimator: a scikit-learn classifier, which is cloned and gets X as rows [N, D]; one within
            `sklearn.frozen.FrozenEstimator` is not fitted again. Or a `torch.nn.Module`, which stands for
            `ModuleClassifier(module)`: trained by `training.fit` as in appendix B, for 50 epochs. For other settings,
            or a trained network, pass `ModuleClassifier(module, epochs=..., prefit=...)` itself. A network gets the
            pixels scaled to [0, 1], any other estimator gets them unscaled.
        autoencoder: the initial `PairedAutoencoder`, of which a copy is trained; None for appendix B's.
        image_shape: (C, H, W) of rows X; None for that of `autoencoder`, and without one for square grey images.
        bounds: (lower, upper) of the pixels, which are scaled to [0, 1] for the auto-encoder; pixels beyond them are an
            error. None for the minimum and maximum of fit's X, to which T clips: for features other than pixels, as in
            a pipeline.
        epochs, batch_size, lr: of the training of the auto-encoder by Adam, in each `adapt`.
        random_state: an int, a numpy RandomState or None, for the auto-encoder's initial weights and the order of its
            training images, and for a module given without `ModuleClassifier`.

    Attributes:
        classes_: the labels.
        estimator_: f, fitted.
        autoencoder_: E, D1 and D2; not set before `adapt`.
        adaptations_: the number of calls of `adapt`.
        image_shape_: (C, H, W), or None where the number of features is not a square; `adapt` needs it.
        bounds_: (lower, upper).
        clean_: [N, D] float32, fit's images scaled to [0, 1].

    Raises TypeError or ValueError for wrong arguments, for images that are out of bounds, not finite or of another
    shape, and for y of one class; NotFittedError before `fit`.

    >>> from sklearn.svm import SVC
    >>> digits = rp.data.load("digits", "test")
    >>> X, y = digits.x.flatten(1).numpy(), digits.y.numpy()
    >>> small = rp.transfer.PairedAutoencoder(image_shape=(1, 8, 8), code=8, width=4, hidden=16)
    >>> model = TransferClassifier(SVC(), small, epochs=1).fit(X[:300], y[:300])  # clean images and labels
    >>> model.adapt(0.5 * X[300:400]).predict(0.5 * X[400:]).shape  # no labels needed
    (199,)
    """

    image_shape_: tuple[int, int, int] | None
    bounds_: tuple[float, float]
    estimator_: Any
    classes_: np.ndarray
    clean_: np.ndarray
    adaptations_: int

    def __init__(
        self,
        estimator: Any,
        autoencoder: PairedAutoencoder | None = None,
        *,
        image_shape: Sequence[int] | None = None,
        bounds: tuple[float, float] | None = (0.0, 1.0),
        epochs: int = 100,
        batch_size: int = 32,
        lr: float = 1e-3,
        random_state: Any = None,
    ) -> None:
        self.estimator = estimator
        self.autoencoder = autoencoder
        self.image_shape = image_shape
        self.bounds = bounds
        self.epochs = epochs
        self.batch_size = batch_size
        self.lr = lr
        self.random_state = random_state

    def fit(self, X: Any, y: Any, X_shifted: Any = None) -> TransferClassifier:
        """Trains f on clean images; calls `adapt(X_shifted)` too if that is given, for a pipeline or a search over
        parameters. `GridSearchCV` splits an X_shifted of X's length as it splits X, so that each fold gets the rows of
        its training part."""
        if not (
            isinstance(self.estimator, torch.nn.Module)
            or isinstance(self.estimator, BaseEstimator)
            and is_classifier(self.estimator)
        ):
            raise TypeError(
                "estimator: expected a scikit-learn classifier or a torch.nn.Module, got "
                f"{self.estimator if isinstance(self.estimator, type) else type(self.estimator).__name__}"
            )
        given = X
        X, y = image_rows.rows_to_fit(self, X, y, _FLOAT)
        shape = self.image_shape
        if self.autoencoder is not None:
            if not isinstance(self.autoencoder, PairedAutoencoder):
                raise TypeError(f"autoencoder: expected a PairedAutoencoder, got {type(self.autoencoder).__name__}")
            shape = self.autoencoder.image_shape if shape is None else shape
        self.image_shape_ = image_rows.image_shape_of(given, shape, X.shape[1])
        if self.autoencoder is not None and self.image_shape_ != self.autoencoder.image_shape:
            raise ValueError(
                f"image_shape: expected that of autoencoder, {self.autoencoder.image_shape}, got {self.image_shape_}"
            )
        self.bounds_ = (float(X.min()), float(X.max())) if self.bounds is None else check.bounds(self.bounds)
        self._check_bounds("X", X)

        for name in ("estimator_", "autoencoder_", "clean_"):  # of an earlier fit
            vars(self).pop(name, None)
        estimator = self._unfitted()
        if isinstance(estimator, ModuleClassifier) and estimator.image_shape is None:
            estimator.set_params(image_shape=self.image_shape_)
        scaled, network = self._scaled(X), _network(estimator)
        self.estimator_ = estimator.fit(X if network is None else scaled, y)
        if network is not None and network.n_features_in_ != X.shape[1]:  # a frozen one
            raise ValueError(
                f"estimator: expected a network fitted on images of {X.shape[1]} values, got one fitted on images of "
                f"{network.n_features_in_}"
            )
        self.classes_ = getattr(self.estimator_, "classes_", np.unique(y))
        self.clean_, self.adaptations_ = scaled, 0
        self._examples = np.linspace(0, len(X) - 1, min(len(X), _EXAMPLES)).astype(np.int64)
        self._labels = y[self._examples]
        self._key = check_random_state(self.random_state).randint(2**31)
        return self if X_shifted is None else self.adapt(X_shifted)

    def adapt(
        self, X_shifted: Any = None, *, validation: tuple[Any, Any] | None = None, **options: Any
    ) -> TransferClassifier:
        """Trains T on shifted images without labels, starting from its current weights.

        Args:
            X_shifted: the images; None for T's case N_c = 0.
            validation: (X, y), clean images that were not used for training, with their labels. None for up to 1,000 of
                fit's images, on which T looks better since it was trained on them.
            options: further ones of `training.fit`, such as out, resume and progress, which is False by default.

        Issues a RuntimeWarning where the accuracy of f(T(x)) on the clean validation images is below that of f(x) by
        more than 0.01 and more than two standard errors.
        """
        check_is_fitted(self)
        if validation is not None:
            validation = self._rows("validation", validation[0]), np.asarray(validation[1])
            if len(validation[0]) != len(validation[1]):
                raise ValueError(
                    f"validation: expected a label for each of {len(validation[0])} images, got {len(validation[1])}"
                )
        shape = image_rows.known_shape(self.image_shape_, self.n_features_in_)
        shifted = None
        if X_shifted is not None:
            shifted = image_rows.to_images(self._scaled(self._rows("X_shifted", X_shifted)), shape)
        key = random.fold_in(self._key, self.adaptations_)
        autoencoder = deepcopy(getattr(self, "autoencoder_", self.autoencoder))
        if autoencoder is None:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(key)
                autoencoder = PairedAutoencoder(shape)
        autoencoder.fit(
            image_rows.to_images(self.clean_, shape),
            shifted,
            epochs=self.epochs,
            batch_size=self.batch_size,
            lr=self.lr,
            seed=key,
            **{"progress": False, **options},
        )
        self.autoencoder_ = autoencoder
        self.adaptations_ += 1
        self._check_clean(*self._clean_examples() if validation is None else validation)
        return self

    def _clean_examples(self) -> tuple[np.ndarray, np.ndarray]:
        """Some of fit's images, as rows within `bounds_`, and their labels."""
        low, high = self.bounds_
        return (low + (high - low) * self.clean_[self._examples].astype(np.float64)).clip(low, high), self._labels

    def _check_clean(self, X: np.ndarray, y: np.ndarray) -> None:
        """The warning of `adapt`."""
        before, after = (self._f("predict", X, transfer) == y for transfer in (False, True))
        lost, won = int((before & ~after).sum()), int((after & ~before).sum())
        if lost - won > max(0.01 * len(y), 2 * (lost + won) ** 0.5):
            warnings.warn(
                f"adapt: on {len(y):,} clean images x, the accuracy of f(x) is {before.mean():.1%} and that of f(T(x)) "
                f"{after.mean():.1%}: T does not preserve clean images; more epochs, more images or a larger "
                "autoencoder may help",
                RuntimeWarning,
                stacklevel=3,
            )

    def transform(self, X: Any) -> np.ndarray:
        """T(x), of X's shape and within bounds; X itself before `adapt`. Where scikit-learn is configured to return
        data frames, which cannot hold images, rows [N, D]."""
        shape = getattr(X, "shape", ())
        transferred = self._rows("X", X)
        if self._adapted():
            transferred = self._restored(transferred)
        as_frames = _get_output_config("transform", self)["dense"] != "default"
        return transferred if as_frames or len(shape) < 3 else transferred.reshape(shape)

    def predict(self, X: Any) -> np.ndarray:
        """The labels f(T(x)), [N]."""
        return self._f("predict", self._rows("X", X), self._adapted())

    @available_if(_estimator_has("predict_proba"))
    def predict_proba(self, X: Any) -> np.ndarray:
        """f's probabilities of T(x), [N, classes]."""
        return self._f("predict_proba", self._rows("X", X), self._adapted())

    @available_if(_estimator_has("decision_function"))
    def decision_function(self, X: Any) -> np.ndarray:
        """f's decision values of T(x)."""
        return self._f("decision_function", self._rows("X", X), self._adapted())

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "clean_")

    def _unfitted(self) -> Any:
        """f before fitting."""
        if isinstance(self.estimator, torch.nn.Module):
            return ModuleClassifier(self.estimator, random_state=self.random_state)
        return clone(self.estimator)

    def _adapted(self) -> bool:
        return hasattr(self, "autoencoder_")

    def _f(self, method: str, rows: np.ndarray, transfer: bool) -> np.ndarray:
        """A method of the fitted f for checked rows, of T(x) if `transfer`. A network gets the images of T directly,
        without scaling and checking them again."""
        network = _network(self.estimator_)
        if network is None:
            return getattr(self.estimator_, method)(self._restored(rows) if transfer else rows)
        images = self._transferred(rows) if transfer else image_rows.to_images(self._scaled(rows), network.image_shape_)
        return getattr(network, f"_{method}")(images.view(len(images), *network.image_shape_))

    def _transferred(self, rows: np.ndarray) -> torch.Tensor:
        """T(x) [N, C, H, W] float32 in [0, 1] of checked rows."""
        return self.autoencoder_._transfer(image_rows.to_images(self._scaled(rows), self.image_shape_))

    def _restored(self, rows: np.ndarray) -> np.ndarray:
        """T(x) of checked rows, as rows within bounds."""
        low, high = self.bounds_
        return low + (high - low) * self._transferred(rows).flatten(1).numpy().astype(rows.dtype)

    def _rows(self, name: str, X: Any) -> np.ndarray:
        X = image_rows.rows_to_predict(self, name, X, _FLOAT)
        self._check_bounds(name, X)
        return X

    def _check_bounds(self, name: str, X: np.ndarray) -> None:
        low, high = X.min(), X.max()
        if self.bounds is not None and (low < self.bounds_[0] or high > self.bounds_[1]):
            raise ValueError(
                f"{name}: expected pixels within [{self.bounds_[0]:g}, {self.bounds_[1]:g}], got {low:g} to {high:g}"
            )

    def _scaled(self, X: np.ndarray) -> np.ndarray:
        """A copy of the rows, float32 in [0, 1]."""
        low, high = self.bounds_
        return ((X - low) / (high - low or 1)).clip(0, 1).astype(np.float32)


def _network(estimator: Any) -> ModuleClassifier | None:
    """The network that `estimator` is or freezes; None for other estimators."""
    inner = estimator.estimator if isinstance(estimator, FrozenEstimator) else estimator
    return inner if isinstance(inner, ModuleClassifier) else None
