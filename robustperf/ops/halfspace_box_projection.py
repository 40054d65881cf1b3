"""The smallest step into a halfspace that stays in the box."""

from __future__ import annotations

import math

import torch

from robustperf import check
from robustperf.ops import registry

NORM_CODES = {1.0: 1, 2.0: 2, float("inf"): 3}
"""The codes of the norms in the operation's schema, those of csrc/core."""


def halfspace_box_projection(
    x: torch.Tensor,
    w: torch.Tensor,
    c: torch.Tensor,
    *,
    norm: float = 2,
    lower: float | torch.Tensor = 0.0,
    upper: float | torch.Tensor = 1.0,
    backend: str | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """For each row the smallest ‖δ‖_p with ⟨w, δ⟩ >= c and lower <= x + δ <= upper: the heart of the attack of Hein &
    Andriushchenko (2017), T [11].

    Exact, not iterated to a tolerance, and independent of the scale of w: (s w, s c) gives the δ of (w, c). c <= 0
    gives δ = 0. Where the box holds no solution, δ leads to the corner that maximises ⟨w, δ⟩ and `feasible` is False.
    For p = 1 and equal |w_i| the lower index moves first. A row with a NaN, an infinite w or an x outside the box gives
    NaN and False.

    Args:
        x: [B, D] float32 or float64, the points.
        w: [B, D] of x's dtype, the normals, such as ∇(f_j - f_y)(x).
        c: [B] float32 or float64, how far to go along w, such as (f_y - f_j)(x).
        norm: p = 1, 2 or inf.
        lower, upper: the box, in the units of x: numbers, or tensors [D] of x's dtype for each coordinate; ±inf where
            there is no bound. Where lower >= upper no x is in the box.

    Returns (delta [B, D] of x's dtype, feasible [B] bool). Not differentiable. The work is O(D) a row, nothing is
    sorted (the reference sorts).

    Raises TypeError for a wrong dtype, ValueError for a wrong shape, device, norm, box or backend.

    >>> x, w = torch.tensor([[0.5, 0.5]]), torch.tensor([[1.0, 1.0]])
    >>> delta, feasible = rp.ops.halfspace_box_projection(x, w, torch.tensor([0.4]))
    >>> delta, feasible
    (tensor([[0.2000, 0.2000]]), tensor([True]))
    """
    check.tensor("x", x, ("B", "D"))
    check.tensor("w", w, tuple(x.shape), dtypes=(x.dtype,), device=x.device)
    check.tensor("c", c, (x.shape[0],), device=x.device)
    code = NORM_CODES[check.norm(norm)]
    backend = registry.choose("halfspace_box_projection", backend, x.device)
    if isinstance(lower, torch.Tensor) or isinstance(upper, torch.Tensor) or lower == -math.inf or upper == math.inf:
        lower, upper = _each("lower", lower, x), _each("upper", upper, x)
        return _within_bounds_of_each(backend, x, w, c.double(), code, lower, upper)
    lower, upper = check.bounds((lower, upper))
    return _projection(backend, x, w, c.double(), code, lower, upper)


def _each(name: str, bound: float | torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """A bound of each coordinate, [D] or a scalar."""
    if isinstance(bound, torch.Tensor):
        return check.tensor(name, bound, (x.shape[1],), dtypes=(x.dtype,), device=x.device)
    return x.new_tensor(float(bound))


def _within_bounds_of_each(backend, x, w, c, code, lower, upper):
    """For bounds that differ by coordinate, or are infinite. A coordinate moves in one direction only, that of w's
    sign, and the box limits its move to h. So the problem is mirrored: the coordinate starts at h in the box [0, max h]
    with the weight -|w|, where its move is limited to h too, and the move changes its sign afterwards."""
    room = torch.where(w > 0, upper - x, x - lower)
    room = room.where((x >= lower) & (x <= upper) & x.isfinite(), math.nan)  # a NaN makes the whole row NaN
    # No coordinate moves farther than c / max |w| over those without a bound, for that one alone could reach c.
    free = room.isinf()
    largest = w.abs().where(free, 0.0).amax(1) if x.shape[1] else c.new_zeros(len(x))
    enough = (2 * c.clamp_min(0) / largest).clamp_max(torch.finfo(x.dtype).max / 2)
    room = torch.where(free, enough.nan_to_num(0).to(x.dtype)[:, None], room)
    move, feasible = _projection(backend, room, -w.abs(), c, code, 0.0, torch.finfo(x.dtype).max)
    return -move * w.sign(), feasible


def _fake(x, w, c, norm, lower, upper, backend):
    return x.new_empty(x.shape), x.new_empty(x.shape[0], dtype=torch.bool)


_projection = registry.register(
    "halfspace_box_projection",
    "(Tensor x, Tensor w, Tensor c, int norm, float lower, float upper, str backend) -> (Tensor, Tensor)",
    _fake,
)
