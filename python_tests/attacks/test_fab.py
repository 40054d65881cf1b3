"""FAB against a plain loop of its publication, where the box is inactive."""

import math

import pytest
import torch

from python_tests.attacks.minimal_norm import nearest_of, small_net
from robustperf.attacks import FAB

WIDE = (-1e3, 1e3)


def free_step(w, c, norm):
    """The smallest δ with ⟨w, δ⟩ = c, without a box."""
    if norm == 2:
        return c * w / w.square().sum()
    if norm == math.inf:
        return c * w.sign() / w.abs().sum()
    step, k = torch.zeros_like(w), w.abs().argmax()
    step[k] = c / w[k]
    return step


def plain_loop(net, x, label, norm, steps, classes):
    """Algorithm 1, a point at a time; `classes` 1 takes the highest of the other logits alone."""
    dual = {1: math.inf, 2: 2, math.inf: 1}[norm]
    point, points = x, []
    for _ in range(steps):
        logits, jacobian = net(point), torch.autograd.functional.jacobian(net, point)
        others = sorted((j for j in range(len(logits)) if j != label), key=lambda j: -logits[j].item())[:classes]
        away = {j: abs(logits[j] - logits[label]) / (jacobian[j] - jacobian[label]).norm(dual) for j in others}
        j = min(away, key=away.get)
        w, c = jacobian[j] - jacobian[label], logits[label] - logits[j]
        of_point, of_x = free_step(w, c, norm), free_step(w, c + w @ (point - x), norm)
        near, far = of_point.norm(norm), of_x.norm(norm)
        alpha = min((near / (near + far)).item(), 0.1)
        point = (1 - alpha) * (point + 1.05 * of_point) + alpha * (x + 1.05 * of_x)
        logits = net(point)
        gap = (logits[label] - torch.cat([logits[:label], logits[label + 1 :]]).max()).item()
        points.append((point, gap))
        if gap < 0:
            point = 0.1 * x + 0.9 * point
    return nearest_of(points, x, norm)


@pytest.mark.parametrize("classes", [1, 2, None])
@pytest.mark.parametrize("norm", [1, 2, math.inf])
def test_plain_loop(norm, classes):
    net, x, labels = small_net(classes=4)
    found = FAB(norm=norm, steps=8, classes=classes)(net, x, labels, bounds=WIDE)
    for row in range(len(x)):
        expected = plain_loop(net, x[row], labels[row].item(), norm, 8, classes)
        torch.testing.assert_close(found.point[row], expected, rtol=1e-6, atol=1e-7)
    assert (found.gap < 0).float().mean() > 0.7


def test_more_runs_are_never_worse():
    net, x, labels = small_net(classes=4)
    lengths = []
    for restarts in (1, 3):
        found = FAB(steps=5, restarts=restarts)(net, x, labels)
        lengths.append((found.point - x).norm(dim=1).where(found.gap < 0, math.inf))
    assert (lengths[1] <= lengths[0]).all() and (lengths[1] < lengths[0]).any()


def test_published_defaults():
    attack = FAB()
    assert (attack.steps, attack.classes, attack.alpha, attack.eta, attack.beta) == (100, None, 0.1, 1.05, 0.9)
