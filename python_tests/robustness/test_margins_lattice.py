"""Margins on a lattice: points that survive being saved, against brute force in two and three dimensions."""

import itertools
import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from robustperf import LabelOnly, margins

NORMS = [1, 2, math.inf]


def points(count, *shape, seed=1):
    return torch.rand(count, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def brute_force(net, x, norm, step, lower=0.0, upper=1.0):
    """[N], the distance to the nearest lattice point in the box with another label."""
    axis = lower + step * torch.arange(int((upper - lower) / step + 1e-6) + 1).double()
    grid = torch.tensor(list(itertools.product(axis.tolist(), repeat=x.shape[1]))).double()
    label, own = net(grid).argmax(1), net(x).argmax(1)
    distance = torch.linalg.vector_norm(grid - x[:, None], norm, dim=2)
    return distance.masked_fill(label == own[:, None], math.inf).amin(1)


@pytest.mark.filterwarnings("ignore:margins")
@pytest.mark.parametrize(
    ("kind", "dim", "norm"), [*itertools.product(["linear", "network"], [2, 3], NORMS), ("labels", 2, 2)]
)
def test_brute_force(kind, dim, norm):
    """Never below the nearest lattice point, within a step of it, and mostly it."""
    torch.manual_seed(2)
    step = 1 / 16
    net = nn.Linear(dim, 3) if kind == "linear" else nn.Sequential(nn.Linear(dim, 8), nn.Tanh(), nn.Linear(8, 3))
    net = net.double()
    for parameter in net.parameters():
        parameter.data *= 3
    last = net if kind == "linear" else net[-1]
    last.bias.data -= net(points(100, dim, seed=5)).mean(0).detach()  # so that all labels occur
    x = (points(24, dim) / step).round() * step
    model = LabelOnly(lambda z: net(z).argmax(1), 3) if kind == "labels" else net
    options = {"norm": norm, "queries": 300 if kind == "labels" else None}
    found = margins(model, x, lattice=step, keep_points=True, **options)
    exact = brute_force(net, x, norm, step)
    some = exact.isfinite() & found.found
    plain = margins(model, x, key=1, **options)
    assert some.sum() > 15 and torch.equal(found.found, plain.found)
    assert kind != "linear" or torch.equal(found.found, exact.isfinite())
    excess = (found.distance - exact)[some]
    assert excess.min() > -1e-12 and excess.max() <= (1 if kind == "linear" else 3) * step + 1e-12
    assert (excess < 1e-9).double().mean() >= (0.8 if kind == "linear" else 0.5)
    n = found.point[some] / step
    assert torch.equal(n, n.round()) and (net(found.point[some]).argmax(1) != net(x[some]).argmax(1)).all()
    assert not found.exact.any()


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_images_survive_eight_bits(norm, dtype, tmp_path):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(64, 5)).to(dtype)
    x = ((points(20, 3, 6, 6) * 255).round() / 255).to(dtype)
    plain = margins(net, x, norm=norm, keep_points=True)
    found = margins(net, x, norm=norm, lattice=1 / 255, keep_points=True)

    def saved(point):
        """Written as PNG files and read again."""
        read = []
        for image in point:
            Image.fromarray((image * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()).save(tmp_path / "image.png")
            read.append(torch.from_numpy(np.array(Image.open(tmp_path / "image.png"))).permute(2, 0, 1))
        return torch.stack(read).to(dtype) / 255

    label = net(x).argmax(1)
    assert found.found.all() and (net(saved(found.point)).argmax(1) != label).all()
    assert torch.equal(saved(found.point), found.point)
    assert (net(saved(plain.point)).argmax(1) == label).any()  # some of the continuous points do not survive
    length = torch.linalg.vector_norm((found.point - x).flatten(1), norm, dim=1, dtype=torch.float64)
    torch.testing.assert_close(found.distance, length)
    assert (found.distance >= plain.distance).all()
    if norm == math.inf:
        assert (found.distance - plain.distance).median() < 1 / 255
    else:
        assert (found.distance / plain.distance).median() < 1.05
    assert (found.evaluations - plain.evaluations).max() <= 65 and margins(net, x, lattice=1 / 255).point is None


def test_the_infinity_norm_of_a_linear_model_is_rounded_up():
    net, x = nn.Linear(30, 2).double(), (points(25, 30) * 255).round() / 255
    exact = margins(net, x, norm=math.inf).distance
    found = margins(net, x, norm=math.inf, lattice=1 / 255)
    torch.testing.assert_close(found.distance, (exact * 255).ceil() / 255)


def test_a_lattice_of_each_channel_of_normalised_images():
    """(image - mean) / std of 8-bit images: the steps are 1 / (255 std), from the lower bounds."""
    torch.manual_seed(0)
    mean, std = torch.tensor([0.4, 0.5]).double(), torch.tensor([0.2, 0.5]).double()
    net = nn.Sequential(nn.Flatten(), nn.Linear(18, 3)).double()
    image = (points(10, 2, 3, 3) * 255).round() / 255
    x = (image - mean[:, None, None]) / std[:, None, None]
    found = margins(
        net, x, bounds=(-mean / std, (1 - mean) / std), lattice=(1 / 255 / std)[:, None, None], keep_points=True
    )
    n = 255 * (found.point * std[:, None, None] + mean[:, None, None])
    torch.testing.assert_close(n, n.round(), rtol=0, atol=1e-9)
    assert (net(found.point).argmax(1) != net(x).argmax(1)).all()


def test_points_off_the_lattice_and_without_bounds():
    net, x = nn.Linear(3, 2).double(), points(15, 3)
    found = margins(net, x, lattice=0.1, bounds=(-math.inf, math.inf), keep_points=True)
    n = found.point / 0.1
    torch.testing.assert_close(n, n.round(), rtol=0, atol=1e-9)
    assert (net(found.point).argmax(1) != net(x).argmax(1)).all()
    assert (found.distance >= margins(net, x, bounds=(-math.inf, math.inf)).distance).all()


def test_a_lattice_without_another_label():
    """The other label lies between the lattice points: none is found, and the warning says so."""
    model = LabelOnly(lambda x: ((x > 0.55) & (x < 0.95)).all(1).long(), 2)
    x = torch.full((1, 1), 0.5).double()
    with pytest.warns(RuntimeWarning, match="no adversarial example was found for 100.00% of the points"):
        found = margins(model, x, lattice=0.5, keep_points=True)
    assert found.distance.isinf().all() and found.diagnostics.missing == 1 and found.point.isnan().all()
    assert margins(model, x).found.all() and (found.attack == -1).all()


def test_misclassified_points_and_labels():
    net, x = nn.Linear(4, 2).double(), (points(12, 4) * 255).round() / 255
    labels = torch.zeros(12, dtype=torch.int64)
    labels[::2] = 1
    wrong = net(x).argmax(1) != labels
    found = margins(net, x, labels=labels, lattice=1 / 255, batch_size=5)
    assert wrong.any() and torch.equal(found.distance == 0, wrong) and found.labelled
    assert torch.equal(found.distance, margins(net, x, labels=labels, lattice=1 / 255).distance)


@pytest.mark.parametrize(
    ("lattice", "error", "message"),
    [
        (0, ValueError, "lattice: expected steps above 0, got 0"),
        (-1.0, ValueError, "lattice: expected steps above 0"),
        (math.inf, ValueError, "lattice: expected steps above 0"),
        ("a", TypeError, "lattice: expected a number or an array, got 'a'"),
        ([0.1, 0.1], ValueError, r"lattice: .* broadcasts to \[3\], got \[2\]"),
    ],
)
def test_wrong_lattice(lattice, error, message):
    with pytest.raises(error, match=message):
        margins(nn.Linear(3, 2), torch.rand(2, 3), lattice=lattice)


def test_the_budget_of_queries_includes_the_rounding():
    model, x = LabelOnly(lambda z: (z[:, 0] > 0.5).long(), 2), torch.rand(4, 3)
    with pytest.raises(ValueError, match="queries: expected an integer >= 75, got 74"):
        margins(model, x, queries=74, lattice=1 / 255)
    with pytest.raises(ValueError, match="queries: expected an integer"):
        margins(model, x, queries="100", lattice=1 / 255)
    own = margins(model, x, attacks="surfree(queries=1100)", lattice=1 / 255)
    assert (own.attack_evaluations == 1100).all()


def test_no_points():
    found = margins(nn.Linear(3, 2), torch.empty(0, 3), lattice=0.1, keep_points=True)
    assert len(found) == 0 and found.point.shape == (0, 3)
