"""`MnistC`: one of MNIST-C's corruptions as a kernel."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch

from robustperf import check
from robustperf.kernel import Kernel, Shape
from robustperf.names import check_name
from robustperf.nuisance.corruptions import blurs, canny, fog, strokes, warps
from robustperf.nuisance.noise import ImpulseNoise, ShotNoise
from robustperf.nuisance.uniform import LARGEST, UniformDelta
from robustperf.ops.draws import Key, check_draws

_AT_ONCE = 1 << 19  # numbers of delta, or pixels, that `draw` makes at a time: the fog alone has 65,535 an image


class _Corruption(NamedTuple):
    """`apply(x, numbers)`, or a kernel, takes `dim(C, H, W)` numbers for each image, whose sides are at least `least`
    pixels and at most `most`. `in_delta`, `in_x`: whether it has a gradient in the numbers, and in x."""

    apply: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | Kernel
    dim: int | Callable[[int, int, int], int] = 0
    least: int = 8
    most: int | None = None
    in_delta: bool = False
    in_x: bool = True


def _brightness(x, numbers):
    return (x + 0.5).clamp(max=1)


def _stripe(x, numbers):
    fourth = x.shape[3] // 4
    return torch.cat([1 - x[..., :fourth], x[..., fourth:-fourth], 1 - x[..., -fourth:]], 3)


_CORRUPTIONS = {
    "identity": _Corruption(lambda x, numbers: x.clone()),
    "shot_noise": _Corruption(ShotNoise(3.0), lambda c, h, w: c * h * w, in_x=False),
    "impulse_noise": _Corruption(ImpulseNoise(0.17), lambda c, h, w: c * h * w),
    "glass_blur": _Corruption(blurs.glass_blur, lambda c, h, w: 2 * (h - 2) * (w - 2)),
    "motion_blur": _Corruption(blurs.motion_blur, 1),
    "shear": _Corruption(warps.shear, 1),
    "scale": _Corruption(warps.scale),
    "rotate": _Corruption(warps.rotate, 1),
    "brightness": _Corruption(_brightness),
    "translate": _Corruption(warps.translate, 2),
    "stripe": _Corruption(_stripe),
    "fog": _Corruption(fog.fog, fog.NUMBERS, most=fog.SIDE, in_delta=True),
    "spatter": _Corruption(blurs.spatter, lambda c, h, w: h * w),
    "dotted_line": _Corruption(strokes.dotted_line, 2),
    "zigzag": _Corruption(strokes.zigzag, 2, least=16),
    "canny_edges": _Corruption(canny.canny_edges, in_x=False),
}

CORRUPTIONS = tuple(_CORRUPTIONS)
"""The sixteen sets' names, `identity` first, in the published order."""


class MnistC(UniformDelta):
    """A corruption of MNIST-C (Mu and Gilmer 2019, which T section 4 evaluates on) for grey 28x28 digits.

    delta holds the uniform numbers behind it, Delta = [0, 1)^q; a sign is minus below 1/2. "28" below stands for the
    image's side: those that are no square take their height or width.

    - identity: x. q = 0.
    - shot_noise: Poisson(3 x) / 3, by `ShotNoise(3)`. q = C H W.
    - impulse_noise: a share of 0.17 salt and pepper, by `ImpulseNoise(0.17)`. q = C H W.
    - glass_blur: Gaussian of 0.7 pixels along the rows' axis alone (a point spreads up and down only); two passes over
      rows and columns 27 to 2 in which a pixel is swapped, with probability 1/2, with the one at an offset drawn from
      {-1, 0}^2; the same Gaussian. The published sets are so, to the rounding to bytes: the call that made them took
      the columns for channels. q = 2 (H - 2) (W - 2).
    - motion_blur: ImageMagick's, radius 10, sigma 3: the mean of 21 pixels i steps away in one direction, weighted
      exp(-i^2 / 18); its angle is 90 delta - 45 degrees. q = 1.
    - shear: a pixel (x, y) from the centre comes from (x - y sin(a), y cos(a)), a = 0.4 rad either way: scikit-image's
      AffineTransform(shear=a) of 2019, with which the published set was made. q = 1.
    - scale: everything becomes 0.7 times as large. q = 0.
    - rotate: by 0.4 rad either way. q = 1.
    - brightness: min(x + 1/2, 1). q = 0.
    - translate: by 3 pixels along each axis, either way. q = 2, columns first.
    - stripe: the first and the last quarter of the columns, W // 4, inverted. q = 0.
    - fog: (x + 3 P) m / (m + 3) with m the image's greatest value and P the upper left corner of a plasma fractal of
      256x256 in [0, 1]: diamond-square on a torus, its noise w U(-w, w) with w = 100 / 1.4^level. q = 65,535.
    - spatter: normals N(0.65, 0.3), blurred with 1; 1 where that is above 0.65, blurred with 1.5; below 0.8 made 0:
      the mask m of x (1 - m) + m 63/255. q = H W.
    - dotted_line: a straight line from column 0 to 27 between heights of 0 to 26 is added; two columns are left out,
      two are drawn, and so on. q = 2.
    - zigzag: a zigzag from column 2 to 25 is added, between a height r of 0 to 26 and one of r - 5 to r + 4; its peaks
      are 4 pixels apart on alternate sides, 2 off the straight line. q = 2.
    - canny_edges: scikit-image's `canny` with its defaults, 1 on an edge and 0 elsewhere, each channel alone; computed
      on the CPU. q = 0.

    A line of distance d from a pixel, measured along the column, has the intensity clip(1 + ln(1 - d / 2.3), 0, 1), 0
    from 2.3 on; the column in which it ends is not drawn. Warps are bilinear about the image's centre with black
    outside. Gaussians end at 4 standard deviations; the edge goes on outside. What comes out is within [0, 1], not
    rounded to bytes as the published sets are. All channels get the same corruption, noise of their own.

    Gradients in x are those of the formulas, zero for shot_noise and none for canny_edges; only fog has one in delta.

    Args:
        name: one of `CORRUPTIONS`.

    Raises ValueError for another name and, when called, for images with a side below 8 pixels (16 for zigzag) or
    above 256 (fog).
    """

    name: str

    def __init__(self, name: str) -> None:
        self.name = check_name("name", name, CORRUPTIONS)

    @property
    def differentiable_in_delta(self) -> bool:
        return _CORRUPTIONS[self.name].in_delta

    @property
    def differentiable_in_x(self) -> bool:
        return _CORRUPTIONS[self.name].in_x

    def dim_for(self, shape: Shape | None) -> int:
        _, dim, least, most, *_ = _CORRUPTIONS[self.name]
        if shape is None:
            if callable(dim):
                raise ValueError(
                    f"shape: {self.name} has components of delta for the image's pixels: expected (C, H, W), got None"
                )
            return dim
        sides = shape[1:]
        if shape[0] < 1 or min(sides) < least or (most is not None and max(sides) > most):
            limits = f"at least {least} pixels" + ("" if most is None else f" and at most {most}")
            raise ValueError(f"x: {self.name} expected images with sides of {limits}, got {list(shape)}")
        return dim(*shape) if callable(dim) else dim

    def transform(self, x: torch.Tensor, delta: torch.Tensor, *, backend: str | None = None) -> torch.Tensor:
        dim = self.dim_for(tuple(x.shape[1:]))
        if x.device.type == "cpu":
            x = check.images("x", x, (0.0, 1.0))
        draws, batch = delta.shape[:2]
        if not draws * batch:
            return x.new_empty((draws, *x.shape))
        apply = _CORRUPTIONS[self.name].apply
        if isinstance(apply, Kernel):
            return apply.transform(x, delta, backend=backend)
        if not dim:
            return apply(x, delta[0]).repeat(draws, 1, 1, 1, 1)
        made = apply(x.repeat(draws, 1, 1, 1), delta.flatten(0, 1).clamp(max=LARGEST))
        return made.unflatten(0, (draws, batch))

    def draw_for(
        self,
        x: torch.Tensor,
        key: Key,
        index: torch.Tensor,
        draws: torch.Tensor,
        *,
        out: torch.Tensor | None = None,
        backend: str | None = None,
    ) -> torch.Tensor:
        if out is None and x.requires_grad and torch.is_grad_enabled():
            return super().draw_for(x, key, index, draws, backend=backend)
        check_draws(key, index, draws)
        shape, dim = (len(draws), *x.shape), self.dim_for(tuple(x.shape[1:]))
        if out is None:
            out = x.new_empty(shape)
        check.tensor("out", out, shape, dtypes=(x.dtype,), device=x.device)
        together = 1 if dim else max(1, len(draws))
        some = max(1, _AT_ONCE // max(dim, x[0].numel() if len(x) else 1))
        with torch.no_grad():
            for draw, made in zip(draws.split(together), out.split(together), strict=True):
                for images, numbers, part in zip(x.split(some), index.split(some), made.split(some, 1), strict=True):
                    delta = self.sample_for(shape[2:], key, numbers, draw, backend=backend)
                    part.copy_(self.transform(images, delta.to(x.dtype), backend=backend))
        return out

    def __repr__(self) -> str:
        return f"mnist_c({self.name!r})"
