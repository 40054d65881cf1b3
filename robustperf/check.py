"""The checks that several functions share; every error names the argument, what was expected and what came."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence

import torch

REAL = (torch.float32, torch.float64)
HALF = (torch.bfloat16, torch.float16)


def tensor(name: str, value, shape: tuple[int | str, ...] | None = None, *, dtypes: tuple[torch.dtype, ...] = REAL,
           device: torch.device | None = None) -> torch.Tensor:
    """`value` if it is a tensor of one of `dtypes`, of `shape` (a text or an Ellipsis at the end fits any size) and on
    `device`; TypeError for no tensor or a wrong dtype, ValueError for the rest."""
    if not isinstance(value, torch.Tensor):
        raise TypeError(f"{name}: expected a tensor, got {type(value).__name__}")
    if value.dtype not in dtypes:
        raise TypeError(f"{name}: expected {' or '.join(map(str, dtypes))}, got {value.dtype}")
    if device is not None and value.device != device:
        raise ValueError(f"{name}: expected a tensor on {device}, got one on {value.device}")
    if shape is not None and shape != (size := value.shape):
        head = shape[:-1] if shape and shape[-1] is ... else shape
        fits = len(size) == len(head) if head is shape else len(size) >= len(head)
        if fits:
            for i, want in enumerate(head):  # a plain loop is the quickest, and some calls take a few microseconds
                if isinstance(want, int) and want != size[i]:
                    fits = False
        if not fits:
            text = ", ".join("..." if size is ... else str(size) for size in shape)
            raise ValueError(f"{name}: expected shape [{text}], got {list(value.shape)}")
    return value


def norm(value) -> float:
    """1, 2 or inf as a float, from a number or from a text."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if number not in (1.0, 2.0, math.inf):
        raise ValueError(f"norm: expected 1, 2 or inf, got {value!r}")
    return number


def bounds(value) -> tuple[float, float]:
    """(lower, upper) as floats, in this order."""
    try:
        lower, upper = map(float, value)
    except (TypeError, ValueError):
        raise TypeError(f"bounds: expected two numbers (lower, upper), got {value!r}") from None
    if not (lower < upper and math.isfinite(lower) and math.isfinite(upper)):
        raise ValueError(f"bounds: expected finite lower < upper, got ({lower}, {upper})")
    return lower, upper


def rounded(bounds: tuple[float, float], dtype: torch.dtype) -> tuple[float, float]:
    """The bounds as `dtype` has them: what `clamp` gives is within them."""
    lower, upper = torch.tensor(bounds, dtype=dtype).tolist()
    return lower, upper


def positive(name: str, value, *, integer: bool = False):
    """`value` if it is a finite number above zero."""
    kind = numbers.Integral if integer else numbers.Real
    if isinstance(value, bool) or not isinstance(value, kind) or not 0 < value < math.inf:
        raise ValueError(f"{name}: expected {'an integer' if integer else 'a finite number'} above 0, got {value!r}")
    return value


def images(name: str, value, bounds: tuple[float, float] | None = None) -> torch.Tensor:
    """A batch [B, ...] of finite float images, within `bounds` if they are given."""
    tensor(name, value, ("B", ...))
    if value.dim() < 2:
        raise ValueError(f"{name}: expected a batch of shape [B, ...], got {list(value.shape)}")
    if value.numel():
        bounds = None if bounds is None else rounded(bounds, value.dtype)
        low, high = (v.item() for v in value.aminmax())  # NaN shows in both
        if not (math.isfinite(low) and math.isfinite(high)):
            raise ValueError(f"{name}: expected finite pixels, got {_first_fault(value, ~value.isfinite())}")
        if bounds is not None and (low < bounds[0] or high > bounds[1]):
            fault = _first_fault(value, (value < bounds[0]) | (value > bounds[1]))
            raise ValueError(f"{name}: expected pixels within [{bounds[0]:g}, {bounds[1]:g}], got {fault}")
    return value


def finite(name: str, value: torch.Tensor) -> torch.Tensor:
    """`value` if all its numbers are finite."""
    if not (sound := value.isfinite()).all():
        raise ValueError(f"{name}: expected finite numbers, got {_first_fault(value, ~sound)}")
    return value


def image_shape(name: str, value) -> tuple[int, int, int]:
    """(C, H, W), three integers above zero."""
    shape = tuple(value) if isinstance(value, Sequence) else ()
    if len(shape) != 3 or any(not isinstance(size, int) or size < 1 for size in shape):
        raise ValueError(f"{name}: expected (C, H, W) above 0, got {value!r}")
    return shape


def line_of(error: BaseException, most: int = 400) -> str:
    """What another library's error says, on one line of at most so many characters; its type where it says nothing."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= most else f"{text[:most]}..."


def _first_fault(value: torch.Tensor, wrong: torch.Tensor) -> str:
    place = wrong.nonzero()[0].tolist()
    return f"{value[tuple(place)].item()} at {place} (and {int(wrong.sum()) - 1} more)"
