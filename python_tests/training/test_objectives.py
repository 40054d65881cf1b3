"""Each objective against a plain loop over samples and draws in float64, what dropout depends on, and bad input."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import nn

import robustperf as rp
from robustperf import random
from robustperf.attacks import BG, FGSM, PGD
from robustperf.nets import RobeyCNN
from robustperf.nuisance import BackgroundColour, Brightness, Compose, L2Ball, Rotation
from robustperf.training import ERM, MAT, MDA, MRT, AdversarialTraining, GaussianAugmentation

KEY = 2**40 + 3
Y = torch.tensor([2, 0, 1, 2])
INDEX = torch.tensor([7, 2**33, 0, 11])
X = torch.rand(4, 1, 6, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
SIZE = 6 * 7


class Fade(rp.Kernel):
    """x (1 - delta_1) + delta_2 delta_1, delta in [0, 1/2]^2: a kernel of one's own."""

    def dim_for(self, shape):
        return 2

    def sample_for(self, shape, key, index, draws, *, backend=None):
        return 0.5 * random.uniform(key, index, draws, 2, backend=backend)

    def transform(self, x, delta, *, backend=None):
        share, grey = (part[..., None, None] for part in delta[..., None].unbind(2))
        return x * (1 - share) + share * grey

    def project(self, delta, shape=None):
        return delta.clamp(0, 0.5)


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
    """A kernel with what MAT has to know of it, written by hand: Delta's projection, radii and centre."""

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
    # 0 is no colour of this Delta, and the images become RGB
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


def network(channels=1):
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(channels, 3, 3), nn.Tanh(), nn.Flatten(), nn.Linear(60, 3)).double()


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
    """[B] numbers of the draws of the highest loss, from losses [k][B]."""
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
    assert k < 7 or by_sample != by_batch  # else the test cannot tell them apart
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


def test_mat_is_content_with_a_gradient_in_some_components():
    case = Case(Compose([Cut(), Brightness(0.5)]), box((0, 0.5), (0, 0.5), (-0.5, 0.5)), [1, 1, 0.5], [0, 0, 0])
    model = network()
    check_equal(MAT(case.kernel, 3, 0.5), model, ascent_by_hand(model, case, 3, 0.5), 1)


def attack_by_hand(model, attack):
    """Madry et al. 2018, section 2.1, a sample at a time: [B] lists of one image."""
    images_of = []
    for j, (x, y) in enumerate(zip(X, Y, strict=True)):
        point = x
        if attack.random_start:
            point = (x + attack.draw(x[None], attack.eps, KEY, INDEX[j : j + 1])[0]).clamp(0, 1)
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


# what an objective depends on

OBJECTIVES = {
    "erm": ERM(), "mrt": MRT(Brightness(), 3, selection="sample"), "mrt-batch": MRT(Brightness(), 3),
    "mat": MAT(Rotation(), 2), "mda": MDA(Compose([Rotation(), Fade()]), 2),
    "adversarial": AdversarialTraining(PGD(steps=2), 0.5), "gaussian": GaussianAugmentation(),
}  # fmt: skip
every_objective = pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=OBJECTIVES)


@pytest.fixture
def dropping():
    """A network in training mode whose every pass drops."""
    torch.manual_seed(0)
    return RobeyCNN(1, size=12, width=4, classes=3).double().train()


BATCH = torch.rand(4, 1, 12, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@every_objective
def test_draws_and_dropout_depend_on_key_and_index_only(objective, dropping):
    def loss(rows, key=KEY):
        return objective(dropping, BATCH[rows], Y[rows], key=key, index=INDEX[rows])

    whole = loss([0, 1, 2, 3])
    torch.testing.assert_close(loss([3, 1, 0, 2]), whole)
    assert not torch.allclose(loss([0, 1, 2, 3], KEY + 1), whole)
    if getattr(objective, "selection", None) != "batch":
        torch.testing.assert_close((loss([0, 1]) + loss([2, 3])) / 2, whole)
    other = objective(dropping, BATCH, Y, key=KEY, index=INDEX + 1)
    assert not torch.allclose(other, whole)


@every_objective
def test_any_layout_of_the_images(objective, dropping):
    expected = objective(dropping, BATCH, Y, key=KEY, index=INDEX)
    for x in (BATCH.to(memory_format=torch.channels_last), BATCH.mT.contiguous().mT, BATCH.repeat(1, 2, 1, 1)[:, ::2]):
        torch.testing.assert_close(objective(dropping, x, Y, key=KEY, index=INDEX), expected)


@every_objective
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_loss_is_float32_at_least(objective, dtype):
    model = network().float().to(dtype)
    loss = objective(lambda x: model(x.to(dtype)), X.float(), Y, key=KEY, index=INDEX)
    assert loss.dtype == torch.float32 and loss.isfinite()
    loss.backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@every_objective
def test_the_callers_gradient_in_x(objective):
    x = X.clone().requires_grad_()
    objective(network(), x, Y, key=KEY, index=INDEX).backward()
    assert getattr(objective, "weight", 1) == 0 or x.grad.any()


# bad input


@every_objective
@pytest.mark.parametrize(
    "change, error, message",
    [
        ({"x": X[:0], "y": Y[:0], "index": INDEX[:0]}, ValueError, "x: expected at least one image, got shape"),
        ({"x": X.long()}, TypeError, "x: expected torch.float32 or torch.float64, got torch.int64"),
        ({"x": X.half()}, TypeError, "x: expected .*, got torch.float16"),
        ({"x": X.tolist()}, TypeError, "x: expected a tensor, got list"),
        ({"x": X.to("meta")}, ValueError, "y: expected a tensor on meta, got one on cpu"),
        ({"y": Y.int()}, TypeError, "y: expected torch.int64, got torch.int32"),
        ({"y": Y.double()}, TypeError, "y: expected torch.int64, got torch.float64"),
        ({"y": Y[:3]}, ValueError, r"y: expected shape \[4\], got \[3\]"),
        ({"y": Y[:1]}, ValueError, r"y: expected shape \[4\], got \[1\]"),
        ({"y": Y[:, None]}, ValueError, r"y: expected shape \[4\], got \[4, 1\]"),
        ({"y": Y + 1}, ValueError, "(y|labels): expected labels in 0..2, got 3"),
        ({"y": Y - 1}, ValueError, "(y|labels): expected labels in 0..2, got -1"),
        ({"y": Y.where(Y != 0, -100)}, ValueError, "(y|labels): expected labels in 0..2, got -100"),
        ({"y": None}, TypeError, "y: expected a tensor, got NoneType"),
        ({"index": INDEX[:3]}, ValueError, r"index: expected shape \[4\], got \[3\]"),
        ({"index": INDEX.int()}, TypeError, "index: expected torch.int64, got torch.int32"),
        ({"index": -INDEX}, ValueError, "index: expected numbers in 0.."),
        ({"index": range(4)}, TypeError, "index: expected a tensor, got range"),
        ({"key": -1}, ValueError, r"key: expected an integer in 0..2\^64-1, got -1"),
        ({"key": 2**64}, ValueError, "key: expected an integer in"),
        ({"key": 0.5}, ValueError, "key: expected an integer in"),
        ({"model": "net"}, TypeError, "'str' object is not callable|model: expected a module or a callable, got str"),
        ({"model": lambda x: x.flatten(1)[:, 0]}, ValueError, r"model\(x\): expected shape"),
        ({"model": lambda x: x.flatten(1)[:, :1]}, ValueError, r"model\(x\): expected logits of at least two classes"),
        ({"model": lambda x: x.flatten(1)[:1, :3]}, ValueError, r"model\(x\): expected shape"),
        ({"model": lambda x: x.flatten(1).tolist()}, TypeError, r"model\(x\): expected a tensor, got list"),
    ],
)
def test_errors_of_a_call(objective, change, error, message):
    arguments = {"model": network(), "x": X, "y": Y, "key": KEY, "index": INDEX} | change
    with pytest.raises(error, match=message):
        objective(arguments.pop("model"), arguments.pop("x"), arguments.pop("y"), **arguments)


@pytest.mark.parametrize("make", [MRT, MDA, MAT])
def test_a_weight_wants_clean_images_of_the_drawn_ones_shape(make):
    with pytest.raises(ValueError, match=r"weight: .* \[B, 1, 6, 7\] .* \[3, 6, 7\]: expected 0, got 0.5"):
        make(BackgroundColour(), 2, weight=0.5)(network(3), X, Y, key=KEY, index=INDEX)


@pytest.mark.parametrize("make", [MRT, MDA, MAT])
def test_images_that_the_kernel_cannot_take(make):
    for kernel, x in (
        (BackgroundColour(), X.expand(4, 3, 6, 7)),
        (Brightness(), X + 1),
        (Brightness(), X[:, 0]),
        (Brightness(), X * math.nan),
    ):
        with pytest.raises(ValueError, match="^x: "):
            make(kernel, 2, weight=0)(network(3), x, Y, key=KEY, index=INDEX)


@pytest.mark.parametrize("make", [MRT, MAT, MDA])
@pytest.mark.parametrize(
    "change, error, message",
    [
        ({"kernel": "brightness"}, TypeError, "kernel: expected a Kernel, got str"),
        ({"kernel": Brightness}, TypeError, "kernel: expected a Kernel, got ABCMeta"),
        ({"kernel": None}, TypeError, "kernel: expected a Kernel, got NoneType"),
        ({"k": 0}, ValueError, "k: expected an integer above 0, got 0"),
        ({"k": -1}, ValueError, "k: expected an integer above 0, got -1"),
        ({"k": 2.0}, ValueError, "k: expected an integer above 0, got 2.0"),
        ({"k": True}, ValueError, "k: expected an integer above 0, got True"),
        ({"k": None}, ValueError, "k: expected an integer above 0, got None"),
    ],
)
def test_errors_of_kernel_and_k(make, change, error, message):
    with pytest.raises(error, match=message):
        make(**{"kernel": Brightness()} | change)


@pytest.mark.parametrize(
    "make",
    [
        lambda **settings: MRT(Brightness(), **settings),
        lambda **settings: MAT(Brightness(), **settings),
        lambda **settings: MDA(Brightness(), **settings),
        AdversarialTraining,
        GaussianAugmentation,
    ],
)
@pytest.mark.parametrize("weight", [-1, -1e-9, math.nan, math.inf, "1", None, True, [1.0]])
def test_errors_of_weight(make, weight):
    with pytest.raises(ValueError, match="weight: expected a finite number >= 0, got"):
        make(weight=weight)


@pytest.mark.parametrize(
    "make, change, error, message",
    [
        (MRT, {"selection": "worst"}, ValueError, "selection: expected one of sample, batch, got 'worst'"),
        (MRT, {"selection": None}, ValueError, "selection: expected one of sample, batch, got None"),
        (MRT, {"selection_dtype": torch.float64}, ValueError, "selection_dtype: expected None, .*, got torch.float64"),
        (MRT, {"selection_dtype": torch.float32}, ValueError, "selection_dtype: expected None, .*, got torch.float32"),
        (MRT, {"selection_dtype": "bfloat16"}, ValueError, "selection_dtype: expected None, .*, got 'bfloat16'"),
        (MRT, {"chunk": 0}, ValueError, "chunk: expected an integer above 0, got 0"),
        (MRT, {"chunk": 1.5}, ValueError, "chunk: expected an integer above 0, got 1.5"),
        (MRT, {"chunk": True}, ValueError, "chunk: expected an integer above 0, got True"),
        (MAT, {"step": 0}, ValueError, "step: expected a finite number above 0, got 0"),
        (MAT, {"step": math.inf}, ValueError, "step: expected a finite number above 0, got inf"),
        (MAT, {"step": None}, ValueError, "step: expected a finite number above 0, got None"),
        (MAT, {"start": "zero"}, ValueError, "start: expected one of centre, identity, got 'zero'"),
        (MAT, {"start": None}, ValueError, "start: expected one of centre, identity, got None"),
    ],
)
def test_errors_of_other_settings(make, change, error, message):
    with pytest.raises(error, match=message):
        make(Brightness(), **change)


@pytest.mark.parametrize("attack", ["pgd", PGD, None, lambda *arguments: None])
def test_errors_of_attack(attack):
    with pytest.raises(TypeError, match="attack: expected an Attack, got"):
        AdversarialTraining(attack)


@pytest.mark.parametrize("sigma", [0, -0.1, math.nan, math.inf, "0.1", None])
def test_errors_of_sigma(sigma):
    with pytest.raises(ValueError, match="sigma: expected a finite number above 0, got"):
        GaussianAugmentation(sigma)
