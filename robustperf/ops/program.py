"""A nuisance kernel as a program: steps that run one after the other on each image, in one pass over it.

Every backend runs the same programs; `robustperf.nuisance` writes them. A backend receives a program as two flat lists,
`codes` and `parameters`, which `steps_of` decodes. The enums, the constants and the order of the fields are those of
csrc/core/program.hpp.
"""

from __future__ import annotations

from collections.abc import Iterator
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


class Distribution(IntEnum):
    """How a step's delta is drawn."""

    BOX = 0  # uniform, each component between bounds of its own
    EVERYWHERE = 1  # uniform, all components between the first bounds
    NORMAL = 2  # centred normals whose standard deviation is the first upper bound
    BALL = 3  # uniform in the L2 ball whose radius is the first upper bound
    FOG = 4  # the first component uniform between the first bounds, the others in [0, 1)
    SHARED = 5  # not drawn: the delta of an earlier step


class Source(IntEnum):
    """Which colour BACKGROUND replaces."""

    GREY = 0  # black of grey images
    CORNER = 1  # that of the first pixel
    COLOUR = 2  # the one in the settings


class Outside(IntEnum):
    """The values that AFFINE reads outside the image."""

    ZEROS = 0
    BORDER = 1


AFFINE_PARAMETERS = ("rotation", "translation_x", "translation_y", "scale", "shear_x", "shear_y")
"""AFFINE's parameters in the order of its mask's bits: degrees, fractions of width and height, zoom - 1, degrees."""

OCTAVES = 4
LATTICES = tuple(2 ** (octave + 1) + 1 for octave in range(OCTAVES))
"""Nodes along a side of each of FOG's lattices of random numbers."""
FOG_NODES = sum(side * side for side in LATTICES)

GREY_WEIGHTS = (0.2989, 0.587, 0.114)
"""torchvision's weights of red, green and blue."""

MAX_STEPS = 32
MAX_RADIUS = 64
"""The largest radius of BLUR, in pixels."""

_CODES, _BOUNDS, _SETTINGS = 4, 6, 4  # of one step
_PARAMETERS = 2 * _BOUNDS + _SETTINGS
_DRAWN_PER_PIXEL = (Transform.ADD, Transform.IMPULSE, Transform.SHOT)
_RGB = (Transform.SATURATION, Transform.HUE)


Shape = tuple[int, int, int]
"""[C, H, W] of an image."""


class Step(NamedTuple):
    """One transform and the distribution of its delta.

    Args:
        transform: what it does to the image.
        distribution: how its delta is drawn.
        lower, upper: bounds of delta as the distribution needs them, at most six each.
        settings: at most four numbers that the transform needs.
        name: for error messages.
    """

    transform: Transform
    distribution: Distribution
    lower: tuple[float, ...]
    upper: tuple[float, ...]
    settings: tuple[float, ...] = ()
    name: str = ""

    def dim(self, shape: Shape | None) -> int:
        """Components of delta for an input image [C, H, W].

        Raises ValueError where the number depends on the shape and `shape` is None.
        """
        if self.transform in _DRAWN_PER_PIXEL:
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
        """The output's shape for an input image [C, H, W]; ValueError for a shape that the transform cannot take."""
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
    """A sequence of steps.

    Args:
        steps: 1 to 32 of them, in the order in which they run.
        groups: a number for each step; steps with the same number share the delta of the first of them. Empty: every
            step has a delta of its own.

    Raises ValueError for a wrong number of steps.
    """

    steps: tuple[Step, ...]
    groups: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not 0 < len(self.steps) <= MAX_STEPS:
            raise ValueError(f"program: expected 1 to {MAX_STEPS} steps, got {len(self.steps)}")

    def layout(self, shape: Shape | None) -> Layout:
        """The program for images of one shape [C, H, W], or of any shape where delta does not depend on it.

        Raises ValueError for a shape that a step cannot take.
        """
        make = _layout.__wrapped__ if torch.compiler.is_compiling() else _layout  # Dynamo warns of caches
        return make(self, shape if shape is None else tuple(shape))


class Layout(NamedTuple):
    """A program for images of one shape, as the backends receive it."""

    codes: list[int]  # four per step: transform, distribution, components of delta, their offset in delta
    parameters: list[float]  # sixteen per step: six lower bounds, six upper bounds, four settings; padded with 0
    dim: int  # components of delta


class EncodedStep(NamedTuple):
    """One step of a layout."""

    transform: int
    distribution: int
    dim: int  # components of delta
    offset: int  # of the first one in delta
    word: int  # of the first one among the random words of a draw; see `draws`
    lower: tuple[float, ...]  # six
    upper: tuple[float, ...]  # six
    settings: tuple[float, ...]  # four


def steps_of(codes: list[int], parameters: list[float]) -> Iterator[EncodedStep]:
    """The steps that a layout's `codes` and `parameters` hold.

    A step takes a random word for each component of its delta (BALL one more, for the radius), and the next step those
    that follow. A SHARED step takes none.
    """
    word = 0
    for step in range(len(codes) // _CODES):
        transform, distribution, dim, offset = codes[_CODES * step : _CODES * (step + 1)]
        numbers = tuple(parameters[_PARAMETERS * step : _PARAMETERS * (step + 1)])
        lower, upper, settings = numbers[:_BOUNDS], numbers[_BOUNDS : 2 * _BOUNDS], numbers[2 * _BOUNDS :]
        yield EncodedStep(transform, distribution, dim, offset, word, lower, upper, settings)
        if distribution != Distribution.SHARED:
            word += dim + (distribution == Distribution.BALL)


def channels_out(codes: list[int], channels: int) -> int:
    """Channels of the output of a program with these codes, for an input of `channels` channels."""
    return 3 if int(Transform.BACKGROUND) in codes[::_CODES] else channels


def delta_dim(codes: list[int]) -> int:
    """Components of delta of a program with these codes."""
    drawn = zip(codes[1::_CODES], codes[2::_CODES], strict=True)
    return sum(dim for distribution, dim in drawn if distribution != Distribution.SHARED)


@cache
def _layout(program: Program, shape: Shape | None) -> Layout:
    codes: list[int] = []
    parameters: list[float] = []
    total = 0
    first_of: dict[int, tuple[int, int]] = {}  # by group: offset and components
    for number, step in enumerate(program.steps):
        dim = step.dim(shape)
        group = program.groups[number] if program.groups else number
        distribution = Distribution.SHARED if group in first_of else step.distribution
        offset, first_dim = first_of.setdefault(group, (total, dim))
        if dim != first_dim:
            raise ValueError(
                f"x: {step.name} has {dim} components of delta for this shape and shares the delta of a step that has "
                f"{first_dim}"
            )
        if distribution != Distribution.SHARED:
            total += dim
        codes += [int(step.transform), int(distribution), dim, offset]
        for values, places in ((step.lower, _BOUNDS), (step.upper, _BOUNDS), (step.settings, _SETTINGS)):
            parameters += [float(value + 0.0) for value in values] + [0.0] * (places - len(values))
        shape = shape if shape is None else step.shape_after(shape)
    return Layout(codes, parameters, total)
