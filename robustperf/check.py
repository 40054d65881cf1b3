"""Checks of arguments; every error has the form `name: expected ..., got ...`."""

from __future__ import annotations

import functools
import math
import numbers
import operator
from collections.abc import Sequence
from typing import Any, TypeGuard

import numpy as np
import torch

REAL = (torch.float32, torch.float64)
HALF = (torch.bfloat16, torch.float16)

Box = tuple[float, float] | tuple[torch.Tensor, torch.Tensor]
"""(lower, upper) of the pixel values of an image: numbers, or tensors that broadcast to an image."""

_ROUNDING = 1e-6  # fraction of the box's width: more than the rounding of normalising an image in float32


def tensor(
    name: str,
    value: Any,
    shape: tuple[int | str, ...] | None = None,
    *,
    dtypes: tuple[torch.dtype, ...] = REAL,
    device: torch.device | None = None,
) -> torch.Tensor:
    """`value` if it is a tensor of one of `dtypes`, of `shape`, and on `device`.

    Args:
        shape: sizes, names that match any size, and an Ellipsis at the end that matches any further dimensions.

    Raises TypeError unless `value` is a tensor of one of `dtypes`, ValueError for a wrong shape or device.

    >>> check.tensor("x", x, ("B", 3, ...))  # doctest: +SKIP
    """
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
            for i, want in enumerate(head):  # a plain loop is fastest; some calls take only a few microseconds
                if isinstance(want, int) and want != size[i]:
                    fits = False
        if not fits:
            text = ", ".join("..." if size is ... else str(size) for size in shape)
            raise ValueError(f"{name}: expected shape [{text}], got {list(value.shape)}")
    return value


def norm(value: Any, *, zero: bool = False) -> float:
    """1, 2 or inf as a float, also 0 if `zero`, from a number or text; ValueError for anything else, a bool too."""
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if number not in (1.0, 2.0, math.inf) and not (zero and number == 0):
        raise ValueError(f"norm: expected {'0, ' if zero else ''}1, 2 or inf, got {value!r}")
    return abs(number)


def bounds(value: Any) -> tuple[float, float]:
    """(lower, upper) as floats.

    Raises TypeError unless `value` is a pair of numbers, ValueError unless they are finite and lower < upper.
    """
    try:
        lower, upper = map(float, value)
    except (TypeError, ValueError):
        raise TypeError(f"bounds: expected two numbers (lower, upper), got {value!r}") from None
    if not (lower < upper and math.isfinite(lower) and math.isfinite(upper)):
        raise ValueError(f"bounds: expected finite lower < upper, got ({lower}, {upper})")
    return lower, upper


def box(value: Any, shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> Box:
    """`bounds` of images of `shape`, rounded to `dtype`, so that the results of `clamp` are within them.

    Args:
        value: (lower, upper), each a number or an array: [C], one per channel (the images' first axis; one per feature
            if images are [D]), or of a shape that broadcasts to `shape`. ±inf for no bound.
        shape: of an image.
        dtype, device: of the images.

    Returns two floats if both are numbers, otherwise two tensors of one shape that broadcasts to `shape`.

    Raises TypeError unless `value` is a pair of numbers or arrays, ValueError for a shape that does not fit, or unless
    lower < upper everywhere.
    """
    try:
        # a pandas series, such as frame.min(), is no sequence of numbers to torch
        parts = [np.array(part) if hasattr(part, "to_numpy") else part for part in value]
        lower, upper = (torch.as_tensor(part, dtype=torch.float64, device="cpu").detach() for part in parts)
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"bounds: expected (lower, upper), two numbers or arrays, got {value!r}") from None
    lower, upper = (_to_image(part, shape) for part in (lower, upper))
    lower, upper = torch.broadcast_tensors(lower, upper)
    wrong = ~(lower < upper)
    if wrong.any():
        raise ValueError(
            f"bounds: expected lower < upper, got ({lower[wrong][0].item():g}, "
            f"{upper[wrong][0].item():g})" + f" at {wrong.nonzero()[0].tolist()}" * (lower.dim() > 0)
        )
    if not lower.dim():
        return rounded((lower.item(), upper.item()), dtype)
    return lower.to(device, dtype).contiguous(), upper.to(device, dtype).contiguous()


def _to_image(bound: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """A bound, reshaped so that it broadcasts to an image."""
    given = list(bound.shape)
    if bound.numel() == 1:
        return bound.reshape(())
    if bound.dim() == 1 and len(shape) > 1:
        bound = bound.reshape(-1, *[1] * (len(shape) - 1))
    trailing = zip(reversed(bound.shape), reversed(shape), strict=False)
    if bound.dim() > len(shape) or any(size not in (1, whole) for size, whole in trailing):
        channels = shape[0] if len(shape) else 1
        raise ValueError(
            f"bounds: expected a number, [{channels}], or a shape that broadcasts to {list(shape)}, got {given}"
        )
    return bound


def flat_box(box: Box, shape: Sequence[int]) -> Box:
    """A box of images of `shape` as that of flattened images: numbers, or tensors [D]."""
    lower, upper = (b.expand(*shape).flatten() if isinstance(b, torch.Tensor) else b for b in box)
    return lower, upper


def width(bounds: Box, x: torch.Tensor) -> float:
    """The mean of upper - lower over the values of an image of x [B, ...]; an unbounded value counts as 1."""
    if isinstance(bounds[0], torch.Tensor):
        widths = (bounds[1] - bounds[0]).double().expand(x.shape[1:])
        return torch.where(widths.isfinite(), widths, 1.0).mean().item() if widths.numel() else 1.0
    return bounds[1] - bounds[0] if math.isfinite(bounds[1] - bounds[0]) else 1.0


def rounded(bounds: tuple[float, float], dtype: torch.dtype) -> tuple[float, float]:
    """The bounds rounded to `dtype`, so that the results of `clamp` are within them."""
    lower, upper = torch.tensor(bounds, dtype=dtype).tolist()
    return lower, upper


def plain(value: Any) -> Any:
    """`value` with NumPy's numbers, also within tuples, lists and dicts, converted to Python's, as JSON needs.

    Anything else is returned unchanged.
    """
    if isinstance(value, np.generic):
        return value.item()
    if type(value) in (tuple, list):
        return type(value)(map(plain, value))
    if type(value) is dict:
        return {plain(name): plain(item) for name, item in value.items()}
    return value


class Settings:
    """A base class of dataclasses: `plain` converts the fields before the subclass's `__post_init__` checks them."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        own = vars(cls).get("__post_init__")
        if own is None:
            return

        @functools.wraps(own)
        def __post_init__(self):
            Settings.__post_init__(self)
            own(self)

        cls.__post_init__ = __post_init__

    def __post_init__(self) -> None:
        for name, value in list(vars(self).items()):
            object.__setattr__(self, name, plain(value))  # works for frozen dataclasses too


def is_number(value: object) -> TypeGuard[float]:
    """Whether `value` is a real number of Python or NumPy; a bool is none."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def number(
    name: str,
    value: object,
    *,
    least: float = -math.inf,
    most: float = math.inf,
    above: float = -math.inf,
    below: float = math.inf,
) -> float:
    """`value`, as a Python number, if it is a finite real number with least <= value <= most and above < value < below.

    Raises ValueError for anything else, a bool too.

    >>> number("confidence", 0.95, above=0, below=1)
    0.95
    """
    if is_number(value) and least <= value <= most and above < value < below:  # strict ends: never infinite or NaN
        return plain(value)
    lower, upper = max(least, above), min(most, below)
    if math.isfinite(lower) and math.isfinite(upper):
        wanted = f"a number in {'[' if least > above else '('}{lower:g}, {upper:g}{']' if most < below else ')'}"
    else:
        ends = ((least, ">="), (above, "above"), (most, "<="), (below, "below"))
        wanted = " ".join(["a finite number", *(f"{word} {end:g}" for end, word in ends if math.isfinite(end))])
    raise ValueError(f"{name}: expected {wanted}, got {value!r}")


def integer(name: str, value: object, least: int, most: int | None = None) -> int:
    """`value`, as a Python int, if it is an integer of Python or NumPy with least <= value <= most (None: no limit).

    Raises ValueError for anything else, a bool and a float such as 2.0 too.

    >>> integer("samples", 1000, 1)
    1000
    """
    python = type(value) is int  # the fast case: some calls take only a few microseconds
    if python or (isinstance(value, numbers.Integral) and not isinstance(value, bool)):
        if least <= value and (most is None or value <= most):
            return value if python else int(value)
    if most is not None:
        wanted = f"an integer in {_power(least)}..{_power(most)}"
    else:
        wanted = "an integer above 0" if least == 1 else f"an integer >= {least}"
    raise ValueError(f"{name}: expected {wanted}, got {value!r}")


def _power(value: int) -> str:
    """`value`, a power of two in short: 2^63-1."""
    for shift in (0, 1):
        size = abs(value) + shift
        if size >= 1 << 16 and not size & (size - 1) and (value > 0 or not shift):
            return f"{'-' if value < 0 else ''}2^{size.bit_length() - 1}{'-1' if shift else ''}"
    return str(value)


def labels(name: str, value: torch.Tensor, classes: int, *, synchronise: bool = False) -> None:
    """ValueError unless the labels, an integer tensor, are all in 0..classes-1.

    Labels on a GPU are checked only with `synchronise`, because reading them makes the host wait for the device.
    """
    if (value.device.type == "cpu" or synchronise) and value.numel() and not torch.compiler.is_compiling():
        low, high = (v.item() for v in value.aminmax())
        if low < 0 or high >= classes:
            raise ValueError(f"{name}: expected labels in 0..{classes - 1}, got {low if low < 0 else high}")


def images(name: str, value: Any, bounds: Box | None = None) -> torch.Tensor:
    """A batch [B, ...] of finite float images, clamped to `bounds` if they are given.

    A pixel that exceeds a bound by rounding, up to 1e-6 of the box's width, is clamped. `value` itself is returned if
    there is nothing to clamp.

    Raises TypeError for a wrong type or dtype, ValueError for a wrong shape, a pixel that is not finite, or one beyond
    the bounds; the error names the worst.
    """
    tensor(name, value, ("B", ...))
    if value.dim() < 2:
        raise ValueError(f"{name}: expected a batch of shape [B, ...], got {list(value.shape)}")
    if not value.numel():
        return value
    low, high = (v.item() for v in value.detach().aminmax())  # NaN if any pixel is
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError(f"{name}: expected finite pixels, got {_first_fault(value, ~value.isfinite())}")
    if bounds is None:
        return value
    if not isinstance(bounds[0], torch.Tensor):
        bounds = rounded(bounds, value.dtype)
        if low >= bounds[0] and high <= bounds[1]:
            return value
    clamped = value.clamp(*bounds)
    beyond = (value - clamped).detach().abs()
    if not beyond.any():
        return value
    lower, upper = (torch.as_tensor(bound, dtype=value.dtype, device=value.device) for bound in bounds)
    size = torch.maximum(lower.abs().nan_to_num(posinf=0), upper.abs().nan_to_num(posinf=0))
    allowed = _ROUNDING * (upper - lower).nan_to_num(posinf=0) + 4 * torch.finfo(value.dtype).eps * size
    wrong = beyond > allowed
    if wrong.any():
        place = tuple(torch.unravel_index(beyond.where(wrong, 0).argmax(), value.shape))
        low, high = (bound.expand(value.shape)[place].item() for bound in (lower, upper))
        raise ValueError(
            f"{name}: expected pixels within [{low:g}, {high:g}], got {value[place].item()} at "
            f"{[int(at) for at in place]} (and {int(wrong.sum()) - 1} more)"
        )
    return clamped


def finite(name: str, value: torch.Tensor) -> torch.Tensor:
    """`value` if all its entries are finite; ValueError with the first other one."""
    if not (sound := value.isfinite()).all():
        raise ValueError(f"{name}: expected finite numbers, got {_first_fault(value, ~sound)}")
    return value


def image_shape(name: str, value: Any) -> tuple[int, int, int]:
    """(C, H, W), three integers above 0; ValueError for anything else."""
    try:
        shape = tuple(map(operator.index, value))
    except TypeError:
        shape = ()
    if len(shape) != 3 or min(shape) < 1:
        raise ValueError(f"{name}: expected (C, H, W) above 0, got {value!r}")
    return shape


def line_of(error: BaseException, most: int = 400) -> str:
    """The message of an error on one line of at most `most` characters; its type if it has no message."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= most else f"{text[:most]}..."


def _first_fault(value: torch.Tensor, wrong: torch.Tensor) -> str:
    place = wrong.nonzero()[0].tolist()
    return f"{value[tuple(place)].item()} at {place} (and {int(wrong.sum()) - 1} more)"
