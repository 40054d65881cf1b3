"""The shrinking ball: closed forms, invariances and the passes that it counts."""

import math

import pytest
import torch
from torch import nn

import robustperf as rp
from python_tests.attacks.test_bg import linear, normals
from robustperf import ops
from robustperf.attacks import ShrinkingBall
from robustperf.attacks.named import fast, strong
from robustperf.attacks.shrinking_ball import _direction

NORMS = [1, 2, math.inf]
ALL = pytest.mark.parametrize("norm", NORMS)
PRESETS = pytest.mark.parametrize("preset", [fast, strong])


def margins_of(model, x, attack, norm, **arguments):
    return rp.margins(model, x, attacks=attack, norm=norm, tol=2.0**-40, **arguments).distance


def dual(w, norm):
    return torch.linalg.vector_norm(w, {1: math.inf, 2: 2, math.inf: 1}[norm], dim=-1)


@ALL
@pytest.mark.parametrize("preset", ["fast", "strong"])
def test_linear_models_get_the_exact_margin_without_a_box(norm, preset):
    model, x = linear(normals(5, 20, seed=0), normals(5, seed=1)), normals(30, 20, seed=2)
    logits = model(x).detach()
    top, y = logits.max(1)
    w = model.weight[y][:, None] - model.weight  # [B, C, D]
    truth = ((top[:, None] - logits) / dual(w, norm)).detach().scatter(1, y[:, None], math.inf).amin(1)
    found = margins_of(model, x, preset, norm, bounds=(-math.inf, math.inf))
    torch.testing.assert_close(found, truth, rtol=1e-6, atol=0)


@ALL
@pytest.mark.parametrize("preset", ["fast", "strong"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_linear_models_get_the_exact_margin_in_the_box(norm, preset, dtype):
    """Against the nearest of the exact projections onto all classes' halfspaces; for most the box is active."""
    model = linear(normals(4, 20, seed=3), normals(4, seed=4)).to(dtype)
    x = torch.rand(30, 20, dtype=dtype, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        logits = model(x).double()
        top, y = logits.max(1)
        lengths, at_edge = [], 0
        for j in range(4):
            w = (model.weight[j] - model.weight[y]).double()
            delta, feasible = ops.halfspace_box_projection(x.double(), w, top - logits[:, j], norm=norm)
            moved = x.double() + delta
            at_edge += int(((moved == 0) | (moved == 1)).any(1).sum())
            lengths.append(torch.linalg.vector_norm(delta, norm, dim=1).where(feasible & (y != j), math.inf))
    truth = torch.stack(lengths).amin(0)
    assert at_edge > 15
    found = margins_of(model, x, preset, norm)
    tolerance = {"rtol": 1e-6, "atol": 0} if dtype == torch.float64 else {"rtol": 1e-4, "atol": 1e-5}
    torch.testing.assert_close(found, truth, **tolerance)


@pytest.mark.parametrize("bounds", [(-9.0, 9.0), (-9.0, 0.6)], ids=["wide", "at the edge"])
def test_the_edge_where_two_halfspaces_meet(bounds):
    """Label 1 needs both u > 1 and v > 1 for u and v at an angle: the nearest point lies on the edge between them."""

    def model(x):
        return torch.stack([torch.maximum(1 - x[:, 0] - 0.5 * x[:, 1], 1 - x[:, 1] - 0.5 * x[:, 0]), 0 * x[:, 0]], 1)

    x = torch.stack([0.3 * normals(20, seed=6), 0.3 * normals(20, seed=7), torch.zeros(20).double()], 1).clamp(-1, 0.5)
    # x0 + x1 / 2 >= 1 and x1 + x0 / 2 >= 1: the nearest is one of the two projections, where feasible, or (2/3, 2/3)
    normal = torch.tensor([[1.0, 0.5], [0.5, 1.0]], dtype=torch.float64)
    corner = torch.full((2,), 2 / 3, dtype=torch.float64)
    if bounds[1] < 2 / 3:  # the corner is out of the box, and so is all beyond it
        found = rp.margins(model, x, attacks="fast", bounds=bounds)
        assert found.distance.isinf().all() and found.diagnostics.missing == 20
        return
    plane = x[:, :2]
    truth = (plane - corner).norm(dim=1)
    for w in normal:
        foot = plane + ((1 - plane @ w) / w.square().sum())[:, None] * w
        inside = (foot @ normal.T >= 1 - 1e-12).all(1)
        truth = torch.where(inside, torch.minimum(truth, (foot - plane).norm(dim=1)), truth)
    found = margins_of(model, x, "fast", 2, bounds=bounds)
    assert (found >= truth * (1 - 1e-9)).all()
    torch.testing.assert_close(found, truth, rtol=5e-3, atol=0)


@pytest.mark.parametrize("preset", ["fast", "strong"])
@pytest.mark.parametrize("upper", [9.0, 1.2])
def test_an_annulus(preset, upper):
    """Label 0 between the circles of radius 1 and 2. A box that ends at 1.2 leaves the outer circle to the corners."""

    def model(x):
        r = x.norm(dim=1)
        return torch.stack([torch.minimum(r - 1, 2 - r), 0 * r], 1)

    angle = torch.linspace(0, 6.2, 24, dtype=torch.float64)
    r = torch.linspace(1.1, 1.4, 24, dtype=torch.float64)
    x = torch.stack([r * angle.cos(), r * angle.sin()], 1).clamp(-upper, upper)
    x = x[x.norm(dim=1) < 1.45]
    r = x.norm(dim=1)
    found = margins_of(model, x, preset, 2, bounds=(-upper, upper))
    torch.testing.assert_close(found, r - 1, rtol=1e-4, atol=0)


def network(classes=5, dim=25, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Flatten(), nn.Linear(dim, 16), nn.Tanh(), nn.Linear(16, classes)).double()
    with torch.no_grad():
        net[1].weight.mul_(3)
    return net.eval().requires_grad_(False)


def images(count=8, dtype=torch.float64, seed=3):
    return torch.rand(count, 1, 5, 5, dtype=dtype, generator=torch.Generator().manual_seed(seed))


@ALL
@pytest.mark.parametrize("scale", [2.0**-20, 2.0**20])  # powers of two scale without rounding
def test_the_scale_of_the_logits_does_not_matter(norm, scale):
    net, x = network(), images()
    attack = ShrinkingBall(norm, steps=20, targets=1, restarts=1, final_steps=10)
    y = net(x).argmax(1)
    expected, found = attack(net, x, y), attack(lambda images: net(images) * scale, x, y)
    assert (expected.gap < 0).all()
    torch.testing.assert_close(found.point, expected.point, rtol=1e-6, atol=1e-8)


@ALL
@pytest.mark.parametrize("scale", [2.0**-10, 256.0])
def test_the_unit_of_the_pixels_does_not_matter(norm, scale):
    net, x = network(), images()
    attack = ShrinkingBall(norm, steps=20, targets=1, restarts=1, final_steps=10)
    y = net(x).argmax(1)
    expected = attack(net, x, y)
    found = attack(lambda images: net(images / scale), x * scale, y, bounds=(0.0, scale))
    torch.testing.assert_close(found.point / scale, expected.point, rtol=1e-6, atol=1e-8)


@ALL
def test_a_point_s_result_does_not_depend_on_its_batch(norm):
    net, x = network(), images()

    def model(images):  # one at a time: a product of matrices rounds as its size wants
        return torch.cat([net(image[None]) for image in images])

    attack = ShrinkingBall(norm, steps=12, targets=1, restarts=2, finalists=2, final_steps=6)
    y, index = model(x).argmax(1), torch.arange(8)
    together = attack(model, x, y, key=5)
    for rows in index.split(3):
        alone = attack(model, x[rows], y[rows], key=5, index=rows)
        torch.testing.assert_close(alone.point, together.point[rows], rtol=1e-9, atol=1e-10)
        assert torch.equal(alone.evaluations, together.evaluations[rows])


def test_restarts_draw_under_the_key():
    net, x = network(), images(32)
    y, attack = net(x).argmax(1), ShrinkingBall(steps=4, restarts=2, refinements=0)
    first, same, other = (attack(net, x, y, key=key).point for key in (1, 1, 2))
    assert torch.equal(first, same) and not torch.equal(first, other)


@ALL
@PRESETS
@pytest.mark.parametrize("classes", [2, 3, 10, 1000])
def test_the_presets_keep_their_budget(norm, preset, classes):
    """Counted by the model itself; the gradients of J classes are J backward passes."""
    (attack,) = preset(norm)
    net, x = network(classes), images(2)
    forward = []
    backward = []

    def model(images):
        forward.append(len(images))
        logits = net(images)
        if logits.requires_grad:
            logits.register_hook(lambda gradient: backward.append(gradient.numel() // classes))
        return logits

    found = attack(model, x, net(x).argmax(1))
    limit = 100 if preset is fast else 300
    assert int(found.evaluations.sum()) == sum(forward)
    assert (found.evaluations <= limit).all() and (found.backward <= limit).all()
    assert (found.evaluations > 0.8 * limit).all()
    assert int(found.backward.sum()) >= sum(backward)
    assert (found.gap < 0).all() and not found.flat.any()


@ALL
@PRESETS
def test_a_constant_model_costs_one_pass(norm, preset):
    (attack,) = preset(norm)
    x = images()
    bias = torch.tensor([1.0, 0.0, 0.5], dtype=torch.float64)
    found = attack(lambda images: 0 * images.flatten(1)[:, :3] + bias, x, torch.zeros(8, dtype=torch.int64))
    assert (found.gap > 0).all() and found.flat.all()
    assert found.evaluations.tolist() == [1] * 8 and found.backward.tolist() == [1] * 8
    with pytest.warns(RuntimeWarning, match="no adversarial example was found for 100.00%"):
        assert rp.margins(lambda images: 0 * images.flatten(1)[:, :3] + bias, x, norm=norm).distance.isinf().all()


@ALL
def test_only_points_with_a_gradient_are_pursued(norm):
    """A model that is constant on images whose first pixel is dark."""
    net, x = network(), images()
    x[::2, 0, 0, 0], x[1::2, 0, 0, 0] = 0.0, 1.0
    dark = torch.eye(5, dtype=torch.float64)[0]

    def model(images):
        return torch.where(images[:, 0, 0, :1] > 0.5, net(images), dark + 0 * net(images))

    found = ShrinkingBall(norm, steps=10)(model, x, model(x).argmax(1))
    assert found.flat.tolist() == [True, False] * 4
    assert (found.evaluations[::2] == 1).all() and (found.backward[::2] == 1).all()
    assert (found.evaluations[1::2] > 10).all() and (found.gap[1::2] < 0).all()


@ALL
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_a_plateau_on_the_way_is_no_fault(norm, dtype):
    """The gap falls to 0.1 and stays there: no gradient to follow, no crossing, and no point that is not finite."""

    def model(images):
        return torch.stack([(1 - images.sum(1)).clamp_min(0.1), 0 * images[:, 0]], 1)

    x = torch.tensor([[0.1, 0.2, 0.0], [0.0, 0.0, 0.3]], dtype=dtype)
    for bounds in ((0.0, 1.0), (-math.inf, math.inf)):
        found = ShrinkingBall(norm, steps=10, targets=1)(model, x, torch.tensor([0, 0]), bounds=bounds)
        assert found.point.isfinite().all() and (found.gap > 0).all() and found.flat.all()
        assert (found.evaluations > 10).all()


@ALL
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_models_in_half_precision(norm, dtype):
    """Their margins are those of the network in float64, but for what counts as a change of the label in halves, which
    small margins feel more."""
    net, x = network(), images(dtype=torch.float32)
    half = network().to(dtype)
    found = rp.margins(lambda images: half(images.to(dtype)), x, norm=norm)
    expected = rp.margins(net, x.double(), norm=norm).distance
    assert found.found.all() and (found.distance > 0.9 * expected).all()
    large = expected >= expected.median()
    tolerance = 0.05 if dtype == torch.float16 else 0.3
    torch.testing.assert_close(found.distance[large], expected[large], rtol=tolerance, atol=0)


@ALL
def test_targets_reach_the_class_that_is_nearest_and_not_the_runner_up(norm):
    """Three classes: the runner-up by logits is far away, for its gradient is small."""

    def model(x):
        return torch.stack([0 * x[:, 0], 0.1 * x[:, 0] - 0.05, 10 * x[:, 1] - 1.0], 1)

    x = torch.zeros(4, 2, dtype=torch.float64)
    found = margins_of(model, x, "fast", norm, bounds=(-1, 1))
    torch.testing.assert_close(found, torch.full((4,), 0.1, dtype=torch.float64), rtol=1e-6, atol=0)


@ALL
def test_finals_bring_the_nearest_runs_nearer(norm):
    """The finals never lose what the runs have found, and improve it for most."""
    net, x = network(), images(32)
    y = net(x).argmax(1)
    distances = []
    for finalists in (0, 1, 3):
        attack = ShrinkingBall(norm, steps=8, restarts=1, finalists=finalists, final_steps=20, refinements=0)
        found = attack(net, x, y)
        assert (found.gap < 0).all()
        distances.append(torch.linalg.vector_norm((found.point - x).flatten(1), norm, dim=1))
    without, one, three = distances
    assert (one <= without * (1 + 1e-9)).all() and (one < 0.999 * without).sum() > 16
    assert (three <= one * (1 + 1e-9)).all()


def test_steps_in_l1_are_sparse():
    gradient = torch.tensor([[1.0, -4.0, 3.0, 0.5], [1e-30, -4e-30, 3e-30, 5e-31], [0.0, 0.0, 0.0, 0.0]])
    delta = torch.tensor([[0.1, 0.2, 0.0, 0.0], [0.1, 0.2, 0.3, 0.4], [0.1, 0.2, 0.3, 0.4]])
    found = _direction(gradient, delta, 1)
    expected = [[0, -1, 0, 0], [0, -4 / 7, 3 / 7, 0], [0, 0, 0, 0]]  # half as many as have changed
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float32))


def test_the_best_point_of_earlier_attacks_is_refined():
    """One short run that hardly matters: the refinement starts from what BG has found."""
    net, x = network(), images(32)
    alone = rp.margins(net, x, attacks="bg")
    few = {"steps": 2, "targets": 0, "finalists": 0, "refinements": 3}
    refined = rp.margins(net, x, attacks=["bg", ShrinkingBall(**few)])
    by_hand = rp.margins(net, x, attacks=[ShrinkingBall(**few)])
    assert (refined.distance <= alone.distance * (1 + 1e-6)).all()
    assert refined.distance.sum() < alone.distance.sum() and refined.distance.sum() < by_hand.distance.sum()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"norm": 3}, "norm: expected 1, 2 or inf"),
        ({"steps": 1}, "steps: expected an integer >= 2"),
        ({"targets": -1}, "targets: expected an integer >= 0"),
        ({"restarts": 0.5}, "restarts: expected an integer"),
        ({"finalists": -1}, "finalists: expected an integer >= 0"),
        ({"final_steps": 1}, "final_steps: expected an integer >= 2"),
        ({"refinements": -1}, "refinements: expected an integer >= 0"),
        ({"classes": 0}, "classes: expected"),
    ],
    ids=str,
)
def test_arguments(arguments, message):
    with pytest.raises((TypeError, ValueError), match=message):
        ShrinkingBall(**arguments)
