"""Under `torch.set_default_dtype(torch.float64)` everything is as without it, to the bit: what the library creates
internally, networks included, is float32 where images are."""

import math
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.svm import SVC

import robustperf as rp
from robustperf import nets, nuisance, training
from robustperf.attacks import BG, FGSM, PGD
from robustperf.names import CORRUPTIONS
from robustperf.robustness import MarginCurve, Score, basic_robustness, closest_boundary, line_search

X = torch.rand(12, 3, 16, 16, generator=torch.Generator().manual_seed(0))
Y, INDEX, KEY = torch.arange(12) % 4, torch.arange(12), 5


@contextmanager
def default(dtype):
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


def network():
    torch.manual_seed(0)
    return nets.build("small-cnn", in_channels=3, size=16, classes=4, width=4)


def tensors(result):
    """All tensors of a result."""
    if isinstance(result, torch.Tensor):
        return [result.detach()]
    if isinstance(result, np.ndarray):
        return [torch.from_numpy(result)]
    if isinstance(result, dict):
        result = list(result.values())
    if isinstance(result, list | tuple):
        return [tensor for each in result for tensor in tensors(each)]
    return [] if not hasattr(result, "__dict__") else tensors(list(vars(result).values()))


def assert_not_reached(function):
    with default(torch.float32):
        want = tensors(function())
    with default(torch.float64):
        got = tensors(function())
    assert want and len(got) == len(want)
    for left, right in zip(got, want, strict=True):
        assert left.dtype == right.dtype
        torch.testing.assert_close(left, right, rtol=0, atol=0, equal_nan=True)


KERNELS = {
    "photometric": lambda: nuisance.Compose([nuisance.Brightness(), nuisance.Contrast(), nuisance.Saturation(),
                                             nuisance.Hue(), nuisance.Gamma(), nuisance.Decolourise()]),
    "background": nuisance.BackgroundColour.blue_to_red, "affine": nuisance.Affine, "rotation": nuisance.Rotation,
    "blur": nuisance.Blur, "fog": nuisance.Fog, "gaussian": nuisance.GaussianNoise, "impulse": nuisance.ImpulseNoise,
    "shot": nuisance.ShotNoise, "L1": lambda: nuisance.L1Ball(0.5), "L2": lambda: nuisance.L2Ball(0.5),
    "Linf": lambda: nuisance.LinfBall(0.5), "augmix": nuisance.AugMix,
    "mixed": lambda: nuisance.Compose([nuisance.Rotation(), nuisance.L1Ball(0.5)]),
    "manifold": lambda: nuisance.OnManifold(X, 100.0),
    "label": lambda: nuisance.LabelAware(nuisance.L2Ball(0.1), lambda x: (x.mean((1, 2, 3)) > 0).long()),
    **{name: lambda name=name: nuisance.MnistC(name) for name in CORRUPTIONS},
}  # fmt: skip


@pytest.mark.parametrize("make", KERNELS.values(), ids=KERNELS)
@pytest.mark.parametrize("on", [None, "reference"])
def test_kernels(make, on):
    def function():
        kernel, shape = make(), (3, 16, 16)
        delta = kernel.sample(KEY, INDEX, 2, shape=shape, backend=on)
        made = kernel(X, delta, backend=on)
        return (
            delta,
            made,
            kernel.draw(X, key=KEY, index=INDEX, draws=2, backend=on),
            kernel.radius_for(shape),
            kernel.project(delta, shape),
            kernel.defined(X),
        )

    assert_not_reached(function)


OBJECTIVES = {
    "ERM": training.ERM, "MRT": lambda: training.MRT(nuisance.Brightness(), k=3),
    "MRT-batch": lambda: training.MRT(nuisance.Brightness(), k=3, selection="batch"),
    "MAT": lambda: training.MAT(nuisance.Rotation(), k=2), "MAT-ball": lambda: training.MAT(nuisance.L1Ball(0.5), k=2),
    "MDA": lambda: training.MDA(nuisance.Fog()), "AugMix": training.AugMix,
    "Gaussian": training.GaussianAugmentation, "Hein": lambda: training.CrossLipschitz(0.1),
    "adversarial": lambda: training.AdversarialTraining(PGD(steps=2)),
}  # fmt: skip


@pytest.mark.parametrize("make", OBJECTIVES.values(), ids=OBJECTIVES)
def test_objectives_and_their_gradients(make):
    def function():
        model = network()
        loss = make()(model, X, Y, key=KEY, index=INDEX)
        loss.backward()
        return loss, [parameter.grad for parameter in model.parameters()]

    assert_not_reached(function)


@pytest.mark.parametrize("optimizer", ["adadelta", "adam", "sgd"])
def test_fit_and_evaluate(optimizer, tmp_path):
    def function():
        model = network()
        folder = tmp_path / str(torch.get_default_dtype())
        fitted = training.fit(
            model,
            training.MRT(nuisance.Brightness(), k=2),
            (X.numpy(), Y.numpy()),
            epochs=2,
            batch_size=4,
            optimizer=optimizer,
            progress=False,
            out=folder,
        )
        return fitted.steps, model.state_dict(), training.evaluate(model, (X, Y))

    assert_not_reached(function)


def test_cotraining():
    def function():
        model = network()
        torch.manual_seed(1)
        generator = nets.TiboGenerator(3, width=4, layers=1)
        training.fit(
            model,
            training.CoTrain(model, generator, 1.0),
            (X, Y),
            epochs=1,
            batch_size=4,
            validation=None,
            progress=False,
        )
        return model.state_dict(), generator.state_dict()

    assert_not_reached(function)


@pytest.mark.parametrize("norm", [1, 2, math.inf])
def test_margins(norm):
    def function():
        found = rp.margins(
            network(),
            X,
            attacks=[FGSM(), PGD(steps=3), PGD(2, steps=3), BG(norm, steps=2)],
            norm=norm,
            keep_points=True,
        )
        return found, MarginCurve.from_margins(found)

    assert_not_reached(function)


@pytest.mark.parametrize("on", [None, "reference"])
def test_searches(on):
    def function():
        model, other = network(), X.flip(0)
        return (
            line_search(model, X, other, backend=on),
            line_search(model, X, other, method="bisection", probes=2, backend=on),
            closest_boundary(model, X, torch.stack([other, 1 - X]), backend=on),
        )

    assert_not_reached(function)


def test_robustness_and_scores():
    def function():
        model, ball = network(), nuisance.L2Ball(1.0)
        family = nuisance.ball_family(1.0)
        return (
            basic_robustness(model, X, ball, samples=64, width=0.3),
            Score(family, G="empirical", nodes=3)(model, X, samples=8),
            Score(ball)(model, shape=(3, 16, 16), points=8, samples=8),
        )

    assert_not_reached(function)


@pytest.mark.parametrize("name", nets.NAMES)
def test_networks(name):
    def function():
        torch.manual_seed(0)
        small = {} if name in ("lenet", "resnet50", "robey-cnn") else {"width": 2}
        size = {} if name in ("resnet20", "resnet50") else {"size": 32}
        model = nets.build(name, in_channels=3, classes=4, **small, **size).eval()
        torch.manual_seed(0)
        direct = type(model)(in_channels=3, classes=4, **small, **size).eval()
        x = torch.rand(2, 3, 32, 32, dtype=torch.float32, generator=torch.Generator().manual_seed(0))
        return model.state_dict(), direct.state_dict(), model(x)

    assert_not_reached(function)
    assert all(value.dtype == torch.float32 for value in tensors(function()) if value.is_floating_point())


def test_draws_and_operations():
    def function():
        logits = torch.rand(3, 12, 4, dtype=torch.float32, generator=torch.Generator().manual_seed(0))
        w = torch.rand(12, 9, dtype=torch.float32, generator=torch.Generator().manual_seed(1)) - 0.5
        out = [rp.random.uniform(KEY, INDEX, 2, 3), rp.random.normal(KEY, INDEX, 2, 3)]
        for backend in (None, "reference"):
            out += [
                rp.ops.best_of_k(logits, Y, backend=backend),
                rp.ops.logit_gap(logits[0], Y),
                rp.ops.halfspace_box_projection(
                    w.abs(), w, torch.full((12,), 0.1, dtype=torch.float64), backend=backend
                ),
                rp.ops.ball_box_projection(w.abs(), w, w[:, 0].abs(), backend=backend),
                rp.ops.rbf_decision(w, w[:5], w[:5].T[:3].contiguous(), w[0, :3].contiguous(), 0.5, backend=backend),
            ]
        return out

    assert_not_reached(function)


@pytest.mark.parametrize("estimator, method", [(SVC, "decision_function"), (network, "predict_proba")])
def test_estimators(estimator, method):
    def function():
        shifted = rp.transfer.TransferClassifier(estimator(), epochs=1, random_state=0, image_shape=(3, 16, 16))
        shifted.fit(X.numpy(), Y.numpy()).adapt((0.8 * X).numpy())
        return shifted.transform(X.numpy()), getattr(shifted, method)(X.numpy())

    assert_not_reached(function)


def test_an_svm_as_a_module():
    svc = SVC().fit(X.flatten(1).numpy(), Y.numpy())
    assert_not_reached(lambda: rp.transfer.SVMModule.from_sklearn(svc)(X.flatten(1)))


def test_data(tmp_path):
    for name in "ab":
        (tmp_path / "train" / name).mkdir(parents=True)
        Image.new("RGB", (20, 20), (10, 200, 30)).save(tmp_path / "train" / name / "0.png")

    def function():
        folder, digits = rp.data.load(tmp_path, "train", size=8), rp.data.load("digits", "train").limit(8)
        return (
            folder.read(),
            folder[0],
            digits,
            digits.resized(12),
            digits.rgb(),
            rp.data.brightness(digits.x),
            rp.data.contrast(digits.x),
        )

    assert_not_reached(function)
