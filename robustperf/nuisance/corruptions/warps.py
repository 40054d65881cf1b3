"""MNIST-C's shear, scale, rotate and translate: bilinear, about the image's centre, black outside."""

from __future__ import annotations

import math
from functools import lru_cache

import torch

_ANGLE = 0.4  # rad, of the shear and of the rotation
_ZOOM = 0.7
_SHIFT = 3  # pixels


def shear(x: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
    cosine, sine = math.cos(_ANGLE), math.sin(_ANGLE)
    return _either(numbers, *(_warp(x, (cosine, 0.0, -sign * sine, 1.0)) for sign in (-1, 1)))


def scale(x: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
    return _warp(x, (1 / _ZOOM, 0.0, 0.0, 1 / _ZOOM))


def rotate(x: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
    cosine, sine = math.cos(_ANGLE), math.sin(_ANGLE)
    return _either(numbers, *(_warp(x, (cosine, sign * sine, -sign * sine, cosine)) for sign in (-1, 1)))


def translate(x: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
    x = _either(numbers[:, :1], *(_warp(x, right=sign * _SHIFT) for sign in (-1, 1)))
    return _either(numbers[:, 1:], *(_warp(x, down=sign * _SHIFT) for sign in (-1, 1)))


def _either(numbers, minus, plus):
    return torch.where(numbers[:, :, None, None] < 0.5, minus, plus)


def _warp(x, matrix=(1.0, 0.0, 0.0, 1.0), down=0.0, right=0.0):
    """x [N, C, H, W] taken, for each pixel, from the place (row, column) that a matrix and a shift give for it."""
    pixels = x.flatten(2)
    parts = [pixels[..., place.to(x.device)] * share.to(x) for place, share in _taps(*x.shape[2:], matrix, down, right)]
    return sum(parts[1:], parts[0]).clamp(0, 1).view_as(x)


@lru_cache(16)
def _taps(height, width, matrix, down, right):
    """The places [H W] of each pixel's neighbours and their shares [H W]."""
    middle = (height - 1) / 2, (width - 1) / 2
    row = torch.arange(height, dtype=torch.float64).repeat_interleave(width) - middle[0]
    column = torch.arange(width, dtype=torch.float64).repeat(height) - middle[1]
    from_row = matrix[0] * row + matrix[1] * column + middle[0] + down
    from_column = matrix[2] * row + matrix[3] * column + middle[1] + right
    above, left, taps = from_row.floor(), from_column.floor(), []
    for r, row_share in ((above, above + 1 - from_row), (above + 1, from_row - above)):
        for c, column_share in ((left, left + 1 - from_column), (left + 1, from_column - left)):
            inside = (r >= 0) & (r < height) & (c >= 0) & (c < width)
            share = (row_share * column_share).where(inside, 0.0)
            if share.any():
                taps.append(((r * width + c).where(inside, 0).long(), share))
    return taps
