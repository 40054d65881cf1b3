"""What the iterative attacks share: the first gradient, directions, step sizes and projections onto hyperplanes."""

from __future__ import annotations

import math
import sys

import torch

from robustperf import check, ops, random
from robustperf.attacks.losses import length, per_sample
from robustperf.attacks.problem import Nearest, Problem

_TINY = 1e-38


def first_gradient(
    problem: Problem, nearest: Nearest, loss: str = "gap"
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(rows [M], the gradient of `loss` at x there [M, ...], the gap [M]) of the points that an attack has work on.

    Finished are points whose label has changed already and those without a gradient, for which `problem.flat` is set;
    x is offered to `nearest` for these. One forward and one backward pass."""
    gradient, gap = problem.gradient(problem.x, loss=loss)
    rows = unfinished(problem, nearest, gap)
    return rows, gradient[rows], gap[rows]


def unfinished(problem: Problem, nearest: Nearest, gap: torch.Tensor) -> torch.Tensor:
    """[M] int64: the rows that have not crossed at x, with the gap [B], and have a gradient; x is offered to `nearest`
    for the others."""
    done = (gap < 0) | problem.flat
    rows = done.nonzero()[:, 0]
    nearest.offer(problem.x[rows], gap[rows], rows)
    return (~done).nonzero()[:, 0]


def offer_step(
    problem: Problem, nearest: Nearest, point: torch.Tensor, rows: torch.Tensor, *, last: bool, loss: str = "gap"
) -> tuple[torch.Tensor, torch.Tensor]:
    """(the gradient of `loss` at `point` [M, ...], the gap [M]); the point is offered to `nearest`. After the last step
    only the gap is computed, and the gradient is empty."""
    if last:
        gradient, gap = point[:0], problem.gap(point, rows)
    else:
        gradient, gap = problem.gradient(point, rows, loss)
    nearest.offer(point, gap, rows)
    return gradient, gap


def cosine(first: float, last: float, step: int, steps: int) -> float:
    """A value annealed from `first` at step 0 to `last` at step `steps - 1`: last + (first - last)(1 + cos πt) / 2."""
    return last + (first - last) * (1 + math.cos(math.pi * step / max(steps - 1, 1))) / 2


def largest_one(gradient: torch.Tensor) -> torch.Tensor:
    """The gradient [B, ...] scaled to a largest component of 1; zero where it is zero."""
    largest = length(gradient, math.inf) if gradient.numel() else gradient.new_ones(len(gradient))
    return gradient / per_sample(largest.clamp_min(_TINY), gradient)


def unit(gradient: torch.Tensor, norm: float = 2) -> torch.Tensor:
    """The gradient [B, ...] divided by its norm; zero where it is zero. It is scaled first, so that the square of a
    tiny gradient does not vanish."""
    scaled = largest_one(gradient)
    return scaled / per_sample(length(scaled, norm).clamp_min(_TINY), gradient)


def draw_in_ball(x: torch.Tensor, radius: float, key: int, index: torch.Tensor, norm: float) -> torch.Tensor:
    """A uniform draw from the L2 or L∞ ball of this radius for each point of x [M, ...], by the key and the sample ids
    `index` [M]."""
    dim = x[0].numel() if len(x) else 0
    if norm == math.inf:
        delta = (2 * random.uniform(key, index, 1, dim)[0] - 1) * radius
    else:
        delta = random.normal(key, index, 1, dim)[0]
        size = random.uniform(random.fold_in(key, 0), index, 1, 1)[0] ** (1 / max(dim, 1))
        delta = delta * (radius * size / delta.norm(dim=1, keepdim=True))
    return delta.to(x.dtype).reshape(x.shape)


def dual(norm: float) -> float:
    """q with 1/p + 1/q = 1, for p = 1, 2 or inf."""
    return {1.0: math.inf, 2.0: 2.0, math.inf: 1.0}[norm]


def to_hyperplane(
    problem: Problem, point: torch.Tensor, normal: torch.Tensor, offset: torch.Tensor, norm: float
) -> torch.Tensor:
    """The smallest ‖δ‖_p with ⟨w, δ⟩ = c and point + δ in the box, for points [M, ...], w [M, ...] and c [M] of either
    sign; the corner nearest to the hyperplane where the box does not reach it.

    Hein & Andriushchenko (2017), by `ops.halfspace_box_projection`: the smallest step into the halfspace that does not
    hold the point ends on its boundary."""
    lower, upper = check.flat_box(problem.bounds, problem.x.shape[1:])
    forward = per_sample(torch.where(offset < 0, -1.0, 1.0), normal) * normal
    delta, _ = ops.halfspace_box_projection(
        point.flatten(1), forward.flatten(1), offset.abs().double(), norm=norm, lower=lower, upper=upper
    )
    return delta.view_as(point)


def closest_boundary(
    problem: Problem, point: torch.Tensor, rows: torch.Tensor, classes: int | None, norm: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """The hyperplane {x + δ: ⟨w, δ⟩ = c} that is nearest to `point` [M, ...] of those to the `classes` other classes of
    the highest logits (None: all), of the model linearised there, without regard to the box: Moosavi-Dezfooli et al.
    (2016), argmin |z_j - z_y| / ‖∇(z_j - z_y)‖_q.

    Returns (w [M, ...], c [M] float64, the runner-up's w [M, ...], the gap [M]); a w that is not finite is zero. Sets
    `problem.flat` where no boundary has a finite w that is not zero, unless the label has changed. One forward pass and
    a backward pass a class."""
    half = problem.linearised(point, rows, classes or sys.maxsize)
    size = torch.linalg.vector_norm(half.normal, dual(norm), dim=2)
    moved = torch.einsum("mjd,md->mj", half.normal.double(), (point - problem.x[rows]).flatten(1).double())
    away = (half.offset - moved).abs() / size
    usable = (size > 0) & away.isfinite()
    problem.mark_flat(~usable.any(1) & ~(half.gap < 0), rows)
    nearest = away.masked_fill(~usable, math.inf).argmin(1)
    every = torch.arange(len(point), device=point.device)

    def of(j: torch.Tensor) -> torch.Tensor:
        return half.normal[every, j].masked_fill(~usable[every, j, None], 0.0).view_as(point)

    return of(nearest), half.offset[every, nearest].nan_to_num(), of(torch.zeros_like(nearest)), half.gap


def along(normal: torch.Tensor, delta: torch.Tensor) -> torch.Tensor:
    """[M] float64: ⟨w, δ⟩."""
    return (normal.double() * delta.double()).flatten(1).sum(1)


def into_ball(
    problem: Problem, x: torch.Tensor, delta: torch.Tensor, radius: torch.Tensor, norm: float
) -> torch.Tensor:
    """δ [M, ...] projected onto {‖δ‖_p <= r, x + δ in the box}, for r [M] float64, which may be infinite."""
    clipped = problem.clamp(x + delta) - x
    radius = torch.minimum(radius, length(clipped, norm).double())  # it lies inside the ball already
    lower, upper = problem.bounds
    return ops.ball_box_projection(x, delta, radius, norm=norm, lower=lower, upper=upper)
