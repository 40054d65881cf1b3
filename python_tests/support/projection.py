"""Random problems for the projection, its truth in float64 and its optimality conditions."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import linprog, minimize

from robustperf.ops import halfspace_box_projection

inf, nan = math.inf, math.nan
NORMS = [1, 2, inf]
DTYPES = [torch.float32, torch.float64]
TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-12}
every_norm = pytest.mark.parametrize("norm", NORMS)
every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)


def rows(*values, dtype=torch.float64):
    return torch.tensor(values, dtype=dtype)


def project(x, w, c, norm, backend, device="cpu", **box):
    delta, feasible = halfspace_box_projection(
        x.to(device), w.to(device), c.to(device), norm=norm, backend=backend, **box
    )
    assert delta.shape == x.shape and delta.dtype == x.dtype and delta.device.type == torch.device(device).type
    assert feasible.shape == c.shape and feasible.dtype == torch.bool
    return delta.cpu(), feasible.cpu()


def room(x, w, lower=0.0, upper=1.0):
    x, w = x.double(), w.double()
    return torch.where(w > 0, upper - x, torch.where(w < 0, x - lower, 0.0))


def least_norm(w, c, low, high, norm):
    """The least norm of a delta [D] in low..high with <w, delta> >= c, and for p = 2 that delta, by SciPy."""
    n = len(w)
    if norm == 2:
        start = np.where(w > 0, np.minimum(high, 1e3), np.maximum(low, -1e3))  # feasible
        found = minimize(
            lambda d: d @ d,
            start,
            jac=lambda d: 2 * d,
            bounds=list(zip(low, high, strict=True)),
            constraints={"type": "ineq", "fun": lambda d: w @ d - c, "jac": lambda d: w},
            method="SLSQP",
            options={"ftol": 1e-14, "maxiter": 1000},
        )
        assert found.status in (0, 8)  # 8: rounding hides any further step
        return math.sqrt(found.fun), found.x
    if norm == 1:  # d = p - q
        found = linprog(
            np.ones(2 * n), A_ub=-np.r_[w, -w][None], b_ub=[-c], bounds=[(0, h) for h in high] + [(0, -v) for v in low]
        )
    else:  # |d_i| <= t
        eye, one = np.eye(n), np.ones((n, 1))
        found = linprog(
            np.r_[np.zeros(n), 1],
            A_ub=np.block([[-w[None], np.zeros((1, 1))], [eye, -one], [-eye, -one]]),
            b_ub=np.r_[-c, np.zeros(2 * n)],
            bounds=[*zip(low, high, strict=True), (0, None)],
        )
    assert found.status == 0
    return found.fun, None


def sample(batch, dim, dtype, seed=0, lower=0.0, upper=1.0, low=0.02, high=0.98):
    """Points, normals and how far to go: from `low` to `high` of what the box has room for."""
    g = torch.Generator().manual_seed(seed)
    x = lower + (upper - lower) * torch.rand(batch, dim, generator=g, dtype=torch.float64)
    x = x.to(dtype).clamp(lower, upper)
    w = torch.randn(batch, dim, generator=g, dtype=torch.float64).to(dtype)
    fraction = low + (high - low) * torch.rand(batch, generator=g, dtype=torch.float64)
    return x, w, fraction * (w.double().abs() * room(x, w, lower, upper)).sum(1)


def truth(x, w, c, norm, **box):
    """The float64 reference."""
    return project(x.double(), w.double(), c.double(), norm, "reference", **box)


def error(delta, want):
    """Of each row, in the row's 2-norm."""
    size = want.norm(dim=1)
    off = (delta.double() - want).norm(dim=1)
    return torch.where(off == 0, 0.0, off / size)


def multiplier(delta, weight, h, norm, tol):
    """The one number of the optimality conditions; fails where there is none.

    Convex duality: delta solves the problem iff <w, delta> = c and, for one t, each coordinate moves by
    min(t |w_i|, h_i) for p = 2 and min(t, h_i) for p = inf; for p = 1 by h_i where |w_i| > t, by 0 where |w_i| < t.
    """
    move = delta.abs()
    partly = (move < h * (1 - tol)) & (weight > 0)
    if norm == 1:
        begun = (move > 0) & (weight > 0)
        if not begun.any():
            return
        least = weight[begun].min()
        assert (weight[partly] <= least * (1 + tol)).all(), "a heavier coordinate has room left"
        return
    rate = weight if norm == 2 else torch.ones_like(weight)
    speed = move / rate.clamp_min(1e-300)
    if partly.any():
        t = speed[partly].max()
        assert (speed[partly] >= t * (1 - tol)).all(), "coordinates inside the box move at one speed"
        full = (weight > 0) & ~partly
        assert (h[full] <= t * rate[full] * (1 + tol) + tol * h.max()).all(), "a coordinate went too far"


def check_optimal(x, w, c, delta, norm, lower=0.0, upper=1.0, tol=1e-9):
    for i in range(x.shape[0]):
        d, v = delta[i].double(), w[i].double()
        h = room(x[i], v, lower, upper)
        assert (d * v >= 0).all() and (d[v == 0] == 0).all()
        assert (d.abs() <= h * (1 + tol)).all()
        assert (d * v).sum().item() == pytest.approx(c[i].item(), rel=tol)
        multiplier(d, v.abs(), h, norm, tol)
