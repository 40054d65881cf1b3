"""ImageNet and Tiny ImageNet with corruptions: R section 6.2 learns G on classes 0 to 9 and classifies the next 50.

ROOT/imagenet holds train and val, and ROOT/imagenet-c/CORRUPTION/SEVERITY the classes' folders, as published; under two
corruptions at once (R Appendix C.2) it is imagenet-c/brightness+fog/SEVERITY. Tiny ImageNet is corrupted by the
library's kernels instead.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.paper.robey import Scale, learned, sample
from robustperf import random
from robustperf.data import Dataset, ImageFolder, load
from robustperf.kernel import Kernel
from robustperf.names import ROOT_VARIABLE
from robustperf.nuisance import Brightness, Compose, Contrast, Fog, LearnedKernel

FOR_G, FOR_CLASSIFIERS = range(10), range(10, 60)
STRONG = {"brightness": Brightness((0.8, 1.6)), "contrast": Contrast((-0.85, -0.65)), "fog": Fog((1.5, 2.5))}
_SIZE, _TINY = 224, 32  # pixels


def add_options(options: argparse.ArgumentParser) -> None:
    """The options of the tables on ImageNet."""
    options.add_argument("--data", choices=["tiny-imagenet", "imagenet"], default="tiny-imagenet")
    add_severity(options)


def add_severity(options: argparse.ArgumentParser) -> None:
    """The option of the tables that read ImageNet-C."""
    options.add_argument("--severity", type=int, default=3, help="of ImageNet-C, 1 to 5, which R does not give")


def images(split: str, classes: range, scale: Scale, arguments: argparse.Namespace) -> Any:
    """Uncorrupted images: in memory, or in files that are read when they are needed."""
    if arguments.data == "tiny-imagenet":
        whole = _tiny(split, arguments.data_root, scale.side or _TINY)
        return sample(whole.select_classes(classes), scale.samples if split == "train" else scale.tests)
    return ImageFolder(_root(arguments) / "imagenet", split, size=_SIZE).select_classes(classes)


@cache
def _tiny(split: str, root: Path | None, size: int) -> Dataset:
    return load("tiny-imagenet", split, root, size=size)


def corrupted(name: str, classes: range, scale: Scale, arguments: argparse.Namespace, split: str = "test") -> Any:
    """Images under a corruption, or under two as in "brightness+fog"; of ImageNet those of the validation set."""
    if arguments.data == "tiny-imagenet":
        return under(images(split, classes, scale, arguments), known(name), name)
    return ImageFolder(_as_split(name, arguments), "val", size=_SIZE).select_classes(classes)


def kernel_of(name: str, scale: Scale, arguments: argparse.Namespace, size: int | None = None) -> LearnedKernel:
    """G from clean images of classes 0 to 9 to corrupted ones. Of Tiny ImageNet one half is clean and the other
    corrupted: no image of A has its original in B.

    Args:
        size: of the images of ImageNet in pixels; None for 224.
    """
    title = f"{arguments.data} {name}"
    if arguments.data == "tiny-imagenet":
        whole = images("train", FOR_G, scale, arguments)
        order = torch.randperm(len(whole), generator=torch.Generator().manual_seed(0))
        a, b = (whole.rows(half) for half in order.chunk(2))
        return learned(title, a, under(b, known(name), name), scale, arguments)
    a = ImageFolder(_root(arguments) / "imagenet", "train", size=size or _SIZE).select_classes(FOR_G)
    b = ImageFolder(_as_split(name, arguments), "val", size=size or _SIZE).select_classes(FOR_G)
    return learned(f"{title} {arguments.severity} {size or _SIZE}", a, b, scale, arguments)


def known(name: str) -> Kernel:
    """The library's kernel of a corruption, or of two; FileNotFoundError where it has none."""
    parts = name.split("+")
    for part in parts:
        if part not in STRONG:
            raise FileNotFoundError(f"tiny-imagenet: the library has no {part}; --data imagenet reads it from files")
    return STRONG[name] if len(parts) == 1 else Compose([STRONG[part] for part in parts])


def under(dataset: Dataset, kernel: Kernel, name: str) -> Dataset:
    """A draw of each image."""
    draw = partial(kernel.draw, key=random.key(7))
    x = [draw(dataset.x[rows], index=rows)[0] for rows in torch.arange(len(dataset)).split(256)]
    return replace(dataset, name=f"{dataset.name} {name}", x=torch.cat(x))


def _root(arguments: argparse.Namespace) -> Path:
    return Path(arguments.data_root or os.environ.get(ROOT_VARIABLE, "data"))


def _as_split(name: str, arguments: argparse.Namespace) -> Path:
    """A folder whose "val" is a link to the classes of a corruption, which `ImageFolder` reads."""
    source = _root(arguments) / "imagenet-c" / name / str(arguments.severity)
    if not source.is_dir():
        raise FileNotFoundError(f"no folder {source}")
    folder = arguments.runs / "imagenet-c" / f"{name}-{arguments.severity}"
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "val").exists():
        (folder / "val").symlink_to(source.resolve(), target_is_directory=True)
    return folder
