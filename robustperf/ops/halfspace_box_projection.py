"""The smallest step into a halfspace that stays in the box."""

from __future__ import annotations

import torch

from robustperf import check
from robustperf.ops import registry

NORM_CODES = {1.0: 1, 2.0: 2, float("inf"): 3}
"""The norms as csrc/core/projection.hpp counts them."""


def halfspace_box_projection(
    x: torch.Tensor, w: torch.Tensor, c: torch.Tensor, *, norm: float = 2, lower: float = 0.0, upper: float = 1.0,
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
        lower, upper: the box, in the units of x.

    Returns (delta [B, D] of x's dtype, feasible [B] bool). Not differentiable. The work is O(D) a row, nothing is
    sorted (the reference sorts).

    Raises TypeError for a wrong dtype, ValueError for a wrong shape, device, norm, box or backend.
    """
    check.tensor("x", x, ("B", "D"))
    check.tensor("w", w, tuple(x.shape), dtypes=(x.dtype,), device=x.device)
    check.tensor("c", c, (x.shape[0],), device=x.device)
    lower, upper = check.bounds((lower, upper))
    code = NORM_CODES[check.norm(norm)]
    backend = registry.choose("halfspace_box_projection", backend, x.device)
    return _projection(x, w, c.double(), code, lower, upper, backend)


def _fake(x, w, c, norm, lower, upper, backend):
    return x.new_empty(x.shape), x.new_empty(x.shape[0], dtype=torch.bool)


_projection = registry.register(
    "halfspace_box_projection",
    "(Tensor x, Tensor w, Tensor c, int norm, float lower, float upper, str backend) -> (Tensor, Tensor)",
    _fake,
)
