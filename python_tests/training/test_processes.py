"""Two processes on gloo compute what one computes."""

import os
import warnings

import pytest
import torch
from torch import nn

import robustperf as rp
from python_tests.support import processes
from python_tests.training.test_learners import Imitation
from robustperf import nets
from robustperf.kernel import Kernel
from robustperf.nuisance import Brightness
from robustperf.training import ADDA, MDA, MRT, CoTrain, evaluate, fit


class Recorded(Kernel):
    """Brightness that records every delta by step, sample and draw."""

    inner = Brightness(0.4)

    def __init__(self):
        self.drawn = {}

    def dim_for(self, shape):
        return 1

    def sample_for(self, shape, key, index, draws, *, backend=None):
        delta = self.inner.sample_for(shape, key, index, draws)
        for draw, row in zip(draws.tolist(), delta[:, :, 0].tolist(), strict=True):
            self.drawn |= {(key, sample, draw): value for sample, value in zip(index.tolist(), row, strict=True)}
        return delta

    def transform(self, x, delta, *, backend=None):
        return self.inner.transform(x, delta)

    def __repr__(self):
        return "recorded"


def network(dtype):
    torch.manual_seed(0)
    return nets.RobeyCNN(1, 12, 10, width=4).to(dtype)  # with dropout


def work():
    """Steps and weights of runs in both precisions, the draws, and an evaluation."""
    digits = rp.data.load("digits", "train").limit(230).resized(12)
    found = {}
    for name, dtype, make, optimizer in (
        ("MRT sample", torch.float32, lambda kernel: MRT(kernel, k=3, selection="sample"), "sgd"),
        ("MRT batch", torch.float32, lambda kernel: MRT(kernel, k=3), "sgd"),
        ("MDA", torch.float64, lambda kernel: MDA(kernel, k=2), "adadelta"),
        ("MRT", torch.float64, lambda kernel: MRT(kernel, k=3), "adadelta"),
    ):
        model, kernel = network(dtype), Recorded()
        data = [(x.to(dtype), y) for x, y in zip(digits.x, digits.y, strict=True)]
        fitted = fit(model, make(kernel), data, epochs=2, batch_size=32, optimizer=optimizer, progress=False, seed=1)
        found[name] = {
            "steps": fitted.steps, "epochs": [row["validation_accuracy"] for row in fitted.epochs],
            "weights": dict(model.state_dict()), "drawn": kernel.drawn,
        }  # fmt: skip
    model = network(torch.float64)
    generator = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nets.Dropout(0.2), nn.Conv2d(4, 1, 3, padding=1)).double()
    fitted = fit(
        model,
        CoTrain(model, generator, 0.5),
        data,
        epochs=2,
        batch_size=32,
        optimizer="adadelta",
        progress=False,
        seed=1,
    )
    found["CoTrain"] = {
        "steps": fitted.steps, "epochs": [row["validation_accuracy"] for row in fitted.epochs],
        "weights": {**model.state_dict(), **{f"generator {name}": value for name, value in
                                             generator.state_dict().items()}},
    }  # fmt: skip
    peer = nn.Sequential(nets.Dropout(0.1), nets.SmallCNN(1, 12, width=2)).double()
    learners = network(torch.float64), peer, nn.Sequential(nn.Linear(10, 1)).double()
    fitted = fit(
        learners[0], Imitation(*learners), data, epochs=2, batch_size=32, optimizer="adam", progress=False, seed=1
    )
    found["three learners"] = {
        "steps": fitted.steps, "epochs": [row["validation_accuracy"] for row in fitted.epochs],
        "weights": {f"{place} {name}": value for place, learner in enumerate(learners)
                    for name, value in learner.state_dict().items()},
    }  # fmt: skip
    model = network(torch.float64)
    objective = ADDA(1 - digits.x, model, width=8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the source classifier is not trained
        fitted = fit(model, objective, data, validation=None, batch_size=32, epochs=1, optimizer="adam", progress=False)
    found["ADDA"] = {
        "steps": fitted.steps[:, [0, 2, 3]], "epochs": [],
        "weights": {**model.state_dict(), **objective.discriminator.state_dict()},
    }  # fmt: skip
    model = network(torch.float32)
    seen = evaluate(model, digits, batch_size=50)
    found["evaluation"] = {"rank": seen.rank, "loss": seen.loss, "label": seen.label}
    return found


def save_work(folder):
    torch.save(work(), folder / f"{os.environ['RANK']}.pt")


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """The results of one process, and of each of two."""
    folder = tmp_path_factory.mktemp("processes")
    processes.on_two_processes(save_work, folder, log=folder / "log")
    return work(), [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("name, tolerance", [
    ("MRT sample", 2e-5), ("MRT batch", 2e-5), ("MDA", 1e-9), ("MRT", 1e-9), ("CoTrain", 1e-9),
    ("three learners", 1e-9), ("ADDA", 1e-9),
])  # fmt: skip
def test_losses_and_weights_are_those_of_one(both, name, tolerance):
    one, two = both
    for of_one_of_two in two:
        found = of_one_of_two[name]
        torch.testing.assert_close(found["steps"], one[name]["steps"], rtol=tolerance, atol=tolerance)
        for key, value in one[name]["weights"].items():
            torch.testing.assert_close(found["weights"][key], value, rtol=10 * tolerance, atol=10 * tolerance)
        assert found["epochs"] == one[name]["epochs"]


@pytest.mark.parametrize("name", ["MRT sample", "MRT batch", "MDA", "MRT"])
def test_draws_are_exactly_those_of_one(both, name):
    one, two = both
    parts = [found[name]["drawn"] for found in two]
    assert {**parts[0], **parts[1]} == one[name]["drawn"] and parts[0].keys() != one[name]["drawn"].keys()


def test_an_evaluation_is_the_same_to_the_last_bit(both):
    one, two = both
    for found in two:
        for name, value in one["evaluation"].items():
            assert torch.equal(found["evaluation"][name], value), name
