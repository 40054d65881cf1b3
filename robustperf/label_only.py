"""Classifiers of which only labels are known: a remote service, a random forest, a rule."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from robustperf import check


@dataclass(frozen=True, eq=False)
class LabelOnly:
    """A classifier from a function that gives labels and nothing else: no logits, no gradients.

    Called with points x [B, ...] it returns "logits" [B, C] of x's dtype, 1 for the label and -1 for the others, so
    that it can be used wherever a classifier can. Gradient attacks fail on it; `margins` takes attacks that query
    labels only.

    Args:
        function: maps points [B, ...] to labels [B], a tensor, an array or a list. Called without gradients.
        classes: C >= 2, if the labels are the integers 0..C-1; or the labels, a sequence without duplicates: label
            number c of it has the logit c.
        arrays: whether `function` takes NumPy arrays instead of tensors; `margins` sets it where it was given an array.

    Raises TypeError or ValueError for a wrong argument, and, when called, for an output that is not one known label for
    each point.

    >>> rule = LabelOnly(lambda points: points[:, 0] > 0.5, classes=[False, True])
    >>> rule(torch.tensor([[0.2], [0.9]]))
    tensor([[ 1., -1.],
            [-1.,  1.]])
    """

    function: Callable[[Any], Any]
    classes: int | Sequence[Any]
    arrays: bool = False

    def __post_init__(self) -> None:
        if not callable(self.function):
            raise TypeError(f"function: expected a callable, got {type(self.function).__name__}")
        if check.is_number(self.classes):
            object.__setattr__(self, "classes", check.integer("classes", self.classes, 2))
            return
        known = np.asarray(self.classes)
        if known.ndim != 1 or len(known) < 2 or len(set(known.tolist())) < len(known):
            raise ValueError(
                f"classes: expected at least two, an integer or a sequence of distinct labels, got {self.classes!r}"
            )
        object.__setattr__(self, "classes", known)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        label = self.labels(x)
        return torch.full((len(x), self.count), -1.0, dtype=x.dtype, device=x.device).scatter_(1, label[:, None], 1.0)

    @property
    def count(self) -> int:
        """C."""
        return self.classes if isinstance(self.classes, int) else len(self.classes)

    def labels(self, x: torch.Tensor) -> torch.Tensor:
        """The labels of points x [B, ...] as class numbers 0..C-1, [B] int64 on x's device."""
        with torch.no_grad():
            output = self.function(x.detach().cpu().numpy() if self.arrays else x.detach())
        return class_numbers("function(x)", output, self.classes, len(x)).to(x.device)


def class_numbers(name: str, labels: Any, classes: int | Sequence[Any], count: int | None = None) -> torch.Tensor:
    """`labels` [count] as class numbers 0..C-1, [count] int64 on the CPU.

    Args:
        name: what errors call them.
        labels: a tensor, an array, a list or a pandas series.
        classes: as in `LabelOnly`.
        count: None for any number of labels.

    Raises TypeError for labels that are not integers where `classes` is a number, ValueError for a label that is none
    of the classes, or another shape.
    """
    given = labels.detach().cpu().numpy() if isinstance(labels, torch.Tensor) else np.asarray(labels)
    if given.ndim != 1 or count not in (None, len(given)):
        points = "point" if count is None else f"of {count} points"
        raise ValueError(f"{name}: expected one label for each {points}, got shape {list(given.shape)}")
    if isinstance(classes, int):
        if given.dtype.kind not in "iu":
            raise TypeError(f"{name}: expected integer labels in 0..{classes - 1}, got {given.dtype}")
        number = torch.from_numpy(given.astype(np.int64))
        check.labels(name, number, classes)
        return number
    known = {label: number for number, label in enumerate(np.asarray(classes).tolist())}
    numbers = [known.get(label, -1) for label in given.tolist()]
    if -1 in numbers:
        first = numbers.index(-1)
        raise ValueError(
            f"{name}: expected labels among {list(known)[:20]}, got {given.tolist()[first]!r} at {first} "
            f"(and {numbers.count(-1) - 1} more)"
        )
    return torch.tensor(numbers, dtype=torch.int64)
