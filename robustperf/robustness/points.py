"""The points that margins are found of: tensors and arrays, or the samples of a data set, read batch by batch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import torch

from robustperf import check
from robustperf.classifier import Classifier, device_of
from robustperf.data.batches import load_batches
from robustperf.data.inputs import LoaderData, as_data
from robustperf.data.inputs import labels as as_labels

Labels = torch.Tensor | np.ndarray | Literal["true"] | None

_BATCH = 256  # samples that are read at a time, without a DataLoader that says so


class Points:
    """N points, on the device that the model is evaluated on; iteration yields parts of them, (x [M, ...], labels [M]
    int64 or None, sample ids [M] int64).

    Tensors are one part, on their own device. An array, and the batches of a data set, go to the model's device.

    Args:
        model: whose device it is.
        x: [N, ...], a float32 or float64 tensor or array; or a data set, a pair (x, y) or a DataLoader, as
            `training.evaluate` takes them.
        labels: [N] integers; "true" for those of the data set; None for none.
        index: [N] int64, the sample ids; None for 0..N-1.

    Raises TypeError or ValueError for anything else: for images of integers, which are not in [0, 1], "true" where x
    has no labels, or an empty data set.
    """

    def __init__(self, model: Classifier, x: Any, labels: Labels = None, index: torch.Tensor | None = None) -> None:
        self._device = device_of(model)
        self._true = isinstance(labels, str)
        if isinstance(labels, str) and labels != "true":
            raise ValueError(f"labels: expected [N] integers, 'true' or None, got {labels!r}")
        if isinstance(x, np.ndarray):
            x = torch.from_numpy(np.require(_floating(x), requirements=["C", "W"])).to(self._device)
        elif isinstance(x, torch.Tensor):
            self._device = _floating(x).device
        if isinstance(x, torch.Tensor):
            check.tensor("x", x, ("N", ...))
            if self._true:
                raise ValueError("labels: expected a data set with labels for 'true', got images only")
        elif isinstance(x, str | list | dict):
            raise TypeError(
                f"x: expected a tensor, an array, a data set, (x, y) or a DataLoader, got {type(x).__name__}"
            )
        else:
            x = as_data("x", x)
            if not len(x):
                raise ValueError("x: expected at least one sample, got an empty data set")
        self._x, self._count = x, len(x)
        if labels is not None and not self._true and not isinstance(labels, torch.Tensor):
            labels = as_labels("labels", labels).to(self._device)
        self._labels = None if labels is None or self._true else self._of_points("labels", labels)
        self._index = None if index is None else self._of_points("index", index)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor | None, torch.Tensor]]:
        index = torch.arange(self._count, device=self._device) if self._index is None else self._index
        if isinstance(self._x, torch.Tensor):
            yield self._x, self._labels, index
            return
        size = self._x.batch_size if isinstance(self._x, LoaderData) else _BATCH
        samples = torch.arange(self._count).split(size)
        for x, y, rows in load_batches(self._x, samples, self._device, labelled=self._true):
            labels = y if self._true else None if self._labels is None else self._labels[rows]
            yield _floating(x), labels, index[rows]

    def _of_points(self, name: str, values: torch.Tensor) -> torch.Tensor:
        """`values`, one for each point, on the points' device; those of tensors must be there already."""
        device = self._device if isinstance(values, torch.Tensor) and isinstance(self._x, torch.Tensor) else None
        values = check.tensor(name, values, (self._count,), dtypes=(torch.int64,), device=device)
        return values.to(self._device)


def _floating(x: Any) -> Any:
    """A tensor or an array x, if its dtype may be a floating one; TypeError for others, such as integers, whose scale
    is not known."""
    kind = x.dtype.kind if isinstance(x, np.ndarray) else "f" if x.dtype.is_floating_point else "i"
    if kind != "f":
        raise TypeError(
            f"x: expected float32 or float64 images in [0, 1], got {x.dtype}; images of 8 bits are x.float() / 255 (a "
            "tensor) or x.astype('float32') / 255 (an array)"
        )
    return x
