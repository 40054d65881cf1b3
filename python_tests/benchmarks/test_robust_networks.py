"""The interval bounds of the certified network; shapes of the other networks."""

import pytest
import torch

from benchmarks.common.certified import IntervalBounds, bounds, worst_logits
from benchmarks.common.other_networks import LargeImages, Transformer
from robustperf import nets


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nets.SmallCNN(size=8, width=4).double()


def test_every_image_within_eps_has_logits_within_the_bounds(model):
    x, eps = torch.rand(3, 1, 8, 8, dtype=torch.float64), 0.1
    lower, upper = bounds(model, x, eps)
    corners = (x + eps * torch.randint(-1, 2, (500, *x.shape))).clamp(0, 1)
    logits = model(corners.flatten(0, 1)).view(500, 3, 10)
    assert (lower <= logits + 1e-12).all() and (logits <= upper + 1e-12).all()
    for bound in bounds(model, x, 0.0):
        torch.testing.assert_close(bound, model(x))


def test_the_bounds_of_a_linear_network_are_exact(model):
    model.features, model.head = torch.nn.Sequential(), torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3))
    model.double()
    x, eps = torch.full((1, 1, 8, 8), 0.5, dtype=torch.float64), 0.25
    lower, upper = bounds(model, x, eps)
    centre, radius = model.head(x), eps * model.head[1].weight.abs().sum(1)
    torch.testing.assert_close(lower, centre - radius)
    torch.testing.assert_close(upper, centre + radius)
    expected = torch.stack([upper[0, 0], lower[0, 1], upper[0, 2]])[None]
    torch.testing.assert_close(worst_logits(model, x, torch.tensor([1]), eps), expected)


def test_the_certified_loss_exceeds_that_of_the_images(model):
    x, y, index = torch.rand(6, 1, 8, 8, dtype=torch.float64), torch.arange(6), torch.arange(6)
    plain, certified = (IntervalBounds(eps)(model, x, y, key=0, index=index) for eps in (0.0, 0.1))
    torch.testing.assert_close(plain, torch.nn.functional.cross_entropy(model(x), y))
    assert certified > plain


@pytest.mark.parametrize(("network", "size"), [(Transformer, 32), (LargeImages, 224)])
def test_other_networks_return_logits_and_gradients(network, size):
    x = torch.rand(2, 3, size, size, requires_grad=True)
    logits = network(43)(x)
    assert logits.shape == (2, 43)
    logits.sum().backward()
    assert x.grad.abs().flatten(1).any(1).all()
