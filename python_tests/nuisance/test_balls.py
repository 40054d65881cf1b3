"""Norm balls: uniform samples, limits and projections."""

import math

import pytest
import torch
from scipy.stats import beta, kstest

from robustperf.nuisance import Brightness, Compose, L1Ball, L2Ball, LinfBall, ball_family

INDEX = torch.arange(500)
X = torch.rand(500, 1, 2, 3, generator=torch.Generator().manual_seed(0))
SHAPE = (1, 2, 3)


def test_the_l2_ball_is_filled_uniformly():
    delta = L2Ball(2.5).sample(0, INDEX, 10, shape=SHAPE).double()
    radius = delta.norm(dim=2)
    assert radius.max() <= 2.5 * (1 + 1e-6)
    fraction = ((radius / 2.5) ** 6).flatten().sort().values  # uniform, if delta is
    # Kolmogorov and Smirnov: 2 / sqrt(n) has a probability below 1e-3
    assert (fraction - torch.linspace(0, 1, 5000)).abs().max() < 2 / math.sqrt(5000)
    direction = delta / radius[..., None]
    assert direction.mean((0, 1)).abs().max() < 5 / math.sqrt(6 * 5000)


def test_the_linf_ball_is_a_cube():
    delta = LinfBall(0.25).sample(0, INDEX, 10, shape=SHAPE)
    assert delta.abs().max() <= 0.25 and delta.abs().amax((0, 1)).min() > 0.249


def test_the_l1_ball_is_filled_uniformly():
    delta = L1Ball(2.5).sample(0, INDEX, 10, shape=SHAPE).double()
    assert delta.shape == (10, 500, 6)
    radius = delta.abs().sum(2)
    assert radius.max() <= 2.5 * (1 + 1e-6)
    assert kstest((radius.flatten() / 2.5) ** 6, "uniform").pvalue > 1e-3
    for component in delta.flatten(0, 1).T:  # the fraction of the ball beyond |delta_i| is (1 - |delta_i| / eps)^q
        assert kstest(component.abs() / 2.5, beta(1, 6).cdf).pvalue > 1e-3
    positive = (delta > 0).double().flatten(0, 1)
    assert (positive.T.cov() - torch.eye(6) / 4).abs().max() < 5 * 0.25 / math.sqrt(5000)
    assert (positive.mean(0) - 0.5).abs().max() < 5 * 0.5 / math.sqrt(5000)


def test_the_l1_ball_in_a_composition():
    kernel = Compose([L1Ball(0.5, clamp=True), Brightness(0.1)])
    delta = kernel.sample(0, INDEX, 2, shape=SHAPE)
    assert delta.shape == (2, 500, 7)
    moved = (X + delta[..., :6].unflatten(2, SHAPE)).clamp(0, 1)
    expected = Brightness(0.1)(moved.flatten(0, 1), delta[..., 6:].flatten(0, 1)).unflatten(0, (2, 500))
    torch.testing.assert_close(kernel(X, delta), expected)
    with pytest.raises(ValueError, match=r"shape: l1_ball has a component .* expected \(C, H, W\), got None"):
        _ = L1Ball(0.5).dim
    assert repr(L1Ball(0.5)) == "l1_ball(0.5)" and repr(L1Ball(1, clamp=True)) == "l1_ball(1, clamp=True)"


@pytest.mark.parametrize("ball", [L1Ball, L2Ball, LinfBall])
def test_x_moves_by_delta(ball):
    kernel, clamped = ball(0.8), ball(0.8, clamp=True)
    delta = kernel.sample(0, INDEX, 2, shape=SHAPE)
    moved = X + delta.unflatten(2, SHAPE)
    torch.testing.assert_close(kernel(X, delta), moved, atol=0, rtol=0)
    assert kernel(X, delta).min() < 0 and kernel(X, delta).max() > 1
    torch.testing.assert_close(clamped(X, delta), moved.clamp(0, 1), atol=0, rtol=0)
    assert torch.equal(clamped.sample(0, INDEX, 2, shape=SHAPE), delta)


@pytest.mark.parametrize("ball", [L1Ball, L2Ball, LinfBall])
@pytest.mark.parametrize("pixel", [math.nan, math.inf, -0.1, 1.5])
def test_pixels_outside_the_unit_cube_are_refused(ball, pixel):
    x = X.clone()
    x[0, 0, 0, 0] = pixel
    with pytest.raises(ValueError, match="x: expected .*pixels"):
        ball(0.8).draw(x, key=0, index=INDEX)


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


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_projection_onto_the_l1_ball(dtype):
    kernel = L1Ball(1.5)
    delta = torch.randn(60, 6, generator=torch.Generator().manual_seed(0), dtype=dtype)
    delta[::2] *= 0.2
    projected = kernel.project(delta, SHAPE)
    for before, after in zip(delta.double(), projected.double(), strict=True):
        if before.abs().sum() <= 1.5:
            assert torch.equal(after, before)
            continue
        low, high = 0.0, before.abs().max().item()
        for _ in range(80):  # the threshold, by bisection
            middle = (low + high) / 2
            low, high = (middle, high) if (before.abs() - middle).clamp_min(0).sum() > 1.5 else (low, middle)
        torch.testing.assert_close(after, before.sign() * (before.abs() - high).clamp_min(0), atol=1e-6, rtol=1e-6)
    kernel.check_delta(projected, SHAPE)
    assert not kernel.project(torch.zeros(2, 6, dtype=dtype), SHAPE).any()
    assert torch.equal(kernel.radius_for(SHAPE), torch.full((6,), 1.5))


def test_beyond_the_l1_ball():
    kernel, delta = L1Ball(1.5), torch.full((500, 6), 0.25)
    kernel(X, delta)
    for wrong in (0.2504, math.inf, math.nan):
        delta[7] = wrong
        with pytest.raises(ValueError, match="delta: l1_ball expected a norm of at most 1.5, got"):
            kernel(X, delta)


def test_projection_onto_the_linf_ball_clamps():
    delta = torch.randn(500, 6, generator=torch.Generator().manual_seed(0))
    assert torch.equal(LinfBall(0.5).project(delta, SHAPE), delta.clamp(-0.5, 0.5))


@pytest.mark.parametrize("ball", [L1Ball, L2Ball, LinfBall, ball_family])
@pytest.mark.parametrize("wrong", [0, -1, math.nan, math.inf, "1", None, True, (0, 1)])
def test_errors(ball, wrong):
    with pytest.raises((TypeError, ValueError), match="(eps|upper): expected a finite number above 0, got "):
        ball(wrong)


def test_no_radius_is_an_error():
    with pytest.raises(TypeError, match="eps"):
        L2Ball()


@pytest.mark.parametrize("norm, ball", [(1, L1Ball), (2, L2Ball), ("inf", LinfBall)])
def test_the_family_of_balls(norm, ball):
    family = ball_family(4, norm, clamp=True)
    assert family.dim == 1 and family.volume == 4
    assert repr(family.at(torch.tensor([0.5]).double())) == repr(ball(0.5, clamp=True))
    with pytest.raises(ValueError, match="norm: expected 1, 2 or inf"):
        ball_family(4, 3)
