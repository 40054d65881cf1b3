import torch

from robustperf.ops.halfspace_box_projection import NORM_CODES


def halfspace_box_projection(x, w, c, norm, lower, upper):
    """By sorting the break points, in float64 throughout."""
    dtype, x, w = x.dtype, x.double(), w.double()
    sound = ((x >= lower) & (x <= upper) & w.isfinite()).all(1) & ~c.isnan()
    largest = w.abs().amax(1, keepdim=True) if w.shape[1] else torch.ones_like(c)[:, None]
    largest = largest.clamp_min(torch.finfo(torch.float64).tiny)
    scale = largest / (2 * largest.frexp().mantissa)  # a power of two: no bit of w and c is lost
    weight, c = w.abs() / scale, c / scale[:, 0]
    h = torch.where(w > 0, upper - x, x - lower)
    feasible = (weight * h).sum(1) >= c
    move = (_heaviest_first if norm == NORM_CODES[1.0] else _evenly)(weight, h, c[:, None], norm)
    move = torch.where(feasible[:, None], move, h)
    move = torch.where((c > 0)[:, None], move, 0.0)
    delta = torch.where(sound[:, None], w.sign() * move, torch.nan)
    return delta.to(dtype), (feasible | (c <= 0)) & sound


def _evenly(weight, h, c, norm):
    """p = 2 and inf: every coordinate moves by min(reach(t), h), with t from the segment of F that holds c."""
    rate = weight if norm == NORM_CODES[2.0] else torch.ones_like(weight)  # reach(t) = t * rate
    breaks = torch.where(rate > 0, h / rate, torch.inf)
    breaks, order = breaks.sort(1)
    mass, slope = (weight * h).gather(1, order), (weight * rate).gather(1, order)
    saturated = mass.cumsum(1) - mass  # before each break point
    unsaturated = slope.flip(1).cumsum(1).flip(1)
    at_break = saturated + unsaturated * torch.where(unsaturated > 0, breaks, 0.0)  # F at each break point
    segment = (at_break < c).sum(1, keepdim=True).clamp_max(max(weight.shape[1] - 1, 0))
    if weight.shape[1] == 0:
        return h
    t = (c - saturated.gather(1, segment)) / unsaturated.gather(1, segment)
    return torch.minimum(t * rate, h)


def _heaviest_first(weight, h, c, norm):
    """p = 1: coordinates move to the end of their room in the order of |w|, the last one in part."""
    order = weight.argsort(dim=1, descending=True, stable=True)
    heavy, room = weight.gather(1, order), h.gather(1, order)
    mass = heavy * room
    left = (c - (mass.cumsum(1) - mass)).clamp_min(0.0)  # before each coordinate
    move = torch.where(left > 0, torch.minimum(room, left / heavy), 0.0)
    return torch.empty_like(h).scatter(1, order, move)
