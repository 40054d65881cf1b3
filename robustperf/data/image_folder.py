"""`ImageFolder`: a folder of images in the form of ImageNet, read one by one as they are asked for."""

from __future__ import annotations

import copy
import operator
import os
from pathlib import Path

import numpy as np
import torch
from torch.utils import data

from robustperf import check
from robustperf.data.dataset import Dataset
from robustperf.data.image_files import SUFFIXES, check_pixels, read_image
from robustperf.names import check_name

SPLITS = ("train", "val", "test")


class ImageFolder(data.Dataset):
    """The images of PATH/SPLIT/CLASS/*.jpeg (.bmp, .jpg, .png, .ppm, .webp), read when they are asked for.

    `folder[i]` is (image, label): the image float32 [3, size, size] in [0, 1], the label an int in 0..classes-1. Its
    short side is resized to size × 256/224 (Pillow's bilinear filter, which averages where it shrinks), then its centre
    is cut out. The order is that of the classes, then that of the files' names. Goes into a torch `DataLoader`, with
    workers too.

    Attributes:
        name: the name of PATH.
        class_names: the names of the folders in PATH/train (in PATH/SPLIT where there is no train), sorted; a label is
            the place in it. Folders whose names start with a dot are none.
        y: labels, int64 [N].

    Args:
        path: the folder that holds the splits.
        split: "train", "val" or "test"; "test" is PATH/val where there is no PATH/test.
        size: the side of the images in pixels.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: an unknown split, a size that is no integer above 0, no images, or a class that PATH/train lacks. A
            broken image, or one of more pixels than Pillow's limit, is a ValueError that names it when it is asked for.
    """

    def __init__(self, path: str | os.PathLike, split: str = "train", size: int = 224) -> None:
        path = Path(path)
        check_name("split", split, SPLITS)
        self.size = check.positive("size", size, integer=True)
        folder = path / split
        if split == "test" and not folder.exists():
            folder = path / "val"
        self.name = path.resolve().name
        self.class_names = _class_names(path / "train" if (path / "train").is_dir() else folder)
        self._files: list[Path] = []
        labels = []
        for name in _class_names(folder):
            if name not in self.class_names:
                raise ValueError(f"{folder / name}: expected one of the {self.classes} classes of {path / 'train'}")
            files = sorted(file for file in (folder / name).iterdir() if file.suffix.lower() in SUFFIXES)
            self._files += files
            labels += [self.class_names.index(name)] * len(files)
        if not labels:
            raise ValueError(f"{folder}: expected a folder of images for each class, found no image")
        self.y = torch.tensor(labels)

    @property
    def classes(self) -> int:
        """The number of classes."""
        return len(self.class_names)

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        row = operator.index(index)
        if not 0 <= row < len(self):
            raise IndexError(f"index: expected one in 0..{len(self) - 1}, got {row}")
        pixels = torch.from_numpy(_centre(self._files[row], self.size))
        return pixels.permute(2, 0, 1).to(torch.float32, memory_format=torch.contiguous_format) / 255, int(self.y[row])

    def limit(self, n: int) -> ImageFolder:
        """The first `n` images (all of them if there are fewer); they are of the first classes."""
        if n < 0:
            raise ValueError(f"n: expected 0 or more, got {n}")
        few = copy.copy(self)
        few._files, few.y = self._files[:n], self.y[:n]
        return few

    def read(self) -> Dataset:
        """All images at once, as a `Dataset` in memory: 12 × size² bytes each."""
        x = torch.empty(len(self), 3, self.size, self.size)
        for row in range(len(self)):
            x[row] = self[row][0]
        return Dataset(self.name, x, self.y.clone(), self.classes)


def _class_names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _centre(path: Path, size: int) -> np.ndarray:
    """The centre of the image at `path`: uint8 [size, size, 3], writable."""
    from PIL import Image

    image = read_image(path)
    short = round(size * 256 / 224)
    width, height = (short * side // min(image.size) for side in image.size)
    check_pixels(f"{path}: resized", (width, height))  # a long strip grows by its short side
    left, upper = round((width - size) / 2), round((height - size) / 2)
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    return np.array(image.crop((left, upper, left + size, upper + size)))
