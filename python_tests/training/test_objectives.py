"""Each objective against a plain loop over samples and draws in float64."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch

import robustperf as rp
from python_tests.support.objectives import INDEX, KEY, Fade, X, Y, network
from robustperf import random
from robustperf.attacks import BG, FGSM, PGD
from robustperf.attacks.steps import draw_in_ball
from robustperf.nuisance import BackgroundColour, Brightness, Compose, L2Ball, Rotation
from robustperf.training import ERM, MAT, MDA, MRT, AdversarialTraining, GaussianAugmentation

SIZE = 6 * 7


class Cut(Fade):
    """No gradient in delta."""

    def transform(self, x, delta, *, backend=None):
        return super().transform(x, delta.detach())


def box(*ranges):
    lower, upper = torch.tensor(ranges, dtype=torch.float64).T
    return lambda delta: delta.maximum(lower).minimum(upper)


def ball(eps):
    return lambda delta: delta * min(1, eps / max(delta.square().sum().sqrt().item(), 1e-300))


@dataclass
class Case:
    """A kernel with what MAT needs of it, by hand: the projection onto Delta, its radii and its centre."""

    kernel: rp.Kernel
    project: Callable
    radius: list[float]
    centre: list[float]


CASES = {
    "brightness": Case(Brightness((-0.25, 0.75)), box((-0.25, 0.75)), [0.5], [0.25]),
    "rotation": Case(Rotation(32), box((-32, 32)), [32], [0]),
    "composition": Case(
        Compose([Rotation(32), Fade(), Brightness((0.25, 0.5))]),
        box((-32, 32), (0, 0.5), (0, 0.5), (0.25, 0.5)),
        [32, 1, 1, 0.125],
        [0, 0, 0, 0.375],
    ),
    "own": Case(Fade(), box((0, 0.5), (0, 0.5)), [1, 1], [0, 0]),
    "ball": Case(L2Ball(0.5), ball(0.5), [0.5] * SIZE, [0] * SIZE),
    # 0 is not in this Delta, and the images become RGB
    "background": Case(
        BackgroundColour((0.25, 0.5, 0), (0.75, 1, 0.5)),
        box((0.25, 0.75), (0.5, 1), (0, 0.5)),
        [0.25] * 3,
        [0.5, 0.75, 0.25],
    ),
}
of_one_shape = pytest.mark.parametrize(
    "case",
    [case for name, case in CASES.items() if name != "background"],
    ids=[name for name in CASES if name != "background"],
)
every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
every_k = pytest.mark.parametrize("k", [1, 3, 7])
WEIGHTS = (0, 0.5, 1)


def network_for(kernel):
    return network(kernel.shape_after((1, 6, 7))[0])


def loss_by_hand(model, image, label):
    """-log softmax(f(image))_label of one image."""
    logits = model(image[None])[0]
    return logits.exp().sum().log() - logits[label]


def mean_by_hand(model, images_of, weight):
    """mean_j [sum of the losses of images_of[j] + weight l(x^(j), y^(j))]."""
    total = 0
    for x, y, images in zip(X, Y, images_of, strict=True):
        total = total + sum(loss_by_hand(model, image, y) for image in images)
        total = total + (weight * loss_by_hand(model, x, y) if weight else 0)
    return total / len(X)


def check_equal(objective, model, images_of, weight):
    """Value and gradient in the parameters."""
    loss = objective(model, X, Y, key=KEY, index=INDEX)
    by_hand = mean_by_hand(model, images_of, weight)
    assert loss.shape == () and loss.dtype == torch.float64
    torch.testing.assert_close(loss, by_hand, rtol=1e-10, atol=0)
    parameters = list(model.parameters())
    for gradient, expected in zip(
        torch.autograd.grad(loss, parameters), torch.autograd.grad(by_hand, parameters), strict=True
    ):
        torch.testing.assert_close(gradient, expected, rtol=1e-8, atol=1e-10)


def drawn_by_hand(kernel, k):
    """[k][B] images, one call each."""
    return [
        [kernel(X[j : j + 1], kernel.sample(KEY, INDEX[j : j + 1], k, shape=X.shape[1:])[i])[0] for j in range(len(X))]
        for i in range(k)
    ]


def test_erm():
    check_equal(ERM(), network(), [[]] * 4, 1)


def worst_of_each_sample(losses):
    """[B] indices of the draws of the highest loss, from losses [k][B]."""
    return [max(range(len(losses)), key=lambda i: losses[i][j]) for j in range(len(losses[0]))]


def worst_of_the_batch(losses):
    """R Algorithm 2, lines 3 to 11."""
    max_loss, chosen = 0, None
    for i, row in enumerate(losses):
        current_loss = sum(row)
        if current_loss > max_loss:
            max_loss, chosen = current_loss, i
    return [chosen] * len(losses[0])


@every_case
@every_k
def test_mrt(case, k):
    model, drawn = network_for(case.kernel), drawn_by_hand(case.kernel, k)
    with torch.no_grad():
        losses = [[loss_by_hand(model, image, y).item() for image, y in zip(row, Y, strict=True)] for row in drawn]
    by_sample, by_batch = worst_of_each_sample(losses), worst_of_the_batch(losses)
    assert k < 7 or by_sample != by_batch  # otherwise the test could not tell them apart
    for selection, chosen in (("sample", by_sample), ("batch", by_batch)):
        images_of = [[drawn[i][j]] for j, i in enumerate(chosen)]
        for weight in WEIGHTS if drawn[0][0].shape == X[0].shape else (0,):
            for chunk in (None, 1, 2, 7):
                check_equal(MRT(case.kernel, k, weight, selection, chunk=chunk), model, images_of, weight)


@of_one_shape
@every_k
def test_mda(case, k):
    model, drawn = network(), drawn_by_hand(case.kernel, k)
    for weight in WEIGHTS:
        check_equal(MDA(case.kernel, k, weight), model, list(zip(*drawn, strict=True)), weight)


def test_mda_of_another_shape():
    kernel = CASES["background"].kernel
    check_equal(MDA(kernel, 3, 0), network(3), list(zip(*drawn_by_hand(kernel, 3), strict=True)), 0)


def ascent_by_hand(model, case, k, step):
    """R Algorithm 3, lines 3 to 7, a sample at a time: [B] lists of one image."""
    radius, images_of = torch.tensor(case.radius, dtype=torch.float64), []
    for x, y in zip(X, Y, strict=True):
        delta = torch.tensor(case.centre, dtype=torch.float64)
        for _ in range(k):
            delta = delta.requires_grad_()
            (gradient,) = torch.autograd.grad(loss_by_hand(model, case.kernel(x[None], delta[None])[0], y), delta)
            delta = case.project(delta.detach() + step * radius**2 * gradient)
        images_of.append([case.kernel(x[None], delta[None])[0]])
    return images_of


@every_case
@every_k
@pytest.mark.parametrize("step", [0.1, 4.0])
def test_mat(case, k, step):
    model = network_for(case.kernel)
    images_of = ascent_by_hand(model, case, k, step)
    for weight in WEIGHTS if images_of[0][0].shape == X[0].shape else (0,):
        check_equal(MAT(case.kernel, k, step, weight), model, images_of, weight)


def test_mat_ascends_also_without_gradients():
    model, objective = network(), MAT(Rotation(), 3)
    with torch.no_grad():
        loss = objective(model, X, Y, key=KEY, index=INDEX)
    assert not loss.requires_grad
    torch.testing.assert_close(loss, objective(model, X, Y, key=KEY, index=INDEX).detach())


def test_mat_takes_a_gradient_in_some_components_only():
    case = Case(Compose([Cut(), Brightness(0.5)]), box((0, 0.5), (0, 0.5), (-0.5, 0.5)), [1, 1, 0.5], [0, 0, 0])
    model = network()
    check_equal(MAT(case.kernel, 3, 0.5), model, ascent_by_hand(model, case, 3, 0.5), 1)


def attack_by_hand(model, attack):
    """Madry et al. 2018, section 2.1, a sample at a time: [B] lists of one image."""
    images_of = []
    for j, (x, y) in enumerate(zip(X, Y, strict=True)):
        point = x
        if attack.random_start:
            point = (x + draw_in_ball(x[None], attack.eps, KEY, INDEX[j : j + 1], attack.norm)[0]).clamp(0, 1)
        for _ in range(attack.steps):
            point = point.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(loss_by_hand(model, point, y), point)
            if attack.norm == math.inf:
                delta = (point.detach() + attack.step * gradient.sign() - x).clamp(-attack.eps, attack.eps)
            else:
                delta = ball(attack.eps)(point.detach() + attack.step * gradient / gradient.norm() - x)
            point = (x + delta).clamp(0, 1)
        images_of.append([point])
    return images_of


@pytest.mark.parametrize("attack", [
    PGD(math.inf, eps=0.125, step=0.03, steps=7, loss="cross_entropy"),
    PGD(math.inf, eps=0.125, step=0.03, steps=3, random_start=False, loss="cross_entropy"),
    PGD(2, eps=1.0, step=0.3, steps=7, loss="cross_entropy"),
    PGD(2, eps=1.0, step=0.3, steps=3, random_start=False, loss="cross_entropy"),
], ids=["linf", "linf-from-x", "l2", "l2-from-x"])  # fmt: skip
def test_adversarial_training(attack):
    model = network()
    images_of = attack_by_hand(model, attack)
    for weight in WEIGHTS:
        check_equal(AdversarialTraining(attack, weight), model, images_of, weight)


@pytest.mark.parametrize("attack", [FGSM(0.1), BG()])
def test_adversarial_training_with_any_attack(attack):
    model = network()
    found = attack(model, X, Y, key=KEY, index=INDEX)
    check_equal(AdversarialTraining(attack), model, [[point] for point in found.point], 0)


def test_gaussian_augmentation():
    model, sigma = network(), 0.25
    noise = random.normal(KEY, INDEX, 1, SIZE)[0].double().view(X.shape)
    images_of = [[(x + sigma * own).clamp(0, 1)] for x, own in zip(X, noise, strict=True)]
    for weight in WEIGHTS:
        check_equal(GaussianAugmentation(sigma, weight), model, images_of, weight)


def test_published_defaults():
    kernel = Fade()
    assert MRT(kernel) == MRT(kernel, 10, 1.0, "batch", None, None)
    assert MAT(kernel) == MAT(kernel, 10, 0.1, 1.0, "centre")
    assert MDA(kernel) == MDA(kernel, 3, 1.0)
    attack = PGD(math.inf, eps=8 / 255, step=0.01, steps=20, loss="cross_entropy")
    assert AdversarialTraining() == AdversarialTraining(attack, 0.0)
    assert GaussianAugmentation() == GaussianAugmentation(0.1, 1.0)
