"""The layout of each data set on disk: the files of each split under the root, and their reader."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from robustperf.data import cure_tsr, gtsrb, mnist_c
from robustperf.data.idx import read_idx
from robustperf.data.image_folder import ImageFolder
from robustperf.data.npz import images_and_labels, read_npz
from robustperf.data.svhn import read_svhn
from robustperf.data.usps import read_usps
from robustperf.names import CORRUPTIONS

SPLITS = ("train", "test")

_SIDE = 32  # of images that come in different sizes (R A.2)

Arrays = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Layout:
    """A data set on disk.

    Attributes:
        folder: its folder under the root.
        classes: the number of classes; None where it is the number of class folders.
        files: split -> its files (or folders) under `folder`; {challenge} stands for the folder of one of CURE-TSR's
            domains.
        read: (paths, split) -> (images, labels) or a folder of images; with `side`, (paths, split, side in pixels).
        side: of the images in pixels by default, where they are resized; None where they have one size.
    """

    folder: str
    classes: int | None
    files: dict[str, tuple[str, ...]]
    read: Callable[..., Arrays | ImageFolder]
    side: int | None = None


def read_npz_pair(paths: list[Path], split: str) -> Arrays:
    """Images and labels from one npz file, or from one file each."""
    if len(paths) == 2:
        return _only_array(paths[0]), _only_array(paths[1])
    images, labels = images_and_labels(read_npz(paths[0]), paths[0])
    if labels is None:
        raise ValueError(f"{paths[0]}: expected labels beside the images, found one array")
    return images, labels


def _only_array(path: Path) -> np.ndarray:
    arrays = list(read_npz(path).values())
    if len(arrays) != 1:
        raise ValueError(f"{path}: expected one array, found {len(arrays)}")
    return arrays[0]


def _read_idx_pair(paths: list[Path], split: str) -> Arrays:
    return read_idx(paths[0]), read_idx(paths[1])


def _read_emnist(paths: list[Path], split: str) -> Arrays:
    images, labels = _read_idx_pair(paths, split)
    if images.ndim != 3:
        raise ValueError(f"{paths[0]}: expected images [N, H, W], found {list(images.shape)}")
    return images.swapaxes(1, 2), labels  # stored transposed


def _read_emnist_letters(paths: list[Path], split: str) -> Arrays:
    images, labels = _read_emnist(paths, split)
    return images, labels.astype(np.int64) - 1


def _read_qmnist(paths: list[Path], split: str) -> Arrays:
    images, labels = _read_idx_pair(paths, split)
    if labels.ndim != 2 or labels.shape[1] != 8:
        raise ValueError(f"{paths[1]}: expected labels [N, 8], found {list(labels.shape)}")
    return images, labels[:, 0]  # the others describe the writer


def _by_split(*files: str) -> dict[str, tuple[str, ...]]:
    return {split: tuple(file.format(split) for file in files) for split in SPLITS}


def _emnist(part: str, classes: int, read: Callable[..., Arrays] = _read_emnist) -> tuple[Layout]:
    files = _by_split(f"emnist-{part}-{{}}-images-idx3-ubyte.gz", f"emnist-{part}-{{}}-labels-idx1-ubyte.gz")
    return (Layout("emnist", classes, files, read),)


def _gtsrb(crop: bool) -> Layout:
    return Layout(
        "gtsrb",
        gtsrb.CLASSES,
        {"train": ("Final_Training/Images",), "test": ("Final_Test/Images",)},
        lambda paths, split, size: gtsrb.read_gtsrb(paths[0], size, crop),
        side=_SIDE,
    )


_NPZ = _by_split("{}.npz")
_IDX = {
    "train": ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
    "test": ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
}

# The first layout whose files exist is read.
LAYOUTS: dict[str, tuple[Layout, ...]] = {
    "mnist": (Layout("mnist", 10, _IDX, _read_idx_pair),),
    "fashion-mnist": (Layout("fashion-mnist", 10, _IDX, _read_idx_pair),),
    "kmnist": (
        Layout("kmnist", 10, _by_split("kmnist-{}-imgs.npz", "kmnist-{}-labels.npz"), read_npz_pair),
        Layout("kmnist", 10, _IDX, _read_idx_pair),
    ),
    "qmnist": (
        Layout("qmnist", 10, _by_split("qmnist-{}-images-idx3-ubyte.gz", "qmnist-{}-labels-idx2-int.gz"), _read_qmnist),
    ),
    "emnist": _emnist("balanced", 47),
    "emnist-letters": (
        *_emnist("letters", 26, _read_emnist_letters),
        Layout("emnist-letters", 26, _NPZ, read_npz_pair),
    ),
    "emnist-digits": _emnist("digits", 10),
    "emnist-byclass": _emnist("byclass", 62),
    "emnist-bymerge": _emnist("bymerge", 47),
    "emnist-mnist": _emnist("mnist", 10),
    "usps": (Layout("usps", 10, _by_split("usps.h5"), lambda paths, split: read_usps(paths[0], split)),),
    "svhn": (
        Layout(
            "svhn",
            10,
            _by_split("{}_32x32.mat") | {"extra": ("extra_32x32.mat",)},
            lambda paths, split: read_svhn(paths[0]),
        ),
    ),
    "svhn-mini": (Layout("svhn-mini", 10, _NPZ, read_npz_pair),),
    "mnist-m": (Layout("mnist-m", 10, _NPZ, read_npz_pair),),
    "gtsrb": (Layout("gtsrb32", gtsrb.CLASSES, _NPZ, read_npz_pair), _gtsrb(crop=False)),
    "gtsrb-cropped": (_gtsrb(crop=True),),
    "cure-tsr": (
        Layout(
            "cure-tsr",
            cure_tsr.CLASSES,
            {"train": ("Real_Train/{challenge}",), "test": ("Real_Test/{challenge}",)},
            lambda paths, split, size: cure_tsr.read_cure_tsr(paths[0], size),
            side=_SIDE,
        ),
    ),
    "cifar10": (Layout("cifar10-prefix", 10, _NPZ, read_npz_pair),),
    "tiny-imagenet": (
        Layout(
            "tiny-imagenet",
            None,
            _by_split("{}"),
            lambda paths, split, size: ImageFolder(paths[0].parent, split, size, resize=size),
            side=64,
        ),
    ),
} | {
    f"mnist-c/{corruption}": (
        Layout(
            f"mnist_c/{corruption}",
            mnist_c.CLASSES,
            _by_split("{}_images.npy", "{}_labels.npy"),
            lambda paths, split: mnist_c.read_mnist_c(*paths),
        ),
    )
    for corruption in CORRUPTIONS
}
