"""What holds for every attack: its results, and a model and arguments that are left unchanged."""

import copy
import math
import random as python_random

import numpy as np
import pytest
import torch
from torch import nn

from robustperf import ops
from robustperf.attacks import BG, FGSM, PGD, Square


def test_gap_is_that_of_the_point_and_points_stay_in_bounds(attack, net, x, labels):
    found = attack(net, x, labels)
    assert found.point.shape == x.shape and found.point.dtype == x.dtype
    assert not found.point.requires_grad and not found.gap.requires_grad
    assert found.gap.dtype == torch.float64 and found.gap.shape == labels.shape
    assert found.evaluations.dtype == torch.int64 and (found.evaluations >= 1).all()
    assert found.point.min() >= 0 and found.point.max() <= 1
    net.eval()
    with torch.no_grad():
        torch.testing.assert_close(found.gap, ops.logit_gap(net(found.point), labels), rtol=1e-9, atol=1e-11)
    assert (found.point != x).flatten(1).any(1).all()


@pytest.mark.parametrize("bounds", [(-1.0, 1.0), (0.25, 0.75), (-0.4242129623889923, 2.821486711502075)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_other_bounds(attack, net, x, labels, bounds, dtype):
    lower, upper = (torch.tensor(b, dtype=dtype) for b in bounds)
    x = torch.lerp(lower, upper, x.to(dtype)).clamp(lower, upper)
    found = attack(net.to(dtype), x, labels, bounds=bounds)
    assert (found.point >= lower).all() and (found.point <= upper).all()


@pytest.mark.parametrize("bounds", [(0.0, 0.1), (-0.3, 1.0)])
def test_float32_images_that_touch_a_bound_which_float32_rounds_outwards(attack, net, bounds):
    # 0.1 is no float32: an image clamped to it holds 0.100000001
    x = torch.tensor(bounds, dtype=torch.float32)[:, None, None, None].expand(2, 1, 5, 5).clamp(*bounds)
    found = attack(net.float(), x, torch.tensor([0, 1]), bounds=bounds)
    assert found.point.isfinite().all()
    assert torch.equal(found.point, found.point.clamp(*bounds))


def test_the_model_is_left_unchanged(attack, net, x, labels):
    net.train()
    net[1].eval()  # modes differ between the modules
    net[0].weight.requires_grad_(False)
    net[5].weight.grad = torch.full_like(net[5].weight, 7.0)
    modes = [module.training for module in net.modules()]
    state = copy.deepcopy(net.state_dict())
    x_before, labels_before = x.clone(), labels.clone()
    torch.manual_seed(5), np.random.seed(5), python_random.seed(5)
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), python_random.getstate()
    attack(net, x, labels)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.array_equal(np.random.get_state()[1], states[1]) and python_random.getstate() == states[2]
    assert [module.training for module in net.modules()] == modes
    for name, value in net.state_dict().items():
        assert torch.equal(value, state[name]), name
    assert [p.requires_grad for p in net.parameters()] == [False, True, True, True, True, True]
    assert (net[5].weight.grad == 7).all() and net[0].weight.grad is None and net[5].bias.grad is None
    assert torch.equal(x, x_before) and torch.equal(labels, labels_before) and not x.requires_grad


def test_the_model_runs_in_eval_mode(attack, net, x, labels):
    seen = []
    net.register_forward_pre_hook(lambda module, args: seen.append([m.training for m in module.modules()]))
    net.train()
    in_train = attack(net, x, labels)
    assert seen and not any(any(modes) for modes in seen)
    in_eval = attack(net.eval(), x, labels)
    assert torch.equal(in_train.point, in_eval.point) and torch.equal(in_train.gap, in_eval.gap)


@pytest.mark.parametrize("call", [1, 2])
def test_the_model_is_left_unchanged_when_it_raises(attack, net, x, labels, call):
    class Broken(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.calls = net, 0

        def forward(self, x):
            self.calls += 1
            if self.calls == call:
                raise RuntimeError("out of order")
            return self.net(x)

    model = Broken().train()
    net[1].eval()
    state, rng = copy.deepcopy(net.state_dict()), torch.get_rng_state()
    with pytest.raises(RuntimeError, match="out of order"):
        attack(model, x, labels)
    assert model.training and net.training and net[3].training and not net[1].training
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())
    assert all(p.grad is None for p in net.parameters()) and torch.equal(torch.get_rng_state(), rng)


def test_frozen_models_plain_functions_and_no_grad(attack, net, x, labels):
    net.eval()
    expected = attack(net, x, labels)
    with torch.no_grad():
        inside = attack(net, x, labels)
    function = attack(lambda images: net(images), x.clone().requires_grad_(), labels)
    frozen = attack(net.requires_grad_(False), x, labels)
    for found in (inside, function, frozen):
        assert torch.equal(found.point, expected.point) and not found.point.requires_grad


def test_evaluations_are_those_of_the_model(attack, net, x, labels):
    seen = []
    net.eval().register_forward_pre_hook(lambda module, args: seen.append(args[0].shape[0]))
    found = attack(net, x, labels)
    assert int(found.evaluations.sum()) == sum(seen)


def test_a_misclassified_point_has_crossed_already(net, x):
    worst = net.eval()(x).argmin(1)
    found = BG()(net, x, worst)
    assert torch.equal(found.point, x) and (found.gap < 0).all()
    found = PGD(random_start=False, early_stop=True)(net, x, worst)
    assert torch.equal(found.point, x) and (found.gap < 0).all() and (found.evaluations == 1).all()


@pytest.mark.parametrize(("shape", "dtype"), [((1, 5, 5), torch.float32), ((25,), torch.float64)], ids=str)
def test_a_batch_of_no_images(attack, shape, dtype):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), 3)).to(dtype)
    found = attack(model, torch.empty(0, *shape, dtype=dtype), torch.empty(0, dtype=torch.int64))
    assert found.point.shape == (0, *shape) and found.point.dtype == dtype
    assert found.gap.shape == (0,) and found.evaluations.shape == (0,)


@pytest.mark.parametrize("shape", [(8,), (2, 4), (2, 2, 2, 1)], ids=str)
def test_images_of_any_shape(attack, shape):
    torch.manual_seed(0)
    linear = nn.Linear(8, 3).double()
    x = torch.rand(5, *shape, dtype=torch.float64)
    labels = linear(x.flatten(1)).argmax(1)
    found = attack(nn.Sequential(nn.Flatten(), linear), x, labels)
    flat = attack(linear, x.flatten(1), labels)
    assert found.point.shape == x.shape
    if not isinstance(attack, Square):  # whose patches depend on the shape
        torch.testing.assert_close(found.point.flatten(1), flat.point, rtol=1e-12, atol=1e-12)


def test_non_contiguous_images(attack, net, x, labels):
    found = attack(net, x.transpose(2, 3), labels)
    same = attack(net, x.transpose(2, 3).contiguous(), labels)
    torch.testing.assert_close(found.point, same.point, rtol=1e-12, atol=1e-12)


def test_attacks_compare_by_their_settings_and_cannot_be_changed():
    assert PGD(norm="inf", steps=40) == PGD() and PGD(norm=2) != PGD() and BG(norm="2") == BG()
    with pytest.raises(AttributeError):
        FGSM().eps = 0.1


def test_no_grad_is_fine_and_inference_mode_is_refused(attack, net, x, labels):
    with torch.no_grad():
        inside = attack(net, x, labels)
    assert torch.equal(inside.point, attack(net, x, labels).point)
    with torch.inference_mode(), pytest.raises(RuntimeError, match="torch.inference_mode"):
        attack(net, x, labels)


def test_flat_is_where_no_gradient_leads_on(attack, net, x, labels):
    """A constant model has no gradient; a point whose label has changed already needs none, nor does Square."""
    assert not attack(net, x, labels).flat.any()

    def constant(images):
        return net(images) * 0 + torch.arange(4.0, dtype=images.dtype)

    top = torch.full_like(labels, 3)
    assert (attack(constant, x, top).flat == (not isinstance(attack, Square))).all()
    found = attack(constant, x, top - 1)
    assert not found.flat.any() and (found.gap < 0).all()
