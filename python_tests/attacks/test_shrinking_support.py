"""The attack in L0 against closed forms and enumeration, its passes and its invariances."""

import math

import pytest
import torch
from torch import nn

from python_tests.attacks.minimal_norm import linear_problem, small_net
from python_tests.support.l0 import far_from_boundaries, fewest_of_linear, fewest_on_grid
from robustperf.attacks import ShrinkingSupport, SigmaZero
from robustperf.attacks.named import attacks_of


def counts_of(found, x):
    return (found.point != x).flatten(1).sum(1).double().masked_fill(~(found.gap < 0), math.inf)


@pytest.mark.parametrize("classes", [2, 3])
def test_linear_models(classes):
    model, x, labels = far_from_boundaries(classes, dim=60, count=24)
    found = ShrinkingSupport(steps=12, targets=classes - 2)(model, x, labels)
    least = torch.tensor([
        fewest_of_linear(model.weight, model.bias, image, label) for image, label in zip(x, labels, strict=True)
    ])  # fmt: skip
    assert least.max() > 2
    torch.testing.assert_close(counts_of(found, x), least.double())
    torch.testing.assert_close(found.gap, torch.stack([
        model(found.point)[row, label] - model(found.point)[row].where(torch.arange(classes) != label, -9e9).max()
        for row, label in enumerate(labels)
    ]))  # fmt: skip


def test_curved_boundaries_by_enumeration():
    net, x, labels = small_net(dim=6)
    found = ShrinkingSupport(steps=20, targets=2)(net, x, labels)
    least = torch.tensor([
        fewest_on_grid(net, image, label, [0.0, 0.25, 0.5, 0.75, 1.0]) for image, label in zip(x, labels, strict=True)
    ])  # fmt: skip
    count = counts_of(found, x)
    assert least.isfinite().all() and (least > 1).any()
    assert (count >= least).all() and (count == least).double().mean() >= 0.75


def test_not_behind_sigma_zero_at_equal_passes():
    net, x, labels = small_net(dim=30)
    (attack,) = attacks_of("fast", 0)
    found, other = attack(net, x, labels), SigmaZero(steps=99)(net, x, labels)
    assert counts_of(found, x).sum() <= counts_of(other, x).sum()


@pytest.mark.parametrize("classes", [2, 1000])
def test_passes(classes):
    torch.manual_seed(0)
    # many values of small effect: no run ends early, at one changed value
    net = nn.Sequential(nn.Linear(200, 16), nn.Tanh(), nn.Linear(16, classes)).requires_grad_(False)
    x = torch.rand(4, 200)
    labels = net(x).argmax(1)
    for preset, passes in (("fast", 100), ("strong", 300)):
        (attack,) = attacks_of(preset, 0)
        found = attack(net, x, labels)
        runs, others = 1 + attack.targets, min(attack.classes, classes - 1)
        assert (found.evaluations <= 2 + runs * attack.steps + 1).all() and (found.evaluations <= passes).all()
        assert (found.backward <= 1 + runs * (attack.steps - 1) + others).all() and (found.backward <= passes).all()
        assert (found.gap < 0).all() and found.backward.max() > passes / 2


def test_scale_of_logits_and_batch():
    net, x, labels = small_net(dim=30)
    attack = ShrinkingSupport(steps=15, targets=2)
    found = attack(net, x, labels)
    scaled = attack(lambda images: 1e-3 * net(images), x, labels)
    torch.testing.assert_close(scaled.point, found.point)
    for row in range(len(x)):
        part = slice(row, row + 1)
        torch.testing.assert_close(attack(net, x[part], labels[part]).point, found.point[part])


@pytest.mark.parametrize("bounds", [(-math.inf, math.inf), (0.0, math.inf)])
def test_without_edges(bounds):
    """Half of the box has no edge: one value is enough, of a linear model and of a curved one that has crossed."""
    model, x, labels = linear_problem(classes=3, dim=20, count=16)
    found = ShrinkingSupport(steps=10, targets=1)(model, x, labels, bounds=bounds)
    assert (counts_of(found, x) == 1).double().mean() > 0.9 and (found.gap < 0).all()
    assert (found.point >= bounds[0]).all() and found.point.isfinite().all()


def test_constant_model_ends_at_once():
    x = torch.rand(3, 5)
    found = ShrinkingSupport()(lambda images: 0 * images[:, :2] + torch.tensor([1.0, 0.0]), x, torch.zeros(3).long())
    assert found.flat.all() and not (found.gap < 0).any()
    assert found.evaluations.tolist() == [1, 1, 1] and found.backward.tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("setting", "value"),
    [("steps", 0), ("targets", -1), ("momentum", 1.0), ("first", 0), ("last", 1.0), ("classes", 0)],
)
def test_wrong_settings(setting, value):
    with pytest.raises(ValueError, match=f"{setting}: "):
        ShrinkingSupport(**{setting: value})
