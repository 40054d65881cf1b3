"""Margins in boxes of any kind: scaled, with bounds per channel or feature, infinite; lines extended to the edge."""

import math

import pytest
import torch
from torch import nn

from robustperf import closest_boundary, line_search, margins, ops
from robustperf.attacks import BG, FGSM, PGD
from robustperf.robustness.margins import diameter

NORMS = [1, 2, math.inf]
ATTACKS = [FGSM(), PGD(norm=2), PGD(), BG()]


def images(count, *shape, seed=1):
    return torch.rand(count, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 10), nn.Tanh(), nn.Linear(10, 4)).double()


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_linear_classifier_in_the_box_is_exact(norm, dtype):
    """The nearest of the projections onto the halfspaces of all classes: BG alone finds it."""
    torch.manual_seed(3)
    net, x = nn.Linear(40, 5).double(), images(200, 40)
    weight, z = net.weight.detach(), net(x).detach()
    label = z.argmax(1)
    least = torch.full((200,), math.inf, dtype=torch.float64)
    for j in range(5):
        delta, feasible = ops.halfspace_box_projection(
            x, weight[j] - weight[label], z.gather(1, label[:, None])[:, 0] - z[:, j], norm=norm, backend="reference"
        )
        length = torch.linalg.vector_norm(delta, norm, dim=1)
        least = torch.where((label != j) & feasible, torch.minimum(least, length), least)
    found = margins(net.to(dtype), x.to(dtype), attacks=[BG(norm=norm)], norm=norm)
    known = least.isfinite()
    assert known.sum() > 100
    # in float32 a crossing must exceed the model's rounding, however near it is
    rtol, atol = (1e-6, 0) if dtype == torch.float64 else (1e-5, 1e-4)
    torch.testing.assert_close(found.distance[known], least[known], rtol=rtol, atol=atol)
    assert dtype == torch.float32 or (found.evaluations[known] <= 4).all()
    assert (found.attack_evaluations[0, known] == 2).all()  # the gradients, and the exact step


@pytest.mark.parametrize("scale", [255.0, 1 / 64])
def test_margins_follow_the_scale_of_the_pixels(net, scale):
    x = images(30, 1, 3, 4)
    plain = margins(net, x, attacks=ATTACKS)
    scaled = margins(lambda x: net(x / scale), x * scale, attacks=ATTACKS, bounds=(0, scale))
    torch.testing.assert_close(scaled.distance / scale, plain.distance, rtol=1e-5, atol=1e-7)
    assert torch.equal(scaled.attack, plain.attack) and scaled.diameter == pytest.approx(scale * plain.diameter)


@pytest.mark.parametrize("norm", NORMS)
def test_bounds_of_each_channel(norm):
    """Two channels, normalised differently: the margin of a linear classifier in x's units, found in that box."""
    torch.manual_seed(1)
    net, x = nn.Sequential(nn.Flatten(), nn.Linear(8, 2)).double(), images(40, 2, 2, 2)
    mean, std = torch.tensor([0.4, 0.5]).double(), torch.tensor([0.2, 0.5]).double()
    normal = (x - mean[:, None, None]) / std[:, None, None]
    bounds = (-mean / std, (1 - mean) / std)
    with torch.no_grad():  # a boundary through the middle of the images
        net[1].bias -= net(normal).mean(0)
    z, w = net(normal).detach(), net[1].weight.detach()
    label = z.argmax(1)
    lower, upper = (bound[:, None, None].expand(2, 2, 2).flatten() for bound in bounds)
    delta, feasible = ops.halfspace_box_projection(
        normal.flatten(1), w[1 - label] - w[label], (z[:, 0] - z[:, 1]).abs(), norm=norm, lower=lower, upper=upper
    )
    for given in (bounds, [bound.tolist() for bound in bounds], [bound.numpy()[:, None, None] for bound in bounds]):
        found = margins(net, normal, attacks=[BG(norm), FGSM(), PGD(norm=2)], norm=norm, bounds=given, keep_points=True)
        length = torch.linalg.vector_norm(delta, norm, dim=1)
        torch.testing.assert_close(found.distance[feasible], length[feasible], rtol=1e-5, atol=1e-7)
        point = found.point[found.found].flatten(1)
        assert feasible.sum() > 30 and ((point >= lower) & (point <= upper)).all()
    widths = torch.tensor([5.0] * 4 + [2.0] * 4)
    assert found.diameter == pytest.approx(torch.linalg.vector_norm(widths, norm).item())
    assert diameter((2, 2, 2), norm, (lower.view(2, 2, 2), upper.view(2, 2, 2))) == pytest.approx(found.diameter)


@pytest.mark.parametrize(
    "bounds", [(-math.inf, math.inf), (0, math.inf), ([-math.inf] * 6, [1.0] * 3 + [math.inf] * 3)]
)
def test_features_without_bounds(bounds):
    """On a linear classifier far from the bounds that there are: the distance to the hyperplane."""
    torch.manual_seed(0)
    net, x = nn.Linear(6, 2).double(), 0.4 + 0.2 * images(25, 6)
    with torch.no_grad():
        net.bias -= net(x).mean(0)
    z, w = net(x).detach(), (net.weight[1] - net.weight[0]).detach()
    found = margins(net, x, attacks=[FGSM(), PGD(norm=2), BG()], bounds=bounds, tol=2.0**-40)
    torch.testing.assert_close(found.distance, (z[:, 0] - z[:, 1]).abs() / w.norm(), rtol=1e-7, atol=1e-10)
    assert found.diameter == math.inf and found.found.all()


def test_a_pixel_beyond_the_bound_by_rounding(net):
    x = images(6, 1, 3, 4).float()
    x[0, 0, 0, 0], x[1, 0, 2, 3] = -3e-8, 1 + 2e-7
    before = x.clone()
    found = margins(net.float(), x, attacks=[BG()], keep_points=True)
    assert found.point[found.found].min() >= 0 and found.point[found.found].max() <= 1 and torch.equal(x, before)
    torch.testing.assert_close(found.distance, margins(net, x.clamp(0, 1), attacks=[BG()]).distance)
    x[2, 0, 1, 1], x[3, 0, 1, 2] = -1e-4, 1.5
    with pytest.raises(ValueError, match=r"x: expected pixels within \[0, 1\], got 1.5 at \[3, 0, 1, 2\] \(and 1 more"):
        margins(net, x, attacks=[BG()])
    with pytest.raises(ValueError, match=r"x: expected pixels within \[-1, 0.5\], got 1.5 at \[3, 0, 1, 2\]"):
        margins(net, x, attacks=[BG()], bounds=(-1, torch.tensor([[2.0, 2.0, 0.5, 2.0]])))


@pytest.mark.parametrize(
    ("bounds", "error", "match"),
    [
        ((0, 0), ValueError, r"bounds: expected lower < upper, got \(0, 0\)"),
        (
            ([0.0, 1.0], [1.0, 1.0]),
            ValueError,
            r"bounds: expected a number, \[1\], or a shape .* \[1, 3, 4\], got \[2\]",
        ),
        ((torch.zeros(3, 4), 1.0), None, None),
        ((torch.zeros(2, 4), 1.0), ValueError, "bounds: "),
        (
            ([[[0.0], [0.5], [0.0]]], [0.5]),
            ValueError,
            r"bounds: expected lower < upper, got \(0.5, 0.5\) at \[0, 1, 0\]",
        ),
        ("01", TypeError, r"bounds: expected \(lower, upper\), two numbers or arrays, got '01'"),
        ((0, 1, 2), TypeError, "bounds: "),
        ((0, "1"), TypeError, "bounds: "),
        ((math.nan, 1), ValueError, "bounds: expected lower < upper"),
    ],
)
def test_bounds_that_fit_and_others(net, bounds, error, match):
    x = images(2, 1, 3, 4)
    if error is None:
        found = margins(net, x, attacks=[BG()], bounds=bounds)
        assert torch.equal(found.distance, margins(net, x, attacks=[BG()]).distance)
        return
    with pytest.raises(error, match=match):
        margins(net, x, attacks=[BG()], bounds=bounds)


def step_at(place):
    """A classifier of one value, with another label from `place` on."""
    return lambda x: torch.stack([place - x[:, 0], x[:, 0] - place], 1)


@pytest.mark.parametrize(
    ("place", "bounds", "distance"),
    [
        (0.9, (0.0, 1.0), 0.7),
        (0.99, (0.0, 1.0), 0.79),
        (0.25, (0.0, 1.0), 0.05),
        (1.5, (0.0, 1.0), math.inf),
        (3.0, (-math.inf, math.inf), 2.8),
        (0.2 + 33 * 0.1, (0.0, math.inf), math.inf),
    ],
)
def test_a_line_is_extended_to_the_edge_of_the_box(place, bounds, distance):
    """T section 3.2: the smallest positive ε, also beyond x'."""
    x = torch.tensor([[0.2]], dtype=torch.float64)
    found = margins(step_at(place), x, attacks=[FGSM(eps=0.1)], bounds=bounds)
    assert found.distance.item() == pytest.approx(distance, abs=1e-4)
    line = line_search(step_at(place), x, x + 0.1, bounds=bounds)
    assert line.step.item() == pytest.approx(10 * distance, abs=1e-3) and line.crossed.item() == math.isfinite(distance)
    without = line_search(step_at(place), x, x + 0.1)
    assert without.crossed.item() == (place < 0.3) and not without.step.item() > 1 or without.step.isinf()


def test_the_line_ends_where_its_first_value_leaves_the_box():
    x, end = torch.tensor([[0.5, 0.5]], dtype=torch.float64), torch.tensor([[0.6, 0.7]], dtype=torch.float64)
    found = line_search(step_at(0.74), x, end, bounds=(0, 1))  # the second value is 1 where the first is 0.75
    assert found.crossed.item() and found.point[0].tolist() == pytest.approx([0.74, 0.98], abs=1e-5)
    assert not line_search(step_at(0.76), x, end, bounds=(0, 1)).crossed.item()
    assert line_search(step_at(0.76), x, end, bounds=(0, [1.0, 1.2])).step.item() == pytest.approx(2.6, abs=1e-5)


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("norm", NORMS)
def test_extended_lines_among_others(net, norm, known):
    """The nearest over an ensemble, some of whose ends have not crossed, is that of every line to the edge."""
    x = 0.3 + 0.4 * images(60, 1, 3, 4)
    ends = torch.stack([x + 0.12 * (images(60, 1, 3, 4, seed=seed) - 0.5) for seed in (2, 3, 4)])
    label = net(x).argmax(1)
    gaps = (ops.logit_gap(net(x).detach(), label), torch.stack([ops.logit_gap(net(e).detach(), label) for e in ends]))
    batches = []

    def model(x):
        batches.append(len(x))
        return net(x)

    found = closest_boundary(model, x, ends, norm=norm, bounds=(0, 1), labels=label, gaps=gaps if known else None)
    assert found.evaluations.sum() == sum(batches)
    edge = []
    for end in ends:
        direction = (end - x).flatten(1)
        room = torch.where(direction > 0, 1 - x.flatten(1), x.flatten(1)) / direction.abs()
        edge.append((x.flatten(1) + room.amin(1, keepdim=True) * direction).view_as(x).clamp(0, 1))
    expected = closest_boundary(net, x, torch.stack(edge), norm=norm)
    assert torch.equal(found.distance.isfinite(), expected.distance.isfinite()) and found.distance.isfinite().sum() > 15
    some = expected.distance.isfinite()
    torch.testing.assert_close(found.distance[some], expected.distance[some], rtol=1e-4, atol=1e-5)
    length = torch.linalg.vector_norm((found.point - x)[some].flatten(1), norm, dim=1)
    torch.testing.assert_close(length, found.distance[some])
    assert not torch.equal(net(found.point[some]).argmax(1), label[some])
    # some crossed on the segments already, others beyond
    plain = closest_boundary(net, x, ends, norm=norm).distance.isfinite()
    assert plain.sum() < some.sum()


def test_lines_that_cannot_be_nearest_are_not_extended(net):
    """Lines whose ends are farther than the crossing found cost nothing."""
    x = images(30, 1, 3, 4)
    label = net(x).argmax(1)
    near = BG()(net, x, label)
    ends = torch.stack([near.point, 1 - x])
    gaps = ops.logit_gap(net(x).detach(), label), torch.stack([near.gap, torch.ones_like(near.gap)])
    assert (near.gap < 0).all()
    plain = closest_boundary(net, x, ends, labels=label, gaps=gaps)
    bounded = closest_boundary(net, x, ends, labels=label, gaps=gaps, bounds=(0, 1))
    assert torch.equal(plain.distance, bounded.distance) and torch.equal(plain.evaluations, bounded.evaluations)
