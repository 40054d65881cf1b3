"""Images as scikit-learn has them, [N, D] rows of numbers, and as networks do, [N, C, H, W]."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from robustperf import check


def flat(X: Any) -> Any:
    """Images [N, H, W] or [N, C, H, W] as rows [N, D]; anything else as it is, for scikit-learn to check."""
    shape = getattr(X, "shape", ())
    return np.asarray(X).reshape(len(X), math.prod(shape[1:])) if len(shape) > 2 else X


def image_shape_of(X: Any, image_shape: Sequence[int] | None, features: int) -> tuple[int, int, int] | None:
    """(C, H, W) of the images X: `image_shape` where it is given, else X's own, or square and grey for rows; None where
    D is no square.

    Raises ValueError for an image_shape that is none, or not that of X.
    """
    own = _own_shape(X)
    if image_shape is None:
        side = math.isqrt(features)
        return own or ((1, side, side) if side * side == features else None)
    image_shape = check.image_shape("image_shape", image_shape)
    if math.prod(image_shape) != features or (own and own != image_shape):
        raise ValueError(f"image_shape: expected that of the images, {own or f'{features} numbers'}, got {image_shape}")
    return image_shape


def known_shape(image_shape: tuple[int, int, int] | None, features: int) -> tuple[int, int, int]:
    """`image_shape`, where `image_shape_of` has found one; ValueError where it has not."""
    if image_shape is None:
        raise ValueError(
            f"image_shape: expected (C, H, W) for images of {features} numbers, which are no square, got None"
        )
    return image_shape


def check_classes(classes: np.ndarray) -> None:
    """ValueError for labels of one class."""
    if len(classes) < 2:
        raise ValueError(f"y: expected at least two classes, got one class, {classes[0]!r}")


def check_image_shape(name: str, X: Any, image_shape: tuple[int, int, int] | None) -> None:
    """ValueError for images of another shape than `image_shape`; rows have none of their own."""
    own = _own_shape(X)
    if own is not None and image_shape is not None and own != image_shape:
        raise ValueError(f"{name}: expected images of shape {image_shape}, got {own}")


def _own_shape(X: Any) -> tuple[int, ...] | None:
    """(C, H, W) of images, also where that is no such shape; None for rows."""
    shape = tuple(getattr(X, "shape", ()))
    if len(shape) < 3:
        return None
    return (1, *shape[1:]) if len(shape) == 3 else shape[1:]


def to_images(rows: np.ndarray, image_shape: tuple[int, int, int]) -> torch.Tensor:
    """Rows [N, D] as images [N, C, H, W] float32, a copy."""
    return torch.tensor(rows, dtype=torch.float32).view(len(rows), *image_shape)


def as_tensor(x: Any) -> Any:
    """A numpy array as a tensor, float32 or else float64; anything else as it is, for a check to refuse."""
    if not isinstance(x, np.ndarray):
        return x
    return torch.from_numpy(np.require(x, np.float32 if x.dtype == np.float32 else np.float64, ["C", "W"]))


def labels_like(x: Any, classes: np.ndarray, index: torch.Tensor) -> torch.Tensor | np.ndarray:
    """The labels of these places [B] in `classes`: a tensor where x is one and labels are numbers, else an array."""
    if isinstance(x, torch.Tensor) and classes.dtype.kind in "biuf":
        classes = classes.astype(np.int64) if classes.dtype.kind == "u" else classes
        return torch.as_tensor(classes, device=index.device)[index]
    return classes[index.cpu().numpy()]
