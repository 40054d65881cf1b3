"""Random problems for the ball-box projection and its truth by bisection in float64."""

import math

import torch

from robustperf.ops import ball_box_projection


def sample(batch, dim, dtype, seed=0, free=False):
    """(x, delta, radius, lower [D], upper [D]): radii from far inside the box to beyond its corner. Some coordinates
    are at a bound, some do not move; a third has no upper bound and a third no lower one where `free`."""
    g = torch.Generator().manual_seed(seed)
    lower = (-torch.rand(dim, generator=g, dtype=torch.float64)).to(dtype)
    upper = lower + (0.1 + torch.rand(dim, generator=g, dtype=torch.float64)).to(dtype)
    x = torch.lerp(lower, upper, torch.rand(batch, dim, generator=g, dtype=torch.float64).to(dtype))
    x = x.clamp(lower, upper)
    delta = torch.randn(batch, dim, generator=g, dtype=torch.float64)
    delta[:, 3::11] = 0.0
    x[:, 5::7] = upper[5::7]
    x[:, 6::7] = lower[6::7]
    if free:
        upper[::3], lower[1::3] = math.inf, -math.inf
    size = {1: dim, 2: math.sqrt(dim), math.inf: 1}
    radius = torch.logspace(-2.5, 0.5, batch, dtype=torch.float64)
    return x, (0.6 * delta).to(dtype), {norm: each * radius for norm, each in size.items()}, lower, upper


def truth(x, delta, radius, lower, upper, norm):
    """[B, D] float64: the move of the one number that bisection finds, of the largest one in the ball."""
    x, d, radius, lower, upper = (value.double() for value in (x, delta, radius, lower, upper))
    size, h, r = d.abs(), torch.where(d > 0, upper - x, x - lower), radius[:, None]
    if norm == math.inf:
        return d.sign() * torch.minimum(torch.minimum(size, r), h)

    def move(t):
        if norm == 1:
            return torch.minimum((size - t).clamp_min(0), h)
        return torch.where(size > 0, torch.minimum(size / t, h), 0.0)  # t = 1 / s falls with the norm too

    low, high = torch.zeros_like(r), torch.full_like(r, 1e30)
    high = high.minimum(size.amax(1, keepdim=True)) if norm == 1 else high
    for halving in range(220):
        between = (low * high).sqrt() if norm == 2 and halving > 110 else (low + high) / 2
        inside = torch.linalg.vector_norm(move(between), norm, dim=1, keepdim=True) <= r
        low, high = torch.where(inside, low, between), torch.where(inside, between, high)
    at_zero = torch.where(size > 0, h if norm == 2 else torch.minimum(size, h), 0.0)
    inside = torch.linalg.vector_norm(at_zero, norm, dim=1, keepdim=True) <= r
    return d.sign() * torch.where(inside, at_zero, move(high))


def project(x, delta, radius, norm, backend, device="cpu", lower=0.0, upper=1.0):
    lower, upper = (bound.to(device) if isinstance(bound, torch.Tensor) else bound for bound in (lower, upper))
    moved = ball_box_projection(
        x.to(device), delta.to(device), radius.to(device), norm=norm, lower=lower, upper=upper, backend=backend
    )
    assert moved.shape == x.shape and moved.dtype == x.dtype and moved.device.type == torch.device(device).type
    return moved.cpu()
