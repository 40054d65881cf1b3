"""The step into a ball within the box: compared with bisection, SciPy, optimality conditions and closed forms."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from python_tests.support.ball import project, sample, truth

OP = "ball_box_projection"
inf = math.inf
TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-12}

every_norm = pytest.mark.parametrize("norm", [1, 2, inf])
every_dtype = pytest.mark.parametrize("dtype", TOLERANCE, ids=str)


def close(got, want):
    """Each row, in its 2-norm."""
    off, size = (got.double() - want).norm(dim=1), want.norm(dim=1)
    assert (off <= TOLERANCE[got.dtype] * size).all(), (off / size).max()


@every_norm
@every_dtype
@pytest.mark.parametrize("free", [False, True], ids=["bounded", "partly free"])
@pytest.mark.parametrize("dim", [1, 2, 15, 16, 17, 33, 100])
def test_the_truth_by_bisection(backend, device, norm, dtype, free, dim):
    x, delta, radii, lower, upper = sample(40, dim, dtype, seed=dim, free=free)
    got = project(x, delta, radii[norm], norm, backend, device, lower, upper)
    close(got, truth(x, delta, radii[norm], lower, upper, norm))
    point = x + got
    assert (point >= lower).all() and (point <= upper).all()
    assert (torch.linalg.vector_norm(got.double(), norm, dim=1) <= radii[norm] * (1 + TOLERANCE[dtype])).all()


@every_norm
@every_dtype
def test_large_rows(backend, device, norm, dtype):
    x, delta, radii, lower, upper = sample(24, 3072, dtype, seed=1)
    got = project(x, delta, radii[norm], norm, backend, device, lower, upper)
    close(got, truth(x, delta, radii[norm], lower, upper, norm))


@every_norm
@every_dtype
def test_a_wide_dynamic_range(backend, device, norm, dtype):
    """Sizes from 1 to 2^-59, of which only the tiny ones have room."""
    delta = 2.0 ** -torch.arange(60, dtype=torch.float64)[None].repeat(3, 1)
    delta[1] *= -1
    x = torch.where(delta > 0, 1.0, 0.0).double()
    x[:, 40:] = 0.5
    x[2] = 0.5
    radius = torch.tensor([2.0**-45, 2.0**-45, 2.0**-10], dtype=torch.float64)
    x, delta = x.to(dtype), delta.to(dtype)
    got = project(x, delta, radius, norm, backend, device)
    zero, one = torch.zeros(60, dtype=dtype), torch.ones(60, dtype=dtype)
    close(got, truth(x, delta, radius, zero, one, norm))


@pytest.mark.parametrize("norm", [1, inf])
@pytest.mark.parametrize("dim", [2, 5])
def test_the_nearest_point_by_scipy(backend, device, norm, dim):
    x, delta, radii, lower, upper = sample(8, dim, torch.float64, seed=7)
    got = project(x, delta, radii[norm], norm, backend, device, lower, upper)
    for found, d, r, low, high in zip(
        got.numpy(), delta.numpy(), radii[norm].tolist(), (lower - x).numpy(), (upper - x).numpy(), strict=True
    ):
        # δ = p - q with p, q >= 0
        in_ball = {"type": "ineq", "fun": lambda v, r=r: r - v.sum(), "jac": lambda v: -np.ones_like(v)}
        most = inf if norm == 1 else r
        solved = minimize(
            lambda v, d=d: ((v[:dim] - v[dim:] - d) ** 2).sum(),
            np.zeros(2 * dim),
            jac=lambda v, d=d: 2 * np.r_[v[:dim] - v[dim:] - d, d - v[:dim] + v[dim:]],
            bounds=[(0, min(h, most)) for h in high] + [(0, min(-h, most)) for h in low],
            constraints=[in_ball] if norm == 1 else [],
            method="SLSQP",
            options={"ftol": 1e-15, "maxiter": 1000},
        )
        np.testing.assert_allclose(found, solved.x[:dim] - solved.x[dim:], atol=2e-6)


def test_l1_ends_with_one_threshold(backend, device):
    """KKT: each free coordinate is lowered by one t >= 0, which is zero where the ball is not reached."""
    x, delta, radii, lower, upper = sample(40, 30, torch.float64, seed=3)
    got = project(x, delta, radii[1], 1, backend, device, lower, upper)
    low, high = lower - x, upper - x
    clipped = delta.clamp(low, high)
    inside = clipped.abs().sum(1) <= radii[1]
    assert 0 < inside.sum() < len(inside)
    torch.testing.assert_close(got[inside], clipped[inside], rtol=1e-14, atol=1e-16)
    torch.testing.assert_close(got[~inside].abs().sum(1), radii[1][~inside], rtol=1e-13, atol=0)
    size, room = delta.abs(), torch.where(delta > 0, high, -low)
    for row in (~inside).nonzero()[:, 0].tolist():
        moved = got[row].abs()
        free = (moved > 0) & (moved < room[row] * (1 - 1e-12))
        t = (size[row] - moved)[free]
        assert (t > 0).all() and t.max() - t.min() <= 1e-12
        t = t.mean() if free.any() else size[row][moved > 0].min()
        assert (size[row][(moved == 0) & (room[row] > 0)] <= t + 1e-12).all()


def test_closed_forms_without_active_bounds(backend, device):
    delta = torch.tensor([[3.0, -4.0, 0.0], [3.0, -4.0, 0.0]], dtype=torch.float64)
    x, radius = torch.zeros_like(delta), torch.tensor([1.0, 10.0], dtype=torch.float64)
    for norm, want in (
        (inf, [[1, -1, 0], [3, -4, 0]]), (1, [[0, -1, 0], [3, -4, 0]]), (2, [[0.6, -0.8, 0], [6, -8, 0]]),
    ):  # fmt: skip
        got = project(x, delta, radius, norm, backend, device, lower=-inf, upper=inf)
        torch.testing.assert_close(got, torch.tensor(want, dtype=torch.float64), rtol=1e-15, atol=0)


def test_a_step_far_beyond_the_box_stays_in_the_l1_ball(backend, device):
    """Beside sizes of 1e19 the room of 0.5 is lost."""
    delta = torch.tensor([[5e19, -3e19, 1e19], [2e19, 2e19, 2e19]], dtype=torch.float64)
    for radius in (1e-20, 0.1, 0.7):
        got = project(torch.full_like(delta, 0.5), delta, torch.tensor([radius] * 2).double(), 1, backend, device)
        assert (got.abs().sum(1) <= radius * (1 + 1e-9)).all() and (got * delta >= 0).all()


def test_ties_in_l1(backend, device):
    """Every coordinate at one break point, and a root at one."""
    x, delta = torch.zeros(3, 40, dtype=torch.float64), torch.ones(3, 40, dtype=torch.float64)
    delta[2, 20:] = 0.5
    radius = torch.tensor([10.0, 20.0, 10.0], dtype=torch.float64)  # the last one's t is 0.5
    got = project(x, delta, radius, 1, backend, device)
    want = torch.tensor([0.25, 0.5, 0.5], dtype=torch.float64)[:, None].repeat(1, 40)
    want[2, 20:] = 0
    torch.testing.assert_close(got, want, rtol=1e-15, atol=1e-15)


def test_l2_is_scaled_outwards_and_ends_in_the_corner(backend, device):
    x = torch.tensor([[0.5, 0.5, 0.5], [0.5, 0.5, 0.5]], dtype=torch.float64)
    delta = torch.tensor([[0.01, -0.03, 0.0], [0.01, -0.03, 0.0]], dtype=torch.float64)
    got = project(x, delta, torch.tensor([0.6, 9.0]), 2, backend, device)
    assert got[1].tolist() == [0.5, -0.5, 0.0]
    torch.testing.assert_close(got[0, 0].item(), math.sqrt(float(np.float32(0.6)) ** 2 - 0.25), rtol=1e-14, atol=0)
    assert got[0, 1:].tolist() == [-0.5, 0.0]


@every_norm
@pytest.mark.parametrize("scale", [2.0**-500, 1e-150, 1e-20, 1e20, 1e150])
def test_steps_of_any_size(backend, device, norm, scale):
    """Scaled with the ball and the box: the squares of tiny and of huge steps neither vanish nor overflow."""
    _, delta, radii, lower, upper = sample(20, 30, torch.float64, seed=4)
    x, radius, lower, upper = torch.zeros_like(delta), radii[norm], lower.clamp_max(0), upper.clamp_min(0.1)
    want = project(x, delta, radius, norm, backend, device, lower, upper)
    got = project(x, scale * delta, scale * radius, norm, backend, device, scale * lower, scale * upper)
    assert want.isfinite().all()
    torch.testing.assert_close(got / scale, want, rtol=1e-12, atol=1e-15)


@every_dtype
def test_the_length_of_delta_is_no_matter_in_l2(backend, device, dtype):
    x, delta, radii, lower, upper = sample(20, 30, dtype, seed=5)
    want = project(x, delta, radii[2], 2, backend, device, lower, upper)
    for power in (-100, 60) if dtype == torch.float32 else (-900, 900):
        got = project(x, 2.0**power * delta, radii[2], 2, backend, device, lower, upper)
        torch.testing.assert_close(got, want, rtol=TOLERANCE[dtype], atol=1e-14)


def test_sizes_whose_squares_vanish_do_not_move(backend, device):
    delta = torch.tensor([[1.0, 1e-200], [1e200, 1e-200]], dtype=torch.float64)
    x, radius = torch.zeros_like(delta), torch.ones(2, dtype=torch.float64)
    for upper, moved in ((inf, 1.0), (0.25, 0.25)):
        got = project(x, delta, radius, 2, backend, device, lower=0.0, upper=upper)
        assert got.tolist() == [[moved, 0.0]] * 2
