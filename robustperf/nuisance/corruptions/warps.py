"""MNIST-C's shear, scale, rotate and translate: bilinear, about the image's centre, black outside."""

from __future__ import annotations

import math

import torch

_ANGLE = 0.4  # rad, of the shear and of the rotation
_ZOOM = 0.7
_SHIFT = 3  # pixels


def shear(x: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
    lean = _signs(numbers[:, :1]) * math.sin(_ANGLE)
    return _warp(x, ((math.cos(_ANGLE), 0.0), (-lean, 1.0)))


def scale(x: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
    return _warp(x, ((1 / _ZOOM, 0.0), (0.0, 1 / _ZOOM)))


def rotate(x: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
    cosine, sine = math.cos(_ANGLE), _signs(numbers[:, :1]) * math.sin(_ANGLE)
    return _warp(x, ((cosine, sine), (-sine, cosine)))


def translate(x: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
    right, down = (_SHIFT * _signs(numbers)).split(1, 1)
    return _warp(x, ((1.0, 0.0), (0.0, 1.0)), down, right)


def _signs(numbers):
    return torch.where(numbers < 0.5, -1.0, 1.0).double()


def _warp(x, matrix, down=0.0, right=0.0):
    """x [N, C, H, W] taken, for each pixel, from the place that a matrix of (row, column) and a shift give for it; each
    of their numbers is a float or [N, 1] float64."""
    height, width = x.shape[2:]
    middle = (height - 1) / 2, (width - 1) / 2
    row = torch.arange(height, dtype=torch.float64, device=x.device).repeat_interleave(width) - middle[0]
    column = torch.arange(width, dtype=torch.float64, device=x.device).repeat(height) - middle[1]
    from_row = (matrix[0][0] * row + matrix[0][1] * column + middle[0] + down).expand(len(x), -1)
    from_column = (matrix[1][0] * row + matrix[1][1] * column + middle[1] + right).expand(len(x), -1)
    above, left = from_row.floor(), from_column.floor()
    pixels, warped = x.flatten(2), 0.0
    for r, row_share in ((above, above + 1 - from_row), (above + 1, from_row - above)):
        for c, column_share in ((left, left + 1 - from_column), (left + 1, from_column - left)):
            inside = (r >= 0) & (r < height) & (c >= 0) & (c < width)
            place = (r * width + c).where(inside, 0).long()[:, None].expand_as(pixels)
            share = (row_share * column_share * inside)[:, None].to(x.dtype)
            warped = warped + share * pixels.gather(2, place)
    return warped.clamp(0, 1).view_as(x)
