"""`ImageFolder`: images in folders as ImageNet has them, read one by one on access."""

from __future__ import annotations

import copy
import operator
import os
import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils import data

from robustperf import check
from robustperf.data.class_names import class_labels, ranges, relabelled
from robustperf.data.dataset import Dataset
from robustperf.data.image_files import SUFFIXES, check_pixels, read_image
from robustperf.files import user_path
from robustperf.names import check_name
from robustperf.result import Result

SPLITS = ("train", "val", "test")


class ImageFolder(Result, data.Dataset[tuple[torch.Tensor, int]]):
    """The images of PATH/SPLIT/CLASS/*.jpeg (.bmp, .jpg, .png, .ppm, .webp), read on access.

    `folder[i]` is (image, label): float32 [3, size, size] in [0, 1] and an int in 0..classes-1. The short side is
    resized to `resize` (Pillow's bilinear filter, which averages when it shrinks), then the centre is cropped.
    Images are ordered by class, then by file name. Works with a torch `DataLoader`, with workers too.

    Attributes:
        name: the name of PATH.
        class_names: the folders in PATH/train (in PATH/SPLIT if there is no train) that hold an image, sorted; a label
            is an index into it.
        y: labels, int64 [N].
        left_out: kind -> count of everything else in PATH/SPLIT: hidden files and folders (`.DS_Store`, `._a.jpg`,
            `@eaDir`), folders within a class, files of other formats, folders without images, and so on. A UserWarning
            reports them.

    Args:
        path: the folder that holds the splits.
        split: "train", "val" or "test"; "test" is PATH/val if there is no PATH/test.
        size: the side of the images in pixels.
        resize: the short side before the crop, at least `size`; None for size × 256/224. `resize=size` keeps square
            images whole.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: an unknown split, a size that is not an integer above 0, a smaller `resize`, no images, or a class
            that PATH/train lacks. Accessing a damaged image, or one with more pixels than Pillow's limit, raises a
            ValueError that names it.

    >>> ImageFolder("imagenet", "val", size=224)  # doctest: +SKIP
    """

    size: int
    resize: int
    name: str
    class_names: list[str]
    y: torch.Tensor
    left_out: dict[str, int]

    def __init__(
        self, path: str | os.PathLike[str], split: str = "train", size: int = 224, *, resize: int | None = None
    ) -> None:
        path = user_path(path)
        check_name("split", split, SPLITS)
        self.size = check.integer("size", size, 1)
        self.resize = round(size * 256 / 224) if resize is None else check.integer("resize", resize, size)
        folder = path / split
        if split == "test" and not folder.exists():
            folder = path / "val"
        if not folder.is_dir():
            expected = "test or val" if split == "test" else split
            raise FileNotFoundError(
                f"{path}: expected a folder {expected} that holds a folder of images for each class, found none"
            )
        self.name = path.resolve().name
        left_out: dict[str, list[str]] = defaultdict(list)
        found = {name: _images(folder / name, left_out) for name in _class_folders(folder, left_out)}
        left_out["folders without images"] += [name for name, files in found.items() if not files]
        found = {name: files for name, files in found.items() if files}
        train = path / "train"
        if train.is_dir() and train != folder:
            self.class_names = [name for name in _class_folders(train, None) if next(_entries(train / name), None)]
        else:
            self.class_names = list(found)
        self._files: list[Path] = []
        labels = []
        for name, files in found.items():
            if name not in self.class_names:
                raise ValueError(f"{folder / name}: expected one of the {self.classes} classes of {train}")
            self._files += files
            labels += [self.class_names.index(name)] * len(files)
        if not labels:
            raise ValueError(f"{folder}: expected a folder of images for each class, found no image{_kinds(left_out)}")
        self.y = torch.tensor(labels, dtype=torch.int64)
        self.left_out = {what: len(names) for what, names in left_out.items() if names}
        if self.left_out:
            warnings.warn(f"{folder}: read {len(labels):,} images{_kinds(left_out)}", stacklevel=2)

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
        pixels = torch.from_numpy(_centre(self._files[row], self.size, self.resize))
        return pixels.permute(2, 0, 1).to(torch.float32, memory_format=torch.contiguous_format) / 255, int(self.y[row])

    def _facts(self) -> dict[str, Any]:
        return {"": self.name, "n": len(self), "shape": (3, self.size, self.size), "classes": self.classes}

    def limit(self, n: int) -> ImageFolder:
        """The first `n` images, or all of them if there are fewer; they belong to the first classes.

        Raises ValueError unless `n` is an integer >= 0.
        """
        check.integer("n", n, 0)
        few = copy.copy(self)
        few._files, few.y = self._files[:n], self.y[:n]
        return few

    def select_classes(self, classes: Sequence[int | str]) -> ImageFolder:
        """The images of these classes, in their order, labelled 0..len(classes)-1; see `Dataset.select_classes`."""
        labels = class_labels(classes, self.class_names)
        rows, y = relabelled(self.y, labels)
        some = copy.copy(self)
        some.name = f"{self.name} classes:{ranges(labels)}"
        some._files, some.y = [self._files[row] for row in rows.tolist()], y
        some.class_names = [self.class_names[label] for label in labels]
        return some

    def read(self) -> Dataset:
        """All images as a `Dataset` in memory: 12 × size² bytes each."""
        x = torch.empty(len(self), 3, self.size, self.size, dtype=torch.float32)
        for row in range(len(self)):
            x[row] = self[row][0]
        return Dataset(self.name, x, self.y.clone(), self.classes, tuple(self.class_names))


def _class_folders(folder: Path, left_out: dict[str, list[str]] | None) -> list[str]:
    """The names of the folders in `folder`, sorted; everything else is added to `left_out`."""
    names = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if _is_hidden(entry.name):
                what = "hidden files and folders"
            elif entry.is_dir():
                names.append(entry.name)
                continue
            else:
                what = "files beside the class folders"
            if left_out is not None:
                left_out[what].append(entry.name)
    return sorted(names)


def _images(folder: Path, left_out: dict[str, list[str]]) -> list[Path]:
    """The images in a class folder, sorted by name; everything else is added to `left_out`."""
    return sorted(Path(entry) for entry in _entries(folder, left_out))


def _entries(folder: Path, left_out: dict[str, list[str]] | None = None) -> Iterator[os.DirEntry]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if _is_hidden(entry.name):
                what = "hidden files and folders"  # macOS writes ._a.jpg beside a.jpg on foreign file systems
            elif entry.is_dir():
                what = "folders within a class"
            elif Path(entry.name).suffix.lower() not in SUFFIXES:
                what = "files of other formats"
            elif not entry.is_file():
                what = "links to nothing, FIFOs, sockets or devices"
            else:
                yield entry
                continue
            if left_out is not None:
                left_out[what].append(f"{folder.name}/{entry.name}")


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name == "@eaDir"  # a NAS keeps its metadata in the latter


def _kinds(left_out: dict[str, list[str]]) -> str:
    """What is left out: the count of each kind, and an example."""
    kinds = [f"{what} ({len(names):,}, such as {min(names)})" for what, names in left_out.items() if names]
    return f"; left out: {'; '.join(kinds)}" if kinds else ""


def _centre(path: Path, size: int, short: int) -> np.ndarray:
    """The centre of the image at `path`, resized to the short side `short`: uint8 [size, size, 3], writable."""
    from PIL import Image

    image = read_image(path)
    width, height = (short * side // min(image.size) for side in image.size)
    check_pixels(f"{path}: resized", (width, height))  # a long, narrow image grows by its short side
    left, upper = round((width - size) / 2), round((height - size) / 2)
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    return np.array(image.crop((left, upper, left + size, upper + size)))
