"""MNIST-C's glass blur, motion blur and spatter, and the Gaussian filter that two of them use."""

from __future__ import annotations

import math

import torch
from torch.nn import functional

_GLASS_SIGMA, _GLASS_PASSES = 0.7, 2
_GLASS_AXES = (2,)  # the rows' axis only: the published sets come from a call that took the columns for channels
_MOTION_RADIUS, _MOTION_SIGMA, _MOTION_ANGLE = 10, 3.0, 45.0  # pixels, pixels, plus or minus degrees
_MUD = 63 / 255


def glass_blur(x: torch.Tensor, uniforms: torch.Tensor) -> torch.Tensor:
    blurred = _gaussian(x, _GLASS_SIGMA, _GLASS_AXES)
    sources = _shuffled(uniforms, *x.shape[2:])[:, None].expand(-1, x.shape[1], -1)
    return _gaussian(blurred.flatten(2).gather(2, sources).view_as(x), _GLASS_SIGMA, _GLASS_AXES).clamp(0, 1)


def _shuffled(uniforms: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """[N, H W], the source of each pixel after the swaps that uniforms [N, 2 (H - 2) (W - 2)] choose. A uniform chooses
    one of eight equally likely swaps: four do nothing, the others are with the offsets (0, 0), (0, -1), (-1, 0) and
    (-1, -1)."""
    choice = (8 * uniforms.T).long()
    offsets = torch.where(choice >= 4, (choice >> 1 & 1) * width + (choice & 1), 0)
    pixels = [row * width + column for row in range(height - 1, 1, -1) for column in range(width - 1, 1, -1)]
    sources = torch.arange(height * width, device=uniforms.device)[:, None].repeat(1, len(uniforms))
    for pixel, offset in zip(pixels * _GLASS_PASSES, offsets, strict=True):  # a swap acts on the result of those before
        other = (pixel - offset)[None]
        taken = sources.gather(0, other)[0]
        sources.scatter_(0, other, sources[pixel : pixel + 1].clone())
        sources[pixel] = taken
    return sources.T


def motion_blur(x: torch.Tensor, uniforms: torch.Tensor) -> torch.Tensor:
    height, width = x.shape[2:]
    angle = torch.deg2rad(_MOTION_ANGLE * (2 * uniforms.double() - 1))
    sine, cosine = angle.sin(), angle.cos()  # [N, 1]
    weights = [math.exp(-(i**2) / (2 * _MOTION_SIGMA**2)) for i in range(2 * _MOTION_RADIUS + 1)]
    row = torch.arange(height, device=x.device).repeat_interleave(width)
    column = torch.arange(width, device=x.device).repeat(height)
    pixels = x.flatten(2)
    blurred = torch.zeros_like(pixels)
    for i, weight in enumerate(weights):
        down, right = (i * sine - 0.5).ceil().long(), (i * cosine - 0.5).ceil().long()
        source = (row + down).clamp(0, height - 1) * width + (column + right).clamp(0, width - 1)
        blurred.add_(pixels.gather(2, source[:, None].expand_as(pixels)), alpha=weight / sum(weights))
    return blurred.clamp(0, 1).view_as(x)


def spatter(x: torch.Tensor, uniforms: torch.Tensor) -> torch.Tensor:
    # in float64, so that the thresholds select the same pixels in both dtypes
    normals = torch.special.ndtri(uniforms.double() + 2**-25)
    liquid = _gaussian(0.65 + 0.3 * normals.view(-1, 1, *x.shape[2:]), 1.0)
    mask = _gaussian((liquid > 0.65).double(), 1.5)
    mask = mask.where(mask >= 0.8, 0.0).to(x.dtype)
    return (x * (1 - mask) + _MUD * mask).clamp(0, 1)


def _gaussian(x: torch.Tensor, sigma: float, axes: tuple[int, ...] = (2, 3)) -> torch.Tensor:
    """x [N, C, H, W] blurred along the axes, truncated at 4 sigma; edge pixels are replicated outside, as by
    scikit-image's `gaussian`."""
    radius = int(4 * sigma + 0.5)
    weights = [math.exp(-(i**2) / (2 * sigma**2)) for i in range(-radius, radius + 1)]
    for dim in axes:
        padding = (0, 0, radius, radius) if dim == 2 else (radius, radius, 0, 0)
        padded, size = functional.pad(x, padding, mode="replicate"), x.shape[dim]
        # not a convolution, whose order of additions may depend on the batch
        x = torch.zeros_like(x)
        for i, weight in enumerate(weights):
            x.add_(padded.narrow(dim, i, size), alpha=weight / sum(weights))
    return x
