"""AugMix (Hendrycks, Mu, Cubuk, Zoph, Gilmer and Lakshminarayanan 2020): mixtures of chains of augmentations."""

from __future__ import annotations

from collections.abc import Callable

import torch

from robustperf import check
from robustperf.nuisance.geometric import Affine
from robustperf.nuisance.uniform import LARGEST, UniformDelta
from robustperf.ops.nuisance import layout_of
from robustperf.ops.program import Shape

OPERATIONS = (
    "autocontrast",
    "equalise",
    "posterise",
    "rotate",
    "solarise",
    "shear_x",
    "shear_y",
    "translate_x",
    "translate_y",
)
"""The paper's augmentations, which exclude those of ImageNet-C, in the order of its code."""

_STEPS = 3  # the maximum depth of a chain
_WARP = Affine(rotation=30, translation=1, scale=None, shear=20)


class AugMix(UniformDelta):
    """(1 - m) x + m (w_1 c_1(x) + ... + w_n c_n(x)): each chain c_i is one to three operations in a row, m is uniform
    (Beta(1, 1)) and so are the weights w on the simplex (Dirichlet(1, ..., 1)); Hendrycks et al. 2020, Algorithm 1.

    delta consists of uniforms, in this order: n for the weights; m; and for each chain its depth, then operation, level
    and sign for each of three steps. Delta = [0, 1)^(1 + 11 n).

    The operations are those of the paper's code, with a level l uniform in [0.1, severity]. Autocontrast, equalise,
    posterise (to 4 - int(0.4 l) bits) and solarise (from 256 - int(25.6 l) on) act on the levels round(255 x) of each
    channel, as Pillow's do. The others are bilinear with black outside, of random sign: rotation by int(3 l) degrees,
    shear by 0.03 l about the image's upper left corner, translation by int(l / 30 W) or int(l / 30 H) pixels.

    There is no gradient: the result is constant in x and in delta. All chains run at once, on n K B images.

    Args:
        severity: the largest level, above 0.1 and at most 10.
        width: n, the number of chains.

    Raises ValueError for an argument out of its range.

    >>> AugMix(severity=3, width=3).draw(torch.rand(2, 3, 8, 8), key=0, index=torch.arange(2)).shape
    torch.Size([1, 2, 3, 8, 8])
    """

    severity: float
    width: int

    differentiable_in_delta = differentiable_in_x = False

    def __init__(self, severity: float = 3.0, width: int = 3) -> None:
        self.severity = check.number("severity", severity, above=0.1, most=10)
        self.width = check.integer("width", width, 1)

    def dim_for(self, shape: Shape | None) -> int:
        return 1 + self.width * (2 + 3 * _STEPS)

    @torch.no_grad()
    def transform(self, x: torch.Tensor, delta: torch.Tensor, *, backend: str | None = None) -> torch.Tensor:
        layout_of(x, _WARP.program)  # raises for images without pixels
        if x.device.type == "cpu":
            x = check.images("x", x, (0.0, 1.0))
        uniforms = delta.flatten(0, 1).double().clamp(max=LARGEST)
        weights, m, chains = uniforms.split([self.width, 1, self.width * (1 + 3 * _STEPS)], 1)
        exponentials = (-(-weights.T.contiguous()).log1p()).clamp_min(2**-25)  # not all of them 0
        # Python's sum: the order of torch's additions may depend on the batch
        weights = m[:, 0] * exponentials / sum(exponentials)

        images = x.repeat(self.width * delta.shape[0], 1, 1, 1)
        self._run(torch.cat(chains.chunk(self.width, 1)), images, backend)
        mixed = x.repeat(delta.shape[0], 1, 1, 1).mul_(_factors(1 - m[:, 0], x))
        for weight, chained in zip(weights, images.chunk(self.width), strict=True):
            mixed += chained.mul_(_factors(weight, x))
        return mixed.clamp_(max=1).unflatten(0, delta.shape[:2])  # the sum of the weights is rounded

    def _run(self, uniforms: torch.Tensor, images: torch.Tensor, backend: str | None) -> None:
        """Applies the chain that each image's uniforms [n, 10] describe, in place on the images [n, C, H, W]."""
        depth = (_STEPS * uniforms[:, 0]).floor()
        for step in range(_STEPS):
            which, level, sign = uniforms[:, 1 + 3 * step : 4 + 3 * step].T
            which = (len(OPERATIONS) * which).long().where(step <= depth, -1)
            level = 0.1 + (self.severity - 0.1) * level
            for name, table in _TABLES.items():
                rows = (which == OPERATIONS.index(name)).nonzero()[:, 0]
                images[rows] = _mapped(images[rows], table, level[rows])
            warp = _warps(which, level, sign, *images.shape[2:])
            rows = warp.any(1).nonzero()[:, 0]
            images[rows] = _WARP.transform(images[rows], warp[None, rows].to(images.dtype), backend=backend)[0]

    def __repr__(self) -> str:
        return f"augmix({self.severity}, {self.width})"


def _factors(weights: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    return weights.to(images.dtype)[:, None, None, None]


def _mapped(images: torch.Tensor, table: Callable, level: torch.Tensor) -> torch.Tensor:
    """images [n, C, H, W] with the levels of each channel mapped by its look-up table."""
    levels = (255 * images).round().to(torch.uint8).long().flatten(2)
    tables = table(levels, level[:, None, None]).expand(*levels.shape[:2], 256)
    return (tables.to(images.dtype) / 255).gather(2, levels).view(images.shape)


# Look-up tables [n, C or 1, 256] of Pillow's ImageOps, for levels [n, C, H W] and augmentation levels [n, 1, 1].


def _autocontrast(levels: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
    low, high = levels.aminmax(dim=2, keepdim=True)
    ramp = torch.arange(256, device=levels.device)
    scale = torch.tensor(255.0, dtype=torch.float64) / (high - low)  # 255 / tensor would round twice
    stretched = (ramp * scale - low * scale).clamp(0, 255).floor()
    return torch.where(high > low, stretched, ramp)


def _equalise(levels: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
    counts = levels.new_zeros(*levels.shape[:2], 256).scatter_add_(2, levels, torch.ones_like(levels))
    of_largest = counts.gather(2, levels.amax(2, keepdim=True))
    step = (levels.shape[2] - of_largest) // 255
    below = counts.cumsum(2) - counts
    equal = ((step // 2 + below) // step.clamp_min(1)).clamp_max(255)
    return torch.where(step > 0, equal, torch.arange(256, device=levels.device))


def _posterise(levels: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
    ramp = torch.arange(256, device=levels.device)
    size = 2 ** (4 + (level * 4 / 10).floor())
    return ramp - ramp % size


def _solarise(levels: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
    ramp = torch.arange(256, device=levels.device)
    return torch.where(ramp < 256 - (level * 256 / 10).floor(), ramp, 255 - ramp)


_TABLES = {"autocontrast": _autocontrast, "equalise": _equalise, "posterise": _posterise, "solarise": _solarise}


def _warps(which: torch.Tensor, level: torch.Tensor, sign: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """delta [n, 5] of `_WARP` for operations [n], zeros where the operation is not a warp."""

    def only(name: str, amount: torch.Tensor) -> torch.Tensor:
        return torch.where(which == OPERATIONS.index(name), torch.where(sign < 0.5, amount, -amount), 0.0)

    rotation = only("rotate", (level * 30 / 10).floor())
    shear_x, shear_y = only("shear_x", level * 0.3 / 10), only("shear_y", level * 0.3 / 10)
    # the offset of a pixel's source
    right = only("translate_x", (level * (width / 3) / 10).floor()) + shear_x * height / 2
    down = only("translate_y", (level * (height / 3) / 10).floor()) + shear_y * width / 2
    return torch.stack(
        [rotation, -right / width, -down / height, -shear_x.atan().rad2deg(), -shear_y.atan().rad2deg()], 1
    )
