"""The number of model evaluations, and equal results on all backends."""

import pytest
import torch
from torch import nn

from python_tests.support.boundary import (
    METHODS,
    NORMS,
    generator,
    mlp,
    normals,
    segment,
    threshold,
    uniforms,
)
from robustperf import closest_boundary, line_search, ops

OP = "line_search_step"  # for the `backend` fixture


class Tagged(nn.Module):
    """Counts the evaluations of each point: its first pixel is the point's sample id, constant along the lines."""

    def __init__(self, net, count):
        super().__init__()
        self.net, self.evaluated = net, [0] * count

    def forward(self, x):
        for tag in x.flatten(1)[:, 0].tolist():
            self.evaluated[int(tag)] += 1
        return self.net(x.flatten(1)[:, 1:])


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("probes", [0, 4])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("lines", [1, 4])
def test_evaluations_are_the_images_that_the_model_evaluated(lines, method, probes, known):
    count = 25
    model = Tagged(mlp(5, seed=8, gain=8.0), count)
    x, candidates = uniforms(count, 6, seed=9), 2 * normals(lines, count, 6, seed=10)
    x[:, 0] = candidates[:, :, 0] = torch.arange(count, dtype=torch.float64)
    candidates[0, 3] = x[3]
    labels = model.net(x[:, 1:]).argmax(1)
    labels[5] = (labels[5] + 1) % 4
    gaps = None
    if known:
        gaps = (
            ops.logit_gap(model.net(x[:, 1:]), labels),
            torch.stack([ops.logit_gap(model.net(c[:, 1:]), labels) for c in candidates]),
        )
    found = closest_boundary(model, x, candidates, labels=labels, gaps=gaps, method=method, probes=probes)
    assert found.evaluations.tolist() == model.evaluated and found.evaluations.dtype == torch.int64
    assert len(set(model.evaluated)) > 1
    if lines == 1:
        model.evaluated = [0] * count
        gaps = None if gaps is None else (gaps[0], gaps[1][0])
        found = line_search(model, x, candidates[0], labels=labels, gaps=gaps, method=method, probes=probes)
        assert found.evaluations.tolist() == model.evaluated


@pytest.mark.parametrize("method", METHODS)
def test_known_gaps_save_evaluations(method):
    net, x, x_adv = mlp(6, seed=1), uniforms(40, 6, seed=2), uniforms(40, 6, seed=3)
    labels = net(x).argmax(1)
    gap_x, gap_end = ops.logit_gap(net(x), labels), ops.logit_gap(net(x_adv), labels)
    plain, both, far, near = (
        line_search(net, x, x_adv, labels=labels, method=method, gaps=gaps)
        for gaps in (None, (gap_x, gap_end), (None, gap_end), (gap_x, None))
    )
    for found in (both, far, near):
        torch.testing.assert_close(found.step, plain.step, rtol=0, atol=0)
        assert torch.equal(found.crossed, plain.crossed)
    assert (both.evaluations == plain.evaluations - 2).all() and (both.evaluations[~both.crossed] == 0).all()
    assert (far.evaluations == plain.evaluations - 1).all() and (near.evaluations == plain.evaluations - 1).all()


def test_pruning_evaluates_less_than_searching_every_line():
    net, x, candidates = mlp(6, seed=1), uniforms(40, 6, seed=2), uniforms(5, 40, 6, seed=3)
    every = sum(line_search(net, x, ends).evaluations for ends in candidates)
    found = closest_boundary(net, x, candidates)
    assert found.evaluations.sum() < 0.7 * every.sum()


@pytest.mark.against_reference
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("probes", [0, 3])
def test_backends_agree_exactly(backend, device, dtype, method, probes):
    net = mlp(7, seed=11, gain=10.0).to(device, dtype)
    x, candidates = normals(40, 7, seed=12).to(device, dtype), normals(4, 40, 7, seed=13).to(device, dtype)
    candidates[1, 3] = x[3]
    for norm, tol in zip(NORMS, (2.0**-10, 2.0**-40, 2.0**-20), strict=True):
        ours, reference = (
            closest_boundary(net, x, candidates, norm=norm, tol=tol, method=method, probes=probes, backend=name)
            for name in (backend, "reference")
        )
        assert torch.equal(ours.distance, reference.distance)
        assert torch.equal(ours.candidate, reference.candidate)
        assert torch.equal(ours.evaluations, reference.evaluations)
        assert torch.equal(ours.point.nan_to_num(7), reference.point.nan_to_num(7))
        ours, reference = (
            line_search(net, x, candidates[0], tol=tol, method=method, probes=probes, backend=name)
            for name in (backend, "reference")
        )
        assert torch.equal(ours.step, reference.step) and torch.equal(ours.evaluations, reference.evaluations)
        assert torch.equal(ours.point.nan_to_num(7), reference.point.nan_to_num(7))


def test_backends_agree_next_to_the_far_end(backend, device):
    """A step that rounds to 1 in the images' precision: x' itself on every backend, where x + (x' - x) is not x'."""
    x = torch.rand(64, 1, generator=generator(0)).to(device)
    x_adv = 1000 * torch.rand(64, 1, generator=generator(1)).to(device) ** 4 - 1e-3
    uneven = ((x + (x_adv - x)) != x_adv)[:, 0]
    assert uneven.sum() > 3
    x, x_adv = x[uneven], x_adv[uneven]

    def model(points):  # x' alone has another label
        there = (points[:, :1] == x_adv.T).any(1).float()
        return torch.stack([1 - 2 * there, torch.zeros_like(there)], 1)

    found = line_search(model, x, x_adv, tol=2.0**-40, backend=backend)
    reference = line_search(model, x, x_adv, tol=2.0**-40, backend="reference")
    assert torch.equal(found.point, x_adv) and torch.equal(reference.point, x_adv)
    assert torch.equal(found.step, reference.step) and torch.equal(found.evaluations, reference.evaluations)


def test_unknown_backend():
    x, x_adv = segment()
    with pytest.raises(ValueError, match="backend: "):
        line_search(threshold(0.3), x, x_adv, backend="abacus")
