"""f∘T as a scikit-learn estimator."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
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
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from robustperf import check, random
from robustperf.transfer import image_rows
from robustperf.transfer.autoencoder import PairedAutoencoder
from robustperf.transfer.module_classifier import ModuleClassifier

_FLOAT = (np.float64, np.float32)
_EXAMPLES = 1000  # clean images that `adapt` looks at f(T(x)) of


def _estimator_has(name: str):
    def has(self) -> bool:
        estimator = getattr(self, "estimator_", self.estimator)
        getattr(ModuleClassifier if isinstance(estimator, torch.nn.Module) else estimator, name)  # or AttributeError
        return True

    return has


class TransferClassifier(OneToOneFeatureMixin, ClassifierMixin, TransformerMixin, BaseEstimator):
    """Any classifier f, adapted to a shifted world without labels: f(T(x)) (T section 4).

    `fit` trains f on clean images, once. `adapt` learns T = D1 E from shifted images without labels, beside the clean
    ones of `fit`, by a `PairedAutoencoder`; called again with others it goes on from the weights it has. Until then T
    is the identity, and predictions are f's own. `adapt()` without images is T's case N_c = 0: one auto-encoder of
    the clean ones.

    X: [N, D], [N, H, W] or [N, C, H, W], floats. y: any labels.

    scikit-learn's estimator checks hold of it as `fit` leaves it; they never call `adapt`. Two do not apply after that:
    a second `adapt` changes T (idempotence), and the float32 network of T rounds parts of X otherwise than all of it
    (invariance to subsets and order, to 1e-7).

    Args:
        estimator: a scikit-learn classifier, which is cloned and gets X as rows [N, D]; within
            `sklearn.frozen.FrozenEstimator` it is taken as fitted. Or a `torch.nn.Module`, which is
            `ModuleClassifier(module)`: trained by `training.fit` as in appendix B, for 50 epochs. For other settings,
            or one that is trained already, give `ModuleClassifier(module, epochs=..., prefit=...)` itself. It gets
            the pixels scaled to [0, 1], any other estimator as they are.
        autoencoder: a `PairedAutoencoder` to begin with, of which a copy is trained; None for appendix B's.
        image_shape: (C, H, W) of rows X; None for those of `autoencoder`, and without one for square grey images.
        bounds: of the pixels, which the auto-encoder has in [0, 1]; beyond them is an error. None takes the extremes of
            fit's X, and T cuts off what is beyond: for features that are no pixels, as in a pipeline.
        epochs, batch_size, lr: of the auto-encoder, Adam's, in each `adapt`.
        random_state: an int, a numpy RandomState or None, of the auto-encoder's weights and its order, and of a module
            given without `ModuleClassifier`.

    Attributes:
        classes_: the labels.
        estimator_: f, fitted.
        autoencoder_: E, D1 and D2; there is none before `adapt`.
        adaptations_: how often `adapt` was called.
        image_shape_: (C, H, W), or None where rows have no square number of features; `adapt` needs it.
        bounds_: (lower, upper).
        clean_: [N, D] float32, fit's images scaled to [0, 1].

    Raises TypeError or ValueError for wrong arguments, images beyond bounds, not finite or of another shape, and y of
    one class; NotFittedError before `fit`.
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
        """Trains f on clean images; with `X_shifted` adapts it too, as a search over parameters or a pipeline needs
        it. Where X_shifted is as long as X, `GridSearchCV` takes it for one of the sample arrays, and gives each fold
        the rows that it trains on."""
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
        X, y = validate_data(self, image_rows.flat(X), y, dtype=_FLOAT)
        check_classification_targets(y)
        image_rows.check_classes(classes := np.unique(y))
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
        self.estimator_ = estimator.fit(self._as_f_has_them(X, estimator), y)
        self.classes_ = getattr(self.estimator_, "classes_", classes)
        self.clean_, self.adaptations_ = self._scaled(X), 0
        self._examples = np.linspace(0, len(X) - 1, min(len(X), _EXAMPLES)).astype(np.int64)
        self._labels = y[self._examples]
        self._key = check_random_state(self.random_state).randint(2**31)
        return self if X_shifted is None else self.adapt(X_shifted)

    def adapt(
        self, X_shifted: Any = None, *, validation: tuple[Any, Any] | None = None, **options: Any
    ) -> TransferClassifier:
        """Learns T from shifted images without labels, continuing from what earlier ones have taught.

        Args:
            X_shifted: the images; None for T's case N_c = 0.
            validation: (X, y), clean images that nothing was trained on, with their labels. None takes up to 1,000 of
                fit's, which are kinder to T: it was trained on them.
            options: others of `training.fit`, such as out, resume and progress, which shows no bar unless asked for.

        Warns (RuntimeWarning) where f is less often right about T(x) than about x, the clean validation images, by more
        than a hundredth and than two standard errors.
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
        """Some of fit's images, as rows with its bounds, and their labels."""
        low, high = self.bounds_
        return (low + (high - low) * self.clean_[self._examples].astype(np.float64)).clip(low, high), self._labels

    def _check_clean(self, X: np.ndarray, y: np.ndarray) -> None:
        """The warning of `adapt`."""
        before, after = (
            self.estimator_.predict(self._as_f_has_them(rows, self.estimator_)) == y for rows in (X, self._restored(X))
        )
        lost, won = int((before & ~after).sum()), int((after & ~before).sum())
        if lost - won > max(0.01 * len(y), 2 * (lost + won) ** 0.5):
            warnings.warn(
                f"adapt: f is right about {before.mean():.1%} of {len(y):,} clean images x and about "
                f"{after.mean():.1%} of T(x): T has not learned to leave clean images alone; more epochs, "
                "more images or a larger autoencoder may help",
                RuntimeWarning,
                stacklevel=3,
            )

    def transform(self, X: Any) -> np.ndarray:
        """T(x), of X's shape and within bounds; before `adapt` X itself. Where scikit-learn is set to give data frames,
        which have no room for images, rows."""
        shape = getattr(X, "shape", ())
        transferred = self._transferred(X)
        as_frames = _get_output_config("transform", self)["dense"] != "default"
        return transferred if as_frames or len(shape) < 3 else transferred.reshape(shape)

    def predict(self, X: Any) -> np.ndarray:
        """The labels f(T(x)), [N]."""
        X = self._for_f(X)
        return self.estimator_.predict(X)

    @available_if(_estimator_has("predict_proba"))
    def predict_proba(self, X: Any) -> np.ndarray:
        """f's probabilities of T(x), [N, classes]."""
        X = self._for_f(X)
        return self.estimator_.predict_proba(X)

    @available_if(_estimator_has("decision_function"))
    def decision_function(self, X: Any) -> np.ndarray:
        """f's decision values of T(x)."""
        X = self._for_f(X)
        return self.estimator_.decision_function(X)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "clean_")

    def _unfitted(self) -> Any:
        """f as it is to be fitted."""
        if isinstance(self.estimator, torch.nn.Module):
            return ModuleClassifier(self.estimator, random_state=self.random_state)
        return clone(self.estimator)

    def _for_f(self, X) -> np.ndarray:
        """T(x) as rows for the fitted f."""
        return self._as_f_has_them(self._transferred(X), self.estimator_)

    def _as_f_has_them(self, X: np.ndarray, estimator: Any) -> np.ndarray:
        """The rows as they are; of a network in [0, 1]."""
        inner = estimator.estimator if isinstance(estimator, FrozenEstimator) else estimator
        return self._scaled(X) if isinstance(inner, ModuleClassifier) else X

    def _transferred(self, X) -> np.ndarray:
        """T(x) as rows [N, D]."""
        X = self._rows("X", X)
        return self._restored(X) if hasattr(self, "autoencoder_") else X

    def _restored(self, X: np.ndarray) -> np.ndarray:
        """T(x) of rows that were checked."""
        low, high = self.bounds_
        images = self.autoencoder_.transfer(image_rows.to_images(self._scaled(X), self.image_shape_))
        return low + (high - low) * images.flatten(1).numpy().astype(X.dtype)

    def _rows(self, name: str, X: Any) -> np.ndarray:
        check_is_fitted(self)
        image_rows.check_image_shape(name, X, self.image_shape_)
        X = validate_data(self, image_rows.flat(X), reset=False, dtype=_FLOAT)
        self._check_bounds(name, X)
        return X

    def _check_bounds(self, name: str, X: np.ndarray) -> None:
        low, high = X.min(), X.max()
        if self.bounds is not None and (low < self.bounds_[0] or high > self.bounds_[1]):
            raise ValueError(
                f"{name}: expected pixels within [{self.bounds_[0]:g}, {self.bounds_[1]:g}], got {low:g} to {high:g}"
            )

    def _scaled(self, X: np.ndarray) -> np.ndarray:
        """The rows in [0, 1], float32, a copy."""
        low, high = self.bounds_
        return ((X - low) / (high - low or 1)).clip(0, 1).astype(np.float32)
