"""The projection of a step onto a norm ball within the box."""

from __future__ import annotations

import math

import torch

from robustperf.attacks.losses import per_sample

_ITERATIONS = 100  # a bound: Newton's method ends after about ten


def ball_box_projection(
    delta: torch.Tensor, radius: torch.Tensor, lower: torch.Tensor, upper: torch.Tensor, norm: float
) -> torch.Tensor:
    """δ [B, ...] moved into {‖δ‖_p <= r, lower <= δ <= upper}, where lower <= 0 <= upper.

    - p = inf: the nearest point, δ clipped to ±r and to the box.
    - p = 1: the nearest point, which soft-thresholds: min((|δ_i| - λ)_+, room_i) with the least λ >= 0 in the ball,
      where room_i is how far the box lets coordinate i move.
    - p = 2: δ scaled *onto* the sphere within the box, min(s |δ_i|, room_i) with the s of norm r; inwards and outwards.
      Where the box ends before the sphere, the corner that δ leads to.

    Exact up to rounding, with float64 sums. In t = s² the squared norm of p = 2 is concave and piecewise linear, so
    Newton's method from below increases t to the solution in finitely many steps. For p = 1 the sum is piecewise linear
    in λ; Newton's step is taken within a bracket, and the bracket halved where the step leaves it.

    Args:
        delta: [B, ...] float32 or float64, finite.
        radius: [B] float64, r >= 0, finite.
        lower, upper: like delta, or of a shape that broadcasts to it; ±inf where there is no bound.
        norm: p = 1, 2 or inf.

    Returns [B, ...] of delta's dtype.

    >>> ball_box_projection(torch.tensor([[3.0, 4.0]]), torch.tensor([1.0]), torch.tensor(-0.7), torch.tensor(0.7), 2)
    tensor([[0.7000, 0.7000]])
    """
    if norm == math.inf:
        r = per_sample(radius, delta)
        return delta.clamp(-r, r).clamp(lower, upper)
    size = delta.abs().flatten(1).double()
    room = torch.where(delta > 0, upper, -lower).flatten(1).double()
    moved = _onto_sphere(size, room, radius.double()) if norm == 2 else _into_l1_ball(size, room, radius.double())
    return (moved.to(delta.dtype) * delta.flatten(1).sign()).view_as(delta).clamp(lower, upper)


def _onto_sphere(size: torch.Tensor, room: torch.Tensor, radius: torch.Tensor) -> torch.Tensor:
    """[B, D]: min(s size, room) of norm `radius`."""
    largest = size.amax(1, keepdim=True) if size.shape[1] else size
    size = size / largest.clamp_min(torch.finfo(size.dtype).tiny)  # squares neither vanish nor overflow
    squared, target = size.square(), radius.square()
    total = squared.sum(1)
    t = torch.where(total > 0, target / total, 0.0)
    for _ in range(_ITERATIONS):
        full = t.sqrt()[:, None] * size >= room
        free = squared.masked_fill(full, 0.0).sum(1)
        better = (target - room.masked_fill(~full, 0.0).square().sum(1)) / free
        better = torch.where(free > 0, torch.maximum(better, t), t)  # nothing is free in the corner
        if not (better > t * (1 + 1e-14)).any():
            break
        t = better
    return torch.minimum(t.sqrt()[:, None] * size, room)


def _into_l1_ball(size: torch.Tensor, room: torch.Tensor, radius: torch.Tensor) -> torch.Tensor:
    """[B, D]: min((size - λ)_+, room) with the least λ >= 0 of sum <= `radius`."""
    least = torch.zeros_like(radius)
    most = size.amax(1) if size.shape[1] else least
    level, inside = least, torch.minimum(size, room).sum(1) <= radius
    for _ in range(_ITERATIONS):
        excess = size - level[:, None]
        total = torch.minimum(excess.clamp_min(0), room).sum(1)
        most, least = torch.where(total <= radius, level, most), torch.where(total > radius, level, least)
        free = ((excess > 0) & (excess <= room)).sum(1)
        step = level + (total - radius) / free
        following = torch.where((step >= least) & (step <= most), step, (least + most) / 2)
        moving = ~inside & ((following - level).abs() > 1e-15 * most) & ((total - radius).abs() > 1e-14 * radius)
        if not moving.any():
            break
        level = torch.where(moving, following, level)
    return torch.minimum((size - level[:, None]).clamp_min(0), room)
