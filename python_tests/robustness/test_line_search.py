"""The line search: gaps of every form, the tolerance, and several crossings on one line."""

import pytest
import torch

from python_tests.support.boundary import (
    METHODS,
    crossings,
    mlp,
    segment,
    threshold,
    uniforms,
)
from robustperf import line_search, ops
from robustperf.robustness.search import TOL


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("place", [1e-7, 0.1, 0.25, 0.5, 0.7734, 1 - 1e-7])
@pytest.mark.parametrize(
    "bend",
    [
        lambda t: t,
        lambda t: t**3,
        lambda t: t.sign() * t.abs().sqrt(),
        lambda t: t.sign(),
        lambda t: (20 * t).expm1(),
        lambda t: 1e-200 * t,
    ],
    ids=["line", "cube", "root", "step", "exp", "tiny"],
)
def test_gaps_of_every_form(method, place, bend):
    """One crossing at a known step, whatever the shape of the gap around it; the number of evaluations is bounded."""

    def model(x):
        gap = bend(place - x[:, 0])
        return torch.stack([gap, torch.zeros_like(gap)], 1)

    x, x_adv = segment()
    found = line_search(model, x, x_adv, method=method)
    # a gap within the rounding tolerance of zero has not crossed; with logits (gap, 0) the tolerance is relative
    assert found.crossed.all()
    assert place <= found.step.item() <= place + TOL
    assert found.evaluations.item() <= 2 + 3 * 20
    assert found.point.item() == found.step.item()
    assert model(found.point).argmax(1).item() == 1


def test_the_methods_agree_and_interpolation_evaluates_less():
    net, x, x_adv = mlp(6, seed=1), uniforms(60, 6, seed=2), uniforms(60, 6, seed=3)
    single = crossings(net, x, x_adv[None])[0] == 1
    fast, slow = (line_search(net, x[single], x_adv[single], method=method) for method in METHODS)
    assert single.sum() > 10 and fast.crossed.all() and slow.crossed.all()
    torch.testing.assert_close(fast.step, slow.step, rtol=0, atol=TOL)
    assert (slow.evaluations == 22).all()
    assert fast.evaluations.double().mean() < 10


@pytest.mark.parametrize("tol", [0.9, 0.5, 0.1, 2**-10, 2**-20, 2**-30, 2**-45])
@pytest.mark.parametrize("method", METHODS)
def test_tol_is_the_width_of_the_bracket(tol, method):
    x, x_adv = segment()
    found = line_search(threshold(0.3), x, x_adv, tol=tol, method=method)
    assert 0.3 <= found.step.item() <= 0.3 + tol * (1 + 1e-12)
    found = line_search(lambda x: threshold(0.3)(x) ** 3, x, x_adv, tol=tol, method=method)
    assert 0.3 <= found.step.item() <= 0.3 + tol * (1 + 1e-12) + 1e-4  # a cube's gap is rounding near its root


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("method", METHODS)
def test_tol_beyond_the_images_precision(dtype, method):
    """The bracket of steps closes also where no images lie between its ends."""
    x, x_adv = (end.to(dtype) for end in segment())
    found = line_search(threshold(0.3), x, x_adv, tol=2.0**-60, method=method)
    assert found.crossed.all() and found.step.item() == pytest.approx(0.3, abs=4 * torch.finfo(dtype).eps)
    assert threshold(0.3)(found.point).argmax() == 1 and found.evaluations.item() < 200


@pytest.mark.parametrize("method", METHODS)
def test_probes_find_the_first_of_several_crossings(method):
    """Label 0, then 1 from 0.21 to 0.38, 0 to 0.6, 1 to 0.72, 0 to 0.9, and 1."""
    x, x_adv = segment()
    model = threshold(0.21, 0.38, 0.6, 0.72, 0.9)
    for probes in (7, 9, 99):
        found = line_search(model, x, x_adv, probes=probes, method=method)
        assert 0.21 <= found.step.item() <= 0.21 + TOL
    # 3 probes: 0.25 lies in the first; 1 probe: 0.5 has the old label, the end has another: a crossing between them
    assert line_search(model, x, x_adv, probes=3, method=method).step.item() == pytest.approx(0.21, abs=TOL)
    assert 0.5 < line_search(model, x, x_adv, probes=1, method=method).step.item()
    # where the end has not crossed
    even = threshold(0.21, 0.38)
    assert not line_search(even, x, x_adv, method=method).crossed.any()
    assert line_search(even, x, x_adv, probes=3, method=method).step.item() == pytest.approx(0.21, abs=TOL)
    known = (None, ops.logit_gap(even(x_adv), torch.tensor([0])))
    assert known[1].item() > 0
    assert line_search(even, x, x_adv, probes=3, method=method, gaps=known).step.item() == pytest.approx(0.21, abs=TOL)


def test_probes_begin_near_x_and_stop_at_the_first_crossing():
    evaluated = []

    def model(x):
        evaluated.extend(x[:, 0].tolist())
        return threshold(0.55, 0.65)(x)

    x, x_adv = segment()
    line_search(model, x, x_adv, probes=4)
    assert evaluated[:4] == pytest.approx([0.0, 0.2, 0.4, 0.6])
    assert all(0.4 < place < 0.6 for place in evaluated[4:])
    evaluated.clear()
    found = line_search(model, x, x_adv, probes=1)
    assert evaluated == pytest.approx([0.0, 0.5, 1.0]) and not found.crossed.any() and found.evaluations.item() == 3
