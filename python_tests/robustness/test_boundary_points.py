"""The points that the searches return: verified, or marked as not found; NaN, infinite and tied logits."""

import math

import pytest
import torch
from torch import nn

from python_tests.support.boundary import (
    METHODS,
    crossings,
    normals,
    segment,
    threshold,
)
from robustperf import closest_boundary, line_search, ops
from robustperf.robustness.search import TOL


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("probes", [0, 5])
def test_points_are_verified_one_by_one_and_in_any_batch(dtype, method, probes):
    """Another label, evaluated alone, in the whole batch and in parts; the old one at a step of `tol` less, up to the
    rounding tolerance."""
    torch.manual_seed(0)
    net = (
        nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 10)
        )
        .to(dtype)
        .requires_grad_(False)
    )
    net[5].weight.mul_(4)
    x, x_adv = (2 * normals(50, 3, 8, 8, seed=seed).to(dtype) for seed in (1, 2))
    found = line_search(net, x, x_adv, method=method, probes=probes)
    labels = net(x).argmax(1)
    assert found.crossed.sum() > 20 and found.point.dtype == dtype and found.step.dtype == torch.float64
    if probes == 0:
        assert torch.equal(found.crossed, net(x_adv).argmax(1) != labels)
    x, x_adv, labels, point, step = (v[found.crossed] for v in (x, x_adv, labels, found.point, found.step))
    alone = torch.cat([net(image[None]) for image in point])
    assert (alone.argmax(1) != labels).all()
    assert (net(point).argmax(1) != labels).all()
    assert (torch.cat([net(part) for part in point.split(7)]).argmax(1) != labels).all()
    assert (ops.logit_gap(net(point), labels) < 1e-5).all()
    t = step.to(dtype)[:, None, None, None]
    torch.testing.assert_close(point, x + t * (x_adv - x), rtol=0, atol=8 * torch.finfo(dtype).eps)
    single = crossings(net, x, x_adv[None], points=100)[0] == 1
    t = (step - TOL).to(dtype)[:, None, None, None]
    below = net(x + t * (x_adv - x))[single]
    scale = below.abs().amax(1).double()
    assert single.sum() > 15
    assert (ops.logit_gap(below, labels[single]) >= -32 * torch.finfo(dtype).eps * scale).all()


def test_points_that_do_not_cross_and_points_that_do_not_move():
    x, x_adv = segment(4)
    x_adv[1] = 0.2  # not adversarial
    x_adv[2] = 0.0  # x itself
    for known in (None, (None, torch.tensor([-0.7, 0.1, 0.3, math.nan], dtype=torch.float64))):
        for probes in (0, 3):
            found = line_search(threshold(0.3), x, x_adv, gaps=known, probes=probes)
            assert found.crossed.tolist() == [True, False, False, True]
            assert found.step[1:3].tolist() == [math.inf, math.inf] and found.point[1:3].isnan().all()
            assert found.step[[0, 3]].tolist() == pytest.approx([0.3, 0.3], abs=TOL)
            assert found.evaluations[2] == 1  # where there is no line, only x is evaluated
            nearest = closest_boundary(threshold(0.3), x, x_adv[None], probes=probes)
            assert nearest.distance[1:3].tolist() == [math.inf, math.inf] and nearest.point[1:3].isnan().all()
            assert nearest.candidate.tolist() == [0, -1, -1, 0]


def test_misclassified_points_have_no_margin():
    x, x_adv = segment(3)
    x[1] = 0.5
    labels = torch.zeros(3, dtype=torch.int64)  # the model's label of the second is 1
    for gaps in (None, (ops.logit_gap(threshold(0.3)(x), labels), None)):
        found = line_search(threshold(0.3), x, x_adv, labels=labels, gaps=gaps)
        assert found.step[1] == 0 and torch.equal(found.point[1], x[1]) and found.crossed.all()
        assert found.evaluations[1] == (1 if gaps is None else 0)
        assert found.step[[0, 2]].tolist() == pytest.approx([0.3, 0.3], abs=TOL)
        nearest = closest_boundary(threshold(0.3), x, torch.stack([x_adv, x - 1]), labels=labels, gaps=gaps)
        assert nearest.distance[1] == 0 and torch.equal(nearest.point[1], x[1])
        assert nearest.candidate.tolist() == [0, -1, 0]
    assert not line_search(threshold(0.3), x, x_adv).crossed[1]  # by its own label it does not cross


def test_a_point_misclassified_by_less_than_rounding():
    """Wrong by one unit in the last place: its margin is still 0."""

    def model(x):
        return torch.stack([torch.ones_like(x[:, 0]), torch.full_like(x[:, 0], 1 + 2**-52)], 1)

    x, x_adv = segment()
    found = line_search(model, x, x_adv, labels=torch.tensor([0]))
    assert found.step.item() == 0 and found.evaluations.item() == 1


def test_a_tie_is_no_crossing():
    """Equal logits at x', or a difference within rounding, are not certainly another label."""
    x, x_adv = segment()
    for other in (1.0, 1 + 2**-51):

        def model(x, other=other):
            return torch.stack([1 + (1 - x[:, 0]), torch.full_like(x[:, 0], other)], 1)

        assert not line_search(model, x, x_adv).crossed.any()


def test_nan_logits_at_x_name_the_points():
    def model(x):
        return threshold(0.3)(x).masked_fill(x > 2, math.nan)

    x, x_adv = segment(5)
    x[[1, 4]] = 3.0
    with pytest.raises(ValueError, match=r"NaN logits for 2 of 5 points, the first at \[1, 4\]"):
        line_search(model, x, x_adv)
    with pytest.raises(ValueError, match=r"NaN logits for 2 of 5 points"):
        closest_boundary(model, x, x_adv[None], labels=torch.zeros(5, dtype=torch.int64))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("hole", [(0.1, 0.2), (0.25, 0.35), (0.28, 0.8), (0.45, 0.55), (0.0, 0.999), (0.9, 1.0)])
def test_nan_logits_on_the_line_still_give_a_verified_point(method, hole):
    """Label 0 up to 0.3, label 1 beyond it, and NaN logits strictly within the hole."""
    nan_at = []

    def model(x):
        inside = (x > hole[0]) & (x < hole[1])
        nan_at.extend(x[inside].tolist())
        return threshold(0.3)(x).masked_fill(inside, math.nan)

    x, x_adv = segment()
    for probes in (0, 9):
        found = line_search(model, x, x_adv, method=method, probes=probes)
        logits = threshold(0.3)(found.point)
        assert found.crossed.all() and logits.argmax() == 1 and not hole[0] < found.point.item() < hole[1]
        assert found.evaluations.item() <= 12 + 3 * 20
        assert 0.3 <= found.step.item() <= max(0.3, hole[1]) + TOL  # NaN counts as the old label
    assert nan_at or method == "chandrupatla" or not hole[0] < 0.5 < hole[1]
    # where the logits at x' are NaN, no crossing is known
    lost = line_search(lambda x: threshold(0.3)(x).masked_fill(x > 0.4, math.nan), x, x_adv, method=method)
    assert not lost.crossed.any() and lost.point.isnan().all()


def test_infinite_logits():
    """-inf for the other class or for the label are logits like others."""

    def model(x):
        gap = torch.where(x[:, 0] < 0.3, math.inf, -math.inf)
        return torch.stack([torch.zeros_like(gap), -gap], 1)

    x, x_adv = segment()
    for method in METHODS:
        found = line_search(model, x, x_adv, method=method)
        assert 0.3 <= found.step.item() <= 0.3 + TOL


@pytest.mark.parametrize("logits_dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_logits_of_another_precision_than_the_images(dtype, logits_dtype):
    x, x_adv = (end.to(dtype) for end in segment(3))
    found = line_search(lambda x: threshold(0.25)(x).to(logits_dtype), x, x_adv)
    assert found.point.dtype == dtype and found.crossed.all()
    # logits (gap, 0): the rounding tolerance is 32 eps |gap|, below |gap| itself
    assert found.step.tolist() == pytest.approx([0.25] * 3, abs=2e-6)
