"""Images in scikit-learn's layout, rows [N, D], and in that of networks, [N, C, H, W]; the checks of both."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from robustperf import check


def flat(X: Any) -> Any:
    """Images [N, H, W] or [N, C, H, W] as rows [N, D]; anything else unchanged, for scikit-learn to check."""
    shape = getattr(X, "shape", ())
    return np.asarray(X).reshape(len(X), math.prod(shape[1:])) if len(shape) > 2 else X


def rows_to_fit(estimator: Any, X: Any, y: Any, dtype: Any) -> tuple[np.ndarray, np.ndarray]:
    """(rows [N, D], labels [N]) that `estimator` is to be fitted on, checked by scikit-learn, which sets its
    `n_features_in_`. Raises ValueError for labels of a regression or of one class."""
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import validate_data

    X, y = validate_data(estimator, flat(X), y, dtype=dtype)
    check_classification_targets(y)
    classes = np.unique(y)
    if len(classes) < 2:
        raise ValueError(f"y: expected at least two classes, got one class, {classes[0]!r}")
    return X, y


def rows_to_predict(estimator: Any, name: str, X: Any, dtype: Any) -> np.ndarray:
    """The rows [N, D] of images X for a fitted `estimator`, checked by scikit-learn. Raises NotFittedError before
    `fit`, ValueError for images of another shape than its `image_shape_`; rows have no image shape."""
    from sklearn.utils.validation import check_is_fitted, validate_data

    check_is_fitted(estimator)
    own, expected = _own_shape(X), estimator.image_shape_
    if own is not None and expected is not None and own != expected:
        raise ValueError(f"{name}: expected images of shape {expected}, got {own}")
    return validate_data(estimator, flat(X), reset=False, dtype=dtype)


def image_shape_of(X: Any, image_shape: Sequence[int] | None, features: int) -> tuple[int, int, int] | None:
    """(C, H, W) of the images X: `image_shape` if given, else X's own, or square and grey for rows; None where D is not
    a square.

    Raises ValueError for an invalid image_shape, or one that differs from X's.
    """
    own = _own_shape(X)
    if image_shape is None:
        side = math.isqrt(features)
        return own or ((1, side, side) if side * side == features else None)
    image_shape = check.image_shape("image_shape", image_shape)
    if math.prod(image_shape) != features or (own and own != image_shape):
        raise ValueError(f"image_shape: expected that of the images, {own or f'{features} values'}, got {image_shape}")
    return image_shape


def known_shape(image_shape: tuple[int, int, int] | None, features: int) -> tuple[int, int, int]:
    """`image_shape`; ValueError where `image_shape_of` found none."""
    if image_shape is None:
        raise ValueError(
            f"image_shape: expected (C, H, W) for images of {features} values, which is not a square, got None"
        )
    return image_shape


def _own_shape(X: Any) -> tuple[int, ...] | None:
    """(C, H, W) of images; of an array with more axes the shape without the first; None for rows."""
    shape = tuple(getattr(X, "shape", ()))
    if len(shape) < 3:
        return None
    return (1, *shape[1:]) if len(shape) == 3 else shape[1:]


def to_images(rows: np.ndarray, image_shape: tuple[int, int, int]) -> torch.Tensor:
    """Rows [N, D] as images [N, C, H, W] float32, a copy."""
    return torch.tensor(rows, dtype=torch.float32).view(len(rows), *image_shape)


def as_tensor(x: Any, name: str = "x") -> Any:
    """A numpy array or a pandas data frame as a tensor, float32 or else float64; anything else unchanged, for a later
    check. Raises ValueError, which names it, for a data frame with something else than numbers."""
    if hasattr(x, "to_numpy"):
        try:
            x = np.asarray(x, np.float64)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{name}: expected columns of numbers, got others: {error}") from error
    if not isinstance(x, np.ndarray):
        return x
    return torch.from_numpy(np.require(x, np.float32 if x.dtype == np.float32 else np.float64, ["C", "W"]))


def labels_like(x: Any, classes: np.ndarray, index: torch.Tensor) -> torch.Tensor | np.ndarray:
    """`classes` at these indices [B]: a tensor where x is one and the classes are numeric, else an array."""
    if isinstance(x, torch.Tensor) and classes.dtype.kind in "biuf":
        classes = classes.astype(np.int64) if classes.dtype.kind == "u" else classes
        return torch.as_tensor(classes, device=index.device)[index]
    return classes[index.cpu().numpy()]
