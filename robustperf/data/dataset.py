"""`Dataset`: images and labels in the form that the whole library works on."""

import operator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.nn import functional
from torch.utils import data

from robustperf import check
from robustperf.result import Result

_CHUNK = 1 << 24  # values that `resized` processes at a time


@dataclass(frozen=True, eq=False, repr=False)
class Dataset(Result, data.Dataset[tuple[torch.Tensor, int]]):
    """Labelled images in memory; also a torch data set, for `DataLoader` and `Subset`.

    `dataset[i]` is (image, label): a view float32 [C, H, W] and an int.

    Attributes:
        name: shown in tables.
        x: images, float32 [N, C, H, W] in [0, 1].
        y: labels, int64 [N] in 0..classes-1.
        classes: the number of classes.

    Raises:
        TypeError: x or y has a wrong dtype.
        ValueError: a wrong shape, different lengths, or values out of range (including NaN).

    >>> Dataset("toy", torch.rand(6, 1, 8, 8), torch.arange(6) % 2, classes=2)
    Dataset(toy, n=6, shape=(1, 8, 8), classes=2)
    """

    name: str
    x: torch.Tensor
    y: torch.Tensor
    classes: int

    def __post_init__(self) -> None:
        for argument, tensor, dtype, shape in (
            ("x", self.x, torch.float32, "[N, C, H, W]"),
            ("y", self.y, torch.int64, "[N]"),
        ):
            if tensor.dtype != dtype:
                raise TypeError(f"{self.name}: {argument}: expected {dtype}, got {tensor.dtype}")
            if tensor.ndim != shape.count(",") + 1:
                raise ValueError(f"{self.name}: {argument}: expected the shape {shape}, got {list(tensor.shape)}")
        if len(self.x) != len(self.y):
            raise ValueError(f"{self.name}: {len(self.x):,} images but {len(self.y):,} labels")
        if self.x.numel():
            low, high = (bound.item() for bound in self.x.aminmax())
            if not (low >= 0 and high <= 1):  # written so that NaN fails
                raise ValueError(f"{self.name}: x: expected values in [0, 1], got {low} to {high}")
        check.labels(f"{self.name}: y", self.y, self.classes, synchronise=True)

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        try:
            place = operator.index(index)
        except TypeError:
            raise TypeError(f"index: expected an integer, got {type(index).__name__}; `rows` takes several") from None
        if not -len(self) <= place < len(self):
            raise IndexError(f"index: expected one of {len(self)} points, got {place}")
        return self.x[place], int(self.y[place])

    def _facts(self) -> dict[str, Any]:
        return {"": self.name, "n": len(self), "shape": tuple(self.x.shape[1:]), "classes": self.classes}

    def limit(self, n: int) -> "Dataset":
        """The first `n` points, or all of them if there are fewer; shares this data set's memory.

        They are the first in the file's order: gtsrb's train split is sorted by class and begins with a single class.

        Raises ValueError unless `n` is an integer >= 0.
        """
        check.integer("n", n, 0)
        return replace(self, x=self.x[:n], y=self.y[:n])

    def rows(self, index: torch.Tensor) -> "Dataset":
        """A copy of the points that `index` selects, in its order.

        Args:
            index: int64 [M] in 0..N-1, with or without repetitions; or a bool mask [N].

        Raises:
            TypeError: not a tensor, or a wrong dtype.
            ValueError: a wrong shape, or an index out of range.
        """
        check.tensor("index", index, ("M",), dtypes=(torch.int64, torch.bool))
        if index.dtype == torch.bool:
            check.tensor("index", index, (len(self),), dtypes=(torch.bool,))
        elif index.numel():
            low, high = (bound.item() for bound in index.aminmax())
            if low < 0 or high >= len(self):
                raise ValueError(f"index: expected indices in 0..{len(self) - 1}, got {low} to {high}")
        return replace(self, x=self.x[index], y=self.y[index])

    def resized(self, size: int) -> "Dataset":
        """Every image resized to `size` × `size` pixels, by bilinear interpolation, antialiased when it shrinks.

        R A.2 uses 32, and 64 for GTSRB. Beyond its result this needs a bounded amount of memory.

        Raises ValueError unless `size` is an integer above 0, or if the images have no pixels.
        """
        check.integer("size", size, 1)
        n, *shape = self.x.shape
        if 0 in shape:
            raise ValueError(f"{self.name}: x: expected images with pixels, got shape {list(self.x.shape)}")
        channels, height, width = shape
        x = self.x.new_empty(n, channels, size, size)
        step = max(1, _CHUNK // (channels * max(height, size) * max(width, size)))
        for source, target in zip(self.x.split(step), x.split(step), strict=True):
            scaled = functional.interpolate(source, (size, size), mode="bilinear", antialias=True)
            torch.clamp(scaled, 0, 1, out=target)  # rounding may make the weights sum to more than 1
        return replace(self, x=x)

    def rgb(self) -> "Dataset":
        """Grey images with their channel repeated three times (R A.2); RGB images unchanged, sharing their memory.

        Raises ValueError for any other number of channels.
        """
        channels = self.x.shape[1]
        if channels not in (1, 3):
            raise ValueError(f"{self.name}: x: expected 1 or 3 channels, got {channels}")
        return self if channels == 3 else replace(self, x=self.x.repeat(1, 3, 1, 1))
