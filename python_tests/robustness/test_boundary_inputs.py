"""Shapes, strides, modes and batches; arguments are left unchanged."""

import math

import pytest
import torch
from torch import nn

from python_tests.support.boundary import (
    mlp,
    normals,
    uniforms,
)
from robustperf import closest_boundary, line_search


@pytest.mark.parametrize("shape", [(12,), (3, 4), (1, 3, 4), (3, 2, 2), (2, 1, 3, 1, 2)], ids=str)
def test_images_of_any_shape(shape):
    net, x, candidates = mlp(12, seed=1), normals(9, 12, seed=2), normals(3, 9, 12, seed=3)
    flat = closest_boundary(net, x, candidates)
    shaped = closest_boundary(net, x.view(9, *shape), candidates.view(3, 9, *shape))
    assert shaped.point.shape == (9, *shape)
    torch.testing.assert_close(shaped.point.flatten(1), flat.point, rtol=0, atol=1e-12, equal_nan=True)
    torch.testing.assert_close(shaped.distance, flat.distance, rtol=1e-12, atol=1e-12)
    found = line_search(net, x.view(9, *shape), candidates[0].view(9, *shape))
    assert found.point.shape == (9, *shape)


def test_tensors_that_are_not_contiguous():
    net, x, candidates = mlp(12, seed=1), normals(9, 3, 4, seed=2), normals(3, 9, 3, 4, seed=3)
    plain = closest_boundary(net, x, candidates)
    strided = closest_boundary(
        net, x.transpose(1, 2).contiguous().transpose(1, 2), candidates.transpose(0, 3).contiguous().transpose(0, 3)
    )
    assert torch.equal(plain.distance, strided.distance)
    gaps = (None, torch.zeros(9, 3, dtype=torch.float64).fill_(math.nan).T)
    assert torch.equal(closest_boundary(net, x, candidates, gaps=gaps).distance, plain.distance)


def test_labels_that_are_not_contiguous():
    net, x, candidates = mlp(6, seed=1), normals(9, 6, seed=2), normals(3, 9, 6, seed=3)
    labels = torch.stack([net(x).argmax(1)] * 2, 1)[:, 0]
    assert not labels.is_contiguous()
    plain, strided = (closest_boundary(net, x, candidates, labels=given) for given in (labels.contiguous(), labels))
    assert torch.equal(plain.distance, strided.distance)
    assert torch.equal(line_search(net, x, candidates[0], labels=labels).step, line_search(net, x, candidates[0]).step)


def test_an_empty_batch_is_not_evaluated():
    def model(x):
        raise AssertionError("there are no images to evaluate")

    for shape in ((5,), (1, 3, 3)):
        x = torch.empty(0, *shape)
        search = line_search(model, x, x)
        assert search.step.shape == (0,) and search.point.shape == x.shape and search.crossed.dtype == torch.bool
        assert search.evaluations.dtype == torch.int64
        found = closest_boundary(model, x, x.expand(3, 0, *shape), labels=torch.empty(0, dtype=torch.int64))
        assert found.distance.shape == (0,) and found.candidate.shape == (0,) and found.point.shape == x.shape


def test_a_point_does_not_depend_on_the_others_in_its_batch():
    net, x, candidates = mlp(6, seed=1), uniforms(20, 6, seed=2), 2 * normals(3, 20, 6, seed=3)
    together = closest_boundary(net, x, candidates)
    for b in range(20):
        alone = closest_boundary(net, x[b : b + 1], candidates[:, b : b + 1])
        torch.testing.assert_close(alone.distance, together.distance[b : b + 1], rtol=1e-9, atol=1e-12)
        assert alone.candidate == together.candidate[b] and alone.evaluations == together.evaluations[b]


def test_the_model_runs_in_eval_mode_and_is_left_unchanged():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Tanh(), nn.Linear(8, 3)).double()
    x, x_adv = normals(30, 6, seed=1), 2 * normals(30, 6, seed=2)
    expected = line_search(net.eval(), x, x_adv)
    net.train()
    net[1].eval()
    state = {name: value.clone() for name, value in net.state_dict().items()}
    found = line_search(net, x, x_adv)
    assert torch.equal(found.step, expected.step) and torch.equal(found.evaluations, expected.evaluations)
    assert [m.training for m in net.modules()] == [True, True, False, True, True, True]
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in net.parameters())

    calls = []

    def fails(module, args):
        calls.append(module.training)
        if len(calls) == 3:
            raise RuntimeError("out of order")

    net.register_forward_pre_hook(fails)
    with pytest.raises(RuntimeError, match="out of order"):
        line_search(net, x, x_adv)
    assert calls == [False] * 3
    assert [m.training for m in net.modules()] == [True, True, False, True, True, True]


def test_results_carry_no_graph():
    net = mlp(4, seed=1).requires_grad_(True)
    x, candidates = normals(6, 4, seed=2).requires_grad_(), normals(2, 6, 4, seed=3).requires_grad_()
    for result in (line_search(net, x, candidates[0]), closest_boundary(net, x, candidates)):
        assert not any(value.requires_grad for value in vars(result).values())
    assert x.grad is None and all(p.grad is None for p in net.parameters())


def test_arguments_are_left_unchanged():
    net, x, candidates = mlp(4, seed=1), normals(6, 4, seed=2), normals(2, 6, 4, seed=3)
    labels, gaps = net(x).argmax(1), (None, torch.full((2, 6), math.nan, dtype=torch.float64))
    copies = [value.clone() for value in (x, candidates, labels)]
    closest_boundary(net, x, candidates, labels=labels, gaps=gaps)
    assert all(torch.equal(a, b) for a, b in zip((x, candidates, labels), copies, strict=True))
    assert gaps[1].isnan().all()
