"""Canny's edge detector (1986) with the defaults of scikit-image's `feature.canny`, on a batch of images."""

from __future__ import annotations

import numpy as np
import torch

_SIGMA, _LOW, _HIGH = 1.0, 0.1, 0.2


def canny_edges(x: torch.Tensor, uniforms: torch.Tensor) -> torch.Tensor:
    images = x.detach().flatten(0, 1).double().cpu().numpy()
    return torch.from_numpy(_canny(images)).to(x).view_as(x)


def _canny(images: np.ndarray) -> np.ndarray:
    """[N, H, W] bool, whether a pixel is on an edge, for images [N, H, W] float64."""
    inside = _blurred(np.ones((1, *images.shape[1:])))  # the part of the Gaussian's weight inside the image
    smooth = _blurred(images) / (inside + np.finfo(np.float64).eps)
    down, right = _slope(smooth, 1), _slope(smooth, 2)
    steep = np.sqrt(down * down + right * right)

    candidates = steep >= _LOW
    candidates[:, [0, -1]] = candidates[:, :, [0, -1]] = False
    image, row, column = candidates.nonzero()
    down, right, own = down[candidates], right[candidates], steep[candidates]
    # the neighbours that the gradient points between, on either side: a vertical or horizontal one and a diagonal one
    vertical = np.abs(down) > np.abs(right)
    same_sign = (down >= 0) & (right >= 0) | (down <= 0) & (right <= 0)
    steps = (vertical.astype(int), np.where(vertical, 0, np.where(same_sign, 1, -1)))
    diagonals = (1, np.where(same_sign, 1, -1))
    larger, smaller = np.maximum(np.abs(down), np.abs(right)), np.minimum(np.abs(down), np.abs(right))
    weight = smaller / larger
    ridge = np.ones(len(own), bool)
    for side in (1, -1):
        straight = steep[image, row + side * steps[0], column + side * steps[1]]
        diagonal = steep[image, row + side * diagonals[0], column + side * diagonals[1]]
        ridge &= diagonal * weight + straight * (1 - weight) <= own

    candidates[candidates] = ridge
    from scipy import ndimage

    edges, count = ndimage.label(candidates, np.stack([np.zeros((3, 3)), np.ones((3, 3)), np.zeros((3, 3))]))
    strong = np.zeros(count + 1, bool)
    strong[edges[candidates & (steep >= _HIGH)]] = True
    return strong[edges]


def _blurred(images: np.ndarray) -> np.ndarray:
    from scipy import ndimage  # imported here: it takes half a second

    return ndimage.gaussian_filter(images, (0, _SIGMA, _SIGMA), mode="constant")


def _slope(images: np.ndarray, axis: int) -> np.ndarray:
    """Sobel's derivative along axis 1 or 2."""
    from scipy import ndimage

    return ndimage.correlate1d(ndimage.correlate1d(images, [-1, 0, 1], axis), [1, 2, 1], 3 - axis)
