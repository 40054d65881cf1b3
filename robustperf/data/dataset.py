"""`Dataset`: images and labels in the form that the whole library works on."""

import operator
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.nn import functional
from torch.utils import data

from robustperf import check
from robustperf.data.class_names import class_labels, ranges, relabelled, shown
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
        class_names: the name of each class; by default the labels themselves, "0" and so on.

    Raises:
        TypeError: x or y has a wrong dtype.
        ValueError: a wrong shape, different lengths, values out of range (including NaN), or class names that are not
            one for each class.

    >>> Dataset("toy", torch.rand(6, 1, 8, 8), torch.arange(6) % 2, classes=2)
    Dataset(toy, n=6, shape=(1, 8, 8), classes=2)
    """

    name: str
    x: torch.Tensor
    y: torch.Tensor
    classes: int
    class_names: tuple[str, ...] = ()

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
        class_names = tuple(self.class_names) or tuple(map(str, range(self.classes)))
        if len(set(class_names)) != self.classes or len(class_names) != self.classes:
            raise ValueError(
                f"{self.name}: class_names: expected {self.classes} different names, got {shown(class_names)}"
            )
        object.__setattr__(self, "class_names", class_names)

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

    @staticmethod
    def concatenate(datasets: "Sequence[Dataset]", *, name: str | None = None) -> "Dataset":
        """The points of all `datasets`, one data set after the other; a copy.

        Args:
            datasets: data sets with images of one shape and with the same classes.
            name: of the result; by default their names, joined by " + ".

        Raises:
            TypeError: not a list of data sets, such as an `ImageFolder` (see `ImageFolder.read`).
            ValueError: no data set, or images of different shapes, or different classes or names of classes.

        A point that two of them hold is there twice: `robustperf.data.domain` forms unions of domains without that.

        >>> Dataset.concatenate([rp.data.load("digits", "train"), rp.data.load("digits", "test")])
        Dataset(digits, n=1797, shape=(1, 8, 8), classes=10)
        """
        if isinstance(datasets, Dataset) or not isinstance(datasets, Sequence):
            raise TypeError(f"datasets: expected a list of data sets, got {type(datasets).__name__}")
        if not datasets:
            raise ValueError("datasets: expected at least one data set, got none")
        for each in datasets:
            if not isinstance(each, Dataset):
                raise TypeError(f"datasets: expected data sets in memory, got {type(each).__name__}")
        first = datasets[0]
        for each in datasets[1:]:
            if each.x.shape[1:] != first.x.shape[1:]:
                raise ValueError(
                    f"datasets: expected images of one shape (see Dataset.resized and Dataset.rgb), got"
                    f" {list(first.x.shape[1:])} in {first.name} and {list(each.x.shape[1:])} in {each.name}"
                )
            if each.class_names != first.class_names:
                raise ValueError(
                    f"datasets: expected the same classes, got {first.classes} in {first.name}"
                    f" ({shown(first.class_names)}) and {each.classes} in {each.name} ({shown(each.class_names)})"
                )
        joined = " + ".join(dict.fromkeys(each.name for each in datasets))
        return replace(
            first,
            name=joined if name is None else name,
            x=torch.cat([each.x for each in datasets]),
            y=torch.cat([each.y for each in datasets]),
        )

    def select_classes(self, classes: Sequence[int | str]) -> "Dataset":
        """A copy of the points of these classes, in their order, labelled 0..len(classes)-1.

        Args:
            classes: labels or class names, each once; the first becomes label 0, the second label 1 and so on.

        Returns:
            A data set named after this one and the classes, such as "digits classes:3,5-7"; `class_names` keeps their
            names.

        Raises:
            TypeError: not a list, or an entry that is neither an integer nor text.
            ValueError: no class, an unknown one, one that occurs twice, or no point of these classes.

        >>> rp.data.load("digits").select_classes([3, 5]).class_names
        ('3', '5')
        """
        labels = class_labels(classes, self.class_names)
        rows, y = relabelled(self.y, labels)
        names = tuple(self.class_names[label] for label in labels)
        name = f"{self.name} classes:{ranges(labels)}"
        return Dataset(name, self.x[rows], y, len(labels), names)

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
