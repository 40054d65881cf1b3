"""Steps into a halfspace that change the fewest values: the projection in L0."""

from __future__ import annotations

import torch

Bound = float | torch.Tensor
"""A number, or [D]."""


def room(x: torch.Tensor, normal: torch.Tensor, lower: Bound, upper: Bound) -> torch.Tensor:
    """[B, D]: how far each value of x [B, D] can move in the direction of `normal` [B, D] within the box; 0 where that
    is zero."""
    return torch.where(normal > 0, upper - x, x - lower).where(normal != 0, 0.0)


def sparse_step(
    x: torch.Tensor, normal: torch.Tensor, offset: torch.Tensor, lower: Bound, upper: Bound
) -> tuple[torch.Tensor, torch.Tensor]:
    """A δ that changes the fewest values of x, with ⟨w, δ⟩ > c and x + δ in the box.

    Value i can add at most |w_i| room_i to ⟨w, δ⟩. The values that can add most move to the edge of the box, as many as
    it takes. Where values have no edge, the one with the largest |w_i| moves alone, twice as far as it has to.

    Args:
        x: [B, D].
        normal: w [B, D], finite, of x's dtype.
        offset: c >= 0 [B], of x's dtype.
        lower, upper: of the box; ±inf where there is no bound.

    Returns (δ [B, D], whether the box reaches into the halfspace [B] bool; δ = 0 where it does not).
    """
    if not x.shape[1]:
        return torch.zeros_like(x), torch.zeros_like(offset, dtype=torch.bool)
    slope, far = normal.abs(), room(x, normal, lower, upper)
    gain, order = (slope * far).sort(dim=1, descending=True, stable=True)
    total = gain.cumsum(1)
    feasible = total[:, -1] > offset
    fewer = (total <= offset[:, None]).sum(1, keepdim=True)  # one more is enough
    moves = order.argsort(1) <= fewer
    free = far.isinf()
    steepest = slope.masked_fill(~free, -1.0).argmax(1, keepdim=True)
    alone = torch.zeros_like(free).scatter_(1, steepest, True)
    moves = torch.where(free.any(1, keepdim=True), alone, moves)
    needed = 2 * offset[:, None].clamp_min(torch.finfo(x.dtype).tiny) / slope
    delta = normal.sign() * torch.where(free, needed, far)
    return delta.where(moves & feasible[:, None] & (normal != 0), 0.0), feasible
