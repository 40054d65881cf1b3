"""FGSM against its formula."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from robustperf import ops
from robustperf.attacks import FGSM


def gap(logits, label):
    """max_{j≠y} z_j - z_y of one image."""
    return logits[0, torch.arange(3) != label].max() - logits[0, label.item()]


LOSSES = {"cross_entropy": functional.cross_entropy, "gap": gap}


@pytest.fixture
def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.Tanh(), nn.Linear(8, 3)).double()


def by_formula(net, x, labels, eps, bounds, loss):
    """x' = clip(x + eps sign of the gradient), one point at a time."""
    points = []
    for image, label in zip(x, labels, strict=True):
        image = image[None].clone().requires_grad_()
        LOSSES[loss](net(image), label[None]).backward()
        points.append((image.detach() + eps * image.grad.sign()).clip(*bounds))
    return torch.cat(points)


@pytest.mark.parametrize("bounds", [(0.0, 1.0), (-1.0, 1.0)])
@pytest.mark.parametrize("eps", [0.01, 0.25, 3.0])
@pytest.mark.parametrize("loss", LOSSES)
def test_formula(net, eps, bounds, loss):
    x = torch.empty(9, 1, 3, 4, dtype=torch.float64).uniform_(*bounds, generator=torch.Generator().manual_seed(1))
    labels = torch.arange(9) % 3
    found = FGSM(eps, loss)(net, x, labels, bounds=bounds)
    expected = by_formula(net, x, labels, eps, bounds, loss)
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
    found = FGSM(0.05, "cross_entropy")(net, x, labels)
    assert (
        functional.cross_entropy(net(found.point), labels, reduction="none")
        > functional.cross_entropy(net(x), labels, reduction="none")
    ).all()


def test_key_and_index_have_no_effect(net):
    x = torch.rand(4, 1, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    labels = torch.tensor([0, 1, 2, 0])
    found = FGSM()(net, x, labels)
    other = FGSM()(net, x, labels, key=9, index=torch.tensor([5, 6, 7, 8]))
    assert torch.equal(found.point, other.point)


@pytest.mark.parametrize(
    ("bounds", "eps"),
    [
        ((0.0, 1.0), 0.25),
        ((0.0, 255.0), 63.75),
        ((-1.0, 1.0), 0.5),
        ((-math.inf, math.inf), 0.25),
        ((0, math.inf), 0.25),
        ((torch.tensor([0.0]), torch.tensor([[[1.0, 2.0, 3.0, 4.0]]])), 0.25 * 2.5),
    ],
)
def test_the_default_step_is_a_quarter_of_the_mean_width(net, bounds, eps):
    x = torch.full((1, 1, 3, 4), 0.5, dtype=torch.float64)
    label = net(x).argmax(1)
    found = FGSM()(net, x, label, bounds=bounds)
    assert torch.equal(found.point, FGSM(eps)(net, x, label, bounds=bounds).point)


@pytest.mark.parametrize("eps", [0, 0.0, -0.1, math.inf, math.nan, "0.1", True])
def test_wrong_eps(eps):
    with pytest.raises(ValueError, match="eps: expected a finite number above 0, got"):
        FGSM(eps)
