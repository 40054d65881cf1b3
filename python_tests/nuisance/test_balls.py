"""Norm balls: uniform in them, never outside, and projected onto."""

import math

import pytest
import torch

from robustperf.nuisance import L2Ball, LinfBall

INDEX = torch.arange(500)
X = torch.rand(500, 1, 2, 3, generator=torch.Generator().manual_seed(0))
SHAPE = (1, 2, 3)


def test_the_l2_ball_is_filled_uniformly():
    delta = L2Ball(2.5).sample(0, INDEX, 10, shape=SHAPE).double()
    radius = delta.norm(dim=2)
    assert radius.max() <= 2.5 * (1 + 1e-6)
    share = ((radius / 2.5) ** 6).flatten().sort().values  # uniform, if delta is
    # Kolmogorov and Smirnov: 2 / sqrt(n) has a probability below 1e-3
    assert (share - torch.linspace(0, 1, 5000)).abs().max() < 2 / math.sqrt(5000)
    direction = delta / radius[..., None]
    assert direction.mean((0, 1)).abs().max() < 5 / math.sqrt(6 * 5000)


def test_the_linf_ball_is_a_cube():
    delta = LinfBall(0.25).sample(0, INDEX, 10, shape=SHAPE)
    assert delta.abs().max() <= 0.25 and delta.abs().amax((0, 1)).min() > 0.249


@pytest.mark.parametrize("ball", [L2Ball, LinfBall])
def test_x_moves_by_delta(ball):
    kernel, clamped = ball(0.8), ball(0.8, clamp=True)
    delta = kernel.sample(0, INDEX, 2, shape=SHAPE)
    moved = X + delta.unflatten(2, SHAPE)
    torch.testing.assert_close(kernel(X, delta), moved, atol=0, rtol=0)
    assert kernel(X, delta).min() < 0 and kernel(X, delta).max() > 1
    torch.testing.assert_close(clamped(X, delta), moved.clamp(0, 1), atol=0, rtol=0)
    assert torch.equal(clamped.sample(0, INDEX, 2, shape=SHAPE), delta)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_beyond_the_l2_ball(dtype):
    kernel, x = L2Ball(1.5), X.to(dtype)
    delta = torch.zeros(500, 6, dtype=dtype)
    delta[7] = 1.5 / math.sqrt(6)
    kernel(x, delta)
    delta[7] *= 1.001
    with pytest.raises(ValueError, match=r"delta: l2_ball expected a norm of at most 1.5, got 1.5015"):
        kernel(x, delta)
    for wrong in (100.0, math.inf, math.nan):
        delta[7] = wrong
        with pytest.raises(ValueError, match="delta: l2_ball expected"):
            kernel(x, delta)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_projection_onto_the_l2_ball_is_radial(dtype):
    kernel = L2Ball(1.5)
    delta = torch.randn(500, 6, generator=torch.Generator().manual_seed(0), dtype=dtype)
    projected = kernel.project(delta, SHAPE)
    norm = delta.norm(dim=1, keepdim=True)
    inside = norm[:, 0] <= 1.5
    assert 0 < inside.sum() < 500
    assert torch.equal(projected[inside], delta[inside])
    torch.testing.assert_close(projected[~inside], (delta * 1.5 / norm)[~inside], atol=1e-6, rtol=1e-6)
    kernel.check_delta(projected, SHAPE)
    assert not kernel.project(torch.zeros(2, 6, dtype=dtype), SHAPE).any()
    huge = kernel.project(torch.full((1, 6), 1e30, dtype=dtype), SHAPE)
    torch.testing.assert_close(huge, torch.full((1, 6), 1.5 / math.sqrt(6), dtype=dtype), atol=1e-6, rtol=1e-6)


def test_projection_onto_the_linf_ball_cuts():
    delta = torch.randn(500, 6, generator=torch.Generator().manual_seed(0))
    assert torch.equal(LinfBall(0.5).project(delta, SHAPE), delta.clamp(-0.5, 0.5))


@pytest.mark.parametrize("ball", [L2Ball, LinfBall])
@pytest.mark.parametrize("wrong", [0, -1, math.nan, math.inf, "1", None, True, (0, 1)])
def test_errors(ball, wrong):
    with pytest.raises((TypeError, ValueError), match="eps: expected a finite number above 0, got "):
        ball(wrong)


def test_no_radius_is_an_error():
    with pytest.raises(TypeError, match="eps"):
        L2Ball()
