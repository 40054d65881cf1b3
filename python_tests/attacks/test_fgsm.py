"""FGSM against its formula."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from robustperf import ops
from robustperf.attacks import FGSM


@pytest.fixture
def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.Tanh(), nn.Linear(8, 3)).double()


def by_formula(net, x, labels, eps, bounds):
    """x' = clip(x + eps sign of the gradient), a point at a time."""
    points = []
    for image, label in zip(x, labels, strict=True):
        image = image[None].clone().requires_grad_()
        functional.cross_entropy(net(image), label[None]).backward()
        points.append((image.detach() + eps * image.grad.sign()).clip(*bounds))
    return torch.cat(points)


@pytest.mark.parametrize("bounds", [(0.0, 1.0), (-1.0, 1.0)])
@pytest.mark.parametrize("eps", [0.01, 0.25, 3.0])
def test_formula(net, eps, bounds):
    x = torch.empty(9, 1, 3, 4, dtype=torch.float64).uniform_(*bounds, generator=torch.Generator().manual_seed(1))
    labels = torch.arange(9) % 3
    found = FGSM(eps)(net, x, labels, bounds=bounds)
    expected = by_formula(net, x, labels, eps, bounds)
    torch.testing.assert_close(found.point, expected, rtol=0, atol=0)
    torch.testing.assert_close(found.gap, ops.logit_gap(net(expected).detach(), labels), rtol=1e-12, atol=1e-12)
    assert (found.evaluations == 2).all()


def test_a_pixel_without_influence_stays(net):
    with torch.no_grad():
        net[1].weight[:, 5] = 0
    x = torch.full((2, 1, 3, 4), 0.5, dtype=torch.float64)
    moved = (FGSM()(net, x, torch.tensor([0, 1])).point != x).flatten(1)
    assert not moved[:, 5].any() and moved.sum() == 22


def test_it_raises_the_loss(net):
    x = torch.rand(20, 1, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    labels = net(x).argmax(1)
    found = FGSM(0.05)(net, x, labels)
    assert (functional.cross_entropy(net(found.point), labels, reduction="none")
            > functional.cross_entropy(net(x), labels, reduction="none")).all()


def test_key_and_index_play_no_part(net):
    x = torch.rand(4, 1, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    labels = torch.tensor([0, 1, 2, 0])
    found = FGSM()(net, x, labels)
    other = FGSM()(net, x, labels, key=9, index=torch.tensor([5, 6, 7, 8]))
    assert torch.equal(found.point, other.point)


def test_published_default():
    assert FGSM().eps == 0.25


@pytest.mark.parametrize("eps", [0, 0.0, -0.1, math.inf, math.nan, "0.1", None, True])
def test_wrong_eps(eps):
    with pytest.raises(ValueError, match="eps: expected a finite number above 0, got"):
        FGSM(eps)
