"""`MnistC`: one of MNIST-C's corruptions as a kernel."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch

from robustperf import check
from robustperf.kernel import Kernel
from robustperf.names import CORRUPTIONS, check_name
from robustperf.nuisance.corruptions import blurs, canny, fog, strokes, warps
from robustperf.nuisance.noise import ImpulseNoise, ShotNoise
from robustperf.nuisance.uniform import LARGEST, UniformDelta
from robustperf.ops.draws import Key
from robustperf.ops.program import Shape
from robustperf.tangents import has_tangent

_AT_ONCE = 1 << 19  # components of delta, or pixels, that `draw` processes at a time: fog has 65,535 for each image


class _Corruption(NamedTuple):
    """`apply(x, uniforms)`, or a kernel, takes `dim(C, H, W)` uniforms for each image, whose sides are from `least` to
    `most` pixels. `in_delta`, `in_x`: whether it has a gradient in the uniforms, and in x."""

    apply: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | Kernel
    dim: int | Callable[[int, int, int], int] = 0
    least: int = 8
    most: int | None = None
    in_delta: bool = False
    in_x: bool = True


def _brightness(x: torch.Tensor, uniforms: torch.Tensor) -> torch.Tensor:
    return (x + 0.5).clamp(max=1)


def _stripe(x: torch.Tensor, uniforms: torch.Tensor) -> torch.Tensor:
    quarter = x.shape[3] // 4
    return torch.cat([1 - x[..., :quarter], x[..., quarter:-quarter], 1 - x[..., -quarter:]], 3)


_CORRUPTIONS = {
    "identity": _Corruption(lambda x, uniforms: x.clone()),
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
    "fog": _Corruption(fog.fog, fog.UNIFORMS, most=fog.SIDE, in_delta=True),
    "spatter": _Corruption(blurs.spatter, lambda c, h, w: h * w),
    "dotted_line": _Corruption(strokes.dotted_line, 2),
    "zigzag": _Corruption(strokes.zigzag, 2, least=16),
    "canny_edges": _Corruption(canny.canny_edges, in_x=False),
}


class MnistC(UniformDelta):
    """A corruption of MNIST-C (Mu and Gilmer 2019, which T section 4 evaluates on) for grey 28x28 digits.

    delta consists of uniforms, Delta = [0, 1)^q; a sign is negative where its uniform is below 1/2. Sizes below are
    those of 28x28 images; others use their own height or width.

    - identity: x. q = 0.
    - shot_noise: Poisson(3 x) / 3, by `ShotNoise(3)`. q = C H W.
    - impulse_noise: salt and pepper on a fraction of 0.17 of the values, by `ImpulseNoise(0.17)`. q = C H W.
    - glass_blur: Gaussian of 0.7 pixels along the rows' axis only (a point spreads up and down); two passes over rows
      and columns 27 to 2 in which a pixel is swapped, with probability 1/2, with the one at an offset drawn from
      {-1, 0}^2; the same Gaussian. This is what the published sets have, up to rounding to bytes: the call that
      generated them took the columns for channels. q = 2 (H - 2) (W - 2).
    - motion_blur: ImageMagick's, radius 10, sigma 3: the mean of 21 pixels i steps away in one direction, weighted
      exp(-i^2 / 18); its angle is 90 delta - 45 degrees. q = 1.
    - shear: the source of the pixel at (x, y) from the centre is (x - y sin(a), y cos(a)), a = 0.4 rad of random sign:
      scikit-image's AffineTransform(shear=a) of 2019, which generated the published set. q = 1.
    - scale: by the factor 0.7. q = 0.
    - rotate: by 0.4 rad of random sign. q = 1.
    - brightness: min(x + 1/2, 1). q = 0.
    - translate: by 3 pixels of random sign along each axis. q = 2, columns first.
    - stripe: the first and the last quarter of the columns, W // 4, inverted. q = 0.
    - fog: (x + 3 P) m / (m + 3) with m the image's maximum and P the upper left corner of a plasma fractal of
      256x256 in [0, 1]: diamond-square on a torus, its noise w U(-w, w) with w = 100 / 1.4^level. q = 65,535.
    - spatter: normals N(0.65, 0.3^2), blurred with sigma 1, thresholded at 0.65, blurred with sigma 1.5, and set to 0
      below 0.8, give the mask m of x (1 - m) + m 63/255. q = H W.
    - dotted_line: adds a straight line from column 0 to 27 between rows in 0 to 26; of every four columns the first two
      are not drawn. q = 2.
    - zigzag: adds a zigzag from column 2 to 25, between a row r in 0 to 26 and one in r - 5 to r + 4; its peaks are 4
      pixels apart on alternate sides, 2 pixels off the straight line. q = 2.
    - canny_edges: scikit-image's `canny` with its defaults, 1 on an edge and 0 elsewhere, for each channel; computed on
      the CPU. q = 0.

    A line at a distance d from a pixel, measured along the column, has the intensity clip(1 + ln(1 - d / 2.3), 0, 1),
    and 0 from d = 2.3; its last column is not drawn. Warps are bilinear about the image's centre with black outside.
    Gaussians are truncated at 4 standard deviations, with edge pixels replicated outside. The result is within [0, 1]
    and not rounded to bytes as the published sets are. All channels get the same corruption, but independent noise.

    Gradients in x are those of the formulas, zero for shot_noise and none for canny_edges; only fog has one in delta.

    Args:
        name: one of `robustperf.names.CORRUPTIONS`.

    Raises ValueError for another name and, when called, for images with a side below 8 pixels (16 for zigzag) or
    above 256 (fog).

    >>> MnistC("fog").draw(torch.rand(2, 1, 28, 28), key=0, index=torch.arange(2))[0].shape
    torch.Size([2, 1, 28, 28])
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
        return self._corrupt(self._checked(x), delta, backend)

    def _checked(self, x: torch.Tensor) -> torch.Tensor:
        """x, clamped where it exceeds [0, 1] by rounding; ValueError for a wrong shape or other pixels, which are not
        checked on a GPU."""
        self.dim_for(tuple(x.shape[1:]))
        return check.images("x", x, (0.0, 1.0)) if x.device.type == "cpu" else x

    def _corrupt(self, x: torch.Tensor, delta: torch.Tensor, backend: str | None) -> torch.Tensor:
        """`transform` of checked images."""
        draws, batch = delta.shape[:2]
        if not draws * batch:
            return x.new_empty((draws, *x.shape))
        apply = _CORRUPTIONS[self.name].apply
        if isinstance(apply, Kernel):
            return apply.transform(x, delta, backend=backend)
        if not delta.shape[2]:
            return apply(x, delta[0]).repeat(draws, 1, 1, 1, 1)
        corrupted = apply(x.repeat(draws, 1, 1, 1), delta.flatten(0, 1).clamp(max=LARGEST))
        return corrupted.unflatten(0, (draws, batch))

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
        if out is None and (x.requires_grad and torch.is_grad_enabled() or has_tangent(x)):
            return super().draw_for(x, key, index, draws, backend=backend)
        x = self._checked(x)
        shape, dim = (len(draws), *x.shape), self.dim_for(tuple(x.shape[1:]))
        if out is None:
            out = x.new_empty(shape)
        check.tensor("out", out, shape, dtypes=(x.dtype,), device=x.device)
        draws_at_once = 1 if dim else max(1, len(draws))
        images_at_once = max(1, _AT_ONCE // max(dim, x[0].numel() if len(x) else 1))
        with torch.no_grad():
            for some_draws, drawn in zip(draws.split(draws_at_once), out.split(draws_at_once), strict=True):
                chunks = (part.split(images_at_once, dim) for part, dim in ((x, 0), (index, 0), (drawn, 1)))
                for images, ids, chunk in zip(*chunks, strict=True):
                    delta = self.sample_for(shape[2:], key, ids, some_draws, backend=backend)
                    chunk.copy_(self._corrupt(images, delta.to(x.dtype), backend))
        return out

    def __repr__(self) -> str:
        return f"mnist_c({self.name!r})"
