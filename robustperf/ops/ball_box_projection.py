"""A step moved into a norm ball, and within the box."""

from __future__ import annotations

import torch

from robustperf import check
from robustperf.ops import registry
from robustperf.ops.halfspace_box_projection import NORM_CODES


def ball_box_projection(
    x: torch.Tensor,
    delta: torch.Tensor,
    radius: torch.Tensor,
    *,
    norm: float = 2,
    lower: float | torch.Tensor = 0.0,
    upper: float | torch.Tensor = 1.0,
    backend: str | None = None,
) -> torch.Tensor:
    """Each δ moved into ‖δ‖_p <= r and lower <= x + δ <= upper.

    - p = inf: the nearest point, δ clipped to ±r and to the box.
    - p = 1: the nearest point, sign(δ_i) min((|δ_i| - t)_+, h_i) with the least t >= 0 in the ball. h_i is how far the
      box lets coordinate i move in δ's direction.
    - p = 2: δ scaled *onto* the sphere within the box, sign(δ_i) min(s |δ_i|, h_i) with the s of norm r; inwards and
      outwards. Where the box ends before the sphere, the corner that δ leads to.

    Exact up to rounding, not iterated to a tolerance, with float64 sums. x + δ, rounded to its dtype, is in the box. A
    row with a NaN, an infinite δ (but for p = inf), a negative r or an x outside the box gives NaN; for p = 2 one with
    an infinite r too, unless δ leads to a corner.

    Args:
        x: [B, ...] float32 or float64, the centres.
        delta: like x. For p = 2, coordinates below 2^-500 times the largest one count as zero.
        radius: [B] float32 or float64, r.
        lower, upper: the box, in the units of x: numbers, or tensors of x's dtype that broadcast to an image x[0]; ±inf
            where there is no bound. Numbers are rounded to x's dtype. Where lower > upper no x is in the box.

    Returns [B, ...] of x's dtype. Not differentiable. A few passes over each row, nothing is sorted (the reference
    sorts).

    Raises TypeError for a wrong dtype or bound, ValueError for a wrong shape, device, norm, box or backend.

    >>> x = torch.full((1, 2), 0.5)
    >>> rp.ops.ball_box_projection(x, torch.tensor([[3.0, 4.0]]), torch.tensor([0.6]), norm=2)
    tensor([[0.3600, 0.4800]])
    """
    check.tensor("x", x, ("B", ...))
    check.tensor("delta", delta, tuple(x.shape), dtypes=(x.dtype,), device=x.device)
    check.tensor("radius", radius, (x.shape[0],), device=x.device)
    code = NORM_CODES[check.norm(norm)]
    backend = registry.choose("ball_box_projection", backend, x.device)
    bounds = _each("lower", lower, x), _each("upper", upper, x)
    if not (isinstance(lower, torch.Tensor) or isinstance(upper, torch.Tensor) or lower < upper):
        raise ValueError(f"bounds: expected lower < upper, got ({lower}, {upper})")
    flat = x.flatten(1), delta.flatten(1)
    return _projection(backend, *flat, radius.double(), *bounds, code).view_as(x)


def _each(name: str, bound: float | torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """The bound of each coordinate, [D]."""
    image = x.shape[1:]
    if not isinstance(bound, torch.Tensor):
        if not check.is_number(bound):
            raise TypeError(f"{name}: expected a number or a tensor, got {bound!r}")
        return x.new_full((image.numel(),), bound)
    check.tensor(name, bound, dtypes=(x.dtype,), device=x.device)
    try:
        return bound.expand(image).flatten()
    except RuntimeError:
        raise ValueError(
            f"{name}: expected a shape that broadcasts to {list(image)}, got {list(bound.shape)}"
        ) from None


def _fake(x, delta, radius, lower, upper, norm, backend):
    return x.new_empty(x.shape)


_projection = registry.register(
    "ball_box_projection",
    "(Tensor x, Tensor delta, Tensor radius, Tensor lower, Tensor upper, int norm, str backend) -> Tensor",
    _fake,
)
