"""PDPGD: its proximal steps against a minimisation, and a plain loop of its primal and dual steps."""

import math

import pytest
import torch
from scipy import optimize

from python_tests.attacks.minimal_norm import gap_and_gradient, nearest_of, small_net
from robustperf.attacks import PDPGD


@pytest.mark.parametrize("threshold", [0.1, 0.7, 20.0])
@pytest.mark.parametrize("norm", [1, 2, math.inf])
def test_the_proximal_step_is_the_minimum(norm, threshold):
    """Of t ‖u‖ + ‖u - v‖² / 2, which is convex: no perturbation and no search comes lower."""
    v = torch.randn(5, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    step = PDPGD(norm=norm).proximal(v[None], torch.tensor([threshold], dtype=torch.float64))[0]

    def objective(u):
        u = torch.as_tensor(u, dtype=torch.float64)
        return (threshold * torch.linalg.vector_norm(u, norm) + (u - v).square().sum() / 2).item()

    least = optimize.minimize(objective, v.numpy(), method="Nelder-Mead", options={"maxiter": 800}).fun
    nearby = step + 0.01 * torch.randn(200, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    assert objective(step) <= min(least, *map(objective, nearby)) + 1e-12


def plain_loop(net, x, label, norm, steps):
    """A point at a time, in [-2, 3]: v = δ - η λ_c ∇max(gap, 0) / rms, then the proximal step, then the dual step."""
    dual, proximal = {1: math.inf, 2: 2, math.inf: 1}[norm], PDPGD(norm=norm).proximal
    delta, theta, points = torch.zeros_like(x), math.log(0.01), []
    gap, gradient = gap_and_gradient(net, x, label)
    unit, weight = torch.linalg.vector_norm(gradient, dual).item(), 1 / (1 + math.exp(-theta))
    for step in range(steps):
        t = step / (steps - 1)
        eta, rms = 0.1 * 5 * 0.01**t, gradient.square().mean().sqrt().item()
        v = delta - eta * (1 - weight) * gradient / rms if gap >= 0 else delta
        delta = proximal(v[None], torch.tensor([eta * weight * unit / rms], dtype=torch.float64))[0].clamp(
            -2 - x, 3 - x
        )
        gap, gradient = gap_and_gradient(net, x + delta, label)
        points.append((x + delta, gap))
        theta += (1 if gap < 0 else -1) * 0.1 * 0.1**t
        weight = 0.9 * weight + 0.1 / (1 + math.exp(-theta))
    return nearest_of(points, x, norm)


@pytest.mark.parametrize("norm", [1, 2, math.inf])
def test_plain_loop(norm):
    net, x, labels = small_net()
    found = PDPGD(norm=norm, steps=30)(net, x, labels, bounds=(-2.0, 3.0))
    for row in range(len(x)):
        expected = plain_loop(net, x[row], labels[row], norm, 30)
        torch.testing.assert_close(found.point[row], expected, rtol=1e-6, atol=1e-7)
    assert (found.gap < 0).all()
