"""The domains of R section 6 that several tables share."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from typing import Any

import torch

from benchmarks.paper.robey import Scale, sample
from robustperf import random
from robustperf.data import Dataset, domain, load
from robustperf.nuisance import BackgroundColour

DIGITS = 32  # pixels (R A.2)
BLUES = BackgroundColour((0.0, 0.0, 0.5), (0.3, 0.3, 1.0))
REDS = BackgroundColour((0.5, 0.0, 0.0), (1.0, 0.3, 0.3))


@dataclass(frozen=True)
class Shift:
    """Training images of domain A, and training and test images of domain B."""

    a: Dataset
    b: Dataset
    test: Dataset


def loaded(name: str, scale: Scale, arguments: argparse.Namespace) -> tuple[Dataset, Dataset]:
    """(training images, test images); for SVHN the prepared digits where the published ones are not in the folder."""
    size = {"size": scale.side} if scale.side and name in ("gtsrb", "cure-tsr") else {}
    try:
        return tuple(load(name, split, arguments.data_root, **size) for split in ("train", "test"))
    except FileNotFoundError:
        if name != "svhn":
            raise
        return loaded("svhn-mini", scale, arguments)


def between(name: str, a: str, b: str, scale: Scale, arguments: argparse.Namespace) -> Shift:
    """The shift from one domain of a data set to another, such as from brightness:low to brightness:high. All training
    images are there to learn a kernel from; `limited` has the sample that classifiers are trained and tested on."""
    train, test = loaded(name, scale, arguments)
    return Shift(domain(train, a), domain(train, b), domain(test, b))


def name_of(domain: Dataset) -> str:
    """The name of the data set that a domain is of."""
    return domain.name.partition(" ")[0]


def limited(shift: Shift, scale: Scale) -> Shift:
    """At most as many images as the scale has."""
    return Shift(sample(shift.a, scale.samples), sample(shift.b, scale.samples), sample(shift.test, scale.tests))


def on_background(dataset: Dataset, colours: BackgroundColour, name: str, key: int) -> Dataset:
    """Each image on a background of a random colour."""
    x = colours.draw(dataset.x, key=random.key(key), index=torch.arange(len(dataset)))[0]
    return replace(dataset, name=f"{dataset.name} {name}", x=x)


def blue_to_red(name: str, scale: Scale, arguments: argparse.Namespace) -> Shift:
    """Digits, letters or clothes on blue, and on red. Of KMNIST only the test images are used where the training images
    are not in the folder, a fifth of them for testing."""
    train, test = _splits(name, arguments.data_root)
    train, test = sample(train, scale.samples).resized(DIGITS), sample(test, scale.tests).resized(DIGITS)
    return Shift(
        on_background(train, BLUES, "blue", 1),
        on_background(train, REDS, "red", 3),
        on_background(test, REDS, "red", 2),
    )


def _splits(name: str, root: Any) -> tuple[Dataset, Dataset]:
    """(training images, test images)"""
    test = load(name, "test", root)
    try:
        return load(name, "train", root), test
    except FileNotFoundError:
        if name != "kmnist":
            raise
    order = torch.randperm(len(test), generator=torch.Generator().manual_seed(0))
    tests = len(test) // 5
    return test.rows(order[tests:]), test.rows(order[:tests])
