"""Numbers of NumPy as settings, as a sweep over `np.arange` gives them: they are Python's own from the check on."""

import json
import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.svm import SVC

import robustperf as rp
from robustperf import attacks, check, nets, nuisance, training
from robustperf.nets import weights_file
from robustperf.robustness import Score, basic_robustness, line_search

INTEGER, FLOAT, DOUBLE = np.int64(2), np.float32(0.25), np.float64(0.25)


def test_plain():
    given = (np.int64(3), np.float32(0.5), np.bool_(True), np.str_("a"), [np.uint8(1)], {np.int64(0): (np.float64(2),)})
    want = (3, 0.5, True, "a", [1], {0: (2.0,)})
    got = check.plain(given)
    assert got == want and repr(got) == repr(want)
    array, shape = np.zeros(2), torch.Size([1])
    assert check.plain(array) is array and check.plain(shape) is shape and check.plain(None) is None


CALLS = {
    "MRT": lambda i, f: training.MRT(nuisance.Brightness(f), k=i, weight=f, chunk=i),
    "MAT": lambda i, f: training.MAT(nuisance.Brightness(f), k=i, step=f, weight=f),
    "MDA": lambda i, f: training.MDA(nuisance.Brightness(f), k=i, weight=f),
    "AugMix": lambda i, f: training.AugMix(weight=f),
    "CrossLipschitz": lambda i, f: training.CrossLipschitz(f),
    "GaussianAugmentation": lambda i, f: training.GaussianAugmentation(sigma=f, weight=f),
    "AdversarialTraining": lambda i, f: training.AdversarialTraining(attacks.PGD(eps=f), weight=f),
    "FGSM": lambda i, f: attacks.FGSM(eps=f),
    "PGD": lambda i, f: attacks.PGD(i, eps=f, step=f, steps=i),
    "BG": lambda i, f: attacks.BG(i, (1 + f,), classes=i, steps=i),
    "Score": lambda i, f: Score(nuisance.L2Ball(f), nodes=i),
    "Brightness": lambda i, f: nuisance.Brightness((-f, f)),
    "Affine": lambda i, f: nuisance.Affine(f, (-f, f), f, None),
    "BackgroundColour": lambda i, f: nuisance.BackgroundColour(source=(f, f, f)),
    "Blur": lambda i, f: nuisance.Blur(f),
    "Fog": lambda i, f: nuisance.Fog(f),
    "GaussianNoise": lambda i, f: nuisance.GaussianNoise(f),
    "ImpulseNoise": lambda i, f: nuisance.ImpulseNoise(f),
    "ShotNoise": lambda i, f: nuisance.ShotNoise(f),
    "L1Ball": lambda i, f: nuisance.L1Ball(f),
    "L2Ball": lambda i, f: nuisance.L2Ball(f),
    "LinfBall": lambda i, f: nuisance.LinfBall(f),
    "Compose": lambda i, f: nuisance.Compose([nuisance.Rotation(f), nuisance.L1Ball(f)]),
    "AugMixKernel": lambda i, f: nuisance.AugMix(f, i),
}  # fmt: skip


@pytest.mark.parametrize("make", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("real", [FLOAT, DOUBLE], ids=["float32", "float64"])
def test_what_is_made_prints_as_of_pythons_own_numbers(make, real):
    """What `fit` compares when a run is resumed is this text."""
    got, want = make(INTEGER, real), make(int(INTEGER), float(real))
    assert repr(got) == repr(want) and "np." not in repr(got)
    assert not [value for value in vars(got).values() if isinstance(value, np.generic)]


def test_a_subclass_of_ones_own_has_python_numbers_too():
    @dataclass(frozen=True)
    class Mine(training.ERM):
        weight: float = 1.0

    @dataclass(frozen=True)
    class Checked(Mine):
        factor: float = 2.0

        def __post_init__(self):
            assert type(self.weight) is float and type(self.factor) is float

    assert repr(Mine(np.float64(3))).endswith("Mine(weight=3.0)")
    assert type(Checked(np.float64(3), np.float32(1)).factor) is float


X, Y = torch.rand(64, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(64) % 4


def linear():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 4))


@pytest.mark.parametrize("settings", [
    {"seed": np.int64(3)}, {"clip": np.float32(1)}, {"validation": np.float32(0.25)}, {"batch_size": np.int64(16)},
    {"epochs": np.int64(2)}, {"lr": np.float64(0.125)}, {"lr": (np.float64(0.125), np.float32(0.25))},
    {"lr": {np.int64(0): np.float64(0.125)}}, {"checkpoint_steps": np.int64(2)}, {"workers": np.int64(0)},
], ids=str)  # fmt: skip
def test_fit_writes_and_resumes_its_settings(tmp_path, settings):
    common = {"epochs": 1, "batch_size": 16, "optimizer": "sgd", "validation": None, "progress": False}
    objective = training.MRT(nuisance.Brightness(0.25), k=2, weight=np.float64(0.5))
    numpy, python = linear(), linear()
    training.fit(numpy, objective, (X, Y), out=tmp_path / "numpy", **common | settings)
    plain = check.plain(settings)
    training.fit(python, objective, (X, Y), out=tmp_path / "python", **common | plain)
    left, right = ((tmp_path / name / "settings.json").read_text() for name in ("numpy", "python"))
    assert left == right and json.loads(left)
    assert torch.equal(numpy[1].weight, python[1].weight)
    objective = training.MRT(nuisance.Brightness(0.25), k=2, weight=0.5)
    epochs = {"epochs": 3} if not isinstance(settings.get("lr"), tuple) else {}
    training.fit(linear(), objective, (X, Y), out=tmp_path / "numpy", resume=True, **common | plain | epochs)


def test_networks_and_their_files(tmp_path):
    sizes = {"in_channels": np.int64(1), "size": np.int64(16), "classes": np.int32(4)}
    for name in ("small-cnn", "tibo-cnn", "lenet", "robey-cnn", "resnet20"):
        given = {key: value for key, value in sizes.items() if name != "resnet20" or key != "size"}
        if name in ("small-cnn", "tibo-cnn", "resnet20"):
            given["width"] = np.int64(2)
        model = nets.build(name, **given)
        weights_file.save(tmp_path / "model.safetensors", model)
        assert weights_file.load(tmp_path / "model.safetensors").architecture == (name, check.plain(given))
        type(model)(**given)  # the constructor itself
    nets.TiboGenerator(np.int64(1), np.int64(2), np.int64(1))


def test_functions_take_them():
    model, kernel, index = linear(), nuisance.Brightness(0.25), torch.arange(8)
    pairs = [
        (
            lambda i, f: (
                rp.margins(
                    model,
                    X[:8],
                    attacks=[attacks.FGSM()],
                    norm=i,
                    bounds=(0 * f, 4 * f),
                    key=i,
                    batch_size=i,
                    probes=i,
                    tol=f,
                ).distance
            )
        ),
        (lambda i, f: line_search(model, X[:8], X[8:16], tol=f, probes=i).step.nan_to_num(posinf=2)),
        (lambda i, f: basic_robustness(model, X[:8], kernel, samples=i, confidence=f, key=i, batch_size=i).rho),
        (lambda i, f: training.evaluate(model, (X, Y), batch_size=i).loss),
        (lambda i, f: kernel.draw(X[:8], key=i, index=index, draws=i)),
        (lambda i, f: kernel.sample(i, index, i)),
        (lambda i, f: nuisance.L1Ball(f).sample(i, index, i, shape=(i, i, i))),
        (lambda i, f: rp.random.uniform(i, index, i, i)),
        (
            lambda i, f: rp.ops.best_of_k(
                torch.stack([model(X), model(X) + X[:, 0, 0, :4]]).detach(),
                Y,
                first=i,
                label_smoothing=f,
                ignore_index=i,
            )[0]
        ),
    ]
    for function in pairs:
        want = function(int(INTEGER), float(FLOAT))
        for real in (FLOAT, DOUBLE):
            assert torch.equal(function(INTEGER, real), want)


def test_an_estimator_takes_them_and_keeps_its_parameters():
    shape = tuple(np.array([1, 8, 8]))
    rows, labels = X.flatten(1).numpy(), Y.numpy()
    estimator = rp.transfer.TransferClassifier(
        SVC(),
        image_shape=shape,
        epochs=np.int64(1),
        batch_size=np.int64(32),
        lr=np.float64(1e-3),
        bounds=(np.float32(0), np.float32(1)),
        random_state=np.int64(0),
    )
    assert estimator.fit(rows, labels).adapt(rows).image_shape_ == (1, 8, 8)
    assert clone(estimator).get_params()["image_shape"] == shape
    for wrong in ((1, 8), (0, 8, 8), (1.5, 8, 8), "188", 8, None):
        with pytest.raises(ValueError, match="image_shape: expected"):
            check.image_shape("image_shape", wrong)
    assert check.image_shape("image_shape", np.array([1, 8, 8])) == (1, 8, 8)


def test_what_is_no_number_is_refused_as_before():
    for value in (np.float64("nan"), np.float64("inf"), np.int64(0), np.bool_(True), math.nan):
        with pytest.raises(ValueError, match="eps: expected"):
            attacks.FGSM(value)
    with pytest.raises(ValueError, match="k: expected an integer above 0, got 2.0"):
        training.MDA(nuisance.Brightness(), k=np.float64(2))
