"""What every objective shares: the call, its checks, and the one forward pass that is trained on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch.nn import functional

from robustperf import check, random
from robustperf.classifier import Classifier, laid_out, logits_of
from robustperf.nets.dropout import drawing

IGNORED = -(2**63)


class Objective(check.Settings, ABC):
    """A loss to train a classifier on: `loss = objective(model, x, y, key=key, index=index)`, in anybody's loop.

    A subclass writes `loss`, and is a frozen dataclass: what it prints tells two objectives apart.

    Attributes:
        classifies: whether the model gives logits and y is the class. Where y says something else of x, `fit` takes no
            validation set and finds no accuracy.
    """

    classifies: ClassVar[bool] = True

    def __call__(
        self, model: Classifier, x: torch.Tensor, y: torch.Tensor, *, key: int, index: torch.Tensor
    ) -> torch.Tensor:
        """The loss of a batch, its mean over the samples, to call `backward()` on.

        Args:
            model: a classifier; its mode is the caller's, and left as it was.
            x: [B, C, H, W] float32 or float64, B >= 1.
            y: [B] int64, the labels.
            key: 64 bits, another one for each step: `robustperf.random.fold_in(key, step)`.
            index: [B] int64 >= 0, the samples' numbers in their data set. All draws, those of
                `robustperf.nets.Dropout` too, depend on key and index only: not on the batch, its order or the process.

        Returns a scalar of the logits' dtype, float32 at least.

        Raises TypeError for a wrong dtype, ValueError for a wrong shape, device or label, or a kernel that does not
        take these images.
        """
        if not callable(model):
            raise TypeError(f"model: expected a module or a callable, got {type(model).__name__}")
        check_batch(x, y=y, index=index)
        with drawing(random.fold_in(key, random.Salt.DROPOUT), index):
            return self.loss(model, x, y, key=key, index=index)

    @abstractmethod
    def loss(
        self, model: Classifier, x: torch.Tensor, y: torch.Tensor, *, key: int, index: torch.Tensor
    ) -> torch.Tensor:
        """The loss behind the checks."""


def check_batch(x: torch.Tensor, **per_image: torch.Tensor) -> None:
    """TypeError or ValueError for images that are no batch, or for what is not a number for each of them."""
    check.tensor("x", x, ("B", ...))
    if not len(x):
        raise ValueError(f"x: expected at least one image, got shape {list(x.shape)}")
    for name, value in per_image.items():
        check.tensor(name, value, (len(x),), dtypes=(torch.int64,), device=x.device)


def loss_of_drawn(
    model: Classifier, drawn: torch.Tensor, x: torch.Tensor, y: torch.Tensor, weight: float
) -> torch.Tensor:
    """mean_j [sum_i l(drawn_i^(j), y^(j)) + weight l(x^(j), y^(j))] (R Algorithms 2 to 4) for drawn [K, B, ...], from
    one forward pass."""
    images = drawn.flatten(0, 1)
    if weight:
        if drawn.shape[2:] != x.shape[1:]:
            raise ValueError(
                f"weight: the clean images [B, {', '.join(map(str, x.shape[1:]))}] are not of the drawn "
                f"ones' shape {list(drawn.shape[2:])}: expected 0, got {weight}"
            )
        images = torch.cat([images, x])
    losses = cross_entropies(logits_of(model, laid_out(model, images)), y)
    loss = losses[: len(drawn)].sum(0)
    return (loss + weight * losses[-1] if weight else loss).mean()


def cross_entropies(logits: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """[K, B] cross-entropies of logits [K B, C], float32 at least."""
    if y.device.type == "cpu":  # a GPU is not waited for
        check.labels("y", y, logits.shape[1])
    logits = logits.float() if logits.dtype in check.HALF else logits
    target = y.repeat(len(logits) // len(y))
    # torch's own number for a row to leave out, -100, is a wrong label here
    losses = functional.cross_entropy(logits, target, reduction="none", ignore_index=IGNORED)
    return losses.view(-1, len(y))
