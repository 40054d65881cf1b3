"""`Dataset`, images and labels in the one form the library works on, and `load`, which gets one by name."""

import os
import shlex
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from robustperf.data.fetch import BY_HAND, SOURCES
from robustperf.data.idx import read_idx
from robustperf.data.npz import images_and_labels, read_npz
from robustperf.data.usps import read_usps

ROOT_VARIABLE = "ROBUSTPERF_DATA"
SPLITS = ("train", "test")

_CHANNELS = (1, 3, 4)


@dataclass(frozen=True, eq=False)
class Dataset:
    """Labelled images.

    Attributes:
        name: what it is called in tables.
        x: images, float32 [N, C, H, W] in [0, 1].
        y: labels, int64 [N] in 0..classes-1.
        classes: the number of classes.

    Raises:
        TypeError: x or y has another dtype.
        ValueError: another shape, different lengths, or values out of range (NaN too).
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
            if not (low >= 0 and high <= 1):  # so written that NaN fails
                raise ValueError(f"{self.name}: x: expected values in [0, 1], got {low} to {high}")
        if self.y.numel():
            low, high = (bound.item() for bound in self.y.aminmax())
            if low < 0 or high >= self.classes:
                raise ValueError(f"{self.name}: y: expected labels in 0..{self.classes - 1}, got {low} to {high}")

    def __len__(self) -> int:
        return len(self.y)

    def limit(self, n: int) -> "Dataset":
        """The first `n` points (all of them if there are fewer), sharing this data set's memory.

        They are the first in the file's order: gtsrb's train split, sorted by class, begins with one class alone.
        """
        if n < 0:
            raise ValueError(f"n: expected 0 or more, got {n}")
        return replace(self, x=self.x[:n], y=self.y[:n])


@dataclass(frozen=True)
class _Files:
    """A data set on disk: its folder under the root, its number of classes, and each split's files."""

    folder: str
    classes: int
    train: tuple[str, ...]
    test: tuple[str, ...]


_IDX = {
    "train": ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
    "test": ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
}
_FILES = {
    "mnist": _Files("mnist", 10, **_IDX),
    "fashion-mnist": _Files("fashion-mnist", 10, **_IDX),
    "kmnist": _Files(
        "kmnist",
        10,
        train=("kmnist-train-imgs.npz", "kmnist-train-labels.npz"),
        test=("kmnist-test-imgs.npz", "kmnist-test-labels.npz"),
    ),
    "usps": _Files("usps", 10, train=("usps.h5",), test=("usps.h5",)),
    "gtsrb": _Files("gtsrb32", 43, train=("train.npz",), test=("test.npz",)),
    "cifar10": _Files("cifar10-prefix", 10, train=("train.npz",), test=("test.npz",)),
}
NAMES = ("digits", *_FILES)


def load(name: str | os.PathLike, split: str = "test", root: str | os.PathLike | None = None) -> Dataset:
    """Load a data set, in its file's order.

    - "digits": scikit-learn's 1,797 digits of 8×8, nothing to fetch. 1,198 train and 599 test points:
      `train_test_split(test_size=1/3, stratify=y, random_state=0)`.
    - "mnist", "fashion-mnist", "kmnist": 28×28; "usps": 16×16 (needs h5py).
    - "gtsrb": traffic signs, 43 classes; "cifar10": the first 1,017 images of each batch. Both 3×32×32.
    - a path that ends in .npz: `images`, `labels` or `x`, `y`; uint8, or floats in [0, 1]; [N, H, W], [N, H, W, C]
      or [N, C, H, W] with C of 1, 3 or 4 (the last axis is asked first). It is one split, so `split` only has to be
      valid; `classes` is the largest label + 1.

    Args:
        name: one of the names above.
        split: "train" or "test".
        root: the folder that holds a folder per data set; None for the environment variable ROBUSTPERF_DATA.

    Returns:
        The split; uint8 images are divided by 255.

    Raises:
        ValueError: an unknown name or split; no root; a damaged file (named).
        FileNotFoundError: a file is not there; the message says how to get it.
        ImportError: "usps" without h5py.
    """
    if split not in SPLITS:
        raise ValueError(f"split: expected one of {', '.join(SPLITS)}, got {split!r}")
    if str(name).endswith(".npz"):
        path = Path(name)
        images, labels = _read([path], split)
        return _dataset(path.stem, images, labels, None, [path])
    if name not in NAMES:
        raise ValueError(f"name: expected one of {', '.join(NAMES)} or a path that ends in .npz, got {str(name)!r}")
    if name == "digits":
        return _digits(split)
    paths = [_present(path) for path in split_files(name, split, root)]
    for path in paths:
        if not path.exists():
            raise FileNotFoundError(f"{name} ({split}): no file {path}; {_how_to_get(name, path)}")
    images, labels = _read(paths, split)
    return _dataset(name, images, labels, _FILES[name].classes, paths)


def split_files(name: str, split: str, root: str | os.PathLike | None = None) -> list[Path]:
    """The files that `load(name, split, root)` reads, there or not (an IDX file may also be there without its .gz)."""
    if root is None:
        root = os.environ.get(ROOT_VARIABLE)
    if not root:
        raise ValueError(
            f"root: {name} needs the folder of the data sets: pass root=DIR or set the environment variable"
            f" {ROOT_VARIABLE}; `robustperf data fetch NAME --data-root DIR` fills one"
        )
    files = _FILES[name]
    return [Path(root) / files.folder / file for file in getattr(files, split)]


def missing_files(name: str, split: str, root: str | os.PathLike | None = None) -> list[Path]:
    """Those files of `load(name, split, root)` that are not there; none for "digits"."""
    return [] if name == "digits" else [p for p in split_files(name, split, root) if not _present(p).exists()]


def _present(path: Path) -> Path:
    """`path`, or the un-gzipped file beside it where only that one exists."""
    raw = path.with_suffix("") if path.suffix == ".gz" else path
    return raw if raw.exists() and not path.exists() else path


def _how_to_get(name: str, path: Path) -> str:
    if name in SOURCES and path.name in {file.name for file in SOURCES[name].files}:
        return f"fetch it with: robustperf data fetch {name} --data-root {shlex.quote(str(path.parent.parent))}"
    return f"put it there, no mirror is known for it{f': {BY_HAND[name]}' if name in BY_HAND else ''}"


def _read(paths: list[Path], split: str) -> tuple[np.ndarray, np.ndarray]:
    """(images, labels) from one file that holds both, or from one file each."""
    if len(paths) == 2:
        read = _read_one if paths[0].suffix == ".npz" else read_idx
        return read(paths[0]), read(paths[1])
    if paths[0].suffix == ".h5":
        return read_usps(paths[0], split)
    images, labels = images_and_labels(read_npz(paths[0]), paths[0])
    if labels is None:
        raise ValueError(f"{paths[0]}: expected labels beside the images, found one array")
    return images, labels


def _read_one(path: Path) -> np.ndarray:
    """The only array of an npz file."""
    arrays = list(read_npz(path).values())
    if len(arrays) != 1:
        raise ValueError(f"{path}: expected one array, found {len(arrays)}")
    return arrays[0]


def _digits(split: str) -> Dataset:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    rows = np.arange(len(digits.target))
    train, test = train_test_split(rows, test_size=1 / 3, stratify=digits.target, random_state=0)
    chosen = train if split == "train" else test
    x = torch.from_numpy(digits.images[chosen, None] / 16).to(torch.float32)
    return Dataset("digits", x, torch.from_numpy(digits.target[chosen]).to(torch.int64), classes=10)


def _dataset(name: str, images: np.ndarray, labels: np.ndarray, classes: int | None, paths: list[Path]) -> Dataset:
    """The `Dataset` of what was read from `paths`, which its errors name; `classes` None for the largest label + 1."""
    x, y = _images(images, paths[0]), _labels(labels, paths[-1])
    if classes is None:
        classes = int(y.max()) + 1 if len(y) else 0
    try:
        return Dataset(name, x, y, classes)
    except ValueError as error:
        raise ValueError(f"{error}; read from {', '.join(map(str, paths))}") from error


def _images(images: np.ndarray, path: Path) -> torch.Tensor:
    """float32 [N, C, H, W] from uint8 0..255 or floats, with or without a channel axis."""
    if images.dtype != np.uint8 and images.dtype.kind != "f":
        raise ValueError(f"{path}: expected images of uint8 or floats in [0, 1], found {images.dtype}")
    if images.ndim == 3:
        images = images[:, None]
    elif images.ndim == 4 and images.shape[3] in _CHANNELS:
        images = images.transpose(0, 3, 1, 2)
    elif images.ndim != 4 or images.shape[1] not in _CHANNELS:
        raise ValueError(
            f"{path}: expected images [N, H, W], [N, H, W, C] or [N, C, H, W] with C one of {_CHANNELS},"
            f" found {list(images.shape)}"
        )
    scaled = torch.from_numpy(np.ascontiguousarray(images, np.float32))
    return scaled.div_(255) if images.dtype == np.uint8 else scaled


def _labels(labels: np.ndarray, path: Path) -> torch.Tensor:
    """int64 [N] from any integers; their range is `Dataset`'s to check."""
    if labels.dtype.kind not in "iu" or labels.ndim != 1:
        raise ValueError(f"{path}: expected integer labels [N], found {list(labels.shape)} of {labels.dtype}")
    return torch.from_numpy(labels.astype(np.int64))
