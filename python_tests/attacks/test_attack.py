"""What every attack promises: its gradients, its checks, and a model that is left as it was."""

import copy
import math
import random as python_random
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from robustperf import ops
from robustperf.attacks import BG, FGSM, PGD, Adversarial, Attack
from robustperf.attacks.attack import LOSSES, gap_at, loss_gradient, per_sample

ATTACKS = {
    "fgsm": FGSM(),
    "pgd-inf": PGD(steps=5),
    "pgd-2": PGD(norm=2, steps=5, eps=1.0),
    "pgd-early-stop": PGD(steps=5, early_stop=True, random_start=False),
    "bg-1": BG(norm=1),
    "bg-2": BG(),
    "bg-inf": BG(norm=math.inf),
    "bg-runner-up": BG(classes=1),
    "bg-again": BG(steps=3),
}


@pytest.fixture(params=ATTACKS.values(), ids=ATTACKS.keys())
def attack(request):
    return request.param


@pytest.fixture
def net():
    torch.manual_seed(0)
    layers = nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Tanh(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(3 * 9, 4)
    return nn.Sequential(*layers).double()


@pytest.fixture
def x():
    return torch.rand(6, 1, 5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def labels(net, x):
    return copy.deepcopy(net).eval()(x).argmax(1)


class Vectors(Attack):
    """An attack of the user's own."""

    def run(self, model, x, labels, *, key, index, bounds):
        point = x.flip(0)
        return Adversarial(point, gap_at(model, point, labels), torch.ones_like(labels))


def by_definition(logits, labels, loss):
    """The losses, a point at a time."""
    values = []
    for z, y in zip(logits, labels, strict=True):
        gap = max(z[j] for j in range(len(z)) if j != y) - z[y]
        first, _, third, *_ = sorted(z.tolist(), reverse=True)
        values.append({"gap": gap, "dlr": gap / (first - third), "cross_entropy": -z.log_softmax(0)[y]}[loss])
    return torch.stack(values)


@pytest.mark.parametrize("loss", LOSSES)
def test_loss_gradient_against_central_differences(net, x, labels, loss):
    net.eval()
    gradient, gap, flat = loss_gradient(net, x, labels, loss)
    h = 1e-6
    for row, column in [(0, 0), (2, 3), (4, 4), (1, 2)]:
        ahead, behind = x.clone(), x.clone()
        ahead[:, 0, row, column] += h
        behind[:, 0, row, column] -= h
        with torch.no_grad():
            slope = (by_definition(net(ahead), labels, loss) - by_definition(net(behind), labels, loss)) / (2 * h)
        torch.testing.assert_close(gradient[:, 0, row, column], slope, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(gap, ops.logit_gap(net(x).detach(), labels), rtol=0, atol=0)
    assert gradient.shape == x.shape and not gradient.requires_grad and gradient.abs().max() > 1e-3
    assert flat.dtype == torch.bool and not flat.any()


def test_loss_gradient_is_a_sum_and_not_a_mean_over_the_batch(net, x, labels):
    net.eval()
    whole, _, _ = loss_gradient(net, x, labels)
    alone, _, _ = loss_gradient(net, x[2:3], labels[2:3])
    torch.testing.assert_close(whole[2:3], alone)


def test_per_sample():
    like = torch.zeros(3, 2, 4, 5, dtype=torch.float32)
    values = per_sample(torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64), like)
    assert values.shape == (3, 1, 1, 1) and values.dtype == torch.float32


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


def test_the_model_is_left_as_it_was(attack, net, x, labels):
    net.train()
    net[1].eval()  # modes differ between the modules
    net[0].weight.requires_grad_(False)
    net[5].weight.grad = torch.full_like(net[5].weight, 7.0)
    modes = [module.training for module in net.modules()]
    state = copy.deepcopy(net.state_dict())
    image, answer = x.clone(), labels.clone()
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
    assert torch.equal(x, image) and torch.equal(labels, answer) and not x.requires_grad


def test_the_model_runs_in_eval_mode(attack, net, x, labels):
    seen = []
    net.register_forward_pre_hook(lambda module, args: seen.append([m.training for m in module.modules()]))
    net.train()
    in_train = attack(net, x, labels)
    assert seen and not any(any(modes) for modes in seen)
    in_eval = attack(net.eval(), x, labels)
    assert torch.equal(in_train.point, in_eval.point) and torch.equal(in_train.gap, in_eval.gap)


@pytest.mark.parametrize("call", [1, 2])
def test_the_model_is_left_as_it_was_when_it_raises(attack, net, x, labels, call):
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


def test_evaluations_count_what_the_model_saw(attack, net, x, labels):
    seen = []
    net.eval().register_forward_pre_hook(lambda module, args: seen.append(args[0].shape[0]))
    found = attack(net, x, labels)
    assert int(found.evaluations.sum()) == sum(seen)


def test_a_wrongly_labelled_point_is_left_alone_or_at_least_crosses(net, x):
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
    torch.testing.assert_close(found.point.flatten(1), flat.point, rtol=1e-12, atol=1e-12)


def test_non_contiguous_images(attack, net, x, labels):
    found = attack(net, x.transpose(2, 3), labels)
    same = attack(net, x.transpose(2, 3).contiguous(), labels)
    torch.testing.assert_close(found.point, same.point, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        (lambda x: x.mul(255).byte(), TypeError, "x: expected torch.float32 or torch.float64, got torch.uint8"),
        (lambda x: x.half(), TypeError, "x: .*torch.float16"),
        (lambda x: x.tolist(), TypeError, "x: expected a tensor, got list"),
        (lambda x: x.flatten()[:6], ValueError, r"x: expected a batch of shape \[B, ...\], got \[6\]"),
        (lambda x: x.index_fill(3, torch.tensor([2]), 1.5), ValueError, r"x: expected pixels within \[0, 1\], got 1.5"),
        (
            lambda x: x.index_fill(3, torch.tensor([2]), -1.5),
            ValueError,
            r"x: expected pixels within \[0, 1\], got -1.5",
        ),
        (lambda x: x.index_fill(0, torch.tensor([4]), math.nan), ValueError, r"x: .*finite.*nan at \[4, 0, 0, 0\]"),
        (lambda x: x.index_fill(0, torch.tensor([4]), math.inf), ValueError, r"x: .*finite.*inf at \[4, 0, 0, 0\]"),
    ],
)
def test_wrong_images(attack, net, x, labels, change, error, match):
    with pytest.raises(error, match=match):
        attack(net, change(x), labels)


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        (lambda y: y.int(), TypeError, "labels: expected torch.int64, got torch.int32"),
        (lambda y: y.double(), TypeError, "labels: expected torch.int64, got torch.float64"),
        (lambda y: y.tolist(), TypeError, "labels: expected a tensor, got list"),
        (lambda y: y[:-1], ValueError, r"labels: expected shape \[6\], got \[5\]"),
        (lambda y: y[:, None], ValueError, r"labels: expected shape \[6\], got \[6, 1\]"),
        (lambda y: y.to("meta"), ValueError, "labels: expected a tensor on cpu, got one on meta"),
        (lambda y: y + 4, ValueError, r"labels: expected labels in 0\.\.3, got"),
        (lambda y: y - 4, ValueError, r"labels: expected labels in 0\.\.3, got -"),
    ],
)
def test_wrong_labels(attack, net, x, labels, change, error, match):
    with pytest.raises(error, match=match):
        attack(net, x, change(labels))


@pytest.mark.parametrize(
    "index",
    [torch.arange(3), torch.zeros(6), [0, 1, 2, 3, 4, 5], torch.arange(6)[:, None], torch.arange(6, device="meta")],
    ids=["short", "float", "list", "column", "device"],
)
@pytest.mark.parametrize("attack", [FGSM(), PGD()], ids=["fgsm", "pgd"])
def test_wrong_index(attack, net, x, labels, index):
    with pytest.raises((TypeError, ValueError), match="index"):
        attack(net, x, labels, index=index)


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"bounds": (1.0, 0.0)}, ValueError, "bounds: .*lower < upper"),
        ({"bounds": 1.0}, TypeError, "bounds: "),
        ({"bounds": (0.0, math.nan)}, ValueError, "bounds: .*lower < upper"),
        ({"bounds": (torch.zeros(3), 1.0)}, ValueError, r"bounds: expected a number, \[1\], .* \[1, 5, 5\], got \[3\]"),
        ({"key": -1}, ValueError, "seed"),
        ({"key": 2**64}, ValueError, "seed"),
    ],
)
def test_wrong_bounds_and_keys(attack, net, x, labels, arguments, error, match):
    with pytest.raises(error, match=match):
        attack(net, x, labels, **arguments)


def test_wrong_models(attack, net, x, labels):
    with pytest.raises(TypeError, match="model: expected a module or a callable, got str"):
        attack("net", x, labels)
    with pytest.raises(ValueError, match=r"model\(x\): expected shape \[6, C\]"):
        attack(nn.Sequential(net, nn.Flatten(0)), x, labels)
    with pytest.raises(ValueError, match=r"model\(x\): .*at least two classes"):
        attack(lambda x: net(x)[:, :1], x, labels * 0)
    with pytest.raises(TypeError, match=r"model\(x\): expected a tensor, got tuple"):
        attack(lambda x: (net(x),), x, labels)


def test_an_attack_of_ones_own(net, x, labels):
    attack = Vectors()
    assert attack.name == "Vectors" and BG().name == "BG"
    found = attack(net.train(), x, labels)
    assert torch.equal(found.point, x.flip(0)) and net.training
    with pytest.raises(NotImplementedError):
        Attack()(net, x, labels)


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


@pytest.mark.parametrize("make", [lambda **kwargs: FGSM(**kwargs), lambda **kwargs: PGD(steps=2, **kwargs)])
def test_the_difference_of_logits_ratio_wants_three_classes(net, x, make):
    net.eval()

    def two(images):
        return net(images)[:, :2]

    labels = two(x).argmax(1)
    with pytest.raises(ValueError, match="loss: dlr expected logits of at least three classes, got 2; gap takes two"):
        make(loss="dlr")(two, x, labels)
    assert not make(loss="gap")(two, x, labels).flat.any()
    with pytest.raises(ValueError, match="loss: expected one of gap, dlr, cross_entropy, got 'ce'"):
        make(loss="ce")


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_points_that_are_not_finite_are_replaced_by_x(net, x, labels, wrong):
    class Broken(Attack):
        def run(self, model, x, labels, *, key, index, bounds):
            point = x.flip(0).clone()
            point[2, 0, 1, 1] = wrong
            return Adversarial(point, gap_at(model, x.flip(0), labels), torch.ones_like(labels))

    found = Broken()(net, x, labels)
    assert torch.equal(found.point[2], x[2]) and found.gap[2].isnan()
    assert found.flat.nonzero().tolist() == [[2]]
    assert torch.equal(found.point[3:], x.flip(0)[3:]) and found.gap[3:].isfinite().all()


def test_flat_is_where_the_way_is_not_known(attack, net, x, labels):
    """A constant model has no gradient; a point whose label has changed already needs none."""
    assert not attack(net, x, labels).flat.any()

    def constant(images):
        return net(images) * 0 + torch.arange(4.0, dtype=images.dtype)

    top = torch.full_like(labels, 3)
    assert attack(constant, x, top).flat.all()
    found = attack(constant, x, top - 1)
    assert not found.flat.any() and (found.gap < 0).all()


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        (lambda a: replace(a, point=a.point + 1), ValueError, r"Mine: point: expected pixels within \[0, 1\], got 1\."),
        (
            lambda a: replace(a, point=a.point.float()),
            TypeError,
            "Mine: point: expected torch.float64, got torch.float32",
        ),
        (
            lambda a: replace(a, point=a.point[:1]),
            ValueError,
            r"Mine: point: expected shape \[6, 1, 5, 5\], got \[1, 1",
        ),
        (lambda a: replace(a, gap=a.gap.float()), TypeError, "Mine: gap: expected torch.float64, got torch.float32"),
        (
            lambda a: replace(a, evaluations=a.gap),
            TypeError,
            "Mine: evaluations: expected torch.int64, got torch.float64",
        ),
    ],
)
def test_what_an_attack_of_ones_own_may_not_return(net, x, labels, change, error, match):
    class Mine(Attack):
        def run(self, model, x, labels, *, key, index, bounds):
            return change(Adversarial(x, gap_at(model, x, labels), torch.ones_like(labels)))

    with pytest.raises(error, match=match):
        Mine()(net, x, labels)
