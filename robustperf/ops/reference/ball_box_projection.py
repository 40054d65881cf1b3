import math

import torch

from robustperf.ops.halfspace_box_projection import NORM_CODES

_LEAST_SIZE = 2.0**-500  # for p = 2, of the largest: smaller ones count as zero


def ball_box_projection(x, delta, radius, lower, upper, norm):
    """By sorting the break points, in float64 throughout."""
    d, low, high = delta.double(), lower.double() - x.double(), upper.double() - x.double()
    usable = d.isfinite() if norm != NORM_CODES[math.inf] else ~d.isnan()
    sound = ((x >= lower) & (x <= upper) & usable).all(1) & (radius >= 0)
    size, h = d.abs(), torch.where(d > 0, high, -low)
    r = radius[:, None]
    if norm == NORM_CODES[2.0]:
        move = _onto_sphere(size, h, r)
    else:
        move = torch.minimum(size, r) if norm == NORM_CODES[math.inf] else (size - _threshold(size, h, r)).clamp_min(0)
        move = torch.minimum(move, h)
    moved = torch.where(r > 0, d.sign() * move, 0.0)
    moved = torch.where(sound[:, None], moved, torch.nan).to(x.dtype)
    point = x + moved
    shorter = torch.nextafter(moved, torch.zeros_like(moved))
    return torch.where((point < lower) | (point > upper), shorter, moved).contiguous()


def _onto_sphere(size, h, radius):
    """min(s size, h) of norm `radius`: in t = s², from the segment of F(t) = Σ min(t size², h²) with radius²."""
    if not size.shape[1]:
        return size
    size, h, unit = size / _power(size.amax(1, keepdim=True)), h / _power(radius), _power(radius)
    size = torch.where(size < _LEAST_SIZE, 0.0, size)
    target, rate = (radius / unit).square(), size.square()
    most = torch.where(rate > 0, h.square(), 0.0)
    breaks, order = torch.where(rate > 0, most / rate, torch.inf).sort(1)
    rate, most = rate.gather(1, order), most.gather(1, order)
    saturated = torch.zeros_like(most)  # before each break point
    saturated[:, 1:] = most[:, :-1].cumsum(1)
    unsaturated = rate.flip(1).cumsum(1).flip(1)
    at_break = torch.where(unsaturated > 0, saturated + unsaturated * breaks, 0.0)
    corner = at_break.amax(1, keepdim=True)
    segment = (at_break.cummax(1).values < target).sum(1, keepdim=True).clamp_max(size.shape[1] - 1)
    t = (target - saturated.gather(1, segment)) / unsaturated.gather(1, segment)
    move = torch.where(size > 0, torch.minimum(torch.where(corner < target, torch.inf, t.sqrt()) * size, h), 0.0)
    return torch.where((corner == torch.inf) & (radius == torch.inf), torch.nan, move * unit)


def _threshold(size, h, radius):
    """The least t >= 0 with Σ min((size - t)_+, h) <= radius. The sum is zero at the largest size and is followed from
    there downwards: its slope changes at each size and at each size - h."""
    if not size.shape[1]:
        return torch.zeros_like(radius)
    breaks = torch.cat([size, (size - h).clamp_min(0.0), torch.zeros_like(radius)], 1)
    change = torch.cat([torch.ones_like(size), -torch.ones_like(size), torch.zeros_like(radius)], 1)
    breaks, order = breaks.sort(1, descending=True)
    slope = change.gather(1, order).cumsum(1)  # below each break point
    rise = torch.zeros_like(breaks)
    rise[:, 1:] = slope[:, :-1] * (breaks[:, :-1] - breaks[:, 1:])
    total = rise.cumsum(1)
    after = (total <= radius).sum(1, keepdim=True)  # the number of break points in the ball
    before = (after - 1).clamp_min(0)
    t = breaks.gather(1, before) - (radius - total.gather(1, before)) / slope.gather(1, before)
    t = torch.where(after == breaks.shape[1], 0.0, t)
    # Beside the size of a step far beyond the box, h is lost: size - h is rounded to size.
    outside = (_lowered(size, h, t) > radius * (1 + 1e-9))[:, 0]
    t[outside] = _bisected(size[outside], h[outside], radius[outside])
    return t


def _lowered(size, h, t):
    """Σ min((size - t)_+, h), [B, 1]."""
    return torch.minimum((size - t).clamp_min(0), h).sum(1, keepdim=True)


def _bisected(size, h, radius):
    """The least t whose sum is at most the radius, in the precision of the largest size."""
    low, high = torch.zeros_like(radius), size.amax(1, keepdim=True)
    for _ in range(64):
        middle = (low + high) / 2
        beyond = _lowered(size, h, middle) > radius
        low, high = torch.where(beyond, middle, low), torch.where(beyond, high, middle)
    return high


def _power(largest):
    """The power of two in [largest / 2, largest], by which division is exact; 1 for zero and infinity."""
    return torch.where((largest > 0) & largest.isfinite(), largest / (2 * largest.frexp().mantissa), 1.0)
