"""MNIST-C's fog: a plasma fractal by the diamond-square algorithm (Fournier, Fussell and Carpenter 1982) on a torus."""

from __future__ import annotations

import torch

SIDE = 256
_LEVELS = 8  # a side is halved this many times
_STRENGTH, _WIBBLE, _DECAY = 3.0, 100.0, 1.4

UNIFORMS = SIDE**2 - 1
"""The number of uniforms of a plasma: for each level those of the squares' centres, then of their upper edges, then of
their left edges."""


def fog(x: torch.Tensor, uniforms: torch.Tensor) -> torch.Tensor:
    m = x.amax((1, 2, 3), keepdim=True)
    field = _plasma(uniforms, *x.shape[2:])[:, None]
    return ((x + _STRENGTH * field) * m / (m + _STRENGTH)).clamp(0, 1)


def _plasma(uniforms: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """The upper left corner [N, H, W] of fields [N, 256, 256] with minimum 0 and maximum 1; constant fields are 0."""
    corners, begin = uniforms.new_zeros(len(uniforms), 1, 1), 0
    for level in range(_LEVELS):
        amplitude = (_WIBBLE / _DECAY**level) ** 2  # w U(-w, w)
        count = 4**level
        new = uniforms[:, begin : begin + 3 * count].mul(2 * amplitude).sub_(amplitude)
        centres, uppers, lefts = (new[:, i * count : (i + 1) * count].view_as(corners) for i in range(3))
        begin += 3 * count
        # in place: each value becomes the mean of its four neighbours plus its noise
        along, across = corners + corners.roll(-1, 2), corners + corners.roll(-1, 1)
        centres.add_(along, alpha=0.25).add_(along.roll(-1, 1), alpha=0.25)
        uppers.add_(along, alpha=0.25).add_(centres, alpha=0.25).add_(centres.roll(1, 1), alpha=0.25)
        lefts.add_(across, alpha=0.25).add_(centres, alpha=0.25).add_(centres.roll(1, 2), alpha=0.25)
        if level < _LEVELS - 1:
            corners = _interleaved(corners, uppers, lefts, centres)
    parts = (corners, uppers, lefts, centres)
    low = torch.minimum(corners.amin((1, 2)), new.amin(1))[:, None, None]
    high = torch.maximum(corners.amax((1, 2)), new.amax(1))[:, None, None]
    corner = _interleaved(*(part[:, : (height + 1) // 2, : (width + 1) // 2] for part in parts))
    return (corner[:, :height, :width] - low) / (high - low).clamp_min(torch.finfo(uniforms.dtype).tiny)


def _interleaved(
    corners: torch.Tensor, uppers: torch.Tensor, lefts: torch.Tensor, centres: torch.Tensor
) -> torch.Tensor:
    """One grid [N, 2 H, 2 W] from four grids [N, H, W]."""
    rows = torch.stack([corners, uppers], 3), torch.stack([lefts, centres], 3)
    return torch.stack(rows, 2).view(len(corners), 2 * corners.shape[1], 2 * corners.shape[2])
