"""σ-zero against a plain loop of its publication, and the fewest values of a linear model."""

import torch

from python_tests.attacks.minimal_norm import annealed, gap_and_gradient, linear_problem, nearest_of, small_net
from robustperf.attacks import SigmaZero


def plain_loop(net, x, label, steps):
    """Algorithm 1 in [0, 1], with the gap's gradient scaled to a largest component of 1."""
    point, threshold, points = x, 0.3, []
    gap, gradient = gap_and_gradient(net, x, label)
    for step in range(steps):
        size = annealed(1.0, 0.1, step, steps)
        delta = (point - x).clone().requires_grad_()
        smooth = (delta.square() / (delta.square() + 1e-3)).sum() / len(x)
        (descent,) = torch.autograd.grad(smooth, delta)
        if gap >= 0:
            descent = descent + gradient / gradient.abs().max()
        if descent.abs().max() > 0:
            descent = descent / descent.abs().max()
        delta = (point - size * descent).clamp(0, 1) - x
        point = x + delta.where(delta.abs() >= threshold, 0.0)
        gap, gradient = gap_and_gradient(net, point, label)
        points.append((point, gap))
        threshold = min(max(threshold + (0.01 if gap < 0 else -0.01) * size, 0.0), 1.0)
    return nearest_of(points, x, 0)


def test_plain_loop():
    net, x, labels = small_net()
    found = SigmaZero(steps=20)(net, x, labels)
    for row in range(len(x)):
        torch.testing.assert_close(found.point[row], plain_loop(net, x[row], labels[row], 20), rtol=1e-7, atol=1e-8)
    assert (found.gap < 0).float().mean() > 0.7


def fewest(model, x, label):
    """The fewest values that change the label of a linear model: the largest gains within [0, 1] first."""
    counts = []
    logits = model(x)
    for j in range(len(logits)):
        if j != label:
            w = model.weight[j] - model.weight[label]
            gains = torch.where(w > 0, w * (1 - x), -w * x).sort(descending=True).values.cumsum(0)
            counts.append(int((gains <= logits[label] - logits[j]).sum()) + 1)
    return min(counts)


def test_linear_models():
    model, x, labels = linear_problem(classes=3, dim=20, count=12)
    found = SigmaZero(steps=150)(model, x, labels)
    least = torch.tensor([fewest(model, image, label) for image, label in zip(x, labels, strict=True)])
    count = (found.point != x).sum(1)
    assert (found.gap < 0).all() and (count >= least).all()
    assert (count == least).float().mean() > 0.7 and (count.sum() / least.sum()).item() < 1.15
