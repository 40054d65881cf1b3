"""DDN against a plain loop of its publication."""

import pytest
import torch

from python_tests.attacks.minimal_norm import annealed, gap_and_gradient, nearest_of, small_net
from robustperf.attacks import DDN


def plain_loop(net, x, label, steps, width, bounds, gamma=0.05):
    """Algorithm 1, a point at a time."""
    delta, radius, points = torch.zeros_like(x), width, []
    gap, gradient = gap_and_gradient(net, x, label)
    for step in range(steps):
        delta = delta - annealed(width, 0.01 * width, step, steps) * gradient / gradient.norm()
        radius *= 1 - gamma if gap < 0 else 1 + gamma
        delta = (x + radius * delta / delta.norm()).clamp(*bounds) - x
        gap, gradient = gap_and_gradient(net, x + delta, label)
        points.append((x + delta, gap))
    return nearest_of(points, x, 2)


@pytest.mark.parametrize("bounds", [(0.0, 1.0), (-1.0, 3.0)])
def test_plain_loop(bounds):
    net, x, labels = small_net()
    found = DDN(steps=30)(net, x, labels, bounds=bounds)
    for row in range(len(x)):
        expected = plain_loop(net, x[row], labels[row], 30, bounds[1] - bounds[0], bounds)
        torch.testing.assert_close(found.point[row], expected, rtol=1e-8, atol=1e-9)
    assert (found.gap < 0).all()


def test_without_bounds_a_value_counts_as_one_wide():
    net, x, labels = small_net()
    found = DDN(steps=10)(net, x, labels, bounds=(-float("inf"), float("inf")))
    for row in range(2):
        expected = plain_loop(net, x[row], labels[row], 10, 1.0, (-1e9, 1e9))
        torch.testing.assert_close(found.point[row], expected, rtol=1e-8, atol=1e-9)


def test_published_defaults():
    attack = DDN()
    assert (attack.radius, attack.gamma, attack.step, attack.last_step) == (1.0, 0.05, 1.0, 0.01)
