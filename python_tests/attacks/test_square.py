"""Square: its patches, its schedule, and that it needs no gradient."""

import torch
from torch import nn

from robustperf.attacks import FGSM, Square


def evaluated_points(attack, x, gap):
    """The images that the attack evaluates for a model with this gap of each image, a point at a time."""
    images = []

    def model(points):
        images.append(points.detach().clone())
        return torch.stack([gap(points), torch.zeros(len(points), dtype=points.dtype)], 1)

    return attack(model, x, torch.zeros(len(x), dtype=torch.int64)), images


def test_stripes_then_squares_on_the_surface_of_the_ball():
    """With a gap that no step lowers, every image differs from the stripes by one square."""
    x, calls = torch.full((1, 3, 16, 16), 0.5, dtype=torch.float64), []

    def rising(points):
        calls.append(1)
        return torch.full((len(points),), float(len(calls)), dtype=points.dtype)

    found, images = evaluated_points(Square(steps=60, eps=0.125), x, rising)
    stripes = images[0] - x
    assert ((stripes.abs() - 0.125).abs() < 1e-12).all() and (stripes == stripes[:, :, :1]).all()
    assert torch.equal(found.point, images[0]) and (found.evaluations == 60).all()
    sizes = []
    for image in images[1:]:
        assert (((image - x).abs() - 0.125).abs() < 1e-12).all()
        changed = (image != images[0])[0].any(0)
        rows, columns = changed.any(1).nonzero()[:, 0], changed.any(0).nonzero()[:, 0]
        if len(rows):
            sizes.append((rows.max() - rows.min() + 1).item())
            # within the square each channel has one sign
            square = (image - x)[0, :, rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
            whole = square.flatten(1).sign()[:, :1]
            assert ((square.flatten(1).sign() == whole) | (changed.sum() == 0)).float().mean() > 0.5
    # p is 0.8 at first and halves 8 times until the end: sides of sqrt(p) 16
    assert max(sizes) <= 14 and max(sizes[-8:]) <= 2 and max(sizes[:4]) > 4


def test_only_changes_that_lower_the_gap_are_kept():
    x = torch.full((2, 1, 8, 8), 0.5, dtype=torch.float64)
    weight = torch.randn(1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found, images = evaluated_points(
        Square(steps=40, eps=0.01), x, lambda points: 9 - (weight * (points - 0.5)).flatten(1).sum(1)
    )
    gaps = torch.stack([9 - (weight * (image - 0.5)).flatten(1).sum(1) for image in images])
    assert torch.allclose(found.gap, gaps.amin(0), atol=1e-9) and (gaps[0] > found.gap).all()
    assert not found.backward.any() and not found.flat.any()


def test_it_crosses_where_the_gradient_is_masked():
    """A model of rounded pixels has no gradient."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 3)).double().requires_grad_(False)
    x = torch.rand(8, 1, 8, 8, dtype=torch.float64)

    def masked(images):
        return net((images * 16).round() / 16 + 0 * images)

    labels = masked(x).argmax(1)
    assert (FGSM()(masked, x, labels).gap < 0).float().mean() < 0.5
    found = Square(steps=100)(masked, x, labels)
    assert (found.gap < 0).all() and (found.evaluations < 100).all()
    assert ((found.point - x).abs() <= 0.3 + 1e-9).all()


def test_features_have_runs():
    """An image [D] is one row."""
    x, calls = torch.full((1, 40), 0.5, dtype=torch.float64), []

    def rising(points):
        calls.append(1)
        return torch.full((len(points),), float(len(calls)), dtype=points.dtype)

    _, images = evaluated_points(Square(steps=30, eps=0.25, area=0.5), x, rising)
    for image in images[1:]:
        changed = (image != images[0])[0].nonzero()[:, 0]
        run = image[0, changed.min() : changed.max() + 1] if len(changed) else image[0, :1]
        assert len(run) <= 20 and (run == run[0]).all()
