"""MNIST-C's dotted line and zigzag."""

from __future__ import annotations

import math

import torch

_REACH = 2.3  # pixels
_HALF_PERIOD, _AMPLITUDE = 2.0, 2.0  # pixels


def dotted_line(x: torch.Tensor, uniforms: torch.Tensor) -> torch.Tensor:
    height, width = x.shape[2:]
    first, last = ((height - 1) * uniforms.double()).floor().unbind(1)
    line = _stroke(height, width, torch.zeros_like(first), first, torch.full_like(first, width - 1), last)
    drawn = torch.arange(width, device=x.device) % 4 >= 2
    return _added(x, line * drawn)


def zigzag(x: torch.Tensor, uniforms: torch.Tensor) -> torch.Tensor:
    height, width = x.shape[2:]
    begin, end = 2, width - 3  # columns
    uniforms = uniforms.double()
    first = ((height - 1) * uniforms[:, 0]).floor()
    rise = (10 * uniforms[:, 1]).floor() - 5
    length = (rise**2 + (end - begin) ** 2).sqrt()
    period = 2 * _HALF_PERIOD

    # the corners, along the straight line and across it; corners beyond its end are moved to the end
    number = torch.arange(int((math.hypot(5, end - begin) - _HALF_PERIOD) // period) + 1, device=x.device)
    peaks = _HALF_PERIOD + period * number
    heights = torch.where(number % 2 == 0, _AMPLITUDE, -_AMPLITUDE).double()
    within = peaks <= length[:, None]
    rest = length.remainder(period).clamp_min(0.5)  # after the last full period
    at_end = heights[within.sum(1) - 1] / (2 * rest)
    start = torch.zeros_like(first)[:, None]
    along = torch.cat([start, torch.where(within, peaks, length[:, None]), length[:, None]], 1)
    across = torch.cat([start, torch.where(within, heights, at_end[:, None]), at_end[:, None]], 1)

    cosine, sine = ((end - begin) / length)[:, None], (rise / length)[:, None]
    columns = begin + along * cosine - across * sine
    rows = first[:, None] + along * sine + across * cosine
    lines = 0.0
    for i in range(columns.shape[1] - 1):
        lines = lines + _stroke(height, width, columns[:, i], rows[:, i], columns[:, i + 1], rows[:, i + 1])
    return _added(x, lines)


def _stroke(
    height: int,
    width: int,
    column: torch.Tensor,
    row: torch.Tensor,
    to_column: torch.Tensor,
    to_row: torch.Tensor,
) -> torch.Tensor:
    """[N, H, W], lines from points [N] to points [N], without their last columns."""
    columns = torch.arange(width, device=row.device)
    run = (to_column - column)[:, None]
    slope = (to_row - row)[:, None] / run.where(run != 0, 1.0)
    line = row[:, None] + slope * (columns - column[:, None])
    inside = (columns >= column[:, None].floor()) & (columns < to_column[:, None].ceil()) & (run != 0)
    distance = (torch.arange(height, device=row.device)[:, None] - line[:, None]).abs()
    intensity = 1 + (-(distance / _REACH).clamp(max=1 - 1e-9)).log1p()
    return intensity.clamp(0, 1) * inside[:, None]


def _added(x: torch.Tensor, lines: torch.Tensor) -> torch.Tensor:
    return (x + lines[:, None].to(x.dtype)).clamp(max=1)
