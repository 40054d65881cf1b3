"""A nuisance kernel as a program: steps that are run one after the other on each image, in one pass over it.

Every backend runs the same programs; `robustperf.nuisance` writes them. Codes, settings and their order are those of
csrc/core/program.hpp.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from functools import cache
from typing import NamedTuple

import torch


class Transform(IntEnum):
    """What a step does to the image."""

    BRIGHTNESS = 0
    CONTRAST = 1
    SATURATION = 2
    HUE = 3
    GAMMA = 4
    BACKGROUND = 5
    AFFINE = 6
    ADD = 7
    IMPULSE = 8
    SHOT = 9
    BLUR = 10
    FOG = 11


class Law(IntEnum):
    """How a step's delta is drawn."""

    BOX = 0  # uniform, each component between bounds of its own
    EVERYWHERE = 1  # uniform, all components between the first bounds
    NORMAL = 2  # centred normals whose standard deviation is the upper bound
    BALL = 3  # uniform in the L2 ball whose radius is the upper bound
    FOG = 4  # the first component between the first bounds, the others in [0, 1)
    SHARED = 5  # that of an earlier step


class Source(IntEnum):
    """What BACKGROUND replaces."""

    GREY = 0
    CORNER = 1
    COLOUR = 2


class Outside(IntEnum):
    """What AFFINE finds outside the image."""

    ZEROS = 0
    BORDER = 1


PARAMETERS = ("rotation", "translation_x", "translation_y", "scale", "shear_x", "shear_y")
"""AFFINE's parameters in the order of its mask's bits: degrees, shares of width and height, zoom - 1, degrees."""

OCTAVES = 4
LATTICES = tuple(2 ** (octave + 1) + 1 for octave in range(OCTAVES))
"""Nodes a side of FOG's lattices of random numbers."""
FOG_NODES = sum(side * side for side in LATTICES)

GREY_WEIGHTS = (0.2989, 0.587, 0.114)
"""torchvision's."""

MOST_STEPS = 32
MOST_RADIUS = 64
_BOUNDS, _SETTINGS = 6, 4
_IMAGE_WIDE = (Transform.ADD, Transform.IMPULSE, Transform.SHOT)
_RGB = (Transform.SATURATION, Transform.HUE)


Shape = tuple[int, int, int]


class Step(NamedTuple):
    """One transform with the law of its delta.

    `lower`, `upper`: bounds of delta as the law wants them, at most six each. `settings`: at most four numbers that the
    transform wants. `name`: for the errors.
    """

    transform: Transform
    law: Law
    lower: tuple[float, ...]
    upper: tuple[float, ...]
    settings: tuple[float, ...] = ()
    name: str = ""

    def dim(self, shape: Shape | None) -> int:
        """Components of delta for an image of this shape that comes in."""
        if self.transform in _IMAGE_WIDE:
            if shape is None:
                raise ValueError(
                    f"shape: {self.name} has a component of delta for each value of the image: "
                    "expected (C, H, W), got None"
                )
            return shape[0] * shape[1] * shape[2]
        if self.transform == Transform.FOG:
            return 1 + FOG_NODES
        return len(self.lower)

    def shape_after(self, shape: Shape) -> Shape:
        """The shape that goes out for the one that comes in; ValueError for one that the transform cannot take."""
        channels, height, width = shape
        expected = None
        if self.transform in _RGB or (self.transform == Transform.BACKGROUND and self.settings[0] != Source.GREY):
            expected = None if channels == 3 else "RGB images, 3 channels"
        elif self.transform == Transform.BACKGROUND:
            expected = None if channels == 1 else "grey images, 1 channel"
        elif self.transform == Transform.CONTRAST and channels not in (1, 3):
            expected = "grey or RGB images, 1 or 3 channels"
        elif self.transform == Transform.BLUR and self.settings[0] >= min(height, width):
            expected = f"images larger than the blur's radius {self.settings[0]:g}"
        if expected:
            raise ValueError(f"x: {self.name} expected {expected}, got {list(shape)}")
        return (3 if self.transform == Transform.BACKGROUND else channels, height, width)


@dataclass(frozen=True)
class Program:
    """Steps and which of them share the delta of the first one that has the same number in `groups`.

    An empty `groups` gives every step components of its own.
    """

    steps: tuple[Step, ...]
    groups: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not 0 < len(self.steps) <= MOST_STEPS:
            raise ValueError(f"program: expected 1 to {MOST_STEPS} steps, got {len(self.steps)}")

    def layout(self, shape: Shape | None) -> Layout:
        """The program for images of one shape [C, H, W], or of any where delta does not depend on it; ValueError for a
        shape that a step cannot take."""
        make = _layout.__wrapped__ if torch.compiler.is_compiling() else _layout  # Dynamo warns of caches
        return make(self, shape if shape is None else tuple(shape))


def channels_out(codes: list[int], channels: int) -> int:
    """Channels of the result of a program with these codes."""
    return 3 if int(Transform.BACKGROUND) in codes[::4] else channels


def delta_dim(codes: list[int]) -> int:
    """Components of delta of a program with these codes."""
    return sum(size for law, size in zip(codes[1::4], codes[2::4], strict=True) if law != Law.SHARED)


class Layout(NamedTuple):
    """A program for images of one shape: what the backends are handed."""

    codes: list[int]  # transform, law, components of delta and where they begin, for each step
    numbers: list[float]  # lower bounds, upper bounds and settings, padded, for each step
    dim: int  # of delta


@cache
def _layout(program: Program, shape: Shape | None) -> Layout:
    codes, numbers, dim, drawn = [], [], 0, {}
    for number, step in enumerate(program.steps):
        size = step.dim(shape)
        group = program.groups[number] if program.groups else number
        law = Law.SHARED if group in drawn else step.law
        begin, first_size = drawn.setdefault(group, (dim, size))
        if size != first_size:
            raise ValueError(f"x: {step.name} has {size} components of delta here and is to share {first_size}")
        if law != Law.SHARED:
            dim += size
        codes += [int(step.transform), int(law), size, begin]
        for values, places in ((step.lower, _BOUNDS), (step.upper, _BOUNDS), (step.settings, _SETTINGS)):
            numbers += [float(value + 0.0) for value in values] + [0.0] * (places - len(values))
        shape = shape if shape is None else step.shape_after(shape)
    return Layout(codes, numbers, dim)
