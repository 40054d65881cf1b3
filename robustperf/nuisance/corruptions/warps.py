"""MNIST-C's shear, scale, rotate and translate: bilinear, about the image's centre, black outside."""

from __future__ import annotations

import math
from functools import lru_cache

import torch

_ANGLE = 0.4  # rad, of the shear and of the rotation
_ZOOM = 0.7
_SHIFT = 3  # pixels


def shear(x: torch.Tensor, uniforms: torch.Tensor) -> torch.Tensor:
    cosine, sine = math.cos(_ANGLE), math.sin(_ANGLE)
    return _by_sign(uniforms, *(_warp(x, (cosine, 0.0, -sign * sine, 1.0)) for sign in (-1, 1)))


def scale(x: torch.Tensor, uniforms: torch.Tensor) -> torch.Tensor:
    return _warp(x, (1 / _ZOOM, 0.0, 0.0, 1 / _ZOOM))


def rotate(x: torch.Tensor, uniforms: torch.Tensor) -> torch.Tensor:
    cosine, sine = math.cos(_ANGLE), math.sin(_ANGLE)
    return _by_sign(uniforms, *(_warp(x, (cosine, sign * sine, -sign * sine, cosine)) for sign in (-1, 1)))


def translate(x: torch.Tensor, uniforms: torch.Tensor) -> torch.Tensor:
    x = _by_sign(uniforms[:, :1], *(_warp(x, right=sign * _SHIFT) for sign in (-1, 1)))
    return _by_sign(uniforms[:, 1:], *(_warp(x, down=sign * _SHIFT) for sign in (-1, 1)))


def _by_sign(uniforms: torch.Tensor, minus: torch.Tensor, plus: torch.Tensor) -> torch.Tensor:
    return torch.where(uniforms[:, :, None, None] < 0.5, minus, plus)


def _warp(
    x: torch.Tensor, matrix: tuple[float, ...] = (1.0, 0.0, 0.0, 1.0), down: float = 0.0, right: float = 0.0
) -> torch.Tensor:
    """x [N, C, H, W], each pixel interpolated at the source (row, column) that the matrix and the shift map it to."""
    pixels = x.flatten(2)
    parts = [
        pixels[..., source.to(x.device)] * weight.to(x) for source, weight in _taps(*x.shape[2:], matrix, down, right)
    ]
    return sum(parts[1:], parts[0]).clamp(0, 1).view_as(x)


@lru_cache(16)
def _taps(
    height: int, width: int, matrix: tuple[float, ...], down: float, right: float
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The neighbours [H W] of each pixel's source and their bilinear weights [H W]."""
    centre = (height - 1) / 2, (width - 1) / 2
    row = torch.arange(height, dtype=torch.float64).repeat_interleave(width) - centre[0]
    column = torch.arange(width, dtype=torch.float64).repeat(height) - centre[1]
    from_row = matrix[0] * row + matrix[1] * column + centre[0] + down
    from_column = matrix[2] * row + matrix[3] * column + centre[1] + right
    above, left, taps = from_row.floor(), from_column.floor(), []
    for r, row_weight in ((above, above + 1 - from_row), (above + 1, from_row - above)):
        for c, column_weight in ((left, left + 1 - from_column), (left + 1, from_column - left)):
            inside = (r >= 0) & (r < height) & (c >= 0) & (c < width)
            weight = (row_weight * column_weight).where(inside, 0.0)
            if weight.any():
                taps.append(((r * width + c).where(inside, 0).long(), weight))
    return taps
