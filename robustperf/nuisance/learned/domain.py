"""The images of a domain A or B, and random pairs of one of each."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from robustperf import check
from robustperf.data.batches import load_batches
from robustperf.data.dataset import Dataset
from robustperf.data.inputs import Arrays, as_data

LEAST_SIDE = 8  # pixels
_DIVISOR = 4
_DIGESTED = 32  # images


@dataclass(frozen=True, eq=False)
class Domain:
    """Images without labels, in memory or read when they are needed.

    Attributes:
        name: of the argument, for errors.
        title: of the data.
        data: images [N, C, H, W] float32 in [0, 1], or a data set of images or of tuples that begin with one.
        labels: [N] int64 where they are known and in memory.
        shape: (C, H, W).
    """

    name: str
    title: str
    data: Any
    labels: torch.Tensor | None
    shape: tuple[int, int, int]

    @classmethod
    def of(cls, name: str, data: Any) -> Domain:
        """From a `Dataset`, (x, y), a tensor of images [N, C, H, W] or a torch data set.

        Raises TypeError for anything else, ValueError for no images, a wrong shape, or pixels outside [0, 1].
        """
        if isinstance(data, DataLoader):
            raise TypeError(f"{name}: expected a data set or images, got a DataLoader; pass its data set")
        title = "images" if isinstance(data, torch.Tensor) else str(getattr(data, "name", type(data).__name__))
        labels = None
        if not isinstance(data, torch.Tensor):
            data = as_data(name, data)
        if not len(data):
            raise ValueError(f"{name}: expected images, got none")
        if isinstance(data, Dataset | Arrays):
            data, labels = data.x, data.y
        first = data if isinstance(data, torch.Tensor) else _image_of(data[0])[None]
        check.tensor(name, first, ("N", "C", "H", "W"))
        if isinstance(data, torch.Tensor):
            data = check.images(name, data.detach().cpu(), (0.0, 1.0)).float()
        channels, height, width = first.shape[1:]
        if min(height, width) < LEAST_SIDE or height % _DIVISOR or width % _DIVISOR or not channels:
            raise ValueError(
                f"{name}: expected images [C, H, W] with sides of at least {LEAST_SIDE} pixels that are divisible by "
                f"{_DIVISOR}, got {list(first.shape[1:])}"
            )
        return cls(name, title, data, labels, (channels, height, width))

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, place: int) -> torch.Tensor:
        """An image [C, H, W] float32."""
        if isinstance(self.data, torch.Tensor):
            return self.data[place]
        return self._checked(_image_of(self.data[place])[None], [place])[0]

    def some(self, count: int) -> tuple[torch.Tensor, torch.Tensor | None]:
        """(images, labels or None) of at most `count` images, evenly spaced."""
        count = min(count, len(self))
        rows = torch.arange(count) * len(self) // count
        if isinstance(self.data, torch.Tensor):
            return self.data[rows], None if self.labels is None else self.labels[rows]
        (batch,) = load_batches(self.data, [rows], torch.device("cpu"), labelled=False)
        return self._checked(batch[0], rows.tolist()), None

    def describe(self) -> str:
        """Its title, size, and a digest of some images, by which a resumed run knows the data."""
        digest = hashlib.sha256(self.some(_DIGESTED)[0].numpy().tobytes()).hexdigest()[:8]
        return f"{self.title}, {len(self)} images {list(self.shape)} ({digest})"

    def _checked(self, x: torch.Tensor, places: Sequence[int]) -> torch.Tensor:
        """Images that were read just now."""
        try:
            return check.images(self.name, check.tensor(self.name, x, ("N", *self.shape)), (0.0, 1.0)).float()
        except (TypeError, ValueError) as error:
            which = f"image {places[0]}" if len(places) == 1 else f"images {places[0]} to {places[-1]}"
            raise type(error)(f"{error} (in {which})") from error


class Pairs(TorchDataset[tuple[torch.Tensor, int]]):
    """Random pairs [2, C, H, W] of an image of domain A and one of domain B, each uniform and independent: what the
    expectations of R A.3 are over. `aligned` pairs are of the images in the same place, which is uniform. They come
    from torch's global generator, which `data.batches` seeds for each pair.

    Args:
        length: the number of pairs.
        aligned: whether a and b have as many images, and each pair is of the same place.
    """

    a: Domain
    b: Domain
    length: int
    aligned: bool
    name: str

    def __init__(self, a: Domain, b: Domain, length: int, aligned: bool = False) -> None:
        self.a, self.b, self.length, self.aligned = a, b, length, aligned
        self.name = f"{'aligned ' * aligned}pairs of {a.describe()} and {b.describe()}"

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, number: int) -> tuple[torch.Tensor, int]:
        place = int(torch.randint(len(self.a), ()))
        other = place if self.aligned else int(torch.randint(len(self.b), ()))
        return torch.stack([self.a[place], self.b[other]]), 0


def domains_of(a: Any, b: Any, names: tuple[str, str] = ("a", "b")) -> tuple[Domain, Domain]:
    """Domains A and B, for the arguments with these names. Raises as `Domain.of`, and ValueError for images of
    different shapes or a domain that is given twice."""
    one, other = Domain.of(names[0], a), Domain.of(names[1], b)
    if one.shape != other.shape:
        raise ValueError(
            f"{names[1]}: expected images of the shape of {names[0]}, {list(one.shape)}, got {list(other.shape)}"
        )
    tensors = isinstance(one.data, torch.Tensor) and isinstance(other.data, torch.Tensor)
    if one.data is other.data or a is b or (tensors and torch.equal(one.data, other.data)):
        raise ValueError(f"{names[1]}: expected another domain than {names[0]}, got the same images")
    return one, other


def _image_of(sample: Any) -> torch.Tensor:
    """The image of a sample, which is one or begins with one."""
    image = sample[0] if isinstance(sample, tuple | list) and sample else sample
    if not isinstance(image, torch.Tensor):
        raise TypeError(f"data: expected images as tensors, or tuples that begin with one, got {type(image).__name__}")
    return image
