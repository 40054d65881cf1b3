"""BG: the exact projection on linear classifiers, and the closest crossing plan of all on others."""

import math

import pytest
import torch
from torch import nn

from robustperf import ops
from robustperf.attacks import BG
from robustperf.attacks.losses import logit_gradients

NORMS = [1, 2, math.inf]
WIDE = (-1e3, 1e3)


def linear(weight, bias=None):
    model = nn.Linear(weight.shape[1], weight.shape[0], dtype=torch.float64)
    with torch.no_grad():
        model.weight.copy_(weight)
        model.bias.copy_(torch.zeros(weight.shape[0]) if bias is None else bias)
    return model


def normals(*shape, seed):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def free_step(w, c, norm):
    """The smallest δ with ⟨w, δ⟩ = c, without a box."""
    if norm == 2:
        return c * w / w.square().sum()
    if norm == math.inf:
        return c * w.sign() / w.abs().sum()
    step, k = torch.zeros_like(w), w.abs().argmax()
    step[k] = c / w[k]
    return step


def mlp(seed=0, classes=4, dtype=torch.float64):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(9, 12), nn.Tanh(), nn.Linear(12, classes)).to(dtype)


def images(count=24, dtype=torch.float64):
    return torch.rand(count, 1, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).to(dtype)


def test_logit_gradients_against_central_differences():
    net, x = mlp(), images(5)
    logits, gradients = logit_gradients(net, x)
    assert gradients.shape == (5, 4, 9) and not gradients.requires_grad and not logits.requires_grad
    torch.testing.assert_close(logits, net(x).detach())
    h = 1e-6
    for i in range(9):
        nudge = torch.zeros(9, dtype=torch.float64)
        nudge[i] = h
        nudge = nudge.view(1, 3, 3)
        with torch.no_grad():
            slope = (net(x + nudge) - net(x - nudge)) / (2 * h)
        torch.testing.assert_close(gradients[:, :, i], slope, rtol=1e-6, atol=1e-9)


class DataDependent(torch.autograd.Function):
    """A square whose backward pass depends on the values, which vmap does not support."""

    calls = 0

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.square()

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        scale = float(gradient.detach().abs().max().item())
        DataDependent.calls += 1
        return gradient * 2 * x if scale > 0 else torch.zeros_like(x)


def test_logit_gradients_of_a_model_that_vmap_cannot_handle():
    net, x = mlp(), images(5)

    def difficult(images):
        return net(DataDependent.apply(images))

    sample = x.clone().requires_grad_()
    with pytest.raises(RuntimeError):  # so that this test covers the fallback
        torch.autograd.grad(difficult(sample), sample, torch.ones(4, 5, 4, dtype=torch.float64), is_grads_batched=True)
    before = DataDependent.calls
    logits, gradients = logit_gradients(difficult, x)
    assert DataDependent.calls == before + 4
    plain_logits, plain = logit_gradients(lambda images: net(images.square()), x)
    torch.testing.assert_close(logits, plain_logits)
    torch.testing.assert_close(gradients, plain, rtol=1e-12, atol=1e-14)
    assert gradients.shape == (5, 4, 9)
    found = BG()(difficult, x, logits.argmax(1))
    torch.testing.assert_close(found.point, BG()(lambda images: net(images.square()), x, logits.argmax(1)).point)


def test_an_error_of_the_models_own_is_not_hidden_by_the_fallback():
    def detached(images):
        return images.detach().flatten(1)[:, :3]

    with pytest.raises(RuntimeError, match="grad"):
        BG()(detached, images(2), torch.tensor([0, 1]))


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("scale", [1.2, 1.0001, 2.0])
def test_linear_classifiers(norm, classes, scale):
    """The exact projection onto the nearest boundary, and a little beyond."""
    model, x = linear(normals(classes, 7, seed=0), normals(classes, seed=1)), normals(30, 7, seed=2)
    logits = model(x).detach()
    labels = logits.argmax(1)
    found = BG(norm=norm, overshoot=(scale,))(model, x, labels, bounds=WIDE)
    for row in range(30):
        y = labels[row]
        steps = [
            free_step(model.weight[j].detach() - model.weight[y].detach(), logits[row, y] - logits[row, j], norm)
            for j in range(classes)
            if j != y
        ]
        nearest = min(steps, key=lambda step: torch.linalg.vector_norm(step, norm).item())
        torch.testing.assert_close(found.point[row] - x[row], scale * nearest, rtol=1e-9, atol=1e-10)
    assert (found.gap < 0).all() and (found.evaluations == 2).all()


@pytest.mark.parametrize("norm", NORMS)
def test_linear_classifier_in_an_active_box(norm):
    """Two classes: the point is the projection for the gap scaled by the overshoot, the box included."""
    w = torch.tensor([4.0, -2.0, 1.0, 0.5], dtype=torch.float64)
    x = torch.tensor([[0.5, 0.5, 0.5, 0.5]], dtype=torch.float64)

    def move(gap):  # from x in the direction of each weight, which has 0.5 of room
        model = linear(torch.stack([torch.zeros_like(w), w]), torch.tensor([gap, -1.75], dtype=torch.float64))
        return (BG(norm=norm, overshoot=(1.2, 1.35))(model, x, torch.tensor([0])).point[0] - x[0]) * w.sign()

    # by hand: the moves times the weights 4, 2, 1, 0.5 add up to 1.2 gap
    near = {1: [0.45, 0, 0, 0], 2: [4 * 1.8 / 21.25, 2 * 1.8 / 21.25, 1.8 / 21.25, 0.9 / 21.25], math.inf: [0.24] * 4}
    far = {1: [0.5, 0.5, 0.48, 0], 2: [0.5, 0.5, 0.48 / 1.25, 0.24 / 1.25], math.inf: [3.48 / 7.5] * 4}
    torch.testing.assert_close(move(1.5), torch.tensor(near[norm], dtype=torch.float64), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(move(2.9), torch.tensor(far[norm], dtype=torch.float64), rtol=1e-9, atol=1e-12)


def test_one_class_is_the_runner_up_even_if_another_is_closer():
    # at x = 0: logits (3, 2, 0); class 1 is the runner-up, 1 / 0.5 = 2 away; class 2 is 3 / 10 away
    model = linear(torch.tensor([[0.0, 0.0], [0.5, 0.0], [0.0, 10.0]]), torch.tensor([3.0, 2.0, 0.0]))
    x, labels = torch.zeros(1, 2, dtype=torch.float64), torch.tensor([0])
    runner_up = BG(classes=1, overshoot=(1.2,))(model, x, labels, bounds=WIDE)
    assert runner_up.point[0].tolist() == pytest.approx([2.4, 0.0])
    for classes in (2, 3, 50, None):
        found = BG(classes=classes, overshoot=(1.2,))(model, x, labels, bounds=WIDE)
        assert found.point[0].tolist() == pytest.approx([0.0, 0.36])


def all_plans(net, x, labels, attack, bounds):
    """Every (class, scale): steps [B, J, S, D] and which of them cross [B, J, S], class by class."""
    x0 = x.clone().requires_grad_()
    logits = net(x0)
    gradients = torch.stack(
        [torch.autograd.grad(logits[:, j].sum(), x0, retain_graph=True)[0].flatten(1) for j in range(logits.shape[1])],
        1,
    )
    rows = torch.arange(len(x))
    steps, crossing = [], []
    for other in range(1, logits.shape[1]):
        j = (labels + other) % logits.shape[1]
        w = gradients[rows, j] - gradients[rows, labels]
        c = (logits[rows, labels] - logits[rows, j]).detach()
        for scale in attack.overshoot:
            step, _ = ops.halfspace_box_projection(
                x.flatten(1), w, c * scale, norm=attack.norm, lower=bounds[0], upper=bounds[1], backend="reference"
            )
            steps.append(step)
            with torch.no_grad():
                crossing.append(net((x.flatten(1) + step).view_as(x).clamp(*bounds)).argmax(1) != labels)
    return torch.stack(steps, 1), torch.stack(crossing, 1)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("bounds", [(0.0, 1.0), (-2.0, 3.0)])
@pytest.mark.parametrize("overshoot", [(1.2, 1.35, 1.5, 1.7), (1.05,), (1.5, 1.1)])
def test_the_closest_of_all_crossing_plans(norm, bounds, overshoot):
    smooth, x = mlp(seed=3), images()

    def net(images):  # far from linear
        return smooth(images + 0.3 * (7 * images).sin())

    labels = net(x).argmax(1)
    attack = BG(norm=norm, overshoot=overshoot)
    found = attack(net, x, labels, bounds=bounds)
    steps, crossing = all_plans(net, x, labels, attack, bounds)
    length = torch.linalg.vector_norm(steps, norm, dim=2)
    best = length.masked_fill(~crossing, math.inf).amin(1)
    reached = torch.linalg.vector_norm((found.point - x).flatten(1), norm, dim=1)
    some = best.isfinite()
    assert some.any() and torch.equal(found.gap < 0, some)
    torch.testing.assert_close(reached[some], best[some], rtol=1e-9, atol=1e-11)
    # where no plan crosses, all were tried
    assert (found.evaluations[~some] == 1 + 3 * len(overshoot)).all()
    # as many evaluations as there are plans up to the first that crosses
    shorter = (length < best[:, None] * (1 - 1e-9)).sum(1)
    assert (found.evaluations[some] == 2 + shorter[some]).float().mean() > 0.9
    if norm == 2 and len(overshoot) == 4:
        assert len(found.evaluations.unique()) > 2  # otherwise this network is too easy for the test


@pytest.mark.parametrize("norm", NORMS)
def test_the_exact_step_first(norm):
    """The nearest class's step of scale 1 where it crosses, otherwise one of the longer plans where any crosses."""
    smooth, x = mlp(seed=3), images(60)

    def net(images):
        return smooth(images + 0.1 * (7 * images).sin())

    labels, attack = net(x).argmax(1), BG(norm=norm)
    found = attack(net, x, labels)
    steps, _ = all_plans(net, x, labels, BG(norm=norm, overshoot=(1 + 1e-13,)), (0.0, 1.0))
    nearest = steps[torch.arange(60), torch.linalg.vector_norm(steps, norm, dim=2).argmin(1)]
    exact = (net((x.flatten(1) + nearest).view_as(x).clamp(0, 1)).argmax(1) != labels) & (found.evaluations == 2)
    torch.testing.assert_close((found.point - x)[exact].flatten(1), nearest[exact], rtol=1e-9, atol=1e-10)
    steps, crossing = all_plans(net, x, labels, BG(norm=norm, overshoot=(1.25, 1.6)), (0.0, 1.0))
    assert torch.equal(found.gap < 0, crossing.any(1) | exact) and exact.sum() > 5 and (~exact).sum() > 5
    # a plan that the secant puts off is tried last: none is lost, and the step is a plan's own
    some = (found.gap < 0) & ~exact
    away = ((found.point - x).flatten(1)[:, None] - steps).abs().amax(2).masked_fill(~crossing, math.inf).amin(1)
    assert (away[some] < 1e-9).all()
    without = BG(norm=norm, overshoot=(1.25, 1.6))(net, x, labels)
    assert torch.equal(without.gap < 0, crossing.any(1))


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_scaled_down_network_gives_the_same_points(norm, dtype):
    net, x = mlp(dtype=dtype), images(dtype=dtype)
    labels = net(x).argmax(1)
    found = BG(norm=norm)(net, x, labels)
    tolerance = 1e-4 if dtype == torch.float32 else 1e-10
    for scale in (1e-9, 1e9):
        scaled = BG(norm=norm)(lambda images, scale=scale: net(images) * scale, x, labels)
        torch.testing.assert_close(scaled.point, found.point, rtol=0, atol=tolerance)
        assert torch.equal(scaled.gap < 0, found.gap < 0)
    exact = BG(norm=norm)(lambda images: net(images) * 2.0**-30, x, labels)
    torch.testing.assert_close(exact.point, found.point, rtol=0, atol=1e-6 if dtype == torch.float32 else 1e-13)


@pytest.mark.parametrize("norm", NORMS)
def test_more_steps_are_never_worse_and_help_where_the_network_bends(norm):
    net, x = mlp(seed=3), images()
    with torch.no_grad():
        net[1].weight.mul_(4)
    labels = net(x).argmax(1)
    found = [BG(norm=norm, overshoot=(1.01, 1.3, 1.7), steps=steps)(net, x, labels) for steps in (1, 2, 4)]
    length = torch.stack(
        [torch.linalg.vector_norm((f.point - x).flatten(1), norm, dim=1).where(f.gap < 0, math.inf) for f in found]
    )
    assert (length[1] <= length[0]).all() and (length[2] <= length[1]).all() and (length[2] < length[0] - 1e-6).any()
    assert (found[2].evaluations > found[1].evaluations).all()
    for f in found:
        torch.testing.assert_close(f.gap, ops.logit_gap(net(f.point).detach(), labels), rtol=1e-9, atol=1e-11)
        assert f.point.min() >= 0 and f.point.max() <= 1


@pytest.mark.parametrize("norm", NORMS)
def test_more_steps_change_nothing_on_a_linear_classifier(norm):
    """Linearised at the point found, the classifier is the same: so is the projection of x."""
    model, x = linear(normals(4, 7, seed=0), normals(4, seed=1)), normals(20, 7, seed=2)
    labels = model(x).argmax(1)
    one, three = (BG(norm=norm, steps=steps)(model, x, labels, bounds=WIDE) for steps in (1, 3))
    torch.testing.assert_close(three.point, one.point, rtol=1e-9, atol=1e-9)
    assert (three.evaluations == 3 * one.evaluations).all()


def test_nan_logits_at_a_plan_do_not_end_the_search():
    """The logits at the nearest plan are NaN; the next one crosses."""
    inner = linear(torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 1.0]]), torch.tensor([1.0, 0.0, 0.0]))

    def model(images):  # class 1 is reached at 0.6 along the first axis, where its logits are NaN
        logits = inner(images)
        return torch.where(images[:, :1] > 0.3, math.nan, logits)

    x, labels = torch.zeros(1, 2, dtype=torch.float64), torch.tensor([0])
    found = BG(overshoot=(1.2,))(model, x, labels, bounds=(-2.0, 2.0))
    assert found.point[0].tolist() == pytest.approx([0.0, 1.2]) and found.gap.item() < 0


def test_published_defaults():
    attack = BG()
    assert (attack.norm, attack.overshoot, attack.classes) == (2.0, (1.0, 1.25, 1.6), None)
    assert attack.steps == 1


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"norm": 3}, "norm: expected 1, 2 or inf, got 3"),
        ({"overshoot": ()}, "overshoot: expected at least one scale, got none"),
        ({"overshoot": (0.9,)}, "overshoot: expected a finite number >= 1, got 0.9"),
        ({"overshoot": (1.2, math.inf)}, "overshoot: "),
        ({"overshoot": (1.2, math.nan)}, "overshoot: "),
        ({"classes": 0}, "classes: expected an integer above 0, got 0"),
        ({"classes": 1.0}, "classes: "),
        ({"steps": 0}, "steps: expected an integer above 0, got 0"),
        ({"steps": 1.5}, "steps: "),
    ],
)
def test_wrong_settings(arguments, match):
    with pytest.raises(ValueError, match=match):
        BG(**arguments)
