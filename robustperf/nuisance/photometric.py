"""Colour and light. The conventions are torchvision's: contrast and saturation blend with the grey image (weights
.2989, .587, .114) of each image, hue is measured in turns, and results are clamped to [0, 1]. delta = 0 is the
identity, except for the background colour, which is delta itself. A range is a number a, for [-a, a], or bounds (lower,
upper)."""

from __future__ import annotations

import math
from collections.abc import Sequence

from robustperf.nuisance.program_kernel import ProgramKernel, box, span
from robustperf.ops.program import MAX_RADIUS, Distribution, Program, Source, Step, Transform

Range = float | tuple[float, float]


class Brightness(ProgramKernel):
    """clamp((1 + delta) x): torchvision's adjust_brightness with the factor 1 + delta.

    Args:
        amount: delta in [-amount, amount], or its bounds, at least -1. Any number of channels.

    >>> Brightness(0.4)(torch.full((1, 1, 1, 2), 0.5), torch.tensor([[[0.25]]]))  # by the factor 1 + delta
    tensor([[[[[0.6250, 0.6250]]]]])
    """

    def __init__(self, amount: Range = 0.4) -> None:
        self.program: Program = box(Transform.BRIGHTNESS, "brightness", [span("amount", amount, least=-1)])


class Contrast(ProgramKernel):
    """clamp((1 + delta) x - delta m), m the mean of the image's grey version: torchvision's adjust_contrast
    with the factor 1 + delta.

    Args:
        amount: delta in [-amount, amount], or its bounds, at least -1. Grey or RGB images.

    >>> Contrast(0.4)(torch.tensor([[[[0.25, 0.75]]]]), torch.tensor([[[-0.4]]]))
    tensor([[[[[0.3500, 0.6500]]]]])
    """

    def __init__(self, amount: Range = 0.4) -> None:
        self.program: Program = box(Transform.CONTRAST, "contrast", [span("amount", amount, least=-1)])


class Saturation(ProgramKernel):
    """clamp((1 + delta) x - delta grey(x)): torchvision's adjust_saturation with the factor 1 + delta.

    Args:
        amount: delta in [-amount, amount], or its bounds, at least -1. RGB images.

    >>> Saturation(0.5).draw(torch.rand(2, 3, 8, 8), key=0, index=torch.arange(2), draws=5).shape
    torch.Size([5, 2, 3, 8, 8])
    """

    def __init__(self, amount: Range = 0.4) -> None:
        self.program: Program = box(Transform.SATURATION, "saturation", [span("amount", amount, least=-1)], 1)


class Decolourise(ProgramKernel):
    """(1 - delta) x + delta grey(x): delta = 1 is the grey image (R's decolorization).

    Args:
        amount: delta in [0, amount], or its bounds in [0, 1]. RGB images.

    >>> red = torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1)
    >>> Decolourise()(red, torch.tensor([[[1.0]]])).flatten()
    tensor([0.2989, 0.2989, 0.2989])
    """

    def __init__(self, amount: Range = 1.0) -> None:
        self.program: Program = box(Transform.SATURATION, "decolourise", [span("amount", amount, 0, 1)], -1)


class Hue(ProgramKernel):
    """The hue rotated by delta turns: torchvision's adjust_hue. Red becomes green at delta = 1/3.

    Args:
        turns: delta in [-turns, turns], or its bounds, within [-1/2, 1/2] turns. RGB images.

    >>> red = torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1)
    >>> Hue(0.5)(red, torch.tensor([[[1 / 3]]])).flatten()  # a third of a turn: green
    tensor([0., 1., 0.])
    """

    def __init__(self, turns: Range = 0.1) -> None:
        self.program: Program = box(Transform.HUE, "hue", [span("turns", turns, -0.5, 0.5)])


class Gamma(ProgramKernel):
    """x^(1 + delta): torchvision's adjust_gamma with the exponent 1 + delta.

    Args:
        amount: delta in [-amount, amount], or its bounds, at least -1. Any number of channels.

    >>> Gamma(0.4).draw(torch.rand(2, 3, 8, 8), key=0, index=torch.arange(2), draws=5).shape
    torch.Size([5, 2, 3, 8, 8])
    """

    def __init__(self, amount: Range = 0.4) -> None:
        self.program: Program = box(Transform.GAMMA, "gamma", [span("amount", amount, least=-1)])


class BackgroundColour(ProgramKernel):
    """A white digit on a background of the colour delta (R Algorithm 1 and Figure 4).

    A pixel is a mixture of the white foreground, with weight w, and the background. The new pixel is w + (1 - w) delta.

    Args:
        low, high: bounds of delta, RGB colours in [0, 1]; one or two channels may be fixed, not all three.
        source: how w is found. "grey": w is the pixel of a grey image; [B, 1, H, W] images become RGB. "corner": RGB
            images on a background of one colour, that of their upper left pixel. A colour (r, g, b), not white: RGB
            images on that background.

    Raises ValueError for an argument out of its range.

        BackgroundColour.blue_to_red().draw(x, key=0, index=torch.arange(len(x)), draws=10)     # x [B, 3, H, W]

    >>> black = torch.zeros(1, 1, 1, 1)
    >>> BackgroundColour()(black, torch.tensor([[[0.2, 0.4, 0.6]]])).flatten()
    tensor([0.2000, 0.4000, 0.6000])
    """

    def __init__(
        self,
        low: tuple[float, float, float] = (0.0, 0.0, 0.0),
        high: tuple[float, float, float] = (1.0, 1.0, 1.0),
        source: str | tuple[float, float, float] = "grey",
    ) -> None:
        low, high = _colour("low", low), _colour("high", high)
        if low == high or any(a > b for a, b in zip(low, high, strict=True)):
            raise ValueError(f"low, high: expected low <= high, not all equal, got {low} and {high}")
        if source in ("grey", "corner"):
            settings = (Source.GREY if source == "grey" else Source.CORNER,)
        elif isinstance(source, str):
            raise ValueError(f"source: expected 'grey', 'corner' or a colour (r, g, b), got {source!r}")
        else:
            settings = (Source.COLOUR, *_colour("source", source))
            if settings[1:] == (1.0, 1.0, 1.0):
                raise ValueError("source: expected a colour other than white, which is the foreground's, got (1, 1, 1)")
        step = Step(Transform.BACKGROUND, Distribution.BOX, low, high, settings, "background_colour")
        self.program: Program = Program((step,))

    @classmethod
    def blue_to_red(cls) -> BackgroundColour:
        """Blue backgrounds become shades of red (R Figure 4 and Table 3)."""
        return cls((0.5, 0.0, 0.0), (1.0, 0.3, 0.3), "corner")

    @classmethod
    def any_to_any(cls) -> BackgroundColour:
        """A background of any colour but white becomes any other colour (R Figure 4)."""
        return cls(source="corner")


class Blur(ProgramKernel):
    """Gaussian blur with the standard deviation delta, in pixels. The images are reflected at the edges, as in
    torchvision's gaussian_blur; the radius is 3 times the largest delta.

    Args:
        sigma: delta in [0, sigma], or its bounds, from 0 to 21 pixels. Images larger than the radius.

    >>> Blur(1.5).draw(torch.rand(2, 1, 8, 8), key=0, index=torch.arange(2), draws=5).shape
    torch.Size([5, 2, 1, 8, 8])
    """

    def __init__(self, sigma: Range = 1.5) -> None:
        bounds = span("sigma", sigma, 0, MAX_RADIUS / 3)
        self.program: Program = box(Transform.BLUR, "blur", [bounds], math.ceil(3 * bounds[1]))


class Fog(ProgramKernel):
    """clamp((x + s P) m / (m + s)), the fog of ImageNet-C with another field P.

    m is the image's maximum. P in [0, 1] is the sum of four octaves of bilinear noise with 3, 5, 9 and 17 nodes a side,
    each of half the weight of the previous one. delta holds the strength s and the 404 nodes.

    Args:
        strength: s in [0, strength], or its bounds, at least 0. Any number of channels.

    >>> Fog(0.8).draw(torch.rand(2, 3, 8, 8), key=0, index=torch.arange(2), draws=5).shape
    torch.Size([5, 2, 3, 8, 8])
    """

    def __init__(self, strength: Range = 0.8) -> None:
        lower, upper = span("strength", strength, least=0)
        self.program: Program = Program((Step(Transform.FOG, Distribution.FOG, (lower,), (upper,), (), "fog"),))


def _colour(name: str, value: Sequence[float]) -> tuple[float, ...]:
    try:
        colour = tuple(map(float, () if isinstance(value, str) else value))
    except (TypeError, ValueError):
        colour = ()
    if len(colour) != 3 or not all(0 <= channel <= 1 for channel in colour):
        raise ValueError(f"{name}: expected three numbers in [0, 1], got {value!r}")
    return colour
