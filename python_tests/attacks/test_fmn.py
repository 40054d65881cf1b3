"""FMN against a plain loop of its publication, where the box is inactive."""

import math

import pytest
import torch

from python_tests.attacks.minimal_norm import annealed, gap_and_gradient, nearest_of, small_net
from robustperf.attacks import FMN

WIDE = (-2.0, 3.0)


def into_ball(delta, radius, norm):
    """The projection; onto the L1 ball by bisection of the threshold."""
    if torch.linalg.vector_norm(delta, norm) <= radius:
        return delta
    if norm == math.inf:
        return delta.clamp(-radius, radius)
    if norm == 2:
        return delta * radius / delta.norm()
    low, high = 0.0, delta.abs().max().item()
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if (delta.abs() - middle).clamp_min(0).sum() > radius else (low, middle)
    return delta.sign() * (delta.abs() - high).clamp_min(0)


def plain_loop(net, x, label, norm, steps, step_size):
    """Algorithm 1, a point at a time."""
    dual = {1: math.inf, 2: 2, math.inf: 1}[norm]
    delta, radius, best, points = torch.zeros_like(x), 0.0, math.inf, []
    gap, gradient = gap_and_gradient(net, x, label)
    for step in range(steps):
        length, gamma = torch.linalg.vector_norm(delta, norm).item(), annealed(0.05, 0.001, step, steps)
        if gap < 0:
            best = min(best, length)
            radius = min(radius, best) * (1 - gamma)
        elif best < math.inf:
            radius *= 1 + gamma
        else:
            radius = length + gap / torch.linalg.vector_norm(gradient, dual).item()
        delta = delta - annealed(step_size, step_size / 100, step, steps) * gradient / gradient.norm()
        delta = into_ball(delta, radius, norm)
        gap, gradient = gap_and_gradient(net, x + delta, label)
        points.append((x + delta, gap))
    return nearest_of(points, x, norm)


@pytest.mark.parametrize("norm", [1, 2, math.inf])
def test_plain_loop(norm):
    net, x, labels = small_net()
    attack = FMN(norm=norm, steps=25, step=0.1, last_step=0.001, overshoot=1)
    found = attack(net, x, labels, bounds=WIDE)  # of a width of 5
    for row in range(len(x)):
        expected = plain_loop(net, x[row], labels[row], norm, 25, 0.5)
        assert expected.min() > WIDE[0] and expected.max() < WIDE[1]
        torch.testing.assert_close(found.point[row], expected, rtol=1e-7, atol=1e-8)
    assert (found.gap < 0).float().mean() > 0.7
