"""A torch network as a scikit-learn classifier."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state

from robustperf import check, training
from robustperf.classifier import device_of, evaluating, laid_out, logits_of
from robustperf.data import Dataset
from robustperf.training.batches import held_out
from robustperf.training.optimizers import Optimizer, Rate
from robustperf.transfer import image_rows

_BATCH = 256  # images in one forward pass, as in `training.evaluate`


class ModuleClassifier(ClassifierMixin, BaseEstimator):
    """A `torch.nn.Module` from images to logits, trained by `training.fit`; the defaults are those of T appendix B.

    X: [N, D], [N, H, W] or [N, C, H, W] in [0, 1]. y: [N], any labels; output c of the network is the logit of the c-th
    label in sorted order.

    Args:
        module: the network. `fit` trains a copy, starting from its weights.
        prefit: whether the network is trained already; then `fit` only reads the labels from y.
        objective: what it is trained on, such as `training.MRT(kernel)`; None for `ERM()`.
        image_shape: (C, H, W) of rows X; None for square grey images.
        epochs: passes over the training images.
        optimizer: "adadelta", "adam", "sgd", or a function that makes one from parameters.
        lr: a constant, (first, last) with a line between them, or {epoch: rate from then on}; None for the
            optimizer's own.
        validation: the fraction of the images that is held out to choose the best epoch; None keeps the last.
        batch_size: images in a step, at most their number.
        random_state: an int, a numpy RandomState or None, for the order of the images and all draws.

    Attributes:
        classes_: the labels, sorted.
        module_: the trained network.
        image_shape_: (C, H, W).

    Raises TypeError or ValueError for a wrong argument, images that are not in [0, 1], or a network whose outputs are
    not one for each label; NotFittedError for a prediction before `fit`.

    >>> digits = rp.data.load("digits", "test")
    >>> X, y = digits.x.flatten(1).numpy(), digits.y.numpy()
    >>> model = ModuleClassifier(rp.nets.SmallCNN(size=8), epochs=1).fit(X, y)
    >>> model.predict(X[:5]).shape
    (5,)
    """

    image_shape_: tuple[int, int, int]
    classes_: np.ndarray

    def __init__(
        self,
        module: torch.nn.Module,
        *,
        prefit: bool = False,
        objective: Any = None,
        image_shape: Sequence[int] | None = None,
        epochs: int = 50,
        batch_size: int = 32,
        optimizer: Optimizer = "adam",
        lr: Rate | None = 1e-3,
        validation: Any = 0.1,
        random_state: Any = None,
    ) -> None:
        self.module = module
        self.prefit = prefit
        self.objective = objective
        self.image_shape = image_shape
        self.epochs = epochs
        self.batch_size = batch_size
        self.optimizer = optimizer
        self.lr = lr
        self.validation = validation
        self.random_state = random_state

    def fit(self, X: Any, y: Any, **options: Any) -> ModuleClassifier:
        """Trains a copy of the network. `options` are further ones of `training.fit`, such as out, resume and progress,
        which is False by default."""
        if not isinstance(self.module, torch.nn.Module):
            raise TypeError(f"module: expected a torch.nn.Module, got {type(self.module).__name__}")
        given = X
        X, y = image_rows.rows_to_fit(self, X, y, np.float32)
        self.image_shape_ = image_rows.known_shape(
            image_rows.image_shape_of(given, self.image_shape, X.shape[1]), X.shape[1]
        )
        self.classes_, label = np.unique(y, return_inverse=True)
        x = check.images("X", image_rows.to_images(X, self.image_shape_), (0.0, 1.0))
        module = self.module if self.prefit else deepcopy(self.module)
        outputs = _logits(module, x[:1]).shape[1]
        if outputs != len(self.classes_):
            raise ValueError(f"module: expected {len(self.classes_)} outputs, one for each label, got {outputs}")
        if not self.prefit:
            data = Dataset("X", x, torch.as_tensor(label, dtype=torch.int64), outputs)
            check.integer("batch_size", self.batch_size, 1)
            fraction = check.is_number(self.validation)
            count = len(held_out(len(x), self.validation, key=0)[0]) if fraction else len(x)
            training.fit(
                module,
                training.ERM() if self.objective is None else self.objective,
                data,
                validation=self.validation,
                epochs=self.epochs,
                batch_size=min(self.batch_size, count),
                optimizer=self.optimizer,
                lr=self.lr,
                seed=check_random_state(self.random_state).randint(2**31),
                **{"progress": False, **options},
            )
        self.module_ = module
        return self

    def predict(self, X: Any) -> np.ndarray:
        """The labels [N]."""
        return self._predict(self._images(X))

    def predict_proba(self, X: Any) -> np.ndarray:
        """[N, classes] float64, the softmax of the logits."""
        return self._predict_proba(self._images(X))

    def _images(self, X: Any) -> torch.Tensor:
        """X as checked images [N, C, H, W] float32 in [0, 1], which `_predict` and `_predict_proba` take."""
        X = image_rows.rows_to_predict(self, "X", X, np.float32)
        return check.images("X", image_rows.to_images(X, self.image_shape_), (0.0, 1.0))

    def _predict(self, images: torch.Tensor) -> np.ndarray:
        return self.classes_[_logits(self.module_, images).argmax(1).numpy()]

    def _predict_proba(self, images: torch.Tensor) -> np.ndarray:
        return _logits(self.module_, images).double().softmax(1).numpy()


@torch.no_grad()
def _logits(module: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    device = device_of(module)
    with evaluating(module):
        return torch.cat([logits_of(module, laid_out(module, part.to(device))).cpu() for part in x.split(_BATCH)])
