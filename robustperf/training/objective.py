"""The protocol of objectives: the call with its checks, the models that are trained, and the shared losses."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional

from robustperf import check, random
from robustperf.classifier import Classifier, laid_out, logits_of
from robustperf.nets.dropout import drawing
from robustperf.training.learner import MODEL, Learner

IGNORED = -(2**63)  # no label: torch's default, -100, is a wrong label here and must be an error


class Objective(check.Settings, ABC):
    """What a model is trained to minimise: `loss = objective(model, x, y, key=key, index=index)`, in any loop.

    A subclass implements `loss` and is a frozen dataclass: its repr, which `fit` records, tells two objectives apart.

    >>> from dataclasses import dataclass
    >>> from torch.nn import functional
    >>> @dataclass(frozen=True)
    ... class Smoothed(Objective):
    ...     smoothing: float = 0.1
    ...
    ...     def loss(self, model, x, y, *, key, index):
    ...         return functional.cross_entropy(model(x), y, label_smoothing=self.smoothing)

    An objective that trains several models also implements `learners`, whose docstring has an example.

    Attributes:
        classifies: whether the model returns logits and y is the class. Otherwise `fit` takes no validation set and
            measures no accuracy.
    """

    classifies: ClassVar[bool] = True

    def __call__(
        self, model: Classifier, x: torch.Tensor, y: torch.Tensor, *, key: int, index: torch.Tensor
    ) -> torch.Tensor:
        """The mean loss of a batch, to call `backward()` on.

        Args:
            model: a classifier, possibly in a DistributedDataParallel wrapper; its mode is the caller's and is kept.
            x: [B, C, H, W] float32 or float64, B >= 1.
            y: [B] int64, the labels.
            key: 64 bits, another for each step: `robustperf.random.fold_in(key, step)`.
            index: [B] int64 >= 0, the sample ids in the data set. All draws, those of `robustperf.nets.Dropout` too,
                depend on key and index only: not on the batch, its order or the process.

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
        """The mean loss, a scalar with a gradient, of x [B, C, H, W] and labels y [B] int64 under `key`, 64 bits, and
        the sample ids `index` [B] int64; all checked by the call."""

    def learners(self, model: nn.Module) -> Sequence[Learner]:
        """The models that `fit` trains, in the order of their updates within a step: by default `model` alone, on this
        objective.

        Override it to train several. `fit` knows no objective by name: whatever `learners` returns gets its own
        optimizer, learning rate, gradient clipping, mixed precision, wrapper, columns, checkpoint entries and weights
        file; see `Learner`. One of the learners is called "model" and has `model`. Each update uses the other models
        as the updates before it, in the same step, have left them.

        Two networks that learn from the labels and from each other (Zhang et al. 2018, deep mutual learning):

        >>> from dataclasses import dataclass, field
        >>> from torch.nn import functional
        >>> from robustperf.classifier import evaluating
        >>> from robustperf.training import Learner
        >>> @dataclass(frozen=True, eq=False)
        ... class Mutual(Objective):
        ...     student: nn.Module = field(repr=False)  # what fit is given
        ...     peer: nn.Module = field(repr=False)
        ...
        ...     def loss(self, model, x, y, *, key, index):
        ...         return imitation(model, self.peer, x, y)
        ...
        ...     def peer_loss(self, peer, x, y, *, key, index):
        ...         return imitation(peer, self.student, x, y)
        ...
        ...     def learners(self, model):
        ...         return [*super().learners(model), Learner("peer", self.peer, self.peer_loss, optimizer="sgd")]
        ...
        >>> def imitation(learner, teacher, x, y):
        ...     with evaluating(teacher), torch.no_grad():
        ...         target = teacher(x).softmax(1)
        ...     logits = learner(x)
        ...     return functional.cross_entropy(logits, y) + functional.cross_entropy(logits, target)

        `fit(student, Mutual(student, peer), data, out=folder)` writes model.safetensors and peer.safetensors, and the
        columns loss, accuracy and peer_loss.

        Args:
            model: what `fit` was given, before it is wrapped.

        Raises ValueError where the objective was made for another model.
        """
        return (Learner(MODEL, model, self),)


def check_batch(x: torch.Tensor, **per_image: torch.Tensor) -> None:
    """Raises TypeError or ValueError unless x is a batch of images, and each of `per_image` is [B] int64."""
    check.tensor("x", x, ("B", ...))
    if not len(x):
        raise ValueError(f"x: expected at least one image, got shape {list(x.shape)}")
    for name, value in per_image.items():
        check.tensor(name, value, (len(x),), dtypes=(torch.int64,), device=x.device)


def loss_of_drawn(
    model: Classifier, drawn: torch.Tensor, x: torch.Tensor, y: torch.Tensor, weight: float
) -> torch.Tensor:
    """mean_j [sum_i l(drawn_i^(j), y^(j)) + weight l(x^(j), y^(j))] (R Algorithms 2 to 4), from one forward pass.

    Args:
        drawn: [K, B, ...] images.
        x: [B, ...], the clean images; not evaluated where `weight` is 0.
        y: [B] int64.
        weight: lambda.

    Raises ValueError where the clean images have another shape than the drawn ones, unless `weight` is 0.
    """
    images = drawn.flatten(0, 1)
    if weight:
        if drawn.shape[2:] != x.shape[1:]:
            raise ValueError(
                f"weight: the clean images [B, {', '.join(map(str, x.shape[1:]))}] do not have the shape of the drawn "
                f"ones, {list(drawn.shape[2:])}: expected 0, got {weight}"
            )
        images = torch.cat([images, x])
    losses = cross_entropies(logits_of(model, laid_out(model, images)), y)
    loss = losses[: len(drawn)].sum(0)
    return (loss + weight * losses[-1] if weight else loss).mean()


def cross_entropies(logits: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Cross-entropies [K, B], float32 at least, of logits [K B, C] and labels [B]."""
    if y.device.type == "cpu":  # on a GPU this would synchronise with the host
        check.labels("y", y, logits.shape[1])
    logits = logits.float() if logits.dtype in check.HALF else logits
    target = y.repeat(len(logits) // len(y))
    losses = functional.cross_entropy(logits, target, reduction="none", ignore_index=IGNORED)
    return losses.view(-1, len(y))
