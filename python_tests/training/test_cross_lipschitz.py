"""The cross-Lipschitz regulariser against the plain double loop over classes, in float64, and bad input."""

import math

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from robustperf import random
from robustperf.data import load
from robustperf.nets import RobeyCNN, SmallCNN
from robustperf.training import CrossLipschitz, fit

KEY = 2**40 + 3
INDEX = torch.tensor([7, 2**33, 0, 11, 2])
X = torch.rand(5, 2, 6, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def network(classes=4, *, pool=False):
    torch.manual_seed(0)
    last = [nn.MaxPool2d(2), nn.Flatten(), nn.Linear(24, classes)] if pool else [nn.Flatten(), nn.Linear(120, classes)]
    return nn.Sequential(nn.Conv2d(2, 6, 3), nn.Softplus(), *last).double()


def by_hand(model, x):
    """The mean over samples of 1 / K^2 sum_{l, m} ||grad f_l - grad f_m||^2."""
    total = 0
    for image in x:
        image = image[None].clone().requires_grad_()
        logits = model(image)[0]
        for l in range(len(logits)):  # noqa: E741
            for m in range(len(logits)):
                (gradient,) = torch.autograd.grad(logits[l] - logits[m], image, create_graph=True)
                total = total + gradient.square().sum() / len(logits) ** 2
    return total / len(x)


def check_equal(model, x, y, weight):
    loss = CrossLipschitz(weight)(model, x, y, key=KEY, index=INDEX[: len(x)])
    want = cross_entropy(model(x), y) + weight * by_hand(model, x)
    assert loss.shape == () and loss.dtype == torch.float64
    torch.testing.assert_close(loss, want, rtol=1e-10, atol=0)
    parameters = list(model.parameters())
    ours = torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
    theirs = torch.autograd.grad(want, parameters, allow_unused=True, materialize_grads=True)
    for gradient, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(gradient, expected, rtol=1e-8, atol=1e-12)
    return loss.item()


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_the_double_loop(classes):
    y = torch.arange(5) % classes
    small, large = (check_equal(network(classes), X, y, weight) for weight in (0.01, 3.0))
    assert large > small * 1.01


def test_pooling_and_a_batch_of_one():
    check_equal(network(pool=True), X, torch.tensor([0, 1, 2, 3, 0]), 2.0)
    check_equal(network(), X[:1], torch.tensor([2]), 2.0)


def test_more_images_than_one_chunk():
    x = torch.rand(70, 2, 6, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    y, index = torch.arange(70) % 4, torch.arange(70)
    loss = CrossLipschitz(0.5)(network(), x, y, key=KEY, index=index)
    torch.testing.assert_close(loss, cross_entropy(network()(x), y) + 0.5 * by_hand(network(), x))


class NoVmap(torch.autograd.Function):
    """x squared, which vmap refuses."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.square()

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        assert gradient.shape == x.shape and not torch._C._functorch.is_batchedtensor(gradient)
        return 2 * x * gradient


class Squared(nn.Module):
    def forward(self, x):
        return NoVmap.apply(x)


def test_an_operation_that_vmap_does_not_support():
    model = nn.Sequential(network()[0], Squared(), nn.Flatten(), network()[3])
    check_equal(model, X, torch.tensor([0, 1, 2, 3, 0]), 2.0)


def test_running_out_of_memory_is_not_taken_for_such_an_operation(monkeypatch):
    def grad(*arguments, is_grads_batched=False, **named):
        assert is_grads_batched
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(torch.autograd, "grad", grad)
    with pytest.raises(torch.OutOfMemoryError, match="^out of memory$"):
        CrossLipschitz(1.0)(network(), X, torch.tensor([0, 1, 2, 3, 0]), key=KEY, index=INDEX)


def test_a_linear_classifier_in_closed_form():
    model = nn.Sequential(nn.Flatten(), nn.Linear(84, 3)).double()
    rows = model[1].weight.detach()
    want = sum((rows[i] - rows[j]).square().sum() for i in range(3) for j in range(3)) / 9
    y = torch.tensor([0, 1, 2, 0, 1])
    loss = CrossLipschitz(1.5)(model, X, y, key=KEY, index=INDEX)
    torch.testing.assert_close(loss - cross_entropy(model(X), y), 1.5 * want)


def test_batch_norm_couples_the_samples():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Tanh(), nn.Flatten(), nn.Linear(60, 3)).double()
    y, x = torch.tensor([0, 1, 2, 0, 1]), X.clone().requires_grad_()
    logits = model(x)
    total = 0
    for i in range(3):
        for j in range(3):
            (gradient,) = torch.autograd.grad((logits[:, i] - logits[:, j]).sum(), x, create_graph=True)
            total = total + gradient.square().sum() / (9 * 5)
    loss = CrossLipschitz(2.0)(model, X, y, key=KEY, index=INDEX)
    torch.testing.assert_close(loss, cross_entropy(logits, y) + 2 * total)
    assert model[1].num_batches_tracked == 2  # one forward pass each


def test_dropout_depends_on_the_sample():
    torch.manual_seed(0)
    model, y = RobeyCNN(2, 12, 3, width=4).double(), torch.tensor([0, 1, 2, 0, 1])
    x = torch.rand(5, 2, 12, 12, dtype=torch.float64)
    whole = CrossLipschitz(0.1)(model, x, y, key=KEY, index=INDEX)
    parts = [CrossLipschitz(0.1)(model, x[rows], y[rows], key=KEY, index=INDEX[rows]) for rows in ([4, 0], [2, 1, 3])]
    torch.testing.assert_close(whole, (2 * parts[0] + 3 * parts[1]) / 5)
    assert CrossLipschitz(0.1)(model, x, y, key=KEY + 1, index=INDEX) != whole


def test_within_no_grad_and_without_changing_any_grad():
    model, y = network(), torch.tensor([0, 1, 2, 3, 0])
    want = CrossLipschitz(1.0)(model, X, y, key=KEY, index=INDEX)
    with torch.no_grad():
        torch.testing.assert_close(CrossLipschitz(1.0)(model, X, y, key=KEY, index=INDEX), want)
    assert all(parameter.grad is None for parameter in model.parameters()) and not X.requires_grad


def test_in_fit_it_flattens_the_classifier():
    found = {}
    for weight in (1e-6, 30.0):
        torch.manual_seed(0)
        model = SmallCNN(size=8)
        data = load("digits", "train").limit(200)
        fit(
            model,
            CrossLipschitz(weight),
            data,
            validation=None,
            epochs=4,
            batch_size=20,
            optimizer="adam",
            progress=False,
        )
        found[weight] = by_hand(model.double().eval(), data.x[:5].double()).item()
    assert found[30.0] < 0.5 * found[1e-6]


def test_errors():
    for wrong in (0, -1, math.nan, math.inf, "1", None):
        with pytest.raises(ValueError, match="weight: expected a finite number above 0, got"):
            CrossLipschitz(wrong)
    y = torch.tensor([0, 1, 2, 3, 0])
    with pytest.raises(ValueError, match="model: expected logits with a gradient in x"):
        CrossLipschitz(1.0)(lambda x: network()(x).detach(), X, y, key=KEY, index=INDEX)
    with pytest.raises(ValueError, match="y"):
        CrossLipschitz(1.0)(network(), X, y + 1, key=KEY, index=INDEX)
    with pytest.raises(TypeError, match="model: expected a module or a callable"):
        CrossLipschitz(1.0)(3, X, y, key=random.key(0), index=INDEX)
