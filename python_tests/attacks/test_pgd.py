"""PGD against a plain loop, its ball and box, and the distribution of its random start."""

import math

import pytest
import torch
from scipy import stats
from torch import nn
from torch.nn import functional

from robustperf import ops
from robustperf.attacks import PGD

NORMS = [2, math.inf]


@pytest.fixture
def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.Tanh(), nn.Linear(8, 3)).double()


@pytest.fixture
def x():
    return torch.rand(16, 1, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def labels(net, x):
    return net(x).argmax(1)


def ascended(logits, label, loss):
    """The loss of one image."""
    if loss == "cross_entropy":
        return functional.cross_entropy(logits, label)
    return logits[torch.arange(len(logits)) != label].max() - logits[label]


def plain_loop(net, image, label, norm, eps, step, steps, stop, bounds=(0.0, 1.0), loss="gap"):
    """Textbook projected gradient ascent of one image: (point, forward passes)."""
    point = image.clone()
    for passes in range(1, steps + 1):
        point.requires_grad_()
        logits = net(point[None])
        ascended(logits[0], label, loss).backward()
        gradient, point = point.grad, point.detach()
        if stop and logits.argmax() != label:
            return point, passes
        ascent = gradient.sign() if norm == math.inf else gradient / gradient.square().sum().sqrt()
        delta = point + step * ascent - image
        if norm == math.inf:
            delta = delta.clip(-eps, eps)
        elif delta.square().sum().sqrt() > eps:
            delta = delta * (eps / delta.square().sum().sqrt())
        point = (image + delta).clip(*bounds)
    return point, steps + 1


@pytest.mark.parametrize("loss", ["gap", "cross_entropy"])
@pytest.mark.parametrize("stop", [False, True])
@pytest.mark.parametrize(
    ("norm", "eps", "step"), [(2, 0.8, 0.3), (2, 5.0, 0.2), (math.inf, 0.3, 0.05), (math.inf, 0.1, 0.15)]
)
def test_plain_loop(net, x, labels, norm, eps, step, stop, loss):
    attack = PGD(norm=norm, eps=eps, step=step, steps=12, random_start=False, early_stop=stop, loss=loss)
    found = attack(net, x, labels)
    loops = [
        plain_loop(net, image, label, norm, eps, step, 12, stop, loss=loss)
        for image, label in zip(x, labels, strict=True)
    ]
    torch.testing.assert_close(found.point, torch.stack([point for point, _ in loops]), rtol=1e-9, atol=1e-10)
    assert found.evaluations.tolist() == [passes for _, passes in loops]
    torch.testing.assert_close(found.gap, ops.logit_gap(net(found.point).detach(), labels), rtol=1e-9, atol=1e-10)
    if stop:
        assert len(set(found.evaluations.tolist())) > 1


def test_plain_loop_in_other_bounds(net, x, labels):
    found = PGD(eps=0.4, step=0.1, steps=9, random_start=False, early_stop=False)(net, x, labels, bounds=(-1, 1.5))
    loops = [
        plain_loop(net, image, label, math.inf, 0.4, 0.1, 9, False, (-1, 1.5))[0]
        for image, label in zip(x, labels, strict=True)
    ]
    torch.testing.assert_close(found.point, torch.stack(loops), rtol=1e-9, atol=1e-10)
    assert found.point.min() < 0 and found.point.max() > 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("stop", [False, True])
@pytest.mark.parametrize("start", [False, True])
@pytest.mark.parametrize(("norm", "eps"), [(2, 0.5), (2, 1.5), (math.inf, 0.05), (math.inf, 0.4)])
def test_ball_and_box(net, x, labels, norm, eps, start, stop, dtype):
    x = x.to(dtype)
    x[0], x[1] = 0.0, 1.0
    attack = PGD(norm=norm, eps=eps, step=eps / 2, steps=8, random_start=start, early_stop=stop)
    found = attack(net.to(dtype), x, labels)
    assert found.point.min() >= 0 and found.point.max() <= 1
    length = torch.linalg.vector_norm((found.point.double() - x.double()).flatten(1), norm, dim=1)
    assert (length <= eps * (1 + 8 * torch.finfo(dtype).eps) + 2 * torch.finfo(dtype).eps).all()
    if not stop and not start:
        assert (length > eps / 4).any()


def test_early_stop_leaves_points_where_they_first_crossed(net, x, labels):
    settings = {"norm": 2, "eps": 3.0, "step": 0.1, "random_start": False}
    stopped = PGD(**settings, steps=40, early_stop=True)(net, x, labels)
    to_the_end = PGD(**settings, steps=40, early_stop=False)(net, x, labels)
    assert (stopped.gap < 0).all() and (to_the_end.evaluations == 41).all()
    for row, passes in enumerate(stopped.evaluations.tolist()):
        # the trajectory after `passes - 1` steps crosses, and after one step less it does not
        label = labels[row : row + 1]
        here = PGD(**settings, steps=passes - 1, early_stop=False)(net, x[row : row + 1], label)
        torch.testing.assert_close(stopped.point[row : row + 1], here.point, rtol=1e-10, atol=1e-12)
        assert here.gap < 0
        if passes > 2:
            assert PGD(**settings, steps=passes - 2, early_stop=False)(net, x[row : row + 1], label).gap >= 0
    assert (stopped.point - x).flatten(1).norm(dim=1).mean() < (to_the_end.point - x).flatten(1).norm(dim=1).mean()


@pytest.mark.parametrize("norm", NORMS)
def test_the_start_does_not_depend_on_the_batch_or_the_order(net, x, labels, norm):
    attack = PGD(norm=norm, steps=3, eps=0.5, early_stop=False)
    index = torch.tensor([7, 3, 11, 100, 5, 2**40, 0, 1, 2, 4, 6, 8, 9, 10, 12, 13])
    together = attack(net, x, labels, key=3, index=index)
    order = torch.randperm(16, generator=torch.Generator().manual_seed(0))
    shuffled = attack(net, x[order], labels[order], key=3, index=index[order])
    torch.testing.assert_close(shuffled.point, together.point[order], rtol=1e-10, atol=1e-12)
    for part in (slice(0, 1), slice(1, 6), slice(6, 16)):
        alone = attack(net, x[part], labels[part], key=3, index=index[part])
        torch.testing.assert_close(alone.point, together.point[part], rtol=1e-10, atol=1e-12)
    default = attack(net, x, labels, key=3)
    assert torch.equal(default.point, attack(net, x, labels, key=3, index=torch.arange(16)).point)
    assert not torch.equal(default.point, together.point)
    assert not torch.equal(attack(net, x, labels, key=4).point, default.point)
    assert torch.equal(attack(net, x, labels, key=3).point, default.point)


def starts(norm, dim, count, eps, dtype=torch.float64, key=17):
    """Random starts: of points that have crossed already, so that an attack with `early_stop` leaves them there."""
    x = torch.full((count, dim), 0.5, dtype=dtype)
    model = nn.Linear(dim, 2).to(dtype)
    nn.init.zeros_(model.weight)
    with torch.no_grad():
        model.bias.copy_(torch.tensor([0.0, 1.0]))
    found = PGD(norm=norm, eps=eps, early_stop=True)(model, x, torch.zeros(count, dtype=torch.int64), key=key)
    assert (found.evaluations == 1).all() and (found.gap < 0).all()
    return (found.point - x).double() / eps


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("dim", [1, 2, 5, 40])
def test_the_start_is_uniform_in_the_l2_ball(dim, dtype):
    delta = starts(2, dim, 4000, 0.25, dtype)
    radius = delta.norm(dim=1)
    assert radius.max() <= 1 + 1e-6
    assert stats.kstest((radius**dim).clamp_max(1).numpy(), "uniform").pvalue > 1e-3
    # a coordinate of the direction: (t + 1) / 2 is Beta((D - 1) / 2, (D - 1) / 2)
    coordinate = ((delta / radius[:, None] + 1) / 2).numpy()
    if dim > 1:
        law = stats.beta((dim - 1) / 2, (dim - 1) / 2)
        assert all(stats.kstest(coordinate[:, j], law.cdf).pvalue > 1e-3 for j in range(min(dim, 3)))
        assert abs(stats.spearmanr(radius.numpy(), coordinate[:, 0]).statistic) < 0.06
        assert abs(stats.spearmanr(coordinate[:, 0], coordinate[:, 1]).statistic) < 0.06
    else:
        assert abs((coordinate > 0.5).mean() - 0.5) < 0.03


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_start_is_uniform_in_the_linf_ball(dtype):
    delta = starts(math.inf, 5, 4000, 0.25, dtype).numpy()
    assert abs(delta).max() <= 1 + 1e-6
    assert all(stats.kstest(delta[:, j], stats.uniform(-1, 2).cdf).pvalue > 1e-3 for j in range(5))
    assert abs(stats.spearmanr(delta).statistic - torch.eye(5).numpy()).max() < 0.06


@pytest.mark.parametrize("norm", NORMS)
def test_the_scale_of_the_gradient_has_no_effect(net, x, labels, norm):
    """The L2 step has its length also where the square of the gradient vanishes in float32."""
    net, x = net.float(), 0.3 + 0.4 * x.float()
    attack = PGD(norm=norm, eps=0.2, step=0.05, steps=1, random_start=False, early_stop=False)
    tiny = attack(lambda images: net(images) * 1e-25, x, labels)
    length = torch.linalg.vector_norm((tiny.point - x).flatten(1), norm, dim=1)
    torch.testing.assert_close(length, torch.full((16,), 0.05), rtol=1e-4, atol=0)


@pytest.mark.parametrize("norm", NORMS)
def test_a_flat_loss_moves_nothing(x, norm):
    def flat(images):
        return torch.zeros(images.shape[0], 2, dtype=images.dtype) + 0 * images.sum() + torch.tensor([1.0, 0.0])

    found = PGD(norm=norm, steps=3, random_start=False)(flat, x, torch.zeros(16, dtype=torch.int64))
    assert torch.equal(found.point, x) and (found.gap > 0).all() and (found.evaluations == 4).all()


def test_published_defaults():
    inf, two = PGD(), PGD(norm=2)
    assert (inf.norm, inf.steps, inf.random_start, inf.early_stop, two.steps) == (math.inf, 40, True, False, 40)
    assert inf.sizes(1.0) == pytest.approx((0.3, 0.01), rel=1e-12)
    assert two.sizes(1.0) == pytest.approx((3.0, 2.5 * 3 / 40), rel=1e-12)
    assert PGD(norm=2, eps=1.0, steps=10).sizes(7.0) == pytest.approx((1.0, 0.25))
    assert PGD(eps=0.6).sizes(7.0) == pytest.approx((0.6, 0.02))
    assert PGD(step=0.5).sizes(2.0) == pytest.approx((0.6, 0.5))
    assert inf.published and two.published and PGD(eps=0.3).published
    assert not any(attack.published for attack in (PGD(early_stop=True), PGD(eps=0.31), PGD(step=0.1), PGD(steps=9)))


@pytest.mark.parametrize("norm", NORMS)
def test_default_sizes_follow_the_boxs_width(net, x, labels, norm):
    found = PGD(norm=norm)(net, x, labels, key=5)
    wide = PGD(norm=norm)(lambda images: net(images / 256), 256 * x, labels, key=5, bounds=(0.0, 256.0))
    torch.testing.assert_close(wide.point / 256, found.point, rtol=1e-9, atol=1e-11)
    # without bounds a value counts as 1 wide
    free = PGD(norm=norm, random_start=False)(net, x, labels, bounds=(-math.inf, math.inf))
    assert torch.equal(
        free.point,
        PGD(norm=norm, random_start=False, eps={2: 3.0, math.inf: 0.3}[norm])(net, x, labels, bounds=(-1e9, 1e9)).point,
    )


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"norm": 1}, "norm: expected 2 or inf, got 1"),
        ({"norm": 3}, "norm: expected"),
        ({"norm": "l2"}, "norm: expected"),
        ({"eps": 0}, "eps: "),
        ({"eps": -0.1}, "eps: "),
        ({"eps": math.nan}, "eps: "),
        ({"eps": math.inf}, "eps: "),
        ({"steps": 0}, "steps: expected an integer above 0, got 0"),
        ({"steps": 1.5}, "steps: "),
        ({"steps": True}, "steps: "),
        ({"step": 0.0}, "step: "),
        ({"step": -1.0}, "step: "),
    ],
)
def test_wrong_settings(arguments, match):
    with pytest.raises(ValueError, match=match):
        PGD(**arguments)
