"""Margins in L0: closed forms, enumeration, undone changes, invariances and errors."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from python_tests.attacks.minimal_norm import linear_problem, small_net
from python_tests.support.l0 import far_from_boundaries, fewest_of_linear, fewest_on_grid
from robustperf import LabelOnly, MarginCurve, Margins, attacks, margins
from robustperf.attacks.attack import Attack
from robustperf.robustness.support import UNDOING, SupportSearch


def changed(found, x):
    return (found.point != x).flatten(1).sum(1).double()


def check_points(model, found, x, labels):
    """The distances are attained, by points in the box that the model labels differently."""
    some = found.found
    torch.testing.assert_close(changed(found, x)[some], found.distance[some], rtol=0, atol=0)
    assert (model(found.point[some]).argmax(1) != labels[some]).all() and found.point[~some].isnan().all()
    assert found.point[some].min() >= 0 and found.point[some].max() <= 1


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_linear_models(classes, dtype):
    """The closed form without attacks, and the presets."""
    model, x, labels = far_from_boundaries(classes, dim=40, count=20, dtype=dtype)
    least = [fewest_of_linear(model.weight, model.bias, image, label) for image, label in zip(x, labels, strict=True)]
    exact = margins(model, x, norm=0, keep_points=True)
    assert exact.distance.tolist() == least and exact.exact.all() and 3 < max(least) > min(least)
    check_points(model, exact, x, labels)
    for preset in ("fast", "strong"):
        found = margins(model, x, norm=0, attacks=preset, keep_points=True)
        assert not found.exact.any() and (found.distance >= exact.distance).all()
        assert (found.distance == exact.distance).double().mean() >= 0.9
        check_points(model, found, x, labels)


def test_linear_models_in_other_boxes():
    model, x, labels = linear_problem(classes=3, dim=10, count=12)
    for lower, upper in ((-math.inf, math.inf), (-1.0, 3.0)):
        found = margins(model, x, norm=0, bounds=(lower, upper))
        least = [
            fewest_of_linear(model.weight, model.bias, image, label, lower, upper)
            for image, label in zip(x, labels, strict=True)
        ]
        assert found.distance.tolist() == least and found.diameter == 10.0
    one = nn.Linear(2, 2).requires_grad_(False)
    one.weight.copy_(torch.tensor([[1.0, 1.0], [0.0, 0.0]]))
    one.bias.copy_(torch.tensor([5.0, 0.0]))
    assert margins(one, torch.zeros(1, 2), norm=0).distance.tolist() == [math.inf]


def test_a_sum_within_rounding_of_the_gap():
    """Two values bring the logits to a tie, which changes no label: the margin is 3."""
    model = nn.Linear(3, 2).requires_grad_(False)
    model.weight.copy_(torch.tensor([[1.0, 1.0, -0.25], [0.0, 0.0, 0.0]]))
    model.bias.zero_()
    found = margins(model, torch.tensor([[1.0, 1.0, 0.0]]), norm=0, keep_points=True)
    assert found.distance.tolist() == [3.0] and model(found.point).argmax(1).tolist() == [1]


def test_curved_boundaries_by_enumeration():
    net, x, labels = small_net(dim=6)
    found = margins(net, x, norm=0, keep_points=True)
    least = torch.tensor([
        fewest_on_grid(net, image, label, [0.0, 0.25, 0.5, 0.75, 1.0]) for image, label in zip(x, labels, strict=True)
    ])  # fmt: skip
    check_points(net, found, x, labels)
    assert (found.distance >= least).all() and (found.distance == least).double().mean() >= 0.75


def test_scale_of_logits_batches_and_classes():
    net, x, labels = small_net(dim=30)
    found = margins(net, x, norm=0, keep_points=True)
    for model, batch_size in ((lambda images: 1e3 * net(images), 256), (net, 3)):
        again = margins(model, x, norm=0, batch_size=batch_size, keep_points=True)
        assert again.distance.tolist() == found.distance.tolist()
        torch.testing.assert_close(again.point, found.point)
    torch.manual_seed(1)
    many = nn.Sequential(nn.Flatten(), nn.Linear(48, 24), nn.Tanh(), nn.Linear(24, 1000)).double()
    images = torch.rand(5, 3, 4, 4, dtype=torch.float64)
    found = margins(many, images, norm=0, keep_points=True)
    assert found.found.all() and found.diameter == 48.0
    check_points(many, found, images, many(images).argmax(1))


def test_results():
    net, x, labels = small_net(dim=30)
    labels = labels.clone()
    labels[0] = (labels[0] + 1) % 3
    found = margins(net, x, norm=0, labels=labels)
    assert found.distance.dtype == torch.float64 and found.distance[0] == 0 and found.attack[0] == -1
    summary = found.summary()
    assert summary["norm"] == 0 and summary["diameter"] == 30 and summary["area"] == found.distance.mean().item()
    curve = MarginCurve.from_margins(found)
    assert curve.area == found.distance.mean().item() and curve.upper == 30.0
    assert curve.at(2.0) == (found.distance > 2).double().mean().item()
    assert found.robust_accuracy(2).value == (found.distance > 2).double().mean().item()


def test_saved_and_drawn(tmp_path):
    from robustperf import plot

    net, x, _ = small_net(dim=10)
    found = margins(net, x, norm=0, keep_points=True)
    found.save(tmp_path / "l0.npz")
    loaded = Margins.load(tmp_path / "l0.npz")
    assert loaded.norm == 0.0 and loaded.distance.tolist() == found.distance.tolist()
    figure = plot.margin_curves({"net": MarginCurve.from_margins(loaded)}, norm=0)
    assert "$L_0$" in figure.axes[0].get_xlabel()


def test_constant_model_finds_nothing():
    x = torch.rand(4, 6)
    with pytest.warns(RuntimeWarning, match="zero or non-finite gradient"):
        found = margins(lambda images: 0 * images[:, :2] + torch.tensor([1.0, 0.0]), x, norm=0)
    assert not found.found.any() and found.distance.isinf().all() and (found.attack_evaluations == 1).all()


class Dense(Attack):
    """Ends at a given point."""

    def __init__(self, point):
        object.__setattr__(self, "point", point)

    def run(self, problem):
        return self.point, problem.gap(self.point)


def test_changes_of_an_attack_of_ones_own_are_undone():
    """Of 64 changed values those of a sum of at least 20.5 are needed: the 21 largest, which are 1."""
    size = torch.cat([torch.full((40,), 1.0), torch.full((24,), 0.1)])
    point = size[torch.randperm(64, generator=torch.Generator().manual_seed(0))][None].double()

    def model(images):
        return torch.stack([20.5 - images.sum(1), images.sum(1) - 20.5], 1)

    found = margins(model, torch.zeros(1, 64).double(), norm=0, attacks=[Dense(point)], keep_points=True)
    assert found.distance.tolist() == [21.0] and (found.point[found.point > 0] == 1).all()


def test_undoing_beyond_the_order_of_sizes():
    """The label hangs on one small change among large ones: the bisection alone keeps all, undoing finds it."""
    point = torch.linspace(0.1, 1, 30)[None].double()

    def model(images):
        return torch.stack([0.05 - images[:, 3], images[:, 3] - 0.05], 1)

    x = torch.zeros(1, 30).double()
    found = margins(model, x, norm=0, attacks=[Dense(point)], keep_points=True)
    assert found.distance.tolist() == [1.0] and found.point[0, 3] == point[0, 3]
    assert found.evaluations.item() <= 6 + UNDOING


def test_never_worse_than_any_attack():
    """Candidates of few and of many changes: the result has at most as many as each, of any attack alone."""
    net, x, labels = small_net(dim=30)
    text = ["sigma_zero(steps=15)", "shrinking_support(steps=4)"]
    found = margins(net, x, norm=0, attacks=text)
    for one in (attacks.SigmaZero(steps=15), attacks.ShrinkingSupport(steps=4)):
        alone = one(net, x, labels)
        count = (alone.point != x).sum(1).double().masked_fill(~(alone.gap < 0), math.inf)
        assert (found.distance <= count).all()
    assert found.attacks == ("SigmaZero", "ShrinkingSupport") and set(found.attack.tolist()) <= {0, 1}


def test_evaluations_are_counted():
    net, x, labels = small_net(dim=30)
    candidates = torch.stack([torch.rand(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(k))
                              for k in range(3)])  # fmt: skip
    images = []

    def counting(points):
        images.append(len(points))
        return net(points)

    gap = net(x).sort(dim=1).values.diff(dim=1)[:, -1]
    search = SupportSearch(counting, (0.0, 1.0))
    found = search.nearest(x, candidates, labels, (gap, torch.full((3, len(x)), math.nan, dtype=torch.float64)))
    assert sum(images) == found.evaluations.sum() and found.distance.isfinite().any()
    assert (found.evaluations <= 3 * 6 + UNDOING).all()


@pytest.mark.parametrize(
    ("chosen", "name"),
    [("tibo", "tibo"), ("fast, pgd(norm=2)", "pgd"), ("bg", "bg"), ([attacks.FGSM()], "FGSM"),
     ([attacks.ShrinkingBall(1)], "ShrinkingBall")],
)  # fmt: skip
def test_attacks_without_l0(chosen, name):
    net, x, _ = small_net(dim=6)
    with pytest.raises(
        ValueError, match=rf"norm 0 \(fast, strong, sigma_zero, shrinking_support\), got {name}, which changes"
    ):
        margins(net, x, norm=0, attacks=chosen)


def test_other_errors():
    x = torch.rand(3, 4)
    with pytest.raises(ValueError, match=r"norm: expected 0, 1, 2 or inf, got 0.5"):
        margins(nn.Linear(4, 2), x, norm=0.5)
    with pytest.raises(ValueError, match="norm: expected 1, 2 or inf for a model that gives labels only, got 0"):
        margins(LabelOnly(lambda points: np.zeros(len(points)), 2), x, norm=0)


def test_lattice():
    """Edges of the box are on the lattice: nothing is lost, and the points survive being saved with 8 bits."""
    net, x, labels = small_net(dim=30)
    x = (x * 255).round() / 255
    labels = net(x).argmax(1)
    free = margins(net, x, norm=0)
    found = margins(net, x, norm=0, lattice=1 / 255, keep_points=True)
    assert found.distance.tolist() == free.distance.tolist()
    saved = (found.point * 255).round() / 255
    torch.testing.assert_close(saved, found.point, rtol=0, atol=1e-12)
    assert (net(saved).argmax(1) != labels).all()
