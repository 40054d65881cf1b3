"""MNIST-C's glass blur, motion blur and spatter, and the Gaussian that two of them are made with."""

from __future__ import annotations

import math

import torch
from torch.nn import functional

_GLASS_SIGMA, _GLASS_PASSES = 0.7, 2
_GLASS_AXES = (2,)  # the rows' alone: the published sets were made by a call that took the columns for channels
_MOTION_RADIUS, _MOTION_SIGMA, _MOTION_ANGLE = 10, 3.0, 45.0  # pixels, pixels, degrees either way
_MUD = 63 / 255


def glass_blur(x: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
    blurred = _gaussian(x, _GLASS_SIGMA, _GLASS_AXES)
    places = _shuffled(numbers, *x.shape[2:])[:, None].expand(-1, x.shape[1], -1)
    return _gaussian(blurred.flatten(2).gather(2, places).view_as(x), _GLASS_SIGMA, _GLASS_AXES).clamp(0, 1)


def _shuffled(numbers, height, width):
    """[N, H W], where each pixel comes from after the swaps that numbers [N, 2 (H - 2) (W - 2)] choose: one of eight,
    of which the first four do nothing and the others are the offsets (0, 0), (0, -1), (-1, 0) and (-1, -1)."""
    choice = (8 * numbers.T).long()
    back = torch.where(choice >= 4, (choice >> 1 & 1) * width + (choice & 1), 0)
    here = [row * width + column for row in range(height - 1, 1, -1) for column in range(width - 1, 1, -1)]
    places = torch.arange(height * width, device=numbers.device)[:, None].repeat(1, len(numbers))
    for pixel, offset in zip(here * _GLASS_PASSES, back, strict=True):  # each swap sees those before it
        other = (pixel - offset)[None]
        taken = places.gather(0, other)[0]
        places.scatter_(0, other, places[pixel : pixel + 1].clone())
        places[pixel] = taken
    return places.T


def motion_blur(x: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
    height, width = x.shape[2:]
    angle = torch.deg2rad(_MOTION_ANGLE * (2 * numbers.double() - 1))
    sine, cosine = angle.sin(), angle.cos()  # [N, 1]
    weights = [math.exp(-(i**2) / (2 * _MOTION_SIGMA**2)) for i in range(2 * _MOTION_RADIUS + 1)]
    row = torch.arange(height, device=x.device).repeat_interleave(width)
    column = torch.arange(width, device=x.device).repeat(height)
    pixels = x.flatten(2)
    blurred = torch.zeros_like(pixels)
    for i, weight in enumerate(weights):
        down, right = (i * sine - 0.5).ceil().long(), (i * cosine - 0.5).ceil().long()
        place = (row + down).clamp(0, height - 1) * width + (column + right).clamp(0, width - 1)
        blurred.add_(pixels.gather(2, place[:, None].expand_as(pixels)), alpha=weight / sum(weights))
    return blurred.clamp(0, 1).view_as(x)


def spatter(x: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
    # in float64, so that both dtypes have the same mud: a threshold stands in the way
    normals = torch.special.ndtri(numbers.double() + 2**-25)
    liquid = _gaussian(0.65 + 0.3 * normals.view(-1, 1, *x.shape[2:]), 1.0)
    mask = _gaussian((liquid > 0.65).double(), 1.5)
    mask = mask.where(mask >= 0.8, 0.0).to(x.dtype)
    return (x * (1 - mask) + _MUD * mask).clamp(0, 1)


def _gaussian(x, sigma, axes=(2, 3)):
    """x [N, C, H, W] blurred along the axes up to 4 sigma; the edge goes on outside, as in scikit-image's `gaussian`."""
    radius = int(4 * sigma + 0.5)
    weights = [math.exp(-(i**2) / (2 * sigma**2)) for i in range(-radius, radius + 1)]
    for dim in axes:
        padding = (0, 0, radius, radius) if dim == 2 else (radius, radius, 0, 0)
        padded, size = functional.pad(x, padding, mode="replicate"), x.shape[dim]
        # a sum by hand: a convolution may add in an order that depends on the batch
        x = torch.zeros_like(x)
        for i, weight in enumerate(weights):
            x.add_(padded.narrow(dim, i, size), alpha=weight / sum(weights))
    return x
