"""`load`: a data set by its name, from the data root, or by its path."""

from __future__ import annotations

import os
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Literal, overload

import numpy as np
import torch

from robustperf import check
from robustperf.data import domains
from robustperf.data.cure_tsr import folder_of
from robustperf.data.dataset import Dataset
from robustperf.data.fetch import BY_HAND, SOURCES
from robustperf.data.image_folder import ImageFolder
from robustperf.data.layouts import LAYOUTS, SPLITS, Layout, read_npz_pair
from robustperf.files import user_path
from robustperf.names import ROOT_VARIABLE, check_name

NAMES = ("digits", *LAYOUTS)

InMemory = Literal[
    "digits",
    "mnist",
    "fashion-mnist",
    "kmnist",
    "qmnist",
    "emnist",
    "emnist-letters",
    "emnist-digits",
    "emnist-byclass",
    "emnist-bymerge",
    "emnist-mnist",
    "usps",
    "svhn",
    "svhn-mini",
    "mnist-m",
    "gtsrb",
    "gtsrb-cropped",
    "cure-tsr",
    "cifar10",
    "tiny-imagenet",
]
"""Names that a type checker knows to load a `Dataset`, not an `ImageFolder`: `NAMES` without MNIST-C's."""

_CHANNELS = (1, 3, 4)


@overload
def load(
    name: InMemory,
    split: str = ...,
    root: str | os.PathLike[str] | None = ...,
    *,
    domain: str | None = ...,
    size: int | None = ...,
) -> Dataset: ...
@overload
def load(
    name: str | os.PathLike[str],
    split: str = ...,
    root: str | os.PathLike[str] | None = ...,
    *,
    domain: str | None = ...,
    size: int | None = ...,
) -> Dataset | ImageFolder: ...
def load(
    name: str | os.PathLike[str],
    split: str = "test",
    root: str | os.PathLike[str] | None = None,
    *,
    domain: str | None = None,
    size: int | None = None,
) -> Dataset | ImageFolder:
    """Loads a data set, in the order of its files.

    - "digits": scikit-learn's 1,797 digits of 8×8, nothing to fetch. 1,198 train and 599 test points:
      `train_test_split(test_size=1/3, stratify=y, random_state=0)`.
    - "mnist", "fashion-mnist", "kmnist" (npz files, else IDX files named as MNIST's), "qmnist", and EMNIST's parts
      "emnist" (the balanced one), "emnist-letters" (a is 0), "emnist-digits", "emnist-byclass", "emnist-bymerge",
      "emnist-mnist": 28×28, upright; "usps": 16×16 (needs h5py). The letters are also read from
      ROOT/emnist-letters/*.npz.
    - "svhn": the cropped digits, 3×32×32, with a third split, "extra". "svhn-mini": digits cut from SVHN's full images
      by its own rule, with SVHN's thresholds of domains, from ROOT/svhn-mini/*.npz.
    - "mnist-m": MNIST's digits on photographs, 3×32×32, from ROOT/mnist-m/*.npz.
    - "gtsrb": traffic signs, 43 classes. ROOT/gtsrb32/*.npz (3×32×32) if it exists and `size` is None; otherwise the
      official folders under ROOT/gtsrb, whole images resized, as in R. "gtsrb-cropped": from these folders, each image
      cropped to its sign before it is resized.
    - "cure-tsr": traffic signs under 12 challenges at levels 0 to 5, 14 classes, resized: the real images of one
      domain.
    - "mnist-c/fog" and so on, for each of MNIST-C's corruptions and "mnist-c/identity": 28×28, from the published npy
      files under ROOT/mnist_c/fog and so on.
    - "cifar10": the first 1,017 images of each batch, 3×32×32.
    - "tiny-imagenet": JPEG files in a folder for each class, whose names are the `class_names`: 3×64×64 in memory.
    - a path that ends in .npz: `images`, `labels` or `x`, `y`; uint8, or floats in [0, 1]; [N, H, W], [N, H, W, C]
      or [N, C, H, W] with C of 1, 3 or 4 (the last axis is tried first). The file is one split; `split` is checked
      but has no effect. `classes` is the largest label + 1.
    - a path to a folder with train/CLASS/*.jpeg, and val/ or test/ beside it, as ImageNet has: an `ImageFolder`.

    Args:
        name: one of the names above, or a path.
        split: "train" or "test".
        root: the data root, with one folder per data set; None for the environment variable ROBUSTPERF_DATA.
        domain: only the images in one domain (R section 6): a challenge of CURE-TSR and its level, such as "snow:3"
            (None and "snow:0" are no challenge); or, for every data set in memory, a measure and a level or bounds,
            such as "brightness:low"; or unions and intersections of these, such as "brightness:low | contrast:low" and
            "snow:3 & brightness:-80" (see `robustperf.data.domain`).
        size: the side in pixels to resize images to as they are read: gtsrb from the official folders, gtsrb-cropped
            and cure-tsr (None for 32), tiny-imagenet (None for 64), an `ImageFolder` (None for 224). See
            `Dataset.resized` for the others.

    Returns:
        The split, in memory unless it is an `ImageFolder`; uint8 images are divided by 255.

    Raises:
        ValueError: an unknown name, split or domain; an empty domain; a size for images of one size; no root; a damaged
            file, which the error names.
        FileNotFoundError: a file is missing; the message says how to get it.
        ImportError: "usps" without h5py.

    >>> load("digits", "test")
    Dataset(digits, n=599, shape=(1, 8, 8), classes=10)
    """
    name = os.fspath(name)
    if domain is not None and name == "cure-tsr":
        return _cure_tsr(split, root, domain, size)
    dataset = _load(name, split, root, None, size)
    if domain is None:
        return dataset
    if isinstance(dataset, ImageFolder):
        raise ValueError(f"domain: expected None for a folder of images (see ImageFolder.read), got {domain!r}")
    return domains.domain(dataset, domain)


def missing_files(name: str, split: str, root: str | os.PathLike[str] | None = None) -> list[Path]:
    """The missing files of `load(name, split, root)`; none for "digits"."""
    return [] if name == "digits" else [path for path in _find(name, split, root)[1] if not path.exists()]


def _cure_tsr(split: str, root: str | os.PathLike[str] | None, domain: str, size: int | None) -> Dataset:
    """A domain of CURE-TSR, whose challenges are folders: the images of each folder that `domain` names, in the order
    of the names, without those that the measures exclude."""
    of_challenge: dict[str, tuple[str | None, list[list[str]]]] = {}
    for terms in domains.alternatives(domain):
        measured = [term for term in terms if term.partition(":")[0] in domains.MEASURES]
        challenges = [term for term in terms if term not in measured] or [None]
        if len(challenges) > 1:
            raise ValueError(f"domain: expected one challenge, for no image is under two, got {' & '.join(challenges)}")
        of_challenge.setdefault(folder_of(challenges[0]), (challenges[0], []))[1].append(measured)
    parts, spreads = [], []
    for challenge, measured in of_challenge.values():
        dataset = _load("cure-tsr", split, root, challenge, size)
        inside, spread = domains.members(dataset, measured)
        parts.append(dataset if inside.all() else dataset.rows(inside))
        spreads.append(spread)
    if not any(map(len, parts)):
        raise ValueError(f"domain: expected images of cure-tsr with {domain}, got none: {'; '.join(spreads)}")
    whole = parts[0] if len(parts) == 1 else Dataset.concatenate(parts)
    return replace(whole, name=f"cure-tsr {domain}")


def _load(
    name: str, split: str, root: str | os.PathLike[str] | None, challenge: str | None, size: int | None
) -> Dataset | ImageFolder:
    if name not in NAMES and not name.endswith(".npz"):
        if user_path(name).is_dir():
            return ImageFolder(name, split, **({} if size is None else {"size": size}))
        check_name("name", name, NAMES, ", a path that ends in .npz or a folder of images")
    splits = LAYOUTS[name][0].files if name in LAYOUTS else SPLITS
    check_name("split", split, splits)
    if size is not None and all(layout.side is None for layout in LAYOUTS.get(name, ())):
        raise ValueError(f"size: expected None for {name}, its images have one size (see Dataset.resized), got {size}")
    if name.endswith(".npz"):
        path = user_path(name)
        return _dataset(path.stem, *read_npz_pair([path], split), None, [path])
    if name == "digits":
        return _digits(split)
    layout, paths = _find(name, split, root, challenge, size)
    for path in paths:
        if not path.exists():
            raise FileNotFoundError(f"{name} ({split}): no file {path}; {_how_to_get(name, path)}")
    sides = [] if layout.side is None else [check.integer("size", layout.side if size is None else size, 1)]
    read = layout.read(paths, split, *sides)
    if isinstance(read, ImageFolder):
        return replace(read.read(), name=name)
    return _dataset(name, *read, layout.classes, paths)


def _find(
    name: str, split: str, root: str | os.PathLike[str] | None, challenge: str | None = None, size: int | None = None
) -> tuple[Layout, list[Path]]:
    """The first layout of `name` whose files exist, or the first of all, and its files; with `size`, only layouts whose
    images are resized."""
    if root is None:
        root = os.environ.get(ROOT_VARIABLE)
    if not root:
        raise ValueError(
            f"root: {name} needs the data root: pass root=DIR or set the environment variable"
            f" {ROOT_VARIABLE}; `robustperf data fetch NAME --data-root DIR` fills one"
        )
    found = [
        (
            layout,
            [
                _present(user_path(root) / layout.folder / file.format(challenge=folder_of(challenge)))
                for file in layout.files[split]
            ],
        )
        for layout in LAYOUTS[name]
        if size is None or layout.side is not None
    ]
    return next((each for each in found if all(path.exists() for path in each[1])), found[0])


def _present(path: Path) -> Path:
    """`path`, or the decompressed file beside it if only that one exists."""
    raw = path.with_suffix("") if path.suffix == ".gz" else path
    return raw if raw.exists() and not path.exists() else path


def _how_to_get(name: str, path: Path) -> str:
    if name in SOURCES and path.name in {file.name for file in SOURCES[name].files}:
        return f"fetch it with: robustperf data fetch {name} --data-root {shlex.quote(str(path.parent.parent))}"
    return f"put it there, no mirror is known for it{f': {BY_HAND[name]}' if name in BY_HAND else ''}"


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
    """The `Dataset` of arrays read from `paths`, which its errors name; `classes` None for the largest label + 1."""
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
    """int64 [N] from any integers; `Dataset` checks their range."""
    if labels.dtype.kind not in "iu" or labels.ndim != 1:
        raise ValueError(f"{path}: expected integer labels [N], found {list(labels.shape)} of {labels.dtype}")
    return torch.from_numpy(labels.astype(np.int64))
