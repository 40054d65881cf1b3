"""APGD against a plain loop of its publication, its targets and its search of the radius."""

import math

import pytest
import torch

from python_tests.attacks.minimal_norm import small_net
from robustperf import random
from robustperf.attacks import APGD
from robustperf.attacks.steps import draw_in_ball


def into_ball(point, x, eps, norm):
    delta = point - x
    if norm == math.inf:
        return (x + delta.clamp(-eps, eps)).clamp(0, 1)
    return (x + delta * min(1.0, eps / max(delta.norm().item(), 1e-30))).clamp(0, 1)


def plain_loop(net, x, label, start, eps, norm, steps, targets=None):
    """Algorithm 1 for one point [D]: (the crossing or the best point, passes), its loss z_t - z_y."""

    def evaluate(point):
        point = point.clone().requires_grad_()
        logits = net(point)
        others = torch.cat([logits[:label], logits[label + 1 :]]).max()
        loss = (others if targets is None else logits[targets]) - logits[label]
        (gradient,) = torch.autograd.grad(loss, point)
        return loss.item(), gradient, bool(others > logits[label])

    marks, before, gap = [0.0, 0.22], 0, 0.22
    while marks[-1] < 1:
        gap = max(gap - 0.03, 0.06)
        marks.append(marks[-1] + gap)
    marks = [math.ceil(mark * steps) for mark in marks[1:]]
    eta, point, previous = 2 * eps, start, start
    loss, gradient, crossed = evaluate(point)
    best, best_loss, best_gradient, loss_before, halved, raised = point, loss, gradient, -math.inf, False, 0
    for step in range(steps):
        if crossed:
            return point, step + 1
        if step in marks:
            halved = raised < 0.75 * (step - before) or (not halved and best_loss == loss_before)
            if halved:
                eta, point, previous, gradient, loss = eta / 2, best, best, best_gradient, best_loss
            before, loss_before, raised = step, best_loss, 0
        direction = gradient.sign() if norm == math.inf else gradient / gradient.norm()
        ahead = into_ball(point + eta * direction, x, eps, norm)
        mixed = ahead if step == 0 else point + 0.75 * (ahead - point) + 0.25 * (point - previous)
        previous, point, last = point, into_ball(mixed, x, eps, norm), loss
        loss, gradient, crossed = evaluate(point)
        raised += loss > last
        if loss > best_loss and step < steps - 1:
            best, best_loss, best_gradient = point, loss, gradient
    return (point if crossed else best), steps + 1


@pytest.mark.parametrize("norm", [2, math.inf])
def test_plain_loop(norm):
    """From the same random start; radii at which some points cross, and some do not."""
    net, x, labels = small_net()
    eps = {2: 0.12, math.inf: 0.05}[norm]
    found = APGD(norm=norm, eps=eps, steps=20)(net, x, labels, key=9)
    key = random.fold_in(random.fold_in(9, 0), 0)
    starts = x + draw_in_ball(x, eps, key, torch.arange(len(x)), norm)
    for row in range(len(x)):
        start = into_ball(starts[row], x[row], eps, norm)
        expected, passes = plain_loop(net, x[row], labels[row], start, eps, norm, 20)
        torch.testing.assert_close(found.point[row], expected, rtol=1e-6, atol=1e-7)
        assert found.evaluations[row] == passes + 1
    assert 0 < (found.gap < 0).sum() < len(x)
    assert (torch.linalg.vector_norm(found.point - x, norm, dim=1) <= eps * (1 + 1e-6)).all()


def test_targets_are_tried_from_the_highest_logit_on():
    """At x = 0 the runner-up, class 1, cannot be reached in the ball; class 2 can."""
    weight = torch.tensor([[0.0, 0.0], [0.1, 0.0], [0.0, 10.0]], dtype=torch.float64)
    bias = torch.tensor([3.0, 2.5, 0.0], dtype=torch.float64)

    def model(images):
        return images @ weight.T + bias

    x, labels = torch.zeros(1, 2, dtype=torch.float64), torch.tensor([0])
    settings = {"norm": 2, "eps": 0.4, "steps": 10}
    assert APGD(**settings, targets=1)(model, x, labels, bounds=(-1.0, 1.0)).gap > 0
    for targets in (2, 9):
        found = APGD(**settings, targets=targets)(model, x, labels, bounds=(-1.0, 1.0))
        assert found.gap < 0 and found.point[0, 1] > 0.3


@pytest.mark.parametrize("norm", [2, math.inf])
def test_a_searched_radius_comes_nearer_with_more_trials(norm):
    net, x, labels = small_net()
    lengths = []
    for search in (2, 5, 9):
        found = APGD(norm=norm, steps=12, search=search)(net, x, labels)
        lengths.append(torch.linalg.vector_norm(found.point - x, norm, dim=1).where(found.gap < 0, math.inf))
    assert (lengths[1] <= lengths[0]).all() and (lengths[2] <= lengths[1]).all() and lengths[2].isfinite().all()
    assert lengths[2].mean() < 0.9 * lengths[0].mean()


def test_the_first_radius_of_a_search():
    """Given, or twice the linear estimate of the margin: a linear model crosses in the first ball."""
    net, x, labels = small_net()
    tiny = APGD(steps=5, search=1, eps=1e-5)(net, x, labels)
    assert (tiny.gap > 0).all() and ((tiny.point - x).abs() <= 1e-5 * (1 + 1e-6)).all()
    weight = torch.randn(3, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def linear(images):
        return images @ weight.T

    found = APGD(steps=20, search=1)(linear, 0.01 * x, linear(x).argmax(1), bounds=(-5.0, 5.0))
    assert (found.gap < 0).all()


@pytest.mark.parametrize("loss", ["gap", "dlr"])
def test_two_classes_take_the_gap(loss):
    net, x, _ = small_net(classes=2)
    labels, attack = net(x).argmax(1), APGD(steps=8, eps=0.2, loss=loss)
    if loss == "dlr":
        with pytest.raises(ValueError, match="loss: dlr expected logits of at least three classes, got 2"):
            attack(net, x, labels)
    else:
        assert (attack(net, x, labels).gap < 0).any()
