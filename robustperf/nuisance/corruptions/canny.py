"""Edges by Canny's method (1986) as scikit-image's `feature.canny` finds them by default, on many images at once."""

from __future__ import annotations

import numpy as np
import torch

_SIGMA, _LOW, _HIGH = 1.0, 0.1, 0.2


def canny_edges(x: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
    images = x.detach().flatten(0, 1).double().cpu().numpy()
    return torch.from_numpy(_canny(images)).to(x).view_as(x)


def _canny(images):
    """Whether there is an edge, [N, H, W], in images [N, H, W] float64."""
    inside = _blurred(np.ones((1, *images.shape[1:])))  # of the Gaussian's weight: there is nothing outside
    smooth = _blurred(images) / (inside + np.finfo(np.float64).eps)
    down, right = _slope(smooth, 1), _slope(smooth, 2)
    steep = np.sqrt(down * down + right * right)

    candidates = steep >= _LOW
    candidates[:, [0, -1]] = candidates[:, :, [0, -1]] = False
    image, row, column = candidates.nonzero()
    down, right, own = down[candidates], right[candidates], steep[candidates]
    # the neighbours that the gradient points between: an upright or level one and a diagonal one, on either side
    upright = np.abs(down) > np.abs(right)
    same = (down >= 0) & (right >= 0) | (down <= 0) & (right <= 0)
    steps = (upright.astype(int), np.where(upright, 0, np.where(same, 1, -1)))
    diagonals = (1, np.where(same, 1, -1))
    larger, smaller = np.maximum(np.abs(down), np.abs(right)), np.minimum(np.abs(down), np.abs(right))
    share = smaller / larger
    ridge = np.ones(len(own), bool)
    for side in (1, -1):
        straight = steep[image, row + side * steps[0], column + side * steps[1]]
        diagonal = steep[image, row + side * diagonals[0], column + side * diagonals[1]]
        ridge &= diagonal * share + straight * (1 - share) <= own

    candidates[candidates] = ridge
    from scipy import ndimage

    edges, count = ndimage.label(candidates, np.stack([np.zeros((3, 3)), np.ones((3, 3)), np.zeros((3, 3))]))
    strong = np.zeros(count + 1, bool)
    strong[edges[candidates & (steep >= _HIGH)]] = True
    return strong[edges]


def _blurred(images):
    from scipy import ndimage  # half a second that few need

    return ndimage.gaussian_filter(images, (0, _SIGMA, _SIGMA), mode="constant")


def _slope(images, axis):
    """Sobel's derivative along one of the axes 1 and 2."""
    from scipy import ndimage

    return ndimage.correlate1d(ndimage.correlate1d(images, [-1, 0, 1], axis), [1, 2, 1], 3 - axis)
