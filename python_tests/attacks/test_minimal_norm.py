"""The attacks that look for the nearest crossing, against margins in closed form, and what holds for all of them."""

import copy
import math

import pytest
import torch

from python_tests.attacks.conftest import ATTACKS
from python_tests.attacks.minimal_norm import MINIMAL, distance, linear_margin, linear_problem, norm_of
from robustperf import margins
from robustperf.attacks import APGD, DDN, FAB, FMN, PDPGD, Nearest, Problem, SigmaZero, Square, SuperDeepFool


@pytest.fixture(params=MINIMAL.values(), ids=MINIMAL.keys())
def minimal(request):
    return request.param


@pytest.mark.parametrize(("classes", "average"), [(2, 1.1), (4, 1.15)])
def test_linear_models_without_an_active_box(minimal, classes, average):
    """In a box wide enough the margin is that of the hyperplanes. With two classes there is one; with four an attack
    on the runner-up may end at a class that is not the nearest."""
    model, x, labels = linear_problem(classes)
    norm, bounds = norm_of(minimal), (-1.0, 2.0)
    exact = linear_margin(model, x, labels, norm, (-math.inf, math.inf))
    torch.testing.assert_close(exact, linear_margin(model, x, labels, norm, bounds))
    ratio = distance(minimal(model, x, labels, bounds=bounds), x, norm) / exact
    assert ratio.min() > 1 - 1e-6 and ratio.mean() < average
    if classes == 2 and not isinstance(minimal, PDPGD):
        assert ratio.max() < 1.03


def test_linear_models_in_an_active_box(minimal):
    model, x, labels = linear_problem()
    norm, bounds = norm_of(minimal), (0.2, 0.8)
    x = x.clamp(*bounds)
    labels = model(x).argmax(1)
    exact, free = (linear_margin(model, x, labels, norm, box) for box in (bounds, (-math.inf, math.inf)))
    assert (exact > 1.02 * free).float().mean() > 0.15
    ratio = distance(minimal(model, x, labels, bounds=bounds), x, norm) / exact
    assert ratio.min() > 1 - 1e-6 and ratio.median() < 1.1 and ratio.mean() < 1.2


@pytest.mark.parametrize("name", [name for name, attack in MINIMAL.items() if norm_of(attack) == 2])
def test_an_annulus(name):
    """Label 1 in the shell between the radii 0.3 and 0.6: the nearer of two spheres is the boundary. DDN's first sphere
    is as wide as the box, and it may stay beyond the farther of the two."""
    generator = torch.Generator().manual_seed(4)
    direction = torch.randn(12, 6, dtype=torch.float64, generator=generator)
    radius = torch.tensor([0.32, 0.36, 0.4, 0.42, 0.48, 0.5, 0.52, 0.54, 0.56, 0.58, 0.34, 0.59], dtype=torch.float64)
    x = radius[:, None] * direction / direction.norm(dim=1, keepdim=True)

    def shell(images):
        r = images.norm(dim=1)
        return torch.stack([torch.zeros_like(r), (r - 0.3) * (0.6 - r)], 1)

    labels, bounds = torch.ones(12, dtype=torch.int64), (-1.0, 1.0)
    found = margins(shell, x, labels=labels, attacks=MINIMAL[name], bounds=bounds).distance
    ratio = found / torch.minimum(radius - 0.3, 0.6 - radius)
    assert ratio.min() > 1 - 1e-6 and (ratio.median() if name == "ddn" else ratio.mean()) < 1.02


def test_the_nearest_crossing_of_all_evaluated_points_is_returned(minimal, net, x):
    """The model records what it evaluates, a point at a time."""
    net.eval()
    for image in x[:2]:
        evaluated = []

        def model(images, evaluated=evaluated):
            evaluated.append(images.detach().clone())
            return net(images)

        label = net(image[None]).argmax(1)
        found = minimal(model, image[None], label)
        images = torch.cat(evaluated)
        with torch.no_grad():
            crossed = images[net(images).argmax(1) != label]
        nearest = torch.linalg.vector_norm((crossed - image).flatten(1), norm_of(minimal), dim=1).min()
        torch.testing.assert_close(distance(found, image[None], norm_of(minimal))[0], nearest, rtol=1e-9, atol=0)


def test_the_scale_of_the_logits_has_no_effect(attack, net, x, labels):
    net.eval()
    found = attack(net, x, labels)
    for scale in (2.0**-20, 2.0**20):
        scaled = attack(lambda images, scale=scale: scale * net(images), x, labels)
        torch.testing.assert_close(scaled.point, found.point, rtol=0, atol=1e-8)
        assert torch.equal(scaled.gap < 0, found.gap < 0)


@pytest.mark.parametrize("name", [name for name, attack in ATTACKS.items() if getattr(attack, "eps", None) is None])
def test_the_scale_of_the_pixels_has_no_effect(name, net, x, labels):
    attack = ATTACKS[name]
    net.eval()
    found = attack(net, x, labels)
    wide = attack(lambda images: net(images / 256), 256 * x, labels, bounds=(0.0, 256.0))
    torch.testing.assert_close(wide.point / 256, found.point, rtol=0, atol=1e-8)
    assert torch.equal(wide.evaluations, found.evaluations) and torch.equal(wide.backward, found.backward)


def test_the_batch_has_no_effect(attack, net, x, labels):
    net.eval()
    index = torch.tensor([7, 3, 40, 11, 2, 5])
    together = attack(net, x, labels, key=3, index=index)
    for part in ([2], [4, 0, 5], [5, 1]):
        apart = attack(net, x[part], labels[part], key=3, index=index[part])
        torch.testing.assert_close(apart.point, together.point[part], rtol=0, atol=1e-9)
        assert torch.equal(apart.evaluations, together.evaluations[part])
        assert torch.equal(apart.backward, together.backward[part])


RANDOM = {"apgd": APGD(steps=4, eps=0.02), "fab": FAB(steps=3, restarts=3), "square": Square(steps=5, eps=0.01)}


@pytest.mark.parametrize("random_attack", RANDOM.values(), ids=RANDOM.keys())
def test_draws_depend_on_the_key_and_the_sample_id(net, x, labels, random_attack):
    """Five images that are the same: only their sample ids tell them apart."""
    net.eval()
    same, label = x[:1].expand(5, 1, 5, 5), labels[:1].expand(5)

    def evaluated(key):
        images = []
        random_attack(lambda x: [images.append(x.detach()), net(x)][1], same, label, key=key)
        return torch.stack([image.flatten(1) for image in images if len(image) == 5])

    one, again, other = evaluated(1), evaluated(1), evaluated(2)
    apart = torch.cdist(one, one) + torch.eye(5, dtype=one.dtype)
    assert apart.amin((1, 2)).max() > 1e-4
    assert torch.equal(one, again) and not torch.equal(one, other)


COUNTS = {
    "ddn": (DDN(steps=7), 8, 7),
    "fmn": (FMN(steps=7), 8, 7),
    "fab": (FAB(steps=5), 10, 15),
    "fab-runner-up": (FAB(steps=5, classes=1), 10, 5),
    "fab-restarts": (FAB(steps=5, classes=2, restarts=2), 20, 20),
    "pdpgd": (PDPGD(steps=9), 10, 9),
    "sigma-zero": (SigmaZero(steps=9), 10, 9),
    # on balls without a crossing: one pass at x, then steps and a last point for each run
    "apgd": (APGD(steps=9, eps=1e-6), 11, 10),
    "apgd-restarts": (APGD(steps=9, eps=1e-6, restarts=2), 21, 19),
    "apgd-targets": (APGD(steps=9, eps=1e-6, targets=3), 32, 28),
    "square": (Square(steps=9, eps=1e-6), 9, 0),
}


@pytest.mark.parametrize(("attack", "forward", "backward"), COUNTS.values(), ids=COUNTS.keys())
def test_passes(net, x, labels, attack, forward, backward):
    """A backward pass of J classes counts J; other = 3 of the 4 classes."""
    found = attack(net, x, labels)
    assert found.evaluations.tolist() == [forward] * 6 and found.backward.tolist() == [backward] * 6


def test_a_constant_model_ends_early(minimal):
    """Nothing is found, and without a gradient there is nothing to evaluate again."""
    x, top = torch.full((3, 5), 0.5), torch.tensor([0.0, 1.0, 0.0])
    found = minimal(lambda images: 0 * images[:, :3] + top, x, torch.ones(3, dtype=torch.int64))
    assert (found.gap > 0).all() and found.flat.all() and (found.evaluations == 1).all()


def test_points_that_have_crossed_cost_nothing_more(attack, net, x):
    """At x their label is another; the others of the batch go on."""
    logits = copy.deepcopy(net).eval()(x)
    labels = logits.argmax(1)
    labels[[1, 4]] = logits.argmin(1)[[1, 4]]
    found = attack(net, x, labels)
    if type(attack) in (DDN, FMN, FAB, APGD, PDPGD, SigmaZero, SuperDeepFool):
        assert torch.equal(found.point[[1, 4]], x[[1, 4]]) and (found.gap[[1, 4]] < 0).all()
        assert (found.evaluations[[1, 4]] == 1).all() and (found.evaluations[[0, 2, 3, 5]] > 1).all()


def test_logits_in_half_precision(minimal, net, x, labels):
    """A model that computes in bfloat16: as near as its rounding allows."""
    net.eval()
    exact = distance(minimal(net, x, labels), x, norm_of(minimal))
    coarse = copy.deepcopy(net).bfloat16()
    images = x.float()
    label = coarse(images.bfloat16()).argmax(1)
    found = minimal(lambda images: coarse(images.bfloat16()), images, label)
    same = label == labels
    assert same.sum() > 3 and (found.gap < 0).all()
    assert distance(found, images, norm_of(minimal))[same].mean() < 1.5 * exact[same].mean()


def test_nearest_counts_changed_values_in_l0(net, x, labels):
    nearest = Nearest(Problem(net, x, labels, bounds=(0.0, 1.0), key=0, index=torch.arange(6)), 0)
    moved = x.clone()
    moved[:, 0, 0, :3] += 0.25
    nearest.offer(moved, torch.full((6,), -1.0, dtype=torch.float64))
    assert nearest.distance.tolist() == [3.0] * 6
